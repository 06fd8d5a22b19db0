//! Every state that a restore can reach, within bounds, and what must hold in all of them.
//!
//! From the first state on, everything that can happen is tried: a pass that dies after any of its writes, every end of
//! every Job, a cancel, a deletion, the deadline. A state that was visited before is not entered again. `make states`
//! explores the full bounds, and prints what it has visited.
//!
//! The search is part of this project. Whether a run ends depends on what happens when no more faults occur, and the
//! model checkers that were considered (stateright) do not support fairness. Without fairness, the remaining search is
//! shorter than the code to use them.

mod cluster;
mod ends;
mod invariants;
mod print;

use std::collections::{HashMap, VecDeque};
use std::num::NonZero;
use std::rc::Rc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;

use crate::api::restore_session::{HostPhase, RestorePhase};
use crate::contract::Answer;
use crate::contract::restic::Restored;
use crate::names::condition;
use crate::plan::effects::{FinalizerChange, Plan};
use crate::plan::restore::rounds::Rounds;
use crate::plan::restore::run::RestoreRun;
use crate::plan::restore::tests::states::cluster::{Cluster, Move, Scene};
use crate::plan::seen::job_status::JobState;
use crate::plan::seen::surroundings::Surroundings;
use crate::plan::seen::target::TargetSeen;

/// What is explored.
#[derive(Clone, Copy, Debug)]
struct Bound {
    /// Number of hosts of each member; 0 for a member outside of the cluster.
    hosts: &'static [i32],
    sequential: bool,
    stop: bool,
    /// Maximum number of faults of Jobs in one run, of any kind and at any point.
    faults: usize,
    /// Maximum number of cancel, deletion and deadline in one run, at any point.
    turns: usize,
    /// `afterFailure: ScaleBack`.
    scale_back: bool,
    /// `extraneous: Delete`, and a foreign pod that may use a volume for a while, at any point.
    exact: bool,
}

impl Bound {
    const fn of(hosts: &'static [i32], sequential: bool, stop: bool, faults: usize, turns: usize) -> Self {
        Self { hosts, sequential, stop, faults, turns, scale_back: false, exact: false }
    }

    const fn scaled_back(self) -> Self {
        Self { scale_back: true, ..self }
    }

    const fn exact(self) -> Self {
        Self { exact: true, ..self }
    }
}

/// A deliberate defect, to prove that the search can find it.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    None,
    /// The order of members is not read.
    NoOrder,
    /// Earlier attempts at a step are ignored.
    OverlooksAttempts,
    /// Finished steps are forgotten, and a Job that is created twice has two names.
    RepeatsItself,
    /// The finalizer is never removed.
    KeepsFinalizer,
    /// The controller never requeues.
    NeverLooks,
    /// Ready is true for a failed run.
    SaysReady,
    /// Counts are not compared.
    TrustsTheAgent,
    /// A workload that is scaled to zero counts as deleted.
    ForgetsWorkloads,
    /// Every attempt counts as having written nothing.
    BelievesItUntouched,
    /// The answer of one Job of an attempt counts for an earlier Job that is gone.
    TakesTheLastForAll,
    /// Foreign pods are ignored.
    OverlooksVisitors,
    /// An agent that does not report deleted entries counts as having deleted none.
    TakesSilenceForNone,
    /// A request is sent without a check whether it was sent before.
    RepeatsBlindly,
}

impl Fault {
    /// Breaks the input of the planner.
    fn before(self, run: &mut Rc<RestoreRun>, seen: &mut Surroundings) {
        match self {
            Self::NoOrder => Rc::make_mut(run).sequential = false,
            Self::OverlooksAttempts => {
                let hosts: Vec<_> = run.state.members.iter().flat_map(|m| &m.stats).collect();
                let is_of = |key: &str, name: &str| key.ends_with(&format!("/{name}"));
                seen.jobs.retain(|j| {
                    !hosts.iter().any(|h| is_of(&j.key, &h.hostname) && h.attempt.is_some_and(|a| a > j.attempt))
                });
            }
            Self::RepeatsItself => {
                for host in Rc::make_mut(run).state.members.iter_mut().flat_map(|m| &mut m.stats) {
                    if host.phase == Some(HostPhase::Succeeded) {
                        host.phase = Some(HostPhase::Running);
                        seen.jobs.retain(|j| !j.key.ends_with(&format!("/{}", host.hostname)));
                    }
                }
            }
            Self::TrustsTheAgent => {
                for job in &mut seen.jobs {
                    if let JobState::Done(outcome) = &mut job.state
                        && let Some(Answer::Did(did)) = &mut outcome.answer
                    {
                        let r = Restored::of(&did.tallies).unwrap();
                        did.tallies = Restored { restored: r.planned, ..r }.tallies();
                    }
                }
            }
            Self::BelievesItUntouched => {
                for host in Rc::make_mut(run).state.members.iter_mut().flat_map(|m| &mut m.stats) {
                    host.unwritten = host.attempt;
                }
            }
            Self::TakesTheLastForAll => Rc::make_mut(run).rounds = Rounds::blind(),
            Self::OverlooksVisitors => {
                for target in &mut seen.targets {
                    if let TargetSeen::Found(target) = target {
                        target.others.clear();
                    }
                }
            }
            Self::TakesSilenceForNone => {
                for job in &mut seen.jobs {
                    if let JobState::Done(outcome) = &mut job.state
                        && let Some(Answer::Did(did)) = &mut outcome.answer
                    {
                        let r = Restored::of(&did.tallies).unwrap();
                        did.tallies = Restored { deleted: r.deleted.or(Some(0)), ..r }.tallies();
                    }
                }
            }
            Self::ForgetsWorkloads => {
                for target in &mut seen.targets {
                    let down = matches!(target, TargetSeen::Found(t) if t.replicas == 0 && t.pods.is_empty());
                    if down {
                        *target = TargetSeen::Missing(String::new());
                    }
                }
            }
            _ => {}
        }
    }

    /// Breaks the plan.
    fn after(self, plan: &mut Plan) {
        match self {
            Self::KeepsFinalizer if plan.finalizer == Some(FinalizerChange::Remove) => plan.finalizer = None,
            Self::NeverLooks => plan.requeue = None,
            Self::SaysReady => {
                let conditions = plan.status.as_mut().and_then(|s| s["conditions"].as_array_mut());
                let ready = conditions.into_iter().flatten().find(|c| c["type"] == condition::READY);
                if let Some(ready) = ready {
                    ready["status"] = "True".into();
                }
            }
            Self::RepeatsBlindly => {
                for job in &mut plan.jobs {
                    let pod = job.spec.as_mut().and_then(|s| s.template.spec.as_mut()).unwrap();
                    for variable in pod.containers.iter_mut().flat_map(|c| c.env.iter_mut().flatten()) {
                        let text = variable.value.take().unwrap_or_default();
                        variable.value = Some(text.replace("\"look_up\":true", "\"look_up\":false"));
                    }
                }
            }
            _ => {}
        }
    }
}

/// What a search has visited.
#[derive(Debug, Default)]
struct Visited {
    states: usize,
    moves: usize,
    succeeded: usize,
    failed: usize,
    gone: usize,
}

/// A broken invariant, and the path to it.
#[derive(Debug)]
struct Broken {
    what: String,
    path: Vec<Move>,
}

/// How a state was reached.
struct Entry {
    parent: Option<(u32, Move)>,
    /// The next state if no more faults occur; `None` at the end.
    fair: Option<u32>,
}

fn path(entries: &[Entry], mut at: usize) -> Vec<Move> {
    let mut moves = vec![];
    while let Some((before, step)) = &entries[at].parent {
        moves.push(step.clone());
        at = *before as usize;
    }
    moves.reverse();
    moves
}

/// States within which a fault must be found.
const MOST_WITH_A_FAULT: usize = 10_000;

/// Enters every state once. The newest state comes first, which keeps few states in memory. With a fault to find, the
/// oldest comes first, which finds the shortest path.
fn explore(bound: Bound, fault: Fault) -> Result<Visited, Broken> {
    let (scene, start) = Scene::new(bound, fault);
    let mut known = HashMap::from([(start.print(), 0u32)]);
    let mut entries = vec![Entry { parent: None, fair: None }];
    let mut open = VecDeque::from([(0u32, start)]);
    let mut met = Visited::default();
    while let Some((at, cluster)) = if fault == Fault::None { open.pop_back() } else { open.pop_front() } {
        if fault != Fault::None && entries.len() > MOST_WITH_A_FAULT {
            return Ok(met);
        }
        let broken = |what| Broken { what, path: path(&entries, at as usize) };
        let (ways, fair) = cluster.ways(&scene).map_err(broken)?;
        met.moves += ways.len();
        if ways.is_empty() {
            count_end(&cluster, &mut met);
        }
        for (way, (step, after)) in ways.into_iter().enumerate() {
            let next = u32::try_from(entries.len()).unwrap();
            let to = *known.entry(after.print()).or_insert(next);
            if to == next {
                entries.push(Entry { parent: Some((at, step)), fair: None });
                open.push_back((to, after));
            }
            if Some(way) == fair {
                entries[at as usize].fair = Some(to);
            }
        }
    }
    every_run_ends(&entries)?;
    met.states = entries.len();
    Ok(met)
}

fn count_end(cluster: &Cluster, met: &mut Visited) {
    match cluster.run.state.phase {
        _ if cluster.gone => met.gone += 1,
        Some(RestorePhase::Succeeded) => met.succeeded += 1,
        _ => met.failed += 1,
    }
}

/// From every state, a run ends if no more faults occur.
fn every_run_ends(entries: &[Entry]) -> Result<(), Broken> {
    // 0 for a state that is not visited yet, otherwise the number of the first walk that visited it.
    let mut walk = vec![0u32; entries.len()];
    for first in 0..entries.len() {
        let this = u32::try_from(first + 1).unwrap();
        let mut at = first;
        while walk[at] == 0 {
            walk[at] = this;
            let Some(next) = entries[at].fair else { break };
            at = next as usize;
            if walk[at] == this {
                let what = "it goes round for ever, with nothing going wrong".to_owned();
                return Err(Broken { what, path: path(entries, at) });
            }
        }
    }
    Ok(())
}

/// What `cargo test` explores.
const SHORT: [Bound; 13] = [
    Bound::of(&[0], true, true, 2, 1),
    Bound::of(&[1, 0], true, true, 1, 0),
    Bound::of(&[1], true, true, 1, 1),
    Bound::of(&[1], true, true, 1, 1).scaled_back(),
    Bound::of(&[1], true, true, 1, 1).exact(),
    Bound::of(&[1, 1], true, true, 1, 0).exact(),
    Bound::of(&[1, 1], true, false, 1, 0).scaled_back(),
    Bound::of(&[2], true, true, 1, 0),
    Bound::of(&[1, 1], true, true, 1, 1),
    Bound::of(&[1, 1], true, false, 1, 0),
    Bound::of(&[1, 1], false, true, 1, 0),
    Bound::of(&[1, 1, 1], true, true, 1, 0),
    Bound::of(&[1, 1, 1], true, false, 1, 0),
];

/// What `make states` explores.
const FULL: [Bound; 16] = [
    Bound::of(&[0, 0], false, true, 2, 1),
    Bound::of(&[1, 0], true, true, 1, 1),
    Bound::of(&[1], true, true, 2, 2),
    Bound::of(&[1], true, true, 2, 2).scaled_back(),
    Bound::of(&[1], true, true, 2, 1).exact(),
    Bound::of(&[1, 1], false, true, 1, 1).exact(),
    Bound::of(&[1, 1], false, false, 1, 1).scaled_back(),
    Bound::of(&[2], true, true, 1, 1),
    Bound::of(&[1, 1], true, true, 2, 1),
    Bound::of(&[1, 1], true, false, 2, 1),
    Bound::of(&[1, 1], false, true, 1, 1),
    Bound::of(&[1, 1], false, false, 1, 1),
    Bound::of(&[1, 1, 1, 1], true, true, 1, 1),
    Bound::of(&[1, 1, 1, 1], true, false, 1, 1),
    Bound::of(&[2, 2, 2, 2], true, true, 1, 0),
    Bound::of(&[2, 2, 2, 2], true, false, 1, 0),
];

fn tell(bound: &Bound, met: &Visited) {
    let Bound { hosts, sequential, stop, faults, turns, scale_back, exact } = bound;
    let after = [(*scale_back, ", ScaleBack"), (*exact, ", Delete")];
    let after: String = after.iter().filter(|(is, _)| *is).map(|(_, text)| *text).collect();
    let order = if *sequential { "Sequential" } else { "Parallel" };
    let policy = if *stop { "Stop" } else { "Continue" };
    println!(
        "hosts {hosts:?} {order} {policy}{after}, {faults} faults, {turns} turns: {} states, {} moves; ends: {} succeeded, {} failed, {} gone",
        met.states, met.moves, met.succeeded, met.failed, met.gone
    );
}

/// Explores all bounds, one on each core.
fn holds(bounds: &[Bound]) {
    let (next, states) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let explore_next = || {
        while let Some(bound) = bounds.get(next.fetch_add(1, Relaxed)) {
            let met =
                explore(*bound, Fault::None).unwrap_or_else(|b| panic!("{bound:?}: {}, after {:#?}", b.what, b.path));
            tell(bound, &met);
            assert!(met.succeeded > 0 && met.failed > 0, "the search meets both ends: {met:?}");
            assert!(bound.turns == 0 || met.gone > 0, "and one that is deleted: {met:?}");
            states.fetch_add(met.states, Relaxed);
        }
    };
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    thread::scope(|s| (0..cores).for_each(|_| drop(s.spawn(explore_next))));
    println!("{} states in all", states.into_inner());
}

/// Proves: C01, C09, B01.
#[test]
fn no_state_breaks_an_invariant() {
    holds(&SHORT);
}

#[test]
#[ignore = "takes minutes: make states"]
fn no_state_of_the_full_bounds_breaks_an_invariant() {
    holds(&FULL);
}

/// The search finds each defect, and reports the invariant that it breaks.
#[test]
fn the_search_finds_what_is_broken_on_purpose() {
    let (two, one) = (Bound::of(&[1, 1], true, true, 1, 0), Bound::of(&[1], true, true, 1, 0));
    let twice = Bound { faults: 2, ..one };
    let outside = Bound::of(&[0], true, true, 1, 0);
    for (fault, bound, what) in [
        (Fault::NoOrder, two, "is touched before member 0 is over"),
        (Fault::OverlooksAttempts, one, "the pod of an earlier attempt is still there"),
        (Fault::RepeatsItself, one, "a restore runs twice: status says that it is over"),
        (Fault::KeepsFinalizer, one, "and the run is not over"),
        (Fault::NeverLooks, one, "nothing wakes the controller"),
        (Fault::SaysReady, one, "Ready is not what the phase says"),
        (Fault::TrustsTheAgent, one, "comes back on half-restored data"),
        (Fault::TrustsTheAgent, one.scaled_back(), "is called Succeeded, and was not restored"),
        (Fault::ForgetsWorkloads, one, "is not scaled back"),
        (Fault::BelievesItUntouched, one, "comes back on half-restored data"),
        (Fault::TakesTheLastForAll, twice, "comes back on half-restored data"),
        (Fault::TakesTheLastForAll, one.exact(), "comes back on half-restored data"),
        (Fault::OverlooksVisitors, one.exact(), "for a restore that waits for others"),
        (Fault::TakesSilenceForNone, one.exact(), "does not say what was deleted"),
        (Fault::RepeatsBlindly, outside, "a request is made again that was not looked up"),
    ] {
        let found = explore(bound, fault).map(|met| format!("{met:?}"));
        let broken = found.expect_err(&format!("{fault:?} is found"));
        println!("{fault:?}: {}, after {} moves", broken.what, broken.path.len());
        assert!(broken.what.contains(what), "{fault:?}: {}, after {:#?}", broken.what, broken.path);
        assert_eq!(explore_again(bound, &broken.path, fault), Some(broken.what), "the path leads there");
    }
}

/// Walks a path, and returns the invariant that is broken at its end.
fn explore_again(bound: Bound, path: &[Move], fault: Fault) -> Option<String> {
    let (scene, mut cluster) = Scene::new(bound, fault);
    for step in path {
        let (ways, _) = cluster.ways(&scene).ok()?;
        cluster = ways.into_iter().find(|(s, _)| s == step)?.1;
    }
    cluster.ways(&scene).err()
}

/// Two states that count as equal lead to equal states: the states that the search skips would not have shown more.
#[test]
fn states_that_count_as_one_go_on_alike() {
    for bound in [Bound::of(&[1, 1], false, true, 1, 0), Bound::of(&[1], true, true, 1, 1)] {
        let (scene, start) = Scene::new(bound, Fault::None);
        let mut known: HashMap<u64, (Vec<u64>, Vec<Move>)> = HashMap::new();
        let mut open = vec![(start, vec![])];
        let mut compared = 0;
        while let Some((cluster, path)) = open.pop() {
            let print = cluster.print();
            let (ways, _) = cluster.ways(&scene).unwrap_or_else(|what| panic!("{what}"));
            let mut on: Vec<u64> = ways.iter().map(|(_, after)| after.print()).collect();
            on.sort_unstable();
            on.dedup();
            if let Some((same, before)) = known.get(&print) {
                compared += 1;
                assert_eq!(*same, on, "{bound:?}: {path:?} is not like {before:?}");
                continue;
            }
            known.insert(print, (on, path.clone()));
            for (step, after) in ways {
                open.push((after, [path.as_slice(), &[step]].concat()));
            }
        }
        assert!(compared > known.len() / 2, "the test tries what it says: {compared} of {}", known.len());
    }
}
