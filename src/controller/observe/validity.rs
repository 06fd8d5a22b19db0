//! Validation inside the controller: the same functions that the webhook calls, so that
//! an object means the same with the webhook absent. What is kept of an object is defaulted already.
//!
//! Who may write an object is not asked here; [`super::code_rights`] does.

use kube::{Resource, ResourceExt as _};
use serde::Serialize;

use crate::admission;
use crate::api::to_json;
use crate::controller::cache::stored::{Stored, UserKind};
use crate::controller::cache::verdicts::{Verdict, Verdicts, part};
use crate::controller::observe::errors::Error;
use crate::plan::seen::Refusal;

/// Why the webhook would not have let the object in.
///
/// # Errors
/// It could not be validated yet, or its status cannot be read.
pub async fn judge<K: UserKind>(verdicts: &Verdicts, object: &Stored<K>) -> Result<Verdict, Error> {
    if object.is_of_another_version() {
        return Err(Error::AnotherVersion);
    }
    if let Some(refusal) = object.refusal() {
        return Ok(Some(refusal));
    }
    let (uid, namespace) = (object.uid().unwrap_or_default(), object.namespace().unwrap_or_default());
    // Of what is validated, only the spec can change, and with it the generation: the identity of an invoker in its
    // status is only ever that of a spec which was let in.
    let version = object.meta().generation.unwrap_or_default().to_string();
    let judged = object.clone();
    let validate = move || examine(&judged.open());
    Ok(verdicts.judge((&K::kind(&()), &uid), &version, &namespace, validate).await?)
}

/// The same of an object that stands nowhere, but is made of one that does, `of`, and of others; `version` is that of all.
///
/// # Errors
/// It could not be validated yet.
pub async fn judge_part<K>(verdicts: &Verdicts, of: &str, version: &str, object: K) -> Result<Verdict, Error>
where
    K: Resource<DynamicType = ()> + Serialize + Send + Sync + 'static,
{
    let namespace = object.namespace().unwrap_or_default();
    let validate = move || examine(&object);
    Ok(verdicts.judge((&K::kind(&()), &part(of)), version, &namespace, validate).await?)
}

fn examine<K: Resource<DynamicType = ()> + Serialize>(object: &K) -> Verdict {
    let errors = admission::check(&K::kind(&()), &to_json(object), None);
    let reason = admission::object_reason(&errors)?;
    Some(Refusal { reason: reason.as_str().to_owned(), message: admission::message(&errors) })
}
