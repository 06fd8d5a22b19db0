//! The webhook, installed as the chart installs it, on the host that the API server reaches.

use std::fs;
use std::path::Path;

use base64::Engine as _;
use serde_json::{Value, json};

use super::cluster::{Cluster, SOON, eventually};
use super::jobs::{session, target};
use super::operator::Operator;

/// Where it listens.
pub const PORT: u16 = 9443;

/// An operator that leads and serves the webhook, which the API server asks.
pub struct Webhook {
    configurations: Vec<Value>,
    bundle: Vec<u8>,
    pub operator: Operator,
}

impl Webhook {
    pub async fn install(cluster: &Cluster) -> Self {
        let state = std::env::var("LIFEBOAT_CLUSTER_STATE").expect("make test-api names the cluster's state folder");
        let state = fs::read_to_string(Path::new(&state).join("cluster.json")).unwrap();
        let state: Value = serde_json::from_str(&state).unwrap();
        // The API server resolves the Service of the webhook to the host, on which the operator runs.
        let service = json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": "lifeboat", "namespace": "lifeboat-system" },
            "spec": { "type": "ExternalName", "externalName": state["hostAddress"] } });
        cluster.apply(&service).await.unwrap();
        let operator = Operator::start("test", &["--webhook", "true"]);
        operator.leads_within(SOON).await;
        let secret = json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "lifeboat-webhook-cert", "namespace": "lifeboat-system" } });
        let secret = cluster.until(&secret, "a certificate", |s| s["data"]["ca.crt"].is_string()).await;
        let bundle = secret["data"]["ca.crt"].as_str().unwrap();
        let certificate = base64::prelude::BASE64_STANDARD.decode(bundle).unwrap();
        assert!(certificate.starts_with(b"-----BEGIN CERTIFICATE"));
        let installed = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("config/install.yaml")).unwrap();
        let mut configurations: Vec<Value> = lifeboat::yaml::read(&installed).unwrap();
        configurations.retain(|o| o["kind"].as_str().is_some_and(|k| k.ends_with("WebhookConfiguration")));
        assert_eq!(configurations.len(), 2);
        for configuration in &mut configurations {
            for webhook in configuration["webhooks"].as_array_mut().unwrap() {
                webhook["clientConfig"]["service"]["port"] = PORT.into();
                webhook["clientConfig"]["caBundle"] = bundle.into();
                webhook["timeoutSeconds"] = 10.into();
            }
            cluster.apply(configuration).await.unwrap();
        }
        let webhook = Self { configurations, bundle: certificate, operator };
        webhook.is_asked(cluster).await;
        webhook
    }

    /// The API server takes up new configurations within a second or so: both kinds of webhook, each in its time.
    async fn is_asked(&self, cluster: &Cluster) {
        let mut moved = session("default", &target("PersistentVolumeClaim", "a"));
        moved["spec"]["rules"] = moved["spec"]["target"]["rules"].take();
        moved["spec"]["target"].as_object_mut().unwrap().remove("rules");
        let mut wrong = session("default", &target("PersistentVolumeClaim", "a"));
        wrong["spec"]["target"]["rules"] = json!([{ "paths": ["relative"] }]);
        eventually("the webhook is asked", SOON * 3, || async {
            let made = cluster.try_apply(&moved).await.unwrap();
            let is_moved = made["spec"]["target"]["rules"].is_array() && made["spec"].get("rules").is_none();
            let is_denied = cluster.try_apply(&wrong).await.is_err();
            if is_moved && is_denied { Ok(()) } else { Err(format!("{:#}", made["spec"])) }
        })
        .await;
    }

    pub async fn remove(self, cluster: &Cluster) {
        self.silence(cluster).await;
    }

    /// The API server asks nobody any more; the operator stays.
    pub async fn silence(&self, cluster: &Cluster) {
        for configuration in &self.configurations {
            cluster.delete(configuration).await;
        }
    }

    /// A client of it that trusts its certificate, as anybody in the network can be.
    pub fn tls(&self) -> tokio_rustls::TlsConnector {
        use rustls::pki_types::pem::PemObject as _;
        let mut roots = rustls::RootCertStore::empty();
        roots.add(rustls::pki_types::CertificateDer::from_pem_slice(&self.bundle).unwrap()).unwrap();
        let config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        std::sync::Arc::new(config).into()
    }
}
