//! What owners of Repositories allow, for the webhook: every replica answers, including replicas that watch nothing.
//!
//! Best effort. If the API server does not answer soon, the controller judges
//! before anything runs, with the same function and the same message. A Repository
//! that does not exist gets the same message as a Repository that may not be used,
//! so that a user cannot tell which of the two it is.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, Client};
use tracing::debug;

use crate::admission::{Elsewhere, Owners};
use crate::api::Repository;
use crate::controller::cache::scope::Scope;
use crate::plan::repository::usage_policy;
use crate::plan::repository::usage_policy::Verdict;
use crate::plan::seen::Seen;

/// Deadline for all reads of one question: less than the two seconds that the API server waits for the webhook (the
/// chart's `webhook.timeoutSeconds`), after which it would admit objects without a check.
const PATIENCE: Duration = Duration::from_millis(1500);

/// Answers by reading from the cluster.
pub fn owners(client: Client, scope: Scope) -> Owners {
    Arc::new(move |asked| {
        let (client, outside) = (client.clone(), scope.outside(&asked.home));
        Box::pin(async move {
            if let Some(why) = outside {
                return Some(format!("Repository {}/{} could not be read: {why}", asked.home, asked.name));
            }
            match tokio::time::timeout(PATIENCE, refusal(&client, &asked)).await {
                Ok(Ok(refusal)) => refusal,
                Ok(Err(error)) => unknown(&asked, &error.to_string()),
                Err(_) => unknown(&asked, "the API server does not answer in time"),
            }
        })
    })
}

fn unknown(asked: &Elsewhere, error: &str) -> Option<String> {
    debug!(?asked, error, "the usagePolicy of a Repository could not be read; the controller checks it again");
    None
}

async fn refusal(client: &Client, asked: &Elsewhere) -> kube::Result<Option<String>> {
    let Elsewhere { home, name, namespace } = asked;
    let denial = || Some(usage_policy::denial(&format!("{home}/{name}"), namespace));
    // No message would reveal that the Repository does not exist.
    let Some(found) = Api::<Repository>::namespaced(client.clone(), home).get_opt(name).await? else {
        return Ok(denial());
    };
    let policy = found.spec.usage_policy.as_ref();
    let labels = if usage_policy::asks_for_labels(policy, home, namespace) {
        let found = Api::<Namespace>::all(client.clone()).get_metadata_opt(namespace).await?;
        found.map_or(Seen::Missing, |n| Seen::Found(n.metadata.labels.unwrap_or_default()))
    } else {
        Seen::Missing
    };
    Ok(match usage_policy::verdict(policy, home, namespace, &labels) {
        Verdict::Denied(_) => denial(),
        Verdict::Allowed | Verdict::Unknown(_) => None,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::time::Instant;

    use axum::body::Body;
    use axum::http::{Request, Response};
    use serde_json::{Value, json};

    use super::*;

    /// The answer to a read.
    #[derive(Clone, Debug)]
    enum Answer {
        Silence,
        Says(u16, Value),
    }
    use Answer::{Says, Silence};

    /// The message about a Repository, and the paths that were read.
    async fn ask(repository: Answer, namespace: Answer) -> (Option<String>, Vec<String>) {
        let paths = Arc::<Mutex<Vec<String>>>::default();
        let read = paths.clone();
        let service = tower::service_fn(move |request: Request<kube::client::Body>| {
            let path = request.uri().path().to_owned();
            let answer = if path.contains("/repositories/") { repository.clone() } else { namespace.clone() };
            read.lock().unwrap().push(path);
            async move {
                let Says(code, body) = answer else { return std::future::pending().await };
                let body = Body::from(body.to_string());
                Ok::<_, std::convert::Infallible>(Response::builder().status(code).body(body).unwrap())
            }
        });
        let owners = owners(Client::new(service, "default"), Scope::default());
        let asked = Elsewhere { home: "store".into(), name: "r".into(), namespace: "demo".into() };
        let said = owners(asked).await;
        let paths = paths.lock().unwrap().clone();
        (said, paths)
    }

    fn repository(allowed: Value) -> Answer {
        let spec = json!({ "usagePolicy": { "allowedNamespaces": allowed } });
        let meta = json!({ "name": "r", "namespace": "store" });
        Says(
            200,
            json!({ "apiVersion": "stash.appscode.com/v1alpha1", "kind": "Repository", "metadata": meta, "spec": spec }),
        )
    }

    fn namespace(labels: Value) -> Answer {
        let meta = json!({ "name": "demo", "labels": labels });
        Says(200, json!({ "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": meta }))
    }

    fn refused(code: u16) -> Answer {
        let reason = if code == 404 { "NotFound" } else { "X" };
        Says(code, json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason }))
    }

    const REPOSITORY: &str = "/apis/stash.appscode.com/v1alpha1/namespaces/store/repositories/r";
    const NAMESPACE: &str = "/api/v1/namespaces/demo";

    #[tokio::test]
    async fn the_namespace_is_read_only_where_the_policy_asks_for_its_labels() {
        let (said, read) = ask(repository(json!({ "from": "Same" })), Silence).await;
        let denial = Some(usage_policy::denial("store/r", "demo"));
        assert_eq!(said, denial);
        assert_eq!(read, [REPOSITORY]);
        assert_eq!(ask(repository(json!({ "from": "All" })), Silence).await, (None, vec![REPOSITORY.to_owned()]));
        let (said, read) = ask(by_label(), namespace(json!({ "team": "b" }))).await;
        assert_eq!(said, denial);
        assert_eq!(read, [REPOSITORY, NAMESPACE]);
        assert_eq!(ask(by_label(), namespace(json!({ "team": "a" }))).await.0, None);
        assert_eq!(ask(by_label(), namespace(json!(null))).await.0, denial, "no labels at all");
    }

    fn by_label() -> Answer {
        repository(json!({ "from": "Selector", "selector": { "matchLabels": { "team": "a" } } }))
    }

    #[tokio::test]
    async fn what_is_not_there_is_spoken_of_as_what_may_not_be_used() {
        let (missing, _) = ask(refused(404), Silence).await;
        let (denied, _) = ask(repository(json!({ "from": "Same" })), Silence).await;
        let (other, _) = ask(by_label(), namespace(json!({ "team": "b" }))).await;
        assert!(missing.is_some() && missing == denied && denied == other, "{missing:?} {denied:?} {other:?}");
        assert!(!missing.unwrap_or_default().contains("team"));
    }

    #[tokio::test]
    async fn of_what_is_not_known_nothing_is_said() {
        for answer in [refused(403), refused(500), Says(200, json!("?"))] {
            assert_eq!(ask(answer.clone(), Silence).await.0, None, "{answer:?}");
            assert_eq!(ask(by_label(), answer.clone()).await.0, None, "{answer:?}");
        }
        assert_eq!(ask(by_label(), refused(404)).await.0, None);
    }

    #[tokio::test]
    async fn a_namespace_that_is_not_watched_is_not_asked_about_and_that_is_said() {
        let nobody = tower::service_fn(|request: Request<kube::client::Body>| async move {
            Err::<Response<Body>, _>(std::io::Error::other(request.uri().to_string()))
        });
        let owners = owners(Client::new(nobody, "default"), Scope::new(vec!["demo".into()]));
        let asked = Elsewhere { home: "store".into(), name: "r".into(), namespace: "demo".into() };
        let said = owners(asked).await.unwrap();
        assert!(said.contains("Repository store/r could not be read: namespace store is not among"), "{said}");
    }

    #[tokio::test]
    async fn of_what_is_not_known_soon_nothing_is_said() {
        let before = Instant::now();
        let said = tokio::join!(ask(Silence, Silence), ask(by_label(), Silence));
        assert_eq!((said.0.0, said.1.0), (None, None));
        assert!((PATIENCE..PATIENCE * 2).contains(&before.elapsed()), "{:?}", before.elapsed());
    }
}
