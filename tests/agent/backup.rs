//! Backups, and the snapshots that are kept.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use lifeboat::contract::Class;
use lifeboat::contract::restic::{Answer, Backup, HostQuery, Maintain, Own, Retention, Step};
use lifeboat::names::reason;

use super::site::{AS_USER, Site, USER, give_to, need_root, strings};
use super::support::tree::write_noise;

/// Proves: scenario 20.
#[test]
#[ignore = "needs root and restic: make test-agent"]
fn what_a_backup_leaves_out_is_not_in_it() {
    let site = Site::new();
    let (data, path) = site.data("data");
    for name in ["kept.txt", "left.tmp", "cache/left.txt"] {
        fs::create_dir_all(data.join(name).parent().unwrap()).unwrap();
        fs::write(data.join(name), name).unwrap();
    }
    let exclude = strings(&["*.tmp", &format!("{path}/cache")]);
    let step = Backup { host: "host-0".into(), paths: strings(&[&path]), exclude, ..Backup::default() };
    site.run(Step::Backup(step)).answer();
    let restore = site.step(&[&path]);
    let target = site.target(&path);
    site.run(Step::Restore(restore)).restored();
    let names: Vec<_> = fs::read_dir(target).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, ["kept.txt"]);
}

#[test]
#[ignore = "needs root and restic: make test-agent"]
fn a_backup_of_what_is_not_there_backs_up_nothing() {
    let site = Site::new();
    let (data, path) = site.data("data");
    fs::write(data.join("f"), "x").unwrap();
    let gone = format!("{path}-gone");
    let step = Backup { host: "host-0".into(), paths: strings(&[&path, &gone]), ..Backup::default() };
    let ended = site.run(Step::Backup(step));
    assert!(ended.failed(Class::Invalid, reason::PATH_NOT_FOUND).message.contains(&gone));
    assert_eq!(fs::read_dir(site.path("repo/snapshots")).unwrap().count(), 0);
}

/// A volume that was not mounted looks like an empty volume: its backup succeeds with a warning.
#[test]
#[ignore = "needs root and restic: make test-agent"]
fn a_path_without_any_file_is_told() {
    let site = Site::new();
    let (data, path) = site.data("data");
    let (empty, empty_path) = site.data("empty");
    fs::write(data.join("f"), "x").unwrap();
    fs::create_dir(empty.join("folder")).unwrap();
    let run = |exclude: &[&str]| {
        let (paths, exclude) = (strings(&[&path, &empty_path]), strings(exclude));
        let ended = site.run(Step::Backup(Backup { host: "app-0".into(), paths, exclude, ..Backup::default() }));
        ended.answer();
        ended.outcome.warnings
    };
    let said = run(&[]);
    assert!(
        said.len() == 1 && said[0].starts_with(&format!("{empty_path} of host app-0 contains no files")),
        "{said:?}"
    );
    let said = run(&["f"]);
    assert!(said.len() == 2 && said[0].starts_with(&format!("{path} of host app-0 contains no files")), "{said:?}");
    fs::write(empty.join("folder/g"), "").unwrap();
    assert_eq!(run(&[]), Vec::<String>::new());
}

/// restic would keep the link, and no data of its target.
///
/// Closes: R10 of the reports.
#[test]
#[ignore = "needs root and restic: make test-agent"]
fn a_path_through_a_symbolic_link_is_no_backup() {
    let site = Site::new();
    let (data, path) = site.data("data");
    fs::create_dir_all(data.join("releases/v1/sub")).unwrap();
    fs::write(data.join("releases/v1/sub/f"), "x").unwrap();
    for (to, link) in [("releases/v1", "current"), ("nowhere", "dangling"), ("/etc", "out"), ("current", "twice")] {
        symlink(to, data.join(link)).unwrap();
    }
    let ask = |paths: &[&str]| {
        let paths = paths.iter().map(|p| format!("{path}{p}")).collect();
        site.run(Step::Backup(Backup { host: "host-0".into(), paths, mounts: strings(&[&path]), ..Backup::default() }))
    };
    for (asked, link, to) in [
        ("/current", "/current", "releases/v1"),
        ("/current/", "/current", "releases/v1"),
        ("/current/sub", "/current", "releases/v1"),
        ("/twice/sub/f", "/twice", "current"),
        ("/dangling", "/dangling", "nowhere"),
        // Otherwise the agent's own files would be backed up.
        ("/out/hostname", "/out", "/etc"),
    ] {
        let ended = ask(&["/releases", asked]);
        let said = &ended.failed(Class::Invalid, reason::PATH_IS_LINK).message;
        assert!(said.contains(&format!("{path}{link} is a symbolic link to {to},")), "{said}");
    }
    assert_eq!(fs::read_dir(site.path("repo/snapshots")).unwrap().count(), 0);
    // Links below a path are data. So is a link above the volume, which belongs to the image.
    ask(&["/releases/v1/sub", ""]).answer();
    let above = site.path("above");
    symlink(&site.dir, &above).unwrap();
    let mount = format!("{}/data", above.display());
    let step =
        Backup { host: "host-0".into(), paths: strings(&[&mount]), mounts: strings(&[&mount]), ..Backup::default() };
    site.run(Step::Backup(step)).answer();
}

/// Files of a busy volume disappear while they are read.
///
/// Closes: R09 of the reports.
#[test]
#[ignore = "needs root and restic: make test-agent"]
fn what_is_gone_before_it_is_read_fails_no_backup() {
    let site = Site::new();
    let (data, path) = site.data("data");
    for n in 0..5 {
        fs::write(data.join(format!("f{n}")), "x").unwrap();
    }
    fs::create_dir(data.join("sub")).unwrap();
    let step =
        |paths: &[&str]| Step::Backup(Backup { host: "host-0".into(), paths: strings(paths), ..Backup::default() });
    // Messages of restic about a file that disappears between listing and reading (0.18).
    let script = |errors: &str| {
        format!(
            r#"case " $* " in *" backup "*) "$RESTIC" "$@"; printf '%s\n' {errors}; exit 3;; esac; exec "$RESTIC" "$@""#
        )
    };
    let error = |item: &str, what: &str| {
        format!(
            "'{{\"message_type\":\"error\",\"error\":{{\"message\":\"{what}\"}},\"during\":\"archival\",\"item\":\"{item}\"}}'"
        )
    };
    let gone = |item: &str| error(item, &format!("lstat {item}: no such file or directory"));
    let run =
        |errors: &str, n: usize| site.run_through(&script(errors), &site.task_of(&format!("run-{n}"), step(&[&path])));
    let ended = run(&[gone(&format!("{path}/f0")), gone(&format!("{path}/sub/t"))].join(" "), 2);
    ended.answer();
    let [said] = ended.outcome.warnings.as_slice() else { panic!("{:?}", ended.outcome) };
    assert!(said.starts_with("2 files of ") && said.contains(&format!("(for example {path}/f0)")), "{said}");
    for (n, errors) in [
        [gone(&format!("{path}/f0")), error(&format!("{path}/f1"), "read: input/output error")].join(" "),
        error(&format!("{path}/f1"), "open: permission denied"),
        // All files are gone: the volume was lost.
        gone(&path),
        error("", "no such file or directory"),
    ]
    .iter()
    .enumerate()
    {
        let failure = run(errors, n + 3);
        assert_eq!(failure.failure().exit_code, Some(3), "{errors}");
    }
}

#[test]
#[ignore = "needs root and restic: make test-agent"]
fn a_backup_that_misses_files_is_reported_and_fails() {
    need_root();
    let site = Site::new();
    let (data, path) = site.data("data");
    fs::write(data.join("open"), "x").unwrap();
    fs::write(data.join("closed"), "x").unwrap();
    fs::set_permissions(data.join("closed"), PermissionsExt::from_mode(0o000)).unwrap();
    symlink("open", data.join("link")).unwrap();
    give_to(&site, USER, &data);
    let step = Backup { host: "host-0".into(), paths: strings(&[&path]), ..Backup::default() };
    let whole = site.backup("host-0", &[&path]);
    give_to(&site, USER, &data);
    std::os::unix::fs::chown(data.join("closed"), Some(0), Some(0)).unwrap();
    let task = site.task_of("run-2", Step::Backup(step.clone()));
    let ended = site.run_behind(&AS_USER, &task);
    let failure = ended.failed(Class::Data, reason::PERMISSION_DENIED);
    assert_eq!(failure.exit_code, Some(3));
    assert!(failure.message.contains("closed"), "{}", failure.message);
    assert!(!failure.message.contains("could not be tagged"), "{}", failure.message);
    let Some(Answer::BackedUp(made)) = ended.own() else { panic!() };
    assert_eq!(made[0].id.len(), 64);
    assert!(site.path("repo/snapshots").join(&made[0].id).exists(), "what is reported is what is there");
    // It is not the newest backup, but a request by its id finds it.
    assert_eq!(site.latest("host-0", &[&path]), [whole[0].id.clone()]);
    assert_eq!(site.step(&[&path]).snapshots[0].id, whole[0].id);
    let named = HostQuery {
        source_host: "host-0".into(),
        snapshots: vec![made[0].id.clone()],
        mounts: strings(&[&path]),
        ..HostQuery::default()
    };
    assert_eq!(site.resolve(named).hosts()[0].snapshots[0].id, made[0].id);

    // If marking fails, the message says so.
    let script =
        r#"case " $* " in *" backup "*) "$RESTIC" "$@"; exit 3;; *" tag "*) exit 1;; esac; exec "$RESTIC" "$@""#;
    let ended = site.run_through(script, &site.task_of("run-3", Step::Backup(step)));
    let failure = ended.failed(Class::Data, reason::INCOMPLETE);
    assert!(failure.message.contains("restic tag --add lifeboat.incomplete"), "{}", failure.message);
}

/// As on a bucket that denies deletions.
#[test]
#[ignore = "needs root and restic: make test-agent"]
fn retention_that_fails_is_told_beside_a_check_that_is_good() {
    let site = Site::new();
    let (data, path) = site.data("data");
    for n in 0..3 {
        write_noise(&data.join("f"), 50_000, n);
        site.backup("host-0", &[&path]);
    }
    let own = vec![Own { path: path.clone(), hosts: strings(&["host-0"]) }];
    let maintain = |refused: &str, keep: i64| {
        let script = format!(
            r#"case " $* " in *" {refused} "*) echo 'Fatal: unable to remove: Access Denied.' >&2; exit 1;; esac
exec "$RESTIC" "$@""#
        );
        let retention = Retention { keep_last: Some(keep), prune: true, ..Retention::default() };
        let ended = site.run_through(&script, &site.task(Step::Maintain(Maintain { own: own.clone(), retention })));
        let failure = ended.failure();
        assert!(!matches!(failure.class, Class::Transient | Class::Waiting), "no other try mends it: {failure:?}");
        let Some(Answer::Maintained(facts)) = ended.own().cloned() else { panic!("{:?}", ended.outcome) };
        facts
    };
    let facts = maintain("forget", 2);
    assert_eq!((facts.retained, facts.integrity, facts.removed), (false, Some(true), 0));
    assert_eq!(facts.snapshot_count, Some(3));
    let facts = maintain("prune", 2);
    assert_eq!((facts.retained, facts.integrity, facts.removed), (false, Some(true), 1));
    assert!(facts.snapshot_count == Some(2) && facts.total_bytes.is_some_and(|n| n > 0), "{facts:?}");
    let facts = maintain("stats", 2);
    assert_eq!((facts.retained, facts.integrity, facts.total_bytes), (true, Some(true), None));
}

#[test]
#[ignore = "needs root and restic: make test-agent"]
fn retention_touches_only_its_own_hosts() {
    let site = Site::new();
    let (data, path) = site.data("data");
    for n in 0..4 {
        write_noise(&data.join("f"), 50_000, n);
        site.backup("host-0", &[&path]);
        site.backup("host-9", &[&path]);
    }
    // The same host, of another invoker: another path.
    let (_, other) = site.data("other");
    site.backup("host-0", &[&other]);
    // Two snapshots of the administrator, of the same path and another one; keepLast would remove one of them.
    for _ in 0..2 {
        let by_hand = site.restic(&["backup", "--host", "host-0", &path, &other]).output().unwrap();
        assert!(by_hand.status.success(), "{}", String::from_utf8_lossy(&by_hand.stderr));
    }
    let maintain = |hosts: &[&str], retention: Retention| {
        let own = vec![Own { path: path.clone(), hosts: strings(hosts) }];
        let ended = site.run(Step::Maintain(Maintain { own, retention }));
        let Answer::Maintained(facts) = ended.answer().clone() else { panic!() };
        facts
    };
    let keep = Retention { keep_last: Some(1), prune: true, ..Retention::default() };
    let facts = maintain(&["host-0"], Retention { dry_run: true, ..keep.clone() });
    assert_eq!((facts.removed, facts.would_remove, facts.snapshot_count), (0, Some(3), Some(11)));
    assert_eq!(maintain(&["host-0"], Retention::default()).snapshot_count, Some(11));
    assert_eq!(maintain(&[], keep.clone()).snapshot_count, Some(11));
    assert_eq!(maintain(&["host-5"], keep.clone()).snapshot_count, Some(11));
    let facts = maintain(&["host-0"], keep);
    assert_eq!((facts.removed, facts.would_remove, facts.snapshot_count), (3, None, Some(8)));
    assert_eq!((facts.integrity, facts.retained), (Some(true), true));
    assert!(facts.total_bytes.unwrap() > 0);
    let query = HostQuery {
        source_host: "host-9".into(),
        snapshots: vec!["latest".into()],
        mounts: vec![path],
        ..HostQuery::default()
    };
    assert_eq!(site.resolve(query).hosts()[0].failure, None);
}

/// A configuration may be edited: snapshots with other excludes count together with the old ones, and a path that is no
/// longer backed up keeps all its snapshots until a user removes them, as docs/backup.md says.
#[test]
#[ignore = "needs root and restic: make test-agent"]
fn retention_after_an_edit_counts_on_and_leaves_removed_paths_alone() {
    let site = Site::new();
    let (kept, kept_path) = site.data("kept");
    let (removed, removed_path) = site.data("removed");
    let backup = |n: u64, paths: &[&str], exclude: &[&str], args: &[&str]| {
        write_noise(&kept.join("f"), 20_000, n);
        write_noise(&removed.join("f"), 20_000, n);
        let step = Backup {
            host: "a".into(),
            paths: strings(paths),
            exclude: strings(exclude),
            args: strings(args),
            ..Backup::default()
        };
        site.run_task(&site.task_of(&format!("run-{n}"), Step::Backup(step))).answer();
    };
    backup(1, &[&kept_path, &removed_path], &[], &[]);
    backup(2, &[&kept_path, &removed_path], &[], &[]);
    // Edited: one path less, other excludes and tags.
    backup(3, &[&kept_path], &["*.tmp"], &["--tag=gold"]);
    backup(4, &[&kept_path], &["*.log"], &["--exclude-caches"]);
    let count = |path: &str| {
        let output = site.restic(&["snapshots", "--json", "--path", path]).output().unwrap();
        serde_json::from_slice::<Vec<serde_json::Value>>(&output.stdout).unwrap().len()
    };
    let maintain = |paths: &[&str]| {
        let own = paths.iter().map(|p| Own { path: (*p).to_owned(), hosts: strings(&["a"]) }).collect();
        let retention = Retention { keep_last: Some(1), prune: true, ..Retention::default() };
        site.run(Step::Maintain(Maintain { own, retention })).answer();
    };
    maintain(&[&kept_path]);
    assert_eq!((count(&kept_path), count(&removed_path)), (1, 2));
    let query = HostQuery {
        source_host: "a".into(),
        paths: strings(&[&removed_path]),
        mounts: strings(&[&removed_path]),
        ..HostQuery::default()
    };
    let ended = site.resolve(query);
    let host = &ended.hosts()[0];
    assert_eq!((host.failure.as_ref(), host.snapshots.len()), (None, 1), "it can be restored");
    // When the path is backed up again, its old snapshots count.
    backup(5, &[&kept_path, &removed_path], &[], &[]);
    maintain(&[&kept_path, &removed_path]);
    assert_eq!((count(&kept_path), count(&removed_path)), (1, 1));
    let by_hand = ["forget", "--host", "a", "--path", &removed_path, "--unsafe-allow-remove-all", "--prune"];
    let output = site.restic(&by_hand).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!((count(&kept_path), count(&removed_path)), (1, 0));
}
