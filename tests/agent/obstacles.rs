//! Files of the target that restic does not overwrite: hard links, files that cannot be read, pipes.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::path::Path;
use std::process::Command;

use lifeboat::contract::Class;
use lifeboat::contract::restic::{Restore, Step};
use lifeboat::names::reason;

use super::exact::exact;
use super::site::{AS_USER, Site, USER, assert_equal, give_to, strings};
use super::support::tree::describe;

/// Bytes in which no two pieces are the same, so that restic finds some pieces equal and others not.
fn fill(seed: u8, size: usize) -> Vec<u8> {
    let mut state = u64::from(seed) + 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..size).map(|_| next()).collect()
}

/// A file with two names, a file with one name, and two files with the same content.
fn build(data: &Path) {
    fs::create_dir_all(data.join("logs")).unwrap();
    fs::write(data.join("logs/app.log"), fill(1, 4_000_000)).unwrap();
    fs::hard_link(data.join("logs/app.log"), data.join("current")).unwrap();
    fs::write(data.join("alone"), fill(2, 600_000)).unwrap();
    for (name, mode, owner) in [("private", 0o600, 1001), ("public", 0o644, 1002)] {
        fs::write(data.join(name), fill(3, 50_000)).unwrap();
        fs::set_permissions(data.join(name), fs::Permissions::from_mode(mode)).unwrap();
        chown(data.join(name), Some(owner), Some(owner)).unwrap();
    }
}

/// The backed-up tree, and a target with the same content.
fn same(site: &Site) -> (std::path::PathBuf, String, std::collections::BTreeMap<String, String>) {
    let (data, path) = site.data("data");
    build(&data);
    let want = describe(&data);
    site.backup("host-0", &[&path]);
    let target = site.target(&path);
    assert!(Command::new("cp").args(["-a", "--"]).arg(data.join(".")).arg(&target).status().unwrap().success());
    assert_equal(&want, &target);
    (target, path, want)
}

fn append(file: &Path, bytes: &[u8]) {
    use std::io::Write as _;
    fs::OpenOptions::new().append(true).open(file).unwrap().write_all(bytes).unwrap();
}

/// restic leaves zeros in a file that has further names, with an exit code of 0 and all counts equal.
#[test]
#[ignore = "needs root and restic: make test-agent"]
fn files_with_several_names_are_what_the_snapshot_has() {
    for change in ["append", "inside", "cut", "linked", "outside", "swapped", "none"] {
        let site = Site::new();
        let (target, path, want) = same(&site);
        let log = target.join("logs/app.log");
        let outside = target.parent().unwrap().join("outside");
        match change {
            "append" => append(&log, b"one more line\n"),
            "inside" => {
                let mut bytes = fs::read(&log).unwrap();
                let at = bytes.len() - 10;
                bytes[at] ^= 1;
                fs::write(&log, bytes).unwrap();
            }
            "cut" => fs::File::options().write(true).open(&log).unwrap().set_len(2_000_000).unwrap(),
            // Two separate files became one.
            "linked" => {
                fs::remove_file(target.join("public")).unwrap();
                fs::hard_link(target.join("private"), target.join("public")).unwrap();
            }
            // The restore does not change the name outside.
            "outside" => {
                fs::hard_link(target.join("alone"), &outside).unwrap();
                append(&outside, b"mine");
            }
            "swapped" => {
                fs::remove_file(target.join("current")).unwrap();
                fs::hard_link(target.join("alone"), target.join("current")).unwrap();
            }
            _ => {}
        }
        let step = if change == "append" { exact(&site, &[&path]) } else { site.step(&[&path]) };
        let ended = site.run(Step::Restore(step));
        let restored = ended.restored();
        assert_eq!((restored.restored, restored.errors), (restored.planned, 0), "{change}: {}", ended.log);
        assert_equal(&want, &target);
        if change == "outside" {
            let kept = fs::read(&outside).unwrap();
            assert!(kept.ends_with(b"mine") && kept.len() == 600_004, "{change}: the other name is as it was");
            assert_eq!(fs::metadata(&outside).unwrap().nlink(), 1);
        }
    }
}

/// A name that is not selected, that is not in the snapshot, or that is to be kept is never removed.
#[test]
#[ignore = "needs root and restic: make test-agent"]
fn only_names_of_restored_files_are_taken_away() {
    let site = Site::new();
    let (target, path, _) = same(&site);
    fs::hard_link(target.join("alone"), target.join("mine")).unwrap();
    fs::hard_link(target.join("logs/app.log"), target.join("logs/mine")).unwrap();
    append(&target.join("mine"), b"!");
    append(&target.join("current"), b"!");
    let all = || {
        let mut all = describe(&target);
        all.retain(|_, line| line.contains("sha256"));
        all
    };
    let before = all();
    let of = |name: &str| before[&format!("./{name}")].clone();
    let now = |name: &str| all()[&format!("./{name}")].clone();

    let never = Restore { args: strings(&["--overwrite=never"]), ..site.step(&[&path]) };
    site.run(Step::Restore(never)).restored();
    assert_eq!(all(), before, "all is kept");
    let newer = Restore { args: strings(&["--overwrite", "if-newer"]), ..site.step(&[&path]) };
    site.run(Step::Restore(newer)).restored();
    assert_eq!(now("alone"), of("alone"), "what is newer stays");

    let ended = site.run(Step::Restore(Restore { include: strings(&["alone"]), ..site.step(&[&path]) }));
    ended.restored();
    assert_ne!(now("alone"), of("alone"));
    for name in ["mine", "logs/mine", "current", "logs/app.log"] {
        // A file whose other name is gone is no longer a hard link.
        let own = |line: String| line.split(" hardlink=").next().map(ToOwned::to_owned);
        assert_eq!(own(now(name)), own(of(name)), "{name}");
    }
}

/// If a user may write a file but not read it, restic leaves the old content in the place of holes.
#[test]
#[ignore = "needs root and restic: make test-agent"]
fn what_cannot_be_read_is_written_anew() {
    let site = Site::new();
    let (data, path) = site.data("data");
    fs::write(data.join("zeros"), vec![0; 2_000_000]).unwrap();
    fs::write(data.join("mixed"), [vec![0; 1_000_000], fill(1, 1_000_000)].concat()).unwrap();
    site.backup("host-0", &[&path]);
    let target = site.target(&path);
    for (name, mode) in [("zeros", 0o200), ("mixed", 0o000)] {
        fs::write(target.join(name), vec![7; 2_000_000]).unwrap();
        fs::set_permissions(target.join(name), fs::Permissions::from_mode(mode)).unwrap();
        chown(target.join(name), Some(USER), Some(USER)).unwrap();
    }
    give_to(&site, USER, &target);
    let task = site.task(Step::Restore(Restore { ignore_owners: true, ..site.step(&[&path]) }));
    let ended = site.run_behind(&AS_USER, &task);
    ended.restored();
    for name in ["zeros", "mixed"] {
        assert!(fs::read(target.join(name)).unwrap() == fs::read(data.join(name)).unwrap(), "{name}: {}", ended.log);
    }
}

#[test]
#[ignore = "needs root and restic: make test-agent"]
fn a_pipe_in_the_place_of_a_file_is_refused_before_anything_is_written() {
    let site = Site::new();
    let (target, path, _) = same(&site);
    fs::remove_file(target.join("alone")).unwrap();
    assert!(Command::new("mkfifo").arg(target.join("alone")).status().unwrap().success());
    // The restore does not change other files.
    assert!(Command::new("mkfifo").arg(target.join("mine")).status().unwrap().success());
    symlink("alone", target.join("link")).unwrap();
    fs::write(target.join("public"), "other").unwrap();
    let ended = site.run(Step::Restore(site.step(&[&path])));
    let said = &ended.failed(Class::Data, reason::PATH_IS_NO_FILE).message;
    assert!(said.contains(&format!("{path}/alone is a pipe or a socket on the target")), "{said}");
    assert!(ended.outcome.untouched && fs::read(target.join("public")).unwrap() == b"other");
    fs::remove_file(target.join("alone")).unwrap();
    site.run(Step::Restore(site.step(&[&path]))).restored();
    assert!(target.join("mine").exists());
}
