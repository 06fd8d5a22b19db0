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
    token: String,
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
        let installed = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("config/install.yaml")).unwrap();
        let mut configurations: Vec<Value> = lifeboat::yaml::read(&installed).unwrap();
        configurations.retain(|o| o["kind"].as_str().is_some_and(|k| k.ends_with("WebhookConfiguration")));
        assert_eq!(configurations.len(), 2);
        for configuration in &mut configurations {
            for webhook in configuration["webhooks"].as_array_mut().unwrap() {
                webhook["clientConfig"]["service"]["port"] = PORT.into();
                webhook["timeoutSeconds"] = 10.into();
            }
            cluster.apply(configuration).await.unwrap();
        }
        let operator = Operator::start("test", &["--webhook", "true"]);
        operator.leads_within(SOON).await;
        // The operator says whom to trust, and where to ask.
        let is_told = |w: &Value| w["clientConfig"]["caBundle"].is_string();
        let told = |o: &Value| o["webhooks"].as_array().unwrap().iter().all(is_told);
        let last = cluster.until(&configurations[1], "told", told).await;
        let client = &last["webhooks"][0]["clientConfig"];
        let bundle = base64::prelude::BASE64_STANDARD.decode(client["caBundle"].as_str().unwrap()).unwrap();
        assert!(bundle.starts_with(b"-----BEGIN CERTIFICATE"));
        let token = client["service"]["path"].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
        let webhook = Self { configurations, bundle, token, operator };
        webhook.is_asked(cluster).await;
        webhook
    }

    /// Where the API server asks.
    pub fn path(&self, verb: &str, kind: &str) -> String {
        format!("/{verb}/{kind}/{}", self.token)
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

    /// What it answers to a review from somewhere in the network.
    pub async fn ask(&self, path: &str, body: &str) -> String {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let mut stream = self.connect().await.unwrap();
        let length = body.len();
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        // Who is not listened to may be hung up on before he has said all.
        let _ = stream.write_all(body.as_bytes()).await;
        let mut answer = vec![];
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// A connection to it, as anybody in the network can have one who trusts its certificate.
    pub async fn connect(&self) -> std::io::Result<tokio_rustls::client::TlsStream<tokio::net::TcpStream>> {
        use rustls::pki_types::pem::PemObject as _;
        let mut roots = rustls::RootCertStore::empty();
        roots.add(rustls::pki_types::CertificateDer::from_pem_slice(&self.bundle).unwrap()).unwrap();
        let config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let name = rustls::pki_types::ServerName::try_from("lifeboat.lifeboat-system.svc").unwrap();
        let tcp = tokio::net::TcpStream::connect(("127.0.0.1", PORT)).await?;
        tokio_rustls::TlsConnector::from(std::sync::Arc::new(config)).connect(name, tcp).await
    }
}
