//! Updates the Snapshots of a Repository to match a list of snapshots.
//!
//! Existing objects are read page by page, and only a hash of each is kept, so that thousands of them need little
//! memory. Each write is independent and can be repeated: if a Job is killed, the next one completes the update.

use std::collections::BTreeMap;
use std::path::Path;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::{Api, Resource as _};
use serde_json::{Value, json};

use crate::agent::cluster::{client, plain, trouble};
use crate::api::Snapshot;
use crate::contract::restic::{List, Listed};
use crate::contract::{Failure, Run};
use crate::names::{SNAPSHOT_MANAGER, reason};
use crate::plan::systems::restic::snapshots::{Existing, Listing};

/// Objects of a page.
const PAGE: u32 = 500;
/// Concurrent writes: enough to be fast, without overloading the API server.
const AT_ONCE: usize = 8;

/// Updates the Snapshots of the Repository of `run` to match the list. Returns how many were written and removed.
///
/// # Errors
/// The API server could not be reached, or rejected a request.
pub async fn keep(kubeconfig: Option<&Path>, run: &Run, step: &List, listed: &[Listed]) -> Result<(u64, u64), Failure> {
    let api: Api<Snapshot> = Api::namespaced(client(kubeconfig).await?, &run.namespace);
    let listing = Listing::new(run, &step.labels, listed);
    let failed = |e: kube::Error| {
        trouble(
            reason::AGENT_FAILED,
            format!("The Snapshots of Repository {} could not be updated: {}.", run.name, plain(&e)),
        )
    };
    let there = super::patiently(|| read(api.clone(), listing.selector())).await.map_err(failed)?;
    let remove = listing.to_remove(&there);
    let removed = remove.len();
    stream::iter(remove.into_iter().map(|name| Ok(delete(api.clone(), name))))
        .try_buffer_unordered(AT_ONCE)
        .try_collect::<()>()
        .await
        .map_err(failed)?;
    let mut written = 0;
    let mut writes =
        stream::iter(listing.to_write(&there).map(|snapshot| write(api.clone(), snapshot))).buffer_unordered(AT_ONCE);
    while let Some(result) = writes.next().await {
        result.map_err(failed)?;
        written += 1;
    }
    tracing::info!(snapshots = listed.len(), written, removed, "Snapshots match the repository");
    Ok((written, removed as u64))
}

async fn read(api: Api<Snapshot>, selector: String) -> kube::Result<BTreeMap<String, Existing>> {
    let mut there = BTreeMap::new();
    let mut params = ListParams::default().labels(&selector).limit(PAGE);
    loop {
        let page = api.list(&params).await?;
        there.extend(page.items.iter().map(|s| (s.metadata.name.clone().unwrap_or_default(), Existing::of(s))));
        match page.metadata.continue_.filter(|c| !c.is_empty()) {
            Some(next) => params = params.continue_token(&next),
            None => return Ok(there),
        }
    }
}

/// Writes the object, then its status, which is a separate resource.
async fn write(api: Api<Snapshot>, snapshot: Snapshot) -> kube::Result<()> {
    let name = snapshot.metadata.name.clone().unwrap_or_default();
    let params = PatchParams::apply(SNAPSHOT_MANAGER).force();
    let of = |more: Value| {
        let mut body = json!({ "apiVersion": Snapshot::api_version(&()), "kind": Snapshot::kind(&()) });
        if let (Some(body), Value::Object(more)) = (body.as_object_mut(), more) {
            body.extend(more);
        }
        body
    };
    let object = of(json!({ "metadata": snapshot.metadata, "spec": {} }));
    api.patch(&name, &params, &Patch::Apply(object)).await?;
    let status = of(json!({ "metadata": { "name": name }, "status": snapshot.status }));
    api.patch_status(&name, &params, &Patch::Apply(status)).await?;
    Ok(())
}

async fn delete(api: Api<Snapshot>, name: String) -> kube::Result<()> {
    match api.delete(&name, &DeleteParams::background()).await {
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        other => other.map(|_| ()),
    }
}
