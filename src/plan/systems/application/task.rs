//! Tasks of applications: which clients a name means, and what its parameters ask for.
//!
//! The names are those of Stash's catalog: `postgres-backup-11.9`, `mysql-restore-8.0.14`. The version at the end is
//! ignored, because one client serves all versions, and so is the direction in the middle: the kind of the run decides
//! it, and the KEP restores with a task that is named backup.

use crate::api::app_binding::AppBindingSpec;
use crate::api::common::{Param, TaskRef};
use crate::contract::application::{Addon, Choice, Selection};
use crate::contract::{Class, Failure};
use crate::names::reason;
use crate::plan::systems::application::args;
use crate::plan::systems::application::found::{Found, Way};

/// Seconds to wait until the server answers, unless `waitTimeout` says otherwise (the default of Stash).
const WAIT: u64 = 300;
/// Longest `waitTimeout` in seconds.
const LONGEST_WAIT: u64 = 86_400;

/// What a task asks for.
#[derive(Clone, Debug, PartialEq)]
pub struct Recipe {
    /// The clients.
    pub addon: Addon,
    /// What is dumped or loaded.
    pub selection: Selection,
    /// Seconds to wait until the server answers.
    pub wait: u64,
}

/// The applications that are built in, for messages.
pub const BUILT_IN: &str =
    "postgres, mysql, mariadb, redis and valkey, each as <name>-backup or <name>-restore, with or without a version";

/// The clients that the name of a task means.
pub fn addon(task: &str) -> Option<Addon> {
    let (name, rest) = task.split_once('-')?;
    let known = ["backup", "restore"].iter().any(|way| {
        rest.strip_prefix(way)
            .is_some_and(|version| version.is_empty() || version.starts_with('-') && version.len() > 1)
    });
    let addon = match name {
        "postgres" | "postgresql" => Addon::Postgres,
        "mysql" | "mariadb" => Addon::Mysql,
        "redis" | "valkey" => Addon::Redis,
        _ => return None,
    };
    known.then_some(addon)
}

/// What the task of a member asks for: the task that the member names, or the task that the AppBinding names for this
/// direction, or the task for the type of the AppBinding. Parameters of the member take precedence over those of the
/// AppBinding.
///
/// # Errors
/// No task is named, or the task or a parameter is not valid.
pub fn recipe(found: Found<'_>, way: Way) -> Result<Recipe, Failure> {
    let of_binding = of_binding(found.binding, way);
    let own = found.task.and_then(|t| t.name.clone()).filter(|n| !n.is_empty());
    let name = own.or_else(|| of_binding.name.clone().filter(|n| !n.is_empty()));
    let addon = match &name {
        Some(name) => addon(name).ok_or_else(|| unknown(found.name, name))?,
        None => of_type(found.binding).ok_or_else(|| no_task(found))?,
    };
    let mut params = found.task.map(|t| t.params.clone()).unwrap_or_default();
    params.extend(of_binding.params.into_iter().filter(|p| !found.task.is_some_and(|t| has(&t.params, &p.name))));
    let (selection, wait) = parameters(addon, way, &params).map_err(|wrong| {
        let wrong: Vec<String> = wrong.into_iter().map(|(_, text)| text).collect();
        let text = format!("The task of AppBinding {} cannot be used: {}.", found.name, wrong.join("; "));
        Failure::new(Class::Invalid, reason::INVALID, text)
    })?;
    Ok(Recipe { addon, selection, wait })
}

fn has(params: &[Param], name: &str) -> bool {
    params.iter().any(|p| p.name == name)
}

fn unknown(binding: &str, task: &str) -> Failure {
    let text = format!("Task {task:?} for AppBinding {binding} is not built in. Built in are {BUILT_IN}.");
    Failure::new(Class::Invalid, reason::NOT_SUPPORTED, text)
}

fn no_task(found: Found<'_>) -> Failure {
    let type_ = found.binding.type_.clone().unwrap_or_default();
    let text = format!(
        "No task is named for AppBinding {}, and its type {type_:?} is not one that is built in. Set task.name. Built in are {BUILT_IN}.",
        found.name
    );
    Failure::new(Class::Invalid, reason::INVALID, text)
}

/// The task that an AppBinding names in `parameters.stash.addon`. Whatever cannot be read there is not a task: the
/// format of `parameters` belongs to the application.
fn of_binding(binding: &AppBindingSpec, way: Way) -> TaskRef {
    let field = match way {
        Way::Dump => "backupTask",
        Way::Load => "restoreTask",
    };
    let task = binding.parameters.as_ref().and_then(|p| p.pointer(&format!("/stash/addon/{field}")));
    task.and_then(|t| serde_json::from_value(t.clone()).ok()).unwrap_or_default()
}

/// The clients for the type of an AppBinding, such as `postgres` or `kubedb.com/postgres`.
fn of_type(binding: &AppBindingSpec) -> Option<Addon> {
    let type_ = binding.type_.as_deref()?;
    addon(&format!("{}-backup", type_.rsplit('/').next()?))
}

/// Reads the parameters of a task.
///
/// # Errors
/// Index and message of each parameter that is not valid.
pub fn parameters(addon: Addon, way: Way, params: &[Param]) -> Result<(Selection, u64), Vec<(usize, String)>> {
    let (mut selection, mut wait, mut wrong) = (Selection::default(), WAIT, vec![]);
    let mut databases: Vec<String> = vec![];
    for (i, Param { name, value }) in params.iter().enumerate() {
        let read = match name.as_str() {
            "waitTimeout" => seconds(value).map(|s| wait = s),
            "databases" if addon != Addon::Redis => {
                let names = value.split([',', ' ', '\n']).map(str::trim).filter(|n| !n.is_empty());
                names
                    .map(|n| args::database(n).map(|()| n.to_owned()))
                    .collect::<Result<Vec<_>, _>>()
                    .map(|names| databases.extend(names))
            }
            "args" => args::read(addon, way, value).map(|read| read.add_to(&mut selection)),
            "multiDumpArgs" if addon == Addon::Mysql && way == Way::Dump => {
                args::several(addon, way, value).map(|all| all.into_iter().for_each(|read| read.add_to(&mut selection)))
            }
            _ => Err(format!("{} has no parameter {name:?} here; {}", addon.name(), known(addon, way))),
        };
        if let Err(text) = read {
            wrong.push((i, format!("{name}: {text}")));
        }
    }
    let is_set = |name: &str| has(params, name);
    if is_set("multiDumpArgs") && (is_set("args") || is_set("databases")) {
        wrong.push((0, "multiDumpArgs is set together with args or databases; keep one of them".to_owned()));
    }
    if !databases.is_empty() {
        if selection.parts.is_empty() {
            selection.parts.push(Choice::default());
        }
        let named = &mut selection.parts[0].databases;
        named.extend(databases);
        named.sort_unstable();
        named.dedup();
    }
    if wrong.is_empty() { Ok((selection, wait)) } else { Err(wrong) }
}

fn known(addon: Addon, way: Way) -> &'static str {
    match (addon, way) {
        (Addon::Redis, _) => "it has args and waitTimeout",
        (Addon::Mysql, Way::Dump) => "it has args, multiDumpArgs, databases and waitTimeout",
        _ => "it has args, databases and waitTimeout",
    }
}

/// Stash writes whole seconds; a duration such as 5m is accepted too.
fn seconds(value: &str) -> Result<u64, String> {
    let text = value.trim();
    let seconds = match text.parse::<u64>() {
        Ok(seconds) => Some(seconds),
        Err(_) => crate::plan::run::duration::parse(text).ok().map(|d| d.as_secs()),
    };
    seconds
        .filter(|s| *s <= LONGEST_WAIT)
        .ok_or_else(|| format!("{value:?} is not a number of seconds up to {LONGEST_WAIT}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn binding(spec: serde_json::Value) -> AppBindingSpec {
        let mut spec = spec;
        spec["clientConfig"] = json!({});
        serde_json::from_value(spec).unwrap()
    }

    fn task(name: &str, params: &[(&str, &str)]) -> TaskRef {
        let param = |(name, value): &(&str, &str)| Param { name: (*name).into(), value: (*value).into() };
        TaskRef { name: Some(name.into()), params: params.iter().map(param).collect() }
    }

    fn of(binding: &AppBindingSpec, task: Option<&TaskRef>, way: Way) -> Result<Recipe, Failure> {
        recipe(Found { binding, name: "db", namespace: "demo", task }, way)
    }

    /// Proves: defect 16.
    #[test]
    fn a_name_means_its_clients_whatever_version_and_direction_it_says() {
        for (name, expected) in [
            ("postgres-backup-11.9", Some(Addon::Postgres)),
            ("postgres-restore-14.0", Some(Addon::Postgres)),
            ("mysql-backup-8.0.14", Some(Addon::Mysql)),
            ("mariadb-restore", Some(Addon::Mysql)),
            ("redis-backup-6.2.5", Some(Addon::Redis)),
            ("valkey-restore-8", Some(Addon::Redis)),
            ("mysql-backup-", None),
            ("mysql-backups", None),
            ("mysql", None),
            ("mongodb-backup-4.4", None),
            ("my-postgres-backup", None),
        ] {
            assert_eq!(addon(name), expected, "{name}");
        }
        let binding = binding(json!({ "parameters": { "stash": { "addon": {
            "backupTask": { "name": "postgres-backup-11.9", "params": [{ "name": "args", "value": "--schema=a" }] },
            "restoreTask": { "name": "postgres-restore-11.9", "params": [{ "name": "waitTimeout", "value": "7" }] },
        } } } }));
        let (dump, load) = (of(&binding, None, Way::Dump).unwrap(), of(&binding, None, Way::Load).unwrap());
        assert_eq!((dump.selection.args(), dump.wait), (&["--schema=a".to_owned()][..], WAIT));
        assert_eq!((load.selection.args().len(), load.wait), (0, 7), "parameters of a backup are not of a restore");
        let own = task("postgres-backup-11.9", &[("waitTimeout", "9")]);
        assert_eq!(of(&binding, Some(&own), Way::Load).unwrap().wait, 9, "the member's parameter wins");
    }

    #[test]
    fn without_a_task_the_type_decides() {
        for (type_, expected) in [("kubedb.com/postgres", Addon::Postgres), ("mysql", Addon::Mysql)] {
            assert_eq!(of(&binding(json!({ "type": type_ })), None, Way::Dump).unwrap().addon, expected);
        }
        let text = of(&binding(json!({ "type": "mongodb" })), None, Way::Dump).unwrap_err().message;
        assert!(text.contains("AppBinding db") && text.contains("\"mongodb\"") && text.contains("postgres"), "{text}");
        let text = of(&binding(json!({})), Some(&task("mongodb-backup-4", &[])), Way::Dump).unwrap_err().message;
        assert!(text.starts_with("Task \"mongodb-backup-4\" for AppBinding db is not built in"), "{text}");
    }

    #[test]
    fn parameters_are_read_or_named() {
        let read = |addon, way, params: &[(&str, &str)]| parameters(addon, way, &task("", params).params);
        let (selection, wait) =
            read(Addon::Mysql, Way::Dump, &[("databases", "b, a,b"), ("waitTimeout", "5m")]).unwrap();
        assert_eq!((selection.databases(), wait), (vec!["a", "b"], 300));
        for (addon, way, params, expected) in [
            (Addon::Mysql, Way::Dump, ("waitTimeout", "soon"), "waitTimeout: \"soon\" is not a number of seconds"),
            (Addon::Mysql, Way::Load, ("multiDumpArgs", "a"), "multiDumpArgs: MariaDB or MySQL has no parameter"),
            (Addon::Redis, Way::Dump, ("databases", "a"), "databases: Redis or Valkey has no parameter"),
            (Addon::Postgres, Way::Dump, ("args", "--file=/x"), "args: \"--file=/x\" is not allowed"),
            (Addon::Postgres, Way::Dump, ("databases", "a\u{0}"), "databases: "),
        ] {
            let wrong = read(addon, way, &[params]).unwrap_err();
            assert!(wrong[0].1.starts_with(expected), "{wrong:?}");
        }
    }
}
