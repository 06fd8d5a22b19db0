//! Objects that users write, as the watches keep them.
//!
//! Thousands of sessions may wait, and whoever writes one may make it large. The text of an object takes a tenth of
//! what its Rust value takes, so the text is kept, in its one form ([`admission::default`]), and parsed where somebody
//! looks at the object. What indexes and queues read of all objects stands beside it, as [`Facts`]. Of an object that
//! is too large, or too much for its namespace ([`super::budget`]), or cannot be read, only metadata and status are kept:
//! enough to say so, and to end what it began. So it is with large ones that are over.

use std::borrow::Cow;
use std::fmt::Debug;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::Resource;
use kube::core::object::{HasSpec, HasStatus};
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Value, json};

use crate::admission;
use crate::admission::bounds::OBJECT_BYTES;
use crate::api::backup_session::{BackupPhase, InvokerRef};
use crate::api::common::InvokerPhase;
use crate::api::repository::Reachability;
use crate::api::restore_session::RunStatus;
use crate::api::{Condition, to_json};
use crate::controller::cache::budget::{Counted, NAMESPACE_BYTES, SMALL};
use crate::controller::cache::series::Backups;
use crate::controller::cache::verdicts::MESSAGE_MAX;
use crate::names::{condition, reason};
use crate::plan::run::hosts::HostSet;
use crate::plan::seen::Refusal;
use crate::plan::seen::surroundings::Rival;
use crate::text::cut;

/// Where `kubectl apply` keeps the whole object once more.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// What is read of an object without opening it.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Namespace and name of the Repository that it uses.
    pub repository: Option<(String, String)>,
    /// Keys of the slots that its Jobs take besides those on its Repository.
    pub slots: Vec<String>,
    /// The invoker of a backup.
    pub invoker: Option<InvokerRef>,
    /// It needs its Repository no more.
    pub over: bool,
    /// It is over, and nothing begins it again.
    pub rests: bool,
    /// Phase Running: it was let in.
    pub runs: bool,
    /// Rights of its Jobs stand in its status.
    pub has_rights: bool,
    /// What other restores may have to wait for: targets of an unfinished one.
    pub targets: Vec<Rival>,
    /// Reasons of conditions that are true, by type.
    pub says: Vec<(String, String)>,
    /// Phase of a backup.
    pub backup: Option<BackupPhase>,
    /// Nobody made it but a user: it has no owner that is its controller.
    pub by_hand: bool,
    /// Phase of an invoker.
    pub invoker_phase: Option<InvokerPhase>,
    /// What Prometheus is told of the backups of an invoker.
    pub backups: Option<Arc<Backups>>,
    /// Hosts of what an invoker backs up.
    pub hosts: Vec<HostSet>,
    /// When the first backup into a Repository succeeded.
    pub first_backup: Option<Time>,
    /// There was a repository in the place that a Repository names.
    pub known: bool,
    /// What `Ready` of a Repository says, where it is not True.
    pub not_ready: Option<Refusal>,
    /// Whether a Repository answers.
    pub reachability: Option<Reachability>,
    /// Where a Repository is, as restic is told it; `None` of one on a volume. Many ask for it.
    pub url: Option<Arc<str>>,
}

impl Facts {
    /// Keeps of a run whether it has given rights.
    #[must_use]
    pub fn running(mut self, run: Option<&RunStatus>) -> Self {
        self.has_rights = run.is_some_and(|r| !r.grants.is_empty());
        self
    }

    /// Keeps of the conditions what anybody asks for.
    #[must_use]
    pub fn saying(mut self, conditions: &[Condition]) -> Self {
        const ASKED: [&str; 3] = [condition::RECONCILING, condition::STALLED, condition::REPOSITORY_FOUND];
        let asked = |c: &&Condition| ASKED.contains(&c.type_.as_str());
        let true_ones = conditions.iter().filter(asked).filter(|c| c.status == "True");
        self.says = true_ones.filter_map(|c| Some((c.type_.clone(), c.reason.clone()?))).collect();
        self
    }
}

/// A kind that users write.
pub trait UserKind:
    Resource<DynamicType = ()>
    + HasSpec<Spec: Default + Serialize>
    + HasStatus<Status: DeserializeOwned>
    + Clone
    + Debug
    + DeserializeOwned
    + Serialize
    + Send
    + Sync
    + 'static
{
    /// What is read of it without opening it.
    fn facts(&self) -> Facts;
}

/// Why nothing but metadata and status of an object is kept.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Fault {
    /// It has so many bytes.
    TooLarge(usize),
    /// Its namespace would have so many bytes of its kind with it.
    TooMuch(usize),
    /// Nothing: it is over, and nobody reads its spec again.
    Over,
    /// Its spec is not what the kind has.
    Unreadable(Arc<str>),
    /// Its status is not: another version of the operator wrote it.
    UnreadableStatus,
}

/// An object as it is kept.
#[derive(Clone, Debug)]
pub struct Stored<K> {
    metadata: ObjectMeta,
    /// Labels, annotations and spec, as JSON.
    text: Arc<str>,
    status: Option<Arc<str>>,
    facts: Arc<Facts>,
    fault: Option<Fault>,
    kind: std::marker::PhantomData<K>,
}

impl<K: UserKind> Stored<K> {
    /// Of an object as the API server gives it.
    fn of(mut object: Value) -> Result<Self, serde_json::Error> {
        let mut metadata: ObjectMeta = serde_json::from_value(object["metadata"].take())?;
        metadata.managed_fields = None;
        metadata.annotations.iter_mut().for_each(|all| drop(all.remove(LAST_APPLIED)));
        let status = object.as_object_mut().and_then(|o| o.remove("status"));
        let by_hand = !metadata.owner_references.iter().flatten().any(|o| o.controller == Some(true));
        let (labels, annotations) = (metadata.labels.take(), metadata.annotations.take());
        metadata = ObjectMeta {
            name: metadata.name,
            // A seal may be of it.
            generate_name: metadata.generate_name,
            namespace: metadata.namespace,
            uid: metadata.uid,
            resource_version: metadata.resource_version,
            generation: metadata.generation,
            creation_timestamp: metadata.creation_timestamp,
            deletion_timestamp: metadata.deletion_timestamp,
            finalizers: metadata.finalizers,
            ..ObjectMeta::default()
        };
        let spec = object.get_mut("spec").map(Value::take).unwrap_or_default();
        drop(object);
        let mut body = json!({ "metadata": { "labels": labels, "annotations": annotations }, "spec": spec });
        let size = body.to_string().len();
        let mut fault = (size > OBJECT_BYTES).then_some(Fault::TooLarge(size));
        let mut opened = None;
        if fault.is_none() {
            crate::api::clean(&mut body);
            admission::default(&K::kind(&()), &mut body);
            (opened, fault) = read::<K>(&metadata, &body, status.as_ref());
        }
        if fault.is_some() {
            body = blank::<K>();
            let known = status.as_ref().filter(|_| fault != Some(Fault::UnreadableStatus));
            opened = read::<K>(&metadata, &body, known).0;
        }
        let facts = Facts { by_hand, ..opened.as_ref().map(K::facts).unwrap_or_default() };
        drop(opened);
        let mut text: Arc<str> = body.to_string().into();
        let observed = status.as_ref().and_then(|s| s.get("observedGeneration")?.as_i64());
        let changes = metadata.deletion_timestamp.is_some() || observed != metadata.generation;
        let is_held = metadata.finalizers.as_ref().is_some_and(|all| !all.is_empty());
        if fault.is_none() && facts.rests && !changes && !is_held && text.len() > SMALL {
            text = blank::<K>().to_string().into();
            fault = Some(Fault::Over);
        }
        let status = status.filter(|s| !s.is_null()).map(|s| s.to_string().into());
        Ok(Self { metadata, text, status, facts: Arc::new(facts), fault, kind: std::marker::PhantomData })
    }

    /// The object, defaulted, as far as it was kept.
    ///
    /// # Panics
    /// Never: the text was read by the same type when it came.
    pub fn open(&self) -> K {
        let mut object = self.outline();
        if self.fault != Some(Fault::UnreadableStatus) {
            *object.status_mut() = self.status.as_deref().and_then(|s| serde_json::from_str(s).ok());
        }
        object
    }

    /// The same without its status, which may be the larger part.
    ///
    /// # Panics
    /// Never, likewise.
    pub fn outline(&self) -> K {
        #[allow(clippy::expect_used, reason = "it was read by the same type")]
        let mut object: K = serde_json::from_str(&self.text).expect("what was read once can be read again");
        let (labels, annotations) = (object.meta_mut().labels.take(), object.meta_mut().annotations.take());
        *object.meta_mut() = ObjectMeta { labels, annotations, ..self.metadata.clone() };
        object
    }

    /// What is read of it without opening it.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// What a write gave back of it, whole, as it was before the write. What a namespace has too much is not looked at.
    #[must_use]
    pub fn written(self, before: &Self) -> Self {
        match before.fault {
            Some(Fault::TooMuch(sum)) if self.fault.is_none() => self.without_spec(sum),
            _ => self,
        }
    }

    fn without_spec(self, sum: usize) -> Self {
        let (text, fault) = (blank::<K>().to_string().into(), Some(Fault::TooMuch(sum)));
        let mut object = Self { text, fault, ..self };
        object.facts = Arc::new(Facts { by_hand: object.facts.by_hand, ..object.open().facts() });
        object
    }

    /// Bytes that a look at it parses: of one that is too large, those that each write gives back.
    pub fn size(&self) -> usize {
        let text = if let Some(Fault::TooLarge(size)) = self.fault { size } else { self.text.len() };
        text + self.status.as_ref().map_or(0, |s| s.len())
    }

    /// Whether all of it is kept.
    pub fn is_whole(&self) -> bool {
        self.fault.is_none()
    }

    /// Whether its status cannot be read, so that nobody knows what was begun.
    pub fn is_of_another_version(&self) -> bool {
        self.fault == Some(Fault::UnreadableStatus)
    }

    /// Why it is refused, where that was known as it came.
    pub fn refusal(&self) -> Option<Refusal> {
        match self.fault.as_ref()? {
            Fault::TooLarge(size) => Some(Refusal {
                reason: reason::OBJECT_TOO_LARGE.to_owned(),
                message: format!(
                    "The object has {size} bytes without its status; at most {OBJECT_BYTES} are allowed. Split it, or remove annotations and settings."
                ),
            }),
            Fault::TooMuch(sum) => Some(Refusal {
                reason: reason::OBJECT_TOO_LARGE.to_owned(),
                message: format!(
                    "Namespace {} would have {sum} bytes of unfinished {} objects with more than {SMALL} bytes each; at most {NAMESPACE_BYTES} are allowed. Wait until some have ended, or delete some, and create this object again.",
                    self.metadata.namespace.as_deref().unwrap_or_default(),
                    K::kind(&())
                ),
            }),
            Fault::Unreadable(message) => {
                Some(Refusal { reason: reason::INVALID.to_owned(), message: message.to_string() })
            }
            Fault::Over | Fault::UnreadableStatus => None,
        }
    }
}

/// What is kept in the place of labels, annotations and spec.
fn blank<K: UserKind>() -> Value {
    json!({ "metadata": {}, "spec": to_json(&K::Spec::default()) })
}

impl<K: UserKind> Counted for Stored<K> {
    fn bytes(&self) -> usize {
        self.text.len()
    }
    fn is_let_in(&self) -> bool {
        self.facts.runs
    }
    fn cut(&mut self, sum: usize) {
        *self = self.clone().without_spec(sum);
    }
}

/// An object of these parts, if the kind can read them; else why not.
fn read<K: UserKind>(metadata: &ObjectMeta, body: &Value, status: Option<&Value>) -> (Option<K>, Option<Fault>) {
    let Ok(mut object) = K::deserialize(body) else {
        let errors = admission::check(&K::kind(&()), body, None);
        let mut message = admission::message(&errors);
        cut(&mut message, MESSAGE_MAX);
        return (None, Some(Fault::Unreadable(message.into())));
    };
    let (labels, annotations) = (object.meta_mut().labels.take(), object.meta_mut().annotations.take());
    *object.meta_mut() = ObjectMeta { labels, annotations, ..metadata.clone() };
    match status.filter(|s| !s.is_null()).map(K::Status::deserialize).transpose() {
        Ok(status) => *object.status_mut() = status,
        Err(_) => return (None, Some(Fault::UnreadableStatus)),
    }
    (Some(object), None)
}

impl<'de, K: UserKind> Deserialize<'de> for Stored<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::of(Value::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

impl<K: UserKind> From<K> for Stored<K> {
    fn from(object: K) -> Self {
        // What a type writes has metadata that can be read.
        Self::of(to_json(&object)).unwrap_or_else(|_| Self {
            metadata: ObjectMeta::default(),
            text: "{}".into(),
            status: None,
            facts: Arc::default(),
            fault: None,
            kind: std::marker::PhantomData,
        })
    }
}

impl<K: Resource<DynamicType = ()>> Resource for Stored<K> {
    type DynamicType = ();
    type Scope = K::Scope;

    fn kind((): &()) -> Cow<'_, str> {
        K::kind(&())
    }
    fn group((): &()) -> Cow<'_, str> {
        K::group(&())
    }
    fn version((): &()) -> Cow<'_, str> {
        K::version(&())
    }
    fn plural((): &()) -> Cow<'_, str> {
        K::plural(&())
    }
    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }
    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

#[cfg(test)]
mod tests;
