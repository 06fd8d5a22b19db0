//! Who uses a Repository, from the watched stores: the reads behind its references,
//! and the rule that a BackupBatch has it to itself. Whoever its usagePolicy keeps out
//! does not use it: he neither holds it nor stands in the way of those who may.

use std::collections::{BTreeMap, BTreeSet};

use kube::runtime::reflector::ObjectRef;
use kube::{Resource, ResourceExt as _};

use super::context::Context;
use super::index::Indexed;
use super::invoker::Invoker;
use super::observe;
use crate::api::common::RepositoryRef;
use crate::api::repository::Reference;
use crate::api::{
    BackupBatch, BackupConfiguration, BackupSession, Condition, Repository, RestoreBatch, RestoreSession,
};
use crate::names::GROUP;
use crate::plan::observed::{Refusal, Seen};
use crate::plan::restore::rivals as targets;
use crate::plan::rivals::{self, Rival};
use crate::plan::run::{self, RestoreRun};
use crate::plan::usage::{self, Verdict};
use crate::plan::{backup, ground};

/// A Repository, by name.
pub type Home = ObjectRef<Repository>;

/// Stores of those that use Repositories.
#[derive(Clone)]
pub struct Users {
    /// Invokers of one target.
    pub configurations: Indexed<BackupConfiguration>,
    /// Invokers of many targets.
    pub batches: Indexed<BackupBatch>,
    /// Backups.
    pub backups: Indexed<BackupSession>,
    /// Restores of one target.
    pub restores: Indexed<RestoreSession>,
    /// Restores of many targets.
    pub restore_batches: Indexed<RestoreBatch>,
}

/// Something that uses a Repository.
pub trait User: Resource<DynamicType = ()> + Clone + Send + Sync + 'static {
    /// The Repository it uses.
    fn home(&self, users: &Users) -> Option<Home>;
    /// Whether it needs it no more.
    fn is_over(&self) -> bool;
    /// Its conditions.
    fn conditions(&self) -> &[Condition];
    /// Whether a condition of it is true for this reason.
    fn says(&self, type_: &str, why: &str) -> bool {
        let of = |c: &&Condition| c.type_ == type_ && c.status == "True";
        self.conditions().iter().find(of).is_some_and(|c| c.reason.as_deref() == Some(why))
    }
}

/// Namespace and name of a Repository, as Jobs and messages have them.
pub fn full_name(repository: &Home) -> String {
    format!("{}/{}", repository.namespace.as_deref().unwrap_or_default(), repository.name)
}

/// Key of what uses a Repository and is not over.
fn uses(repository: &Home) -> String {
    format!("repository {}", full_name(repository))
}

/// Key of unfinished restores that have this target.
pub fn restores(namespace: &str, target: &str) -> String {
    format!("target {namespace}/{target}")
}

/// Key of backups that are not over; there are few, and where they lead depends on their invoker.
const OPEN: &str = "open";

/// Keys of an invoker.
pub fn keys_of_invoker<K: Invoker>(invoker: &K) -> Vec<String> {
    home(invoker.reference(), invoker.namespace()).iter().map(uses).collect()
}

/// Keys of a backup.
pub fn keys_of_backup(session: &BackupSession) -> Vec<String> {
    if session.is_over() { vec![] } else { vec![OPEN.to_owned()] }
}

/// Keys of a RestoreSession.
pub fn keys_of_session(session: &RestoreSession) -> Vec<String> {
    let reference = session.spec.repository.as_ref();
    if session.is_over() { vec![] } else { keys_of_run(&RestoreRun::of_session(session), reference) }
}

/// Keys of a RestoreBatch.
pub fn keys_of_batch(batch: &RestoreBatch) -> Vec<String> {
    if batch.is_over() { vec![] } else { keys_of_run(&RestoreRun::of_batch(batch), used(batch)) }
}

fn keys_of_run(run: &RestoreRun, reference: Option<&RepositoryRef>) -> Vec<String> {
    let namespace = &run.id.namespace;
    let mut all: Vec<String> = home(reference, Some(namespace.clone())).iter().map(uses).collect();
    all.extend(run.targets().iter().filter_map(|t| Some(restores(namespace, &targets::key(t.as_ref()?)?))));
    all
}

fn names<K: User>(found: Vec<ObjectRef<K>>) -> Vec<(Option<String>, String)> {
    found.into_iter().map(|r| (r.namespace, r.name)).collect()
}

fn home(reference: Option<&RepositoryRef>, namespace: Option<String>) -> Option<Home> {
    let (reference, namespace) = (reference?, namespace?);
    Some(ObjectRef::new(&reference.name).within(ground::home(reference, &namespace)))
}

macro_rules! user {
    ($kind:ty, $reference:expr, $over:expr) => {
        impl User for $kind {
            fn home(&self, _: &Users) -> Option<Home> {
                let reference: fn(&Self) -> Option<&RepositoryRef> = $reference;
                home(reference(self), self.namespace())
            }
            fn is_over(&self) -> bool {
                let over: fn(&Self) -> bool = $over;
                over(self)
            }
            fn conditions(&self) -> &[Condition] {
                self.status.as_ref().map(|s| s.conditions.as_slice()).unwrap_or_default()
            }
        }
    };
}
user!(BackupConfiguration, |s| s.spec.repository.as_ref(), |_| false);
user!(BackupBatch, |s| s.spec.repository.as_ref(), |_| false);
user!(RestoreSession, |s| s.spec.repository.as_ref(), |s| run::is_final(s.status.as_ref().and_then(|s| s.phase)));
user!(RestoreBatch, used, |s| run::is_final(s.status.as_ref().and_then(|s| s.phase)));

/// What a RestoreBatch took from a BackupBatch stands in its status.
fn used(batch: &RestoreBatch) -> Option<&RepositoryRef> {
    let adopted = || batch.status.as_ref()?.adopted.as_ref()?.repository.as_ref();
    batch.spec.repository.as_ref().or_else(adopted)
}

impl User for BackupSession {
    fn home(&self, users: &Users) -> Option<Home> {
        let (invoker, namespace) = (self.spec.invoker.as_ref()?, self.namespace()?);
        match invoker.kind.as_str() {
            "BackupConfiguration" => {
                users.configurations.get(&ObjectRef::new(&invoker.name).within(&namespace))?.home(users)
            }
            "BackupBatch" => users.batches.get(&ObjectRef::new(&invoker.name).within(&namespace))?.home(users),
            _ => None,
        }
    }
    fn is_over(&self) -> bool {
        backup::is_over(self.status.as_ref().and_then(|s| s.phase))
    }
    fn conditions(&self) -> &[Condition] {
        self.status.as_ref().map(|s| s.conditions.as_slice()).unwrap_or_default()
    }
}

impl Users {
    /// Those of one kind that use the Repository and are not over.
    pub fn of<K: User>(&self, all: &Indexed<K>, repository: &Home) -> Vec<ObjectRef<K>> {
        let found = all.with(&uses(repository)).into_iter().chain(all.with(OPEN));
        let found = found.filter(|o| !o.is_over() && o.home(self).as_ref() == Some(repository));
        found.map(|o| ObjectRef::from_obj(o.as_ref())).collect()
    }
}

/// Who uses the Repository, in a stable order. Of backups the invoker is named, not each session.
pub async fn references(ctx: &Context, repository: &Repository) -> Vec<Reference> {
    let (users, home) = (&ctx.users, ObjectRef::from_obj(repository));
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
    let verdicts = verdicts(ctx, &home, Some(repository), namespaces).await;
    all.retain(|r| !is_denied(&verdicts, r.namespace.as_deref().unwrap_or_default()));
    all.sort_by(|a, b| (&a.kind, &a.namespace, &a.name).cmp(&(&b.kind, &b.namespace, &b.name)));
    all
}

/// Why nothing is done for an invoker: what is wrong with it, or else that another one has its Repository.
///
/// # Errors
/// What its author may do could not be read.
pub async fn refused<K: Invoker + User>(
    ctx: &Context,
    object: &K,
    wrong: Option<Refusal>,
) -> kube::Result<Option<Refusal>> {
    let wrong = match wrong {
        None => ctx.vouching.refusal(&ctx.watched, object).await?,
        wrong => wrong,
    };
    Ok(match wrong {
        None => rivalry(ctx, object).await,
        wrong => wrong,
    })
}

/// Why an invoker may not use its Repository: another one has it.
async fn rivalry<K: Invoker + User>(ctx: &Context, object: &K) -> Option<Refusal> {
    let (users, me) = (&ctx.users, rival(object));
    let home = object.home(users)?;
    let mut all: Vec<Rival> = vec![];
    all.extend(users.configurations.with(&uses(&home)).iter().map(|o| rival(o.as_ref())));
    all.extend(users.batches.with(&uses(&home)).iter().map(|o| rival(o.as_ref())));
    let namespaces = all.iter().chain([&me]).map(|r| r.namespace.clone()).collect();
    let verdicts = verdicts(ctx, &home, ctx.repositories.get(&home).as_deref(), namespaces).await;
    // Who may not use it, or perhaps not, is told that, and not who else does.
    if verdicts.get(&me.namespace) != Some(&Verdict::Allowed) {
        return None;
    }
    all.retain(|r| !is_denied(&verdicts, &r.namespace));
    rivals::refusal(&me, &all, &full_name(&home))
}

fn rival<K: Invoker>(object: &K) -> Rival {
    Rival {
        kind: K::kind(&()).into_owned(),
        namespace: object.namespace().unwrap_or_default(),
        name: object.name_any(),
        uid: object.uid().unwrap_or_default(),
        created: object.creation_timestamp().map(|t| t.0).unwrap_or_default(),
        hosts: object.hosts(),
    }
}

/// What a Repository's usagePolicy says to a namespace; `None` while there is no such Repository.
pub async fn verdict(ctx: &Context, reference: &RepositoryRef, namespace: &str) -> Option<Verdict> {
    let home = home(Some(reference), Some(namespace.to_owned()))?;
    let repository = ctx.repositories.get(&home)?;
    verdicts(ctx, &home, Some(&repository), [namespace.to_owned()].into()).await.remove(namespace)
}

/// What the usagePolicy says to each namespace. A Repository that is not there yet has none, and is its own namespace's.
async fn verdicts(
    ctx: &Context,
    home: &Home,
    repository: Option<&Repository>,
    namespaces: BTreeSet<String>,
) -> BTreeMap<String, Verdict> {
    let policy = repository.and_then(|r| r.spec.usage_policy.as_ref());
    let home = home.namespace.as_deref().unwrap_or_default();
    let mut all = BTreeMap::new();
    for namespace in namespaces {
        let labels = if usage::asks_for_labels(policy, home, &namespace) {
            observe::labels(ctx, &namespace).await
        } else {
            Seen::Missing
        };
        let verdict = usage::verdict(policy, home, &namespace, &labels);
        all.insert(namespace, verdict);
    }
    all
}

/// Whether a namespace is kept out for certain. While that is not known, who may be using the Repository counts.
fn is_denied(verdicts: &BTreeMap<String, Verdict>, namespace: &str) -> bool {
    matches!(verdicts.get(namespace), Some(Verdict::Denied(_)))
}
