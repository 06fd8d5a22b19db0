//! The annotation on a workload that says why it stays at zero. It outlives the session that left the workload there.
//!
//! A user who may write the annotation can scale the workload anyway. It is still read as untrusted input.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::names::annotation;
use crate::plan::seen::target::Target;
use crate::text::cut;

/// Longest annotation that is read, in bytes. Lifeboat writes at most [`PLACES_MAX`], [`WHY_MAX`] twice, and some
/// hundred more.
const READ_MAX: usize = 32_768;
/// Stands for an annotation that is longer.
const TOO_LONG: &str = "longer than is read";
/// Longest reason, bytes.
const WHY_MAX: usize = 512;
/// Most replicas that are taken from an annotation. No workload that shares volumes has as many.
const MOST_REPLICAS: i32 = 10_000;
/// Most bytes of places that are written.
const PLACES_MAX: usize = 24_576;
/// Longest name of a session, `Kind/namespace/name`: twice 253 characters and a kind.
const SESSION_MAX: usize = 600;

/// Prefix of the volume name of a folder on a node.
pub const ON_NODE: &str = "node ";

/// Replaces an annotation that is too long to be read.
pub fn bound(text: &mut String) {
    if text.len() > READ_MAX {
        TOO_LONG.clone_into(text);
    }
}

/// The annotation, as JSON.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Note {
    /// Replicas that the workload is scaled back to. 0 if it had none before.
    pub replicas: i32,
    /// The session that left it down, `Kind/namespace/name`.
    pub session: String,
    /// Uid of the session.
    pub uid: String,
    /// Why it stays down.
    pub why: String,
    /// Since when, RFC 3339.
    pub since: String,
    /// What is half restored. Empty if that is not known; then no restore can be known to have restored it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub places: Vec<Place>,
}

/// A folder of volumes that is half restored.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Place {
    /// The volumes, as messages name them.
    pub volumes: Vec<String>,
    /// The folder in each of them.
    pub path: String,
    /// Stands for what the rule left out. `None` if the rule restored everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub only: Option<String>,
    /// The snapshots whose files are half restored, by the first digits of their ids. Another snapshot may not have all
    /// of these files.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub snapshots: Vec<String>,
    /// Files that no snapshot has may be half deleted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub deleting: bool,
}

impl Note {
    /// As the annotation's value.
    pub fn write(&self) -> String {
        let mut note = Self { places: written(self.places.clone()), ..self.clone() };
        // In the text that is left, JSON at most doubles a character.
        note.why = note.why.replace(char::is_control, " ");
        cut(&mut note.why, WHY_MAX);
        serde_json::to_string(&note).unwrap_or_default()
    }

    /// Whether the note says the same of the workload as another note.
    pub fn says(&self, other: &Self) -> bool {
        (&self.uid, self.replicas) == (&other.uid, other.replicas)
            && written(self.places.clone()) == written(other.places.clone())
    }

    /// The node of the half-restored folders on nodes, if all are on one node.
    pub fn node(&self) -> Option<&str> {
        let mut nodes = self.places.iter().flat_map(|p| &p.volumes).filter_map(|v| v.strip_prefix(ON_NODE));
        let first = nodes.next()?;
        nodes.all(|n| n == first).then_some(first)
    }

    /// The note of a workload that is at zero, if it has one. The note of a workload that is up does not count.
    pub fn of(target: &Target) -> Option<Result<Self, &'static str>> {
        target.held_down.as_deref().filter(|_| target.replicas == 0).map(Self::read)
    }

    /// The same, if the note can be read.
    pub fn valid(target: &Target) -> Option<Self> {
        Self::of(target)?.ok()
    }

    /// Reads a note from the annotation's value.
    ///
    /// # Errors
    /// The value is not what Lifeboat writes.
    pub fn read(text: &str) -> Result<Self, &'static str> {
        if text.len() > READ_MAX || text == TOO_LONG {
            return Err("is longer than 32768 bytes");
        }
        let note: Self = serde_json::from_str(text).map_err(|_| "is not in the format of Lifeboat")?;
        if !(0..=MOST_REPLICAS).contains(&note.replicas) {
            return Err("has replicas outside of 0 to 10000");
        }
        if note.session.len() > SESSION_MAX || note.session.chars().any(char::is_control) {
            return Err("names no session");
        }
        Ok(note)
    }
}

impl Place {
    /// Upper bound of its length as JSON, in bytes.
    fn bytes(&self) -> usize {
        let text = |t: &String| serde_json::to_string(t).map_or(t.len(), |t| t.len() + 1);
        let all = |list: &[String]| list.iter().map(text).sum::<usize>();
        90 + text(&self.path) + self.only.as_ref().map_or(0, text) + all(&self.volumes) + all(&self.snapshots)
    }
}

/// Places as an annotation holds them. Too many places are replaced by their whole volumes, and too many volumes by an
/// empty list.
fn written(places: Vec<Place>) -> Vec<Place> {
    let is_too_long = |places: &[Place]| places.iter().map(Place::bytes).sum::<usize>() > PLACES_MAX;
    if !is_too_long(&places) {
        return places;
    }
    let volumes = Vec::from_iter(places.into_iter().flat_map(|p| p.volumes).collect::<BTreeSet<_>>());
    let whole = vec![Place { volumes, path: "/".to_owned(), ..Place::default() }];
    if is_too_long(&whole) { vec![] } else { whole }
}

/// Why a target must not be backed up: its data is half restored, and a snapshot of that would be the newest one.
pub fn no_backup(target: &Target) -> Option<String> {
    let (name, key) = (&target.display, annotation::HELD_DOWN);
    Some(match Note::of(target)? {
        Ok(note) => format!(
            "{name} is at 0 replicas because {} left its data half restored, so it is not backed up. Restore it again. To back it up as it is, remove its annotation {key}.",
            note.session
        ),
        Err(why) => format!(
            "{name} is at 0 replicas, and its annotation {key} {why}. Its data may be half restored, so {name} is not backed up. Remove the annotation if the data is complete."
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(replicas: i32) -> Note {
        Note {
            replicas,
            session: "RestoreSession/demo/web".into(),
            uid: "u".into(),
            why: "It broke.".into(),
            since: "2026-11-20T00:00:00Z".into(),
            ..Note::default()
        }
    }

    #[test]
    fn what_is_written_reads_back() {
        assert_eq!(Note::read(&note(3).write()), Ok(note(3)));
        let place = |n: usize| Place { volumes: vec![format!("PersistentVolumeClaim data-{n}")], ..Place::default() };
        let (few, many) = ((0..3).map(place).collect::<Vec<_>>(), (0..1000).map(place).collect::<Vec<_>>());
        let read = Note::read(&Note { places: few.clone(), ..note(3) }.write()).unwrap();
        assert_eq!(read.places, few);
        let read = Note::read(&Note { places: many, why: "\u{1}".repeat(5000), ..note(3) }.write()).unwrap();
        assert_eq!(read.places, [], "too many volumes to be written");
        // Paths of few volumes: the volumes stand for them.
        let path =
            |n: usize| Place { path: format!("/{n}/{}", "p".repeat(900)), only: Some("x".into()), ..place(n % 2) };
        let long = Note { places: (0..40).map(path).collect(), ..note(3) };
        let read = Note::read(&long.write()).unwrap();
        assert_eq!(read.places.len(), 1);
        assert_eq!((read.places[0].path.as_str(), read.places[0].volumes.len(), &read.places[0].only), ("/", 2, &None));
        assert!(read.says(&long) && !read.says(&note(3)));
        for why in ["\u{1}", "\"", "\u{7f}ä"] {
            let places = (0..120).map(place).collect::<Vec<_>>();
            let session = format!("RestoreSession/{}/{}", "n".repeat(63), "x".repeat(253));
            let full = Note { places: places.clone(), why: why.repeat(5000), session, uid: "u".repeat(36), ..note(3) };
            assert_eq!(Note::read(&full.write()).unwrap().places, places);
        }
        let long = Note { why: "ä".repeat(5000), ..note(1) };
        let read = Note::read(&long.write()).unwrap();
        assert!(read.why.len() <= WHY_MAX && read.replicas == 1);
    }

    #[test]
    fn what_somebody_forged_is_no_number() {
        for replicas in [-1, i32::MIN, 10_001, i32::MAX] {
            assert!(Note::read(&note(replicas).write()).is_err(), "{replicas}");
        }
        let text = |replicas: &str| note(7).write().replace('7', replicas);
        assert!(Note::read(&text("8")).is_ok());
        for garbage in ["", "{", "3", "null", "[]", "{}", &text("1e3"), &text("99999999999999999999"), &text("\"2\"")] {
            assert!(Note::read(garbage).is_err(), "{garbage}");
        }
        assert!(Note::read(&Note { session: "a\nb".into(), ..note(1) }.write()).is_err());
        assert!(Note::read(&Note { uid: "u".repeat(40_000), ..note(1) }.write()).is_err());
    }
}
