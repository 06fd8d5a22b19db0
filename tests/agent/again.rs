//! A second run on the remains of a first run: it does not count files as restored that are not.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use lifeboat::contract::Class;
use lifeboat::contract::restic::{Restore, Step};
use lifeboat::names::reason;

use super::site::{AS_USER, Site, USER, assert_equal, give_to, strings};
use super::support::tree::{describe, write_noise};

/// restic through a script that hides a pack during the first restore, like a prune that moves the pack.
fn pruned_once(site: &Site) -> String {
    let pack = site.packs().into_iter().max_by_key(|p| fs::metadata(p).unwrap().len()).unwrap();
    format!(
        r#"case " $* " in *" --dry-run "*) ;; *" restore "*)
if [ ! -e {once} ]; then touch {once}; mv {pack} {away}; "$RESTIC" "$@"; code=$?; mv {away} {pack}; exit $code; fi;;
esac
exec "$RESTIC" "$@""#,
        once = site.path("once").display(),
        pack = pack.display(),
        away = site.path("away").display()
    )
}

/// The first run has linked the names of a file. restic then restarts such a file and fetches only the differences.
#[test]
#[ignore = "needs root and restic: make test-agent"]
fn hard_links_that_a_first_run_has_made_are_what_the_snapshot_has() {
    let site = Site::new();
    let (data, path) = site.data("data");
    write_noise(&data.join("a"), 40_000_000, 1);
    fs::hard_link(data.join("a"), data.join("b")).unwrap();
    site.backup("host-0", &[&path]);
    let target = site.target(&path);
    let step = site.step(&[&path]);
    let ended = site.run_through(&pruned_once(&site), &site.task(Step::Restore(step)));
    ended.restored();
    assert!(site.path("once").exists());
    assert_equal(&describe(&data), &target);
    assert_eq!(fs::metadata(target.join("a")).unwrap().nlink(), 2);
}

/// A file of which a part failed gets its full size and the time of the snapshot from restic.
#[test]
#[ignore = "needs root and restic: make test-agent"]
fn what_has_the_right_size_and_time_after_a_first_run_is_read() {
    let site = Site::new();
    let (data, path) = site.data("data");
    write_noise(&data.join("f"), 40_000_000, 2);
    site.backup("host-0", &[&path]);
    let target = site.target(&path);
    let step = Restore { args: strings(&["--overwrite", "if-changed"]), ..site.step(&[&path]) };
    let ended = site.run_through(&pruned_once(&site), &site.task(Step::Restore(step)));
    ended.restored();
    assert!(site.path("once").exists());
    assert_equal(&describe(&data), &target);
}

/// restic opens files by their paths, even if their folder cannot be listed.
#[test]
#[ignore = "needs root and restic: make test-agent"]
fn a_folder_that_cannot_be_listed_hides_nothing() {
    let site = Site::new();
    let (data, path) = site.data("data");
    fs::create_dir(data.join("box")).unwrap();
    write_noise(&data.join("box/f"), 2_000_000, 3);
    std::os::unix::fs::chown(data.join("box"), Some(USER), Some(USER)).unwrap();
    std::os::unix::fs::chown(data.join("box/f"), Some(USER), Some(USER)).unwrap();
    site.backup("host-0", &[&path]);
    let step = Restore { include: strings(&["f"]), ..site.step(&[&path]) };
    let target = site.target(&path);
    fs::create_dir(target.join("box")).unwrap();
    fs::write(target.join("box/f"), vec![7; 2_000_000]).unwrap();
    fs::hard_link(target.join("box/f"), target.join("other")).unwrap();
    give_to(&site, USER, &target);
    for file in ["box", "box/f"] {
        std::os::unix::fs::chown(target.join(file), Some(USER), Some(USER)).unwrap();
    }
    fs::set_permissions(target.join("box"), PermissionsExt::from_mode(0o300)).unwrap();
    let ended = site.run_behind(&AS_USER, &site.task(Step::Restore(step)));
    let failure = ended.failed(Class::Invalid, reason::PERMISSION_DENIED);
    assert!(failure.message.contains("/box on the target could not be checked"), "{}", failure.message);
    assert!(ended.outcome.untouched, "nothing is written");
    assert_eq!(fs::read(target.join("other")).unwrap(), vec![7; 2_000_000]);
}

/// restic deletes a file that stands in the place of a folder, and links names to a file that it was told to keep.
#[test]
#[ignore = "needs root and restic: make test-agent"]
fn what_never_cannot_keep_is_refused_before_anything_is_written() {
    let site = Site::new();
    let (data, path) = site.data("data");
    fs::create_dir(data.join("folder")).unwrap();
    fs::write(data.join("folder/f"), "x").unwrap();
    fs::write(data.join("h1"), "of the snapshot").unwrap();
    fs::hard_link(data.join("h1"), data.join("h2")).unwrap();
    site.backup("host-0", &[&path]);
    for overwrite in ["never", "if-newer"] {
        let args = strings(&["--overwrite", overwrite]);
        for (kept, said) in [("folder", "/folder is a folder in"), ("h1", "/h1 and ")] {
            let target = site.target(&path);
            fs::write(target.join(kept), "mine").unwrap();
            let before = describe(&target);
            let ended = site.run(Step::Restore(Restore { args: args.clone(), ..site.step(&[&path]) }));
            let failure = ended.failed(Class::Invalid, reason::WOULD_NOT_BE_KEPT);
            assert!(failure.message.contains(said) && ended.outcome.untouched, "{}", failure.message);
            assert_equal(&before, &target);
            fs::remove_dir_all(&target).unwrap();
        }
        // If none of these files exist, everything is restored.
        let target = site.target(&path);
        site.run(Step::Restore(Restore { args: args.clone(), ..site.step(&[&path]) })).restored();
        assert_equal(&describe(&data), &target);
        fs::remove_dir_all(&target).unwrap();
        // The newer backup of a folder within the path would not be restored.
        let inner = format!("{path}/folder");
        site.target(&path);
        site.backup("host-0", &[&inner]);
        let both = Restore { mounts: strings(&[&path]), args, ..site.step(&[&path, &inner]) };
        let ended = site.run(Step::Restore(both));
        assert!(ended.failed(Class::Invalid, reason::WOULD_NOT_BE_KEPT).message.contains("contains the other"));
        fs::remove_dir_all(site.target(&path)).unwrap();
    }
}
