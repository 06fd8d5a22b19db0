//! The ground every run stands on: its Repository and the backend Secret.

use k8s_openapi::jiff::Timestamp;

use super::access::{self, Access};
use super::conditions::{Value, set};
use super::contract::{Class, Failure};
use super::observed::{RepositorySeen, Seen};
use crate::api::Condition;
use crate::api::common::RepositoryRef;
use crate::names::{condition, reason};

/// Why a run has no ground.
#[derive(Clone, Debug, PartialEq)]
pub enum NoGround {
    /// Something is missing that may appear.
    Waiting(String),
    /// It can never work as it is written.
    Refused(Failure),
}

/// How messages name the Repository of a reference: namespace and name.
pub fn display(reference: Option<&RepositoryRef>, namespace: &str) -> String {
    let home = reference.and_then(|r| r.namespace.as_deref()).unwrap_or(namespace);
    format!("{home}/{}", reference.map(|r| r.name.as_str()).unwrap_or_default())
}

/// Checks Repository and Secret, says so in the conditions, and works out how Jobs reach the repository.
///
/// # Errors
/// What is missing, or wrong.
pub fn check(
    reference: Option<&RepositoryRef>,
    namespace: &str,
    seen: &Seen<RepositorySeen>,
    list: &mut Vec<Condition>,
    at: Timestamp,
) -> Result<Access, NoGround> {
    let display = display(reference, namespace);
    let home = reference.and_then(|r| r.namespace.as_deref()).unwrap_or(namespace);
    if home != namespace {
        let text = format!(
            "spec.repository.namespace: Repository {display} is in another namespace, which is not supported yet. Create a Repository and its Secret in namespace {namespace}."
        );
        set(list, condition::REPOSITORY_FOUND, false, reason::REPOSITORY_NOT_AVAILABLE, &text, at);
        return Err(NoGround::Refused(Failure::new(Class::Invalid, reason::NOT_SUPPORTED, text)));
    }
    let repository = match seen {
        Seen::Found(r) => r,
        Seen::Missing => {
            let text = format!("Repository {display} does not exist.");
            set(list, condition::REPOSITORY_FOUND, false, reason::REPOSITORY_NOT_AVAILABLE, &text, at);
            return Err(NoGround::Waiting(text));
        }
        Seen::Unknown(why) => {
            let text = format!("Repository {display} could not be looked up: {why}");
            set(list, condition::REPOSITORY_FOUND, Value::Unknown, reason::REPOSITORY_UNKNOWN, &text, at);
            return Err(NoGround::Waiting(text));
        }
    };
    set(
        list,
        condition::REPOSITORY_FOUND,
        true,
        reason::REPOSITORY_AVAILABLE,
        format!("Repository {display} exist."),
        at,
    );
    let access = access::of(&repository.spec, &display).map_err(NoGround::Refused)?;
    let secret = format!("{home}/{}", access.secret);
    match &repository.secret {
        Seen::Found(()) => {
            set(
                list,
                condition::BACKEND_SECRET_FOUND,
                true,
                reason::BACKEND_SECRET_AVAILABLE,
                format!("Backend Secret {secret} exist."),
                at,
            );
            Ok(access)
        }
        Seen::Missing => {
            let text = format!(
                "Backend Secret {secret} does not exist. Create it with the key RESTIC_PASSWORD and the store's credentials."
            );
            set(list, condition::BACKEND_SECRET_FOUND, false, reason::BACKEND_SECRET_NOT_AVAILABLE, &text, at);
            Err(NoGround::Waiting(text))
        }
        Seen::Unknown(why) => {
            let text = format!("Backend Secret {secret} could not be looked up: {why}");
            set(list, condition::BACKEND_SECRET_FOUND, Value::Unknown, reason::BACKEND_SECRET_UNKNOWN, &text, at);
            Err(NoGround::Waiting(text))
        }
    }
}
