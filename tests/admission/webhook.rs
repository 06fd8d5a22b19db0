//! The webhook as the API server calls it: reviews in, patches and denials out, over TLS.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use lifeboat::admission::certs::{Bundle, CertHandle, issue};
use lifeboat::admission::seal::Key;
use lifeboat::admission::server::{Doors, PathToken, router, serve_on};
use lifeboat::admission::{Elsewhere, Gate, Owners};
use rustls::pki_types::pem::PemObject as _;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tower::ServiceExt as _;

/// Owners that must not be asked.
fn unasked() -> Owners {
    Arc::new(|asked| panic!("asked about {asked:?}"))
}

/// Owners that all give this response; and the questions to them.
fn owners(say: Option<&'static str>) -> (Owners, Arc<Mutex<Vec<Elsewhere>>>) {
    let asked = Arc::<Mutex<Vec<Elsewhere>>>::default();
    let heard = asked.clone();
    let owners: Owners = Arc::new(move |about| {
        heard.lock().unwrap().push(about);
        Box::pin(async move { say.map(str::to_owned) })
    });
    (owners, asked)
}

/// Token in the path by which the webhook recognizes the API server.
const TOKEN: &str = "0123456789abcdef";

/// Settings of a webhook that is open to the API server.
fn doors(owners: Owners, gate: Option<Gate>) -> Doors {
    let token = PathToken::default();
    token.set(TOKEN);
    Doors { token, owners, gate }
}

async fn post(path: &str, body: impl Into<Body>) -> (StatusCode, Value) {
    post_to(unasked(), path, body).await
}

async fn post_to(owners: Owners, path: &str, body: impl Into<Body>) -> (StatusCode, Value) {
    let request = Request::post(format!("{path}/{TOKEN}")).body(body.into()).unwrap();
    let response = router(doors(owners, None)).oneshot(request).await.unwrap();
    let status = response.status();
    let bytes = axum::body::to_bytes(response.into_body(), 10 << 20).await.unwrap();
    (status, serde_json::from_slice(&bytes).unwrap_or_default())
}

fn review(operation: &str, object: &Value, old: &Value) -> Value {
    json!({ "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
            "request": { "uid": "u-1", "operation": operation, "namespace": "demo", "object": object, "oldObject": old } })
}

async fn ask(path: &str, operation: &str, object: &Value, old: &Value) -> Value {
    let (status, answer) = post(path, review(operation, object, old).to_string()).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!((&answer["apiVersion"], &answer["kind"]), (&json!("admission.k8s.io/v1"), &json!("AdmissionReview")));
    assert_eq!(answer["response"]["uid"], "u-1");
    answer["response"].clone()
}

fn kep() -> Value {
    json!({
        "apiVersion": "stash.appscode.com/v1beta1", "kind": "RestoreBatch",
        "metadata": { "name": "all", "newer": 1 },
        "spec": {
            "repository": { "name": "r" }, "maintainOrder": true, "unknown": { "kept": [1] },
            "members": [{
                "target": { "ref": { "kind": "Deployment", "name": "web" }, "volumeMounts": [{ "name": "d", "mountPath": "/d" }] },
                "rules": [{ "paths": ["/d"] }],
            }],
        },
    })
}

fn patched(object: &Value, response: &Value) -> Value {
    let mut object = object.clone();
    if let Some(patch) = response["patch"].as_str() {
        assert_eq!(response["patchType"], "JSONPatch");
        let patch: json_patch::Patch = serde_json::from_slice(&BASE64_STANDARD.decode(patch).unwrap()).unwrap();
        json_patch::patch(&mut object, &patch).unwrap();
    }
    object
}

#[tokio::test]
async fn the_patch_applies_to_the_object_as_it_was_sent() {
    let sent = kep();
    for path in ["/default/restorebatches", "/default/restorebatch", "/default/RestoreBatch"] {
        let response = ask(path, "CREATE", &sent, &Value::Null).await;
        assert_eq!(response["allowed"], true);
        let stored = patched(&sent, &response);
        let spec = &stored["spec"];
        assert_eq!(spec["executionOrder"], "Sequential");
        assert_eq!(spec["members"][0]["target"]["alias"], "host-0");
        assert_eq!(spec["members"][0]["target"]["rules"], json!([{ "paths": ["/d"] }]));
        assert!(spec.get("maintainOrder").is_none() && spec["members"][0].get("rules").is_none());
        assert_eq!((&spec["unknown"], &stored["metadata"]["newer"]), (&json!({ "kept": [1] }), &json!(1)));
        // Defaulting a second time changes nothing.
        let again = ask(path, "CREATE", &stored, &Value::Null).await;
        assert_eq!((&again["allowed"], again.get("patch")), (&json!(true), None));
        // The unchanged manifest, applied again, changes nothing either.
        let update = ask("/validate/restorebatches", "UPDATE", &sent, &stored).await;
        assert_eq!(update["allowed"], true, "{update}");
        assert_eq!(patched(&sent, &ask(path, "UPDATE", &sent, &stored).await), stored);
    }
}

#[tokio::test]
async fn a_mistake_is_denied_field_by_field() {
    let mut object = kep();
    object["spec"]["members"][0]["rules"] = json!([{ "paths": ["/elsewhere"] }]);
    object["spec"]["timeOut"] = "1d".into();
    let response = ask("/validate/restorebatches", "CREATE", &object, &Value::Null).await;
    assert_eq!(response["allowed"], false);
    let status = &response["status"];
    assert_eq!(
        (&status["code"], &status["reason"], &status["status"]),
        (&json!(422), &json!("Invalid"), &json!("Failure"))
    );
    let errors = lifeboat::admission::check("RestoreBatch", &object, None);
    assert_eq!(status["message"], lifeboat::admission::message(&errors));
    assert_eq!(status["details"]["kind"], "RestoreBatch");
    let fields: Vec<_> = status["details"]["causes"].as_array().unwrap().iter().map(|c| c["field"].clone()).collect();
    assert_eq!(fields, ["spec.timeOut", "spec.members[0].target.rules[0].paths[0]"]);
}

#[tokio::test]
async fn what_is_not_built_yet_is_admitted_with_a_warning() {
    let mut object = kep();
    object["spec"]["hooks"] = json!({ "preRestore": { "exec": { "command": ["true"] } } });
    let response = ask("/validate/restorebatches", "CREATE", &object, &Value::Null).await;
    assert_eq!(response["allowed"], true);
    assert!(response["warnings"][0].as_str().unwrap().starts_with("spec.hooks: hooks are not supported yet"));
}

#[tokio::test]
async fn who_asks_for_files_to_be_deleted_is_told_so() {
    let mut object = kep();
    object["spec"]["members"][0]["target"]["extraneous"] = "Keep".into();
    let response = ask("/validate/restorebatches", "CREATE", &object, &Value::Null).await;
    assert_eq!((&response["allowed"], response.get("warnings")), (&json!(true), None));
    object["spec"]["members"][0]["target"]["extraneous"] = "Delete".into();
    let target = &object["spec"]["members"][0]["target"];
    let session = json!({ "apiVersion": object["apiVersion"], "kind": "RestoreSession", "metadata": object["metadata"],
        "spec": { "repository": { "name": "r" }, "target": target, "rules": [{ "paths": ["/d"] }] } });
    for (path, object, at) in [
        ("restorebatches", &object, "spec.members[0].target.extraneous is Delete: files"),
        ("restoresessions", &session, "spec.target.extraneous is Delete: files"),
    ] {
        let response = ask(&format!("/validate/{path}"), "CREATE", object, &Value::Null).await;
        assert_eq!(response["allowed"], true);
        let warnings = response["warnings"].as_array().unwrap();
        let text = warnings[0].as_str().unwrap();
        assert!(warnings.len() == 1 && text.starts_with(at) && text.ends_with("is restored"), "{text}");
    }
    // A DaemonSet: the data that its pods write would be lost, and its pods are never stopped.
    let mut set = session.clone();
    set["spec"]["target"]["ref"]["kind"] = "DaemonSet".into();
    let response = ask("/validate/restoresessions", "CREATE", &set, &Value::Null).await;
    let text = response["warnings"][0].as_str().unwrap();
    assert!(text.starts_with("spec.target.extraneous: is Delete, but a DaemonSet is not scaled"), "{text}");
}

#[tokio::test]
async fn a_target_in_another_namespace_is_seen_by_the_request() {
    let mut object = kep();
    object["spec"]["members"][0]["target"]["ref"]["namespace"] = "prod".into();
    let response = ask("/validate/restorebatches", "CREATE", &object, &Value::Null).await;
    assert!(response["status"]["message"].as_str().unwrap().contains("is \"prod\", but the object is in \"demo\""));
}

/// Proves: A07, invented 20.
#[tokio::test]
async fn a_repository_whose_owner_refuses_is_warned_about() {
    let mut object = kep();
    object["spec"]["repository"]["namespace"] = "store".into();
    let ask = async |say, operation: &str, object: &Value, old: &Value| {
        let (owners, asked) = owners(say);
        let (status, answer) =
            post_to(owners, "/validate/restorebatches", review(operation, object, old).to_string()).await;
        assert_eq!(status, StatusCode::OK);
        let asked = asked.lock().unwrap().clone();
        (answer["response"].clone(), asked)
    };
    let (response, asked) = ask(Some("not yours"), "CREATE", &object, &Value::Null).await;
    assert_eq!(asked, [Elsewhere { home: "store".into(), name: "r".into(), namespace: "demo".into() }]);
    assert_eq!((&response["allowed"], &response["uid"]), (&json!(true), &json!("u-1")));
    assert_eq!(response["warnings"], json!(["not yours"]));

    let (response, asked) = ask(None, "CREATE", &object, &Value::Null).await;
    assert_eq!((&response["allowed"], asked.len()), (&json!(true), 1), "he allows it, or nobody knows");
    assert_eq!(response.get("warnings"), None);

    // A run that has begun may be canceled, even if the owner refuses it by now.
    let mut canceled = object.clone();
    canceled["spec"]["cancel"] = true.into();
    let (response, asked) = ask(Some("not yours"), "UPDATE", &canceled, &object).await;
    assert_eq!((&response["allowed"], asked.len()), (&json!(true), 0), "{response}");

    // An object that is invalid by itself causes no question, and gets the usual message.
    object["spec"]["timeOut"] = "1d".into();
    let (response, asked) = ask(Some("not yours"), "CREATE", &object, &Value::Null).await;
    assert_eq!((&response["status"]["code"], asked.len()), (&json!(422), 0));
}

#[tokio::test]
async fn a_run_cannot_be_changed() {
    let old = kep();
    let mut new = kep();
    new["spec"]["maintainOrder"] = false.into();
    let response = ask("/validate/restorebatches", "UPDATE", &new, &old).await;
    assert!(response["status"]["message"].as_str().unwrap().contains("(changed: executionOrder)"), "{response}");
}

#[tokio::test]
async fn an_object_whose_spec_stays_or_that_goes_is_left_in_peace() {
    let mut bad = kep();
    bad["spec"]["members"] = json!([]);
    let mut with_finalizer = bad.clone();
    with_finalizer["metadata"]["finalizers"] = json!(["x/y"]);
    let mut going = kep();
    going["spec"]["members"] = json!([1]);
    going["metadata"]["deletionTimestamp"] = "2026-11-20T00:00:00Z".into();
    for path in ["/validate/restorebatches", "/default/restorebatches"] {
        for (operation, new, old) in [
            ("UPDATE", &with_finalizer, &bad),
            ("UPDATE", &going, &bad),
            ("DELETE", &Value::Null, &bad),
            ("CONNECT", &bad, &Value::Null),
        ] {
            let response = ask(path, operation, new, old).await;
            assert_eq!((&response["allowed"], response.get("patch")), (&json!(true), None), "{path} {operation}");
        }
    }
}

#[tokio::test]
async fn kinds_of_others_pass() {
    for path in ["/validate/snapshots", "/default/appbindings", "/validate/x"] {
        let response = ask(path, "CREATE", &json!({ "spec": 1 }), &Value::Null).await;
        assert_eq!((&response["allowed"], response.get("patch")), (&json!(true), None));
    }
}

#[tokio::test]
async fn what_is_no_review_gets_a_400() {
    let v1beta1 = review("CREATE", &kep(), &Value::Null).to_string().replace("k8s.io/v1\"", "k8s.io/v1beta1\"");
    let no_object = review("CREATE", &Value::Null, &Value::Null).to_string();
    for body in [String::new(), "[]".into(), "{".into(), "{}".into(), v1beta1, no_object, "[".repeat(100_000)] {
        let (status, _) = post("/validate/restorebatches", body).await;
        assert_eq!(status, StatusCode::BAD_REQUEST);
    }
    let (status, _) = post("/validate/restorebatches", vec![b' '; (3 << 20) + 1]).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
}

/// The object may be of any form: the webhook does not read it.
#[tokio::test]
async fn what_is_larger_than_any_object_is_denied_unread() {
    let padding = "[".repeat(800_000);
    let large = |object: &str| {
        format!(
            r#"{{ "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {{ "uid": "u-1", "name": "big",
                "operation": "CREATE", "namespace": "demo", "object": {object}, "oldObject": null }} }}"#
        )
    };
    for path in ["/default/restorebatches", "/validate/restorebatches"] {
        let (status, answer) = post(path, large(&format!("{{\"spec\": \"{padding}\"}}"))).await;
        let response = &answer["response"];
        assert_eq!((status, &response["allowed"], &response["uid"]), (StatusCode::OK, &json!(false), &json!("u-1")));
        let said = response["status"]["message"].as_str().unwrap();
        assert!(said.contains("RestoreBatch big has 80001"), "{said}");
        // An object that is already too large may still be updated: the operator must be able to remove its finalizer.
        let object = format!("{{\"spec\": \"{padding}\"}}");
        let review = large(&object).replace("\"oldObject\": null", &format!("\"oldObject\": {object}"));
        let (status, answer) = post(path, review.replace("CREATE", "UPDATE")).await;
        assert_eq!((status, &answer["response"]["allowed"]), (StatusCode::OK, &json!(true)));
    }
}

/// Another client of the webhook could forge the author of a request. The webhook does not even read its body.
#[tokio::test]
async fn who_is_not_the_api_server_is_not_listened_to() {
    let body = || Body::from_stream(futures::stream::once(async { panic!("it is read") as std::io::Result<Vec<u8>> }));
    let (known, _) = gate("joe");
    let nobody = Doors { token: PathToken::default(), ..known.clone() };
    for (doors, path) in [
        (&known, "/default/restorebatches".to_owned()),
        (&known, "/default/restorebatches/".to_owned()),
        (&known, "/default/restorebatches/fedcba9876543210".to_owned()),
        (&known, format!("/validate/restorebatches/{}", &TOKEN[1..])),
        (&known, format!("/validate/restorebatches/{TOKEN}/x")),
        (&nobody, "/default/restorebatches/".to_owned()),
        (&nobody, format!("/default/restorebatches/{TOKEN}")),
    ] {
        let request = Request::post(&path).body(body()).unwrap();
        let response = router(doors.clone()).oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::NOT_FOUND, "{path}");
        let said = axum::body::to_bytes(response.into_body(), 1000).await.unwrap();
        assert!(said.is_empty(), "{path}: {said:?}");
    }
}

/// One HTTPS request to the server; the client trusts one CA and expects one name.
async fn https(addr: std::net::SocketAddr, trusted: &Bundle) -> std::io::Result<String> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(rustls::pki_types::CertificateDer::from_pem_slice(trusted.ca_pem.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = tokio::net::TcpStream::connect(addr).await?;
    let name = "lifeboat.backup.svc".try_into().unwrap();
    let mut tls = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
    tls.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await?;
    let mut answer = String::new();
    tls.read_to_string(&mut answer).await?;
    Ok(answer)
}

#[tokio::test]
async fn a_new_certificate_is_used_without_a_restart() {
    let names = ["lifeboat.backup.svc".to_owned()];
    let now = jiff::Timestamp::now();
    let (first, second) = (issue(now, &names).unwrap(), issue(now, &names).unwrap());
    let handle = CertHandle::new();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let server = tokio::spawn(serve_on(listener, handle.clone(), doors(unasked(), None), async move {
        let _ = stopped.await;
    }));

    assert!(https(addr, &first).await.is_err(), "no certificate, no handshake");
    handle.load(&first.cert_pem, &first.key_pem).unwrap();
    assert!(https(addr, &first).await.unwrap().ends_with("ok"));
    handle.load(&second.cert_pem, &second.key_pem).unwrap();
    assert!(https(addr, &second).await.unwrap().ends_with("ok"));
    assert!(https(addr, &first).await.is_err(), "another CA is not trusted");

    // An idle connection does not prevent the server from stopping.
    let idle = tokio::net::TcpStream::connect(addr).await.unwrap();
    stop.send(()).unwrap();
    tokio::time::timeout(Duration::from_secs(3), server).await.unwrap().unwrap().unwrap();
    drop(idle);
}

#[tokio::test]
async fn slow_connections_of_one_pod_keep_nobody_from_the_webhook() {
    let bundle = issue(jiff::Timestamp::now(), &["lifeboat.backup.svc".to_owned()]).unwrap();
    let handle = CertHandle::new();
    handle.load(&bundle.cert_pem, &bundle.key_pem).unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(serve_on(listener, handle, doors(unasked(), None), std::future::pending()));
    let mut slow = vec![];
    for _ in 0..256 {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.66:0".parse().unwrap()).unwrap();
        let mut stream = socket.connect(addr).await.unwrap();
        // The first byte of a TLS record.
        stream.write_all(&[22]).await.unwrap();
        slow.push(stream);
    }
    let answer = tokio::time::timeout(Duration::from_secs(10), https(addr, &bundle)).await.expect("it is answered");
    assert!(answer.unwrap().ends_with("ok"));
    // The server closes these connections.
    let mut said = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(20), slow[0].read_to_end(&mut said)).await;
    assert!(ended.is_ok() && said.len() < 100, "{said:?}");
}

/// A gate that allows only one user, with a key; and the users it was asked about.
fn gate(allowed: &'static str) -> (Doors, Arc<Mutex<Vec<String>>>) {
    let asked = Arc::<Mutex<Vec<String>>>::default();
    let heard = asked.clone();
    let gate = Gate {
        key: Arc::new(|| Box::pin(async { Ok(Key::new([1; 32])) })),
        ask: Arc::new(move |question| {
            heard.lock().unwrap().push(question.username().to_owned());
            let answer = if question.username() == allowed { Ok(()) } else { Err("You may not.".to_owned()) };
            Box::pin(async move { answer })
        }),
        is_open: Arc::new(|namespace| Box::pin(async move { namespace == "open" })),
    };
    (doors(unasked(), Some(gate)), asked)
}

#[tokio::test]
async fn who_may_run_code_gets_a_seal_and_who_may_not_is_refused() {
    let ask = async |user: &str, verb: &str, object: &Value| {
        let (doors, asked) = gate("joe");
        let mut review = review("CREATE", object, &Value::Null);
        review["request"]["userInfo"] = json!({ "username": user });
        let request =
            Request::post(format!("/{verb}/restorebatches/{TOKEN}")).body(Body::from(review.to_string())).unwrap();
        let response = router(doors).oneshot(request).await.unwrap();
        let bytes = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
        let answer: Value = serde_json::from_slice(&bytes).unwrap();
        let asked = asked.lock().unwrap().clone();
        (answer["response"].clone(), asked)
    };
    let seal = "/metadata/annotations/lifeboat.stash.appscode.com~1code-rights";
    let plain = kep();
    let mut hooked = kep();
    hooked["spec"]["members"][0]["runtimeSettings"] =
        json!({ "container": { "lifecycle": { "postStart": { "exec": { "command": ["id"] } } } } });
    for user in ["jane", "joe"] {
        assert_eq!(ask(user, "validate", &plain).await.1, Vec::<String>::new(), "nothing to ask");
    }
    // Joe may run code: one question, and the validating call needs none.
    let (response, asked) = ask("joe", "default", &hooked).await;
    let sealed = patched(&hooked, &response);
    assert!(sealed.pointer(seal).is_some() && asked == ["joe"], "{sealed:#}");
    let (response, asked) = ask("joe", "validate", &sealed).await;
    assert_eq!((&response["allowed"], asked.len()), (&json!(true), 0));
    // Jane may not run code, even with the seal of another object.
    let mut copied = sealed.clone();
    copied["metadata"]["name"] = "other".into();
    let (response, asked) = ask("jane", "default", &copied).await;
    let stored = patched(&copied, &response);
    assert_eq!((stored.pointer(seal), asked), (None, vec!["jane".to_owned()]));
    for object in [&stored, &copied] {
        let (response, _) = ask("jane", "validate", object).await;
        let status = &response["status"];
        assert_eq!((&response["allowed"], &status["code"]), (&json!(false), &json!(403)));
        assert_eq!(status["message"], "You may not.");
    }
    // Fields that are not implemented yet count as well.
    let mut hooks = kep();
    hooks["spec"]["hooks"] = json!({ "preRestore": { "exec": { "command": ["true"] } } });
    assert_eq!(ask("jane", "validate", &hooks).await.0["allowed"], false);
}
