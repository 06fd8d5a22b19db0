use std::sync::Mutex;

use hyper::body::Incoming;
use hyper::service::service_fn;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::contract::hook::Body;

/// A request as the server got it.
#[derive(Clone, Debug, Default)]
struct Got {
    line: String,
    headers: Vec<(String, String)>,
    body: String,
}

type Log = Arc<Mutex<Vec<Got>>>;

/// Serves: `/status/N`, `/to?URL` and `/keep?URL` as redirects, `/echo` with status 500.
async fn serve(tls: Option<ServerConfig>) -> (u16, Log) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let log = Log::default();
    let kept = log.clone();
    let acceptor = tls.map(|config| TlsAcceptor::from(Arc::new(config)));
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (acceptor, log) = (acceptor.clone(), log.clone());
            tokio::spawn(async move {
                let service = service_fn(move |request| answer(request, log.clone()));
                let http = hyper::server::conn::http1::Builder::new();
                match acceptor {
                    None => drop(http.serve_connection(TokioIo::new(stream), service).await),
                    Some(acceptor) => {
                        if let Ok(stream) = acceptor.accept(stream).await {
                            let _ = http.serve_connection(TokioIo::new(stream), service).await;
                        }
                    }
                }
            });
        }
    });
    (port, kept)
}

async fn answer(request: Request<Incoming>, log: Log) -> Result<hyper::Response<Full<Bytes>>, String> {
    let (parts, body) = request.into_parts();
    let body = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
    let headers = parts.headers.iter().map(|(n, v)| (n.to_string(), v.to_str().unwrap().to_owned())).collect();
    let line = format!("{} {}", parts.method, parts.uri);
    log.lock().unwrap().push(Got { line, headers, body: body.clone() });
    let response = hyper::Response::builder();
    let (path, query) = (parts.uri.path(), parts.uri.query().unwrap_or_default());
    let response = match path.split('/').nth(1).unwrap_or_default() {
        "status" => response.status(path.trim_start_matches("/status/").parse::<u16>().unwrap()),
        "to" => response.status(302).header("location", query),
        "keep" => response.status(307).header("location", query),
        "loop" => response.status(302).header("location", "/loop"),
        _ => response.status(500),
    };
    let said = parts.headers.get("authorization").map(|v| v.to_str().unwrap().to_owned()).unwrap_or_default();
    Ok(response.body(Full::new(format!("you sent {said} {}", "x".repeat(100)).into())).unwrap())
}

fn at(port: u16, path: &str) -> Http {
    Http { address: Address { host: "127.0.0.1".into(), port }, path: path.into(), ..Http::default() }
}

#[tokio::test]
async fn a_status_from_200_to_399_is_a_success() {
    let (port, _) = serve(None).await;
    for (status, passes) in
        [(200, true), (204, true), (304, true), (399, true), (400, false), (404, false), (503, false)]
    {
        let sent = send(&at(port, &format!("/status/{status}")), None).await;
        assert_eq!(sent.is_ok(), passes, "{status}: {sent:?}");
    }
    let refused = send(&at(port, "/status/503"), None).await.unwrap_err();
    assert!(refused.starts_with("status 503: you sent"), "{refused}");
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    assert!(send(&at(closed, "/"), None).await.unwrap_err().contains("refused"));
}

#[tokio::test]
async fn body_and_headers_arrive_as_written_and_the_users_content_type_is_kept() {
    let (port, log) = serve(None).await;
    let mut post = at(port, "/status/200?a=b");
    post.body = Some(Body { kind: Some("application/json".into()), text: "{\"a\":1}".into() });
    post.headers = vec![("X-Mine".into(), "1".into())];
    send(&post, None).await.unwrap();
    post.headers.push(("content-type".into(), "text/odd".into()));
    post.headers.push(("Host".into(), "virtual.example".into()));
    send(&post, None).await.unwrap();
    let got = log.lock().unwrap().clone();
    let header = |n: usize, name: &str| -> Vec<String> {
        got[n].headers.iter().filter(|(k, _)| k == name).map(|(_, v)| v.clone()).collect()
    };
    assert_eq!((got[0].line.as_str(), got[0].body.as_str()), ("POST /status/200?a=b", "{\"a\":1}"));
    assert_eq!((header(0, "x-mine"), header(0, "content-type")), (vec!["1".into()], vec!["application/json".into()]));
    assert_eq!(header(0, "host"), [format!("127.0.0.1:{port}")]);
    assert_eq!(
        (header(1, "content-type"), header(1, "host")),
        (vec!["text/odd".into()], vec!["virtual.example".into()])
    );
}

#[tokio::test]
async fn redirects_of_the_same_host_are_followed_and_others_are_not() {
    let (port, log) = serve(None).await;
    let (other, untouched) = serve(None).await;
    assert_eq!(send(&at(port, "/to?/status/200"), None).await, Ok(None));
    let elsewhere = send(&at(port, &format!("/to?http://localhost:{other}/")), None).await.unwrap().unwrap();
    assert!(elsewhere.contains("another host") && untouched.lock().unwrap().is_empty(), "{elsewhere}");
    assert!(send(&at(port, "/loop"), None).await.unwrap_err().contains("more than 10 redirects"));
    let mut post = at(port, "/keep?/status/200");
    post.body = Some(Body { kind: None, text: "kept".into() });
    log.lock().unwrap().clear();
    send(&post, None).await.unwrap();
    post.path = "/to?/status/200".into();
    send(&post, None).await.unwrap();
    let got = log.lock().unwrap().clone();
    assert_eq!((got[1].line.as_str(), got[1].body.as_str()), ("POST /status/200", "kept"));
    assert_eq!((got[3].line.as_str(), got[3].body.as_str()), ("GET /status/200", ""));
}

#[tokio::test]
async fn no_message_shows_a_header_a_path_or_a_query() {
    let (port, _) = serve(None).await;
    let mut call = at(port, "/echo/T-SECRET?key=Q-SECRET");
    call.headers = vec![("Authorization".into(), "Bearer H-SECRET".into())];
    let said = send(&call, None).await.unwrap_err();
    assert!(!said.contains("SECRET") && said.starts_with("status 500"), "{said}");
    assert!(!call.label().contains("SECRET"), "{}", call.label());
    call.headers = vec![("X".into(), "a\nSECRET".into())];
    let said = send(&call, None).await.unwrap_err();
    assert!(!said.contains("SECRET"), "{said}");
}

fn certificate(names: &[&str]) -> (ServerConfig, String) {
    let key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::new(vec![]).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(ca, key).unwrap();
    let key = KeyPair::generate().unwrap();
    let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
    let own = CertificateParams::new(names).unwrap().signed_by(&key, &ca).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![own.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
        .unwrap();
    (config, ca.pem())
}

#[tokio::test]
async fn tls_is_verified_by_the_ca_of_the_hook_and_the_name_of_the_host() {
    let (config, ca) = certificate(&["localhost"]);
    let (port, log) = serve(Some(config)).await;
    let mut call = Http { tls: true, ..at(port, "/status/200") };
    call.address.host = "localhost".into();
    assert_eq!(send(&call, Some(&ca)).await, Ok(None));
    let unknown = send(&call, None).await.unwrap_err();
    assert!(unknown.starts_with("TLS:") && unknown.contains("caBundle"), "{unknown}");
    let (_, other) = certificate(&["localhost"]);
    assert!(send(&call, Some(&other)).await.unwrap_err().starts_with("TLS:"));
    call.address.host = "127.0.0.1".into();
    let name = send(&call, Some(&ca)).await.unwrap_err();
    assert!(name.starts_with("TLS:"), "the certificate is for another name: {name}");
    assert!(send(&call, Some("-----BEGIN CERTIFICATE-----\nx")).await.unwrap_err().starts_with("caBundle"));
    assert_eq!(log.lock().unwrap().len(), 1, "nothing was sent over a connection that is not trusted");
}
