//! Permission to run code: compares the fields of an object with the permissions of its author.
//!
//! The API server calls the webhook twice. The mutating call checks the permissions of the author and sets a
//! [seal](super::seal) on an allowed object. The validating call rejects an object without a seal, unless the old
//! object had the same fields. The controller cannot check the author, so it uses only the seal. This module is pure:
//! permissions are looked up by a [`Gate`].

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use futures::future::BoxFuture;
use serde_json::Value;

use crate::admission::error::{Reason, object_reason};
use crate::admission::kinds::kind_of;
use crate::admission::request::Request;
use crate::admission::seal::Key;
use crate::admission::{seal, validate};
use crate::names::label;
use crate::plan::work::rights::{Ask, Right, asked};

/// Maximum number of fields and permissions that a message names; further fields are counted.
const NAMED: usize = 5;
/// Maximum number of fields that are checked one by one. With more fields, the author needs all permissions.
const ASKS: usize = 100;

/// A question about the permissions of a user.
#[derive(Clone, Debug, PartialEq)]
pub struct Question {
    /// The user, as authenticated by the API server: `username`, `uid`, `groups`, `extra`.
    pub user: Value,
    /// The namespace; all namespaces, for a cluster-scoped object.
    pub namespace: String,
    /// The required permissions.
    pub asks: Vec<Ask>,
}

impl Question {
    /// Name of the user.
    pub fn username(&self) -> &str {
        self.user.get("username").and_then(Value::as_str).unwrap_or_default()
    }
}

/// Looks up permissions of users, and has the key of seals.
#[derive(Clone)]
pub struct Gate {
    /// The key, or an error if it does not exist yet.
    pub key: Arc<dyn Fn() -> BoxFuture<'static, Result<Key, String>> + Send + Sync>,
    /// Whether a user has all permissions, and if not, why.
    pub ask: Arc<dyn Fn(Question) -> BoxFuture<'static, Result<(), String>> + Send + Sync>,
    /// Whether a namespace has the label that allows code: any author of an object there may run code. Such an object
    /// gets no seal, so that it is no longer allowed after the label is removed.
    pub is_open: Arc<dyn Fn(String) -> BoxFuture<'static, bool> + Send + Sync>,
}

/// What the mutating webhook does about the seal of an object.
#[derive(Clone, Debug, PartialEq)]
pub enum Mark {
    /// Nothing: the object has no such fields, or is not checked.
    Leave,
    /// Set this seal.
    Set(String),
    /// Set this seal if the user has the permissions; otherwise remove any seal.
    Ask(Question, String),
    /// Remove a seal that is not valid.
    Remove,
}

/// The fields of an object of this kind that need permissions, as the controller reads them.
fn asks_of(kind: &str, object: &Value) -> Vec<Ask> {
    validate::canonical(kind, object).map(|o| asked(kind, &o)).unwrap_or_default()
}

/// The fields that the old object did not have.
fn without(mut asks: Vec<Ask>, before: &[Ask]) -> Vec<Ask> {
    let mut known: HashMap<&str, Vec<&Ask>> = HashMap::new();
    for ask in before {
        known.entry(&ask.field).or_default().push(ask);
    }
    asks.retain(|a| !known.get(a.field.as_str()).is_some_and(|old| old.contains(&a)));
    asks
}

fn lasting(mut asks: Vec<Ask>) -> Vec<Ask> {
    asks.retain(|a| !a.at_admission_only);
    asks
}

/// The action of the mutating webhook. Fields that the old object had with a valid seal are not checked again.
pub fn mark(segment: &str, review: &Value, key: &Key) -> Mark {
    let Ok(request) = Request::read(review) else { return Mark::Leave };
    let (Some(kind), Some(object)) = (kind_of(segment), request.living()) else { return Mark::Leave };
    let namespace = request.namespace.unwrap_or_default();
    let asks = lasting(asks_of(kind, object));
    if asks.is_empty() {
        return Mark::Leave;
    }
    let seal = key.seal(kind, namespace, object, &asks);
    let before = request.old.map(|old| (old, lasting(asks_of(kind, old))));
    let before = before.filter(|(old, asks)| key.holds(kind, namespace, old, asks)).map(|(_, asks)| asks);
    let has_news = request.subject().is_some();
    match before {
        Some(before) => {
            let asks = without(asks, &before);
            if asks.is_empty() { Mark::Set(seal) } else { Mark::Ask(request.question(asks), seal) }
        }
        // A user who only adds a label is not responsible for the spec of another user.
        None if has_news => Mark::Ask(request.question(asks), seal),
        None if seal::sealed(object).is_some() => Mark::Remove,
        None => Mark::Leave,
    }
}

/// The permissions that the validating webhook must check: for fields that neither a seal nor the old object covers.
/// An invalid object needs no check.
pub fn question(segment: &str, review: &Value, key: Option<&Key>) -> Option<Question> {
    let request = Request::read(review).ok()?;
    let (kind, object) = (kind_of(segment)?, request.subject()?);
    let namespace = request.namespace.unwrap_or_default();
    let mut asks = asks_of(kind, object);
    if asks.is_empty() {
        return None;
    }
    if key.is_some_and(|key| key.holds(kind, namespace, object, &lasting(asks.clone()))) {
        asks.retain(|a| a.at_admission_only);
    }
    let before = request.old.map(|old| asks_of(kind, old)).unwrap_or_default();
    asks = without(asks, &before);
    let is_wrong = || {
        let errors = validate::check(kind, object, request.old);
        object_reason(&errors) == Some(Reason::Invalid)
    };
    (!asks.is_empty() && !is_wrong()).then(|| request.question(asks))
}

impl Request<'_> {
    fn question(&self, mut asks: Vec<Ask>) -> Question {
        if asks.len() > ASKS {
            // The request waits for an answer, and must not use much memory meanwhile.
            let more = format!("{} more fields", asks.len() - ASKS);
            asks.truncate(ASKS);
            asks.push(Ask { field: more, right: Right::Pods, value: Value::Null, at_admission_only: false });
        }
        let namespace = self.namespace.unwrap_or_default().to_owned();
        Question { user: self.user.cloned().unwrap_or_default(), namespace, asks }
    }
}

/// The controller's error for an object in `namespace` that has such fields and no seal.
///
/// `key` is that of the webhook, if there is one.
pub fn unsealed(kind: &str, namespace: &str, object: &Value, key: Option<&Key>) -> Option<String> {
    let asks = lasting(asked(kind, object));
    if asks.is_empty() || key.is_some_and(|key| key.holds(kind, namespace, object, &asks)) {
        return None;
    }
    let why = match key {
        Some(_) => {
            "the webhook did not check its author. Apply it again while the webhook answers, as a user who may create Pods there"
        }
        None => "without the webhook the author of the object is not known. Remove the field",
    };
    let fields = fields(asks.iter());
    Some(format!(
        "{fields}: requires permission to create Pods in namespace {namespace}, and {why}, or let an administrator set the label {}=true on the Namespace.",
        label::ALLOW_CODE
    ))
}

fn place(namespace: &str) -> String {
    if namespace.is_empty() { "all namespaces".to_owned() } else { format!("namespace {namespace}") }
}

/// Message for a user without the permissions in `denied`.
pub fn denial(question: &Question, denied: &[Ask]) -> String {
    let place = place(&question.namespace);
    let mut by_right: BTreeMap<&Right, Vec<&Ask>> = BTreeMap::new();
    for ask in denied {
        by_right.entry(&ask.right).or_default().push(ask);
    }
    let texts = by_right.into_iter().take(NAMED).map(|(right, asks)| {
        let fields = fields(asks.into_iter());
        match right {
            Right::Pods => format!("{fields}: can run code in a Pod or add privileges to it; requires permission to create Pods in {place}"),
            Right::Claims => format!(
                "{fields}: can give access to data of other users; requires permission to create PersistentVolumeClaims (or Pods) in {place}"
            ),
            Right::Secret(name) => {
                format!("{fields}: reads Secret {name:?}; requires permission to get it (or to create Pods) in {place}")
            }
            Right::ConfigMap(name) => {
                format!("{fields}: reads ConfigMap {name:?}; requires permission to get it (or to create Pods) in {place}")
            }
        }
    });
    let texts = texts.collect::<Vec<_>>().join("; ");
    format!(
        "{texts}. User {:?} does not have this permission. Remove {}, or ask a user with the permission to apply the object.",
        question.username(),
        if denied.len() == 1 { "the field" } else { "the fields" }
    )
}

/// Message if the permissions of the user could not be checked.
pub fn unknown(question: &Question, why: &str) -> String {
    format!(
        "{}: requires permission to create Pods in {}, which could not be checked for user {:?}: {why}. Try again, or remove the field.",
        fields(question.asks.iter()),
        question.username(),
        place(&question.namespace)
    )
}

fn fields<'a>(asks: impl Iterator<Item = &'a Ask>) -> String {
    let mut names: Vec<&str> = asks.map(|a| a.field.as_str()).collect();
    names.dedup();
    let more = names.len().saturating_sub(NAMED);
    names.truncate(NAMED);
    let names = names.join(", ");
    if more == 0 { names } else { format!("{names} and {more} more") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::annotation;
    use serde_json::json;

    fn key() -> Key {
        Key::new([3; seal::KEY])
    }

    fn session(node: Option<&str>) -> Value {
        let mut object = json!({ "metadata": { "name": "a", "namespace": "demo" }, "spec": {
            "repository": { "name": "r" },
            "target": { "ref": { "kind": "PersistentVolumeClaim", "name": "data" }, "rules": [{ "snapshots": ["latest"] }] } } });
        if let Some(node) = node {
            object["spec"]["runtimeSettings"]["pod"]["nodeName"] = node.into();
        }
        object
    }

    fn configuration(node: Option<&str>, paused: bool) -> Value {
        let mut object = session(node);
        object["spec"]["target"].as_object_mut().unwrap().remove("rules");
        object["spec"]["retentionPolicy"] = json!({ "name": "k", "keepLast": 1, "prune": true });
        object["spec"]["paused"] = paused.into();
        object
    }

    fn sealed(mut object: Value) -> Value {
        let seal = key().seal("BackupConfiguration", "demo", &object, &asks_of("BackupConfiguration", &object));
        object["metadata"]["annotations"] = json!({ annotation::SEAL: seal });
        object
    }

    fn review(object: &Value, old: Option<&Value>) -> Value {
        json!({ "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
            "uid": "u", "operation": if old.is_some() { "UPDATE" } else { "CREATE" }, "namespace": "demo",
            "object": object, "oldObject": old, "userInfo": { "username": "jane", "groups": ["dev"] } } })
    }

    fn marked(object: &Value, old: Option<&Value>) -> Mark {
        mark("backupconfigurations", &review(object, old), &key())
    }

    fn questioned(object: &Value, old: Option<&Value>) -> Option<Question> {
        question("backupconfigurations", &review(object, old), Some(&key()))
    }

    #[test]
    fn what_asks_for_nothing_is_left_alone() {
        let plain = configuration(None, false);
        assert_eq!(marked(&plain, None), Mark::Leave);
        assert_eq!(questioned(&plain, None), None);
        assert_eq!(unsealed("BackupConfiguration", "demo", &plain, None), None);
    }

    #[test]
    fn a_new_object_is_asked_about_whatever_seal_it_brings() {
        for object in [configuration(Some("n"), false), sealed(configuration(Some("n"), false))] {
            let Mark::Ask(question, seal) = marked(&object, None) else { panic!("{object}") };
            assert_eq!((question.username(), question.namespace.as_str()), ("jane", "demo"));
            assert_eq!(question.asks[0].field, "spec.runtimeSettings.pod.nodeName");
            assert_eq!(Some(seal.as_str()), seal::sealed(&sealed(object)));
        }
        // With the seal of the mutating call, the validating call asks nothing.
        assert_eq!(questioned(&sealed(configuration(Some("n"), false)), None), None);
        assert!(questioned(&configuration(Some("n"), false), None).is_some());
    }

    #[test]
    fn a_changed_object_is_asked_about_for_what_is_new() {
        let old = sealed(configuration(Some("n"), false));
        let paused = configuration(Some("n"), true);
        let Mark::Set(seal) = marked(&paused, Some(&old)) else { panic!() };
        assert_eq!(Some(seal.as_str()), seal::sealed(&old));
        assert_eq!(questioned(&paused, Some(&old)), None);
        let elsewhere = configuration(Some("m"), false);
        assert!(matches!(marked(&elsewhere, Some(&old)), Mark::Ask(..)));
        assert!(questioned(&elsewhere, Some(&old)).is_some());
        // An object that bypassed the webhook: it may be paused, but gets no seal without a check.
        let unseen = configuration(Some("n"), false);
        assert!(matches!(marked(&paused, Some(&unseen)), Mark::Ask(..)));
        assert_eq!(questioned(&paused, Some(&unseen)), None);
    }

    #[test]
    fn a_seal_is_kept_and_given_to_nothing_by_a_change_of_labels() {
        let (bare, old) = (configuration(Some("n"), false), sealed(configuration(Some("n"), false)));
        assert!(matches!(marked(&bare, Some(&old)), Mark::Set(_)), "it was taken off");
        let mut labeled = bare.clone();
        labeled["metadata"]["labels"] = json!({ "a": "b" });
        assert_eq!(marked(&labeled, Some(&bare)), Mark::Leave);
        let mut forged = bare.clone();
        forged["metadata"]["annotations"] = json!({ annotation::SEAL: "x" });
        assert_eq!(marked(&forged, Some(&bare)), Mark::Remove);
    }

    #[test]
    fn what_is_wrong_by_itself_is_not_asked_about() {
        let mut wrong = configuration(Some("n"), false);
        wrong["spec"]["timeOut"] = "1d".into();
        assert_eq!(questioned(&wrong, None), None);
    }

    /// The form that the webhook seals is the one that the controller reads.
    #[test]
    fn the_controller_believes_a_seal_and_nothing_else() {
        let written = json!({ "metadata": { "name": "a", "namespace": "demo" }, "spec": {
            "repository": { "name": "r", "namespace": "" }, "unknown": 1,
            "rules": [{ "snapshots": ["latest"] }],
            "target": { "ref": { "kind": "PersistentVolumeClaim", "name": "data" } },
            "runtimeSettings": { "container": {
                "lifecycle": { "postStart": { "exec": { "command": ["true"] } }, "preStop": null },
                "env": [{ "value": "", "name": "X" }],
                "securityContext": { "capabilities": {}, "runAsUser": 0 } } } } });
        let review = json!({ "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
            "uid": "u", "operation": "CREATE", "namespace": "demo", "object": written } });
        let Mark::Ask(_, seal) = mark("restoresessions", &review, &key()) else { panic!() };
        let mut stored = written;
        crate::admission::default("RestoreSession", &mut stored);
        stored["metadata"]["annotations"] = json!({ annotation::SEAL: seal });
        let typed: crate::api::RestoreSession = serde_json::from_value(stored).unwrap();
        let read = crate::api::to_json(&typed);
        assert_eq!(unsealed("RestoreSession", "demo", &read, Some(&key())), None);
        for key in [None, Some(Key::new([4; seal::KEY]))] {
            let text = unsealed("RestoreSession", "demo", &read, key.as_ref()).unwrap();
            assert!(text.starts_with("spec.runtimeSettings.container.") && text.contains(label::ALLOW_CODE), "{text}");
        }
    }

    #[test]
    fn a_denial_names_field_right_namespace_and_remedy() {
        let mut object = session(Some("n"));
        object["spec"]["runtimeSettings"]["pod"]["imagePullSecrets"] = json!([{ "name": "s" }]);
        let review = review(&object, None);
        let question = question("restoresessions", &review, None).unwrap();
        assert_eq!(
            denial(&question, &question.asks),
            "spec.runtimeSettings.pod.nodeName: can run code in a Pod or add privileges to it; requires permission to \
             create Pods in namespace demo; spec.runtimeSettings.pod.imagePullSecrets[0]: reads Secret \"s\"; \
             requires permission to get it (or to create Pods) in namespace demo. User \"jane\" does not have this \
             permission. Remove the fields, or ask a user with the permission to apply the object."
        );
        assert!(unknown(&question, "no answer").contains("no answer"));
    }

    #[test]
    fn what_is_asked_is_bounded() {
        let mut object = session(None);
        let env: Vec<Value> = (0..200).map(|i| json!({ "name": format!("X{i}") })).collect();
        object["spec"]["runtimeSettings"]["container"]["env"] = env.into();
        let mut old = object.clone();
        old["spec"]["runtimeSettings"]["container"]["env"].as_array_mut().unwrap().reverse();
        let Mark::Ask(question, _) = mark("restoresessions", &review(&object, None), &key()) else { panic!() };
        assert_eq!(question.asks.len(), ASKS + 1);
        assert!(denial(&question, &question.asks).len() < 1000);
        // The comparison with many old fields does not take quadratic time.
        assert!(matches!(mark("restoresessions", &review(&object, Some(&old)), &key()), Mark::Ask(..)));
    }
}
