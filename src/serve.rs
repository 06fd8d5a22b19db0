//! One HTTP server for the webhook and for the health port, that no client can keep from others.
//!
//! Every connection has a place. When all places are taken, the peer address that holds the most loses its
//! oldest connection, so that one pod cannot take them from the API server or the kubelet. A handshake, and a
//! request from its first byte to the last byte of its answer, each have one time limit; a connection that
//! rests is closed after a while. A head has a size limit; the size of a body is the router's.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use axum::response::Response;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio_rustls::TlsAcceptor;
use tower::Service as _;
use tracing::{debug, info, warn};

/// What clients may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at once.
    pub connections: usize,
    /// Longest TLS handshake.
    pub handshake: Duration,
    /// Longest request: head, body, and the answer until the client has taken it.
    pub request: Duration,
    /// Longest rest between two requests, and before the first.
    pub rest: Duration,
    /// Largest head.
    pub head: usize,
    /// Longest time that running requests get at the end.
    pub drain: Duration,
}

impl Limits {
    /// Of the webhook. The API server waits two seconds for an answer (`webhook.timeoutSeconds`), so five are more than
    /// any request of use. It opens a connection for each review that it asks at once, and keeps up to 25 of them.
    pub const WEBHOOK: Self = Self {
        connections: 512,
        handshake: Duration::from_secs(3),
        request: Duration::from_secs(5),
        rest: Duration::from_mins(1),
        head: 16 * 1024,
        drain: Duration::from_secs(5),
    };
    /// Of health and metrics: a kubelet and some Prometheus, whose own limits are 2 and 10 seconds.
    pub const HEALTH: Self = Self { connections: 64, ..Self::WEBHOOK };
}

/// Of each peer its connections, the oldest first, and how to end each.
type Held = HashMap<IpAddr, Vec<(u64, oneshot::Sender<()>)>>;

/// Who holds places.
#[derive(Default)]
struct Places(Mutex<Held>);

impl Places {
    fn all(&self) -> std::sync::MutexGuard<'_, Held> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a new connection. Where there is none, the peer with the most loses its oldest connection.
    fn take(&self, peer: IpAddr, id: u64, most: usize) -> oneshot::Receiver<()> {
        let (end, ended) = oneshot::channel();
        let mut all = self.all();
        if all.values().map(Vec::len).sum::<usize>() >= most
            && let Some((greedy, held)) = all.iter_mut().max_by_key(|(_, held)| held.len())
        {
            let greedy = *greedy;
            let (_, oldest) = held.remove(0);
            let _ = oldest.send(());
            if held.is_empty() {
                all.remove(&greedy);
            }
        }
        all.entry(peer).or_default().push((id, end));
        ended
    }

    fn leave(&self, peer: IpAddr, id: u64) {
        let mut all = self.all();
        if let Some(held) = all.get_mut(&peer) {
            held.retain(|(other, _)| *other != id);
            if held.is_empty() {
                all.remove(&peer);
            }
        }
    }
}

/// What a connection is at, and since when.
#[derive(Debug)]
enum Doing {
    Handshake,
    Rests,
    Asks,
    /// The answer is made; it is on its way to the client.
    Answers,
}

struct Watch {
    limits: Limits,
    now: Mutex<(Doing, Instant)>,
}

impl Watch {
    fn get(&self) -> std::sync::MutexGuard<'_, (Doing, Instant)> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn rests(&self) {
        *self.get() = (Doing::Rests, Instant::now());
    }

    /// Bytes came, or a request. A request that has begun goes on.
    fn heard(&self) {
        let mut now = self.get();
        if matches!(now.0, Doing::Rests) {
            *now = (Doing::Asks, Instant::now());
        }
    }

    fn answered(&self) {
        self.get().0 = Doing::Answers;
    }

    fn sent(&self) {
        if matches!(self.get().0, Doing::Answers) {
            self.rests();
        }
    }

    fn is_at_rest(&self) -> bool {
        matches!(self.get().0, Doing::Rests)
    }

    /// How long it may still take over what it is at.
    fn left(&self) -> Duration {
        let now = self.get();
        let most = match now.0 {
            Doing::Handshake => self.limits.handshake,
            Doing::Rests => self.limits.rest,
            Doing::Asks | Doing::Answers => self.limits.request,
        };
        most.saturating_sub(now.1.elapsed())
    }

    /// Ends when a limit is reached.
    async fn over(&self) -> String {
        // What it is at changes meanwhile; a look every tenth of the shortest limit is soon enough.
        let tick = self.limits.handshake.min(self.limits.request).min(self.limits.rest) / 10;
        loop {
            let left = self.left();
            if left.is_zero() {
                return format!("took too long: {:?}", self.get().0);
            }
            tokio::time::sleep(left.min(tick)).await;
        }
    }
}

/// A TCP stream that tells its watch when a request begins and when an answer is out.
struct Watched {
    stream: TcpStream,
    watch: Arc<Watch>,
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.watch.heard();
        }
        read
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        if flushed.is_ready() {
            self.watch.sent();
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Serves the routes on `listener`, over TLS where there is an acceptor, until `shutdown` ends; then lets running
/// requests finish.
pub async fn serve(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    router: Router,
    limits: Limits,
    shutdown: impl Future<Output = ()> + Send,
) {
    let places = Arc::<Places>::default();
    let (stop, stopping) = watch::channel(());
    if let Ok(addr) = listener.local_addr() {
        info!(%addr, tls = tls.is_some(), "listening");
    }
    tokio::pin!(shutdown);
    for id in 0.. {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut shutdown => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                let ended = places.take(peer.ip(), id, limits.connections);
                let (places, tls, router, stopping) = (places.clone(), tls.clone(), router.clone(), stopping.clone());
                tokio::spawn(async move {
                    let served = tokio::select! {
                        served = connection(stream, tls, router, limits, stopping) => served,
                        // Taken by another.
                        _ = ended => Err("closed to accept a connection of another peer".to_owned()),
                    };
                    places.leave(peer.ip(), id);
                    if let Err(error) = served {
                        debug!(%peer, error, "a connection ended");
                    }
                });
            }
            Err(error) => {
                // Out of file descriptors or the like: others may end meanwhile, and a tight loop helps nobody.
                warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop((listener, stopping));
    let _ = stop.send(());
    // Every connection holds a receiver; the channel closes with the last of them.
    let _ = tokio::time::timeout(limits.drain, stop.closed()).await;
}

async fn connection(
    stream: TcpStream,
    tls: Option<TlsAcceptor>,
    router: Router,
    limits: Limits,
    stopping: watch::Receiver<()>,
) -> Result<(), String> {
    let watch = Arc::new(Watch { limits, now: Mutex::new((Doing::Handshake, Instant::now())) });
    let stream = Watched { stream, watch: watch.clone() };
    let Some(tls) = tls else {
        watch.rests();
        return requests(stream, router, &watch, stopping).await;
    };
    let mut stopped = stopping.clone();
    let tls = tokio::select! {
        done = tls.accept(stream) => done.map_err(|e| e.to_string())?,
        late = watch.over() => return Err(late),
        // Nothing was asked yet, so nothing is owed.
        _ = stopped.changed() => return Ok(()),
    };
    watch.rests();
    requests(tls, router, &watch, stopping).await
}

async fn requests<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    router: Router,
    watch: &Arc<Watch>,
    mut stopping: watch::Receiver<()>,
) -> Result<(), String> {
    let answer = service_fn(|request: Request<Incoming>| {
        watch.heard();
        let answer = router.clone().call(request.map(Body::new));
        async move {
            let answer: Result<Response, Infallible> = answer.await;
            watch.answered();
            answer
        }
    });
    let http = hyper::server::conn::http1::Builder::new()
        .max_buf_size(watch.limits.head)
        // Ours are the time limits.
        .header_read_timeout(None)
        .serve_connection(TokioIo::new(stream), answer);
    tokio::pin!(http);
    tokio::select! {
        result = http.as_mut() => return result.map_err(|e| e.to_string()),
        late = watch.over() => return Err(late),
        _ = stopping.changed() => {}
    }
    if watch.is_at_rest() {
        return Ok(());
    }
    http.as_mut().graceful_shutdown();
    tokio::select! {
        result = http.as_mut() => result.map_err(|e| e.to_string()),
        late = watch.over() => Err(late),
    }
}

/// As [`serve`], at an address.
///
/// # Errors
/// The address cannot be listened on.
pub async fn serve_at(
    address: SocketAddr,
    tls: Option<TlsAcceptor>,
    router: Router,
    limits: Limits,
    shutdown: impl Future<Output = ()> + Send,
) -> io::Result<()> {
    let listener = TcpListener::bind(address).await?;
    serve(listener, tls, router, limits, shutdown).await;
    Ok(())
}

#[cfg(test)]
mod tests;
