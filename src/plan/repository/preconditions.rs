//! Preconditions of every run: its Repository, the right to use it, and the backend Secret.

use k8s_openapi::jiff::Timestamp;

use crate::api::Condition;
use crate::api::common::RepositoryRef;
use crate::api::runtime::RuntimeSettings;
use crate::contract::{Class, Failure};
use crate::names::{condition, reason};
use crate::plan::repository::usage_policy;
use crate::plan::repository::usage_policy::Verdict;
use crate::plan::run::conditions::{Value, set};
use crate::plan::seen::Seen;
use crate::plan::seen::repository::RepositorySeen;
use crate::plan::systems::restic::backend;
use crate::plan::systems::restic::backend::Access;

/// Why the preconditions of a run are not met.
#[derive(Clone, Debug, PartialEq)]
pub enum NoGround {
    /// Something is missing that may appear.
    Waiting(String),
    /// The Repository's owner does not allow it. It is checked again, because the owner may allow it later.
    Denied(Failure),
    /// It can never work as it is written.
    Refused(Failure),
}

/// Namespace of the Repository that an object of `namespace` refers to. An empty namespace counts as not set: charts
/// write it when their value is not set.
pub fn home<'a>(reference: &'a RepositoryRef, namespace: &'a str) -> &'a str {
    reference.namespace.as_deref().filter(|n| !n.is_empty()).unwrap_or(namespace)
}

/// How messages name the Repository of a reference: namespace and name.
pub fn display(reference: Option<&RepositoryRef>, namespace: &str) -> String {
    let home = reference.map_or(namespace, |r| home(r, namespace));
    format!("{home}/{}", reference.map(|r| r.name.as_str()).unwrap_or_default())
}

/// Checks the Repository, its usagePolicy and its Secret, sets the conditions, and determines how Jobs reach the
/// repository.
///
/// # Errors
/// What is missing, not allowed, or wrong.
pub fn check(
    reference: Option<&RepositoryRef>,
    namespace: &str,
    seen: &Seen<RepositorySeen>,
    list: &mut Vec<Condition>,
    at: Timestamp,
) -> Result<Access, NoGround> {
    let display = display(reference, namespace);
    let home = reference.map_or(namespace, |r| home(r, namespace));
    let repository = match seen {
        Seen::Found(r) => r,
        // An object of another namespace must not learn whether the Repository exists.
        Seen::Missing if home != namespace => return Err(deny(&display, namespace, list, at)),
        Seen::Missing => {
            let text = format!("Repository {display} does not exist.");
            set(list, condition::REPOSITORY_FOUND, false, reason::REPOSITORY_NOT_AVAILABLE, &text, at);
            return Err(NoGround::Waiting(text));
        }
        Seen::Unknown(why) => {
            let text = format!("Repository {display} could not be read: {why}");
            set(list, condition::REPOSITORY_FOUND, Value::Unknown, reason::REPOSITORY_UNKNOWN, &text, at);
            return Err(NoGround::Waiting(text));
        }
    };
    match usage_policy::verdict(repository.spec.usage_policy.as_ref(), home, namespace, &repository.labels) {
        Verdict::Allowed => {}
        Verdict::Denied(_) => return Err(deny(&display, namespace, list, at)),
        Verdict::Unknown(why) => {
            let text = format!(
                "The usagePolicy of Repository {display} could not be checked for namespace {namespace}: {why}"
            );
            set(list, condition::REPOSITORY_FOUND, Value::Unknown, reason::REPOSITORY_UNKNOWN, &text, at);
            return Err(NoGround::Waiting(text));
        }
    }
    set(
        list,
        condition::REPOSITORY_FOUND,
        true,
        reason::REPOSITORY_AVAILABLE,
        format!("Repository {display} exists."),
        at,
    );
    let mut access = backend::of(&repository.spec, &display).map_err(NoGround::Refused)?;
    access.told.known = repository.known;
    if home != namespace {
        access = access.elsewhere(home, &display, namespace).map_err(NoGround::Refused)?;
    }
    let secret = format!("{home}/{}", access.secret);
    match &repository.secret {
        Seen::Found(()) => {
            set(
                list,
                condition::BACKEND_SECRET_FOUND,
                true,
                reason::BACKEND_SECRET_AVAILABLE,
                format!("Backend Secret {secret} exists."),
                at,
            );
            Ok(access)
        }
        Seen::Missing => {
            let text = format!(
                "Backend Secret {secret} does not exist. Create it with the key RESTIC_PASSWORD and the credentials of the storage."
            );
            set(list, condition::BACKEND_SECRET_FOUND, false, reason::BACKEND_SECRET_NOT_AVAILABLE, &text, at);
            Err(NoGround::Waiting(text))
        }
        Seen::Unknown(why) => {
            let text = format!("Backend Secret {secret} could not be read: {why}");
            set(list, condition::BACKEND_SECRET_FOUND, Value::Unknown, reason::BACKEND_SECRET_UNKNOWN, &text, at);
            Err(NoGround::Waiting(text))
        }
    }
}

/// Tells an object that it may not use the Repository, and nothing else about the Repository.
fn deny(display: &str, namespace: &str, list: &mut Vec<Condition>, at: Timestamp) -> NoGround {
    let text = usage_policy::denial(display, namespace);
    set(list, condition::REPOSITORY_FOUND, false, reason::REPOSITORY_NOT_ALLOWED, &text, at);
    list.retain(|c| c.type_ != condition::BACKEND_SECRET_FOUND);
    NoGround::Denied(Failure::new(Class::Invalid, reason::REPOSITORY_NOT_ALLOWED, text))
}

/// Returns `found` if the default settings of new Jobs can be read. A Job without these settings may not be admitted,
/// or may run where it must not.
///
/// # Errors
/// The default settings cannot be read, or `found` is an error.
pub fn with_defaults<T>(found: Result<T, NoGround>, defaults: &Result<RuntimeSettings, String>) -> Result<T, NoGround> {
    let access = found?;
    defaults.as_ref().map_err(|text| NoGround::Waiting(text.clone()))?;
    Ok(access)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value as Json, json};

    fn seen(spec: Json) -> Seen<RepositorySeen> {
        Seen::Found(RepositorySeen {
            spec: serde_json::from_value(spec).unwrap(),
            first_backup: None,
            known: false,
            secret: Seen::Found(()),
            labels: Seen::Missing,
            unreachable: None,
            not_ready: None,
        })
    }

    fn checked(home: Option<&str>, spec: Json) -> (Result<Access, NoGround>, Vec<Condition>) {
        let reference = RepositoryRef { name: "r".into(), namespace: home.map(str::to_owned) };
        let mut list = vec![];
        let result = check(Some(&reference), "demo", &seen(spec), &mut list, Timestamp::UNIX_EPOCH);
        (result, list)
    }

    fn s3(policy: Json) -> Json {
        json!({ "backend": { "storageSecretName": "s", "s3": { "endpoint": "e", "bucket": "b" } }, "usagePolicy": policy })
    }

    #[test]
    fn a_namespace_that_is_not_allowed_learns_only_that() {
        let (result, list) = checked(Some("store"), s3(Json::Null));
        let text = usage_policy::denial("store/r", "demo");
        let text = text.as_str();
        assert_eq!(
            result,
            Err(NoGround::Denied(Failure::new(Class::Invalid, reason::REPOSITORY_NOT_ALLOWED, text.to_owned())))
        );
        assert_eq!(list.len(), 1);
        assert_eq!((list[0].status.as_str(), list[0].message.as_deref()), ("False", Some(text)));
    }

    #[test]
    fn a_repository_of_another_namespace_that_is_not_there_is_spoken_of_as_one_that_is() {
        let reference = RepositoryRef { name: "r".into(), namespace: Some("store".into()) };
        let mut list = vec![];
        let missing = check(Some(&reference), "demo", &Seen::Missing, &mut list, Timestamp::UNIX_EPOCH);
        assert_eq!((missing, list), checked(Some("store"), s3(Json::Null)));
    }

    #[test]
    fn an_allowed_one_reads_the_secret_and_its_own_mounts_it() {
        let all = json!({ "allowedNamespaces": { "from": "All" } });
        let place = checked(Some("store"), s3(all.clone())).0.unwrap().told.secret.unwrap();
        assert_eq!((place.namespace.as_str(), place.name.as_str()), ("store", "s"));
        for home in [None, Some("demo"), Some("")] {
            assert_eq!(checked(home, s3(all.clone())).0.unwrap().told.secret, None);
        }
    }

    #[test]
    fn an_empty_namespace_is_that_of_the_object() {
        let reference = RepositoryRef { name: "r".into(), namespace: Some(String::new()) };
        let waits = check(Some(&reference), "demo", &Seen::Missing, &mut vec![], Timestamp::UNIX_EPOCH);
        assert_eq!(waits, Err(NoGround::Waiting("Repository demo/r does not exist.".into())));
    }

    #[test]
    fn a_claim_of_another_namespace_is_refused_and_other_volumes_are_not() {
        let local = |source: Json| {
            let mut local = json!({ "mountPath": "/safe" });
            local.as_object_mut().unwrap().extend(source.as_object().unwrap().clone());
            json!({ "backend": { "storageSecretName": "s", "local": local }, "usagePolicy": { "allowedNamespaces": { "from": "All" } } })
        };
        let claim = checked(Some("store"), local(json!({ "persistentVolumeClaim": { "claimName": "c" } }))).0;
        let Err(NoGround::Refused(failure)) = claim else { panic!("{claim:?}") };
        assert!(
            ["store/r", "PersistentVolumeClaim c", "demo"].iter().all(|w| failure.message.contains(w)),
            "{failure:?}"
        );
        let path = local(json!({ "hostPath": { "path": "/x" } }));
        let nfs = local(json!({ "nfs": { "server": "h", "path": "/x" } }));
        assert!(checked(Some("store"), path).0.is_ok() && checked(Some("store"), nfs).0.is_ok());
    }
}
