//! Which of the original's defects, of its test scenarios and of its peers' tests are proven, and by which tests.
//!
//! `compatibility.tsv` lists them all; a test says `Proves: defect 9, C05.` in its documentation. `make generate` makes
//! the table in docs/compatibility.md from both. An entry that has neither a test nor a reason fails here.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on has failed")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Environment variable with which the table is written instead of compared.
const WRITE: &str = "LIFEBOAT_WRITE_DOCS";
const BEGIN: &str = "<!-- made from the tests by `make generate`: begin -->\n";
const END: &str = "<!-- made from the tests by `make generate`: end -->\n";
const MARK: &str = "/// Proves: ";

/// An entry of the list: id, subject, and the reason if no test is needed.
struct Entry {
    id: String,
    about: String,
    excuse: Option<String>,
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn entries() -> Vec<Entry> {
    let text = fs::read_to_string(root().join("tests/compatibility.tsv")).unwrap();
    let lines = text.lines().filter(|l| !l.starts_with('#'));
    lines
        .map(|line| {
            let mut cells = line.split('\t').map(str::to_owned);
            let (id, about) = (cells.next().unwrap(), cells.next().unwrap_or_else(|| panic!("{line}: no second cell")));
            Entry { id, about, excuse: cells.next() }
        })
        .collect()
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

/// Tests by the ids in their `Proves:` lines, and the errors in these lines.
fn proofs(text: &str, file: &str) -> (Vec<(String, String)>, Vec<String>) {
    let (mut found, mut wrong) = (vec![], vec![]);
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    for (n, line) in lines.iter().enumerate() {
        let Some(list) = line.strip_prefix(MARK) else { continue };
        let at = format!("{file}:{}", n + 1);
        let header: Vec<&str> = lines[n..].iter().take(12).copied().collect();
        let function = header.iter().find_map(|l| l.strip_prefix("async fn ").or_else(|| l.strip_prefix("fn ")));
        let Some((name, _)) = function.and_then(|f| f.split_once('(')) else {
            wrong.push(format!("{at}: no function follows"));
            continue;
        };
        let attributes = header.iter().take_while(|l| !l.contains("fn "));
        if !attributes.into_iter().any(|l| l.starts_with("#[test]") || l.starts_with("#[tokio::test")) {
            wrong.push(format!("{at}: {name} is no test"));
        }
        for id in list.trim_end_matches('.').split(", ") {
            found.push((id.to_owned(), format!("{file}: {name}")));
        }
    }
    (found, wrong)
}

fn all_proofs() -> BTreeMap<String, Vec<String>> {
    let mut files = vec![];
    sources(&root().join("src"), &mut files);
    sources(&root().join("tests"), &mut files);
    files.sort();
    let (mut all, mut wrong) = (BTreeMap::<String, Vec<String>>::new(), vec![]);
    for file in files.iter().filter(|f| !f.ends_with("tests/compatibility.rs")) {
        let name = file.strip_prefix(root()).unwrap().display().to_string();
        let (found, faults) = proofs(&fs::read_to_string(file).unwrap(), &name);
        wrong.extend(faults);
        for (id, test) in found {
            all.entry(id).or_default().push(test);
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    all
}

fn table(entries: &[Entry], proofs: &BTreeMap<String, Vec<String>>) -> String {
    let row = |Entry { id, about, excuse }: &Entry| {
        let tests = proofs.get(id).map(|tests| {
            let named = tests.iter().filter_map(|t| t.split_once(": "));
            named.map(|(file, test)| format!("[`{test}`](../{file})")).collect::<Vec<_>>().join(", ")
        });
        let cell = match (tests, excuse) {
            (Some(tests), Some(excuse)) => format!("{tests}; {excuse}"),
            (Some(tests), None) => tests,
            (None, Some(excuse)) => format!("*does not apply: {excuse}*"),
            (None, None) => String::from("*nothing*"),
        };
        format!("| {id} | {about} | {cell} |\n")
    };
    let rows: String = entries.iter().map(row).collect();
    format!("| | About | Proven by |\n|---|---|---|\n{rows}")
}

#[test]
fn the_table_in_the_docs_is_what_the_tests_say() {
    let page = root().join("docs/compatibility.md");
    let text = fs::read_to_string(&page).unwrap();
    let (before, rest) = text.split_once(BEGIN).expect("the table's begin");
    let (_, after) = rest.split_once(END).expect("the table's end");
    let fresh = format!("{before}{BEGIN}{}{END}{after}", table(&entries(), &all_proofs()));
    if std::env::var_os(WRITE).is_some() {
        fs::write(&page, &fresh).unwrap();
    } else {
        assert!(text == fresh, "docs/compatibility.md is not what the tests say; run `make generate`");
    }
}

#[test]
fn everything_listed_is_proven_or_excused() {
    let (entries, proofs) = (entries(), all_proofs());
    let open: Vec<String> = entries
        .iter()
        .filter(|e| e.excuse.is_none() && !proofs.contains_key(&e.id))
        .map(|e| format!("{}: {}", e.id, e.about))
        .collect();
    assert!(open.is_empty(), "no test says that it proves:\n{}", open.join("\n"));
    let unknown: Vec<&String> = proofs.keys().filter(|id| !entries.iter().any(|e| e.id == **id)).collect();
    assert!(unknown.is_empty(), "tests/compatibility.tsv does not list {unknown:?}");
}

#[test]
fn a_mark_without_a_test_is_found() {
    let (found, wrong) = proofs("/// Proves: C05, defect 9.\n#[test]\nfn it_holds() {\n", "a.rs");
    assert_eq!(found, [("C05".into(), "a.rs: it_holds".into()), ("defect 9".into(), "a.rs: it_holds".into())]);
    assert!(wrong.is_empty());
    let (_, wrong) = proofs("/// Proves: C05.\nfn helper() {\n", "a.rs");
    assert_eq!(wrong, ["a.rs:1: helper is no test"]);
}
