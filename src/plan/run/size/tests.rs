//! The estimate compared with the real size of a status.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use proptest::prelude::*;
use serde_json::json;

use crate::api::backup_session::{
    BackupHostPhase, BackupTargetPhase, BackupTargetStatus, FileStats, HostBackupStats, SnapshotStats,
};
use crate::api::restore_session::{Counts, HostPhase, HostRestoreStats, MemberPhase, PinnedSnapshot, Progress};
use crate::plan::run::size::*;

/// Bytes that the API server stores about who owns a field of a host: `"f:sourceHost":{},`.
fn ownership(entry: &Value) -> usize {
    let fields = entry.as_object().unwrap();
    fields.keys().map(|name| name.len() + 8).sum::<usize>() + r#""k:{\"hostname\":\"\"}":{".":{},},"#.len()
}

fn restored(name: &str, paths: &[String], text: &str) -> HostRestoreStats {
    let counts = Counts { files: i64::MAX, bytes: i64::MAX };
    let most = i64::MAX;
    let time = Time(Timestamp::MAX);
    let pin = |p: &String| PinnedSnapshot {
        id: "a".repeat(64),
        time: Some("2026-11-20T00:00:00Z".into()),
        path: Some(p.clone()),
    };
    HostRestoreStats {
        hostname: name.into(),
        phase: Some(HostPhase::Succeeded),
        duration: Some("8760h59m59.999s".into()),
        error: Some(text.into()),
        reason: Some("R".repeat(40)),
        warnings: vec![text.into()],
        source_host: Some(name.into()),
        owner: Some("4294967295:4294967295".into()),
        node: Some(name.into()),
        snapshots: paths.iter().map(pin).collect(),
        attempt: Some(99_999),
        pod_deaths: Some(3),
        unwritten: Some(99_999),
        not_before: Some(time),
        planned: Some(counts),
        restored: Some(counts),
        deleted: Some(i64::MAX),
        more_deleted: Some(true),
        progress: Some(Progress {
            percent: 100,
            bytes_done: most,
            bytes_total: most,
            files_done: most,
            files_total: most,
        }),
    }
}

fn backed_up(name: &str, paths: &[String], text: &str) -> HostBackupStats {
    let (most, most_of) = (Some(i64::MAX), i64::MAX);
    let size = || Some("16384.000 PiB".to_owned());
    let snapshot = |p: &String| SnapshotStats {
        name: Some("abcdefgh".into()),
        path: Some(p.clone()),
        total_size: size(),
        uploaded: size(),
        processing_time: Some("8760h59m59.999s".into()),
        file_stats: Some(FileStats {
            total_files: most,
            new_files: most,
            modified_files: most,
            unmodified_files: most,
        }),
    };
    HostBackupStats {
        hostname: name.into(),
        phase: Some(BackupHostPhase::Succeeded),
        duration: Some("8760h59m59.999s".into()),
        error: Some(text.into()),
        reason: Some("R".repeat(40)),
        warnings: vec![text.into()],
        attempt: Some(99_999),
        pod_deaths: Some(3),
        not_before: Some(Time(Timestamp::MAX)),
        node: Some(name.into()),
        progress: Some(Progress {
            percent: 100,
            bytes_done: most_of,
            bytes_total: most_of,
            files_done: most_of,
            files_total: most_of,
        }),
        snapshots: paths.iter().map(snapshot).collect(),
    }
}

#[test]
fn a_host_takes_no_more_than_is_counted_for_it() {
    let empty = [String::new()];
    let with = |paths: &[String]| (json!(restored("", paths, "")), json!(backed_up("", paths, "")));
    let ((restore, backup), (restore_one, backup_one)) = (with(&[]), with(&empty));
    for (host, most) in [(&restore, RESTORED_HOST), (&backup, BACKED_UP_HOST)] {
        let bytes = host.to_string().len() + ownership(&restore_one);
        assert!(bytes <= most, "{bytes} of {most}");
    }
    for (none, one, most) in [(restore, restore_one, PIN), (backup, backup_one, SNAPSHOT)] {
        let bytes = one.to_string().len() - none.to_string().len();
        assert!(bytes <= most + 20, "{bytes} of {most}, with the name of the list");
    }
}

#[test]
fn a_thousand_hosts_of_one_path_can_be_restored_and_more_are_refused_in_numbers() {
    let of = |hosts: usize, paths: usize| {
        let mut size = Size { members: 1, written: 4 << 10, ..Size::default() };
        (0..hosts).for_each(|n| size.add_host(&format!("host-{n}"), None, vec![20; paths]));
        size
    };
    assert_eq!(of(1000, 1).restore_refusal(), None);
    assert_eq!(of(1000, 1).backup_refusal(), None);
    assert_eq!(of(64, 64).restore_refusal(), None);
    let text = of(1001, 1).restore_refusal().unwrap();
    assert!(text.contains("1001 hosts") && text.contains("1000"), "{text}");
    let text = of(500, 64).backup_refusal().unwrap();
    assert!(text.contains("500 hosts and 32000 snapshots") && text.contains(&OBJECT.to_string()), "{text}");
}

#[test]
fn every_text_is_cut_to_what_there_is_room_for() {
    let long = "\"ä\n".repeat(40_000);
    let member = |hosts: usize| {
        let mut list = vec![];
        for type_ in ["A", "B"] {
            conditions::set(&mut list, type_, true, &long, long.clone(), Timestamp::UNIX_EPOCH);
        }
        RestoreMemberStatus {
            conditions: list,
            message: Some(long.clone()),
            stats: (0..hosts).map(|n| restored(&format!("h{n}"), &[], &long)).collect(),
            ..RestoreMemberStatus::default()
        }
    };
    for hosts in [1, 1000] {
        let mut members = vec![member(hosts)];
        let mut list = members[0].conditions.clone();
        bound_restore(&mut list, &mut members, &mut RunStatus::default());
        let text = json!([list, members]).to_string();
        assert!(text.len() < 10_000 + hosts * (RESTORED_HOST + text_limit(hosts)), "{} bytes", text.len());
        let once = members.clone();
        bound_restore(&mut list, &mut members, &mut RunStatus::default());
        assert_eq!(members, once, "twice is once");
    }
    assert_eq!((text_limit(1), text_limit(1000)), (1000, 204));
}

#[test]
fn what_is_shortened_keeps_what_the_way_out_needs() {
    let long = "x".repeat(1000);
    let stats: Vec<_> = (0..900).map(|n| restored(&format!("h{n}"), std::slice::from_ref(&long), &long)).collect();
    let quiesce = json!({ "ref": { "kind": "Deployment", "name": "web" }, "replicas": 3, "state": "Quiesced" });
    let run = json!({ "id": "u", "specHash": "h", "grants": [{ "name": "g", "namespace": "n" }] });
    let session = json!({ "phase": "Running", "stats": stats, "quiesce": quiesce, "run": run });
    let batch =
        json!({ "phase": "Running", "members": [{ "ref": {}, "stats": stats, "quiesce": quiesce }], "run": run });
    for (kind, status) in [("RestoreSession", &session), ("RestoreBatch", &batch)] {
        let short = shorten(kind, status, Timestamp::UNIX_EPOCH).unwrap();
        assert!(short.to_string().len() * 5 < status.to_string().len());
        let text = short.to_string();
        assert!(
            text.contains(r#""replicas":3"#) && text.contains(r#""name":"g""#) && text.contains(r#""specHash":"h""#)
        );
        let list: Vec<Condition> = serde_json::from_value(short["conditions"].clone()).unwrap();
        assert!(was_refused(&list) && list.iter().any(|c| c.type_ == condition::CANCELED));
    }
    let mut ended = session.clone();
    let ready = json!({ "type": "Ready", "status": "True", "reason": "Succeeded", "lastTransitionTime": "2026-11-20T00:00:00Z" });
    (ended["phase"], ended["conditions"]) = (json!("Succeeded"), json!([ready]));
    let short = shorten("RestoreSession", &ended, Timestamp::UNIX_EPOCH).unwrap();
    assert_eq!((&short["phase"], &short["conditions"]), (&json!("Succeeded"), &json!([ready])));
    assert_eq!(shorten("Repository", &session, Timestamp::UNIX_EPOCH), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// An API server accepts the largest status that is allowed, with every text at its maximum length.
    #[test]
    fn what_is_not_refused_fits(hosts in 1usize..1000, paths in 1usize..64, length in 1usize..200, members in 1usize..40) {
        let names: Vec<String> = (0..hosts).map(|n| format!("{n}-{}", "h".repeat(length % 60))).collect();
        let paths: Vec<String> = (0..paths).map(|n| format!("/{n}/{}", "p".repeat(length))).collect();
        let mut size = Size { members, ..Size::default() };
        names.iter().for_each(|name| size.add_host(name, Some(name), paths.iter().map(String::len)));
        let share = |m: usize| names.iter().skip(m).step_by(members);
        let text = "e".repeat(2000);
        if size.restore_refusal().is_none() {
            let mut all: Vec<RestoreMemberStatus> = (0..members).map(|m| RestoreMemberStatus {
                message: Some(text.clone()), phase: Some(MemberPhase::Running),
                stats: share(m).map(|name| restored(name, &paths, &text)).collect(), ..RestoreMemberStatus::default()
            }).collect();
            bound_restore(&mut [], &mut all, &mut RunStatus::default());
            prop_assert!(to_json(&all).to_string().len() <= OBJECT);
        }
        if size.backup_refusal().is_none() {
            let targets = (0..members).map(|m| BackupTargetStatus {
                phase: Some(BackupTargetPhase::Running),
                stats: share(m).map(|name| backed_up(name, &paths, &text)).collect(), ..BackupTargetStatus::default()
            }).collect();
            let mut status = BackupSessionStatus { targets, ..BackupSessionStatus::default() };
            bound_backup(&mut status);
            prop_assert!(to_json(&status).to_string().len() <= OBJECT);
        }
    }
}
