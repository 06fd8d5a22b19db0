//! The environment of a Job's container: its task, and the user's variables that it gets in addition.
//!
//! If two variables have the same name, the kubelet takes the last one, and prefers those of `env` over those of
//! `envFrom`, whose content is not known here. So the operator's variables come last, once each, and are also set where
//! they have no value.

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::EnvVar;

use crate::contract::{Class, Failure, TASK_ENV, TASK_LIMIT, Task, WORK_DIR};
use crate::names::reason;
use crate::plan::seen::job_status::{pod_of, task_text};

/// Prefix of the operator's own variables.
const OWN: &str = "LIFEBOAT_";
/// Variables that make the dynamic loader load libraries, from a volume of the user for example: the agent would become
/// another program. An empty variable is the same as an unset one (ld.so(8)).
const EMPTY: [&str; 3] = ["LD_PRELOAD", "LD_LIBRARY_PATH", "LD_AUDIT"];

/// Variables of the container: the user's, and the operator's.
pub fn variables(mut users: Vec<EnvVar>, task: &Task) -> Vec<EnvVar> {
    let fixed = [("HOME", WORK_DIR.to_owned()), ("TMPDIR", WORK_DIR.to_owned()), (TASK_ENV, task.encode())];
    let fixed = fixed.into_iter().chain(EMPTY.map(|name| (name, String::new())));
    let fixed: Vec<EnvVar> =
        fixed.map(|(name, value)| EnvVar { name: name.to_owned(), value: Some(value), value_from: None }).collect();
    users.retain(|e| !e.name.starts_with(OWN) && fixed.iter().all(|f| e.name != f.name));
    users.extend(fixed);
    users
}

/// Checks whether the kernel would start the agent with this task.
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
