//! Location of a repository for messages: bucket, prefix and host, without credentials.

use percent_encoding::percent_decode_str;

use crate::contract::restic::RepositoryAccess;

/// Location of a repository.
#[derive(Clone, Debug, Default)]
pub struct Place {
    /// The bucket; `None` if the repository is on a volume.
    bucket: Option<Bucket>,
    /// There was a repository before.
    known: bool,
}

#[derive(Clone, Debug)]
struct Bucket {
    host: String,
    name: String,
    prefix: String,
}

impl Place {
    /// Location of the repository in a Job's task.
    pub fn of(access: &RepositoryAccess) -> Self {
        Self { bucket: bucket(&access.url), known: access.known }
    }

    /// The bucket or volume exists, without a repository.
    pub fn no_repository(&self) -> String {
        let (at, check) = match &self.bucket {
            Some(b) if b.prefix.is_empty() => (format!("at the root of {b}"), "bucket, prefix and endpoint"),
            Some(b) => (format!("under prefix {} of {b}", b.prefix), "bucket, prefix and endpoint"),
            None => {
                ("in the volume of spec.backend.local".to_owned(), "the volume, what is mounted there, and subPath")
            }
        };
        match (self.known, &self.bucket) {
            (false, _) => format!("there is no repository {at}. Check {check} of the backend."),
            (true, Some(_)) => format!("the repository {at} no longer exists. {}", lost(check, "prefix")),
            (true, None) => format!("the repository {at} no longer exists. {}", lost(check, "subPath")),
        }
    }

    /// The bucket does not exist.
    pub fn no_bucket(&self) -> String {
        let name = self.bucket_name();
        if self.known {
            return format!("{name} no longer exists. {}", lost("bucket, endpoint and region", "bucket"));
        }
        format!(
            "{name} does not exist. Check bucket, endpoint and region of the backend, or create the bucket. With spec.create: Always of the Repository, the first backup creates it."
        )
    }

    /// The name of the bucket is not valid.
    pub fn bad_bucket(&self) -> String {
        format!("{} cannot be used, because its name is not valid. Correct spec.backend.s3.bucket.", self.bucket_name())
    }

    fn bucket_name(&self) -> String {
        self.bucket.as_ref().map_or_else(|| "the bucket".to_owned(), ToString::to_string)
    }
}

impl std::fmt::Display for Bucket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "bucket {} at {}", self.name, self.host)
    }
}

/// Text for a repository that existed before.
fn lost(check: &str, other: &str) -> String {
    format!(
        "A repository existed there before, so backups do not create another one. Check {check} of the backend, and whether the repository was deleted. To start with a new one, set another {other}."
    )
}

fn bucket(url: &str) -> Option<Bucket> {
    let url = url.strip_prefix("s3:")?;
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let (authority, path) = rest.split_once('/')?;
    let host = authority.rsplit('@').next().unwrap_or_default().to_owned();
    let (name, prefix) = path.split_once('/').unwrap_or((path, ""));
    let written = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    Some(Bucket { host, name: written(name), prefix: written(prefix) })
}

/// Host and port of storage that is reached over TCP.
pub fn endpoint(url: &str) -> Option<(String, u16)> {
    let rest = url.strip_prefix("s3:").or_else(|| url.strip_prefix("rest:"))?;
    let (rest, port) = if let Some(rest) = rest.strip_prefix("http://") {
        (rest, 80)
    } else {
        let rest = rest.strip_prefix("https://").or_else(|| rest.strip_prefix("//")).unwrap_or(rest);
        (rest, 443)
    };
    let authority = rest.split('/').next().unwrap_or_default();
    let authority = authority.rsplit('@').next().unwrap_or_default();
    let (host, port) = if let Some(v6) = authority.strip_prefix('[') {
        let (host, after) = v6.split_once(']')?;
        (host, after.strip_prefix(':').map_or(Some(port), |p| p.parse().ok())?)
    } else {
        match authority.split_once(':') {
            Some((host, p)) => (host, p.parse().ok()?),
            None => (authority, port),
        }
    };
    (!host.is_empty()).then(|| (host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(url: &str, known: bool) -> Place {
        Place::of(&RepositoryAccess { url: url.into(), known, ..RepositoryAccess::default() })
    }

    #[test]
    fn what_is_missing_is_named_as_it_is_written_and_without_credentials() {
        let shop = place("s3:http://id:key@minio:9000/shop/team%23a/x%20y", false);
        assert!(shop.no_repository().contains("under prefix team#a/x y of bucket shop at minio:9000."));
        assert!(
            shop.no_bucket().starts_with("bucket shop at minio:9000 does not exist.")
                && shop.no_bucket().contains("spec.create")
        );
        assert!(
            place("s3:s3.amazonaws.com/b", false).no_repository().contains("root of bucket b at s3.amazonaws.com.")
        );
        assert!(place("/lifeboat/repository", false).no_repository().contains("spec.backend.local"));
        for text in [shop.no_repository(), shop.no_bucket(), shop.bad_bucket()] {
            assert!(!text.contains("key") && text.contains("minio:9000"), "{text}");
        }
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

    #[test]
    fn nothing_creates_what_was_there_before() {
        for url in ["s3:http://minio:9000/shop/a", "/lifeboat/repository"] {
            let place = place(url, true);
            for text in [place.no_repository(), place.no_bucket()] {
                assert!(
                    text.contains("no longer exists") && text.contains("A repository existed there before"),
                    "{text}"
                );
                assert!(!text.contains("spec.create"), "{text}");
            }
        }
    }
}
