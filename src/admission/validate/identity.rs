//! Immutable fields of an invoker that was Ready: its Repository, and alias and reference of its targets.
//!
//! Snapshots are identified by the alias. Another target with the same alias would use them as its own, and retention
//! ignores an alias that is no longer backed up. All other fields may change. The accepted values are in status,
//! which both the webhook and the controller read.

use crate::admission::error::{Errors, NAME_LENGTH, shorten};
use crate::api::common::{InvokerIdentity, RepositoryRef, TargetIdentity, TargetRef};
use crate::api::target::BackupTarget;
use crate::plan::repository::preconditions;

/// The immutable fields of an invoker, from its spec.
pub fn of<'a>(
    repository: Option<&RepositoryRef>,
    targets: impl IntoIterator<Item = Option<&'a BackupTarget>>,
) -> InvokerIdentity {
    let target = |t: Option<&BackupTarget>| {
        let t = t.cloned().unwrap_or_default();
        TargetIdentity { alias: t.alias.filter(|a| !a.is_empty()), ref_: t.ref_ }
    };
    InvokerIdentity { repository: repository.cloned(), targets: targets.into_iter().map(target).collect() }
}

/// Rejects changes of target, alias or Repository of a BackupConfiguration.
pub fn of_one(errors: &mut Errors, was: &InvokerIdentity, now: &InvokerIdentity, namespace: &str) {
    repository(errors, "BackupConfiguration", was, now, namespace);
    let (Some(was), Some(now)) = (was.targets.first(), now.targets.first()) else { return };
    if !is_same(was.ref_.as_ref(), now.ref_.as_ref()) {
        let text = format!(
            "cannot be changed from {} to {}, because the snapshots of the one would be taken for those of the other. For another target create another BackupConfiguration with an alias of its own. If this target was only renamed, delete the BackupConfiguration and create it again with the same alias: its snapshots stay in the Repository",
            say(was.ref_.as_ref()),
            say(now.ref_.as_ref())
        );
        errors.invalid("spec.target.ref", text);
    }
    if was.alias != now.alias {
        let text = format!(
            "cannot be changed from {} to {}, because snapshots are known by it. Delete the BackupConfiguration and create it again with the new alias: its snapshots stay in the Repository under the old one",
            said(was.alias.as_deref()),
            said(now.alias.as_deref())
        );
        errors.invalid("spec.target.alias", text);
    }
}

/// Rejects changes of target or alias of an existing member of a BackupBatch, and of its Repository. Members can be
/// added and removed.
pub fn of_batch(errors: &mut Errors, was: &InvokerIdentity, now: &InvokerIdentity, namespace: &str) {
    repository(errors, "BackupBatch", was, now, namespace);
    let has = |all: &InvokerIdentity, t: &TargetIdentity| {
        all.targets.iter().any(|o| o.alias == t.alias && is_same(o.ref_.as_ref(), t.ref_.as_ref()))
    };
    for (i, new) in now.targets.iter().enumerate().filter(|(_, t)| !has(was, t)) {
        if let Some(old) = was.targets.iter().find(|o| o.alias == new.alias) {
            let text = format!(
                "is {}, but the snapshots of alias {} are of {}, and would be taken for its own. Give the new target an alias of its own",
                say(new.ref_.as_ref()),
                said(new.alias.as_deref()),
                say(old.ref_.as_ref())
            );
            errors.invalid(format!("spec.members[{i}].target.ref"), text);
        } else if let Some(old) =
            was.targets.iter().find(|o| is_same(o.ref_.as_ref(), new.ref_.as_ref()) && !has(now, o))
        {
            let text = format!(
                "cannot be changed from {} to {}, because snapshots are known by it. Remove the member and apply that, then add it with the new alias: its snapshots stay in the Repository under the old one",
                said(old.alias.as_deref()),
                said(new.alias.as_deref())
            );
            errors.invalid(format!("spec.members[{i}].target.alias"), text);
        }
    }
}

fn repository(errors: &mut Errors, kind: &str, was: &InvokerIdentity, now: &InvokerIdentity, namespace: &str) {
    let (Some(was), Some(now)) = (&was.repository, &now.repository) else { return };
    let place = |r: &RepositoryRef| format!("{}/{}", preconditions::home(r, namespace), r.name);
    if place(was) != place(now) {
        let text = format!(
            "cannot be changed from {} to {}, because the snapshots stay where they are. Delete the {kind} and create it again: backups then go to the new Repository, and restores find the old ones in the old Repository",
            short(&place(was)),
            short(&place(now))
        );
        errors.invalid("spec.repository", text);
    }
}

/// Whether two references mean one object. One kind has had several API versions.
fn is_same(a: Option<&TargetRef>, b: Option<&TargetRef>) -> bool {
    let key = |r: &TargetRef| (r.kind.clone(), r.name.clone(), r.namespace.clone().filter(|n| !n.is_empty()));
    a.map(key) == b.map(key)
}

fn say(target: Option<&TargetRef>) -> String {
    let part = |p: Option<&String>| p.cloned().unwrap_or_default();
    target.map_or_else(|| "none".to_owned(), |t| short(&format!("{} {}", part(t.kind.as_ref()), part(t.name.as_ref()))))
}

fn said(alias: Option<&str>) -> String {
    alias.map_or_else(|| "none".to_owned(), |a| format!("{:?}", short(a)))
}

fn short(text: &str) -> String {
    shorten(text.to_owned(), NAME_LENGTH)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::admission::error::message;
    use crate::admission::validate::check;

    fn target(alias: &str, name: &str) -> Value {
        json!({ "alias": alias, "ref": { "apiVersion": "apps/v1", "kind": "Deployment", "name": name },
            "volumeMounts": [{ "name": "data", "mountPath": "/data" }], "paths": ["/data/a"] })
    }

    fn identity(targets: &[(&str, &str)]) -> Value {
        let of = |(alias, name): &(&str, &str)| json!({ "alias": alias, "ref": { "apiVersion": "apps/v1", "kind": "Deployment", "name": name } });
        json!({ "repository": { "name": "r" }, "targets": targets.iter().map(of).collect::<Vec<_>>() })
    }

    fn one() -> Value {
        let spec = json!({ "repository": { "name": "r" }, "retentionPolicy": { "name": "p", "keepLast": 3, "prune": true },
            "target": target("a", "web") });
        json!({ "metadata": { "namespace": "n" }, "spec": spec, "status": { "identity": identity(&[("a", "web")]) } })
    }

    fn said(kind: &str, object: &Value) -> String {
        message(&check(kind, object, None))
    }

    /// Closes: B25 of the newcomer.
    #[test]
    fn all_of_a_configuration_but_its_identity_may_be_edited() {
        let mut edited = one();
        edited["spec"]["target"]["exclude"] = json!(["*.tmp"]);
        edited["spec"]["target"]["args"] = json!(["--exclude-caches"]);
        edited["spec"]["target"]["paths"] = json!(["/data/b"]);
        edited["spec"]["target"]["volumeMounts"][0]["name"] = json!("other");
        edited["spec"]["target"]["ref"]["apiVersion"] = json!("extensions/v1beta1");
        edited["spec"]["tempDir"] = json!({ "sizeLimit": "1Gi" });
        edited["spec"]["runtimeSettings"] = json!({ "container": { "nice": { "adjustment": 5 } } });
        edited["spec"]["retentionPolicy"]["keepLast"] = json!(1);
        edited["spec"]["schedule"] = json!("@daily");
        edited["spec"]["repository"]["namespace"] = json!("n");
        assert_eq!(said("BackupConfiguration", &edited), "");
    }

    #[test]
    fn what_is_fixed_says_what_to_do_instead() {
        let with = |pointer: &str, value: &str| {
            let mut object = one();
            *object.pointer_mut(pointer).unwrap() = value.into();
            said("BackupConfiguration", &object)
        };
        let alias = with("/spec/target/alias", "b");
        assert!(alias.starts_with("spec.target.alias: cannot be changed from \"a\" to \"b\""), "{alias}");
        assert!(alias.contains("create it again with the new alias"), "{alias}");
        let other = with("/spec/target/ref/name", "shop");
        assert!(
            other.starts_with("spec.target.ref: cannot be changed from Deployment web to Deployment shop"),
            "{other}"
        );
        assert!(other.contains("with an alias of its own") && other.contains("with the same alias"), "{other}");
        let kind = with("/spec/target/ref/kind", "StatefulSet");
        assert!(kind.starts_with("spec.target.ref: cannot be changed"), "{kind}");
        let repository = with("/spec/repository/name", "s");
        assert!(repository.starts_with("spec.repository: cannot be changed from n/r to n/s"), "{repository}");
        let mut gone = one();
        gone["spec"]["target"] = Value::Null;
        assert!(
            said("BackupConfiguration", &gone)
                .contains("spec.target.ref: cannot be changed from Deployment web to none")
        );
    }

    #[test]
    fn a_name_of_any_length_leaves_what_to_do() {
        let mut object = one();
        object["spec"]["target"]["ref"]["name"] = "x".repeat(250).into();
        object["status"]["identity"]["targets"][0]["ref"]["name"] = "y".repeat(250).into();
        assert!(said("BackupConfiguration", &object).contains("its snapshots stay in the Repository"));
    }

    #[test]
    fn what_an_older_operator_wrote_still_binds() {
        let mut object = one();
        object["status"] = json!({ "phase": "Ready", "targetHash": "of another target" });
        let text = said("BackupConfiguration", &object);
        assert!(text.starts_with("spec.target: was changed under an older version"), "{text}");
    }

    fn batch(members: &[(&str, &str)]) -> Value {
        let members: Vec<Value> = members.iter().map(|(a, n)| json!({ "target": target(a, n) })).collect();
        json!({ "metadata": { "namespace": "n" },
            "spec": { "repository": { "name": "r" }, "retentionPolicy": { "name": "p", "keepLast": 3, "prune": true }, "members": members },
            "status": { "identity": identity(&[("a", "web"), ("b", "shop")]) } })
    }

    #[test]
    fn members_of_a_batch_come_go_and_are_edited() {
        for members in [
            &[("a", "web"), ("b", "shop")][..],
            &[("b", "shop"), ("a", "web")],
            &[("b", "shop")],
            &[("a", "web"), ("b", "shop"), ("c", "blog")],
            &[("c", "blog")],
            // One target in two members.
            &[("a", "web"), ("b", "shop"), ("c", "shop")],
        ] {
            assert_eq!(said("BackupBatch", &batch(members)), "", "{members:?}");
        }
        let mut edited = batch(&[("a", "web")]);
        edited["spec"]["members"][0]["target"]["exclude"] = json!(["*.tmp"]);
        assert_eq!(said("BackupBatch", &edited), "");
    }

    #[test]
    fn a_member_that_stays_keeps_alias_and_target() {
        let other = said("BackupBatch", &batch(&[("b", "shop"), ("a", "blog")]));
        assert!(other.starts_with("spec.members[1].target.ref: is Deployment blog, but"), "{other}");
        let swapped = said("BackupBatch", &batch(&[("a", "shop"), ("b", "web")]));
        assert!(swapped.contains("spec.members[0]") && swapped.contains("spec.members[1]"), "{swapped}");
        let renamed = said("BackupBatch", &batch(&[("a", "web"), ("c", "shop")]));
        assert!(
            renamed.starts_with("spec.members[1].target.alias: cannot be changed from \"b\" to \"c\""),
            "{renamed}"
        );
        let mut elsewhere = batch(&[("a", "web")]);
        elsewhere["spec"]["repository"]["name"] = "s".into();
        assert!(
            said("BackupBatch", &elsewhere).starts_with("spec.repository: cannot be changed"),
            "another repository"
        );
    }
}
