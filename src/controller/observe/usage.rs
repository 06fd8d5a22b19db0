//! Objects that use a Repository and may: the reads for its references, and the rule that a BackupBatch has its
//! Repository to itself.
//!
//! An object that the usagePolicy denies does not use the Repository: it neither holds the Repository nor blocks the
//! objects that may use it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use kube::ResourceExt as _;
use kube::runtime::reflector::ObjectRef;

use crate::api::Repository;
use crate::api::common::RepositoryRef;
use crate::api::repository::Reference;
use crate::controller::cache::consumers;
use crate::controller::cache::consumers::{Consumer, Home};
use crate::controller::cache::invokers::Invoker;
use crate::controller::cache::stored::{Stored, UserKind};
use crate::controller::observe::reads::Reads;
use crate::controller::observe::{code_rights, namespace};
use crate::names::GROUP;
use crate::plan::backup::exclusive;
use crate::plan::backup::exclusive::Rival;
use crate::plan::repository::usage_policy::Verdict;
use crate::plan::repository::{preconditions, usage_policy};
use crate::plan::run::limits;
use crate::plan::seen::{Refusal, Seen};

fn names<K: Consumer>(found: Vec<ObjectRef<K>>) -> Vec<(Option<String>, String)> {
    found.into_iter().map(|r| (r.namespace, r.name)).collect()
}

/// Objects that use the Repository, in a stable order. For backups the invoker is named, not each session.
pub async fn references(reads: &Reads, repository: &Stored<Repository>) -> Vec<Reference> {
    let (users, home) = (&reads.stores.consumers, ObjectRef::from_obj(repository));
    let mut all = vec![];
    let mut add = |kind: &str, found: Vec<(Option<String>, String)>| {
        all.extend(found.into_iter().map(|(namespace, name)| Reference {
            api_group: Some(GROUP.into()),
            kind: Some(kind.into()),
            namespace,
            name,
        }));
    };
    add("BackupBatch", names(users.of(&users.batches, &home)));
    add("BackupConfiguration", names(users.of(&users.configurations, &home)));
    add("RestoreBatch", names(users.of(&users.restore_batches, &home)));
    add("RestoreSession", names(users.of(&users.restores, &home)));
    let namespaces = all.iter().filter_map(|r| r.namespace.clone()).collect();
    let verdicts = verdicts(reads, &home, Some(repository), namespaces).await;
    all.retain(|r| !is_denied(&verdicts, r.namespace.as_deref().unwrap_or_default()));
    all.sort_by(|a, b| (&a.kind, &a.namespace, &a.name).cmp(&(&b.kind, &b.namespace, &b.name)));
    all
}

/// Why nothing is done for an invoker: what is wrong with it, or else that another invoker has its Repository. A run of
/// the invoker may take `max_timeout`.
///
/// # Errors
/// The rights of its author could not be read.
pub async fn refused<K: Invoker>(
    reads: &Reads,
    object: &Stored<K>,
    wrong: Option<Refusal>,
    max_timeout: Duration,
) -> kube::Result<Option<Refusal>> {
    let outline = object.outline();
    let too_long = || limits::too_long("spec.timeOut", outline.timing().time_out, max_timeout);
    let wrong = match wrong.or_else(too_long) {
        None => code_rights::refusal(reads, &outline).await?,
        wrong => wrong,
    };
    Ok(match wrong {
        None => rivalry(reads, object).await,
        wrong => wrong,
    })
}

/// Why an invoker may not use its Repository: another invoker has the Repository.
async fn rivalry<K: UserKind>(reads: &Reads, object: &Stored<K>) -> Option<Refusal> {
    let (users, me) = (&reads.stores.consumers, rival(object));
    let home = object.home(users)?;
    let mut all: Vec<Rival> = vec![];
    all.extend(users.configurations.with(&consumers::uses(&home)).iter().map(|o| rival(o.as_ref())));
    all.extend(users.batches.with(&consumers::uses(&home)).iter().map(|o| rival(o.as_ref())));
    let namespaces = all.iter().chain([&me]).map(|r| r.namespace.clone()).collect();
    let verdicts = verdicts(reads, &home, reads.stores.repositories.get(&home).as_deref(), namespaces).await;
    // An invoker that may not use the Repository, or perhaps may not, learns that, and not which others use it.
    if verdicts.get(&me.namespace) != Some(&Verdict::Allowed) {
        return None;
    }
    all.retain(|r| !is_denied(&verdicts, &r.namespace));
    exclusive::refusal(&me, &all, &consumers::full_name(&home))
}

fn rival<K: UserKind>(object: &Stored<K>) -> Rival {
    Rival {
        kind: K::kind(&()).into_owned(),
        namespace: object.namespace().unwrap_or_default(),
        name: object.name_any(),
        uid: object.uid().unwrap_or_default(),
        created: object.creation_timestamp().map(|t| t.0).unwrap_or_default(),
        hosts: object.facts().hosts.clone(),
    }
}

/// The verdict of a Repository's usagePolicy on a namespace; `None` while the Repository does not exist.
pub async fn verdict(reads: &Reads, reference: &RepositoryRef, namespace: &str) -> Option<Verdict> {
    let home = ObjectRef::new(&reference.name).within(preconditions::home(reference, namespace));
    let repository = reads.stores.repositories.get(&home)?;
    verdicts(reads, &home, Some(&repository), [namespace.to_owned()].into()).await.remove(namespace)
}

/// Whether the usagePolicy of a Repository certainly lets a session's namespace use it.
pub async fn may_use<K: Consumer>(reads: &Reads, session: &K, home: &Home) -> bool {
    let Some(namespace) = session.meta().namespace.clone() else { return false };
    let repository = reads.stores.repositories.get(home);
    let verdicts = verdicts(reads, home, repository.as_deref(), [namespace.clone()].into()).await;
    verdicts.get(&namespace) == Some(&Verdict::Allowed)
}

/// The verdict of the usagePolicy on each namespace. A Repository that does not exist yet has no usagePolicy, and
/// belongs to its own namespace.
async fn verdicts(
    reads: &Reads,
    home: &Home,
    repository: Option<&Stored<Repository>>,
    namespaces: BTreeSet<String>,
) -> BTreeMap<String, Verdict> {
    let policy = repository.and_then(|r| r.outline().spec.usage_policy);
    let policy = policy.as_ref();
    let home = home.namespace.as_deref().unwrap_or_default();
    let mut all = BTreeMap::new();
    for namespace in namespaces {
        let labels = if usage_policy::asks_for_labels(policy, home, &namespace) {
            namespace::labels(reads, &namespace).await
        } else {
            Seen::Missing
        };
        let verdict = usage_policy::verdict(policy, home, &namespace, &labels);
        all.insert(namespace, verdict);
    }
    all
}

/// Whether a namespace is certainly denied. While that is unknown, objects that may be using the Repository count.
fn is_denied(verdicts: &BTreeMap<String, Verdict>, namespace: &str) -> bool {
    matches!(verdicts.get(namespace), Some(Verdict::Denied(_)))
}
