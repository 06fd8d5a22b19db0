//! One HTTP request of a hook, and the redirects of the same host that follow it.
//!
//! TLS is always verified, with the certificates of the system and those of the hook. A proxy of the environment is not
//! used. A status from 200 to 399 is a success, as in a probe of Kubernetes; a redirect to another host is one too, and
//! is not followed.

use std::sync::Arc;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HOST, LOCATION, USER_AGENT};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::contract::hook::{Address, Http};
use crate::drivers::hook::output;
use crate::drivers::hook::redirect::{Next, follow};

/// Redirects that are followed, as in a probe of Kubernetes.
const REDIRECTS: usize = 10;
/// Bytes of a response that are read, to show the begin of an error.
const READ: usize = 512;
/// Name of the client.
const AGENT: &str = concat!("lifeboat-hook/", env!("CARGO_PKG_VERSION"));

/// Sends the request. `ca` is in PEM. Returns what is worth reporting, although it is a success.
///
/// # Errors
/// No response, or not one of a success; why.
pub async fn send(request: &Http, ca: Option<&str>) -> Result<Option<String>, String> {
    let mut next = request.clone();
    for _ in 0..=REDIRECTS {
        let response = once(&next, ca).await?;
        let status = response.status;
        let Some(location) = response.location.filter(|_| status.is_redirection()) else {
            return judge(status, &response.begin, request);
        };
        let keeps =
            matches!(status, StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT) || next.body.is_none();
        match follow(&next, &location, keeps) {
            Next::Follow(following) => next = *following,
            Next::Elsewhere => {
                return Ok(Some(format!("{} redirects to another host, which was not followed.", next.label())));
            }
            Next::Unreadable => return Err(format!("status {}, with a Location that is no URL.", status.as_u16())),
        }
    }
    Err(format!("more than {REDIRECTS} redirects."))
}

fn judge(status: StatusCode, begin: &str, request: &Http) -> Result<Option<String>, String> {
    if status.is_success() || status.is_redirection() {
        return Ok(None);
    }
    let secrets: Vec<&str> = request.headers.iter().flat_map(|(_, value)| value.split(' ').chain([&**value])).collect();
    let said = output::redact(begin.trim(), &secrets);
    let said = if said.is_empty() { String::new() } else { format!(": {said}") };
    Err(format!("status {}{said}.", status.as_u16()))
}

/// What is read of a response.
struct Response {
    status: StatusCode,
    location: Option<String>,
    begin: String,
}

async fn once(http: &Http, ca: Option<&str>) -> Result<Response, String> {
    let Address { host, port } = &http.address;
    let stream = TcpStream::connect((host.as_str(), *port)).await.map_err(|e| format!("{e}."))?;
    if !http.tls {
        return over(stream, http).await;
    }
    let name = ServerName::try_from(host.clone()).map_err(|_| format!("{host:?} is not a name for TLS."))?;
    let connector = TlsConnector::from(Arc::new(trust(ca)?));
    let stream = connector.connect(name, stream).await.map_err(|e| {
        format!("TLS: {e}. The certificate must be valid for {host}; caBundle of the hook can name its CA.")
    })?;
    over(stream, http).await
}

/// The certificates that are trusted.
fn trust(ca: Option<&str>) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    // What cannot be read of the system's certificates is left out; an image may have none.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    for der in CertificateDer::pem_slice_iter(ca.unwrap_or_default().as_bytes()) {
        let der = der.map_err(|e| format!("caBundle: {e}."))?;
        roots.add(der).map_err(|e| format!("caBundle: {e}."))?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    Ok(config.map_err(|e| format!("TLS: {e}."))?.with_root_certificates(roots).with_no_client_auth())
}

async fn over<S>(stream: S, http: &Http) -> Result<Response, String>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let shaken = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = shaken.map_err(|e| format!("{e}."))?;
    let connection = tokio::spawn(connection);
    let answer = async {
        let response = sender.send_request(request(http)?).await.map_err(|e| format!("no response: {e}."))?;
        let location = response.headers().get(LOCATION).and_then(|l| l.to_str().ok()).map(str::to_owned);
        let status = response.status();
        // A longer body is cut off with its connection.
        let begin = Limited::new(response.into_body(), READ).collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        Ok(Response { status, location, begin: String::from_utf8_lossy(&begin).into_owned() })
    };
    let answer = answer.await;
    connection.abort();
    answer
}

fn request(http: &Http) -> Result<Request<Full<Bytes>>, String> {
    let is = |name: &str, header: &hyper::header::HeaderName| name.eq_ignore_ascii_case(header.as_str());
    let method = if http.body.is_some() { Method::POST } else { Method::GET };
    let mut request = Request::builder().method(method).uri(&http.path);
    for (name, value) in &http.headers {
        request = request.header(name, value);
    }
    let has = |header| http.headers.iter().any(|(name, _)| is(name, header));
    if !has(&HOST) {
        let default = if http.tls { 443 } else { 80 };
        let full = http.address.to_string();
        let short = full.strip_suffix(&format!(":{default}")).map(str::to_owned);
        request = request.header(HOST, short.unwrap_or(full));
    }
    if !has(&USER_AGENT) {
        request = request.header(USER_AGENT, AGENT);
    }
    let body = http.body.clone().unwrap_or_default();
    if let Some(kind) = body.kind.filter(|_| !has(&CONTENT_TYPE)) {
        request = request.header(CONTENT_TYPE, kind);
    }
    // The error would show the value of the header.
    request.body(Full::new(body.text.into())).map_err(|_| "a path or a header is not valid HTTP.".to_owned())
}

#[cfg(test)]
mod tests;
