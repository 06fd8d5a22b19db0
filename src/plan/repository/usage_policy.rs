//! Decides which namespaces may use a Repository: its usagePolicy against the namespace that refers to it. The webhook
//! and the controller both use this check, each with the objects that it has read.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::core::{Selector, SelectorExt as _};

use crate::api::repository::{FromNamespaces, UsagePolicy};
use crate::plan::seen::Seen;

/// Whether a namespace may use a Repository.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// The namespace may use it.
    Allowed,
    /// The policy does not allow it; the text says what the policy allows.
    Denied(String),
    /// The labels of the namespace could not be looked up; the text says why.
    Unknown(String),
}

/// Message for an object of `namespace` that refers to `repository` (namespace and name) of another namespace. The text
/// is the same whether the Repository does not exist or may not be used: a namespace that may not use a Repository must
/// not learn that it exists, nor what its policy says.
pub fn denial(repository: &str, namespace: &str) -> String {
    format!(
        "Repository {repository} does not exist, or its usagePolicy does not allow namespace {namespace}. Its owner can create it, or change its spec.usagePolicy.allowedNamespaces."
    )
}

/// Whether objects of `namespace` may refer to a Repository of namespace `home`. Objects of its own namespace always
/// may.
pub fn verdict(
    policy: Option<&UsagePolicy>,
    home: &str,
    namespace: &str,
    labels: &Seen<BTreeMap<String, String>>,
) -> Verdict {
    if home == namespace {
        return Verdict::Allowed;
    }
    let own = || Verdict::Denied(format!("objects of namespace {home} only"));
    let Some(allowed) = policy.map(|p| &p.allowed_namespaces) else { return own() };
    match allowed.from {
        FromNamespaces::All => Verdict::Allowed,
        FromNamespaces::Same => own(),
        FromNamespaces::Selector => match labels {
            Seen::Found(labels) => matched(allowed.selector.as_ref(), labels),
            Seen::Missing => Verdict::Unknown(format!("namespace {namespace} does not exist")),
            Seen::Unknown(why) => Verdict::Unknown(format!("the labels of namespace {namespace}: {why}")),
        },
    }
}

/// Whether the policy asks for the labels of the referring namespace.
pub fn asks_for_labels(policy: Option<&UsagePolicy>, home: &str, namespace: &str) -> bool {
    home != namespace && policy.is_some_and(|p| p.allowed_namespaces.from == FromNamespaces::Selector)
}

/// A selector that is missing or cannot be read allows no namespace. The admission webhook refuses it, if it was
/// called.
fn matched(selector: Option<&LabelSelector>, labels: &BTreeMap<String, String>) -> Verdict {
    let Some(Ok(selector)) = selector.map(|s| Selector::try_from(s.clone())) else {
        return Verdict::Denied("no namespace, because its selector cannot be read".to_owned());
    };
    if selector.matches(labels) {
        Verdict::Allowed
    } else {
        Verdict::Denied(format!("objects of namespaces with the labels {selector} only"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn policy(allowed: serde_json::Value) -> UsagePolicy {
        serde_json::from_value(json!({ "allowedNamespaces": allowed })).unwrap()
    }

    fn labels(key: &str, value: &str) -> Seen<BTreeMap<String, String>> {
        Seen::Found([(key.to_owned(), value.to_owned())].into())
    }

    fn judge(allowed: serde_json::Value, seen: &Seen<BTreeMap<String, String>>) -> Verdict {
        verdict(Some(&policy(allowed)), "store", "demo", seen)
    }

    #[test]
    fn its_own_namespace_always_may() {
        for p in [None, Some(policy(json!({}))), Some(policy(json!({ "from": "Selector" })))] {
            assert_eq!(verdict(p.as_ref(), "store", "store", &Seen::Missing), Verdict::Allowed);
            assert!(!asks_for_labels(p.as_ref(), "store", "store"));
        }
    }

    #[test]
    fn others_may_only_where_it_says_so() {
        let none = Seen::Missing;
        assert!(matches!(verdict(None, "store", "demo", &none), Verdict::Denied(t) if t.contains("store only")));
        assert!(matches!(judge(json!({}), &none), Verdict::Denied(_)), "Same is the default");
        assert!(matches!(judge(json!({ "from": "Same" }), &none), Verdict::Denied(_)));
        assert_eq!(judge(json!({ "from": "All" }), &none), Verdict::Allowed);
    }

    #[test]
    fn a_selector_is_over_the_labels_of_the_namespace() {
        let by_label = json!({ "from": "Selector", "selector": { "matchLabels": { "team": "a" } } });
        assert_eq!(judge(by_label.clone(), &labels("team", "a")), Verdict::Allowed);
        assert_eq!(
            judge(by_label.clone(), &labels("team", "b")),
            Verdict::Denied("objects of namespaces with the labels team=a only".into())
        );
        assert!(matches!(judge(by_label.clone(), &Seen::Missing), Verdict::Unknown(_)));
        assert!(matches!(judge(by_label, &Seen::Unknown("x".into())), Verdict::Unknown(t) if t.contains('x')));
        let expression = |operator: &str, values: &[&str]| json!({ "from": "Selector", "selector": { "matchExpressions": [{ "key": "team", "operator": operator, "values": values }] } });
        assert_eq!(judge(expression("In", &["a", "b"]), &labels("team", "b")), Verdict::Allowed);
        assert!(matches!(judge(expression("NotIn", &["a"]), &labels("team", "a")), Verdict::Denied(_)));
        assert_eq!(judge(expression("DoesNotExist", &[]), &labels("other", "a")), Verdict::Allowed);
        assert!(matches!(judge(expression("Like", &["a"]), &labels("team", "a")), Verdict::Denied(_)));
        assert!(matches!(judge(json!({ "from": "Selector" }), &labels("team", "a")), Verdict::Denied(_)));
        let all = json!({ "from": "Selector", "selector": {} });
        assert_eq!(judge(all, &labels("team", "a")), Verdict::Allowed, "an empty selector selects all");
    }
}
