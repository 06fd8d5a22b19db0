//! Claims that a restore creates from its target's volumeClaimTemplates.
//!
//! Their names are those of the templates, so an existing claim may have another origin. It is used only if a restore
//! of this name created it from the same template; any other claim is not changed, and the restore reports it. The
//! claims have no owner reference to the session: data must outlive the object that restored it.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::Value;

use crate::api::target::RestoreTarget;
use crate::api::to_json;
use crate::contract::{Class, Failure};
use crate::names::{annotation, hash_of, is_tracker, label, reason};
use crate::plan::seen::identity::Identity;
use crate::plan::seen::pvc::{Made, Wanted};
use crate::plan::seen::target::{ClaimSeen, Target};

/// Placeholder for a replica's number in a template.
pub const ORDINAL: &str = "${POD_ORDINAL}";

/// Name of the volume of a template: its name without the ordinal.
pub fn volume_name(template: &str) -> String {
    template.replace(&format!("-{ORDINAL}"), "").replace(&format!("{ORDINAL}-"), "")
}

/// The claims of a target, replica by replica.
pub fn wanted(target: &RestoreTarget, session: &Identity) -> Vec<Wanted> {
    let replicas = target.replicas.unwrap_or(1).max(0);
    let of_replica = |ordinal: i32| {
        target.volume_claim_templates.iter().map(move |template| {
            let volume = volume_name(template.metadata.as_ref().and_then(|m| m.name.as_deref()).unwrap_or_default());
            let template = fill(to_json(template), &ordinal.to_string());
            let claim = claim(&template, session);
            Wanted { name: claim.metadata.name.clone().unwrap_or_default(), volume, ordinal, claim }
        })
    };
    (0..replicas).flat_map(of_replica).collect()
}

/// The template with the ordinal filled into every text.
fn fill(value: Value, ordinal: &str) -> Value {
    match value {
        Value::String(text) => text.replace(ORDINAL, ordinal).into(),
        Value::Array(all) => all.into_iter().map(|v| fill(v, ordinal)).collect(),
        Value::Object(all) => all.into_iter().map(|(k, v)| (k, fill(v, ordinal))).collect(),
        other => other,
    }
}

fn claim(template: &Value, session: &Identity) -> PersistentVolumeClaim {
    let texts = |key: &str| -> BTreeMap<String, String> {
        let mut all: BTreeMap<String, String> =
            serde_json::from_value(template["metadata"][key].clone()).unwrap_or_default();
        all.retain(|k, _| !is_tracker(k));
        all
    };
    let (mut labels, mut annotations) = (texts("labels"), texts("annotations"));
    let own = [
        (label::MANAGED_BY, label::MANAGED_BY_VALUE),
        (label::COMPONENT, label::COMPONENT_RESTORE),
        (label::SESSION_KIND, session.kind.as_str()),
        (label::SESSION_UID, session.uid.as_str()),
    ];
    labels.extend(own.map(|(k, v)| (k.to_owned(), v.to_owned())));
    let made_from = hash_of(&[&template["spec"].to_string(), &to_json(&texts("labels")).to_string()]);
    annotations.insert(annotation::SESSION_NAME.to_owned(), session.name.clone());
    annotations.insert(annotation::TEMPLATE.to_owned(), made_from);
    PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: template["metadata"]["name"].as_str().map(ToOwned::to_owned),
            namespace: Some(session.namespace.clone()),
            labels: Some(labels),
            annotations: Some(annotations),
            ..ObjectMeta::default()
        },
        spec: serde_json::from_value(template["spec"].clone()).ok(),
        status: None,
    }
}

/// Whether an existing claim conflicts with a claim that is to be created: it has another origin or another template,
/// or it is in use.
///
/// # Errors
/// Names the existing claim, and what to do. The class is `Waiting` if the claim is already being deleted.
pub fn may_use(wanted: &Wanted, target: &Target, session: &Identity) -> Result<(), Failure> {
    let name = &wanted.name;
    let Some(seen) = target.claims.get(name) else { return Ok(()) };
    if seen.is_going {
        let text = format!("PersistentVolumeClaim {name} is being deleted; it will be created again afterwards.");
        return Err(Failure::new(Class::Waiting, reason::TARGET_NOT_AVAILABLE, text));
    }
    let why = match seen {
        ClaimSeen { exists: false, .. } => return Ok(()),
        ClaimSeen { made: Some(made), .. } if made.uid == session.uid => return Ok(()),
        ClaimSeen { made: None, .. } => "no restore made it".to_owned(),
        ClaimSeen { made: Some(made), .. } => {
            let expected = Made::of(&wanted.claim).unwrap_or_default();
            let user = target.pods.iter().find(|p| p.claims.contains(name));
            if made.session != expected.session {
                format!("{} made it", made.session)
            } else if made.template != expected.template {
                "it was made from another template".to_owned()
            } else if let Some(pod) = user {
                format!("pod {} uses it", pod.name)
            } else {
                return Ok(());
            }
        }
    };
    let text = format!(
        "PersistentVolumeClaim {name} already exists, and {why}. It was not changed. Restore into it with target.ref, use another name in volumeClaimTemplates, or delete it."
    );
    Err(Failure::new(Class::Invalid, reason::CLAIM_EXISTS, text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::seen::target::PodSeen;
    use serde_json::json;

    fn session(uid: &str) -> Identity {
        Identity {
            kind: "RestoreSession".into(),
            namespace: "demo".into(),
            name: "clone".into(),
            uid: uid.into(),
            ..Identity::default()
        }
    }

    fn target(replicas: Option<i32>, size: &str) -> RestoreTarget {
        let template = |name: &str| {
            json!({ "metadata": { "name": format!("{name}-web-${{POD_ORDINAL}}"),
                "labels": { "app": "web-${POD_ORDINAL}", "app.kubernetes.io/instance": "shop" },
                "annotations": { "argocd.argoproj.io/tracking-id": "shop", "note": "mine",
                    "kubectl.kubernetes.io/last-applied-configuration": "{}" } },
                "spec": { "accessModes": ["ReadWriteOnce"], "volumeName": "v-${POD_ORDINAL}",
                    "resources": { "requests": { "storage": size } } } })
        };
        serde_json::from_value(
            json!({ "replicas": replicas, "volumeClaimTemplates": [template("data"), template("config")] }),
        )
        .unwrap()
    }

    /// Proves: scenario 15, defect 8, D05.
    #[test]
    fn each_replica_has_a_claim_of_each_template_and_no_trackers_labels() {
        let all = wanted(&target(Some(2), "1Gi"), &session("u"));
        let names: Vec<_> = all.iter().map(|w| (w.name.as_str(), w.volume.as_str(), w.ordinal)).collect();
        let expected = [
            ("data-web-0", "data-web", 0),
            ("config-web-0", "config-web", 0),
            ("data-web-1", "data-web", 1),
            ("config-web-1", "config-web", 1),
        ];
        assert_eq!(names, expected);
        let last = to_json(&all[3].claim);
        assert_eq!((&last["metadata"]["labels"]["app"], &last["spec"]["volumeName"]), (&json!("web-1"), &json!("v-1")));
        assert_eq!(last["metadata"]["annotations"]["note"], "mine");
        assert!(last["metadata"].get("ownerReferences").is_none(), "data outlives the session");
        let text = last.to_string();
        for tracker in ["argocd", "last-applied", "kubernetes.io/instance"] {
            assert!(!text.contains(tracker), "{text}");
        }
        assert_eq!(Made::of(&all[3].claim).unwrap().session, "RestoreSession/clone");
    }

    /// Proves: defect 18.
    #[test]
    fn only_what_this_restore_made_is_used() {
        let judge = |made_by: Option<(&Identity, &str)>, pods: Vec<PodSeen>| {
            let made = made_by.and_then(|(id, size)| Made::of(&wanted(&target(Some(1), size), id)[0].claim));
            let seen = ClaimSeen { exists: true, made, ..ClaimSeen::default() };
            let found = Target { claims: [("data-web-0".to_owned(), seen)].into(), pods, ..Target::default() };
            may_use(&wanted(&target(Some(1), "1Gi"), &session("u"))[0], &found, &session("u"))
        };
        let user = || vec![PodSeen { name: "app".into(), claims: vec!["data-web-0".into()], ..PodSeen::default() }];
        let other = Identity { name: "other".into(), ..session("x") };
        assert_eq!(judge(Some((&session("u"), "1Gi")), user()), Ok(()), "our own, whoever waited for it");
        assert_eq!(judge(Some((&session("before"), "1Gi")), vec![]), Ok(()), "the same restore, created again");
        for (made, pods, why) in [
            (None, vec![], "no restore made it"),
            (Some((&other, "1Gi")), vec![], "RestoreSession/other made it"),
            (Some((&session("before"), "2Gi")), vec![], "another template"),
            (Some((&session("before"), "1Gi")), user(), "pod app uses it"),
        ] {
            let failure = judge(made, pods).unwrap_err();
            assert_eq!((failure.class, failure.reason.as_str()), (Class::Invalid, reason::CLAIM_EXISTS));
            assert!(failure.message.contains(why) && failure.message.contains("data-web-0"), "{}", failure.message);
        }
        let going = ClaimSeen { is_going: true, ..ClaimSeen::default() };
        let found = Target { claims: [("data-web-0".to_owned(), going)].into(), ..Target::default() };
        let waits = may_use(&wanted(&target(Some(1), "1Gi"), &session("u"))[0], &found, &session("u"));
        assert_eq!(waits.unwrap_err().class, Class::Waiting);
    }
}
