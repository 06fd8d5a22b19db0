//! Hosts: the restic host names of a target, and the rule that each follows.
//!
//! Implements the aliases of the KEP as functions: one host for most kinds, one per ordinal of a StatefulSet, one per
//! node of a DaemonSet. This module does not know what exists in a cluster.

use crate::api::common::{Rule, TargetRef};
use crate::api::target::{BackupTarget, RestoreTarget};
use crate::contract::APPLICATION_FILES;
use crate::names::PVC_MOUNT;

/// Host of a target without alias, and prefix of a StatefulSet's hosts without alias.
const DEFAULT_HOST: &str = "host-0";
const DEFAULT_ORDINAL_PREFIX: &str = "host";

/// Kinds of targets, as far as hosts depend on them.
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

    /// Whether its replicas can be scaled.
    pub fn is_scalable(self) -> bool {
        matches!(
            self,
            Self::Deployment
                | Self::StatefulSet
                | Self::ReplicaSet
                | Self::ReplicationController
                | Self::DeploymentConfig
        )
    }

    /// Whether it is a workload whose pods mount the volumes.
    pub fn is_workload(self) -> bool {
        self.is_scalable() || self == Self::DaemonSet
    }
}

/// Where a host of a target is.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Place {
    /// Its ordinal; 0 if there are no ordinals.
    pub ordinal: i32,
    /// The node that the host is tied to, if any.
    pub node: Option<String>,
}

impl Place {
    /// The place of an ordinal, on any node.
    pub fn ordinal(ordinal: i32) -> Self {
        Self { ordinal, node: None }
    }

    /// A place on a node.
    pub fn node(node: &str) -> Self {
        Self { ordinal: 0, node: Some(node.to_owned()) }
    }
}

/// All hosts that a target can have, before its replicas are counted.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum HostSet {
    /// Only this host.
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

    /// Hosts of the target of a restore: of its ref, or of the PVCs that are created for it. These PVCs are one host
    /// per replica, however many templates there are.
    pub fn of_restore(target: &RestoreTarget) -> Self {
        let alias = target.alias.as_deref();
        if target.volume_claim_templates.is_empty() {
            Self::of(TargetKind::of(target.ref_.as_ref()), alias)
        } else if target.replicas.is_some() {
            Self::of(TargetKind::StatefulSet, alias)
        } else {
            Self::of(TargetKind::Claim, alias)
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
            (set, _) => set.host(&Place::ordinal(0)),
        })
    }

    /// Name of the host at this place; a set of one host has the same name at every place.
    pub fn host(&self, place: &Place) -> String {
        let node = place.node.as_deref().unwrap_or_default();
        match self {
            Self::One(one) => one.clone(),
            Self::Ordinals(prefix) => format!("{prefix}-{}", place.ordinal),
            Self::Nodes(Some(alias)) => format!("{alias}-{node}"),
            Self::Nodes(None) => node.to_owned(),
        }
    }

    /// The place of a host of this set, on the node that was noted for it.
    pub fn place(&self, host: &str, node: Option<&str>) -> Place {
        let ordinal = match self {
            Self::Ordinals(prefix) => {
                host.strip_prefix(prefix.as_str()).and_then(|r| r.strip_prefix('-')?.parse().ok())
            }
            _ => None,
        };
        Place { ordinal: ordinal.unwrap_or(0), node: node.map(str::to_owned) }
    }
}

fn is_ordinal(s: &str) -> bool {
    !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit()) && (s == "0" || !s.starts_with('0'))
}

/// The alias of a target that names none; `None` for a DaemonSet, whose hosts are then bare node names.
pub fn default_alias(kind: TargetKind) -> Option<&'static str> {
    match kind {
        TargetKind::StatefulSet => Some(DEFAULT_ORDINAL_PREFIX),
        TargetKind::DaemonSet => None,
        _ => Some(DEFAULT_HOST),
    }
}

/// The rule that a host follows: the rule that names the host, otherwise the rule that names no host.
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

/// The components of a path; none for `/`.
pub fn parts(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|p| !p.is_empty() && *p != ".")
}

/// A path without trailing slashes or repeated ones; `/` stays.
pub fn normal_path(path: &str) -> String {
    let joined = parts(path).collect::<Vec<_>>().join("/");
    format!("/{joined}")
}

/// Whether `path` is `parent` or lies below it; both are normalised.
pub fn is_within(path: &str, parent: &str) -> bool {
    let mut path = parts(path);
    parts(parent).all(|part| path.next() == Some(part))
}

/// How messages name a target: `Deployment/web`, which kubectl takes as well.
pub fn display(target: &TargetRef) -> String {
    format!("{}/{}", target.kind.as_deref().unwrap_or_default(), target.name.as_deref().unwrap_or_default())
}

/// Key by which two sessions name the same target: kind and name, whatever the version says.
pub fn target_key(target: &TargetRef) -> Option<String> {
    let name = target.name.as_deref().filter(|n| !n.is_empty())?;
    Some(format!("{}/{name}", target.kind.as_deref().unwrap_or_default().to_lowercase()))
}

/// Hosts that a target can have, and the paths that are backed up: one snapshot per path.
pub fn named(target: &BackupTarget) -> (HostSet, Vec<String>) {
    let hosts = HostSet::of(TargetKind::of(target.ref_.as_ref()), target.alias.as_deref());
    let mounts = || target.volume_mounts.iter().map(|m| normal_path(&m.mount_path)).collect::<Vec<_>>();
    let paths = match (target.paths.is_empty(), target.volume_mounts.is_empty()) {
        _ if TargetKind::of(target.ref_.as_ref()) == TargetKind::AppBinding => {
            APPLICATION_FILES.map(str::to_owned).to_vec()
        }
        (false, _) => target.paths.iter().map(|p| normal_path(p)).collect(),
        (true, false) => mounts(),
        (true, true) => vec![PVC_MOUNT.to_owned()],
    };
    (hosts, paths)
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

    /// Proves: scenario 16.
    #[test]
    fn hosts_are_those_of_the_kep() {
        let third = Place::ordinal(3);
        for kind in [
            TargetKind::Deployment,
            TargetKind::ReplicaSet,
            TargetKind::ReplicationController,
            TargetKind::DeploymentConfig,
            TargetKind::AppBinding,
            TargetKind::Claim,
        ] {
            assert_eq!(HostSet::of(kind, Some("app")).host(&Place::node("n")), "app");
            assert_eq!(HostSet::of(kind, None).host(&Place::default()), "host-0");
        }
        assert_eq!(HostSet::of(TargetKind::StatefulSet, Some("app")).host(&third), "app-3");
        assert_eq!(HostSet::of(TargetKind::StatefulSet, None).host(&third), "host-3");
        assert_eq!(HostSet::of(TargetKind::DaemonSet, Some("app")).host(&Place::node("n-1")), "app-n-1");
        assert_eq!(HostSet::of(TargetKind::DaemonSet, None).host(&Place::node("n-1")), "n-1");
        assert!(HostSet::of(TargetKind::Claim, None).overlaps(&HostSet::of(TargetKind::StatefulSet, None)));
        assert!(!HostSet::One("app-x".into()).overlaps(&HostSet::Ordinals("app".into())));
    }

    /// Proves: defect 8.
    #[test]
    fn made_claims_are_one_host_a_replica() {
        let two = vec![crate::api::volume::PvcTemplate::default(); 2];
        let target = |replicas| RestoreTarget { replicas, volume_claim_templates: two.clone(), ..Default::default() };
        assert_eq!(HostSet::of_restore(&target(Some(3))), HostSet::Ordinals("host".into()));
        assert_eq!(HostSet::of_restore(&target(None)), HostSet::One("host-0".into()));
        let named = RestoreTarget { alias: Some("app".into()), ..target(Some(3)) };
        assert_eq!(HostSet::of_restore(&named), HostSet::Ordinals("app".into()));
    }

    #[test]
    fn a_host_has_the_place_it_was_named_for() {
        for (set, place) in [
            (HostSet::Ordinals("db-1".into()), Place::ordinal(12)),
            (HostSet::One("db-5".into()), Place::default()),
            (HostSet::Nodes(Some("a".into())), Place::node("n-2")),
            (HostSet::Nodes(None), Place::node("n-2")),
        ] {
            assert_eq!(set.place(&set.host(&place), place.node.as_deref()), place);
        }
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
