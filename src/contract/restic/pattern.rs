//! The syntax of restic's patterns: Go's `filepath.Match` between two slashes, and `**` for any number of folders.
//!
//! restic rejects a malformed pattern only when it starts, and by then the workload of a restore is scaled down. So
//! this module knows what restic rejects, for code that admits patterns and for code that matches by them.

/// A character or wildcard of one part of a pattern.
#[derive(Clone, Debug, PartialEq)]
pub enum Token {
    /// `*`: any characters.
    Star,
    /// `?`: any one character.
    Any,
    /// This character.
    One(char),
    /// `[a-z]`, or `[^a-z]`.
    Class {
        /// Whether the class matches all characters except the ranges.
        is_negated: bool,
        /// First and last of each range.
        ranges: Vec<(char, char)>,
    },
}

/// Whether a pattern is negated, and the rest of it.
pub fn split(pattern: &str) -> (bool, &str) {
    pattern.strip_prefix('!').map_or((false, pattern), |body| (true, body))
}

/// The parts of a pattern, as Go's `filepath.Clean` leaves them: restic cleans each pattern this way.
pub fn cleaned(pattern: &str) -> Vec<&str> {
    let mut parts: Vec<&str> = vec![];
    for part in pattern.split('/').filter(|p| !p.is_empty() && *p != ".") {
        match parts.last() {
            Some(last) if part == ".." && *last != ".." => drop(parts.pop()),
            None if part == ".." && pattern.starts_with('/') => {}
            _ => parts.push(part),
        }
    }
    parts
}

/// The tokens of a part of a pattern; `None` if it is malformed.
pub fn tokens(text: &str) -> Option<Vec<Token>> {
    let mut all = vec![];
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        all.push(match c {
            '*' => Token::Star,
            '?' => Token::Any,
            '\\' => Token::One(chars.next()?),
            '[' => {
                let is_negated = chars.next_if_eq(&'^').is_some();
                let mut ranges = vec![];
                while ranges.is_empty() || chars.next_if_eq(&']').is_none() {
                    let low = bound(&mut chars)?;
                    let high = if chars.next_if_eq(&'-').is_some() { bound(&mut chars)? } else { low };
                    ranges.push((low, high));
                }
                Token::Class { is_negated, ranges }
            }
            c => Token::One(c),
        });
    }
    Some(all)
}

/// An end of a range of characters.
fn bound(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<char> {
    match chars.next()? {
        '\\' => chars.next(),
        '-' | ']' => None,
        c => Some(c),
    }
}

/// Checks whether restic accepts a pattern.
///
/// # Errors
/// What is wrong with it: restic rejects it, or it cannot be passed to a program.
pub fn check(pattern: &str) -> Result<(), String> {
    no_nul(pattern)?;
    let malformed = cleaned(split(pattern).1).into_iter().find(|part| tokens(part).is_none());
    malformed.map_or(Ok(()), |part| {
        Err(format!(
            "{pattern:?} is not a valid pattern: {part:?} has an unclosed bracket, a range without an end, or a backslash at its end; write \\[ for a literal bracket"
        ))
    })
}

/// Checks whether a text can be an argument of a program.
///
/// # Errors
/// The text has a NUL character: the kernel ends arguments and variables at it, so that no program starts with one.
pub fn no_nul(text: &str) -> Result<(), String> {
    if text.contains('\0') {
        return Err(format!("{text:?} contains a NUL character (\\u0000); remove it"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What restic 0.18.0 reports for each ("invalid pattern(s) provided").
    #[test]
    fn what_restic_refuses_is_refused() {
        for good in [
            "*.log",
            "!keep.log",
            "/data/**/x",
            "[a-c]",
            "[^a]",
            "\\[a",
            "[\\]a]",
            "a]",
            "**",
            "!",
            ".",
            "/",
            "[a/../b",
        ] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for bad in ["[a", "![a", "/data/[", "x/[]a]/y", "[a-]", "[-a]", "a\\", "[a\\", "[^", "b/[]", "a\0b", "!\0"] {
            let text = check(bad).unwrap_err();
            assert!(text.starts_with(&format!("{bad:?}")), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_pattern_of_names_alone_is_good(pattern in "!?[a-c*?/.]{0,12}") {
            prop_assert_eq!(check(&pattern), Ok(()));
        }
    }
}
