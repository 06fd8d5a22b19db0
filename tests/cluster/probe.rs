//! Readiness probes: one small HTTP request each.
//!
//! The supervisor lives in the first node's network namespace, so that it
//! reaches what listens on the cluster's loopback only.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use crate::components::Probe;
use crate::error::{Context, Error, Result};
use crate::layout::Place;

const PATIENCE: Duration = Duration::from_secs(3);

#[derive(Clone)]
pub struct Prober {
    tls: TlsConnector,
}

impl Prober {
    /// A prober that connects to the cluster's servers as its admin.
    pub fn new(place: &Place) -> Result<Self> {
        let pki = place.pki();
        let read = |file: &str| fs::read(pki.join(file)).context(format!("cannot read {file}"));
        let mut roots = rustls::RootCertStore::empty();
        let ca = CertificateDer::from_pem_slice(&read("ca.crt")?).context("bad ca.crt")?;
        roots.add(ca).context("bad ca.crt")?;
        let cert = CertificateDer::from_pem_slice(&read("admin.crt")?).context("bad admin.crt")?;
        let key = PrivateKeyDer::from_pem_slice(&read("admin.key")?).context("bad admin.key")?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .context("no TLS versions")?
            .with_root_certificates(roots)
            .with_client_auth_cert(vec![cert], key)
            .context("bad admin certificate")?;
        Ok(Self { tls: TlsConnector::from(Arc::new(config)) })
    }

    /// Runs all probes in order; the first failure is the reason. `since` is
    /// when the component was started.
    pub async fn check(&self, probes: &[Probe], since: Timestamp) -> Result<()> {
        for probe in probes {
            tokio::time::timeout(PATIENCE, self.one(probe, since))
                .await
                .context(format!("no answer within {} s", PATIENCE.as_secs()))??;
        }
        Ok(())
    }

    async fn one(&self, probe: &Probe, since: Timestamp) -> Result<()> {
        match probe {
            Probe::Http(address, path) => {
                let stream = TcpStream::connect(address).await.context(address)?;
                get(stream, path).await.map(drop)
            }
            Probe::Https(address, path) => self.get(address, path).await.map(drop),
            Probe::Tcp(address) => TcpStream::connect(address).await.context(address).map(drop),
            Probe::Socket(path) => UnixStream::connect(path).await.context(path.display()).map(drop),
            Probe::NodeReady(node) => {
                let body = self.get("127.0.0.1:6443", &format!("/api/v1/nodes/{node}")).await?;
                node_ready(&body, since)
            }
        }
    }

    async fn get(&self, address: &str, path: &str) -> Result<String> {
        let stream = TcpStream::connect(address).await.context(address)?;
        let name = ServerName::try_from("localhost").context("bad server name")?;
        let stream = self.tls.connect(name, stream).await.context(address)?;
        get(stream, path).await
    }
}

/// HTTP/1.0, so that the body ends with the connection.
async fn get(mut stream: impl AsyncRead + AsyncWrite + Unpin, path: &str) -> Result<String> {
    let request = format!("GET {path} HTTP/1.0\r\nHost: localhost\r\nAccept: */*\r\n\r\n");
    stream.write_all(request.as_bytes()).await.context("cannot send")?;
    let mut bytes = Vec::new();
    let end = stream.read_to_end(&mut bytes).await;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return Err(Error::new(format!("no HTTP answer: {end:?}")));
    };
    let status = head.lines().next().unwrap_or_default();
    if status.split(' ').nth(1) == Some("200") {
        Ok(body.to_owned())
    } else {
        let body: String = body.chars().take(300).collect();
        Err(Error::new(format!("{path}: {status}: {}", body.trim())))
    }
}

/// A condition from before the kubelet's start is from an earlier kubelet.
fn node_ready(body: &str, since: Timestamp) -> Result<()> {
    let node: serde_json::Value = serde_json::from_str(body).context("node is not JSON")?;
    let conditions = node["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let ready = conditions.iter().find(|c| c["type"] == "Ready").context("node has no status")?;
    if ready["status"] != "True" {
        return Err(Error::new(format!("node is not ready: {}", ready["message"])));
    }
    let said = ready["lastHeartbeatTime"].as_str().unwrap_or_default();
    let said: Timestamp = said.parse().context("node has no time of its status")?;
    // Times in objects are whole seconds.
    if said.as_second() < since.as_second() {
        return Err(Error::new("node has not reported since the kubelet's start"));
    }
    Ok(())
}
