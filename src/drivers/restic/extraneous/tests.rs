//! The walk alone, on folders of a test. What restic lists and restores is tested in `tests/agent/exact.rs`.

use std::ffi::CString;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use tokio::sync::watch;

use proptest::prelude::*;

use crate::drivers::restic::blocking::STACK;
use crate::drivers::restic::extraneous::walk::{DEEPEST, text};
use crate::drivers::restic::extraneous::*;
use crate::drivers::restic::pattern;
use crate::names::reason;

/// A volume at `/data` with these files. The snapshots contain the files whose paths begin with `kept`.
fn search(root: &Path, files: &[&str], include: &[&str], exclude: &[&str]) -> Search {
    for file in files {
        let place = root.join("data").join(file);
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        fs::write(place, *file).unwrap();
    }
    let below = pattern::select("/data", &own(include), &own(exclude)).unwrap();
    let kept: Vec<String> = files.iter().filter(|f| f.starts_with("kept")).map(|f| format!("/data/{f}")).collect();
    Search {
        restore_root: root.to_owned(),
        mounts: own(&["/data"]),
        regions: vec![Region { root: "/data".into(), below }],
        left_out: vec![],
        kept: held(kept.iter().map(String::as_str)),
    }
}

fn own(list: &[&str]) -> Vec<String> {
    list.iter().map(|s| (*s).to_owned()).collect()
}

/// The content of one snapshot.
fn held<'a>(paths: impl IntoIterator<Item = &'a str>) -> Kept {
    let mut keys = Keys::default();
    paths.into_iter().for_each(|path| keys.add(path, false));
    Kept::new(keys)
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

/// The remaining files, and the number of deleted entries.
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
        // The first two bytes of a character that has three: Go writes one replacement character for each.
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
        // A folder with an entry that stays also stays.
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
        // The selected entries of the snapshots, as the count selects them.
        let mut walk = Walk::new(&search.regions[0].below.patterns);
        let base = search.regions[0].below.base.trim_end_matches('/').len();
        let paths = [("/data", true), ("/data/kept", true), ("/data/kept/a.json", false), ("/data/kept/b.txt", false)];
        let below = |p: &&(&str, bool)| p.0.len() > base;
        let selected = paths.iter().filter(below).filter(|(p, dir)| walk.selects(&p[base..], *dir));
        search.kept = held(selected.map(|(p, _)| *p));
        let (now, count, ended) = run(&mut search, root.path());
        assert_eq!(ended, Ok(vec![]), "{include:?} {exclude:?}");
        assert_eq!((now, count), (left.iter().map(|s| (*s).to_owned()).collect(), deleted), "{include:?} {exclude:?}");
        // A second run deletes nothing.
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
    assert!(failure.message.contains("1 of 1 restored entries"), "{}", failure.message);
}

#[test]
fn a_link_is_never_followed() {
    let root = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("precious"), "x").unwrap();
    // A link in the folder.
    let mut within = search(root.path(), &["kept"], &[], &[]);
    symlink(outside.path(), root.path().join("data/link")).unwrap();
    let (now, count, ended) = run(&mut within, root.path());
    assert_eq!((now, count, ended), (vec!["kept".to_owned()], 1, Ok(vec![])));
    // A link on the path to the folder.
    symlink(outside.path(), root.path().join("data/way")).unwrap();
    let below = pattern::select("/data/way/deep", &[], &[]).unwrap();
    fs::create_dir(outside.path().join("deep")).unwrap();
    within.regions.push(Region { root: "/data/way/deep".into(), below });
    let ended = run(&mut within, root.path()).2;
    assert!(ended.unwrap_err().message.contains("/data/way"));
    // A link instead of the volume.
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
    let shared = Shared::of(&watch::channel(true).1);
    let failure = search.run(&shared).unwrap_err();
    assert_eq!((failure.class, failure.reason.as_str()), (Class::Transient, reason::TERMINATED));
    assert_eq!(files(root.path()), ["kept", "new"]);
}

#[test]
fn a_path_that_any_snapshot_holds_stays() {
    let root = tempfile::tempdir().unwrap();
    let mut search = search(root.path(), &["kept/a", "kept/b/c", "new"], &[], &[]);
    // A region of another snapshot, for a folder in the first region.
    let below = pattern::select("/data/kept/b", &[], &[]).unwrap();
    search.regions.push(Region { root: "/data/kept/b".into(), below });
    let keys = ["/data/kept/a", "/data/kept", "/data/kept/b", "/data/kept/b/c"];
    search.kept = held(keys);
    let (now, count, ended) = run(&mut search, root.path());
    assert_eq!(ended, Ok(vec![]));
    assert_eq!((now, count), (["kept", "kept/a", "kept/b", "kept/b/c"].map(str::to_owned).to_vec(), 1));
}

#[test]
fn the_time_of_a_folder_stays() {
    let root = tempfile::tempdir().unwrap();
    let mut search = search(root.path(), &["kept/a", "kept/new"], &[], &[]);
    search.kept = held(["/data/kept", "/data/kept/a"]);
    let folder = fs::File::open(root.path().join("data/kept")).unwrap();
    let then = std::time::UNIX_EPOCH + Duration::from_nanos(1_234_567_890_123_456_789);
    folder.set_modified(then).unwrap();
    assert_eq!(run(&mut search, root.path()).1, 1);
    assert_eq!(folder.metadata().unwrap().modified().unwrap(), then);
}

/// Nested folders, from the volume on.
fn deep(root: &Path, folders: usize) {
    let mut folder: OwnedFd = fs::File::open(root.join("data")).unwrap().into();
    for _ in 0..folders {
        rustix::fs::mkdirat(&folder, "d", Mode::RWXU).unwrap();
        folder = openat(&folder, "d", FOLDER, Mode::empty()).unwrap();
    }
}

/// The result of a search with the stack size of the real one.
fn on_its_stack(mut search: Search) -> (u64, Result<Vec<String>, Failure>) {
    let walk = move || {
        let shared = Shared::default();
        let ended = search.run(&shared);
        (shared.deleted.load(Ordering::Relaxed), ended)
    };
    std::thread::Builder::new().stack_size(STACK).spawn(walk).unwrap().join().unwrap()
}

/// As deep as restic itself goes, 2048 folders: an exact restore must not fail after all is restored. This is one test,
/// because each case takes nearly all file descriptors of the process.
#[test]
fn a_deep_tree_is_looked_through_and_one_that_is_too_deep_left_alone() {
    let root = tempfile::tempdir().unwrap();
    let less = search(root.path(), &["kept", "new"], &[], &[]);
    deep(root.path(), 2047);
    assert_eq!(on_its_stack(less), (2048, Ok(vec![])));
    assert_eq!(files(root.path()), ["kept"]);
    let root = tempfile::tempdir().unwrap();
    let search = search(root.path(), &["kept", "new"], &[], &[]);
    deep(root.path(), DEEPEST + 1);
    let failure = on_its_stack(search).1.unwrap_err();
    assert!(failure.message.contains("2500 levels of folders"), "{}", failure.message);
    assert!(root.path().join("data/new").exists());
    // Too deep for the stack of a test.
    assert!(std::process::Command::new("rm").arg("-rf").arg(root.path().join("data")).status().unwrap().success());
}

/// Two entries whose names read the same, of which the snapshot contains one: both stay, and a warning names them.
#[test]
fn names_that_are_not_told_apart_are_named() {
    use std::os::unix::ffi::OsStrExt as _;
    let name = |bytes: &[u8]| std::ffi::OsStr::from_bytes(bytes).to_owned();
    let root = tempfile::tempdir().unwrap();
    let mut search = search(root.path(), &["kept", "new"], &[], &[]);
    search.kept = held(["/data/kept", "/data/n\u{fffd}", "/data/m\u{fffd}", "/data/m\u{fffd}"]);
    for bytes in [&b"n\xff"[..], b"m\xfe", b"m\xff", b"other\xff"] {
        fs::write(root.path().join("data").join(name(bytes)), "").unwrap();
    }
    let shared = Shared::default();
    assert_eq!(search.run(&shared), Ok(vec![]), "as many as there are in the snapshot");
    assert_eq!(shared.deleted.load(Ordering::Relaxed), 2);
    fs::write(root.path().join("data").join(name(b"n\xfe")), "").unwrap();
    let warnings = search.run(&shared).unwrap();
    assert!(warnings.len() == 1 && warnings[0].contains("/data/n\u{fffd}"), "{warnings:?}");
    assert!(root.path().join("data").join(name(b"n\xfe")).exists());
    // An entry that the rule does not select stays for that reason, without a warning.
    search.regions[0].below = pattern::select("/data", &[], &own(&["n*"])).unwrap();
    assert_eq!(search.run(&shared), Ok(vec![]));
}

#[test]
fn what_a_backup_left_out_takes_back_no_exclude_of_the_rule_nor_the_other_way_round() {
    let all = ["kept", "a.log", "keep.log", "x.txt", "cache/keep.log", "sub/x.cache", "sub/y", "sub/deep/x.cache"];
    let snapshot = |root: &str, exclude: &[&str]| LeftOut::new(root, &own(exclude));
    for (exclude, left_out, gone) in [
        (&["keep.log"][..], vec![snapshot("/data", &["*.log", "!keep.log"])], &["x.txt", "sub"][..]),
        (&["*.log", "!keep.log"], vec![snapshot("/data", &["*.log"])], &["x.txt", "sub"]),
        // Content of an excluded folder was excluded, even if a later pattern negates the exclude.
        (&[], vec![snapshot("/data", &["cache", "!keep.log"])], &["a.log", "keep.log", "x.txt", "sub"]),
        // Excludes of a folder in the region, of a folder that contains the region, and of another folder.
        (&["*.log"], vec![snapshot("/data", &[]), snapshot("/data/sub", &["*.cache"])], &["x.txt", "sub/y"]),
        (&["*.log"], vec![snapshot("/", &["/data/sub"]), snapshot("/data", &[])], &["x.txt"]),
        // Patterns that cannot be read.
        (&[], vec![snapshot("/data", &["[a", "![b"])], &[]),
        (&["*.log"], vec![snapshot("/data", &[]), snapshot("/other", &["*"])], &["x.txt", "sub"]),
        (
            &["*.log"],
            vec![snapshot("/data", &["", "!", "..", "../sub", "./*.txt", "sub/../y"])],
            &["sub/x.cache", "sub/deep"],
        ),
    ] {
        let root = tempfile::tempdir().unwrap();
        let mut search = search(root.path(), &all, &[], exclude);
        search.left_out = left_out;
        let mut want = files(root.path());
        want.retain(|f| !gone.iter().any(|g| within(f, g)));
        let (now, _, ended) = run(&mut search, root.path());
        assert_eq!((now, ended), (want, Ok(vec![])), "{exclude:?} {:?}", search.left_out);
    }
}

/// A file in a folder that another snapshot excluded is found in the snapshot that contains it.
#[test]
fn what_one_snapshot_holds_and_another_left_out_stays() {
    let root = tempfile::tempdir().unwrap();
    let mut search = search(root.path(), &["kept", "sub/cache/a", "sub/cache/b", "sub/c"], &[], &[]);
    search.kept = held(["/data/kept", "/data/sub", "/data/sub/cache", "/data/sub/cache/a"]);
    search.left_out = vec![LeftOut::new("/data", &[]), LeftOut::new("/data/sub", &own(&["cache"]))];
    let (now, count, ended) = run(&mut search, root.path());
    assert_eq!(ended, Ok(vec![]));
    assert_eq!((now, count), (own(&["kept", "sub", "sub/cache", "sub/cache/a", "sub/cache/b"]), 1));
}

const TREE: [&str; 9] = ["a", "b", "x/a", "x/b", "x/c", "x/y/a", "x/y/b", "y/a", "y/x/c"];

/// The files that are deleted from a tree of which no snapshot contains anything.
fn deletes(include: &[String], exclude: &[String], left_out: &[(String, Vec<String>)]) -> Option<Vec<String>> {
    let root = tempfile::tempdir().unwrap();
    let mut search = search(root.path(), &TREE, &[], &[]);
    search.regions[0].below = pattern::select("/data", include, exclude).ok()?;
    search.left_out = left_out.iter().map(|(root, exclude)| LeftOut::new(root, exclude)).collect();
    let (now, _, ended) = run(&mut search, root.path());
    assert_eq!(ended, Ok(vec![]));
    Some(own(&TREE).into_iter().filter(|f| !now.contains(f)).collect())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    /// A file is deleted if the rule alone would delete it, and each snapshot alone would: no list negates a pattern of
    /// another list.
    #[test]
    fn each_list_of_patterns_is_asked_by_itself(
        include in prop::collection::vec("!?(/data/)?[xy]?/?[a-c*]", 0..2),
        exclude in prop::collection::vec("!?(/data/)?[xy]?/?[a-c*]", 0..3),
        left_out in prop::collection::vec(
            ("/data(/x|/y|/x/y)?", prop::collection::vec("!?(/data/)?[xy]?/?[a-cxy*]", 0..4)), 0..3
        ),
    ) {
        let Some(by_rule) = deletes(&include, &exclude, &[]) else { return Ok(()) };
        let alone: Vec<_> = left_out.iter().map(|one| deletes(&[], &[], std::slice::from_ref(one)).unwrap()).collect();
        let mut want = by_rule;
        want.retain(|file| alone.iter().all(|a| a.contains(file)));
        prop_assert_eq!(deletes(&include, &exclude, &left_out).unwrap(), want);
    }
}
