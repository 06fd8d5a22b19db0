//! The webhook server: HTTPS in, JSON out.
//!
//! `POST /default/{kind}` and `POST /validate/{kind}` take an AdmissionReview.
//! The certificate is asked for at every handshake, so that a new one needs no
//! restart. Bounded everywhere: size of a body, time of a handshake and of a
//! request, connections at once. Knows nothing of the cluster: what owners of
//! Repositories allow is asked of whom it is given for that.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustls::server::ResolvesServerCert;
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use tracing::{debug, info, warn};

use super::{Owners, review};

/// Largest body: an object has at most 1.5 MiB in etcd, and an update carries two.
const BODY_LIMIT: usize = 3 * 1024 * 1024;
/// Longest handshake, and longest wait for a request's head.
const PATIENCE: Duration = Duration::from_secs(10);
/// Connections at once: some for each API server, and a bound for everyone else.
const CONNECTIONS: usize = 256;
/// Longest time running requests get at the end. A webhook call may take 30 seconds at most.
const DRAIN: Duration = Duration::from_secs(30);

/// The paths of the webhook.
pub fn router(owners: Owners) -> Router {
    Router::new()
        .route("/default/{kind}", post(|Path(kind): Path<String>, body: Bytes| async move { mutate(&kind, &body) }))
        .route(
            "/validate/{kind}",
            post(|Path(kind): Path<String>, body: Bytes| async move { validate(&kind, &body, &owners).await }),
        )
        .route("/healthz", get(|| async { "ok" }))
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
}

fn mutate(kind: &str, body: &Bytes) -> Response {
    respond(kind, read(body).and_then(|review| review::mutate(kind, &review)))
}

async fn validate(kind: &str, body: &Bytes, owners: &Owners) -> Response {
    let review = match read(body) {
        Ok(review) => review,
        Err(text) => return respond(kind, Err(text)),
    };
    let refusal = match review::question(kind, &review) {
        Some(elsewhere) => owners(elsewhere).await,
        None => None,
    };
    respond(kind, review::validate(kind, &review, refusal.as_deref()))
}

fn read(body: &Bytes) -> Result<Value, String> {
    serde_json::from_slice(body).map_err(|e| e.to_string())
}

fn respond(kind: &str, answered: Result<Value, String>) -> Response {
    match answered {
        Ok(review) => Json(review).into_response(),
        Err(text) => {
            warn!(kind, error = text, "a request to the webhook is no review");
            (StatusCode::BAD_REQUEST, text).into_response()
        }
    }
}

/// Serves until `shutdown` ends, then lets running requests finish.
///
/// # Errors
/// The address cannot be listened on, or the TLS provider offers no protocol.
pub async fn serve(
    addr: SocketAddr,
    resolver: Arc<dyn ResolvesServerCert>,
    owners: Owners,
    shutdown: impl Future<Output = ()> + Send,
) -> std::io::Result<()> {
    let listener = TcpListener::bind(addr).await?;
    serve_on(listener, resolver, owners, shutdown).await
}

/// As [`serve`], on a listener that is already bound.
///
/// # Errors
/// The TLS provider offers no protocol.
pub async fn serve_on(
    listener: TcpListener,
    resolver: Arc<dyn ResolvesServerCert>,
    owners: Owners,
    shutdown: impl Future<Output = ()> + Send,
) -> std::io::Result<()> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(std::io::Error::other)?
        .with_no_client_auth()
        .with_cert_resolver(resolver);
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let router = router(owners);
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let (stop, stopping) = watch::channel(());
    if let Ok(addr) = listener.local_addr() {
        info!(%addr, "webhook is listening");
    }
    tokio::pin!(shutdown);
    loop {
        let place = tokio::select! {
            place = places.clone().acquire_owned() => place,
            () = &mut shutdown => break,
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut shutdown => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                let (acceptor, router, stopping) = (acceptor.clone(), router.clone(), stopping.clone());
                tokio::spawn(async move {
                    if let Err(error) = connection(acceptor, router, stream, stopping).await {
                        debug!(%peer, error, "connection to the webhook ended");
                    }
                    drop(place);
                });
            }
            Err(error) => {
                // Out of file descriptors or the like: others may end meanwhile, and a tight loop helps nobody.
                warn!(%error, "webhook cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop((listener, stopping));
    let _ = stop.send(());
    // Every connection holds a receiver; the channel closes with the last of them.
    let _ = tokio::time::timeout(DRAIN, stop.closed()).await;
    Ok(())
}

async fn connection(
    acceptor: TlsAcceptor,
    router: Router,
    stream: TcpStream,
    mut stopping: watch::Receiver<()>,
) -> Result<(), String> {
    let handshake = tokio::time::timeout(PATIENCE, acceptor.accept(stream));
    let tls = tokio::select! {
        done = handshake => done.map_err(|_| "handshake took too long".to_owned())?.map_err(|e| e.to_string())?,
        // Nothing was asked yet, so nothing is owed.
        _ = stopping.changed() => return Ok(()),
    };
    let http = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .serve_connection(TokioIo::new(tls), TowerToHyperService::new(router));
    tokio::pin!(http);
    tokio::select! {
        result = http.as_mut() => result.map_err(|e| e.to_string()),
        _ = stopping.changed() => {
            http.as_mut().graceful_shutdown();
            http.await.map_err(|e| e.to_string())
        }
    }
}
