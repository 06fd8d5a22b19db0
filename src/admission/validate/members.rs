//! Members of a batch: their order, and that no two share a host.
//!
//! A host is the name snapshots are found by; two members that share one would
//! restore each other's data. Hosts are compared as sets, before anyone counts
//! replicas: `app` of a Deployment and `app-0` of a StatefulSet are looked at alike.
//! And that no two restore the same path of one volume at the same time.

use super::Errors;
use super::target::say_hosts;
use crate::api::common::{ExecutionOrder, OnFailure, Rule, TargetRef};
use crate::api::target::RestoreTarget;
use crate::names::PVC_MOUNT;
use crate::plan::hosts::{HostSet, TargetKind, is_within, normal_path};

/// What a member is called, in a message.
pub struct Member<'a> {
    /// Hosts it can have.
    pub hosts: HostSet,
    /// Its target.
    pub target: Option<&'a TargetRef>,
}

/// At least one member, and no host in two of them.
pub fn validate(errors: &mut Errors, members: &[Option<Member>]) {
    if members.is_empty() {
        errors.invalid("spec.members", "is empty; write at least one member with a target");
    }
    let hosts: Vec<_> = members.iter().enumerate().filter_map(|(i, m)| m.as_ref().map(|m| (i, m, &m.hosts))).collect();
    for (n, (i, member, set)) in hosts.iter().enumerate() {
        if let Some((j, other, theirs)) = hosts[..n].iter().find(|(_, _, other)| other.overlaps(set)) {
            errors.invalid(
                format!("spec.members[{i}].target.alias"),
                format!(
                    "member {i} ({}) has {}, and member {j} ({}) has {}: they share a host; give each an alias of its own",
                    say(member),
                    say_hosts(set),
                    say(other),
                    say_hosts(theirs)
                ),
            );
        }
    }
}

fn say(member: &Member) -> String {
    let Some(target) = member.target else { return "claims that are made".to_owned() };
    let part = |p: Option<&String>| p.cloned().unwrap_or_default();
    format!("{} {}", part(target.kind.as_ref()), part(target.name.as_ref())).trim().to_owned()
}

/// The order and its two spellings, and what depends on it.
pub fn order(
    errors: &mut Errors,
    order: Option<ExecutionOrder>,
    maintain: Option<bool>,
    on_failure: Option<OnFailure>,
) {
    let meant = maintain.map(|m| if m { ExecutionOrder::Sequential } else { ExecutionOrder::Parallel });
    if let (Some(order), Some(meant)) = (order, meant)
        && order != meant
    {
        let maintain = meant == ExecutionOrder::Sequential;
        errors.invalid(
            "spec.maintainOrder",
            format!("is {maintain} ({meant:?}), but spec.executionOrder is {order:?}; set one of them"),
        );
    } else if on_failure == Some(OnFailure::Stop) && order.or(meant) != Some(ExecutionOrder::Sequential) {
        errors.invalid(
            "spec.onFailure",
            "is Stop, but members that run in parallel have none after them; set executionOrder: Sequential",
        );
    }
}

/// Members that run at once and restore the same path of the same volume: which of them wins would be chance.
/// What `snapshots` hold is known later only.
pub fn disjoint(errors: &mut Errors, targets: &[Option<&RestoreTarget>]) {
    for (i, mine) in targets.iter().enumerate().filter_map(|(i, t)| Some((i, (*t)?))) {
        let clash = |theirs: &RestoreTarget| {
            let same = is_one_target(mine.ref_.as_ref()?, theirs.ref_.as_ref()?);
            let pairs = mine.rules.iter().flat_map(|a| theirs.rules.iter().map(move |b| (a, b)));
            let apart = |(a, b): &(&Rule, &Rule)| {
                a.target_hosts.is_empty()
                    || b.target_hosts.is_empty()
                    || a.target_hosts.iter().any(|h| b.target_hosts.contains(h))
            };
            let mut paths =
                pairs.filter(apart).flat_map(|(a, b)| a.paths.iter().flat_map(|p| b.paths.iter().map(move |q| (p, q))));
            paths.find(|(p, q)| same && meet(&place(mine, p), &place(theirs, q))).map(|(p, _)| p.clone())
        };
        let found = targets[..i].iter().enumerate().find_map(|(j, t)| Some((j, clash((*t)?)?)));
        if let Some((j, path)) = found {
            let name = mine.ref_.as_ref().and_then(|r| r.name.clone()).unwrap_or_default();
            errors.invalid(
                format!("spec.members[{i}].target.rules"),
                format!(
                    "restores {path:?} of {name} at the same time as member {j}, so that chance decides which of them wins; \
                     set executionOrder: Sequential, or restore other paths"
                ),
            );
        }
    }
}

fn is_one_target(a: &TargetRef, b: &TargetRef) -> bool {
    (&a.kind, &a.name) == (&b.kind, &b.name)
}

/// Volume and path in it; a claim is one volume, wherever it is mounted.
fn place(target: &RestoreTarget, path: &str) -> (String, String) {
    let path = normal_path(path);
    let is_claim = TargetKind::of(target.ref_.as_ref()) == TargetKind::Claim;
    let mounts = target.volume_mounts.iter().map(|m| (normal_path(&m.mount_path), m));
    let (mount, found) = mounts
        .filter(|(at, _)| is_within(&path, at))
        .max_by_key(|(at, _)| at.len())
        .map_or((PVC_MOUNT.to_owned(), None), |(at, m)| (at, Some(m)));
    let volume = found.filter(|_| !is_claim).map(|m| m.name.clone()).unwrap_or_default();
    let below = path.strip_prefix(mount.trim_end_matches('/')).unwrap_or(&path);
    let sub = found.and_then(|m| m.sub_path.as_deref()).unwrap_or_default();
    (volume, normal_path(&format!("/{sub}/{below}")))
}

fn meet(a: &(String, String), b: &(String, String)) -> bool {
    a.0 == b.0 && (is_within(&a.1, &b.1) || is_within(&b.1, &a.1))
}
