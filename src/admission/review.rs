//! Reviews: requests of the API server before it stores an object, and the responses.
//!
//! Pure, from JSON to JSON. A patch is the difference between the sent object and its one form, never between typed
//! objects, whose paths may not exist in the sent object. An invalid object is denied; a feature that is not
//! implemented is admitted with a warning, because published manifests must apply. An object that is being deleted,
//! or whose spec did not change, is always admitted: a new rule must not block the finalizer of an old object.

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use crate::admission::bounds::{ADVICE, GROWTH};
use crate::admission::default::default;
use crate::admission::elsewhere::Elsewhere;
use crate::admission::error::{FieldError, Reason, message, object_reason};
use crate::admission::kinds::kind_of;
use crate::admission::notice;
use crate::admission::request::Request;
use crate::admission::rights::Mark;
use crate::admission::validate::check;
use crate::names::{GROUP, annotation};

/// Maximum length of a warning that the API server does not truncate (Kubernetes, "Dynamic Admission Control",
/// "Response").
const WARNING_MAX: usize = 256;
/// Maximum number of warnings: the API server drops warnings beyond 4096 characters in total.
const WARNINGS: usize = 15;

fn answer(uid: &str, mut response: Map<String, Value>) -> Value {
    response.insert("uid".into(), uid.into());
    response.entry("allowed").or_insert(true.into());
    json!({ "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response })
}

/// The denial of an object that exceeds the maximum size, without parsing it, so that many such requests do not delay
/// others. `None` for any other review, valid or not.
pub fn outsized(segment: &str, review: &[u8]) -> Option<Value> {
    #[derive(Deserialize)]
    struct Outline<'a> {
        #[serde(borrow)]
        request: Parts<'a>,
    }
    #[derive(Deserialize)]
    struct Parts<'a> {
        uid: String,
        #[serde(default)]
        name: String,
        #[serde(borrow)]
        object: &'a RawValue,
        #[serde(borrow, rename = "oldObject")]
        old: Option<&'a RawValue>,
    }
    let Parts { uid, name, object, old } = serde_json::from_slice::<Outline<'_>>(review).ok()?.request;
    let (kind, size) = (kind_of(segment)?, object.get().len());
    if size <= old.map_or(0, |o| o.get().len()) + GROWTH {
        return None;
    }
    let text = format!("{kind} {name} has {size} bytes of JSON; {GROWTH} are possible in one request; {ADVICE}");
    let errors = [FieldError::new("spec", Reason::Invalid, text)];
    let denied = json!({ "allowed": false, "status": denial(kind, &name, &errors) });
    Some(answer(&uid, denied.as_object().cloned().unwrap_or_default()))
}

/// Responds to a mutating review for a path segment that names the kind.
///
/// # Errors
/// The text is not a review.
pub fn mutate(segment: &str, review: &Value) -> Result<Value, String> {
    mutate_and_mark(segment, review, &Mark::Leave)
}

/// As [`mutate`], with the seal that results from [`super::rights::mark`].
///
/// # Errors
/// The text is not a review.
pub fn mutate_and_mark(segment: &str, review: &Value, mark: &Mark) -> Result<Value, String> {
    let request = Request::read(review)?;
    let mut response = Map::new();
    if let (Some(kind), Some(object)) = (kind_of(segment), request.living()) {
        let mut changed = object.clone();
        if request.subject().is_some() {
            default(kind, &mut changed);
        }
        set_seal(&mut changed, mark);
        let patch = json_patch::diff(object, &changed);
        if !patch.0.is_empty() {
            let text = serde_json::to_vec(&patch).map_err(|e| e.to_string())?;
            response.insert("patchType".into(), "JSONPatch".into());
            response.insert("patch".into(), base64::Engine::encode(&base64::prelude::BASE64_STANDARD, text).into());
        }
    }
    Ok(answer(request.uid, response))
}

/// Sets or removes the seal of an object.
fn set_seal(object: &mut Value, mark: &Mark) {
    let Some(meta) = object.get_mut("metadata").and_then(Value::as_object_mut) else { return };
    match mark {
        Mark::Set(seal) => {
            let notes = meta.entry("annotations").or_insert_with(|| json!({}));
            if notes.is_null() {
                *notes = json!({});
            }
            if let Some(notes) = notes.as_object_mut() {
                notes.insert(annotation::SEAL.to_owned(), seal.as_str().into());
            }
        }
        Mark::Remove => {
            if let Some(notes) = meta.get_mut("annotations").and_then(Value::as_object_mut) {
                notes.remove(annotation::SEAL);
            }
        }
        Mark::Leave | Mark::Ask(..) => {}
    }
}

/// What must be looked up for a warning: a Repository of another namespace. An object that is invalid by itself needs
/// no lookup.
pub fn question(segment: &str, review: &Value) -> Option<Elsewhere> {
    let request = Request::read(review).ok()?;
    let (kind, object) = (kind_of(segment)?, request.subject()?);
    let asked = Elsewhere::of(object, request.old, request.namespace?)?;
    check(kind, object, request.old).is_empty().then_some(asked)
}

/// Responds to a validating review for a path segment that names the kind. `refusal` is the answer to the question of
/// [`super::rights::question`]: the permissions that the author lacks.
///
/// # Errors
/// The text is not a review.
pub fn validate(segment: &str, review: &Value, refusal: Option<&str>) -> Result<Value, String> {
    let request = Request::read(review)?;
    let (Some(kind), Some(object)) = (kind_of(segment), request.subject()) else {
        return Ok(answer(request.uid, Map::new()));
    };
    let mut object = object.clone();
    // The request contains the namespace even if the object does not.
    if let (Some(namespace), Some(meta)) =
        (request.namespace.filter(|n| !n.is_empty()), object.get_mut("metadata").and_then(Value::as_object_mut))
    {
        meta.entry("namespace").or_insert(namespace.into());
    }
    let errors = check(kind, &object, request.old);
    let mut response = Map::new();
    let name = object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
    match (object_reason(&errors), refusal) {
        (None | Some(Reason::NotSupported), Some(text)) => {
            response.insert("allowed".into(), false.into());
            response.insert("status".into(), forbidden(kind, name, text));
        }
        (None, None) => {
            let said: Vec<Value> = notice::of(kind, &object).iter().take(WARNINGS).map(|text| warning(text)).collect();
            if !said.is_empty() {
                response.insert("warnings".into(), said.into());
            }
        }
        (Some(Reason::NotSupported), None) => {
            let warnings = errors.iter().take(WARNINGS).map(|error| warning(&message(std::slice::from_ref(error))));
            response.insert("warnings".into(), warnings.collect());
        }
        (Some(Reason::Invalid), _) => {
            response.insert("allowed".into(), false.into());
            response.insert("status".into(), denial(kind, name, &errors));
        }
    }
    Ok(answer(request.uid, response))
}

/// Adds a warning to a response that admits the object. A Repository that may not be used causes only a warning: it may
/// be created after the objects that use it, and a denial would reveal whether it exists.
pub fn warn(answer: &mut Value, text: &str) {
    let Some(response) = answer.get_mut("response").and_then(Value::as_object_mut) else { return };
    if response.get("allowed") == Some(&true.into()) {
        let warnings = response.entry("warnings").or_insert_with(|| json!([]));
        if let Some(warnings) = warnings.as_array_mut().filter(|w| w.len() < WARNINGS) {
            warnings.push(warning(text));
        }
    }
}

fn warning(text: &str) -> Value {
    let mut text = text.to_owned();
    crate::text::cut(&mut text, WARNING_MAX);
    text.into()
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

/// A status as the API server writes it for a forbidden request.
fn forbidden(kind: &str, name: &str, text: &str) -> Value {
    json!({
        "status": "Failure",
        "code": 403,
        "reason": "Forbidden",
        "message": text,
        "details": { "group": GROUP, "kind": kind, "name": name, "causes": [{ "message": text }] },
    })
}
