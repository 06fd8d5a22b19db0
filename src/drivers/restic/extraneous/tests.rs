//! The walk by itself, on folders of a test. What restic lists and restores is in `tests/agent/exact.rs`.

use std::ffi::CString;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::walk::{DEEPEST, text};
use super::*;
use crate::drivers::restic::pattern;

/// A volume at `/data` that holds these files, of which the snapshots hold those that begin with `kept`.
fn search(root: &Path, files: &[&str], include: &[&str], exclude: &[&str]) -> Search {
    for file in files {
        let place = root.join("data").join(file);
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        fs::write(place, *file).unwrap();
    }
    let own = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
    let below = pattern::select("/data", &own(include), &own(exclude)).unwrap();
    let kept = files.iter().filter(|f| f.starts_with("kept")).map(|f| path_key(&format!("/data/{f}"))).collect();
    Search {
        restore_root: root.to_owned(),
        mounts: own(&["/data"]),
        regions: vec![Region { root: "/data".into(), below }],
        kept: Kept::new(kept, vec![]),
    }
}

fn files(root: &Path) -> Vec<String> {
    let mut all = vec![];
    let mut todo = vec![root.join("data")];
    while let Some(folder) = todo.pop() {
        for entry in fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()) {
            all.push(entry.strip_prefix(root.join("data")).unwrap().to_str().unwrap().to_owned());
            if entry.is_dir() && !entry.is_symlink() {
                todo.push(entry);
            }
        }
    }
    all.sort();
    all
}

/// What is left, and how many entries were deleted.
fn run(search: &mut Search, root: &Path) -> (Vec<String>, u64, Result<Vec<String>, Failure>) {
    let shared = Shared::default();
    let ended = search.run(&shared);
    (files(root), shared.deleted.load(Ordering::Relaxed), ended)
}

#[test]
fn a_name_reads_as_restic_lists_it() {
    for (bytes, want) in [
        (&b"plain"[..], "plain"),
        ("☃".as_bytes(), "☃"),
        (b"a\xffb", "a\u{fffd}b"),
        // The first two bytes of a sign that has three: Go writes one for each.
        (b"\xe2\x82!", "\u{fffd}\u{fffd}!"),
        (b"\xf0\x9f\x98", "\u{fffd}\u{fffd}\u{fffd}"),
    ] {
        assert_eq!(text(&CString::new(bytes).unwrap()), want);
    }
}

#[test]
fn places_that_are_not_looked_through() {
    let mounts = ["/data".to_owned(), "/data/sub".to_owned(), "/database".to_owned()];
    for (path, elsewhere) in [
        ("/data/a", false),
        ("/data/sub", true),
        ("/data/sub/a", true),
        ("/data/subway", false),
        ("/data/lost+found", true),
        ("/data/lost+found/#12", true),
        ("/data/a/lost+found", false),
        ("/data/lost+founder", false),
    ] {
        assert_eq!(is_elsewhere(path, "/data", &mounts), elsewhere, "{path}");
    }
    assert_eq!(mount_of("/data/sub/x", &mounts).unwrap(), "/data/sub");
    assert_eq!(mount_of("/elsewhere", &mounts), None);
}

#[test]
fn what_the_rule_does_not_select_stays() {
    let all = ["kept/a.json", "kept/b.txt", "new/c.json", "new/d.tmp", "gone/e.json", "gone/deep/f.json"];
    for (include, exclude, left, deleted) in [
        (&[][..], &[][..], &["kept", "kept/a.json", "kept/b.txt"][..], 7),
        // A folder with something that stays does so too.
        (&[], &["*.tmp"], &["kept", "kept/a.json", "kept/b.txt", "new", "new/d.tmp"], 5),
        // The folders are not selected.
        (&["*.json"], &[], &["gone", "gone/deep", "kept", "kept/a.json", "kept/b.txt", "new", "new/d.tmp"], 3),
        (
            &["/data/new"],
            &[],
            &["gone", "gone/deep", "gone/deep/f.json", "gone/e.json", "kept", "kept/a.json", "kept/b.txt"],
            3,
        ),
        (
            &[],
            &["/data/gone", "new"],
            &[
                "gone",
                "gone/deep",
                "gone/deep/f.json",
                "gone/e.json",
                "kept",
                "kept/a.json",
                "kept/b.txt",
                "new",
                "new/c.json",
                "new/d.tmp",
            ],
            0,
        ),
    ] {
        let root = tempfile::tempdir().unwrap();
        let mut search = search(root.path(), &all, include, exclude);
        // What is selected of the snapshots, as the count has it.
        let mut walk = Walk::new(&search.regions[0].below.patterns);
        let base = search.regions[0].below.base.trim_end_matches('/').len();
        let paths = [("/data", true), ("/data/kept", true), ("/data/kept/a.json", false), ("/data/kept/b.txt", false)];
        let below = |p: &&(&str, bool)| p.0.len() > base;
        let held = paths.iter().filter(below).filter(|(p, dir)| walk.selects(&p[base..], *dir));
        search.kept = Kept::new(held.map(|(p, _)| path_key(p)).collect(), vec![]);
        let (now, count, ended) = run(&mut search, root.path());
        assert_eq!(ended, Ok(vec![]), "{include:?} {exclude:?}");
        assert_eq!((now, count), (left.iter().map(|s| (*s).to_owned()).collect(), deleted), "{include:?} {exclude:?}");
        // Again: nothing is left to do.
        assert_eq!(run(&mut search, root.path()).1, 0);
    }
}

#[test]
fn nothing_is_deleted_where_restored_files_have_other_names() {
    let root = tempfile::tempdir().unwrap();
    let mut search = search(root.path(), &["kept", "new"], &[], &[]);
    fs::rename(root.path().join("data/kept"), root.path().join("data/KEPT")).unwrap();
    let (now, count, ended) = run(&mut search, root.path());
    assert_eq!((now, count), (vec!["KEPT".to_owned(), "new".to_owned()], 0));
    let failure = ended.unwrap_err();
    assert_eq!((failure.class, failure.reason.as_str()), (Class::Data, reason::EXTRANEOUS_NOT_DELETED));
    assert!(failure.message.contains("1 of 1 entries"), "{}", failure.message);
}

#[test]
fn a_link_is_never_followed() {
    let root = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("precious"), "x").unwrap();
    // In it.
    let mut within = search(root.path(), &["kept"], &[], &[]);
    symlink(outside.path(), root.path().join("data/link")).unwrap();
    let (now, count, ended) = run(&mut within, root.path());
    assert_eq!((now, count, ended), (vec!["kept".to_owned()], 1, Ok(vec![])));
    // On the way to it.
    symlink(outside.path(), root.path().join("data/way")).unwrap();
    let below = pattern::select("/data/way/deep", &[], &[]).unwrap();
    fs::create_dir(outside.path().join("deep")).unwrap();
    within.regions.push(Region { root: "/data/way/deep".into(), below });
    let ended = run(&mut within, root.path()).2;
    assert!(ended.unwrap_err().message.contains("/data/way"));
    // In place of the volume.
    fs::rename(root.path().join("data"), root.path().join("was")).unwrap();
    symlink(outside.path(), root.path().join("data")).unwrap();
    within.regions.pop();
    let shared = Shared::default();
    assert!(within.run(&shared).is_err());
    assert!(outside.path().join("precious").exists() && outside.path().join("deep").exists());
}

#[test]
fn what_is_told_to_stop_deletes_nothing_more() {
    let root = tempfile::tempdir().unwrap();
    let mut search = search(root.path(), &["kept", "new"], &[], &[]);
    let shared = Shared { stop: AtomicBool::new(true), ..Shared::default() };
    let failure = search.run(&shared).unwrap_err();
    assert_eq!((failure.class, failure.reason.as_str()), (Class::Transient, reason::TERMINATED));
    assert_eq!(files(root.path()), ["kept", "new"]);
}

#[test]
fn a_path_that_any_snapshot_holds_stays() {
    let root = tempfile::tempdir().unwrap();
    let mut search = search(root.path(), &["kept/a", "kept/b/c", "new"], &[], &[]);
    // Of another snapshot, of a folder in the first one.
    let below = pattern::select("/data/kept/b", &[], &[]).unwrap();
    search.regions.push(Region { root: "/data/kept/b".into(), below });
    let keys = ["/data/kept/a", "/data/kept", "/data/kept/b", "/data/kept/b/c"];
    search.kept = Kept::new(keys.iter().map(|p| path_key(p)).collect(), vec![]);
    let (now, count, ended) = run(&mut search, root.path());
    assert_eq!(ended, Ok(vec![]));
    assert_eq!((now, count), (["kept", "kept/a", "kept/b", "kept/b/c"].map(str::to_owned).to_vec(), 1));
}

#[test]
fn the_time_of_a_folder_stays() {
    let root = tempfile::tempdir().unwrap();
    let mut search = search(root.path(), &["kept/a", "kept/new"], &[], &[]);
    search.kept = Kept::new(["/data/kept", "/data/kept/a"].iter().map(|p| path_key(p)).collect(), vec![]);
    let folder = fs::File::open(root.path().join("data/kept")).unwrap();
    let then = std::time::UNIX_EPOCH + Duration::from_nanos(1_234_567_890_123_456_789);
    folder.set_modified(then).unwrap();
    assert_eq!(run(&mut search, root.path()).1, 1);
    assert_eq!(folder.metadata().unwrap().modified().unwrap(), then);
}

#[test]
fn what_is_too_deep_is_left_alone() {
    let root = tempfile::tempdir().unwrap();
    let mut search = search(root.path(), &["kept", "new"], &[], &[]);
    let mut folder: OwnedFd = fs::File::open(root.path().join("data")).unwrap().into();
    for _ in 0..=DEEPEST {
        rustix::fs::mkdirat(&folder, "d", Mode::RWXU).unwrap();
        folder = openat(&folder, "d", FOLDER, Mode::empty()).unwrap();
    }
    let thread = std::thread::Builder::new().stack_size(STACK);
    let walk = move || search.run(&Shared::default()).unwrap_err();
    let failure = thread.spawn(walk).unwrap().join().unwrap();
    assert!(failure.message.contains("500 folders deep"), "{}", failure.message);
    assert!(root.path().join("data/new").exists());
}
