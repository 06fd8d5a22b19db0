//! Empty repositories of restic that open quickly, see `repositories/README.md`.

use std::fs;
use std::path::{Path, PathBuf};

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/repositories").join(name)
}

/// Puts a repository with this password at `at`, as objects of a store: without empty folders.
pub fn make(at: &Path, password: &str) {
    let from = folder(if password.contains(' ') { "spaces" } else { "dashes" });
    fs::create_dir_all(at).unwrap();
    fs::copy(from.join("config"), at.join("config")).unwrap();
    give_keys(at, &from);
}

fn give_keys(at: &Path, from: &Path) {
    fs::create_dir_all(at.join("keys")).unwrap();
    for key in fs::read_dir(from.join("keys")).unwrap() {
        let key = key.unwrap();
        fs::copy(key.path(), at.join("keys").join(key.file_name())).unwrap();
    }
}

/// Makes a repository open as slowly as one that restic has made, and with as much memory.
#[allow(dead_code, reason = "not every test binary needs it")]
pub fn slow_down(at: &Path) {
    fs::remove_dir_all(at.join("keys")).unwrap();
    give_keys(at, &folder("slow"));
}
