//! The doing half of a system: its Jobs, run as the agent runs them.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;
use tracing::instrument::WithSubscriber as _;

use crate::agent::Options;
use crate::api::target::RestoreTarget;
use crate::contract::{Answer, Found, Outcome, Part, Progress, Run, Task, VERSION, Work};
use crate::drivers::control::Control;
use crate::drivers::done::Done;
use crate::plan::systems::system::System;

/// How soon a Job must end that is told to stop.
const STOPS_WITHIN: Duration = Duration::from_secs(10);
/// No test waits longer.
const PATIENCE: Duration = Duration::from_mins(1);

/// What a system does to a request in a test.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fault {
    /// It does it, and the reply is lost.
    LosesReply,
    /// It does not do all of it, and says that it is done.
    DoesLess,
    /// It takes longer than any test waits.
    NeverEnds,
    /// It fails.
    Fails,
}

/// A system with something to restore.
pub trait Subject {
    /// Its planning half.
    fn system(&self) -> &'static dyn System;
    /// What is restored.
    fn target(&self) -> RestoreTarget;
    /// What a Job is asked that looks.
    fn look(&self) -> Work;
    /// What a Job is asked that restores what was found.
    fn act(&self, found: &Found, may_have_acted: bool) -> Work;
    /// Options of the agent.
    fn options(&self) -> Options;
    /// All that a Job could write to, as a text that differs if anything of it does.
    fn state(&self) -> String;
    /// Whether all of it is restored.
    fn is_restored(&self) -> bool;
    /// How often the system was made to restore it; none where doing it again does no harm.
    fn times(&self) -> Option<usize>;
    /// Puts a fault into the next request; false where the system cannot have it.
    fn break_with(&mut self, fault: Fault) -> bool;
    /// What nobody may be shown.
    fn secrets(&self) -> Vec<String>;
}

/// What a Job came to, and all that could be read of it.
struct Ran {
    done: Done,
    shown: String,
}

/// What is logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn task(work: Work, verb: &str, attempt: i32) -> Task {
    let run = Run { id: "run-1".into(), kind: "RestoreBatch".into(), namespace: "demo".into(), name: "all".into() };
    Task { attempt, ..Task::new(run, verb, vec![Part { member: 0, name: "host-0".into() }], work) }
}

/// Runs a Job to its end. With `stops`, it is told to stop as soon as it says how far it is.
async fn run(subject: &impl Subject, work: Work, verb: &str, attempt: i32, stops: bool) -> Ran {
    let (tell, mut progress) = watch::channel(Progress::default());
    let (stop, stopped) = watch::channel(false);
    let task = task(work, verb, attempt);
    let mut shown = format!("{}\n", task.encode());
    let log = Log::default();
    let writer = log.clone();
    let subscriber =
        tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(move || writer.clone());
    let control = Control { progress: tell, stop: stopped };
    let job = crate::agent::work(task, subject.options(), control).with_subscriber(subscriber.finish());
    let stopper = async {
        if stops {
            progress.changed().await.unwrap();
            stop.send_replace(true);
            tokio::time::sleep(STOPS_WITHIN).await;
            panic!("it goes on for {STOPS_WITHIN:?} after it was told to stop");
        }
        tokio::time::sleep(PATIENCE).await;
        panic!("a Job does not end");
    };
    let done = tokio::select! {
        done = job => done,
        () = stopper => unreachable!(),
    };
    let outcome = outcome(&done);
    let logged = String::from_utf8_lossy(&log.0.lock().unwrap()).into_owned();
    shown = format!("{shown}{}\n{:?}\n{done:?}\n{logged}", outcome.encode(), *progress.borrow());
    for secret in subject.secrets() {
        assert!(!shown.contains(&secret), "a secret is shown: {shown}");
    }
    Ran { done, shown }
}

fn outcome(done: &Done) -> Outcome {
    let (failure, answer) = (done.failure.clone(), done.answer.clone());
    Outcome { version: VERSION, run: "run-1".into(), failure, answer, untouched: done.untouched, ..Outcome::default() }
}

/// What the look finds.
async fn found(subject: &impl Subject) -> Found {
    let ran = run(subject, subject.look(), "preflight", 1, false).await;
    match ran.done.answer {
        Some(Answer::Found(mut found)) if found.len() == 1 => found.remove(0),
        other => panic!("no answer: {other:?}\n{}", ran.shown),
    }
}

/// Whether a Job counts as a success: it says so, and its tallies do.
fn succeeds(subject: &impl Subject, done: &Done) -> bool {
    done.failure.is_none() && subject.system().verdict(&outcome(done), &subject.target()).is_none()
}

/// A look finds what there is, and writes nothing.
pub async fn looks_without_writing(subject: impl Subject) {
    let before = subject.state();
    for _ in 0..2 {
        let found = found(&subject).await;
        assert!(found.failure.is_none() && found.pin.is_some() && !found.planned.is_empty(), "{found:?}");
        assert_eq!(subject.state(), before, "a look has written");
    }
    assert!(!subject.is_restored(), "there is something to restore");
}

/// All is restored, and counted.
pub async fn restores_and_counts(subject: impl Subject) {
    let found = found(&subject).await;
    let ran = run(&subject, subject.act(&found, false), "restore", 1, false).await;
    assert!(succeeds(&subject, &ran.done), "{}", ran.shown);
    assert!(subject.is_restored(), "it says that it is restored: {}", ran.shown);
}

/// Less than all is no success, whatever the system says of itself.
pub async fn believes_tallies_only(mut subject: impl Subject) {
    let found = found(&subject).await;
    for fault in [Fault::DoesLess, Fault::Fails] {
        if !subject.break_with(fault) {
            continue;
        }
        let ran = run(&subject, subject.act(&found, false), "restore", 1, false).await;
        assert!(!subject.is_restored(), "{fault:?}");
        assert!(!succeeds(&subject, &ran.done), "{fault:?} counts as a success: {}", ran.shown);
    }
}

/// A reply that is lost is looked up, and so is what an attempt may have done that is gone.
pub async fn does_nothing_twice(mut subject: impl Subject) {
    let found = found(&subject).await;
    let loses = subject.break_with(Fault::LosesReply);
    let ran = run(&subject, subject.act(&found, false), "restore", 1, false).await;
    let first = succeeds(&subject, &ran.done);
    assert!(first || loses, "{}", ran.shown);
    for attempt in 2..4 {
        let ran = run(&subject, subject.act(&found, true), "restore", attempt, false).await;
        assert!(succeeds(&subject, &ran.done), "{}", ran.shown);
        assert!(subject.is_restored());
        assert!(subject.times().is_none_or(|times| times == 1), "done {:?} times", subject.times());
    }
}

/// It ends within ten seconds after it is told to, and is no success.
pub async fn stops_when_told(mut subject: impl Subject) {
    let found = found(&subject).await;
    assert!(subject.break_with(Fault::NeverEnds), "a system that cannot be slow cannot be stopped in the middle");
    let ran = run(&subject, subject.act(&found, false), "restore", 1, true).await;
    assert!(!succeeds(&subject, &ran.done) && !subject.is_restored(), "{}", ran.shown);
    assert!(ran.done.failure.is_some(), "{}", ran.shown);
}
