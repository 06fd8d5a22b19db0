//! Numbers and places that operator and agent agree on.

/// Version of the two documents.
pub const VERSION: u32 = 3;
/// Oldest version that is read: the previous one. Jobs that an operator created before it was upgraded answer in it.
pub const OLDEST_VERSION: u32 = 2;
/// Environment variable that carries the [`Task`](super::Task).
pub const TASK_ENV: &str = "LIFEBOAT_TASK";
/// Bytes that [`TASK_ENV`] can hold: the kernel accepts no longer string (32 pages of 4 KiB, execve(2)), and the string
/// includes the name.
pub const TASK_LIMIT: usize = (128 << 10) - 256;
/// Writable scratch space of the agent: cache, derived credentials files.
pub const WORK_DIR: &str = "/lifeboat/work";
/// Where the kubelet reads the termination message.
pub const OUTCOME_FILE: &str = "/dev/termination-log";
/// Bytes of a termination message the kubelet keeps
/// (Kubernetes, "Customizing the termination message").
pub const OUTCOME_LIMIT: usize = 4096;
/// Bytes of an outcome that are reserved for what is around its answer.
pub const OUTCOME_SLACK: usize = 400;
/// Port on which a running agent answers `GET /progress`.
pub const PROGRESS_PORT: u16 = 9180;

/// Whether documents of this version are understood.
pub(super) fn is_read(version: u32) -> bool {
    (OLDEST_VERSION..=VERSION).contains(&version)
}

/// Where the Secret with password and credentials is mounted, one file per key.
pub const SECRET_DIR: &str = "/etc/lifeboat/repository";

/// Where the claim of an `interimVolumeTemplate` is mounted (Stash's path).
pub const INTERIM_DIR: &str = "/stash-interim-volume";

/// Restores write below this folder: the volume that the user mounts at `/data` is mounted at `/lifeboat/restore/data`,
/// so that no path of the user's can hide the agent's own files, and parents of a mount point are never changed.
pub const RESTORE_ROOT: &str = "/lifeboat/restore";

/// Where the Secret of an AppBinding is mounted, one file per key.
pub const CREDENTIALS_DIR: &str = "/etc/lifeboat/application";
/// Where the TLS Secret of an AppBinding is mounted.
pub const TLS_DIR: &str = "/etc/lifeboat/application-tls";
/// Below this folder, the Secrets of `addKeysFrom` are mounted, each in a folder named by its position.
pub const MORE_DIR: &str = "/etc/lifeboat/application-more";
/// Paths of an application in its snapshots: of SQL (the path that Stash uses), of an RDB file, and of a manifest.
pub const APPLICATION_FILES: [&str; 3] = ["/dumpfile.sql", "/dump.rdb", "/manifest.json"];
