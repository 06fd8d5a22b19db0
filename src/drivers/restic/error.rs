//! Converts the end of a command to a failure with a reason and a remedy.
//!
//! The order of the checks matters: the last message of restic and the errors of items are checked before the other
//! text, because the text also contains failures that a retry has solved. An unknown exit code is a failure (restic's
//! manual, "Exit codes").

mod names;
mod signs;

use crate::contract::{Class, Failure};
use crate::drivers::restic::error::names::{pathless, without};
use crate::drivers::restic::error::signs::{BAD_BUCKET, NO_BUCKET, NO_REPOSITORY, Sign, find};
use crate::drivers::restic::output::Report;
use crate::drivers::restic::place::Place;
use crate::drivers::restic::run::{End, Ran};
use crate::names::reason;

/// Rust's error for an argument with a NUL character.
const NUL: &str = "nul byte";

/// Whether a command ended without any effect: it was not started, rejected its arguments, or did not open the
/// repository (restic's manual, "Exit codes").
pub fn never_began(ran: &Ran) -> bool {
    let Report { errors, summary, fatal, .. } = &ran.report;
    let fatal = fatal.as_deref().unwrap_or_default();
    let is_refusal = fatal.contains("invalid pattern(s) provided")
        || fatal.contains("are mutually exclusive")
        || fatal.starts_with("unknown flag: ")
        || (fatal.starts_with("invalid argument \"") && fatal.contains("\" flag: "));
    match ran.end {
        End::NotStarted(_) => true,
        End::Exited(10..=12) => *errors == 0 && summary.is_none(),
        End::Exited(1) => *errors == 0 && summary.is_none() && is_refusal,
        _ => false,
    }
}

/// The failure of a command. `doing` is for example "restore snapshot 1a2b". `remote` is true if the repository is
/// reached over a network: otherwise a truncated file is damage and not a lost connection.
pub fn failure(ran: &Ran, doing: &str, remote: bool, place: &Place) -> Failure {
    let sign = sign(&ran.report, remote);
    let said = if ran.end == End::Hopeless { tried(&ran.report) } else { None };
    let said = said.unwrap_or_else(|| said_last(&ran.report));
    let detail = if said.is_empty() { String::new() } else { format!(" restic said: {said}") };
    let new = |class: Class, reason: &str, text: &str| {
        let text = match text {
            NO_BUCKET => place.no_bucket(),
            BAD_BUCKET => place.bad_bucket(),
            NO_REPOSITORY => place.no_repository(),
            other => other.to_owned(),
        };
        Failure::new(class, reason, format!("Could not {doing}: {text}{detail}"))
    };
    let mut failure = match &ran.end {
        End::Stopped => Failure::new(
            Class::Transient,
            reason::TERMINATED,
            format!("The agent was stopped during: {doing}. It is retried until the deadline."),
        ),
        End::NotStarted(error) if error.contains(NUL) => Failure::new(
            Class::Invalid,
            reason::INVALID,
            format!(
                "Could not {doing}: restic cannot be given an argument with a NUL character. Remove it from paths, include, exclude and args."
            ),
        ),
        End::NotStarted(error) => Failure::new(
            Class::Fatal,
            reason::AGENT_FAILED,
            format!("restic could not be started ({error}). The image of the Job must contain it."),
        ),
        End::TooLong => new(Class::Fatal, reason::RESTIC_FAILED, "its output is too large."),
        End::Hopeless => exited(1, sign, &new),
        End::TimedOut(limit) | End::Stuck(limit) => match sign {
            // Retries that continued until the end contain the cause.
            Some(s) if s.class != Class::Data => new(s.class, s.reason, s.remedy),
            _ if matches!(ran.end, End::Stuck(_)) => new(
                Class::Transient,
                reason::STEP_TIMEOUT,
                &format!("there was no progress for {} s.", limit.as_secs()),
            ),
            _ => new(Class::Transient, reason::STEP_TIMEOUT, &format!("no answer within {} s.", limit.as_secs())),
        },
        // In a container, a SIGKILL by another process almost always means out of memory; if the agent itself was
        // killed, the kubelet reports the cause.
        End::Killed(9) => new(
            Class::Transient,
            reason::OOM_KILLED,
            "restic was killed, most likely because it ran out of memory. Raise runtimeSettings.container.resources.limits.memory.",
        ),
        End::Killed(signal) => {
            new(Class::Transient, reason::TERMINATED, &format!("restic was ended by signal {signal}."))
        }
        End::Exited(code) => exited(*code, sign, &new),
    };
    if let End::Exited(code) = ran.end {
        failure.exit_code = Some(code);
    }
    failure
}

/// The failure of a missing bucket, which was first classified otherwise.
pub fn no_bucket(failure: Failure, text: &str) -> Failure {
    let message = format!("Could not open the repository: {text}");
    Failure { class: Class::Invalid, reason: reason::BUCKET_MISSING.to_owned(), message, ..failure }
}

/// Whether restic reports that the name of the bucket is not valid.
pub fn is_bad_name(report: &Report) -> bool {
    sign(report, true).is_some_and(|s| s.remedy == BAD_BUCKET)
}

fn exited(code: i32, sign: Option<&Sign>, new: &dyn Fn(Class, &str, &str) -> Failure) -> Failure {
    match code {
        10 => match sign {
            // A rejected request or a missing bucket is not a missing repository.
            Some(s) if s.reason != reason::DATA_CORRUPT && s.reason != reason::NO_SPACE => {
                new(s.class, s.reason, s.remedy)
            }
            _ => new(Class::Invalid, reason::REPOSITORY_MISSING, NO_REPOSITORY),
        },
        11 => new(
            Class::Transient,
            reason::REPOSITORY_LOCKED,
            "the repository is locked by another command. It is retried until the deadline. Lifeboat removes the lock after half an hour if the command no longer runs; if no restic process uses the repository, restic unlock --remove-all is faster.",
        ),
        12 => new(
            Class::Invalid,
            reason::WRONG_PASSWORD,
            "the password does not open the repository. Check key RESTIC_PASSWORD of the backend Secret.",
        ),
        130 => new(Class::Transient, reason::TERMINATED, "restic was interrupted."),
        _ => match sign {
            Some(s) => new(s.class, s.reason, s.remedy),
            None => new(Class::Fatal, reason::RESTIC_FAILED, &format!("restic ended with exit code {code}.")),
        },
    }
}

/// The first match in restic's last message, then in the errors of items, then in its text.
fn sign(report: &Report, remote: bool) -> Option<&'static Sign> {
    let fatal: Vec<String> = report.fatal.iter().map(|text| pathless(text)).collect();
    let items: Vec<String> = report.items.iter().map(|(item, text)| pathless(&without(text, item))).collect();
    let tail: Vec<String> = report.tail().map(pathless).collect();
    [fatal, items, tail].iter().find_map(|texts| find(texts, remote))
}

/// The operation that restic retried when it was stopped: its message about the stop is not the cause.
fn tried(report: &Report) -> Option<String> {
    let lines: Vec<&str> = report.tail().filter(|line| line.contains("retrying")).collect();
    lines.last().map(|line| (*line).to_owned())
}

/// The most relevant messages of restic: its first errors and its last fatal error.
fn said_last(report: &Report) -> String {
    let mut parts: Vec<String> = report
        .items
        .iter()
        .take(3)
        .map(|(item, text)| if item.is_empty() { text.clone() } else { format!("{item}: {text}") })
        .collect();
    match &report.fatal {
        Some(fatal) => parts.push(fatal.clone()),
        None if parts.is_empty() => {
            let tail: Vec<_> = report.tail().collect();
            parts.extend(tail.iter().rev().take(3).rev().map(|l| (*l).to_owned()));
        }
        None => {}
    }
    parts.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::restic::RepositoryAccess;
    use crate::drivers::restic::output::parse;

    fn ended(end: End, lines: &[&str]) -> Failure {
        let mut report = Report::default();
        for line in lines {
            report.note(&parse(line.as_bytes()));
        }
        let place = Place::of(&RepositoryAccess { url: "s3:http://minio:9000/shop/a".into(), ..Default::default() });
        failure(&Ran { end, report, document: vec![] }, "open the repository", true, &place)
    }

    #[test]
    fn exit_codes_and_texts_have_a_class_and_a_reason() {
        let cases: &[(i32, &str, Class, &str)] = &[
            (10, "", Class::Invalid, reason::REPOSITORY_MISSING),
            (10, "unable to open config file: Stat: 403 Forbidden", Class::Invalid, reason::ACCESS_DENIED),
            (10, "The specified bucket does not exist", Class::Invalid, reason::BUCKET_MISSING),
            (1, "client.BucketExists: Bucket name contains invalid characters", Class::Invalid, reason::BUCKET_MISSING),
            (1, "Stat: 400 Bad Request", Class::Transient, reason::REPOSITORY_UNREACHABLE),
            (11, "unable to create lock", Class::Transient, reason::REPOSITORY_LOCKED),
            (12, "", Class::Invalid, reason::WRONG_PASSWORD),
            (1, "write /x: no space left on device", Class::Data, reason::NO_SPACE),
            (1, "ciphertext verification failed", Class::Data, reason::DATA_CORRUPT),
            (1, "dial tcp 1.2.3.4:9000: connect: connection refused", Class::Transient, reason::REPOSITORY_UNREACHABLE),
            (1, "Load(<data/12>, 0, 0): connection refused", Class::Transient, reason::REPOSITORY_UNREACHABLE),
            (1, "Load(<data/12>, 0, 0): no such file", Class::Data, reason::DATA_CORRUPT),
            (1, "ReadFull(<data/12>): The specified key does not exist.", Class::Data, reason::DATA_CORRUPT),
            (1, "ReadFull(<data/12>): connection refused", Class::Transient, reason::REPOSITORY_UNREACHABLE),
            (1, "x509: certificate signed by unknown authority", Class::Invalid, reason::TLS_NOT_TRUSTED),
            (1, "open /x: permission denied", Class::Invalid, reason::PERMISSION_DENIED),
            (1, "", Class::Fatal, reason::RESTIC_FAILED),
            (77, "", Class::Fatal, reason::RESTIC_FAILED),
        ];
        for (code, text, class, reason) in cases {
            let failure = ended(End::Exited(*code), &[text]);
            assert_eq!((failure.class, failure.reason.as_str()), (*class, *reason), "{code} {text}");
            assert_eq!(failure.exit_code, Some(*code));
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        for (end, text, said) in [
            (End::Exited(10), "", "under prefix a of bucket shop at minio:9000"),
            (End::Exited(10), "NoSuchBucket", "bucket shop at minio:9000 does not exist"),
            (
                End::Exited(1),
                "Bucket name cannot be shorter than 3 characters",
                "bucket shop at minio:9000 cannot be used",
            ),
        ] {
            let message = ended(end, &[text]).message;
            assert!(message.contains(said), "{message}");
        }
    }

    /// When restic is told to end, it reports this as the cause.
    #[test]
    fn what_was_tried_to_no_avail_is_said() {
        let cause = "Stat(<config/>) returned error, retrying after 1s: client.GetObject: Bucket name contains invalid characters";
        let end =
            r#"{"message_type":"exit_error","code":1,"message":"Fatal: unable to open config file: context canceled"}"#;
        let failure = ended(End::Hopeless, &[cause, end]);
        assert_eq!((failure.class, failure.reason.as_str()), (Class::Invalid, reason::BUCKET_MISSING));
        assert!(failure.message.contains("invalid characters") && !failure.message.contains("canceled"), "{failure:?}");
    }

    /// The first case was tried with restic 0.18.0. An error of a file is an error of an item, whatever its name.
    #[test]
    fn names_of_files_are_no_signs() {
        let long = format!("/timeout/{}", "x".repeat(500));
        for (item, text, reason) in [
            ("/d/timeout.js", "remove /restore/data/d/timeout.js: directory not empty", reason::RESTIC_FAILED),
            ("/d", "remove /restore/data/d/timeout.js: directory not empty", reason::RESTIC_FAILED),
            ("/accessdenied", "rename /restore/x /restore/accessdenied: file exists", reason::RESTIC_FAILED),
            ("/it does not match", "open /restore/it does not match: input/output error", reason::RESTIC_FAILED),
            ("/x509: a", "mkdir /restore/x509: a: permission denied", reason::PERMISSION_DENIED),
            ("/slowdown", "write /restore/slowdown: no space left on device", reason::NO_SPACE),
            ("/a timeout b", "failed to restore timestamp of \"/a timeout b\"", reason::RESTIC_FAILED),
            ("/timeout", "ciphertext verification failed", reason::DATA_CORRUPT),
            ("/timeout", "Load(<data/12>, 0, 0): open /repo/data/12: no such file", reason::DATA_CORRUPT),
            ("/12", "Load(<data/12>, 0, 0): connection refused", reason::REPOSITORY_UNREACHABLE),
            ("/f", "read tcp 10.0.0.1:4->10.0.0.2:9000: i/o timeout", reason::REPOSITORY_UNREACHABLE),
            (&long, &format!("open {long}: is a directory"), reason::RESTIC_FAILED),
        ] {
            let error = serde_json::json!({ "message_type": "error", "error": { "message": text }, "item": item });
            let fatal = r#"{"message_type":"exit_error","code":1,"message":"Fatal: There were 1 errors"}"#;
            let failure = ended(End::Exited(1), &[&error.to_string(), fatal]);
            assert_eq!(failure.reason, reason, "{text}: {failure:?}");
        }
        let fatal =
            r#"{"message_type":"exit_error","code":1,"message":"Fatal: open /restore/timeout: is a directory"}"#;
        assert_eq!(ended(End::Exited(1), &[fatal]).reason, reason::RESTIC_FAILED);
        assert_eq!(ended(End::Exited(1), &["lstat /srv/x509: y: no such device"]).reason, reason::RESTIC_FAILED);
        for (text, why) in [
            ("failed to load snapshot 8a6a4ff5: The specified key does not exist.", reason::SNAPSHOT_NOT_FOUND),
            ("no matching ID found for prefix \\\"8a6a4ff5\\\"", reason::SNAPSHOT_NOT_FOUND),
            ("failed to load snapshot 8a6a4ff5: dial tcp: connection refused", reason::REPOSITORY_UNREACHABLE),
        ] {
            let text = format!(
                r#"{{"message_type":"exit_error","code":1,"message":"Fatal: failed to find snapshot: {text}"}}"#
            );
            assert_eq!(ended(End::Exited(1), &[&text]).reason, why, "{text}");
        }
    }

    #[test]
    fn a_healed_retry_does_not_hide_the_cause() {
        let failure = ended(
            End::Exited(1),
            &[
                "Load(<data/12>) returned error, retrying after 1s: connection refused",
                r#"{"message_type":"error","error":{"message":"write: no space left on device"},"item":"/a"}"#,
                r#"{"message_type":"exit_error","code":1,"message":"Fatal: There were 1 errors"}"#,
            ],
        );
        assert_eq!(failure.reason, reason::NO_SPACE);
        assert!(failure.message.contains("/a"));
    }

    /// The first texts are those of restic 0.18.0. After any other text, it is not known what restic has done.
    #[test]
    fn what_refuses_its_arguments_has_done_nothing() {
        let began = |end: End, lines: &[&str]| {
            let mut report = Report::default();
            lines.iter().for_each(|line| report.note(&parse(line.as_bytes())));
            !never_began(&Ran { end, report, document: vec![] })
        };
        let fatal =
            |text: &str| serde_json::json!({ "message_type": "exit_error", "code": 1, "message": text }).to_string();
        for text in [
            "Fatal: --include: invalid pattern(s) provided:\n[a",
            "Fatal: --include-xattr: invalid pattern(s) provided:\n[a",
            "Fatal: exclude and include xattr patterns are mutually exclusive",
            "invalid argument \"maybe\" for \"--overwrite\" flag: invalid overwrite behavior \"maybe\"",
            "unknown flag: --nosuch",
        ] {
            assert!(!began(End::Exited(1), &[&fatal(text)]), "{text}");
            assert!(began(End::Killed(9), &[&fatal(text)]) && began(End::Stopped, &[&fatal(text)]), "{text}");
            let error = r#"{"message_type":"error","error":{"message":"write"},"item":"/a"}"#;
            assert!(began(End::Exited(1), &[error, &fatal(text)]), "{text}");
        }
        for text in ["", "Fatal: There were 2 errors", "Fatal: write /a: invalid argument", "invalid argument"] {
            assert!(began(End::Exited(1), &[&fatal(text)]), "{text}");
        }
        assert!(!began(End::Exited(12), &[]) && !began(End::NotStarted("it is gone".into()), &[]));
        assert!(began(End::Exited(0), &[]) && began(End::Exited(3), &[]));
    }

    #[test]
    fn a_nul_is_no_fault_of_the_image() {
        let failure = ended(End::NotStarted("nul byte found in provided data".into()), &[]);
        assert_eq!((failure.class, failure.reason.as_str()), (Class::Invalid, reason::INVALID));
        assert!(failure.message.contains("NUL character"), "{}", failure.message);
        assert!(ended(End::NotStarted("No such file".into()), &[]).message.contains("The image of the Job"));
    }

    /// Proves: defect 22.
    #[test]
    fn what_is_said_last_is_not_cut_however_much_was_said_before() {
        let noise = "x".repeat(10_000);
        let mut lines = vec![noise.as_str(); 50];
        let fatal =
            r#"{"message_type":"exit_error","code":1,"message":"Fatal: the vault at the end of the passage is shut"}"#;
        lines.push(fatal);
        let failure = ended(End::Exited(1), &lines);
        assert!(failure.message.contains("the vault at the end of the passage is shut"), "{}", failure.message);
    }

    #[test]
    fn a_timeout_says_what_it_waited_for() {
        let limit = std::time::Duration::from_mins(2);
        assert_eq!(
            ended(End::TimedOut(limit), &["retrying: connection refused"]).reason,
            reason::REPOSITORY_UNREACHABLE
        );
        assert_eq!(ended(End::TimedOut(limit), &[]).reason, reason::STEP_TIMEOUT);
    }
}
