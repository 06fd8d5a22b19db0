//! The webhook server: HTTPS in, JSON out.
//!
//! `POST /default/{kind}` and `POST /validate/{kind}` take an AdmissionReview.
//! The certificate is asked for at every handshake, so that a new one needs no
//! restart. Connections and times are bounded by [`serve`], bodies here. Knows nothing of the cluster: what owners of
//! Repositories allow is asked of whom it is given for that.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, Request};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::Body as _;
use rustls::server::ResolvesServerCert;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;
use tracing::warn;

use super::{Owners, review};
use crate::serve::{self, Limits};

/// Largest body: an object has at most 1.5 MiB in etcd, and an update carries two.
const BODY_LIMIT: usize = 3 * 1024 * 1024;
/// Longest body that is read without asking for room. All connections together hold 32 MiB of such ones.
const SMALL: u64 = 64 * 1024;
/// Larger bodies that are held at once: 24 MiB. Reviews of objects that are not refused for their size are seldom so large.
const LARGE: usize = 8;

/// The paths of the webhook.
pub fn router(owners: Owners) -> Router {
    let room = Arc::new(Room::default());
    let (of_default, of_validate) = (room.clone(), room);
    Router::new()
        .route(
            "/default/{kind}",
            post(move |Path(kind): Path<String>, request: Request| async move {
                match of_default.read(request).await {
                    Ok(body) => mutate(&kind, &body).await,
                    Err(response) => response,
                }
            }),
        )
        .route(
            "/validate/{kind}",
            post(move |Path(kind): Path<String>, request: Request| async move {
                match of_validate.read(request).await {
                    Ok(body) => validate(&kind, &body, &owners).await,
                    Err(response) => response,
                }
            }),
        )
        .route("/healthz", get(|| async { "ok" }))
}

/// Room for bodies.
struct Room {
    large: Arc<Semaphore>,
    /// What is read from JSON takes up to 16 times its text, so of large ones one is judged after another.
    judging: Arc<Mutex<()>>,
}

impl Default for Room {
    fn default() -> Self {
        Self { large: Arc::new(Semaphore::new(LARGE)), judging: Arc::default() }
    }
}

/// A body, and the room that it takes.
struct Held {
    bytes: Bytes,
    large: Option<(OwnedSemaphorePermit, Arc<Mutex<()>>)>,
}

impl Room {
    /// The whole body, once there is room for it.
    async fn read(&self, request: Request) -> Result<Held, Response> {
        let too_large = || (StatusCode::PAYLOAD_TOO_LARGE, "the review is too large").into_response();
        // Who does not say how much it is may send all that is allowed.
        let size = request.body().size_hint().upper().unwrap_or(u64::MAX);
        let large = if size > SMALL {
            let permit = self.large.clone().acquire_owned().await.map_err(|_| too_large())?;
            Some((permit, self.judging.clone()))
        } else {
            None
        };
        let body = Limited::new(request.into_body(), BODY_LIMIT).collect().await;
        let bytes = body.map_err(|e| {
            if e.is::<LengthLimitError>() { too_large() } else { StatusCode::BAD_REQUEST.into_response() }
        })?;
        Ok(Held { bytes: bytes.to_bytes(), large })
    }
}

impl Held {
    /// Does something with the review in it. It is read each time that it is needed: an object in memory is many times
    /// its text, and must not wait there for the API server.
    async fn with<T>(&self, judge: impl FnOnce(&Value) -> Result<T, String>) -> Result<T, String> {
        let _alone = match &self.large {
            Some((_, judging)) => Some(judging.lock().await),
            None => None,
        };
        judge(&serde_json::from_slice(&self.bytes).map_err(|e| e.to_string())?)
    }
}

async fn mutate(kind: &str, body: &Held) -> Response {
    respond(kind, body.with(|review| review::mutate(kind, review)).await)
}

async fn validate(kind: &str, body: &Held, owners: &Owners) -> Response {
    let question = match body.with(|review| Ok(review::question(kind, review))).await {
        Ok(question) => question,
        Err(text) => return respond(kind, Err(text)),
    };
    let refusal = match question {
        Some(elsewhere) => owners(elsewhere).await,
        None => None,
    };
    respond(kind, body.with(|review| review::validate(kind, review, refusal.as_deref())).await)
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
    serve::serve(listener, Some(acceptor), router(owners), Limits::WEBHOOK, shutdown).await;
    Ok(())
}
