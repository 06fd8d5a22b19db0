//! The operator's requests to the API server, from the API server's own audit log.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Seek as _, SeekFrom};
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

/// Requests by verb and resource; a watch counts when it is opened.
#[derive(Clone, Debug, Default)]
pub struct Requests(pub BTreeMap<(String, String), usize>);

impl Requests {
    /// All requests.
    pub fn total(&self) -> usize {
        self.0.values().sum()
    }

    /// Requests with these verbs.
    pub fn of(&self, verbs: &[&str]) -> usize {
        self.0.iter().filter(|((verb, _), _)| verbs.contains(&verb.as_str())).map(|(_, n)| n).sum()
    }

    /// Creates, patches, updates and deletes.
    pub fn writes(&self) -> usize {
        self.of(&["create", "patch", "update", "delete", "deletecollection"])
    }
}

/// The audit log, from a mark on.
pub struct Audit {
    path: PathBuf,
    mark: u64,
}

impl Audit {
    /// The audit log from now on.
    pub fn from_now() -> Self {
        let state = std::env::var("LIFEBOAT_CLUSTER_STATE").expect("make bench starts the cluster");
        let path = PathBuf::from(state).join("logs/audit.log");
        let mark = path.metadata().unwrap().len();
        Self { path, mark }
    }

    /// The operator's requests about a namespace since the mark, or about all namespaces; its Lease is left out.
    pub async fn requests(&self, namespace: Option<&str>) -> Requests {
        // The API server writes the log in batches.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let mut file = File::open(&self.path).unwrap();
        file.seek(SeekFrom::Start(self.mark)).unwrap();
        let mut all = Requests::default();
        for line in BufReader::new(file).lines().map_while(Result::ok) {
            let Ok(entry) = serde_json::from_str::<Value>(&line) else { continue };
            let text = |p: &str| entry.pointer(p).and_then(Value::as_str).unwrap_or_default();
            let resource = [text("/objectRef/resource"), text("/objectRef/subresource")].join("/");
            let resource = resource.trim_end_matches('/').to_owned();
            if !text("/userAgent").starts_with("lifeboat/") || resource == "leases" {
                continue;
            }
            if namespace.is_some_and(|n| n != text("/objectRef/namespace")) {
                continue;
            }
            // The end of a watch is logged as well as its beginning.
            if text("/stage") != "ResponseComplete" && text("/verb") != "watch" {
                continue;
            }
            if text("/verb") == "watch" && text("/stage") != "ResponseStarted" {
                continue;
            }
            *all.0.entry((text("/verb").to_owned(), resource)).or_default() += 1;
        }
        all
    }
}
