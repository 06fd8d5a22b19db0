//! Reads of Repositories: one that a session or an invoker refers to, and the surroundings of one that is reconciled
//! itself.
//!
//! Users of other namespaces learn no more about a Repository here than its owner would tell them.

use kube::api::ListParams;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, ResourceExt as _};

use crate::api::Repository;
use crate::api::common::RepositoryRef;
use crate::api::repository::Backend;
use crate::controller::cache::pages::{self, PAGE};
use crate::controller::cache::scope::is_forbidden;
use crate::controller::cache::stored::Stored;
use crate::controller::observe::errors::{Error, plain};
use crate::controller::observe::reads::Reads;
use crate::controller::observe::{code_rights, jobs, namespace, usage, validity};
use crate::plan::repository::pass::{RepositoryRun, RepositorySurroundings};
use crate::plan::repository::usage_policy::Verdict;
use crate::plan::repository::{known, opened, preconditions, store_reasons, usage_policy as policy};
use crate::plan::seen::repository::{RepositorySeen, Silence};
use crate::plan::seen::{Refusal, Seen};
use crate::plan::setup::Setup;
use crate::plan::systems::restic::backend;

/// The Repository of a reference, and whether its Secret exists: according to a recent answer, or at this moment with
/// `now`.
pub async fn referenced(
    reads: &Reads,
    reference: Option<&RepositoryRef>,
    namespace: &str,
    now: bool,
) -> Seen<RepositorySeen> {
    let Some(reference) = reference else { return Seen::Missing };
    let home = preconditions::home(reference, namespace);
    if let Some(why) = reads.stores.scope.outside(home) {
        return Seen::Unknown(why);
    }
    let Some(found) = reads.stores.repositories.get(&ObjectRef::new(&reference.name).within(home)) else {
        return Seen::Missing;
    };
    let outline = found.outline();
    let policy = outline.spec.usage_policy.as_ref();
    let labels = if policy::asks_for_labels(policy, home, namespace) {
        namespace::labels(reads, namespace).await
    } else {
        Seen::Missing
    };
    // Lifeboat's Jobs would mount its volume. A namespace that may not use the Repository learns nothing of that.
    if policy::verdict(policy, home, namespace, &labels) == Verdict::Allowed {
        match code_rights::refusal(reads, &outline).await {
            Ok(None) => {}
            Ok(Some(refusal)) if home == namespace => {
                return Seen::Unknown(format!("it is not valid: {}", refusal.message));
            }
            Ok(Some(_)) => return Seen::Unknown("it is not valid; its status contains the cause".to_owned()),
            Err(e) => return Seen::Unknown(plain(&e)),
        }
    }
    let (spec, facts) = (outline.spec, found.facts());
    let name = spec.backend.as_ref().and_then(|b| b.storage_secret_name.clone()).unwrap_or_default();
    let secret = reads.secrets.look(&reads.client, home, &name, now).await;
    let (first_backup, known) = (facts.first_backup.clone(), facts.known);
    let reachability = facts.reachability.clone().filter(|r| !r.reachable);
    let unreachable = reachability.map(|r| Silence { since: r.since.0, message: r.message.unwrap_or_default() });
    let not_ready = facts.not_ready.clone().map(|said| told(said, home == namespace));
    Seen::Found(RepositorySeen { spec, first_backup, known, secret, labels, unreachable, not_ready })
}

/// What users of a Repository learn about why it is not ready. Users of other namespaces learn only what a session
/// would tell them.
fn told(said: Refusal, near: bool) -> Refusal {
    if near || store_reasons::is_of_opening(&said.reason) {
        return said;
    }
    Refusal { message: "its owner can see why.".to_owned(), ..said }
}

/// Observed state for a Repository. The caller knows which sessions stand in its queue, and whether it is its turn to
/// be listed. Here the queue is empty, and it is not its turn.
///
/// # Errors
/// The API server could not be reached, or the object could not be validated yet.
pub async fn surroundings(
    reads: &Reads,
    setup: &Setup,
    object: &Stored<Repository>,
    run: &RepositoryRun,
) -> Result<RepositorySurroundings, Error> {
    let mut refusal = validity::judge(&reads.stores.verdicts, object).await?;
    if refusal.is_none() && !run.id.deleting {
        refusal = code_rights::refusal(reads, &object.outline()).await?;
    }
    let name = run.spec.backend.as_ref().and_then(|b| b.storage_secret_name.clone()).unwrap_or_default();
    // A Secret that a user may just have corrected is read again.
    let shut = opened::is_shut(&run.state);
    let version = reads.secrets.version(&reads.client, &run.id.namespace, &name, shut).await;
    let (secret, secret_version) = match version {
        Seen::Found(version) => (Seen::Found(()), Some(version.to_string())),
        Seen::Missing => (Seen::Missing, None),
        Seen::Unknown(why) => (Seen::Unknown(why), None),
    };
    Ok(RepositorySurroundings {
        refusal,
        secret,
        secret_version,
        may_list: false,
        references: usage::references(reads, object).await,
        jobs: jobs::cached(reads, &reads.stores.of_repositories, &run.id).await?,
        waiting: 0,
        at_work: 0,
        slots: None,
        shares_data_with: shares_data_with(reads, run).await?,
        job_defaults: namespace::job_defaults(reads, &setup.job_defaults, &run.id.namespace).await?,
        namespace_ends: run.id.deleting && namespace_ends(reads, &run.id.namespace).await,
    })
}

/// Another Repository whose data could be the same. Asked only if data is to be removed, because the check reads all
/// Repositories. Those that are not watched are asked of the API server; without the right to it no data is removed.
///
/// # Errors
/// The request to the API server failed.
async fn shares_data_with(reads: &Reads, run: &RepositoryRun) -> kube::Result<Option<String>> {
    let Some(mine) = run.spec.backend.as_ref().filter(|_| run.id.deleting) else { return Ok(None) };
    let watched = sharing(run, mine, reads.stores.repositories.store.state().iter().map(AsRef::as_ref));
    if watched.is_some() || run.spec.wipe_out != Some(true) || reads.stores.scope.names().is_empty() {
        return Ok(watched);
    }
    let api = Api::<Stored<Repository>>::all(reads.client.clone());
    let mut next = Some(ListParams::default().limit(PAGE));
    while let Some(page) = next {
        let answer = match api.list(&page).await {
            Ok(answer) => answer,
            Err(error) if is_forbidden(&error) => {
                let why = plain(&error);
                return Ok(Some(format!(
                    "a Repository of a namespace that this Lifeboat does not watch, and it may not list those: {why}"
                )));
            }
            Err(error) => return Err(error),
        };
        let found = sharing(run, mine, answer.items.iter());
        if found.is_some() {
            return Ok(found);
        }
        next = pages::after(page, &answer.metadata);
    }
    Ok(None)
}

/// The Repository among these whose data could be the same. A Repository that is itself being wiped out protects
/// nothing. Neither does a Repository of another namespace through which that store was never opened: any user can name
/// a bucket. Repositories of other namespaces are not named.
fn sharing<'a>(
    run: &RepositoryRun,
    mine: &Backend,
    all: impl Iterator<Item = &'a Stored<Repository>>,
) -> Option<String> {
    // The place of a Repository that is not kept whole is unknown.
    let is_near = |namespace: Option<String>| namespace.as_ref() == Some(&run.id.namespace);
    let unknown = |r: &Stored<Repository>| !r.is_whole() && is_near(r.namespace());
    let goes = |r: &Repository| r.metadata.deletion_timestamp.is_some() && r.spec.wipe_out == Some(true);
    let same = |r: &Repository| r.spec.backend.as_ref().is_some_and(|b| backend::could_share_data(mine, b));
    let counts = |r: &Repository| is_near(r.namespace()) || known::has_been_opened(&r.spec, r.status.as_ref());
    let others: Vec<&Stored<Repository>> = all.filter(|r| r.uid().as_ref() != Some(&run.id.uid)).collect();
    if let Some(other) = others.iter().find(|r| unknown(r)) {
        return Some(format!("Repository {}/{}", run.id.namespace, other.name_any()));
    }
    let others: Vec<Repository> =
        others.iter().map(|r| r.open()).filter(|r| !goes(r) && same(r) && counts(r)).collect();
    let near = others.iter().filter(|r| is_near(r.namespace()));
    let near = near.map(|r| format!("Repository {}/{}", run.id.namespace, r.name_any()));
    let far = || others.first().map(|_| "a Repository of another namespace".to_owned());
    near.min().or_else(far).map(|other| format!("{other}: the same bucket, and one prefix within the other"))
}

/// Whether a namespace is being deleted; `false` if that is unknown, which delays nothing that would otherwise go.
async fn namespace_ends(reads: &Reads, name: &str) -> bool {
    matches!(reads.informers.namespace(name).await, Ok(Some(n)) if n.metadata.deletion_timestamp.is_some())
}
