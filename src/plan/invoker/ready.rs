//! Whether a backup that began now could be taken: what `Ready` of a BackupConfiguration and BackupBatch says. It is asked
//! in the words of the session that would find out.

use k8s_openapi::api::core::v1::VolumeMount;
use k8s_openapi::jiff::Timestamp;

use super::{InvokerPlan, InvokerSeen};
use crate::api::runtime::RuntimeSettings;
use crate::contract::restic::{Backup, Settings, Step};
use crate::contract::{Class, Failure, Process};
use crate::names::{condition, label, reason};
use crate::plan::access::Access;
use crate::plan::conditions::{self, Value};
use crate::plan::objects::{self, JobFrame, JobParts};
use crate::plan::observed::Seen;
use crate::plan::pod_security::{self, Level};
use crate::plan::systems::restic;
use crate::plan::target::{Reach, Target, TargetSeen};
use crate::plan::{ground, held, job_defaults};

/// Why a backup that began now would wait or fail, of what is known before. It holds up no schedule: it may be gone in
/// time.
pub fn obstacle(seen: &InvokerSeen<'_>, plan: &InvokerPlan, access: &Access) -> Option<(String, String)> {
    let mut targets = plan.target_conditions.iter().flatten();
    let of_target = targets.find(|c| c.type_ == condition::BACKUP_TARGET_FOUND && c.status != "True");
    if let Some(c) = of_target {
        return Some((c.reason.clone().unwrap_or_default(), c.message.clone().unwrap_or_default()));
    }
    let held = seen.targets.iter().find_map(|(_, target)| match target {
        TargetSeen::Found(target) => held::no_backup(target),
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
    let name = ground::display(seen.reference, &seen.id.namespace);
    Some((said.reason.clone(), format!("Repository {name} is not ready: {}", said.message)))
}

/// What the Pod Security level of the namespace forbids in a Job that backs a host up.
fn forbidden(seen: &InvokerSeen<'_>, access: &Access, defaults: &RuntimeSettings) -> Option<Failure> {
    if seen.pod_security == Level::Privileged {
        return None;
    }
    let frame = JobFrame {
        // Pod Security does not judge it.
        image: String::new(),
        owner: seen.id.owner(),
        namespace: seen.id.namespace.clone(),
        labels: seen.id.labels.clone(),
        component: label::COMPONENT_BACKUP,
        repository: access.display.clone(),
        secret: access.secret.clone(),
        account: None,
        local_repository: access.local.clone(),
        defaults: defaults.clone(),
    };
    let step = Step::Backup(Backup::default());
    let task = restic::task(seen.id.told(), access, Process::default(), Settings::default(), step, vec![]);
    seen.members.iter().zip(&seen.targets).find_map(|(member, (_, target))| {
        let TargetSeen::Found(target) = target else { return None };
        let settings = job_defaults::over(member.runtime, defaults);
        let parts = JobParts {
            runtime: Some(&settings),
            temp_dir: member.temp_dir,
            interim: member.interim,
            reach: reach(target, member.mounts).ok()?,
            ..JobParts::default()
        };
        let pod = objects::guarded_pod(&frame, &task, &parts);
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

/// How a Job reaches the first host of a target; or the first thing that a session would fail with, or wait for, as
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

/// Says of each target whether it is there. One that is missing holds up no schedule: it may be there in time.
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
