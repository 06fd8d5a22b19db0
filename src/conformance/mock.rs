//! The second system itself: a server of shelves, with faults; and what it is held to.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use clap::Parser;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::acts;
use super::acts::{Fault, Subject};
use crate::agent::Options;
use crate::api::restore_batch::RestoreMember;
use crate::api::restore_session::HostRestoreStats;
use crate::api::target::{MockTarget, RestoreTarget};
use crate::contract::{Found, Part, Work};
use crate::plan::run::selection::Selection;
use crate::plan::systems::mock::Mock;
use crate::plan::systems::system::{Acting, Looking, Open, System};

const TOKEN: &str = "t0ken-that-nobody-sees";
const ITEMS: u64 = 7;

#[derive(Debug, Default)]
struct Shelves {
    /// State and items that are back, by request.
    requests: BTreeMap<String, (String, u64)>,
    /// Requests that were made, one after another.
    made: Vec<String>,
    fault: Option<Fault>,
}

impl Shelves {
    /// The answer to a line; none where it gets lost.
    fn answer(&mut self, line: &str) -> Option<String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [token, shelf, verb, rest @ ..] = words.as_slice() else { return Some("bad".into()) };
        if *token != TOKEN {
            return Some("denied".into());
        }
        let request = rest.first().copied().unwrap_or_default().to_owned();
        match *verb {
            _ if *shelf != "a" => Some("none".into()),
            "count" => Some(format!("ok e1 {ITEMS}")),
            "find" => Some(self.requests.get(&request).map_or("ok unknown".into(), |(s, n)| format!("ok {s} {n} 0"))),
            "cancel" => {
                self.requests.insert(request, ("canceled".into(), 0));
                Some("ok".into())
            }
            "restore" => {
                let fault = self.fault.take();
                let (state, items) = match fault {
                    Some(Fault::DoesLess) => ("done", ITEMS - 1),
                    Some(Fault::Fails) => ("failed", 0),
                    Some(Fault::NeverEnds) => ("running", 2),
                    Some(Fault::LosesReply) | None => ("done", ITEMS),
                };
                self.made.push(request.clone());
                self.requests.insert(request, (state.into(), items));
                (fault != Some(Fault::LosesReply)).then(|| "ok".into())
            }
            _ => Some("bad".into()),
        }
    }
}

/// A shelf, and its server.
struct Shelf {
    endpoint: String,
    shelves: Arc<Mutex<Shelves>>,
    secrets: tempfile::TempDir,
}

async fn serve(shelves: Arc<Mutex<Shelves>>, stream: TcpStream) {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    if stream.read_line(&mut line).await.is_ok() {
        let answer = shelves.lock().unwrap().answer(&line);
        if let Some(answer) = answer {
            let _ = stream.write_all(format!("{answer}\n").as_bytes()).await;
        }
    }
}

impl Shelf {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = listener.local_addr().unwrap().to_string();
        let shelves = Arc::<Mutex<Shelves>>::default();
        let of_server = Arc::clone(&shelves);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(Arc::clone(&of_server), stream));
            }
        });
        let secrets = tempfile::tempdir().unwrap();
        std::fs::write(secrets.path().join("token"), TOKEN).unwrap();
        Self { endpoint, shelves, secrets }
    }
}

/// Options of an agent with this folder of secrets.
pub fn options(secrets: &Path, more: &[&str]) -> Options {
    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }
    let words = ["agent", "--secret-dir", secrets.to_str().unwrap()];
    Line::parse_from(words.iter().chain(more)).options
}

impl Subject for Shelf {
    fn system(&self) -> &'static dyn System {
        &Mock
    }

    fn target(&self) -> RestoreTarget {
        let mock = MockTarget { endpoint: self.endpoint.clone(), shelf: "a".into(), secret: "s".into() };
        RestoreTarget { mock: Some(mock), ..RestoreTarget::default() }
    }

    fn look(&self) -> Work {
        let (selection, target) = (Selection::default(), self.target());
        let began = k8s_openapi::jiff::Timestamp::UNIX_EPOCH;
        let about = Looking { access: None, selection: &selection, began, members: &[], parts: vec![] };
        let part = Part { member: 0, name: "host-0".into() };
        let open = Open { part, target: &target, rule: None, mounts: vec![], runner: None, no_devices: false };
        self.system().look(vec![open], &about).remove(0).1
    }

    fn act(&self, found: &Found, may_have_acted: bool) -> Work {
        let (target, member) = (self.target(), RestoreMember::default());
        let mut host = HostRestoreStats { hostname: "host-0".into(), ..HostRestoreStats::default() };
        self.system().pin(&mut host, found, None).unwrap();
        let (host, member, target) = (&host, &member, &target);
        let acting = Acting {
            run: "run-1",
            access: None,
            host,
            member,
            target,
            seen: None,
            namespace: "demo",
            rule: None,
            mounts: vec![],
            may_have_acted,
        };
        self.system().act(acting).unwrap()
    }

    fn options(&self) -> Options {
        options(self.secrets.path(), &[])
    }

    fn state(&self) -> String {
        format!("{:?}", self.shelves.lock().unwrap())
    }

    fn is_restored(&self) -> bool {
        self.shelves.lock().unwrap().requests.values().any(|(state, n)| state == "done" && *n == ITEMS)
    }

    fn times(&self) -> Option<usize> {
        Some(self.shelves.lock().unwrap().made.len())
    }

    fn break_with(&mut self, fault: Fault) -> bool {
        self.shelves.lock().unwrap().fault = Some(fault);
        true
    }

    fn secrets(&self) -> Vec<String> {
        vec![TOKEN.into()]
    }
}

#[tokio::test]
async fn it_looks_without_writing() {
    acts::looks_without_writing(Shelf::start().await).await;
}

#[tokio::test]
async fn it_restores_and_counts() {
    acts::restores_and_counts(Shelf::start().await).await;
}

#[tokio::test]
async fn it_believes_tallies_only() {
    acts::believes_tallies_only(Shelf::start().await).await;
}

#[tokio::test]
async fn it_does_nothing_twice() {
    acts::does_nothing_twice(Shelf::start().await).await;
}

#[tokio::test]
async fn it_stops_when_told() {
    acts::stops_when_told(Shelf::start().await).await;
}
