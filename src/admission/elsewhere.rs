//! Check of a Repository of another namespace, which needs the cluster.
//!
//! Its usagePolicy decides who may use it. Only an object that newly names such a Repository is checked: a changed
//! policy must not block a `cancel` or `paused` of an object that was created before.

use std::sync::Arc;

use futures::future::BoxFuture;
use serde_json::Value;

/// A Repository, and the other namespace whose object names it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Elsewhere {
    /// Namespace of the Repository.
    pub home: String,
    /// Its name.
    pub name: String,
    /// Namespace of the object.
    pub namespace: String,
}

/// Looks up the policy. The error is the same if a Repository may not be used and if it does not exist. `None` if it
/// may be used, and also if that cannot be found out in time: the controller checks again before a run starts.
pub type Owners = Arc<dyn Fn(Elsewhere) -> BoxFuture<'static, Option<String>> + Send + Sync>;

impl Elsewhere {
    /// The Repository that an object of `namespace` names and the old object did not.
    pub fn of(object: &Value, old: Option<&Value>, namespace: &str) -> Option<Self> {
        let named = |o: &Value| {
            let text = |field| o.pointer(field).and_then(Value::as_str).filter(|t| !t.is_empty()).map(str::to_owned);
            Some((text("/spec/repository/namespace")?, text("/spec/repository/name")?))
        };
        let (home, name) = named(object)?;
        let is_new = old.and_then(named).is_none_or(|before| before != (home.clone(), name.clone()));
        // A cluster-scoped object, such as a blueprint, does not use a Repository itself.
        let is_elsewhere = !namespace.is_empty() && home != namespace;
        (is_new && is_elsewhere).then(|| Self { home, name, namespace: namespace.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object(repository: Value) -> Value {
        json!({ "spec": { "repository": repository } })
    }

    #[test]
    fn only_another_namespace_is_asked_about() {
        let there = object(json!({ "name": "r", "namespace": "store" }));
        let asked = Elsewhere { home: "store".into(), name: "r".into(), namespace: "demo".into() };
        assert_eq!(Elsewhere::of(&there, None, "demo"), Some(asked));
        assert_eq!(Elsewhere::of(&there, None, "store"), None);
        assert_eq!(Elsewhere::of(&there, None, ""), None);
        for repository in [
            json!({ "name": "r" }),
            json!({ "name": "r", "namespace": "" }),
            json!({ "name": "r", "namespace": null }),
            json!({ "name": 1, "namespace": "store" }),
            json!({ "namespace": "store" }),
            json!("r"),
            Value::Null,
        ] {
            assert_eq!(Elsewhere::of(&object(repository), None, "demo"), None);
        }
    }

    #[test]
    fn only_what_is_newly_named_is_asked_about() {
        let there = |name: &str| object(json!({ "name": name, "namespace": "store" }));
        let mut canceled = there("r");
        canceled["spec"]["cancel"] = true.into();
        assert_eq!(Elsewhere::of(&canceled, Some(&there("r")), "demo"), None);
        for before in [there("other"), object(json!({ "name": "r" })), json!({})] {
            assert!(Elsewhere::of(&there("r"), Some(&before), "demo").is_some());
        }
    }
}
