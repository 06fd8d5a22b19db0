//! Whether a backup that began now could be taken: the condition `Ready` of a BackupConfiguration and BackupBatch. The
//! messages are those of the session that would meet the obstacle.

use k8s_openapi::api::core::v1::VolumeMount;
use k8s_openapi::jiff::Timestamp;

use crate::api::runtime::RuntimeSettings;
use crate::contract::{Class, Failure};
use crate::names::{condition, label, reason};
use crate::plan::backup::invoker::seen::{InvokerPlan, InvokerSeen};
use crate::plan::repository::preconditions;
use crate::plan::restore::held_note;
use crate::plan::run::conditions;
use crate::plan::run::conditions::Value;
use crate::plan::seen::Seen;
use crate::plan::seen::target::{Reach, Target, TargetSeen};
use crate::plan::systems::restic;
use crate::plan::systems::restic::backend::Access;
use crate::plan::work::job_spec::frame::{JobFrame, JobParts};
use crate::plan::work::pod_security::Level;
use crate::plan::work::{job_defaults, job_spec, pod_security};

/// Why a backup that began now would wait or fail, as far as it is known before. An obstacle does not stop the
/// schedule: it may be gone in time.
pub fn obstacle(seen: &InvokerSeen<'_>, plan: &InvokerPlan, access: &Access) -> Option<(String, String)> {
    let mut targets = plan.target_conditions.iter().flatten();
    let of_target = targets.find(|c| c.type_ == condition::BACKUP_TARGET_FOUND && c.status != "True");
    if let Some(c) = of_target {
        return Some((c.reason.clone().unwrap_or_default(), c.message.clone().unwrap_or_default()));
    }
    let held = seen.targets.iter().find_map(|(_, target)| match target {
        TargetSeen::Found(target) => held_note::no_backup(target),
        _ => None,
    });
    if let Some(text) = held {
        return Some((reason::HELD_DOWN.to_owned(), text));
    }
    let Ok(defaults) = &seen.job_defaults else {
        return Some((reason::PENDING.to_owned(), seen.job_defaults.clone().err().unwrap_or_default()));
    };
    if let Some(failure) = forbidden(seen, access, defaults) {
        return Some((failure.reason, failure.message));
    }
    let Seen::Found(repository) = &seen.repository else { return None };
    if let Some(silence) = &repository.unreachable {
        return Some((reason::REPOSITORY_UNREACHABLE.to_owned(), silence.message.clone()));
    }
    let said = repository.not_ready.as_ref()?;
    let name = preconditions::display(seen.reference, &seen.id.namespace);
    Some((said.reason.clone(), format!("Repository {name} is not ready: {}", said.message)))
}

/// What the Pod Security level of the namespace forbids in a Job that backs a host up.
fn forbidden(seen: &InvokerSeen<'_>, access: &Access, defaults: &RuntimeSettings) -> Option<Failure> {
    if seen.pod_security == Level::Privileged {
        return None;
    }
    let frame = JobFrame {
        // Pod Security does not check the image.
        image: String::new(),
        owner: seen.id.owner(),
        namespace: seen.id.namespace.clone(),
        labels: seen.id.labels.clone(),
        component: label::COMPONENT_BACKUP,
        repository: access.display.clone(),
        account: None,
        defaults: defaults.clone(),
    };
    seen.members.iter().zip(&seen.targets).find_map(|(member, (_, target))| {
        let TargetSeen::Found(target) = target else { return None };
        let settings = job_defaults::over(member.runtime, defaults);
        let parts = JobParts {
            needs: restic::needs_of_backup(access),
            runtime: Some(&settings),
            temp_dir: member.temp_dir,
            interim: member.interim,
            reach: reach(target, member.mounts).ok()?,
            ..JobParts::default()
        };
        let pod = job_spec::guarded_pod(&frame, &parts);
        pod_security::check(seen.pod_security, &pod, &seen.id.namespace).err()
    })
}

fn found_why(failure: &Failure) -> &'static str {
    match failure.reason.as_str() {
        reason::TARGET_NOT_AVAILABLE => reason::TARGET_NOT_AVAILABLE,
        reason::BACKUP_EXECUTOR_FAILED => reason::BACKUP_EXECUTOR_FAILED,
        _ => reason::VOLUME_NOT_REACHABLE,
    }
}

/// How a Job reaches the first host of a target, or the first obstacle that would make a session fail or wait, as
/// [`backup`] finds it.
///
/// [`backup`]: crate::plan::backup
fn reach(found: &Target, mounts: &[VolumeMount]) -> Result<Reach, Failure> {
    if let Some(text) = found.too_many() {
        return Err(Failure::new(Class::Invalid, reason::BACKUP_EXECUTOR_FAILED, text));
    }
    if let Some(failure) = found.missing_volume(mounts) {
        return Err(failure);
    }
    let Some(place) = found.places().into_iter().next() else { return Ok(Reach::default()) };
    found.reach(mounts, &place, true, false)
}

/// Sets a condition for each target that says whether the target exists. A missing target does not stop the schedule:
/// it may exist in time.
pub fn targets(seen: &InvokerSeen<'_>, now: Timestamp, plan: &mut InvokerPlan) {
    for (index, (name, target)) in seen.targets.iter().enumerate() {
        let mut list = seen.target_conditions.get(index).cloned().unwrap_or_default();
        let (value, why, text) = match target {
            TargetSeen::Found(found) => match seen.members.get(index).and_then(|m| reach(found, m.mounts).err()) {
                None => (Value::True, reason::TARGET_AVAILABLE, format!("Backup target {name} found.")),
                Some(failure) => (Value::False, found_why(&failure), failure.message),
            },
            TargetSeen::Missing(_) => {
                (Value::False, reason::TARGET_NOT_AVAILABLE, format!("Backup target {name} does not exist."))
            }
            TargetSeen::Unknown(e) => (Value::Unknown, reason::TARGET_UNKNOWN, format!("Backup target {name}: {e}")),
        };
        conditions::set(&mut list, condition::BACKUP_TARGET_FOUND, value, why, text, now);
        plan.target_conditions.push(list);
    }
}
