//! Warnings at `kubectl apply` for valid objects with a destructive effect.

use serde_json::Value;

/// Texts for an object of a kind.
pub fn of(kind: &str, object: &Value) -> Vec<String> {
    let spec = &object["spec"];
    match kind {
        "RestoreSession" => target("spec", spec).into_iter().collect(),
        "RestoreBatch" => {
            let members = spec["members"].as_array().into_iter().flatten().enumerate();
            members.filter_map(|(i, member)| target(&format!("spec.members[{i}]"), member)).collect()
        }
        _ => vec![],
    }
}

fn target(at: &str, holder: &Value) -> Option<String> {
    let is_exact = holder["target"]["extraneous"] == "Delete";
    is_exact.then(|| {
        format!(
            "{at}.target.extraneous is Delete: files in the paths of its rules that are not in the snapshots will be deleted after everything else is restored"
        )
    })
}
