//! Sessions that the operator creates: for a scheduled time, and as a retry of a failed session.
//!
//! The name of a session says what the session is created for. A second creation therefore fails with AlreadyExists and
//! never makes a second backup.

use std::collections::BTreeMap;

use k8s_openapi::jiff::Timestamp;
use kube::core::ObjectMeta;

use crate::api::BackupSession;
use crate::api::backup_session::{BackupSessionSpec, InvokerRef};
use crate::api::common::TargetRef;
use crate::names;
use crate::names::{GROUP, label};
use crate::plan::seen::identity::Identity;

/// Longest name. Names of Stash's sessions fit a label value, and scripts may rely on that.
const NAME_MAX: usize = 63;
/// Letters of the invoker's name that are kept when the session's name would be too long. A time and a hash need the
/// rest.
const NAME_CUT: usize = 36;

/// A session to create.
#[derive(Clone, Debug, PartialEq)]
pub struct NewSession {
    /// The session.
    pub session: BackupSession,
    /// Name to use if a foreign session already has the name in `session`.
    pub other_name: String,
}

/// A time as used in names: date and time of day in UTC, `20270115-0800`; with seconds if they are not zero.
fn stamp(due: Timestamp) -> String {
    let form = if due.as_second().rem_euclid(60) == 0 { "%Y%m%d-%H%M" } else { "%Y%m%d-%H%M%S" };
    due.strftime(form).to_string()
}

/// The session for a scheduled time.
pub fn scheduled(
    invoker: &Identity,
    target: Option<&TargetRef>,
    due: Timestamp,
    retry_left: Option<i32>,
) -> NewSession {
    let stamp = stamp(due);
    let cut: String = invoker.name.chars().take(NAME_CUT).collect();
    let other_name = names::child_name(&format!("{cut}-{stamp}"), &[&invoker.uid, &due.as_second().to_string()]);
    named(format!("{}-{stamp}", invoker.name), other_name, invoker, target, retry_left)
}

/// The session that retries a failed one. The second retry is `x-retry-2`, not `x-retry-1-retry-1`.
pub fn retry(invoker: &Identity, target: Option<&TargetRef>, failed: &Identity, retry_left: i32) -> NewSession {
    let (root, nth) = failed
        .name
        .rsplit_once("-retry-")
        .and_then(|(root, n)| Some((root, n.parse::<u32>().ok()?.checked_add(1)?)))
        .unwrap_or((&failed.name, 1));
    let other_name = names::child_name(root, &[&failed.uid, "retry"]);
    named(format!("{root}-retry-{nth}"), other_name, invoker, target, Some(retry_left))
}

/// The invoker's own labels, overridden by Stash's labels, because scripts select by them. `target` is the target of
/// the first member.
fn labels(invoker: &Identity, target: Option<&TargetRef>) -> BTreeMap<String, String> {
    let said = |of: fn(&TargetRef) -> Option<&String>| target.and_then(of).filter(|t| !t.is_empty()).cloned();
    let namespace = target.map(|_| said(|t| t.namespace.as_ref()).unwrap_or_else(|| invoker.namespace.clone()));
    let ours = [
        (label::MANAGED_BY, Some(label::MANAGED_BY_VALUE.to_owned())),
        (label::COMPONENT, Some(label::COMPONENT_BACKUP.to_owned())),
        (label::INVOKER_TYPE, Some(invoker.kind.clone())),
        (label::INVOKER_NAME, Some(invoker.name.clone())),
        (label::TARGET_KIND, said(|t| t.kind.as_ref())),
        (label::TARGET_NAME, said(|t| t.name.as_ref())),
        (label::TARGET_NAMESPACE, namespace),
    ];
    let mut all = invoker.labels.clone();
    all.extend(ours.into_iter().filter_map(|(key, value)| Some((key.to_owned(), names::label_value(&value?)))));
    all
}

fn named(
    name: String,
    other_name: String,
    invoker: &Identity,
    target: Option<&TargetRef>,
    retry_left: Option<i32>,
) -> NewSession {
    let name = if name.len() <= NAME_MAX { name } else { other_name.clone() };
    let reference =
        InvokerRef { api_group: Some(GROUP.into()), kind: invoker.kind.clone(), name: invoker.name.clone() };
    let session = BackupSession {
        metadata: ObjectMeta {
            name: Some(name),
            namespace: Some(invoker.namespace.clone()),
            labels: Some(labels(invoker, target)),
            owner_references: Some(vec![invoker.owner()]),
            ..ObjectMeta::default()
        },
        spec: BackupSessionSpec { invoker: Some(reference), retry_left, cancel: None },
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
        assert_eq!(name(&scheduled(&id("nightly"), None, due, None)), "nightly-20270115-0800");
        let off = Timestamp::from_second(1_800_000_003).unwrap();
        assert_eq!(name(&scheduled(&id("nightly"), None, off, None)), "nightly-20270115-080003");
        // 50 letters and a time have just room.
        for letters in [49, 50, 51, 60, 253] {
            let long = "x".repeat(letters);
            let cut = scheduled(&id(&long), None, due, None);
            assert!(name(&cut).len() <= NAME_MAX && name(&cut).contains("x-20270115-0800"), "{}", name(&cut));
            assert!(
                cut.other_name.len() <= NAME_MAX && cut.other_name.contains("x-20270115-0800-"),
                "{}",
                cut.other_name
            );
            assert_ne!(name(&cut), name(&scheduled(&id(&format!("{long}y")), None, due, None)));
            assert_ne!(name(&cut), name(&scheduled(&id(&long), None, off, None)));
        }
        let of = |failed: &str| name(&retry(&id("b"), None, &id(failed), 1)).to_owned();
        assert_eq!(of("b-20270115-0800"), "b-20270115-0800-retry-1");
        assert_eq!(of("b-20270115-0800-retry-1"), "b-20270115-0800-retry-2");
        assert_eq!(of("b-20270115-0800-retry-2"), "b-20270115-0800-retry-3");
        assert_eq!(of("b-1800000000"), "b-1800000000-retry-1", "one of an earlier version");
        assert_eq!(of("by-retry-hand"), "by-retry-hand-retry-1");
        assert!(of(&"x".repeat(200)).len() <= NAME_MAX);
    }

    #[test]
    fn labels_say_whose_it_is_and_of_what_and_always_fit() {
        let long = "web.".repeat(60) + "end";
        let mut invoker = Identity { namespace: "shop".into(), ..id(&long) };
        let own = [("team", "a"), ("stash.appscode.com/target-kind", "lie")];
        invoker.labels = own.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        let target = TargetRef { kind: Some("StatefulSet".into()), name: Some(long.clone()), ..TargetRef::default() };
        let due = Timestamp::from_second(1_800_000_000).unwrap();
        for new in
            [scheduled(&invoker, Some(&target), due, None), retry(&invoker, Some(&target), &id("b-1800000000"), 1)]
        {
            let labels = new.session.metadata.labels.unwrap();
            let of = |key: &str| labels.get(key).map_or("", String::as_str);
            assert_eq!((of("team"), of(label::TARGET_KIND), of(label::TARGET_NAMESPACE)), ("a", "StatefulSet", "shop"));
            assert_eq!((of(label::INVOKER_TYPE), of(label::COMPONENT)), ("BackupBatch", "stash-backup"));
            assert_eq!(of(label::MANAGED_BY), "stash.appscode.com");
            for key in [label::INVOKER_NAME, label::TARGET_NAME] {
                assert_eq!(of(key), names::label_value(&long), "{key}");
                assert!(of(key).len() <= 63 && of(key).starts_with("web."), "{key}");
            }
        }
        let there = TargetRef { namespace: Some("there".into()), ..target };
        let labels = |target| scheduled(&invoker, target, due, None).session.metadata.labels.unwrap();
        assert_eq!(labels(Some(&there))[label::TARGET_NAMESPACE], "there");
        assert!(!labels(None).contains_key(label::TARGET_NAMESPACE), "nothing is said of no target");
    }
}
