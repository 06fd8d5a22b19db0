//! The webhook's seal on an object whose author was allowed what its fields ask for.
//!
//! The controller cannot ask who wrote an object, and any annotation can be written by its author. So the seal is an
//! HMAC (RFC 2104, SHA-256) over the namespace, the kind, the name and those fields, with a key that only the operator
//! has. It holds for another object with the same fields only if that has the same name. The name of an object with
//! `generateName` is not known yet when the webhook sees it: its seal is over all of its spec, and holds for copies.

use serde_json::Value;

use crate::admission::validate::canonical;
use crate::digest::{hex, hmac};
use crate::names::annotation;
use crate::plan::work::rights::{Ask, content};

/// Bytes of a key: as many as the hash has (RFC 2104, section 3).
pub const KEY: usize = 32;

/// The operator's key. Not printed anywhere.
#[derive(Clone)]
pub struct Key([u8; KEY]);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key")
    }
}

impl Key {
    /// The key with these bytes.
    pub const fn new(bytes: [u8; KEY]) -> Self {
        Self(bytes)
    }

    /// The seal of an object in `namespace` for what it asks for.
    pub fn seal(&self, kind: &str, namespace: &str, object: &Value, asks: &[Ask]) -> String {
        let name = text(object, "name").map(|name| format!("name {name}"));
        self.of(kind, namespace, &name.or_else(|| generated(kind, object)).unwrap_or_default(), asks)
    }

    /// Whether an object carries the seal for what it asks for.
    pub fn holds(&self, kind: &str, namespace: &str, object: &Value, asks: &[Ask]) -> bool {
        let Some(found) = sealed(object) else { return false };
        let name = text(object, "name").map(|n| format!("name {n}"));
        let names = name.into_iter().chain(generated(kind, object));
        // Whether one of them is it, whatever the others say.
        names.fold(false, |holds, name| holds | is_same(&self.of(kind, namespace, &name, asks), found))
    }

    /// The part of the webhook's paths that only the API server is told: who asks without it is somebody else.
    pub fn path_token(&self) -> String {
        // No text that is sealed begins so: those begin with a length.
        hex(&hmac(&self.0, b"path of the webhook"))
    }

    fn of(&self, kind: &str, namespace: &str, name: &str, asks: &[Ask]) -> String {
        let mut text = Vec::new();
        for part in [kind, namespace, name, &content(asks)] {
            text.extend(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            text.extend(part.as_bytes());
        }
        let digest = hmac(&self.0, &text);
        base64::Engine::encode(&base64::prelude::BASE64_STANDARD, digest)
    }
}

/// The seal on an object, whether it holds or not.
pub fn sealed(object: &Value) -> Option<&str> {
    object.get("metadata")?.get("annotations")?.get(annotation::SEAL)?.as_str()
}

fn text<'a>(object: &'a Value, field: &str) -> Option<&'a str> {
    object.get("metadata")?.get(field)?.as_str().filter(|t| !t.is_empty())
}

/// What stands in place of a name that is not given yet.
fn generated(kind: &str, object: &Value) -> Option<String> {
    let begin = text(object, "generateName")?;
    let spec = canonical(kind, object)?.get("spec")?.to_string();
    Some(format!("generateName {begin} {spec}"))
}

/// In a time that tells nothing of where they differ.
pub(super) fn is_same(a: &str, b: &str) -> bool {
    a.len() == b.len() && a.bytes().zip(b.bytes()).fold(0, |all, (a, b)| all | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::work::rights::asked;
    use serde_json::json;

    #[test]
    fn the_path_is_of_the_key() {
        let path = Key::new([7; KEY]).path_token();
        assert!(path.len() == 64 && path.bytes().all(|b| b.is_ascii_hexdigit()), "{path}");
        assert_ne!(path, Key::new([8; KEY]).path_token());
    }

    #[test]
    fn it_holds_for_the_object_and_nothing_else() {
        let key = Key::new([7; KEY]);
        let object = |metadata: Value, node: &str| json!({ "metadata": metadata, "spec": { "runtimeSettings": { "pod": { "nodeName": node } } } });
        let sealed = |mut object: Value, seal: &str| {
            object["metadata"]["annotations"][annotation::SEAL] = seal.into();
            object
        };
        let holds = |key: &Key, kind: &str, namespace: &str, object: &Value| {
            key.holds(kind, namespace, object, &asked("RestoreSession", object))
        };
        let named = object(json!({ "name": "a" }), "n1");
        let seal = key.seal("RestoreSession", "demo", &named, &asked("RestoreSession", &named));
        let good = sealed(named.clone(), &seal);
        assert!(holds(&key, "RestoreSession", "demo", &good));
        assert!(!holds(&key, "RestoreSession", "demo", &named), "no seal");
        assert!(!holds(&key, "RestoreSession", "other", &good));
        assert!(!holds(&key, "RestoreBatch", "demo", &good));
        assert!(!holds(&Key::new([8; KEY]), "RestoreSession", "demo", &good));
        assert!(!holds(&key, "RestoreSession", "demo", &sealed(object(json!({ "name": "a" }), "n2"), &seal)));
        assert!(!holds(&key, "RestoreSession", "demo", &sealed(object(json!({ "name": "b" }), "n1"), &seal)));
        assert!(!holds(&key, "RestoreSession", "demo", &sealed(named, "")));

        let generated = object(json!({ "generateName": "a-" }), "n1");
        let seal = key.seal("RestoreSession", "demo", &generated, &asked("RestoreSession", &generated));
        let stored = object(json!({ "generateName": "a-", "name": "a-x7k2p" }), "n1");
        assert!(holds(&key, "RestoreSession", "demo", &sealed(stored, &seal)));
        let other = object(json!({ "name": "a-" }), "n1");
        assert!(!holds(&key, "RestoreSession", "demo", &sealed(other, &seal)));
    }
}
