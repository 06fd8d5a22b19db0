//! Reviews: what the API server asks before it stores an object, and our answer.
//!
//! Pure, from JSON to JSON. A patch is the difference between the object as it
//! was sent and its one form: never between typed objects, whose paths the sent
//! object may not have. A mistake denies; what is not built yet is admitted with
//! a warning, because published manifests must apply. An object that is being
//! deleted, or whose spec did not change, always passes: a rule of today must not
//! hold up the finalizer of an object of yesterday.

use serde_json::{Map, Value, json};

use super::validate::{FieldError, Reason, check, message, object_reason};
use super::{Elsewhere, default, kind_of};
use crate::names::GROUP;

/// Longest warning the API server passes on whole (Kubernetes, "Dynamic Admission Control", "Response").
const WARNING_MAX: usize = 256;
/// Most warnings: the API server drops those past 4096 characters in all.
const WARNINGS: usize = 15;

/// A review that could be read.
struct Request<'a> {
    uid: &'a str,
    operation: &'a str,
    object: Option<&'a Value>,
    old: Option<&'a Value>,
    namespace: Option<&'a str>,
}

impl<'a> Request<'a> {
    fn read(review: &'a Value) -> Result<Self, String> {
        let text = |at: &str| review.pointer(at).and_then(Value::as_str);
        if (text("/apiVersion"), text("/kind")) != (Some("admission.k8s.io/v1"), Some("AdmissionReview")) {
            return Err("not an AdmissionReview of admission.k8s.io/v1".to_owned());
        }
        let uid = text("/request/uid").ok_or("the review has no request.uid")?;
        let operation = text("/request/operation").ok_or("the review has no request.operation")?;
        let object = |at: &str| review.pointer(at).filter(|o| o.is_object());
        let (new, old) = (object("/request/object"), object("/request/oldObject"));
        if matches!(operation, "CREATE" | "UPDATE") && new.is_none() {
            return Err("the review has no request.object".to_owned());
        }
        Ok(Self { uid, operation, object: new, old, namespace: text("/request/namespace") })
    }

    /// The object to judge; `None` where there is nothing to judge.
    fn subject(&self) -> Option<&'a Value> {
        let object = self.object.filter(|_| matches!(self.operation, "CREATE" | "UPDATE"))?;
        let is_going = object.pointer("/metadata/deletionTimestamp").is_some_and(|t| !t.is_null());
        let is_same = self.old.is_some_and(|old| old.get("spec") == object.get("spec"));
        (!is_going && !is_same).then_some(object)
    }
}

fn answer(uid: &str, mut response: Map<String, Value>) -> Value {
    response.insert("uid".into(), uid.into());
    response.entry("allowed").or_insert(true.into());
    json!({ "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response })
}

/// Answers a mutating review for a path segment that names the kind.
///
/// # Errors
/// The text is no review.
pub fn mutate(segment: &str, review: &Value) -> Result<Value, String> {
    let request = Request::read(review)?;
    let mut response = Map::new();
    if let (Some(kind), Some(object)) = (kind_of(segment), request.subject()) {
        let mut changed = object.clone();
        default(kind, &mut changed);
        let patch = json_patch::diff(object, &changed);
        if !patch.0.is_empty() {
            let text = serde_json::to_vec(&patch).map_err(|e| e.to_string())?;
            response.insert("patchType".into(), "JSONPatch".into());
            response.insert("patch".into(), base64::Engine::encode(&base64::prelude::BASE64_STANDARD, text).into());
        }
    }
    Ok(answer(request.uid, response))
}

/// What must be asked before [`validate`] can answer: a Repository of another namespace. An object that is wrong
/// by itself needs no question.
pub fn question(segment: &str, review: &Value) -> Option<Elsewhere> {
    let request = Request::read(review).ok()?;
    let (kind, object) = (kind_of(segment)?, request.subject()?);
    let asked = Elsewhere::of(object, request.old, request.namespace?)?;
    check(kind, object, request.old).is_empty().then_some(asked)
}

/// Answers a validating review for a path segment that names the kind. `refusal` is what came of the [`question`]:
/// why the Repository may not be used.
///
/// # Errors
/// The text is no review.
pub fn validate(segment: &str, review: &Value, refusal: Option<&str>) -> Result<Value, String> {
    let request = Request::read(review)?;
    let (Some(kind), Some(object)) = (kind_of(segment), request.subject()) else {
        return Ok(answer(request.uid, Map::new()));
    };
    let mut object = object.clone();
    // The request knows the namespace even where the object does not say it.
    if let (Some(namespace), Some(meta)) =
        (request.namespace.filter(|n| !n.is_empty()), object.get_mut("metadata").and_then(Value::as_object_mut))
    {
        meta.entry("namespace").or_insert(namespace.into());
    }
    let errors = check(kind, &object, request.old);
    let mut response = Map::new();
    let name = object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
    match object_reason(&errors) {
        None => {
            if let Some(text) = refusal {
                response.insert("allowed".into(), false.into());
                response.insert("status".into(), forbidden(kind, name, text));
            }
        }
        Some(Reason::NotSupported) => {
            let warnings = errors.iter().take(WARNINGS).map(|error| {
                let mut text = message(std::slice::from_ref(error));
                crate::plan::contract::cut(&mut text, WARNING_MAX);
                Value::from(text)
            });
            response.insert("warnings".into(), warnings.collect());
        }
        Some(Reason::Invalid) => {
            response.insert("allowed".into(), false.into());
            response.insert("status".into(), denial(kind, name, &errors));
        }
    }
    Ok(answer(request.uid, response))
}

/// A status as the API server itself writes for an invalid object.
fn denial(kind: &str, name: &str, errors: &[FieldError]) -> Value {
    let causes: Vec<Value> = errors
        .iter()
        .map(|e| {
            let reason = match e.reason {
                Reason::Invalid => "FieldValueInvalid",
                Reason::NotSupported => "FieldValueNotSupported",
            };
            json!({ "reason": reason, "field": e.field, "message": e.message })
        })
        .collect();
    json!({
        "status": "Failure",
        "code": 422,
        "reason": "Invalid",
        "message": message(errors),
        "details": { "group": GROUP, "kind": kind, "name": name, "causes": causes },
    })
}

/// A status as the API server itself writes for what somebody may not do.
fn forbidden(kind: &str, name: &str, text: &str) -> Value {
    json!({
        "status": "Failure",
        "code": 403,
        "reason": "Forbidden",
        "message": text,
        "details": { "group": GROUP, "kind": kind, "name": name, "causes": [{ "field": "spec.repository", "message": text }] },
    })
}
