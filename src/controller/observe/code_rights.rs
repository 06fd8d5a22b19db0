//! Whether an object may have the settings that it asks for, if they can run code or raise rights.
//!
//! The controller accepts such an object only with the webhook's seal, or in a namespace that an administrator has
//! opened for that. The webhook checks the author of the object; this module does not.

use std::collections::BTreeMap;

use kube::{Resource, ResourceExt as _};
use serde::Serialize;

use crate::admission::rights;
use crate::api::to_json;
use crate::controller::observe::reads::{Reads, Seals};
use crate::names::{label, reason};
use crate::plan::seen::Refusal;

/// Why the controller does nothing for an object that asks for rights. `None` if it asks for none, or
/// has them.
///
/// # Errors
/// The namespace or the key could not be read.
pub async fn refusal<K>(reads: &Reads, object: &K) -> kube::Result<Option<Refusal>>
where
    K: Resource<DynamicType = ()> + Serialize,
{
    let namespace = object.namespace().unwrap_or_default();
    let labels =
        async { Ok(reads.informers.namespace(&namespace).await?.and_then(|n| n.metadata.labels).unwrap_or_default()) };
    // Boxed: the many reconciles of restores need not carry the memory for a read that few of them make.
    Box::pin(judge(reads.seals.as_deref(), object, labels)).await
}

/// `labels` are the labels of the object's Namespace. They are read only for an object that asks for rights.
///
/// # Errors
/// The labels or the key could not be read.
pub async fn judge<K>(
    seals: Option<&dyn Seals>,
    object: &K,
    labels: impl Future<Output = kube::Result<BTreeMap<String, String>>>,
) -> kube::Result<Option<Refusal>>
where
    K: Resource<DynamicType = ()> + Serialize,
{
    let Some(seals) = seals else { return Ok(None) };
    let (kind, namespace) = (K::kind(&()), object.namespace().unwrap_or_default());
    let json = to_json(object);
    let Some(text) = rights::unsealed(&kind, &namespace, &json, None) else { return Ok(None) };
    if is_opened(&labels.await?) {
        return Ok(None);
    }
    let text = match seals.key().await? {
        Some(key) => rights::unsealed(&kind, &namespace, &json, Some(&key)),
        None => Some(text),
    };
    Ok(text.map(|message| Refusal { reason: reason::INVALID.to_owned(), message }))
}

/// Whether these are the labels of a Namespace that an administrator has opened.
pub fn is_opened(labels: &BTreeMap<String, String>) -> bool {
    labels.get(label::ALLOW_CODE).is_some_and(|v| v == "true")
}
