//! The webhook server: HTTPS in, JSON out.
//!
//! `POST /default/{kind}/{token}` and `POST /validate/{kind}/{token}` accept an AdmissionReview. A review contains
//! the author of an object, and is trusted. Therefore only the API server may call the webhook, and is recognised by
//! the token in the path, which is in the webhook configurations. The certificate is read at every handshake, so that
//! a new one needs no restart. Connections and times are limited by [`serve`], bodies here. The module does not use
//! the cluster: permissions of Repositories are looked up by the given callbacks.

use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
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
use tokio::sync::{Mutex, Notify, OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;
use tracing::warn;

use crate::admission::elsewhere::Owners;
use crate::admission::rights;
use crate::admission::rights::{Gate, Mark};
use crate::admission::{review, seal};
use crate::serve;
use crate::serve::Limits;

/// Maximum size of a body: an object has at most 1.5 MiB in etcd, and an update contains two.
const BODY_LIMIT: usize = 3 * 1024 * 1024;
/// Maximum size of a body that is read without a reservation. All connections together can hold 32 MiB of such
/// bodies.
const SMALL: u64 = 64 * 1024;
/// Total size of larger bodies at a time: 24 MiB. Reviews of objects within the limits are rarely so large.
const LARGE: usize = 8;

/// The paths of the webhook.
pub fn router(doors: Doors) -> Router {
    let otherwise = doors.token.clone();
    let of_default = Arc::new((doors, Room::default()));
    let of_validate = of_default.clone();
    Router::new()
        .route(
            "/default/{kind}/{token}",
            post(move |Path((kind, token)): Path<(String, String)>, request: Request| async move {
                let (doors, room) = &*of_default;
                match doors.token.admit(&token, room.read(&kind, request)).await {
                    Ok(body) => mutate(&kind, &body, doors.gate.as_ref()).await,
                    Err(response) => response,
                }
            }),
        )
        .route(
            "/validate/{kind}/{token}",
            post(move |Path((kind, token)): Path<(String, String)>, request: Request| async move {
                let (doors, room) = &*of_validate;
                match doors.token.admit(&token, room.read(&kind, request)).await {
                    Ok(body) => validate(&kind, &body, &doors.owners, doors.gate.as_ref()).await,
                    Err(response) => response,
                }
            }),
        )
        .route("/healthz", get(|| async { "ok" }))
        .fallback(async move || otherwise.nobody())
}

/// Token of the API server, and lookups that need the cluster.
#[derive(Clone)]
pub struct Doors {
    /// Token by which the API server is recognised.
    pub token: PathToken,
    /// Lookup: which namespaces may use a Repository.
    pub owners: Owners,
    /// Lookup: who may run code; `None` if the check is off.
    pub gate: Option<Gate>,
}

/// Token by which the API server is recognised: the last part of the path, from [`seal::Key::path_token`]. Until it
/// is set, all requests are rejected. Never printed.
#[derive(Clone, Default)]
pub struct PathToken(Arc<Known>);

#[derive(Default)]
struct Known {
    token: ArcSwapOption<String>,
    asked_otherwise: Notify,
}

impl PathToken {
    /// Accepts only this token from now on.
    pub fn set(&self, token: &str) {
        if self.0.token.load().as_deref().map(String::as_str) != Some(token) {
            self.0.token.store(Some(Arc::new(token.to_owned())));
        }
    }

    /// Completes when a request without the token arrives: perhaps from the API server, with an old path.
    pub async fn asked_otherwise(&self) {
        self.0.asked_otherwise.notified().await;
    }

    /// Calls `read` for requests with the token. Other requests are not read.
    async fn admit(&self, given: &str, read: impl Future<Output = Result<Held, Response>>) -> Result<Held, Response> {
        let known = self.0.token.load().as_deref().is_some_and(|token| seal::is_same(token, given));
        if known { read.await } else { Err(self.nobody()) }
    }

    fn nobody(&self) -> Response {
        self.0.asked_otherwise.notify_one();
        StatusCode::NOT_FOUND.into_response()
    }
}

/// Memory for bodies.
struct Room {
    large: Arc<Semaphore>,
    /// A parsed object needs up to 16 times the memory of its text, so large ones are validated one after another.
    judging: Arc<Mutex<()>>,
}

impl Default for Room {
    fn default() -> Self {
        Self { large: Arc::new(Semaphore::new(LARGE)), judging: Arc::default() }
    }
}

/// A body, and its reservation of memory.
struct Held {
    bytes: Bytes,
    large: Option<(OwnedSemaphorePermit, Arc<Mutex<()>>)>,
}

impl Room {
    /// The whole body, after memory is reserved for it. Otherwise the response: the body is not a review, or its
    /// object is too large.
    async fn read(&self, kind: &str, request: Request) -> Result<Held, Response> {
        let too_large = || (StatusCode::PAYLOAD_TOO_LARGE, "the review is too large").into_response();
        // Without a Content-Length, the maximum size is reserved.
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
        let held = Held { bytes: bytes.to_bytes(), large };
        match held.large.as_ref().and_then(|_| review::outsized(kind, &held.bytes)) {
            Some(denied) => Err(Json(denied).into_response()),
            None => Ok(held),
        }
    }
}

impl Held {
    /// Calls a function with the review. The review is parsed each time: a parsed object is many times larger than
    /// its text, and must not stay in memory during requests to the API server.
    async fn with<T>(&self, judge: impl FnOnce(&Value) -> Result<T, String>) -> Result<T, String> {
        let _alone = match &self.large {
            Some((_, judging)) => Some(judging.lock().await),
            None => None,
        };
        judge(&serde_json::from_slice(&self.bytes).map_err(|e| e.to_string())?)
    }
}

async fn mutate(kind: &str, body: &Held, gate: Option<&Gate>) -> Response {
    let mark = match marked(kind, body, gate).await {
        Ok(mark) => mark,
        Err(text) => return respond(kind, Err(text)),
    };
    respond(kind, body.with(|review| review::mutate_and_mark(kind, review, &mark)).await)
}

/// The seal of the object.
async fn marked(kind: &str, body: &Held, gate: Option<&Gate>) -> Result<Mark, String> {
    let Some(gate) = gate else { return Ok(Mark::Leave) };
    // Without a key there is no seal; the validating call still checks the author.
    let Ok(key) = (gate.key)().await else { return Ok(Mark::Leave) };
    Ok(match body.with(|review| Ok(rights::mark(kind, review, &key))).await? {
        Mark::Ask(question, seal) => {
            if (gate.ask)(question).await.is_ok() {
                Mark::Set(seal)
            } else {
                Mark::Remove
            }
        }
        mark => mark,
    })
}

async fn validate(kind: &str, body: &Held, owners: &Owners, gate: Option<&Gate>) -> Response {
    let key = match gate {
        Some(gate) => (gate.key)().await.ok(),
        None => None,
    };
    let questions = body.with(|review| {
        let about_rights = gate.and_then(|_| rights::question(kind, review, key.as_ref()));
        Ok((review::question(kind, review), about_rights))
    });
    let (elsewhere, about_rights) = match questions.await {
        Ok(questions) => questions,
        Err(text) => return respond(kind, Err(text)),
    };
    let of_owner = async {
        match elsewhere {
            Some(elsewhere) => owners(elsewhere).await,
            None => None,
        }
    };
    let of_rights = async {
        let (gate, question) = gate.zip(about_rights)?;
        let namespace = question.namespace.clone();
        let denial = (gate.ask)(question).await.err()?;
        if (gate.is_open)(namespace).await { None } else { Some(denial) }
    };
    let (of_owner, of_rights) = futures::join!(of_owner, of_rights);
    let mut answer = body.with(|review| review::validate(kind, review, of_rights.as_deref())).await;
    if let (Ok(answer), Some(text)) = (&mut answer, of_owner) {
        review::warn(answer, &text);
    }
    respond(kind, answer)
}

fn respond(kind: &str, answered: Result<Value, String>) -> Response {
    match answered {
        Ok(review) => Json(review).into_response(),
        Err(text) => {
            warn!(kind, error = text, "the request is not an AdmissionReview");
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
    doors: Doors,
    shutdown: impl Future<Output = ()> + Send,
) -> std::io::Result<()> {
    let listener = TcpListener::bind(addr).await?;
    serve_on(listener, resolver, doors, shutdown).await
}

/// As [`serve`], on a listener that is already bound.
///
/// # Errors
/// The TLS provider offers no protocol.
pub async fn serve_on(
    listener: TcpListener,
    resolver: Arc<dyn ResolvesServerCert>,
    doors: Doors,
    shutdown: impl Future<Output = ()> + Send,
) -> std::io::Result<()> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(std::io::Error::other)?
        .with_no_client_auth()
        .with_cert_resolver(resolver);
    let acceptor = TlsAcceptor::from(Arc::new(config));
    serve::serve(listener, Some(acceptor), router(doors), Limits::WEBHOOK, shutdown).await;
    Ok(())
}
