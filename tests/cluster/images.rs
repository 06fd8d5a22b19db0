//! Images that every cluster gets at its start, kept as archives in the shared
//! folder. No registry is involved: only images from this folder can run.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;

use serde_json::json;
use sha2::{Digest, Sha256};

use crate::config::PAUSE_IMAGE;
use crate::error::{Context, Error, Result};
use crate::exec;
use crate::layout::{Home, Place, hex};

/// Makes the archive of the pause image without an image builder: the image is
/// one file, and a cluster must start where no image builder is installed.
pub fn ensure_pause(home: &Home) -> Result<()> {
    let program = home.bin().join("pause");
    let archive = home.images().join("pause.tar");
    let newer = |a: &Path, b: &Path| -> Option<bool> {
        Some(a.metadata().ok()?.modified().ok()? > b.metadata().ok()?.modified().ok()?)
    };
    if newer(&archive, &program) == Some(true) {
        return Ok(());
    }
    fs::create_dir_all(home.images()).context("cannot make the image folder")?;
    let work = tempfile::tempdir_in(home.images()).context("cannot make a work folder")?;
    let path = |name: &str| work.path().join(name);
    let tar = |archive: &Path, from: &Path, files: &[&str]| {
        let mut cmd = exec::command(&["tar", "--owner=0", "--group=0", "-cf"]);
        cmd.arg(archive).arg("-C").arg(from).args(files);
        exec::output(&mut cmd)
    };
    tar(&path("layer.tar"), &home.bin(), &["pause"])?;
    let layer = fs::read(path("layer.tar")).context("cannot read the layer")?;
    let digest = hex(&Sha256::digest(&layer));
    let arch = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let image = json!({
        "architecture": arch, "os": "linux", "config": {"Entrypoint": ["/pause"], "User": "65535:65535"},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{digest}")]},
        "history": [{"created_by": "pause"}],
    });
    let manifest = json!([{"Config": "config.json", "RepoTags": [PAUSE_IMAGE], "Layers": ["layer.tar"]}]);
    fs::write(path("config.json"), image.to_string()).context("cannot write an image config")?;
    fs::write(path("manifest.json"), manifest.to_string()).context("cannot write a manifest")?;
    tar(&path("image.tar"), work.path(), &["manifest.json", "config.json", "layer.tar"])?;
    fs::rename(path("image.tar"), &archive).context("cannot install the pause image")
}

/// Loads all kept archives into a node, unless it has them.
pub fn load_cached(place: &Place, node: u8) -> Result<()> {
    let mut archives: Vec<PathBuf> = fs::read_dir(place.home.images())
        .context("cannot list images")?
        .flatten()
        .map(|e| e.path())
        .filter(|p| p.extension().is_some_and(|e| e == "tar"))
        .collect();
    // Small archives come first: no pod starts without the pause image.
    archives.sort_by_key(|p| p.metadata().map_or(u64::MAX, |m| m.len()));
    let marks = place.node(node).join("images-loaded");
    fs::create_dir_all(&marks).context("cannot make a folder")?;
    for archive in archives {
        let meta = archive.metadata().context("cannot look at an image")?;
        let state = format!("{} {:?}", meta.len(), meta.modified().ok());
        let mark = marks.join(archive.file_name().unwrap_or_default());
        if fs::read_to_string(&mark).is_ok_and(|have| have == state) {
            continue;
        }
        import(place, node, &archive)?;
        fs::write(&mark, state).context("cannot write a mark")?;
    }
    Ok(())
}

/// Imports an archive into every node of a running cluster.
pub fn load(place: &Place, archive: &Path) -> Result<()> {
    let nodes: Vec<u8> = (1..=2).filter(|n| place.containerd_socket(*n).exists()).collect();
    if nodes.is_empty() {
        return Err(Error::new(format!("cluster {} has no running node", place.name)));
    }
    thread::scope(|scope| {
        let imports: Vec<_> = nodes.iter().map(|node| scope.spawn(|| import(place, *node, archive))).collect();
        for import in imports {
            import.join().map_err(|_| Error::new("an import broke off"))??;
        }
        Ok(())
    })
}

/// Imports an archive into a node's containerd.
pub fn import(place: &Place, node: u8, archive: &Path) -> Result<()> {
    let mut cmd = exec::command(&[place.home.bin().join("ctr")]);
    cmd.arg("--address").arg(place.containerd_socket(node));
    cmd.args(["--namespace", "k8s.io", "images", "import"]).arg(archive);
    exec::output(&mut cmd).map(drop)
}
