//! The plain HTTP port of every replica: `/healthz`, `/readyz`, `/metrics`.
//!
//! Ready means "can answer admission reviews and would reconcile as leader". It
//! must not mean "leads": a rollout waits for the new replica to be ready
//! before it stops the old replica, which only then releases leadership.

use std::collections::BTreeSet;
use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header::CONTENT_TYPE};
use axum::response::IntoResponse;
use axum::routing::get;

use crate::controller::process::metrics::Metrics;
use crate::serve::{Limits, serve_at};

/// The address of the port; the chart's probes and Service use the same.
pub const ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED), 8080);

/// What a replica still waits for before it is ready. Clones share it.
#[derive(Clone, Default)]
pub struct Readiness {
    missing: Arc<Mutex<BTreeSet<&'static str>>>,
}

impl Readiness {
    /// Not ready until each of these things is found.
    pub fn waiting_for(things: impl IntoIterator<Item = &'static str>) -> Self {
        Self { missing: Arc::new(Mutex::new(things.into_iter().collect())) }
    }

    /// Marks a thing as found.
    pub fn found(&self, thing: &'static str) {
        self.missing.lock().unwrap_or_else(PoisonError::into_inner).remove(thing);
    }

    /// Marks a thing as missing: it is gone again, or is needed after all.
    pub fn lacks(&self, thing: &'static str) {
        self.missing.lock().unwrap_or_else(PoisonError::into_inner).insert(thing);
    }

    /// What is still missing; nothing when ready.
    pub fn missing(&self) -> Vec<&'static str> {
        self.missing.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect()
    }
}

/// The routes.
pub fn router(readiness: Readiness, metrics: Metrics) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz).with_state(readiness))
        .route("/metrics", get(render).with_state(metrics))
}

async fn readyz(State(readiness): State<Readiness>) -> impl IntoResponse {
    let missing = readiness.missing();
    if missing.is_empty() {
        (StatusCode::OK, "ok\n".to_owned())
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, format!("waiting for: {}\n", missing.join(", ")))
    }
}

async fn render(State(metrics): State<Metrics>) -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], metrics.render())
}

/// Serves the routes at `address` until `shutdown` ends.
///
/// # Errors
/// The address cannot be bound.
pub async fn serve(
    address: SocketAddr,
    router: Router,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    serve_at(address, None, router, Limits::HEALTH, shutdown).await
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use axum::http::Request;
    use tower::ServiceExt as _;

    use super::*;

    async fn ask(router: &Router, path: &str) -> (StatusCode, String) {
        let answer = router.clone().oneshot(Request::get(path).body(Body::empty()).unwrap()).await.unwrap();
        let status = answer.status();
        let bytes = to_bytes(answer.into_body(), 1 << 20).await.unwrap();
        (status, String::from_utf8(bytes.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn readiness_names_what_is_missing() {
        let readiness = Readiness::waiting_for(["webhook certificate", "custom resource definitions"]);
        let router = router(readiness.clone(), Metrics::default());
        let (status, text) = ask(&router, "/readyz").await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(text, "waiting for: custom resource definitions, webhook certificate\n");
        readiness.found("webhook certificate");
        readiness.found("custom resource definitions");
        assert_eq!(ask(&router, "/readyz").await.0, StatusCode::OK);
        readiness.lacks("webhook certificate");
        assert_eq!(ask(&router, "/readyz").await.1, "waiting for: webhook certificate\n");
    }

    #[tokio::test]
    async fn health_and_metrics_answer() {
        let router = router(Readiness::default(), Metrics::default());
        assert_eq!(ask(&router, "/healthz").await, (StatusCode::OK, "ok\n".to_owned()));
        assert!(ask(&router, "/metrics").await.1.contains("lifeboat_leader"));
        assert_eq!(ask(&router, "/nothing").await.0, StatusCode::NOT_FOUND);
    }
}
