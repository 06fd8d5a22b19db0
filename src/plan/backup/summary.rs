//! What a session has backed up, in one line: how much, and which snapshots.
//!
//! The status has sizes as text with three decimals, as Stash writes them. That is enough for a sum of two digits.

use crate::api::backup_session::{BackupTargetStatus, HostBackupStats, SnapshotStats};
use crate::text;
use crate::text::UNITS;
use crate::text::hosts as count_of;

/// Number of snapshots that are named; the others are counted. The line is a column of `kubectl get`.
const NAMED: usize = 3;

/// `Backed up 1 host: 6 files, 20 KiB, snapshot 66506cf9.`
pub fn backed_up(targets: &[BackupTargetStatus]) -> String {
    let hosts: Vec<&HostBackupStats> = targets.iter().flat_map(|t| &t.stats).collect();
    let snapshots: Vec<&SnapshotStats> = hosts.iter().flat_map(|h| &h.snapshots).collect();
    let what: Vec<String> = [amount(&snapshots), names(&snapshots)].into_iter().flatten().collect();
    let what = if what.is_empty() { String::new() } else { format!(": {}", what.join(", ")) };
    format!("Backed up {}{what}.", count_of(hosts.len()))
}

/// Files and bytes of all snapshots; `None` if a Job has not reported them for each snapshot.
fn amount(snapshots: &[&SnapshotStats]) -> Option<String> {
    let files =
        snapshots.iter().map(|s| s.file_stats?.total_files).try_fold(0_i64, |all, n| Some(all.saturating_add(n?)));
    let bytes = snapshots
        .iter()
        .map(|s| bytes(s.total_size.as_deref()?))
        .try_fold(0_i64, |all, n| Some(all.saturating_add(n?)));
    let (files, bytes) = files.zip(bytes).filter(|_| !snapshots.is_empty())?;
    Some(format!("{}, {}", text::count(files, "file", "files"), text::bytes(bytes)))
}

/// Names of the first snapshots, in the order of the hosts.
pub fn names(snapshots: &[&SnapshotStats]) -> Option<String> {
    let names: Vec<&str> = snapshots.iter().filter_map(|s| s.name.as_deref()).collect();
    match names[..] {
        [] => None,
        [one] => Some(format!("snapshot {one}")),
        [.., last] if names.len() <= NAMED => {
            Some(format!("snapshots {} and {last}", names[..names.len() - 1].join(", ")))
        }
        _ => Some(format!("snapshots {} and {} more", names[..NAMED].join(", "), names.len() - NAMED)),
    }
}

/// Bytes of a size in text form: `3.408 MiB`.
fn bytes(text: &str) -> Option<i64> {
    let (number, unit) = text.split_once(' ')?;
    let power = UNITS.iter().position(|u| *u == unit)?;
    #[allow(clippy::cast_possible_truncation, reason = "it saturates")]
    Some((number.parse::<f64>().ok()? * 1024_f64.powi(i32::try_from(power).ok()?)).round() as i64)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::text::size;

    fn target(snapshots: &[(&str, Option<u64>)]) -> BackupTargetStatus {
        let one = |(name, bytes): &(&str, Option<u64>)| match bytes {
            Some(bytes) => {
                json!({ "name": name, "totalSize": size(*bytes), "fileStats": { "totalFiles": 6 } })
            }
            None => json!({ "name": name }),
        };
        let stats = json!([{ "hostname": "h", "snapshots": snapshots.iter().map(one).collect::<Vec<_>>() }]);
        serde_json::from_value(json!({ "stats": stats })).unwrap()
    }

    #[test]
    fn it_says_how_much_and_which_snapshots() {
        let of = |targets: &[BackupTargetStatus]| backed_up(targets);
        assert_eq!(
            of(&[target(&[("66506cf9", Some(19_968))])]),
            "Backed up 1 host: 6 files, 20 KiB, snapshot 66506cf9."
        );
        let three = [target(&[("a", Some(1 << 20)), ("b", Some(1 << 20))]), target(&[("c", Some(1 << 19))])];
        assert_eq!(of(&three), "Backed up 2 hosts: 18 files, 2.5 MiB, snapshots a, b and c.");
        let many: Vec<_> = (0..1000).map(|_| target(&[("aaaaaaaa", Some(u64::MAX / 2000)); 60])).collect();
        let text = of(&many);
        assert!(
            text.len() <= 160 && text.ends_with("snapshots aaaaaaaa, aaaaaaaa, aaaaaaaa and 59997 more."),
            "{text}"
        );
        assert!(text.starts_with("Backed up 1000 hosts: 360000 files, 8.0 EiB"), "{text}");
        // The size of some snapshots was not reported.
        assert_eq!(of(&[target(&[("a", Some(1)), ("b", None)])]), "Backed up 1 host: snapshots a and b.");
        assert_eq!(of(&[target(&[])]), "Backed up 1 host.");
    }

    #[test]
    fn sizes_of_status_are_read_back() {
        for n in [0, 1, 1023, 1024, 1536, 3_573_547] {
            let read = bytes(&size(n)).unwrap();
            assert!(read.abs_diff(n.cast_signed()) <= n / 1000, "{n}: {read}");
        }
        assert_eq!(bytes("7 apples"), None);
    }

    #[test]
    fn sizes_read_as_restic_writes_them() {
        assert_eq!(size(0), "0 B");
        assert_eq!(size(1024), "1.000 KiB");
        assert_eq!(size(3_573_547), "3.408 MiB");
        assert_eq!(size(u64::MAX), "16384.000 PiB");
    }
}
