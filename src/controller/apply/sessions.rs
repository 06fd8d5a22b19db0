//! Creates the backup sessions that a plan asks for.
//!
//! A session that already exists is never changed, regardless of its creator.

use kube::api::PostParams;
use kube::{Api, ResourceExt as _};
use tracing::info;

use crate::api::BackupSession;
use crate::controller::apply::writes::Writes;
use crate::plan::backup::sessions::NewSession;

/// Creates a session. A session that already exists is left unchanged. If its name is taken by a session of another
/// owner, or by a session that a user made by hand, the new session gets another name.
///
/// # Errors
/// The API server could not be reached, or refused the session.
pub async fn create(writes: &Writes, new: &NewSession) -> kube::Result<()> {
    let namespace = new.session.namespace().unwrap_or_default();
    let api: Api<BackupSession> = Api::namespaced(writes.client.clone(), &namespace);
    let mut session = new.session.clone();
    loop {
        let name = session.name_any();
        match api.create(&PostParams::default(), &session).await {
            Ok(_) => {
                let invoker = session.spec.invoker.unwrap_or_default();
                info!(namespace, session = name, kind = invoker.kind, invoker = invoker.name, "created a session");
                return Ok(());
            }
            Err(kube::Error::Api(status)) if status.is_already_exists() => {
                let there = api.get_opt(&name).await?;
                let is_ours = there.is_none_or(|there| has_owner_of(&there, &session));
                if is_ours || name == new.other_name {
                    return Ok(());
                }
                session.metadata.name = Some(new.other_name.clone());
            }
            Err(e) => return Err(e),
        }
    }
}

/// Whether the existing session belongs to the invoker that the new session is made for. Any user can name an invoker
/// in a session. A session of an invoker that was deleted and created again belongs to another invoker.
fn has_owner_of(there: &BackupSession, made: &BackupSession) -> bool {
    let owner = made.owner_references().iter().find(|o| o.controller == Some(true));
    owner.is_some_and(|owner| there.owner_references().iter().any(|o| o.uid == owner.uid))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_session_is_known_by_its_owner_and_not_by_what_it_names() {
        let of = |owners: Value| -> BackupSession {
            let invoker = json!({ "kind": "BackupConfiguration", "name": "files" });
            serde_json::from_value(json!({ "apiVersion": "stash.appscode.com/v1beta1", "kind": "BackupSession",
                "metadata": { "name": "s", "ownerReferences": owners }, "spec": { "invoker": invoker } }))
            .unwrap()
        };
        let owner = |uid: &str| {
            json!([{ "apiVersion": "stash.appscode.com/v1beta1", "kind": "BackupConfiguration", "name": "files",
                "uid": uid, "controller": true }])
        };
        let made = of(owner("u"));
        assert!(has_owner_of(&of(owner("u")), &made));
        assert!(!has_owner_of(&of(owner("v")), &made), "of the invoker that had the name before");
        assert!(!has_owner_of(&of(json!([])), &made), "made by hand");
    }
}
