use std::sync::Mutex;

use axum::body::Body;
use axum::http::{Request, Response};
use kube::client::Body as KubeBody;
use serde_json::json;

use crate::api::to_json;
use crate::controller::observe::code_rights::judge;
use crate::controller::process::code_rights::*;

/// Permissions: "verb resource name".
type Rules = &'static [&'static str];

/// An API server that answers SubjectAccessReviews by rules (with `None`, never), and the reviews that it got.
fn server(rules: Option<Rules>) -> (Client, Arc<Mutex<Vec<String>>>) {
    let asked = Arc::<Mutex<Vec<String>>>::default();
    let heard = asked.clone();
    let service = tower::service_fn(move |request: Request<KubeBody>| {
        let heard = heard.clone();
        async move {
            let Some(rules) = rules else { return std::future::pending().await };
            let path = request.uri().path().to_owned();
            let bytes = request.into_body().collect_bytes().await.unwrap();
            let mut review: Value = serde_json::from_slice(&bytes).unwrap_or_default();
            if path.contains("/secrets") {
                let key = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, [9; KEY]);
                let secret = json!({ "apiVersion": "v1", "kind": "Secret", "data": { "key": key },
                    "metadata": { "name": SECRET.0 } });
                return Ok::<_, std::convert::Infallible>(Response::new(Body::from(secret.to_string())));
            }
            let of = |field: &str| review["spec"]["resourceAttributes"][field].as_str().unwrap_or_default().to_owned();
            assert_eq!((review["spec"]["user"].as_str(), of("namespace").as_str()), (Some("jane"), "demo"));
            assert_eq!(review["spec"]["groups"], json!(["dev"]));
            assert_eq!(review["spec"]["extra"], json!({ "scope": ["a"] }));
            let what = format!("{} {} {}", of("verb"), of("resource"), of("name")).trim().to_owned();
            review["status"] = json!({ "allowed": rules.contains(&what.as_str()) });
            heard.lock().unwrap().push(what);
            Ok(Response::new(Body::from(review.to_string())))
        }
    });
    (Client::new(service, "default"), asked)
}

fn vouching(client: Client, policy: Policy) -> Arc<Vouching> {
    Vouching::new(client, "lifeboat-system".into(), policy)
}

fn on() -> Policy {
    Policy { enabled: true, groups: vec!["ci".into()], webhook: true }
}

fn question(rights: &[Right]) -> Question {
    let asks = rights.iter().map(|right| Ask {
        field: format!("spec.{right:?}"),
        right: right.clone(),
        value: json!(1),
        at_admission_only: false,
    });
    Question {
        user: json!({ "username": "jane", "groups": ["dev"], "extra": { "scope": ["a"] } }),
        namespace: "demo".into(),
        asks: asks.collect(),
    }
}

async fn ask(rules: Rules, rights: &[Right]) -> (Result<(), String>, Vec<String>) {
    let (client, asked) = server(Some(rules));
    let gate = vouching(client, on()).gate().unwrap();
    let answer = (gate.ask)(question(rights)).await;
    let asked = asked.lock().unwrap().clone();
    (answer, asked)
}

fn secret(name: &str) -> Right {
    Right::Secret(name.into())
}

#[tokio::test]
async fn who_may_create_pods_may_all_of_it() {
    let all = [Right::Pods, secret("s"), Right::Claims, Right::ConfigMap("c".into())];
    assert_eq!(ask(&["create pods"], &all).await, (Ok(()), vec!["create pods".to_owned()]));
    let (answer, asked) = ask(&["get secrets s"], &all).await;
    assert_eq!(asked, ["create pods"], "one that is lost needs no further question");
    let text = answer.unwrap_err();
    assert!(["spec.Pods", "create Pods", "namespace demo", "\"jane\""].iter().all(|w| text.contains(w)), "{text}");
}

#[tokio::test]
async fn who_may_not_is_asked_about_each_right_once() {
    let rights = [secret("s"), secret("s"), Right::Claims, secret("t")];
    let (answer, asked) = ask(&["get secrets s", "create persistentvolumeclaims"], &rights).await;
    assert_eq!(asked, ["create pods", "create persistentvolumeclaims", "get secrets s", "get secrets t"]);
    let text = answer.unwrap_err();
    assert!(text.starts_with("spec.Secret(\"t\"): reads Secret \"t\"") && !text.contains("\"s\""), "{text}");
    assert_eq!(ask(&["get secrets s"], &[secret("s")]).await.0, Ok(()));
    let many: Vec<Right> = (0..=QUESTIONS).map(|i| secret(&i.to_string())).collect();
    let (answer, asked) = ask(&[], &many).await;
    assert!(answer.is_err() && asked == ["create pods"], "{asked:?}");
}

#[tokio::test]
async fn a_named_group_is_not_asked_about_and_silence_is_a_no() {
    let (client, asked) = server(None);
    let gate = vouching(client, on()).gate().unwrap();
    let mut of_ci = question(&[Right::Pods]);
    of_ci.user["groups"] = json!(["dev", "ci"]);
    assert_eq!((gate.ask)(of_ci).await, Ok(()));
    let text = (gate.ask)(question(&[Right::Pods])).await.unwrap_err();
    assert!(text.contains("could not be checked") && text.contains("Try again"), "{text}");
    assert!(asked.lock().unwrap().is_empty());
    let (client, _) = server(None);
    assert!(vouching(client, Policy { enabled: false, ..on() }).gate().is_none());
}

#[tokio::test]
async fn the_controller_wants_a_seal_or_an_open_namespace() {
    let session = |namespace: &str| -> crate::api::RestoreSession {
        serde_json::from_value(json!({ "apiVersion": "stash.appscode.com/v1beta1", "kind": "RestoreSession",
            "metadata": { "name": "a", "namespace": namespace },
            "spec": { "runtimeSettings": { "pod": { "nodeName": "n" } } } }))
        .unwrap()
    };
    let refusal = async |policy: Policy, object: &crate::api::RestoreSession| {
        let (client, _) = server(Some(&[]));
        let is_open = object.namespace().as_deref() == Some("open");
        let labels = is_open.then(|| (label::ALLOW_CODE.to_owned(), "true".to_owned()));
        let labels = async { Ok(labels.into_iter().collect()) };
        judge(vouching(client, policy).seals().as_deref(), object, labels).await.unwrap()
    };
    let without = || Policy { webhook: false, ..on() };
    let late = session("demo");
    assert!(refusal(on(), &late).await.unwrap().message.contains("the webhook did not check its author"));
    assert!(refusal(without(), &late).await.unwrap().message.contains("without the webhook"));
    assert_eq!(refusal(Policy { enabled: false, ..on() }, &late).await, None);
    for policy in [on(), without()] {
        assert_eq!(refusal(policy, &session("open")).await, None);
    }
    let mut plain = late.clone();
    plain.spec.runtime_settings = None;
    assert_eq!(refusal(without(), &plain).await, None);
    let mut sealed = late;
    let json = to_json(&sealed);
    let asks = crate::plan::work::rights::asked("RestoreSession", &json);
    let seal = Key::new([9; KEY]).seal("RestoreSession", "demo", &json, &asks);
    sealed.metadata.annotations = Some([(crate::names::annotation::SEAL.to_owned(), seal)].into());
    assert_eq!(refusal(on(), &sealed).await, None);
    assert!(refusal(without(), &sealed).await.is_some());

    // A session whose name the API server generated, in its cached form.
    let mut generated = session("demo");
    (generated.metadata.name, generated.metadata.generate_name) = (None, Some("a-".into()));
    let seal = Key::new([9; KEY]).seal("RestoreSession", "demo", &to_json(&generated), &asks);
    generated.metadata.name = Some("a-x7k2p".into());
    generated.metadata.annotations = Some([(crate::names::annotation::SEAL.to_owned(), seal)].into());
    let kept = crate::controller::cache::stored::Stored::from(generated).open();
    assert_eq!(refusal(on(), &kept).await, None);
}
