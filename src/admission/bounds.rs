//! Checks the size of an object, before all other rules.
//!
//! Both entry points ([`default`](super::default::default) and [`check`](super::validate::check)) call it first,
//! because an object may not have been checked by the current CRD: an older CRD may have accepted it, or a client may
//! post it to the webhook. The limits of fields are those of the published schema (`api::bounds`). It only counts,
//! without a copy: the work is linear in the size of the object.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::LazyLock;

use serde_json::Value;

use crate::admission::error::{FieldError, Reason};
use crate::admission::kinds::KINDS;
use crate::api;

/// Maximum size of one object in bytes of JSON, without status and managedFields: the limit of a client-side apply,
/// and a sixth of what etcd stores.
pub const OBJECT_BYTES: usize = 256 * 1024;
/// Maximum size of the whole object in a request; larger ones are not read.
pub const GROWTH: usize = 3 * OBJECT_BYTES;
/// Maximum number of values (fields and items of lists) of one object, without status and managedFields. A value
/// needs up to 700 bytes of memory during validation, however short it is (`make bench-admission`); a batch of 100
/// members with all their settings has 8,000.
pub const OBJECT_VALUES: usize = 10_000;
/// What to do about an object that is too large.
pub const ADVICE: &str = "write several objects, and put large texts into ConfigMaps";
/// Maximum nesting of an object. The CRDs need half of it.
const DEPTH: usize = 32;
/// Maximum length of a key of a map: a label with its prefix (253, a slash, 63).
const KEY_LENGTH: usize = 317;

/// The limits of a field, and of the fields below it.
#[derive(Debug, Default, PartialEq)]
struct Limits {
    length: Option<usize>,
    items: Option<usize>,
    entries: Option<usize>,
    fields: BTreeMap<Box<str>, Limits>,
    each: Option<Box<Limits>>,
}

impl Limits {
    fn of(schema: &Value) -> Self {
        let limit = |key: &str| schema.get(key).and_then(Value::as_u64).and_then(|n| usize::try_from(n).ok());
        let each = schema.get("items").or_else(|| schema.get("additionalProperties"));
        Self {
            length: limit("maxLength"),
            items: limit("maxItems"),
            entries: limit("maxProperties"),
            fields: schema
                .get("properties")
                .and_then(Value::as_object)
                .into_iter()
                .flatten()
                .map(|(name, field)| (name.as_str().into(), Self::of(field)))
                .collect(),
            each: each.filter(|e| e.is_object()).map(|e| Box::new(Self::of(e))),
        }
    }

    /// Place and text of the first excess, from the inside to the outside.
    fn check(&self, value: &Value) -> Result<(), (String, String)> {
        let here = |text: String| Err((String::new(), text));
        match value {
            // The values of an enum are checked later; an unknown value may be long.
            Value::String(text) => match self.length.unwrap_or(OBJECT_BYTES) {
                most if text.len() > most && text.chars().count() > most => {
                    here(format!("has {} characters; {most} are possible", text.chars().count()))
                }
                _ => Ok(()),
            },
            Value::Array(items) => {
                if let Some(most) = self.items.filter(|most| items.len() > *most) {
                    return here(format!("has {} items; {most} are possible", items.len()));
                }
                let Some(each) = &self.each else { return Ok(()) };
                items
                    .iter()
                    .enumerate()
                    .try_for_each(|(i, item)| each.check(item).map_err(|(at, text)| (format!("[{i}]{at}"), text)))
            }
            Value::Object(map) => {
                if let Some(most) = self.entries.filter(|most| map.len() > *most) {
                    return here(format!("has {} entries; {most} are possible", map.len()));
                }
                map.iter().try_for_each(|(key, value)| {
                    if key.len() > KEY_LENGTH {
                        return here(format!("has a key of {} bytes; {KEY_LENGTH} are possible", key.len()));
                    }
                    match self.fields.get(key.as_str()).or(self.each.as_deref()) {
                        Some(limits) => limits.check(value).map_err(|(at, text)| (format!(".{key}{at}"), text)),
                        None => Ok(()),
                    }
                })
            }
            _ => Ok(()),
        }
    }
}

/// Limits below spec, of each kind in the order of [`KINDS`]; computed at first use.
static LIMITS: [LazyLock<Limits>; KINDS.len()] = [
    LazyLock::new(|| limits_of(0)),
    LazyLock::new(|| limits_of(1)),
    LazyLock::new(|| limits_of(2)),
    LazyLock::new(|| limits_of(3)),
    LazyLock::new(|| limits_of(4)),
    LazyLock::new(|| limits_of(5)),
    LazyLock::new(|| limits_of(6)),
    LazyLock::new(|| limits_of(7)),
    LazyLock::new(|| limits_of(8)),
];

fn limits_of(index: usize) -> Limits {
    let kind = KINDS.get(index).map_or("", |(kind, _)| kind);
    api::spec_of(kind).as_ref().map(Limits::of).unwrap_or_default()
}

/// Computes the limits of every kind, so that no request has to wait for it.
pub fn prepare() {
    LIMITS.iter().for_each(|limits| _ = LazyLock::force(limits));
}

/// Checks the size of an object.
///
/// # Errors
/// The first limit that it exceeds.
pub fn check(kind: &str, object: &Value) -> Result<(), FieldError> {
    let mut all = Tally::default();
    match object.as_object() {
        None => all.add(object, 0),
        Some(map) => {
            for (key, value) in map.iter().filter(|(key, _)| *key != "status") {
                match value.as_object().filter(|_| key == "metadata") {
                    None => all.add(value, 1),
                    Some(meta) => {
                        meta.iter().filter(|(key, _)| *key != "managedFields").for_each(|(_, v)| all.add(v, 2));
                    }
                }
                all.bytes += key.len() + FIELD;
            }
        }
    }
    let name = object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
    judge(kind, name, &all, object.get("spec"))
}

/// As [`check`], for a spec alone: other fields may have changed since it was validated.
///
/// # Errors
/// The first limit that it exceeds.
pub fn check_spec(kind: &str, spec: &Value) -> Result<(), FieldError> {
    let mut all = Tally::default();
    all.add(spec, 1);
    judge(kind, "", &all, Some(spec))
}

fn judge(kind: &str, name: &str, all: &Tally, spec: Option<&Value>) -> Result<(), FieldError> {
    let refused = |field: &str, text: String| Err(FieldError::new(field, Reason::Invalid, text));
    if all.is_too_deep {
        return refused("spec", format!("is nested deeper than {DEPTH} levels; no field of {kind} is"));
    }
    if all.bytes > OBJECT_BYTES {
        let text = format!(
            "{kind} {name} has {} bytes of JSON, without status and managedFields; {OBJECT_BYTES} are possible; {ADVICE}",
            all.bytes
        );
        return refused("spec", text);
    }
    if all.values > OBJECT_VALUES {
        let text = format!(
            "{kind} {name} has {} values (fields and items of lists); {OBJECT_VALUES} are possible; {ADVICE}",
            all.values
        );
        return refused("spec", text);
    }
    let limits = KINDS.iter().position(|(known, _)| *known == kind).and_then(|i| LIMITS.get(i));
    let (Some(limits), Some(spec)) = (limits, spec) else { return Ok(()) };
    limits.check(spec).or_else(|(at, text)| refused(&format!("spec{at}"), text))
}

/// Bytes beside a key and its value in JSON: two quotes, a colon and a comma.
const FIELD: usize = 4;

/// Size of an object.
#[derive(Default)]
struct Tally {
    bytes: usize,
    values: usize,
    is_too_deep: bool,
}

impl Tally {
    fn add(&mut self, value: &Value, depth: usize) {
        if depth > DEPTH {
            self.is_too_deep = true;
            return;
        }
        self.values += 1;
        match value {
            Value::Array(items) => {
                self.bytes += 2 + items.len().saturating_sub(1);
                items.iter().for_each(|item| self.add(item, depth + 1));
            }
            Value::Object(map) => {
                self.bytes += 2;
                for (key, value) in map {
                    self.bytes += key.len() + FIELD;
                    self.add(value, depth + 1);
                }
            }
            // Escaped characters are longer in JSON.
            leaf => drop(serde_json::to_writer(&mut *self, leaf)),
        }
    }
}

impl Write for Tally {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.bytes += text.len();
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn text(kind: &str, object: &Value) -> String {
        check(kind, object).err().map(|e| format!("{}: {}", e.field, e.message)).unwrap_or_default()
    }

    #[test]
    fn the_limits_of_every_kind_are_those_of_its_definition() {
        prepare();
        let definitions = api::all_crds();
        for (limits, (kind, _)) in LIMITS.iter().zip(KINDS) {
            assert!(!limits.fields.is_empty(), "{kind}");
            let definition = definitions.iter().find(|d| d["spec"]["names"]["kind"] == kind).unwrap();
            let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
            assert_eq!(**limits, Limits::of(&schema["properties"]["spec"]), "{kind}");
        }
    }

    #[test]
    fn an_excess_is_told_with_its_place_and_the_limit() {
        let spec = json!({ "members": [{}, { "target": { "rules": [{ "targetHosts": vec!["h"; 1001] }] } }] });
        assert_eq!(
            text("RestoreBatch", &json!({ "spec": spec })),
            "spec.members[1].target.rules[0].targetHosts: has 1001 items; 1000 are possible"
        );
        let labels: BTreeMap<String, &str> = (0..101).map(|i| (format!("l{i}"), "v")).collect();
        let spec = json!({ "runtimeSettings": { "pod": { "podLabels": labels } } });
        assert_eq!(
            text("RestoreSession", &json!({ "spec": spec })),
            "spec.runtimeSettings.pod.podLabels: has 101 entries; 100 are possible"
        );
        let long = json!({ "spec": { "repository": { "name": "\u{e9}".repeat(1025) } } });
        assert_eq!(
            text("BackupBatch", &long),
            "spec.repository.name: has 1025 characters; 1024 are possible",
            "characters, as the API server counts them"
        );
        let fits = json!({ "spec": { "repository": { "name": "\u{e9}".repeat(1024) } } });
        assert_eq!(text("BackupBatch", &fits), "");
    }

    #[test]
    fn an_object_is_measured_without_what_others_write() {
        let much = "x".repeat(OBJECT_BYTES);
        let object = json!({ "metadata": { "name": "n", "managedFields": [much] }, "status": much, "spec": {} });
        assert_eq!(text("RestoreSession", &object), "");
        let object = json!({ "metadata": { "name": "n", "annotations": { "a": much } }, "spec": {} });
        let said = text("RestoreSession", &object);
        assert!(said.contains("RestoreSession n has 2621") && said.contains("262144 are possible"), "{said}");
        assert_eq!(check_spec("RestoreSession", &object["spec"]), Ok(()));
        let object = json!({ "spec": { "unknown": vec![0; OBJECT_VALUES] } });
        assert!(text("RestoreSession", &object).contains("10000 are possible"));
        let deep = (0..100).fold(json!(1), |inner, _| json!([inner]));
        assert!(text("RestoreSession", &json!({ "spec": deep })).contains("deeper than 32"));
        assert!(text("RestoreSession", &deep).contains("deeper than 32"));
    }

    #[test]
    fn the_size_is_that_of_the_text() {
        let object = json!({ "spec": { "a": [1, -2.5, "\u{1}\"\\\u{e9}", null, true, {}], "b": { "c": [] } } });
        let mut all = Tally::default();
        all.add(&object, 0);
        let length = object.to_string().len();
        // A comma is counted after the last field too.
        assert!((length..length + 5).contains(&all.bytes), "{} {length}", all.bytes);
    }
}
