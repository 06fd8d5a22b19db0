//! Grants: the one right that a Job may need, for the time of its run.
//!
//! A grant is a Role that allows only what the Job does, a RoleBinding, and a ServiceAccount in the namespace of the
//! run. If the user names accounts, those are bound instead. The name of a grant is derived from the run's uid and from
//! what the grant allows: creating the same grant twice has no effect, and a different grant has a different name. A
//! grant is recorded in the status of the run before it is created, and is removed before the run's finalizer.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::rbac::v1::{PolicyRule, Role, RoleBinding, RoleRef, Subject};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::api::restore_session::GrantStatus;
use crate::api::runtime::RuntimeSettings;
use crate::api::to_json;
use crate::contract::Failure;
use crate::contract::SecretPlace;
use crate::names::{SNAPSHOT_GROUP, annotation, child_name, label, reason};
use crate::plan::effects::{Event, FinalizerChange, Grant, Plan};
use crate::plan::seen::identity::Identity;
use crate::plan::work::job_defaults;

/// How long rights that the API server does not let the operator revoke hold a session that is over or being deleted:
/// its finalizer would hold up a namespace. The limit is the same as for a workload that cannot be scaled back.
const PATIENCE: SignedDuration = SignedDuration::from_mins(10);
/// Interval at which a rejected revocation is retried.
const TRY_AGAIN: Duration = Duration::from_mins(2);

/// Whether a session that is over since `end`, or being deleted since `deleted`, is no longer held by rights that
/// cannot be revoked.
pub fn give_up(end: Option<Timestamp>, deleted: Option<Timestamp>, now: Timestamp) -> bool {
    end.into_iter().chain(deleted).max().is_some_and(|since| now.duration_since(since) > PATIENCE)
}

/// The rights of a run in one pass. Rights exist only while a Job that needs them runs.
pub struct Rights<'a> {
    /// What its Jobs need.
    pub wanted: Option<Grant>,
    /// Grants recorded in status. They may have been created.
    pub announced: &'a [GrantStatus],
    /// A Job runs.
    pub at_work: bool,
    /// What the API server answered a moment ago to the revocation of the rights.
    pub refused: Option<&'a Failure>,
    /// The rights no longer hold the run, see [`give_up`].
    pub give_up: bool,
}

/// Result for the rights in status.
#[derive(Debug, PartialEq)]
pub enum Settled {
    /// They stay.
    Keep,
    /// No right is left once the plan is applied.
    Gone,
    /// This grant is written to status before anything else is done.
    Announce(GrantStatus),
}

impl Rights<'_> {
    /// Grants new Jobs the rights that they need, and revokes rights that no Job needs any more.
    pub fn settle(self, plan: &mut Plan) -> Settled {
        if !plan.jobs.is_empty() {
            let Some(grant) = self.wanted else { return Settled::Keep };
            if !self.announced.contains(&grant.status) {
                return Settled::Announce(grant.status);
            }
            plan.grants.push(grant);
            return Settled::Keep;
        }
        if self.at_work || self.announced.is_empty() {
            return Settled::Keep;
        }
        let Some(refused) = self.refused else {
            plan.revoke.extend_from_slice(self.announced);
            return Settled::Gone;
        };
        let names: Vec<String> = self.announced.iter().map(|g| format!("{}/{}", g.namespace, g.name)).collect();
        let names = names.join(", ");
        let text = format!(
            "Role and RoleBinding {names} could not be deleted: {} Delete them, and allow the operator to delete them.",
            refused.message
        );
        plan.events.push(Event::new(true, reason::RIGHT_NOT_TAKEN_BACK, &text));
        if self.give_up {
            // The event names the remaining rights. The operator does not try again.
            return Settled::Gone;
        }
        if plan.finalizer == Some(FinalizerChange::Remove) {
            plan.finalizer = None;
        }
        plan.look_again(TRY_AGAIN);
        Settled::Keep
    }
}

/// A grant to read one Secret of another namespace. `settings` are those of each Job of the run, over `defaults`.
pub fn to_read<'a>(
    id: &Identity,
    secret: &SecretPlace,
    settings: impl IntoIterator<Item = Option<&'a RuntimeSettings>>,
    defaults: &'a RuntimeSettings,
) -> Grant {
    let rule = PolicyRule {
        api_groups: Some(vec![String::new()]),
        resources: Some(vec!["secrets".into()]),
        resource_names: Some(vec![secret.name.clone()]),
        verbs: vec!["get".into()],
        ..PolicyRule::default()
    };
    grant(id, &secret.namespace, vec![rule], settings, defaults)
}

/// A grant to maintain the Snapshots of a Repository's own namespace, for a Job of the Repository with these settings.
pub fn to_list(id: &Identity, settings: Option<&RuntimeSettings>, defaults: &RuntimeSettings) -> Grant {
    let group = |resource: &str, verbs: &[&str]| PolicyRule {
        api_groups: Some(vec![SNAPSHOT_GROUP.into()]),
        resources: Some(vec![resource.into()]),
        verbs: verbs.iter().map(|v| (*v).to_owned()).collect(),
        ..PolicyRule::default()
    };
    let rules = vec![group("snapshots", &["list", "create", "patch", "delete"]), group("snapshots/status", &["patch"])];
    grant(id, &id.namespace, rules, [settings], defaults)
}

/// A grant of `rules` in `namespace` to the Jobs of a run.
fn grant<'a>(
    id: &Identity,
    namespace: &str,
    rules: Vec<PolicyRule>,
    settings: impl IntoIterator<Item = Option<&'a RuntimeSettings>>,
    defaults: &'a RuntimeSettings,
) -> Grant {
    let accounts: BTreeSet<Option<&str>> = settings.into_iter().map(|s| job_defaults::account(s, defaults)).collect();
    let named: Vec<&str> = accounts.iter().copied().flatten().collect();
    let allowed = to_json(&rules).to_string();
    let parts = [&[id.uid.as_str(), namespace, &allowed], named.as_slice()].concat();
    let name = child_name(&format!("lifeboat-{}", id.name), &parts);
    let subjects = accounts.iter().map(|account| Subject {
        kind: "ServiceAccount".into(),
        name: account.unwrap_or(&name).to_owned(),
        namespace: Some(id.namespace.clone()),
        ..Subject::default()
    });
    let subjects: Vec<Subject> = subjects.collect();
    let at = |namespace: &str| meta(id, &name, namespace);
    Grant {
        account: accounts.contains(&None).then(|| ServiceAccount {
            metadata: at(&id.namespace),
            // A pod that is not the operator's gets no token unless it asks for one.
            automount_service_account_token: Some(false),
            ..ServiceAccount::default()
        }),
        role: Role { metadata: at(namespace), rules: Some(rules) },
        binding: RoleBinding {
            metadata: at(namespace),
            role_ref: RoleRef {
                api_group: "rbac.authorization.k8s.io".into(),
                kind: "Role".into(),
                name: name.clone(),
            },
            subjects: Some(subjects),
        },
        status: GrantStatus { namespace: namespace.to_owned(), name },
    }
}

/// Metadata with an owner reference only in the run's own namespace: owner references cannot cross namespaces.
fn meta(id: &Identity, name: &str, namespace: &str) -> ObjectMeta {
    let text = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    };
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: Some(namespace.to_owned()),
        labels: Some(text(&[
            (label::MANAGED_BY, label::MANAGED_BY_VALUE),
            (label::SESSION_KIND, &id.kind),
            (label::SESSION_UID, &id.uid),
        ])),
        annotations: Some(text(&[
            (annotation::SESSION_NAME, &id.name),
            (annotation::SESSION_NAMESPACE, &id.namespace),
        ])),
        owner_references: (namespace == id.namespace).then(|| vec![id.owner()]),
        ..ObjectMeta::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::runtime::PodRuntimeSettings;

    fn id() -> Identity {
        Identity { uid: "u".into(), name: "r".into(), namespace: "demo".into(), ..Identity::default() }
    }

    fn place() -> SecretPlace {
        SecretPlace { namespace: "store".into(), name: "s".into() }
    }

    fn of(account: Option<&str>) -> RuntimeSettings {
        let pod =
            PodRuntimeSettings { service_account_name: account.map(str::to_owned), ..PodRuntimeSettings::default() };
        RuntimeSettings { pod: Some(Box::new(pod)), ..RuntimeSettings::default() }
    }

    fn subjects(grant: &Grant) -> Vec<&str> {
        grant.binding.subjects.iter().flatten().map(|s| s.name.as_str()).collect()
    }

    #[test]
    fn it_allows_get_on_one_secret_and_nothing_else() {
        let grant = to_read(&id(), &place(), [None], &RuntimeSettings::default());
        let rules = grant.role.rules.as_ref().unwrap();
        assert_eq!(rules.len(), 1);
        assert_eq!(rules[0].verbs, ["get"]);
        assert_eq!(rules[0].resources.as_deref(), Some(&["secrets".to_owned()][..]));
        assert_eq!(rules[0].resource_names.as_deref(), Some(&["s".to_owned()][..]));
        assert_eq!(subjects(&grant), [grant.status.name.as_str()]);
        assert_eq!(grant.binding.subjects.as_ref().unwrap()[0].namespace.as_deref(), Some("demo"));
        assert_eq!(grant.binding.role_ref.name, grant.status.name);
    }

    #[test]
    fn a_list_may_keep_snapshots_of_its_own_namespace_and_nothing_else() {
        let grant = to_list(&id(), None, &RuntimeSettings::default());
        assert_eq!(grant.status.namespace, "demo");
        for rule in grant.role.rules.unwrap() {
            assert_eq!(rule.api_groups.unwrap(), [SNAPSHOT_GROUP]);
            assert!(rule.resources.unwrap()[0].starts_with("snapshots") && !rule.verbs.contains(&"*".to_owned()));
        }
        for meta in [grant.role.metadata, grant.binding.metadata, grant.account.unwrap().metadata] {
            assert_eq!(meta.owner_references.unwrap()[0].uid, "u", "it goes with the Repository");
        }
    }

    #[test]
    fn the_account_goes_with_the_session_and_the_role_stands_in_the_other_namespace() {
        let grant = to_read(&id(), &place(), [None], &RuntimeSettings::default());
        let account = grant.account.unwrap();
        assert_eq!(account.metadata.namespace.as_deref(), Some("demo"));
        assert_eq!(account.metadata.owner_references.unwrap()[0].uid, "u");
        assert_eq!(account.automount_service_account_token, Some(false));
        for meta in [grant.role.metadata, grant.binding.metadata] {
            assert_eq!((meta.namespace.as_deref(), meta.owner_references), (Some("store"), None));
            assert_eq!(meta.labels.unwrap()[label::SESSION_UID], "u");
        }
    }

    #[test]
    fn accounts_of_the_user_are_bound_and_one_of_ours_only_where_a_job_has_none() {
        let (mine, none) = (of(Some("mine")), RuntimeSettings::default);
        let all = to_read(&id(), &place(), [Some(&mine), Some(&mine)], &none());
        assert_eq!((all.account.is_none(), subjects(&all)), (true, vec!["mine"]));
        let default = of(Some("default"));
        let all = to_read(&id(), &place(), [Some(&default)], &none());
        assert_eq!(subjects(&all), [all.status.name.as_str()], "every pod of the namespace would have it");
        assert!(all.account.is_some());
        let mixed = to_read(&id(), &place(), [Some(&mine), Some(&none()), None], &none());
        assert_eq!(mixed.account.as_ref().unwrap().metadata.name.as_deref(), Some(mixed.status.name.as_str()));
        assert_eq!(subjects(&mixed), [mixed.status.name.as_str(), "mine"]);
        let theirs = to_read(&id(), &place(), [Some(&mine), Some(&default), None], &of(Some("of-all")));
        assert_eq!(subjects(&theirs), [theirs.status.name.as_str(), "mine", "of-all"], "the default of the namespace");
    }

    #[test]
    fn the_same_right_has_the_same_name_and_another_has_another() {
        let name = |id: &Identity, place: &SecretPlace, s: &RuntimeSettings| {
            to_read(id, place, [Some(s)], &RuntimeSettings::default()).status.name
        };
        let first = name(&id(), &place(), &of(None));
        assert_eq!(first, name(&id(), &place(), &of(None)));
        let other_run = Identity { uid: "v".into(), ..id() };
        let (other_place, other_secret) =
            (SecretPlace { namespace: "x".into(), ..place() }, SecretPlace { name: "t".into(), ..place() });
        for other in [
            name(&other_run, &place(), &of(None)),
            name(&id(), &other_place, &of(None)),
            name(&id(), &other_secret, &of(None)),
            name(&id(), &place(), &of(Some("mine"))),
        ] {
            assert_ne!(first, other);
        }
    }
}
