//! Builds images from Dockerfiles: with a Docker engine where there is one,
//! else with buildah on a base made of Debian packages.
//!
//! Layers stay uncompressed all the way and nothing above the binary's own
//! layer is made again, so that a changed binary is in the cluster in seconds.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest, Sha256};

use crate::error::{Context, Error, Result};
use crate::layout::{Home, hex, project_root};
use crate::{exec, host};

pub const BASE_IMAGE: &str = "localhost/lifeboat-base:1";
pub const TEST_APP_IMAGE: &str = "localhost/lifeboat-test-app:1";
/// Database servers, for tests of applications. They are loaded only where a test needs them.
pub const DATABASES_IMAGE: &str = "localhost/lifeboat-test-databases:1";
/// Packages of the add-on image of tests. One image has the clients of all databases, so that a cluster loads one.
const CLIENTS: &str = "postgresql-client-17 mariadb-client valkey-tools";
const SUITE: &str = "trixie";

pub struct Builder<'a> {
    home: &'a Home,
    docker: bool,
}

impl<'a> Builder<'a> {
    pub fn new(home: &'a Home) -> Result<Self> {
        let docker = exec::on_path("docker") && exec::run(&["docker", "info"]).is_ok();
        if !docker {
            host::need_root()?;
            host::need_image_packages()?;
        }
        fs::create_dir_all(home.images()).context("cannot make the image folder")?;
        Ok(Self { home, docker })
    }

    /// A buildah command with a store of its own, in a mount namespace of its
    /// own: the store would otherwise stay mounted.
    fn buildah(&self, words: &[&str]) -> Command {
        let mut cmd = exec::command(&["unshare", "--mount", "--propagation", "private", "buildah"]);
        cmd.arg("--root").arg(self.store()).args(["--runroot", "/run/lifeboat-buildah"]);
        cmd.args(["--storage-driver", "overlay"]).args(words);
        cmd
    }

    fn store(&self) -> PathBuf {
        self.home.dir.join("buildah")
    }

    fn has(&self, image: &str) -> bool {
        let words = ["inspect", "--type", "image", image];
        let mut cmd =
            if self.docker { exec::command(&["docker", "image", "inspect", image]) } else { self.buildah(&words) };
        exec::output(&mut cmd).is_ok()
    }

    /// The base of all images. A Docker engine pulls its own.
    fn base(&self) -> Result<()> {
        if self.has(BASE_IMAGE) {
            return Ok(());
        }
        eprintln!("making {BASE_IMAGE}");
        if self.docker {
            let from = format!("docker.io/library/debian:{SUITE}-slim");
            exec::run(&["docker", "pull", &from])?;
            return exec::run(&["docker", "tag", &from, BASE_IMAGE]).map(drop);
        }
        fs::create_dir_all(self.store()).context("cannot make the image store")?;
        let work = tempfile::tempdir_in(&self.home.dir).context("cannot make a work folder")?;
        let root = work.path().join("root.tar");
        let mut cmd = exec::command(&["mmdebstrap", "--variant=minbase", "--quiet"]);
        // Debian's own slim images leave these folders out too: a cluster loads this image at every start.
        for dir in ["doc", "info", "locale", "man"] {
            cmd.arg(format!("--dpkgopt=path-exclude=/usr/share/{dir}/*"));
        }
        exec::output(cmd.arg(SUITE).arg(&root))?;
        let container = exec::output(&mut self.buildah(&["from", "scratch"]))?;
        let container = container.trim();
        let fill = || -> Result<()> {
            exec::output(self.buildah(&["add", "--quiet", container]).arg(&root).arg("/"))?;
            exec::output(&mut self.buildah(&["config", "--cmd", "/bin/sh", container]))?;
            exec::output(&mut self.buildah(&["commit", "--quiet", container, BASE_IMAGE])).map(drop)
        };
        let filled = fill();
        exec::output(&mut self.buildah(&["rm", container]))?;
        filled
    }

    /// `packages` are those that the image has besides its own.
    fn dockerfile(&self, file: &Path, context: &Path, tag: &str, packages: &str) -> Result<()> {
        self.base()?;
        let base = format!("BASE={BASE_IMAGE}");
        let mut cmd = if self.docker {
            exec::command(&["docker", "build", "--quiet"])
        } else {
            // Isolation without a container runtime: namespaces may not nest here.
            self.buildah(&["bud", "--quiet", "--layers", "--isolation", "chroot"])
        };
        if !packages.is_empty() {
            cmd.args(["--build-arg", &format!("PACKAGES={packages}")]);
        }
        cmd.args(["--build-arg", &base, "--tag", tag, "--file"]).arg(file).arg(context);
        exec::output(&mut cmd).map(drop)
    }

    /// Writes an image to an archive, complete or not at all.
    fn save(&self, tag: &str, archive: &Path) -> Result<()> {
        let partial = archive.with_extension("partial");
        let _ = fs::remove_file(&partial);
        let target = format!("docker-archive:{}:{tag}", partial.display());
        let mut cmd = if self.docker {
            let mut cmd = exec::command(&["docker", "save", "--output"]);
            cmd.arg(&partial).arg(tag);
            cmd
        } else {
            self.buildah(&["push", "--quiet", "--disable-compression", tag, &target])
        };
        exec::output(&mut cmd)?;
        fs::rename(&partial, archive).context(format!("cannot write {}", archive.display()))
    }

    /// Builds the operator's image around a binary, and its archive; with `addons` also the image of these packages.
    pub fn operator(&self, tag: &str, binary: &Path, addons: bool) -> Result<PathBuf> {
        let context = tempfile::tempdir_in(&self.home.dir).context("cannot make a work folder")?;
        let stripped = context.path().join("lifeboat");
        let mut cmd = exec::command(&[OsStr::new("strip"), OsStr::new("-o")]);
        exec::output(cmd.arg(&stripped).arg(binary))?;
        let file = project_root().join("config/Dockerfile");
        let build = |tag: &str, packages: &str| {
            self.dockerfile(&file, context.path(), tag, packages)?;
            let archive = archive_of(self.home, tag)?;
            self.save(tag, &archive).map(|()| archive)
        };
        let archive = build(tag, "")?;
        if addons {
            build(&addons_of(tag), CLIENTS)?;
        }
        if !self.docker {
            // Each build leaves the previous image without a name.
            let _ = exec::output(&mut self.buildah(&["rmi", "--prune"]));
        }
        Ok(archive)
    }

    /// Makes the images that every cluster gets, unless their archive exists.
    pub fn ensure_test_images(&self) -> Result<()> {
        let file = project_root().join("tests/cluster/test-app.Dockerfile");
        self.once(TEST_APP_IMAGE, &self.home.images().join("test.tar"), &[&file], |work| {
            self.dockerfile(&file, work, TEST_APP_IMAGE, "")?;
            let archives = [work.join("base.tar"), work.join("app.tar")];
            for (image, archive) in [BASE_IMAGE, TEST_APP_IMAGE].iter().zip(&archives) {
                self.save(image, archive)?;
            }
            merge(&archives, &work.join("image.tar"))
        })
    }

    /// Makes the image of the database servers, unless its archive exists.
    pub fn ensure_databases(&self) -> Result<()> {
        let folder = project_root().join("tests/cluster");
        let (file, serve) = (folder.join("test-databases.Dockerfile"), folder.join("serve"));
        self.once(DATABASES_IMAGE, &archive_of(self.home, DATABASES_IMAGE)?, &[&file, &serve], |work| {
            fs::copy(&serve, work.join("serve")).context("cannot copy serve")?;
            self.dockerfile(&file, work, DATABASES_IMAGE, "")?;
            self.save(DATABASES_IMAGE, &work.join("image.tar"))
        })
    }

    /// Makes an archive unless there is one made of the same files. `make` leaves it as `image.tar` in a work folder.
    fn once(&self, image: &str, archive: &Path, files: &[&Path], make: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        let mut hash = Sha256::new();
        for file in files {
            hash.update(fs::read(file).context(format!("cannot read {}", file.display()))?);
        }
        let wanted = hex(&hash.finalize());
        let stamp = archive.with_extension("sha256");
        if archive.exists() && fs::read_to_string(&stamp).is_ok_and(|have| have == wanted) {
            return Ok(());
        }
        eprintln!("making {image}");
        let work = tempfile::tempdir_in(&self.home.dir).context("cannot make a work folder")?;
        make(work.path())?;
        fs::rename(work.path().join("image.tar"), archive).context(format!("cannot install {image}"))?;
        fs::write(&stamp, wanted).context("cannot write a stamp")
    }
}

/// Puts the images of several archives into one. Layers are named by their
/// digest, so that a base is written, and later imported, only once.
fn merge(archives: &[PathBuf], merged: &Path) -> Result<()> {
    let work = tempfile::tempdir_in(merged.parent().context("no folder")?).context("cannot make a work folder")?;
    let manifest = work.path().join("manifest.json");
    let mut images = Vec::new();
    for archive in archives {
        let mut cmd = exec::command(&["tar", "--extract", "--file"]);
        exec::output(cmd.arg(archive).arg("--directory").arg(work.path()))?;
        let text = fs::read_to_string(&manifest).context("an archive without a manifest")?;
        let more: Vec<serde_json::Value> = serde_json::from_str(&text).context("manifest is not understood")?;
        images.extend(more);
    }
    let text = serde_json::to_string(&images).context("cannot encode a manifest")?;
    fs::write(&manifest, text).context("cannot write a manifest")?;
    let mut cmd = exec::command(&["tar", "--create", "--file"]);
    cmd.arg(merged).arg("--directory").arg(work.path()).arg(".");
    exec::output(&mut cmd).map(drop)
}

/// The add-on image of an operator's image: `localhost/lifeboat-addons:dev` of `localhost/lifeboat:dev`.
pub fn addons_of(tag: &str) -> String {
    match tag.rsplit_once(':') {
        Some((name, version)) if !version.contains('/') => format!("{name}-addons:{version}"),
        _ => format!("{tag}-addons"),
    }
}

/// Where the archive of a built image is kept, apart from those that every
/// cluster gets.
pub fn archive_of(home: &Home, tag: &str) -> Result<PathBuf> {
    let name: String = tag.chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '_' }).collect();
    if name.is_empty() {
        return Err(Error::new("an image needs a tag"));
    }
    let dir = home.images().join("built");
    fs::create_dir_all(&dir).context("cannot make the image folder")?;
    Ok(dir.join(format!("{name}.tar")))
}
