//! Access to the API server, for Jobs with a Kubernetes token.
//!
//! If the backend Secret is in another namespace than the Job, it cannot be mounted as a volume. The agent reads this
//! Secret with its short-lived token and writes it to a folder in memory, one file per key, readable only by itself.
//! Its content is never logged or reported. [`snapshots`] updates the Snapshots of a Repository, which would not fit
//! into an outcome.

pub mod snapshots;

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};

use crate::contract::SecretPlace;
use crate::contract::{Class, Failure};
use crate::names::reason;

/// Timeout: a new permission is effective on every API server within this time, and a restarted API server answers
/// again.
const PATIENCE: Duration = Duration::from_secs(30);
/// Delay between two attempts.
const PAUSE: Duration = Duration::from_secs(1);

/// Reads the Secret and puts it into `dir`. `kubeconfig` is for tests.
///
/// # Errors
/// The Secret does not exist, may not be read, or cannot be written to the folder.
pub async fn fetch(kubeconfig: Option<&Path>, place: &SecretPlace, dir: &Path) -> Result<(), Failure> {
    let client = client(kubeconfig).await?;
    let api: Api<Secret> = Api::namespaced(client, &place.namespace);
    let found = patiently(|| api.get_opt(&place.name)).await.map_err(|error| {
        let text = format!(
            "Backend Secret {}/{} could not be read: {}. Check that network policies allow the Job to reach the API server.",
            place.namespace,
            place.name,
            plain(&error)
        );
        trouble(reason::ACCESS_DENIED, text)
    })?;
    let Some(secret) = found else {
        let text = format!("Backend Secret {}/{} does not exist.", place.namespace, place.name);
        return Err(trouble(reason::SECRET_INCOMPLETE, text));
    };
    tracing::info!(namespace = place.namespace, secret = place.name, "read the backend Secret");
    keep(secret.data.unwrap_or_default(), dir).map_err(|e| {
        trouble(reason::AGENT_FAILED, format!("The backend Secret could not be written to {}: {e}.", dir.display()))
    })
}

/// Repeats the request until it succeeds or times out.
async fn patiently<T, F: Future<Output = kube::Result<T>>>(mut ask: impl FnMut() -> F) -> kube::Result<T> {
    let started = tokio::time::Instant::now();
    loop {
        match ask().await {
            Err(error) if started.elapsed() < PATIENCE => {
                tracing::info!(error = plain(&error), "the API server does not answer yet");
                tokio::time::sleep(PAUSE).await;
            }
            answer => return answer,
        }
    }
}

/// Uses the token of the pod; tests specify a kubeconfig.
async fn client(kubeconfig: Option<&Path>) -> Result<Client, Failure> {
    let made = async {
        let config = match kubeconfig {
            Some(file) => {
                let read = Kubeconfig::read_from(file).map_err(|e| e.to_string())?;
                Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await.map_err(|e| e.to_string())?
            }
            None => Config::incluster().map_err(|e| e.to_string())?,
        };
        Client::try_from(config).map_err(|e| e.to_string())
    };
    made.await.map_err(|e| trouble(reason::AGENT_FAILED, format!("The Job cannot connect to the API server: {e}.")))
}

/// Writes one file per key, readable only by this user.
fn keep(data: impl IntoIterator<Item = (String, ByteString)>, dir: &Path) -> std::io::Result<()> {
    for (key, ByteString(value)) in data {
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(dir.join(key))?;
        file.write_all(&value)?;
    }
    Ok(())
}

fn trouble(why: &str, text: String) -> Failure {
    Failure::new(Class::Transient, why, text)
}

/// The error of the API server, without its address and the request.
fn plain(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_secret_is_kept_as_it_is_and_for_nobody_else() {
        let dir = tempfile::tempdir().unwrap();
        let odd = vec![0, 255, b'\n'];
        let data =
            [("RESTIC_PASSWORD".to_owned(), ByteString(b"p\n".to_vec())), ("ca".to_owned(), ByteString(odd.clone()))];
        keep(data, dir.path()).unwrap();
        assert_eq!(std::fs::read(dir.path().join("RESTIC_PASSWORD")).unwrap(), b"p\n");
        assert_eq!(std::fs::read(dir.path().join("ca")).unwrap(), odd);
        let mode = std::fs::metadata(dir.path().join("ca")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
