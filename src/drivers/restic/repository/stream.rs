//! Streams: a snapshot of the output of a command, and the content of one file of a snapshot.
//!
//! Nothing is stored on the way. restic runs the command itself and creates no snapshot if the command fails. A file is
//! read to its end and the exit code of restic is checked: a stream that ends early is an error, never an end.

use rustix::process::Signal;
use tokio::io::AsyncReadExt as _;
use tokio::process::{Child, ChildStdout};
use tokio::task::JoinHandle;

use crate::contract::restic::{PinnedSnapshot, SnapshotMade};
use crate::contract::{Class, Failure};
use crate::drivers::restic::args;
use crate::drivers::restic::args::Save;
use crate::drivers::restic::output::{Lines, Message, Report, made, parse};
use crate::drivers::restic::repository::Repository;
use crate::drivers::restic::run::{End, Invocation, Limit, Ran, STUCK, end_of, signal_group, spawn};
use crate::names::reason;

/// Longest line of restic's messages.
const LINE: usize = 64 << 10;

impl Repository {
    /// Creates a snapshot of the output of a command. `progress` gets the number of bytes that were read so far.
    ///
    /// # Errors
    /// The command or restic failed; there is no snapshot then.
    pub async fn save(&self, save: &Save<'_>, mut progress: impl FnMut(u64) + Send) -> Result<SnapshotMade, Failure> {
        let mut each = |m: &Message| {
            if m.message_type == "status" {
                progress(m.bytes_done);
            }
        };
        let ran = self.lines(args::save(save), Limit::Idle(STUCK), &mut each).await;
        match ran.report.summary.as_ref().filter(|s| ran.end == End::Exited(0) && !s.snapshot_id.is_empty()) {
            Some(summary) => Ok(made(summary, save.file)),
            None if ran.end == End::Exited(0) => Err(Failure::new(
                Class::Fatal,
                reason::RESTIC_FAILED,
                format!("restic succeeded but did not report the snapshot of {}.", save.file),
            )),
            None => Err(self.failure(&ran, &format!("store {}", save.file))),
        }
    }

    /// Reads a small file of a snapshot.
    ///
    /// # Errors
    /// The file could not be read.
    pub async fn file(&self, pin: &PinnedSnapshot, path: &str) -> Result<Vec<u8>, Failure> {
        let ran = self.document(args::dump(&pin.id, path)).await;
        if ran.end == End::Exited(0) {
            return Ok(ran.document);
        }
        Err(self.failure(&ran, &format!("read {path} of snapshot {}", pin.short())))
    }

    /// Starts to read a file of a snapshot.
    ///
    /// # Errors
    /// restic could not be started.
    pub async fn open(&self, pin: &PinnedSnapshot, path: &str) -> Result<Reading<'_>, Failure> {
        let what = self.invocation(args::dump(&pin.id, path), self.opens_untrimmed().await, Limit::Idle(STUCK), true);
        let doing = format!("read {path} of snapshot {}", pin.short());
        Reading::start(self, &what, doing)
    }
}

/// A file of a snapshot that is being read.
pub struct Reading<'a> {
    repository: &'a Repository,
    child: Child,
    out: ChildStdout,
    messages: JoinHandle<Report>,
    doing: String,
}

impl<'a> Reading<'a> {
    fn start(repository: &'a Repository, what: &Invocation, doing: String) -> Result<Self, Failure> {
        let started = spawn(what).and_then(|mut child| {
            let pipes = child.stdout.take().zip(child.stderr.take());
            pipes.map(|(out, err)| (child, out, err)).ok_or_else(|| std::io::Error::other("no pipe"))
        });
        let (child, out, mut err) = match started {
            Ok(started) => started,
            Err(e) => {
                let ran = Ran { end: End::NotStarted(e.to_string()), report: Report::default(), document: vec![] };
                return Err(repository.failure(&ran, &doing));
            }
        };
        let messages = tokio::spawn(async move {
            let (mut report, mut lines, mut buffer) = (Report::default(), Lines::new(LINE), vec![0; 16 << 10]);
            while let Ok(n @ 1..) = err.read(&mut buffer).await {
                lines.feed(&buffer[..n], |line| report.note(&parse(line)));
            }
            lines.finish(|line| report.note(&parse(line)));
            report
        });
        Ok(Self { repository, child, out, messages, doing })
    }

    /// Reads the next bytes; 0 at the end of the stream, which is the end of the file only if [`finish`](Self::finish)
    /// succeeds.
    pub async fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.out.read(buffer).await
    }

    /// Waits for restic after the end of the stream.
    ///
    /// # Errors
    /// The stream ended before the end of the file.
    pub async fn finish(mut self) -> Result<(), Failure> {
        let status = self.child.wait().await.ok();
        let report = self.messages.await.unwrap_or_default();
        let ran = Ran { end: end_of(status), report, document: vec![] };
        if ran.ended_well() {
            return Ok(());
        }
        Err(self.repository.failure(&ran, &self.doing))
    }

    /// Ends restic, because the rest of the file is not needed. It holds no lock.
    pub async fn cancel(mut self) {
        signal_group(&self.child, Signal::KILL);
        let _ = self.child.wait().await;
        self.messages.abort();
    }
}
