//! From a snapshot to a client: the bytes of a dump on their way, counted and checked.

use std::process::Stdio;

use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::sync::watch;

use crate::contract::restic::PinnedSnapshot;
use crate::contract::{Failure, Progress};
use crate::digest::hex;
use crate::drivers::application::failure::Doing;
use crate::drivers::application::process::{Command, Ended, Messages, kill, stopped, terminated};
use crate::drivers::application::prologue::{Prologue, is_tolerated};
use crate::drivers::application::redis::Source;
use crate::drivers::application::server::Server;
use crate::drivers::restic::Repository;
use crate::drivers::restic::output::share;
use crate::drivers::restic::repository::stream::Reading;

/// Bytes that are passed on at once.
const CHUNK: usize = 256 << 10;
/// First bytes that are looked at before anything is loaded.
const HEAD: usize = 4096;

/// A dump that is being read.
pub struct Opened<'a> {
    reading: Option<Reading<'a>>,
    head: Vec<u8>,
    /// Bytes of `head` that were passed on.
    passed: usize,
    read: u64,
    total: Option<u64>,
    progress: watch::Sender<Progress>,
    stop: watch::Receiver<bool>,
}

impl<'a> Opened<'a> {
    /// Opens a dump, and reads its first bytes.
    ///
    /// # Errors
    /// It could not be read.
    pub async fn open(
        repository: &'a Repository,
        pin: &PinnedSnapshot,
        file: &str,
        total: Option<u64>,
    ) -> Result<Self, Failure> {
        let control = repository.control();
        let mut opened = Self {
            reading: Some(repository.open(pin, file).await?),
            head: vec![],
            passed: 0,
            read: 0,
            total,
            progress: control.progress.clone(),
            stop: control.stop.clone(),
        };
        let mut buffer = vec![0; HEAD];
        while opened.head.len() < HEAD {
            let room = HEAD - opened.head.len();
            match opened.raw(&mut buffer[..room]).await? {
                0 => break,
                n => opened.head.extend_from_slice(&buffer[..n]),
            }
        }
        Ok(opened)
    }

    /// Its first bytes.
    pub fn head(&self) -> &[u8] {
        &self.head
    }

    /// Bytes that were passed on.
    pub fn read_bytes(&self) -> u64 {
        self.read
    }

    /// Ends the reading.
    pub async fn cancel(mut self) {
        if let Some(reading) = self.reading.take() {
            reading.cancel().await;
        }
    }

    /// The next bytes; 0 at the end of the file, which was checked.
    async fn raw(&mut self, buffer: &mut [u8]) -> Result<usize, Failure> {
        let Some(reading) = &mut self.reading else { return Ok(0) };
        let read = tokio::select! {
            read = reading.read(buffer) => read.unwrap_or(0),
            () = stopped(&mut self.stop) => return Err(terminated()),
        };
        if read == 0
            && let Some(reading) = self.reading.take()
        {
            reading.finish().await?;
        }
        Ok(read)
    }
}

impl Source for Opened<'_> {
    async fn next(&mut self, buffer: &mut [u8]) -> Result<usize, Failure> {
        let rest = &self.head[self.passed..];
        let n = if rest.is_empty() {
            self.raw(buffer).await?
        } else {
            let n = rest.len().min(buffer.len());
            buffer[..n].copy_from_slice(&rest[..n]);
            self.passed += n;
            n
        };
        self.read += n as u64;
        let total = self.total.unwrap_or(0);
        let percent = if total == 0 { 0.0 } else { share(self.read.min(total), total) };
        self.progress.send_replace(Progress {
            percent,
            bytes_done: self.read,
            bytes_total: total,
            files_done: 0,
            files_total: 1,
        });
        Ok(n)
    }
}

/// What became of a dump that was passed to a client.
pub struct Piped {
    /// Bytes that were read.
    pub bytes: u64,
    /// SHA-256 of these.
    pub sha256: String,
    /// Whether the client loaded all of it.
    pub result: Result<(), Failure>,
}

/// Loads a dump by a client, which reads it from its standard input. A dump that cannot be read to its end is never
/// ended as if it were complete: the client is killed, so that the server drops the connection.
pub async fn pipe(server: &Server<'_>, mut dump: Opened<'_>, command: &Command, prologue: Option<Prologue>) -> Piped {
    let mut digest = Sha256::new();
    let result = run(server, &mut dump, command, prologue, &mut digest).await;
    let bytes = dump.read_bytes();
    dump.cancel().await;
    Piped { bytes, sha256: hex(&digest.finalize()), result }
}

async fn run(
    server: &Server<'_>,
    dump: &mut Opened<'_>,
    command: &Command,
    mut prologue: Option<Prologue>,
    digest: &mut Sha256,
) -> Result<(), Failure> {
    let mut child = command.start(Stdio::piped())?;
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let tolerates = prologue.as_ref().is_some_and(Prologue::tolerates);
    let (tell, mut refused) = watch::channel(None::<String>);
    // Results of statements are not needed.
    let drained = tokio::spawn(async move {
        if let Some(mut stdout) = stdout {
            let mut ignored = vec![0; 16 << 10];
            while let Ok(1..) = stdout.read(&mut ignored).await {}
        }
    });
    let said = tokio::spawn(async move {
        let mut messages = Messages::default();
        if let Some(stderr) = stderr {
            let mut lines = BufReader::new(stderr).split(b'\n');
            while let Ok(Some(line)) = lines.next_segment().await {
                let line = String::from_utf8_lossy(&line);
                match is_tolerated(&line).filter(|_| tolerates) {
                    Some(true) => tracing::info!("tolerated: {line}"),
                    Some(false) => {
                        messages.add(&line);
                        tell.send_replace(Some(line.into_owned()));
                    }
                    // Hints that do not say that something failed.
                    None if ["NOTICE:  ", "WARNING:  ", "LOCATION:  "].iter().any(|hint| line.contains(hint)) => {
                        tracing::debug!("{line}");
                    }
                    None => messages.add(&line),
                }
            }
        }
        messages.into_lines()
    });
    let feed = async {
        let Some(mut stdin) = stdin else { return Ok(true) };
        let mut buffer = vec![0; CHUNK];
        loop {
            let n = dump.next(&mut buffer).await?;
            if n == 0 {
                let rest = prologue.as_mut().map(Prologue::rest).unwrap_or_default();
                return Ok(stdin.write_all(&rest).await.is_ok() && stdin.shutdown().await.is_ok());
            }
            digest.update(&buffer[..n]);
            let written = match prologue.as_mut().filter(|g| !g.is_over()) {
                Some(prologue) => stdin.write_all(&prologue.pass(&buffer[..n])).await,
                None => stdin.write_all(&buffer[..n]).await,
            };
            // The client has ended, and says why.
            if written.is_err() {
                return Ok(false);
            }
        }
    };
    let fed = tokio::select! {
        fed = feed => fed,
        // psql goes on after an error at the beginning of the dump of a server.
        Ok(_) = refused.wait_for(Option::is_some) => Ok(false),
    };
    if fed.is_err() || refused.borrow().is_some() {
        kill(&child);
    }
    let mut stop = server.stop.clone();
    let status = tokio::select! {
        status = child.wait() => status,
        () = stopped(&mut stop) => {
            kill(&child);
            child.wait().await
        }
    };
    let messages = said.await.unwrap_or_default();
    let _ = drained.await;
    let is_whole = fed?;
    let code = status.ok().and_then(|s| s.code());
    let is_refused = refused.borrow().is_some();
    if code == Some(0) && is_whole && !is_refused {
        return Ok(());
    }
    if *stop.borrow() {
        return Err(terminated());
    }
    // A client that ends well without reading all of its input has not loaded all of it.
    let mut messages = messages;
    if code == Some(0) && messages.is_empty() {
        messages.push("the client ended before the end of the dump".to_owned());
    }
    Err(server.failure(Doing::Loading, &Ended { program: command.program().to_owned(), code, messages }))
}
