//! Redis and Valkey: a dump is an RDB file by replication, and is loaded by replication too.
//!
//! To dump, `valkey-cli` asks the server for a replica's copy. To load, this driver is a primary for a moment: the server
//! is told to replicate from the Job, gets the RDB file as the full copy of its primary, and is told to be a primary
//! again. Nothing is stored on the way, and the server replaces its data as a whole. The server must authenticate with
//! a random password, so that nobody else gets the copy.

use std::time::Duration;

use rustix::process::getpid;
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout};

use crate::contract::Failure;
use crate::contract::application::TlsMode;
use crate::contract::{Class, restic::PinnedSnapshot};
use crate::digest::hex;
use crate::drivers::application::meter::Client;
use crate::drivers::application::process::Command;
use crate::drivers::application::server::{Facts, Plan, Server};
use crate::names::reason;

/// Time until the server connects to the Job, and between two of its requests.
const CONNECTS: Duration = Duration::from_mins(1);
/// Time for the server to read the copy from memory, after it was sent.
const LOADS: Duration = Duration::from_mins(15);
/// Time between two looks at the server.
const PAUSE: Duration = Duration::from_millis(500);
/// Longest line of the protocol.
const LINE: u64 = 64 << 10;

/// The client of Redis and Valkey.
#[derive(Debug)]
pub struct Redis<'a> {
    server: &'a Server<'a>,
    env: Vec<(String, String)>,
    args: Vec<String>,
}

impl<'a> Redis<'a> {
    /// Prepares the arguments and variables of the client.
    pub fn new(server: &'a Server<'a>, env: &[(String, String)]) -> Self {
        let (connection, credentials) = (&server.work.connection, server.credentials);
        let mut env = env.to_vec();
        if let Some(password) = credentials.first(&["password", "REDIS_PASSWORD"]) {
            // Both names are read, depending on the version.
            env.extend(["REDISCLI_AUTH", "VALKEYCLI_AUTH"].map(|name| (name.to_owned(), password.to_owned())));
        }
        let mut args = vec!["-h".to_owned(), connection.host.clone(), "-p".to_owned(), connection.port.to_string()];
        if let Some(user) = credentials.first(&["username", "user"]) {
            args.extend(["--user".to_owned(), user.to_owned()]);
        }
        if matches!(connection.tls, TlsMode::Require | TlsMode::VerifyCa | TlsMode::VerifyFull) {
            args.push("--tls".to_owned());
            if connection.tls == TlsMode::Require {
                args.push("--insecure".to_owned());
            }
            let name = connection.server_name.clone().unwrap_or_else(|| connection.host.clone());
            args.extend(["--sni".to_owned(), name]);
            for (flag, file) in [
                ("--cacert", credentials.ca.as_ref()),
                ("--cert", credentials.certificate.as_ref().map(|(c, _)| c)),
                ("--key", credentials.certificate.as_ref().map(|(_, k)| k)),
            ] {
                args.extend(file.into_iter().flat_map(|f| [flag.to_owned(), f.to_string_lossy().into_owned()]));
            }
        }
        Self { server, env, args }
    }

    fn client(&self, args: &[&str]) -> Command {
        let own = self.args.iter().map(String::as_str);
        Command::new(["valkey-cli"].into_iter().chain(own).chain(args.iter().copied()), &self.env)
    }

    /// Sends commands by standard input, so that no argument has a secret. Returns the lines of the answers.
    async fn send(&self, commands: &str) -> Result<String, Failure> {
        // With -e, an error of the server is an error of the client.
        self.server.ask(&self.client(&["-e", "--no-auth-warning"]), commands).await
    }

    /// Waits for the server, and reports what is in it.
    pub async fn facts(&self) -> Result<Facts, Failure> {
        let info = self.server.wait(&self.client(&["-e", "--no-auth-warning"]), "INFO\n").await?;
        let field = |name: &str| field(&info, name).map(str::to_owned);
        let version = field("valkey_version").or_else(|| field("redis_version")).unwrap_or_default();
        if field("cluster_enabled").as_deref() == Some("1") {
            let text = "the server is a part of a cluster; dump and load each of its volumes instead.";
            return Err(self.server.refuse(reason::NOT_SUPPORTED, text));
        }
        let mut facts = Facts { version, ..Facts::default() };
        facts.contents.keys = Some(keys(&info));
        Ok(facts)
    }

    /// The dump of the server.
    pub fn dump(&self) -> Plan {
        let command = self.client(&["--no-auth-warning", "--rdb", "-"]);
        Plan { clients: vec![Client { command, last_words: None }], ..Plan::default() }
    }

    /// Loads an RDB file of this length, whose bytes come from `source`. Returns the digest of what was sent.
    ///
    /// # Errors
    /// The server refused, did not connect, or did not finish. The second value says whether it was told to replicate.
    pub async fn load(
        &self,
        source: &mut impl Source,
        pin: &PinnedSnapshot,
        bytes: u64,
    ) -> Result<String, (Failure, bool)> {
        let before = |f: Failure| (f, false);
        let info = self.server.wait(&self.client(&["-e", "--no-auth-warning"]), "INFO\n").await.map_err(before)?;
        if field(&info, "role") != Some("master") {
            let text = "the server is a replica, and would lose what is loaded. Name its primary.";
            return Err(before(self.server.refuse(reason::INVALID, text)));
        }
        let others = field(&info, "connected_clients").and_then(|n| n.parse::<u32>().ok()).unwrap_or(0);
        if others > 1 {
            let text = format!(
                "{} other clients are connected. Stop what uses the server, and restore again. Nothing was changed.",
                others - 1
            );
            return Err(before(self.server.refuse(reason::APPLICATION_IN_USE, &text)));
        }
        let address = self.own_address().await.map_err(before)?;
        let listener =
            TcpListener::bind((address.as_str(), 0)).await.map_err(|e| before(self.broken(&e.to_string())))?;
        let port = listener.local_addr().map_err(|e| before(self.broken(&e.to_string())))?.port();
        let was = self.send("CONFIG GET masterauth\n").await.map_err(before)?;
        let was = was.lines().nth(1).unwrap_or_default().trim_matches('"').to_owned();
        let token = token(pin);
        let begin = format!("CONFIG SET masterauth {token}\nREPLICAOF {address} {port}\n");
        let after = |f: Failure| (f, true);
        let sent = async {
            self.send(&begin).await?;
            let digest = self.be_primary(&listener, &token, source, bytes).await?;
            self.loaded().await?;
            Ok::<_, Failure>(digest)
        };
        let sent = sent.await;
        // Whatever happened: the server must not stay a replica of a Job that ends.
        let end = self.send(&format!("REPLICAOF NO ONE\nCONFIG SET masterauth \"{was}\"\n")).await;
        let sent = sent.map_err(after)?;
        end.map_err(after)?;
        Ok(sent)
    }

    fn broken(&self, why: &str) -> Failure {
        let text = format!("AppBinding {}: the copy could not be sent: {why}.", self.server.work.connection.binding);
        Failure::new(Class::Transient, reason::APPLICATION_UNREACHABLE, text)
    }

    /// Address of this Job, as the server sees it.
    async fn own_address(&self) -> Result<String, Failure> {
        let connection = &self.server.work.connection;
        let stream = timeout(CONNECTS, TcpStream::connect((connection.host.as_str(), connection.port))).await;
        let local = stream.map_err(|e| self.broken(&e.to_string()))?.and_then(|s| s.local_addr());
        local.map(|a| a.ip().to_string()).map_err(|e| self.broken(&e.to_string()))
    }

    /// Answers as a primary until the copy is sent (Redis documentation, "Replication", and the messages of a replica).
    async fn be_primary(
        &self,
        listener: &TcpListener,
        token: &str,
        source: &mut impl Source,
        bytes: u64,
    ) -> Result<String, Failure> {
        let until = Instant::now() + CONNECTS;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let accepted = timeout(left, listener.accept()).await;
            let (stream, _) = accepted
                .map_err(|_| self.broken("the server did not connect to the Job; check network policies"))?
                .map_err(|e| self.broken(&e.to_string()))?;
            if let Some(stream) = handshake(stream, token).await {
                return self.copy(stream, source, bytes).await;
            }
        }
    }

    async fn copy(&self, mut stream: TcpStream, source: &mut impl Source, bytes: u64) -> Result<String, Failure> {
        let id = token_of(&[&bytes.to_string()]);
        let head = format!("+FULLRESYNC {} 0\r\n${bytes}\r\n", &id[..40]);
        stream.write_all(head.as_bytes()).await.map_err(|e| self.broken(&e.to_string()))?;
        let (mut digest, mut sent, mut buffer) = (Sha256::new(), 0_u64, vec![0; 256 << 10]);
        loop {
            let n = source.next(&mut buffer).await?;
            if n == 0 {
                break;
            }
            sent += n as u64;
            if sent > bytes {
                return Err(self.broken("the dump is longer than its snapshot says"));
            }
            digest.update(&buffer[..n]);
            stream.write_all(&buffer[..n]).await.map_err(|e| self.broken(&e.to_string()))?;
        }
        if sent < bytes {
            return Err(self.broken("the dump is shorter than its snapshot says"));
        }
        // The connection stays open while the server loads: a primary that is gone would be asked again.
        tokio::spawn(async move {
            let mut ignored = [0; 1024];
            while let Ok(Ok(1..)) = timeout(LOADS, stream.read(&mut ignored)).await {}
        });
        Ok(hex(&digest.finalize()))
    }

    /// Waits until the server has loaded its copy.
    async fn loaded(&self) -> Result<(), Failure> {
        let until = Instant::now() + LOADS;
        loop {
            let info = match self.send("INFO replication\n").await {
                Ok(info) => info,
                Err(f) if f.reason == reason::APPLICATION_UNREACHABLE && Instant::now() < until => String::new(),
                Err(f) => return Err(f),
            };
            if field(&info, "master_link_status") == Some("up") {
                return Ok(());
            }
            if Instant::now() > until {
                return Err(self.broken("the server has not loaded the copy in time"));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// Where the bytes of an RDB file come from.
pub trait Source {
    /// Reads the next bytes; 0 at the end, which was checked to be the end of the file.
    fn next(&mut self, buffer: &mut [u8]) -> impl Future<Output = Result<usize, Failure>> + Send;
}

/// Answers the requests of a replica up to `PSYNC`. `None` if it is not the server, or the connection ends.
async fn handshake(stream: TcpStream, token: &str) -> Option<TcpStream> {
    let mut stream = BufReader::new(stream);
    let mut is_known = false;
    loop {
        let words = timeout(CONNECTS, request(&mut stream)).await.ok()??;
        let verb = words.first()?.to_ascii_uppercase();
        let answer: &[u8] = match verb.as_str() {
            "AUTH" => {
                is_known = words.last().is_some_and(|word| word == token);
                if is_known { b"+OK\r\n" } else { b"-WRONGPASS this is not the password\r\n" }
            }
            _ if !is_known && verb != "PING" => b"-NOAUTH Authentication required.\r\n",
            "PING" if !is_known => b"-NOAUTH Authentication required.\r\n",
            "PING" => b"+PONG\r\n",
            "REPLCONF" => b"+OK\r\n",
            "PSYNC" | "SYNC" => return Some(stream.into_inner()),
            _ => b"-ERR unknown command\r\n",
        };
        stream.get_mut().write_all(answer).await.ok()?;
    }
}

/// Reads one request of the protocol (Redis documentation, "Serialization protocol specification").
async fn request(stream: &mut (impl tokio::io::AsyncBufRead + Unpin)) -> Option<Vec<String>> {
    const MOST_WORDS: usize = 64;
    let count = line(stream).await?;
    let Some(count) = count.strip_prefix('*') else {
        return Some(count.split_whitespace().map(str::to_owned).collect());
    };
    let count: usize = count.parse().ok().filter(|n| *n <= MOST_WORDS)?;
    let mut words = Vec::with_capacity(count);
    for _ in 0..count {
        let length: u64 = line(stream).await?.strip_prefix('$')?.parse().ok().filter(|n| *n <= LINE)?;
        let mut word = vec![0; usize::try_from(length).ok()? + 2];
        stream.read_exact(&mut word).await.ok()?;
        word.truncate(word.len() - 2);
        words.push(String::from_utf8_lossy(&word).into_owned());
    }
    Some(words)
}

async fn line(stream: &mut (impl tokio::io::AsyncBufRead + Unpin)) -> Option<String> {
    let mut line = String::new();
    let read = stream.take(LINE).read_line(&mut line).await.ok()?;
    (read > 0 && line.ends_with('\n')).then(|| line.trim_end().to_owned())
}

/// A password that cannot be guessed.
fn token(pin: &PinnedSnapshot) -> String {
    // The kernel's random numbers; without them, the load fails rather than with a password that is known.
    let random = std::fs::read_to_string("/proc/sys/kernel/random/uuid").unwrap_or_default();
    token_of(&[&random, &pin.id, &getpid().as_raw_nonzero().to_string()])
}

fn token_of(parts: &[&str]) -> String {
    hex(&Sha256::digest(parts.join("\n").as_bytes()))
}

fn field<'i>(info: &'i str, name: &str) -> Option<&'i str> {
    info.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

/// Keys of all databases: `db0:keys=5,expires=0,avg_ttl=0`. Keys that expire may be gone at any time, and do not count.
fn keys(info: &str) -> u64 {
    let of = |line: &str| {
        let (name, rest) = line.split_once(':')?;
        name.strip_prefix("db")?.parse::<u32>().ok()?;
        let number = |key: &str| rest.split(',').find_map(|p| p.strip_prefix(key)?.trim().parse::<u64>().ok());
        Some(number("keys=")?.saturating_sub(number("expires=").unwrap_or(0)))
    };
    info.lines().filter_map(of).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_do_not_expire_are_counted() {
        let info = "# Keyspace\r\ndb0:keys=5,expires=2,avg_ttl=0,subexpiry=0\r\ndb3:keys=1,expires=0\r\ndbx:keys=9\r\n";
        assert_eq!((keys(info), field("role:master\r\n", "role"), field("roles:x", "role")), (4, Some("master"), None));
    }

    #[tokio::test]
    async fn nobody_gets_the_copy_without_the_password() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let asks = |requests: &'static str| async move {
            let mut stream = TcpStream::connect(at).await.unwrap();
            stream.write_all(requests.as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            answer
        };
        for (requests, is_let_in, last) in [
            ("PING\r\nREPLCONF x y\r\nPSYNC ? -1\r\n", false, "-NOAUTH Authentication required.\r\n"),
            ("*2\r\n$4\r\nAUTH\r\n$5\r\nwrong\r\nPSYNC ? -1\r\n", false, "-NOAUTH Authentication required.\r\n"),
            ("*2\r\n$4\r\nAUTH\r\n$4\r\ngood\r\nPING\r\n*1\r\n$5\r\nPSYNC\r\n", true, "+PONG\r\n"),
            ("*9999999\r\n", false, ""),
            ("*1\r\n$99999999\r\n", false, ""),
        ] {
            let client = tokio::spawn(asks(requests));
            let (stream, _) = listener.accept().await.unwrap();
            let stream = handshake(stream, "good").await;
            assert_eq!(stream.is_some(), is_let_in, "{requests:?}");
            drop(stream);
            let answer = client.await.unwrap();
            assert!(answer.ends_with(last), "{requests:?}: {answer:?}");
        }
    }
}
