//! Every argument that a user may add to restic, with the real restic: its effect together with the agent's arguments,
//! and that a success is as complete as the argument says. An argument that is not in the tables here fails the tests.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use lifeboat::contract::restic::{Answer, Backup, HostQuery, Maintain, Own, Restore, Restored, Retention, Step};
use lifeboat::plan::systems::restic::args::{Command, names, parse, tags, without_tags};
use rustix::fs::{XattrFlags, getxattr, setxattr};

use super::site::{Site, need_root, restore_of, strings};
use super::support::tree::write_noise;
use super::volume::Tmpfs;

/// Regular files below a folder, with their contents.
fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut open = vec![folder.to_owned()];
    while let Some(at) = open.pop() {
        for entry in fs::read_dir(at).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                let name = path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned();
                found.insert(name, fs::read(&path).unwrap());
            }
        }
    }
    found
}

fn set_time(file: &Path, time: SystemTime) {
    fs::File::options().write(true).open(file).unwrap().set_modified(time).unwrap();
}

/// Files of the tree below that an argument of a backup changes: left out, or as in the backup before.
fn of_backup(name: &str) -> (&'static [&'static str], &'static [&'static str], &'static [&'static str]) {
    match name {
        "--tag" => (&["--tag=gold,blue"], &[], &[]),
        "--exclude-caches" => (&["--exclude-caches"], &["cache/c"], &[]),
        "--exclude-if-present" => (&["--exclude-if-present=.nobackup"], &["marked/m"], &[]),
        "--exclude-larger-than" => (&["--exclude-larger-than", "100K"], &["large"], &[]),
        "--one-file-system" => (&["--one-file-system"], &["mounted/x"], &[]),
        // restic identifies a file by size and time; ctime and inode would reveal the change.
        "--ignore-inode" => (&["--ignore-inode"], &[], &["disguised", "replaced"]),
        "--ignore-ctime" => (&["--ignore-ctime"], &[], &["disguised"]),
        "--limit-upload" => (&["--limit-upload=20000"], &[], &[]),
        "--read-concurrency" => (&["--read-concurrency=64"], &[], &[]),
        "--pack-size" => (&["--pack-size=4"], &[], &[]),
        "--compression" => (&["--compression=max"], &[], &[]),
        "--no-scan" => (&["--no-scan"], &[], &[]),
        "--iexclude" => (&["--iexclude=*.tmp"], &["UPPER.TMP"], &[]),
        other => panic!("{other} is allowed, and nobody has tried what it does to a backup"),
    }
}

#[test]
#[ignore = "needs root and restic: make test-agent"]
fn each_argument_of_a_backup_does_what_it_says() {
    need_root();
    let site = Site::new();
    let (data, path) = site.data("data");
    for name in ["keep.txt", "UPPER.TMP", "cache/c", "marked/.nobackup", "marked/m", "sub/s", "mounted/under"] {
        fs::create_dir_all(data.join(name).parent().unwrap()).unwrap();
        fs::write(data.join(name), name).unwrap();
    }
    fs::write(data.join("cache/CACHEDIR.TAG"), "Signature: 8a477f597d28d172789f06886806bc55\n").unwrap();
    write_noise(&data.join("large"), 300_000, 1);
    let _other = Tmpfs::mount(&data.join("mounted"));
    fs::write(data.join("mounted/x"), "x").unwrap();
    let old = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    let disguise = |content: &str| {
        for name in ["disguised", "replaced"] {
            let (file, new) = (data.join(name), data.join("new"));
            if name == "replaced" {
                // Written next to the file and moved over it: a different inode.
                fs::write(&new, content).unwrap();
                set_time(&new, old);
                fs::rename(new, file).unwrap();
            } else {
                fs::write(&file, content).unwrap();
                set_time(&file, old);
            }
        }
    };
    let mut hosts = vec![];
    for name in names(Command::Backup) {
        let (args, left_out, as_before) = of_backup(name);
        parse(Command::Backup, &strings(args)).unwrap_or_else(|e| panic!("{e:?}"));
        let host = name.trim_start_matches('-');
        let step = Backup { host: host.into(), paths: strings(&[&path]), args: strings(args), ..Backup::default() };
        let backup = |n: u32| {
            let task = site.task_of(&format!("{host}-{n}"), Step::Backup(step.clone()));
            let Answer::BackedUp(made) = site.run_task(&task).answer().clone() else { panic!() };
            made[0].clone()
        };
        disguise("before");
        fs::write(data.join("sub/s"), "before").unwrap();
        let before = contents(&data);
        backup(1);
        disguise("behind");
        fs::write(data.join("sub/s"), "after it").unwrap();
        let made = backup(2);
        let mut want = contents(&data);
        want.retain(|file, _| !left_out.contains(&file.as_str()));
        for file in as_before {
            want.insert((*file).to_owned(), before[*file].clone());
        }
        assert_eq!(made.total_files, want.len() as u64, "{name}");
        hosts.push((host.to_owned(), made.id, want));
    }
    let query = |host: &str, tags: Vec<Vec<String>>| HostQuery {
        source_host: host.into(),
        snapshots: strings(&["latest"]),
        mounts: strings(&[&path]),
        tags,
        ..HostQuery::default()
    };
    let target = site.target(&path);
    let comes_back = |(host, id, want): &(String, String, BTreeMap<String, Vec<u8>>)| {
        let found = site.resolve(query(host, vec![])).hosts()[0].clone();
        assert_eq!((found.failure.as_ref(), &found.snapshots[0].id), (None, id), "{host}");
        fs::remove_dir_all(&target).unwrap();
        fs::create_dir_all(&target).unwrap();
        let step = restore_of(&found, &[&path]);
        site.run(Step::Restore(step)).restored();
        let have = contents(&target);
        let differ: BTreeSet<_> =
            want.iter().chain(&have).filter(|(k, _)| want.get(*k) != have.get(*k)).map(|(k, _)| k).collect();
        assert!(differ.is_empty(), "{host}: {differ:?}");
    };
    hosts.iter().for_each(comes_back);
    assert_eq!(site.resolve(query("tag", tags(&strings(&["--tag=blue"])))).hosts()[0].failure, None);
    // The older snapshot of each host and its data are removed; the kept snapshots are complete.
    let all: Vec<String> = hosts.iter().map(|(host, ..)| host.clone()).collect();
    let retention =
        Retention { keep_last: Some(1), keep_tags: strings(&["gold"]), prune: true, ..Retention::default() };
    let own = vec![Own { path: path.clone(), hosts: all }];
    let ended = site.run(Step::Maintain(Maintain { own, retention }));
    let Answer::Maintained(facts) = ended.answer() else { panic!() };
    let count = i64::try_from(hosts.len()).unwrap();
    assert_eq!((facts.removed, facts.integrity), (count - 1, Some(true)), "both that are tagged are kept");
    hosts.iter().filter(|(host, ..)| ["tag", "pack-size", "compression"].contains(&host.as_str())).for_each(comes_back);
}

/// State of a file of the target after a restore with arguments.
#[derive(Clone, Copy, Debug, PartialEq)]
enum File {
    Restored,
    Left,
}
use File::{Left, Restored as Back};

/// For each argument of a restore: its spellings, and the result for a file that is older than the file of the backup,
/// for a newer file, and for a file that has other content of the same size and time.
fn of_restore(name: &str) -> &'static [(&'static [&'static str], [File; 3])] {
    const ALL: [File; 3] = [Back; 3];
    match name {
        "--tag" => &[(&["--tag=gold"], ALL), (&["--tag", "none", "--tag=gold,lifeboat.paths=1"], ALL)],
        "--verify" => &[(&["--verify"], ALL), (&["--verify=false"], ALL)],
        "--sparse" => &[(&["--sparse"], ALL), (&["--sparse=false"], ALL)],
        "--overwrite" => &[
            (&["--overwrite=always"], ALL),
            (&["--overwrite", "if-changed"], [Back, Back, Left]),
            (&["--overwrite=if-newer"], [Back, Left, Left]),
            (&["--overwrite=never", "--verify"], [Left; 3]),
        ],
        "--exclude-xattr" => &[(&["--exclude-xattr=user.dr*"], ALL)],
        "--include-xattr" => &[(&["--include-xattr", "user.kept"], ALL)],
        "--limit-download" => &[(&["--limit-download=20000"], ALL), (&["--limit-download=0"], ALL)],
        other => panic!("{other} is allowed, and nobody has tried what it does to a restore"),
    }
}

#[test]
#[ignore = "needs root and restic: make test-agent"]
fn each_argument_of_a_restore_does_what_it_says() {
    need_root();
    let site = Site::new();
    let (data, path) = site.data("data");
    fs::create_dir(data.join("sub")).unwrap();
    let at = |seconds: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000 + seconds);
    let files = ["older", "newer", "disguised", "sub/missing"];
    for file in files {
        fs::write(data.join(file), "of the backup").unwrap();
        set_time(&data.join(file), at(100));
    }
    let sparse = fs::File::create(data.join("sparse")).unwrap();
    sparse.set_len(8 << 20).unwrap();
    for name in ["user.kept", "user.dropped"] {
        setxattr(data.join("sub/missing"), name, b"x", XattrFlags::empty()).unwrap();
    }
    let gold =
        Backup { host: "host-0".into(), paths: strings(&[&path]), args: strings(&["--tag=gold"]), ..Backup::default() };
    site.run_task(&site.task_of("gold", Step::Backup(gold))).answer();
    let target = site.target(&path);
    let is_there = |name: &str| getxattr(target.join("sub/missing"), name, &mut [0; 8]).is_ok();
    let run = |args: &[&str]| -> Restored {
        let args = strings(args);
        parse(Command::Restore, &args).unwrap_or_else(|e| panic!("{e:?}"));
        let query = HostQuery {
            source_host: "host-0".into(),
            snapshots: strings(&["latest"]),
            mounts: strings(&[&path]),
            tags: tags(&args),
            ..HostQuery::default()
        };
        let found = site.resolve(query).hosts()[0].clone();
        assert_eq!(found.failure, None, "{args:?}");
        let step = Restore { args: without_tags(&args), ..restore_of(&found, &[&path]) };
        site.run(Step::Restore(step)).restored()
    };
    for name in names(Command::Restore) {
        for (args, [older, newer, disguised]) in of_restore(name) {
            fs::remove_dir_all(&target).unwrap();
            fs::create_dir_all(&target).unwrap();
            for (file, content, time) in
                [("older", "its own", at(0)), ("newer", "its own", at(200)), ("disguised", "of the other.", at(100))]
            {
                fs::write(target.join(file), content).unwrap();
                set_time(&target.join(file), time);
            }
            if name == "--tag" {
                // A newer backup without the tag.
                fs::write(data.join("older"), "of a newer one").unwrap();
                site.backup("host-0", &[&path]);
            }
            run(args);
            for (file, expected) in
                [("older", older), ("newer", newer), ("disguised", disguised), ("sub/missing", &Back)]
            {
                let has = fs::read_to_string(target.join(file)).unwrap();
                let is = if has == "of the backup" { Back } else { Left };
                assert_eq!(is, *expected, "{args:?}: {file} has {has:?}");
            }
            if name == "--tag" {
                fs::write(data.join("older"), "of the backup").unwrap();
                set_time(&data.join("older"), at(100));
                let all = Backup { host: "host-0".into(), paths: strings(&[&path]), ..Backup::default() };
                site.run_task(&site.task_of("again", Step::Backup(all))).answer();
            }
            let attributes = (is_there("user.kept"), is_there("user.dropped"));
            assert_eq!(attributes, (true, !name.ends_with("xattr")), "{args:?}");
            let holes = fs::metadata(target.join("sparse")).unwrap();
            assert_eq!((holes.len(), holes.blocks() == 0), (8 << 20, args != &["--sparse=false"]), "{args:?}");
        }
    }
}
