//! Detects members of a batch that restore the same path of the same volume at the same time, so that the result
//! would be undefined.
//!
//! Paths are sorted, so that one pass visits every path while its parents are open. The cost is computed first, and a
//! batch that would cost too much must be sequential. The paths of `snapshots` are only known later.

use std::collections::{BTreeMap, HashMap};

use crate::admission::error::Errors;
use crate::admission::validate::folders::{Folders, order};
use crate::api::common::Rule;
use crate::api::target::RestoreTarget;
use crate::names::PVC_MOUNT;
use crate::plan::run::hosts::{TargetKind, is_within, normal_path};

/// Maximum number of compared pairs of a path and a host: about ten milliseconds. A usual batch whose members share a
/// target has tens of them.
pub const COMPARED: usize = 50_000;

/// One path that a member restores.
struct Restored<'a> {
    /// The volume and the path in it.
    volume: String,
    path: String,
    member: usize,
    rule: &'a Rule,
    /// As it was written.
    written: &'a str,
}

/// Members that have a path open, each with its paths as written.
type Open<'a> = BTreeMap<usize, Vec<&'a str>>;

/// The open paths at a position of the pass.
#[derive(Default)]
struct Walk<'a> {
    any: Open<'a>,
    /// Paths of rules for all hosts that no other rule names.
    of_all: Open<'a>,
    by_host: HashMap<&'a str, Open<'a>>,
}

impl<'a> Walk<'a> {
    fn open(&mut self, restored: &Restored<'a>) {
        let note = |open: &mut Open<'a>| open.entry(restored.member).or_default().push(restored.written);
        note(&mut self.any);
        if restored.rule.target_hosts.is_empty() {
            note(&mut self.of_all);
        }
        for host in &restored.rule.target_hosts {
            note(self.by_host.entry(host).or_default());
        }
    }

    fn close(&mut self, restored: &Restored<'a>) {
        let strike = |open: &mut Open<'a>| {
            if let Some(written) = open.get_mut(&restored.member) {
                written.pop();
                if written.is_empty() {
                    open.remove(&restored.member);
                }
            }
        };
        strike(&mut self.any);
        if restored.rule.target_hosts.is_empty() {
            strike(&mut self.of_all);
        }
        for host in &restored.rule.target_hosts {
            self.by_host.get_mut(host.as_str()).map(strike);
        }
    }

    /// Another member that has this path open for a host of this rule, and the path as written.
    fn other(&self, restored: &Restored<'a>) -> Option<(usize, &'a str)> {
        let hosts = &restored.rule.target_hosts;
        let all = if hosts.is_empty() { &self.any } else { &self.of_all };
        let named = hosts.iter().filter_map(|host| self.by_host.get(host.as_str()));
        std::iter::once(all)
            .chain(named)
            .find_map(|open| open.iter().find(|(member, _)| **member != restored.member))
            .and_then(|(member, written)| Some((*member, *written.last()?)))
    }
}

/// Checks that no two members restore the same path of one target; `targets` are those of the members.
pub fn disjoint(errors: &mut Errors, targets: &[Option<&RestoreTarget>]) {
    let mut shared: BTreeMap<_, Vec<(usize, &RestoreTarget)>> = BTreeMap::new();
    for (i, target) in targets.iter().enumerate() {
        if let Some((target, reference)) = target.and_then(|t| Some((t, t.ref_.as_ref()?))) {
            shared.entry((&reference.kind, &reference.name)).or_default().push((i, target));
        }
    }
    shared.retain(|_, members| members.len() > 1);
    let rules = shared.values().flatten().flat_map(|(_, target)| &target.rules);
    let cost: usize = rules.map(|rule| rule.paths.len() * rule.target_hosts.len().max(1)).sum();
    if cost > COMPARED {
        let text = format!(
            "restore targets that other members restore at the same time, with {cost} pairs of a path and a host, more \
             than can be compared ({COMPARED}); set executionOrder: Sequential, or write one member for each target"
        );
        return errors.invalid("spec.members", text);
    }
    let mut clashes = BTreeMap::new();
    shared.values().for_each(|members| walk(members, &mut clashes));
    for (i, (j, path)) in clashes {
        let target = targets.get(i).copied().flatten();
        let name = target.and_then(|t| t.ref_.as_ref()?.name.as_deref()).unwrap_or_default();
        errors.invalid(
            format!("spec.members[{i}].target.rules"),
            format!(
                "restores {path:?} of {name} at the same time as member {j}, so that chance decides which of them wins; \
                 set executionOrder: Sequential, or restore other paths"
            ),
        );
    }
}

/// Adds an error to the later of the two members.
pub fn walk<'a>(members: &[(usize, &'a RestoreTarget)], clashes: &mut BTreeMap<usize, (usize, &'a str)>) {
    let mut all: Vec<Restored> = members.iter().flat_map(|(i, target)| restored(*i, target)).collect();
    all.sort_by(|a, b| a.volume.cmp(&b.volume).then_with(|| order(&a.path, &b.path)));
    let mut walk = Walk::default();
    let mut around: Vec<&Restored> = Vec::new();
    for one in &all {
        while let Some(last) = around.pop_if(|last| last.volume != one.volume || !is_within(&one.path, &last.path)) {
            walk.close(last);
        }
        if let Some((other, written)) = walk.other(one) {
            let (later, earlier, path) =
                if one.member > other { (one.member, other, one.written) } else { (other, one.member, written) };
            clashes.entry(later).or_insert((earlier, path));
        }
        walk.open(one);
        around.push(one);
    }
}

/// Every path of a member, as volume and path in it; a PVC is one volume, wherever it is mounted.
fn restored(member: usize, target: &RestoreTarget) -> Vec<Restored<'_>> {
    let is_claim = TargetKind::of(target.ref_.as_ref()) == TargetKind::Claim;
    let mounts = Folders::new(target.volume_mounts.iter().map(|m| (normal_path(&m.mount_path), m)));
    let place = |written: &str| {
        let path = normal_path(written);
        let (at, mount) = mounts.around(&path).map_or((PVC_MOUNT, None), |(at, mount)| (at, Some(mount)));
        let volume = mount.filter(|_| !is_claim).map(|m| m.name.clone()).unwrap_or_default();
        let below = path.strip_prefix(at.trim_end_matches('/')).unwrap_or(&path);
        let sub = mount.and_then(|m| m.sub_path.as_deref()).unwrap_or_default();
        (volume, normal_path(&format!("/{sub}/{below}")))
    };
    let rules = target.rules.iter().flat_map(|rule| rule.paths.iter().map(move |path| (rule, path)));
    rules
        .map(|(rule, written)| {
            let (volume, path) = place(written);
            Restored { volume, path, member, rule, written }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    type Written = Vec<(Vec<String>, Vec<String>)>;

    fn member() -> impl Strategy<Value = Written> {
        let hosts = prop::collection::vec("h[0-2]", 0..3);
        let paths = prop::collection::vec("/m?(/[ab]){0,3}", 0..3);
        prop::collection::vec((hosts, paths), 0..3)
    }

    fn target(rules: &Written, sub: &str) -> RestoreTarget {
        let rules: Vec<_> = rules.iter().map(|(h, p)| json!({ "targetHosts": h, "paths": p })).collect();
        let mounts = json!([{ "name": "v", "mountPath": "/" }, { "name": "w", "mountPath": "/m", "subPath": sub }]);
        let reference = json!({ "kind": "Deployment", "name": "d" });
        serde_json::from_value(json!({ "ref": reference, "volumeMounts": mounts, "rules": rules })).unwrap()
    }

    /// Compares every pair of members, rules and paths.
    fn tried(a: &RestoreTarget, b: &RestoreTarget) -> bool {
        let meet = |x: &Restored, y: &Restored| {
            let (p, q) = (&x.rule.target_hosts, &y.rule.target_hosts);
            let apart = !p.is_empty() && !q.is_empty() && !p.iter().any(|h| q.contains(h));
            !apart && x.volume == y.volume && (is_within(&x.path, &y.path) || is_within(&y.path, &x.path))
        };
        restored(0, a).iter().any(|x| restored(1, b).iter().any(|y| meet(x, y)))
    }

    proptest! {
        #[test]
        fn a_walk_finds_what_trying_every_pair_does(members in prop::collection::vec(member(), 2..4), sub in "[ab]?") {
            let targets: Vec<_> = members.iter().map(|m| target(m, &sub)).collect();
            let all: Vec<_> = targets.iter().map(Some).collect();
            let mut errors = Errors::default();
            disjoint(&mut errors, &all);
            let pairs = (0..targets.len()).flat_map(|i| (0..i).map(move |j| (j, i)));
            let expected = pairs.clone().any(|(j, i)| tried(&targets[j], &targets[i]));
            let errors = errors.into_vec();
            prop_assert_eq!(!errors.is_empty(), expected);
            let named = |i: usize, j: usize| errors.iter().any(|e| {
                e.field == format!("spec.members[{i}].target.rules") && e.message.contains(&format!("member {j},"))
            });
            let wrong = pairs.filter(|(j, i)| named(*i, *j) && !tried(&targets[*j], &targets[*i])).count();
            prop_assert_eq!(wrong, 0);
        }
    }

    #[test]
    fn what_cannot_be_compared_in_time_is_refused() {
        let hosts: Vec<String> = (0..1000).map(|i| format!("h{i}")).collect();
        let paths: Vec<String> = (0..60).map(|i| format!("/p{i}")).collect();
        let large = target(&vec![(hosts, paths)], "");
        let mut errors = Errors::default();
        disjoint(&mut errors, &[Some(&large), Some(&target(&vec![], ""))]);
        let text = crate::admission::error::message(&errors.into_vec());
        assert!(text.contains("60000 pairs") && text.contains("Sequential"), "{text}");
    }
}
