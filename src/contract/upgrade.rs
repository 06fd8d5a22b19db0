//! Converts documents of the previous version to this version.
//!
//! An operator is upgraded while its Jobs run: these Jobs got their tasks, and answer, in the previous version. Version
//! 2 supported restic only, so that its work and its answers were in the place where those of any system are now.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::contract::constants::VERSION;

/// Version of a document.
pub fn version(text: &str) -> serde_json::Result<u32> {
    #[derive(Deserialize)]
    struct Versioned {
        version: u32,
    }
    serde_json::from_str::<Versioned>(text).map(|v| v.version)
}

/// Converts a task of version 2. The result is of this version: written again, it is read as such.
pub fn task(old: Value) -> Value {
    let Value::Object(mut old) = old else { return old };
    let Some(step) = old.remove("step") else { return Value::Object(old) };
    let mut settings = object(old.remove("settings"));
    let (verb, asked) = step.as_object().and_then(|s| s.iter().next()).map(|(k, v)| (k.clone(), v.clone())).unzip();
    let asked = asked.unwrap_or_default();
    let part = |of: &Value| Some(json!({ "member": of.get("member")?, "name": of.get("host")? }));
    let parts: Vec<Value> = match asked.get("hosts").and_then(Value::as_array) {
        Some(hosts) => hosts.iter().filter_map(part).collect(),
        None => part(&asked).into_iter().collect(),
    };
    let mut process = Map::new();
    for key in ["nice", "ionice_class", "ionice_class_data"] {
        process.extend(settings.remove(key).map(|v| (key.to_owned(), v)));
    }
    let after_death = settings.remove("after_death").unwrap_or(false.into());
    let repository = old.remove("repository");
    let work = json!({ "restic": { "repository": repository, "settings": settings, "step": step } });
    let new = json!({ "version": VERSION, "verb": verb, "parts": parts, "after_death": after_death, "process": process, "work": work });
    old.extend(object(Some(new)));
    Value::Object(old)
}

/// Converts an outcome of version 2.
pub fn outcome(old: Value) -> Value {
    let Value::Object(mut old) = old else { return old };
    old.insert("version".to_owned(), VERSION.into());
    let Some(answer) = old.remove("answer") else { return Value::Object(old) };
    let answer = match answer.as_object().and_then(|a| a.iter().next()) {
        Some((what, Value::Array(hosts))) if what == "preflight" => {
            json!({ "found": hosts.iter().map(found).collect::<Vec<_>>() })
        }
        Some((what, counts)) if what == "restored" => json!({ "did": { "tallies": tallies(counts) } }),
        _ => json!({ "restic": answer }),
    };
    old.insert("answer".to_owned(), answer);
    Value::Object(old)
}

fn found(old: &Value) -> Value {
    let mut old = object(Some(old.clone()));
    let mut pin = Map::new();
    for key in ["snapshots", "packed", "owner"] {
        pin.extend(old.remove(key).map(|v| (key.to_owned(), v)));
    }
    old.insert("part".into(), json!({ "member": old.get("member"), "name": old.get("host") }));
    old.insert("pin".into(), pin.into());
    if let Some(planned) = old.remove("planned") {
        let of = |what: &str| json!({ "total": planned[what] });
        old.insert("planned".into(), json!({ "files": of("files"), "bytes": of("bytes") }));
    }
    Value::Object(old)
}

fn tallies(old: &Value) -> Value {
    let of = |what: &str| json!({ "total": old["planned"][what], "done": old["restored"][what] });
    let mut new = json!({ "files": of("files"), "bytes": of("bytes") });
    new["files"]["failed"] = old.get("errors").cloned().unwrap_or(0.into());
    if let Some(n) = old.get("deleted") {
        new["deleted"] = json!({ "total": n, "done": n });
    }
    new
}

/// An outcome as version 2 wrote it.
#[cfg(test)]
pub fn before(outcome: Value) -> Value {
    let mut old = object(Some(outcome));
    old.insert("version".into(), 2.into());
    let Some(answer) = old.remove("answer") else { return old.into() };
    let of_host = |found: &Value| {
        let mut host = object(Some(found.clone()));
        let part = host.remove("part").unwrap_or_default();
        host.extend([("member".into(), part["member"].clone()), ("host".into(), part["name"].clone())]);
        let pin = object(host.remove("pin"));
        host.extend(pin);
        if let Some(planned) = host.remove("planned") {
            let of = |what: &str| planned[what]["total"].as_u64().unwrap_or(0);
            host.insert("planned".into(), json!({ "files": of("files"), "bytes": of("bytes") }));
        }
        Value::Object(host)
    };
    let answer = match (answer.get("found"), answer.get("did"), answer.get("restic")) {
        (Some(Value::Array(found)), ..) => json!({ "preflight": found.iter().map(of_host).collect::<Vec<_>>() }),
        (_, Some(did), _) => {
            let of = |what: &str, key: &str| did["tallies"][what][key].as_u64().unwrap_or(0);
            let counts = |key: &str| json!({ "files": of("files", key), "bytes": of("bytes", key) });
            let mut old =
                json!({ "planned": counts("total"), "restored": counts("done"), "errors": of("files", "failed") });
            if did["tallies"].get("deleted").is_some() {
                old["deleted"] = of("deleted", "done").into();
            }
            json!({ "restored": old })
        }
        (.., Some(restic)) => restic.clone(),
        _ => return old.into(),
    };
    old.insert("answer".into(), answer);
    old.into()
}

fn object(value: Option<Value>) -> Map<String, Value> {
    match value {
        Some(Value::Object(map)) => map,
        _ => Map::new(),
    }
}
