//! What a Job's container is told: its task, and which variables of the user's it gets beside it.
//!
//! The kubelet takes the last of two variables of one name, and those of `env` before
//! those that `envFrom` brings, which nobody can look through here. So ours stand
//! last, once, and also where we have nothing to say.

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::EnvVar;

use crate::contract::{Class, Failure, TASK_ENV, TASK_LIMIT, Task, WORK_DIR};
use crate::names::reason;
use crate::plan::seen::job_status::{pod_of, task_text};

/// Variables that begin so are the operator's own.
const OWN: &str = "LIFEBOAT_";
/// Variables by which the loader of programs takes in libraries, from a volume of the user's for example: the agent would
/// be another program. Empty is as good as not set (ld.so(8)).
const EMPTY: [&str; 3] = ["LD_PRELOAD", "LD_LIBRARY_PATH", "LD_AUDIT"];

/// Variables of the container: the user's, and ours.
pub fn variables(mut users: Vec<EnvVar>, task: &Task) -> Vec<EnvVar> {
    let fixed = [("HOME", WORK_DIR.to_owned()), ("TMPDIR", WORK_DIR.to_owned()), (TASK_ENV, task.encode())];
    let fixed = fixed.into_iter().chain(EMPTY.map(|name| (name, String::new())));
    let fixed: Vec<EnvVar> =
        fixed.map(|(name, value)| EnvVar { name: name.to_owned(), value: Some(value), value_from: None }).collect();
    users.retain(|e| !e.name.starts_with(OWN) && fixed.iter().all(|f| e.name != f.name));
    users.extend(fixed);
    users
}

/// Whether the kernel would start a program with what the agent is told.
///
/// # Errors
/// The task is larger than a variable can be: the container could never be started.
pub fn check_task(job: &Job) -> Result<(), Failure> {
    let task = pod_of(job).and_then(|pod| task_text(&pod.containers)).unwrap_or_default();
    if task.len() <= TASK_LIMIT {
        return Ok(());
    }
    let text = format!(
        "The task of one Job would have {} bytes; at most {TASK_LIMIT} are possible. Use fewer hosts, paths, patterns or tags in one session.",
        task.len()
    );
    Err(Failure::new(Class::Invalid, reason::RUN_TOO_LARGE, text))
}
