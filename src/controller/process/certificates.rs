//! Maintains the webhook's certificate, in one Secret that all replicas share, and what the API server needs to call
//! the webhook: the CA that it trusts, and the path with the token that identifies it.
//!
//! A replica that finds the Secret missing or due for rotation makes a new
//! certificate. Create and replace use the resourceVersion, so that of two
//! replicas one wins and the other reads. Order matters: the API server is
//! configured to trust a new CA before any replica serves a certificate of it,
//! and trusts the old CA until the next rotation. A Secret without the
//! operator's annotation belongs to another component (cert-manager): the
//! operator uses it and never changes it. The content of a Secret is never logged.

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

/// Interval between checks of the Secret and the webhook configurations when there is no error.
const INTERVAL: Duration = Duration::from_mins(10);
/// Wait before the next check after an error.
const RETRY: Duration = Duration::from_secs(10);
/// Attempts at a write that another replica may win.
const TRIES: usize = 5;
/// Marks the Secret as the operator's, and contains the expiry time of its certificate.
const NOT_AFTER: &str = "lifeboat.stash.appscode.com/not-after";
/// The DNS names of the certificate: it is reissued when they change.
const DNS_NAMES: &str = "lifeboat.stash.appscode.com/dns-names";

/// Why the certificate is not valid.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server refuses a request.
    #[error("the API server refuses: {0}")]
    Kube(#[from] kube::Error),
    /// The certificate cannot be made or used.
    #[error(transparent)]
    Cert(#[from] CertError),
    /// A Secret that the operator does not own lacks a key.
    #[error("Secret {0} has no key {1}; add it, or delete the Secret so that the operator creates a new one")]
    Incomplete(String, &'static str),
    /// Other clients repeatedly change the object that the operator writes.
    #[error("{0} is repeatedly changed by other clients")]
    Contended(String),
}

/// The content of the Secret.
struct Stored {
    ca: String,
    old_ca: Option<String>,
    cert: String,
    key: String,
    /// Expiry time and DNS names, if the Secret is the operator's.
    ours: Option<(Timestamp, String)>,
}

/// Maintains the Secret, the handle and the webhook configurations.
pub struct Keeper {
    client: Client,
    namespace: String,
    secret: String,
    /// Name of both webhook configurations.
    webhooks: String,
    /// DNS names of the certificate.
    names: Vec<String>,
    handle: Arc<CertHandle>,
    /// The certificate that is loaded in the handle.
    loaded: String,
}

impl Keeper {
    /// A keeper for a webhook behind this Service in its namespace. No certificate is loaded yet.
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

    /// Maintains them until `shutdown` ends, and passes the token to the server as soon as it is known.
    pub async fn maintain(
        mut self,
        vouching: Arc<Vouching>,
        token: PathToken,
        shutdown: impl Future<Output = ()> + Send,
    ) {
        tokio::pin!(shutdown);
        loop {
            // Another replica may have made a new key. The certificate does not depend on a key.
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

    /// One pass: ensure the Secret, then set the trust, then load the certificate.
    async fn pass(&mut self, token: Option<&str>, now: Timestamp) -> Result<(), Error> {
        let secrets = Api::namespaced(self.client.clone(), &self.namespace);
        let stored = ensure(&secrets, &self.secret, &self.names, now).await?;
        let trust = format!("{}{}", stored.ca, stored.old_ca.as_deref().unwrap_or_default());
        // A new certificate is not loaded before it is trusted, unless no certificate is loaded at all.
        let trusted = trust_in_all(&self.client, &self.webhooks, &trust, token).await;
        if self.loaded != stored.cert && (trusted.is_ok() || !self.handle.is_loaded()) {
            self.handle.load(&stored.cert, &stored.key)?;
            self.loaded.clone_from(&stored.cert);
            info!(secret = self.secret, "the webhook's certificate is loaded");
        }
        trusted
    }
}

/// The Secret in its desired state, created or renewed if needed.
async fn ensure(api: &Api<Secret>, name: &str, names: &[String], now: Timestamp) -> Result<Stored, Error> {
    for _ in 0..TRIES {
        let found = api.get_opt(name).await?;
        let stored = found.as_ref().map(|s| read(s, name));
        let old_ca = match stored {
            Some(Ok(stored)) if !is_due(&stored, names, now) => return Ok(stored),
            Some(Ok(stored)) => Some(stored.ca),
            // The Secret belongs to another component and is incomplete: the operator does not complete it.
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
            // Another replica was first (409), or the Secret was deleted in between (404): read again.
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
        // A date that cannot be parsed counts as expired.
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

/// Writes only the CA and the paths into one configuration: the chart owns the rest.
async fn trust_in<K>(api: &Api<K>, name: &str, ca: &str, token: Option<&str>) -> Result<(), Error>
where
    K: Resource + Clone + DeserializeOwned + Serialize + std::fmt::Debug,
{
    for _ in 0..TRIES {
        // Without the configuration the webhook is switched off.
        let Some(found) = api.get_opt(name).await? else { return Ok(()) };
        let Some(patch) = trust_patch(&crate::api::to_json(&found), ca, token) else { return Ok(()) };
        let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
        match api.patch(name, &params, &Patch::Json::<()>(patch)).await {
            Ok(_) => info!(webhooks = name, "the API server trusts the webhook's certificate"),
            // A test of the patch failed (422), or another client wrote (409) or deleted (404) in the meantime.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409 | 422) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(Error::Contended(format!("webhook configuration {name}")))
}

/// The patch that sets this CA and the path with this token in every webhook of a configuration; `None` if all have
/// them. The name of a webhook determines its path: `default.restoresessions.…` uses `/default/restoresessions/…`.
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
            // Positions may have changed since the configuration was read, so the patch tests the name.
            operations.push(json!({ "op": "test", "path": format!("/webhooks/{i}/name"), "value": name }));
            operations.extend(changes);
        }
    }
    if operations.is_empty() { None } else { serde_json::from_value(Value::Array(operations)).ok() }
}

#[cfg(test)]
mod tests;
