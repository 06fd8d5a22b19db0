//! README and docs: their statements are true.
//!
//! Every YAML block is judged as `kubectl apply` would judge it; every `make` command exists; the reasons explained are
//! those that exist.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use lifeboat::admission::{Reason, check, message, object_reason};
use lifeboat::{api, yaml};
use serde_json::Value;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Files below a folder with this ending.
fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path, ending));
        } else if path.extension().is_some_and(|e| e == ending) {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// README.md and docs/*.md.
fn pages() -> Vec<PathBuf> {
    let mut pages = files(&root().join("docs"), "md");
    pages.insert(0, root().join("README.md"));
    pages
}

/// A piece of YAML: its location, and whether it shows something that is not implemented yet.
struct Piece {
    at: String,
    not_supported: bool,
    text: String,
}

/// Fenced blocks of a page. ```` ```yaml not-supported ```` marks what is declared but not implemented.
fn blocks(page: &Path) -> Vec<Piece> {
    let mut found: Vec<Piece> = Vec::new();
    let mut open: Option<Piece> = None;
    for (n, line) in text(page).lines().enumerate() {
        let fence = line.trim_start().strip_prefix("```");
        match (&mut open, fence) {
            (Some(_), Some(_)) => found.extend(open.take()),
            (Some(piece), None) => {
                piece.text.push_str(line);
                piece.text.push('\n');
            }
            (None, Some(language)) => {
                open = Some(Piece {
                    at: format!("{}:{} {language}", page.strip_prefix(root()).unwrap().display(), n + 1),
                    not_supported: language.ends_with(" not-supported"),
                    text: String::new(),
                });
            }
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "{}: a block is not closed", page.display());
    found.retain(|p| p.at.contains(" yaml"));
    found
}

fn kinds() -> BTreeSet<(String, String)> {
    let text = |crd: &Value, p: &str| crd.pointer(p).and_then(Value::as_str).unwrap().to_owned();
    api::all_crds()
        .iter()
        .map(|crd| {
            let version = format!("{}/{}", text(crd, "/spec/group"), text(crd, "/spec/versions/0/name"));
            (version, text(crd, "/spec/names/kind"))
        })
        .collect()
}

/// The number of our objects in a piece, and the errors of the piece.
fn judge(piece: &Piece, kinds: &BTreeSet<(String, String)>) -> (usize, Vec<String>) {
    let objects = yaml::read(&piece.text).unwrap_or_else(|e| panic!("{}: {e}", piece.at));
    let (mut seen, mut faults) = (0, Vec::new());
    for object in objects {
        let field = |key: &str| object[key].as_str().unwrap_or_default().to_owned();
        let (version, kind) = (field("apiVersion"), field("kind"));
        if !version.contains("appscode.com") {
            continue;
        }
        seen += 1;
        if !kinds.contains(&(version.clone(), kind.clone())) {
            faults.push(format!("{}: {version} {kind} is no kind of ours", piece.at));
            continue;
        }
        if !object["metadata"]["name"].is_string() {
            faults.push(format!("{}: {kind} has no name", piece.at));
        }
        let errors = check(&kind, &object, None);
        let expected = piece.not_supported.then_some(Reason::NotSupported);
        if object_reason(&errors) != expected {
            faults.push(format!("{}: {kind}: expected {expected:?}, found: {}", piece.at, message(&errors)));
        }
    }
    (seen, faults)
}

#[test]
fn every_manifest_shown_would_be_accepted() {
    let mut pieces: Vec<Piece> = pages().iter().flat_map(|p| blocks(p)).collect();
    assert!(pieces.len() >= 6, "the pages have lost their manifests");
    for file in files(&root().join("examples"), "yaml") {
        pieces.push(Piece { at: file.display().to_string(), not_supported: false, text: text(&file) });
    }
    let kinds = kinds();
    let (counts, faults): (Vec<usize>, Vec<Vec<String>>) = pieces.iter().map(|p| judge(p, &kinds)).unzip();
    let faults: Vec<String> = faults.concat();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(counts.iter().sum::<usize>() >= 20, "hardly any object of ours was found");
}

#[test]
fn the_annotation_shown_can_be_read() {
    let page = text(&root().join("docs/operations.md"));
    let (_, rest) = page.split_once(&format!("{}='", lifeboat::names::annotation::JOB_DEFAULTS)).unwrap();
    let settings = lifeboat::plan::work::job_defaults::parse(rest.split_once('\'').unwrap().0).unwrap();
    assert!(settings.container.unwrap().env.len() == 2 && settings.pod.unwrap().image_pull_secrets.len() == 1);
}

#[test]
fn this_check_finds_faults() {
    let batch = |spec: &str, not_supported| Piece {
        at: "here".into(),
        not_supported,
        text: format!(
            "apiVersion: stash.appscode.com/v1beta1\nkind: RestoreBatch\nmetadata: {{name: x}}\nspec: {{{spec}}}"
        ),
    };
    let kinds = kinds();
    assert_eq!(judge(&batch("members: []", false), &kinds).1.len(), 1);
    assert_eq!(judge(&batch("members: []", true), &kinds).1.len(), 1, "a mistake is not NotSupported");
}

/// Words that follow `make ` where the word is a command: in code, not in text.
fn make_commands(page: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut in_block = false;
    for line in page.lines() {
        if line.trim_start().starts_with("```") {
            in_block = !in_block;
            continue;
        }
        let code: Vec<&str> =
            if in_block { vec![line.trim()] } else { line.split('`').skip(1).step_by(2).map(str::trim).collect() };
        for piece in code {
            if let Some(rest) = piece.trim_start_matches("$ ").strip_prefix("make ") {
                found.extend(
                    rest.split_whitespace()
                        .take_while(|w| *w != "#")
                        .filter(|w| !w.contains('=') && w.chars().all(|c| c.is_ascii_lowercase() || c == '-'))
                        .map(str::to_owned),
                );
            }
        }
    }
    found
}

#[test]
fn every_make_command_exists() {
    let makefile = text(&root().join("Makefile"));
    let mut seen = BTreeSet::new();
    let more = ["CONTRIBUTING.md", "SECURITY.md", "tests/cluster/README.md"].map(|page| root().join(page));
    for page in pages().into_iter().chain(more) {
        for target in make_commands(&text(&page)) {
            assert!(
                makefile.lines().any(|l| l.starts_with(&format!("{target}:"))),
                "{}: make {target} does not exist",
                page.display()
            );
            seen.insert(target);
        }
    }
    for needed in ["demo", "test", "cluster-down"] {
        assert!(seen.contains(needed), "make {needed} is not explained");
    }
}

/// Anchors of a page, as GitHub derives them from its headings.
fn anchors(page: &str) -> BTreeSet<String> {
    let headings =
        page.lines().filter_map(|l| l.trim_start_matches('#').strip_prefix(' ').filter(|_| l.starts_with('#')));
    let kept = |c: char| c.is_alphanumeric() || c == '-' || c == '_';
    headings.map(|h| h.to_lowercase().replace(' ', "-").chars().filter(|c| kept(*c)).collect()).collect()
}

#[test]
fn links_between_pages_lead_somewhere() {
    let more = ["CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "charts/lifeboat/README.md", "examples/README.md"];
    let mut with_anchor = 0;
    for page in pages().into_iter().chain(more.map(|page| root().join(page))) {
        for link in text(&page).split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            if link.contains("://") {
                continue;
            }
            let file = if file.is_empty() { page.clone() } else { page.parent().unwrap().join(file) };
            assert!(file.exists(), "{}: {link} leads nowhere", page.display());
            if !anchor.is_empty() {
                assert!(anchors(&text(&file)).contains(anchor), "{}: {link} is no heading", page.display());
                with_anchor += 1;
            }
        }
    }
    assert!(with_anchor > 50, "the links were not found");
}

/// Reasons that code reports: a user never sees the reason of an unused constant.
fn reasons_given() -> BTreeSet<String> {
    let reasons = root().join("src/names/reason.rs");
    let code: String = files(&root().join("src"), "rs").iter().filter(|p| **p != reasons).map(|p| text(p)).collect();
    text(&reasons)
        .lines()
        .filter_map(|line| line.trim().strip_prefix("pub const ")?.split_once(": &str = "))
        .filter(|(constant, _)| {
            let used = format!("reason::{constant}");
            code.match_indices(&used)
                .any(|(at, _)| !code[at + used.len()..].starts_with(|c: char| c.is_ascii_uppercase() || c == '_'))
        })
        .map(|(_, value)| value.trim_matches(['"', ';']).to_owned())
        .collect()
}

#[test]
fn the_reasons_explained_are_the_reasons_there_are() {
    let explained: BTreeSet<String> = ["docs/reasons.md", "docs/backup.md", "docs/repository.md"]
        .iter()
        .flat_map(|page| {
            let page = text(&root().join(page));
            // Rows of tables whose first column has the heading Reason.
            let mut in_table = false;
            let mut found = Vec::new();
            for line in page.lines() {
                if line.starts_with("| Reason ") {
                    in_table = true;
                } else if !line.starts_with('|') {
                    in_table = false;
                } else if in_table && let Some(rest) = line.strip_prefix("| `") {
                    found.push(rest.split('`').next().unwrap().to_owned());
                }
            }
            found
        })
        .collect();
    let given = reasons_given();
    assert!(given.len() > 40, "the reasons were not found");
    let missing: Vec<_> = given.difference(&explained).collect();
    let invented: Vec<_> = explained.difference(&given).collect();
    assert!(
        missing.is_empty() && invented.is_empty(),
        "not explained: {missing:?}; explained, but not given: {invented:?}"
    );
}

/// Proves: defect 25.
#[test]
fn a_reason_is_one_word_without_spaces() {
    for reason in reasons_given() {
        let word = reason.starts_with(|c: char| c.is_ascii_uppercase()) && reason.chars().all(char::is_alphanumeric);
        assert!(word, "{reason:?} is no PascalCase word");
    }
}

/// All metrics, without the prefix: registered ones, and those of collectors, which are described before any event.
fn metrics() -> BTreeSet<String> {
    let code = text(&root().join("src/controller/process/metrics.rs"));
    let registered = code.split("r.register(").skip(1);
    let registered =
        registered.filter_map(|rest| Some(rest.trim_start().strip_prefix('"')?.split_once('"')?.0.to_owned()));
    let told = lifeboat::controller::process::metrics::Metrics::default().render();
    let told = told.lines().filter_map(|l| Some(l.strip_prefix("# TYPE lifeboat_")?.split_once(' ')?.0.to_owned()));
    registered.chain(told).collect()
}

#[test]
fn every_metric_is_explained() {
    let explained: BTreeSet<String> = text(&root().join("docs/operations.md"))
        .lines()
        .filter_map(|line| line.strip_prefix("| `lifeboat_")?.split_once('`'))
        .map(|(name, _)| name.trim_end_matches("_total").trim_end_matches("_info").to_owned())
        .collect();
    assert!(metrics().len() > 10, "{:?}", metrics());
    assert_eq!(explained, metrics());
}

#[test]
fn queries_in_the_docs_name_metrics_that_there_are() {
    let mut found = 0;
    for page in pages() {
        let page = text(&page);
        for line in page.lines().filter_map(|line| line.trim().strip_prefix("expr: ")) {
            for (at, _) in line.match_indices("lifeboat_") {
                let name: String = line[at..].chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
                let name = name.trim_start_matches("lifeboat_").trim_end_matches("_total");
                assert!(metrics().contains(name), "{line}: there is no {name}");
                found += 1;
            }
        }
    }
    assert!(found >= 4, "the rules are gone");
}

/// Names of the tests of a file: functions under a test attribute.
fn tests_of(file: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut is_test = false;
    for line in text(file).lines().map(str::trim) {
        if line == "#[test]" || line.starts_with("#[tokio::test") {
            is_test = true;
        } else if let Some((_, rest)) = line.split_once("fn ").filter(|_| is_test) {
            found.extend(rest.split('(').next().map(str::to_owned));
            is_test = false;
        }
    }
    found
}

/// The file of a test that is named by its path: `tenants::children::x` is `x` of `tests/tenants/children.rs`.
fn file_of(path: &str) -> Option<PathBuf> {
    let (file, _) = path.rsplit_once("::")?;
    let file = format!("{}.rs", file.replace("::", "/"));
    let sources = ["tests", "src"].map(|folder| root().join(folder).join(&file));
    sources.into_iter().find(|f| f.exists())
}

#[test]
fn what_the_threat_model_claims_is_shown_by_tests_that_exist() {
    let page = text(&root().join("SECURITY.md"));
    let is_path = |w: &&str| {
        w.contains("::") && w.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "_:".contains(c))
    };
    let named: BTreeSet<&str> =
        page.split('`').skip(1).step_by(2).filter(is_path).filter(|w| !w.ends_with("::")).collect();
    assert!(named.len() > 40, "the page has lost its tests: {named:?}");
    for path in &named {
        let file = file_of(path).unwrap_or_else(|| panic!("SECURITY.md: {path} is in no file"));
        let name = path.rsplit("::").next().unwrap();
        assert!(tests_of(&file).contains(name), "SECURITY.md: {path} is no test of {}", file.display());
    }
    let mut attacks = 0;
    for file in files(&root().join("tests/tenants"), "rs") {
        for name in tests_of(&file) {
            let path = format!("tenants::{}::{name}", file.file_stem().unwrap().display());
            assert!(named.contains(path.as_str()), "SECURITY.md does not say what {path} shows");
            attacks += 1;
        }
    }
    for name in tests_of(&root().join("tests/e2e/tenants.rs")) {
        assert!(named.contains(format!("e2e::tenants::{name}").as_str()), "SECURITY.md does not say what {name} shows");
    }
    assert!(attacks >= 30, "{attacks}");
}
