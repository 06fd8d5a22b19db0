//! A command in the Job's own container.

use std::process::Stdio;

use tokio::process::Command;

use crate::contract::TASK_ENV;
use crate::drivers::hook::output;
use crate::drivers::hook::output::Tail;

/// Runs a command to its end. If the future is dropped, the command is killed.
///
/// # Errors
/// It could not be started, or did not exit with 0; why.
pub async fn run(command: &[String], said: &mut Tail) -> Result<(), String> {
    let Some((program, arguments)) = command.split_first() else { return Err("the command is empty.".to_owned()) };
    let mut child = Command::new(program)
        .args(arguments)
        .env_remove(TASK_ENV)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|e| format!("the command could not be started: {e}."))?;
    let (out, err) = (child.stdout.take(), child.stderr.take());
    output::drain(out, err, said).await;
    let status = child.wait().await.map_err(|e| format!("the end of the command could not be read: {e}."))?;
    match status.code() {
        Some(0) => Ok(()),
        Some(code) => Err(format!("exit code {code}.")),
        None => Err("killed by a signal.".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn sh(script: &str) -> (Result<(), String>, String) {
        let (command, mut said) = (["/bin/sh", "-c", script].map(str::to_owned), Tail::default());
        (run(&command, &mut said).await, said.text(&[]))
    }

    #[tokio::test]
    async fn the_exit_code_decides_and_both_outputs_are_kept() {
        assert_eq!(sh("echo a; echo b >&2").await.0, Ok(()));
        let (ended, said) = sh("echo out; echo err >&2; exit 3").await;
        assert_eq!(ended, Err("exit code 3.".into()));
        assert!(said.contains("out") && said.contains("err"), "{said}");
        assert_eq!(sh("kill -9 $$").await.0, Err("killed by a signal.".into()));
        let mut said = Tail::default();
        let none = run(&["/no/such/program".to_owned()], &mut said).await.unwrap_err();
        assert!(none.contains("could not be started"), "{none}");
        assert!(run(&[], &mut said).await.is_err());
    }

    #[tokio::test]
    async fn a_command_that_writes_much_is_not_blocked_and_its_end_is_kept() {
        let (ended, said) = sh("i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done").await;
        assert_eq!(ended, Ok(()));
        assert!(said.contains("line 19999") && !said.contains("line 10\n") && said.len() < 4096, "{}", said.len());
    }

    #[tokio::test]
    async fn the_command_does_not_see_the_task() {
        assert_eq!(sh(&format!("test -z \"${TASK_ENV}\"")).await.0, Ok(()));
    }
}
