//! The driver of a second system, which exists in tests only: a request is one line, and so is the response.

use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

use crate::contract::mock::{Act, ITEMS, Pin, Work};
use crate::contract::{Answer, Class, Did, Failure, Found, Progress, Tallies, Tally, Task};
use crate::drivers::control::Control;
use crate::drivers::done::Done;
use crate::names::reason;

/// Interval at which the driver queries the state of a running request.
const LOOK: Duration = Duration::from_millis(20);

/// Queries a shelf, or requests that its items are restored.
pub async fn act(task: &Task, work: &Work, secret_dir: &Path, control: Control) -> Done {
    let token = std::fs::read_to_string(secret_dir.join("token")).unwrap_or_default();
    let server = Server { work, token: token.trim() };
    match &work.act {
        None => server.look(task).await.map_or_else(Done::failed, Done::ok),
        Some(act) => server.put_back(act, control).await,
    }
}

struct Server<'a> {
    work: &'a Work,
    token: &'a str,
}

fn away(why: impl std::fmt::Display) -> Failure {
    Failure::new(Class::Transient, reason::REPOSITORY_UNREACHABLE, format!("The system does not answer: {why}."))
}

impl Server<'_> {
    async fn ask(&self, words: &str) -> Result<Vec<String>, Failure> {
        let answer = async {
            let mut stream = TcpStream::connect(&self.work.endpoint).await?;
            stream.write_all(format!("{} {} {words}\n", self.token, self.work.shelf).as_bytes()).await?;
            let mut line = String::new();
            BufReader::new(stream).read_line(&mut line).await?;
            Ok::<_, std::io::Error>(line)
        };
        let line = answer.await.map_err(away)?;
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        match words.first().map(String::as_str) {
            Some("ok") => Ok(words[1..].to_vec()),
            Some("denied") => Err(Failure::new(Class::Invalid, reason::ACCESS_DENIED, "The system denies the token.")),
            Some("none") => Err(Failure::new(Class::Data, reason::NOTHING_TO_RESTORE, "There is no such shelf.")),
            _ => Err(away("the connection ended without an answer")),
        }
    }

    async fn look(&self, task: &Task) -> Result<Answer, Failure> {
        let part = task.parts.first().cloned().unwrap_or_default();
        let found = match self.ask("count").await {
            Ok(words) => {
                let (edition, items) = (words.first().cloned().unwrap_or_default(), number(words.get(1)));
                let pin = serde_json::to_value(Pin { edition }).ok();
                Found { part, pin, planned: Tallies::default().with(ITEMS, Tally::planned(items)), ..Found::default() }
            }
            Err(failure) if failure.class == Class::Transient => return Err(failure),
            Err(failure) => Found { part, failure: Some(failure), ..Found::default() },
        };
        Ok(Answer::Found(vec![found]))
    }

    /// The state of the request; `None` if the system does not know the request.
    async fn find(&self, act: &Act) -> Result<Option<(String, Tally)>, Failure> {
        let words = self.ask(&format!("find {}", act.request)).await?;
        let state = words.first().cloned().unwrap_or_default();
        let tally = Tally { total: act.items, done: number(words.get(1)), failed: number(words.get(2)), skipped: 0 };
        Ok((state != "unknown").then_some((state, tally)))
    }

    async fn put_back(&self, act: &Act, mut control: Control) -> Done {
        let mut known = match if act.look_up { self.find(act).await } else { Ok(None) } {
            Ok(known) => known,
            Err(failure) => return Done::failed(failure),
        };
        if known.is_none() {
            let asked = self.ask(&format!("restore {} {}", act.request, act.edition)).await;
            // If the response is lost, it is not known what the system did.
            known = match (asked, self.find(act).await) {
                (_, Ok(Some(known))) => Some(known),
                (Err(failure), Ok(None)) => return Done::untouched(failure),
                (Err(failure), Err(_)) | (Ok(_), Err(failure)) => return Done::failed(failure),
                (Ok(_), Ok(None)) => return Done::failed(away("it does not know the request that it took")),
            };
        }
        let did = |tally| Answer::Did(Did { tallies: Tallies::default().with(ITEMS, tally) });
        let mut last = Tally::planned(act.items);
        loop {
            if let Some((state, tally)) = known {
                last = tally;
                control.progress.send_replace(Progress {
                    files_done: tally.done,
                    files_total: tally.total,
                    ..Progress::default()
                });
                match state.as_str() {
                    "running" => {}
                    "done" => return Done::ok(did(tally)),
                    _ => {
                        let text = "The system says that the request failed.";
                        return Done::of(did(tally), Some(Failure::new(Class::Data, reason::INCOMPLETE, text)));
                    }
                }
            }
            tokio::select! {
                _ = async { control.stop.wait_for(|stop| *stop).await.is_ok() } => {
                    let _ = self.ask(&format!("cancel {}", act.request)).await;
                    let text = "The Job was told to stop, and has canceled the request.";
                    return Done::of(did(last), Some(Failure::new(Class::Transient, reason::TERMINATED, text)));
                }
                () = tokio::time::sleep(LOOK) => {}
            }
            known = match self.find(act).await {
                Ok(known) => known,
                // The system continues the request by itself.
                Err(failure) => return Done::of(did(last), Some(failure)),
            };
        }
    }
}

fn number(word: Option<&String>) -> u64 {
    word.and_then(|w| w.parse().ok()).unwrap_or(0)
}
