//! Defaults: converts the dialects of the API to one form.
//!
//! Works on raw JSON, so that unknown fields are kept, and the difference to the sent object is a valid patch. The
//! conversion is idempotent. Contradicting values are not changed: `validate` rejects them, and can name both.

mod dialects;

use serde_json::{Map, Value};

use crate::admission::bounds;

/// Converts an object of this kind to its one form. Other kinds are not changed, and neither is an object that
/// exceeds its bounds: validation rejects it.
pub fn default(kind: &str, object: &mut Value) {
    if bounds::check(kind, object).is_ok() {
        apply(kind, object);
    }
}

/// As [`default()`], for an object whose bounds were checked.
pub(super) fn apply(kind: &str, object: &mut Value) {
    let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) else { return };
    if matches!(kind, "RestoreSession" | "RestoreBatch" | "BackupBatch" | "BackupConfiguration") {
        ["repository", "backupBatch"].iter().for_each(|field| drop_empty_namespace(spec, field));
    }
    match kind {
        "RestoreSession" => {
            dialects::move_rules(spec);
            default_alias(spec);
        }
        "RestoreBatch" => {
            dialects::one_order(spec);
            for member in members(spec) {
                dialects::move_rules(member);
                default_alias(member);
            }
        }
        "BackupBatch" => {
            dialects::one_order(spec);
            members(spec).for_each(default_alias);
        }
        "BackupConfiguration" => default_alias(spec),
        _ => {}
    }
}

/// Removes an empty namespace from a reference, which charts write if a value is not set: it means the object's own
/// namespace.
fn drop_empty_namespace(spec: &mut Map<String, Value>, field: &str) {
    if let Some(reference) = spec.get_mut(field).and_then(Value::as_object_mut)
        && reference.get("namespace").and_then(Value::as_str) == Some("")
    {
        reference.remove("namespace");
    }
}

fn members(spec: &mut Map<String, Value>) -> impl Iterator<Item = &mut Map<String, Value>> {
    spec.get_mut("members").and_then(Value::as_array_mut).into_iter().flatten().filter_map(Value::as_object_mut)
}

/// Sets the default alias of the target of a session or member.
fn default_alias(holder: &mut Map<String, Value>) {
    use crate::plan::run::hosts::{TargetKind, default_alias};
    let Some(target) = holder.get_mut("target").and_then(Value::as_object_mut) else { return };
    if target.get("alias").is_some_and(|a| !a.is_null() && a.as_str() != Some("")) {
        return;
    }
    let kind = target.get("ref").and_then(|r| r.get("kind")).and_then(Value::as_str);
    let kind = TargetKind::of(
        kind.map(|k| crate::api::common::TargetRef { kind: Some(k.to_owned()), ..Default::default() }).as_ref(),
    );
    // PVCs from templates are one host, or one host per replica; only `plan` can decide that.
    if kind == TargetKind::Nothing {
        return;
    }
    if let Some(alias) = default_alias(kind) {
        target.insert("alias".into(), alias.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn defaulted(kind: &str, mut object: Value) -> Value {
        default(kind, &mut object);
        object
    }

    /// Proves: scenario 17, invented 5, invented 6.
    #[test]
    fn the_three_dialects_of_one_restore_become_equal() {
        let rules = json!([{ "paths": ["/data"] }]);
        let target = json!({ "alias": "app", "ref": { "kind": "Deployment", "name": "web" } });
        let mut with_rules = target.clone();
        with_rules["rules"] = rules.clone();

        let deprecated = json!({ "spec": { "target": target, "rules": rules } });
        let published = json!({ "spec": { "target": with_rules } });
        let both = json!({ "spec": { "target": with_rules, "rules": rules } });
        let expected = defaulted("RestoreSession", published);
        assert_eq!(defaulted("RestoreSession", deprecated), expected);
        assert_eq!(defaulted("RestoreSession", both), expected);

        let kep = json!({ "spec": { "maintainOrder": true, "members": [{ "target": target, "rules": rules }] } });
        let published = json!({ "spec": { "executionOrder": "Sequential", "members": [{ "target": with_rules }] } });
        assert_eq!(defaulted("RestoreBatch", kep), defaulted("RestoreBatch", published));

        let silent = json!({ "spec": { "members": [] } });
        let kep = json!({ "spec": { "members": [], "maintainOrder": false } });
        assert_eq!(defaulted("RestoreBatch", silent), defaulted("RestoreBatch", kep));
    }

    /// Proves: invented 7.
    #[test]
    fn a_contradiction_is_left_for_validation() {
        let object = json!({ "spec": {
            "executionOrder": "Parallel", "maintainOrder": true,
            "members": [{ "target": { "alias": "a", "rules": [{ "paths": ["/a"] }] }, "rules": [{ "paths": ["/b"] }] }],
        }});
        assert_eq!(defaulted("RestoreBatch", object.clone()), object);
    }

    /// Proves: scenario 16.
    #[test]
    fn an_alias_is_what_the_kind_has_always_had() {
        let alias = |kind: &str| {
            let o = json!({ "spec": { "target": { "ref": { "kind": kind, "name": "x" } } } });
            defaulted("BackupConfiguration", o)["spec"]["target"]["alias"].clone()
        };
        assert_eq!(alias("Deployment"), "host-0");
        assert_eq!(alias("StatefulSet"), "host");
        assert_eq!(alias("DaemonSet"), Value::Null);
        let no_ref = json!({ "spec": { "target": { "volumeClaimTemplates": [] } } });
        assert_eq!(defaulted("RestoreSession", no_ref.clone()), no_ref);
        let no_target = json!({ "spec": { "rules": [{ "paths": ["/a"] }] } });
        assert_eq!(defaulted("RestoreSession", no_target.clone()), no_target);
    }

    #[test]
    fn an_empty_namespace_is_none() {
        let spec =
            json!({ "repository": { "name": "r", "namespace": "" }, "backupBatch": { "name": "b", "namespace": "" } });
        let after = defaulted("RestoreBatch", json!({ "spec": spec }));
        let of = |field: &str| after["spec"][field].clone();
        assert_eq!((of("repository"), of("backupBatch")), (json!({ "name": "r" }), json!({ "name": "b" })));
        let said = json!({ "spec": { "repository": { "name": "r", "namespace": "store" }, "target": null } });
        assert_eq!(defaulted("BackupConfiguration", said.clone()), said);
    }

    #[test]
    fn fields_this_build_does_not_know_survive() {
        let object =
            json!({ "spec": { "target": { "new": 1, "ref": { "kind": "StatefulSet", "newer": 2 } }, "newest": 3 } });
        let after = defaulted("RestoreSession", object);
        assert_eq!((&after["spec"]["newest"], &after["spec"]["target"]["new"]), (&json!(3), &json!(1)));
        assert_eq!(after["spec"]["target"]["ref"]["newer"], 2);
    }

    fn rules() -> impl Strategy<Value = Value> {
        prop_oneof![
            Just(Value::Null),
            Just(json!([])),
            Just(json!([{ "paths": ["/a"] }])),
            Just(json!([{ "paths": ["/a"], "targetHosts": [] }])),
            Just(json!([{ "snapshots": ["latest"] }])),
            Just(json!("nonsense")),
        ]
    }

    fn holder() -> impl Strategy<Value = Value> {
        let target = (
            rules(),
            prop_oneof![Just(json!(null)), Just(json!("")), Just(json!("app")), Just(json!(3))],
            "(StatefulSet|Deployment|DaemonSet)",
        )
            .prop_map(|(rules, alias, kind)| json!({ "rules": rules, "alias": alias, "ref": { "kind": kind } }));
        (prop_oneof![target, Just(Value::Null), Just(json!([1]))], rules())
            .prop_map(|(target, rules)| json!({ "target": target, "rules": rules }))
    }

    proptest! {
        #[test]
        fn one_restore_in_any_dialect_is_one_object(
            rules in prop::collection::vec(("/[a-c]{1,3}", prop::collection::vec("app-[0-9]", 0..3)), 1..4),
            is_ordered in any::<bool>(), dialect in 0..3_usize, order in 0..3_usize, has_alias in any::<bool>(),
        ) {
            let rules: Vec<Value> = rules.iter().map(|(p, hosts)| json!({ "targetHosts": hosts, "paths": [p] })).collect();
            let alias = if has_alias { "app" } else { "host" };
            let target = json!({ "alias": alias, "ref": { "kind": "StatefulSet", "name": "db" } });
            let canonical = json!({ "spec": {
                "executionOrder": if is_ordered { "Sequential" } else { "Parallel" },
                "members": [{ "target": { "alias": alias, "ref": target["ref"], "rules": rules } }],
            }});
            let mut written = canonical.clone();
            let spec = written["spec"].as_object_mut().unwrap();
            // As published (where Parallel may be omitted), as in the proposal, or both.
            if order > 0 {
                spec.insert("maintainOrder".into(), is_ordered.into());
            }
            if order == 1 || (order == 0 && !is_ordered) {
                spec.remove("executionOrder");
            }
            let member = spec["members"][0].as_object_mut().unwrap();
            if dialect > 0 {
                member.insert("rules".into(), rules.into());
            }
            if dialect == 1 {
                member["target"].as_object_mut().unwrap().remove("rules");
            }
            if !has_alias {
                member["target"].as_object_mut().unwrap().remove("alias");
            }
            prop_assert_eq!(defaulted("RestoreBatch", written), canonical);
        }

        #[test]
        fn twice_is_once(
            mut spec in holder(),
            members in prop::collection::vec(holder(), 0..3),
            order in prop_oneof![Just(json!(null)), Just(json!("Sequential")), Just(json!("Parallel")), Just(json!("sequential"))],
            maintain in prop_oneof![Just(json!(null)), Just(json!(true)), Just(json!(false)), Just(json!("yes"))],
            kind in "(RestoreSession|RestoreBatch|BackupBatch|BackupConfiguration|Other)",
        ) {
            spec["members"] = members.into();
            spec["executionOrder"] = order;
            spec["maintainOrder"] = maintain;
            let mut patched = json!({ "spec": spec });
            let once = defaulted(&kind, patched.clone());
            let patch = json_patch::diff(&patched, &once);
            json_patch::patch(&mut patched, &patch).unwrap();
            prop_assert_eq!(&patched, &once);
            prop_assert_eq!(defaulted(&kind, once.clone()), once);
        }
    }
}
