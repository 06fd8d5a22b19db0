//! Texts for users: sizes, counts and sentences, cut to the maximum length of their field.

/// Maximum length of a summary, which is a column of `kubectl get`.
const SUMMARY_MAX: usize = 160;
/// Maximum length of the message of a condition or an event (an event's note may have 1 kB).
const MESSAGE_MAX: usize = 1000;

/// Cuts a text to a summary, the one line of a session.
pub fn summary(text: &str) -> String {
    bounded(text, SUMMARY_MAX)
}

/// Cuts a text to the message of a condition or an event.
pub fn message(text: &str) -> String {
    bounded(text, MESSAGE_MAX)
}

/// Adds a full stop to a text of another program that has none.
pub fn sentence(text: &str) -> String {
    let text = text.trim_end();
    if text.ends_with(['.', '!', '?']) { text.to_owned() } else { format!("{text}.") }
}

/// The first digits of a long id, for example of a snapshot, as users know it.
pub fn short_id(id: &str) -> &str {
    id.char_indices().nth(8).map_or(id, |(at, _)| &id[..at])
}

/// `1 host`, `3 hosts`.
pub fn hosts(n: usize) -> String {
    count(i64::try_from(n).unwrap_or(i64::MAX), "host", "hosts")
}

/// `1 entry`, `2 entries`.
pub fn count(n: i64, one: &str, many: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { many })
}

/// Entries of a tree: files, folders, links.
pub fn entries(n: i64) -> String {
    count(n, "entry", "entries")
}

/// Replicas of a workload.
pub fn replicas(n: i32) -> String {
    count(n.into(), "replica", "replicas")
}

/// Units of sizes, each 1024 times the previous one.
pub const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

/// Bytes for users, in the format of restic and Stash: `3.408 MiB`.
pub fn size(bytes: u64) -> String {
    #[allow(clippy::cast_precision_loss, reason = "three decimals are shown")]
    let mut value = bytes as f64;
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut unit = 1;
    value /= 1024.0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.3} {}", UNITS[unit])
}

/// Bytes for users: `56 B`, `9.5 MiB`, `286 MiB`.
pub fn bytes(n: i64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if n < 1024 {
        return format!("{n} B");
    }
    #[allow(clippy::cast_precision_loss, reason = "three digits are shown")]
    let mut value = n as f64 / 1024.0;
    let mut unit = 0;
    // A value that would be rounded to 1024 is 1 of the next unit.
    while value >= 1023.5 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let digits = usize::from(value < 9.95);
    format!("{value:.digits$} {}", UNITS[unit])
}

/// `3 MiB of 286 MiB`; in bytes if the two values differ but would have the same text.
pub fn bytes_of(done: i64, all: i64) -> String {
    let (some, whole) = (bytes(done), bytes(all));
    if some == whole && done != all { format!("{done} of {all} bytes") } else { format!("{some} of {whole}") }
}

/// Cuts a text to at most `limit` bytes of JSON, at a character boundary, and marks the cut with `…`.
pub fn cut(text: &mut String, limit: usize) {
    if text.chars().map(escaped).sum::<usize>() <= limit {
        return;
    }
    let room = limit.saturating_sub('…'.len_utf8());
    let mut used = 0;
    let end = text.char_indices().find(|(_, c)| {
        used += escaped(*c);
        used > room
    });
    text.truncate(end.map_or(0, |(at, _)| at));
    text.push('…');
}

/// Bytes of a character in a JSON string.
fn escaped(c: char) -> usize {
    match c {
        '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => 2,
        c if c < ' ' => 6,
        c => c.len_utf8(),
    }
}

fn bounded(text: &str, limit: usize) -> String {
    let mut text = text.to_owned();
    cut(&mut text, limit);
    text
}

#[cfg(test)]
mod tests {
    use crate::plan::effects::Event;

    #[test]
    fn counts_and_sizes_read_as_a_person_writes_them() {
        assert_eq!([super::entries(0), super::entries(1), super::entries(2)], ["0 entries", "1 entry", "2 entries"]);
        assert_eq!([super::replicas(1), super::replicas(0)], ["1 replica", "0 replicas"]);
        let sizes = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (10_188, "9.9 KiB"),
            (10_190, "10 KiB"),
            (300_000_042, "286 MiB"),
            (1_073_741_823, "1.0 GiB"),
            (i64::MAX, "8.0 EiB"),
        ];
        for (n, text) in sizes {
            assert_eq!(super::bytes(n), text, "{n}");
        }
        assert_eq!(super::bytes_of(5, 300_000_042), "5 B of 286 MiB");
        assert_eq!(super::bytes_of(300_000_041, 300_000_042), "300000041 of 300000042 bytes");
    }

    #[test]
    fn a_long_message_still_fits_an_event() {
        let long = "ä".repeat(2000);
        let note = Event::new(true, "R", &long).message;
        assert!(note.len() <= 1000 && note.ends_with('…'), "{} bytes", note.len());
        assert_eq!(super::summary("short"), "short");
    }
}
