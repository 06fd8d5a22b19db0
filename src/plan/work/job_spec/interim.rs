//! The claim that a step may have for its cache and temporary files.

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::api::volume::PvcTemplate;
use crate::names::{annotation, child_name, is_tracker, label};
use crate::plan::work::job_spec::frame::{JobFrame, JobParts};

/// Name of the claim for dumps of a step, the same for all attempts.
pub(super) fn interim_name(frame: &JobFrame, template: &PvcTemplate, key: &str) -> String {
    let said = template.metadata.as_ref().and_then(|m| m.name.as_deref()).unwrap_or("interim");
    child_name(&format!("{}-{said}", frame.owner.name), &[&frame.owner.uid, key])
}

/// The claim that a step uses for its cache and temporary files. Each step has its own: hosts that are restored in
/// parallel may be on different nodes. The session owns the claim, and the claim is deleted with it.
pub fn interim_claim(frame: &JobFrame, parts: &JobParts<'_>) -> Option<PersistentVolumeClaim> {
    let template = parts.interim?;
    let said = template.metadata.clone().unwrap_or_default();
    let mut labels = said.labels;
    labels.retain(|key, _| !is_tracker(key));
    labels.extend(
        [
            (label::MANAGED_BY, label::MANAGED_BY_VALUE),
            (label::COMPONENT, frame.component),
            (label::SESSION_UID, &frame.owner.uid),
        ]
        .map(|(k, v)| (k.to_owned(), v.to_owned())),
    );
    let mut notes = said.annotations;
    notes.retain(|key, _| !is_tracker(key));
    notes.insert(annotation::STEP_KEY.to_owned(), parts.key.clone());
    Some(PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: Some(interim_name(frame, template, &parts.key)),
            namespace: Some(frame.namespace.clone()),
            labels: Some(labels),
            annotations: Some(notes),
            owner_references: Some(vec![frame.owner.clone()]),
            ..ObjectMeta::default()
        },
        spec: template.spec.clone(),
        status: None,
    })
}
