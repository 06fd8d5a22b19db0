use crate::drivers::restic::pattern::*;
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

/// A pattern of a user must not keep a Job running forever.
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
    assert_eq!(selected(&[], &["/data/a", "!/data/a/x.jpg"]), ["/data", "/data/a/x.jpg", "/data/b.jpg", "/data/c.txt"]);
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
