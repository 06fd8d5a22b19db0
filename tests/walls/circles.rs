//! Which file names which, and files that name each other in a circle.
//!
//! Reads `use` trees and paths in the middle of code. A file that only re-exports a name with `use` is left out: the
//! file that contains the item counts. Names that are imported with `*` count for the file that re-exports them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// The path of a module, below the crate.
pub type Module = Vec<String>;

/// The modules of a crate, and the origin of their names.
pub struct House {
    /// By module, without comments and unit tests.
    pub code: BTreeMap<Module, String>,
    /// Names that a module imports, and the module that each comes from.
    imports: BTreeMap<Module, BTreeMap<String, Module>>,
}

impl House {
    /// `files` are paths below `src`, with their code.
    pub fn of<'a>(files: impl Iterator<Item = (&'a Path, &'a str)>) -> Self {
        let is_test = |s: &String| s == "tests" || s == "fake" || s.ends_with("_tests");
        let code = files.map(|(path, code)| (module(path), code.to_owned()));
        let code = code.filter(|(module, _)| module != &["main"] && !module.iter().any(is_test)).collect();
        let mut house = Self { code, imports: BTreeMap::new() };
        house.imports = house.code.keys().map(|module| (module.clone(), house.imports_of(module))).collect();
        house
    }

    /// All names of the crate that a module uses anywhere: paths from the crate down, and the local name of each.
    pub fn names(&self, module: &Module, code: &str) -> Vec<(Module, String)> {
        let below = |m: &&Module| m.len() == module.len() + 1 && m.starts_with(module);
        let children = self.code.keys().filter(below).filter_map(|m| m.last());
        let roots = children.map(|c| format!("{c}::")).chain(["crate::", "super::", "self::"].map(str::to_owned));
        let mut found = vec![];
        for root in roots {
            for (at, _) in code.match_indices(&root) {
                let before = code[..at].chars().next_back();
                if before.is_none_or(|c| !c.is_alphanumeric() && !"_:.".contains(c)) {
                    let mut paths = vec![];
                    whole_tree(&code[at..], &[], &mut paths);
                    found.extend(paths.into_iter().map(|(path, name)| (absolute(module, &path), name)));
                }
            }
        }
        found
    }

    fn imports_of(&self, module: &Module) -> BTreeMap<String, Module> {
        let statements = self.code[module].split(';').filter_map(|s| {
            let at = s.rfind("use ").filter(|at| s[..*at].chars().next_back().is_none_or(char::is_whitespace))?;
            Some(&s[at..])
        });
        statements.flat_map(|s| self.names(module, s)).map(|(path, name)| (name, path)).collect()
    }

    /// The module that contains the item of a path: modules that only re-export it are skipped.
    fn home(&self, path: &[String], steps: usize) -> Option<Module> {
        let depth = (0..=path.len()).rev().find(|n| self.code.contains_key(&path[..*n]))?;
        let (module, rest) = path.split_at(depth);
        let passed_on = rest.first().and_then(|name| self.imports.get(module)?.get(name));
        match passed_on {
            Some(target) if steps < 8 && !target.starts_with(path) => {
                self.home(&[target.as_slice(), &rest[1..]].concat(), steps + 1)
            }
            _ => Some(module.to_vec()),
        }
    }

    /// The modules that each module imports.
    fn edges(&self) -> BTreeMap<&Module, BTreeSet<Module>> {
        let of = |module: &Module, code: &str| {
            let homes = self.names(module, code).into_iter().filter_map(|(path, _)| self.home(&path, 0));
            homes.filter(|home| home != module).collect()
        };
        self.code.iter().map(|(module, code)| (module, of(module, code))).collect()
    }

    /// Modules that import each other, each with its complete circle.
    pub fn circles(&self) -> BTreeSet<BTreeSet<Module>> {
        let edges = self.edges();
        let reach = |from: &Module| {
            let (mut seen, mut next) = (BTreeSet::new(), vec![from.clone()]);
            while let Some(module) = next.pop() {
                for other in edges.get(&module).into_iter().flatten() {
                    if seen.insert(other.clone()) {
                        next.push(other.clone());
                    }
                }
            }
            seen
        };
        let reached: BTreeMap<&Module, BTreeSet<Module>> = edges.keys().map(|m| (*m, reach(m))).collect();
        let circle = |m: &Module| -> BTreeSet<Module> {
            let back = |other: &&Module| reached.get(other).is_some_and(|r| r.contains(m));
            reached[m].iter().filter(back).cloned().collect()
        };
        reached.keys().map(|m| circle(m)).filter(|circle| !circle.is_empty()).collect()
    }
}

/// The module of a file.
fn module(path: &Path) -> Module {
    let mut all: Module = path.with_extension("").iter().map(|s| s.to_string_lossy().into_owned()).collect();
    if all.last().is_some_and(|s| s == "mod") || all == ["lib"] {
        all.pop();
    }
    all
}

/// A path of a module, from the crate down.
fn absolute(module: &Module, path: &[String]) -> Module {
    let mut base = if path.first().is_some_and(|s| s == "crate") { vec![] } else { module.clone() };
    for segment in path {
        match segment.as_str() {
            "crate" | "self" => {}
            "super" => drop(base.pop()),
            _ => base.push(segment.clone()),
        }
    }
    base
}

/// Like [`tree`], with paths of any depth, and the local name of each.
fn whole_tree<'a>(text: &'a str, prefix: &[String], paths: &mut Vec<(Module, String)>) -> &'a str {
    let text = text.trim_start();
    if let Some(mut rest) = text.strip_prefix('{') {
        loop {
            rest = rest.trim_start_matches(|c: char| c.is_whitespace() || c == ',');
            if let Some(after) = rest.strip_prefix('}') {
                return after;
            }
            let next = whole_tree(rest, prefix, paths);
            if next.len() == rest.len() {
                return rest;
            }
            rest = next;
        }
    }
    let word = |text: &str| text.find(|c: char| !c.is_alphanumeric() && c != '_' && c != '*').unwrap_or(text.len());
    let (segment, rest) = text.split_at(word(text));
    let path = [prefix, &[segment.to_owned()]].concat();
    if let Some(deeper) = rest.strip_prefix("::") {
        return whole_tree(deeper, &path, paths);
    }
    if let Some(alias) = rest.strip_prefix(" as ") {
        let (name, rest) = alias.split_at(word(alias));
        paths.push((path, name.to_owned()));
        return rest;
    }
    let name = path.iter().rfind(|s| *s != "self").cloned().unwrap_or_default();
    paths.push((path, name));
    rest
}

#[test]
fn the_finder_of_circles_finds() {
    let circles = |files: &[(&str, &str)]| {
        let all = files.iter().map(|(path, text)| {
            let code = super::without_tests(text).join("\n");
            (Path::new(path).to_owned(), code)
        });
        let all: Vec<_> = all.collect();
        let house = House::of(all.iter().map(|(path, code)| (path.as_path(), code.as_str())));
        let names = |circle: BTreeSet<Module>| circle.iter().map(|m| m.join("::")).collect::<Vec<_>>().join(" ");
        house.circles().into_iter().map(names).collect::<Vec<_>>()
    };
    // By a nested group, and by a path in the middle of the code.
    let by_path = [("a.rs", "use crate::{c, b::{x::{self, Y}, Z}};"), ("b/x.rs", "fn f() { super::super::c::g() }")];
    assert_eq!(circles(&[by_path[0], by_path[1], ("b/mod.rs", "pub mod x;"), ("c.rs", "")]), Vec::<String>::new());
    assert_eq!(circles(&[by_path[0], by_path[1], ("b/mod.rs", ""), ("c.rs", "use crate::a::T;")]), ["a b::x c"]);
    // By self, by the name of a child alone, and under another name.
    assert_eq!(circles(&[("m.rs", "use self::n::N as O;"), ("m/n.rs", "use super::T;")]), ["m m::n"]);
    assert_eq!(circles(&[("m.rs", "fn f() { n::g() }"), ("m/n.rs", "fn g(_: super::T) {}")]), ["m m::n"]);
    // A module that only re-exports a name is not part of the circle.
    let facade = ("m/mod.rs", "mod x;\nmod y;\npub use self::x::X;\npub use y::{Y as Z};");
    assert_eq!(circles(&[facade, ("m/x.rs", ""), ("m/y.rs", "use super::X;")]), Vec::<String>::new());
    assert_eq!(circles(&[facade, ("m/x.rs", "use crate::m::Z;"), ("m/y.rs", "use super::X;")]), ["m::x m::y"]);
    // Unit tests do not count, at the end of a file or in a separate file; nor does another crate.
    let tested = "#[cfg(test)]\nmod tests {\n    use crate::b::B;\n}";
    assert_eq!(circles(&[("a.rs", tested), ("b.rs", "use crate::a::A;")]), Vec::<String>::new());
    assert_eq!(circles(&[("a/tests.rs", "use crate::b::B;"), ("b.rs", "use crate::a::tests;")]), Vec::<String>::new());
    assert_eq!(
        circles(&[("a.rs", "use other::b::B; mycrate::b::c();"), ("b.rs", "use crate::a::A;")]),
        Vec::<String>::new()
    );
}
