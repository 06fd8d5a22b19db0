//! How commands talk to a running supervisor: one JSON line each way over a
//! Unix socket.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::{Context, Result};
use crate::layout::Place;

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "do")]
pub enum Request {
    Status,
    /// Ends the cluster.
    Shutdown,
    Component {
        name: String,
        action: Action,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Ask it to end; it stays away until `start`.
    Stop,
    Start,
    /// Stop, then start.
    Restart,
    /// SIGKILL; the supervisor starts it again like after any death.
    Kill,
    /// SIGSTOP: it keeps its sockets and answers nothing.
    Pause,
    /// SIGCONT.
    Resume,
}

#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Reply {
    pub error: Option<String>,
    pub components: Vec<ComponentStatus>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ComponentStatus {
    pub name: String,
    pub state: String,
    pub pid: Option<i32>,
    pub restarts: u32,
    pub ready: bool,
    /// Why it is not ready.
    pub reason: String,
}

/// Asks the supervisor; an error when there is none.
pub fn ask(place: &Place, request: &Request) -> Result<Reply> {
    let mut stream = UnixStream::connect(place.control_socket()).context("no supervisor answers")?;
    let patience = Some(Duration::from_secs(30));
    stream.set_read_timeout(patience).context("socket")?;
    stream.set_write_timeout(patience).context("socket")?;
    let mut line = serde_json::to_string(request).context("cannot encode a request")?;
    line.push('\n');
    stream.write_all(line.as_bytes()).context("supervisor went away")?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).context("supervisor does not answer")?;
    serde_json::from_str(&answer).context("supervisor's answer is not understood")
}
