//! `extraneous: Delete` with patterns: of the rule, of backups that used other patterns, and patterns that restic
//! refuses; and the state when the agent is told to stop.

use std::fs;

use lifeboat::contract::Class;
use lifeboat::contract::restic::{Backup, HostQuery, Restore, Step};
use lifeboat::names::reason;

use super::exact::{MANY, deleted, exact, files, write};
use super::site::{Site, kill, strings, wait_for};

fn back_up(site: &Site, paths: &[&str], exclude: &[&str]) {
    let (paths, exclude) = (strings(paths), strings(exclude));
    site.run(Step::Backup(Backup { host: "host-0".into(), paths, exclude, ..Backup::default() })).answer();
}

/// The backup negates an exclude of its own. The exclude of the rule still applies, and its files stay.
#[test]
#[ignore = "needs root and restic: make test-agent"]
fn what_the_rule_excludes_stays_whatever_the_backup_excluded() {
    let site = Site::new();
    let (data, path) = site.data("data");
    write(&data, &["a", "keep.log"]);
    back_up(&site, &[&path], &["*.log", "!keep.log"]);
    let target = site.target(&path);
    write(&target, &["extra", "other.log"]);
    fs::write(target.join("keep.log"), "changed since").unwrap();
    let step = exact(&site, &[&path]);
    let ended = site.run(Step::Restore(Restore { exclude: strings(&["keep.log"]), ..step.clone() }));
    ended.restored();
    assert_eq!((deleted(&ended), files(&target)), (Some(1), strings(&["a", "keep.log", "other.log"])));
    assert_eq!(fs::read_to_string(target.join("keep.log")).unwrap(), "changed since");
    // The rule does not negate an exclude of the backup either.
    let ended = site.run(Step::Restore(Restore { exclude: strings(&["*.log", "!other.log"]), ..step }));
    assert_eq!((deleted(&ended), files(&target)), (Some(0), strings(&["a", "keep.log", "other.log"])));
}

/// A configuration was edited: the newer backup is of a folder of the older one, and has excludes that the older one
/// had not.
#[test]
#[ignore = "needs root and restic: make test-agent"]
fn what_any_backup_of_the_host_excluded_stays() {
    let site = Site::new();
    let (data, path) = site.data("data");
    write(&data, &["a", "sub/b"]);
    back_up(&site, &[&path], &[]);
    let sub = format!("{path}/sub");
    back_up(&site, &[&sub], &["*.cache"]);
    let target = site.target(&path);
    let by_paths = Restore { mounts: vec![path.clone()], ..exact(&site, &[&path, &sub]) };
    let mut by_ids = by_paths.clone();
    by_ids.snapshots.iter_mut().for_each(|pin| pin.path = None);
    let mut turned = by_paths.clone();
    turned.snapshots.reverse();
    for step in [by_paths, by_ids, turned] {
        assert_eq!(step.snapshots.len(), 2);
        write(&target, &["extra", "x.cache", "sub/extra", "sub/x.cache", "sub/new/x.cache"]);
        let ended = site.run(Step::Restore(step));
        ended.restored();
        let left = strings(&["a", "sub/b", "sub/new/x.cache", "sub/x.cache"]);
        assert_eq!((deleted(&ended), files(&target)), (Some(3), left));
    }
}

/// As deep as restic can restore; a process with 1024 file descriptors could not walk such a tree.
#[test]
#[ignore = "needs root and restic: make test-agent"]
fn a_deep_tree_comes_back_exactly() {
    let site = Site::new();
    let (data, path) = site.data("data");
    let place = format!("{}leaf", "d/".repeat(1500));
    write(&data, &["a", &place]);
    site.backup("host-0", &[&path]);
    let target = site.target(&path);
    write(&target, &["extra", &format!("{}extra", "d/".repeat(1500))]);
    let task = site.task(Step::Restore(exact(&site, &[&path])));
    let _ = fs::remove_file(site.path("outcome"));
    // The limits of a container runtime.
    let limited = site.command(&task.encode(), &["prlimit", "--nofile=1024:4096"]).spawn().unwrap();
    let ended = site.finish(limited);
    ended.restored();
    assert_eq!(deleted(&ended), Some(2), "{}", ended.log);
    assert!(target.join(&place).exists() && !target.join("extra").exists());
    // The tree is too deep for the stack of a test.
    for folder in [data, target] {
        assert!(std::process::Command::new("rm").arg("-rf").arg(folder.join("d")).status().unwrap().success());
    }
}

/// Arguments with which restic does not start, or that it refuses before it opens the repository, leave everything as
/// it is. The outcome says so: the workload can start again.
#[test]
#[ignore = "needs root and restic: make test-agent"]
fn arguments_that_restic_refuses_touch_nothing() {
    let site = Site::new();
    let (data, path) = site.data("data");
    write(&data, &["a", "b"]);
    site.backup("host-0", &[&path]);
    let target = site.target(&path);
    write(&target, &["extra"]);
    fs::write(target.join("a"), "changed since").unwrap();
    let planned = site.run(Step::Restore(site.step(&[&path]))).restored().planned;
    fs::write(target.join("a"), "changed since").unwrap();
    fs::remove_file(target.join("b")).unwrap();
    for is_exact in [false, true] {
        let step = Restore { exact: is_exact, planned: Some(planned), ..site.step(&[&path]) };
        let of_args = |args: &[&str]| Restore { args: strings(args), ..step.clone() };
        let of_rule = |include: &[&str], exclude: &[&str]| Restore {
            include: strings(include),
            exclude: strings(exclude),
            ..step.clone()
        };
        for (step, class, why) in [
            (of_args(&["--include-xattr=user.\0x"]), Class::Invalid, "NUL character"),
            (of_args(&["--include-xattr=[a"]), Class::Fatal, "invalid pattern"),
            (of_args(&["--overwrite=maybe"]), Class::Fatal, "invalid argument"),
            (of_args(&["--include-xattr=a", "--exclude-xattr=b"]), Class::Fatal, "mutually exclusive"),
            (of_rule(&[], &["[a"]), Class::Invalid, "A pattern of exclude"),
            (of_rule(&["a\0b"], &[]), Class::Invalid, "A pattern of include"),
        ] {
            let ended = site.run(Step::Restore(step));
            let failure = ended.failure();
            assert!(failure.class == class && failure.message.contains(why), "{failure:?}");
            assert!(ended.outcome.untouched && ended.outcome.answer.is_none(), "{:?}", ended.outcome);
            assert_eq!(files(&target), ["a", "extra"]);
            assert_eq!(fs::read_to_string(target.join("a")).unwrap(), "changed since");
        }
    }
    for (include, exclude) in [(&[][..], &["![a-]"][..]), (&["/data/[a"], &[]), (&[], &["\0"])] {
        let query = HostQuery {
            source_host: "host-0".into(),
            snapshots: strings(&["latest"]),
            mounts: strings(&[&path]),
            include: strings(include),
            exclude: strings(exclude),
            ..HostQuery::default()
        };
        let failure = site.resolve(query).hosts()[0].failure.clone().expect("restic would refuse it");
        assert_eq!((failure.class, failure.reason.as_str()), (Class::Invalid, reason::INVALID), "{failure:?}");
    }
}

/// The answer contains the number of files that were deleted so far: the run adds up these numbers.
#[test]
#[ignore = "needs root and restic: make test-agent"]
fn told_to_stop_it_says_what_was_deleted() {
    let site = Site::new();
    let (data, path) = site.data("data");
    write(&data, &["a"]);
    site.backup("host-0", &[&path]);
    let target = site.target(&path);
    for n in 0..MANY {
        fs::create_dir_all(target.join("many")).unwrap();
        fs::write(target.join(format!("many/{n}")), "").unwrap();
    }
    let task = site.task(Step::Restore(exact(&site, &[&path])));
    let _ = fs::remove_file(site.path("outcome"));
    let child = site.command(&task.encode(), &[]).spawn().unwrap();
    // The names of the files fill the pipe of the log, which is not read until the agent is told to stop.
    let left = || fs::read_dir(target.join("many")).map_or(0, Iterator::count);
    wait_for(|| left() < MANY);
    kill(child.id(), "TERM");
    let ended = site.finish(child);
    ended.failed(Class::Transient, reason::TERMINATED);
    let gone = MANY - left();
    assert!(gone > 0 && gone < MANY, "{gone}");
    assert_eq!(deleted(&ended), Some(gone as u64), "{:?}", ended.outcome);
    assert!(!ended.outcome.untouched);
    let ended = site.run_task(&task);
    ended.restored();
    assert_eq!((deleted(&ended), files(&target)), (Some((MANY - gone) as u64 + 1), strings(&["a"])));
}
