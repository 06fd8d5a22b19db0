//! Conflicts between invokers that use the same Repository.
//!
//! A BackupBatch does not share its Repository. Two BackupConfigurations may share a Repository as long as no host of
//! one can be a host of the other: restic identifies a backup by its host, and retention would remove the other's
//! snapshots. The invoker that was created first keeps the Repository, so a later object never takes it from a working
//! one.

use k8s_openapi::jiff::Timestamp;

use crate::names::reason;
use crate::plan::run::hosts::HostSet;
use crate::plan::seen::Refusal;

/// An invoker, with what decides whether it conflicts with another.
#[derive(Clone, Debug, PartialEq)]
pub struct Rival {
    /// Kind.
    pub kind: String,
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Uid; decides between two invokers that were created in the same second.
    pub uid: String,
    /// When it was created.
    pub created: Timestamp,
    /// Hosts of its targets.
    pub hosts: Vec<HostSet>,
}

impl Rival {
    fn label(&self) -> String {
        format!("{} {}/{}", self.kind, self.namespace, self.name)
    }

    fn is_batch(&self) -> bool {
        self.kind == "BackupBatch"
    }
}

/// Why `me` may not use the Repository that messages name as `repository`, given all invokers that refer to it.
pub fn refusal(me: &Rival, all: &[Rival], repository: &str) -> Option<Refusal> {
    let mut earlier: Vec<&Rival> = all.iter().filter(|r| (r.created, &r.uid) < (me.created, &me.uid)).collect();
    earlier.sort_by_key(|r| (r.created, &r.uid));
    let message = earlier.into_iter().find_map(|other| {
        if me.is_batch() || other.is_batch() {
            return Some(format!(
                "spec.repository: {} uses Repository {repository} and is older than {}. A BackupBatch cannot share its Repository: create another Repository, or delete the other object.",
                other.label(),
                me.label()
            ));
        }
        let host = me.hosts.iter().find_map(|a| other.hosts.iter().find_map(|b| a.shared(b)))?;
        Some(format!(
            "spec.repository: in Repository {repository}, host {host} of {} is also a host of {}, which is older. Set another target.alias, or use another Repository.",
            me.label(),
            other.label()
        ))
    })?;
    Some(Refusal { reason: reason::REPOSITORY_TAKEN.to_owned(), message })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::run::hosts::TargetKind;
    use proptest::prelude::*;

    fn rival(kind: &str, n: i64, alias: &str) -> Rival {
        Rival {
            kind: kind.into(),
            namespace: "n".into(),
            name: format!("{}{n}", alias.to_lowercase()),
            uid: format!("u{n}"),
            created: Timestamp::from_second(n / 2).unwrap(),
            hosts: vec![HostSet::of(TargetKind::Claim, Some(alias))],
        }
    }

    fn refused(all: &[Rival]) -> Vec<bool> {
        all.iter().map(|me| refusal(me, all, "n/repo").is_some()).collect()
    }

    #[test]
    fn a_batch_has_its_repository_to_itself() {
        for (first, second) in [
            ("BackupBatch", "BackupBatch"),
            ("BackupBatch", "BackupConfiguration"),
            ("BackupConfiguration", "BackupBatch"),
        ] {
            let all = [rival(first, 1, "a"), rival(second, 2, "b")];
            assert_eq!(refused(&all), [false, true], "{first} then {second}");
            let text = refusal(&all[1], &all, "n/repo").unwrap().message;
            assert!(text.contains(&format!("{first} n/a1")) && text.contains(&format!("{second} n/b2")), "{text}");
            assert_eq!(refused(&all[1..]), [false], "it recovers when the first is gone");
        }
    }

    /// Proves: invented 27.
    #[test]
    fn two_databases_without_alias_never_share_a_repository() {
        let mut all = [rival("BackupConfiguration", 1, "a"), rival("BackupConfiguration", 2, "b")];
        all.iter_mut().for_each(|r| r.hosts = vec![HostSet::of(TargetKind::AppBinding, None)]);
        assert_eq!(refused(&all), [false, true]);
    }

    #[test]
    fn configurations_share_as_long_as_their_hosts_differ() {
        let all = [rival("BackupConfiguration", 1, "a"), rival("BackupConfiguration", 2, "b")];
        assert_eq!(refused(&all), [false, false]);
        let mut all = [rival("BackupConfiguration", 1, "a"), rival("BackupConfiguration", 2, "a")];
        assert_eq!(refused(&all), [false, true]);
        let text = refusal(&all[1], &all, "n/repo").unwrap().message;
        assert!(text.contains("host a ") && text.contains("n/a1") && text.contains("n/a2"), "{text}");
        all[1].hosts = vec![HostSet::of(TargetKind::StatefulSet, Some("a"))];
        assert_eq!(refused(&all), [false, false], "a-0 is not a");
        all[0].hosts = vec![HostSet::of(TargetKind::Claim, Some("a-7"))];
        assert!(refusal(&all[1], &all, "n/repo").unwrap().message.contains("host a-7 "));
    }

    proptest! {
        /// A later invoker changes nothing for the earlier ones, and the first invoker is never refused.
        #[test]
        fn who_was_there_stays(kinds in prop::collection::vec((any::<bool>(), 0usize..3), 1..8)) {
            let all: Vec<Rival> = kinds.iter().zip(1i64..).map(|((batch, alias), n)| {
                rival(if *batch { "BackupBatch" } else { "BackupConfiguration" }, n, ["a", "b", "c"][*alias])
            }).collect();
            let verdicts = refused(&all);
            prop_assert!(!verdicts[0]);
            for count in 1..all.len() {
                prop_assert_eq!(&refused(&all[..count])[..], &verdicts[..count]);
            }
            // No two of the invokers that are not refused collide.
            let kept: Vec<Rival> = all.iter().zip(&verdicts).filter(|(_, v)| !**v).map(|(r, _)| r.clone()).collect();
            prop_assert!(refused(&kept).iter().all(|v| !v));
        }
    }
}
