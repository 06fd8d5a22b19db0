//! Options of the agent: paths and ports, which tests change.
//!
//! Options are arguments, never environment variables: the author of a session may set variables of its Jobs, by
//! `env` and `envFrom`, but not their command and arguments. With a variable that changes the path of the outcome, of
//! restic or of the root of a restore, users could forge results.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::contract::{CREDENTIALS_DIR, INTERIM_DIR, MORE_DIR, RESTORE_ROOT, SECRET_DIR, TLS_DIR};
use crate::contract::{OUTCOME_FILE, PROGRESS_PORT, WORK_DIR};
use crate::drivers::application::Folders;
use crate::drivers::restic::Places;

/// Seconds for which an old lock is watched: longer than the interval at which restic replaces its own lock.
const LOCK_WATCH: u64 = 6 * 60;

/// Arguments of the agent. Jobs set none.
#[derive(Args, Clone, Debug)]
#[command(args_override_self = true)]
pub struct Options {
    /// Path of the outcome.
    #[arg(long, default_value = OUTCOME_FILE, hide = true)]
    pub outcome_file: PathBuf,
    /// Port of `GET /progress`; 0 for any.
    #[arg(long, default_value_t = PROGRESS_PORT, hide = true)]
    pub progress_port: u16,
    /// Kubeconfig. Defaults to the configuration of pods.
    #[arg(long, hide = true)]
    pub kubeconfig: Option<PathBuf>,
    /// Name or path of restic.
    #[arg(long, default_value = "restic", hide = true)]
    pub restic: String,
    /// Folder of the backend Secret.
    #[arg(long, default_value = SECRET_DIR, hide = true)]
    pub secret_dir: PathBuf,
    /// Scratch space.
    #[arg(long, default_value = WORK_DIR, hide = true)]
    pub work_dir: PathBuf,
    /// PVC for cache and temporary files.
    #[arg(long, default_value = INTERIM_DIR, hide = true)]
    pub interim_dir: PathBuf,
    /// Folder below which the volumes of a restore are mounted.
    #[arg(long, default_value = RESTORE_ROOT, hide = true)]
    pub restore_root: PathBuf,
    /// Folder of the credentials of an application.
    #[arg(long, default_value = CREDENTIALS_DIR, hide = true)]
    pub credentials_dir: PathBuf,
    /// Folder of the certificates of an application.
    #[arg(long, default_value = TLS_DIR, hide = true)]
    pub tls_dir: PathBuf,
    /// Folder of further credentials of an application.
    #[arg(long, default_value = MORE_DIR, hide = true)]
    pub more_dir: PathBuf,
    /// Seconds for which an old lock is watched.
    #[arg(long, default_value_t = LOCK_WATCH, hide = true)]
    pub lock_watch: u64,
}

impl Options {
    /// Folders of an application.
    pub fn folders(&self) -> Folders {
        Folders {
            credentials: self.credentials_dir.clone(),
            tls: self.tls_dir.clone(),
            more: self.more_dir.clone(),
            work: self.work_dir.clone(),
        }
    }

    /// The options of the driver.
    pub fn places(&self) -> Places {
        Places {
            program: self.restic.clone(),
            secret_dir: self.secret_dir.clone(),
            work_dir: self.work_dir.clone(),
            interim_dir: self.interim_dir.clone(),
            restore_root: self.restore_root.clone(),
            lock_watch: Duration::from_secs(self.lock_watch),
        }
    }
}
