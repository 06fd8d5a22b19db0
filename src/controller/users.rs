//! Who uses a Repository, from the watched stores: the reads behind its references, the
//! queue for Jobs on it, and the rule that a BackupBatch has it to itself.

use std::collections::BTreeMap;

use k8s_openapi::api::batch::v1::Job;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Resource, ResourceExt as _};

use super::context::Context;
use super::invoker::Invoker;
use crate::api::common::RepositoryRef;
use crate::api::repository::{FromNamespaces, Reference};
use crate::api::{
    BackupBatch, BackupConfiguration, BackupSession, Condition, Repository, RestoreBatch, RestoreSession,
};
use crate::names::{GROUP, annotation, condition, label, reason};
use crate::plan::backup;
use crate::plan::gate::{self, Claim, Room};
use crate::plan::observed::Refusal;
use crate::plan::rivals::{self, Rival};
use crate::plan::run;

/// A Repository, by name.
pub type Home = ObjectRef<Repository>;

/// Stores of those that use Repositories.
#[derive(Clone)]
pub struct Users {
    /// Invokers of one target.
    pub configurations: Store<BackupConfiguration>,
    /// Invokers of many targets.
    pub batches: Store<BackupBatch>,
    /// Backups.
    pub backups: Store<BackupSession>,
    /// Restores of one target.
    pub restores: Store<RestoreSession>,
    /// Restores of many targets.
    pub restore_batches: Store<RestoreBatch>,
}

/// Something that uses a Repository.
pub trait User: Resource<DynamicType = ()> + Clone + Send + Sync + 'static {
    /// The Repository it uses.
    fn home(&self, users: &Users) -> Option<Home>;
    /// Whether it needs it no more.
    fn is_over(&self) -> bool;
    /// Its conditions.
    fn conditions(&self) -> &[Condition];
}

fn waits_for<K: User>(object: &K, why: &str) -> bool {
    let of = |c: &&Condition| c.type_ == condition::RECONCILING && c.status == "True";
    object.conditions().iter().find(of).is_some_and(|c| c.reason.as_deref() == Some(why))
}

fn home(reference: Option<&RepositoryRef>, namespace: Option<String>) -> Option<Home> {
    let reference = reference?;
    Some(ObjectRef::new(&reference.name).within(&reference.namespace.clone().or(namespace)?))
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
    pub fn of<K: User>(&self, store: &Store<K>, repository: &Home) -> Vec<ObjectRef<K>> {
        let found = store.state_filter(|o| !o.is_over() && o.home(self).as_ref() == Some(repository));
        found.iter().map(|o| ObjectRef::from_obj(o.as_ref())).collect()
    }

    /// Who uses the Repository, in a stable order. Of backups the invoker is named, not each session.
    pub fn references(&self, repository: &Repository) -> Vec<Reference> {
        let home = ObjectRef::from_obj(repository);
        let mut all = vec![];
        let mut add = |kind: &str, found: Vec<(Option<String>, String)>| {
            all.extend(found.into_iter().filter(|(n, _)| may_use(repository, n.as_deref())).map(
                |(namespace, name)| Reference {
                    api_group: Some(GROUP.into()),
                    kind: Some(kind.into()),
                    namespace,
                    name,
                },
            ));
        };
        fn names<K: User>(found: Vec<ObjectRef<K>>) -> Vec<(Option<String>, String)> {
            found.into_iter().map(|r| (r.namespace, r.name)).collect()
        }
        add("BackupBatch", names(self.of(&self.batches, &home)));
        add("BackupConfiguration", names(self.of(&self.configurations, &home)));
        add("RestoreBatch", names(self.of(&self.restore_batches, &home)));
        add("RestoreSession", names(self.of(&self.restores, &home)));
        all.sort_by(|a, b| (&a.kind, &a.namespace, &a.name).cmp(&(&b.kind, &b.namespace, &b.name)));
        all
    }

    /// The queue for Jobs on the Repository: sessions that are not over.
    pub fn claims(&self, repository: &Home) -> Vec<Claim> {
        let mut all = vec![];
        self.claim(&self.backups, repository, &mut all);
        self.claim(&self.restores, repository, &mut all);
        self.claim(&self.restore_batches, repository, &mut all);
        all
    }

    fn claim<K: User>(&self, store: &Store<K>, repository: &Home, all: &mut Vec<Claim>) {
        let open = |o: &K| !o.is_over() && o.meta().deletion_timestamp.is_none();
        for o in store.state_filter(|o| open(o) && o.home(self).as_ref() == Some(repository)) {
            let created = o.creation_timestamp().map(|t| t.0).unwrap_or_default();
            all.push(Claim {
                created,
                uid: o.uid().unwrap_or_default(),
                wants: !waits_for(o.as_ref(), reason::PENDING),
            });
        }
    }

    /// The oldest sessions that wait for room on the Repository.
    pub fn turned_away<K: User>(&self, store: &Store<K>, repository: &Home, most: usize) -> Vec<ObjectRef<K>> {
        let waits = |o: &K| !o.is_over() && waits_for(o, reason::REPOSITORY_BUSY);
        let mut found = store.state_filter(|o| waits(o) && o.home(self).as_ref() == Some(repository));
        found.sort_by_key(|o| (o.creation_timestamp(), o.uid()));
        found.iter().take(most).map(|o| ObjectRef::from_obj(o.as_ref())).collect()
    }

    /// Why an invoker may not use its Repository: another one has it.
    pub fn rivalry<K: Invoker + User>(&self, object: &K) -> Option<Refusal> {
        let home = object.home(self)?;
        let mut all = vec![];
        for o in self.configurations.state_filter(|o| o.home(self).as_ref() == Some(&home)) {
            all.push(rival(o.as_ref()));
        }
        for o in self.batches.state_filter(|o| o.home(self).as_ref() == Some(&home)) {
            all.push(rival(o.as_ref()));
        }
        let shown = format!("{}/{}", home.namespace.as_deref().unwrap_or_default(), home.name);
        rivals::refusal(&rival(object), &all, &shown)
    }
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

/// Whether objects of a namespace may use the Repository at all; others do not hold it.
fn may_use(repository: &Repository, namespace: Option<&str>) -> bool {
    namespace == repository.metadata.namespace.as_deref()
        || repository.spec.usage_policy.as_ref().is_some_and(|p| p.allowed_namespaces.from != FromNamespaces::Same)
}

/// Room for Jobs of the session `object` on its Repository.
pub fn room<K: User>(ctx: &Context, object: &K) -> Room {
    let Some(home) = object.home(&ctx.users) else { return Room { free: ctx.setup.jobs_per_repository, ahead: 0 } };
    let created = object.creation_timestamp().map(|t| t.0).unwrap_or_default();
    let uid = object.uid().unwrap_or_default();
    gate::room(created, &uid, &ctx.users.claims(&home), &at_work(ctx, &home), ctx.setup.jobs_per_repository)
}

/// Jobs of sessions that work on a Repository, by the uid of their session.
pub fn at_work(ctx: &Context, repository: &Home) -> BTreeMap<String, usize> {
    let name = format!("{}/{}", repository.namespace.as_deref().unwrap_or_default(), repository.name);
    let here = |j: &Job| !is_over(j) && j.annotations().get(annotation::REPOSITORY) == Some(&name);
    let mut count = BTreeMap::new();
    for children in [&ctx.of_restore_sessions, &ctx.of_restore_batches, &ctx.of_backup_sessions] {
        for job in children.jobs.state_filter(|j| here(j)) {
            *count.entry(job.labels().get(label::SESSION_UID).cloned().unwrap_or_default()).or_default() += 1;
        }
    }
    count
}

fn is_over(job: &Job) -> bool {
    let conditions = job.status.iter().flat_map(|s| s.conditions.iter().flatten());
    conditions.into_iter().any(|c| c.status == "True" && (c.type_ == "Failed" || c.type_ == "Complete"))
}
