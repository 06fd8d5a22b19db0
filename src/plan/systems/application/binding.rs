//! From an AppBinding to a connection: address, TLS, and the Secrets that a Job mounts.
//!
//! Credentials reach a Job as files, mounted by the kubelet, and nowhere else: neither a URL nor an added key may
//! contain one.

use k8s_openapi::api::core::v1::{SecretVolumeSource, Volume, VolumeMount};

use crate::api::app_binding::{AppBindingSpec, SecretTransform, TypedReference};
use crate::contract::application::{Connection, KeyChange, TlsMode};
use crate::contract::{CREDENTIALS_DIR, Class, Failure, MORE_DIR, TLS_DIR};
use crate::names::{reason, volume};
use crate::plan::systems::application::found::Found;

/// Most changes to the keys of a Secret: the task of a Job has room for them.
const MOST_CHANGES: usize = 64;
/// Longest CA bundle in bytes: some hundred certificates would not fit into the task of a Job.
const MOST_CA: usize = 64 << 10;
/// Words in the name of a key whose value is secret.
const SECRET_WORDS: [&str; 4] = ["pass", "token", "secret", "private"];

/// How a Job connects to an application.
///
/// # Errors
/// The AppBinding names no address, or a field of it cannot be used. The error names the field.
pub fn connection(found: Found<'_>) -> Result<Connection, Failure> {
    let spec = found.binding;
    let wrong = |field: &str, text: &str| {
        let text = format!("AppBinding {}: spec.{field} {text}.", found.name);
        Failure::new(Class::Invalid, reason::INVALID, text)
    };
    let address = address(found, &wrong)?;
    for (field, reference) in [("secret", &spec.secret), ("tlsSecret", &spec.tls_secret)] {
        if let Some(kind) = reference.as_ref().and_then(foreign) {
            return Err(wrong(field, &format!("names a {kind}; only a Secret can be mounted")));
        }
    }
    let ca = spec.client_config.ca_bundle.as_ref().filter(|ca| !ca.0.is_empty());
    let ca = ca.map(|ca| String::from_utf8(ca.0.clone())).transpose();
    let ca = ca.map_err(|_| wrong("clientConfig.caBundle", "is not a certificate in PEM format"))?;
    if ca.as_ref().is_some_and(|ca| ca.len() > MOST_CA || !ca.contains("-----BEGIN CERTIFICATE-----")) {
        return Err(wrong("clientConfig.caBundle", "is not a certificate in PEM format of at most 64 KiB"));
    }
    let tls = address.tls.unwrap_or(match (ca.is_some(), spec.client_config.insecure_skip_tls_verify) {
        (_, Some(true)) => TlsMode::Require,
        (true, _) => TlsMode::VerifyFull,
        (false, _) if address.is_tls_scheme => TlsMode::VerifyFull,
        (false, _) => TlsMode::Prefer,
    });
    Ok(Connection {
        binding: found.name.to_owned(),
        host: address.host,
        port: address.port,
        tls,
        ca,
        server_name: spec.client_config.server_name.clone().filter(|n| !n.is_empty()),
        has_credentials: spec.secret.is_some(),
        has_tls_secret: spec.tls_secret.is_some(),
        changes: changes(&spec.secret_transforms, &wrong)?,
        wait: 0,
    })
}

/// The kind of a reference that is not a Secret.
fn foreign(reference: &TypedReference) -> Option<&str> {
    let group = reference.api_group.as_deref().unwrap_or_default();
    (reference.kind != "Secret" || !group.is_empty()).then_some(reference.kind.as_str())
}

struct Address {
    host: String,
    port: u16,
    tls: Option<TlsMode>,
    is_tls_scheme: bool,
}

/// The address: of the Service, or of the URL if there is no Service.
fn address(found: Found<'_>, wrong: &dyn Fn(&str, &str) -> Failure) -> Result<Address, Failure> {
    let config = &found.binding.client_config;
    if let Some(service) = &config.service {
        let namespace = service.namespace.as_deref().filter(|n| !n.is_empty()).unwrap_or(found.namespace);
        let port = u16::try_from(service.port).ok().filter(|p| *p > 0);
        let port = port.ok_or_else(|| wrong("clientConfig.service.port", "is not a port"))?;
        if service.name.is_empty() {
            return Err(wrong("clientConfig.service.name", "is empty"));
        }
        return Ok(Address {
            host: format!("{}.{namespace}.svc", service.name),
            port,
            tls: service.query.as_deref().and_then(tls_of_query),
            is_tls_scheme: is_tls(&service.scheme),
        });
    }
    let url = config.url.as_deref().filter(|u| !u.is_empty());
    let url = url.ok_or_else(|| wrong("clientConfig", "has neither a service nor a url"))?;
    // The format of Go's MySQL driver, which KubeDB writes: tcp(host:port)/database.
    let (scheme, rest) = match url.strip_prefix("tcp(").and_then(|r| r.split_once(')')) {
        Some((authority, rest)) => ("tcp", format!("{authority}{rest}")),
        None => url.split_once("://").map_or(("", url.to_owned()), |(scheme, rest)| (scheme, rest.to_owned())),
    };
    let (before, query) = rest.split_once('?').unwrap_or((&rest, ""));
    let authority = before.split('/').next().unwrap_or_default();
    if authority.contains('@') {
        return Err(wrong("clientConfig.url", "contains a user or a password; use spec.secret"));
    }
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && !host.ends_with(':') => (host, port.parse::<u16>().ok()),
        _ => (authority, default_port(scheme)),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    match port.filter(|p| *p > 0 && !host.is_empty()) {
        Some(port) => {
            Ok(Address { host: host.to_owned(), port, tls: tls_of_query(query), is_tls_scheme: is_tls(scheme) })
        }
        None => Err(wrong("clientConfig.url", "is not an address; write for example postgresql://host:5432")),
    }
}

fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "postgres" | "postgresql" => Some(5432),
        "mysql" | "mariadb" => Some(3306),
        "redis" | "rediss" | "valkey" | "valkeys" => Some(6379),
        _ => None,
    }
}

fn is_tls(scheme: &str) -> bool {
    matches!(scheme, "rediss" | "valkeys")
}

/// What a query says about TLS, in the words of libpq and of Go's MySQL driver.
fn tls_of_query(query: &str) -> Option<TlsMode> {
    let pairs = query.trim_start_matches('?').split('&').filter_map(|p| p.split_once('='));
    let value = pairs.into_iter().find(|(key, _)| matches!(*key, "sslmode" | "tls"))?.1;
    Some(match value {
        "disable" | "false" => TlsMode::Disable,
        "require" | "skip-verify" => TlsMode::Require,
        "verify-ca" => TlsMode::VerifyCa,
        "verify-full" | "true" => TlsMode::VerifyFull,
        _ => TlsMode::Prefer,
    })
}

fn changes(transforms: &[SecretTransform], wrong: &dyn Fn(&str, &str) -> Failure) -> Result<Vec<KeyChange>, Failure> {
    if transforms.len() > MOST_CHANGES {
        return Err(wrong(
            "secretTransforms",
            &format!("has {} entries; {MOST_CHANGES} are possible", transforms.len()),
        ));
    }
    let mut changes = vec![];
    for (i, t) in transforms.iter().enumerate() {
        let at = format!("secretTransforms[{i}]");
        let key = |field: &str, name: &str| {
            let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
            let is_key =
                !name.is_empty() && name.len() <= 253 && name.chars().all(fits) && !name.trim_matches('.').is_empty();
            if is_key { Ok(name.to_owned()) } else { Err(wrong(&format!("{at}.{field}"), "is not a key of a Secret")) }
        };
        let found = [t.rename_key.is_some(), t.add_key.is_some(), t.add_keys_from.is_some(), t.remove_key.is_some()];
        if found.iter().filter(|set| **set).count() != 1 {
            return Err(wrong(&at, "must have one of renameKey, addKey, addKeysFrom and removeKey"));
        }
        if let Some(rename) = &t.rename_key {
            let (from, to) = (key("renameKey.from", &rename.from)?, key("renameKey.to", &rename.to)?);
            changes.push(KeyChange::Rename { from, to });
        } else if let Some(add) = &t.add_key {
            let name = key("addKey.key", &add.key)?;
            let lower = name.to_ascii_lowercase();
            if SECRET_WORDS.iter().any(|word| lower.contains(word)) {
                let text =
                    "would have a secret in the AppBinding and in the Job; put it into a Secret, and use addKeysFrom";
                return Err(wrong(&format!("{at}.addKey.key"), text));
            }
            let bytes = add.value.as_ref().map(|v| String::from_utf8(v.0.clone())).transpose();
            let bytes = bytes.map_err(|_| wrong(&format!("{at}.addKey.value"), "is not text"))?;
            let value = add.string_value.clone().or(bytes).unwrap_or_default();
            changes.push(KeyChange::Add { key: name, value });
        } else if let Some(from) = &t.add_keys_from {
            if from.secret_ref.as_ref().and_then(|r| r.name.as_deref()).is_none_or(str::is_empty) {
                return Err(wrong(&format!("{at}.addKeysFrom.secretRef.name"), "is missing"));
            }
            changes.push(KeyChange::AddFrom(i));
        } else if let Some(remove) = &t.remove_key {
            changes.push(KeyChange::Remove(key("removeKey.key", &remove.key)?));
        }
    }
    Ok(changes)
}

/// The Secrets that a Job mounts for an AppBinding, by name.
pub fn secrets(spec: &AppBindingSpec) -> impl Iterator<Item = &str> {
    let named = [&spec.secret, &spec.tls_secret].into_iter().flatten().map(|r| r.name.as_str());
    let more =
        spec.secret_transforms.iter().filter_map(|t| t.add_keys_from.as_ref()?.secret_ref.as_ref()?.name.as_deref());
    named.chain(more).filter(|n| !n.is_empty())
}

/// Volumes of the Secrets, each with its mount.
pub fn volumes(spec: &AppBindingSpec) -> Vec<(Volume, VolumeMount)> {
    let one = |name: String, secret: &str, path: String| {
        // As for the Secret of the Repository: the files are world-readable, in a pod of one container.
        let source = SecretVolumeSource {
            secret_name: Some(secret.to_owned()),
            default_mode: Some(0o444),
            ..SecretVolumeSource::default()
        };
        let mount =
            VolumeMount { name: name.clone(), mount_path: path, read_only: Some(true), ..VolumeMount::default() };
        (Volume { name, secret: Some(source), ..Volume::default() }, mount)
    };
    let mut all = vec![];
    all.extend(spec.secret.iter().map(|r| one(volume::APPLICATION.to_owned(), &r.name, CREDENTIALS_DIR.to_owned())));
    all.extend(spec.tls_secret.iter().map(|r| one(volume::APPLICATION_TLS.to_owned(), &r.name, TLS_DIR.to_owned())));
    for (i, transform) in spec.secret_transforms.iter().enumerate() {
        let from = transform.add_keys_from.as_ref().and_then(|f| f.secret_ref.as_ref()?.name.as_deref());
        all.extend(from.map(|name| one(format!("{}-{i}", volume::APPLICATION_MORE), name, format!("{MORE_DIR}/{i}"))));
    }
    all
}

#[cfg(test)]
#[allow(clippy::needless_pass_by_value, reason = "json! makes values")]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn of(spec: Value) -> Result<Connection, Failure> {
        let binding: AppBindingSpec = serde_json::from_value(spec).unwrap();
        connection(Found { binding: &binding, name: "db", namespace: "demo", task: None })
    }

    fn at(config: Value) -> (String, u16, TlsMode) {
        let found = of(json!({ "clientConfig": config })).unwrap();
        (found.host, found.port, found.tls)
    }

    #[test]
    fn an_address_is_that_of_the_service_or_of_the_url() {
        let service = json!({ "name": "pg", "port": 5432, "scheme": "postgresql", "query": "sslmode=disable" });
        let both = json!({ "service": service, "url": "postgresql://other:1" });
        assert_eq!(at(both), ("pg.demo.svc".into(), 5432, TlsMode::Disable));
        let elsewhere = json!({ "service": { "name": "pg", "namespace": "store", "port": 1, "scheme": "" } });
        assert_eq!(at(elsewhere).0, "pg.store.svc");
        for (url, host, port, tls) in [
            ("postgresql://pg.example.com:5433/shop?sslmode=verify-full", "pg.example.com", 5433, TlsMode::VerifyFull),
            ("mysql://db/", "db", 3306, TlsMode::Prefer),
            ("tcp(sample-mysql.demo.svc:3306)/", "sample-mysql.demo.svc", 3306, TlsMode::Prefer),
            ("rediss://r", "r", 6379, TlsMode::VerifyFull),
            ("postgresql://[fd00::1]:5432", "fd00::1", 5432, TlsMode::Prefer),
            ("10.0.0.1:3306", "10.0.0.1", 3306, TlsMode::Prefer),
        ] {
            assert_eq!(at(json!({ "url": url })), (host.to_owned(), port, tls), "{url}");
        }
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let pem = "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCg==";
        let config = json!({ "url": "mysql://db" });
        for (spec, field) in [
            (json!({ "clientConfig": {} }), "spec.clientConfig has neither"),
            (json!({ "clientConfig": { "url": "mysql://u:p@db" } }), "spec.clientConfig.url contains a user"),
            (json!({ "clientConfig": { "url": "nowhere" } }), "spec.clientConfig.url is not an address"),
            (json!({ "clientConfig": { "service": { "name": "a", "port": 0, "scheme": "" } } }), "service.port is not"),
            (
                json!({ "clientConfig": { "url": "mysql://db", "caBundle": "aGVsbG8=" } }),
                "clientConfig.caBundle is not",
            ),
            (
                json!({ "clientConfig": config, "secret": { "kind": "Vault", "name": "x" } }),
                "spec.secret names a Vault",
            ),
            (json!({ "clientConfig": config, "secretTransforms": [{}] }), "spec.secretTransforms[0] must have one"),
            (
                json!({ "clientConfig": config, "secretTransforms": [{ "addKey": { "key": "PASSWORD", "stringValue": "p" } }] }),
                "spec.secretTransforms[0].addKey.key would have a secret",
            ),
            (
                json!({ "clientConfig": config, "secretTransforms": [{ "renameKey": { "from": "../x", "to": "a" } }] }),
                "spec.secretTransforms[0].renameKey.from is not a key",
            ),
            (
                json!({ "clientConfig": config, "secretTransforms": [{ "addKeysFrom": {} }] }),
                "secretRef.name is missing",
            ),
        ] {
            let text = of(spec).unwrap_err().message;
            assert!(text.starts_with("AppBinding db: ") && text.contains(field), "{text}");
            assert!(!text.contains(":p@"), "{text}");
        }
        let verified = of(json!({ "clientConfig": { "url": "mysql://db", "caBundle": pem } })).unwrap();
        assert_eq!(verified.tls, TlsMode::VerifyFull);
    }

    #[test]
    fn transforms_keep_their_order_and_their_secrets_are_mounted() {
        let spec = json!({
            "clientConfig": { "url": "mysql://db" }, "secret": { "name": "s" }, "tlsSecret": { "name": "t" },
            "secretTransforms": [
                { "renameKey": { "from": "user", "to": "username" } },
                { "addKeysFrom": { "secretRef": { "name": "more" } } },
                { "addKey": { "key": "username", "value": "cm9vdA==" } },
                { "removeKey": { "key": "x" } },
            ],
        });
        let binding: AppBindingSpec = serde_json::from_value(spec.clone()).unwrap();
        let expected = [
            KeyChange::Rename { from: "user".into(), to: "username".into() },
            KeyChange::AddFrom(1),
            KeyChange::Add { key: "username".into(), value: "root".into() },
            KeyChange::Remove("x".into()),
        ];
        assert_eq!(of(spec).unwrap().changes, expected);
        assert_eq!(secrets(&binding).collect::<Vec<_>>(), ["s", "t", "more"]);
        let paths: Vec<String> = volumes(&binding).into_iter().map(|(_, m)| m.mount_path).collect();
        assert_eq!(paths, [CREDENTIALS_DIR, TLS_DIR, &format!("{MORE_DIR}/1")]);
    }
}
