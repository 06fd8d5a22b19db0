//! Runs short helper commands (`ip`, `go`, `ctr`, `buildah`, …) and reports
//! what they printed when they fail.
//!
//! Nothing here starts a long-lived process; that is the supervisor's work.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::error::{Context, Error, Result};

/// A command from its words.
pub fn command<S: AsRef<OsStr>>(words: &[S]) -> Command {
    let mut words = words.iter();
    let mut cmd = Command::new(words.next().map_or(OsStr::new("false"), AsRef::as_ref));
    cmd.args(words).env("PATH", search_path());
    cmd.stdin(Stdio::null());
    cmd
}

/// Runs a command to its end and gives its standard output.
pub fn output(cmd: &mut Command) -> Result<String> {
    let shown = show(cmd);
    let out = cmd.output().context(format!("cannot run `{shown}`"))?;
    let stdout = String::from_utf8_lossy(&out.stdout).into_owned();
    if out.status.success() {
        return Ok(stdout);
    }
    let stderr = String::from_utf8_lossy(&out.stderr);
    Err(Error::new(format!("`{shown}` failed ({}): {}", out.status, last_lines(&format!("{stdout}{stderr}"), 15))))
}

/// Runs a command whose words are all plain text.
pub fn run(words: &[&str]) -> Result<String> {
    output(&mut command(words))
}

/// Runs a command with its output in a log file; an error shows the log's end.
pub fn logged(cmd: &mut Command, log: &Path) -> Result<()> {
    let shown = show(cmd);
    let file = File::create(log).context(format!("cannot write {}", log.display()))?;
    let errors = file.try_clone().context("cannot share the log file")?;
    let status =
        cmd.stdin(Stdio::null()).stdout(file).stderr(errors).status().context(format!("cannot run `{shown}`"))?;
    if status.success() {
        return Ok(());
    }
    Err(Error::new(format!("`{shown}` failed ({status}); {} ends with:\n{}", log.display(), tail(log, 20))))
}

/// Whether a program can be found.
pub fn on_path(program: &str) -> bool {
    search_path().split(':').any(|dir| Path::new(dir).join(program).is_file())
}

/// Debian keeps some required programs out of an ordinary user's PATH.
fn search_path() -> String {
    std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin"
}

/// The last lines of a file, however long the file is.
pub fn tail(path: &Path, lines: usize) -> String {
    let read = || -> std::io::Result<String> {
        let mut file = File::open(path)?;
        let size = file.metadata()?.len();
        file.seek(SeekFrom::Start(size.saturating_sub(64 * 1024)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    read().map_or_else(|e| format!("(no log: {e})"), |text| last_lines(&text, lines))
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.trim_end().lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

fn show(cmd: &Command) -> String {
    let mut words = vec![cmd.get_program().to_string_lossy().into_owned()];
    words.extend(cmd.get_args().map(|a| a.to_string_lossy().into_owned()));
    words.join(" ")
}
