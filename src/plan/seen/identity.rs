//! What identifies a session or a Repository, whatever its kind.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;

use crate::contract::Run;
use crate::names::{FINALIZER, FINALIZER_OF_STASH, is_tracker};

/// Labels of an object that its children get too.
pub fn own_labels(labels: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    labels.iter().filter(|(key, _)| !is_tracker(key)).map(|(k, v)| (k.clone(), v.clone())).collect()
}

/// What identifies a session, whatever its kind.
#[derive(Clone, Debug, Default)]
pub struct Identity {
    /// apiVersion.
    pub api_version: String,
    /// Kind.
    pub kind: String,
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Uid; also the id of the run.
    pub uid: String,
    /// Generation.
    pub generation: Option<i64>,
    /// When it was created.
    pub created: Option<Timestamp>,
    /// It is being deleted.
    pub deleting: bool,
    /// Time since which it is being deleted, according to the cluster.
    pub deleted: Option<Timestamp>,
    /// It carries the operator's finalizer.
    pub held: bool,
    /// It carries a finalizer that Stash left.
    pub held_by_stash: bool,
    /// Its own labels, without those of tools that keep track of it: its children get them too.
    pub labels: BTreeMap<String, String>,
}

impl Identity {
    /// Of an object.
    pub fn of<K: kube::Resource<DynamicType = ()>>(object: &K) -> Self {
        Self {
            api_version: K::api_version(&()).into_owned(),
            kind: K::kind(&()).into_owned(),
            namespace: object.namespace().unwrap_or_default(),
            name: object.name_any(),
            uid: object.uid().unwrap_or_default(),
            generation: object.meta().generation,
            created: object.creation_timestamp().map(|t| t.0),
            deleting: object.meta().deletion_timestamp.is_some(),
            deleted: object.meta().deletion_timestamp.as_ref().map(|t| t.0),
            held: object.finalizers().iter().any(|f| f == FINALIZER),
            held_by_stash: object.finalizers().iter().any(|f| f == FINALIZER_OF_STASH),
            labels: own_labels(object.labels()),
        }
    }

    /// How messages name it: kind and name.
    pub fn label(&self) -> String {
        format!("{} {}/{}", self.kind, self.namespace, self.name)
    }

    /// The run that a Job belongs to, as its agent gets it.
    pub fn told(&self) -> Run {
        Run {
            id: self.uid.clone(),
            kind: self.kind.clone(),
            namespace: self.namespace.clone(),
            name: self.name.clone(),
        }
    }

    /// Reference for children.
    pub fn owner(&self) -> OwnerReference {
        OwnerReference {
            api_version: self.api_version.clone(),
            kind: self.kind.clone(),
            name: self.name.clone(),
            uid: self.uid.clone(),
            controller: Some(true),
            block_owner_deletion: Some(true),
        }
    }
}
