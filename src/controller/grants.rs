//! Grants in the cluster: made before the Jobs that need them, taken back at the end of their run.

use std::fmt::Debug;

use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::api::{DeleteParams, PostParams};
use kube::core::NamespaceResourceScope;
use kube::{Api, Resource, ResourceExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tracing::info;

use super::context::Context;
use crate::api::restore_session::GrantStatus;
use crate::plan::grants::Grant;

/// Makes what is not there yet.
///
/// # Errors
/// The API server could not be reached, or refused one of them.
pub async fn make(ctx: &Context, grant: &Grant) -> kube::Result<()> {
    if let Some(account) = &grant.account {
        create(ctx, account).await?;
    }
    create(ctx, &grant.role).await?;
    create(ctx, &grant.binding).await
}

/// Takes a right back: first the binding, after which the others are worth nothing.
///
/// # Errors
/// The API server could not be reached, or refused.
pub async fn take_back(ctx: &Context, grant: &GrantStatus, namespace: &str) -> kube::Result<()> {
    delete::<RoleBinding>(ctx, &grant.namespace, &grant.name).await?;
    delete::<Role>(ctx, &grant.namespace, &grant.name).await?;
    delete::<ServiceAccount>(ctx, namespace, &grant.name).await
}

async fn create<K>(ctx: &Context, object: &K) -> kube::Result<()>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + Serialize + Debug,
{
    let namespace = object.namespace().unwrap_or_default();
    let api: Api<K> = Api::namespaced(ctx.client.clone(), &namespace);
    match api.create(&PostParams::default(), object).await {
        Ok(_) => {
            info!(namespace, kind = %K::kind(&()), name = object.name_any(), "gave a right to Jobs of a run");
            Ok(())
        }
        Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(()),
        Err(e) => Err(e),
    }
}

async fn delete<K>(ctx: &Context, namespace: &str, name: &str) -> kube::Result<()>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let api: Api<K> = Api::namespaced(ctx.client.clone(), namespace);
    match api.delete(name, &DeleteParams::background()).await {
        Ok(_) => {
            info!(namespace, kind = %K::kind(&()), name, "took a right back");
            Ok(())
        }
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        Err(e) => Err(e),
    }
}
