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
