//! A hook as a run sees it: its names, when it runs, and what its templates may use.
//!
//! Conditions and their reasons are those of Stash. A member has its own hooks, and a batch has hooks of the whole run.

use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::api::Condition;
use crate::api::common::TargetRef;
use crate::api::hooks::{
    BackupHooks, Handler, HookPhase, HookStatus, PostBackupPolicy, PostRestorePolicy, RestoreHooks,
};
use crate::names::{HOOK_STEP, condition, reason};
use crate::plan::run::{conditions, duration};
use crate::plan::seen::Refusal;
use crate::plan::seen::identity::Identity;

/// Time limit of a hook that sets none, as in Stash.
pub const LIMIT: Duration = Duration::from_mins(5);

/// Longest time limit: a run waits for its hooks, also after its deadline.
pub const MAX_LIMIT: Duration = Duration::from_hours(1);

/// When a hook runs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Moment {
    /// Before a restore.
    PreRestore,
    /// After a restore.
    PostRestore,
    /// Before a backup.
    PreBackup,
    /// After a backup.
    PostBackup,
}

impl Moment {
    /// The field that holds the hook.
    pub fn field(self) -> &'static str {
        match self {
            Self::PreRestore => "preRestore",
            Self::PostRestore => "postRestore",
            Self::PreBackup => "preBackup",
            Self::PostBackup => "postBackup",
        }
    }

    /// Condition of the hook: of a member, or of the whole run. With the reasons of a success and of a failure.
    fn condition(self, of_run: bool) -> [&'static str; 3] {
        match (self, of_run) {
            (Self::PreRestore, false) => {
                [condition::PRE_RESTORE_HOOK, reason::PRE_RESTORE_HOOK_DONE, reason::PRE_RESTORE_HOOK_FAILED]
            }
            (Self::PostRestore, false) => {
                [condition::POST_RESTORE_HOOK, reason::POST_RESTORE_HOOK_DONE, reason::POST_RESTORE_HOOK_FAILED]
            }
            (Self::PreBackup, false) => {
                [condition::PRE_BACKUP_HOOK, reason::PRE_BACKUP_HOOK_DONE, reason::PRE_BACKUP_HOOK_FAILED]
            }
            (Self::PostBackup, false) => {
                [condition::POST_BACKUP_HOOK, reason::POST_BACKUP_HOOK_DONE, reason::POST_BACKUP_HOOK_FAILED]
            }
            (Self::PreRestore, true) => [
                condition::GLOBAL_PRE_RESTORE_HOOK,
                reason::GLOBAL_PRE_RESTORE_HOOK_DONE,
                reason::GLOBAL_PRE_RESTORE_HOOK_FAILED,
            ],
            (Self::PostRestore, true) => [
                condition::GLOBAL_POST_RESTORE_HOOK,
                reason::GLOBAL_POST_RESTORE_HOOK_DONE,
                reason::GLOBAL_POST_RESTORE_HOOK_FAILED,
            ],
            (Self::PreBackup, true) => [
                condition::GLOBAL_PRE_BACKUP_HOOK,
                reason::GLOBAL_PRE_BACKUP_HOOK_DONE,
                reason::GLOBAL_PRE_BACKUP_HOOK_FAILED,
            ],
            (Self::PostBackup, true) => [
                condition::GLOBAL_POST_BACKUP_HOOK,
                reason::GLOBAL_POST_BACKUP_HOOK_DONE,
                reason::GLOBAL_POST_BACKUP_HOOK_FAILED,
            ],
        }
    }
}

/// Which results a hook after a run is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Policy {
    Always,
    OnSuccess,
    OnFailure,
    OnFinalRetryFailure,
}

/// A hook of a run.
#[derive(Clone, Copy)]
pub struct Hook<'a> {
    /// When it runs.
    pub moment: Moment,
    /// What it does.
    pub handler: &'a Handler,
    /// Index of its member; `None` for a hook of the whole run.
    pub member: Option<usize>,
    policy: Policy,
}

/// The hook of a restore at a moment.
pub fn of_restore(hooks: Option<&RestoreHooks>, moment: Moment, member: Option<usize>) -> Option<Hook<'_>> {
    let (handler, policy) = match moment {
        Moment::PreRestore => (hooks?.pre_restore.as_ref()?, Policy::Always),
        Moment::PostRestore => {
            let post = hooks?.post_restore.as_ref()?;
            let policy = match post.execution_policy {
                PostRestorePolicy::Always => Policy::Always,
                PostRestorePolicy::OnSuccess => Policy::OnSuccess,
                PostRestorePolicy::OnFailure => Policy::OnFailure,
            };
            (&post.handler, policy)
        }
        Moment::PreBackup | Moment::PostBackup => return None,
    };
    Some(Hook { moment, handler, member, policy })
}

/// The hook of a backup at a moment.
pub fn of_backup(hooks: Option<&BackupHooks>, moment: Moment, member: Option<usize>) -> Option<Hook<'_>> {
    let (handler, policy) = match moment {
        Moment::PreBackup => (hooks?.pre_backup.as_ref()?, Policy::Always),
        Moment::PostBackup => {
            let post = hooks?.post_backup.as_ref()?;
            let policy = match post.execution_policy {
                PostBackupPolicy::Always => Policy::Always,
                PostBackupPolicy::OnSuccess => Policy::OnSuccess,
                PostBackupPolicy::OnFailure => Policy::OnFailure,
                PostBackupPolicy::OnFinalRetryFailure => Policy::OnFinalRetryFailure,
            };
            (&post.handler, policy)
        }
        Moment::PreRestore | Moment::PostRestore => return None,
    };
    Some(Hook { moment, handler, member, policy })
}

/// How a run, or a member, stands for a hook.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Summary {
    /// Why it failed; `None` if nothing has failed.
    pub error: Option<String>,
    /// Number of retry sessions that may follow a failed backup.
    pub retries_left: i32,
}

impl Summary {
    /// `Succeeded` or `Failed`, as in Stash: also before anything has ended.
    fn phase(&self) -> &'static str {
        if self.error.is_some() { "Failed" } else { "Succeeded" }
    }
}

impl Hook<'_> {
    /// Key of its Job within the run.
    pub fn key(&self) -> String {
        key(self.moment, self.member)
    }

    /// Why the hook is not run after such a result; `None` if it is run. The message is that of Stash.
    pub fn skipped(&self, summary: &Summary) -> Option<String> {
        let failed = summary.error.is_some();
        let runs = match self.policy {
            Policy::Always => true,
            Policy::OnSuccess => !failed,
            Policy::OnFailure => failed,
            Policy::OnFinalRetryFailure => failed && summary.retries_left <= 0,
        };
        let left = match self.policy {
            Policy::OnFinalRetryFailure if failed => format!(" and {} retries are left", summary.retries_left),
            _ => String::new(),
        };
        (!runs).then(|| {
            format!(
                "Skipping executing {}. Reason: executionPolicy is \"{:?}\" but phase is \"{}\"{left}.",
                self.moment.field(),
                self.policy,
                summary.phase()
            )
        })
    }

    /// Time limit.
    pub fn limit(&self) -> Duration {
        self.handler.time_out.as_deref().and_then(|t| duration::parse(t).ok()).unwrap_or(LIMIT)
    }

    /// The same, with a sign.
    pub fn signed_limit(&self) -> SignedDuration {
        signed(self.limit())
    }
}

/// A time limit with a sign.
pub fn signed(limit: Duration) -> SignedDuration {
    SignedDuration::try_from(limit).unwrap_or(SignedDuration::MAX)
}

/// Key of the Job of a hook within the run.
pub fn key(moment: Moment, member: Option<usize>) -> String {
    key_of(moment.field(), member)
}

/// The same, from the name of its entry.
pub fn key_of(name: &str, member: Option<usize>) -> String {
    member.map_or_else(|| format!("{HOOK_STEP}/{name}"), |index| format!("{HOOK_STEP}/{index}/{name}"))
}

impl Moment {
    /// Sets the condition of a hook that is over: of a member, or of the whole run.
    pub fn tell(self, of_run: bool, entry: &HookStatus, list: &mut Vec<Condition>, at: Timestamp) {
        let [type_, done, failed] = self.condition(of_run);
        let name = self.field();
        let said = entry.message.clone();
        match entry.phase {
            HookPhase::Announced | HookPhase::Started => {}
            HookPhase::Succeeded => {
                let said = said.map(|s| format!(" {s}")).unwrap_or_default();
                let text = format!("Successfully executed {name} hook.{said}");
                conditions::set(list, type_, true, done, text, at);
            }
            HookPhase::Skipped => conditions::set(list, type_, true, done, said.unwrap_or_default(), at),
            HookPhase::Failed => {
                let text = format!("Failed to execute {name} hook. Reason: {}", said.unwrap_or_default());
                conditions::set(list, type_, false, failed, text, at);
            }
            HookPhase::InDoubt => {
                conditions::set(list, type_, false, reason::HOOK_IN_DOUBT, said.unwrap_or_default(), at);
            }
        }
    }
}

/// The entry of a hook.
pub fn entry(list: &[HookStatus], moment: Moment) -> Option<&HookStatus> {
    list.iter().find(|h| h.name == moment.field())
}

/// Why a hook has failed: reason and message. `None` if it has not.
pub fn failure(list: &[HookStatus], moment: Moment) -> Option<(String, String)> {
    let found = entry(list, moment).filter(|h| matches!(h.phase, HookPhase::Failed | HookPhase::InDoubt))?;
    let why = found.reason.clone().unwrap_or_else(|| reason::HOOK_FAILED.to_owned());
    Some((why, format!("{} hook: {}", moment.field(), found.message.clone().unwrap_or_default())))
}

/// An entry for a hook that is not run.
pub fn not_run(moment: Moment, text: String) -> HookStatus {
    HookStatus {
        name: moment.field().to_owned(),
        phase: HookPhase::Skipped,
        message: Some(text),
        ..HookStatus::default()
    }
}

/// What templates may use, under the names of Stash. `invoker` is kind and name.
pub fn data(
    id: &Identity,
    invoker: (&str, &str),
    target: Option<&TargetRef>,
    summary: &Summary,
    began: Option<Timestamp>,
    now: Timestamp,
) -> Value {
    let target = target.cloned().unwrap_or_default();
    let namespace = target.kind.as_ref().map(|_| target.namespace.clone().unwrap_or_else(|| id.namespace.clone()));
    let text = |t: Option<String>| t.unwrap_or_default();
    let took = began.and_then(|began| Duration::try_from(now.duration_since(began)).ok()).unwrap_or_default();
    json!({
        "Name": id.name,
        "Namespace": id.namespace,
        "Invoker": { "APIGroup": crate::names::GROUP, "Kind": invoker.0, "Name": invoker.1 },
        "Target": { "APIVersion": text(target.api_version), "Kind": text(target.kind), "Name": text(target.name),
            "Namespace": text(namespace) },
        "Status": { "Phase": summary.phase(), "Duration": duration::format(took), "Error": text(summary.error.clone()) },
        "RetryLeft": summary.retries_left,
    })
}

/// Why an operator that runs no commands of hooks does nothing for an object with these hooks, each with its path.
pub fn refused<'a>(hooks: impl IntoIterator<Item = (String, &'a Handler)>, allowed: bool) -> Option<Refusal> {
    let (path, _) = hooks.into_iter().find(|(_, handler)| !allowed && handler.exec.is_some())?;
    let message = format!(
        "{path}.exec: this operator runs no commands of hooks. Install it with hooks.exec=true (docs/hooks.md), or remove the field."
    );
    Some(Refusal { reason: reason::INVALID.to_owned(), message })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hook(policy: Policy) -> Hook<'static> {
        static HANDLER: Handler = Handler {
            exec: None,
            http_get: None,
            http_post: None,
            tcp_socket: None,
            container_name: None,
            time_out: None,
            ca_bundle: None,
        };
        Hook { moment: Moment::PostBackup, handler: &HANDLER, member: None, policy }
    }

    #[test]
    fn a_policy_selects_results() {
        let of = |error: Option<&str>, retries_left| Summary { error: error.map(str::to_owned), retries_left };
        let (good, bad, last) = (of(None, 1), of(Some("e"), 1), of(Some("e"), 0));
        for (policy, runs) in [
            (Policy::Always, [true, true, true]),
            (Policy::OnSuccess, [true, false, false]),
            (Policy::OnFailure, [false, true, true]),
            (Policy::OnFinalRetryFailure, [false, false, true]),
        ] {
            let found = [&good, &bad, &last].map(|s| hook(policy).skipped(s).is_none());
            assert_eq!(found, runs, "{policy:?}");
        }
        assert_eq!(
            hook(Policy::OnFailure).skipped(&good).unwrap(),
            "Skipping executing postBackup. Reason: executionPolicy is \"OnFailure\" but phase is \"Succeeded\"."
        );
        let waits = hook(Policy::OnFinalRetryFailure).skipped(&bad).unwrap();
        assert!(waits.ends_with("but phase is \"Failed\" and 1 retries are left."), "{waits}");
    }

    #[test]
    fn templates_get_the_names_of_stash() {
        let id = Identity { name: "s".into(), namespace: "demo".into(), ..Identity::default() };
        let target = TargetRef { kind: Some("Deployment".into()), name: Some("web".into()), ..TargetRef::default() };
        let summary = Summary { error: Some("no space".into()), retries_left: 2 };
        let (began, now) = (Timestamp::from_second(100).unwrap(), Timestamp::from_second(163).unwrap());
        let data = data(&id, ("BackupBatch", "b"), Some(&target), &summary, Some(began), now);
        assert_eq!(data["Target"]["Namespace"], "demo");
        assert_eq!((&data["Invoker"]["Kind"], &data["RetryLeft"]), (&json!("BackupBatch"), &json!(2)));
        assert_eq!(data["Status"], json!({ "Phase": "Failed", "Duration": "1m3s", "Error": "no space" }));
        let none = super::data(&id, ("RestoreBatch", "s"), None, &Summary::default(), None, now);
        assert_eq!(none["Target"]["Namespace"], "", "a hook of the whole run has no target");
    }
}
