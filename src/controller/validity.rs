//! Defaulting and validation inside the controller: the same functions that the
//! webhook calls, so that an object means the same with the webhook absent.

use kube::Resource;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::admission;
use crate::api::to_json;
use crate::plan::observed::Refusal;

/// The object as the webhook would have let it in, and why it would not have.
pub fn examine<K>(object: &K) -> (Option<K>, Option<Refusal>)
where
    K: Resource<DynamicType = ()> + Serialize + DeserializeOwned,
{
    let kind = K::kind(&());
    let mut raw = to_json(object);
    admission::default(&kind, &mut raw);
    let errors = admission::validate::check(&kind, &raw, None);
    let refusal = admission::validate::object_reason(&errors)
        .map(|reason| Refusal { reason: reason.as_str().to_owned(), message: admission::validate::message(&errors) });
    (serde_json::from_value(raw).ok(), refusal)
}
