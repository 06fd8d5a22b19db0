//! `extraneous: Delete`: the target equals the snapshots, and nothing else is deleted.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use lifeboat::contract::Class;
use lifeboat::contract::restic::{Backup, HostQuery, PinnedSnapshot, Restore, Step};
use lifeboat::names::reason;

use super::site::{Ended, Site, assert_equal, need_root, strings, wait_for};
use super::support::tree::{build, describe};
use super::volume::Tmpfs;

/// Extraneous files of a tree whose deletion is interrupted: their names fill the pipe of the log, which is not read.
pub const MANY: usize = 20_000;

pub fn exact(site: &Site, paths: &[&str]) -> Restore {
    Restore { exact: true, ..site.step(paths) }
}

pub fn write(folder: &Path, files: &[&str]) {
    for file in files {
        fs::create_dir_all(folder.join(file).parent().unwrap()).unwrap();
        fs::write(folder.join(file), *file).unwrap();
    }
}

/// The files of a folder, including links.
pub fn files(folder: &Path) -> Vec<String> {
    describe(folder).into_iter().filter(|(_, l)| l.contains("sha256")).map(|(p, _)| p[2..].to_owned()).collect()
}

pub fn deleted(ended: &Ended) -> Option<u64> {
    ended.counts()?.deleted
}

#[test]
#[ignore = "needs root and restic: make test-agent"]
fn a_target_is_what_the_snapshot_is_byte_for_byte() {
    let site = Site::new();
    let (data, path) = site.data("data");
    build(&data, 1);
    let want = describe(&data);
    site.backup("host-0", &[&path]);

    let target = site.target(&path);
    let outside = site.path("outside");
    write(&outside, &["precious", "deep/precious"]);
    // Another tree in the target, with more files, and with folders, links and hard links that the snapshot lacks.
    build(&target, 5);
    write(&target, &["extra/a/b/c", "extra/d", "dir-0/sub-0/new", "odd names/<&> \u{2028}"]);
    symlink(&outside, target.join("extra/outside")).unwrap();
    symlink(&outside, target.join("way-out")).unwrap();
    symlink("/nowhere", target.join("dir-1/dangling")).unwrap();
    fs::hard_link(target.join("linked-a"), target.join("extra/hard")).unwrap();
    assert!(Command::new("mkfifo").arg(target.join("pipe")).status().unwrap().success());
    let keep = site.run(Step::Restore(site.step(&[&path])));
    assert_eq!((deleted(&keep), keep.outcome.failure.is_none()), (None, true));
    assert!(target.join("extra/d").exists(), "kept without a word");

    let ended = site.run(Step::Restore(exact(&site, &[&path])));
    ended.restored();
    assert_equal(&want, &target);
    // extra, a, b, c, d, outside, hard; new, the odd one; two links; a pipe.
    assert_eq!(deleted(&ended), Some(12), "{}", ended.log);
    assert!(ended.log.contains(&format!("{path}/extra/a/b/c")) && ended.log.contains("\"deleted\""), "{}", ended.log);
    assert_eq!(ended.log.matches(r#""flushed""#).count(), 2, "before anything is deleted, and after: {}", ended.log);
    assert_eq!(files(&outside), ["deep/precious", "precious"]);
    // A second restore has nothing to do.
    let again = site.run(Step::Restore(exact(&site, &[&path])));
    assert_eq!((deleted(&again), again.restored().restored), (Some(0), ended.restored().restored));
    assert_equal(&want, &target);
}

/// restic lists each byte that is not UTF-8 as one replacement character, and so does the agent.
#[test]
#[ignore = "needs root and restic: make test-agent"]
fn names_that_are_no_text_are_told_apart() {
    let site = Site::new();
    let (data, path) = site.data("data");
    let target = site.target(&path);
    let kept = [&b"odd \xff"[..], b"odd \xe2\x82", b"odd \xf0\x9f\x98 \xc3", b"line\nbreak", b"\xe2\x98\x83 <&>"];
    // The last name looks like a name that is kept: to keep a file too many is better than to delete one too many.
    let extra = [&b"extra \xff"[..], b"extra \xe2\x82", b"odd", b"odd \xff\xff\xff", b"odd \xfe"];
    for name in kept {
        fs::write(data.join(OsStr::from_bytes(name)), name).unwrap();
    }
    site.backup("host-0", &[&path]);
    for name in extra {
        fs::write(target.join(OsStr::from_bytes(name)), name).unwrap();
    }
    let ended = site.run(Step::Restore(exact(&site, &[&path])));
    ended.restored();
    let mut want: Vec<&[u8]> = kept.into_iter().chain([extra[4]]).collect();
    want.sort_unstable();
    let names = fs::read_dir(&target).unwrap().map(|e| e.unwrap().file_name().as_bytes().to_vec());
    let mut have: Vec<Vec<u8>> = names.collect();
    have.sort_unstable();
    assert_eq!((have, deleted(&ended)), (want.into_iter().map(<[u8]>::to_vec).collect(), Some(4)));
    let said = ended.outcome.warnings.join(" ");
    assert!(said.contains("not UTF-8 were not deleted") && said.contains("odd \u{fffd}"), "{said}");
    fs::remove_file(target.join(OsStr::from_bytes(extra[4]))).unwrap();
    let ended = site.run(Step::Restore(exact(&site, &[&path])));
    assert_eq!((deleted(&ended), ended.outcome.warnings), (Some(0), vec![]), "none is there that the backup has not");
}

#[test]
#[ignore = "needs root and restic: make test-agent"]
fn what_the_rule_does_not_select_stays() {
    let site = Site::new();
    let (data, path) = site.data("data");
    write(&data, &["a.json", "b.txt", "sub/c.json", "other/d.txt"]);
    site.backup("host-0", &[&path]);
    let target = site.target(&path);
    let more = ["x.json", "x.tmp", "sub/x.txt", "new/x.json", "new/deep/x.tmp", "new/deep/y.txt", "lost+found/#12"];
    let left = |paths: &[&str], include: &[&str], exclude: &[&str]| {
        fs::remove_dir_all(&target).unwrap();
        fs::create_dir(&target).unwrap();
        write(&target, &more);
        let (include, exclude) = (strings(include), strings(exclude));
        let step = Restore { include, exclude, mounts: vec![path.clone()], ..exact(&site, paths) };
        let ended = site.run(Step::Restore(step));
        ended.restored();
        let all = files(&target);
        assert_eq!(deleted(&ended).unwrap() > 0, more.iter().any(|m| !all.iter().any(|a| a == m)));
        let left: Vec<String> = all.into_iter().filter(|f| more.contains(&f.as_str())).collect();
        assert!(left.contains(&"lost+found/#12".to_owned()), "it is the file system's own");
        left[1..].join(" ")
    };
    let below = |p: &str| format!("{path}/{p}");
    assert_eq!(left(&[&path], &[], &[]), "");
    assert_eq!(left(&[&path], &[], &["*.tmp"]), "new/deep/x.tmp x.tmp");
    assert_eq!(left(&[&path], &["*.json"], &[]), "new/deep/x.tmp new/deep/y.txt sub/x.txt x.tmp");
    assert_eq!(left(&[&path], &[], &["new", "!*.json"]), "new/deep/x.tmp new/deep/y.txt");
    assert_eq!(left(&[&path], &[&below("sub")], &[]), "new/deep/x.tmp new/deep/y.txt new/x.json x.json x.tmp");
    // With one path in the volume, all other files stay.
    assert_eq!(left(&[&below("sub")], &[], &[]), "new/deep/x.tmp new/deep/y.txt new/x.json x.json x.tmp");
    assert_eq!(
        left(&[&below("sub"), &below("other")], &[], &[]),
        "new/deep/x.tmp new/deep/y.txt new/x.json x.json x.tmp"
    );
    assert_eq!(
        left(&[&below("sub/c.json")], &[], &[]),
        "new/deep/x.tmp new/deep/y.txt new/x.json sub/x.txt x.json x.tmp",
        "a file has nothing in it"
    );
}

/// A restore does not delete files that a backup left out or could not read.
#[test]
#[ignore = "needs root and restic: make test-agent"]
fn what_the_backup_left_out_stays() {
    let site = Site::new();
    let (data, path) = site.data("data");
    write(&data, &["a.json", "sub/b.txt"]);
    let backup = Backup {
        host: "host-0".into(),
        paths: vec![path.clone()],
        exclude: strings(&["*.log", "!keep.log", "cache"]),
        ..Backup::default()
    };
    site.run(Step::Backup(backup)).answer();
    let target = site.target(&path);
    let more = ["x.log", "keep.log", "cache/x.json", "new/x.log", "new/x.json", "x.json", "x.txt"];
    for (include, left) in [
        (&[][..], &["a.json", "cache/x.json", "new/x.log", "sub/b.txt", "x.log"][..]),
        (&["*.json"], &["a.json", "cache/x.json", "keep.log", "new/x.log", "sub/b.txt", "x.log", "x.txt"]),
    ] {
        write(&target, &more);
        let step = Restore { include: strings(include), ..exact(&site, &[&path]) };
        site.run(Step::Restore(step)).restored();
        assert_eq!(files(&target), left, "{include:?}");
    }
    let step = exact(&site, &[&path]);
    let id = step.snapshots[0].id.clone();
    assert!(site.restic(&["tag", "--add", "lifeboat.incomplete", &id]).status().unwrap().success());
    let query = |exact| HostQuery {
        source_host: "host-0".into(),
        // The snapshot has another id by now.
        snapshots: vec![incomplete(&site)],
        mounts: vec![path.clone()],
        exact,
        ..HostQuery::default()
    };
    let ended = site.resolve(query(true));
    let failure = ended.hosts()[0].failure.clone().expect("it misses files");
    assert_eq!((failure.class, failure.reason.as_str()), (Class::Data, reason::INCOMPLETE));
    let snapshots = site.resolve(query(false)).hosts()[0].snapshots.clone();
    let ended = site.run(Step::Restore(Restore { snapshots, ..step }));
    ended.failed(Class::Data, reason::INCOMPLETE);
    assert!(ended.outcome.untouched);
}

/// Id of the snapshot with missing files.
fn incomplete(site: &Site) -> String {
    let listed = site.restic(&["snapshots", "--json", "--tag", "lifeboat.incomplete"]).output().unwrap();
    let all: serde_json::Value = serde_json::from_slice(&listed.stdout).unwrap();
    all[0]["id"].as_str().unwrap().to_owned()
}

#[test]
#[ignore = "needs root and restic: make test-agent"]
fn what_any_snapshot_of_the_host_holds_stays() {
    let site = Site::new();
    let (data, path) = site.data("data");
    write(&data, &["a", "sub/old"]);
    site.backup("host-0", &[&path]);
    fs::remove_file(data.join("sub/old")).unwrap();
    write(&data, &["sub/new"]);
    let sub = format!("{path}/sub");
    site.backup("host-0", &[&sub]);
    let target = site.target(&path);
    write(&target, &["extra", "sub/extra"]);
    let step = Restore { mounts: vec![path.clone()], ..exact(&site, &[&path, &sub]) };
    assert_eq!(step.snapshots.len(), 2);
    for deletes in [2, 0] {
        let ended = site.run(Step::Restore(step.clone()));
        ended.restored();
        assert_eq!((deleted(&ended), files(&target)), (Some(deletes), strings(&["a", "sub/new", "sub/old"])));
    }
}

#[test]
#[ignore = "needs root and restic: make test-agent"]
fn nothing_is_deleted_where_not_all_is_restored() {
    let site = Site::new();
    let (data, path) = site.data("data");
    write(&data, &["a", "b"]);
    site.backup("host-0", &[&path]);
    let target = site.target(&path);
    write(&target, &["extra"]);
    let task = site.task(Step::Restore(exact(&site, &[&path])));
    for (script, why) in [
        // restic ends with an error.
        (r#""$RESTIC" "$@"; code=$?; case " $* " in *" restore "*) exit 1;; esac; exit $code"#.to_owned(), ""),
        // One file less, and no error.
        (
            r#"case " $* " in *" restore "*) "$RESTIC" "$@" | sed 's/"files_restored":[0-9]*/"files_restored":1/; s/"files_skipped":[0-9]*/"files_skipped":0/; s/"bytes_restored":[0-9]*/"bytes_restored":1/';; *) exec "$RESTIC" "$@";; esac"#
                .to_owned(),
            reason::INCOMPLETE,
        ),
        // A volume that stores files under other names.
        (
            format!(
                r#"case " $* " in *" restore "*) "$RESTIC" "$@"; code=$?; mv '{0}/a' '{0}/A'; exit $code;; *) exec "$RESTIC" "$@";; esac"#,
                target.display()
            ),
            reason::EXTRANEOUS_NOT_DELETED,
        ),
    ] {
        let ended = site.run_through(&script, &task);
        let failure = ended.failure();
        assert!(why.is_empty() || failure.reason == why, "{failure:?}");
        assert!(target.join("extra").exists(), "{failure:?}");
        assert_eq!(deleted(&ended).unwrap_or(0), 0);
        assert!(!ended.outcome.untouched);
    }
    let ended = site.run_task(&task);
    ended.restored();
    // The renamed file is extraneous now.
    assert_eq!((deleted(&ended), files(&target)), (Some(2), strings(&["a", "b"])));
}

#[test]
#[ignore = "needs root and restic: make test-agent"]
fn a_snapshot_that_holds_nothing_of_a_path_empties_no_path() {
    let site = Site::new();
    let (data, path) = site.data("data");
    let (empty, empty_path) = site.data("empty");
    write(&data, &["a.txt"]);
    site.backup("host-0", &[&path, &empty_path]);
    let (target, other) = (site.target(&path), site.target(&empty_path));
    write(&target, &["extra"]);
    write(&other, &["precious.json"]);
    for (paths, include) in [(&[&*path, &empty_path][..], &[][..]), (&[&*path], &["*.json"]), (&[&*empty_path], &[])] {
        // The preflight finds this, and so does the restore. Paths that are fully excluded are not checked.
        let query = HostQuery {
            source_host: "host-0".into(),
            paths: strings(paths),
            mounts: strings(&[&path, &empty_path]),
            include: strings(include),
            exact: true,
            ..HostQuery::default()
        };
        let ended = site.resolve(query.clone());
        let failure = ended.hosts()[0].failure.clone().expect("it would be emptied");
        assert_eq!((failure.class, failure.reason.as_str()), (Class::Data, reason::NOTHING_TO_RESTORE));
        let pins =
            site.resolve(HostQuery { exact: false, include: vec![], paths: strings(&[&path, &empty_path]), ..query });
        let all = pins.hosts()[0].snapshots.clone();
        let snapshots: Vec<PinnedSnapshot> =
            all.into_iter().filter(|p| paths.contains(&p.path.as_deref().unwrap())).collect();
        for allow_empty in [false, true] {
            let step = Restore {
                snapshots: snapshots.clone(),
                mounts: strings(&[&path, &empty_path]),
                include: strings(include),
                allow_empty,
                exact: true,
                ..Restore::default()
            };
            let ended = site.run(Step::Restore(step));
            ended.failed(Class::Data, reason::NOTHING_TO_RESTORE);
            assert!(ended.outcome.untouched);
        }
    }
    assert!(target.join("extra").exists() && other.join("precious.json").exists() && empty.exists());
}

#[test]
#[ignore = "needs root and restic: make test-agent"]
fn volumes_that_are_mounted_below_are_not_entered() {
    need_root();
    let site = Site::new();
    let (data, path) = site.data("data");
    write(&data, &["a", "vol/b", "hidden/c"]);
    site.backup("host-0", &[&path]);
    let target = site.target(&path);
    let own = format!("{path}/vol");
    write(&target, &["extra", "vol/under", "other/under"]);
    let mounts = [Tmpfs::mount(&target.join("vol")), Tmpfs::mount(&target.join("other"))];
    write(&target, &["vol/precious", "other/precious"]);
    let step = Restore { mounts: strings(&[&path, &own]), ..exact(&site, &[&path]) };
    let ended = site.run(Step::Restore(step.clone()));
    ended.restored();
    assert_eq!(deleted(&ended), Some(1));
    assert_eq!(files(&target), ["a", "hidden/c", "other/precious", "vol/b", "vol/precious"]);
    let said = ended.outcome.warnings.join(" ");
    assert!(said.contains(&own) && said.contains(&format!("{path}/other")), "{said}");
    // If the path is named, it is searched as well.
    let both = Restore { snapshots: exact(&site, &[&path, &own]).snapshots, ..step };
    let ended = site.run(Step::Restore(both));
    ended.restored();
    assert_eq!((deleted(&ended), files(&target)), (Some(1), strings(&["a", "hidden/c", "other/precious", "vol/b"])));
    drop(mounts);
    assert!(target.join("vol/under").exists() && target.join("other/under").exists());
}

#[test]
#[ignore = "needs root and restic: make test-agent"]
fn what_cannot_be_deleted_fails_and_the_rest_goes_once() {
    need_root();
    let site = Site::new();
    let (data, path) = site.data("data");
    write(&data, &["a"]);
    site.backup("host-0", &[&path]);
    let want = describe(&data);
    let target = site.target(&path);
    write(&target, &["extra/fixed", "extra/free", "more"]);
    let chattr = |flag: &str| {
        assert!(Command::new("chattr").arg(flag).arg(target.join("extra/fixed")).status().unwrap().success());
    };
    chattr("+i");
    let ended = site.run(Step::Restore(exact(&site, &[&path])));
    let failure = ended.failed(Class::Data, reason::EXTRANEOUS_NOT_DELETED).clone();
    chattr("-i");
    assert!(failure.message.contains(&format!("{path}/extra/fixed")), "{failure:?}");
    assert!(failure.message.contains("1 extraneous"), "{failure:?}");
    assert_eq!((deleted(&ended), files(&target)), (Some(2), strings(&["a", "extra/fixed"])));
    let again = site.run(Step::Restore(exact(&site, &[&path])));
    again.restored();
    assert_eq!(deleted(&again), Some(2), "the file and its folder");
    assert_equal(&want, &target);
}

#[test]
#[ignore = "needs root and restic: make test-agent"]
fn killed_in_the_middle_the_next_one_ends_it() {
    let site = Site::new();
    let (data, path) = site.data("data");
    build(&data, 3);
    let want = describe(&data);
    site.backup("host-0", &[&path]);
    let target = site.target(&path);
    fs::create_dir(target.join("many")).unwrap();
    for n in 0..MANY {
        fs::write(target.join(format!("many/{n}")), "").unwrap();
    }
    let task = site.task(Step::Restore(exact(&site, &[&path])));
    let mut child = site.command(&task.encode(), &[]).spawn().unwrap();
    let left = || fs::read_dir(target.join("many")).map_or(0, Iterator::count);
    wait_for(|| left() < MANY);
    child.kill().unwrap();
    child.wait().unwrap();
    let before = left();
    let ended = site.run_task(&task);
    ended.restored();
    assert_eq!(deleted(&ended), Some(before as u64 + 1), "with their folder");
    assert_equal(&want, &target);
}
