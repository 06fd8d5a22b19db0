//! What was last written of each object. A watch tells of a write a moment after it;
//! whoever looks in between decides from what is no longer so, and writes into a
//! conflict. Nothing here is needed to go on: an empty memory only costs such a look.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use kube::{Resource, ResourceExt as _};

/// Versions, by uid. Comparable as numbers (Kubernetes API conventions, "Resource versions", since 1.35).
#[derive(Debug, Default)]
pub struct Written(Mutex<HashMap<String, u64>>);

fn version<K: Resource>(object: &K) -> Option<(String, u64)> {
    Some((object.uid()?, object.resource_version()?.parse().ok()?))
}

impl Written {
    /// Takes note of an object as a write gave it back.
    pub fn note<K: Resource>(&self, object: &K) {
        if let Some((uid, version)) = version(object) {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(uid, version);
        }
    }

    /// Whether the object is older than what was written. Its watch will tell.
    pub fn is_outdated<K: Resource>(&self, object: &K) -> bool {
        let Some((uid, seen)) = version(object) else { return false };
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let outdated = all.get(&uid).is_some_and(|written| seen < *written);
        if !outdated {
            all.remove(&uid);
        }
        outdated
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;

    use super::*;

    fn object(uid: &str, version: &str) -> ConfigMap {
        let mut object = ConfigMap::default();
        object.metadata.uid = Some(uid.into());
        object.metadata.resource_version = Some(version.into());
        object
    }

    #[test]
    fn only_what_is_older_than_the_last_write_is_outdated() {
        let written = Written::default();
        assert!(!written.is_outdated(&object("a", "7")), "nothing is known");
        written.note(&object("a", "10"));
        assert!(written.is_outdated(&object("a", "9")) && written.is_outdated(&object("a", "7")));
        assert!(!written.is_outdated(&object("b", "9")));
        assert!(!written.is_outdated(&object("a", "10")));
        assert!(written.0.lock().unwrap().is_empty(), "what has been seen is forgotten");
        written.note(&object("a", "of another kind"));
        assert!(!written.is_outdated(&object("a", "9")));
    }
}
