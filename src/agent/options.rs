//! Where the agent finds what it needs, and what tests put elsewhere.
//!
//! By arguments and never by the environment: whoever writes a session may set
//! variables of its Jobs, by `env` and `envFrom`, but neither their command nor
//! their arguments. A variable that moved the outcome, restic or the root of a
//! restore would let a user write results.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::contract::{INTERIM_DIR, RESTORE_ROOT, SECRET_DIR};
use crate::contract::{OUTCOME_FILE, PROGRESS_PORT, WORK_DIR};
use crate::drivers::restic::Places;

/// How long an old lock is watched, in seconds: somewhat longer than restic waits before it replaces its own.
const LOCK_WATCH: u64 = 6 * 60;

/// Arguments of the agent. A Job gives none.
#[derive(Args, Clone, Debug)]
#[command(args_override_self = true)]
pub struct Options {
    /// Where the outcome is left.
    #[arg(long, default_value = OUTCOME_FILE, hide = true)]
    pub outcome_file: PathBuf,
    /// Port of `GET /progress`; 0 for any.
    #[arg(long, default_value_t = PROGRESS_PORT, hide = true)]
    pub progress_port: u16,
    /// How the API server is reached; as pods do when absent.
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
    /// Claim for cache and temporary files.
    #[arg(long, default_value = INTERIM_DIR, hide = true)]
    pub interim_dir: PathBuf,
    /// Folder below which the volumes of a restore stand.
    #[arg(long, default_value = RESTORE_ROOT, hide = true)]
    pub restore_root: PathBuf,
    /// Seconds for which an old lock is watched.
    #[arg(long, default_value_t = LOCK_WATCH, hide = true)]
    pub lock_watch: u64,
}

impl Options {
    /// What the driver is told of them.
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
