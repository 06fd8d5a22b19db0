//! Empty repositories of restic that open quickly, see `repositories/README.md`.

use std::fs;
use std::path::Path;

/// Puts one there, for this password, as objects of a store: without empty folders.
pub fn make(at: &Path, password: &str) {
    let name = if password.contains(' ') { "spaces" } else { "dashes" };
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/repositories").join(name);
    fs::create_dir_all(at.join("keys")).unwrap();
    fs::copy(from.join("config"), at.join("config")).unwrap();
    for key in fs::read_dir(from.join("keys")).unwrap() {
        let key = key.unwrap();
        fs::copy(key.path(), at.join("keys").join(key.file_name())).unwrap();
    }
}
