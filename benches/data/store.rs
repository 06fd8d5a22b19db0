//! A real S3 server, and a proxy for it that limits the speed of each connection.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Access key and its secret; the server listens on loopback only.
pub const KEY: &str = "lifeboat-bench";

/// versitygw over a folder.
pub struct S3 {
    child: Child,
    dir: tempfile::TempDir,
    /// Its port on loopback.
    pub port: u16,
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl S3 {
    /// Starts the server, and waits until it listens.
    pub fn start() -> Self {
        let (dir, port) = (tempfile::tempdir().unwrap(), free_port());
        let child = Command::new("versitygw")
            .args(["--access", KEY, "--secret", KEY, "--port", &format!("127.0.0.1:{port}"), "--quiet", "posix"])
            .arg(dir.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("make tools builds versitygw");
        let end = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < end, "the S3 server does not listen");
            thread::sleep(Duration::from_millis(20));
        }
        Self { child, dir, port }
    }

    /// restic's URL of a bucket, which is emptied.
    pub fn url(&self, bucket: &str) -> String {
        let folder = self.dir.path().join(bucket);
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(folder).unwrap();
        format!("s3:http://127.0.0.1:{}/{bucket}", self.port)
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A proxy of a server that limits the responses of each connection to so many bytes per second.
pub struct Throttle {
    port: u16,
}

impl Throttle {
    /// Starts the proxy on loopback.
    pub fn start(to: u16, rate: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        thread::spawn(move || {
            for from in listener.incoming().map_while(Result::ok) {
                let Ok(server) = TcpStream::connect(("127.0.0.1", to)) else { continue };
                let (client, answers) = (from.try_clone().unwrap(), server.try_clone().unwrap());
                thread::spawn(move || hand_on(from, server, u64::MAX));
                thread::spawn(move || hand_on(answers, client, rate));
            }
        });
        Self { port }
    }

    /// restic's URL of a bucket behind the proxy.
    pub fn url(&self, bucket: &str) -> String {
        format!("s3:http://127.0.0.1:{}/{bucket}", self.port)
    }
}

fn hand_on(mut from: TcpStream, mut to: TcpStream, rate: u64) {
    let mut part = vec![0; 64 << 10];
    while let Ok(read @ 1..) = from.read(&mut part) {
        if to.write_all(&part[..read]).is_err() {
            break;
        }
        if rate != u64::MAX {
            thread::sleep(Duration::from_secs_f64(read as f64 / rate as f64));
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}
