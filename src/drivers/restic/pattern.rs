//! restic's include and exclude patterns, restricted to a path of a restore, and the entries that they select.
//!
//! restic accepts includes or excludes, not both, and combines several includes with "or". Therefore a restore always
//! uses include mode: each include pattern is restricted to the part below the path ("and"), and excludes follow as
//! negated patterns, of which the last match applies. Include mode also prevents that `--delete` affects other files
//! below the restore folder.
//!
//! The selected entries can be computed without a restore, from a list of the snapshot: [`Walk`] processes it as
//! restic does.

use std::collections::BTreeSet;

use crate::contract::restic::pattern as syntax;
use crate::contract::restic::pattern::{Token, cleaned, split, tokens};
use crate::contract::{Class, Failure};
use crate::drivers::restic::paths::within;
use crate::names::reason;

/// The selection of a path: patterns below a folder. Nothing outside of this folder is changed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Below {
    /// The folder, normalised.
    pub base: String,
    /// Patterns for `--include`, in order, for paths below it; each begins with a slash. An empty list selects
    /// nothing.
    pub patterns: Vec<String>,
}

impl Below {
    /// The same selection below `above`, a parent of the base: used if the base does not exist, and is created from
    /// the snapshot.
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

/// The selection of `include` and `exclude` for the path `root`.
///
/// # Errors
/// A malformed pattern, which restic would reject only later.
pub fn select(root: &str, include: &[String], exclude: &[String]) -> Result<Below, Failure> {
    for (field, patterns) in [("include", include), ("exclude", exclude)] {
        if let Some(wrong) = patterns.iter().find_map(|p| syntax::check(p).err()) {
            let text = format!("A pattern of {field} cannot be used: {wrong}. Nothing was written.");
            return Err(Failure::new(Class::Invalid, reason::INVALID, text));
        }
    }
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
            // Negates an exclude. Together with includes it would select files that no include matches.
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
        // A pattern that matches the folder itself matches all entries in it.
        let rest = if p == above { "/*" } else { &p[all..] };
        format!("{sign}{rest}")
    };
    Ok(Below { base, patterns: below.into_iter().map(relative).collect() })
}

/// The deepest folder that contains all possible matches of a pattern. The pattern begins with a slash.
fn folder_of(pattern: &str) -> String {
    let mut parts: Vec<&str> = pattern.split('/').filter(|p| !p.is_empty()).collect();
    // `**` also matches no folder; then the part before it matches.
    while parts.last() == Some(&"**") {
        parts.pop();
    }
    parts.pop();
    let names = parts.into_iter().map_while(literal).collect::<Vec<_>>();
    format!("/{}", names.join("/"))
}

/// The literal name that a part of a pattern matches, if it has no wildcards.
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

/// The deepest folder that contains both.
fn common(a: String, b: String) -> String {
    let names = a.split('/').zip(b.split('/')).take_while(|(a, b)| a == b).map(|(a, _)| a).filter(|n| !n.is_empty());
    format!("/{}", names.collect::<Vec<_>>().join("/"))
}

/// Processes the entries of a snapshot below a folder, each folder before its content, and decides which are
/// selected. As in restic (its manual, "Restoring from backup", and `internal/filter`), the content of a folder in
/// which nothing can match is skipped.
pub struct Walk {
    patterns: Vec<Rule>,
    /// Folder whose content is skipped.
    closed: Option<String>,
}

#[derive(Clone, Debug)]
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

    /// The same, and whether it is a folder in which entries may be restored.
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

/// The entries that a backup of a path excluded, computed without its snapshot: with restic's exclude patterns, each
/// folder before its content.
#[derive(Clone, Debug)]
pub struct LeftOut {
    /// The path that was backed up, normalised.
    root: String,
    patterns: Vec<Rule>,
    /// Folder that is excluded, with its content.
    closed: Option<String>,
}

impl LeftOut {
    /// For a backup of `root` with these patterns.
    pub fn new(root: &str, exclude: &[String]) -> Self {
        let rule = |pattern: &String| {
            let (is_negated, body) = split(pattern);
            let (names, is_anywhere) = (cleaned(body), !body.starts_with('/'));
            // No path matches the pattern.
            if is_anywhere && names.first().is_none_or(|first| *first == "..") {
                return None;
            }
            let mut parts: Vec<Part> = is_anywhere.then_some(Part::Wild).into_iter().collect();
            parts.extend(names.into_iter().map(Part::of));
            // restic accepted the pattern, so it is parsed incorrectly here: keep too many files rather than too few.
            if !is_negated && parts.iter().any(|p| matches!(p, Part::Malformed)) {
                parts.clear();
            }
            Some(Rule { is_negated, parts })
        };
        let patterns = exclude.iter().filter(|p| !p.is_empty()).filter_map(rule).collect();
        Self { root: root.to_owned(), patterns, closed: None }
    }

    /// Whether the backup includes a path, and whether it excluded it. Must be called for each folder before its
    /// content; parents of the first one are handled here.
    pub fn look(&mut self, path: &str, is_folder: bool) -> (bool, bool) {
        if !within(path, &self.root) {
            return (false, false);
        }
        if self.closed.as_deref().is_some_and(|closed| within(path, closed)) {
            return (true, true);
        }
        self.closed = None;
        let is_out = self.has(path);
        if is_out && is_folder {
            self.closed = Some(path.to_owned());
        }
        (true, is_out)
    }

    /// Processes a folder and its parents.
    pub fn enter(&mut self, folder: &str) {
        self.closed = None;
        let mut above: Vec<&str> = folder.match_indices('/').map(|(at, _)| &folder[..at]).collect();
        above.push(folder);
        for path in above.into_iter().filter(|p| !p.is_empty()) {
            self.look(path, true);
        }
    }

    /// Whether the patterns match a path: the last match decides.
    fn has(&self, path: &str) -> bool {
        let names: Vec<&str> = path.split('/').filter(|n| !n.is_empty()).collect();
        let decides = self.patterns.iter().rev().find(|rule| begins_with(&rule.parts, &names));
        decides.is_some_and(|rule| !rule.is_negated)
    }
}

/// Whether a pattern matches a path, or one of its parents.
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

/// Whether a pattern can match an entry in a folder.
fn may_begin_below(parts: &[Part], names: &[&str]) -> bool {
    parts.iter().take_while(|p| !matches!(p, Part::Wild)).zip(names).all(|(part, name)| part.matches(name))
}

/// The parts of a pattern below `root`, as patterns that begin with it.
fn narrow(pattern: &str, root: &str) -> Vec<String> {
    let parts = cleaned(pattern);
    // No path has such a part, so restic matches nothing with it. After `**` it would be ignored.
    if parts.first() == Some(&"..") {
        return vec![];
    }
    // A pattern without a leading slash matches at any depth.
    let parts = if pattern.starts_with('/') { parts } else { [&["**"], parts.as_slice()].concat() };
    let compiled: Vec<Part> = parts.iter().map(|p| Part::of(p)).collect();
    let base = escape(root);
    let mut positions = BTreeSet::from([0]);
    for name in root.split('/').filter(|p| !p.is_empty()) {
        // The pattern matches a parent folder, and thereby everything below that folder.
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

/// Positions in a pattern, including the positions after `**` that match no folder.
fn closure(parts: &[Part], positions: &BTreeSet<usize>) -> BTreeSet<usize> {
    let mut all = positions.clone();
    for at in positions {
        let wild = parts[*at..].iter().take_while(|p| matches!(p, Part::Wild)).count();
        all.extend(*at..=at + wild);
    }
    all
}

/// Positions after one more component of a path. With any number of `**`, no position is followed twice.
fn after(parts: &[Part], positions: &BTreeSet<usize>, name: &str) -> BTreeSet<usize> {
    let next = |at: usize| match parts.get(at)? {
        Part::Wild => Some(at),
        part => part.matches(name).then_some(at + 1),
    };
    closure(parts, positions).into_iter().filter_map(next).collect()
}

/// A path as a pattern that matches only this path.
pub fn escape(path: &str) -> String {
    path.chars().flat_map(|c| ("*?[\\".contains(c)).then_some('\\').into_iter().chain([c])).collect()
}

/// One part of a pattern, between two slashes.
#[derive(Clone, Debug)]
enum Part {
    /// `**`: any number of folders, including none.
    Wild,
    /// A name, with the syntax of Go's `filepath.Match`.
    Name(Vec<Token>),
    /// Malformed, and matches nothing; [`select`] rejects it, as restic does.
    Malformed,
}

impl Part {
    fn of(text: &str) -> Self {
        if text == "**" { Self::Wild } else { tokens(text).map_or(Self::Malformed, Self::Name) }
    }

    fn matches(&self, name: &str) -> bool {
        let Self::Name(tokens) = self else { return false };
        let name: Vec<char> = name.chars().collect();
        let (mut t, mut n) = (0, 0);
        // Only the last star needs backtracking.
        let mut star = None;
        while n < name.len() {
            match tokens.get(t) {
                Some(Token::Star) => {
                    star = Some((t, n));
                    t += 1;
                }
                Some(token) if is(token, name[n]) => (t, n) = (t + 1, n + 1),
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

/// Whether a character, or a wildcard, matches a character.
fn is(token: &Token, c: char) -> bool {
    match token {
        Token::Star => false,
        Token::Any => true,
        Token::One(one) => *one == c,
        Token::Class { is_negated, ranges } => {
            ranges.iter().any(|(low, high)| (*low..=*high).contains(&c)) != *is_negated
        }
    }
}

#[cfg(test)]
mod tests;
