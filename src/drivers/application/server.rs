//! A server that is dumped or loaded, whichever application it is.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::contract::application::{Addon, Contents, Format, Manifest, Work};
use crate::contract::{Class, Failure};
use crate::drivers::application::credentials::Credentials;
use crate::drivers::application::failure::{Doing, failure};
use crate::drivers::application::meter::Client;
use crate::drivers::application::process::{Command, Ended, stopped, terminated};
use crate::names::reason;

/// Longest time of one query about the server.
const QUERY: Duration = Duration::from_mins(2);
/// Time between two attempts to reach the server.
const PAUSE: Duration = Duration::from_secs(2);

/// What a server reports about itself.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Its version.
    pub version: String,
    /// Its version as a number, if versions can be compared.
    pub number: Option<u64>,
    /// What is in it.
    pub contents: Contents,
    /// Worth reporting.
    pub warnings: Vec<String>,
}

/// A dump that is to be made.
#[derive(Debug, Default)]
pub struct Plan {
    /// The clients that write it.
    pub clients: Vec<Client>,
    /// How it is to be loaded.
    pub format: Format,
}

/// A dump that is to be loaded.
#[derive(Clone, Copy, Debug)]
pub struct Dumped<'a> {
    /// Its manifest; `None` if another program made it.
    pub manifest: Option<&'a Manifest>,
    /// Its first bytes.
    pub head: &'a [u8],
}

/// The connection to a server.
#[derive(Debug)]
pub struct Server<'a> {
    /// What is to be done.
    pub work: &'a Work,
    /// Credentials for the clients.
    pub credentials: &'a Credentials,
    /// Becomes true when the Job must end.
    pub stop: watch::Receiver<bool>,
}

impl Server<'_> {
    /// Runs a query of a client and returns its output.
    ///
    /// # Errors
    /// The client failed, as [`failure`] reads its messages.
    pub async fn ask(&self, command: &Command, input: &str) -> Result<String, Failure> {
        let (ended, out) = command.output(input, QUERY, &self.stop).await?;
        if ended.code == Some(0) {
            return Ok(String::from_utf8_lossy(&out).into_owned());
        }
        Err(self.failure(Doing::Asking, &ended))
    }

    /// Why a client failed, without credentials.
    pub fn failure(&self, doing: Doing, ended: &Ended) -> Failure {
        let mut failure = failure(self.work.addon, &self.work.connection.binding, doing, ended);
        self.credentials.blot(&mut failure.message);
        failure
    }

    /// Waits until the server answers a query.
    ///
    /// # Errors
    /// It does not answer within the time of the task, or answers that waiting does not help.
    pub async fn wait(&self, command: &Command, input: &str) -> Result<String, Failure> {
        let until = Instant::now() + Duration::from_secs(self.work.connection.wait);
        let mut stop = self.stop.clone();
        loop {
            let failure = match self.ask(command, input).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            if failure.reason != reason::APPLICATION_UNREACHABLE || Instant::now() + PAUSE > until {
                return Err(failure);
            }
            tracing::info!(reason = %failure.message, "waiting for the server");
            tokio::select! {
                () = tokio::time::sleep(PAUSE) => {}
                () = stopped(&mut stop) => return Err(terminated()),
            }
        }
    }

    /// A failure that names the AppBinding.
    pub fn refuse(&self, why: &str, text: &str) -> Failure {
        Failure::new(Class::Invalid, why, format!("AppBinding {}: {text}", self.work.connection.binding))
    }

    /// The clients that are used.
    pub fn addon(&self) -> Addon {
        self.work.addon
    }
}

/// Names in a message, as many as it has room for.
pub fn some(names: &[String]) -> String {
    const MOST: usize = 5;
    let more = if names.len() > MOST { format!(" and {} more", names.len() - MOST) } else { String::new() };
    names.iter().take(MOST).map(String::as_str).collect::<Vec<_>>().join(", ") + &more
}
