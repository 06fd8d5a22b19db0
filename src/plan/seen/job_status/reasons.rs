//! The reasons that an agent may give for a failure.
//!
//! A termination message is written by any program that ran in the container. Its reason becomes a label of metrics and
//! a word that scripts read. A reason that no agent gives is replaced, so that the set is closed; the text beside it is
//! kept.

use crate::contract::{Answer, Failure, Outcome};
use crate::names::reason as r;
use crate::text::cut;

/// All reasons that drivers and agent give.
const OF_AGENTS: [&str; 46] = [
    r::ACCESS_DENIED,
    r::AGENT_FAILED,
    r::APPLICATION_FAILED,
    r::APPLICATION_IN_USE,
    r::APPLICATION_UNREACHABLE,
    r::BUCKET_MISSING,
    r::CLIENT_MISSING,
    r::DATA_CORRUPT,
    r::DEVICES,
    r::DUMP_FAILED,
    r::DUMP_INCOMPLETE,
    r::DUMP_TOO_NEW,
    r::EXTRANEOUS_NOT_DELETED,
    r::INCOMPLETE,
    r::INVALID,
    r::LOAD_FAILED,
    r::LOCK_TIMEOUT,
    r::LOGIN_FAILED,
    r::NOTHING_TO_BACK_UP,
    r::NOTHING_TO_RESTORE,
    r::NOT_SUPPORTED,
    r::NO_SPACE,
    r::OOM_KILLED,
    r::OUTCOME_TOO_LARGE,
    r::OWNERSHIP,
    r::PATH_IS_LINK,
    r::PATH_IS_NO_FILE,
    r::PATH_NOT_FOUND,
    r::PATH_OUTSIDE_MOUNTS,
    r::PERMISSION_DENIED,
    r::PRIVILEGE_MISSING,
    r::REPOSITORY_LOCKED,
    r::REPOSITORY_MISSING,
    r::REPOSITORY_UNREACHABLE,
    r::RESTIC_FAILED,
    r::SECRET_INCOMPLETE,
    r::SERVER_DISK_FULL,
    r::SERVER_TOO_NEW,
    r::SNAPSHOT_NOT_FOUND,
    r::SNAPSHOT_OF_ANOTHER_HOST,
    r::STEP_TIMEOUT,
    r::TERMINATED,
    r::TLS_NOT_TRUSTED,
    r::WOULD_NOT_BE_KEPT,
    r::WRONG_DUMP,
    r::WRONG_PASSWORD,
];

/// Maximum size of a warning, in bytes.
const WARNING_BYTES: usize = 512;

/// The outcome, with only the reasons that agents give.
pub fn known(mut outcome: Outcome) -> Outcome {
    outcome.failure.iter_mut().for_each(close);
    bound(&mut outcome.warnings);
    if let Some(Answer::Found(parts)) = &mut outcome.answer {
        for part in parts {
            part.failure.iter_mut().for_each(close);
            bound(&mut part.warnings);
        }
    }
    outcome
}

/// Bounds the warnings: status contains them, and has no room for text of any size.
fn bound(warnings: &mut Vec<String>) {
    warnings.truncate(WARNINGS);
    warnings.iter_mut().for_each(|w| cut(w, WARNING_BYTES));
}

fn close(failure: &mut Failure) {
    if !OF_AGENTS.contains(&failure.reason.as_str()) {
        r::AGENT_FAILED.clone_into(&mut failure.reason);
    }
}

/// Maximum number of warnings of a host.
pub const WARNINGS: usize = 8;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;
    use crate::contract::{Class, Found};

    #[test]
    fn a_reason_that_no_agent_gives_is_replaced() {
        let forged = || Failure::new(Class::Transient, "Label0815", "text");
        let answer = Found { failure: Some(forged()), ..Found::default() };
        let outcome =
            known(Outcome { failure: Some(forged()), answer: Some(Answer::Found(vec![answer])), ..Outcome::default() });
        let failure = outcome.failure.unwrap();
        assert_eq!((failure.reason.as_str(), failure.message.as_str()), (r::AGENT_FAILED, "text"));
        let Some(Answer::Found(hosts)) = outcome.answer else { panic!() };
        assert_eq!(hosts[0].failure.as_ref().unwrap().reason, r::AGENT_FAILED);
        let real = Outcome { failure: Some(Failure::new(Class::Data, r::NO_SPACE, "")), ..Outcome::default() };
        assert_eq!(known(real.clone()), real);
    }

    /// Names of the constants of `names::reason` that the files below a folder use.
    fn used(folder: &Path, found: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                used(&path, found);
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            let names = text
                .split("reason::")
                .skip(1)
                .map(|rest| rest.chars().take_while(|c| c.is_ascii_uppercase() || *c == '_').collect::<String>());
            found.extend(names.filter(|n| !n.is_empty()));
        }
    }

    #[test]
    fn every_reason_of_drivers_and_agent_is_known() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut names = BTreeSet::new();
        ["drivers", "agent", "contract"].iter().for_each(|f| used(&root.join(f), &mut names));
        assert!(names.len() > 20, "{names:?}");
        let source = include_str!("../../../names/reason.rs");
        for name in names {
            let line = source.lines().find(|l| l.contains(&format!("pub const {name}: &str"))).unwrap();
            let value = line.split('"').nth(1).unwrap();
            assert!(OF_AGENTS.contains(&value), "{name} is missing from OF_AGENTS");
        }
    }
}
