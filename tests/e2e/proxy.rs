//! A proxy for the S3 server that a test can hold, so that a run stops in the middle
//! of its data, however fast or slow the machine is.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::harness::Site;

/// A TCP proxy in front of the S3 server. It ends with the test.
pub struct Proxy {
    pub endpoint: String,
    /// Bytes from the store.
    down: Gate,
    /// Bytes to the store.
    up: Gate,
    held: watch::Sender<bool>,
    refuses: watch::Sender<bool>,
}

/// Bytes that have passed in one direction, and their limit.
#[derive(Clone)]
struct Gate {
    passed: Arc<AtomicU64>,
    limit: watch::Sender<u64>,
}

impl Proxy {
    /// Listens on a free port.
    pub async fn start(site: &Site) -> Self {
        Self::listen(site, &format!("{}:0", site.host_address())).await
    }

    /// Listens on this address.
    pub async fn listen(site: &Site, address: &str) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let store = site.s3("endpoint").trim_start_matches("http://").to_owned();
        let gate = || Gate { passed: Arc::default(), limit: watch::Sender::new(u64::MAX) };
        let (held, refuses) = (watch::Sender::new(false), watch::Sender::new(false));
        let proxy = Self { endpoint, down: gate(), up: gate(), held, refuses };
        let (gates, held, refuses) =
            ((proxy.down.clone(), proxy.up.clone()), proxy.held.clone(), proxy.refuses.clone());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (served, mut refuses) =
                    (serve(client, store.clone(), gates.clone(), held.clone()), refuses.subscribe());
                tokio::spawn(async move {
                    tokio::select! {
                        () = served => {}
                        _ = refuses.wait_for(|r| *r) => {}
                    }
                });
            }
        });
        proxy
    }

    /// Lets this many more bytes come from the store, then none. Connections that were held before no longer count.
    pub fn hold_after(&self, bytes: u64) {
        self.held.send_replace(false);
        self.down.close_after(bytes);
    }

    /// The same for bytes that go to the store.
    pub fn hold_after_sent(&self, bytes: u64) {
        self.held.send_replace(false);
        self.up.close_after(bytes);
    }

    /// Waits until a connection waits for bytes that are held.
    pub async fn held(&self) {
        let seen = tokio::time::timeout(Duration::from_secs(90), self.until_held()).await;
        seen.expect("nothing came as far as to be held");
    }

    /// The same without a time limit, for callers that have their own.
    pub async fn until_held(&self) {
        self.held.subscribe().wait_for(|held| *held).await.unwrap();
    }

    /// Closes all connections from now on, the open ones too; or stops doing so.
    pub fn refuse(&self, refuses: bool) {
        self.refuses.send_replace(refuses);
    }

    pub fn release(&self) {
        self.down.limit.send_replace(u64::MAX);
        self.up.limit.send_replace(u64::MAX);
    }
}

impl Gate {
    fn close_after(&self, bytes: u64) {
        self.limit.send_replace(self.passed.load(Ordering::SeqCst) + bytes);
    }

    /// Forwards data until its end, as far as the limit allows.
    async fn pass(
        &self,
        mut from: impl AsyncRead + Unpin,
        mut to: impl AsyncWrite + Unpin,
        held: &watch::Sender<bool>,
    ) {
        let (mut buffer, mut limit) = (vec![0; 64 << 10], self.limit.subscribe());
        while let Ok(n @ 1..) = from.read(&mut buffer).await {
            let total = self.passed.fetch_add(n as u64, Ordering::SeqCst) + n as u64;
            if total > *limit.borrow() {
                held.send_replace(true);
                if limit.wait_for(|l| total <= *l).await.is_err() {
                    return;
                }
            }
            if to.write_all(&buffer[..n]).await.is_err() {
                return;
            }
        }
        let _ = to.shutdown().await;
    }
}

async fn serve(client: TcpStream, store: String, (down, up): (Gate, Gate), held: watch::Sender<bool>) {
    let Ok(store) = TcpStream::connect(&store).await else { return };
    let ((from_client, to_client), (from_store, to_store)) = (client.into_split(), store.into_split());
    tokio::join!(up.pass(from_client, to_store, &held), down.pass(from_store, to_client, &held));
}
