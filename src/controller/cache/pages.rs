//! Lists from the API server, read page by page with limited memory.
//!
//! Users fill most kinds that the operator lists, with objects of up to 1.5 MB each (etcd's limit), and after a start a
//! dozen kinds are listed at once. Therefore pages are read in turn, and a page that becomes too long is not read to
//! its end: it is requested again with fewer objects. The caller gets the same objects, in other pages.

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::body::Bytes;
use hyper::{Request, Response, Uri, http};
use kube::api::ListParams;
use kube::client::Body;
use kube::core::{ListMeta, NamespaceResourceScope};
use kube::{Api, Client, Resource};
use tokio::sync::Semaphore;

use crate::plan::seen::compact::{Keep, Kept};

/// Objects in one page, if it is not too long.
pub const PAGE: u32 = 250;
/// Most bytes of a page that is read, unless it is one object.
const PAGE_BYTES: usize = 4 * 1024 * 1024;
/// Pages that are read at once.
const AT_ONCE: usize = 2;
/// Longest time in which a page is requested and read. Other pages wait for their turn meanwhile.
const PAGE_TIME: Duration = Duration::from_secs(30);
/// Maximum number of lists whose pages are known to be long. Beyond it, all are learned again.
const MOST_LEARNED: usize = 100;

/// A page was not received in time.
#[derive(Debug, thiserror::Error)]
#[error("the API server did not return a page of a list within {0:?}")]
struct TooSlow(Duration);

/// State that all lists share.
struct Pages {
    inner: Client,
    time: Duration,
    turns: Semaphore,
    /// Objects in a page, of lists whose objects are large, by path.
    learned: Mutex<HashMap<String, u32>>,
}

/// The client, with bounded paged lists. All other requests, including watches, pass through unchanged.
pub fn bounded(client: &Client) -> Client {
    within(client, PAGE_TIME)
}

fn within(client: &Client, time: Duration) -> Client {
    let (inner, namespace) = (client.clone(), client.default_namespace().to_owned());
    let pages = Arc::new(Pages { inner, time, turns: Semaphore::new(AT_ONCE), learned: Mutex::default() });
    let send = move |request: Request<Body>| {
        let pages = pages.clone();
        async move {
            match limit_of(request.uri()) {
                Some(limit) => pages.list(request, limit).await,
                None => pages.inner.send(request).await,
            }
        }
    };
    Client::new(tower::service_fn(send), namespace)
}

/// Objects that a namespace has at this moment, in the form that the watches keep: a large object is reduced before
/// the next object is read.
///
/// # Errors
/// The request to the API server failed or was refused.
pub async fn all<K>(client: Client, namespace: &str, params: &ListParams) -> kube::Result<Vec<K>>
where
    K: Keep + Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Debug,
{
    let api = Api::<Kept<K>>::namespaced(client, namespace);
    let (mut next, mut all) = (Some(params.clone().limit(PAGE)), vec![]);
    while let Some(page) = next {
        let answer = api.list(&page).await?;
        all.extend(answer.items.iter().map(Kept::open));
        next = after(page, &answer.metadata);
    }
    Ok(all)
}

/// The page after a page with this answer; `None` after the last page.
pub fn after(page: ListParams, answered: &ListMeta) -> Option<ListParams> {
    answered.continue_.as_ref().filter(|token| !token.is_empty()).map(|token| page.continue_token(token))
}

impl Pages {
    async fn list(&self, request: Request<Body>, asked: u32) -> kube::Result<Response<Body>> {
        let _turn = self.turns.acquire().await;
        let (head, _) = request.into_parts();
        let path = head.uri.path().to_owned();
        let list = path.clone();
        let mut limit = self.learn(|known| known.get(&path).map_or(asked, |known| asked.min(*known)));
        let read = async {
            loop {
                let mut again = Request::new(Body::empty());
                *again.method_mut() = head.method.clone();
                *again.headers_mut() = head.headers.clone();
                *again.uri_mut() = with_limit(&head.uri, limit).map_err(kube::Error::HttpError)?;
                let (answer, body) = self.inner.send(again).await?.into_parts();
                let most = if limit > 1 { PAGE_BYTES } else { usize::MAX };
                if let Some(page) = collect(body, most).await? {
                    // Objects that come next may be smaller.
                    let next = if page.len() < PAGE_BYTES / 4 { limit.saturating_mul(2) } else { limit };
                    self.note(path, next, asked);
                    return Ok(Response::from_parts(answer, Body::from(page)));
                }
                limit = (limit / 4).max(1);
                // Recorded here too, because there may be no time left for the next try.
                self.note(path.clone(), limit, asked);
            }
        };
        let read = tokio::time::timeout(self.time, read).await;
        read.unwrap_or_else(|_| {
            // The API server may need the time for the size of the page.
            let tried = self.learn(|known| known.get(&list).map_or(asked, |known| asked.min(*known)));
            self.note(list, (tried / 4).max(1), asked);
            Err(kube::Error::Service(TooSlow(self.time).into()))
        })
    }

    fn note(&self, path: String, limit: u32, asked: u32) {
        self.learn(|known| {
            if limit >= asked {
                known.remove(&path);
                return;
            }
            if known.len() >= MOST_LEARNED {
                known.clear();
            }
            known.insert(path, limit);
        });
    }

    fn learn<T>(&self, act: impl FnOnce(&mut HashMap<String, u32>) -> T) -> T {
        act(&mut self.learned.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Maximum number of objects that a request asks for; `None` for a request that is no paged list.
fn limit_of(uri: &Uri) -> Option<u32> {
    uri.query()?.split('&').find_map(|pair| pair.strip_prefix("limit=")?.parse().ok())
}

fn with_limit(uri: &Uri, limit: u32) -> Result<Uri, http::Error> {
    let pairs = uri.query().unwrap_or_default().split('&');
    let query: Vec<String> =
        pairs.map(|pair| if pair.starts_with("limit=") { format!("limit={limit}") } else { pair.to_owned() }).collect();
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(format!("{}?{}", uri.path(), query.join("&")).parse()?);
    Ok(Uri::from_parts(parts)?)
}

/// A body, if it has no more than `most` bytes.
async fn collect(mut body: Body, most: usize) -> kube::Result<Option<Bytes>> {
    let mut all = vec![];
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        if all.len() + data.len() > most {
            return Ok(None);
        }
        all.extend_from_slice(&data);
    }
    Ok(Some(all.into()))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;
    use serde_json::{Value, json};

    use super::*;

    type Asked = Arc<Mutex<Vec<u32>>>;

    /// An API server with ConfigMaps of these sizes, and the limits that it was asked for.
    fn server(sizes: Vec<usize>) -> (Client, Asked) {
        let asked = Asked::default();
        let heard = asked.clone();
        let answer = move |request: Request<Body>| {
            let limit = limit_of(request.uri()).expect("a list by pages");
            heard.lock().unwrap().push(limit);
            let from: usize = request
                .uri()
                .query()
                .unwrap()
                .split('&')
                .find_map(|p| p.strip_prefix("continue="))
                .map_or(0, |c| c.parse().unwrap());
            let to = (from + limit as usize).min(sizes.len());
            let items: Vec<Value> = (from..to)
                .map(|i| json!({ "metadata": { "name": format!("c{i}") }, "data": { "d": "x".repeat(sizes[i]) } }))
                .collect();
            let token = if to < sizes.len() { to.to_string() } else { String::new() };
            let list = json!({ "apiVersion": "v1", "kind": "ConfigMapList", "metadata": { "continue": token }, "items": items });
            async move { Ok::<_, kube::Error>(Response::new(Body::from(list.to_string().into_bytes()))) }
        };
        (bounded(&Client::new(tower::service_fn(answer), "n")), asked)
    }

    /// An API server that answers with this text, but does not answer some limits in time.
    fn slow(is_late: fn(u32) -> bool, text: Vec<u8>) -> (Client, Asked) {
        let asked = Asked::default();
        let heard = asked.clone();
        let answer = move |request: Request<Body>| {
            let limit = limit_of(request.uri()).expect("a list by pages");
            heard.lock().unwrap().push(limit);
            let text = text.clone();
            async move {
                if is_late(limit) {
                    std::future::pending::<()>().await;
                }
                Ok::<_, kube::Error>(Response::new(Body::from(text)))
            }
        };
        (within(&Client::new(tower::service_fn(answer), "n"), Duration::from_millis(50)), asked)
    }

    async fn all(client: Client) -> Vec<String> {
        let api = Api::<ConfigMap>::namespaced(client, "n");
        let (mut next, mut names) = (Some(ListParams::default().limit(100)), vec![]);
        while let Some(page) = next {
            let answer = api.list(&page).await.unwrap();
            names.extend(answer.items.into_iter().filter_map(|c| c.metadata.name));
            next = after(page, &answer.metadata);
        }
        names
    }

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|i| format!("c{i}")).collect()
    }

    #[tokio::test]
    async fn pages_of_small_objects_are_as_asked_for() {
        let (client, asked) = server(vec![10; 250]);
        assert_eq!(all(client).await, names(250));
        assert_eq!(*asked.lock().unwrap(), [100, 100, 100]);
    }

    #[tokio::test]
    async fn a_page_that_is_too_long_comes_in_pieces_and_nothing_is_left_out() {
        let mut sizes = vec![10; 100];
        sizes.extend(vec![1_000_000; 12]);
        sizes.push(PAGE_BYTES + 1);
        sizes.extend(vec![10; 500]);
        let count = sizes.len();
        let (client, asked) = server(sizes);
        assert_eq!(all(client.clone()).await, names(count));
        let asked = std::mem::take(&mut *asked.lock().unwrap());
        // 100 small objects; the limit for the next ones is learned once; the last small objects come in growing pages.
        assert_eq!(asked[..4], [100, 100, 25, 6], "{asked:?}");
        assert!(asked.len() < 30 && asked.contains(&1) && asked.last() > Some(&50), "{asked:?}");
    }

    /// Otherwise each list would begin with a page that is too long, and would never end.
    #[tokio::test]
    async fn a_page_that_was_too_long_is_remembered_where_there_was_no_time_for_the_next() {
        let (client, asked) = slow(|limit| limit < 100, vec![b' '; PAGE_BYTES + 1]);
        let api = Api::<ConfigMap>::namespaced(client, "n");
        for _ in 0..2 {
            assert!(api.list(&ListParams::default().limit(100)).await.is_err());
        }
        assert_eq!(*asked.lock().unwrap(), [100, 25, 6]);
    }

    /// The API server may need longer to build a page than the operator waits.
    #[tokio::test]
    async fn a_page_that_does_not_come_in_time_is_smaller_the_next_time() {
        let (client, asked) = slow(|limit| limit > 10, br#"{"metadata":{},"items":[]}"#.to_vec());
        let api = Api::<ConfigMap>::namespaced(client, "n");
        let page = ListParams::default().limit(100);
        assert!(api.list(&page).await.is_err());
        assert!(api.list(&page).await.is_err());
        api.list(&page).await.unwrap();
        assert_eq!(*asked.lock().unwrap(), [100, 25, 6]);
    }

    #[tokio::test]
    async fn who_waits_for_a_page_keeps_watches_and_writes_from_nothing() {
        let stuck = |request: Request<Body>| async move {
            if limit_of(request.uri()).is_some() {
                std::future::pending::<()>().await;
            }
            Ok::<_, kube::Error>(Response::new(Body::from(b"{}".to_vec())))
        };
        let client = within(&Client::new(tower::service_fn(stuck), "n"), Duration::from_millis(50));
        let api = Api::<ConfigMap>::namespaced(client, "n");
        let page = ListParams::default().limit(1);
        let lists = futures::future::join_all((0..=AT_ONCE).map(|_| api.list(&page)));
        let (lists, got) = futures::join!(lists, api.get("c"));
        assert!(got.is_ok());
        assert!(lists.iter().all(|l| l.as_ref().is_err_and(|e| e.to_string().contains("50ms"))), "{lists:?}");
    }
}
