//! What an action says: its last bytes, without what looks like a credential.
//!
//! Redaction cannot know every secret of a user. It removes the values that the hook itself carries, values that are
//! named like a credential, and the user information of URLs. docs/hooks.md tells authors not to print secrets.

use tokio::io::{AsyncRead, AsyncReadExt as _};

/// Bytes that are kept: with the failure's own text they fit into the outcome of a Job (4 KiB).
const KEPT: usize = 2048;
/// What stands for a removed value.
const GONE: &str = "***";
/// Shortest value that is removed wherever it stands: shorter ones occur in ordinary words.
const SHORTEST: usize = 4;
/// Names of values that are removed, in lower case.
const NAMES: [&str; 9] =
    ["password", "passwd", "pwd", "secret", "token", "authorization", "apikey", "api_key", "credential"];

/// The last bytes of an output.
#[derive(Debug, Default)]
pub struct Tail {
    bytes: Vec<u8>,
    is_cut: bool,
}

impl Tail {
    /// Adds bytes, and drops the first ones that have no room.
    pub fn add(&mut self, more: &[u8]) {
        self.bytes.extend_from_slice(more);
        let excess = self.bytes.len().saturating_sub(KEPT);
        self.is_cut |= excess > 0;
        self.bytes.drain(..excess);
    }

    /// The output as text, without these values and without what looks like a credential.
    pub fn text(&self, secrets: &[&str]) -> String {
        let text = String::from_utf8_lossy(&self.bytes);
        // A value may be cut in two by the limit.
        let text = match text.split_once('\n').filter(|_| self.is_cut) {
            Some((_, whole)) => format!("... {whole}"),
            None if self.is_cut => "...".to_owned(),
            None => text.into_owned(),
        };
        redact(text.trim(), secrets)
    }
}

/// Reads both outputs of a process to their ends.
pub async fn drain(out: Option<impl AsyncRead + Unpin>, err: Option<impl AsyncRead + Unpin>, said: &mut Tail) {
    let (mut out, mut err) = (out, err);
    let (mut a, mut b) = ([0; 4096], [0; 4096]);
    while out.is_some() || err.is_some() {
        let (first, n) = tokio::select! {
            n = read(&mut out, &mut a), if out.is_some() => (true, n),
            n = read(&mut err, &mut b), if err.is_some() => (false, n),
        };
        match (first, n) {
            (true, 0) => out = None,
            (false, 0) => err = None,
            (true, n) => said.add(&a[..n]),
            (false, n) => said.add(&b[..n]),
        }
    }
}

/// Bytes that were read; 0 at the end, which an error is too.
async fn read(from: &mut Option<impl AsyncRead + Unpin>, into: &mut [u8]) -> usize {
    match from {
        Some(from) => from.read(into).await.unwrap_or(0),
        None => 0,
    }
}

/// The text without these values and without what looks like a credential.
pub fn redact(text: &str, secrets: &[&str]) -> String {
    let mut text = text.to_owned();
    for secret in secrets.iter().filter(|s| s.len() >= SHORTEST) {
        text = text.replace(secret, GONE);
    }
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

fn line(line: &str) -> String {
    let mut out: Vec<String> = vec![];
    let mut hides = false;
    for word in line.split(' ') {
        let lower = word.to_ascii_lowercase();
        if hides && !word.is_empty() {
            // `Authorization: Bearer x` has its value after the next word.
            hides = ["bearer", "basic"].contains(&lower.as_str());
            out.push(if hides { word.to_owned() } else { GONE.to_owned() });
            continue;
        }
        let named = word.find(['=', ':']).filter(|at| NAMES.iter().any(|name| lower[..*at].ends_with(name)));
        match named {
            Some(at) if at + 1 < word.len() => out.push(format!("{}{GONE}", &word[..=at])),
            Some(_) => {
                hides = true;
                out.push(word.to_owned());
            }
            None => out.push(without_user(word)),
        }
    }
    out.join(" ")
}

/// A URL without its user information.
fn without_user(word: &str) -> String {
    let Some((scheme, rest)) = word.split_once("://") else { return word.to_owned() };
    let end = rest.find('/').unwrap_or(rest.len());
    match rest[..end].rfind('@') {
        Some(at) => format!("{scheme}://{GONE}{}", &rest[at..]),
        None => word.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_looks_like_a_credential_is_removed() {
        for (said, left) in [
            ("connected as root", "connected as root"),
            ("MYSQL_PASSWORD=hunter22 set", "MYSQL_PASSWORD=*** set"),
            ("password: hunter22, next", "password: *** next"),
            ("Authorization: Bearer abc.def", "Authorization: Bearer ***"),
            ("to postgres://u:hunter22@db:5432/x", "to postgres://***@db:5432/x"),
            ("http://db/a@b stays", "http://db/a@b stays"),
            ("it said hunter22!", "it said ***!"),
        ] {
            assert_eq!(redact(said, &["hunter22"]), left);
        }
        assert_eq!(redact("a no is no secret", &["no"]), "a no is no secret", "too short to be one");
    }

    #[test]
    fn a_value_that_the_limit_cuts_in_two_is_not_shown() {
        let mut tail = Tail::default();
        tail.add(format!("{}TOKEN=abcdefgh\nend", "x".repeat(10)).as_bytes());
        tail.add(&b"y".repeat(KEPT - 8));
        let text = tail.text(&[]);
        assert!(!text.contains("fgh") && text.starts_with("..."), "{text}");
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in ".{0,200}", secret in ".{0,8}") {
            let _ = redact(&text, &[&secret]);
        }

        #[test]
        fn a_known_value_is_in_no_output(before in "[a-z ]{0,20}", secret in "[A-Z0-9]{8}", after in "[a-z ]{0,20}") {
            let said = redact(&format!("{before}{secret}{after}"), &[&secret]);
            prop_assert!(!said.contains(&secret));
        }
    }
}
