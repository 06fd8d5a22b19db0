//! The actions of a hook: in order, within its time limit, each once.

use std::path::Path;
use std::time::Duration;

use crate::agent::cluster;
use crate::agent::options::Options;
use crate::contract::hook::{ACTIONS, Action, Call};
use crate::contract::{Answer, Class, Did, Failure, Tallies, Tally, Task};
use crate::drivers::control::Control;
use crate::drivers::done::Done;
use crate::drivers::hook;
use crate::drivers::hook::output::Tail;
use crate::names::reason;

/// Runs the actions until one fails.
pub async fn act(task: &Task, call: &Call, options: &Options, mut control: Control) -> Done {
    let limit = tokio::time::sleep(Duration::from_secs(call.seconds));
    tokio::pin!(limit);
    let stopped = async { control.stop.wait_for(|stop| *stop).await.is_ok() };
    tokio::pin!(stopped);
    let (mut done, mut warnings) = (0, vec![]);
    let mut failure = None;
    for action in &call.actions {
        let label = action.label();
        tracing::info!(action = label, "running an action of the hook");
        let ended = tokio::select! {
            ended = one(action, call, &task.run.namespace, options.kubeconfig.as_deref()) => ended,
            () = &mut limit => Err(Failure::new(
                Class::Fatal,
                reason::HOOK_TIMED_OUT,
                format!("{label}: did not end within {} s, the timeOut of the hook. What it has begun may go on.", call.seconds),
            )),
            _ = &mut stopped => Err(Failure::new(
                Class::Fatal,
                reason::HOOK_FAILED,
                format!("{label}: the Job was told to stop while it ran. What it has begun may go on."),
            )),
        };
        match ended {
            Ok(warning) => {
                done += 1;
                warnings.extend(warning);
            }
            Err(why) => {
                failure = Some(why);
                break;
            }
        }
    }
    let tally = Tally { total: call.actions.len() as u64, done, skipped: 0, failed: u64::from(failure.is_some()) };
    let did = Answer::Did(Did { tallies: Tallies::default().with(ACTIONS, tally) });
    Done { warnings, ..Done::of(did, failure) }
}

/// Runs one action. Returns a warning, if there is one.
async fn one(
    action: &Action,
    call: &Call,
    namespace: &str,
    kubeconfig: Option<&Path>,
) -> Result<Option<String>, Failure> {
    let label = action.label();
    let failed = |why: String| hook::failed(&label, &why);
    match action {
        Action::Http(http) => hook::http::send(http, call.ca.as_deref()).await.map_err(failed),
        Action::Tcp(address) => hook::connect(address).await.map(|()| None).map_err(failed),
        Action::Exec(exec) => {
            let mut said = Tail::default();
            let ended = match &exec.place {
                None => hook::command::run(&exec.command, &mut said).await.map_err(failed),
                Some(place) => cluster::exec::run(kubeconfig, namespace, place, &exec.command, &mut said).await,
            };
            let said = said.text(&[]);
            tracing::info!(action = label, output = said, "the command has ended");
            ended.map(|()| None).map_err(|failure| with_output(failure, &said))
        }
    }
}

/// The failure with the end of what the command said.
fn with_output(mut failure: Failure, said: &str) -> Failure {
    if !said.is_empty() {
        failure.message = format!("{} Output: {said}", failure.message);
    }
    failure
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use tokio::sync::watch;

    use super::*;
    use crate::contract::hook::Exec;
    use crate::contract::{Progress, Run, Work};

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    async fn run(scripts: &[&str], seconds: u64, stop: watch::Receiver<bool>) -> Done {
        let exec = |script: &&str| {
            let command = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
            Action::Exec(Exec { command, place: None })
        };
        let call = Call { actions: scripts.iter().map(exec).collect(), seconds, ca: None };
        let task = Task::new(Run::default(), "hook", vec![], Work::Hook(Box::new(call.clone())));
        let control = Control { progress: watch::channel(Progress::default()).0, stop };
        act(&task, &call, &Line::parse_from(["agent"]).options, control).await
    }

    fn tally(done: &Done) -> Tally {
        let Some(Answer::Did(did)) = &done.answer else { panic!("{done:?}") };
        did.tallies.get(ACTIONS).unwrap()
    }

    #[tokio::test]
    async fn actions_run_in_order_until_one_fails() {
        let (_tell, stop) = watch::channel(false);
        let all = run(&["true", "true"], 10, stop.clone()).await;
        assert_eq!((all.failure.as_ref(), tally(&all)), (None, Tally::of(2, 2)));
        let dir = tempfile::tempdir().unwrap();
        let mark = format!("touch {}/third", dir.path().display());
        let some = run(&["true", "echo PASSWORD=x1y2z3 because; exit 7", &mark], 10, stop).await;
        let failure = some.failure.as_ref().unwrap();
        assert_eq!(failure.reason, reason::HOOK_FAILED);
        assert!(failure.message.contains("exit code 7.") && failure.message.contains("because"), "{failure:?}");
        assert!(!failure.message.contains("x1y2z3"), "{failure:?}");
        assert_eq!(tally(&some), Tally { total: 3, done: 1, skipped: 0, failed: 1 });
        assert!(!dir.path().join("third").exists());
    }

    #[tokio::test]
    async fn time_and_a_stop_end_an_action() {
        let (tell, stop) = watch::channel(false);
        let late = run(&["sleep 100"], 1, stop.clone()).await.failure.unwrap();
        assert_eq!(late.reason, reason::HOOK_TIMED_OUT);
        tell.send_replace(true);
        let stopped = run(&["sleep 100"], 100, stop).await.failure.unwrap();
        assert!(stopped.message.contains("told to stop"), "{stopped:?}");
    }
}
