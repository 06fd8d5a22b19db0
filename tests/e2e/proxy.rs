//! A way to the S3 server that a test can hold: so that a run is caught in the middle
//! of its data, however fast or slow the machine is.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::harness::Site;

/// A TCP proxy in front of the S3 server. Goes with the test.
pub struct Proxy {
    pub endpoint: String,
    passed: Arc<AtomicU64>,
    limit: watch::Sender<u64>,
    held: watch::Sender<bool>,
    refuses: watch::Sender<bool>,
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
        let (limit, held) = (watch::Sender::new(u64::MAX), watch::Sender::new(false));
        let proxy = Self { endpoint, passed: Arc::default(), limit, held, refuses: watch::Sender::new(false) };
        let (passed, limit, held) = (proxy.passed.clone(), proxy.limit.clone(), proxy.held.clone());
        let refuses = proxy.refuses.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (store, passed, held) = (store.clone(), passed.clone(), held.clone());
                let (served, mut refuses) =
                    (serve(client, store, passed, limit.subscribe(), held), refuses.subscribe());
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

    /// Lets this many more bytes come down from the store, then none. Who was held before does not count any more.
    pub fn hold_after(&self, bytes: u64) {
        self.held.send_replace(false);
        self.limit.send_replace(self.passed.load(Ordering::SeqCst) + bytes);
    }

    /// Waits until somebody waits for bytes that are held.
    pub async fn held(&self) {
        let seen = tokio::time::timeout(std::time::Duration::from_secs(90), self.until_held()).await;
        seen.expect("nothing came as far as to be held");
    }

    /// The same without a bound, for who knows when to leave off.
    pub async fn until_held(&self) {
        self.held.subscribe().wait_for(|held| *held).await.unwrap();
    }

    /// From now on all connections are closed, those that are open too; or not any more.
    pub fn refuse(&self, refuses: bool) {
        self.refuses.send_replace(refuses);
    }

    pub fn release(&self) {
        self.limit.send_replace(u64::MAX);
    }
}

async fn serve(
    client: TcpStream,
    store: String,
    passed: Arc<AtomicU64>,
    mut limit: watch::Receiver<u64>,
    held: watch::Sender<bool>,
) {
    let Ok(store) = TcpStream::connect(&store).await else { return };
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_store, mut to_store) = store.into_split();
    let up = async {
        let _ = tokio::io::copy(&mut from_client, &mut to_store).await;
        let _ = to_store.shutdown().await;
    };
    let down = async {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(n @ 1..) = from_store.read(&mut buffer).await {
            let total = passed.fetch_add(n as u64, Ordering::SeqCst) + n as u64;
            if total > *limit.borrow() {
                held.send_replace(true);
                if limit.wait_for(|l| total <= *l).await.is_err() {
                    return;
                }
            }
            if to_client.write_all(&buffer[..n]).await.is_err() {
                return;
            }
        }
        let _ = to_client.shutdown().await;
    };
    tokio::join!(up, down);
}
