//! The argument lists of restic's commands, and nothing else.
//!
//! Pure, so that the flags that keep data safe can be checked in a test: restores
//! never lock, retention always names its hosts, positional values always follow `--`.
//! No argument contains a secret.

use std::collections::BTreeSet;
use std::path::Path;

use crate::contract::restic::{
    Backup, INCOMPLETE_TAG, Own, PATHS_TAG_PREFIX, RUN_TAG_PREFIX, RepositoryAccess, Restore, Retention,
    SESSION_TAG_PREFIX, Settings,
};
use crate::contract::{Process, Run};
use crate::drivers::restic::paths::clean;
use crate::drivers::restic::pattern::Below;
use crate::drivers::restic::planned::below;

/// How long a command waits for a lock before it fails (exit code 11).
const RETRY_LOCK: [&str; 2] = ["--retry-lock", "2m"];
/// The same for tagging a snapshot. That requires an exclusive lock, and backups of other hosts may still run; their
/// session waits for them anyway.
const RETRY_LOCK_MARK: [&str; 2] = ["--retry-lock", "30m"];

/// Extended attributes that belong to the node and not to the data: labels of security modules, and attributes that
/// only an administrator of the node may write. A container may not set them, and restic would count each as an
/// error.
const OF_THE_NODE: [&str; 6] =
    ["security.selinux", "security.apparmor", "security.SMACK64*", "security.ima", "security.evm", "trusted.*"];

fn list<const N: usize>(items: [&str; N]) -> Vec<String> {
    items.map(str::to_owned).to_vec()
}

/// `nice` and `ionice` before the program, if they are set.
pub fn priority(settings: &Process) -> Vec<String> {
    let mut argv = Vec::new();
    if let Some(nice) = settings.nice {
        argv.extend(list(["nice", "-n", &nice.to_string()]));
    }
    if settings.ionice_class.is_some() || settings.ionice_class_data.is_some() {
        // Best effort (2) is the kernel's own default class.
        let class = settings.ionice_class.unwrap_or(2);
        argv.extend(list(["ionice", "-c", &class.to_string()]));
        // Idle (3) and none (0) have no levels.
        if let Some(data) = settings.ionice_class_data.filter(|_| (1..=2).contains(&class)) {
            argv.extend(list(["-n", &data.to_string()]));
        }
    }
    argv
}

/// Arguments of every command. `secrets` contains the repository and the files of its credentials.
pub fn global(access: &RepositoryAccess, settings: &Settings, secrets: &[String], cache: &Path) -> Vec<String> {
    let mut argv = secrets.to_vec();
    if settings.no_cache {
        argv.push("--no-cache".into());
    } else {
        argv.extend(list(["--cache-dir", &cache.to_string_lossy(), "--cleanup-cache"]));
    }
    if access.insecure_tls {
        argv.push("--insecure-tls".into());
    }
    argv
}

/// Lists snapshots: all, or those of `ids`.
pub fn snapshots(ids: &[String]) -> Vec<String> {
    let mut argv = list(["snapshots", "--json", "--no-lock"]);
    if !ids.is_empty() {
        argv.push("--".into());
        argv.extend(ids.iter().cloned());
    }
    argv
}

/// Lists the entries of a snapshot below a folder, each folder before its content.
pub fn ls(id: &str, folder: &str) -> Vec<String> {
    let mut argv = list(["ls", "--json", "--no-lock", "--recursive", "--", id]);
    argv.extend(Some(folder.to_owned()).filter(|f| f != "/"));
    argv
}

/// Checks whether the repository exists and opens.
pub fn cat_config() -> Vec<String> {
    list(["cat", "config", "--no-lock"])
}

/// Creates the repository.
pub fn init() -> Vec<String> {
    list(["init", "--json"])
}

/// Restores the selected entries below a folder of a snapshot. A dry run lists each item, so that the required space
/// can be computed.
pub fn restore(step: &Restore, id: &str, part: &Below, root: &Path, dry: bool) -> Vec<String> {
    let target = below(root, &part.base);
    let mut argv = list(["restore", "--no-lock", "--json", "--sparse", "--target", &target.to_string_lossy()]);
    for pattern in &part.patterns {
        argv.extend(list(["--include", pattern]));
    }
    // restic rejects both together.
    if !step.args.iter().any(|a| a.starts_with("--include-xattr")) {
        for name in OF_THE_NODE {
            argv.extend(list(["--exclude-xattr", name]));
        }
    }
    // restic rejects --verify together with --dry-run.
    argv.extend(step.args.iter().filter(|a| !(dry && a.starts_with("--verify"))).cloned());
    if dry {
        argv.extend(list(["--dry-run", "-vv"]));
        // Avoids reading existing files twice; the sum of changed and unchanged is the same.
        if !step.args.iter().any(|a| a.starts_with("--overwrite")) {
            argv.extend(list(["--overwrite", "if-changed"]));
        }
    }
    let folder = if part.base == "/" { String::new() } else { format!(":{}", part.base) };
    argv.extend(list(["--", &format!("{id}{folder}")]));
    argv
}

/// Backs up one path. The number of paths is a tag of each snapshot, so that missing ones can be detected.
pub fn backup(step: &Backup, run: &Run, path: &str) -> Vec<String> {
    let mut argv = list(["backup", "--json", "--host", &step.host]);
    argv.extend(list(RETRY_LOCK));
    let paths: BTreeSet<String> = step.paths.iter().map(|p| clean(p)).collect();
    argv.extend(tags(run, paths.len()));
    for pattern in &step.exclude {
        argv.extend(list(["--exclude", pattern]));
    }
    argv.extend(step.args.iter().cloned());
    argv.extend(list(["--", path]));
    argv
}

/// A file to create from the output of a command.
pub struct Save<'a> {
    /// restic host name.
    pub host: &'a str,
    /// The run, for tags.
    pub run: &'a Run,
    /// Number of files that the run stores for this host.
    pub files: usize,
    /// Further tags.
    pub tags: Vec<String>,
    /// Further arguments, already checked.
    pub args: &'a [String],
    /// Path of the file in the snapshot.
    pub file: &'a str,
    /// The command and its arguments, without secrets.
    pub command: Vec<String>,
}

/// Creates a snapshot of the output of a command. restic runs the command, and creates no snapshot if it fails.
pub fn save(save: &Save<'_>) -> Vec<String> {
    let mut argv = list(["backup", "--json", "--host", save.host]);
    argv.extend(list(RETRY_LOCK));
    argv.extend(tags(save.run, save.files));
    for tag in &save.tags {
        argv.extend(list(["--tag", tag]));
    }
    argv.extend(save.args.iter().cloned());
    argv.extend(list(["--stdin-filename", save.file, "--stdin-from-command", "--"]));
    argv.extend(save.command.iter().cloned());
    argv
}

/// Writes the content of a file of a snapshot to standard output.
pub fn dump(id: &str, path: &str) -> Vec<String> {
    list(["dump", "--no-lock", "--", id, path])
}

/// Tags of every snapshot of a run, which stores this number of paths for the host.
fn tags(run: &Run, paths: usize) -> Vec<String> {
    let all = [
        format!("{RUN_TAG_PREFIX}{}", run.id),
        format!("{SESSION_TAG_PREFIX}{}/{}", run.namespace, run.name),
        format!("{PATHS_TAG_PREFIX}{paths}"),
    ];
    all.into_iter().flat_map(|tag| ["--tag".to_owned(), tag]).collect()
}

/// Tags an incomplete snapshot, which changes its id.
pub fn mark_incomplete(id: &str) -> Vec<String> {
    let mut argv = list(["tag", "--json", "--add", INCOMPLETE_TAG]);
    argv.extend(list(RETRY_LOCK_MARK));
    argv.extend(list(["--", id]));
    argv
}

/// Computes which snapshots retention would remove of one path of the hosts of one invoker, without removing them:
/// restic's filter also matches snapshots with several paths. Snapshots are not grouped by tags, because these may
/// differ between backups. `None` without a path, host or rule: restic would then match the snapshots of every host,
/// or fail. `beside` snapshots are kept in addition to those of the policy: they are incomplete, or have a time in
/// the future.
pub fn would_forget(own: &Own, retention: &Retention, beside: usize) -> Option<Vec<String>> {
    let keep = keep(retention, i64::try_from(beside).unwrap_or(i64::MAX));
    let hosts: Vec<_> = own.hosts.iter().filter(|h| !h.is_empty()).collect();
    if keep.is_empty() || hosts.is_empty() || own.path.is_empty() {
        return None;
    }
    let look = ["forget", "--dry-run", "--no-lock", "--json", "--group-by", "host,paths", "--path", &own.path];
    let mut argv = list(look);
    for host in hosts {
        argv.extend(list(["--host", host]));
    }
    argv.extend(keep);
    Some(argv)
}

fn keep(retention: &Retention, beside: i64) -> Vec<String> {
    let counts = [
        ("--keep-last", retention.keep_last),
        ("--keep-hourly", retention.keep_hourly),
        ("--keep-daily", retention.keep_daily),
        ("--keep-weekly", retention.keep_weekly),
        ("--keep-monthly", retention.keep_monthly),
        ("--keep-yearly", retention.keep_yearly),
    ];
    let mut argv: Vec<String> = Vec::new();
    // In restic, zero means "not set".
    for (flag, count) in counts.into_iter().filter_map(|(f, c)| Some((f, c.filter(|c| *c != 0)?))) {
        // In restic, a negative number means "all".
        let count = if count < 0 { count } else { count.saturating_add(beside) };
        argv.extend([flag.to_owned(), count.to_string()]);
    }
    for tag in retention.keep_tags.iter().filter(|t| !t.is_empty()) {
        argv.extend(list(["--keep-tag", tag]));
    }
    argv
}

/// Forgets these snapshots, by id, and no others.
pub fn forget_ids(ids: &[String]) -> Vec<String> {
    let mut argv = list(["forget", "--json"]);
    argv.extend(list(RETRY_LOCK));
    argv.push("--".into());
    argv.extend(ids.iter().cloned());
    argv
}

/// Removes data that no snapshot uses. Text output, because the JSON output has no progress.
pub fn prune() -> Vec<String> {
    let mut argv = list(["prune"]);
    argv.extend(list(RETRY_LOCK));
    argv
}

/// Checks the repository's structure. Text, for the same reason as [`prune`].
pub fn check() -> Vec<String> {
    let mut argv = list(["check"]);
    argv.extend(list(RETRY_LOCK));
    argv
}

/// Size of the stored data: in total, or of these snapshots.
pub fn stats(ids: &[&str]) -> Vec<String> {
    let mut argv = list(["stats", "--mode", "raw-data", "--json", "--no-lock"]);
    if !ids.is_empty() {
        argv.push("--".into());
        argv.extend(ids.iter().map(|id| (*id).to_owned()));
    }
    argv
}

/// Lists the ids of locks.
pub fn locks() -> Vec<String> {
    list(["list", "locks", "--no-lock", "--quiet"])
}

/// Removes only locks that restic considers stale: older than half an hour, or with this hostname and a process that
/// does not exist.
pub fn unlock() -> Vec<String> {
    list(["unlock"])
}

/// Shows one lock.
pub fn lock(id: &str) -> Vec<String> {
    list(["cat", "lock", "--no-lock", "--", id])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(argv: &[String]) -> String {
        argv.join(" ")
    }

    #[test]
    fn a_restore_never_locks_and_ends_with_the_id() {
        let labels: String = OF_THE_NODE.map(|name| format!(" --exclude-xattr {name}")).concat();
        let step = Restore { args: vec!["--verify".into()], ..Restore::default() };
        let part = Below { base: "/a".into(), patterns: vec!["/data".into(), "!/data/tmp".into()] };
        let whole = Below { base: "/".into(), patterns: vec!["/data".into()] };
        assert_eq!(
            joined(&restore(&step, "1a2b", &part, Path::new("/r"), false)),
            format!(
                "restore --no-lock --json --sparse --target /r/a --include /data --include !/data/tmp{labels} --verify -- 1a2b:/a"
            )
        );
        assert_eq!(
            joined(&restore(&step, "1a2b", &whole, Path::new("/r"), true)),
            format!(
                "restore --no-lock --json --sparse --target /r/ --include /data{labels} --dry-run -vv --overwrite if-changed -- 1a2b"
            )
        );
        let chosen = Restore { args: vec!["--include-xattr=user.*".into()], ..Restore::default() };
        assert!(!joined(&restore(&chosen, "1", &whole, Path::new("/r"), false)).contains("--exclude-xattr"));
    }

    #[test]
    fn a_backup_is_tagged_and_its_path_cannot_be_a_flag() {
        let run = Run { id: "r1".into(), namespace: "n".into(), name: "s".into(), ..Run::default() };
        let step = Backup {
            host: "host-0".into(),
            paths: vec!["/source/data".into(), "/source/data/".into(), "/source/etc".into()],
            exclude: vec!["*.tmp".into()],
            args: vec!["--exclude-caches".into()],
            ..Backup::default()
        };
        assert_eq!(
            joined(&backup(&step, &run, "/source/data")),
            "backup --json --host host-0 --retry-lock 2m --tag lifeboat.run=r1 --tag lifeboat.session=n/s --tag lifeboat.paths=2 --exclude *.tmp --exclude-caches -- /source/data"
        );
    }

    #[test]
    fn retention_asks_first_names_hosts_and_keeps_something() {
        let retention = Retention {
            keep_last: Some(3),
            keep_daily: Some(0),
            keep_tags: vec!["gold".into()],
            ..Retention::default()
        };
        let own = |hosts: &[&str]| Own { path: "/data".into(), hosts: hosts.iter().map(|&h| h.into()).collect() };
        assert_eq!(
            joined(&would_forget(&own(&["host-0", "host-1"]), &retention, 0).unwrap()),
            "forget --dry-run --no-lock --json --group-by host,paths --path /data --host host-0 --host host-1 --keep-last 3 --keep-tag gold"
        );
        assert_eq!(would_forget(&own(&[]), &retention, 0), None);
        assert_eq!(would_forget(&own(&[""]), &retention, 0), None);
        assert_eq!(would_forget(&Own { path: String::new(), ..own(&["h"]) }, &retention, 0), None);
        assert_eq!(would_forget(&own(&["h"]), &Retention::default(), 2), None);
        let all = Retention { keep_daily: Some(-1), ..retention };
        let argv = joined(&would_forget(&own(&["h"]), &all, 2).unwrap());
        assert!(argv.ends_with("--keep-last 5 --keep-daily -1 --keep-tag gold"), "{argv}");
    }

    #[test]
    fn only_stale_locks_are_ever_removed() {
        assert_eq!(unlock(), ["unlock"]);
        let others =
            [prune(), check(), stats(&[]), locks(), lock("1"), init(), cat_config(), snapshots(&[]), ls("1", "/")];
        let marks = [mark_incomplete("1"), forget_ids(&["1".into()])];
        let all = [others.concat(), marks.concat()].concat();
        assert!(!all.iter().any(|a| a.contains("unlock") || a.contains("remove-all")));
    }

    #[test]
    fn priorities_come_first() {
        let settings = Process { nice: Some(10), ionice_class: Some(2), ionice_class_data: Some(7) };
        assert_eq!(joined(&priority(&settings)), "nice -n 10 ionice -c 2 -n 7");
        let idle = Process { ionice_class: Some(3), ionice_class_data: Some(7), ..Process::default() };
        assert_eq!(joined(&priority(&idle)), "ionice -c 3");
        assert!(priority(&Process::default()).is_empty());
    }

    #[test]
    fn the_cache_is_ours_or_none() {
        let (access, cache) =
            (RepositoryAccess { insecure_tls: true, ..RepositoryAccess::default() }, Path::new("/w/cache"));
        let secrets = ["--password-file".to_owned(), "/s".to_owned()];
        assert_eq!(
            joined(&global(&access, &Settings::default(), &secrets, cache)),
            "--password-file /s --cache-dir /w/cache --cleanup-cache --insecure-tls"
        );
        let none = Settings { no_cache: true, ..Settings::default() };
        assert!(joined(&global(&access, &none, &secrets, cache)).contains("--no-cache"));
    }
}
