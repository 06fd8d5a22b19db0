//! A Repository, as a session that refers to it sees it.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

use super::{Refusal, Seen};
use crate::api::repository::RepositorySpec;

/// A Repository that was found.
#[derive(Clone, Debug, PartialEq)]
pub struct RepositorySeen {
    /// Its spec.
    pub spec: RepositorySpec,
    /// When the first backup through it succeeded.
    pub first_backup: Option<Time>,
    /// A repository has existed in the place that the Repository names.
    pub known: bool,
    /// Whether its backend Secret is there; only its metadata was read.
    pub secret: Seen<()>,
    /// Labels of the referring object's namespace; looked up only where the usagePolicy selects by them.
    pub labels: Seen<BTreeMap<String, String>>,
    /// It does not answer.
    pub unreachable: Option<Silence>,
    /// What its condition Ready says, where it is not True.
    pub not_ready: Option<Refusal>,
}

/// A Repository that does not answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Silence {
    /// Time since which it does not answer.
    pub since: Timestamp,
    /// The error message.
    pub message: String,
}
