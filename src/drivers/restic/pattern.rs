//! restic's include and exclude patterns, narrowed to the paths of a restore.
//!
//! restic takes includes or excludes, not both, and joins several includes by "or".
//! So a restore here always runs in include mode: each include pattern is cut down to
//! the part that lies below a path ("and"), and excludes follow as negated patterns,
//! of which the last that matches wins. Include mode also keeps `--delete` away from
//! whatever else stands below the restore folder.

use crate::names::reason;
use crate::plan::contract::{Class, Failure};

/// Patterns for `--include`, in order, that select within `roots` what `include` and `exclude` say.
pub fn patterns(roots: &[String], include: &[String], exclude: &[String]) -> Result<Vec<String>, Failure> {
    let include: Vec<&String> = include.iter().filter(|p| !p.is_empty()).collect();
    let mut patterns = Vec::new();
    for root in roots {
        if include.is_empty() {
            patterns.push(escape(root));
        }
        for pattern in &include {
            let (sign, body) = pattern.strip_prefix('!').map_or(("", pattern.as_str()), |body| ("!", body));
            patterns.extend(narrow(body, root).into_iter().map(|p| format!("{sign}{p}")));
        }
    }
    for pattern in exclude.iter().filter(|p| !p.is_empty()) {
        match pattern.strip_prefix('!') {
            None => patterns.push(format!("!{pattern}")),
            // Takes back an exclude. Together with includes it would select what no include asks for.
            Some(body) if include.is_empty() => patterns.extend(roots.iter().flat_map(|root| narrow(body, root))),
            Some(_) => {
                let text =
                    format!("The exclude pattern {pattern:?} is negated and cannot be combined with include patterns.");
                return Err(Failure::new(Class::Invalid, reason::INVALID, text));
            }
        }
    }
    Ok(patterns)
}

/// The parts of a pattern that lie below `root`: as patterns that begin with it.
fn narrow(pattern: &str, root: &str) -> Vec<String> {
    let parts: Vec<&str> = pattern.split('/').filter(|p| !p.is_empty() && *p != ".").collect();
    // A pattern without a leading slash matches at any depth.
    let parts = if pattern.starts_with('/') { parts } else { [&["**"], parts.as_slice()].concat() };
    let names: Vec<&str> = root.split('/').filter(|p| !p.is_empty()).collect();
    let mut rests = Vec::new();
    walk(&parts, &names, &mut rests);
    let base = escape(root);
    if rests.iter().any(Vec::is_empty) {
        return vec![base];
    }
    rests.sort();
    rests.dedup();
    let base = base.trim_end_matches('/');
    rests.into_iter().map(|rest| format!("{base}/{}", rest.join("/"))).collect()
}

/// Consumes the names of the root; what is left of the pattern then applies below it.
fn walk<'a>(pattern: &[&'a str], names: &[&str], rests: &mut Vec<Vec<&'a str>>) {
    match (pattern.split_first(), names.split_first()) {
        (_, None) => rests.push(pattern.to_vec()),
        // It matched a parent of the root, and with it everything below.
        (None, Some(_)) => rests.push(Vec::new()),
        (Some((&"**", after)), Some((_, deeper))) => {
            walk(after, names, rests);
            walk(pattern, deeper, rests);
        }
        (Some((part, after)), Some((name, deeper))) => {
            if glob(part.as_bytes(), name.as_bytes()) {
                walk(after, deeper, rests);
            }
        }
    }
}

/// A path as a pattern that matches only itself.
pub fn escape(path: &str) -> String {
    path.chars().flat_map(|c| ("*?[\\".contains(c)).then_some('\\').into_iter().chain([c])).collect()
}

/// Go's `filepath.Match` for one name: `*`, `?`, `[a-z]`, `[^a]` and `\`. A malformed pattern
/// matches nothing here; restic refuses it with its own words.
fn glob(pattern: &[u8], name: &[u8]) -> bool {
    let Some((first, rest)) = pattern.split_first() else { return name.is_empty() };
    match first {
        b'*' => (0..=name.len()).any(|n| glob(rest, &name[n..])),
        b'?' => {
            // One character, not one byte.
            let Some(width) = std::str::from_utf8(name).ok().and_then(|s| s.chars().next()).map(char::len_utf8) else {
                return false;
            };
            glob(rest, &name[width..])
        }
        b'[' => class(rest, name),
        b'\\' => rest.split_first().is_some_and(|(c, rest)| name.first() == Some(c) && glob(rest, &name[1..])),
        c => name.first() == Some(c) && glob(rest, &name[1..]),
    }
}

fn class(pattern: &[u8], name: &[u8]) -> bool {
    let (Ok(pattern), Ok(name)) = (std::str::from_utf8(pattern), std::str::from_utf8(name)) else { return false };
    let Some(c) = name.chars().next() else { return false };
    let mut chars = pattern.char_indices().peekable();
    let negated = chars.next_if(|(_, c)| *c == '^').is_some();
    let (mut hit, mut count) = (false, 0);
    while let Some((at, mut low)) = chars.next() {
        if low == ']' && count > 0 {
            return hit != negated && glob(&pattern.as_bytes()[at + 1..], &name.as_bytes()[c.len_utf8()..]);
        }
        if low == '\\' {
            let Some((_, escaped)) = chars.next() else { return false };
            low = escaped;
        }
        let mut high = low;
        if chars.next_if(|(_, c)| *c == '-').is_some() {
            high = match chars.next() {
                Some((_, '\\')) => match chars.next() {
                    Some((_, escaped)) => escaped,
                    None => return false,
                },
                Some((_, high)) => high,
                None => return false,
            };
        }
        hit |= low <= c && c <= high;
        count += 1;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(roots: &[&str], include: &[&str], exclude: &[&str]) -> Vec<String> {
        let own = |l: &[&str]| l.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        patterns(&own(roots), &own(include), &own(exclude)).unwrap()
    }

    #[test]
    fn without_patterns_the_path_itself() {
        assert_eq!(of(&["/source/data"], &[], &[]), ["/source/data"]);
        assert_eq!(of(&["/a[1]/b*"], &[], &[]), ["/a\\[1]/b\\*"]);
        assert_eq!(of(&["/a", "/b"], &[], &["*.tmp", "/a/x"]), ["/a", "/b", "!*.tmp", "!/a/x"]);
    }

    #[test]
    fn includes_are_cut_down_to_the_path() {
        assert_eq!(of(&["/source/data"], &["/source/data/*.json"], &[]), ["/source/data/*.json"]);
        assert_eq!(of(&["/source/data"], &["*.json"], &[]), ["/source/data/**/*.json"]);
        assert_eq!(of(&["/source/data"], &["/source/*/x"], &[]), ["/source/data/x"]);
        assert_eq!(of(&["/source/data"], &["/other/*.json"], &[]), [] as [&str; 0]);
        assert_eq!(of(&["/source/data/sub"], &["/source/data"], &[]), ["/source/data/sub"]);
        assert_eq!(of(&["/source/data/sub"], &["data"], &[]), ["/source/data/sub"]);
        assert_eq!(of(&["/source/data"], &["data/x"], &[]), ["/source/data/**/data/x", "/source/data/x"]);
        assert_eq!(of(&["/source/data"], &["/**/x"], &[]), ["/source/data/**/x"]);
        assert_eq!(of(&["/a", "/b"], &["/a/x", "y"], &[]), ["/a/x", "/a/**/y", "/b/**/y"]);
        assert_eq!(of(&["/a"], &["*.json", "!secret*"], &["/a/t"]), ["/a/**/*.json", "!/a/**/secret*", "!/a/t"]);
    }

    #[test]
    fn a_negated_exclude_takes_back() {
        assert_eq!(of(&["/a"], &[], &["*.log", "!keep.log"]), ["/a", "!*.log", "/a/**/keep.log"]);
        let own = |s: &str| vec![s.to_owned()];
        assert!(patterns(&own("/a"), &own("*.json"), &own("!x")).is_err());
    }

    #[test]
    fn globs_are_those_of_go() {
        for (pattern, name, expected) in [
            ("a*c", "abbc", true),
            ("a?c", "aäc", true),
            ("[a-c]x", "bx", true),
            ("[^a-c]x", "bx", false),
            ("\\*", "*", true),
            ("\\*", "a", false),
            ("[\\]a]", "a", true),
            ("[a", "a", false),
            ("*", "", true),
        ] {
            assert_eq!(glob(pattern.as_bytes(), name.as_bytes()), expected, "{pattern} {name}");
        }
    }

    proptest! {
        #[test]
        fn odd_patterns_never_panic(pattern in "[!*?\\[\\]^a-c/\\\\-]{0,12}", root in "/[a-c/é]{0,6}", name in "[a-cé]{0,4}") {
            let one = std::slice::from_ref(&pattern);
            let _ = patterns(std::slice::from_ref(&root), one, one);
            let _ = glob(pattern.as_bytes(), name.as_bytes());
        }

        #[test]
        fn whatever_is_selected_lies_below_the_path(pattern in "[*a-c/]{1,10}") {
            let root = "/a/b".to_owned();
            for p in patterns(&[root], &[pattern], &[]).unwrap() {
                prop_assert!(p == "/a/b" || p.starts_with("/a/b/"), "{}", p);
            }
        }

        #[test]
        fn an_escaped_name_matches_itself(name in "[*?\\[\\]\\\\a-c^-]{1,8}") {
            prop_assert!(glob(escape(&name).as_bytes(), name.as_bytes()));
        }
    }
}
