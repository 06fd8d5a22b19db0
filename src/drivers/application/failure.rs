//! Failures of clients: what their messages mean.
//!
//! A message that is not known is shown as it is, with the reason of the step. The signs are texts of the servers and
//! clients, which do not depend on the language: clients run with `LC_ALL=C.UTF-8`.

use crate::contract::application::Addon;
use crate::contract::{Class, Failure};
use crate::drivers::application::process::Ended;
use crate::names::reason;

/// A text of a client, and what it means.
type Sign = (&'static str, Class, &'static str);

const POSTGRES: &[Sign] = &[
    ("password authentication failed", Class::Invalid, reason::LOGIN_FAILED),
    ("no pg_hba.conf entry", Class::Invalid, reason::LOGIN_FAILED),
    ("no password supplied", Class::Invalid, reason::LOGIN_FAILED),
    ("certificate verify failed", Class::Invalid, reason::LOGIN_FAILED),
    ("does not match host name", Class::Invalid, reason::LOGIN_FAILED),
    ("server does not support SSL", Class::Invalid, reason::LOGIN_FAILED),
    ("permission denied", Class::Invalid, reason::PRIVILEGE_MISSING),
    ("must be superuser", Class::Invalid, reason::PRIVILEGE_MISSING),
    ("must be owner of", Class::Invalid, reason::PRIVILEGE_MISSING),
    ("No space left on device", Class::Data, reason::SERVER_DISK_FULL),
    ("canceling statement due to lock timeout", Class::Transient, reason::LOCK_TIMEOUT),
    ("is being accessed by other users", Class::Invalid, reason::APPLICATION_IN_USE),
    ("server version mismatch", Class::Invalid, reason::SERVER_TOO_NEW),
    ("unsupported version", Class::Invalid, reason::DUMP_TOO_NEW),
    ("could not translate host name", Class::Transient, reason::APPLICATION_UNREACHABLE),
    ("Connection refused", Class::Transient, reason::APPLICATION_UNREACHABLE),
    ("server closed the connection", Class::Transient, reason::APPLICATION_UNREACHABLE),
    ("terminating connection due to administrator command", Class::Transient, reason::APPLICATION_UNREACHABLE),
    ("the database system is", Class::Transient, reason::APPLICATION_UNREACHABLE),
    ("connection to server", Class::Transient, reason::APPLICATION_UNREACHABLE),
    ("timeout expired", Class::Transient, reason::APPLICATION_UNREACHABLE),
];

const MYSQL: &[Sign] = &[
    ("ERROR 1045", Class::Invalid, reason::LOGIN_FAILED),
    ("error: 1045", Class::Invalid, reason::LOGIN_FAILED),
    ("ERROR 1698", Class::Invalid, reason::LOGIN_FAILED),
    ("is not allowed to connect", Class::Invalid, reason::LOGIN_FAILED),
    ("ERROR 2026", Class::Invalid, reason::LOGIN_FAILED),
    ("error: 2026", Class::Invalid, reason::LOGIN_FAILED),
    ("Access denied; you need", Class::Invalid, reason::PRIVILEGE_MISSING),
    ("ERROR 1044", Class::Invalid, reason::PRIVILEGE_MISSING),
    ("ERROR 1142", Class::Invalid, reason::PRIVILEGE_MISSING),
    ("error: 1044", Class::Invalid, reason::PRIVILEGE_MISSING),
    ("command denied to user", Class::Invalid, reason::PRIVILEGE_MISSING),
    ("insufficient privileges", Class::Invalid, reason::PRIVILEGE_MISSING),
    ("No space left on device", Class::Data, reason::SERVER_DISK_FULL),
    ("is full", Class::Data, reason::SERVER_DISK_FULL),
    ("Lock wait timeout exceeded", Class::Transient, reason::LOCK_TIMEOUT),
    ("Unknown MySQL server host", Class::Transient, reason::APPLICATION_UNREACHABLE),
    ("Unknown server host", Class::Transient, reason::APPLICATION_UNREACHABLE),
    ("Can't connect to", Class::Transient, reason::APPLICATION_UNREACHABLE),
    ("Lost connection", Class::Transient, reason::APPLICATION_UNREACHABLE),
    ("server has gone away", Class::Transient, reason::APPLICATION_UNREACHABLE),
    ("Server shutdown in progress", Class::Transient, reason::APPLICATION_UNREACHABLE),
];

const REDIS: &[Sign] = &[
    // Before the text that begins the same line.
    ("certificate verify failed", Class::Invalid, reason::LOGIN_FAILED),
    ("WRONGPASS", Class::Invalid, reason::LOGIN_FAILED),
    ("NOAUTH", Class::Invalid, reason::LOGIN_FAILED),
    ("AUTH failed", Class::Invalid, reason::LOGIN_FAILED),
    ("NOPERM", Class::Invalid, reason::PRIVILEGE_MISSING),
    ("unknown command", Class::Invalid, reason::PRIVILEGE_MISSING),
    ("No space left on device", Class::Data, reason::SERVER_DISK_FULL),
    ("Could not connect", Class::Transient, reason::APPLICATION_UNREACHABLE),
    ("Connection refused", Class::Transient, reason::APPLICATION_UNREACHABLE),
    ("Server closed the connection", Class::Transient, reason::APPLICATION_UNREACHABLE),
    ("LOADING", Class::Transient, reason::APPLICATION_UNREACHABLE),
    ("I/O error", Class::Transient, reason::APPLICATION_UNREACHABLE),
];

/// What a client did when it failed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Doing {
    /// It looked at the server.
    Asking,
    /// It dumped.
    Dumping,
    /// It loaded.
    Loading,
}

/// Why a client failed. `binding` is the name of the AppBinding.
pub fn failure(addon: Addon, binding: &str, doing: Doing, ended: &Ended) -> Failure {
    let signs = match addon {
        Addon::Postgres => POSTGRES,
        Addon::Mysql => MYSQL,
        Addon::Redis => REDIS,
    };
    let text = ended.text();
    if ended.code == Some(127) {
        return super::process::missing(&ended.program, &std::io::Error::other(text));
    }
    let found = signs.iter().find(|(sign, ..)| text.contains(sign));
    let (class, why) = match (found, doing) {
        (Some((_, class, why)), _) => (*class, *why),
        (None, Doing::Asking) => (Class::Fatal, reason::APPLICATION_FAILED),
        (None, Doing::Dumping) => (Class::Data, reason::DUMP_FAILED),
        (None, Doing::Loading) => (Class::Data, reason::LOAD_FAILED),
    };
    let how = match ended.code {
        Some(code) => format!("ended with exit code {code}"),
        None => "did not end by itself".to_owned(),
    };
    let said = if text.is_empty() { ".".to_owned() } else { format!(": {}", text.trim_end_matches('.')) + "." };
    let text = format!("{} for AppBinding {binding} {how}{said}{}", ended.program, remedy(why));
    Failure { exit_code: ended.code, ..Failure::new(class, why, text) }
}

fn remedy(why: &str) -> &'static str {
    match why {
        reason::LOGIN_FAILED => " Check the Secret, secretTransforms and TLS settings of the AppBinding.",
        reason::PRIVILEGE_MISSING => " Give the user of the AppBinding the rights that a backup or restore needs.",
        reason::SERVER_DISK_FULL => " Enlarge the volume of the server, and restore again.",
        reason::LOCK_TIMEOUT => " Another client holds a lock; it is retried until the deadline.",
        reason::SERVER_TOO_NEW => " Use an add-on image with clients of the version of the server.",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_clients_have_their_own_reasons() {
        let of = |addon, doing, text: &str| {
            let ended = Ended { program: "client".into(), code: Some(1), messages: vec![text.into()] };
            let failure = failure(addon, "db", doing, &ended);
            assert!(failure.message.contains("AppBinding db") && failure.message.contains(text.trim_end_matches('.')));
            (failure.class, failure.reason)
        };
        for (addon, text, class, why) in [
            (Addon::Postgres, "FATAL:  password authentication failed for user \"u\"", Class::Invalid, "LoginFailed"),
            (
                Addon::Postgres,
                "connection to server at \"h\", port 1 failed: Connection refused",
                Class::Transient,
                "ApplicationUnreachable",
            ),
            (Addon::Postgres, "ERROR:  permission denied for table pg_authid", Class::Invalid, "PrivilegeMissing"),
            (Addon::Postgres, "ERROR: could not extend file: No space left on device", Class::Data, "ServerDiskFull"),
            (Addon::Mysql, "ERROR 1045 (28000): Access denied for user 'u'@'h'", Class::Invalid, "LoginFailed"),
            (
                Addon::Mysql,
                "mariadb-dump: Got error: 2013: \"Lost connection to server\"",
                Class::Transient,
                "ApplicationUnreachable",
            ),
            (Addon::Mysql, "ERROR 1114 (HY000): The table 't' is full", Class::Data, "ServerDiskFull"),
            (Addon::Redis, "WRONGPASS invalid username-password pair", Class::Invalid, "LoginFailed"),
            (
                Addon::Redis,
                "Could not connect to Valkey at h:1: SSL_connect failed: certificate verify failed",
                Class::Invalid,
                "LoginFailed",
            ),
        ] {
            assert_eq!(of(addon, Doing::Dumping, text), (class, why.to_owned()), "{text}");
        }
        let unknown = "ERROR: something new.";
        assert_eq!(of(Addon::Postgres, Doing::Dumping, unknown), (Class::Data, "DumpFailed".to_owned()));
        assert_eq!(of(Addon::Postgres, Doing::Loading, unknown), (Class::Data, "LoadFailed".to_owned()));
    }
}
