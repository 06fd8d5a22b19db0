//! Sessions that the operator makes itself: of a scheduled time, and after a failed one.
//!
//! Their names say what they are made for, so that making one twice is
//! AlreadyExists and never a second backup.

use k8s_openapi::jiff::Timestamp;
use kube::core::ObjectMeta;

use super::run::Identity;
use crate::api::BackupSession;
use crate::api::backup_session::{BackupSessionSpec, InvokerRef};
use crate::names::{self, GROUP, label};

/// Longest name: Stash's sessions fit a label, and scripts may count on it.
const NAME_MAX: usize = 63;

/// A session to create.
#[derive(Clone, Debug, PartialEq)]
pub struct NewSession {
    /// The session.
    pub session: BackupSession,
    /// Its name if somebody else's session has the one in it.
    pub other_name: String,
}

/// The session of a scheduled time.
pub fn scheduled(invoker: &Identity, due: Timestamp, retry_left: Option<i32>) -> NewSession {
    let due = due.as_second().to_string();
    let other_name = names::child_name(&invoker.name, &[&invoker.uid, &due]);
    named(format!("{}-{due}", invoker.name), other_name, invoker, retry_left)
}

/// The session after a failed one. The second of them is `x-retry-2`, not `x-retry-1-retry-1`.
pub fn retry(invoker: &Identity, failed: &Identity, retry_left: i32) -> NewSession {
    let (root, nth) = failed
        .name
        .rsplit_once("-retry-")
        .and_then(|(root, n)| Some((root, n.parse::<u32>().ok()?.checked_add(1)?)))
        .unwrap_or((&failed.name, 1));
    let other_name = names::child_name(root, &[&failed.uid, "retry"]);
    named(format!("{root}-retry-{nth}"), other_name, invoker, Some(retry_left))
}

fn named(name: String, other_name: String, invoker: &Identity, retry_left: Option<i32>) -> NewSession {
    let name = if name.len() <= NAME_MAX { name } else { other_name.clone() };
    let labels = [
        (label::MANAGED_BY, label::MANAGED_BY_VALUE),
        (label::COMPONENT, label::COMPONENT_BACKUP),
        (label::INVOKER_TYPE, &invoker.kind),
    ]
    .into_iter()
    .chain((invoker.name.len() <= NAME_MAX).then_some((label::INVOKER_NAME, invoker.name.as_str())));
    let reference =
        InvokerRef { api_group: Some(GROUP.into()), kind: invoker.kind.clone(), name: invoker.name.clone() };
    let session = BackupSession {
        metadata: ObjectMeta {
            name: Some(name),
            namespace: Some(invoker.namespace.clone()),
            labels: Some(labels.map(|(k, v)| (k.to_owned(), v.to_owned())).collect()),
            owner_references: Some(vec![invoker.owner()]),
            ..ObjectMeta::default()
        },
        spec: BackupSessionSpec { invoker: Some(reference), retry_left },
        status: None,
    };
    NewSession { session, other_name }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &str) -> Identity {
        Identity { name: name.into(), uid: format!("uid of {name}"), kind: "BackupBatch".into(), ..Identity::default() }
    }

    fn name(new: &NewSession) -> &str {
        new.session.metadata.name.as_deref().unwrap()
    }

    #[test]
    fn a_name_says_what_the_session_is_for() {
        let due = Timestamp::from_second(1_800_000_000).unwrap();
        assert_eq!(name(&scheduled(&id("nightly"), due, None)), "nightly-1800000000");
        let long = "x".repeat(60);
        let cut = scheduled(&id(&long), due, None);
        assert!(name(&cut).len() <= NAME_MAX);
        assert_ne!(name(&cut), name(&scheduled(&id(&format!("{long}y")), due, None)));
        let of = |failed: &str| name(&retry(&id("b"), &id(failed), 1)).to_owned();
        assert_eq!(of("b-1800000000"), "b-1800000000-retry-1");
        assert_eq!(of("b-1800000000-retry-1"), "b-1800000000-retry-2");
        assert_eq!(of("b-1800000000-retry-2"), "b-1800000000-retry-3");
        assert_eq!(of("by-retry-hand"), "by-retry-hand-retry-1");
        assert!(of(&"x".repeat(200)).len() <= NAME_MAX);
    }
}
