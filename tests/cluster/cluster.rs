//! The local test cluster: a real Kubernetes on this machine, built from Go
//! modules and supervised by this program.
//!
//! `cargo run --example cluster -- up` is all that a developer needs to know;
//! `tests/cluster/README.md` says the rest.

mod binaries;
mod cgroup;
mod component;
mod components;
mod config;
mod control;
mod error;
mod exec;
mod host;
mod image_builder;
mod images;
mod layout;
mod lifecycle;
mod mounts;
mod net;
mod pki;
mod probe;
mod process;
mod provider;
mod supervisor;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::{Parser, Subcommand};

use control::{Action, Request};
use error::{Context, Error, Result};
use layout::{Home, Place};
use provider::Provider;

#[derive(Parser)]
#[command(name = "cluster", about = "A real local Kubernetes for tests and development")]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Name of the cluster.
    #[arg(long, env = "NAME", default_value = "dev", global = true)]
    name: String,
    /// Nodes: 0 (API server only), 1 or 2. Default: as it was, else 1.
    #[arg(long, env = "NODES", global = true)]
    nodes: Option<u8>,
    /// Where the cluster comes from.
    #[arg(long, env = "CLUSTER", value_enum, default_value = "local", global = true)]
    cluster: Provider,
}

#[derive(Subcommand)]
enum Command {
    /// Build what is missing, start the cluster and wait until it is ready.
    Up,
    /// Stop the cluster and remove all of it.
    Down {
        /// Keep its data for the next `up`.
        #[arg(long)]
        keep: bool,
    },
    /// Show every component; fails unless all are ready.
    Status {
        #[arg(long)]
        json: bool,
    },
    /// Act on one component, such as `component kubelet kill`.
    Component { component: String, action: Action },
    /// Same as `component NAME restart`.
    RestartComponent { component: String },
    /// Show the end of a component's log.
    Logs {
        component: String,
        #[arg(long, default_value_t = 50)]
        lines: usize,
    },
    /// List clusters that have a folder.
    List,
    /// Images for the cluster.
    Image {
        #[command(subcommand)]
        image: Image,
    },
    /// Run a command where the cluster's processes run: in its network and
    /// mount namespaces.
    Exec {
        /// In the network namespace of this node.
        #[arg(long, default_value_t = 1)]
        node: u8,
        #[arg(trailing_var_arg = true, required = true)]
        words: Vec<String>,
    },
    /// Build the programs only.
    Build,
    #[command(hide = true)]
    Supervise,
    #[command(hide = true)]
    LoadCached { node: u8 },
}

#[derive(Subcommand)]
enum Image {
    /// Make the images that every cluster gets at its start.
    Base,
    /// Build the operator's image around a binary.
    Build {
        #[arg(long, default_value = "localhost/lifeboat:dev")]
        tag: String,
        #[arg(long)]
        binary: PathBuf,
        /// Build the add-on image and the database servers as well.
        #[arg(long)]
        databases: bool,
        /// Load it into the running cluster as well.
        #[arg(long)]
        load: bool,
    },
    /// Load a built image into the running cluster.
    Load {
        #[arg(long, default_value = "localhost/lifeboat:dev")]
        tag: String,
        /// Load the add-on image and the database servers as well.
        #[arg(long)]
        databases: bool,
    },
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(code) => code,
        Err(e) => {
            eprintln!("error: {e}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<ExitCode> {
    let home = Home::find()?;
    let place = home.cluster(&cli.name)?;
    match &cli.command {
        Command::Up => match cli.cluster {
            Provider::Local => lifecycle::up(&place, cli.nodes)?,
            Provider::Existing => provider::existing_up(&place)?,
            Provider::Kind => provider::kind_up(&place)?,
        },
        Command::Down { keep } => match cli.cluster {
            Provider::Local => lifecycle::down(&place, *keep)?,
            Provider::Existing => {}
            Provider::Kind => provider::kind_down(&place)?,
        },
        Command::Status { json } => return status(&place, *json),
        Command::Component { component, action } => act(&place, component, *action)?,
        Command::RestartComponent { component } => act(&place, component, Action::Restart)?,
        Command::Logs { component, lines } => {
            println!("{}", exec::tail(&place.log_of(component), *lines));
        }
        Command::List => home.cluster_names().iter().for_each(|name| println!("{name}")),
        Command::Image { image } => self::image(cli, &place, image)?,
        Command::Exec { node, words } => return lifecycle::exec_inside(&place, *node, words),
        Command::Build => binaries::ensure(&home)?,
        Command::Supervise => supervisor::run(&place, cli.nodes.unwrap_or(1))?,
        Command::LoadCached { node } => images::load_cached(&place, *node)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Fails unless everything is ready, so that scripts can check the exit code.
fn status(place: &Place, json: bool) -> Result<ExitCode> {
    let reply = control::ask(place, &Request::Status)
        .map_err(|e| Error::new(format!("cluster {} does not run: {e}", place.name)))?;
    let ready = reply.components.iter().all(|c| c.ready);
    let code = if ready { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    if json {
        let text = serde_json::to_string_pretty(&reply.components);
        println!("{}", text.context("cannot encode the status")?);
        return Ok(code);
    }
    println!("{:<20} {:<11} {:>8} {:>8}  READY", "COMPONENT", "STATE", "PID", "RESTARTS");
    for c in &reply.components {
        let pid = c.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string());
        let ready = if c.ready { "yes".to_owned() } else { format!("no: {}", c.reason) };
        println!("{:<20} {:<11} {pid:>8} {:>8}  {ready}", c.name, c.state, c.restarts);
    }
    Ok(code)
}

fn act(place: &Place, name: &str, action: Action) -> Result<()> {
    let request = Request::Component { name: name.to_owned(), action };
    match control::ask(place, &request)?.error {
        Some(error) => Err(Error::new(error)),
        None => Ok(()),
    }
}

fn image(cli: &Cli, place: &Place, image: &Image) -> Result<()> {
    let started = Instant::now();
    match image {
        Image::Base => image_builder::Builder::new(&place.home)?.ensure_test_images()?,
        Image::Build { tag, binary, databases, load } => {
            let builder = image_builder::Builder::new(&place.home)?;
            let archive = builder.operator(tag, binary, *databases)?;
            eprintln!("built {tag} ({:.1} s)", started.elapsed().as_secs_f32());
            if *databases {
                builder.ensure_databases()?;
            }
            if *load {
                load_images(cli, place, tag, *databases)?;
            }
            println!("{}", archive.display());
        }
        Image::Load { tag, databases } => load_images(cli, place, tag, *databases)?,
    }
    Ok(())
}

/// Loads the operator's image; with `databases` also what tests of applications need.
fn load_images(cli: &Cli, place: &Place, tag: &str, databases: bool) -> Result<()> {
    load_image(cli, place, tag)?;
    if databases {
        load_image(cli, place, &image_builder::addons_of(tag))?;
        load_image(cli, place, image_builder::DATABASES_IMAGE)?;
    }
    Ok(())
}

fn load_image(cli: &Cli, place: &Place, tag: &str) -> Result<()> {
    let started = Instant::now();
    let archive = image_builder::archive_of(&place.home, tag)?;
    if !archive.exists() {
        return Err(Error::new(format!("{tag} is not built; run `image build` first")));
    }
    match cli.cluster {
        Provider::Local => images::load(place, &archive)?,
        Provider::Kind => provider::kind_load(place, &archive.display().to_string())?,
        Provider::Existing => {
            return Err(Error::new("images cannot be loaded into a cluster of your own: push them"));
        }
    }
    eprintln!("loaded {tag} ({:.1} s)", started.elapsed().as_secs_f32());
    Ok(())
}
