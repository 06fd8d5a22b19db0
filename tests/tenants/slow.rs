//! Row 8: clients that connect and send little.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::cluster::{SOON, eventually};
use super::installed::Webhook;
use super::scene::{Scene, leading};

/// A request that is not complete by then is aborted. The target is 5 seconds; this limit is for a busy machine.
const GIVEN_UP_WITHIN: Duration = Duration::from_secs(20);
/// More connections than the webhook accepts at once.
const MANY: usize = 300;

/// Waits until the other side has closed all these connections.
async fn closed(connections: Vec<TcpStream>) {
    let all = connections.into_iter().map(|mut stream| async move {
        let mut byte = [0; 1];
        while stream.read(&mut byte).await.is_ok_and(|n| n > 0) {}
    });
    let all = futures::future::join_all(all);
    assert!(tokio::time::timeout(GIVEN_UP_WITHIN, all).await.is_ok(), "half a request is waited for");
}

async fn half(port: u16, text: &str) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    stream
}

#[tokio::test]
#[ignore = "needs an API server: make test-tenants"]
async fn half_a_request_for_metrics_is_not_waited_for() {
    let scene = Scene::enter("half").await;
    let operator = leading(&scene, &[]).await;
    let mut connections = vec![];
    for _ in 0..MANY {
        connections.push(half(operator.port(), "GET /metrics HTTP/1.1\r\nHost: x\r\nX-Slow: ").await);
    }
    eventually("others are answered", SOON, || async {
        operator.page("/healthz").await.filter(|(code, _)| *code == 200).map(|_| ()).ok_or("no".to_owned())
    })
    .await;
    closed(connections).await;
}

#[tokio::test]
#[ignore = "needs an API server: make test-tenants"]
async fn half_a_handshake_does_not_keep_the_webhook() {
    let scene = Scene::enter("handshake").await;
    let webhook = Webhook::install(&scene.cluster).await;
    let mut connections = vec![];
    for _ in 0..MANY {
        connections.push(half(webhook.port, "\x16\x03\x01").await);
    }
    is_answered(&webhook).await;
    webhook.remove(&scene.cluster).await;
    drop(connections);
}

/// A new client, such as an API server that has just started, gets a response.
async fn is_answered(webhook: &Webhook) {
    eventually("the webhook answers", GIVEN_UP_WITHIN, || async {
        let asked = async {
            let mut stream = webhook.connect().await?;
            stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await?;
            std::io::Result::Ok(answer)
        };
        match tokio::time::timeout(Duration::from_secs(2), asked).await {
            Ok(Ok(answer)) if answer.starts_with("HTTP/1.1 200") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

/// The client sends the headers at once, and the body byte by byte.
#[tokio::test]
#[ignore = "needs an API server: make test-tenants"]
async fn half_a_review_does_not_keep_the_webhook() {
    let scene = Scene::enter("review").await;
    let webhook = Webhook::install(&scene.cluster).await;
    // This also holds for a client that knows the path of the API server.
    let path = webhook.path("validate", "restoresessions");
    let head = format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n{{");
    // The slot of the API server's own connection is free once that connection has been idle for a while.
    let (mut connections, mut refused) = (vec![], 0);
    while connections.len() < MANY && refused < 8 {
        let begin = async {
            let mut stream = webhook.connect().await.ok()?;
            stream.write_all(head.as_bytes()).await.ok()?;
            stream.flush().await.ok()?;
            Some(stream)
        };
        // Beyond the webhook's limit, a client gets no handshake.
        match tokio::time::timeout(Duration::from_secs(2), begin).await {
            Ok(Some(stream)) => connections.push(stream),
            _ => refused += 1,
        }
    }
    assert!(connections.len() > MANY / 2, "{} connections", connections.len());
    // A single byte now and then does not count as progress.
    let drip = tokio::spawn(async move {
        loop {
            for stream in &mut connections {
                let _ = stream.write_all(b" ").await;
                let _ = stream.flush().await;
                // The client reads the response, like a client that is only slow.
                let _ = tokio::time::timeout(Duration::from_millis(1), stream.read(&mut [0; 64])).await;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    });
    is_answered(&webhook).await;
    drip.abort();
    webhook.remove(&scene.cluster).await;
}
