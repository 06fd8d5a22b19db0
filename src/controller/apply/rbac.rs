//! Grants in the cluster: made before the Jobs that need them, revoked at the end of their run.
//!
//! A run revokes its rights before its finalizer is removed. But a user who may change a session may also remove the
//! finalizer, and the rights are in another namespace, where no owner reference deletes them. So the operator searches
//! for rights whose run is gone: at the start, periodically, and when a run with rights is deleted.

use std::fmt::Debug;
use std::time::Duration;

use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::core::{NamespaceResourceScope, PartialObjectMeta};
use kube::runtime::reflector::ObjectRef;
use kube::{Api, Resource, ResourceExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::Notify;
use tracing::{info, warn};

use crate::api::restore_session::GrantStatus;
use crate::controller::apply::writes::Writes;
use crate::controller::cache::index::Indexed;
use crate::controller::cache::pages::PAGE;
use crate::controller::cache::stored::{Stored, UserKind};
use crate::controller::cache::stores::Stores;
use crate::controller::cache::{pages, scope};
use crate::controller::observe::errors::plain;
use crate::names::{OPERATOR, annotation, label};
use crate::plan::effects::Grant;

/// Interval between searches for rights whose run is gone.
const NOW_AND_THEN: Duration = Duration::from_mins(10);
/// Interval after a run with rights was deleted: a reconcile in progress may have granted them after the deletion.
const AFTERWARDS: Duration = Duration::from_secs(30);
/// Delay that combines the searches of many runs that are deleted at once.
const TOGETHER: Duration = Duration::from_millis(500);

/// Makes the objects of a grant that do not exist yet.
///
/// # Errors
/// The API server could not be reached, or refused one of the objects.
pub async fn make(writes: &Writes, grant: &Grant) -> kube::Result<()> {
    if let Some(account) = &grant.account {
        create(writes, account).await?;
    }
    create(writes, &grant.role).await?;
    create(writes, &grant.binding).await
}

/// Revokes a right. Deletes the binding first: without it the other objects have no effect.
///
/// # Errors
/// The API server could not be reached, or refused.
pub async fn take_back(writes: &Writes, grant: &GrantStatus, namespace: &str) -> kube::Result<()> {
    unbind(writes, grant).await?;
    delete::<ServiceAccount>(writes, namespace, &grant.name).await
}

async fn unbind(writes: &Writes, grant: &GrantStatus) -> kube::Result<()> {
    delete::<RoleBinding>(writes, &grant.namespace, &grant.name).await?;
    delete::<Role>(writes, &grant.namespace, &grant.name).await
}

/// Searches for rights whose run is gone and revokes them, until the operator stops. Call it once the stores are
/// filled: runs are looked up in them. `left` signals that a run with rights was deleted.
pub async fn collect(writes: &Writes, stores: &Stores, left: &Notify) {
    let mut next = AFTERWARDS;
    loop {
        if let Err(error) = sweep(writes, stores).await {
            warn!(error = plain(&error), "cannot list RoleBindings of deleted runs; trying again");
        }
        tokio::select! {
            () = tokio::time::sleep(next) => next = NOW_AND_THEN,
            () = left.notified() => {
                tokio::time::sleep(TOGETHER).await;
                next = AFTERWARDS;
            }
        }
    }
}

async fn sweep(writes: &Writes, stores: &Stores) -> kube::Result<()> {
    let mut result = Ok(());
    for bindings in stores.scope.apis::<RoleBinding>(&writes.client) {
        let namespace = bindings.namespace().unwrap_or_default().to_owned();
        match sweep_part(writes, stores, bindings).await {
            // The permission to list was deleted with the namespace, and so were all other rights there.
            Err(e)
                if scope::is_forbidden(&e)
                    && scope::presence(&writes.client, &namespace).await != scope::Presence::There => {}
            // A namespace that cannot be listed does not prevent the search in others.
            looked => result = looked.and(result),
        }
    }
    result
}

async fn sweep_part(writes: &Writes, stores: &Stores, bindings: Api<RoleBinding>) -> kube::Result<()> {
    let ours = format!("{}={},{}", label::MANAGED_BY, label::MANAGED_BY_VALUE, label::SESSION_UID);
    let mut next = Some(ListParams::default().labels(&ours).limit(PAGE));
    while let Some(page) = next {
        let answer = bindings.list_metadata(&page).await?;
        for binding in &answer.items {
            // A binding that cannot be removed does not prevent the removal of others.
            if let Err(error) = settle(writes, stores, binding).await {
                let (namespace, name) = (binding.namespace().unwrap_or_default(), binding.name_any());
                warn!(namespace, name, error = plain(&error), "RBAC objects of a deleted run could not be removed");
            }
        }
        next = pages::after(page, &answer.metadata);
    }
    Ok(())
}

/// Revokes the right to which a binding belongs, if its run is gone.
async fn settle(writes: &Writes, stores: &Stores, binding: &PartialObjectMeta<RoleBinding>) -> kube::Result<()> {
    let Some(run) = RunOfRight::of(binding) else { return Ok(()) };
    let gone = match run.kind.as_str() {
        "RestoreSession" => run.is_gone(writes, &stores.consumers.restores).await?,
        "RestoreBatch" => run.is_gone(writes, &stores.consumers.restore_batches).await?,
        "BackupSession" => run.is_gone(writes, &stores.consumers.backups).await?,
        _ => false,
    };
    if gone {
        info!(kind = run.kind, namespace = run.namespace, session = run.name, "found RBAC objects of a deleted run");
        // Only in the namespace of the binding: any user may have written its content. The account is deleted with
        // its session.
        unbind(writes, &run.right).await?;
    }
    Ok(())
}

/// The run that a binding in another namespace was made for.
#[derive(Debug, PartialEq)]
struct RunOfRight {
    kind: String,
    namespace: String,
    name: String,
    uid: String,
    right: GrantStatus,
}

impl RunOfRight {
    /// `None` for a binding that does not have the form of a grant, or that has an owner, with which it is deleted.
    fn of(binding: &PartialObjectMeta<RoleBinding>) -> Option<Self> {
        let (labels, notes) = (binding.labels(), binding.annotations());
        let is_named = binding.name_any().starts_with(&format!("{OPERATOR}-"));
        let run = Self {
            kind: labels.get(label::SESSION_KIND)?.clone(),
            namespace: notes.get(annotation::SESSION_NAMESPACE)?.clone(),
            name: notes.get(annotation::SESSION_NAME)?.clone(),
            uid: labels.get(label::SESSION_UID)?.clone(),
            right: GrantStatus { namespace: binding.namespace()?, name: binding.name_any() },
        };
        (is_named && binding.owner_references().is_empty()).then_some(run)
    }

    /// Whether the run is gone according to both the watches and the API server.
    async fn is_gone<K>(&self, writes: &Writes, all: &Indexed<Stored<K>>) -> kube::Result<bool>
    where
        K: UserKind + Resource<Scope = NamespaceResourceScope>,
    {
        let is_there = |uid: Option<String>| uid.as_ref() == Some(&self.uid);
        if all.get(&ObjectRef::new(&self.name).within(&self.namespace)).is_some_and(|o| is_there(o.uid())) {
            return Ok(false);
        }
        let api: Api<K> = Api::namespaced(writes.client.clone(), &self.namespace);
        // The operator has permission to list these objects, but not to get them.
        let named = ListParams::default().fields(&format!("metadata.name={}", self.name));
        Ok(!api.list_metadata(&named).await?.items.into_iter().any(|o| is_there(o.uid())))
    }
}

async fn create<K>(writes: &Writes, object: &K) -> kube::Result<()>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + Serialize + Debug,
{
    let namespace = object.namespace().unwrap_or_default();
    let api: Api<K> = Api::namespaced(writes.client.clone(), &namespace);
    match api.create(&PostParams::default(), object).await {
        Ok(_) => {
            info!(namespace, kind = %K::kind(&()), name = object.name_any(), "created RBAC objects for Jobs of a run");
            Ok(())
        }
        Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(()),
        Err(e) => Err(e),
    }
}

async fn delete<K>(writes: &Writes, namespace: &str, name: &str) -> kube::Result<()>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let api: Api<K> = Api::namespaced(writes.client.clone(), namespace);
    match api.delete(name, &DeleteParams::background()).await {
        Ok(_) => {
            info!(namespace, kind = %K::kind(&()), name, "removed RBAC objects of a run");
            Ok(())
        }
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn binding(change: impl FnOnce(&mut Value)) -> Option<RunOfRight> {
        let mut object = json!({ "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": {
            "name": "lifeboat-r-abc", "namespace": "store",
            "labels": { label::MANAGED_BY: label::MANAGED_BY_VALUE, label::SESSION_KIND: "RestoreSession", label::SESSION_UID: "u" },
            "annotations": { annotation::SESSION_NAME: "r", annotation::SESSION_NAMESPACE: "demo" } } });
        change(&mut object["metadata"]);
        RunOfRight::of(&serde_json::from_value(object).unwrap())
    }

    #[test]
    fn a_binding_says_whose_it_is_and_one_that_is_not_as_ours_says_nothing() {
        let run = binding(|_| ()).unwrap();
        assert_eq!((run.kind.as_str(), run.namespace.as_str(), run.name.as_str()), ("RestoreSession", "demo", "r"));
        assert_eq!(run.right, GrantStatus { namespace: "store".into(), name: "lifeboat-r-abc".into() });
        let owner = json!([{ "apiVersion": "v1", "kind": "ConfigMap", "name": "o", "uid": "o" }]);
        assert_eq!(binding(|m| m["ownerReferences"] = owner), None);
        assert_eq!(binding(|m| m["name"] = "admins".into()), None);
        assert_eq!(binding(|m| drop(m["labels"].as_object_mut().unwrap().remove(label::SESSION_UID))), None);
        assert_eq!(binding(|m| drop(m.as_object_mut().unwrap().remove("annotations"))), None);
    }
}
