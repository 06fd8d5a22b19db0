//! restic's include and exclude patterns, narrowed to a path of a restore, and what they select.
//!
//! restic takes includes or excludes, not both, and joins several includes by "or".
//! So a restore here always runs in include mode: each include pattern is cut down to
//! the part that lies below the path ("and"), and excludes follow as negated patterns,
//! of which the last that matches wins. Include mode also keeps `--delete` away from
//! whatever else stands below the restore folder.
//!
//! What is selected is known without a restore, from a list of what a snapshot holds:
//! [`Walk`] goes through it as restic does.

use std::collections::BTreeSet;

use crate::names::reason;
use crate::plan::contract::{Class, Failure};

/// What is restored of a path: patterns below a folder, above which nothing is touched.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Below {
    /// The folder, normalised.
    pub base: String,
    /// Patterns for `--include`, in order, over paths below it; each begins with a slash. None selects nothing.
    pub patterns: Vec<String>,
}

impl Below {
    /// The same from `above` on, a folder that the base is in: where the base is not there, it comes from the snapshot.
    pub fn start_at(&mut self, above: &str) {
        let missing = escape(self.base.strip_prefix(above).unwrap_or_default().trim_matches('/'));
        if !missing.is_empty() {
            for pattern in &mut self.patterns {
                let at = usize::from(pattern.starts_with('!'));
                pattern.insert_str(at, &format!("/{missing}"));
            }
            above.clone_into(&mut self.base);
        }
    }
}

/// What `include` and `exclude` select of the path `root`.
pub fn select(root: &str, include: &[String], exclude: &[String]) -> Result<Below, Failure> {
    let mut wanted: Vec<(bool, String)> = vec![];
    let mut is_everything = true;
    for pattern in include.iter().filter(|p| !p.is_empty()) {
        is_everything = false;
        let (is_negated, body) = split(pattern);
        wanted.extend(narrow(body, root).into_iter().map(|p| (is_negated, p)));
    }
    if is_everything {
        wanted.push((false, escape(root)));
    }
    let base = wanted.iter().filter(|(is_negated, _)| !is_negated).map(|(_, p)| folder_of(p)).reduce(common);
    // Without a pattern restic would restore everything.
    let Some(base) = base else { return Ok(Below { base: root.to_owned(), patterns: vec![] }) };
    let mut below: Vec<(bool, String)> = vec![];
    for (is_negated, pattern) in wanted {
        below.extend(narrow(&pattern, &base).into_iter().map(|p| (is_negated, p)));
    }
    for pattern in exclude.iter().filter(|p| !p.is_empty()) {
        match split(pattern) {
            (false, body) => below.extend(narrow(body, &base).into_iter().map(|p| (true, p))),
            // Takes back an exclude. Together with includes it would select what no include asks for.
            (true, body) if is_everything => {
                let own = narrow(body, root);
                below.extend(own.iter().flat_map(|p| narrow(p, &base)).map(|p| (false, p)));
            }
            (true, _) => {
                let text =
                    format!("The exclude pattern {pattern:?} is negated and cannot be combined with include patterns.");
                return Err(Failure::new(Class::Invalid, reason::INVALID, text));
            }
        }
    }
    let (above, all) = (escape(&base), escape(&base).trim_end_matches('/').len());
    let relative = |(is_negated, p): (bool, String)| {
        let sign = if is_negated { "!" } else { "" };
        // A pattern that matches the folder itself matches all that is in it.
        let rest = if p == above { "/*" } else { &p[all..] };
        format!("{sign}{rest}")
    };
    Ok(Below { base, patterns: below.into_iter().map(relative).collect() })
}

/// Whether a pattern is negated, and the rest of it.
fn split(pattern: &str) -> (bool, &str) {
    pattern.strip_prefix('!').map_or((false, pattern), |body| (true, body))
}

/// The deepest folder that holds all that a pattern can match, as it is named. The pattern begins with a slash.
fn folder_of(pattern: &str) -> String {
    let mut parts: Vec<&str> = pattern.split('/').filter(|p| !p.is_empty()).collect();
    // It stands for no folder too, and then what is before it matches.
    while parts.last() == Some(&"**") {
        parts.pop();
    }
    parts.pop();
    let names = parts.into_iter().map_while(literal).collect::<Vec<_>>();
    format!("/{}", names.join("/"))
}

/// The name that a part of a pattern stands for, if it is one.
fn literal(part: &str) -> Option<String> {
    let mut name = String::new();
    let mut chars = part.chars();
    while let Some(c) = chars.next() {
        match c {
            '*' | '?' | '[' => return None,
            '\\' => name.push(chars.next()?),
            c => name.push(c),
        }
    }
    Some(name)
}

/// The deepest folder that holds both.
fn common(a: String, b: String) -> String {
    let names = a.split('/').zip(b.split('/')).take_while(|(a, b)| a == b).map(|(a, _)| a).filter(|n| !n.is_empty());
    format!("/{}", names.collect::<Vec<_>>().join("/"))
}

/// Goes through what a snapshot holds below a folder, each folder before what is in it, and knows what is selected.
/// restic's own way (its manual, "Restoring from backup", and `internal/filter`): what is in a folder in which nothing can
/// match is not looked at.
pub struct Walk {
    patterns: Vec<Rule>,
    /// Folder in which nothing is looked at.
    closed: Option<String>,
}

struct Rule {
    is_negated: bool,
    parts: Vec<Part>,
}

impl Walk {
    /// For patterns of [`Below`].
    pub fn new(patterns: &[String]) -> Self {
        let rule = |pattern: &String| {
            let (is_negated, body) = split(pattern);
            let parts = body.split('/').filter(|p| !p.is_empty()).map(Part::of).collect();
            Rule { is_negated, parts }
        };
        Self { patterns: patterns.iter().map(rule).collect(), closed: None }
    }

    /// Whether an entry is restored. `path` is below the folder, and begins with a slash.
    pub fn selects(&mut self, path: &str, is_folder: bool) -> bool {
        self.look(path, is_folder).0
    }

    /// The same, and whether it is a folder in which something may be restored.
    pub fn look(&mut self, path: &str, is_folder: bool) -> (bool, bool) {
        let closed = self.closed.as_deref();
        if closed.is_some_and(|c| path.strip_prefix(c).is_some_and(|rest| rest.starts_with('/'))) {
            return (false, false);
        }
        self.closed = None;
        let names: Vec<&str> = path.split('/').filter(|n| !n.is_empty()).collect();
        let (mut matched, mut opens) = (false, false);
        for rule in &self.patterns {
            let matches = begins_with(&rule.parts, &names);
            if rule.is_negated {
                matched &= !matches;
                opens &= !matches;
            } else {
                matched |= matches;
                opens |= may_begin_below(&rule.parts, &names);
            }
        }
        if is_folder && !opens {
            self.closed = Some(path.to_owned());
        }
        (matched, is_folder && opens)
    }
}

/// Whether a pattern matches a path, or one of the folders that it is in.
fn begins_with(parts: &[Part], names: &[&str]) -> bool {
    if !parts.iter().any(|p| matches!(p, Part::Wild)) {
        return parts.len() <= names.len() && parts.iter().zip(names).all(|(part, name)| part.matches(name));
    }
    let mut positions = BTreeSet::from([0]);
    let is_over = |positions: &BTreeSet<usize>| closure(parts, positions).contains(&parts.len());
    for name in names {
        if is_over(&positions) {
            return true;
        }
        positions = after(parts, &positions, name);
    }
    is_over(&positions)
}

/// Whether a pattern can match something in a folder.
fn may_begin_below(parts: &[Part], names: &[&str]) -> bool {
    parts.iter().take_while(|p| !matches!(p, Part::Wild)).zip(names).all(|(part, name)| part.matches(name))
}

/// The parts of a pattern that lie below `root`: as patterns that begin with it.
fn narrow(pattern: &str, root: &str) -> Vec<String> {
    let parts = cleaned(pattern);
    // No path has such a part, so restic finds nothing by it. With `**` before it, it would be taken for the rest of it.
    if parts.first() == Some(&"..") {
        return vec![];
    }
    // A pattern without a leading slash matches at any depth.
    let parts = if pattern.starts_with('/') { parts } else { [&["**"], parts.as_slice()].concat() };
    let compiled: Vec<Part> = parts.iter().map(|p| Part::of(p)).collect();
    let base = escape(root);
    let mut positions = BTreeSet::from([0]);
    for name in root.split('/').filter(|p| !p.is_empty()) {
        // It matches a folder above, and with it everything below.
        if closure(&compiled, &positions).contains(&parts.len()) {
            return vec![base];
        }
        positions = after(&compiled, &positions, name);
    }
    if positions.contains(&parts.len()) {
        return vec![base];
    }
    let base = base.trim_end_matches('/');
    positions.into_iter().map(|at| format!("{base}/{}", parts[at..].join("/"))).collect()
}

/// The parts of a pattern, as Go's `filepath.Clean` leaves them: restic does that with each.
fn cleaned(pattern: &str) -> Vec<&str> {
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

/// Positions in a pattern, and those that `**` lets come next where it stands for nothing.
fn closure(parts: &[Part], positions: &BTreeSet<usize>) -> BTreeSet<usize> {
    let mut all = positions.clone();
    for at in positions {
        let wild = parts[*at..].iter().take_while(|p| matches!(p, Part::Wild)).count();
        all.extend(*at..=at + wild);
    }
    all
}

/// Positions once one more name of a path is read. However many `**` there are, no position is followed twice.
fn after(parts: &[Part], positions: &BTreeSet<usize>, name: &str) -> BTreeSet<usize> {
    let next = |at: usize| match parts.get(at)? {
        Part::Wild => Some(at),
        part => part.matches(name).then_some(at + 1),
    };
    closure(parts, positions).into_iter().filter_map(next).collect()
}

/// A path as a pattern that matches only itself.
pub fn escape(path: &str) -> String {
    path.chars().flat_map(|c| ("*?[\\".contains(c)).then_some('\\').into_iter().chain([c])).collect()
}

/// One part of a pattern, between two slashes.
#[derive(Clone, Debug)]
enum Part {
    /// `**`: any number of folders, none too.
    Wild,
    /// A name, as Go's `filepath.Match` takes it.
    Name(Vec<Token>),
    /// It is malformed, and matches nothing here; restic refuses it with its own words.
    Malformed,
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    /// `*`: any characters.
    Star,
    /// `?`: one.
    Any,
    One(char),
    /// `[a-z]`, or `[^a-z]`.
    Class {
        is_negated: bool,
        ranges: Vec<(char, char)>,
    },
}

impl Part {
    fn of(text: &str) -> Self {
        if text == "**" { Self::Wild } else { tokens(text).map_or(Self::Malformed, Self::Name) }
    }

    fn matches(&self, name: &str) -> bool {
        let Self::Name(tokens) = self else { return false };
        let name: Vec<char> = name.chars().collect();
        let (mut t, mut n) = (0, 0);
        // Only the last star has to be tried again: what the ones before it have matched can stay.
        let mut star = None;
        while n < name.len() {
            match tokens.get(t) {
                Some(Token::Star) => {
                    star = Some((t, n));
                    t += 1;
                }
                Some(token) if token.is(name[n]) => (t, n) = (t + 1, n + 1),
                _ => match &mut star {
                    Some((at, from)) => {
                        *from += 1;
                        (t, n) = (*at + 1, *from);
                    }
                    None => return false,
                },
            }
        }
        tokens[t..].iter().all(|t| *t == Token::Star)
    }
}

impl Token {
    fn is(&self, c: char) -> bool {
        match self {
            Self::Star => false,
            Self::Any => true,
            Self::One(one) => *one == c,
            Self::Class { is_negated, ranges } => {
                ranges.iter().any(|(low, high)| (*low..=*high).contains(&c)) != *is_negated
            }
        }
    }
}

fn tokens(text: &str) -> Option<Vec<Token>> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn own(list: &[&str]) -> Vec<String> {
        list.iter().map(|s| (*s).to_owned()).collect()
    }

    /// The folder, and the patterns below it.
    fn of(root: &str, include: &[&str], exclude: &[&str]) -> Vec<String> {
        let Below { base, patterns } = select(root, &own(include), &own(exclude)).unwrap();
        [vec![base], patterns].concat()
    }

    #[test]
    fn without_patterns_the_path_itself() {
        assert_eq!(of("/source/data", &[], &[]), ["/source", "/data"]);
        assert_eq!(of("/data", &[], &[]), ["/", "/data"]);
        assert_eq!(of("/a[1]/b*", &[], &[]), ["/a[1]", "/b\\*"]);
        assert_eq!(of("/s/a", &[], &["*.tmp", "/s/a/x", "/s/b"]), ["/s", "/a", "!/**/*.tmp", "!/a/x", "!/b"]);
    }

    #[test]
    fn includes_are_cut_down_to_the_path() {
        let of = |root: &str, include: &[&str]| of(root, include, &[]);
        assert_eq!(of("/source/data", &["/source/data/*.json"]), ["/source/data", "/*.json"]);
        assert_eq!(of("/source/data", &["*.json"]), ["/source/data", "/**/*.json"]);
        assert_eq!(of("/source/data", &["/source/*/x"]), ["/source/data", "/x"]);
        assert_eq!(of("/source/data", &["/other/*.json"]), ["/source/data"]);
        assert_eq!(of("/source/data/sub", &["/source/data"]), ["/source/data", "/sub"]);
        assert_eq!(of("/source/data/sub", &["data"]), ["/source/data", "/sub"]);
        assert_eq!(of("/source/data", &["data/x"]), ["/source/data", "/**/data/x", "/x"]);
        assert_eq!(of("/source/data", &["/**/x"]), ["/source/data", "/**/x"]);
        assert_eq!(of("/data", &["/../data/a/../x", "../y"]), ["/data", "/x"]);
    }

    /// Closes: R26 of the reports.
    #[test]
    fn nothing_above_what_is_wanted_is_touched() {
        assert_eq!(of("/data", &["/data/p/q"], &[]), ["/data/p", "/q"]);
        assert_eq!(of("/data", &["/data/p/q/*.jpg", "/data/p/r/s"], &[]), ["/data/p", "/q/*.jpg", "/r/s"]);
        assert_eq!(of("/data", &["/data/p/\\[1]/x"], &[]), ["/data/p/[1]", "/x"]);
        assert_eq!(of("/data", &["/data/p/q"], &["/data/p"]), ["/data/p", "/q", "!/*"]);
        assert_eq!(
            of("/data", &["/data/p/q"], &["/data/*/q/t", "p/q/u"]),
            ["/data/p", "/q", "!/q/t", "!/**/p/q/u", "!/q/u"]
        );
        assert_eq!(of("/data", &["/data/p/q/*", "!/data/p/q/t"], &[]), ["/data/p/q", "/*", "!/t"]);
        assert_eq!(of("/data", &["/data/p/q/**"], &[]), ["/data/p", "/q/**"]);
        assert_eq!(of("/data", &["/data/p/**/**"], &["/data/p/q/**"]), ["/data", "/p/**/**", "!/p/q/**"]);
        assert_eq!(of("/data", &["/data/**"], &[]), ["/", "/data/**"]);
        assert_eq!(of("/data", &["**"], &[]), ["/", "/data"]);
    }

    #[test]
    fn a_negated_exclude_takes_back() {
        assert_eq!(of("/a", &[], &["*.log", "!keep.log"]), ["/", "/a", "!/**/*.log", "/a/**/keep.log"]);
        assert!(select("/a", &own(&["*.json"]), &own(&["!x"])).is_err());
    }

    /// A pattern of a user's must not keep a Job at work for ever.
    #[test]
    fn many_wild_folders_are_looked_through_at_once() {
        let (wild, deep) = (vec!["**/a"; 400].join("/"), "/a".repeat(400));
        let below = select(&deep, &own(&[&wild]), &own(&[&wild])).unwrap();
        let mut walk = Walk::new(&below.patterns);
        walk.selects(&deep, false);
    }

    #[test]
    fn what_is_selected_is_known_entry_by_entry() {
        let all = ["/data", "/data/a", "/data/a/x.jpg", "/data/a/t", "/data/a/t/y.jpg", "/data/b.jpg", "/data/c.txt"];
        let folders = ["/data", "/data/a", "/data/a/t"];
        let selected = |include: &[&str], exclude: &[&str]| -> Vec<&str> {
            let below = select("/data", &own(include), &own(exclude)).unwrap();
            let mut walk = Walk::new(&below.patterns);
            let within = |path: &&&str| path.starts_with(&format!("{}/", below.base.trim_end_matches('/')));
            let mut is =
                |path: &&&str| walk.selects(&path[below.base.trim_end_matches('/').len()..], folders.contains(*path));
            all.iter().filter(within).filter(|p| is(p)).copied().collect()
        };
        assert_eq!(selected(&[], &[]), all);
        assert_eq!(selected(&["*.jpg"], &[]), ["/data/a/x.jpg", "/data/a/t/y.jpg", "/data/b.jpg"]);
        assert_eq!(selected(&["*.jpg"], &["/data/a/t"]), ["/data/a/x.jpg", "/data/b.jpg"]);
        assert_eq!(selected(&["/data/a"], &["t"]), ["/data/a", "/data/a/x.jpg"]);
        assert_eq!(
            selected(&[], &["/data/a", "!/data/a/x.jpg"]),
            ["/data", "/data/a/x.jpg", "/data/b.jpg", "/data/c.txt"]
        );
        assert_eq!(selected(&[], &["/data/*"]), ["/data"]);
        assert_eq!(selected(&[], &["/"]), [] as [&str; 0]);
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
            ("[]a]", "a", false),
            ("[a-]", "a", false),
            ("*a*b*c", "xaxbbxcc", true),
            ("*a*b*c", "xaxcxb", false),
            ("*", "", true),
        ] {
            assert_eq!(Part::of(pattern).matches(name), expected, "{pattern} {name}");
        }
    }

    proptest! {
        #[test]
        fn odd_patterns_never_panic(pattern in "[!*?\\[\\]^a-c/\\\\-]{0,12}", root in "/[a-c/é]{0,6}", name in "[a-cé]{0,4}") {
            let one = std::slice::from_ref(&pattern);
            if let Ok(below) = select(&root, one, one) {
                Walk::new(&below.patterns).selects(&format!("/{name}"), true);
            }
            let _ = Part::of(&pattern).matches(&name);
        }

        #[test]
        fn whatever_is_selected_lies_below_the_path(pattern in "[*a-c/]{1,10}", path in "(/[a-c]){1,5}") {
            let below = select("/a/b", &[pattern], &[]).unwrap();
            prop_assert!(below.base == "/a" || below.base == "/a/b" || below.base.starts_with("/a/b/"), "{:?}", below);
            prop_assert!(below.patterns.iter().all(|p| p.starts_with('/')));
            let full = format!("{}{path}", below.base);
            prop_assert!(!Walk::new(&below.patterns).selects(&path, false) || full.starts_with("/a/b"), "{:?} {}", below, path);
        }

        #[test]
        fn what_is_selected_does_not_depend_on_where_it_starts(
            patterns in prop::collection::vec("/a/[*!a-c/]{1,8}", 1..3), exclude in "[*a-c/]{0,6}", path in "(/[a-c]){1,5}"
        ) {
            let below = select("/a", &patterns, &[exclude]).unwrap();
            let mut from_above = below.clone();
            from_above.start_at("/");
            let selects = |part: &Below| {
                let inner = path.strip_prefix(part.base.trim_end_matches('/'));
                inner.filter(|p| p.len() > 1 && p.starts_with('/')).is_some_and(|p| Walk::new(&part.patterns).selects(p, false))
            };
            prop_assert_eq!(selects(&below), selects(&from_above), "{:?} {:?}", below, from_above);
        }

        #[test]
        fn an_escaped_name_matches_itself(name in "[*?\\[\\]\\\\a-c^-]{1,8}") {
            prop_assert!(Part::of(&escape(&name)).matches(&name));
        }
    }
}
