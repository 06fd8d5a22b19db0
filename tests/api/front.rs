//! A proxy for the API server that fails like a real one: unavailable, busy, without some watches, or with another
//! clock.
//!
//! It speaks plain HTTP to the operator and forwards every request with the test's own credentials.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::body::{Body, to_bytes};
use axum::http::{Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use jiff::fmt::rfc2822::DateTimePrinter;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::Client;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};

/// Responses to every other write, in turn.
const ANSWERS: [(u16, &str); 3] = [(500, "InternalError"), (429, "TooManyRequests"), (409, "Conflict")];

#[derive(Default)]
struct Moods {
    /// Every other write fails.
    busy: AtomicUsize,
    writes: AtomicUsize,
    /// Writes that failed, by code.
    failed: Mutex<Vec<u16>>,
    /// The watches of all pods of Jobs fail. Requests for the pods of one session succeed.
    without_pods: AtomicBool,
    /// Seconds by which the front's clock is ahead.
    ahead: AtomicI64,
}

pub struct Front {
    client: Client,
    address: SocketAddr,
    moods: Arc<Moods>,
    serving: Option<JoinHandle<()>>,
    _folder: tempfile::TempDir,
    pub kubeconfig: PathBuf,
}

impl Front {
    pub async fn new(client: &Client) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let folder = tempfile::tempdir().unwrap();
        let kubeconfig = folder.path().join("kubeconfig");
        write_kubeconfig(&kubeconfig, address);
        let moods = Arc::default();
        let mut front = Self { client: client.clone(), address, moods, serving: None, _folder: folder, kubeconfig };
        front.up().await;
        front
    }

    /// Closes the port and every connection.
    pub async fn down(&mut self) {
        let serving = self.serving.take().unwrap();
        serving.abort();
        let _ = serving.await;
    }

    pub async fn up(&mut self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        self.serving = Some(tokio::spawn(serve(listener, self.client.clone(), self.moods.clone())));
    }

    pub fn busy(&self, busy: bool) {
        self.moods.busy.store(usize::from(busy), Ordering::SeqCst);
    }

    /// Sets whether watches of pods fail after they break.
    pub fn without_pods(&self, without: bool) {
        self.moods.without_pods.store(without, Ordering::SeqCst);
    }

    /// Status codes of the requests that the front refused.
    pub fn failed(&self) -> Vec<u16> {
        self.moods.failed.lock().unwrap().clone()
    }

    pub fn set_ahead(&self, seconds: i64) {
        self.moods.ahead.store(seconds, Ordering::SeqCst);
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        if let Some(serving) = &self.serving {
            serving.abort();
        }
    }
}

fn write_kubeconfig(path: &Path, address: SocketAddr) {
    let config = json!({ "apiVersion": "v1", "kind": "Config", "current-context": "front",
        "clusters": [{ "name": "front", "cluster": { "server": format!("http://{address}") } }],
        "users": [{ "name": "front", "user": {} }],
        "contexts": [{ "name": "front", "context": { "cluster": "front", "user": "front" } }] });
    std::fs::write(path, config.to_string()).unwrap();
}

/// Connections are tasks of this task and end with it.
async fn serve(listener: TcpListener, client: Client, moods: Arc<Moods>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let (client, moods) = (client.clone(), moods.clone());
        let pass = tower::service_fn(move |request| answer(request, client.clone(), moods.clone()));
        connections.spawn(async move {
            let service = TowerToHyperService::new(pass);
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn answer(
    request: Request<hyper::body::Incoming>,
    client: Client,
    moods: Arc<Moods>,
) -> Result<Response<Body>, std::convert::Infallible> {
    let is_write = request.method() != "GET";
    // A conflict over the Lease means that another operator leads, which is not the subject of this test.
    if is_write && moods.busy.load(Ordering::SeqCst) == 1 && !request.uri().path().contains("/leases") {
        let n = moods.writes.fetch_add(1, Ordering::SeqCst);
        if n.is_multiple_of(2) {
            let (code, reason) = ANSWERS[n / 2 % ANSWERS.len()];
            moods.failed.lock().unwrap().push(code);
            return Ok(refusal(code, reason));
        }
    }
    if is_watch_of_pods(request.uri()) && moods.without_pods.load(Ordering::SeqCst) {
        return Ok(refusal(503, "ServiceUnavailable"));
    }
    let (parts, body) = request.into_parts();
    let body = to_bytes(Body::new(body), usize::MAX).await.unwrap_or_default();
    let path = parts.uri.path_and_query().map_or("/", |p| p.as_str()).to_owned();
    let mut onward = Request::builder().method(parts.method).uri(path);
    for name in [header::ACCEPT, header::CONTENT_TYPE] {
        if let Some(value) = parts.headers.get(&name) {
            onward = onward.header(name, value);
        }
    }
    let onward = onward.body(kube::client::Body::from(body)).unwrap();
    let Ok(mut response) = client.send(onward).await else { return Ok(refusal(503, "ServiceUnavailable")) };
    let date = Timestamp::now() + SignedDuration::from_secs(moods.ahead.load(Ordering::SeqCst));
    let date = DateTimePrinter::new().timestamp_to_rfc9110_string(&date).unwrap();
    response.headers_mut().insert(header::DATE, date.parse().unwrap());
    response.headers_mut().remove(header::CONTENT_LENGTH);
    response.headers_mut().remove(header::TRANSFER_ENCODING);
    Ok(response.map(Body::new))
}

/// Whether a request is a watch of pods by the kind of their session, in all namespaces or in each.
fn is_watch_of_pods(uri: &axum::http::Uri) -> bool {
    let (_, by) = lifeboat::names::label::SESSION_KIND.split_once('/').unwrap();
    uri.path().ends_with("/pods") && uri.query().is_some_and(|q| q.contains(by))
}

fn refusal(code: u16, reason: &str) -> Response<Body> {
    let status = json!({ "apiVersion": "v1", "kind": "Status", "status": "Failure", "code": code, "reason": reason,
        "message": "The test says no." });
    let mut response = Response::new(Body::from(status.to_string()));
    *response.status_mut() = StatusCode::from_u16(code).unwrap();
    response.headers_mut().insert(header::CONTENT_TYPE, "application/json".parse().unwrap());
    response
}
