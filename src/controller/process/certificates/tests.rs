//! Keeps the certificate valid, against a cluster of three objects in memory.

use std::convert::Infallible;
use std::sync::Mutex;

use kube::client::Body;

use crate::controller::process::certificates::*;

type Request = axum::http::Request<Body>;
type Response = axum::http::Response<Body>;

/// Objects by path; every write increments the version.
#[derive(Default)]
struct Cluster {
    objects: Mutex<BTreeMap<String, Value>>,
    /// Number of writes to refuse with a conflict, as if another replica had written first.
    conflicts: Mutex<usize>,
}

impl Cluster {
    fn client(self: &Arc<Self>) -> Client {
        let cluster = self.clone();
        let service = tower::service_fn(move |request: Request| {
            let cluster = cluster.clone();
            async move { Ok::<_, Infallible>(cluster.answer(request).await) }
        });
        Client::new(service, "backup")
    }

    async fn answer(&self, request: Request) -> Response {
        let (head, body) = request.into_parts();
        let body = body.collect_bytes().await.unwrap();
        let mut objects = self.objects.lock().unwrap();
        let path = head.uri.path().to_owned();
        let conflict = || {
            let mut left = self.conflicts.lock().unwrap();
            let is_due = *left > 0;
            *left = left.saturating_sub(1);
            is_due
        };
        match head.method.as_str() {
            "GET" => objects.get(&path).map_or_else(|| failure(404), |o| reply(200, o)),
            "POST" | "PUT" => {
                let mut object: Value = serde_json::from_slice(&body).unwrap();
                let key = match head.method.as_str() {
                    "POST" => format!("{path}/{}", object["metadata"]["name"].as_str().unwrap()),
                    _ => path,
                };
                let stored = objects.get(&key).map(|o| o["metadata"]["resourceVersion"].clone());
                if conflict() || stored.is_some_and(|v| v != object["metadata"]["resourceVersion"]) {
                    return failure(409);
                }
                object["metadata"]["resourceVersion"] = format!("{}", objects.len() + 100).into();
                objects.insert(key, object.clone());
                reply(201, &object)
            }
            "PATCH" => {
                let changes: json_patch::Patch = serde_json::from_slice(&body).unwrap();
                let Some(object) = objects.get_mut(&path) else { return failure(404) };
                if conflict() || json_patch::patch(object, &changes).is_err() {
                    return failure(422);
                }
                reply(200, object)
            }
            other => panic!("{other} {path}"),
        }
    }

    fn get(&self, path: &str) -> Value {
        self.objects.lock().unwrap().get(path).cloned().unwrap_or_default()
    }
}

fn reply(code: u16, body: &Value) -> Response {
    axum::http::Response::builder().status(code).body(Body::from(serde_json::to_vec(body).unwrap())).unwrap()
}

fn failure(code: u16) -> Response {
    let reason = if code == 404 { "NotFound" } else { "Conflict" };
    reply(
        code,
        &json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": "x" }),
    )
}

const SECRET: &str = "/api/v1/namespaces/backup/secrets/cert";
const MUTATING: &str = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/lifeboat";

fn with_webhooks() -> Arc<Cluster> {
    let cluster = Arc::new(Cluster::default());
    let hook = |name: &str| json!({ "name": name, "admissionReviewVersions": ["v1"], "sideEffects": "None", "clientConfig": { "service": { "name": "s", "namespace": "backup" } } });
    cluster.objects.lock().unwrap().insert(
        MUTATING.into(),
        json!({ "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration",
                "metadata": { "name": "lifeboat" }, "webhooks": [hook("default.as.x.y"), hook("default.bs.x.y")] }),
    );
    cluster
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

const TOKEN: &str = "t0ken";

fn keeper(cluster: &Arc<Cluster>) -> Keeper {
    Keeper::new(cluster.client(), "backup", "s", "cert", OPERATOR, CertHandle::new())
}

fn text(secret: &Value, key: &str) -> String {
    let bytes =
        base64::Engine::decode(&base64::prelude::BASE64_STANDARD, secret["data"][key].as_str().unwrap_or_default());
    String::from_utf8(bytes.unwrap()).unwrap()
}

#[tokio::test]
async fn a_rotation_keeps_the_old_ca_trusted() {
    let cluster = with_webhooks();
    let mut keeper = keeper(&cluster);
    let start = at("2026-11-20T00:00:00Z");
    keeper.pass(Some(TOKEN), start).await.unwrap();
    let first = cluster.get(SECRET);
    assert!(keeper.handle.is_loaded() && first["type"] == "Opaque" && text(&first, "ca-old.crt").is_empty());

    keeper.pass(Some(TOKEN), start + jiff::SignedDuration::from_hours(24 * 59)).await.unwrap();
    assert_eq!(cluster.get(SECRET), first, "nothing is due yet");

    keeper.pass(Some(TOKEN), start + jiff::SignedDuration::from_hours(24 * 61)).await.unwrap();
    let second = cluster.get(SECRET);
    assert_eq!(text(&second, "ca-old.crt"), text(&first, "ca.crt"));
    assert_eq!(keeper.loaded, text(&second, "tls.crt"));
    for hook in cluster.get(MUTATING)["webhooks"].as_array().unwrap() {
        let trusted = hook["clientConfig"]["caBundle"].as_str().unwrap();
        let trusted =
            String::from_utf8(base64::Engine::decode(&base64::prelude::BASE64_STANDARD, trusted).unwrap()).unwrap();
        assert_eq!(trusted, text(&second, "ca.crt") + &text(&first, "ca.crt"));
        assert_eq!(hook["clientConfig"]["service"]["name"], "s", "the rest stays");
    }
}

#[tokio::test]
async fn the_api_server_asks_where_the_token_is() {
    let cluster = with_webhooks();
    let asked = |n: usize| cluster.get(MUTATING)["webhooks"][n]["clientConfig"]["service"]["path"].clone();
    let mut keeper = keeper(&cluster);
    keeper.pass(Some(TOKEN), at("2026-11-20T00:00:00Z")).await.unwrap();
    assert_eq!((asked(0), asked(1)), (json!("/default/as/t0ken"), json!("/default/bs/t0ken")));
    // Without a token the path is left as it is.
    keeper.pass(None, at("2026-11-20T00:00:00Z")).await.unwrap();
    assert_eq!(asked(0), "/default/as/t0ken");
    // Another client wrote a different path, or the key is new.
    cluster.objects.lock().unwrap().get_mut(MUTATING).unwrap()["webhooks"][1]["clientConfig"]["service"]["path"] =
        "/default/bs".into();
    keeper.pass(Some(TOKEN), at("2026-11-20T00:00:00Z")).await.unwrap();
    assert_eq!((asked(0), asked(1)), (json!("/default/as/t0ken"), json!("/default/bs/t0ken")));
    keeper.pass(Some("other"), at("2026-11-20T00:00:00Z")).await.unwrap();
    assert_eq!(asked(0), "/default/as/other");
}

#[tokio::test]
async fn the_replica_that_loses_reads_what_the_other_wrote() {
    let cluster = with_webhooks();
    *cluster.conflicts.lock().unwrap() = 2;
    let mut keeper = keeper(&cluster);
    keeper.pass(Some(TOKEN), at("2026-11-20T00:00:00Z")).await.unwrap();
    assert_eq!(keeper.loaded, text(&cluster.get(SECRET), "tls.crt"));
    let mut other = self::keeper(&cluster);
    other.pass(Some(TOKEN), at("2026-11-20T00:00:00Z")).await.unwrap();
    assert_eq!(other.loaded, keeper.loaded);
}

#[tokio::test]
async fn missing_configurations_mean_the_webhook_is_off() {
    let cluster = Arc::new(Cluster::default());
    let mut keeper = keeper(&cluster);
    keeper.pass(Some(TOKEN), at("2026-11-20T00:00:00Z")).await.unwrap();
    assert!(keeper.handle.is_loaded());
}

#[tokio::test]
async fn a_secret_of_somebody_else_is_used_and_never_changed() {
    let cluster = with_webhooks();
    let bundle = issue(at("2020-01-01T00:00:00Z"), &keeper(&cluster).names).unwrap();
    let mut secret = write("cert", &bundle, &[], None, None);
    secret.metadata.annotations = None;
    cluster.objects.lock().unwrap().insert(SECRET.into(), serde_json::to_value(&secret).unwrap());
    let before = cluster.get(SECRET);
    let mut keeper = keeper(&cluster);
    keeper.pass(Some(TOKEN), at("2026-11-20T00:00:00Z")).await.unwrap();
    assert_eq!((cluster.get(SECRET), keeper.loaded), (before, bundle.cert_pem));

    cluster.objects.lock().unwrap().get_mut(SECRET).unwrap()["data"].as_object_mut().unwrap().remove("tls.key");
    let error = self::keeper(&cluster).pass(Some(TOKEN), at("2026-11-20T00:00:00Z")).await.unwrap_err();
    assert!(error.to_string().contains("has no key tls.key"), "{error}");
}

#[tokio::test]
async fn a_certificate_for_other_names_is_made_again() {
    let cluster = with_webhooks();
    let now = at("2026-11-20T00:00:00Z");
    let api = Api::namespaced(cluster.client(), "backup");
    let first = ensure(&api, "cert", &["old.backup.svc".to_owned()], now).await.unwrap();
    let second = ensure(&api, "cert", &keeper(&cluster).names, now).await.unwrap();
    assert_ne!(first.cert, second.cert);
}
