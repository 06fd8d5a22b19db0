//! Members of a batch: their order, and that no two share a host.
//!
//! A host is the name by which snapshots are found; two members with the same host would restore each other's data.
//! Hosts are compared as sets, without the number of replicas: `app` of a Deployment and `app-0` of a StatefulSet are
//! treated in the same way.

use crate::admission::error::Errors;
use crate::admission::validate::target::say_hosts;
use crate::api::common::{ExecutionOrder, OnFailure, TargetRef};
use crate::plan::run::hosts::HostSet;

/// Name of a member in messages.
pub struct Member<'a> {
    /// Hosts it can have.
    pub hosts: HostSet,
    /// Its target.
    pub target: Option<&'a TargetRef>,
}

/// Checks that there is at least one member, and no host in two members.
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
    let Some(target) = member.target else { return "PVCs from templates".to_owned() };
    let part = |p: Option<&String>| p.cloned().unwrap_or_default();
    format!("{} {}", part(target.kind.as_ref()), part(target.name.as_ref())).trim().to_owned()
}

/// The order and its two spellings, and fields that depend on it.
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
