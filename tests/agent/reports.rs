//! Inputs similar to those that users have reported, with the real restic.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Stdio};

use lifeboat::contract::Class;
use lifeboat::contract::restic::{Answer, Backup, HostQuery, Maintain, Own, Prepare, Restore, Retention, Step};
use lifeboat::names::reason;
use rustix::fs::{XattrFlags, getxattr, setxattr};

use super::site::{Host, PASSWORD, Site, need_root, restic, restore_of, strings};

pub fn query(paths: &[&str], mounts: &[&str]) -> HostQuery {
    HostQuery { source_host: "host-0".into(), paths: strings(paths), mounts: strings(mounts), ..HostQuery::default() }
}

pub fn ask(site: &Site, query: HostQuery) -> Host {
    site.resolve(query).hosts()[0].clone()
}

fn backup_of(paths: &[&str], exclude: &[&str], args: &[&str]) -> Step {
    Step::Backup(Backup {
        host: "host-0".into(),
        paths: strings(paths),
        exclude: strings(exclude),
        args: strings(args),
        ..Backup::default()
    })
}

/// A path of which restic would store the name and no data, and a path that patterns leave out: neither is a backup.
///
/// Closes: R10 of the reports.
#[test]
#[ignore = "needs root and restic: make test-agent"]
fn a_path_of_which_nothing_would_be_saved_is_no_backup() {
    need_root();
    let site = Site::new();
    let (data, path) = site.data("data");
    let make = |words: &[&str]| {
        assert!(Command::new(words[0]).args(&words[1..]).current_dir(&data).status().unwrap().success());
    };
    make(&["mknod", "disk", "b", "7", "99"]);
    make(&["mknod", "null", "c", "1", "3"]);
    make(&["mkfifo", "pipe"]);
    let _socket = UnixListener::bind(data.join("socket")).unwrap();
    for (name, what) in [("disk", "a device"), ("null", "a device"), ("pipe", "a pipe"), ("socket", "a socket")] {
        let ended = site.run(backup_of(&[&path, &format!("{path}/{name}")], &[], &[]));
        let said = &ended.failed(Class::Invalid, reason::PATH_IS_NO_FILE).message;
        assert!(said.contains(&format!("{path}/{name} is {what}")), "{said}");
    }
    assert_eq!(fs::read_dir(site.path("repo/snapshots")).unwrap().count(), 0);

    fs::create_dir_all(data.join("sub/empty")).unwrap();
    fs::write(data.join("sub/f"), "f").unwrap();
    fs::write(data.join("sub/.nobackup"), "").unwrap();
    let (sub, file, empty) = (format!("{path}/sub"), format!("{path}/sub/f"), format!("{path}/sub/empty"));
    let step = |n: usize, step: Step| site.run_task(&site.task_of(&format!("run-{n}"), step));
    step(0, backup_of(&[&sub], &[], &[])).answer();
    let whole = site.latest("host-0", &[&path]);
    for (n, (path, exclude, args)) in (1..).zip([
        // The name of the folder itself, the name of a folder above it, its path, and all files.
        (&sub, &["sub"][..], &[][..]),
        (&sub, &["data"], &[]),
        (&sub, &[&*sub], &[]),
        (&sub, &["*"], &[]),
        (&sub, &["*.log", "s*b"], &[]),
        (&sub, &[], &["--iexclude=SUB"]),
        (&file, &[], &["--exclude-larger-than=0"]),
        (&file, &[], &["--exclude-if-present=.nobackup"]),
    ]) {
        let ended = step(n, backup_of(&[path], exclude, args));
        let said = &ended.failed(Class::Invalid, reason::NOTHING_TO_BACK_UP).message;
        assert!(said.contains(&format!("The snapshot contains nothing of {path}")), "{said}");
        assert_eq!(
            site.latest("host-0", &[&data.to_string_lossy()]),
            whole,
            "what holds nothing is taken for the latest"
        );
    }
    // The contents of the path may all be excluded, and the path may be empty.
    let inside = format!("{sub}/*");
    step(20, backup_of(&[&sub], &[&inside], &[])).answer();
    step(21, backup_of(&[&empty], &[], &[])).answer();
    step(22, backup_of(&[&format!("{path}//sub/")], &["*", "!sub"], &[])).answer();
}

/// Patterns that users write in place of `--iinclude`, and patterns that select nothing.
///
/// Closes: R42 of the reports.
#[test]
#[ignore = "needs root and restic: make test-agent"]
fn an_include_never_means_everything() {
    let site = Site::new();
    let (data, path) = site.data("data");
    for name in ["a.jpg", "b.JPG", "c.txt", "d[1].jpg", " e.jpg", "!f.jpg"] {
        fs::write(data.join(name), name).unwrap();
    }
    site.backup("host-0", &[&path]);
    let target = site.target(&path);
    let restored = |include: &[&str]| -> Result<Vec<String>, String> {
        fs::remove_dir_all(&target).unwrap();
        fs::create_dir_all(&target).unwrap();
        let found = ask(&site, HostQuery { include: strings(include), ..query(&[&path], &[&path]) });
        if let Some(failure) = found.failure {
            return Err(failure.reason);
        }
        let step = Restore { include: strings(include), ..restore_of(&found, &[&path]) };
        site.run(Step::Restore(step)).restored();
        let mut names: Vec<String> =
            fs::read_dir(&target).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        Ok(names)
    };
    let nothing = || Err(reason::NOTHING_TO_RESTORE.to_owned());
    assert_eq!(restored(&["*.[jJ][pP][gG]"]), Ok(strings(&[" e.jpg", "!f.jpg", "a.jpg", "b.JPG", "d[1].jpg"])));
    assert_eq!(restored(&["*.JPG"]), Ok(strings(&["b.JPG"])));
    assert_eq!(restored(&["d\\[1].jpg"]), Ok(strings(&["d[1].jpg"])));
    assert_eq!(restored(&[" e.jpg"]), Ok(strings(&[" e.jpg"])));
    assert_eq!(restored(&["\\!f.jpg"]), Ok(strings(&["!f.jpg"])));
    // A pattern that only negates, patterns that match no name, and patterns that mean something in other tools.
    for include in ["!*.jpg", "*.png", "a.jpg ", "**/*.png", "/a.jpg", "{a,b}.jpg", "(a|b).jpg"] {
        assert_eq!(restored(&[include]), nothing(), "{include:?}");
    }
    // restic reports the error of an invalid pattern.
    assert!(restored(&["[a"]).is_err());
}

/// Volumes that refuse owners (NFS with root_squash), and volumes that report success and change nothing (SMB). A
/// library replaces their server. The agent tests the volume before restic starts.
///
/// Closes: R13, R14 of the reports.
#[test]
#[ignore = "needs root and restic: make test-agent"]
fn a_volume_that_keeps_no_owners_is_found_before_the_first_byte() {
    need_root();
    let site = Site::new();
    let library = |name: &str, body: &str| {
        let (source, built) = (site.path(&format!("{name}.c")), site.path(&format!("{name}.so")));
        let text = format!(
            "#include <errno.h>\n#include <unistd.h>\nint lchown(const char *p, uid_t u, gid_t g) {{ {body} }}\n"
        );
        fs::write(&source, text).unwrap();
        let made = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&built).arg(&source).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        built
    };
    let refuses = library("refuses", "errno = EPERM; return -1;");
    let pretends = library("pretends", "return 0;");
    let (mine, mine_path) = site.data("mine");
    let (roots, roots_path) = site.data("roots");
    let (mixed, mixed_path) = site.data("mixed");
    for (folder, owners) in [(&mine, &[1234, 1234][..]), (&roots, &[0, 0]), (&mixed, &[0, 1234])] {
        for (n, owner) in owners.iter().enumerate() {
            let file = folder.join(format!("f{n}"));
            fs::write(&file, "x").unwrap();
            chown(&file, Some(*owner), Some(*owner)).unwrap();
        }
    }
    site.backup("host-0", &[&mine_path, &roots_path, &mixed_path]);
    let run = |path: &str, group: u32, library: &Path, ignore_owners: bool| {
        let found = ask(&site, query(&[path], &[path]));
        let step = Restore { owner: found.pins.owner.clone(), ignore_owners, ..restore_of(&found, &[path]) };
        let target = site.target(path);
        fs::remove_dir_all(&target).unwrap();
        fs::create_dir_all(&target).unwrap();
        // New files belong to this group, like all files on a share that is mounted for one group.
        chown(&target, None, Some(group)).unwrap();
        fs::set_permissions(&target, PermissionsExt::from_mode(0o2777)).unwrap();
        let _ = fs::remove_file(site.path("outcome"));
        let mut command = site.command(&site.task(Step::Restore(step)).encode(), &[]);
        let ended = site.finish(command.env("LD_PRELOAD", library).spawn().unwrap());
        (ended, fs::read_dir(&target).unwrap().count())
    };
    for (path, group, library, owner) in [
        (&mine_path, 0, &refuses, "1234:1234"),
        (&mine_path, 0, &pretends, "1234:1234"),
        // The owner that the share gives to all files is the first owner of the snapshot, but not the only one.
        (&mixed_path, 0, &pretends, "1234:1234"),
        (&roots_path, 0, &refuses, "0:0"),
        (&roots_path, 777, &pretends, "0:0"),
    ] {
        let (ended, left) = run(path, group, library, false);
        let said = &ended.failed(Class::Invalid, reason::OWNERSHIP).message;
        assert!(
            said.contains(owner) && said.contains("ownership: Ignore") && said.contains("Nothing was written"),
            "{said}"
        );
        assert!(ended.outcome.untouched && left == 0, "{path}: {left} files are left");
    }
    // All files of the snapshot have the owner that the volume gives to all files.
    let (ended, _) = run(&roots_path, 0, &pretends, false);
    ended.restored();
    let (ended, left) = run(&mine_path, 0, &refuses, true);
    ended.restored();
    assert_eq!(left, 2);
}

/// Closes: R21 of the reports.
#[test]
#[ignore = "needs root and restic: make test-agent"]
fn clocks_that_are_wrong_choose_no_snapshot_and_remove_none() {
    let site = Site::new();
    let (data, path) = site.data("data");
    let at = |content: &str, time: &str| {
        fs::write(data.join("f"), content).unwrap();
        let made = site.restic(&["backup", "--json", "--host", "host-0", "--time", time, &path]).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let text = String::from_utf8_lossy(&made.stdout).into_owned();
        let summary: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
        summary["snapshot_id"].as_str().unwrap().to_owned()
    };
    at("reset clock", "1970-01-01 00:00:01");
    let far = at("far", "2037-01-01 00:00:00");
    at("farther", "2099-12-31 23:59:59");
    fs::write(data.join("f"), "today").unwrap();
    let today = site.backup("host-0", &[&path])[0].id.clone();
    let chosen = |change: &dyn Fn(&mut HostQuery)| {
        let mut query = query(&[], &[&path]);
        change(&mut query);
        let found = ask(&site, query);
        let said = found.warnings.iter().any(|w| w.contains("has the time 2099-12-31"));
        (found.snapshots.first().map(|s| s.id.clone()), said)
    };
    let by_path = |q: &mut HostQuery| q.paths = strings(&[&path]);
    let latest = |q: &mut HostQuery| q.snapshots = strings(&["latest"]);
    assert_eq!(chosen(&by_path), (Some(today.clone()), true));
    assert_eq!(chosen(&latest), (Some(today.clone()), true));
    let now = |q: &mut HostQuery| {
        by_path(q);
        q.as_of = Some("2098-01-01T00:00:00Z".into());
    };
    assert_eq!(chosen(&now).0, Some(today.clone()), "2037 was not complete by then, whatever it says");
    let named = |q: &mut HostQuery| q.snapshots = vec![far[..8].to_owned()];
    assert_eq!(chosen(&named), (Some(far.clone()), false), "who names it means it");

    // Retention: a snapshot with a future date replaces no other snapshot.
    let maintain = |retention: Retention| {
        let own = vec![Own { path: path.clone(), hosts: strings(&["host-0"]) }];
        let ended = site.run(Step::Maintain(Maintain { own, retention }));
        let Answer::Maintained(facts) = ended.answer().clone() else { panic!() };
        (facts.removed, ended.outcome.warnings.clone())
    };
    fs::write(data.join("f"), "newest").unwrap();
    let newest = site.backup("host-0", &[&path])[0].id.clone();
    let (removed, said) = maintain(Retention { keep_last: Some(1), prune: true, ..Retention::default() });
    assert_eq!(removed, 2, "of today's the newest is kept, and not that of 1970");
    assert!(said.len() == 1 && said[0].contains("2 snapshots of ") && said[0].contains("2099-12-31"), "{said:?}");
    assert_eq!(chosen(&latest).0, Some(newest.clone()));
    maintain(Retention { keep_daily: Some(1), ..Retention::default() });
    assert_eq!(chosen(&latest).0, Some(newest));
}

/// Closes: R02 of the reports.
#[test]
#[ignore = "needs root and restic: make test-agent"]
fn a_password_as_editors_write_it_opens() {
    // With the mark that some editors put before a text; restic removes it from a file, and Stash passes it on.
    for (whole, made_with) in [
        (format!("\u{feff}{PASSWORD}"), format!("\u{feff}{PASSWORD}")),
        (format!("\u{feff}{PASSWORD}\r\n"), format!("\u{feff}{PASSWORD}\r\n")),
        (format!("\u{feff}{PASSWORD}\n"), PASSWORD.to_owned()),
        (format!("{PASSWORD}\n\n"), format!("{PASSWORD}\n\n")),
        (format!("\t{PASSWORD}\u{a0}"), format!("\t{PASSWORD}\u{a0}")),
    ] {
        let site = Site::empty();
        let init =
            Command::new(restic()).args(["--repo", &site.url, "init"]).env("RESTIC_PASSWORD", &made_with).output();
        assert!(init.unwrap().status.success());
        fs::write(site.path("secret/RESTIC_PASSWORD"), &whole).unwrap();
        let ended = site.run(Step::Prepare(Prepare {}));
        assert_eq!(*ended.answer(), Answer::Prepared { created: false }, "{whole:?}");
        assert_eq!(ended.outcome.warnings.len(), usize::from(whole == made_with), "{whole:?}");
    }
}

/// Attributes of the data are restored, and attributes of the node are not.
///
/// Closes: R01 of the reports.
#[test]
#[ignore = "needs root and restic: make test-agent"]
fn attributes_of_the_data_come_back_beside_labels_that_do_not() {
    need_root();
    let site = Site::new();
    let (data, path) = site.data("data");
    let file = data.join("program");
    fs::write(&file, "x").unwrap();
    fs::create_dir(data.join("folder")).unwrap();
    // cap_net_bind_service=ep (linux/capability.h, revision 2), and user 7 may read (linux/posix_acl_xattr.h).
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let entry = |tag: u8, may: u8, id: u32| [&[tag, 0, may, 0][..], &id.to_le_bytes()].concat();
    let entries =
        [entry(1, 6, u32::MAX), entry(2, 4, 7), entry(4, 4, u32::MAX), entry(16, 4, u32::MAX), entry(32, 0, u32::MAX)];
    let acl = [&2_u32.to_le_bytes()[..], &entries.concat()].concat();
    let set = |at: &Path, name: &str, value: &[u8]| {
        setxattr(at, name, value, XattrFlags::empty()).unwrap_or_else(|e| panic!("{name}: {e}"));
    };
    set(&file, "security.capability", &capability);
    set(&file, "system.posix_acl_access", &acl);
    set(&data.join("folder"), "system.posix_acl_default", &acl);
    set(&file, "trusted.overlay.opaque", b"y");
    set(&file, "security.selinux", b"theirs");
    set(&data.join("folder"), "security.selinux", b"theirs");
    site.backup("host-0", &[&path]);
    let target = site.target(&path);
    let caps = "-sys_admin,-mac_admin,-mac_override";
    let contained = ["setpriv", &format!("--bounding-set={caps}"), &format!("--inh-caps={caps}")];
    let step = site.step(&[&path]);
    site.finish(site.command(&site.task(Step::Restore(step)).encode(), &contained).spawn().unwrap()).restored();
    let get = |at: &str, name: &str| {
        let mut value = [0; 256];
        getxattr(target.join(at), name, &mut value).ok().map(|n| value[..n].to_vec())
    };
    assert_eq!(get("program", "security.capability"), Some(capability.to_vec()));
    assert_eq!(get("program", "system.posix_acl_access"), Some(acl.clone()));
    assert_eq!(get("folder", "system.posix_acl_default"), Some(acl));
    for (at, name) in
        [("program", "trusted.overlay.opaque"), ("program", "security.selinux"), ("folder", "security.selinux")]
    {
        assert_eq!(get(at, name), None, "{name}");
    }
}

/// Closes: R11 of the reports.
#[test]
#[ignore = "needs root and restic: make test-agent"]
fn devices_are_known_before_the_workload_is_down_wherever_they_are() {
    need_root();
    let site = Site::new();
    let (data, path) = site.data("data");
    fs::create_dir_all(data.join("odd/deep")).unwrap();
    fs::write(data.join("f"), "f").unwrap();
    let make = |words: &[&str]| {
        assert!(Command::new(words[0]).args(&words[1..]).current_dir(&data).status().unwrap().success());
    };
    make(&["mknod", "odd/deep/zero", "c", "1", "5"]);
    make(&["mknod", "odd/disk", "b", "7", "99"]);
    // A file that was deleted in an overlay.
    make(&["mknod", "odd/whiteout", "c", "0", "0"]);
    make(&["mkfifo", "pipe"]);
    let _socket = UnixListener::bind(data.join("socket")).unwrap();
    site.backup("host-0", &[&path]);
    let found = |paths: &[&str], include: &[&str], exclude: &[&str]| {
        let (include, exclude) = (strings(include), strings(exclude));
        ask(&site, HostQuery { no_devices: true, include, exclude, ..query(paths, &[&path]) })
    };
    let odd = format!("{path}/odd");
    for (paths, include, count) in
        [(&path, &[][..], 3), (&odd, &[], 3), (&path, &["zero"], 1), (&path, &["odd/deep"], 1), (&path, &["dis*"], 1)]
    {
        let failure = found(&[paths], include, &[]).failure.expect("it is refused");
        assert_eq!((failure.class, failure.reason.as_str()), (Class::Invalid, reason::DEVICES));
        let said = &failure.message;
        assert!(
            said.starts_with(&format!("{count} device files (for example {path}/odd/")) && said.contains("MKNOD"),
            "{said}"
        );
    }
    // Pipes need no permission, sockets are not backed up, and files that are not selected do not count.
    let without = found(&[&path], &[], &[&odd]);
    assert_eq!(without.failure, None);
    let target = site.target(&path);
    let step = Restore {
        snapshots: without.snapshots,
        mounts: strings(&[&path]),
        planned: without.planned,
        exclude: strings(&[&odd]),
        ..Restore::default()
    };
    let bare = ["setpriv", "--bounding-set=-mknod", "--inh-caps=-mknod"];
    let task = site.task(Step::Restore(step)).encode();
    site.finish(site.command(&task, &bare).stderr(Stdio::piped()).spawn().unwrap()).restored();
    assert!(target.join("pipe").exists() && !target.join("odd").exists());
    // With the permission, the devices are restored.
    let all = ask(&site, query(&[&path], &[&path]));
    let step =
        Restore { snapshots: all.snapshots, mounts: strings(&[&path]), planned: all.planned, ..Restore::default() };
    site.run(Step::Restore(step)).restored();
    let device = fs::metadata(target.join("odd/deep/zero")).unwrap();
    assert_eq!(rustix::fs::major(device.rdev()), 1);
}

/// Access lists of folders above the restored path stay, and so do files next to it.
///
/// Closes: R26 of the reports.
#[test]
#[ignore = "needs root and restic: make test-agent"]
fn what_is_above_is_left_alone_whatever_it_is() {
    need_root();
    let site = Site::new();
    let (data, path) = site.data("data");
    fs::create_dir_all(data.join("p/q/r")).unwrap();
    fs::write(data.join("p/q/r/f"), "f").unwrap();
    site.backup("host-0", &[&path]);
    let target = site.target(&path);
    let deep = format!("{path}/p/q/r");
    let restore = || {
        let found = ask(&site, query(&[&deep], &[&path]));
        let step = Restore { owner: found.pins.owner.clone(), ..restore_of(&found, &[&path]) };
        site.run(Step::Restore(step)).restored();
        assert_eq!(fs::read_to_string(target.join("p/q/r/f")).unwrap(), "f");
    };
    fs::create_dir_all(target.join("p/q")).unwrap();
    let entry = |tag: u8, may: u8, id: u32| [&[tag, 0, may, 0][..], &id.to_le_bytes()].concat();
    let entries =
        [entry(1, 7, u32::MAX), entry(2, 5, 7), entry(4, 5, u32::MAX), entry(16, 5, u32::MAX), entry(32, 0, u32::MAX)];
    let acl = [&2_u32.to_le_bytes()[..], &entries.concat()].concat();
    for (folder, name) in [("p", "system.posix_acl_access"), ("p/q", "system.posix_acl_default")] {
        setxattr(target.join(folder), name, &acl, XattrFlags::empty()).unwrap();
    }
    fs::write(target.join("p/beside"), "beside").unwrap();
    restore();
    for (folder, name) in [("p", "system.posix_acl_access"), ("p/q", "system.posix_acl_default")] {
        let mut value = [0; 256];
        let now = getxattr(target.join(folder), name, &mut value).map(|n| value[..n].to_vec());
        assert_eq!(now, Ok(acl.clone()), "{folder} {name}");
    }
    // A read-only folder above the path, and a file next to the path.
    fs::set_permissions(target.join("p"), PermissionsExt::from_mode(0o500)).unwrap();
    restore();
    assert_eq!(fs::metadata(target.join("p")).unwrap().mode() & 0o7777, 0o500);
    assert_eq!(fs::read_to_string(target.join("p/beside")).unwrap(), "beside");
}
