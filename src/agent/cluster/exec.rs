//! A command in a container of another pod, through the API server.
//!
//! The grant of the Job allows this in one pod, for the time of the hook. A request that the API server rejects has
//! started nothing, and is repeated for a while: a new grant is not effective at once on every API server. A connection
//! that ends without the status of the command leaves it unknown whether the command has run to its end.

use std::path::Path;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use kube::Api;
use kube::api::AttachParams;
use kube::client::UpgradeConnectionError;

use crate::agent::cluster::{PATIENCE, PAUSE, client, plain};
use crate::contract::hook::Place;
use crate::contract::{Class, Failure};
use crate::drivers::hook;
use crate::drivers::hook::output;
use crate::drivers::hook::output::Tail;
use crate::names::reason;

/// Runs the command to its end. `kubeconfig` is for tests.
///
/// # Errors
/// It could not be started, did not exit with 0, or its end is not known.
pub async fn run(
    kubeconfig: Option<&Path>,
    namespace: &str,
    place: &Place,
    command: &[String],
    said: &mut Tail,
) -> Result<(), Failure> {
    let label = format!("exec in container {} of pod {}", place.container, place.pod);
    let failed = |why: String| hook::failed(&label, &why);
    let api: Api<Pod> = Api::namespaced(client(kubeconfig).await?, namespace);
    let params = AttachParams::default().container(&place.container).stdout(true).stderr(true).stdin(false);
    let started = tokio::time::Instant::now();
    let mut process = loop {
        match api.exec(&place.pod, command.to_vec(), &params).await {
            Ok(process) => break process,
            Err(error) if is_rejected(&error) && started.elapsed() < PATIENCE => {
                tracing::info!(error = plain(&error), "the API server does not start the command yet");
                tokio::time::sleep(PAUSE).await;
            }
            Err(error) if is_rejected(&error) => {
                return Err(failed(format!("the API server does not start the command: {}.", plain(&error))));
            }
            Err(error) => return Err(in_doubt(&label, &plain(&error))),
        }
    };
    let status = process.take_status();
    let (out, err) = (process.stdout(), process.stderr());
    output::drain(out, err, said).await;
    let status = match status {
        Some(status) => status.await,
        None => None,
    };
    match status {
        None => Err(in_doubt(&label, "the connection ended before the command")),
        Some(status) => judge(&status).map_err(failed),
    }
}

/// Whether the API server itself has rejected the request: nothing was started. After an error of a server or of a
/// proxy before it, this is not known.
fn is_rejected(error: &kube::Error) -> bool {
    match error {
        kube::Error::UpgradeConnection(UpgradeConnectionError::ProtocolSwitch(status)) => status.is_client_error(),
        kube::Error::Api(status) => (400..500).contains(&status.code),
        _ => false,
    }
}

fn in_doubt(label: &str, why: &str) -> Failure {
    let text = format!("{label}: {why}. It is not known whether the command has run, and it is not run again.");
    Failure::new(Class::Fatal, reason::HOOK_IN_DOUBT, text)
}

/// Why a command has failed, by the status that the kubelet sends at its end.
fn judge(status: &Status) -> Result<(), String> {
    if status.status.as_deref() == Some("Success") {
        return Ok(());
    }
    let causes = status.details.as_ref().and_then(|d| d.causes.as_ref()).into_iter().flatten();
    let code = causes.filter(|c| c.reason.as_deref() == Some("ExitCode")).find_map(|c| c.message.clone());
    match code {
        Some(code) => Err(format!("exit code {code}.")),
        None => {
            Err(format!("the command could not be run: {}.", status.message.as_deref().unwrap_or("no reason given")))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_status_of_the_kubelet_tells_the_exit_code() {
        let of = |status: serde_json::Value| judge(&serde_json::from_value(status).unwrap());
        assert_eq!(of(json!({ "status": "Success" })), Ok(()));
        let causes = json!([{ "reason": "ExitCode", "message": "3" }]);
        let failed = json!({ "status": "Failure", "reason": "NonZeroExitCode", "details": { "causes": causes } });
        assert_eq!(of(failed), Err("exit code 3.".into()));
        let missing = json!({ "status": "Failure", "message": "no such file" });
        assert_eq!(of(missing), Err("the command could not be run: no such file.".into()));
        assert!(of(json!({})).is_err(), "silence is no success");
    }
}
