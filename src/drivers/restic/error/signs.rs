//! Texts of restic, and of storage, that identify an error. The first match applies.

use crate::contract::Class;
use crate::names::reason;

/// A text of restic that identifies an error: any of the words, the meaning, and the remedy.
pub struct Sign {
    pub words: &'static [&'static str],
    pub class: Class,
    pub reason: &'static str,
    pub remedy: &'static str,
}

const DAMAGED: &str =
    "Data in the repository is damaged or missing: choose another snapshot, and run restic check --read-data.";

/// Placeholders for the texts of `Place` about the bucket, or the location in it.
pub const NO_BUCKET: &str = "no bucket";
pub const BAD_BUCKET: &str = "bad bucket";
pub const NO_REPOSITORY: &str = "no repository";
/// The storage, or restic itself, rejects the name of the bucket.
const BAD_NAMES: &[&str] =
    &["invalidbucketname", "bucket is not valid", "bucket name cannot", "bucket name contains", "bucket name does not"];

const SIGNS: &[Sign] = &[
    Sign {
        words: &["no space left on device", "disk quota exceeded"],
        class: Class::Data,
        reason: reason::NO_SPACE,
        remedy: "Enlarge the volume, or restore fewer files.",
    },
    Sign {
        words: &["x509:", "certificate signed by unknown authority", "failed to verify certificate"],
        class: Class::Invalid,
        reason: reason::TLS_NOT_TRUSTED,
        remedy: "Add the CA certificate of the storage to the backend Secret, as key CA_CERT_DATA.",
    },
    Sign {
        words: &["server gave http response to https client"],
        class: Class::Invalid,
        reason: reason::REPOSITORY_UNREACHABLE,
        remedy: "The endpoint uses HTTP: begin the URL with http://.",
    },
    Sign { words: BAD_NAMES, class: Class::Invalid, reason: reason::BUCKET_MISSING, remedy: BAD_BUCKET },
    Sign {
        words: &["nosuchbucket", "bucket does not exist"],
        class: Class::Invalid,
        reason: reason::BUCKET_MISSING,
        remedy: NO_BUCKET,
    },
    Sign {
        words: &["no credentials found"],
        class: Class::Invalid,
        reason: reason::ACCESS_DENIED,
        remedy: "The backend Secret has no access keys and the Job has no cloud role: add AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY to the Secret, or set a ServiceAccount with a role in runtimeSettings.pod.serviceAccountName.",
    },
    Sign {
        words: &[
            "invalidaccesskeyid",
            "signaturedoesnotmatch",
            "accessdenied",
            "access denied",
            "403 forbidden",
            "401 unauthorized",
            "(401)",
            "(403)",
            "invalidtokenid",
            "expiredtoken",
            "the access key id you provided does not exist",
        ],
        class: Class::Invalid,
        reason: reason::ACCESS_DENIED,
        remedy: "Check the credentials in the backend Secret and their permissions for the bucket.",
    },
    Sign {
        words: &[
            "ciphertext verification failed",
            "does not match",
            "invalid data returned",
            "id not found in repository",
            "not found in index",
            "unknown blob",
            "unable to fetch blob",
            "repository contains errors",
            "repository index is damaged",
            "decrypting blob",
            "pack header",
        ],
        class: Class::Data,
        reason: reason::DATA_CORRUPT,
        remedy: DAMAGED,
    },
    Sign {
        words: &[
            "connection refused",
            "connection reset",
            "no such host",
            "no route to host",
            "network is unreachable",
            "host is down",
            "i/o timeout",
            "timeout",
            "timed out",
            "deadline exceeded",
            "server misbehaving",
            "temporary failure in name resolution",
            // The response to a HEAD request, which has no body with details.
            "400 bad request",
            "500 internal server error",
            "502 bad gateway",
            "503 service unavailable",
            "504 gateway",
            "slowdown",
            "internalerror",
            "serviceunavailable",
            "broken pipe",
            "server closed idle connection",
            ": eof",
            "unexpected eof",
        ],
        class: Class::Transient,
        reason: reason::REPOSITORY_UNREACHABLE,
        remedy: "The storage does not answer as expected; it is retried until the deadline.",
    },
    // These texts name data that could not be loaded: damage, unless one of the texts above gives another cause.
    Sign {
        words: &[
            "failed to load pack",
            "load(<data/",
            "readfull(<data/",
            "loadblob(",
            "loadtree(",
            "blob not found",
            "not found in repository",
        ],
        class: Class::Data,
        reason: reason::DATA_CORRUPT,
        remedy: DAMAGED,
    },
    // The snapshot is missing, unless one of the texts above gives another cause.
    Sign {
        words: &["failed to find snapshot"],
        class: Class::Data,
        reason: reason::SNAPSHOT_NOT_FOUND,
        remedy: "The snapshot no longer exists in the repository, or the location of the Repository was changed.",
    },
    Sign {
        words: &["permission denied", "operation not permitted", "read-only file system"],
        class: Class::Invalid,
        reason: reason::PERMISSION_DENIED,
        remedy: "Set a user with this permission in runtimeSettings.container.securityContext.",
    },
];

/// The first match in any of these texts. A repository that is not `remote` is never unreachable.
pub fn find(texts: &[String], remote: bool) -> Option<&'static Sign> {
    let texts: Vec<String> = texts.iter().map(|t| t.to_lowercase()).collect();
    let fits = |s: &&Sign| remote || s.reason != reason::REPOSITORY_UNREACHABLE;
    SIGNS.iter().filter(fits).find(|s| s.words.iter().any(|w| texts.iter().any(|t| t.contains(w))))
}
