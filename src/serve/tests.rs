//! With real sockets: slow clients, greedy clients, and what other clients get meanwhile.

use axum::routing::{get, post};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;
use tokio::task::JoinHandle;

use crate::serve::*;

/// Short enough for a test, long enough for a busy machine.
const REQUEST: Duration = Duration::from_millis(1500);
const LIMITS: Limits = Limits {
    connections: 16,
    handshake: REQUEST,
    request: REQUEST,
    rest: Duration::from_secs(30),
    head: 8 * 1024,
    drain: Duration::from_secs(20),
};
/// Maximum wait for something that should happen at once.
const SOON: Duration = Duration::from_secs(10);

struct Server {
    addr: SocketAddr,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

async fn start(limits: Limits) -> Server {
    let router = Router::new()
        .route("/", get(|| async { "ok" }))
        .route("/take", post(|body: String| async move { body }))
        .route("/never", get(|| async { std::future::pending::<String>().await }))
        // More than the buffers of both sockets hold.
        .route("/much", get(|| async { "x".repeat(32 << 20) }));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel();
    let stopped = async move {
        let _ = stopped.await;
    };
    let task = tokio::spawn(serve(listener, None, router, limits, stopped));
    Server { addr, stop, task }
}

/// A connection from an address of its own that has sent some text.
async fn from(peer: [u8; 4], to: SocketAddr, text: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((peer, 0).into()).unwrap();
    let mut stream = socket.connect(to).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    stream
}

/// Everything that the server sends until the connection ends.
async fn rest(stream: &mut TcpStream) -> String {
    let mut said = Vec::new();
    // If the server drops a connection with unread bytes, the reader gets an error.
    let _ = tokio::time::timeout(SOON, stream.read_to_end(&mut said)).await.expect("the connection ends");
    String::from_utf8_lossy(&said).into_owned()
}

const WHOLE: &str = "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
const HALF: &str = "GET / HTTP/1.1\r\nHost:";

#[tokio::test]
async fn a_request_that_is_not_over_in_time_is_ended_whatever_it_waits_for() {
    let server = start(LIMITS).await;
    for text in [
        HALF,
        "POST /take HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nslow",
        "GET /never HTTP/1.1\r\nHost: x\r\n\r\n",
    ] {
        let began = Instant::now();
        let mut slow = from([127, 0, 0, 1], server.addr, text).await;
        assert_eq!(rest(&mut slow).await, "", "{text}");
        assert!(began.elapsed() >= REQUEST, "{text}");
    }
    // One byte from time to time is not progress.
    let mut slow = from([127, 0, 0, 1], server.addr, HALF).await;
    let began = Instant::now();
    while began.elapsed() < SOON && slow.write_all(b"x").await.is_ok() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(began.elapsed() < SOON);
}

#[tokio::test]
async fn an_answer_that_is_not_taken_is_ended() {
    let server = start(LIMITS).await;
    let mut slow = from([127, 0, 0, 1], server.addr, "GET /much HTTP/1.1\r\nHost: x\r\n\r\n").await;
    tokio::time::sleep(REQUEST * 2).await;
    assert!(rest(&mut slow).await.len() < 32 << 20);
}

#[tokio::test]
async fn a_connection_rests_longer_than_a_request_may_take() {
    let server = start(LIMITS).await;
    let mut kept = from([127, 0, 0, 1], server.addr, "").await;
    for text in ["GET / HTTP/1.1\r\nHost: x\r\n\r\n", WHOLE] {
        tokio::time::sleep(REQUEST + REQUEST / 2).await;
        kept.write_all(text.as_bytes()).await.unwrap();
        let mut said = vec![];
        while !said.ends_with(b"ok") {
            assert_ne!(kept.read_buf(&mut said).await.unwrap(), 0, "it ended");
        }
        assert!(said.starts_with(b"HTTP/1.1 200"));
    }
    let short = start(Limits { rest: REQUEST, ..LIMITS }).await;
    let mut idle = from([127, 0, 0, 1], short.addr, "").await;
    assert_eq!(rest(&mut idle).await, "");
}

/// The attack: one pod opens all available connections.
#[tokio::test]
async fn who_takes_all_places_gives_them_to_others() {
    let server = start(Limits { request: SOON * 6, ..LIMITS }).await;
    let mut greedy = vec![];
    for _ in 0..LIMITS.connections * 3 {
        greedy.push(from([127, 0, 0, 66], server.addr, HALF).await);
    }
    let mut asking = vec![];
    for i in 1..=LIMITS.connections / 2 {
        // Each request is made before the next: a client's request is not ended by later clients.
        let mut other = from([127, 0, 0, u8::try_from(i).unwrap()], server.addr, WHOLE).await;
        assert!(rest(&mut other).await.ends_with("ok"), "{i}");
        asking.push(from([127, 0, 0, u8::try_from(i).unwrap()], server.addr, HALF).await);
    }
    for other in &mut asking {
        other.write_all(b" x\r\nConnection: close\r\n\r\n").await.unwrap();
        assert!(rest(other).await.ends_with("ok"));
    }
    // The oldest connection was closed.
    assert_eq!(rest(&mut greedy[0]).await, "");
}

#[tokio::test]
async fn a_long_head_is_refused() {
    let server = start(LIMITS).await;
    let long = format!("GET / HTTP/1.1\r\nHost: x\r\nA: {}\r\n\r\n", "x".repeat(LIMITS.head));
    let mut stream = from([127, 0, 0, 1], server.addr, &long).await;
    let said = rest(&mut stream).await;
    assert!(said.is_empty() || said.starts_with("HTTP/1.1 431"), "{said}");
}

#[tokio::test]
async fn the_end_waits_for_requests_and_for_nothing_else() {
    let server = start(Limits { request: SOON * 6, ..LIMITS }).await;
    let _idle = from([127, 0, 0, 1], server.addr, "").await;
    let mut asking = from([127, 0, 0, 1], server.addr, HALF).await;
    // The answer to another request shows that the server has accepted the first connection before the stop.
    let mut other = from([127, 0, 0, 2], server.addr, WHOLE).await;
    assert!(rest(&mut other).await.ends_with("ok"));
    server.stop.send(()).unwrap();
    asking.write_all(b" x\r\n\r\n").await.unwrap();
    assert!(rest(&mut asking).await.ends_with("ok"));
    tokio::time::timeout(SOON, server.task).await.expect("nobody is waited for").unwrap();
}
