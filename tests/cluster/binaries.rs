//! Builds the cluster's programs from Go modules.
//!
//! Each folder below `modules/` is a Go module with `tool` lines and no code
//! (except the pause program). A module is built again only when its files
//! change; the result goes to a folder of its own first and is then moved in
//! place, so that a running cluster never sees a half-written program.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Instant;

use sha2::{Digest, Sha256};

use crate::error::{Context, Result};
use crate::exec;
use crate::host;
use crate::layout::{Home, hex, project_root};

/// Modules are separate because their dependencies do not agree.
const MODULES: &[Module] = &[
    Module {
        name: "controlplane",
        stamps: &[("k8s.io/component-base/version.gitVersion", "k8s.io/kubernetes")],
        rename: &[("server", "etcd")],
    },
    Module {
        name: "node",
        stamps: &[("github.com/containerd/containerd/v2/version.Version", "github.com/containerd/containerd/v2")],
        rename: &[],
    },
    Module { name: "tools", stamps: &[("helm.sh/helm/v4/internal/version.version", "helm.sh/helm/v4")], rename: &[] },
    Module { name: "restic", stamps: &[("main.version", "github.com/restic/restic")], rename: &[] },
    Module { name: "pause", stamps: &[], rename: &[] },
];

struct Module {
    name: &'static str,
    /// Go variables that get the version of a module, and that module.
    stamps: &'static [(&'static str, &'static str)],
    /// Programs whose package name is not the name people know.
    rename: &'static [(&'static str, &'static str)],
}

/// Builds what is missing or out of date.
pub fn ensure(home: &Home) -> Result<()> {
    let logs = home.build_logs();
    for dir in [&logs, &home.bin()] {
        fs::create_dir_all(dir).context(format!("cannot make {}", dir.display()))?;
    }
    // Several checkouts may share the folder.
    let lock = File::create(logs.join("lock")).context("cannot open the build lock")?;
    lock.lock().context("cannot take the build lock")?;
    for module in MODULES {
        let source = project_root().join("tests/cluster/modules").join(module.name);
        let wanted = digest(&source)?;
        let stamp = logs.join(format!("{}.sha256", module.name));
        if fs::read_to_string(&stamp).is_ok_and(|have| have == wanted) {
            continue;
        }
        host::need_go()?;
        build(home, module, &source)?;
        fs::write(&stamp, wanted).context("cannot write a build stamp")?;
    }
    Ok(())
}

fn build(home: &Home, module: &Module, source: &Path) -> Result<()> {
    let started = Instant::now();
    eprintln!("building {} (minutes when nothing is cached)", module.name);
    let fresh = home.build_logs().join(format!("{}.new", module.name));
    if fresh.exists() {
        fs::remove_dir_all(&fresh).context("cannot clear a half-finished build")?;
    }
    fs::create_dir_all(&fresh).context("cannot make a build folder")?;
    let mut flags = String::from("-s -w");
    for (variable, dependency) in module.stamps {
        let version = version_of(source, dependency)?;
        let _ = write!(flags, " -X {variable}={version}");
        // Kubernetes has its version in parts as well.
        if let Some(base) = variable.strip_suffix(".gitVersion") {
            let mut parts = version.trim_start_matches('v').split('.');
            let (major, minor) = (parts.next().unwrap_or("1"), parts.next().unwrap_or("0"));
            let _ =
                write!(flags, " -X {base}.gitMajor={major} -X {base}.gitMinor={minor} -X {base}.gitTreeState=clean");
        }
    }
    let what = if source.join("main.go").exists() { "." } else { "tool" };
    let mut target = fresh.clone().into_os_string();
    target.push("/");
    let mut cmd = exec::command(&["go", "build", "-trimpath", "-buildvcs=false", "-ldflags"]);
    cmd.arg(&flags).arg("-o").arg(target).arg(what).current_dir(source).env("CGO_ENABLED", "0");
    exec::logged(&mut cmd, &home.build_logs().join(format!("{}.log", module.name)))?;
    install(home, module, &fresh)?;
    eprintln!("built {} in {} s", module.name, started.elapsed().as_secs());
    Ok(())
}

fn install(home: &Home, module: &Module, fresh: &Path) -> Result<()> {
    for entry in fs::read_dir(fresh).context("cannot list a build")?.flatten() {
        let built = entry.file_name().to_string_lossy().into_owned();
        let name = module.rename.iter().find(|(from, _)| *from == built).map_or(&*built, |(_, to)| to);
        fs::rename(entry.path(), home.bin().join(name)).context(format!("cannot install {name}"))?;
    }
    fs::remove_dir_all(fresh).context("cannot remove a build folder")
}

/// The version of a dependency, as the module's `go.mod` has it.
fn version_of(source: &Path, dependency: &str) -> Result<String> {
    let text = fs::read_to_string(source.join("go.mod")).context("cannot read go.mod")?;
    text.lines()
        .map(|line| line.trim().trim_start_matches("require "))
        .filter_map(|line| line.strip_prefix(dependency)?.strip_prefix(' '))
        .filter_map(|rest| rest.split_whitespace().next())
        .find(|version| version.starts_with('v'))
        .map(str::to_owned)
        .context(format!("{dependency} is not in {}/go.mod", source.display()))
}

/// Digest over all of a module's files, and over how they are built.
fn digest(source: &Path) -> Result<String> {
    let mut files: Vec<PathBuf> = fs::read_dir(source)
        .context(format!("cannot list {}", source.display()))?
        .flatten()
        .map(|e| e.path())
        .collect();
    files.sort();
    let mut hash = Sha256::new();
    for file in files {
        hash.update(file.file_name().unwrap_or_default().as_encoded_bytes());
        hash.update(fs::read(&file).context(format!("cannot read {}", file.display()))?);
    }
    Ok(hex(&hash.finalize()))
}
