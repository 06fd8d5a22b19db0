//! Texts cut to what their place can hold.

use super::contract::cut;

/// Longest summary; it is a column of `kubectl get`.
const SUMMARY_MAX: usize = 160;
/// Longest message of a condition or an event (an event's note may have 1 kB).
const MESSAGE_MAX: usize = 1000;

/// As a session's one line.
pub fn summary(text: &str) -> String {
    bounded(text, SUMMARY_MAX)
}

/// As the message of a condition or an event.
pub fn message(text: &str) -> String {
    bounded(text, MESSAGE_MAX)
}

/// With the full stop that others leave out.
pub fn sentence(text: &str) -> String {
    let text = text.trim_end();
    if text.ends_with(['.', '!', '?']) { text.to_owned() } else { format!("{text}.") }
}

fn bounded(text: &str, limit: usize) -> String {
    let mut text = text.to_owned();
    cut(&mut text, limit);
    text
}

#[cfg(test)]
mod tests {
    use crate::plan::Event;

    #[test]
    fn a_long_message_still_fits_an_event() {
        let long = "ä".repeat(2000);
        let note = Event::new(true, "R", &long).message;
        assert!(note.len() <= 1000 && note.ends_with('…'), "{} bytes", note.len());
        assert_eq!(super::summary("short"), "short");
    }
}
