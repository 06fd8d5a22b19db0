//! Settings of the Jobs' pods, and their scratch volume.
//!
//! Most settings are copied to the pod, and validated by the API server. This module checks settings that the agent
//! uses, and settings that have no meaning for a Job.

use crate::admission::error::Errors;
use crate::api::common::EmptyDirSettings;
use crate::api::runtime::RuntimeSettings;

/// Prefix of the agent's own variables.
const OURS: &str = "LIFEBOAT_";

/// Settings of pod and container.
pub fn settings(errors: &mut Errors, at: &str, settings: Option<&RuntimeSettings>) {
    let Some(settings) = settings else { return };
    if settings.pod.as_ref().is_some_and(|p| !p.service_account_annotations.is_empty()) {
        errors.not_supported(
            format!("{at}.pod.serviceAccountAnnotations"),
            "no ServiceAccount is generated for a Job; annotate one of your own and name it in serviceAccountName",
        );
    }
    let Some(container) = &settings.container else { return };
    for (i, variable) in container.env.iter().enumerate().filter(|(_, v)| v.name.starts_with(OURS)) {
        errors.invalid(
            format!("{at}.container.env[{i}].name"),
            format!("is {:?}; names that begin with {OURS} are reserved", variable.name),
        );
    }
    for (i, variable) in container.env.iter().enumerate() {
        // The value is not in the message, because it may be a secret.
        if variable.value.as_deref().is_some_and(|v| v.contains('\0')) {
            let text = format!(
                "the value of {} has a NUL character (\\u0000), which no variable can have; remove it",
                variable.name
            );
            errors.invalid(format!("{at}.container.env[{i}].value"), text);
        }
    }
    let numbers = [
        ("nice.adjustment", container.nice.and_then(|n| n.adjustment), -20, 19),
        ("ionice.class", container.ionice.and_then(|n| n.class), 0, 3),
        ("ionice.classData", container.ionice.and_then(|n| n.class_data), 0, 7),
    ];
    for (field, n, min, max) in numbers {
        if let Some(n) = n.filter(|n| !(min..=max).contains(n)) {
            errors.invalid(format!("{at}.container.{field}"), format!("is {n}; write {min} to {max}"));
        }
    }
}

/// The scratch volume.
pub fn temp_dir(errors: &mut Errors, at: &str, settings: Option<&EmptyDirSettings>) {
    let Some(settings) = settings else { return };
    if let Some(medium) = settings.medium.as_deref().filter(|m| !matches!(*m, "" | "Memory")) {
        errors.invalid(
            format!("{at}.medium"),
            format!("{medium:?} is not a storage medium; write Memory, or remove the field for the node's disk"),
        );
    }
    if let Some(size) = settings.size_limit.as_ref().filter(|q| !is_size(&q.0)) {
        errors.invalid(format!("{at}.sizeLimit"), format!("{:?} is not a valid size; write for example 1Gi", size.0));
    }
}

/// Whether a text is a Kubernetes quantity of bytes greater than zero.
pub fn is_size(text: &str) -> bool {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let suffix = matches!(unit, "" | "k" | "M" | "G" | "T" | "P" | "E" | "Ki" | "Mi" | "Gi" | "Ti" | "Pi" | "Ei");
    let exponent = unit.strip_prefix(['e', 'E']).is_some_and(|e| e.parse::<u8>().is_ok());
    number.parse::<f64>().is_ok_and(|n| n > 0.0) && (suffix || exponent)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::admission::error::message;
    use crate::admission::validate::check;
    use crate::admission::validate::runtime::is_size;

    #[test]
    fn variables_of_the_agent_cannot_be_set() {
        let session = |name: &str| {
            json!({ "spec": {
                "repository": { "name": "r" },
                "target": { "ref": { "kind": "PersistentVolumeClaim", "name": "data" }, "rules": [{ "snapshots": ["latest"] }] },
                "runtimeSettings": { "container": { "env": [{ "name": "TZ" }, { "name": name, "value": "/" }] } },
            }})
        };
        let text = message(&check("RestoreSession", &session("LIFEBOAT_RESTORE_ROOT"), None));
        assert!(text.starts_with("spec.runtimeSettings.container.env[1].name: is \"LIFEBOAT_RESTORE_ROOT\""), "{text}");
        assert_eq!(check("RestoreSession", &session("NOT_LIFEBOAT_"), None), []);
    }

    #[test]
    fn a_value_that_no_program_can_have_is_refused_and_not_repeated() {
        let session = json!({ "spec": {
            "repository": { "name": "r" },
            "target": { "ref": { "kind": "PersistentVolumeClaim", "name": "data" }, "rules": [{ "snapshots": ["latest"] }] },
            "runtimeSettings": { "container": { "env": [{ "name": "TOKEN", "value": "hidden\0" }] } },
        }});
        let text = message(&check("RestoreSession", &session, None));
        assert!(
            text.starts_with("spec.runtimeSettings.container.env[0].value: the value of TOKEN has a NUL"),
            "{text}"
        );
        assert!(!text.contains("hidden"), "{text}");
    }

    #[test]
    fn sizes_are_those_of_kubernetes() {
        assert!(["1Gi", "512", "1.5G", "1e9"].iter().all(|s| is_size(s)));
        assert!(["", "Gi", "1GB", "-1Gi", "0", "1 Gi"].iter().all(|s| !is_size(s)));
    }
}
