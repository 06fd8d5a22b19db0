//! Requirements for the volume: space, and owners that can be set.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use lifeboat::contract::Class;
use lifeboat::contract::Runner;
use lifeboat::contract::restic::{HostQuery, Restore, Step};
use lifeboat::names::reason;
use rustix::fs::{XattrFlags, getxattr, setxattr};

use super::site::{AS_USER, Site, USER, assert_equal, give_to, need_root, strings};
use super::support::tree::{describe, write_noise};

#[test]
#[ignore = "needs root and restic: make test-agent"]
fn enospc_is_refused_before_anything_is_written() {
    need_root();
    let site = Site::new();
    let (data, path) = site.data("data");
    write_noise(&data.join("big"), 12 << 20, 3);
    site.backup("host-0", &[&path]);
    let target = site.target(&path);
    let _small = Tmpfs::mount(&target);
    let ended = site.run(Step::Restore(site.step(&[&path])));
    let failure = ended.failed(Class::Data, reason::NO_SPACE);
    assert!(
        failure.message.contains("12582912") && failure.message.contains("Nothing was written"),
        "{}",
        failure.message
    );
    assert_eq!(fs::read_dir(&target).unwrap().count(), 0);
}

/// The race: space that was free during the check is gone when restic writes.
/// Proves: A05.
#[test]
#[ignore = "needs root and restic: make test-agent"]
fn enospc_while_writing_is_a_failure_with_honest_counts() {
    need_root();
    let site = Site::new();
    let (data, path) = site.data("data");
    for n in 0..12 {
        write_noise(&data.join(format!("file-{n}")), 512 << 10, n);
    }
    site.backup("host-0", &[&path]);
    let target = site.target(&path);
    let _small = Tmpfs::mount(&target);
    // Simulates another writer: fills the volume when the dry run is over.
    let script = format!(
        r#"case " $* " in *" restore "*) case " $* " in *dry-run*) ;; *) head -c 6500000 /dev/zero > '{}/stolen';; esac;; esac
exec "$RESTIC" "$@""#,
        target.display()
    );
    let ended = site.run_through(&script, &site.task(Step::Restore(site.step(&[&path]))));
    let failure = ended.failed(Class::Data, reason::NO_SPACE);
    assert!(failure.exit_code == Some(1), "{failure:?}");
    let counts = ended.counts().unwrap();
    assert!(counts.errors > 0 && counts.restored.files < counts.planned.files, "{counts:?}");
    assert!(counts.restored.bytes < 2 << 20, "{counts:?}");
}

/// Proves: A05.
#[test]
#[ignore = "needs root and restic: make test-agent"]
fn a_sparse_file_needs_the_room_of_its_data_only() {
    need_root();
    let site = Site::new();
    let (data, path) = site.data("data");
    write_noise(&data.join("image"), 100_000, 7);
    fs::File::options().write(true).open(data.join("image")).unwrap().set_len(200 << 20).unwrap();
    site.backup("host-0", &[&path]);
    let target = site.target(&path);
    let _small = Tmpfs::mount(&target);
    fs::create_dir_all(site.path("work")).unwrap();
    site.run(Step::Restore(site.step(&[&path]))).restored();
    assert_eq!(fs::metadata(target.join("image")).unwrap().len(), 200 << 20);
    assert_equal(&describe(&data), &target);
}

/// Proves: A09.
#[test]
#[ignore = "needs root and restic: make test-agent"]
fn owners_may_be_ignored_and_are_asked_about_before_the_workload_is_down() {
    need_root();
    let site = Site::new();
    let (data, path) = site.data("data");
    fs::create_dir(data.join("folder")).unwrap();
    fs::write(data.join("folder/roots"), "x").unwrap();
    symlink("folder/roots", data.join("link")).unwrap();
    site.backup("host-0", &[&path]);
    let query = HostQuery {
        source_host: "host-0".into(),
        paths: vec![path.clone()],
        mounts: vec![path.clone()],
        runner: Some(Runner { uid: 65_534, gids: vec![65_534] }),
        ..HostQuery::default()
    };
    let ended = site.resolve(query.clone());
    let failure = ended.hosts()[0].failure.clone().expect("not theirs");
    assert_eq!((failure.class, failure.reason.as_str()), (Class::Invalid, reason::OWNERSHIP));
    assert!(failure.message.contains("ownership: Ignore"), "{}", failure.message);
    let root = HostQuery { runner: Some(Runner { uid: 0, gids: vec![0] }), ..query };
    assert_eq!(site.resolve(root).hosts()[0].failure, None, "all of it is root's");

    let step = Restore { ignore_owners: true, ..site.step(&[&path]) };
    let target = site.target(&path);
    give_to(&site, USER, &target);
    // The mount point of a volume with an fsGroup: owned by another user, but writable.
    std::os::unix::fs::chown(&target, Some(0), Some(65_534)).unwrap();
    fs::set_permissions(&target, PermissionsExt::from_mode(0o2775)).unwrap();
    let ended = site.run_behind(&AS_USER, &site.task(Step::Restore(step)));
    ended.restored();
    assert_eq!(fs::metadata(target.join("folder/roots")).unwrap().uid(), 65_534);
    assert_eq!(fs::read_to_string(target.join("link")).unwrap(), "x");
}

/// Proves: A09.
#[test]
#[ignore = "needs root and restic: make test-agent"]
fn owners_that_cannot_be_given_are_refused_before_anything_is_written() {
    need_root();
    let site = Site::new();
    let (data, path) = site.data("data");
    fs::write(data.join("mine"), "x").unwrap();
    std::os::unix::fs::chown(data.join("mine"), Some(65_534), Some(65_534)).unwrap();
    fs::write(data.join("roots"), "x").unwrap();
    site.backup("host-0", &[&path]);
    let step = site.step(&[&path]);
    let target = site.target(&path);
    give_to(&site, USER, &target);
    let run = |step: &Restore, wrapper: &[&str]| site.run_behind(wrapper, &site.task(Step::Restore(step.clone())));
    let ended = run(&step, &AS_USER);
    let failure = ended.failed(Class::Invalid, reason::OWNERSHIP);
    assert!(
        failure.message.contains("roots") && failure.message.contains("0:0") && failure.message.contains("runAsUser"),
        "{}",
        failure.message
    );
    assert_eq!(fs::read_dir(&target).unwrap().count(), 0);

    // Files that are not selected do not count: with only files of this user the restore works.
    let own = Restore { include: strings(&["mine"]), ..step.clone() };
    run(&own, &AS_USER).restored();
    assert_eq!(fs::metadata(target.join("mine")).unwrap().uid(), 65_534);

    // Root without the capability gets the same failure.
    let bare = ["setpriv", "--bounding-set=-chown", "--inh-caps=-all"];
    let foreign = Restore { include: strings(&["mine"]), ..step.clone() };
    run(&foreign, &bare).failed(Class::Invalid, reason::OWNERSHIP);

    // A mount that is not writable.
    std::os::unix::fs::chown(&target, Some(0), Some(0)).unwrap();
    fs::set_permissions(&target, PermissionsExt::from_mode(0o755)).unwrap();
    run(&own, &AS_USER).failed(Class::Invalid, reason::PERMISSION_DENIED);
}

/// Like snapshots of one volume below a path, or a file that is renamed during its backup: they cannot be distinguished
/// from hard links before they are restored.
#[test]
#[ignore = "needs root and restic: make test-agent"]
fn files_that_only_look_like_hard_links_are_restored_and_counted() {
    need_root();
    let site = Site::new();
    let (data, path) = site.data("data");
    let mut mounts = vec![];
    for name in ["a", "b"] {
        fs::create_dir(data.join(name)).unwrap();
        mounts.push(Tmpfs::mount(&data.join(name)));
        let file = data.join(name).join("f");
        write_noise(&file, 5000, 1);
        let long_ago = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
        fs::File::options().write(true).open(&file).unwrap().set_modified(long_ago).unwrap();
    }
    let inode = |name: &str| fs::metadata(data.join(name)).unwrap().ino();
    assert_eq!(inode("a/f"), inode("b/f"), "two new file systems number alike");
    fs::hard_link(data.join("a/f"), data.join("a/linked")).unwrap();
    site.backup("host-0", &[&path]);
    let query = HostQuery {
        source_host: "host-0".into(),
        paths: strings(&[&path]),
        mounts: strings(&[&path]),
        ..HostQuery::default()
    };
    let planned = site.resolve(query).hosts()[0].planned.unwrap();
    assert_eq!((planned.files, planned.bytes), (6, 5000), "that is all the list says");
    let target = site.target(&path);
    let step = Restore { planned: Some(planned), ..site.step(&[&path]) };
    let restored = site.run(Step::Restore(step.clone())).restored();
    assert_eq!((restored.planned.files, restored.planned.bytes), (6, 10_000));
    assert_eq!(fs::metadata(target.join("b/f")).unwrap().len(), 5000);
    // A plan with another number of entries is not accepted as an estimate.
    let more = lifeboat::contract::restic::Counts { files: 7, ..planned };
    let ended = site.run(Step::Restore(Restore { planned: Some(more), ..step }));
    ended.failed(Class::Data, reason::INCOMPLETE);
}

/// An 8 MiB file system that is unmounted on drop.
pub struct Tmpfs(PathBuf);

impl Tmpfs {
    pub fn mount(at: &Path) -> Self {
        let flags = nix::mount::MsFlags::empty();
        nix::mount::mount(Some("lifeboat-test"), at, Some("tmpfs"), flags, Some("size=8m")).unwrap();
        Self(at.to_owned())
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(&self.0, nix::mount::MntFlags::MNT_DETACH);
    }
}

/// Labels belong to the node: no process in a container may set or remove them.
///
/// Closes: R01 of the reports.
#[test]
#[ignore = "needs root and restic: make test-agent"]
fn labels_of_the_node_are_left_to_the_node() {
    need_root();
    let label = |path: &Path, name: &str, value: &str| {
        setxattr(path, name, value.as_bytes(), XattrFlags::empty()).unwrap_or_else(|e| panic!("{name}: {e}"));
    };
    let read = |path: &Path, name: &str| {
        let mut value = [0; 64];
        getxattr(path, name, &mut value).map(|n| String::from_utf8_lossy(&value[..n]).into_owned()).ok()
    };
    let site = Site::new();
    let (data, path) = site.data("data");
    for file in ["labelled", "plain"] {
        fs::write(data.join(file), file).unwrap();
    }
    for (name, value) in [("security.selinux", "theirs"), ("trusted.cache", "t"), ("user.kept", "u")] {
        label(&data.join("labelled"), name, value);
    }
    site.backup("host-0", &[&path]);
    let target = site.target(&path);
    fs::write(target.join("plain"), "old").unwrap();
    for (name, value) in [("security.selinux", "ours"), ("trusted.cache", "o"), ("user.gone", "g")] {
        label(&target.join("plain"), name, value);
    }
    let caps = "-sys_admin,-mac_admin,-mac_override";
    let contained = ["setpriv", &format!("--bounding-set={caps}"), &format!("--inh-caps={caps}")];
    let step = site.step(&[&path]);
    for args in [&[][..], &["--exclude-xattr=user.other"]] {
        let step = Restore { args: strings(args), ..step.clone() };
        site.finish(site.command(&site.task(Step::Restore(step)).encode(), &contained).spawn().unwrap()).restored();
        let names = ["security.selinux", "trusted.cache", "user.kept", "user.gone"];
        let of = |file: &str| names.map(|name| read(&target.join(file), name));
        assert_eq!(of("labelled"), [None, None, Some("u".into()), None]);
        assert_eq!(of("plain"), [Some("ours".into()), Some("o".into()), None, None]);
    }
}
