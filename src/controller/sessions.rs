//! Creates the backup sessions that a plan asks for.

use kube::api::PostParams;
use kube::{Api, ResourceExt as _};
use tracing::info;

use super::context::Context;
use crate::api::BackupSession;
use crate::plan::sessions::NewSession;

/// Creates a session. One that is there already is left alone; where another invoker's has its name, it gets another.
///
/// # Errors
/// The API server could not be reached, or refused it.
pub async fn create(ctx: &Context, new: &NewSession) -> kube::Result<()> {
    let namespace = new.session.namespace().unwrap_or_default();
    let api: Api<BackupSession> = Api::namespaced(ctx.client.clone(), &namespace);
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
                let is_ours = there.is_none_or(|t| t.spec.invoker == session.spec.invoker);
                if is_ours || name == new.other_name {
                    return Ok(());
                }
                session.metadata.name = Some(new.other_name.clone());
            }
            Err(e) => return Err(e),
        }
    }
}
