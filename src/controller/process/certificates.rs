//! Keeps the webhook's certificate, one Secret that all replicas share, and what the API server needs to ask us: the CA
//! that it trusts, and the path with the token that it is known by.
//!
//! Whoever finds the Secret missing or due makes a new certificate; create and
//! replace go by resourceVersion, so that of two replicas one wins and the other
//! reads. Order matters: the API server is told to trust a new CA before any
//! replica shows a certificate of it, and trusts the old CA until the rotation
//! after. A Secret without our annotation is somebody else's (cert-manager's):
//! used, never changed. Nothing of a Secret is ever logged.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::{MutatingWebhookConfiguration, ValidatingWebhookConfiguration};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Client, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tracing::{info, warn};

use crate::admission::certs::{Bundle, CertError, CertHandle, issue, needs_rotation};
use crate::admission::server::PathToken;
use crate::controller::process::code_rights::Vouching;
use crate::names::{MANAGER, OPERATOR, label};

/// How often Secret and configurations are looked at when all is well.
const INTERVAL: Duration = Duration::from_mins(10);
/// How soon after something went wrong.
const RETRY: Duration = Duration::from_secs(10);
/// Tries at a write that another replica may win.
const TRIES: usize = 5;
/// Marks the Secret as ours, and says when its certificate runs out.
const NOT_AFTER: &str = "lifeboat.stash.appscode.com/not-after";
/// The names the certificate is for: it is made again when they change.
const DNS_NAMES: &str = "lifeboat.stash.appscode.com/dns-names";

/// Why the certificate is not in order.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server does not do what is asked.
    #[error("the API server refuses: {0}")]
    Kube(#[from] kube::Error),
    /// The certificate cannot be made or used.
    #[error(transparent)]
    Cert(#[from] CertError),
    /// Somebody else's Secret lacks a key.
    #[error("Secret {0} has no key {1}; add it, or delete the Secret so that the operator creates a new one")]
    Incomplete(String, &'static str),
    /// Others keep changing what is to be changed.
    #[error("{0} is repeatedly changed by other clients")]
    Contended(String),
}

/// What the Secret holds.
struct Stored {
    ca: String,
    old_ca: Option<String>,
    cert: String,
    key: String,
    /// Ours: when it runs out, and for which names it is.
    ours: Option<(Timestamp, String)>,
}

/// Keeps Secret, handle and webhook configurations in order.
pub struct Keeper {
    client: Client,
    namespace: String,
    secret: String,
    /// Name of both webhook configurations.
    webhooks: String,
    /// Names that the certificate is for.
    names: Vec<String>,
    handle: Arc<CertHandle>,
    /// The certificate that the handle has.
    loaded: String,
}

impl Keeper {
    /// For a webhook behind this Service of its namespace; nothing is loaded yet.
    pub fn new(
        client: Client,
        namespace: &str,
        service: &str,
        secret: &str,
        webhooks: &str,
        handle: Arc<CertHandle>,
    ) -> Self {
        let names = ["", ".cluster.local"].map(|suffix| format!("{service}.{namespace}.svc{suffix}")).to_vec();
        let [namespace, secret, webhooks] = [namespace, secret, webhooks].map(str::to_owned);
        Self { client, namespace, secret, webhooks, names, handle, loaded: String::new() }
    }

    /// Keeps them until `shutdown` ends, and has the server know the token as soon as there is one.
    pub async fn maintain(
        mut self,
        vouching: Arc<Vouching>,
        token: PathToken,
        shutdown: impl Future<Output = ()> + Send,
    ) {
        tokio::pin!(shutdown);
        loop {
            // Another replica may have made a new key. Without one there is a certificate all the same.
            let path = vouching.path_token().await;
            if let Ok(path) = &path {
                token.set(path);
            }
            let done = self.pass(path.as_deref().ok(), Timestamp::now()).await;
            let mut wait = INTERVAL;
            if let Err(error) = done.and(path.map(drop).map_err(Error::from)) {
                warn!(%error, secret = self.secret, "the webhook's certificate or token is not valid");
                wait = RETRY;
            }
            let asked_otherwise = async {
                tokio::time::sleep(RETRY).await;
                token.asked_otherwise().await;
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = asked_otherwise => {
                    warn!("a request to the webhook had no valid token; checking the path in the webhook configurations");
                }
                () = &mut shutdown => return,
            }
        }
    }

    /// Once: Secret, then trust, then use.
    async fn pass(&mut self, token: Option<&str>, now: Timestamp) -> Result<(), Error> {
        let secrets = Api::namespaced(self.client.clone(), &self.namespace);
        let stored = ensure(&secrets, &self.secret, &self.names, now).await?;
        let trust = format!("{}{}", stored.ca, stored.old_ca.as_deref().unwrap_or_default());
        // Without trust a new certificate is of no use; but without any certificate there is nothing to wait for.
        let trusted = trust_in_all(&self.client, &self.webhooks, &trust, token).await;
        if self.loaded != stored.cert && (trusted.is_ok() || !self.handle.is_loaded()) {
            self.handle.load(&stored.cert, &stored.key)?;
            self.loaded.clone_from(&stored.cert);
            info!(secret = self.secret, "the webhook's certificate is loaded");
        }
        trusted
    }
}

/// The Secret as it should be, made or renewed where needed.
async fn ensure(api: &Api<Secret>, name: &str, names: &[String], now: Timestamp) -> Result<Stored, Error> {
    for _ in 0..TRIES {
        let found = api.get_opt(name).await?;
        let stored = found.as_ref().map(|s| read(s, name));
        let old_ca = match stored {
            Some(Ok(stored)) if !is_due(&stored, names, now) => return Ok(stored),
            Some(Ok(stored)) => Some(stored.ca),
            // Somebody else's, and incomplete: not ours to fill.
            Some(Err(error)) if found.as_ref().is_some_and(|s| !is_ours(s)) => return Err(error),
            Some(Err(_)) | None => None,
        };
        let version = found.as_ref().and_then(|s| s.metadata.resource_version.clone());
        let wanted = write(name, &issue(now, names)?, names, old_ca, version);
        let written = match found {
            None => api.create(&PostParams::default(), &wanted).await,
            Some(_) => api.replace(name, &PostParams::default(), &wanted).await,
        };
        match written {
            Ok(_) => info!(secret = name, "a new certificate for the webhook is in its Secret"),
            // Another replica was first (409), or the Secret went away in between (404): look again.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(Error::Contended(format!("Secret {name}")))
}

fn is_ours(secret: &Secret) -> bool {
    secret.metadata.annotations.as_ref().is_some_and(|a| a.contains_key(NOT_AFTER))
}

fn is_due(stored: &Stored, names: &[String], now: Timestamp) -> bool {
    stored.ours.as_ref().is_some_and(|(not_after, theirs)| {
        let bundle =
            Bundle { ca_pem: String::new(), cert_pem: String::new(), key_pem: String::new(), not_after: *not_after };
        *theirs != names.join(",") || needs_rotation(&bundle, now)
    })
}

fn read(secret: &Secret, name: &str) -> Result<Stored, Error> {
    let text = |key: &'static str| {
        let bytes = secret.data.as_ref().and_then(|d| d.get(key)).filter(|b| !b.0.is_empty());
        bytes.map(|b| String::from_utf8_lossy(&b.0).into_owned()).ok_or(Error::Incomplete(name.to_owned(), key))
    };
    let annotation = |key: &str| secret.metadata.annotations.as_ref().and_then(|a| a.get(key)).cloned();
    let ours = annotation(NOT_AFTER).map(|at| {
        // A date that cannot be read is one that is over.
        (at.parse().unwrap_or(Timestamp::UNIX_EPOCH), annotation(DNS_NAMES).unwrap_or_default())
    });
    Ok(Stored {
        ca: text("ca.crt")?,
        old_ca: text("ca-old.crt").ok(),
        cert: text("tls.crt")?,
        key: text("tls.key")?,
        ours,
    })
}

fn write(name: &str, bundle: &Bundle, names: &[String], old_ca: Option<String>, version: Option<String>) -> Secret {
    let mut data = BTreeMap::from([
        ("ca.crt".to_owned(), ByteString(bundle.ca_pem.clone().into_bytes())),
        ("tls.crt".to_owned(), ByteString(bundle.cert_pem.clone().into_bytes())),
        ("tls.key".to_owned(), ByteString(bundle.key_pem.clone().into_bytes())),
    ]);
    data.extend(old_ca.map(|ca| ("ca-old.crt".to_owned(), ByteString(ca.into_bytes()))));
    Secret {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            resource_version: version,
            labels: Some(BTreeMap::from([
                (label::MANAGED_BY.to_owned(), label::MANAGED_BY_VALUE.to_owned()),
                (label::COMPONENT.to_owned(), OPERATOR.to_owned()),
            ])),
            annotations: Some(BTreeMap::from([
                (NOT_AFTER.to_owned(), bundle.not_after.to_string()),
                (DNS_NAMES.to_owned(), names.join(",")),
            ])),
            ..ObjectMeta::default()
        },
        type_: Some("Opaque".to_owned()),
        data: Some(data),
        ..Secret::default()
    }
}

async fn trust_in_all(client: &Client, name: &str, ca: &str, token: Option<&str>) -> Result<(), Error> {
    trust_in(&Api::<MutatingWebhookConfiguration>::all(client.clone()), name, ca, token).await?;
    trust_in(&Api::<ValidatingWebhookConfiguration>::all(client.clone()), name, ca, token).await
}

/// Writes CA and paths into one configuration, and nothing else of it: the rest is the chart's.
async fn trust_in<K>(api: &Api<K>, name: &str, ca: &str, token: Option<&str>) -> Result<(), Error>
where
    K: Resource + Clone + DeserializeOwned + Serialize + std::fmt::Debug,
{
    for _ in 0..TRIES {
        // Not there: the webhook is switched off.
        let Some(found) = api.get_opt(name).await? else { return Ok(()) };
        let Some(patch) = trust_patch(&crate::api::to_json(&found), ca, token) else { return Ok(()) };
        let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
        match api.patch(name, &params, &Patch::Json::<()>(patch)).await {
            Ok(_) => info!(webhooks = name, "the API server trusts the webhook's certificate"),
            // A test of the patch failed (422), or somebody wrote (409) or deleted (404) meanwhile.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409 | 422) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(Error::Contended(format!("webhook configuration {name}")))
}

/// The patch that makes every webhook of a configuration trust this CA, and ask at the path with this token; `None`
/// where all do. A webhook has its path by its name: `default.restoresessions.…` asks at `/default/restoresessions/…`.
fn trust_patch(configuration: &Value, ca: &str, token: Option<&str>) -> Option<json_patch::Patch> {
    let ca = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, ca);
    let webhooks = configuration.get("webhooks").and_then(Value::as_array)?;
    let mut operations = vec![];
    for (i, webhook) in webhooks.iter().enumerate() {
        let name = webhook.get("name").and_then(Value::as_str).unwrap_or_default();
        let mut labels = name.split('.');
        let (verb, kind) = (labels.next().unwrap_or_default(), labels.next().unwrap_or_default());
        let path = token.map(|token| ("service/path", format!("/{verb}/{kind}/{token}")));
        let wanted = [("caBundle", ca.clone())].into_iter().chain(path);
        let amiss = wanted.filter(|(field, value)| {
            webhook.pointer(&format!("/clientConfig/{field}")).and_then(Value::as_str) != Some(value)
        });
        let changes = amiss.map(|(field, value)| {
            json!({ "op": "add", "path": format!("/webhooks/{i}/clientConfig/{field}"), "value": value })
        });
        let changes: Vec<Value> = changes.collect();
        if !changes.is_empty() {
            // Positions may have changed since it was read; names tell.
            operations.push(json!({ "op": "test", "path": format!("/webhooks/{i}/name"), "value": name }));
            operations.extend(changes);
        }
    }
    if operations.is_empty() { None } else { serde_json::from_value(Value::Array(operations)).ok() }
}

#[cfg(test)]
mod tests;
