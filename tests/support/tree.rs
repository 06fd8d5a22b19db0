//! A folder with all that a backup must keep, and a description of it to compare.
//!
//! [`build`] makes the same tree for the same seed: modes, owners (as root), symbolic
//! and hard links, extended attributes, a sparse file, odd names, empty folders, old
//! times. [`describe`] turns any folder into lines that are equal exactly when the
//! trees are. No external program is used for either.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, lchown, symlink};
use std::path::Path;
use std::time::{Duration, SystemTime};

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, XattrFlags, lgetxattr, llistxattr, lsetxattr, utimensat};
use sha2::{Digest, Sha256};

/// Ordinary files of a tree, besides the special ones.
pub const FILES: u32 = 240;

/// Builds the tree of a seed below `root`, which must be empty or absent.
pub fn build(root: &Path, seed: u32) {
    build_of(root, seed, FILES, 3_000_000, 24 << 20);
}

/// The same with this number of ordinary files, one in 60 of them of `large` bytes, and a sparse file with such
/// a `hole`.
pub fn build_of(root: &Path, seed: u32, files: u32, large: u64, hole: u64) {
    let as_root = rustix::process::geteuid().is_root();
    fs::create_dir_all(root).unwrap();
    let mut random = Random(u64::from(seed) + 1);
    for n in 0..files {
        let dir = root.join(format!("dir-{}", n % 12)).join(format!("sub-{}", n % 3));
        fs::create_dir_all(&dir).unwrap();
        let file = dir.join(format!("file-{n}.{}", if n % 4 == 0 { "json" } else { "bin" }));
        let size = if n % 60 == 0 { large } else { random.next() % 9_000 };
        write_random(&file, size, &mut random);
        fs::set_permissions(&file, PermissionsExt::from_mode([0o644, 0o600, 0o755, 0o440, 0o666][n as usize % 5]))
            .unwrap();
        if as_root && n % 7 == 0 {
            chown(&file, Some(1000 + n), Some(2000 + n)).unwrap();
        }
        if n % 11 == 0 {
            // A file system without user attributes refuses this: then neither side has any.
            let _ = lsetxattr(&file, "user.lifeboat", format!("value {n}").as_bytes(), XattrFlags::empty());
        }
        set_time(&file, n);
    }
    let odd = root.join("odd names");
    fs::create_dir_all(&odd).unwrap();
    for name in [
        "ünïcødé ☃",
        "with space ",
        "-rf",
        "star*[x]?",
        "back\\slash",
        "quo\"te'",
        "#hash",
        "$HOME",
        "!bang",
        "tab\there",
    ] {
        fs::write(odd.join(name), name).unwrap();
    }
    fs::write(odd.join(OsStr::from_bytes(b"line\nbreak")), "x").unwrap();
    fs::write(odd.join("n".repeat(255)), "long").unwrap();

    fs::create_dir_all(root.join("empty/deeper/deepest")).unwrap();
    File::create(root.join("empty-file")).unwrap();
    fs::write(root.join("linked-a"), "one file, three names").unwrap();
    fs::hard_link(root.join("linked-a"), root.join("linked-b")).unwrap();
    fs::hard_link(root.join("linked-a"), root.join("empty/linked-c")).unwrap();
    symlink("dir-0/sub-0", root.join("link-to-dir")).unwrap();
    symlink("/nowhere/at all", root.join("link-dangling")).unwrap();
    let mut sparse = File::create(root.join("sparse")).unwrap();
    sparse.write_all(b"head").unwrap();
    sparse.seek(SeekFrom::Start(hole)).unwrap();
    sparse.write_all(b"tail").unwrap();
    if as_root {
        lchown(root.join("link-dangling"), Some(4242), Some(4243)).unwrap();
        chown(root.join("empty/deeper"), Some(33), Some(44)).unwrap();
        fs::set_permissions(root.join("linked-a"), PermissionsExt::from_mode(0o4711)).unwrap();
    }
    fs::set_permissions(root.join("empty/deeper"), PermissionsExt::from_mode(0o1770)).unwrap();
    fs::set_permissions(root, PermissionsExt::from_mode(0o751)).unwrap();
    for (n, dir) in
        ["dir-0/sub-0", "dir-0", "empty/deeper/deepest", "empty/deeper", "empty", "odd names", "link-dangling", ""]
            .iter()
            .enumerate()
    {
        set_time(&root.join(dir), u32::try_from(n).unwrap());
    }
}

/// A file of some size whose content no compression shrinks.
pub fn write_noise(path: &Path, size: u64, seed: u64) {
    write_random(path, size, &mut Random(seed + 7));
}

/// One line per entry, by path below `root` (the root itself is `.`).
pub fn describe(root: &Path) -> BTreeMap<String, String> {
    let mut entries: Vec<(String, fs::Metadata)> = Vec::new();
    walk(root, ".", &mut entries);
    // A hard-link group is named by its first path, because inode numbers differ.
    let mut groups: BTreeMap<(u64, u64), String> = BTreeMap::new();
    for (path, meta) in entries.iter().filter(|(_, m)| m.is_file() && m.nlink() > 1) {
        groups.entry((meta.dev(), meta.ino())).or_insert_with(|| path.clone());
    }
    entries
        .into_iter()
        .map(|(path, meta)| {
            let place = root.join(&path);
            let mut line =
                format!("{:o} {}:{} {}.{:09}", meta.mode(), meta.uid(), meta.gid(), meta.mtime(), meta.mtime_nsec());
            if meta.is_file() {
                let (hash, hole) = (hash(&place), meta.blocks() * 512 + (1 << 20) < meta.len());
                write!(line, " size={} sparse={hole} sha256={hash}", meta.len()).unwrap();
            } else if meta.file_type().is_symlink() {
                write!(line, " -> {}", fs::read_link(&place).unwrap().display()).unwrap();
            }
            if let Some(group) = groups.get(&(meta.dev(), meta.ino())) {
                write!(line, " hardlink={group}").unwrap();
            }
            for (name, value) in attributes(&place) {
                write!(line, " {name}={value}").unwrap();
            }
            (path, line)
        })
        .collect()
}

/// The differences as lines for people; empty when the trees are equal.
pub fn difference(want: &BTreeMap<String, String>, have: &BTreeMap<String, String>) -> Vec<String> {
    let paths: std::collections::BTreeSet<_> = want.keys().chain(have.keys()).collect();
    paths
        .into_iter()
        .filter(|p| want.get(*p) != have.get(*p))
        .map(|p| format!("{p}\n  want {:?}\n  have {:?}", want.get(p), have.get(p)))
        .collect()
}

fn walk(root: &Path, path: &str, entries: &mut Vec<(String, fs::Metadata)>) {
    let place = root.join(path);
    let meta = fs::symlink_metadata(&place).unwrap();
    let is_dir = meta.is_dir();
    entries.push((path.to_owned(), meta));
    if is_dir {
        let mut names: Vec<_> = fs::read_dir(&place).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        for name in names {
            walk(root, &format!("{path}/{}", name.to_str().unwrap()), entries);
        }
    }
}

fn hash(path: &Path) -> String {
    let (mut file, mut sha, mut buffer) = (File::open(path).unwrap(), Sha256::new(), vec![0; 1 << 16]);
    loop {
        let n = file.read(&mut buffer).unwrap();
        if n == 0 {
            break format!("{:x}", sha.finalize());
        }
        sha.update(&buffer[..n]);
    }
}

fn attributes(path: &Path) -> BTreeMap<String, String> {
    let mut names = vec![0u8; 64 << 10];
    let Ok(length) = llistxattr(path, &mut names[..]) else { return BTreeMap::new() };
    names[..length]
        .split(|b| *b == 0)
        .filter(|n| n.starts_with(b"user."))
        .map(|name| {
            let mut value = vec![0u8; 64 << 10];
            let length = lgetxattr(path, OsStr::from_bytes(name), &mut value[..]).unwrap();
            (String::from_utf8_lossy(name).into_owned(), String::from_utf8_lossy(&value[..length]).into_owned())
        })
        .collect()
}

fn set_time(path: &Path, n: u32) {
    let at =
        SystemTime::UNIX_EPOCH + Duration::new(1_500_000_000 + u64::from(n) * 3_600, n * 1_000_003 % 1_000_000_000);
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let time = Timespec { tv_sec: i64::try_from(since.as_secs()).unwrap(), tv_nsec: since.subsec_nanos().into() };
    utimensat(CWD, path, &Timestamps { last_access: time, last_modification: time }, AtFlags::SYMLINK_NOFOLLOW)
        .unwrap();
}

fn write_random(path: &Path, size: u64, random: &mut Random) {
    let mut file = std::io::BufWriter::new(File::create(path).unwrap());
    let mut left = size;
    while left > 0 {
        let bytes = random.next().to_le_bytes();
        let n = usize::try_from(left.min(8)).unwrap();
        file.write_all(&bytes[..n]).unwrap();
        left -= n as u64;
    }
}

/// xorshift64*: small, repeatable, incompressible enough.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }
}
