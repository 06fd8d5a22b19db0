//! How a Job reaches the repository of a Repository.

use k8s_openapi::api::core::v1::Volume;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::api::repository::{Backend, CreateBucket, RepositorySpec};
use crate::api::to_json;
use crate::contract::SecretPlace;
use crate::contract::restic::{LOCAL_REPOSITORY_DIR, RepositoryAccess};
use crate::contract::{Class, Failure};
use crate::names::{hash_of, reason};
use crate::plan::run::hosts::{is_within, normal_path, parts};

/// How a Job reaches a repository.
#[derive(Clone, Debug, PartialEq)]
pub struct Access {
    /// The Repository, by namespace and name.
    pub display: String,
    /// What the agent is told.
    pub told: RepositoryAccess,
    /// Secret with the password and the store's credentials.
    pub secret: String,
    /// Volume that holds the repository, and the folder in it.
    pub local: Option<(Volume, Option<String>)>,
}

impl Access {
    /// Hash that distinguishes two places of a run. Unlike in [`place`], endpoints count here: two endpoints can lead
    /// to two stores, and a run that is half in each of them is not a whole run.
    pub fn place(&self) -> String {
        hash_of(&[&self.told.url, &to_json(&self.local).to_string()])
    }

    /// The access for Jobs in another namespace than the Repository's, `home`: they can mount neither its Secret nor
    /// its claim.
    ///
    /// # Errors
    /// The repository is on a claim.
    pub fn elsewhere(mut self, home: &str, display: &str, namespace: &str) -> Result<Self, Failure> {
        let claim = self.local.as_ref().and_then(|(volume, _)| volume.persistent_volume_claim.as_ref());
        if let Some(claim) = claim {
            let text = format!(
                "Repository {display} is on PersistentVolumeClaim {}, which only pods of namespace {home} can mount, so it cannot be used from namespace {namespace}. Use storage such as S3, or a hostPath or NFS volume.",
                claim.claim_name
            );
            return Err(Failure::new(Class::Invalid, reason::REPOSITORY_NOT_AVAILABLE, text));
        }
        self.told.secret = Some(SecretPlace { namespace: home.to_owned(), name: self.secret.clone() });
        Ok(self)
    }
}

/// Works out how to reach a repository.
///
/// # Errors
/// The Repository names no supported backend, or no Secret.
pub fn of(spec: &RepositorySpec, display: &str) -> Result<Access, Failure> {
    let wrong = |reason, text: String| Failure::new(Class::Invalid, reason, format!("Repository {display}: {text}"));
    let backend = spec.backend.clone().unwrap_or_default();
    let secret = backend
        .storage_secret_name
        .filter(|s| !s.is_empty())
        .ok_or_else(|| wrong(reason::INVALID, "spec.backend.storageSecretName is missing.".into()))?;
    if let Some(local) = backend.local {
        let volume = local
            .volume("repository")
            .map_err(|e| wrong(reason::INVALID, format!("spec.backend.local is not a valid volume: {e}.")))?;
        let told = RepositoryAccess { url: LOCAL_REPOSITORY_DIR.to_owned(), ..RepositoryAccess::default() };
        let sub_path = local.sub_path.map(|s| s.trim_matches('/').to_owned()).filter(|s| !s.is_empty());
        return Ok(Access { display: display.to_owned(), told, secret, local: Some((volume, sub_path)) });
    }
    if let Some(s3) = backend.s3 {
        let told = RepositoryAccess {
            url: s3_url(&s3.endpoint, &s3.bucket, s3.prefix.as_deref().unwrap_or_default()),
            region: s3.region.filter(|r| !r.is_empty()),
            insecure_tls: s3.insecure_tls.unwrap_or(false),
            create_bucket: spec.create == CreateBucket::Always,
            ..RepositoryAccess::default()
        };
        return Ok(Access { display: display.to_owned(), told, secret, local: None });
    }
    let named = [
        (backend.gcs.is_some(), "gcs"),
        (backend.azure.is_some(), "azure"),
        (backend.swift.is_some(), "swift"),
        (backend.b2.is_some(), "b2"),
        (backend.rest.is_some(), "rest"),
    ];
    Err(named.iter().find(|(set, _)| *set).map_or_else(
        || wrong(reason::INVALID, "spec.backend is empty; set local or s3.".into()),
        |(_, name)| wrong(reason::NOT_SUPPORTED, format!("spec.backend.{name} is not supported yet; use local or s3.")),
    ))
}

/// Whether data of this backend can be removed with its Repository.
pub fn can_be_wiped(backend: &Backend) -> bool {
    backend.s3.is_some() && backend.local.is_none()
}

/// Bucket and prefix of a backend in one text; `None` for a volume.
pub fn store(backend: &Backend) -> Option<String> {
    let s3 = backend.s3.as_ref()?;
    Some(format!("{}{}", s3.bucket, normal_path(s3.prefix.as_deref().unwrap_or_default())))
}

/// Text that distinguishes two places of repositories: bucket and prefix, or the volume and the folder in it. Endpoints
/// do not count: two endpoints can lead to the same store.
pub fn place(backend: &Backend) -> Option<String> {
    let Some(local) = &backend.local else { return store(backend) };
    let volume = local.volume("repository").ok()?;
    let folder = normal_path(local.sub_path.as_deref().unwrap_or_default());
    Some(format!("volume-{}", hash_of(&[&to_json(&volume).to_string(), &folder])))
}

/// Whether two backends could share data: they have the same bucket, and one prefix is within the other. Two endpoints
/// can be two names of one store, so they do not count.
pub fn could_share_data(a: &Backend, b: &Backend) -> bool {
    let (Some(a), Some(b)) = (&a.s3, &b.s3) else { return false };
    let (one, other) =
        (normal_path(a.prefix.as_deref().unwrap_or_default()), normal_path(b.prefix.as_deref().unwrap_or_default()));
    a.bucket == b.bucket && (is_within(&one, &other) || is_within(&other, &one))
}

/// Characters that are encoded in a path of a URL: all except "unreserved" characters (RFC 3986). restic decodes them
/// again, so that the data is at the prefix as it is written. Without encoding, `#` and `?` would cut the prefix off,
/// and two repositories would be one.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The URL as restic expects it. A leading slash of the prefix, common in published manifests, makes no difference.
fn s3_url(endpoint: &str, bucket: &str, prefix: &str) -> String {
    let scheme = if endpoint.contains("://") { "" } else { "https://" };
    let path: Vec<String> =
        [bucket, prefix].into_iter().flat_map(parts).map(|p| utf8_percent_encode(p, ENCODED).to_string()).collect();
    format!("s3:{scheme}{}/{}", endpoint.trim_end_matches('/'), path.join("/"))
}

#[cfg(test)]
#[allow(clippy::needless_pass_by_value, reason = "json! makes values")]
mod tests {
    use super::*;

    fn spec(backend: serde_json::Value) -> RepositorySpec {
        serde_json::from_value(serde_json::json!({ "backend": backend })).unwrap()
    }

    #[test]
    fn a_prefix_means_the_same_with_or_without_slashes() {
        for prefix in ["demo/a", "/demo/a", "/demo/a/", "//demo//a"] {
            assert_eq!(s3_url("http://minio:9000/", "b", prefix), "s3:http://minio:9000/b/demo/a");
        }
        assert_eq!(s3_url("s3.amazonaws.com", "b", ""), "s3:https://s3.amazonaws.com/b");
        assert_eq!(s3_url("http://minio:9000", "b", "./demo/./a"), "s3:http://minio:9000/b/demo/a");
    }

    /// Closes: R16 of the reports.
    #[test]
    fn a_prefix_is_kept_as_it_is_written() {
        let url = |prefix: &str| s3_url("http://minio:9000", "shop", prefix);
        assert_eq!(url("team#a/x"), "s3:http://minio:9000/shop/team%23a/x");
        assert_eq!(url("team?a=b&c;d"), "s3:http://minio:9000/shop/team%3Fa%3Db%26c%3Bd");
        assert_eq!(url("team%20a b+c\\d"), "s3:http://minio:9000/shop/team%2520a%20b%2Bc%5Cd");
        assert_eq!(url("日é~-_.@:"), "s3:http://minio:9000/shop/%E6%97%A5%C3%A9~-_.%40%3A");
        assert_eq!(s3_url("minio", "sh#op", ""), "s3:https://minio/sh%23op");
    }

    #[test]
    fn data_could_be_shared_by_nested_prefixes_of_one_bucket() {
        let s3 = |endpoint: &str, bucket: &str, prefix: &str| {
            spec(serde_json::json!({ "s3": { "endpoint": endpoint, "bucket": bucket, "prefix": prefix } }))
                .backend
                .unwrap()
        };
        let mine = s3("http://minio:9000", "b", "/demo/a/");
        for (endpoint, bucket, prefix, shared) in [
            ("http://minio:9000", "b", "demo/a", true),
            ("https://minio.storage.svc", "b", "demo/a", true),
            ("http://minio:9000", "b", "demo", true),
            ("http://minio:9000", "b", "", true),
            ("http://minio:9000", "b", "demo//a/deployment/x", true),
            ("http://minio:9000", "b", "demo/ab", false),
            ("http://minio:9000", "c", "demo/a", false),
        ] {
            let other = s3(endpoint, bucket, prefix);
            assert_eq!(
                (could_share_data(&mine, &other), could_share_data(&other, &mine)),
                (shared, shared),
                "{prefix}"
            );
        }
        let local = spec(serde_json::json!({ "local": { "mountPath": "/x" } })).backend.unwrap();
        assert!(!could_share_data(&mine, &local) && can_be_wiped(&mine) && !can_be_wiped(&local));
    }

    #[test]
    fn places_are_told_apart_by_what_holds_the_data() {
        let at = |backend: serde_json::Value| place(&spec(backend).backend.unwrap());
        let s3 = |endpoint: &str, prefix: &str| {
            at(serde_json::json!({ "s3": { "endpoint": endpoint, "bucket": "b", "prefix": prefix } }))
        };
        assert_eq!((s3("e", "/a/"), s3("e", "a")), (Some("b/a".into()), s3("other", "a")));
        assert_ne!(s3("e", "a"), s3("e", "a/c"));
        let local = |mount: &str, sub: &str, claim: &str| {
            at(
                serde_json::json!({ "local": { "subPath": sub, "persistentVolumeClaim": { "claimName": claim }, "mountPath": mount } }),
            )
        };
        assert_eq!(local("/a", "x", "c"), local("/b", "/x/", "c"));
        let turned = serde_json::json!({ "local": { "persistentVolumeClaim": { "claimName": "c" }, "subPath": "x", "mountPath": "/a" } });
        assert_eq!(local("/a", "x", "c"), at(turned), "whatever the order");
        assert!(local("/a", "x", "c") != local("/a", "y", "c") && local("/a", "x", "c") != local("/a", "x", "d"));
        assert_eq!(at(serde_json::json!({})), None);
    }

    #[test]
    fn a_run_tells_places_apart_by_where_they_are_and_not_by_how_they_are_opened() {
        let at = |secret: &str, backend: serde_json::Value| {
            let mut spec = spec(backend);
            spec.backend.as_mut().unwrap().storage_secret_name = Some(secret.into());
            of(&spec, "n/r").unwrap().place()
        };
        let s3 = |endpoint: &str, bucket: &str, prefix: &str| {
            at("s", serde_json::json!({ "s3": { "endpoint": endpoint, "bucket": bucket, "prefix": prefix } }))
        };
        let same = serde_json::json!({ "s3": { "endpoint": "e/", "bucket": "b", "prefix": "/a/", "region": "r", "insecureTLS": true } });
        assert_eq!(s3("e", "b", "a"), at("other", same));
        let others = [s3("f", "b", "a"), s3("e", "c", "a"), s3("e", "b", "a/b"), s3("http://e", "b", "a")];
        assert!(others.iter().all(|other| *other != s3("e", "b", "a")));
        let local = |claim: &str, folder: &str| {
            let claim = serde_json::json!({ "claimName": claim });
            at(
                "s",
                serde_json::json!({ "local": { "mountPath": "/x", "subPath": folder, "persistentVolumeClaim": claim } }),
            )
        };
        assert_eq!(local("c", "/a/"), local("c", "a"));
        assert!(local("c", "a") != local("d", "a") && local("c", "a") != local("c", "b"));
    }

    #[test]
    fn a_volume_is_mounted_at_our_place() {
        let access = of(
            &spec(serde_json::json!({ "storageSecretName": "s", "local": { "mountPath": "/safe", "subPath": "/a/", "hostPath": { "path": "/x" } } })),
            "n/r",
        )
        .unwrap();
        assert_eq!(access.told.url, LOCAL_REPOSITORY_DIR);
        let (volume, sub_path) = access.local.unwrap();
        assert_eq!((volume.host_path.unwrap().path.as_str(), sub_path.as_deref()), ("/x", Some("a")));

        let share = serde_json::json!({ "server": "files.example.com", "path": "/exports/r" });
        let local = serde_json::json!({ "mountPath": "/safe", "nfs": share });
        let access = of(&spec(serde_json::json!({ "storageSecretName": "s", "local": local })), "n/r").unwrap();
        assert_eq!(serde_json::to_value(access.local.unwrap().0.nfs).unwrap(), share);
    }

    #[test]
    fn what_is_not_built_says_so_and_names_the_field() {
        let gcs =
            of(&spec(serde_json::json!({ "storageSecretName": "s", "gcs": { "bucket": "b" } })), "n/r").unwrap_err();
        assert_eq!(gcs.reason, reason::NOT_SUPPORTED);
        assert!(gcs.message.contains("spec.backend.gcs"));
        assert!(
            of(&spec(serde_json::json!({ "storageSecretName": "s" })), "n/r")
                .unwrap_err()
                .message
                .contains("spec.backend is empty")
        );
        assert!(of(&spec(serde_json::json!({})), "n/r").unwrap_err().message.contains("storageSecretName"));
    }
}
