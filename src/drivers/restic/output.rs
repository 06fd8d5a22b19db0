//! Parses the output of restic, line by line.
//!
//! New versions of restic add to its JSON, so an unknown message type or field, or a line that is not JSON, is never
//! an error. The stored output of a command is limited: its last lines of text, the first error items, and counts.
//! This file does not interpret the output; `error` does.

use std::collections::hash_map::DefaultHasher;
use std::collections::{HashSet, VecDeque};
use std::hash::{Hash, Hasher};

use serde::Deserialize;
use serde_json::Value;

use crate::contract::restic::SnapshotMade;

/// Lines of text kept of a command, newest last.
const TAIL_LINES: usize = 40;
/// Bytes kept of one such line: 40 of them are 16 KiB.
const TAIL_LINE_BYTES: usize = 400;
/// The kernel's message for a file that does not exist (ENOENT).
const GONE: &str = "no such file or directory";
/// Error items kept with their text. A missing pack can mean thousands (peers study 6.2).
const ITEMS: usize = 50;

/// One JSON message of restic, with the fields of all message types that are used.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
#[allow(clippy::struct_field_names)] // restic's own names.
pub struct Message {
    pub message_type: String,
    pub action: String,
    pub item: String,
    pub size: u64,
    pub error: Value,
    pub message: String,
    pub code: i32,
    pub total_files: u64,
    pub total_bytes: u64,
    pub files_restored: u64,
    pub files_skipped: u64,
    pub bytes_restored: u64,
    pub bytes_skipped: u64,
    pub files_done: u64,
    pub bytes_done: u64,
    pub snapshot_id: String,
    pub new_snapshot_id: String,
    pub files_new: u64,
    pub files_changed: u64,
    pub files_unmodified: u64,
    pub dirs_new: u64,
    pub dirs_changed: u64,
    pub dirs_unmodified: u64,
    pub total_files_processed: u64,
    pub total_bytes_processed: u64,
    pub data_added: u64,
    pub data_added_packed: u64,
    pub total_duration: f64,
    pub path: String,
    #[serde(rename = "type")]
    pub node_type: String,
    pub uid: u32,
    pub gid: u32,
    pub inode: u64,
    pub mtime: String,
}

impl Message {
    /// Values that change while a command makes progress; two equal values mean no progress.
    pub fn position(&self) -> (u64, u64) {
        let all = |counts: [u64; 4]| counts.into_iter().fold(0, u64::saturating_add);
        (
            all([self.files_done, self.files_restored, self.files_skipped, self.total_files]),
            all([self.bytes_done, self.bytes_restored, self.bytes_skipped, self.total_bytes]),
        )
    }

    /// Text of an error message, whose format differs between commands.
    fn error_text(&self) -> String {
        let nested = self.error.get("message").and_then(Value::as_str).or_else(|| self.error.as_str());
        nested.unwrap_or(&self.message).to_owned()
    }
}

/// One line.
#[derive(Clone, Debug, PartialEq)]
pub enum Line {
    /// A JSON object.
    Json(Box<Message>),
    /// Any other line.
    Text(String),
}

/// Reads a line; never fails.
pub fn parse(line: &[u8]) -> Line {
    let json = line.trim_ascii();
    if json.first() == Some(&b'{')
        && let Ok(message) = serde_json::from_slice(json)
    {
        return Line::Json(message);
    }
    Line::Text(String::from_utf8_lossy(json).into_owned())
}

/// What restic reports about a snapshot of a path.
pub fn made(summary: &Message, path: &str) -> SnapshotMade {
    SnapshotMade {
        id: summary.snapshot_id.clone(),
        path: path.to_owned(),
        total_files: summary.total_files_processed,
        new_files: summary.files_new,
        modified_files: summary.files_changed,
        unmodified_files: summary.files_unmodified,
        total_bytes: summary.total_bytes_processed,
        uploaded_bytes: summary.data_added_packed.max(if summary.data_added_packed == 0 {
            summary.data_added
        } else {
            0
        }),
        seconds: summary.total_duration,
    }
}

/// Hash of a path, because a million of them may be stored.
pub fn path_key(path: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    path.hash(&mut hasher);
    hasher.finish()
}

/// Percent of a whole that is not zero.
#[allow(clippy::cast_precision_loss)] // A percentage for people: 53 bits are plenty.
pub fn share(done: u64, whole: u64) -> f64 {
    done as f64 * 100.0 / whole as f64
}

/// The stored part of a command's output.
#[derive(Debug, Default)]
pub struct Report {
    /// Error messages seen.
    pub errors: u64,
    /// Of these, errors about items that no longer existed when they were read.
    pub vanished: u64,
    /// The first of them: item and text.
    pub items: Vec<(String, String)>,
    /// Items that failed, by [`path_key`].
    pub failed: HashSet<u64>,
    /// The fatal error with which restic ended.
    pub fatal: Option<String>,
    /// The counts with which restic ended.
    pub summary: Option<Message>,
    tail: VecDeque<String>,
}

impl Report {
    /// Adds a line.
    pub fn note(&mut self, line: &Line) {
        match line {
            Line::Text(text) => self.push(text),
            Line::Json(m) => match m.message_type.as_str() {
                "error" => {
                    self.errors += 1;
                    let text = m.error_text();
                    self.vanished += u64::from(!m.item.is_empty() && text.ends_with(GONE));
                    if !m.item.is_empty() {
                        self.failed.insert(path_key(&m.item));
                    }
                    if self.items.len() < ITEMS {
                        self.items.push((m.item.clone(), clip(&text)));
                    } else {
                        self.push(&text);
                    }
                }
                "exit_error" => {
                    self.fatal = Some(clip(m.message.trim()));
                    self.push(&m.message);
                }
                "summary" => self.summary = Some((**m).clone()),
                _ => {}
            },
        }
    }

    /// The last lines of text, and of errors that are not kept with their items.
    pub fn tail(&self) -> impl Iterator<Item = &str> {
        self.tail.iter().map(String::as_str)
    }

    fn push(&mut self, text: &str) {
        for line in text.lines().filter(|l| !l.trim().is_empty()) {
            if self.tail.len() == TAIL_LINES {
                self.tail.pop_front();
            }
            self.tail.push_back(clip(line));
        }
    }
}

fn clip(text: &str) -> String {
    let mut text = text.to_owned();
    crate::text::cut(&mut text, TAIL_LINE_BYTES);
    text
}

/// Splits a stream into lines. A line that exceeds the limit is dropped.
#[derive(Debug)]
pub struct Lines {
    pending: Vec<u8>,
    limit: usize,
    dropping: bool,
}

impl Lines {
    pub fn new(limit: usize) -> Self {
        Self { pending: Vec::new(), limit, dropping: false }
    }

    /// Adds bytes, and returns the completed lines.
    pub fn feed(&mut self, bytes: &[u8], mut each: impl FnMut(&[u8])) {
        for part in bytes.split_inclusive(|b| *b == b'\n') {
            if !self.dropping {
                self.pending.extend_from_slice(part);
            }
            if self.pending.len() > self.limit {
                self.pending = Vec::new();
                self.dropping = true;
            }
            if part.ends_with(b"\n") {
                if !self.dropping {
                    each(&self.pending);
                }
                self.pending.clear();
                self.dropping = false;
            }
        }
    }

    /// The remaining bytes, at the end of the stream.
    pub fn finish(&mut self, each: impl FnOnce(&[u8])) {
        if !self.pending.is_empty() {
            each(&self.pending);
            self.pending.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..4000), cut in 1usize..97) {
            let mut report = Report::default();
            let mut lines = Lines::new(300);
            for part in bytes.chunks(cut) {
                lines.feed(part, |l| report.note(&parse(l)));
            }
            lines.finish(|l| report.note(&parse(l)));
            prop_assert!(report.tail().count() <= TAIL_LINES);
            prop_assert!(report.tail().all(|l| l.len() <= TAIL_LINE_BYTES));
        }

        #[test]
        fn lines_do_not_depend_on_the_chunks(bytes in proptest::collection::vec(prop_oneof![Just(b'\n'), any::<u8>()], 0..600), cut in 1usize..50) {
            let all = |size: usize| {
                let (mut lines, mut seen) = (Lines::new(40), Vec::new());
                for part in bytes.chunks(size) {
                    lines.feed(part, |l| seen.push(l.to_vec()));
                }
                lines.finish(|l| seen.push(l.to_vec()));
                seen
            };
            let whole = all(bytes.len().max(1));
            prop_assert_eq!(all(cut), whole);
        }

        #[test]
        fn odd_values_in_known_fields_never_panic(kind in "status|summary|error|exit_error|verbose_status|node", value in ".{0,30}") {
            let mut report = Report::default();
            for field in ["error", "item", "size", "code", "message", "total_files", "current_files"] {
                let line = serde_json::json!({"message_type": kind.clone(), field: value.clone()}).to_string();
                report.note(&parse(line.as_bytes()));
            }
        }
    }

    #[test]
    fn errors_are_counted_in_both_shapes() {
        let mut report = Report::default();
        report.note(&parse(br#"{"message_type":"error","error":{"message":"no space left on device"},"item":"/a"}"#));
        report.note(&parse(br#"{"message_type":"error","message":"pack 1 missing"}"#));
        report.note(&parse(br#"{"message_type":"from_the_future","x":[1]}"#));
        report.note(&parse(br#"{"message_type":"exit_error","code":1,"message":"Fatal: There were 2 errors\n"}"#));
        assert_eq!((report.errors, report.failed.len()), (2, 1));
        assert_eq!(report.items[1].1, "pack 1 missing");
        assert_eq!(report.fatal.as_deref(), Some("Fatal: There were 2 errors"));
    }
}
