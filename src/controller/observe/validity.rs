//! Validation inside the controller: the same functions that the webhook calls, so that
//! an object means the same with the webhook absent. The kept part of an object is already defaulted.
//!
//! This module does not check who may write an object; [`super::code_rights`] does.

use kube::{Resource, ResourceExt as _};
use serde::Serialize;

use crate::admission;
use crate::api::to_json;
use crate::controller::cache::stored::{Stored, UserKind};
use crate::controller::cache::verdicts::{Verdict, Verdicts, part};
use crate::controller::observe::errors::Error;
use crate::plan::seen::Refusal;

/// Why the webhook would have rejected the object.
///
/// # Errors
/// The object could not be validated yet, or its status cannot be read.
pub async fn judge<K: UserKind>(verdicts: &Verdicts, object: &Stored<K>) -> Result<Verdict, Error> {
    if object.is_of_another_version() {
        return Err(Error::AnotherVersion);
    }
    if let Some(refusal) = object.refusal() {
        return Ok(Some(refusal));
    }
    let (uid, namespace) = (object.uid().unwrap_or_default(), object.namespace().unwrap_or_default());
    // Of the validated content only the spec can change, and with it the generation: the identity of an invoker in its
    // status always comes from a spec that was let in.
    let version = object.meta().generation.unwrap_or_default().to_string();
    let judged = object.clone();
    let validate = move || examine(&judged.open());
    Ok(verdicts.judge((&K::kind(&()), &uid), &version, &namespace, validate).await?)
}

/// The verdict on an object that is not in the cluster, but is made of an existing object, `of`, and of other objects;
/// `version` is the version of all of them.
///
/// # Errors
/// The object could not be validated yet.
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
