//! Contents of a restore: whole trees, files that rules select, separate data for each host; and incomplete results.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;

use lifeboat::contract::Class;
use lifeboat::contract::restic::{Answer, Backup, Counts, HostQuery, PinnedSnapshot, Restore, Step};
use lifeboat::names::reason;

use rustix::fs::{XattrFlags, getxattr, setxattr};

use super::site::{Site, assert_equal, need_root, strings};
use super::support::tree::{build, describe, write_noise};

// A01
#[test]
#[ignore = "needs root and restic: make test-agent"]
fn a_tree_comes_back_exactly_and_again() {
    let site = Site::new();
    let (data, path) = site.data("data");
    build(&data, 1);
    let want = describe(&data);
    assert!(
        want.values().any(|l| l.contains("user.lifeboat=")),
        "the file system of the tests keeps no extended attributes"
    );
    assert!(want["./sparse"].contains("sparse=true"));
    site.backup("host-0", &[&path]);
    fs::remove_dir_all(&data).unwrap();

    let target = site.target(&path);
    let step = site.step(&[&path]);
    let first = site.run(Step::Restore(step.clone())).restored();
    assert_equal(&want, &target);
    assert_eq!(first.planned.files, want.len() as u64);

    // Over complete data: all files are found equal, and the counts are the same.
    let again = site.run(Step::Restore(step.clone()));
    assert_eq!(again.restored(), first);
    assert_equal(&want, &target);

    // Over data that has changed: longer, shorter, missing and of another type.
    fs::write(target.join("dir-0/sub-0/file-0.json"), "changed").unwrap();
    fs::write(target.join("empty-file"), "no longer empty").unwrap();
    fs::remove_file(target.join("dir-1/sub-1/file-1.bin")).unwrap();
    fs::remove_file(target.join("linked-b")).unwrap();
    fs::remove_file(target.join("link-to-dir")).unwrap();
    fs::write(target.join("link-to-dir"), "now a file").unwrap();
    fs::set_permissions(target.join("empty"), PermissionsExt::from_mode(0o700)).unwrap();
    assert_eq!(site.run(Step::Restore(step)).restored(), first);
    assert_equal(&want, &target);
}

#[test]
#[ignore = "needs root and restic: make test-agent"]
fn a_set_of_paths_is_restored_as_one_run_and_other_mounts_stay() {
    let site = Site::new();
    let (a, path_a) = site.data("a");
    let (b, path_b) = site.data("b [x]*?{}\\ ü");
    write_noise(&a.join("one"), 5000, 1);
    write_noise(&b.join("two"), 7000, 2);
    let (_, path_c) = site.data("empty");
    let made = site.backup("host-0", &[&path_a, &path_b, &path_c]);
    assert_eq!(
        (made.len(), made[0].path.as_str(), made[0].total_files, made[1].total_bytes),
        (3, path_a.as_str(), 1, 7000)
    );
    let query = HostQuery {
        source_host: "host-0".into(),
        snapshots: vec!["latest".into()],
        mounts: strings(&[&path_a, &path_b, &path_c]),
        ..HostQuery::default()
    };
    let pins = site.resolve(query).hosts()[0].snapshots.clone();
    assert!(pins.iter().all(|p| p.id.len() == 64 && p.time.ends_with('Z')));
    let paths: BTreeSet<&str> = pins.iter().filter_map(|p| p.path.as_deref()).collect();
    assert_eq!((pins.len(), paths), (3, [&path_a, &path_b, &path_c].map(String::as_str).into()));

    let (target_a, target_b) = (site.target(&path_a), site.target(&path_b));
    site.target(&path_c);
    let other = site.target("/other/mount");
    fs::write(other.join("mine"), "keep").unwrap();
    fs::write(target_a.join("stale"), "goes, with --delete").unwrap();
    let step = Restore {
        snapshots: pins,
        mounts: strings(&[&path_a, &path_b, &path_c, "/other/mount"]),
        args: strings(&["--delete"]),
        ..Restore::default()
    };
    let ended = site.run(Step::Restore(step));
    assert_eq!(ended.restored().planned, Counts { files: 5, bytes: 12_000 });
    assert_eq!(ended.log.matches(r#""flushed""#).count(), 1, "one file system is put on disk: {}", ended.log);
    assert!(target_a.join("one").exists() && target_b.join("two").exists());
    assert!(!target_a.join("stale").exists());
    assert!(other.join("mine").exists(), "--delete reached another mount");
}

#[test]
#[ignore = "needs root and restic: make test-agent"]
fn a_snapshot_of_several_paths_is_restored_whole_and_one_that_is_gone_is_said() {
    let site = Site::new();
    let ((a, path_a), (b, path_b)) = (site.data("a"), site.data("b"));
    write_noise(&a.join("one"), 5000, 1);
    write_noise(&b.join("two"), 7000, 2);
    let backup = site.restic(&["backup", "--host", "host-0", &path_a, &path_b]).output().unwrap();
    assert!(backup.status.success());
    let whole = Restore { snapshots: vec![], ..site.step(&[&path_a, &path_b]) };
    let query = HostQuery {
        source_host: "host-0".into(),
        snapshots: vec!["latest".into()],
        mounts: whole.mounts.clone(),
        ..HostQuery::default()
    };
    let snapshots = site.resolve(query).hosts()[0].snapshots.clone();
    assert_eq!((snapshots.len(), &snapshots[0].path), (1, &None), "its paths are looked up");
    let whole = Restore { snapshots, ..whole };
    let targets = [site.target(&path_a), site.target(&path_b)];
    site.run(Step::Restore(whole.clone())).restored();
    assert!(targets[0].join("one").exists() && targets[1].join("two").exists());

    let part = site.step(&[&path_a]);
    assert_eq!(part.snapshots[0].path.as_deref(), Some(path_a.as_str()));
    assert!(site.restic(&["forget", &whole.snapshots[0].id]).status().unwrap().success());
    for step in [whole, part] {
        site.run(Step::Restore(step)).failed(Class::Data, reason::SNAPSHOT_NOT_FOUND);
    }
}

// A03
#[test]
#[ignore = "needs root and restic: make test-agent"]
fn nothing_to_restore_is_a_failure_unless_it_is_allowed() {
    let site = Site::new();
    let (data, path) = site.data("data");
    let missing = site.resolve(HostQuery {
        source_host: "host-0".into(),
        paths: strings(&[&path]),
        mounts: strings(&[&path]),
        ..HostQuery::default()
    });
    let failure = missing.hosts()[0].failure.clone().unwrap();
    assert_eq!((failure.class, failure.reason.as_str()), (Class::Data, reason::SNAPSHOT_NOT_FOUND));

    let target = site.target(&path);
    let wanted = |paths: &[&str], include: &[&str], exclude: &[&str], allow_empty: bool| HostQuery {
        source_host: "host-0".into(),
        paths: strings(paths),
        mounts: strings(&[&path]),
        include: strings(include),
        exclude: strings(exclude),
        allow_empty,
        ..HostQuery::default()
    };
    // The preflight finds this, and so does the restore, which may be of another version.
    let nothing = |query: HostQuery, id: &str| {
        let ended = site.resolve(query.clone());
        let failure = ended.hosts()[0].failure.clone().expect("there is nothing");
        assert_eq!((failure.class, failure.reason.as_str()), (Class::Data, reason::NOTHING_TO_RESTORE), "{query:?}");
        let pin =
            |path: &String| PinnedSnapshot { id: id.into(), path: Some(path.clone()), ..PinnedSnapshot::default() };
        let (snapshots, mounts) = (query.paths.iter().map(pin).collect(), query.mounts);
        let HostQuery { include, exclude, allow_empty, .. } = query;
        let step = Restore { snapshots, mounts, include, exclude, allow_empty, ..Restore::default() };
        let ended = site.run(Step::Restore(step));
        assert_eq!(fs::read_dir(&target).unwrap().count(), 0);
        ended
    };
    let id = site.backup("host-0", &[&path])[0].id.clone();
    nothing(wanted(&[&path], &[], &[], false), &id).failed(Class::Data, reason::NOTHING_TO_RESTORE);
    nothing(wanted(&[&path], &[], &[], true), &id).restored();

    fs::write(data.join("a.txt"), "a").unwrap();
    let id = site.backup("host-0", &[&path])[0].id.clone();
    nothing(wanted(&[&path], &["*.json"], &[], false), &id).failed(Class::Data, reason::NOTHING_TO_RESTORE);
    let empty = nothing(wanted(&[&path], &["*.json"], &[], true), &id).restored();
    assert_eq!(empty.planned, Counts::default());
    // The path itself, or a path that the snapshot could contain but does not.
    let gone = format!("{path}/gone");
    for (path, include, exclude) in [
        (&path, &["/elsewhere/*"][..], &[][..]),
        (&path, &[], &["*.txt"]),
        (&path, &[], &["/"]),
        (&gone, &[], &[]),
        (&format!("{gone}/deeper"), &["*"], &[]),
        (&path, &[&*format!("{gone}/deeper/x")], &[]),
    ] {
        nothing(wanted(&[path], include, exclude, false), &id).failed(Class::Data, reason::NOTHING_TO_RESTORE);
    }
    // A missing path is an error even next to an existing one, whatever a pattern selects of it.
    for include in [&[][..], &["*.txt"], &[&*format!("{gone}/deeper/*"), "*.txt"]] {
        let ended = nothing(wanted(&[&path, &gone], include, &[], false), &id);
        let failure = ended.failed(Class::Data, reason::NOTHING_TO_RESTORE);
        let rest = failure.message.split_once(&format!("does not contain {gone}")).map(|(_, rest)| rest);
        assert!(rest.is_some_and(|rest| rest.starts_with([' ', '.'])), "{}", failure.message);
    }

    // An empty file that was backed up alone counts as data.
    fs::write(data.join("lone"), "").unwrap();
    let lone = format!("{path}/lone");
    site.backup("host-0", &[&lone]);
    let query = HostQuery {
        source_host: "host-0".into(),
        paths: strings(&[&lone]),
        mounts: strings(&[&path]),
        ..HostQuery::default()
    };
    let snapshots = site.resolve(query).hosts()[0].snapshots.clone();
    site.run(Step::Restore(Restore { snapshots, mounts: strings(&[&path]), ..Restore::default() })).restored();
    assert!(target.join("lone").exists());
}

// A06
#[test]
#[ignore = "needs root and restic: make test-agent"]
fn only_what_the_rules_select_is_restored() {
    let site = Site::new();
    let (data, path) = site.data("data");
    for name in ["a.json", "b.json", "c.txt", "sub/d.json", "sub/e.txt", "sub/deep/f.json", "other/g.json"] {
        fs::create_dir_all(data.join(name).parent().unwrap()).unwrap();
        fs::write(data.join(name), name).unwrap();
    }
    site.backup("host-0", &[&path]);
    let mount = path.clone();
    let files = |path: &str, include: &[&str], exclude: &[&str]| {
        let target = site.target(&mount);
        fs::remove_dir_all(&target).unwrap();
        fs::create_dir_all(&target).unwrap();
        let step = Restore {
            include: strings(include),
            exclude: strings(exclude),
            mounts: vec![mount.clone()],
            ..site.step(&[path])
        };
        site.run(Step::Restore(step)).restored();
        describe(&target)
            .into_iter()
            .filter(|(_, l)| l.contains("sha256"))
            .map(|(p, _)| p[2..].to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(files(&path, &["*.json"], &[]), ["a.json", "b.json", "other/g.json", "sub/d.json", "sub/deep/f.json"]);
    assert_eq!(files(&path, &[&format!("{path}/*.json")], &[]), ["a.json", "b.json"]);
    assert_eq!(files(&path, &["*.json"], &["b.*", "/**/deep"]), ["a.json", "other/g.json", "sub/d.json"]);
    assert_eq!(files(&path, &[], &["*.json"]), ["c.txt", "sub/e.txt"]);
    assert_eq!(files(&path, &[], &["*.json", "!a.json"]), ["a.json", "c.txt", "sub/e.txt"]);
    let sub = format!("{path}/sub");
    assert_eq!(files(&sub, &[], &[]), ["sub/d.json", "sub/deep/f.json", "sub/e.txt"]);
    assert_eq!(files(&sub, &["*.json"], &[]), ["sub/d.json", "sub/deep/f.json"]);
    assert_eq!(files(&sub, &["sub/*.txt"], &[]), ["sub/e.txt"]);
    assert_eq!(files(&sub, &[], &["deep"]), ["sub/d.json", "sub/e.txt"]);
}

/// Proves: defect 7, invented 15.
#[test]
#[ignore = "needs root and restic: make test-agent"]
fn hosts_never_get_each_others_data() {
    let site = Site::new();
    let (data, path) = site.data("data");
    fs::write(data.join("f"), "zero").unwrap();
    let zero = site.backup("host-0", &[&path]);
    fs::write(data.join("f"), "one").unwrap();
    let one = site.backup("host-1", &[&path]);
    let ask = |source: &str, snapshots: &[&str]| {
        let query = HostQuery {
            source_host: source.into(),
            snapshots: strings(snapshots),
            mounts: vec![path.clone()],
            ..HostQuery::default()
        };
        site.resolve(query).hosts()[0].clone()
    };
    assert_eq!(ask("host-0", &["latest"]).snapshots[0].id, zero[0].id);
    assert_eq!(ask("host-1", &[&one[0].id[..8]]).snapshots[0].id, one[0].id);
    let failure = ask("host-0", &[&one[0].id]).failure.unwrap();
    assert_eq!(failure.reason, reason::SNAPSHOT_OF_ANOTHER_HOST);
    assert!(failure.message.contains("host-0") && failure.message.contains("host-1"));
    let failure = ask("host-7", &["latest"]).failure.unwrap();
    assert!(failure.message.contains("host-1"), "{}", failure.message);
    let outside = HostQuery {
        source_host: "host-0".into(),
        paths: vec![path.clone()],
        mounts: strings(&["/elsewhere"]),
        ..HostQuery::default()
    };
    assert_eq!(site.resolve(outside).hosts()[0].failure.as_ref().unwrap().reason, reason::PATH_OUTSIDE_MOUNTS);
    // The restore step checks this again, independently of the preflight.
    let step = Restore { mounts: strings(&["/elsewhere"]), ..site.step(&[&path]) };
    site.target("/elsewhere");
    site.run(Step::Restore(step)).failed(Class::Invalid, reason::PATH_OUTSIDE_MOUNTS);
}

/// Proves: A02.
#[test]
#[ignore = "needs root and restic: make test-agent"]
fn half_a_backup_is_not_the_newest() {
    let site = Site::new();
    let (a, path_a) = site.data("a");
    let (b, path_b) = site.data("b");
    for file in [a.join("old"), b.join("old")] {
        fs::write(file, "old").unwrap();
    }
    let step = Step::Backup(Backup { host: "host-0".into(), paths: strings(&[&path_a, &path_b]), ..Backup::default() });
    let whole = site.run_task(&site.task_of("run-1", step.clone()));
    let Answer::BackedUp(whole) = whole.answer() else { panic!() };
    let mut whole: Vec<String> = whole.iter().map(|s| s.id.clone()).collect();
    whole.sort();
    fs::write(a.join("new"), "new").unwrap();
    let script = format!("case \"$*\" in *' -- {path_b}') exit 1;; esac; exec \"$RESTIC\" \"$@\"");
    let half = site.run_through(&script, &site.task_of("run-2", step.clone()));
    half.failed(Class::Fatal, reason::RESTIC_FAILED);
    let Some(Answer::BackedUp(made)) = half.own() else { panic!() };
    assert_eq!(made.len(), 1, "the first path is there");
    assert_eq!(site.latest("host-0", &[&path_a, &path_b]), whole);
    // The retried run is complete.
    site.run_task(&site.task_of("run-2", step)).answer();
    assert_ne!(site.latest("host-0", &[&path_a, &path_b]), whole);
}

/// A database does not start if its folder belongs to another user.
///
/// Closes: R26 of the reports.
#[test]
#[ignore = "needs root and restic: make test-agent"]
fn folders_above_what_is_restored_stay_as_they_are() {
    need_root();
    let site = Site::new();
    let (data, path) = site.data("data");
    for folder in ["p/q", "p/r"] {
        fs::create_dir_all(data.join(folder)).unwrap();
        fs::write(data.join(folder).join("f.jpg"), folder).unwrap();
    }
    fs::write(data.join("p/q/t.txt"), "t").unwrap();
    for folder in [data.clone(), data.join("p"), data.join("p/q"), data.join("p/r")] {
        chown(&folder, Some(7), Some(8)).unwrap();
        fs::set_permissions(&folder, PermissionsExt::from_mode(0o751)).unwrap();
    }
    site.backup("host-0", &[&path]);
    let target = site.target(&path);
    let of = |folder: &str| {
        let found = fs::metadata(target.join(folder)).unwrap();
        (found.mode() & 0o7777, found.uid(), found.gid())
    };
    let note = |folder: &str| getxattr(target.join(folder), "user.note", &mut [0; 8]).is_ok();
    let (theirs, ours) = ((0o2710, 999, 998), (0o751, 7, 8));
    let set_up = |folders: &[&str]| {
        let _ = fs::remove_dir_all(&target);
        fs::create_dir_all(&target).unwrap();
        for folder in folders {
            let folder = target.join(folder);
            fs::create_dir_all(&folder).unwrap();
            chown(&folder, Some(theirs.1), Some(theirs.2)).unwrap();
            fs::set_permissions(&folder, PermissionsExt::from_mode(theirs.0)).unwrap();
            setxattr(&folder, "user.note", b"kept", XattrFlags::empty()).unwrap();
        }
    };
    // Existing folders, paths, include; the folders that keep their owner; and the restored entries.
    let below = |p: &str| format!("{path}/{p}");
    for (there, paths, include, stay, come) in [
        (&["", "p"][..], vec![below("p/q")], vec![], &["", "p"][..], &["p/q", "p/q/f.jpg"][..]),
        (&["", "p"], vec![path.clone()], vec![below("p/q")], &["", "p"], &["p/q"]),
        (
            &["", "p", "p/q"],
            vec![path.clone()],
            vec!["*.jpg".into()],
            &["", "p", "p/q"],
            &["p/q/f.jpg", "p/r/f.jpg", "p/r"],
        ),
        (&["", "p", "p/q"], vec![path.clone()], vec![below("p/*/f.jpg")], &["", "p", "p/q"], &["p/r"]),
        // A missing folder is restored with the attributes of the snapshot.
        (&[""], vec![below("p/q")], vec![], &[""], &["p", "p/q"]),
        // A requested path does not count as a folder above it.
        (&["", "p", "p/q"], vec![below("p/q")], vec![], &["", "p"], &["p/q"]),
        (&["", "p"], vec![path.clone()], vec![], &[], &["", "p", "p/q"]),
    ] {
        set_up(there);
        let query = HostQuery {
            source_host: "host-0".into(),
            paths,
            mounts: strings(&[&path]),
            include,
            ..HostQuery::default()
        };
        let host = site.resolve(query.clone()).hosts()[0].clone();
        assert_eq!(host.failure, None, "{query:?}");
        let has_folders = come.iter().any(|c| !c.ends_with("jpg") && query.include.iter().all(|i| !i.ends_with("jpg")));
        let owners: Vec<&str> = host.pins.owner.iter().flat_map(|o| o.split(',')).collect();
        assert!(owners.len() <= 2 && owners.contains(&"7:8") == has_folders, "{owners:?} {query:?}");
        let step = Restore {
            snapshots: host.snapshots.clone(),
            mounts: query.mounts,
            include: query.include.clone(),
            planned: host.planned,
            owner: host.pins.owner,
            ..Restore::default()
        };
        let restored = site.run(Step::Restore(step.clone())).restored();
        for folder in stay {
            assert_eq!((of(folder), note(folder)), (theirs, true), "{folder:?}: {:?} {:?}", query.paths, query.include);
        }
        for entry in come {
            let kept = if entry.ends_with("jpg") { (0o644, 0, 0) } else { ours };
            assert_eq!(of(entry), kept, "{entry:?}: {:?} {:?}", query.paths, query.include);
        }
        assert!(!target.join(".lifeboat-owner").exists());
        // Again, over the restored files, and without the counts of a preflight.
        assert_eq!(site.run(Step::Restore(Restore { planned: None, ..step })).restored(), restored);
    }
}

/// The preflight predicts the result of the restore, whatever a rule selects, and the result follows the rule.
#[test]
#[ignore = "needs root and restic: make test-agent"]
fn what_is_counted_is_what_is_restored() {
    let site = Site::new();
    let (data, path) = site.data("data");
    build(&data, 7);
    fs::hard_link(data.join("dir-0/sub-0/file-0.json"), data.join("hard")).unwrap();
    site.backup("host-0", &[&path]);
    let target = site.target(&path);
    let below = |p: &str| format!("{path}/{p}");
    let entries = || describe(&target).len() as u64;
    for (include, exclude) in [
        (vec![], vec!["*.json".to_owned()]),
        (vec![], vec!["dir-0".into(), "!*.json".into()]),
        (vec![], vec![below("dir-*/sub-[0-1]"), "!file-1.*".into()]),
        (vec![], vec!["*".into(), "!hard".into()]),
        (vec!["*.json".into()], vec![]),
        (vec!["hard".into(), "file-0.json".into()], vec![]),
        (vec![below("dir-0"), below("dir-1/sub-1")], vec!["*.bin".into()]),
        (vec!["dir-?".into(), "!sub-0".into()], vec![]),
        (vec![below("**/sub-1/*")], vec![below("dir-0/**/*.json")]),
        (vec!["link*".into(), "linked-*".into(), "empty".into()], vec![]),
        (vec!["/**".into()], vec![]),
        (vec![format!("{}/../*", below("dir-0")), "dir-1".into()], vec![]),
    ] {
        let _ = fs::remove_dir_all(&target);
        fs::create_dir_all(&target).unwrap();
        let query = HostQuery {
            source_host: "host-0".into(),
            paths: vec![path.clone()],
            mounts: strings(&[&path]),
            include,
            exclude,
            ..HostQuery::default()
        };
        let host = site.resolve(query.clone()).hosts()[0].clone();
        assert_eq!(host.failure, None, "{query:?}");
        let HostQuery { include, exclude, mounts, .. } = query;
        let step = Restore {
            snapshots: host.snapshots,
            mounts,
            include,
            exclude,
            planned: host.planned,
            ..Restore::default()
        };
        let restored = site.run(Step::Restore(step.clone())).restored();
        // The folders above the selected files are on the target, too.
        assert!(restored.planned.files > 0 && restored.planned.files <= entries(), "{step:?}");
        let bytes: u64 = restored.planned.bytes;
        assert!(bytes <= size(&target), "{bytes} {step:?}");
    }
}

/// Bytes of the files of a folder.
fn size(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).unwrap().map(|e| e.unwrap());
    entries.map(|e| if e.file_type().unwrap().is_dir() { size(&e.path()) } else { e.metadata().unwrap().len() }).sum()
}
