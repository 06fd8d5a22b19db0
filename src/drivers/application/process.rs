//! Clients of an application: child processes with their own environment, a time limit, and bounded output.

use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command as Process};
use tokio::sync::watch;

use crate::contract::{Class, Failure};
use crate::names::reason;
use crate::text::cut;

/// Longest output of a query: names of some hundred thousand tables.
const OUTPUT: usize = 32 << 20;
/// Messages kept of a client, the last ones, and the longest of each in bytes.
const MESSAGES: usize = 20;
const MESSAGE: usize = 400;

/// A client with its arguments, which contain no secret, and its whole environment.
#[allow(clippy::unsafe_derive_deserialize, reason = "the unsafe code is in a macro of tokio")]
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Command {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Variables.
    pub env: Vec<(String, String)>,
}

/// How a client ended.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Ended {
    /// Name of the program.
    pub program: String,
    /// Exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// Its last messages.
    pub messages: Vec<String>,
}

impl Ended {
    /// Its messages as one text.
    pub fn text(&self) -> String {
        self.messages.join(" ")
    }
}

/// The last messages of a client.
#[derive(Clone, Debug, Default)]
pub struct Messages(Vec<String>);

impl Messages {
    /// Adds a line.
    pub fn add(&mut self, line: &str) {
        let mut line = line.trim().to_owned();
        if line.is_empty() {
            return;
        }
        cut(&mut line, MESSAGE);
        if self.0.len() == MESSAGES {
            // The first message says what went wrong; those after it are consequences.
            self.0.remove(1);
        }
        self.0.push(line);
    }

    /// The kept lines.
    pub fn into_lines(self) -> Vec<String> {
        self.0
    }
}

impl Command {
    /// A command with this environment.
    pub fn new(argv: impl IntoIterator<Item = impl Into<String>>, env: &[(String, String)]) -> Self {
        Self { argv: argv.into_iter().map(Into::into).collect(), env: env.to_vec() }
    }

    /// The same with another variable.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.env.retain(|(n, _)| n != name);
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Name of the program.
    pub fn program(&self) -> &str {
        self.argv.first().map(String::as_str).unwrap_or_default()
    }

    /// Starts it in a process group of its own.
    ///
    /// # Errors
    /// The image of the Job does not have the program.
    pub fn start(&self, stdin: Stdio) -> Result<Child, Failure> {
        let program = self.program();
        let started = Process::new(program)
            .args(self.argv.iter().skip(1))
            .env_clear()
            .envs(self.env.iter().map(|(k, v)| (k, v)))
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn();
        started.map_err(|e| missing(program, &e))
    }

    /// Runs it to its end, and returns its output.
    ///
    /// # Errors
    /// It could not be started, took longer than `limit`, or the Job was told to stop.
    pub async fn output(
        &self,
        input: &str,
        limit: Duration,
        stop: &watch::Receiver<bool>,
    ) -> Result<(Ended, Vec<u8>), Failure> {
        let mut child = self.start(Stdio::piped())?;
        let (mut stdin, out, err) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let work = async {
            let write = async {
                if let Some(mut stdin) = stdin.take() {
                    // A client that ends early says why itself.
                    let _ = stdin.write_all(input.as_bytes()).await;
                }
            };
            let ((), out, err, status) = tokio::join!(write, bounded(out, OUTPUT), bounded(err, OUTPUT), child.wait());
            let mut messages = Messages::default();
            String::from_utf8_lossy(&err).lines().for_each(|line| messages.add(line));
            let code = status.ok().and_then(|s| s.code());
            (Ended { program: self.program().to_owned(), code, messages: messages.into_lines() }, out)
        };
        let mut stop = stop.clone();
        tokio::select! {
            done = work => Ok(done),
            () = tokio::time::sleep(limit) => {
                let text = format!("{} did not end within {} s.", self.program(), limit.as_secs());
                Err(Failure::new(Class::Transient, reason::APPLICATION_UNREACHABLE, text))
            }
            () = stopped(&mut stop) => Err(terminated()),
        }
    }
}

/// A program that the image does not have.
pub fn missing(program: &str, why: &std::io::Error) -> Failure {
    let text = format!(
        "{program} could not be started: {why}. The image of the Job must have the clients of the application: see addons in the values of the chart."
    );
    Failure::new(Class::Invalid, reason::CLIENT_MISSING, text)
}

/// The Job was told to stop.
pub fn terminated() -> Failure {
    Failure::new(Class::Transient, reason::TERMINATED, "The Job was told to stop.")
}

/// Waits until the Job is told to stop.
pub async fn stopped(stop: &mut watch::Receiver<bool>) {
    if stop.wait_for(|stop| *stop).await.is_err() {
        // The sender of the stop signal no longer exists.
        std::future::pending::<()>().await;
    }
}

/// Kills the process group of a client.
pub fn kill(child: &Child) {
    if let Some(group) = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw)
        && let Err(error) = kill_process_group(group, Signal::KILL)
    {
        tracing::debug!(%error, "the process group of the client is gone");
    }
}

/// Reads a stream to its end, and keeps at most `limit` bytes.
async fn bounded(stream: Option<impl AsyncRead + Unpin>, limit: usize) -> Vec<u8> {
    let (mut kept, mut buffer) = (Vec::new(), vec![0; 16 << 10]);
    let Some(mut stream) = stream else { return kept };
    while let Ok(n @ 1..) = stream.read(&mut buffer).await {
        let room = limit.saturating_sub(kept.len()).min(n);
        kept.extend_from_slice(&buffer[..room]);
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Command {
        Command::new(["/bin/sh", "-c", script], &[("A".to_owned(), "b".to_owned())])
    }

    #[tokio::test]
    async fn a_client_has_only_its_own_environment_and_its_messages_are_bounded() {
        let (_keep, stop) = watch::channel(false);
        let script = "cat; echo $A$HOME; for i in $(seq 100); do echo $i >&2; done; exit 3";
        let (ended, out) = sh(script).output("in", Duration::from_secs(10), &stop).await.unwrap();
        assert_eq!((ended.code, String::from_utf8(out).unwrap().as_str()), (Some(3), "inb\n"));
        assert_eq!((ended.messages.len(), ended.messages[0].as_str(), ended.messages[19].as_str()), (20, "1", "100"));
    }

    #[tokio::test]
    async fn it_ends_in_time_and_says_what_is_missing() {
        let (tell, stop) = watch::channel(false);
        let slow = sh("sleep 60").output("", Duration::from_millis(50), &stop).await.unwrap_err();
        assert_eq!(slow.reason, reason::APPLICATION_UNREACHABLE);
        tell.send_replace(true);
        let stopped = sh("sleep 60").output("", Duration::from_mins(1), &stop).await.unwrap_err();
        assert_eq!(stopped.reason, reason::TERMINATED);
        let none = Command::new(["no-such-client"], &[]).output("", Duration::from_secs(1), &stop).await.unwrap_err();
        assert_eq!(none.reason, reason::CLIENT_MISSING);
    }
}
