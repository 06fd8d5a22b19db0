//! Snapshot objects: the object for each restic snapshot, and the changes to objects that exist.
//!
//! The names depend only on the listing, so that two Jobs at the same time write the same objects. Only differences are
//! written; a snapshot itself never changes.

use std::borrow::Cow;
use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use k8s_openapi::jiff::Timestamp;

use crate::api::snapshot::{Snapshot, SnapshotSpec, SnapshotStatus};
use crate::api::{Repository, to_json};
use crate::contract::Run;
use crate::contract::restic::Listed;
use crate::names::{annotation, hash_of, label_value};

/// Label of a Snapshot: its Repository.
pub const REPOSITORY: &str = "repository";
/// Label of a Snapshot: its host.
pub const HOSTNAME: &str = "hostname";
/// Hex digits of the id that a name shows, as restic itself does.
const SHORT: usize = 8;
/// Longest name of an object.
const NAME_MAX: usize = 253;

/// The relevant content of an existing Snapshot.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Existing {
    /// Hash of what was last written.
    content: String,
    /// Its status was written too, and its labels are unchanged.
    whole: bool,
}

impl Existing {
    /// Of an object.
    pub fn of(snapshot: &Snapshot) -> Self {
        let notes = snapshot.metadata.annotations.as_ref();
        let content = notes.and_then(|n| n.get(annotation::CONTENT)).cloned().unwrap_or_default();
        let found = snapshot.status.as_ref().map(|s| hash(snapshot.metadata.labels.as_ref(), s));
        Self { whole: found.as_ref() == Some(&content), content }
    }
}

/// Hash of labels and status.
fn hash(labels: Option<&BTreeMap<String, String>>, status: &SnapshotStatus) -> String {
    hash_of(&[&to_json(&labels).to_string(), &to_json(status).to_string()])
}

/// The listing of a Repository, as objects.
#[derive(Debug)]
pub struct Listing<'a> {
    run: &'a Run,
    labels: &'a BTreeMap<String, String>,
    listed: &'a [Listed],
    /// Number of snapshots by short id. If two snapshots share a short id, their names contain more.
    short: BTreeMap<Cow<'a, str>, usize>,
}

impl<'a> Listing<'a> {
    /// The listing of the Repository of the run, with the labels that it gives to its Snapshots.
    pub fn new(run: &'a Run, labels: &'a BTreeMap<String, String>, listed: &'a [Listed]) -> Self {
        let mut counts = BTreeMap::new();
        for one in listed {
            *counts.entry(short(&one.id)).or_default() += 1;
        }
        Self { run, labels, listed, short: counts }
    }

    /// Selects the Snapshots of the Repository.
    pub fn selector(&self) -> String {
        format!("{REPOSITORY}={}", label_value(&self.run.name))
    }

    /// Snapshots that are missing, or not as they should be.
    pub fn to_write<'l>(
        &'l self,
        there: &'l BTreeMap<String, Existing>,
    ) -> impl Iterator<Item = Snapshot> + use<'l, 'a> {
        self.listed.iter().map(|one| self.object(one)).filter(|wanted| {
            let name = wanted.metadata.name.as_deref().unwrap_or_default();
            let known = there.get(name).filter(|e| e.whole);
            known.is_none_or(|e| *e != Existing::of(wanted))
        })
    }

    /// Names of existing Snapshots without a restic snapshot.
    pub fn to_remove(&self, there: &BTreeMap<String, Existing>) -> Vec<String> {
        let wanted: std::collections::BTreeSet<String> = self.listed.iter().map(|one| self.name(&one.id)).collect();
        there.keys().filter(|name| !wanted.contains(*name)).cloned().collect()
    }

    fn name(&self, id: &str) -> String {
        let (repository, short) = (&self.run.name, short(id));
        let name = format!("{repository}-{short}");
        let alone = self.short.get(&short).is_none_or(|count| *count == 1);
        if alone && name.len() <= NAME_MAX {
            return name;
        }
        let tail = format!("-{short}-{}", hash_of(&[repository, id]));
        let kept: String = repository.chars().take(NAME_MAX - tail.len()).collect();
        format!("{}{tail}", kept.trim_end_matches(['-', '.']))
    }

    fn object(&self, one: &Listed) -> Snapshot {
        let mut labels = self.labels.clone();
        labels.insert(REPOSITORY.to_owned(), label_value(&self.run.name));
        labels.insert(HOSTNAME.to_owned(), label_value(&one.hostname));
        let whole_second = |t: Timestamp| Timestamp::from_second(t.as_second()).unwrap_or(t);
        let status = SnapshotStatus {
            id: Some(one.id.clone()),
            time: one.time.parse().ok().map(|t| Time(whole_second(t))),
            tree: one.tree.clone(),
            paths: one.paths.clone(),
            hostname: Some(one.hostname.clone()),
            username: one.username.clone(),
            uid: i32::try_from(one.uid).ok(),
            gid: i32::try_from(one.gid).ok(),
            tags: one.tags.clone().unwrap_or_default(),
            repository: Some(self.run.name.clone()),
        };
        let content = hash(Some(&labels), &status);
        Snapshot {
            metadata: ObjectMeta {
                name: Some(self.name(&one.id)),
                namespace: Some(self.run.namespace.clone()),
                labels: Some(labels),
                annotations: Some([(annotation::CONTENT.to_owned(), content)].into()),
                owner_references: Some(vec![OwnerReference {
                    api_version: <Repository as kube::Resource>::api_version(&()).into_owned(),
                    kind: <Repository as kube::Resource>::kind(&()).into_owned(),
                    name: self.run.name.clone(),
                    uid: self.run.id.clone(),
                    // The Snapshot is deleted with the Repository, and does not hold up its deletion.
                    controller: Some(true),
                    block_owner_deletion: None,
                }]),
                ..ObjectMeta::default()
            },
            spec: SnapshotSpec {},
            status: Some(status),
        }
    }
}

/// The first digits of an id, which names contain. For a text that is not a restic id, which may be any text, the
/// digits of its hash.
fn short(id: &str) -> Cow<'_, str> {
    let is_digit = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
    match id.get(..SHORT).filter(|begin| begin.bytes().all(is_digit)) {
        Some(begin) => Cow::Borrowed(begin),
        None => Cow::Owned(hash_of(&[id])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn run(name: &str) -> Run {
        Run { id: "u".into(), kind: "Repository".into(), namespace: "demo".into(), name: name.into() }
    }

    fn listed(id: &str, host: &str) -> Listed {
        Listed {
            id: id.into(),
            time: "2026-11-20T17:40:27.123456789+01:00".into(),
            hostname: host.into(),
            paths: vec!["/data".into()],
            tree: Some("t".into()),
            ..Listed::default()
        }
    }

    fn names(all: impl IntoIterator<Item = Snapshot>) -> Vec<String> {
        all.into_iter().map(|s| s.metadata.name.unwrap()).collect()
    }

    /// The Snapshots that exist after everything was written.
    fn written(listing: &Listing<'_>) -> BTreeMap<String, Existing> {
        listing.to_write(&BTreeMap::new()).map(|s| (s.metadata.name.clone().unwrap(), Existing::of(&s))).collect()
    }

    #[test]
    fn a_snapshot_says_what_restic_says() {
        let (run, labels) = (run("repo"), [("team".to_owned(), "a".to_owned())].into());
        let all = [listed(&"ab".repeat(32), "host-0")];
        let made = Listing::new(&run, &labels, &all).to_write(&BTreeMap::new()).next().unwrap();
        assert_eq!(made.metadata.name.as_deref(), Some("repo-abababab"));
        let expected = [("hostname", "host-0"), ("repository", "repo"), ("team", "a")];
        assert_eq!(made.metadata.labels.unwrap(), expected.map(|(k, v)| (k.to_owned(), v.to_owned())).into());
        let owner = &made.metadata.owner_references.unwrap()[0];
        assert_eq!((owner.kind.as_str(), owner.name.as_str(), owner.uid.as_str()), ("Repository", "repo", "u"));
        let status = made.status.unwrap();
        assert_eq!(status.id, Some("ab".repeat(32)));
        assert_eq!(status.time.unwrap().0.to_string(), "2026-11-20T16:40:27Z");
        assert_eq!((status.uid, status.repository.as_deref()), (Some(0), Some("repo")));
    }

    #[test]
    fn snapshots_that_share_their_first_digits_have_names_that_tell_more() {
        let (run, labels) = (run("repo"), BTreeMap::new());
        let all = [listed("12345678aa", "h"), listed("12345678bb", "h"), listed("87654321cc", "h")];
        let names = names(Listing::new(&run, &labels, &all).to_write(&BTreeMap::new()));
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), 3);
        assert!(names[..2].iter().all(|n| n.starts_with("repo-12345678-")));
        assert_eq!(names[2], "repo-87654321");
    }

    /// Found by fuzzing: the name contained the whole of an id that does not begin with eight digits.
    #[test]
    fn what_is_no_id_makes_a_name_all_the_same() {
        let (run, labels) = (run(&"r".repeat(250)), BTreeMap::new());
        let all = [listed(&"é".repeat(200), "h"), listed("", "h"), listed("A/../b c", "h"), listed("abc", "h")];
        let names = names(Listing::new(&run, &labels, &all).to_write(&BTreeMap::new()));
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), 4);
        for name in names {
            let fits = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
            assert!(fits && name.len() <= NAME_MAX, "{name}");
        }
    }

    #[test]
    fn what_is_whole_is_not_written_again_and_what_is_not_is() {
        let (run, labels) = (run("repo"), BTreeMap::new());
        let all = [listed("11111111", "h"), listed("22222222", "h")];
        let listing = Listing::new(&run, &labels, &all);
        let mut there = written(&listing);
        assert_eq!(listing.to_write(&there).count(), 0);
        // The Job died between an object and its status.
        let half = Snapshot { status: None, ..listing.object(&all[1]) };
        there.insert("repo-22222222".into(), Existing::of(&half));
        assert_eq!(names(listing.to_write(&there)), ["repo-22222222"]);
        // A user changed a label.
        let mut other = listing.object(&all[0]);
        other.metadata.labels.as_mut().unwrap().remove(REPOSITORY);
        there.insert("repo-11111111".into(), Existing::of(&other));
        assert_eq!(listing.to_write(&there).count(), 2);
        // The Repository has other labels.
        let more = [("a".to_owned(), "b".to_owned())].into();
        let relabelled = Listing::new(&run, &more, &all);
        assert_eq!(relabelled.to_write(&written(&listing)).count(), 2);
    }

    #[test]
    fn labels_of_trackers_are_not_handed_on() {
        let all = [
            "app.kubernetes.io/instance",
            "argocd.argoproj.io/instance",
            "helm.sh/chart",
            "kustomize.toolkit.fluxcd.io/name",
            "source.toolkit.fluxcd.io/name",
            "config.k8s.io/id",
            "config.kubernetes.io/owning-inventory",
            "applyset.kubernetes.io/part-of",
            "app.kubernetes.io/managed-by",
            "app.kubernetes.io/name",
            "team",
        ];
        let labels = all.map(|k| (k.to_owned(), "x".to_owned())).into();
        assert_eq!(
            crate::plan::seen::identity::own_labels(&labels).into_keys().collect::<Vec<_>>(),
            ["app.kubernetes.io/name", "team"]
        );
    }

    proptest! {
        /// The objects change from any state to any other in one pass, and then nothing is left to do.
        #[test]
        fn any_listing_follows_any_other(
            before in prop::collection::btree_set("[0-9a-f]{8}[ab]", 0..20),
            after in prop::collection::btree_set("[0-9a-f]{1,2}[0]{6}[0-9a-f]{2}", 0..20),
            name in "[a-z]([a-z.-]{0,250}[a-z])?",
        ) {
            let (run, labels) = (run(&name), BTreeMap::new());
            let of = |ids: &BTreeSet<String>| ids.iter().map(|id| listed(id, "h/1")).collect::<Vec<_>>();
            let (before, after) = (of(&before), of(&after));
            let mut there = written(&Listing::new(&run, &labels, &before));
            let listing = Listing::new(&run, &labels, &after);
            let gone = listing.to_remove(&there);
            let new = written(&listing);
            prop_assert_eq!(new.len(), after.len(), "one name each");
            there.extend(new);
            there.retain(|name, _| !gone.contains(name));
            prop_assert_eq!(there.len(), after.len());
            prop_assert_eq!(listing.to_write(&there).count(), 0);
            prop_assert!(there.keys().all(|n| n.len() <= 253 && n.ends_with(|c: char| c.is_ascii_alphanumeric())));
        }
    }
}
