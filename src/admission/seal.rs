//! The webhook's seal on an object whose author has the permissions for its fields.
//!
//! The controller does not know the author of an object, and the author can write any annotation. Therefore the seal
//! is an HMAC (RFC 2104, SHA-256) over the namespace, the kind, the name and those fields, with a key that only the
//! operator has. It is valid for another object with the same fields only if the name is the same. The name of an
//! object with `generateName` is not known when the webhook is called: its seal is over the whole spec, and is valid
//! for copies.

use serde_json::Value;

use crate::admission::validate::canonical;
use crate::digest::{hex, hmac};
use crate::names::annotation;
use crate::plan::work::rights::{Ask, content};

/// Length of a key in bytes: that of the hash (RFC 2104, section 3).
pub const KEY: usize = 32;

/// The operator's key. Never printed.
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

    /// The seal of an object in `namespace` for its fields.
    pub fn seal(&self, kind: &str, namespace: &str, object: &Value, asks: &[Ask]) -> String {
        let name = text(object, "name").map(|name| format!("name {name}"));
        self.of(kind, namespace, &name.or_else(|| generated(kind, object)).unwrap_or_default(), asks)
    }

    /// Whether an object has a valid seal for its fields.
    pub fn holds(&self, kind: &str, namespace: &str, object: &Value, asks: &[Ask]) -> bool {
        let Some(found) = sealed(object) else { return false };
        let name = text(object, "name").map(|n| format!("name {n}"));
        let names = name.into_iter().chain(generated(kind, object));
        // Whether one of the values is the seal.
        names.fold(false, |holds, name| holds | is_same(&self.of(kind, namespace, &name, asks), found))
    }

    /// The secret part of the webhook's paths, which only the API server knows.
    pub fn path_token(&self) -> String {
        // Not the beginning of any sealed text, because those begin with a length.
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

/// The seal of an object, valid or not.
pub fn sealed(object: &Value) -> Option<&str> {
    object.get("metadata")?.get("annotations")?.get(annotation::SEAL)?.as_str()
}

fn text<'a>(object: &'a Value, field: &str) -> Option<&'a str> {
    object.get("metadata")?.get(field)?.as_str().filter(|t| !t.is_empty())
}

/// Replaces a name that is not generated yet.
fn generated(kind: &str, object: &Value) -> Option<String> {
    let begin = text(object, "generateName")?;
    let spec = canonical(kind, object)?.get("spec")?.to_string();
    Some(format!("generateName {begin} {spec}"))
}

/// In constant time.
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
