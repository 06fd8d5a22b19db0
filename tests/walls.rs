//! The walls between the rooms: which room may name which, read from the sources; and no circles of imports.
//!
//! Unit tests, at the end of a file or in a separate file, and comments are not read. A wall that prevents a change is
//! a design question: settle the design before the wall is changed.

#![allow(clippy::unwrap_used, reason = "a test that cannot read the sources has failed")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use circles::House;

#[path = "walls/circles.rs"]
mod circles;

/// Longest file. Split longer ones: they are not read to the end. Unit tests at the end of a file do not count.
const LINES_MAX: usize = 500;

/// Each room, and the rooms and modules it may name besides itself.
const ROOMS: &[(&str, &[&str])] = &[
    ("digest", &[]),
    ("names", &["digest"]),
    ("text", &[]),
    ("api", &["names"]),
    ("contract", &["digest", "names", "text"]),
    ("plan", &["api", "contract", "digest", "names", "text"]),
    ("admission", &["api", "contract", "digest", "names", "plan", "serve", "text"]),
    ("controller", &["admission", "api", "contract", "names", "plan", "serve", "telemetry", "text", "yaml"]),
    ("drivers", &["contract", "digest", "names", "text"]),
    ("fuzz", &["admission", "api", "contract", "drivers", "names", "plan", "yaml"]),
    ("agent", &["api", "contract", "drivers", "names", "plan", "telemetry"]),
    // Tests of the rules that every system follows: they may know all systems.
    ("conformance", &["agent", "api", "contract", "digest", "drivers", "plan"]),
    ("serve", &[]),
    ("yaml", &[]),
    ("telemetry", &[]),
];

/// The rooms of the controller, and those that each may name besides itself. Code of an upper room that a lower room
/// needs must move to a lower room.
const CONTROLLER: &[(&str, &[&str])] = &[
    ("cache", &[]),
    ("observe", &["cache"]),
    ("apply", &["cache", "observe"]),
    ("kinds", &["apply", "cache", "observe"]),
    ("process", &["apply", "cache", "kinds", "observe"]),
];

/// Rooms whose files still import each other in circles. No room may be added to this list.
const CIRCLES: &[&str] = &[];

struct Source {
    path: PathBuf,
    room: String,
    /// Without comments and unit tests.
    code: String,
    lines: usize,
}

/// Lines of a file without the test module at its end, and without lines that name a separate test module.
fn without_tests(text: &str) -> Vec<&str> {
    let (mut code, mut lines) = (vec![], text.lines());
    while let Some(line) = lines.next() {
        if line.trim() != "#[cfg(test)]" {
            code.push(line);
            continue;
        }
        let item = lines.by_ref().find(|l| !l.trim().starts_with("#["));
        if !item.is_some_and(|l| l.trim_end().ends_with(';')) {
            break;
        }
    }
    code
}

fn sources() -> Vec<Source> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&src, &mut files);
    files
        .into_iter()
        .map(|path| {
            let text = fs::read_to_string(&path).unwrap();
            let inside = path.strip_prefix(&src).unwrap();
            let room = inside.iter().next().unwrap().to_string_lossy().trim_end_matches(".rs").to_owned();
            let code = without_tests(&text);
            let lines = code.len();
            let code =
                code.into_iter().map(|l| l.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n");
            Source { path: inside.to_owned(), room, code, lines }
        })
        .collect()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|e| e == "rs") && path.file_stem().is_none_or(|s| s != "tests") {
            files.push(path);
        }
    }
}

/// Paths after `root`, two segments deep, with groups expanded: `crate::{api, plan::x}` is `api` and `plan::x`.
fn named(code: &str, root: &str) -> BTreeSet<String> {
    let mut paths = BTreeSet::new();
    for (at, _) in code.match_indices(root) {
        let before = code[..at].chars().next_back();
        if before.is_none_or(|c| !c.is_alphanumeric() && c != '_' && c != ':') {
            tree(&code[at + root.len()..], "", &mut paths);
        }
    }
    paths
}

/// Reads one use tree; returns the text after it.
fn tree<'a>(text: &'a str, prefix: &str, paths: &mut BTreeSet<String>) -> &'a str {
    let text = text.trim_start();
    if let Some(mut rest) = text.strip_prefix('{') {
        loop {
            rest = rest.trim_start_matches(|c: char| c.is_whitespace() || c == ',');
            if let Some(after) = rest.strip_prefix('}') {
                return after;
            }
            let next = tree(rest, prefix, paths);
            if next.len() == rest.len() {
                return rest;
            }
            rest = next;
        }
    }
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_' && c != '*').unwrap_or(text.len());
    let (segment, rest) = text.split_at(end);
    let path = if prefix.is_empty() { segment.to_owned() } else { format!("{prefix}::{segment}") };
    match rest.strip_prefix("::") {
        Some(deeper) if prefix.is_empty() => tree(deeper, &path, paths),
        Some(deeper) => {
            paths.insert(path.clone());
            // Deeper names are not significant, but have to be read past.
            tree(deeper, &path, &mut BTreeSet::new())
        }
        None => {
            paths.insert(path);
            rest
        }
    }
}

fn covers(allowed: &str, path: &str) -> bool {
    path == allowed || path.strip_prefix(allowed).is_some_and(|rest| rest.starts_with("::"))
}

#[test]
fn imports_only_go_up() {
    for source in sources() {
        let Some((_, allowed)) = ROOMS.iter().find(|(room, _)| *room == source.room) else {
            assert!(
                ["lib", "main", "cli"].contains(&source.room.as_str()),
                "{} is in no room: add it to ROOMS",
                source.path.display()
            );
            continue;
        };
        for path in named(&source.code, "crate::") {
            assert!(
                covers(&source.room, &path) || allowed.iter().any(|a| covers(a, &path)),
                "{} names crate::{path}; {} may name {allowed:?}",
                source.path.display(),
                source.room
            );
        }
    }
}

#[test]
fn plan_is_pure() {
    let impure = [
        "async ",
        ".await",
        "kube::Client",
        "kube::Api",
        "kube::client",
        "tokio",
        "std::env",
        "std::fs",
        "std::net",
        "Timestamp::now",
        "Zoned::now",
        "SystemTime",
        "Instant::now",
        "tracing::",
    ];
    for source in sources().iter().filter(|s| s.room == "plan") {
        for word in impure {
            assert!(!source.code.contains(word), "{} says {word:?}: plan is pure", source.path.display());
        }
        let kube = named(&source.code, "kube::");
        for path in ["Client", "Api", "client", "runtime"] {
            assert!(!kube.iter().any(|k| covers(path, k)), "{} names kube::{path}", source.path.display());
        }
    }
}

#[test]
fn yaml_and_processes_have_one_place() {
    for source in sources() {
        let here = source.path.display();
        assert!(
            source.room == "yaml" || !source.code.contains("serde_yaml"),
            "{here} names serde_yaml: use crate::yaml"
        );
        if !["agent", "drivers", "conformance"].contains(&source.room.as_str()) {
            for word in ["std::process::Command", "tokio::process"] {
                assert!(
                    !source.code.contains(word),
                    "{here} names {word}: only the agent and its drivers start processes"
                );
            }
            let std = named(&source.code, "std::");
            assert!(!std.contains("process::Command"), "{here} starts processes");
        }
        // The requests of a Job with a grant to the API server are in one place.
        // The bucket of a store is requested with the HTTP client of kube: this does not involve the API server.
        let may = source.path.starts_with("agent/cluster") || source.path.ends_with("restic/bucket.rs");
        if ["agent", "drivers"].contains(&source.room.as_str()) && !may {
            assert!(named(&source.code, "kube::").is_empty(), "{here} names kube: no Kubernetes in Jobs");
        }
    }
}

#[test]
fn files_can_be_read_to_the_end() {
    for source in sources() {
        assert!(source.lines <= LINES_MAX, "{} has {} lines: split it", source.path.display(), source.lines);
    }
}

fn house() -> (Vec<Source>, House) {
    let all = sources();
    let house = House::of(all.iter().map(|s| (s.path.as_path(), s.code.as_str())));
    (all, house)
}

#[test]
fn files_do_not_import_each_other_in_circles() {
    let (_, house) = house();
    let mut rooms = BTreeSet::new();
    for circle in house.circles() {
        let names: Vec<String> = circle.iter().map(|m| m.join("::")).collect();
        let has = |room: &&str| circle.iter().all(|m| m.first().is_some_and(|r| r == room));
        let room = CIRCLES.iter().find(|room| has(room));
        assert!(
            room.is_some(),
            "these import each other: {names:?}; move what two of them need to where neither needs the other"
        );
        rooms.extend(room);
    }
    assert_eq!(rooms, CIRCLES.iter().collect(), "a room without circles leaves CIRCLES, and never comes back");
}

#[test]
fn rooms_of_the_controller_import_downwards() {
    let (_, house) = house();
    for (module, code) in &house.code {
        let Some((_, inside)) =
            module.split_first().filter(|(room, inside)| *room == "controller" && !inside.is_empty())
        else {
            continue;
        };
        let room = &inside[0];
        let here = module.join("::");
        let allowed = CONTROLLER.iter().find(|(name, _)| name == room);
        let Some((_, allowed)) = allowed else { panic!("{here} is in no room of the controller: see CONTROLLER") };
        for (path, _) in house.names(module, code) {
            let [first, other, ..] = path.as_slice() else { continue };
            assert!(
                first != "controller" || other == room || allowed.contains(&other.as_str()),
                "{here} names {}; {room} may name {allowed:?}",
                path.join("::")
            );
        }
    }
}

/// The rooms in which each system has a module.
const OF_SYSTEMS: [&str; 3] = ["contract", "plan::systems", "drivers"];

/// Systems that are built on another one: the dumps of applications are files in a repository of restic.
const BUILT_ON: [(&str, &str); 1] = [("application", "restic")];

/// Systems, by their modules in the room of plan.
fn systems() -> BTreeSet<String> {
    let room = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/plan/systems");
    let name = |e: fs::DirEntry| e.path().file_stem().unwrap().to_str().unwrap().to_owned();
    let all = fs::read_dir(room).unwrap().map(|e| name(e.unwrap()));
    all.filter(|name| !["mod", "system"].contains(&name.as_str())).collect()
}

/// The system that a path below one of the rooms belongs to.
fn system_of<'s>(systems: &'s BTreeSet<String>, path: &str) -> Option<&'s str> {
    let below = OF_SYSTEMS.iter().find_map(|room| path.strip_prefix(room)?.strip_prefix("::"))?;
    systems.get(below.split("::").next()?).map(String::as_str)
}

#[test]
fn no_system_knows_another() {
    let (systems, (_, house)) = (systems(), house());
    assert!(systems.contains("restic") && systems.contains("mock"), "{systems:?}");
    for (module, code) in &house.code {
        let here = module.join("::");
        let Some(own) = system_of(&systems, &here) else { continue };
        for (path, _) in house.names(module, code) {
            let other = system_of(&systems, &path.join("::"));
            assert!(
                other.is_none_or(|other| other == own || BUILT_ON.contains(&(own, other))),
                "{here} names {}: no system knows another",
                path.join("::")
            );
        }
    }
}

/// Only the two halves of a system know the requests to its Jobs and the answers.
#[test]
fn the_contract_of_a_system_is_its_own() {
    let (systems, (_, house)) = (systems(), house());
    // The tests of systems, and fuzz targets.
    let outside = ["contract", "conformance", "fuzz"];
    // The Job that lists snapshots writes them as objects through the API server.
    let lists = "agent::cluster::snapshots";
    for (module, code) in house.code.iter().filter(|(m, _)| !outside.contains(&m.first().map_or("", String::as_str))) {
        let here = module.join("::");
        for (path, _) in
            house.names(module, code).into_iter().filter(|(path, _)| path.starts_with(&["contract".into()]))
        {
            let Some(system) = system_of(&systems, &path.join("::")) else { continue };
            let of = system_of(&systems, &here);
            let is_half = of == Some(system) || here == format!("agent::{system}");
            let is_half = is_half || of.is_some_and(|own| BUILT_ON.contains(&(own, system)));
            assert!(is_half || (system == "restic" && here == lists), "{here} names {}", path.join("::"));
        }
    }
}

/// The plugin reads the same objects as the operator, and has no leader, no queues and no metrics.
#[test]
fn who_observes_needs_no_operator() {
    let (_, house) = house();
    for (module, code) in
        house.code.iter().filter(|(m, _)| m.starts_with(&["controller", "observe"].map(str::to_owned)))
    {
        for (path, _) in house.names(module, code) {
            for of_operator in ["slots", "listings", "triggers", "sources", "read_your_writes"] {
                let is_of_it = path.starts_with(&["controller", "cache", of_operator].map(str::to_owned));
                assert!(!is_of_it, "{} names {}", module.join("::"), path.join("::"));
            }
        }
    }
}

#[test]
fn the_controller_writes_in_one_place_and_asks_first() {
    // Every replica writes the Lease, the certificate and the key of seals, and no plan contains them.
    let of_replicas = ["leader.rs", "certificates.rs", "code_rights.rs"];
    for source in sources().iter().filter(|s| s.path.starts_with("controller")) {
        let (path, here) = (&source.path, source.path.display());
        let applies = path.starts_with("controller/apply");
        let may = applies || of_replicas.iter().any(|f| *path == Path::new("controller/process").join(f));
        for word in ["PostParams", "PatchParams", "DeleteParams", "DeleteCollection", "Recorder", "Patch::"] {
            assert!(may || !source.code.contains(word), "{here} says {word}: only apply writes");
        }
        // A client that is created here, and not taken from `Writes`, does not ask first.
        assert!(
            !applies || *path == Path::new("controller/apply/fence.rs") || !source.code.contains("Client::"),
            "{here}"
        );
        // Only one place applies a plan, and that place uses every field of it.
        for (at, _) in source.code.match_indices("plan.").filter(|_| !applies) {
            let field = &source.code[at + "plan.".len()..];
            let end = field.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(field.len());
            let (field, after) = field.split_at(end);
            assert!(after.starts_with('('), "{here} reads plan.{field}: only apply reads a plan");
        }
        for (at, _) in source.code.match_indices("Plan {").filter(|(at, _)| source.code[..*at].ends_with("let ")) {
            let pattern = source.code[at..].split('}').next().unwrap_or_default();
            assert!(applies && !pattern.contains(".."), "{here} takes a plan apart, and leaves something out");
        }
    }
}

#[test]
fn the_reader_of_this_test_reads() {
    let paths = |code| named(code, "crate::").into_iter().collect::<Vec<_>>();
    assert_eq!(
        paths("use crate::{api, plan::{contract::{A, B}, hosts}, names::label};"),
        ["api", "names::label", "plan::contract", "plan::hosts"]
    );
    assert_eq!(paths("fn f(x: &crate::api::Task) { crate::yaml::read(x) }"), ["api::Task", "yaml::read"]);
    assert_eq!(paths("use mycrate::api; use some::crate::x;"), Vec::<String>::new());
}
