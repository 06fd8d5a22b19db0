//! Where the cluster comes from: made here (the default), made by kind on a Docker
//! engine, or the developer's own. `CLUSTER` selects it.

use crate::error::{Error, Result};
use crate::exec;
use crate::layout::Place;

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Provider {
    /// Made by this program.
    Local,
    /// The one that KUBECONFIG names; never changed.
    Existing,
    /// `kind`, with a Docker engine.
    Kind,
}

/// Checks that the developer's own cluster answers.
pub fn existing_up(place: &Place) -> Result<()> {
    let Some(config) = std::env::var_os("KUBECONFIG").filter(|v| !v.is_empty()) else {
        return Err(Error::new("CLUSTER=existing needs KUBECONFIG"));
    };
    let built = place.home.bin().join("kubectl");
    let kubectl = if exec::on_path("kubectl") { "kubectl".into() } else { built };
    let mut cmd = exec::command(&[kubectl]);
    exec::output(cmd.args(["--request-timeout=10s", "get", "--raw", "/readyz"]))?;
    println!("export KUBECONFIG={}", config.display());
    Ok(())
}

fn need_kind() -> Result<()> {
    for program in ["docker", "kind"] {
        if !exec::on_path(program) {
            return Err(Error::new(format!("CLUSTER=kind needs {program}")));
        }
    }
    Ok(())
}

pub fn kind_up(place: &Place) -> Result<()> {
    need_kind()?;
    let config = place.kubeconfig();
    let config = config.display().to_string();
    let clusters = exec::run(&["kind", "get", "clusters"])?;
    let mut cmd = if clusters.lines().any(|name| name == place.name) {
        exec::command(&["kind", "export", "kubeconfig"])
    } else {
        exec::command(&["kind", "create", "cluster", "--wait", "120s"])
    };
    exec::output(cmd.args(["--name", &place.name, "--kubeconfig", &config]))?;
    println!("export KUBECONFIG={config}");
    Ok(())
}

pub fn kind_down(place: &Place) -> Result<()> {
    need_kind()?;
    exec::run(&["kind", "delete", "cluster", "--name", &place.name]).map(drop)
}

pub fn kind_load(place: &Place, archive: &str) -> Result<()> {
    need_kind()?;
    exec::run(&["kind", "load", "image-archive", archive, "--name", &place.name]).map(drop)
}
