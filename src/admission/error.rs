//! Errors of an object, per field, with limited length.

use std::fmt::Display;

use crate::names;

/// Why a field is rejected.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Reason {
    /// The value is not valid.
    Invalid,
    /// Declared, but not implemented.
    NotSupported,
}

impl Reason {
    /// The reason in conditions and events.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Invalid => names::reason::INVALID,
            Self::NotSupported => names::reason::NOT_SUPPORTED,
        }
    }
}

/// The error of one field.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FieldError {
    /// Path such as `spec.members[1].target.rules[0].paths`.
    pub field: String,
    /// Invalid, or not implemented.
    pub reason: Reason,
    /// What is wrong, and what is allowed.
    pub message: String,
}

/// Maximum number of errors in a message: enough to fix the object, and short enough for a condition.
const ERRORS: usize = 20;
/// Maximum length of the path of a field in bytes. The longest path in the CRDs has 140.
const FIELD_LENGTH: usize = 256;
/// Maximum length of the text of one error in bytes.
const MESSAGE_LENGTH: usize = 600;
/// Maximum number of names in a list of a message.
const NAMES: usize = 10;
/// Maximum length of a name in such a list in bytes.
pub const NAME_LENGTH: usize = 64;

impl FieldError {
    /// An error, with limited length.
    pub fn new(field: impl Display, reason: Reason, message: impl Display) -> Self {
        let field = shorten(field.to_string(), FIELD_LENGTH);
        Self { field, reason, message: shorten(message.to_string(), MESSAGE_LENGTH) }
    }
}

/// A text of at most so many bytes. The middle of a longer text is removed, because its beginning names the object,
/// and its end says what to do.
pub fn shorten(mut text: String, most: usize) -> String {
    const GAP: &str = "...";
    if text.len() > most {
        let from = text.floor_char_boundary(most / 2);
        let to = text.ceil_char_boundary(text.len() + from + GAP.len() - most);
        text.replace_range(from..to, GAP);
    }
    text
}

/// Names as a list; long names and long lists are truncated.
pub fn say_list<'a>(names: impl ExactSizeIterator<Item = &'a str>) -> String {
    let more = names.len().saturating_sub(NAMES);
    let shown: Vec<String> = names.take(NAMES).map(|name| shorten(name.to_owned(), NAME_LENGTH)).collect();
    let shown = shown.join(", ");
    if more > 0 { format!("{shown} and {more} more") } else { shown }
}

/// The errors found so far: the first ones, and the number of others.
#[derive(Debug, Default)]
pub struct Errors {
    told: Vec<FieldError>,
    more: usize,
    /// One of the errors that are not listed is Invalid.
    is_more_invalid: bool,
}

impl Errors {
    /// Adds an error.
    pub fn invalid(&mut self, field: impl Display, message: impl Display) {
        self.push(field, Reason::Invalid, message);
    }

    /// Adds a field that is not implemented.
    pub fn not_supported(&mut self, field: impl Display, message: impl Display) {
        self.push(field, Reason::NotSupported, message);
    }

    fn push(&mut self, field: impl Display, reason: Reason, message: impl Display) {
        if self.told.len() < ERRORS {
            self.told.push(FieldError::new(field, reason, message));
        } else {
            self.more += 1;
            self.is_more_invalid |= reason == Reason::Invalid;
        }
    }

    /// The errors in the order found; the last one has the number of others.
    pub fn into_vec(mut self) -> Vec<FieldError> {
        if self.more > 0 {
            let last = self.told.pop();
            let is_invalid = self.is_more_invalid || last.is_some_and(|last| last.reason == Reason::Invalid);
            let reason = if is_invalid { Reason::Invalid } else { Reason::NotSupported };
            let text = format!("has {} more mistakes, which are not listed", self.more + 1);
            self.told.push(FieldError::new("spec", reason, text));
        }
        self.told
    }
}

/// One text for all errors, the same in the webhook's response and in the object's status.
pub fn message(errors: &[FieldError]) -> String {
    errors.iter().map(|e| format!("{}: {}", e.field, e.message)).collect::<Vec<_>>().join("; ")
}

/// Reason of the whole object: `NotSupported` if all errors are of this kind, else `Invalid`. `None` without errors.
pub fn object_reason(errors: &[FieldError]) -> Option<Reason> {
    if errors.is_empty() {
        None
    } else if errors.iter().all(|e| e.reason == Reason::NotSupported) {
        Some(Reason::NotSupported)
    } else {
        Some(Reason::Invalid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_not_supported_only_if_nothing_is_wrong() {
        let error = |reason| FieldError { field: "spec".into(), reason, message: String::new() };
        assert_eq!(object_reason(&[]), None);
        assert_eq!(object_reason(&[error(Reason::NotSupported)]), Some(Reason::NotSupported));
        assert_eq!(object_reason(&[error(Reason::NotSupported), error(Reason::Invalid)]), Some(Reason::Invalid));
    }

    #[test]
    fn many_mistakes_are_told_in_bounded_length() {
        let mut errors = Errors::default();
        for i in 0..400 {
            errors.not_supported(format!("spec.{}", "f".repeat(i)), "\u{2603}".repeat(i));
        }
        let mut with_a_mistake = Errors::default();
        (0..20).for_each(|_| with_a_mistake.not_supported("spec.a", "later"));
        with_a_mistake.invalid("spec.b", "wrong");
        let errors = errors.into_vec();
        assert_eq!(errors.len(), ERRORS);
        assert_eq!(errors[19].message, "has 381 more mistakes, which are not listed");
        assert_eq!(object_reason(&errors), Some(Reason::NotSupported));
        assert!(errors.iter().all(|e| e.field.len() <= FIELD_LENGTH && e.message.len() <= MESSAGE_LENGTH));
        assert_eq!(object_reason(&with_a_mistake.into_vec()), Some(Reason::Invalid), "also if it is not told");
        let long = FieldError::new("f".repeat(999), Reason::Invalid, format!("begins{}ends", "\u{2603}".repeat(999)));
        assert!(long.field.len() <= FIELD_LENGTH && long.message.len() <= MESSAGE_LENGTH, "{long:?}");
        assert!(long.message.starts_with("begins") && long.message.ends_with("ends"), "{long:?}");
        assert_eq!(shorten("as it is".to_owned(), 8), "as it is");
    }

    #[test]
    fn a_long_list_of_names_is_cut() {
        let names: Vec<String> = (0..400).map(|i| format!("/m{i}")).collect();
        let text = say_list(names.iter().map(String::as_str));
        assert!(text.starts_with("/m0, /m1, ") && text.ends_with("/m9 and 390 more"), "{text}");
        assert_eq!(say_list(["a", "b"].into_iter()), "a, b");
        assert!(say_list(["x".repeat(999).as_str()].into_iter()).len() <= NAME_LENGTH);
    }
}
