//! Logs: JSON lines on standard error, for the operator and for the agent in its Jobs.
//!
//! `RUST_LOG` chooses what is said, for example `info,lifeboat=debug`; `info`
//! when it is absent. Standard output belongs to what a command was asked for.

use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;

/// Starts logging. Further calls change nothing.
pub fn init() {
    let filter = EnvFilter::builder().with_default_directive(LevelFilter::INFO.into()).from_env_lossy();
    // An error means that a logger is there already, as in tests: that one stays.
    let _ = tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_current_span(true)
        .with_span_list(false)
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .try_init();
}
