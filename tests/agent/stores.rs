//! Stores that refuse requests, and the keys for stores.

use std::fs;
use std::time::{Duration, Instant};

use lifeboat::contract::Class;
use lifeboat::contract::restic::{Preflight, Prepare, RepositoryAccess, Step};
use lifeboat::names::reason;

use super::site::{Site, work};

/// A store that answers every request with this status and S3 error code. Returns its address and the requests.
pub fn store(status: &'static str, code: &'static str) -> (std::net::SocketAddr, std::sync::mpsc::Receiver<String>) {
    use std::io::{Read, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    let (tell, asked) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, tell) = (stream.unwrap(), tell.clone());
            std::thread::spawn(move || {
                let (mut request, mut buffer) = (Vec::new(), [0; 4096]);
                while !request.windows(4).any(|w| w == b"\r\n\r\n") {
                    match stream.read(&mut buffer) {
                        Ok(n) if n > 0 => request.extend_from_slice(&buffer[..n]),
                        _ => return,
                    }
                }
                let body = format!(
                    "<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>told by the test</Message></Error>"
                );
                let head = format!(
                    "HTTP/1.1 {status}\r\nContent-Type: application/xml\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                    body.len()
                );
                let is_head = request.starts_with(b"HEAD");
                let _ = tell.send(String::from_utf8_lossy(&request).into_owned());
                let _ = stream.write_all(head.as_bytes());
                if !is_head {
                    let _ = stream.write_all(body.as_bytes());
                }
                // Closing with unread data resets the connection, and the response may be lost.
                let _ = stream.shutdown(std::net::Shutdown::Write);
                while matches!(stream.read(&mut buffer), Ok(n) if n > 0) {}
            });
        }
    });
    (at, asked)
}

#[test]
#[ignore = "needs root and restic: make test-agent"]
fn the_keys_of_the_secret_reach_the_store_and_its_refusal_the_user() {
    let site = Site::empty();
    fs::write(site.path("secret/AWS_ACCESS_KEY_ID"), "AKIDEXAMPLE\n").unwrap();
    fs::write(site.path("secret/AWS_SECRET_ACCESS_KEY"), "not#for;the\"log").unwrap();
    fs::write(site.path("secret/AWS_SESSION_TOKEN"), "odd #token; with\"quotes").unwrap();
    let ask = |status, code| {
        let (at, asked) = store(status, code);
        let mut task = site.task(Step::Preflight(Preflight { hosts: vec![], ..Preflight::default() }));
        work(&mut task).repository = RepositoryAccess {
            url: format!("s3:http://{at}/bucket/prefix"),
            region: Some("eu-test-1".into()),
            ..RepositoryAccess::default()
        };
        let ended = site.run_task(&task);
        assert!(!ended.log.contains("not#for;the"), "{}", ended.log);
        (ended, asked.try_iter().collect::<Vec<_>>())
    };
    let (ended, asked) = ask("403 Forbidden", "AccessDenied");
    ended.failed(Class::Invalid, reason::ACCESS_DENIED);
    let request = &asked.iter().find(|r| r.contains("/bucket/")).unwrap_or_else(|| panic!("{asked:?}"));
    assert!(request.contains("Credential=AKIDEXAMPLE/"), "{request}");
    assert!(request.contains("/eu-test-1/s3/"), "{request}");
    assert!(request.to_lowercase().contains("x-amz-security-token: odd #token; with\"quotes"), "{request}");
    let (ended, _) = ask("404 Not Found", "NoSuchBucket");
    let failure = ended.failed(Class::Invalid, reason::BUCKET_MISSING);
    assert!(
        failure.message.contains("bucket bucket at 127.0.0.1:") && failure.message.contains("does not exist"),
        "{}",
        failure.message
    );
}

/// restic creates a missing bucket, and the store here allows every request but finds nothing.
///
/// Closes: B4 of the newcomer.
#[test]
#[ignore = "needs root and restic: make test-agent"]
fn a_missing_bucket_is_not_created_in_passing() {
    let site = Site::empty();
    site.give_keys();
    let cases =
        [(false, Class::Invalid, reason::BUCKET_MISSING, false), (true, Class::Fatal, reason::RESTIC_FAILED, true)];
    for (create_bucket, class, why, creates) in cases {
        let (at, asked) = store("404 Not Found", "NoSuchBucket");
        let mut task = site.task(Step::Prepare(Prepare {}));
        let url = format!("s3:http://{at}/misspelt/prefix");
        let region = Some("eu-test-1".into());
        work(&mut task).repository = RepositoryAccess { url, region, create_bucket, ..RepositoryAccess::default() };
        let failure = site.run_task(&task).failed(class, why).clone();
        assert!(creates || failure.message.contains(&format!("bucket misspelt at {at} does not exist")), "{failure:?}");
        let asked: Vec<String> = asked.try_iter().collect();
        let signed = |r: &String| r.starts_with("HEAD /misspelt HTTP") && r.contains("Credential=AKIDEXAMPLE/");
        assert!(asked.iter().any(signed), "{asked:?}");
        assert_eq!(asked.iter().any(|r| r.starts_with("PUT /misspelt")), creates, "{asked:?}");
    }
}

/// Proves: A08.
#[test]
#[ignore = "needs root and restic: make test-agent"]
fn a_certificate_that_is_not_trusted_is_said_and_a_ca_helps() {
    let site = Site::empty();
    site.give_keys();
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(rustls::crypto::aws_lc_rs::default_provider().into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(std::sync::Arc::new(config));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let at = listener.local_addr().unwrap();
    let (behind, _asked) = store("403 Forbidden", "AccessDenied");
    runtime.spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut tls) = acceptor.accept(stream).await else { return };
                let mut plain = tokio::net::TcpStream::connect(behind).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut tls, &mut plain).await;
            });
        }
    });
    let mut task = site.task(Step::Preflight(Preflight { hosts: vec![], ..Preflight::default() }));
    work(&mut task).repository.url = format!("s3:https://{at}/bucket");
    let started = Instant::now();
    site.run_task(&task).failed(Class::Invalid, reason::TLS_NOT_TRUSTED);
    assert!(started.elapsed() < Duration::from_secs(30), "told after {:?}", started.elapsed());
    fs::write(site.path("secret/CA_CERT_DATA"), made.cert.pem()).unwrap();
    site.run_task(&task).failed(Class::Invalid, reason::ACCESS_DENIED);
    fs::remove_file(site.path("secret/CA_CERT_DATA")).unwrap();
    work(&mut task).repository.insecure_tls = true;
    site.run_task(&task).failed(Class::Invalid, reason::ACCESS_DENIED);
}

/// Variables that the webhook of a cloud adds to a pod reach restic if the Secret has no keys, and only then.
///
/// Closes: B37 of the newcomer.
#[test]
#[ignore = "needs root and restic: make test-agent"]
fn the_role_of_a_pod_reaches_restic_where_the_secret_has_no_keys() {
    const ROLE: [(&str, &str); 4] = [
        ("AWS_ROLE_ARN", "arn:aws:iam::111122223333:role/backup"),
        ("AWS_ROLE_SESSION_NAME", "backup"),
        ("AWS_REGION", "eu-test-1"),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", "/var/run/secrets/eks.amazonaws.com/serviceaccount/token"),
    ];
    let site = Site::empty();
    let (store, _asked) = store("403 Forbidden", "AccessDenied");
    let mut task = site.task(Step::Preflight(Preflight { hosts: vec![], ..Preflight::default() }));
    work(&mut task).repository.url = format!("s3:http://{store}/bucket");
    let program = site.path("shows");
    let seen = site.path("seen");
    fs::write(&program, format!("#!/bin/sh\nenv > {}\nexit 1\n", seen.display())).unwrap();
    fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let environment = || {
        let mut command = site.command(&task.encode(), &[]);
        command.arg("--restic").arg(&program).envs(ROLE);
        site.finish(command.spawn().unwrap()).failure();
        let text = fs::read_to_string(&seen).unwrap();
        ROLE.map(|(name, value)| text.lines().any(|line| line == format!("{name}={value}")))
    };
    assert_eq!(environment(), [true; 4]);
    site.give_keys();
    assert_eq!(environment(), [false; 4]);
}

/// Keys of a role are used on the store. The address that provides them is one of those that clouds put into a pod.
#[test]
#[ignore = "needs root and restic: make test-agent"]
fn keys_of_a_role_are_used_and_without_any_both_ways_are_named() {
    use std::io::{Read as _, Write as _};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let gives = format!("http://{}/role", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let body = r#"{"AccessKeyId":"ROLEKEY","SecretAccessKey":"not-for-the-log","Token":"t","Expiration":"2099-01-01T00:00:00Z","Code":"Success"}"#;
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(format!("{head}{body}").as_bytes());
        }
    });
    let site = Site::empty();
    let (at, asked) = store("403 Forbidden", "AccessDenied");
    let mut task = site.task(Step::Preflight(Preflight { hosts: vec![], ..Preflight::default() }));
    work(&mut task).repository.url = format!("s3:http://{at}/bucket");
    work(&mut task).repository.region = Some("eu-test-1".into());
    let mut command = site.command(&task.encode(), &[]);
    let ended = site.finish(command.env("AWS_CONTAINER_CREDENTIALS_FULL_URI", &gives).spawn().unwrap());
    ended.failed(Class::Invalid, reason::ACCESS_DENIED);
    let requests: Vec<String> = asked.try_iter().collect();
    assert!(requests.iter().any(|r| r.contains("Credential=ROLEKEY/")), "{requests:?}");
    assert!(!ended.log.contains("not-for-the-log"), "{}", ended.log);
    // An address that responds without keys.
    let mut command = site.command(&task.encode(), &[]);
    let none = format!("http://{at}/role");
    let ended = site.finish(command.env("AWS_CONTAINER_CREDENTIALS_FULL_URI", &none).spawn().unwrap());
    let failure = ended.failed(Class::Invalid, reason::ACCESS_DENIED);
    assert!(
        failure.message.contains("AWS_ACCESS_KEY_ID") && failure.message.contains("serviceAccountName"),
        "{}",
        failure.message
    );
}
