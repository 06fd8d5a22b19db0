//! Who uses a Repository, from the watched stores: the reads behind its references,
//! and the rule that a BackupBatch has it to itself. Whoever its usagePolicy keeps out
//! does not use it: he neither holds it nor stands in the way of those who may.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kube::runtime::reflector::ObjectRef;
use kube::{Resource, ResourceExt as _};

use super::index::Indexed;
use super::stored::{Facts, Stored, UserKind};
use crate::api::backup_session::BackupPhase;
use crate::api::common::RepositoryRef;
use crate::api::repository::Reference;
use crate::api::restore_session::RestorePhase;
use crate::api::{
    BackupBatch, BackupBlueprint, BackupConfiguration, BackupSession, Condition, Repository, RestoreBatch,
    RestoreSession,
};
use crate::controller::kinds::context::Context;
use crate::controller::kinds::invoker::Invoker;
use crate::controller::observe::jobs;
use crate::controller::process::metrics::backups::{Backups, Labels, Series};
use crate::names::{GROUP, condition, reason};
use crate::plan::observed::{Refusal, Seen};
use crate::plan::repository;
use crate::plan::restore::rivals as targets;
use crate::plan::rivals::{self, Rival};
use crate::plan::run::{self, RestoreRun};
use crate::plan::usage::{self, Verdict};
use crate::plan::{access, backup, ground};

/// A Repository, by name.
pub type Home = ObjectRef<Stored<Repository>>;

/// Stores of those that use Repositories.
#[derive(Clone)]
pub struct Users {
    /// Invokers of one target.
    pub configurations: Indexed<Stored<BackupConfiguration>>,
    /// Invokers of many targets.
    pub batches: Indexed<Stored<BackupBatch>>,
    /// Backups.
    pub backups: Indexed<Stored<BackupSession>>,
    /// Restores of one target.
    pub restores: Indexed<Stored<RestoreSession>>,
    /// Restores of many targets.
    pub restore_batches: Indexed<Stored<RestoreBatch>>,
}

/// Something that uses a Repository.
pub trait User: Resource<DynamicType = ()> + Clone + Send + Sync + 'static {
    /// The Repository it uses.
    fn home(&self, users: &Users) -> Option<Home>;
    /// Whether it needs it no more.
    fn is_over(&self) -> bool;
    /// Whether its Jobs have rights, as far as its status says.
    fn has_rights(&self) -> bool;
    /// Whether a condition of it, Reconciling or Stalled, is true for this reason.
    fn says(&self, type_: &str, why: &str) -> bool;
}

impl<K: UserKind> User for Stored<K> {
    fn home(&self, users: &Users) -> Option<Home> {
        let of = |(namespace, name): &(String, String)| ObjectRef::new(name).within(namespace);
        let Some(invoker) = &self.facts().invoker else { return self.facts().repository.as_ref().map(of) };
        let namespace = self.namespace()?;
        match invoker.kind.as_str() {
            "BackupConfiguration" => {
                users.configurations.get(&ObjectRef::new(&invoker.name).within(&namespace))?.home(users)
            }
            "BackupBatch" => users.batches.get(&ObjectRef::new(&invoker.name).within(&namespace))?.home(users),
            _ => None,
        }
    }
    fn is_over(&self) -> bool {
        self.facts().over
    }
    fn has_rights(&self) -> bool {
        self.facts().has_rights
    }
    fn says(&self, type_: &str, why: &str) -> bool {
        self.facts().says.iter().any(|(t, reason)| t == type_ && reason == why)
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

/// Key of restores that may stand in the way of others at this target.
pub fn restores(namespace: &str, target: &str) -> String {
    format!("target {namespace}/{target}")
}

/// Key of restores of a namespace that have begun with a target, and not finished.
pub fn begun(namespace: &str) -> String {
    format!("begun {namespace}")
}

/// Key of backups that are not over; there are few, and where they lead depends on their invoker.
pub const OPEN: &str = "open";

/// Key of backups of an invoker that are not over.
pub fn backups_of<K: Resource<DynamicType = ()>>(invoker: &K) -> String {
    of_invoker(&K::kind(&()), &invoker.namespace().unwrap_or_default(), &invoker.name_any())
}

fn of_invoker(kind: &str, namespace: &str, name: &str) -> String {
    format!("invoker {kind} {namespace}/{name}")
}

/// Keys of whatever may use a Repository.
pub fn keys<K: UserKind>(object: &Stored<K>) -> Vec<String> {
    let facts = object.facts();
    if facts.over {
        return vec![];
    }
    let namespace = object.namespace().unwrap_or_default();
    if let Some(invoker) = &facts.invoker {
        return vec![of_invoker(&invoker.kind, &namespace, &invoker.name), OPEN.to_owned()];
    }
    let home = facts.repository.as_ref().map(|(namespace, name)| ObjectRef::new(name).within(namespace));
    let has_begun = facts.targets.iter().any(|t| t.begun);
    let targets = facts.targets.iter().map(|t| restores(&namespace, &t.target));
    home.iter().map(uses).chain(targets).chain(has_begun.then(|| begun(&namespace))).collect()
}

fn names<K: User>(found: Vec<ObjectRef<K>>) -> Vec<(Option<String>, String)> {
    found.into_iter().map(|r| (r.namespace, r.name)).collect()
}

fn home(reference: Option<&RepositoryRef>, namespace: Option<String>) -> Option<Home> {
    let (namespace, name) = place(reference, namespace)?;
    Some(ObjectRef::new(&name).within(&namespace))
}

fn place(reference: Option<&RepositoryRef>, namespace: Option<String>) -> Option<(String, String)> {
    let (reference, namespace) = (reference?, namespace?);
    Some((ground::home(reference, &namespace).to_owned(), reference.name.clone()))
}

fn facts_of_invoker<K: Invoker>(invoker: &K) -> Facts {
    let said = invoker.written().unwrap_or_default();
    let repository = place(invoker.reference(), invoker.namespace());
    let late = said.conditions.iter().find(|c| c.type_ == condition::BACKUPS_LATE);
    let backups = Arc::new(Backups {
        success: said.record.success.as_ref().map(|t| t.0.as_second()),
        next: said.next.as_ref().map(|t| t.0.as_second()),
        late: late.map(|c| c.status == "True"),
        result: said.record.last.as_ref().map(|last| {
            (last.phase == BackupPhase::Succeeded, last.reason.clone().unwrap_or_else(|| format!("{:?}", last.phase)))
        }),
    });
    let (invoker_phase, hosts, backups) = (said.phase, invoker.hosts(), Some(backups));
    Facts { repository, invoker_phase, backups, hosts, ..Facts::default() }.saying(&said.conditions)
}

/// How the backups of the invokers of a store stand.
fn series<K: UserKind>(store: &Indexed<Stored<K>>) -> Vec<Series> {
    let of = |object: &Arc<Stored<K>>| {
        let facts = object.facts();
        let repository = facts.repository.as_ref().map(|(home, name)| format!("{home}/{name}")).unwrap_or_default();
        let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
        let labels = Labels { namespace, kind: K::kind(&()).into_owned(), name, repository };
        Series { labels, backups: facts.backups.clone().unwrap_or_default() }
    };
    store.store.state().iter().map(of).collect()
}

impl UserKind for BackupConfiguration {
    fn facts(&self) -> Facts {
        facts_of_invoker(self)
    }
}

impl UserKind for BackupBatch {
    fn facts(&self) -> Facts {
        facts_of_invoker(self)
    }
}

impl UserKind for BackupSession {
    fn facts(&self) -> Facts {
        let phase = self.status.as_ref().and_then(|s| s.phase);
        let invoker = Some(self.spec.invoker.clone().unwrap_or_default());
        let (over, runs) = (backup::is_over(phase), phase == Some(BackupPhase::Running));
        let rests = over && !self.status.as_ref().is_some_and(backup::has_retry_due);
        Facts { over, rests, runs, backup: phase, invoker, ..Facts::default() }
            .saying(self.status.as_ref().map_or(&[][..], |s| &s.conditions))
            .running(self.status.as_ref().and_then(|s| s.run.as_ref()))
    }
}

fn facts_of_restore(run: &RestoreRun, repository: Option<(String, String)>) -> Facts {
    let state = &run.state;
    let (over, rests) = (run::is_final(state.phase), state.is_final());
    let runs = state.phase == Some(RestorePhase::Running);
    let targets = if over { vec![] } else { targets::of(run) };
    Facts { repository, over, rests, runs, targets, ..Facts::default() }
        .saying(&state.conditions)
        .running(Some(&state.run))
}

impl UserKind for RestoreSession {
    fn facts(&self) -> Facts {
        facts_of_restore(&RestoreRun::of_session(self), place(self.spec.repository.as_ref(), self.namespace()))
    }
}

impl UserKind for RestoreBatch {
    fn facts(&self) -> Facts {
        facts_of_restore(&RestoreRun::of_batch(self), place(used(self), self.namespace()))
    }
}

impl UserKind for Repository {
    fn facts(&self) -> Facts {
        let status = self.status.as_ref();
        let access = access::of(&self.spec, &self.name_any()).ok();
        Facts {
            url: access.filter(|a| a.local.is_none()).map(|a| a.told.url.into()),
            first_backup: status.and_then(|s| s.first_backup_time.clone()),
            known: repository::was_here(&self.spec, status),
            reachability: status.and_then(|s| s.reachability.clone()),
            not_ready: not_ready(status.map_or(&[][..], |s| &s.conditions)),
            ..Facts::default()
        }
    }
}

fn not_ready(list: &[Condition]) -> Option<Refusal> {
    let Some(c) = list.iter().find(|c| c.type_ == condition::READY) else {
        let message = "nobody has looked at it yet.".to_owned();
        return Some(Refusal { reason: reason::NOT_OPENED.to_owned(), message });
    };
    let said = || (c.reason.clone().unwrap_or_default(), c.message.clone().unwrap_or_default());
    (c.status != "True").then(said).map(|(reason, message)| Refusal { reason, message })
}

impl UserKind for BackupBlueprint {
    fn facts(&self) -> Facts {
        Facts::default()
    }
}

/// What a RestoreBatch took from a BackupBatch stands in its status.
fn used(batch: &RestoreBatch) -> Option<&RepositoryRef> {
    let adopted = || batch.status.as_ref()?.adopted.as_ref()?.repository.as_ref();
    batch.spec.repository.as_ref().or_else(adopted)
}

impl Users {
    /// How the backups of all invokers stand.
    pub fn invokers(&self) -> Vec<Series> {
        series(&self.configurations).into_iter().chain(series(&self.batches)).collect()
    }

    /// Those of one kind that use the Repository and are not over.
    pub fn of<K: User>(&self, all: &Indexed<K>, repository: &Home) -> Vec<ObjectRef<K>> {
        let found = all.with(&uses(repository)).into_iter().chain(all.with(OPEN));
        let found = found.filter(|o| !o.is_over() && o.home(self).as_ref() == Some(repository));
        found.map(|o| ObjectRef::from_obj(o.as_ref())).collect()
    }
}

/// Who uses the Repository, in a stable order. Of backups the invoker is named, not each session.
pub async fn references(ctx: &Context, repository: &Stored<Repository>) -> Vec<Reference> {
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
pub async fn refused<K: UserKind + Invoker>(
    ctx: &Context,
    object: &Stored<K>,
    wrong: Option<Refusal>,
) -> kube::Result<Option<Refusal>> {
    let outline = object.outline();
    let too_long = || run::too_long("spec.timeOut", outline.timing().time_out, ctx.setup.max_timeout);
    let wrong = match wrong.or_else(too_long) {
        None => ctx.vouching.refusal(&ctx.watched, &outline).await?,
        wrong => wrong,
    };
    Ok(match wrong {
        None => rivalry(ctx, object).await,
        wrong => wrong,
    })
}

/// Why an invoker may not use its Repository: another one has it.
async fn rivalry<K: UserKind>(ctx: &Context, object: &Stored<K>) -> Option<Refusal> {
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

/// What a Repository's usagePolicy says to a namespace; `None` while there is no such Repository.
pub async fn verdict(ctx: &Context, reference: &RepositoryRef, namespace: &str) -> Option<Verdict> {
    let home = home(Some(reference), Some(namespace.to_owned()))?;
    let repository = ctx.repositories.get(&home)?;
    verdicts(ctx, &home, Some(&repository), [namespace.to_owned()].into()).await.remove(namespace)
}

/// Whether the usagePolicy of a Repository lets a session's namespace use it, for certain.
pub async fn may_use<K: User>(ctx: &Context, session: &K, home: &Home) -> bool {
    let Some(namespace) = session.meta().namespace.clone() else { return false };
    let repository = ctx.repositories.get(home);
    let verdicts = verdicts(ctx, home, repository.as_deref(), [namespace.clone()].into()).await;
    verdicts.get(&namespace) == Some(&Verdict::Allowed)
}

/// What the usagePolicy says to each namespace. A Repository that is not there yet has none, and is its own namespace's.
async fn verdicts(
    ctx: &Context,
    home: &Home,
    repository: Option<&Stored<Repository>>,
    namespaces: BTreeSet<String>,
) -> BTreeMap<String, Verdict> {
    let policy = repository.and_then(|r| r.outline().spec.usage_policy);
    let policy = policy.as_ref();
    let home = home.namespace.as_deref().unwrap_or_default();
    let mut all = BTreeMap::new();
    for namespace in namespaces {
        let labels = if usage::asks_for_labels(policy, home, &namespace) {
            jobs::labels(ctx, &namespace).await
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
