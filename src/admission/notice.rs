//! Warnings at `kubectl apply` for valid objects: with a destructive effect, or with a field that means something else
//! than in Stash.

use serde_json::Value;

/// Texts for an object of a kind.
pub fn of(kind: &str, object: &Value) -> Vec<String> {
    let spec = &object["spec"];
    match kind {
        "RestoreSession" => target("spec", spec).into_iter().collect(),
        "RestoreBatch" => {
            let members = spec["members"].as_array().into_iter().flatten().enumerate();
            let of_members = members.filter_map(|(i, member)| target(&format!("spec.members[{i}]"), member));
            of_members.chain(hooks(spec)).collect()
        }
        "BackupBatch" => hooks(spec),
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

/// Commands of the hooks of a whole run that name a container.
fn hooks(spec: &Value) -> Vec<String> {
    let all = spec["hooks"].as_object().into_iter().flatten();
    let named = all.filter(|(_, hook)| hook["exec"].is_object() && hook["containerName"].is_string());
    let text = |field: &String| {
        format!(
            "spec.hooks.{field}.containerName has no effect: a hook of the whole run has no pod, so its command runs in a Job of its own"
        )
    };
    named.map(|(field, _)| text(field)).collect()
}
