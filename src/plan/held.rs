//! What a workload says of why it stays at zero: an annotation, so that it outlives the session that left it there.
//!
//! Whoever may write it can scale the workload anyway. It is read all the same as what a stranger wrote.

use serde::{Deserialize, Serialize};

use super::contract::cut;

/// Longest annotation that is read, bytes. Ours have at most some hundred more than [`WHY_MAX`].
const READ_MAX: usize = 4096;
/// Stands for one that is longer.
const TOO_LONG: &str = "longer than is read";
/// Longest reason, bytes.
const WHY_MAX: usize = 512;
/// Most replicas that are taken from an annotation; nothing that shares volumes has as many.
const MOST_REPLICAS: i32 = 10_000;
/// Longest name of a session, `Kind/namespace/name`: twice 253 characters and a kind.
const SESSION_MAX: usize = 600;

/// Keeps no more of an annotation than is read.
pub fn bound(text: &mut String) {
    if text.len() > READ_MAX {
        TOO_LONG.clone_into(text);
    }
}

/// The annotation, as JSON.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Note {
    /// Replicas that it comes back to.
    pub replicas: i32,
    /// The session that left it down, `Kind/namespace/name`.
    pub session: String,
    /// Uid of the session.
    pub uid: String,
    /// Why it stays down.
    pub why: String,
    /// Since when, RFC 3339.
    pub since: String,
}

impl Note {
    /// As the annotation's value.
    pub fn write(&self) -> String {
        let mut note = self.clone();
        cut(&mut note.why, WHY_MAX);
        serde_json::to_string(&note).unwrap_or_default()
    }

    /// From the annotation's value.
    ///
    /// # Errors
    /// It is not what we write.
    pub fn read(text: &str) -> Result<Self, &'static str> {
        if text.len() > READ_MAX || text == TOO_LONG {
            return Err("is longer than 4096 bytes");
        }
        let note: Self = serde_json::from_str(text).map_err(|_| "is not as Lifeboat writes it")?;
        if !(1..=MOST_REPLICAS).contains(&note.replicas) {
            return Err("names replicas outside of 1 to 10000");
        }
        if note.session.len() > SESSION_MAX || note.session.chars().any(char::is_control) {
            return Err("names no session");
        }
        Ok(note)
    }
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
        }
    }

    #[test]
    fn what_is_written_reads_back() {
        assert_eq!(Note::read(&note(3).write()), Ok(note(3)));
        let long = Note { why: "ä".repeat(5000), ..note(1) };
        let read = Note::read(&long.write()).unwrap();
        assert!(read.why.len() <= WHY_MAX && read.replicas == 1);
    }

    #[test]
    fn what_somebody_forged_is_no_number() {
        for replicas in [0, -1, i32::MIN, 10_001, i32::MAX] {
            assert!(Note::read(&note(replicas).write()).is_err(), "{replicas}");
        }
        let text = |replicas: &str| note(7).write().replace('7', replicas);
        assert!(Note::read(&text("8")).is_ok());
        for garbage in ["", "{", "3", "null", "[]", "{}", &text("1e3"), &text("99999999999999999999"), &text("\"2\"")] {
            assert!(Note::read(garbage).is_err(), "{garbage}");
        }
        assert!(Note::read(&Note { session: "a\nb".into(), ..note(1) }.write()).is_err());
        assert!(Note::read(&Note { uid: "u".repeat(5000), ..note(1) }.write()).is_err());
    }
}
