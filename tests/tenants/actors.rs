//! The attackers: users bound to one namespace by one role, with requests judged by the API server's RBAC.

use std::path::Path;
use std::time::Duration;

use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec, SubjectAccessReviewStatus,
};
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::rbac::v1::ClusterRole;
use kube::api::{
    ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams, PostParams,
};
use kube::config::AuthInfo;
use kube::{Api, Client, Config, ResourceExt as _};
use serde_json::{Value, json};

use super::cluster::{Cluster, eventually};

/// The API server's cache of roles is updated within milliseconds; this limit is for a busy machine.
const RBAC_WITHIN: Duration = Duration::from_secs(10);

/// Role of an attacker in the attacker's namespace.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Role {
    /// Kubernetes' `edit`, with the additions of the chart.
    Edit,
    /// Kubernetes' `view`, with the additions of the chart.
    View,
    /// Creates and reads RestoreSessions and RestoreBatches, and nothing else.
    Restorer,
}

impl Role {
    fn name(self) -> &'static str {
        match self {
            Self::Edit => "tenants-edit",
            Self::View => "tenants-view",
            Self::Restorer => "tenants-restorer",
        }
    }

    /// The rules of the role. Without a controller manager, the test itself aggregates roles, by the same labels.
    async fn rules(self, cluster: &Cluster) -> Vec<Value> {
        let labels: &[&str] = match self {
            Self::Edit => &["aggregate-to-edit", "aggregate-to-view"],
            Self::View => &["aggregate-to-view"],
            Self::Restorer => {
                return vec![json!({ "apiGroups": ["stash.appscode.com"],
                    "resources": ["restoresessions", "restorebatches"], "verbs": ["create", "get", "list"] })];
            }
        };
        let built_in = Api::<ClusterRole>::all(cluster.client.clone()).list(&ListParams::default()).await.unwrap();
        let installed = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/install.yaml");
        let installed = lifeboat::yaml::read(&std::fs::read_to_string(installed).unwrap()).unwrap();
        let ours = installed.into_iter().filter(|o| o["kind"] == "ClusterRole");
        let all = built_in.items.into_iter().map(|role| json!(role)).chain(ours);
        let is_part = |role: &Value| {
            let has = |l: &&str| role["metadata"]["labels"][format!("rbac.authorization.k8s.io/{l}")] == "true";
            labels.iter().any(has)
        };
        all.filter(is_part).flat_map(|role| role["rules"].as_array().cloned().unwrap_or_default()).collect()
    }
}

/// A user with one role in one namespace.
pub struct Actor {
    pub namespace: String,
    pub user: String,
    client: Client,
}

impl Actor {
    /// Binds a new user to the role, in this namespace only.
    pub async fn bound(cluster: &Cluster, role: Role, namespace: &str) -> Self {
        let (name, user) = (role.name(), format!("{}-{namespace}", role.name()));
        let group = "rbac.authorization.k8s.io";
        let rules = role.rules(cluster).await;
        let clusters: Api<ClusterRole> = Api::all(cluster.client.clone());
        let role_object = json!({ "apiVersion": format!("{group}/v1"), "kind": "ClusterRole",
            "metadata": { "name": name }, "rules": rules });
        clusters.patch(name, &PatchParams::apply("test").force(), &Patch::Apply(role_object)).await.unwrap();
        let binding = json!({ "apiVersion": format!("{group}/v1"), "kind": "RoleBinding",
            "metadata": { "name": name, "namespace": namespace },
            "roleRef": { "apiGroup": group, "kind": "ClusterRole", "name": name },
            "subjects": [{ "apiGroup": group, "kind": "User", "name": user }] });
        cluster.apply(&binding).await.unwrap();
        let mut config = Config::infer().await.unwrap();
        config.auth_info.impersonate = Some(user.clone());
        let actor = Self { namespace: namespace.to_owned(), user, client: Client::try_from(config).unwrap() };
        eventually("the role is known", RBAC_WITHIN, || async {
            let known = actor.can("get", "stash.appscode.com", "restoresessions", namespace).await;
            if known { Ok(()) } else { Err("not yet".to_owned()) }
        })
        .await;
        actor
    }

    /// Whether the API server allows the request.
    pub async fn can(&self, verb: &str, group: &str, resource: &str, namespace: &str) -> bool {
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        let asked = ResourceAttributes {
            verb: Some(verb.into()),
            group: Some(group.into()),
            resource: Some(resource.into()),
            subresource: Some(subresource.into()).filter(|s: &String| !s.is_empty()),
            namespace: Some(namespace.into()),
            ..ResourceAttributes::default()
        };
        let spec = SelfSubjectAccessReviewSpec { resource_attributes: Some(asked), ..Default::default() };
        let review = SelfSubjectAccessReview { spec, ..Default::default() };
        let api: Api<SelfSubjectAccessReview> = Api::all(self.client.clone());
        let answer = api.create(&PostParams::default(), &review).await.unwrap();
        answer.status.is_some_and(|SubjectAccessReviewStatus { allowed, .. }| allowed)
    }

    fn api_of(&self, object: &Value) -> Api<DynamicObject> {
        let text = |p: &str| object.pointer(p).and_then(Value::as_str).unwrap_or_default();
        let (group, version) = text("/apiVersion").split_once('/').unwrap_or(("", text("/apiVersion")));
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, text("/kind")));
        Api::namespaced_with(self.client.clone(), text("/metadata/namespace"), &resource)
    }

    /// The API server's response when the attacker creates the object.
    pub async fn try_create(&self, object: &Value) -> kube::Result<Value> {
        let made: DynamicObject = serde_json::from_value(object.clone()).unwrap();
        self.api_of(object).create(&PostParams::default(), &made).await.map(|o| json!(o))
    }

    /// Like [`Self::try_create`], as a dry run.
    pub async fn would_create(&self, object: &Value) -> kube::Result<Value> {
        let made: DynamicObject = serde_json::from_value(object.clone()).unwrap();
        let params = PostParams { dry_run: true, ..PostParams::default() };
        self.api_of(object).create(&params, &made).await.map(|o| json!(o))
    }

    /// Creates an object for the attack; the permission to do so is part of the attack.
    pub async fn create(&self, object: &Value) -> Value {
        let made = self.try_create(object).await;
        made.unwrap_or_else(|e| panic!("{} cannot make {} {}: {e}", self.user, object["kind"], object["metadata"]))
    }

    pub async fn get(&self, object: &Value) -> Value {
        let name = object["metadata"]["name"].as_str().unwrap();
        json!(self.api_of(object).get(name).await.unwrap_or_else(|e| panic!("{} cannot read: {e}", self.user)))
    }

    pub async fn patch(&self, object: &Value, patch: Value) -> kube::Result<Value> {
        let name = object["metadata"]["name"].as_str().unwrap();
        self.api_of(object).patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.map(|o| json!(o))
    }

    pub async fn delete(&self, object: &Value) {
        let name = object["metadata"]["name"].as_str().unwrap();
        self.api_of(object).delete(name, &DeleteParams::background()).await.unwrap();
    }

    /// A client that has only a token of this ServiceAccount, as `kubectl create token` creates it.
    pub async fn as_account(&self, account: &str) -> Client {
        let api: Api<ServiceAccount> = Api::namespaced(self.client.clone(), &self.namespace);
        let spec = TokenRequestSpec { audiences: vec![], ..TokenRequestSpec::default() };
        let request = TokenRequest { spec, ..TokenRequest::default() };
        let made = api.create_token_request(account, &PostParams::default(), &request).await;
        let token = made.unwrap_or_else(|e| panic!("{} gets no token: {e}", self.user)).status.unwrap().token;
        let mut config = Config::infer().await.unwrap();
        config.auth_info = AuthInfo { token: Some(token.into()), ..AuthInfo::default() };
        Client::try_from(config).unwrap()
    }
}

/// Status code of a response.
pub fn code<T>(answer: kube::Result<T>) -> u16 {
    match answer {
        Ok(_) => 200,
        Err(kube::Error::Api(status)) => status.code,
        Err(other) => panic!("{other}"),
    }
}

/// Whether a response says that the request is not allowed: the right is gone, or the account too, whose token is then no
/// longer valid.
pub fn is_denied(code: u16) -> bool {
    [401, 403].contains(&code)
}

/// Message with which the API server refuses a request.
pub fn refusal(answer: kube::Result<Value>) -> String {
    match answer {
        Err(kube::Error::Api(status)) if [400, 403, 413, 422].contains(&status.code) => status.message.clone(),
        Err(other) => panic!("not a refusal: {other}"),
        Ok(made) => panic!("not refused: {} {}", made["kind"], made.name()),
    }
}

trait Name {
    fn name(&self) -> String;
}

impl Name for Value {
    fn name(&self) -> String {
        serde_json::from_value::<DynamicObject>(self.clone()).map(|o| o.name_any()).unwrap_or_default()
    }
}
