//! Where everything lives: one git-ignored folder for binaries, images and the
//! state of every cluster, and the names a cluster uses outside of it.
//!
//! Names outside the folder (network namespace, veth, cgroup, runtime folder)
//! carry an id made from the cluster's folder and name, so that two checkouts
//! with a cluster of the same name do not conflict.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::error::{Context, Error, Result};

/// The shared folder: `.lifeboat` at the project's root, or `LIFEBOAT_DIR`.
#[derive(Clone, Debug)]
pub struct Home {
    pub dir: PathBuf,
}

impl Home {
    pub fn find() -> Result<Self> {
        let dir = std::env::var_os("LIFEBOAT_DIR")
            .filter(|v| !v.is_empty())
            .map_or_else(|| project_root().join(".lifeboat"), PathBuf::from);
        fs::create_dir_all(&dir).context(format!("cannot make {}", dir.display()))?;
        let dir = dir.canonicalize().context("cannot resolve the cluster folder")?;
        Ok(Self { dir })
    }

    pub fn bin(&self) -> PathBuf {
        self.dir.join("bin")
    }

    pub fn images(&self) -> PathBuf {
        self.dir.join("images")
    }

    pub fn build_logs(&self) -> PathBuf {
        self.dir.join("build")
    }

    pub fn cluster(&self, name: &str) -> Result<Place> {
        let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if name.is_empty() || name.len() > 30 || !name.chars().all(good) {
            return Err(Error::new(format!("cluster name {name:?}: use 1 to 30 of a-z, 0-9 and -")));
        }
        let dir = self.dir.join("state").join(name);
        let hash = Sha256::digest(dir.as_os_str().as_encoded_bytes());
        let id = hex(&hash[..3]);
        Ok(Place { home: self.clone(), name: name.to_owned(), dir, id })
    }

    /// Names of all clusters that have a state folder.
    pub fn cluster_names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.dir.join("state")).into_iter().flatten().flatten();
        let mut names: Vec<String> =
            entries.filter(|e| e.path().is_dir()).map(|e| e.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }
}

/// The project's root, fixed at build time: the supervisor is never installed.
pub fn project_root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// A digest in hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// One cluster's folder and names.
#[derive(Clone, Debug)]
pub struct Place {
    pub home: Home,
    pub name: String,
    pub dir: PathBuf,
    pub id: String,
}

impl Place {
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    pub fn logs(&self) -> PathBuf {
        self.dir.join("logs")
    }

    pub fn log_of(&self, component: &str) -> PathBuf {
        self.logs().join(format!("{component}.log"))
    }

    pub fn pki(&self) -> PathBuf {
        self.dir.join("pki")
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.join("kubeconfig")
    }

    /// Folder of one node (1 or 2).
    pub fn node(&self, node: u8) -> PathBuf {
        self.dir.join(format!("node{node}"))
    }

    /// Lock file, held while a cluster is brought up or down. It is outside of the
    /// cluster's folder, which `down` removes.
    pub fn lock(&self) -> PathBuf {
        self.home.dir.join("state").join(format!(".{}.lock", self.name))
    }

    /// Folder of sockets. Its path is short: a socket's address holds 107 bytes only.
    pub fn runtime(&self) -> PathBuf {
        PathBuf::from(format!("/run/lifeboat-{}", self.id))
    }

    pub fn control_socket(&self) -> PathBuf {
        self.runtime().join("control.sock")
    }

    pub fn containerd_socket(&self, node: u8) -> PathBuf {
        self.runtime().join(format!("containerd-{node}.sock"))
    }

    /// Network namespace of a node; the control plane lives in the first.
    pub fn netns(&self, node: u8) -> String {
        format!("lifeboat-{}-{node}", self.id)
    }

    pub fn netns_path(&self, node: u8) -> PathBuf {
        Path::new("/run/netns").join(self.netns(node))
    }

    /// The host's end of the cluster's veth pair.
    pub fn host_veth(&self) -> String {
        format!("lb{}", self.id)
    }

    /// The cluster's cgroup, below the root of every controller.
    pub fn cgroup(&self) -> String {
        format!("lifeboat-{}", self.id)
    }
}
