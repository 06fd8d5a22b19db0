//! Checks whether the bucket of a repository exists, and whether its name is valid. restic cannot distinguish a
//! missing bucket from a missing object: it sends a HEAD request for one object, and the response is 404 in both
//! cases. `restic init` then creates the bucket if the keys allow it.
//!
//! Sends one HEAD request for the bucket, and a GET for the error message if it is rejected. Both are signed with the
//! keys of the backend Secret, if it has any (AWS Signature Version 4). Without keys they are not signed: AWS and
//! most other storage answers unsigned requests with 404 for a missing bucket, and 403 for any other.

use std::time::Duration;

use http_body_util::{BodyExt as _, Limited};
use hyper::{Method, Request, StatusCode, Uri};
use jiff::Timestamp;
use kube::client::Body;
use kube::{Client, Config};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use sha2::{Digest as _, Sha256};

use crate::digest::{hex, hmac};
use crate::text::cut;

/// Timeout of the whole request.
const PATIENCE: Duration = Duration::from_secs(10);
/// Default region, as in restic.
const REGION: &str = "us-east-1";
/// Maximum number of bytes of a response that are read, and of its error message that are reported.
const ANSWER: usize = 16 << 10;
const WORDS: usize = 200;
/// Error code for a bucket name that is not valid.
const BAD_NAME: &str = "InvalidBucketName";

/// Keys of the storage.
#[derive(Clone)]
pub struct Keys {
    /// `AWS_ACCESS_KEY_ID`.
    pub id: String,
    /// `AWS_SECRET_ACCESS_KEY`.
    pub secret: String,
    /// `AWS_SESSION_TOKEN`.
    pub token: Option<String>,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keys")
    }
}

/// A bucket, and the request for it.
#[derive(Clone, Debug)]
pub struct Bucket {
    /// Scheme, host and port.
    origin: String,
    /// Host and port, as the request names them.
    host: String,
    /// Path of the bucket.
    path: String,
    region: String,
    keys: Option<Keys>,
    /// Trusted certificates in PEM, instead of those of the system.
    ca: Option<Vec<u8>>,
    insecure: bool,
}

impl Bucket {
    /// The bucket of a repository; `None` if the repository is not on S3.
    pub fn of(
        url: &str,
        region: Option<&str>,
        keys: Option<Keys>,
        ca: Option<Vec<u8>>,
        insecure: bool,
    ) -> Option<Self> {
        let url = url.strip_prefix("s3:")?;
        let url = if url.contains("://") { url.to_owned() } else { format!("https://{url}") };
        let (scheme, rest) = url.split_once("://")?;
        let mut parts = rest.split('/');
        let (authority, bucket) = (parts.next()?, parts.next().filter(|b| !b.is_empty())?);
        let default = if scheme == "https" { ":443" } else { ":80" };
        Some(Self {
            origin: format!("{scheme}://{authority}"),
            host: authority.strip_suffix(default).unwrap_or(authority).to_owned(),
            path: format!("/{bucket}"),
            region: region.unwrap_or(REGION).to_owned(),
            keys,
            ca,
            insecure,
        })
    }

    /// The storage's answer for the bucket.
    pub async fn look(&self) -> Verdict {
        match tokio::time::timeout(PATIENCE, self.judge()).await {
            Ok(Ok(verdict)) => verdict,
            Ok(Err(error)) => {
                tracing::warn!(error, "the bucket could not be checked");
                Verdict::Unknown
            }
            Err(_) => {
                tracing::warn!("no response to the check of the bucket");
                Verdict::Unknown
            }
        }
    }

    async fn judge(&self) -> Result<Verdict, String> {
        let (status, _) = self.ask(&Method::HEAD, "").await?;
        tracing::info!(%status, "asked for the bucket");
        Ok(match status {
            StatusCode::NOT_FOUND => Verdict::Missing,
            StatusCode::BAD_REQUEST => {
                let (_, text) = self.ask(&Method::GET, "location=").await?;
                refusal(&text).map_or(Verdict::Unknown, Verdict::Refused)
            }
            _ => Verdict::Unknown,
        })
    }

    async fn ask(&self, method: &Method, query: &str) -> Result<(StatusCode, String), String> {
        let origin: Uri = self.origin.parse().map_err(|e| format!("{e}"))?;
        let mut config = Config::new(origin);
        config.connect_timeout = Some(PATIENCE);
        config.accept_invalid_certs = self.insecure;
        if let Some(pem) = &self.ca {
            let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
            let all = all.map_err(|e| format!("CA_CERT_DATA: {e}"))?;
            config.root_cert = Some(all.into_iter().map(|der| der.as_ref().to_vec()).collect());
        }
        let client = Client::try_from(config).map_err(|e| e.to_string())?;
        let uri = if query.is_empty() { self.path.clone() } else { format!("{}?{query}", self.path) };
        let mut request = Request::builder().method(method).uri(uri).header("host", &self.host);
        for (name, value) in self.signed(method, query, &Timestamp::now()) {
            request = request.header(name, value);
        }
        let request = request.body(Body::empty()).map_err(|e| e.to_string())?;
        let answer = client.send(request).await.map_err(|e| e.to_string())?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), ANSWER).collect().await.map_err(|e| e.to_string())?;
        Ok((status, String::from_utf8_lossy(&body.to_bytes()).into_owned()))
    }

    /// Headers with the signature of the request at this time; none without keys.
    fn signed(&self, method: &Method, query: &str, at: &Timestamp) -> Vec<(&'static str, String)> {
        let Some(keys) = &self.keys else { return vec![] };
        let (time, day) = (at.strftime("%Y%m%dT%H%M%SZ").to_string(), at.strftime("%Y%m%d").to_string());
        let body = hex(&Sha256::digest(b""));
        let mut headers =
            vec![("host", self.host.clone()), ("x-amz-content-sha256", body.clone()), ("x-amz-date", time.clone())];
        headers.extend(keys.token.clone().map(|token| ("x-amz-security-token", token)));
        let names = headers.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(";");
        let lines: String = headers.iter().map(|(name, value)| format!("{name}:{}\n", value.trim())).collect();
        let canonical = format!("{method}\n{}\n{query}\n{lines}\n{names}\n{body}", self.path);
        let scope = format!("{day}/{}/s3/aws4_request", self.region);
        let text = format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{}", hex(&Sha256::digest(canonical.as_bytes())));
        let parts = [day.as_str(), &self.region, "s3", "aws4_request", &text];
        let signature = parts
            .iter()
            .fold(format!("AWS4{}", keys.secret).into_bytes(), |key, part| hmac(&key, part.as_bytes()).to_vec());
        let authorization = format!(
            "AWS4-HMAC-SHA256 Credential={}/{scope}, SignedHeaders={names}, Signature={}",
            keys.id,
            hex(&signature)
        );
        headers.retain(|(name, _)| *name != "host");
        headers.push(("authorization", authorization));
        headers
    }
}

/// The storage's answer for a bucket.
#[derive(Debug, PartialEq)]
pub enum Verdict {
    /// The bucket does not exist.
    Missing,
    /// The name is not valid; the error message of the storage.
    Refused(String),
    /// Any other answer, or none.
    Unknown,
}

/// Code and message of a response that rejects the name of the bucket.
fn refusal(answer: &str) -> Option<String> {
    let element = |name: &str| {
        let (_, rest) = answer.split_once(&format!("<{name}>"))?;
        Some(rest.split_once(&format!("</{name}>"))?.0.trim())
    };
    let code = element("Code").filter(|code| *code == BAD_NAME)?;
    let mut words = element("Message").map_or_else(|| code.to_owned(), |said| format!("{code}: {said}"));
    cut(&mut words, WORDS);
    Some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bucket_is_read_from_the_url() {
        let of =
            |url: &str| Bucket::of(url, None, None, None, false).map(|b| format!("{} {} {}", b.origin, b.host, b.path));
        assert_eq!(of("s3:http://minio:9000/b/a/c").as_deref(), Some("http://minio:9000 minio:9000 /b"));
        assert_eq!(
            of("s3:https://s3.amazonaws.com:443/b").as_deref(),
            Some("https://s3.amazonaws.com:443 s3.amazonaws.com /b")
        );
        assert_eq!(of("s3:s3.amazonaws.com/b").as_deref(), Some("https://s3.amazonaws.com s3.amazonaws.com /b"));
        assert_eq!((of("/lifeboat/repository"), of("s3:http://minio"), of("rest:http://h/")), (None, None, None));
    }

    #[test]
    fn only_a_name_that_is_refused_is_no_bucket() {
        let answer =
            |code: &str| format!("<?xml?>\n<Error><Code>{code}</Code><Message>It is not valid.</Message></Error>");
        assert_eq!(refusal(&answer("InvalidBucketName")).as_deref(), Some("InvalidBucketName: It is not valid."));
        assert_eq!(
            (refusal(&answer("ExpiredToken")), refusal(""), refusal("<Code>InvalidBucketName")),
            (None, None, None)
        );
    }

    #[test]
    fn no_key_is_in_what_is_logged() {
        let keys = Keys { id: "id-7".into(), secret: "secret-7".into(), token: Some("token-7".into()) };
        let bucket = Bucket::of("s3:http://h/b", None, Some(keys), None, false).unwrap();
        let headers = bucket.signed(&Method::HEAD, "", &Timestamp::UNIX_EPOCH);
        assert!(!format!("{bucket:?}").contains("-7") && !format!("{headers:?}").contains("secret-7"));
        assert!(
            headers.iter().any(|(_, v)| v.contains("Credential=id-7/19700101/us-east-1/s3/aws4_request")),
            "{headers:?}"
        );
    }
}
