//! Which users may run code, on the cluster's side: the permissions of users, and the key of seals.
//!
//! The webhook of every replica asks the API server about the author of an object. The key is in a Secret of the
//! operator that all replicas share. It is created once, and again if the Secret is deleted. What the controller does
//! with an object that has no seal is decided in [`code_rights`](crate::controller::observe::code_rights).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use futures::future::{BoxFuture, try_join_all};
use k8s_openapi::ByteString;
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client, ResourceExt as _};
use serde_json::Value;
use tracing::info;

use crate::admission::rights;
use crate::admission::rights::{Gate, Question};
use crate::admission::seal::{KEY, Key};
use crate::controller::observe::code_rights::is_opened;
use crate::controller::observe::errors::plain;
use crate::controller::observe::reads::Seals;
use crate::names::{OPERATOR, label};
use crate::plan::work::rights::{Ask, Right};

/// Deadline for all questions about one object, the same as for the owners of Repositories.
const PATIENCE: Duration = Duration::from_millis(1500);
/// Maximum number of questions about one object, apart from the first. An object that needs more questions requires
/// permission to create pods.
const QUESTIONS: usize = 8;
/// Secret with the key, and the key in it.
const SECRET: (&str, &str) = ("lifeboat-code-rights", "key");

/// Configuration of the permission check.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Whether permissions are checked. If not, a user who may create an object may set all of its fields.
    pub enabled: bool,
    /// Groups whose members are not checked.
    pub groups: Vec<String>,
    /// Whether the webhook is served, so that there are seals.
    pub webhook: bool,
}

/// Checks the permissions of users, and verifies seals for the controller.
pub struct Vouching {
    client: Client,
    namespace: String,
    policy: Policy,
    key: ArcSwapOption<Key>,
}

impl Vouching {
    /// The permission check of an operator in this namespace.
    pub fn new(client: Client, namespace: String, policy: Policy) -> Arc<Self> {
        Arc::new(Self { client, namespace, policy, key: ArcSwapOption::empty() })
    }

    /// The permission check for the webhook; `None` if the check is off.
    pub fn gate(self: &Arc<Self>) -> Option<Gate> {
        if !self.policy.enabled {
            return None;
        }
        let (of_key, of_ask, of_namespace) = (self.clone(), self.clone(), self.clone());
        Some(Gate {
            key: Arc::new(move || {
                let me = of_key.clone();
                Box::pin(async move {
                    match tokio::time::timeout(PATIENCE, me.key()).await {
                        Ok(Ok(key)) => Ok(Key::clone(&key)),
                        Ok(Err(e)) => Err(plain(&e)),
                        Err(_) => Err("the API server does not answer in time".to_owned()),
                    }
                })
            }),
            ask: Arc::new(move |question| {
                let me = of_ask.clone();
                Box::pin(async move { me.ask(&question).await })
            }),
            is_open: Arc::new(move |namespace| {
                let me = of_namespace.clone();
                Box::pin(async move { me.is_open(&namespace).await })
            }),
        })
    }

    /// The seals that the controller requires; `None` if it requires none.
    pub fn seals(self: &Arc<Self>) -> Option<Arc<dyn Seals>> {
        let me: Arc<dyn Seals> = self.clone();
        self.policy.enabled.then_some(me)
    }

    /// The token that identifies the API server when it calls the webhook. Reads the key again, in case it has changed.
    ///
    /// # Errors
    /// The key could not be read or created.
    pub async fn path_token(&self) -> kube::Result<String> {
        Ok(self.read().await?.path_token())
    }

    /// The key that was read last.
    async fn key(&self) -> kube::Result<Arc<Key>> {
        match self.key.load_full() {
            Some(key) => Ok(key),
            None => self.read().await,
        }
    }

    async fn read(&self) -> kube::Result<Arc<Key>> {
        let api: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
        let secret = match api.get_opt(SECRET.0).await? {
            Some(found) => found,
            None => match api.create(&PostParams::default(), &fresh()?).await {
                Ok(made) => {
                    info!(secret = SECRET.0, "the key of code rights is made");
                    made
                }
                // Another replica was first.
                Err(kube::Error::Api(status)) if status.code == 409 => api.get(SECRET.0).await?,
                Err(e) => return Err(e),
            },
        };
        let bytes = secret.data.as_ref().and_then(|d| d.get(SECRET.1)).map(|b| b.0.as_slice());
        let key = bytes.and_then(|b| <[u8; KEY]>::try_from(b).ok()).ok_or_else(|| {
            let text = format!("Secret {} has no key of {KEY} bytes; delete it, and a new one is made", SECRET.0);
            kube::Error::Service(text.into())
        })?;
        let key = Arc::new(Key::new(key));
        self.key.store(Some(key.clone()));
        Ok(key)
    }

    /// Whether the user of a question has all permissions that it requires.
    async fn ask(&self, question: &Question) -> Result<(), String> {
        let groups = question.user.get("groups").and_then(Value::as_array).into_iter().flatten();
        if groups.filter_map(Value::as_str).any(|g| self.policy.groups.iter().any(|known| known == g)) {
            return Ok(());
        }
        match tokio::time::timeout(PATIENCE, self.denied(question)).await {
            Ok(Ok(denied)) if denied.is_empty() => Ok(()),
            Ok(Ok(denied)) => Err(rights::denial(question, &denied)),
            Ok(Err(e)) => Err(rights::unknown(question, &plain(&e))),
            Err(_) => Err(rights::unknown(question, "the API server does not answer in time")),
        }
    }

    /// Whether an administrator has opened a namespace; false if the API server does not answer in time.
    async fn is_open(&self, namespace: &str) -> bool {
        if namespace.is_empty() {
            return false;
        }
        let api: Api<Namespace> = Api::all(self.client.clone());
        let found = tokio::time::timeout(PATIENCE, api.get_metadata_opt(namespace)).await;
        matches!(found, Ok(Ok(Some(found))) if is_opened(found.labels()))
    }

    /// The requests of a question that its user may not make.
    async fn denied(&self, question: &Question) -> kube::Result<Vec<Ask>> {
        if self.may(question, &Right::Pods).await? {
            return Ok(vec![]);
        }
        let mut others: Vec<&Right> = question.asks.iter().map(|a| &a.right).filter(|r| **r != Right::Pods).collect();
        others.sort();
        others.dedup();
        // An object that is refused anyway needs no further question.
        let is_lost = others.len() > QUESTIONS || question.asks.iter().any(|a| a.right == Right::Pods);
        let may =
            if is_lost { vec![] } else { try_join_all(others.iter().map(|right| self.may(question, right))).await? };
        let granted: Vec<&Right> =
            others.into_iter().zip(may).filter(|(_, may)| *may).map(|(right, _)| right).collect();
        Ok(question.asks.iter().filter(|a| !granted.contains(&&a.right)).cloned().collect())
    }

    async fn may(&self, question: &Question, right: &Right) -> kube::Result<bool> {
        let (verb, resource, name) = match right {
            Right::Pods => ("create", "pods", None),
            Right::Claims => ("create", "persistentvolumeclaims", None),
            Right::Secret(name) => ("get", "secrets", Some(name)),
            Right::ConfigMap(name) => ("get", "configmaps", Some(name)),
        };
        let who = |field: &str| question.user.get(field).cloned().unwrap_or_default();
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: Some(question.username().to_owned()),
                uid: serde_json::from_value(who("uid")).unwrap_or_default(),
                groups: serde_json::from_value(who("groups")).unwrap_or_default(),
                extra: serde_json::from_value(who("extra")).unwrap_or_default(),
                resource_attributes: Some(ResourceAttributes {
                    namespace: Some(question.namespace.clone()),
                    verb: Some(verb.to_owned()),
                    resource: Some(resource.to_owned()),
                    name: name.cloned(),
                    version: Some("v1".to_owned()),
                    ..ResourceAttributes::default()
                }),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        };
        let api: Api<SubjectAccessReview> = Api::all(self.client.clone());
        let answer = api.create(&PostParams::default(), &review).await?;
        Ok(answer.status.is_some_and(|s| s.allowed && s.denied != Some(true)))
    }
}

impl Seals for Vouching {
    fn key(&self) -> BoxFuture<'_, kube::Result<Option<Arc<Key>>>> {
        Box::pin(async { if self.policy.webhook { Some(self.key().await).transpose() } else { Ok(None) } })
    }
}

/// A Secret with a new key.
fn fresh() -> kube::Result<Secret> {
    let mut key = vec![0; KEY];
    let random = rustls::crypto::aws_lc_rs::default_provider().secure_random;
    random.fill(&mut key).map_err(|_| kube::Error::Service("no random numbers are to be had".into()))?;
    Ok(Secret {
        metadata: ObjectMeta {
            name: Some(SECRET.0.to_owned()),
            labels: Some(BTreeMap::from([
                (label::MANAGED_BY.to_owned(), label::MANAGED_BY_VALUE.to_owned()),
                (label::COMPONENT.to_owned(), OPERATOR.to_owned()),
            ])),
            ..ObjectMeta::default()
        },
        immutable: Some(true),
        type_: Some("Opaque".to_owned()),
        data: Some(BTreeMap::from([(SECRET.1.to_owned(), ByteString(key))])),
        ..Secret::default()
    })
}

#[cfg(test)]
mod tests;
