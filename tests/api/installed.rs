//! The webhook, installed as the chart installs it, on the host that the API server can reach.

use std::fs;
use std::path::Path;

use base64::Engine as _;
use serde_json::{Value, json};

use super::cluster::{Cluster, SOON, eventually};
use super::jobs::{session, target};
use super::operator::{Operator, free_port};

/// The objects that the chart renders, from a file of `config`.
fn installed(file: &str) -> Vec<Value> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    lifeboat::yaml::read(&fs::read_to_string(folder.join(file)).unwrap()).unwrap()
}

/// The objects for some namespaces, with these namespaces in place of those of the file, installed in namespace `home`.
pub fn of_namespaces(home: &str, namespaces: [&str; 2]) -> Vec<Value> {
    let text = json!(installed("namespaces.yaml")).to_string();
    let text = text.replace("team-a", namespaces[0]).replace("team-b", namespaces[1]);
    serde_json::from_str(&text.replace("lifeboat-system", home)).unwrap()
}

/// An operator that leads and serves the webhook for the API server.
pub struct Webhook {
    configurations: Vec<Value>,
    bundle: Vec<u8>,
    token: String,
    host: String,
    pub port: u16,
    pub operator: Operator,
}

impl Webhook {
    pub async fn install(cluster: &Cluster) -> Self {
        Self::install_through(cluster, Path::new(&std::env::var("KUBECONFIG").unwrap())).await
    }

    /// Like [`Self::install`], where the operator has the rights of this kubeconfig.
    pub async fn install_through(cluster: &Cluster, kubeconfig: &Path) -> Self {
        let state = std::env::var("LIFEBOAT_CLUSTER_STATE").expect("make test-api names the cluster's state folder");
        let state = fs::read_to_string(Path::new(&state).join("cluster.json")).unwrap();
        let state: Value = serde_json::from_str(&state).unwrap();
        // The API server resolves the Service of the webhook to the host, on which the operator runs.
        let service = json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": "lifeboat", "namespace": cluster.home },
            "spec": { "type": "ExternalName", "externalName": state["hostAddress"] } });
        cluster.apply(&service).await.unwrap();
        let limits = cluster.limits();
        let mut configurations = match &limits {
            Some(_) => of_namespaces(&cluster.home, ["", ""]),
            None => installed("install.yaml"),
        };
        configurations.retain(|o| o["kind"].as_str().is_some_and(|k| k.ends_with("WebhookConfiguration")));
        assert_eq!(configurations.len(), 2);
        let port = free_port();
        let name = configurations[0]["metadata"]["name"].as_str().unwrap().to_owned();
        for configuration in &mut configurations {
            for webhook in configuration["webhooks"].as_array_mut().unwrap() {
                webhook["clientConfig"]["service"]["port"] = port.into();
                webhook["timeoutSeconds"] = 10.into();
                // Blueprints are cluster-scoped.
                if let Some(values) = webhook.pointer_mut("/namespaceSelector/matchExpressions/0/values") {
                    *values = json!(limits);
                }
            }
            cluster.apply(configuration).await.unwrap();
        }
        let operator = Operator::start_through(
            cluster,
            kubeconfig,
            &[
                "--webhook",
                "true",
                "--webhook-port",
                &port.to_string(),
                "--webhook-configurations",
                &name,
                "--lease-duration",
                "60s",
            ],
        );
        operator.leads_within(SOON).await;
        // The operator sets the CA bundle and the path of the webhook.
        let is_told = |w: &Value| w["clientConfig"]["caBundle"].is_string();
        let told = |o: &Value| o["webhooks"].as_array().unwrap().iter().all(is_told);
        let last = cluster.until(&configurations[1], "told", told).await;
        let client = &last["webhooks"][0]["clientConfig"];
        let bundle = base64::prelude::BASE64_STANDARD.decode(client["caBundle"].as_str().unwrap()).unwrap();
        assert!(bundle.starts_with(b"-----BEGIN CERTIFICATE"));
        let token = client["service"]["path"].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
        let host = format!("lifeboat.{}.svc", cluster.home);
        let webhook = Self { configurations, bundle, token, host, port, operator };
        webhook.is_asked(cluster, true).await;
        webhook
    }

    /// The path that the API server calls.
    pub fn path(&self, verb: &str, kind: &str) -> String {
        format!("/{verb}/{kind}/{}", self.token)
    }

    /// Waits until the API server calls both webhooks, or none of them: each kind of configuration takes about a second
    /// to reach it.
    async fn is_asked(&self, cluster: &Cluster, asked: bool) {
        // Objects of the operator's own namespaces are reviewed, if it has namespaces.
        let namespace = cluster.limits().map_or_else(|| "default".to_owned(), |mut all| all.remove(0));
        let mut moved = session(&namespace, &target("PersistentVolumeClaim", "a"));
        moved["spec"]["rules"] = moved["spec"]["target"]["rules"].take();
        moved["spec"]["target"].as_object_mut().unwrap().remove("rules");
        let mut wrong = session(&namespace, &target("PersistentVolumeClaim", "a"));
        wrong["spec"]["target"]["rules"] = json!([{ "paths": ["relative"] }]);
        eventually("both webhooks are asked, or none", SOON * 3, || async {
            // While only the validating webhook is called, it denies rules that nobody moved.
            let (made, denied) = (cluster.try_apply(&moved).await, cluster.try_apply(&wrong).await.is_err());
            let is_moved = |o: &Value| o["spec"]["target"]["rules"].is_array() && o["spec"].get("rules").is_none();
            let is_so = made.as_ref().is_ok_and(|o| is_moved(o) == asked) && denied == asked;
            if is_so { Ok(()) } else { Err(format!("asked: {asked}, denied: {denied}, made: {made:?}")) }
        })
        .await;
    }

    pub async fn remove(self, cluster: &Cluster) {
        self.silence(cluster).await;
    }

    /// The API server no longer calls the webhook; the operator keeps running.
    pub async fn silence(&self, cluster: &Cluster) {
        for configuration in &self.configurations {
            cluster.delete(configuration).await;
        }
        self.is_asked(cluster, false).await;
    }

    /// The response to a review from another client in the network.
    pub async fn ask(&self, path: &str, body: &str) -> String {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let mut stream = self.connect().await.unwrap();
        let length = body.len();
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        // The webhook may close a refused connection before the request is complete.
        let _ = stream.write_all(body.as_bytes()).await;
        let mut answer = vec![];
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// A connection to the webhook, as any client in the network can open that trusts its certificate.
    pub async fn connect(&self) -> std::io::Result<tokio_rustls::client::TlsStream<tokio::net::TcpStream>> {
        use rustls::pki_types::pem::PemObject as _;
        let mut roots = rustls::RootCertStore::empty();
        roots.add(rustls::pki_types::CertificateDer::from_pem_slice(&self.bundle).unwrap()).unwrap();
        let config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let name = rustls::pki_types::ServerName::try_from(self.host.clone()).unwrap();
        let tcp = tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await?;
        tokio_rustls::TlsConnector::from(std::sync::Arc::new(config)).connect(name, tcp).await
    }
}
