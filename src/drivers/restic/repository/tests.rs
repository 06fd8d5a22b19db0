use crate::drivers::restic::repository::*;

/// Settings of a user must not change which programs run, which servers restic trusts, where restic reads its
/// credentials, or where it sends them.
///
/// Closes: defect 7 of the second engine, row 6 of the attacks of tenants.
#[test]
fn restic_gets_nothing_that_steers_it() {
    let users = |name: &str| Some(format!("/data/{name}"));
    let names = |ambient| passed_on(ambient, &users).into_iter().map(|(name, _)| name).collect::<Vec<_>>();
    let harmless = ["TZ", "GOMEMLIMIT", "GOMAXPROCS", "GOGC", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"];
    let proxies = ["http_proxy", "https_proxy", "no_proxy"];
    assert_eq!(names(false), [&harmless[..], &proxies].concat());
    let more = names(true).split_off(names(false).len());
    assert_eq!(more, AMBIENT, "a file that a user names is no token of the cloud's");
    for steers in ["PATH", "LD_PRELOAD", "HOME", "TMPDIR", "SSL_CERT_FILE", "GODEBUG", "AWS_ACCESS_KEY_ID"] {
        assert!(!names(true).iter().any(|n| n == steers || n.starts_with("RESTIC_")), "{steers}");
    }
    let token = "/var/run/secrets/eks.amazonaws.com/serviceaccount/token";
    let given = |path: &'static str| move |name: &str| (name == AMBIENT_FILES[0]).then(|| path.to_owned());
    assert_eq!(passed_on(true, &given(token)), [(AMBIENT_FILES[0].to_owned(), token.to_owned())]);
    assert_eq!(passed_on(true, &given("/var/run/secrets/../../../etc/lifeboat/repository/RESTIC_PASSWORD")), []);
}

#[test]
fn endpoints_are_found() {
    let at = |url: &str| endpoint(url).map(|(h, p)| format!("{h} {p}"));
    assert_eq!(at("s3:http://minio.storage:9000/bucket/a").as_deref(), Some("minio.storage 9000"));
    assert_eq!(at("s3:s3.amazonaws.com/bucket").as_deref(), Some("s3.amazonaws.com 443"));
    assert_eq!(at("s3:https://[::1]:9000/b").as_deref(), Some("::1 9000"));
    assert_eq!(at("s3:http://[::1]/b").as_deref(), Some("::1 80"));
    assert_eq!(at("rest:https://u:p@host/").as_deref(), Some("host 443"));
    assert_eq!(at("/lifeboat/repository"), None);
    assert_eq!(at("gs:bucket:/"), None);
    assert_eq!(at("s3:"), None);
}
