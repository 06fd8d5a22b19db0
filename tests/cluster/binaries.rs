//! Builds the cluster's programs from Go modules.
//!
//! Each folder below `modules/` is a Go module with `tool` lines and no code
//! (except the pause program). A module is built again only when its files
//! change; the result goes to a folder of its own first and is then moved in
//! place, so that a running cluster never sees a half-written program.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

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
    /// Go variables that get the version of a module, each with that module.
    stamps: &'static [(&'static str, &'static str)],
    /// Programs whose package name differs from their usual name.
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
    let mut missing = vec![];
    for module in MODULES {
        let source = project_root().join("tests/cluster/modules").join(module.name);
        let wanted = digest(&source)?;
        let stamp = logs.join(format!("{}.sha256", module.name));
        if !fs::read_to_string(&stamp).is_ok_and(|have| have == wanted) {
            missing.push((module, source, stamp, wanted));
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    host::need_go()?;
    let names: Vec<&str> = missing.iter().map(|(module, ..)| module.name).collect();
    eprintln!("building the programs of the cluster from source, once: {}", names.join(", "));
    let count = missing.len();
    for (n, (module, source, stamp, wanted)) in missing.into_iter().enumerate() {
        build(home, module, &source, &format!("{} of {count}: {}", n + 1, module.name))?;
        fs::write(&stamp, wanted).context("cannot write a build stamp")?;
    }
    Ok(())
}

/// Interval between two progress messages of a build.
const SAYS: Duration = Duration::from_secs(20);

/// Prints the progress of a build until `ended` is dropped, measured by the packages in the build's log.
fn say_progress(title: &str, log: &Path, packages: usize, started: Instant, ended: &Receiver<()>) {
    while ended.recv_timeout(SAYS) == Err(RecvTimeoutError::Timeout) {
        let text = fs::read_to_string(log).unwrap_or_default();
        let built = text.lines().filter(|line| !line.starts_with("go: ")).count().min(packages);
        let spent = started.elapsed();
        let left = match u32::try_from(built) {
            // The first packages are too few for an estimate.
            Ok(done) if built * 20 > packages => {
                let rest = spent / done * u32::try_from(packages - built).unwrap_or(u32::MAX);
                format!(", about {} s left", rest.as_secs().div_ceil(10) * 10)
            }
            _ => String::new(),
        };
        eprintln!("  {title}: {built} of at most {packages} packages, {} s{left}", spent.as_secs());
    }
}

/// Number of packages that a module is built from.
fn packages(source: &Path, what: &str) -> usize {
    let mut list = exec::command(&["go", "list", "-deps", what]);
    exec::output(list.current_dir(source)).map_or(0, |text| text.lines().count())
}

fn build(home: &Home, module: &Module, source: &Path, title: &str) -> Result<()> {
    let started = Instant::now();
    eprintln!("  {title}");
    let fresh = home.build_logs().join(format!("{}.new", module.name));
    if fresh.exists() {
        fs::remove_dir_all(&fresh).context("cannot clear a half-finished build")?;
    }
    fs::create_dir_all(&fresh).context("cannot make a build folder")?;
    let mut flags = String::from("-s -w");
    for (variable, dependency) in module.stamps {
        let version = version_of(source, dependency)?;
        let _ = write!(flags, " -X {variable}={version}");
        // Kubernetes also has variables for the parts of its version.
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
    let mut cmd = exec::command(&["go", "build", "-v", "-trimpath", "-buildvcs=false", "-ldflags"]);
    cmd.arg(&flags).arg("-o").arg(target).arg(what).current_dir(source).env("CGO_ENABLED", "0");
    let log = home.build_logs().join(format!("{}.log", module.name));
    // `go list` first downloads modules that are missing.
    let packages = packages(source, what);
    thread::scope(|scope| {
        let (ends, ended) = mpsc::channel::<()>();
        let log = &log;
        scope.spawn(move || say_progress(title, log, packages, started, &ended));
        let built = exec::logged(&mut cmd, log);
        drop(ends);
        built
    })?;
    install(home, module, &fresh)?;
    eprintln!("  {title}: built in {} s", started.elapsed().as_secs());
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
