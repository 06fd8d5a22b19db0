//! Hosts: the restic host names of a target, and the rule that each follows.
//!
//! What the KEP says of aliases, as functions: one host for most kinds, one per
//! ordinal of a StatefulSet, one per node of a DaemonSet. Knows nothing of what
//! exists in a cluster.

use crate::api::common::{Rule, TargetRef};

/// Host of a target without alias, and prefix of a StatefulSet's hosts without alias.
const DEFAULT_HOST: &str = "host-0";
const DEFAULT_ORDINAL_PREFIX: &str = "host";

/// Kinds of targets, as far as hosts go.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum TargetKind {
    /// No ref at all.
    Nothing,
    /// `PersistentVolumeClaim`.
    Claim,
    /// `Deployment`.
    Deployment,
    /// `StatefulSet`.
    StatefulSet,
    /// `DaemonSet`.
    DaemonSet,
    /// `ReplicaSet`.
    ReplicaSet,
    /// `ReplicationController`.
    ReplicationController,
    /// OpenShift's `DeploymentConfig`.
    DeploymentConfig,
    /// `AppBinding`, whatever its apiVersion says.
    AppBinding,
    /// Anything else.
    Other,
}

impl TargetKind {
    /// Kind of a reference.
    pub fn of(target: Option<&TargetRef>) -> Self {
        match target.and_then(|t| t.kind.as_deref()) {
            None => Self::Nothing,
            Some("PersistentVolumeClaim") => Self::Claim,
            Some("Deployment") => Self::Deployment,
            Some("StatefulSet") => Self::StatefulSet,
            Some("DaemonSet") => Self::DaemonSet,
            Some("ReplicaSet") => Self::ReplicaSet,
            Some("ReplicationController") => Self::ReplicationController,
            Some("DeploymentConfig") => Self::DeploymentConfig,
            Some("AppBinding") => Self::AppBinding,
            Some(_) => Self::Other,
        }
    }
}

/// All hosts a target can have, before anyone counts its replicas.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum HostSet {
    /// Just this one.
    One(String),
    /// `<prefix>-0`, `<prefix>-1` and so on.
    Ordinals(String),
    /// `<alias>-<node>`, or the bare node names.
    Nodes(Option<String>),
}

impl HostSet {
    /// Hosts of a target of this kind under this alias.
    pub fn of(kind: TargetKind, alias: Option<&str>) -> Self {
        let alias = alias.filter(|a| !a.is_empty());
        match kind {
            TargetKind::StatefulSet => Self::Ordinals(alias.unwrap_or(DEFAULT_ORDINAL_PREFIX).to_owned()),
            TargetKind::DaemonSet => Self::Nodes(alias.map(str::to_owned)),
            _ => Self::One(alias.unwrap_or(DEFAULT_HOST).to_owned()),
        }
    }

    /// Whether the host can be one of these.
    pub fn contains(&self, host: &str) -> bool {
        match self {
            Self::One(one) => one == host,
            Self::Ordinals(prefix) => {
                host.strip_prefix(prefix.as_str()).and_then(|r| r.strip_prefix('-')).is_some_and(is_ordinal)
            }
            Self::Nodes(Some(alias)) => {
                host.strip_prefix(alias.as_str()).is_some_and(|r| r.len() > 1 && r.starts_with('-'))
            }
            Self::Nodes(None) => !host.is_empty(),
        }
    }

    /// Whether some host can be in both. Node names are not known here, so two sets of
    /// nodes overlap only under one alias, or where one of them has none.
    pub fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::One(a), set) | (set, Self::One(a)) => match set {
                // A bare node name could be anything; a clash is not certain, so it is no reason to refuse.
                Self::Nodes(None) => false,
                _ => set.contains(a),
            },
            (Self::Ordinals(a), Self::Ordinals(b)) => a == b,
            (Self::Nodes(a), Self::Nodes(b)) => a == b,
            (Self::Ordinals(_), Self::Nodes(_)) | (Self::Nodes(_), Self::Ordinals(_)) => false,
        }
    }

    /// A host that can be in both, for a message.
    pub fn shared(&self, other: &Self) -> Option<String> {
        self.overlaps(other).then(|| match (self, other) {
            (Self::One(one), _) | (_, Self::One(one)) => one.clone(),
            (Self::Nodes(Some(alias)), _) => format!("{alias}-<node>"),
            (Self::Nodes(None), _) => "<node>".to_owned(),
            (set, _) => set.host(0),
        })
    }

    /// Name of the host with this ordinal; of the only host, whatever the ordinal.
    pub fn host(&self, ordinal: i32) -> String {
        match self {
            Self::One(one) => one.clone(),
            Self::Ordinals(prefix) => format!("{prefix}-{ordinal}"),
            Self::Nodes(alias) => alias.clone().unwrap_or_default(),
        }
    }
}

/// Ordinal at the end of a host's name; 0 where there is none, as for a target of one host.
pub fn ordinal_of(host: &str) -> i32 {
    host.rsplit('-').next().and_then(|o| o.parse().ok()).unwrap_or(0)
}

fn is_ordinal(s: &str) -> bool {
    !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit()) && (s == "0" || !s.starts_with('0'))
}

/// The alias a target gets when it names none; none for a DaemonSet, whose hosts are then bare node names.
pub fn default_alias(kind: TargetKind) -> Option<&'static str> {
    match kind {
        TargetKind::StatefulSet => Some(DEFAULT_ORDINAL_PREFIX),
        TargetKind::DaemonSet => None,
        _ => Some(DEFAULT_HOST),
    }
}

/// The rule a host follows: the one that names it, else the one that names none.
pub fn rule_for<'a>(rules: &'a [Rule], host: &str) -> Option<&'a Rule> {
    rules
        .iter()
        .find(|r| r.target_hosts.iter().any(|h| h == host))
        .or_else(|| rules.iter().find(|r| r.target_hosts.is_empty()))
}

/// The host whose backup a rule restores into `host`.
pub fn source_host<'a>(rule: &'a Rule, host: &'a str) -> &'a str {
    rule.source_host.as_deref().filter(|s| !s.is_empty()).unwrap_or(host)
}

/// A path without trailing slashes or repeated ones; `/` stays.
pub fn normal_path(path: &str) -> String {
    let joined = path.split('/').filter(|p| !p.is_empty() && *p != ".").collect::<Vec<_>>().join("/");
    format!("/{joined}")
}

/// Whether `path` is `parent` or lies below it; both are normalised.
pub fn is_within(path: &str, parent: &str) -> bool {
    let (path, parent) = (normal_path(path), normal_path(parent));
    parent == "/" || path == parent || path.strip_prefix(&parent).is_some_and(|rest| rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn set() -> impl Strategy<Value = HostSet> {
        prop_oneof![
            "[ab](-[0-9])?".prop_map(HostSet::One),
            "[ab](-[0-9])?".prop_map(HostSet::Ordinals),
            "[ab]".prop_map(|a| HostSet::Nodes(Some(a))),
        ]
    }

    proptest! {
        #[test]
        fn sets_that_do_not_overlap_share_no_host(a in set(), b in set(), host in "[ab](-[0-9]){0,2}") {
            prop_assert_eq!(a.overlaps(&b), b.overlaps(&a));
            let both_nodes_or_ordinals = matches!((&a, &b), (HostSet::Ordinals(_), HostSet::Nodes(_)) | (HostSet::Nodes(_), HostSet::Ordinals(_)));
            if !both_nodes_or_ordinals && a.contains(&host) && b.contains(&host) {
                prop_assert!(a.overlaps(&b), "{a:?} and {b:?} share {host}");
            }
        }

        #[test]
        fn a_normal_path_is_a_fixed_point(path in "(/[a-c.]{0,2}){0,6}/?") {
            let once = normal_path(&path);
            prop_assert_eq!(normal_path(&once), once.clone());
            prop_assert!(is_within(&once, "/") && is_within(&path, &once));
        }
    }

    #[test]
    fn hosts_are_those_of_the_kep() {
        assert_eq!(HostSet::of(TargetKind::Deployment, Some("app")).host(0), "app");
        assert_eq!(HostSet::of(TargetKind::StatefulSet, Some("app")).host(3), "app-3");
        assert_eq!(HostSet::of(TargetKind::StatefulSet, None).host(3), "host-3");
        assert_eq!(HostSet::of(TargetKind::Claim, None).host(0), "host-0");
        assert!(HostSet::of(TargetKind::Claim, None).overlaps(&HostSet::of(TargetKind::StatefulSet, None)));
        assert!(!HostSet::One("app-x".into()).overlaps(&HostSet::Ordinals("app".into())));
    }

    #[test]
    fn a_rule_that_names_the_host_wins() {
        let all = Rule { paths: vec!["/a".into()], ..Rule::default() };
        let named = Rule { target_hosts: vec!["app-3".into()], source_host: Some("app-1".into()), ..Rule::default() };
        let rules = [all.clone(), named.clone()];
        assert_eq!(rule_for(&rules, "app-3"), Some(&named));
        assert_eq!(rule_for(&rules, "app-0"), Some(&all));
        assert_eq!(rule_for(&rules[1..], "app-0"), None);
        assert_eq!((source_host(&named, "app-3"), source_host(&all, "app-0")), ("app-1", "app-0"));
    }

    #[test]
    fn within_is_by_folder_not_by_prefix() {
        assert!(is_within("/source/data/", "/source/data"));
        assert!(!is_within("/source/database", "/source/data"));
        assert!(is_within("/x", "/"));
    }
}
