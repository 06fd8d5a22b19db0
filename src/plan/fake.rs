//! Jobs for tests of plans: they are created, run for a while, end as a script says, and are deleted in the foreground.
//!
//! A plan reads them through the real code: a Job object and a pod with a termination message go through
//! [`job_status::see`].

mod answers;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use serde_json::{Value, json};

use crate::api::restore_session::GrantStatus;
use crate::contract;
use crate::contract::restic::{
    Absent, Answer, Counts, PinnedSnapshot, Pins, RepositoryFacts, Restored, SnapshotMade, Step, Work,
};
use crate::contract::{Class, Did, Failure, Found, Outcome, Part, Task, VERSION, upgrade};
use crate::names::{annotation, reason};
use crate::plan::effects::Grant;
use crate::plan::seen::compact::Kept;
use crate::plan::seen::job_status;
use crate::plan::seen::job_status::JobSeen;
use crate::plan::setup::{AddonImages, Setup};

/// How the operator of a test is set up.
pub fn setup() -> Setup {
    Setup {
        image: "i".into(),
        addons: AddonImages {
            postgres: "with-postgres".into(),
            mariadb: "with-mariadb".into(),
            redis: "with-redis".into(),
        },
        default_timeout: Duration::from_mins(10),
        max_timeout: Duration::from_hours(168),
        jobs_per_repository: 16,
        probe_interval: Duration::from_mins(1),
        sync_every: Duration::ZERO,
        job_defaults: crate::api::runtime::RuntimeSettings::default(),
    }
}

/// Number of ticks that a Job runs before it ends.
const RUNS_FOR: u32 = 1;
/// Number of ticks that a deleted Job with a running pod stays: the grace period of the pod.
const GRACE: u32 = 3;

/// How an attempt at a step ends.
#[derive(Clone, Debug, PartialEq)]
pub enum End {
    /// Everything is done.
    Ok,
    /// It fails with this class and reason.
    Fails(Class, &'static str),
    /// It fails in the same way, before it has written anything.
    Untouched(Class, &'static str),
    /// Its pod is killed because of its memory use.
    OutOfMemory,
    /// The Job is marked as failed while its pod still runs.
    PodLingers,
    /// Fewer entries than planned.
    Short,
    /// There is no repository yet, or no bucket.
    Absent(Absent),
    /// Nothing was planned, nothing restored.
    Empty,
    /// All done, and this number of extraneous entries deleted. `None`: the Job looked for no extraneous entries.
    Deletes(Option<u64>),
    /// All restored, but only this number of the extraneous entries deleted.
    NotDeleted(u64, Class),
    /// All done, but the outcome belongs to another run.
    OtherRun,
    /// A user deletes the Job while its pod runs. The pod then takes its grace period. The Job created next ends well.
    DeletedByHand,
    /// Everything possible is done, and the answer also contains this failure, as when restic exits with 3.
    Partial(Class, &'static str),
    /// Its pod waits for a node until it is stopped.
    Unschedulable,
    /// Maintenance ends with these facts, and possibly a failure, as the agent reports them.
    Maintained(RepositoryFacts, Option<(Class, &'static str)>),
    /// It runs until it is stopped.
    Never,
    /// Its node disappears. The Job runs, and reports nothing again, even after it is stopped.
    NodeGone,
}

impl End {
    /// An infrastructure failure.
    pub const TRANSIENT: Self = Self::Fails(Class::Transient, reason::REPOSITORY_UNREACHABLE);
    /// A failure that no further attempt can fix.
    pub const DATA: Self = Self::Fails(Class::Data, reason::DATA_CORRUPT);
}

#[derive(Clone, Debug)]
struct FakeJob {
    job: Job,
    end: End,
    age: u32,
    /// Ticks left after it was deleted.
    going: Option<u32>,
    /// When it was deleted.
    deleted: Option<Timestamp>,
    /// The Job is gone, its pod is not.
    orphan: bool,
    /// What was last seen of the Job, and when.
    seen: RefCell<Option<(Timestamp, JobSeen)>>,
}

impl FakeJob {
    fn runs(&self) -> bool {
        match self.end {
            End::Never | End::NodeGone | End::Unschedulable => true,
            End::PodLingers => self.going.is_none_or(|left| left > 0) && self.age <= RUNS_FOR + GRACE,
            _ => self.age <= RUNS_FOR,
        }
    }
}

/// Grants in memory: kind, namespace and name of each object.
#[derive(Clone, Debug, Default)]
pub struct Grants {
    pub there: BTreeSet<(&'static str, String, String)>,
    /// All objects that were ever created.
    pub made: BTreeSet<(&'static str, String, String)>,
}

impl Grants {
    /// The objects of a grant, in the order of their creation.
    pub fn objects(grant: &Grant) -> Vec<(&'static str, String, String)> {
        let of = |kind, meta: &ObjectMeta| (kind, meta.namespace.clone().unwrap(), meta.name.clone().unwrap());
        let account = grant.account.as_ref().map(|a| of("ServiceAccount", &a.metadata));
        account
            .into_iter()
            .chain([of("Role", &grant.role.metadata), of("RoleBinding", &grant.binding.metadata)])
            .collect()
    }

    /// The objects to remove, in the controller's order.
    pub fn to_remove(grant: &GrantStatus, namespace: &str) -> [(&'static str, String, String); 3] {
        [("RoleBinding", &*grant.namespace), ("Role", &*grant.namespace), ("ServiceAccount", namespace)]
            .map(|(kind, namespace)| (kind, namespace.to_owned(), grant.name.clone()))
    }

    pub fn make(&mut self, object: (&'static str, String, String)) {
        self.made.insert(object.clone());
        self.there.insert(object);
    }

    /// Checks that a Job that reads a Secret can do so: its account and a binding exist.
    pub fn serve(&self, job: &Job) {
        let task = task(job);
        let Some(place) = task.work.restic().and_then(|w| w.repository.secret.clone()) else { return };
        let pod = job.spec.as_ref().unwrap().template.spec.as_ref().unwrap();
        let (account, home) = (pod.service_account_name.clone().unwrap(), job.metadata.namespace.clone().unwrap());
        // An account that the user names is not created, and the grant that binds it has another name.
        let named = !account.starts_with("lifeboat-");
        let of_ours = [("ServiceAccount", home), ("Role", place.namespace.clone()), ("RoleBinding", place.namespace)];
        for (kind, namespace) in of_ours.into_iter().filter(|_| !named) {
            let object = (kind, namespace, account.clone());
            assert!(self.there.contains(&object), "{} starts without {object:?}", job.name_any());
        }
    }
}

/// The Jobs of a run.
#[derive(Clone, Debug, Default)]
pub struct Jobs {
    all: BTreeMap<String, FakeJob>,
    /// Ends of the attempts at a step, by its key; an attempt without a script ends well.
    pub script: BTreeMap<String, Vec<End>>,
    /// Hosts for which the preflight finds no snapshot.
    pub without_snapshot: BTreeSet<String>,
    /// Agents answer in the previous version instead of the current one.
    pub of_before: bool,
    /// Number of snapshots that each host is restored from; one by default.
    pub snapshots_each: usize,
    /// Id of the first snapshot of each host; `None` for a fixed id.
    pub snapshot: Option<String>,
    /// The path of each snapshot of a host; snapshots beyond this list have several paths.
    pub paths: Vec<String>,
    /// The store does not answer: Jobs that are created now fail.
    pub away: bool,
    /// Content of each Job that was ever created, by name.
    contents: BTreeMap<String, Value>,
    /// Keys and attempts in the order of their creation.
    pub created: Vec<(String, i32)>,
    /// The same Jobs, as they were created.
    pub made: Vec<Job>,
    /// Restore and backup steps that ended well.
    pub done: BTreeSet<String>,
    /// The clock of the API server.
    pub now: Timestamp,
}

impl Jobs {
    /// Creates a Job as the API server does: an existing name stays unchanged. The same name must mean the same work.
    pub fn create(&mut self, job: &Job) {
        let name = job.name_any();
        let (key, attempt) = (note(job, annotation::STEP_KEY), note(job, annotation::ATTEMPT).parse().unwrap());
        let mut content = json!(task(job));
        // The next Job is told what a Job that is gone may have done, so this field may differ.
        let mock = content["work"].get_mut("mock").and_then(|mock| mock.get_mut("act"));
        if let Some(act) = mock.and_then(Value::as_object_mut) {
            act.remove("look_up");
        }
        let anew = self.contents.contains_key(&name);
        let known = self.contents.entry(name.clone()).or_insert_with(|| content.clone());
        assert_eq!(*known, content, "one name, two contents: {name}");
        if self.all.get(&name).is_some_and(|j| !j.orphan) {
            return;
        }
        let writes = ["restore", "backup"].contains(&task(job).verb.as_str());
        let other = self.all.values().find(|j| writes && note(&j.job, annotation::STEP_KEY) == key && j.runs());
        assert!(other.is_none(), "{key}: attempt {attempt} starts while {} still runs", other.unwrap().job.name_any());
        let end = self.script.get(&key).and_then(|ends| ends.get(usize::try_from(attempt - 1).unwrap()));
        let end = end.cloned().filter(|end| !(anew && *end == End::DeletedByHand)).unwrap_or(End::Ok);
        let end = if self.away { End::TRANSIENT } else { end };
        let mut job = job.clone();
        job.metadata.uid = Some(format!("uid-{name}"));
        self.created.push((key, attempt));
        self.made.push(job.clone());
        self.all.insert(
            name,
            FakeJob { job, end, age: 0, going: None, deleted: None, orphan: false, seen: RefCell::default() },
        );
    }

    /// Deletes a Job in the foreground: it stays while its pod runs.
    pub fn stop(&mut self, name: &str) {
        if let Some(job) = self.all.get_mut(name)
            && job.going.is_none()
        {
            job.going = Some(if job.runs() { GRACE } else { 0 });
            job.deleted = Some(self.now);
            job.seen.take();
        }
    }

    /// The session is deleted, and the garbage collector has removed its Jobs.
    pub fn go_with_their_owner(&mut self) {
        self.all.clear();
    }

    /// Time passes.
    pub fn tick(&mut self) {
        self.all.retain(|_, j| j.going != Some(0));
        for job in self.all.values_mut() {
            job.seen.take();
            if job.end == End::DeletedByHand && !job.orphan {
                (job.orphan, job.going) = (true, Some(GRACE));
            }
            match &mut job.going {
                Some(_) if job.end == End::NodeGone => {}
                Some(left) => *left -= 1,
                None => job.age += 1,
            }
            let key = note(&job.job, annotation::STEP_KEY);
            if job.going.is_none() && !job.runs() && job.end == End::Ok {
                self.done.insert(key);
            }
        }
    }

    /// What a plan sees.
    pub fn seen(&self) -> Vec<JobSeen> {
        self.all.values().map(|j| self.seen_now(j)).collect()
    }

    /// Keys of Jobs whose pods run, as far as the cluster can tell.
    pub fn running(&self) -> Vec<String> {
        let lost = |j: &&FakeJob| j.end == End::NodeGone && j.going.is_some();
        self.all.values().filter(|j| j.runs() && !lost(j)).map(|j| note(&j.job, annotation::STEP_KEY)).collect()
    }

    /// Attempts made at a step.
    pub fn attempts(&self, key: &str) -> usize {
        self.created.iter().filter(|(k, _)| k == key).count()
    }

    /// The node that the last Job of a step must run on; empty where it may run on any.
    pub fn node(&self, key: &str) -> String {
        let last = self.all.values().rfind(|j| note(&j.job, annotation::STEP_KEY) == key).unwrap();
        let pod = &json!(last.job)["spec"]["template"]["spec"];
        let terms = &pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
        terms["nodeSelectorTerms"][0]["matchFields"][0]["values"][0].as_str().unwrap_or_default().to_owned()
    }

    /// Reads a Job again when the Job or the clock has changed.
    fn seen_now(&self, fake: &FakeJob) -> JobSeen {
        let mut last = fake.seen.borrow_mut();
        let (_, seen) = match last.take().filter(|(at, _)| *at == self.now) {
            Some(same) => last.insert(same),
            None => last.insert((self.now, self.see(fake))),
        };
        seen.clone()
    }

    fn see(&self, fake: &FakeJob) -> JobSeen {
        let mut job = fake.job.clone();
        let name = job.name_any();
        job.metadata.deletion_timestamp = fake.deleted.map(Time);
        let ended = if fake.end == End::PodLingers { fake.age > RUNS_FOR } else { !fake.runs() };
        let mut status = json!({ "phase": "Running" });
        if fake.end == End::Unschedulable {
            let condition = json!({ "type": "PodScheduled", "status": "False", "message": "0/1 nodes are available." });
            status = json!({ "phase": "Pending", "conditions": [condition] });
        }
        if ended {
            // The Job says that it has ended; its pod may take longer.
            let condition = json!([{ "type": "Failed", "status": "True", "reason": "BackoffLimitExceeded" }]);
            job.status = serde_json::from_value(json!({ "conditions": condition })).unwrap();
            status = self.pod_status(fake);
        }
        let owner =
            [json!({ "apiVersion": "batch/v1", "kind": "Job", "name": name, "uid": job.uid(), "controller": true })];
        let pod = json!({ "metadata": { "name": format!("{name}-x"), "namespace": job.namespace(), "ownerReferences": owner,
            "labels": job.labels(), "annotations": job.annotations() },
            "spec": job.spec.as_ref().unwrap().template.spec, "status": status });
        let pod: Pod = serde_json::from_value(pod).unwrap();
        let look = |job: &Job, pod: &Pod| {
            let jobs: &[&Job] = if fake.orphan { &[] } else { &[job] };
            job_status::see_all(jobs, &[pod], self.now).remove(0)
        };
        let whole = look(&job, &pod);
        // Plans see only what the watch caches keep.
        let seen = look(&Kept::from(job).open(), &Kept::from(pod).open());
        let asks = task(&fake.job).verb == "preflight";
        let parts = if asks { whole.parts.clone() } else { vec![] };
        assert_eq!(seen, JobSeen { parts, ..whole }, "the watches keep too little of a Job");
        seen
    }

    fn pod_status(&self, fake: &FakeJob) -> Value {
        let terminated = match &fake.end {
            End::OutOfMemory => json!({ "exitCode": 137, "reason": "OOMKilled" }),
            End::PodLingers if fake.runs() => return json!({ "phase": "Running" }),
            End::PodLingers => return json!({ "phase": "Failed" }),
            end => json!({ "exitCode": 0, "message": self.message(&self.outcome(&task(&fake.job), end)) }),
        };
        let container = json!({ "name": "agent", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
            "state": { "terminated": terminated } });
        json!({ "phase": "Succeeded", "containerStatuses": [container] })
    }

    fn message(&self, outcome: &Outcome) -> String {
        if self.of_before { upgrade::before(json!(outcome)).to_string() } else { outcome.encode() }
    }

    fn outcome(&self, task: &Task, end: &End) -> Outcome {
        let mut outcome = Outcome { version: VERSION, run: task.run.id.clone(), seconds: 1.5, ..Outcome::default() };
        match end {
            // An agent of the previous version does not know that a repository existed.
            End::Absent(what) if task.work.restic().is_some_and(|w| w.repository.known) && !self.of_before => {
                let why = match what {
                    Absent::Repository => reason::REPOSITORY_MISSING,
                    Absent::Bucket => reason::BUCKET_MISSING,
                };
                outcome.failure = Some(Failure::new(Class::Invalid, why, format!("It is {why}.")));
                return outcome;
            }
            End::Fails(class, why) | End::Untouched(class, why) => {
                outcome.untouched = matches!(end, End::Untouched(..));
                outcome.failure = Some(Failure::new(*class, why, format!("It is {why}.")));
                return outcome;
            }
            End::Maintained(facts, failure) => {
                outcome.answer = Some(Answer::Maintained(facts.clone()).into());
                outcome.failure = failure.map(|(class, why)| Failure::new(class, why, format!("It is {why}.")));
                return outcome;
            }
            End::Partial(class, why) => {
                outcome.failure = Some(Failure::new(*class, why, format!("It is {why}.")));
            }
            End::NotDeleted(_, class) => {
                let why = reason::EXTRANEOUS_NOT_DELETED;
                outcome.failure = Some(Failure::new(*class, why, "One entry could not be deleted."));
            }
            End::OtherRun => outcome.run = "another".into(),
            _ => {}
        }
        let work = match &task.work {
            contract::Work::Restic(work) => work,
            contract::Work::Mock(work) => {
                outcome.answer = Some(answers::of_mock(task, work, end));
                return outcome;
            }
            contract::Work::Application(work) => {
                outcome.answer = Some(answers::of_application(work, end));
                return outcome;
            }
        };
        let answer = match &work.step {
            Step::Preflight(_) => {
                outcome.answer = Some(contract::Answer::Found(task.parts.iter().map(|part| self.pin(part)).collect()));
                return outcome;
            }
            Step::Restore(step) => {
                let counts = |files| Counts { files, bytes: files * 10 };
                let (planned, restored) = match end {
                    End::Short => (7, 6),
                    End::Empty => (0, 0),
                    _ => (7, 7),
                };
                let deleted = match end {
                    End::Deletes(n) => *n,
                    End::NotDeleted(n, _) => Some(*n),
                    _ => step.exact.then_some(0),
                };
                let did = Restored { planned: counts(planned), restored: counts(restored), errors: 0, deleted };
                outcome.answer = Some(contract::Answer::Did(Did { tallies: did.tallies() }));
                return outcome;
            }
            Step::Prepare(_) => Answer::Prepared { created: true },
            Step::Backup(asked) => {
                let made =
                    |path: &String| SnapshotMade { id: "ab".repeat(32), path: path.clone(), ..SnapshotMade::default() };
                Answer::BackedUp(asked.paths.iter().map(made).collect())
            }
            Step::List(_) => match end {
                End::Absent(what) => Answer::Listed { snapshots: 0, written: 0, removed: 0, absent: Some(*what) },
                End::Empty => Answer::Listed { snapshots: 0, written: 0, removed: 0, absent: None },
                _ => Answer::Listed { snapshots: 3, written: 1, removed: 0, absent: None },
            },
            Step::Probe(_) => Answer::Probed,
            Step::Wipe(_) => Answer::Wiped { snapshots: 3 },
            Step::Maintain(_) => {
                Answer::Maintained(RepositoryFacts { integrity: Some(true), retained: true, ..Default::default() })
            }
        };
        outcome.answer = Some(answer.into());
        outcome
    }

    fn pin(&self, part: &Part) -> Found {
        let mut answer = Found { part: part.clone(), ..Found::default() };
        if self.without_snapshot.contains(&part.name) {
            answer.failure = Some(Failure::new(Class::Data, reason::SNAPSHOT_NOT_FOUND, "There is no snapshot."));
        } else {
            let pin = |n: usize| PinnedSnapshot {
                id: match &self.snapshot {
                    _ if n > 0 => format!("{n:064x}"),
                    Some(id) => id.clone(),
                    None => "cd".repeat(32),
                },
                time: "2026-11-20T00:00:00Z".into(),
                path: self.paths.get(n).cloned(),
            };
            let mut pins = Pins { snapshots: (0..self.snapshots_each.max(1)).map(pin).collect(), ..Pins::default() };
            if self.snapshots_each > 1 {
                pins.pack(&[]);
            }
            answer.pin = pins.write();
        }
        answer
    }
}

/// The task in a Job.
pub fn task(job: &Job) -> Task {
    Task::decode(job_status::task_text(&job_status::pod_of(job).unwrap().containers).unwrap()).unwrap()
}

/// The restic work in a Job.
pub fn work(job: &Job) -> Work {
    task(job).work.restic().unwrap().clone()
}

/// The step in a Job.
pub fn step(job: &Job) -> Step {
    work(job).step
}

/// Key of the step that a Job is an attempt at.
pub fn key_of(job: &Job) -> &str {
    &job.annotations()[annotation::STEP_KEY]
}

fn note(job: &Job, key: &str) -> String {
    job.annotations()[key].clone()
}
