//! Arguments of clients that a user may add.
//!
//! This is an allow list: an argument that is not named here could send data or credentials elsewhere, run a program,
//! write a file, or hide an error. The error names each rejected argument.

use crate::contract::application::{Addon, Choice, Selection};
use crate::plan::systems::application::found::Way;

/// What an argument means.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    /// It is passed on, and takes no value.
    Flag,
    /// It is passed on, with a value.
    Value,
    /// The same, and a part of the data is left out.
    Part,
    /// The same without a value.
    PartFlag,
    /// It names a database.
    Database,
    /// The names that follow are databases.
    Databases,
    /// All databases, which is the default.
    All,
    /// It has no effect with this client, or is set anyway.
    Ignored,
    /// The same, with a value.
    IgnoredValue,
}

use Kind::{All, Database, Databases, Flag, Ignored, IgnoredValue, Part, PartFlag, Value};

const POSTGRES_DUMP: &[(&str, Option<&str>, Kind)] = &[
    ("--dbname", Some("-d"), Database),
    ("--clean", Some("-c"), Ignored),
    ("--if-exists", None, Ignored),
    ("--create", Some("-C"), Ignored),
    ("--no-owner", Some("-O"), Flag),
    ("--no-privileges", Some("-x"), Flag),
    ("--no-acl", None, Flag),
    ("--no-comments", None, Flag),
    ("--no-publications", None, Flag),
    ("--no-subscriptions", None, Flag),
    ("--no-security-labels", None, Flag),
    ("--no-tablespaces", None, Flag),
    ("--no-unlogged-table-data", None, PartFlag),
    ("--quote-all-identifiers", None, Flag),
    ("--inserts", None, Flag),
    ("--column-inserts", None, Flag),
    ("--rows-per-insert", None, Value),
    ("--lock-wait-timeout", None, Value),
    ("--schema", Some("-n"), Part),
    ("--exclude-schema", Some("-N"), Part),
    ("--table", Some("-t"), Part),
    ("--exclude-table", Some("-T"), Part),
    ("--exclude-table-data", None, Part),
    ("--exclude-database", None, Part),
    ("--schema-only", Some("-s"), PartFlag),
    ("--data-only", Some("-a"), PartFlag),
    ("--globals-only", Some("-g"), PartFlag),
    ("--roles-only", Some("-r"), PartFlag),
];

const POSTGRES_LOAD: &[(&str, Option<&str>, Kind)] = &[
    ("--dbname", Some("-d"), Database),
    ("--clean", Some("-c"), Ignored),
    ("--if-exists", None, Ignored),
    ("--exit-on-error", Some("-e"), Ignored),
    ("--no-owner", Some("-O"), Flag),
    ("--no-privileges", Some("-x"), Flag),
    ("--no-acl", None, Flag),
];

const MYSQL_DUMP: &[(&str, Option<&str>, Kind)] = &[
    ("--all-databases", Some("-A"), All),
    ("--databases", Some("-B"), Databases),
    ("--single-transaction", None, Ignored),
    ("--quick", Some("-q"), Ignored),
    ("--routines", Some("-R"), Ignored),
    ("--events", Some("-E"), Ignored),
    ("--triggers", None, Ignored),
    ("--hex-blob", None, Ignored),
    ("--skip-lock-tables", None, Ignored),
    ("--lock-tables", None, IgnoredValue),
    ("--set-gtid-purged", None, IgnoredValue),
    ("--column-statistics", None, IgnoredValue),
    ("--flush-privileges", None, Ignored),
    ("--no-tablespaces", None, Flag),
    ("--compress", Some("-C"), Flag),
    ("--insert-ignore", None, Flag),
    ("--replace", None, Flag),
    ("--complete-insert", Some("-c"), Flag),
    ("--skip-extended-insert", None, Flag),
    ("--order-by-primary", None, Flag),
    ("--max-allowed-packet", None, Value),
    ("--net-buffer-length", None, Value),
    ("--default-character-set", None, Value),
    ("--ignore-table", None, Part),
    ("--ignore-table-data", None, Part),
    ("--where", Some("-w"), Part),
    ("--no-data", Some("-d"), PartFlag),
    ("--no-create-info", Some("-t"), PartFlag),
    ("--skip-triggers", None, PartFlag),
];

const MYSQL_LOAD: &[(&str, Option<&str>, Kind)] = &[
    ("--compress", Some("-C"), Flag),
    ("--max-allowed-packet", None, Value),
    ("--net-buffer-length", None, Value),
    ("--default-character-set", None, Value),
];

const fn allowed(addon: Addon, way: Way) -> &'static [(&'static str, Option<&'static str>, Kind)] {
    match (addon, way) {
        (Addon::Postgres, Way::Dump) => POSTGRES_DUMP,
        (Addon::Postgres, Way::Load) => POSTGRES_LOAD,
        (Addon::Mysql, Way::Dump) => MYSQL_DUMP,
        (Addon::Mysql, Way::Load) => MYSQL_LOAD,
        (Addon::Redis, _) => &[],
    }
}

/// Names of all arguments that a client may be given.
pub fn names(addon: Addon, way: Way) -> impl Iterator<Item = &'static str> {
    allowed(addon, way).iter().map(|(name, ..)| *name)
}

/// The arguments of one dump or load.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Read {
    databases: Vec<String>,
    args: Vec<String>,
    is_partial: bool,
}

impl Read {
    /// Adds these arguments to a selection.
    pub fn add_to(self, selection: &mut Selection) {
        selection.parts.push(Choice { databases: self.databases, args: self.args });
        selection.is_partial |= self.is_partial;
    }
}

/// Whether a name can be that of a database.
///
/// # Errors
/// It cannot.
pub fn database(name: &str) -> Result<(), String> {
    // A name with a leading dash would be read as an argument.
    let fits = !name.is_empty() && name.len() <= 64 && !name.starts_with('-') && !name.chars().any(char::is_control);
    if fits { Ok(()) } else { Err(format!("{name:?} is not the name of a database")) }
}

/// Reads the arguments of one dump or load, as a shell separates them.
///
/// # Errors
/// What is not allowed, and the allowed arguments.
pub fn read(addon: Addon, way: Way, text: &str) -> Result<Read, String> {
    let (mut read, mut follows) = (Read::default(), false);
    let mut words = words(text)?.into_iter().peekable();
    while let Some(word) = words.next() {
        if !word.starts_with('-') {
            // MariaDB's client takes the first name as a database, and further ones as its tables.
            if addon != Addon::Mysql || way == Way::Load || (!follows && !read.databases.is_empty()) {
                return Err(format!("{word:?} is not an argument; {}", say(addon, way)));
            }
            database(&word)?;
            read.databases.push(word);
            continue;
        }
        let (name, joined) = match word.split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
            None => (word.clone(), None),
        };
        let of = |(long, short, _): &&(&str, Option<&str>, Kind)| *long == name || *short == Some(name.as_str());
        let Some((long, _, kind)) = allowed(addon, way).iter().find(of) else {
            return Err(format!("{word:?} is not allowed; {}", say(addon, way)));
        };
        follows = *kind == Databases;
        let takes_value = matches!(kind, Value | Part | Database | IgnoredValue);
        let value = match (takes_value, joined) {
            (true, None) => words.next_if(|next| !next.starts_with('-')),
            (_, joined) => joined,
        };
        match (takes_value, &value) {
            (true, None) if *kind != IgnoredValue => return Err(format!("{name} needs a value")),
            (false, Some(_)) if *kind != Ignored => return Err(format!("{name} takes no value")),
            _ => {}
        }
        read.is_partial |= matches!(kind, Part | PartFlag);
        match (kind, value) {
            (Database, Some(value)) => {
                database(&value)?;
                read.databases.push(value);
            }
            (Value | Part, Some(value)) => read.args.push(format!("{long}={value}")),
            (Flag | PartFlag, _) => read.args.push((*long).to_owned()),
            _ => {}
        }
    }
    Ok(read)
}

/// Reads several lists of arguments, one a line, each with or without `$args=` before it (the format of Stash's
/// `multiDumpArgs`).
///
/// # Errors
/// As in [`read`], for the first line that is not valid.
pub fn several(addon: Addon, way: Way, text: &str) -> Result<Vec<Read>, String> {
    let lines = text.lines().map(str::trim).filter(|l| !l.is_empty());
    lines.map(|line| read(addon, way, line.strip_prefix("$args=").unwrap_or(line))).collect()
}

fn say(addon: Addon, way: Way) -> String {
    let names: Vec<&str> = names(addon, way).collect();
    if names.is_empty() {
        format!("{} takes no arguments here", addon.name())
    } else {
        format!("allowed are {}", names.join(", "))
    }
}

/// Words, separated by blanks; quotes keep blanks.
fn words(text: &str) -> Result<Vec<String>, String> {
    let (mut words, mut word, mut quote) = (vec![], None::<String>, None::<char>);
    for c in text.chars() {
        match (quote, c) {
            (_, '\0') => return Err("has a NUL character".to_owned()),
            (Some(q), c) if c == q => quote = None,
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    if quote.is_some() {
        return Err("has a quote that is not closed".to_owned());
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(addon: Addon, way: Way, text: &str) -> Result<Read, String> {
        read(addon, way, text)
    }

    #[test]
    fn what_only_selects_or_formats_is_passed_on() {
        let read =
            of(Addon::Postgres, Way::Dump, "-n public --exclude-table-data 'my log' -O --clean -d shop").unwrap();
        assert_eq!(read.args, ["--schema=public", "--exclude-table-data=my log", "--no-owner"]);
        assert_eq!((read.databases, read.is_partial), (vec!["shop".to_owned()], true));
        let read = of(Addon::Mysql, Way::Dump, "--databases a b --set-gtid-purged=OFF --single-transaction").unwrap();
        assert_eq!(read, Read { databases: vec!["a".into(), "b".into()], ..Read::default() });
        let read = of(Addon::Mysql, Way::Dump, "--all-databases --max-allowed-packet 1G").unwrap();
        assert_eq!((read.args, read.databases.len()), (vec!["--max-allowed-packet=1G".to_owned()], 0));
        let all = several(Addon::Mysql, Way::Dump, "$args=--databases a\n\n  $args=b --no-data\n").unwrap();
        assert_eq!(all.iter().map(|r| r.databases.join(",")).collect::<Vec<_>>(), ["a", "b"]);
    }

    #[test]
    fn what_could_do_harm_is_refused_by_name() {
        for (addon, way, text) in [
            (Addon::Postgres, Way::Dump, "--file=/etc/x"),
            (Addon::Postgres, Way::Dump, "-h evil.example.com"),
            (Addon::Postgres, Way::Dump, "--dbname=-x"),
            (Addon::Postgres, Way::Load, "-c '\\! id'"),
            (Addon::Postgres, Way::Load, "--set=ON_ERROR_STOP=0"),
            (Addon::Mysql, Way::Load, "--force"),
            (Addon::Mysql, Way::Load, "--init-command=x"),
            (Addon::Mysql, Way::Dump, "--host=x"),
            (Addon::Mysql, Way::Dump, "--result-file=/x"),
            (Addon::Mysql, Way::Dump, "--tab=/x"),
            (Addon::Mysql, Way::Dump, "db table"),
            (Addon::Mysql, Way::Dump, "--where"),
            (Addon::Mysql, Way::Dump, "--no-data=1"),
            (Addon::Mysql, Way::Dump, "'open"),
            (Addon::Redis, Way::Dump, "-n 1"),
        ] {
            assert!(of(addon, way, text).is_err(), "{text}");
        }
        let text = of(Addon::Mysql, Way::Load, "--force").unwrap_err();
        assert!(text.starts_with("\"--force\" is not allowed; allowed are --compress"), "{text}");
    }

    proptest! {
        #[test]
        fn no_text_makes_an_argument_that_is_not_allowed(text in "(-[a-zA-Z]|--[a-z-]{1,12}|[a-z='\" ]|\\PC){0,12}") {
            for addon in [Addon::Postgres, Addon::Mysql, Addon::Redis] {
                for way in [Way::Dump, Way::Load] {
                    if let Ok(read) = of(addon, way, &text) {
                        let is_allowed = |a: &String| names(addon, way).any(|n| a == n || a.starts_with(&(n.to_owned() + "=")));
                        prop_assert!(read.args.iter().all(is_allowed));
                        prop_assert!(read.databases.iter().all(|d| database(d).is_ok()));
                    }
                }
            }
        }
    }
}
