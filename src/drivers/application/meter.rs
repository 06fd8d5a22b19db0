//! The program that restic runs to get a dump: it runs the clients, passes their output on, and counts it.
//!
//! restic checks only how one command ends. A dump may be the output of several clients, one after another, and its
//! length and digest belong to its manifest, so the agent runs itself in this role between the clients and restic. It
//! fails if one of the clients fails, and restic then creates no snapshot.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Command as Process, ExitCode, Stdio};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::digest::hex;
use crate::drivers::application::process::{Command, Ended, Messages};

/// Bytes that are passed on at once.
const CHUNK: usize = 256 << 10;
/// Bytes at the end of the output of a client in which its last words are looked for.
const TAIL: usize = 1024;

/// What the program is to run. It is read from a file, because the environment of the clients has credentials.
#[derive(Debug, Default, Deserialize, Serialize)]
pub struct Order {
    /// The clients, in this order.
    pub clients: Vec<Client>,
    /// Where the report goes.
    pub report: PathBuf,
}

/// A client.
#[derive(Debug, Default, Deserialize, Serialize)]
pub struct Client {
    /// How it is run.
    pub command: Command,
    /// Its output is complete only if it ends with a line that has these words.
    pub last_words: Option<String>,
}

/// What was passed on.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Report {
    /// Bytes.
    pub bytes: u64,
    /// SHA-256 in hexadecimal digits.
    pub sha256: String,
    /// The client that failed.
    pub failed: Option<Ended>,
    /// Messages of clients that succeeded.
    pub messages: Vec<String>,
}

/// Runs the clients of the order in `file`.
pub fn run(file: &Path) -> ExitCode {
    let order = std::fs::read(file).map_err(|e| e.to_string());
    let order = order.and_then(|text| serde_json::from_slice::<Order>(&text).map_err(|e| e.to_string()));
    let order = match order {
        Ok(order) => order,
        Err(e) => {
            eprintln!("the order of the dump cannot be read: {e}");
            return ExitCode::FAILURE;
        }
    };
    let report = pass_on(&order.clients, &mut std::io::stdout().lock());
    let text = serde_json::to_vec(&report).unwrap_or_default();
    let written = std::fs::write(&order.report, text);
    if report.failed.is_some() || written.is_err() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn pass_on(clients: &[Client], out: &mut impl std::io::Write) -> Report {
    let (mut report, mut digest) = (Report::default(), Sha256::new());
    for client in clients {
        let ended = one(client, out, &mut digest, &mut report.bytes);
        if ended.code == Some(0) {
            report.messages.extend(ended.messages);
        } else {
            report.failed = Some(ended);
            break;
        }
    }
    report.sha256 = hex(&digest.finalize());
    report
}

fn one(client: &Client, out: &mut impl std::io::Write, digest: &mut Sha256, bytes: &mut u64) -> Ended {
    let program = client.command.program().to_owned();
    let broken =
        |code, text: String| Ended { program: client.command.program().to_owned(), code, messages: vec![text] };
    let started = Process::new(&program)
        .args(client.command.argv.iter().skip(1))
        .env_clear()
        .envs(client.command.env.iter().map(|(k, v)| (k, v)))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = match started {
        Ok(child) => child,
        Err(e) => return broken(Some(127), e.to_string()),
    };
    let (Some(mut stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
        return broken(None, "has no output".to_owned());
    };
    let said = std::thread::spawn(move || {
        let mut messages = Messages::default();
        BufReader::new(stderr).split(b'\n').map_while(Result::ok).for_each(|line| {
            messages.add(&String::from_utf8_lossy(&line));
        });
        messages.into_lines()
    });
    let (mut buffer, mut tail) = (vec![0; CHUNK], Vec::new());
    let passed = loop {
        match stdout.read(&mut buffer) {
            Ok(0) => break Ok(()),
            Ok(n) => {
                digest.update(&buffer[..n]);
                *bytes += n as u64;
                tail.extend_from_slice(&buffer[n.saturating_sub(TAIL)..n]);
                tail.drain(..tail.len().saturating_sub(TAIL));
                if let Err(e) = out.write_all(&buffer[..n]) {
                    break Err(e);
                }
            }
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => break Err(e),
        }
    };
    if passed.is_err() {
        // restic does not read any more. What the client started itself ends at its next write.
        let _ = child.kill();
        drop(stdout);
    }
    let code = child.wait().ok().and_then(|s| s.code());
    let mut messages = said.join().unwrap_or_default();
    if let Err(e) = passed.and_then(|()| out.flush()) {
        messages.push(format!("its output could not be passed on: {e}"));
        return Ended { program, code: None, messages };
    }
    let words = client.last_words.as_deref().unwrap_or_default();
    if code == Some(0) && !String::from_utf8_lossy(&tail).contains(words) {
        messages.push(format!("its output does not end with {words:?}, so it is not complete"));
        return Ended { program, code: None, messages };
    }
    Ended { program, code, messages }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str, last_words: Option<&str>) -> Client {
        let env = [("PATH".to_owned(), "/usr/bin:/bin".to_owned())];
        Client { command: Command::new(["/bin/sh", "-c", script], &env), last_words: last_words.map(str::to_owned) }
    }

    #[test]
    fn outputs_follow_each_other_and_are_counted() {
        let mut out = vec![];
        let report =
            pass_on(&[sh("printf abc; echo hint >&2", Some("abc")), sh("seq 100000", Some("100000"))], &mut out);
        assert_eq!((report.bytes, report.failed.is_none()), (out.len() as u64, true));
        assert!(out.starts_with(b"abc1\n2\n") && out.ends_with(b"100000\n"));
        assert_eq!((report.sha256, report.messages), (hex(&Sha256::digest(&out)), vec!["hint".to_owned()]));
    }

    #[test]
    fn what_does_not_end_well_fails_and_stops_the_rest() {
        for (client, code, text) in [
            (sh("echo half; echo no room >&2; exit 3", None), Some(3), "no room"),
            (sh("echo half", Some("complete")), None, "does not end with \"complete\""),
            (sh("kill -9 $$", None), None, ""),
            (Client { command: Command::new(["no-such-client"], &[]), last_words: None }, Some(127), "No such file"),
        ] {
            let mut out = vec![];
            let failed = pass_on(&[client, sh("echo never", None)], &mut out).failed.unwrap();
            assert_eq!(failed.code, code);
            assert!(failed.text().contains(text), "{failed:?}");
            assert!(!String::from_utf8_lossy(&out).contains("never"));
        }
    }

    #[test]
    fn a_reader_that_is_gone_is_an_error() {
        struct Gone;
        impl std::io::Write for Gone {
            fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
                Err(std::io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let failed = pass_on(&[sh("yes; true", None)], &mut Gone).failed.unwrap();
        assert!(failed.text().contains("could not be passed on"), "{failed:?}");
    }
}
