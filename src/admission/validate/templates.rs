//! volumeClaimTemplates: PVCs that a restore creates, and restores into.
//!
//! Every PVC must have a unique name for each replica, a mount, and fixed fields, so that it can be recognised later.

use std::collections::{BTreeSet, HashSet};

use k8s_openapi::api::core::v1::PersistentVolumeClaimStatus;

use crate::admission::error::{Errors, say_list};
use crate::admission::validate::common::name;
use crate::api::target::RestoreTarget;
use crate::api::volume::{PartialMeta, PvcTemplate};
use crate::plan::restore::pvc_templates::{ORDINAL, volume_name};

/// Maximum number of replicas: each has its own PVCs and Job.
const MOST_REPLICAS: i32 = 1000;

/// The templates of a target at `at`, and the fields that depend on them. `namespace` is the namespace of the object,
/// if known.
pub fn validate(errors: &mut Errors, at: &str, target: &RestoreTarget, namespace: Option<&str>) {
    if target.ref_.is_some() {
        errors.invalid(
            format!("{at}.ref"),
            "cannot be used together with volumeClaimTemplates; use templates to restore into new PVCs, or ref to \
             restore in place",
        );
    }
    if let Some(n) = target.replicas.filter(|n| !(1..=MOST_REPLICAS).contains(n)) {
        errors.invalid(format!("{at}.replicas"), format!("is {n}; 1 to {MOST_REPLICAS} are possible"));
    }
    let mounted: HashSet<&str> = target.volume_mounts.iter().map(|m| m.name.as_str()).collect();
    let mut volumes = BTreeSet::new();
    for (i, template) in target.volume_claim_templates.iter().enumerate() {
        let at = format!("{at}.volumeClaimTemplates[{i}]");
        let written = template.metadata.as_ref().and_then(|m| m.name.as_deref()).unwrap_or_default();
        let volume = volume_name(written);
        one(errors, &at, template, namespace);
        naming(errors, &format!("{at}.metadata.name"), written, target.replicas);
        if !mounted.contains(volume.as_str()) {
            errors.invalid(
                format!("{at}.metadata.name"),
                format!("no entry of volumeMounts has the name {volume:?}, so nothing would be restored into its PVC; add one"),
            );
        }
        if !volumes.insert(volume.clone()) {
            errors
                .invalid(format!("{at}.metadata.name"), format!("{volume:?} is already the name of another template"));
        }
    }
    for (i, mount) in target.volume_mounts.iter().enumerate().filter(|(_, m)| !volumes.contains(&m.name)) {
        errors.invalid(
            format!("{at}.volumeMounts[{i}].name"),
            format!(
                "{:?} is none of the volumeClaimTemplates ({})",
                mount.name,
                say_list(volumes.iter().map(String::as_str))
            ),
        );
    }
}

fn naming(errors: &mut Errors, at: &str, written: &str, replicas: Option<i32>) {
    name(errors, at, &written.replace(ORDINAL, "0"), "the claim");
    let has_ordinal = written.contains(ORDINAL);
    match replicas {
        None if has_ordinal => {
            errors.invalid(
                at,
                format!("contains {ORDINAL}, but target.replicas is not set; set it, or remove {ORDINAL}"),
            );
        }
        Some(n) if n > 1 && !has_ordinal => errors
            .invalid(at, format!("would be the same PVC for all {n} replicas; write for example {written}-{ORDINAL}")),
        _ if volume_name(written).contains('$')
            || volume_name(written).contains('.')
            || volume_name(written).len() > 63 =>
        {
            errors.invalid(
                at,
                format!(
                    "names volume {:?}, which no mount can name; write for example data-{ORDINAL}",
                    volume_name(written)
                ),
            );
        }
        _ => {}
    }
}

fn one(errors: &mut Errors, at: &str, template: &PvcTemplate, namespace: Option<&str>) {
    let foreign = |said: Option<&str>, right: &str| said.is_some_and(|s| !s.is_empty() && s != right);
    if foreign(template.api_version.as_deref(), "v1") {
        errors.invalid(format!("{at}.apiVersion"), "is not v1; remove the field");
    }
    if foreign(template.kind.as_deref(), "PersistentVolumeClaim") {
        errors.invalid(format!("{at}.kind"), "is not PersistentVolumeClaim; remove the field");
    }
    if template.status.as_ref().is_some_and(|s| *s != PersistentVolumeClaimStatus::default()) {
        errors.invalid(format!("{at}.status"), "must not be set");
    }
    let meta = template.metadata.clone().unwrap_or_default();
    let PartialMeta { name: _, generate_name, namespace: theirs, labels: _, annotations: _, owner_references } = meta;
    if generate_name.is_some_and(|n| !n.is_empty()) {
        errors.invalid(format!("{at}.metadata.generateName"), "would be a different PVC in each attempt; set a name");
    }
    if let (Some(theirs), Some(ours)) = (theirs.as_deref().filter(|n| !n.is_empty()), namespace)
        && theirs != ours
    {
        let text = format!("is {theirs:?}, but PVCs are created in the namespace of the object, {ours:?}; remove it");
        errors.invalid(format!("{at}.metadata.namespace"), text);
    }
    if !owner_references.is_empty() {
        let text = "would delete the restored data with the owner; remove it";
        errors.invalid(format!("{at}.metadata.ownerReferences"), text);
    }
    let Some(spec) = &template.spec else {
        errors.invalid(format!("{at}.spec"), "is missing; write accessModes and resources.requests.storage");
        return;
    };
    if spec.access_modes.as_ref().is_none_or(Vec::is_empty) {
        errors.invalid(format!("{at}.spec.accessModes"), "is empty; write for example [ReadWriteOnce]");
    }
    let asked = spec.resources.as_ref().and_then(|r| r.requests.as_ref()).is_some_and(|r| r.contains_key("storage"));
    if !asked {
        errors.invalid(format!("{at}.spec.resources.requests.storage"), "is missing; write for example 1Gi");
    }
    if spec.volume_mode.as_deref() == Some("Block") {
        errors.invalid(format!("{at}.spec.volumeMode"), "is Block, but a restore needs a file system; remove it");
    }
    if spec.data_source.is_some() || spec.data_source_ref.is_some() {
        errors.invalid(format!("{at}.spec.dataSource"), "would fill the PVC before the restore; remove it");
    }
}
