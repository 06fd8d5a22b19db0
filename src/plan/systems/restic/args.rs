//! The restic arguments that a user may add, and what planning reads from them.
//!
//! This is an allow list: an argument that is not named here could point restic at another repository, password or
//! target, or change what its counts mean. The error names each rejected argument. Only the words are checked here;
//! restic itself validates the values that are more than a number or a word of a short list.

use crate::contract::restic::pattern;

/// Prefix of the operator's own tags, which tell it the run and session of a snapshot.
const OWN_TAGS: &str = "lifeboat.";

/// The command that gets the arguments.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Command {
    /// `restic backup`.
    Backup,
    /// `restic restore`.
    Restore,
}

/// What may follow an argument.
#[derive(Clone, Copy)]
enum Value {
    /// Nothing, or `=true` or `=false`.
    Flag,
    /// Any text.
    Text,
    /// A pattern.
    Pattern,
    /// A whole number.
    Number,
    /// A whole number between these limits, inclusive.
    Between(u32, u32),
    /// Tags, separated by commas.
    Tags,
    /// Bytes as restic writes them: 500M.
    Size,
    /// One of these words.
    Word(&'static [&'static str]),
}

/// restic's buffers grow with this number: 4294967295 takes all memory of a node that sets no limit.
const MOST_READERS: u32 = 64;
/// restic's own limits of a pack, in MiB (restic, `internal/repository/repository.go`).
const PACK_MIB: (u32, u32) = (4, 128);

const RESTORE: &[(&str, Value)] = &[
    ("--tag", Value::Tags),
    ("--verify", Value::Flag),
    ("--sparse", Value::Flag),
    ("--overwrite", Value::Word(&["always", "if-changed", "if-newer", "never"])),
    ("--exclude-xattr", Value::Pattern),
    ("--include-xattr", Value::Pattern),
    ("--limit-download", Value::Number),
];

const BACKUP: &[(&str, Value)] = &[
    ("--tag", Value::Tags),
    ("--exclude-caches", Value::Flag),
    ("--exclude-if-present", Value::Text),
    ("--exclude-larger-than", Value::Size),
    ("--one-file-system", Value::Flag),
    ("--ignore-inode", Value::Flag),
    ("--ignore-ctime", Value::Flag),
    ("--limit-upload", Value::Number),
    ("--read-concurrency", Value::Between(1, MOST_READERS)),
    ("--pack-size", Value::Between(PACK_MIB.0, PACK_MIB.1)),
    ("--compression", Value::Word(&["auto", "off", "fastest", "better", "max"])),
    ("--no-scan", Value::Flag),
    ("--iexclude", Value::Pattern),
];

const fn allowed(command: Command) -> &'static [(&'static str, Value)] {
    match command {
        Command::Backup => BACKUP,
        Command::Restore => RESTORE,
    }
}

/// Names of all arguments that a command may be given.
pub fn names(command: Command) -> impl Iterator<Item = &'static str> {
    allowed(command).iter().map(|(name, _)| *name)
}

/// An argument with its value, however it was written.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Argument {
    /// Position of its name in the list.
    pub index: usize,
    /// Its name, with the dashes.
    pub name: String,
    /// Its value, where it has one.
    pub value: Option<String>,
}

/// Reads a list in which a value follows a `=` or is the next item.
///
/// # Errors
/// Position and message of everything that is not allowed.
pub fn parse(command: Command, args: &[String]) -> Result<Vec<Argument>, Vec<(usize, String)>> {
    let mut found = Vec::new();
    let mut wrong = Vec::new();
    let mut items = args.iter().enumerate().peekable();
    while let Some((index, item)) = items.next() {
        let (name, joined) = match item.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (item.as_str(), None),
        };
        let Some((_, kind)) = allowed(command).iter().find(|(n, _)| *n == name) else {
            wrong.push((index, unknown(command, item, name)));
            continue;
        };
        let value = match kind {
            Value::Flag => joined,
            _ => joined.or_else(|| items.next_if(|(_, next)| !next.starts_with("--")).map(|(_, next)| next.clone())),
        };
        // A restore uses its tags only to select snapshots.
        let own = value.as_deref().filter(|_| command == Command::Backup && name == "--tag").and_then(own_tag);
        match own.map_or_else(|| fits(name, *kind, value.as_deref()), Err) {
            Ok(()) => found.push(Argument { index, name: name.to_owned(), value }),
            Err(text) => wrong.push((index, text)),
        }
    }
    // If the argument is given several times, restic takes the last one.
    if let [_, second, ..] = found.iter().filter(|a| a.name == "--overwrite").collect::<Vec<_>>()[..] {
        wrong.push((second.index, format!("{} is specified twice; remove one of them", second.name)));
    }
    // restic rejects both together, which would be known only after the workload is scaled down.
    let of = |name: &str| found.iter().find(|a| a.name == name);
    if let (Some(include), Some(exclude)) = (of("--include-xattr"), of("--exclude-xattr")) {
        let text = format!("{} cannot be combined with {}; remove one of them", include.name, exclude.name);
        wrong.push((include.index.max(exclude.index), text));
    }
    if wrong.is_empty() { Ok(found) } else { Err(wrong) }
}

/// The error message for a tag in a list that only the operator may set.
fn own_tag(list: &str) -> Option<String> {
    let tag = list.split(',').map(str::trim).find(|t| t.starts_with(OWN_TAGS))?;
    Some(format!("--tag {tag:?} begins with {OWN_TAGS:?}, which is reserved; use another tag"))
}

fn unknown(command: Command, item: &str, name: &str) -> String {
    let names: Vec<&str> = names(command).collect();
    if names.iter().any(|n| item.strip_prefix(n).is_some_and(|rest| rest.starts_with(char::is_whitespace))) {
        return format!("{item:?} contains an argument and its value; write --name=value");
    }
    // restic joins `--iinclude` with what a restore includes anyway, so that it would select everything, and rejects
    // `--iexclude`.
    if command == Command::Restore && ["--iinclude", "--iexclude"].contains(&name) {
        let field = if name == "--iinclude" { "include" } else { "exclude" };
        return format!("{name:?} is not allowed; use rules[].{field}, with [jJ][pP][gG] to ignore case");
    }
    // `--delete` deletes before everything is restored, and deletes what another snapshot of the host has restored.
    if command == Command::Restore && name == "--delete" {
        return format!("{name:?} is not allowed; use target.extraneous: Delete");
    }
    format!("{name:?} is not allowed; allowed are {}", names.join(", "))
}

fn fits(name: &str, kind: Value, value: Option<&str>) -> Result<(), String> {
    match (kind, value) {
        (Value::Flag, None | Some("true" | "false")) => Ok(()),
        (Value::Flag, Some(_)) => Err(format!("{name} takes no value")),
        (_, None | Some("")) => Err(format!("{name} requires a value; write {name}=value")),
        // For a restore, an empty tag would mean any snapshot.
        (Value::Tags, Some(v)) if v.split(',').any(|tag| tag.trim().is_empty()) => {
            Err(format!("{name} {v:?} has an empty tag; write tags separated by commas"))
        }
        (Value::Text | Value::Tags, Some(v)) => pattern::no_nul(v).map_err(|text| format!("{name} {text}")),
        (Value::Pattern, Some(v)) => pattern::check(v).map_err(|text| format!("{name} {text}")),
        (Value::Between(low, high), Some(v)) if v.parse::<u32>().is_ok_and(|n| (low..=high).contains(&n)) => Ok(()),
        (Value::Between(low, high), Some(v)) => {
            Err(format!("{name} needs a whole number from {low} to {high}, not {v:?}"))
        }
        (Value::Number, Some(v)) if v.parse::<u32>().is_ok() => Ok(()),
        (Value::Number, Some(v)) => Err(format!("{name} needs a whole number, not {v:?}")),
        (Value::Size, Some(v)) if is_size(v) => Ok(()),
        (Value::Size, Some(v)) => {
            Err(format!("{name} needs a whole number with a unit of k, M, G or T, such as 500M, not {v:?}"))
        }
        (Value::Word(words), Some(v)) if words.contains(&v) => Ok(()),
        (Value::Word(words), Some(v)) => Err(format!("{name} needs one of {}, not {v:?}", words.join(", "))),
    }
}

/// A size that restic accepts; units of 1024 (restic 0.18, `ui.ParseBytes`).
fn is_size(text: &str) -> bool {
    let unit = |c: char| "bkmgt".find(c.to_ascii_lowercase());
    let (number, power) = match text.char_indices().next_back() {
        Some((at, last)) if unit(last).is_some() => (&text[..at], unit(last)),
        _ => (text, None),
    };
    let factor = 1_i64 << (10 * power.unwrap_or(0));
    number.bytes().all(|b| b.is_ascii_digit()) && number.parse::<i64>().is_ok_and(|n| n.checked_mul(factor).is_some())
}

/// Tags in a list of arguments: a snapshot has all tags of one inner list, or all of another, as `--tag a,b --tag c`
/// means.
pub fn tags(args: &[String]) -> Vec<Vec<String>> {
    let mut tags = Vec::new();
    let mut items = args.iter();
    while let Some(item) = items.next() {
        let value = match item.strip_prefix("--tag") {
            Some("") => items.next().map(String::as_str),
            Some(rest) => rest.strip_prefix('='),
            None => None,
        };
        tags.extend(value.map(|v| v.split(',').map(str::trim).filter(|t| !t.is_empty()).map(str::to_owned).collect()));
    }
    tags
}

/// The list without its tags: a restore has used the tags to choose the snapshot, and refers to the snapshot by its id.
pub fn without_tags(args: &[String]) -> Vec<String> {
    let mut rest = Vec::new();
    let mut items = args.iter();
    while let Some(item) = items.next() {
        if item == "--tag" {
            items.next();
        } else if !item.starts_with("--tag=") {
            rest.push(item.clone());
        }
    }
    rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn list(items: &[&str]) -> Vec<String> {
        items.iter().map(|s| (*s).to_owned()).collect()
    }

    #[test]
    fn both_forms_of_a_value_are_read() {
        let args = list(&["--tag=a,b", "--tag", "c", "--verify", "--limit-download=100"]);
        let found = parse(Command::Restore, &args).unwrap();
        assert_eq!(found.iter().map(|a| a.index).collect::<Vec<_>>(), [0, 1, 3, 4]);
        assert_eq!(tags(&args), [list(&["a", "b"]), list(&["c"])]);
        assert_eq!(without_tags(&args), list(&["--verify", "--limit-download=100"]));
    }

    #[test]
    fn everything_else_is_refused_by_name() {
        for (args, text) in [
            (&["--repo=s3:elsewhere"][..], "\"--repo\" is not allowed"),
            (&["--password-command", "sh"], "--password-command"),
            (&["-r", "x"], "\"-r\""),
            (&["--target=/"], "--target"),
            (&["--tag"], "requires a value"),
            (&["--tag", "--verify"], "requires a value"),
            (&["--tag t"], "contains an argument and its value"),
            (&["--verify=yes"], "takes no value"),
            (&["--limit-download=fast"], "whole number"),
            (&["--overwrite=maybe"], "always, if-changed"),
            (&["--overwrite=never", "--sparse", "--overwrite", "always"], "--overwrite is specified twice"),
            (&["--compression=max"], "--compression"),
            // R42 of the reports: everything would be restored.
            (&["--iinclude=*.jpg"], "rules[].include"),
            (&["--iexclude", "*.jpg"], "rules[].exclude"),
            (&["--delete"], "extraneous: Delete"),
            // Arguments that would do the same under another name.
            (&["--include=*.jpg"], "\"--include\" is not allowed"),
            (&["--include-file=/stash-data/list"], "--include-file"),
            (&["--iinclude-file", "/stash-data/list"], "--iinclude-file"),
            (&["--exclude=*.jpg"], "--exclude"),
            (&["-i", "*.jpg"], "\"-i\""),
            (&["--IInclude=*.jpg"], "--IInclude"),
            (&["--tag=,"], "empty tag"),
            (&["--tag=a\0b"], "NUL character"),
            (&["--tag", "\0"], "NUL character"),
            (&["--include-xattr=user.\0x"], "NUL character"),
            (&["--exclude-xattr", "user.[a"], "not a valid pattern"),
            (&["--include-xattr=[a-]"], "not a valid pattern"),
            (&["--\0verify"], "not allowed"),
            (&["--verify=\0"], "takes no value"),
            (&["--tag=a,,b"], "empty tag"),
            (&["--include-xattr=user.*", "--exclude-xattr", "user.a"], "cannot be combined"),
        ] {
            let wrong = parse(Command::Restore, &list(args)).unwrap_err();
            assert!(wrong[0].1.contains(text), "{args:?}: {wrong:?}");
        }
        assert!(parse(Command::Backup, &list(&["--compression=max", "--one-file-system"])).is_ok());
        assert!(parse(Command::Backup, &list(&["--verify"])).is_err());
        for (arg, text) in [
            ("--read-concurrency=4294967295", "from 1 to 64"),
            ("--read-concurrency=0", "from 1 to 64"),
            ("--pack-size=3", "from 4 to 128"),
            ("--pack-size=129", "from 4 to 128"),
            ("--tag= ", "empty tag"),
            ("--iexclude=[a", "not a valid pattern"),
            ("--exclude-if-present=\0", "NUL character"),
            ("--exclude-larger-than=1\0", "such as 500M"),
        ] {
            let wrong = parse(Command::Backup, &list(&[arg])).unwrap_err();
            assert!(wrong[0].1.contains(text), "{arg}: {wrong:?}");
        }
        assert!(parse(Command::Backup, &list(&["--read-concurrency=64", "--pack-size", "128", "--tag=a, b"])).is_ok());
    }

    /// Sizes that restic 0.18 accepts, measured.
    #[test]
    fn sizes_are_those_of_restic() {
        assert!(["1", "0", "1k", "1K", "500M", "1G", "1T", "7b", "9223372036854775807"].into_iter().all(is_size));
        for no in
            ["", "k", "-1", "+1", "1.5G", "1KB", "1Gi", "1e3", "1 k", "1P", "ä", "9223372036854775808", "9999999999T"]
        {
            assert!(!is_size(no), "{no}");
        }
    }

    /// With these tags, a user who backs up into a shared repository could pass snapshots off as those of another
    /// user's backup.
    ///
    /// Closes: row 13 of the attacks of tenants.
    #[test]
    fn tags_of_the_operator_are_refused_for_a_backup() {
        for args in [
            &["--tag=lifeboat.session=rt-b/x"][..],
            &["--tag", "lifeboat.run=0b5c1d3e"],
            &["--verbose-is-not-there", "--tag=nightly, lifeboat.paths=1"],
            &["--tag=a,lifeboat.incomplete"],
        ] {
            let wrong = parse(Command::Backup, &list(args)).unwrap_err();
            assert!(wrong.iter().any(|(_, text)| text.contains("begins with \"lifeboat.\"")), "{args:?}: {wrong:?}");
        }
        assert!(parse(Command::Backup, &list(&["--tag=my.lifeboat.tag,lifeboats"])).is_ok());
        let filter = list(&["--tag=lifeboat.session=demo/nightly"]);
        assert!(parse(Command::Restore, &filter).is_ok(), "what only selects is harmless");
    }

    proptest! {
        #[test]
        fn what_is_left_without_tags_has_none(args in prop::collection::vec("(--tag|--tag=[a-c,]{0,3}|--verify|[a-c]{1,2})", 0..6)) {
            let rest = without_tags(&args);
            prop_assert!(tags(&rest).is_empty());
            let _ = parse(Command::Restore, &args);
            let _ = parse(Command::Backup, &args);
        }
    }
}
