//! Links on the target that would redirect writes to other places.

use std::fs;
use std::os::unix::fs::symlink;

use lifeboat::contract::Class;
use lifeboat::contract::restic::{HostQuery, Restore, Step};
use lifeboat::names::reason;

use super::reports::{ask, query};
use super::site::{Site, restore_of, strings};

/// The target has a link where the backup has a folder: nothing is written to the target of the link.
///
/// Closes: R10 of the reports.
#[test]
#[ignore = "needs root and restic: make test-agent"]
fn nothing_is_restored_through_a_link_of_the_target() {
    let site = Site::new();
    let (data, path) = site.data("data");
    fs::create_dir_all(data.join("current/sub")).unwrap();
    fs::write(data.join("current/sub/f.jpg"), "f").unwrap();
    site.backup("host-0", &[&path]);
    let target = site.target(&path);
    let below = |p: &str| format!("{path}/{p}");
    for (to, is_inside) in [("elsewhere", true), ("", false)] {
        let outside = if is_inside { target.join(to) } else { site.path("outside") };
        for (paths, include, refused) in [
            (vec![path.clone()], vec![], false),
            (vec![path.clone()], vec!["*.jpg".to_owned()], true),
            (vec![below("current")], vec![], false),
            (vec![below("current/sub")], vec![], true),
            (vec![path.clone()], vec![below("current/sub/*")], true),
            (vec![path.clone()], vec![below("*/sub/f.jpg")], true),
        ] {
            fs::remove_dir_all(&target).unwrap();
            fs::create_dir_all(&target).unwrap();
            fs::create_dir_all(outside.join("sub")).unwrap();
            symlink(&outside, target.join("current")).unwrap();
            let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
            let found = ask(&site, HostQuery { include: include.clone(), ..query(&paths, &[&path]) });
            assert_eq!(found.failure, None);
            let step = Restore { include: include.clone(), ..restore_of(&found, &[&path]) };
            let ended = site.run(Step::Restore(step));
            assert_eq!(fs::read_dir(outside.join("sub")).unwrap().count(), 0, "{paths:?} {include:?}");
            if refused {
                let said = &ended.failed(Class::Invalid, reason::PATH_IS_LINK).message;
                assert!(said.contains("current is a symbolic link to"), "{said}");
                assert!(ended.outcome.untouched && target.join("current").is_symlink());
            } else {
                ended.restored();
                assert!(!target.join("current").is_symlink(), "{paths:?} {include:?}");
                assert_eq!(fs::read_to_string(target.join("current/sub/f.jpg")).unwrap(), "f");
            }
        }
    }
}

/// Of two snapshots, the first has a link where the second has a folder.
#[test]
#[ignore = "needs root and restic: make test-agent"]
fn nothing_is_written_through_a_link_that_was_restored_before_it() {
    let site = Site::new();
    let (data, path) = site.data("data");
    fs::create_dir_all(data.join("other/m")).unwrap();
    fs::write(data.join("other/m/x"), "of other").unwrap();
    symlink("other", data.join("l")).unwrap();
    site.backup("host-0", &[&path]);
    fs::remove_file(data.join("l")).unwrap();
    fs::create_dir_all(data.join("l/m")).unwrap();
    fs::write(data.join("l/m/x"), "of l").unwrap();
    let inner = format!("{path}/l/m");
    site.backup("host-0", &[&inner]);
    let target = site.target(&path);
    let both = Restore { mounts: strings(&[&path]), ..site.step(&[&path, &inner]) };
    let ended = site.run(Step::Restore(both.clone()));
    let failure = ended.failed(Class::Invalid, reason::PATH_IS_LINK);
    assert!(failure.message.contains(&format!("{path}/l is a symbolic link to other")), "{}", failure.message);
    assert!(!failure.message.contains("Nothing was written"), "{}", failure.message);
    assert!(!ended.outcome.untouched && ended.outcome.answer.is_some());
    assert_eq!(fs::read_to_string(target.join("other/m/x")).unwrap(), "of other");
    // In the reverse order, the link would replace the folder; restic reports this.
    let mut back = both;
    back.snapshots.reverse();
    fs::remove_dir_all(&target).unwrap();
    site.target(&path);
    site.run(Step::Restore(back)).failure();
    assert_eq!(fs::read_to_string(target.join("l/m/x")).unwrap(), "of l");
}
