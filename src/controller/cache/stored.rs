//! Objects that users write, as the watches keep them.
//!
//! Thousands of sessions may wait, and users may create large ones. The text of an object takes a tenth of the space of
//! its Rust value. Therefore the text is kept, in its one form ([`admission::default`]), and parsed when the object is
//! read. Values that indexes and queues read of all objects are kept beside the text, as [`Facts`]. If an object is too
//! large, exceeds the budget of its namespace ([`super::budget`]), or cannot be read, only metadata and status are
//! kept: enough to report this, and to end what the object started. The same applies to large objects that are over.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use kube::Resource;
use kube::core::object::{HasSpec, HasStatus};
use serde::de::DeserializeOwned;
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

/// Annotation in which `kubectl apply` keeps a copy of the whole object.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Values of an object that are read without opening it.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Namespace and name of the Repository that it uses.
    pub repository: Option<(String, String)>,
    /// Keys of the slots that its Jobs take in addition to the slots on its Repository.
    pub slots: Vec<String>,
    /// The invoker of a backup.
    pub invoker: Option<InvokerRef>,
    /// The object no longer needs its Repository.
    pub over: bool,
    /// The object is over, and nothing starts it again.
    pub rests: bool,
    /// The phase is Running: the object was let in.
    pub runs: bool,
    /// The status contains rights of its Jobs.
    pub has_rights: bool,
    /// Targets of an unfinished restore, which other restores may have to wait for.
    pub targets: Vec<Rival>,
    /// Reasons of conditions that are true, by type.
    pub says: Vec<(String, String)>,
    /// Phase of a backup.
    pub backup: Option<BackupPhase>,
    /// A user created the object: it has no owner that is its controller.
    pub by_hand: bool,
    /// Phase of an invoker.
    pub invoker_phase: Option<InvokerPhase>,
    /// State of the backups of an invoker, as exported to Prometheus.
    pub backups: Option<Arc<Backups>>,
    /// Hosts of the targets of an invoker.
    pub hosts: Vec<HostSet>,
    /// When the first backup into a Repository succeeded.
    pub first_backup: Option<Time>,
    /// A repository has existed in the place that a Repository names.
    pub known: bool,
    /// Reason and message of the `Ready` condition of a Repository, when the condition is not True.
    pub not_ready: Option<Refusal>,
    /// Whether a Repository answers.
    pub reachability: Option<Reachability>,
    /// URL of a Repository, as passed to restic; `None` for a Repository on a volume. It is read often.
    pub url: Option<Arc<str>>,
}

impl Facts {
    /// Records whether a run has granted rights.
    #[must_use]
    pub fn running(mut self, run: Option<&RunStatus>) -> Self {
        self.has_rights = run.is_some_and(|r| !r.grants.is_empty());
        self
    }

    /// Records the conditions that other code asks for.
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
    /// Values of the object that are read without opening it.
    fn facts(&self) -> Facts;
}

/// Why only metadata and status of an object are kept.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Fault {
    /// The object is too large: it has this many bytes.
    TooLarge(usize),
    /// With the object, its namespace would have this many bytes of its kind.
    TooMuch(usize),
    /// There is no fault: the object is over, and its spec is not read again.
    Over,
    /// Its spec does not match the kind.
    Unreadable(Arc<str>),
    /// Its status does not match the kind: another version of the operator wrote it.
    UnreadableStatus,
}

/// An object that the API server returns. Fields that are not read are skipped: the managed fields are half of it.
#[derive(Deserialize)]
struct Returned {
    metadata: Identity,
    #[serde(default)]
    spec: Value,
    status: Option<Value>,
}

/// Metadata that is read.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Identity {
    name: Option<String>,
    /// A seal may cover it.
    generate_name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    generation: Option<i64>,
    creation_timestamp: Option<Time>,
    deletion_timestamp: Option<Time>,
    finalizers: Option<Vec<String>>,
    owner_references: Option<Vec<OwnerReference>>,
    labels: Option<BTreeMap<String, String>>,
    annotations: Option<BTreeMap<String, String>>,
}

/// An object as the store keeps it.
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
    /// The kept form of an object that the API server has returned.
    fn of(Returned { metadata, spec, status }: Returned) -> Self {
        let by_hand = !metadata.owner_references.iter().flatten().any(|o| o.controller == Some(true));
        let (labels, mut annotations) = (metadata.labels, metadata.annotations);
        annotations.iter_mut().for_each(|all| drop(all.remove(LAST_APPLIED)));
        let metadata = ObjectMeta {
            name: metadata.name,
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
        let status = status.map(|s| s.to_string().into());
        Self { metadata, text, status, facts: Arc::new(facts), fault, kind: std::marker::PhantomData }
    }

    /// The object, defaulted, as far as it was kept.
    ///
    /// # Panics
    /// Never: the same type has already parsed the text when the object was received.
    pub fn open(&self) -> K {
        let mut object = self.outline();
        if self.fault != Some(Fault::UnreadableStatus) {
            *object.status_mut() = self.status.as_deref().and_then(|s| serde_json::from_str(s).ok());
        }
        object
    }

    /// The object without its status, which may be the larger part.
    ///
    /// # Panics
    /// Never, for the same reason.
    pub fn outline(&self) -> K {
        #[allow(clippy::expect_used, reason = "it was read by the same type")]
        let mut object: K = serde_json::from_str(&self.text).expect("what was read once can be read again");
        let (labels, annotations) = (object.meta_mut().labels.take(), object.meta_mut().annotations.take());
        *object.meta_mut() = ObjectMeta { labels, annotations, ..self.metadata.clone() };
        object
    }

    /// Values of the object that are read without opening it.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// The object that a write has returned, kept as it was before the write. An object beyond the budget of its
    /// namespace stays without its spec.
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

    /// Bytes that a reconcile of the object parses. For an object that is too large: the bytes that each write returns.
    pub fn size(&self) -> usize {
        let text = if let Some(Fault::TooLarge(size)) = self.fault { size } else { self.text.len() };
        text + self.status.as_ref().map_or(0, |s| s.len())
    }

    /// Whether the whole object is kept.
    pub fn is_whole(&self) -> bool {
        self.fault.is_none()
    }

    /// Whether its status cannot be read, so that it is unknown what was started.
    pub fn is_of_another_version(&self) -> bool {
        self.fault == Some(Fault::UnreadableStatus)
    }

    /// Why the object is refused, if this was known when the object was received.
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

/// Placeholder for labels, annotations and spec.
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

/// The object with these parts if they match the kind, else the fault.
fn read<K: UserKind>(metadata: &ObjectMeta, body: &Value, status: Option<&Value>) -> (Option<K>, Option<Fault>) {
    let Ok(mut object) = K::deserialize(body) else {
        let errors = admission::check(&K::kind(&()), body, None);
        let mut message = admission::message(&errors);
        cut(&mut message, MESSAGE_MAX);
        return (None, Some(Fault::Unreadable(message.into())));
    };
    let (labels, annotations) = (object.meta_mut().labels.take(), object.meta_mut().annotations.take());
    *object.meta_mut() = ObjectMeta { labels, annotations, ..metadata.clone() };
    match status.map(K::Status::deserialize).transpose() {
        Ok(status) => *object.status_mut() = status,
        Err(_) => return (None, Some(Fault::UnreadableStatus)),
    }
    (Some(object), None)
}

impl<'de, K: UserKind> Deserialize<'de> for Stored<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Returned::deserialize(deserializer).map(Self::of)
    }
}

impl<K: UserKind> From<K> for Stored<K> {
    fn from(object: K) -> Self {
        #[allow(clippy::expect_used, reason = "a type has serialized it")]
        Self::of(serde_json::from_value(to_json(&object)).expect("what a type writes, it reads"))
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
