//! Observes what a run creates: its Jobs, its pods and their processes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::{Arc, Mutex};

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, ResourceExt as _};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::follow::{Following, follow};
use super::harness::Site;
use super::judge::Made;

const KIND: &str = "lifeboat.stash.appscode.com/session-kind";
const STEP: &str = "lifeboat.stash.appscode.com/step";
/// Steps that write data.
const WRITES: [&str; 2] = ["restore", "backup"];
const STEP_KEY: &str = "lifeboat.stash.appscode.com/step-key";
const ATTEMPT: &str = "lifeboat.stash.appscode.com/attempt";

/// A pod of the run that has not ended.
#[derive(Clone, Debug)]
pub struct Alive {
    pub name: String,
    pub job: String,
    pub address: Option<String>,
    /// Key of its step, if it writes data.
    writes: Option<String>,
}

#[derive(Default)]
struct Notes {
    jobs: BTreeSet<Made>,
    alive: BTreeMap<String, Alive>,
    beside: usize,
    twice: BTreeSet<String>,
}

/// Records the Jobs and pods of a run, from the first to the last.
pub struct Watched {
    notes: Arc<Mutex<Notes>>,
    _following: [Following; 2],
}

impl Watched {
    /// Watches the Jobs and pods of runs of this kind.
    pub fn of(site: &Site, kind: &'static str) -> Self {
        let notes: Arc<Mutex<Notes>> = Arc::default();
        let (of_jobs, of_pods) = (notes.clone(), notes.clone());
        let jobs = follow(Api::<Job>::namespaced(site.client.clone(), &site.namespace), move |uid, job| {
            if let Some(job) = job.filter(|j| is_of(*j, kind)) {
                let note = |key: &str| job.annotations().get(key).cloned().unwrap_or_default();
                let attempt = note(ATTEMPT).parse().unwrap_or_default();
                of_jobs.lock().unwrap().jobs.insert(Made { key: note(STEP_KEY), attempt, uid: uid.to_owned() });
            }
        });
        let pods = follow(Api::<Pod>::namespaced(site.client.clone(), &site.namespace), move |uid, pod| {
            let mut notes = of_pods.lock().unwrap();
            notes.alive.remove(uid);
            if let Some(pod) = pod.filter(|p| is_of(*p, kind) && !has_ended(p)) {
                notes.alive.insert(uid.to_owned(), alive(pod));
            }
            let mut writing: Vec<String> = notes.alive.values().filter_map(|p| p.writes.clone()).collect();
            notes.beside = notes.beside.max(writing.len());
            writing.sort();
            notes.twice.extend(writing.windows(2).filter(|two| two[0] == two[1]).map(|two| two[0].clone()));
        });
        Self { notes, _following: [jobs, pods] }
    }

    pub fn jobs(&self) -> BTreeSet<Made> {
        self.notes.lock().unwrap().jobs.clone()
    }

    /// Largest number of pods that wrote data at the same time.
    pub fn beside(&self) -> usize {
        self.notes.lock().unwrap().beside
    }

    /// Keys of steps for which two pods wrote data at the same time.
    pub fn twice(&self) -> BTreeSet<String> {
        self.notes.lock().unwrap().twice.clone()
    }

    /// A pod that exists now.
    pub fn pod(&self) -> Option<Alive> {
        self.notes.lock().unwrap().alive.values().next().cloned()
    }

    /// Process of this name in one of the pods that exist now.
    pub fn process(&self, name: &str) -> Option<Pid> {
        let uids: Vec<String> = self.notes.lock().unwrap().alive.keys().cloned().collect();
        processes(name, |group| uids.iter().any(|uid| group.contains(uid))).into_iter().next()
    }
}

fn is_of(object: &impl kube::Resource, run: &str) -> bool {
    object.meta().labels.as_ref().and_then(|l| l.get(KIND)).is_some_and(|kind| kind == run)
}

fn alive(pod: &Pod) -> Alive {
    Alive {
        name: pod.name_any(),
        job: pod.owner_references().iter().find(|o| o.kind == "Job").map(|o| o.name.clone()).unwrap_or_default(),
        address: pod.status.as_ref().and_then(|s| s.pod_ip.clone()),
        writes: pod
            .labels()
            .get(STEP)
            .filter(|step| WRITES.contains(&step.as_str()))
            .and_then(|_| pod.annotations().get(STEP_KEY).cloned()),
    }
}

fn has_ended(pod: &Pod) -> bool {
    let status = pod.status.clone().unwrap_or_default();
    let containers = status.container_statuses.unwrap_or_default();
    let ended = |s: &k8s_openapi::api::core::v1::ContainerStatus| {
        s.state.as_ref().is_some_and(|state| state.terminated.is_some())
    };
    ["Succeeded", "Failed"].contains(&status.phase.unwrap_or_default().as_str())
        || (!containers.is_empty() && containers.iter().all(ended))
}

/// Processes of this name in a control group that `is_in` accepts. Zombies have left their control group.
pub fn processes(name: &str, is_in: impl Fn(&str) -> bool) -> Vec<Pid> {
    let numbers = fs::read_dir("/proc").unwrap().flatten().filter_map(|e| e.file_name().to_str()?.parse().ok());
    let read = |n: i32, what: &str| fs::read_to_string(format!("/proc/{n}/{what}")).unwrap_or_default();
    numbers
        .filter(|n| read(*n, "comm").trim() == name && is_in(&read(*n, "cgroup").replace('_', "-")))
        .map(Pid::from_raw)
        .collect()
}

/// Words of a process' command line.
pub fn command_line(pid: Pid) -> Vec<String> {
    let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    line.split('\0').map(str::to_owned).collect()
}

/// Sends SIGKILL; false when the process has ended by itself.
pub fn kill_9(pid: Pid) -> bool {
    kill(pid, Signal::SIGKILL).is_ok()
}
