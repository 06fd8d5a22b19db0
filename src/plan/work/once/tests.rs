//! Every state that a step can reach, within bounds: each pass may die after any of its writes, may see the Jobs as they
//! were a while ago, and Jobs and pods may be lost at any time.

use std::collections::{HashMap, VecDeque};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::*;
use crate::contract::{Did, Tallies, Tally, VERSION};

const KEY: &str = "hook/0/preRestore";
const LIMIT: SignedDuration = SignedDuration::from_secs(300);

/// What the cluster knows of a Job.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
struct Real {
    uid: u8,
    suspended: bool,
    deleting: bool,
    pod: PodState,
}

#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
enum PodState {
    None,
    Running,
    Succeeded,
    Failed,
    /// Its agent itself does not know how the action ended.
    Doubt,
    /// It is gone without a result.
    Lost,
    /// Its node does not answer.
    NodeGone,
}

#[derive(Clone, Debug)]
struct World {
    at: Timestamp,
    status: Option<HookStatus>,
    jobs: Vec<Real>,
    /// What the watches have delivered.
    seen: Vec<Real>,
    uids: u8,
    stop: bool,
    /// How often the action has really run.
    ran: u8,
    /// How it really ended.
    ended: Option<PodState>,
    /// Faults that may still happen.
    faults: u8,
    starts_blindly: bool,
}

/// A move, for the report of a failure.
type Move = String;

impl World {
    fn new(starts_blindly: bool) -> Self {
        Self {
            at: Timestamp::from_second(1_800_000_000).unwrap(),
            status: None,
            jobs: vec![],
            seen: vec![],
            uids: 0,
            stop: false,
            ran: 0,
            ended: None,
            faults: 2,
            starts_blindly,
        }
    }

    fn view(&self) -> Vec<JobSeen> {
        let of = |jobs: &[Real]| jobs.iter().map(see).collect::<Vec<_>>();
        let watched = of(&self.seen);
        // As `observe` does.
        if self.status.as_ref().is_some_and(|s| is_missed(s, &watched)) { of(&self.jobs) } else { watched }
    }

    /// The plan of a pass, and the entry that it writes.
    fn plan(&self) -> (Plan, HookStatus, bool) {
        let mut plan = Plan::nothing();
        let mut now = self.status.clone().unwrap_or_else(|| announce("preRestore", self.at));
        let jobs = self.view();
        let once = Once {
            run: "u",
            at: self.at,
            key: KEY,
            was: self.status.as_ref(),
            now: &mut now,
            jobs: &jobs,
            limit: LIMIT,
            stop: self.stop,
            at_once: false,
            plan: &mut plan,
        };
        let over = once.advance(|entry| {
            entry.pod = Some("web-0".into());
            Ok(Job { metadata: ObjectMeta { name: Some("j".into()), ..ObjectMeta::default() }, ..Job::default() })
        });
        (plan, now, over)
    }

    /// The first writes of a pass, in the controller's order.
    fn apply(&self, plan: &Plan, now: &HookStatus, writes: usize) -> Self {
        let mut after = self.clone();
        let mut left = writes;
        let mut more = || left.checked_sub(1).map(|n| left = n).is_some();
        for stop in &plan.stop_jobs {
            if !more() {
                return after;
            }
            for job in after.jobs.iter_mut().filter(|j| stop.uid == Some(j.uid.to_string())) {
                job.deleting = true;
            }
        }
        for job in &plan.jobs {
            if !more() {
                return after;
            }
            if after.jobs.is_empty() {
                after.uids += 1;
                let suspended = job.spec.as_ref().unwrap().suspend == Some(true) && !self.starts_blindly;
                after.jobs.push(Real { uid: after.uids, suspended, deleting: false, pod: PodState::None });
            }
        }
        for start in &plan.starts {
            if !more() {
                return after;
            }
            for job in after.jobs.iter_mut().filter(|j| start.uid == j.uid.to_string()) {
                job.suspended = false;
            }
        }
        if self.status.as_ref() != Some(now) && more() {
            after.status = Some(now.clone());
        }
        after
    }

    fn ways(&self) -> Vec<(Move, Self)> {
        let mut ways = vec![];
        let (plan, now, over) = self.plan();
        let writes = plan.stop_jobs.len()
            + plan.jobs.len()
            + plan.starts.len()
            + usize::from(self.status.as_ref() != Some(&now));
        for made in 1..=writes {
            ways.push((format!("pass {made}/{writes}"), self.apply(&plan, &now, made)));
        }
        assert!(writes > 0 || over || plan.requeue.is_some(), "nothing wakes the controller: {self:?}");
        if self.seen != self.jobs {
            ways.push(("watch".into(), Self { seen: self.jobs.clone(), ..self.clone() }));
        }
        if let Some(job) = self.jobs.first() {
            let with = |change: &dyn Fn(&mut Real)| {
                let mut after = self.clone();
                change(&mut after.jobs[0]);
                after
            };
            if job.pod == PodState::None && !job.suspended && !job.deleting {
                let mut after = with(&|j| j.pod = PodState::Running);
                after.ran += 1;
                ways.push(("starts".into(), after));
            }
            if job.pod == PodState::Running {
                for end in [PodState::Succeeded, PodState::Failed] {
                    let mut after = with(&|j| j.pod = end);
                    after.ended = Some(end);
                    ways.push((format!("{end:?}"), after));
                }
            }
            if job.deleting && job.pod != PodState::NodeGone {
                let mut after = self.clone();
                after.jobs.clear();
                ways.push(("gone".into(), after));
            }
            if self.faults > 0 {
                let faults = self.faults - 1;
                if job.pod == PodState::Running {
                    for end in [PodState::Lost, PodState::Doubt, PodState::NodeGone] {
                        ways.push((format!("{end:?}"), Self { faults, ..with(&|j| j.pod = end) }));
                    }
                }
                if !job.deleting {
                    ways.push(("deleted by a user".into(), Self { faults, ..with(&|j| j.deleting = true) }));
                }
                let mut after = Self { faults, ..self.clone() };
                after.jobs.clear();
                ways.push(("vanishes".into(), after));
            }
        }
        if self.faults > 0 && !self.stop {
            ways.push(("cancel".into(), Self { stop: true, faults: self.faults - 1, ..self.clone() }));
        }
        // Once at any time, and as often as the controller only waits.
        let later = self.at + SignedDuration::from_secs(4 * LIMIT.as_secs());
        if writes == 0 && !over {
            ways.push(("time passes".into(), Self { at: later, ..self.clone() }));
        } else if self.faults > 0 && !over {
            ways.push(("time passes".into(), Self { at: later, faults: self.faults - 1, ..self.clone() }));
        }
        ways
    }

    fn check(&self) -> Result<(), String> {
        let Some(status) = &self.status else {
            return if self.ran == 0 { Ok(()) } else { Err("it ran before it was announced".into()) };
        };
        let is = |phase| status.phase == phase;
        let holds = [
            (self.ran <= 1, "it ran twice"),
            (self.ran == 0 || may_have_run(status.phase), "it ran, and status says that it cannot have run"),
            (!is(HookPhase::Succeeded) || self.ended == Some(PodState::Succeeded), "it is called Succeeded"),
            (
                !(is(HookPhase::Failed) && self.ended == Some(PodState::Succeeded)),
                "it succeeded, its result was read, and status says Failed",
            ),
            (self.ran == 0 || status.job.is_some(), "it ran, and no Job is recorded"),
        ];
        holds.iter().find(|(holds, _)| !holds).map_or(Ok(()), |(_, what)| Err((*what).to_owned()))
    }

    /// What makes two states different: of the time, only how long the phase has lasted.
    fn print(&self) -> String {
        let mut same = self.clone();
        let since = self.status.as_ref().and_then(|s| s.since.as_ref()).map_or(self.at, |s| s.0);
        same.at = Timestamp::from_second(self.at.duration_since(since).as_secs().min(10_000)).unwrap();
        same.status.iter_mut().for_each(|s| s.since = None);
        format!("{same:?}")
    }
}

fn see(job: &Real) -> JobSeen {
    let mut outcome = Outcome { version: VERSION, run: "u".into(), ..Outcome::default() };
    let tally = |done| Answer::Did(Did { tallies: Tallies::default().with(ACTIONS, Tally::of(done, 1)) });
    let fails = |why| Some(Failure::new(Class::Fatal, why, "It failed."));
    let state = match job.pod {
        PodState::None | PodState::Running | PodState::NodeGone => JobState::Active { held: None },
        PodState::Succeeded => {
            outcome.answer = Some(tally(1));
            JobState::Done(Box::new(outcome))
        }
        PodState::Failed => {
            (outcome.answer, outcome.failure) = (Some(tally(0)), fails(reason::HOOK_FAILED));
            JobState::Done(Box::new(outcome))
        }
        PodState::Doubt => {
            outcome.failure = fails(reason::HOOK_IN_DOUBT);
            JobState::Done(Box::new(outcome))
        }
        PodState::Lost => JobState::Lost(Failure::new(Class::Transient, reason::DISRUPTED, "It was evicted.")),
    };
    JobSeen {
        name: "j".into(),
        uid: Some(job.uid.to_string()),
        key: KEY.into(),
        attempt: 1,
        deleting: job.deleting,
        given_up: job.deleting && job.pod == PodState::NodeGone,
        starts: false,
        suspended: job.suspended,
        defaults: None,
        is_stuck: false,
        address: None,
        lingers: false,
        state,
        parts: vec![],
        writes: vec![],
        is_unmade: false,
    }
}

/// Enters every state once. Returns the number of states and of ends by phase.
fn explore(starts_blindly: bool) -> Result<(usize, HashMap<String, usize>), String> {
    let start = World::new(starts_blindly);
    let mut known = HashMap::from([(start.print(), 0usize)]);
    let mut from: Vec<Option<(usize, Move)>> = vec![None];
    let mut next: Vec<Vec<usize>> = vec![vec![]];
    let mut over = vec![];
    let mut open = VecDeque::from([(0, start)]);
    while let Some((at, world)) = open.pop_front() {
        world.check().map_err(|what| {
            let (mut path, mut step) = (vec![], at);
            while let Some((before, way)) = &from[step] {
                path.push(way.clone());
                step = *before;
            }
            path.reverse();
            format!("{what}, after {path:?}")
        })?;
        if world.plan().2 {
            over.push((at, format!("{:?}", world.status.as_ref().unwrap().phase)));
        }
        for (way, after) in world.ways() {
            let id = from.len();
            let to = *known.entry(after.print()).or_insert(id);
            next[at].push(to);
            if to == id {
                from.push(Some((at, way)));
                next.push(vec![]);
                open.push_back((to, after));
            }
        }
    }
    // From every state, the step can end.
    let mut before: Vec<Vec<usize>> = vec![vec![]; next.len()];
    for (at, all) in next.iter().enumerate() {
        all.iter().for_each(|to| before[*to].push(at));
    }
    let mut ends = vec![false; next.len()];
    let mut open: Vec<usize> = over.iter().map(|(at, _)| *at).collect();
    while let Some(at) = open.pop() {
        if !std::mem::replace(&mut ends[at], true) {
            open.extend(&before[at]);
        }
    }
    if let Some(stuck) = ends.iter().position(|ends| !ends) {
        return Err(format!("state {stuck} has no way to an end"));
    }
    let mut phases = HashMap::new();
    over.into_iter().for_each(|(_, phase)| *phases.entry(phase).or_default() += 1);
    Ok((next.len(), phases))
}

/// Proves: C01.
#[test]
fn no_crash_and_no_loss_runs_a_hook_twice() {
    let (states, ends) = explore(false).unwrap();
    assert!(states > 500, "{states}");
    for phase in ["Succeeded", "Failed", "InDoubt", "Skipped"] {
        assert!(ends.contains_key(phase), "the search meets every end: {ends:?}");
    }
    println!("{states} states; {ends:?}");
}

#[test]
fn the_search_finds_a_job_that_is_not_created_suspended() {
    let found = explore(true).unwrap_err();
    assert!(found.contains("it ran"), "{found}");
}

#[test]
fn what_keeps_a_hook_from_its_begin_is_bounded_and_told() {
    let at = Timestamp::from_second(1_800_000_000).unwrap();
    let was = announce("preRestore", at);
    let run = |seconds: i64, before: &HookStatus| {
        let (mut plan, mut now) = (Plan::nothing(), before.clone());
        let at = at + SignedDuration::from_secs(seconds);
        let (jobs, stop) = (&[][..], false);
        let once = Once {
            run: "u",
            at,
            key: KEY,
            was: Some(before),
            now: &mut now,
            jobs,
            limit: LIMIT,
            stop,
            at_once: false,
            plan: &mut plan,
        };
        let not_ready = Failure::new(Class::Waiting, reason::HOOK_POD_NOT_READY, "web-0 is not ready.");
        once.advance(|_| Err(Hold::Wait(not_ready)));
        (now, plan.events.len())
    };
    let (waiting, events) = run(10, &was);
    assert_eq!((waiting.phase, waiting.reason.as_deref(), events), (HookPhase::Announced, Some("HookPodNotReady"), 1));
    assert_eq!(run(20, &waiting).1, 0, "one warning is enough");
    let (late, _) = run(301, &waiting);
    assert_eq!((late.phase, late.reason.as_deref()), (HookPhase::Failed, Some("HookPodNotReady")));
    assert!(late.message.unwrap().ends_with("within 5m0s. Last: web-0 is not ready."));
}
