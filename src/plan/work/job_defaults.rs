//! Default settings of Jobs, for fields that the object does not set: from the chart for all namespaces, and from an
//! annotation on a namespace for that namespace.
//!
//! A short list of fields, each bounded, without the content of any Secret: variables are set by value only. A field of
//! the object takes precedence over that of the namespace, and that over the chart's. Variables are distinguished by
//! name.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ResourceRequirements;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use crate::api::runtime::{ContainerRuntimeSettings, PodRuntimeSettings, RuntimeSettings};
use crate::api::to_json;
use crate::names::{annotation, hash_of};

/// Longest text in bytes; all annotations of an object together may have 256 KiB.
const LENGTH: usize = 16_384;
/// Most entries of each list or map.
const ENTRIES: usize = 50;

/// Suffixes of quantities.
const UNITS: [&str; 16] = ["", "n", "u", "m", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];

/// The allowed fields. Any other field is an error, so that a misspelt field is reported.
#[derive(Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Fields {
    resources: Resources,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    image_pull_secrets: Vec<Reference>,
    #[serde(skip_serializing_if = "Option::is_none")]
    service_account_name: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    node_selector: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tolerations: Vec<Tolerated>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    env: Vec<Variable>,
}

#[derive(Default, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
struct Resources {
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    limits: BTreeMap<String, Amount>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    requests: BTreeMap<String, Amount>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Reference {
    name: String,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Tolerated {
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    operator: Option<Operator>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    effect: Option<Effect>,
    #[serde(skip_serializing_if = "Option::is_none")]
    toleration_seconds: Option<i64>,
}

#[derive(Deserialize, Serialize)]
enum Operator {
    Exists,
    Equal,
}

#[derive(Deserialize, Serialize)]
enum Effect {
    NoSchedule,
    PreferNoSchedule,
    NoExecute,
}

/// A variable with a value: the content of a Secret must not be in an annotation, and a reference would point into
/// another namespace.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Variable {
    name: String,
    value: String,
}

/// A quantity, as a text or as a number.
#[derive(PartialEq, Serialize)]
struct Amount(String);

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = match serde_json::Value::deserialize(deserializer)? {
            serde_json::Value::String(text) => text,
            serde_json::Value::Number(number) => number.to_string(),
            other => {
                return Err(D::Error::custom(format!(
                    "{other} is not a valid quantity; write for example \"500m\" or \"1Gi\""
                )));
            }
        };
        if is_quantity(&text) {
            return Ok(Self(text));
        }
        Err(D::Error::custom(format!("{text:?} is not a valid quantity; write for example \"500m\" or \"1Gi\"")))
    }
}

impl Amount {
    /// As a number, to compare it with others.
    fn number(&self) -> f64 {
        let end = self.0.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(self.0.len());
        let (number, unit) = self.0.split_at(end);
        let exponent = unit.strip_prefix(['e', 'E']).and_then(|e| e.parse::<i32>().ok());
        let power = |units: [&str; 6]| units.iter().position(|u| *u == unit).and_then(|at| i32::try_from(at + 1).ok());
        let factor = exponent.map(|e| 10_f64.powi(e)).or_else(|| {
            let binary = power(["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"]).map(|n| 1024_f64.powi(n));
            let decimal = power(["k", "M", "G", "T", "P", "E"]).map(|n| 1000_f64.powi(n));
            let small = ["m", "u", "n"].iter().position(|u| *u == unit).and_then(|at| i32::try_from(at + 1).ok());
            binary.or(decimal).or_else(|| small.map(|n| 1000_f64.powi(-n)))
        });
        number.parse::<f64>().unwrap_or_default() * factor.unwrap_or(1.0)
    }
}

/// Whether Kubernetes reads it as a quantity that is not negative.
fn is_quantity(text: &str) -> bool {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let exponent = unit.strip_prefix(['e', 'E']).is_some_and(|e| e.parse::<i8>().is_ok());
    let number = number.bytes().any(|b| b.is_ascii_digit()) && number.parse::<f64>().is_ok();
    number && (UNITS.contains(&unit) || exponent)
}

/// Reads the settings from a text in JSON. An empty text sets nothing.
///
/// # Errors
/// What is wrong with it.
pub fn parse(text: &str) -> Result<RuntimeSettings, String> {
    if text.len() > LENGTH {
        return Err(format!("it has {} bytes; {LENGTH} are allowed", text.len()));
    }
    if text.trim().is_empty() {
        return Ok(RuntimeSettings::default());
    }
    if !text.trim_start().starts_with('{') {
        return Err("it is not a JSON object".to_owned());
    }
    let mut reader = serde_json::Deserializer::from_str(text);
    let fields: Fields = serde_path_to_error::deserialize(&mut reader).map_err(|e| match e.path().to_string() {
        path if path == "." => e.inner().to_string(),
        path => format!("{path}: {}", e.inner()),
    })?;
    reader.end().map_err(|e| e.to_string())?;
    check(&fields)?;
    let (limits, requests) = (&fields.resources.limits, &fields.resources.requests);
    let pod = serde_json::json!({
        "imagePullSecrets": fields.image_pull_secrets,
        "serviceAccountName": fields.service_account_name,
        "nodeSelector": fields.node_selector,
        "tolerations": fields.tolerations,
    });
    let resources = (!limits.is_empty() || !requests.is_empty()).then(|| to_json(&fields.resources));
    let container = serde_json::json!({ "resources": resources, "env": fields.env });
    let pod: PodRuntimeSettings = serde_json::from_value(pod).map_err(|e| e.to_string())?;
    let container: ContainerRuntimeSettings = serde_json::from_value(container).map_err(|e| e.to_string())?;
    Ok(RuntimeSettings { pod: Some(Box::new(pod)), container: Some(Box::new(container)) })
}

/// Reads the settings from the annotation of a namespace, over those of the chart.
///
/// # Errors
/// What is wrong with the annotation, which the text names.
pub fn of_namespace(chart: &RuntimeSettings, namespace: &str, text: Option<&str>) -> Result<RuntimeSettings, String> {
    let Some(text) = text else { return Ok(chart.clone()) };
    let own = parse(text).map_err(|e| {
        let name = annotation::JOB_DEFAULTS;
        format!("Annotation {name} of Namespace {namespace} is not valid: {e}. Correct or remove it; no Job is started in the namespace until then.")
    })?;
    Ok(over(Some(&own), chart))
}

fn check(fields: &Fields) -> Result<(), String> {
    let sizes = [
        ("resources.limits", fields.resources.limits.len()),
        ("resources.requests", fields.resources.requests.len()),
        ("imagePullSecrets", fields.image_pull_secrets.len()),
        ("nodeSelector", fields.node_selector.len()),
        ("tolerations", fields.tolerations.len()),
        ("env", fields.env.len()),
    ];
    if let Some((field, size)) = sizes.iter().find(|(_, size)| *size > ENTRIES) {
        return Err(format!("{field} has {size} entries; {ENTRIES} are allowed"));
    }
    let secrets = fields.image_pull_secrets.iter().map(|s| ("imagePullSecrets.name", s.name.as_str()));
    let accounts = fields.service_account_name.iter().map(|a| ("serviceAccountName", a.as_str()));
    if let Some((field, name)) = secrets.chain(accounts).find(|(_, name)| !is_name(name)) {
        return Err(format!("{field}: {name:?} is not a valid name"));
    }
    for variable in &fields.env {
        let (name, is_ours) = (&variable.name, variable.name.starts_with("LIFEBOAT_"));
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_graphic() && b != b'=') || is_ours {
            return Err(format!("env: {name:?} cannot be set"));
        }
        if variable.value.contains('\0') {
            return Err(format!("env: the value of {name} has a NUL character"));
        }
    }
    // What the API server would reject in a pod is reported here, with the name of the annotation.
    for (key, value) in &fields.node_selector {
        if !is_label_key(key) || !is_label_value(value) {
            return Err(format!("nodeSelector: {key:?}: {value:?} is not a valid label"));
        }
    }
    for toleration in &fields.tolerations {
        toleration.check().map_err(|why| format!("tolerations: {why}"))?;
    }
    let Resources { limits, requests } = &fields.resources;
    for name in limits.keys().chain(requests.keys()) {
        let is_native =
            ["cpu", "memory", "ephemeral-storage"].contains(&name.as_str()) || name.starts_with("hugepages-");
        let is_of_a_device = name.contains('/') && is_label_key(name);
        if !is_native && !is_of_a_device {
            return Err(format!("resources: {name:?} is not supported; use cpu, memory or ephemeral-storage"));
        }
    }
    let above =
        requests.iter().find(|(name, asked)| limits.get(*name).is_some_and(|most| asked.number() > most.number()));
    if let Some((name, asked)) = above {
        return Err(format!("resources.requests.{name}: {} is more than its limit, {}", asked.0, limits[name].0));
    }
    Ok(())
}

impl Tolerated {
    fn check(&self) -> Result<(), String> {
        let (key, value) = (self.key.as_deref().unwrap_or_default(), self.value.as_deref().unwrap_or_default());
        let exists = matches!(self.operator, Some(Operator::Exists));
        if key.is_empty() && !exists {
            return Err("without key the operator must be Exists".to_owned());
        }
        if exists && !value.is_empty() {
            return Err(format!("{key:?} has a value, {value:?}, and the operator Exists"));
        }
        if (!key.is_empty() && !is_label_key(key)) || !is_label_value(value) {
            return Err(format!("{key:?}: {value:?} is not a valid toleration"));
        }
        if self.toleration_seconds.is_some() && !matches!(self.effect, Some(Effect::NoExecute)) {
            return Err("tolerationSeconds needs the effect NoExecute".to_owned());
        }
        Ok(())
    }
}

/// The value of a label: at most 63 letters, digits, `-`, `_` and `.`, letters or digits at both ends.
fn is_label_value(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    let ends = [text.bytes().next(), text.bytes().last()].into_iter().flatten().all(|b| b.is_ascii_alphanumeric());
    text.len() <= 63 && ends && text.bytes().all(inner)
}

/// The key of a label: a name, optionally preceded by a domain and a slash.
fn is_label_key(text: &str) -> bool {
    let (domain, name) = text.split_once('/').map_or((None, text), |(domain, name)| (Some(domain), name));
    !name.is_empty() && is_label_value(name) && domain.is_none_or(is_name)
}

/// A DNS subdomain, as names of objects are.
fn is_name(name: &str) -> bool {
    let part = |p: &str| {
        !p.is_empty()
            && !p.starts_with('-')
            && !p.ends_with('-')
            && p.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    name.len() <= 253 && name.split('.').all(part)
}

/// Merges settings. `upper` takes precedence over `lower`: a field that `upper` sets is taken from it as a whole, and
/// `env` is merged by the name of each variable. Of `lower`, only the fields of this file count.
pub fn over(upper: Option<&RuntimeSettings>, lower: &RuntimeSettings) -> RuntimeSettings {
    let mut all = upper.cloned().unwrap_or_default();
    if let Some(lower) = lower.pod.as_deref() {
        let pod = all.pod.get_or_insert_default();
        if pod.image_pull_secrets.is_empty() {
            pod.image_pull_secrets.clone_from(&lower.image_pull_secrets);
        }
        if !names_account(pod) {
            pod.service_account_name.clone_from(&lower.service_account_name);
        }
        if pod.node_selector.is_empty() {
            pod.node_selector.clone_from(&lower.node_selector);
        }
        if pod.tolerations.is_empty() {
            pod.tolerations.clone_from(&lower.tolerations);
        }
    }
    if let Some(lower) = lower.container.as_deref() {
        let container = all.container.get_or_insert_default();
        if container.resources.as_ref().is_none_or(|r| *r == ResourceRequirements::default()) {
            container.resources.clone_from(&lower.resources);
        }
        // Variables of `lower` come first: a later variable may refer to an earlier one.
        let theirs = lower.env.iter().filter(|v| container.env.iter().all(|own| own.name != v.name));
        let mut env: Vec<_> = theirs.cloned().collect();
        env.append(&mut container.env);
        container.env = env;
    }
    all
}

/// Whether settings name an account; `default` counts as one.
fn names_account(pod: &PodRuntimeSettings) -> bool {
    pod.service_account_name.as_ref().is_some_and(|name| !name.is_empty())
}

/// The account that a user names for a Job. `default` does not count: every pod of the namespace that names no account
/// has it, and would get the right of the run.
pub fn named_account(settings: &PodRuntimeSettings) -> Option<&str> {
    settings.service_account_name.as_deref().filter(|name| !["", "default"].contains(name))
}

/// The account that a Job with these settings gets by name: from its settings, or else from the defaults.
pub fn account<'a>(settings: Option<&'a RuntimeSettings>, defaults: &'a RuntimeSettings) -> Option<&'a str> {
    let pods = [settings, Some(defaults)].into_iter().flatten().filter_map(|s| s.pod.as_deref());
    named_account(pods.into_iter().find(|pod| names_account(pod))?)
}

/// Hash that distinguishes settings of Jobs.
pub fn defaults_hash(defaults: &RuntimeSettings) -> String {
    hash_of(&[&to_json(defaults).to_string()])
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn settings(value: &Value) -> RuntimeSettings {
        parse(&value.to_string()).unwrap()
    }

    fn all() -> Value {
        json!({
            "resources": { "limits": { "memory": "1Gi", "cpu": 2 }, "requests": { "cpu": "100m" } },
            "imagePullSecrets": [{ "name": "registry" }], "serviceAccountName": "mover",
            "nodeSelector": { "disk": "ssd" }, "tolerations": [{ "key": "backup", "operator": "Exists" }],
            "env": [{ "name": "HTTPS_PROXY", "value": "http://proxy:3128" }, { "name": "TZ", "value": "UTC" }],
        })
    }

    #[test]
    fn each_field_reaches_the_settings() {
        let read = to_json(&settings(&all()));
        assert_eq!(
            read,
            json!({
                "pod": { "imagePullSecrets": [{ "name": "registry" }], "serviceAccountName": "mover",
                    "nodeSelector": { "disk": "ssd" }, "tolerations": [{ "key": "backup", "operator": "Exists" }] },
                "container": { "env": all()["env"],
                    "resources": { "limits": { "memory": "1Gi", "cpu": "2" }, "requests": { "cpu": "100m" } } },
            })
        );
        assert_eq!(to_json(&settings(&json!({}))), json!({ "pod": {}, "container": {} }));
        assert_eq!(parse(" \n"), Ok(RuntimeSettings::default()));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        for (text, part) in [
            (json!({ "resource": {} }).to_string(), "unknown field `resource`"),
            (
                json!({ "resources": { "limits": { "memory": "1GB" } } }).to_string(),
                "resources.limits.memory: \"1GB\" is not a valid quantity",
            ),
            (json!({ "resources": { "limits": { "memory": "-1" } } }).to_string(), "is not a valid quantity"),
            (json!({ "env": [{ "name": "A", "valueFrom": {} }] }).to_string(), "env[0].valueFrom: unknown field"),
            (json!({ "env": [{ "name": "LIFEBOAT_TASK", "value": "x" }] }).to_string(), "LIFEBOAT_TASK"),
            (json!({ "tolerations": [{ "effect": "Never" }] }).to_string(), "unknown variant `Never`"),
            (json!({ "imagePullSecrets": [{ "name": "A b" }] }).to_string(), "imagePullSecrets.name: \"A b\""),
            (json!({ "securityContext": { "privileged": true } }).to_string(), "unknown field `securityContext`"),
            ("{} x".to_owned(), "trailing characters"),
            ("{".to_owned(), "EOF"),
            ("[]".to_owned(), "it is not a JSON object"),
            ("null".to_owned(), "it is not a JSON object"),
            (json!({ "env": [{ "name": "é", "value": "" }] }).to_string(), "\"é\" cannot be set"),
            (json!({ "env": [{ "name": "A", "value": "\0" }] }).to_string(), "NUL"),
            (json!({ "nodeSelector": { "a": "\0" } }).to_string(), "is not a valid label"),
            (json!({ "nodeSelector": { "a b": "c" } }).to_string(), "is not a valid label"),
            (json!({ "tolerations": [{ "key": "a", "operator": "Exists", "value": "b" }] }).to_string(), "Exists"),
            (json!({ "tolerations": [{ "effect": "NoSchedule" }] }).to_string(), "without key"),
            (
                json!({ "tolerations": [{ "key": "a", "tolerationSeconds": 3 }] }).to_string(),
                "needs the effect NoExecute",
            ),
            (json!({ "resources": { "limits": { "gpu": 1 } } }).to_string(), "\"gpu\" is not supported"),
            (
                json!({ "resources": { "limits": { "cpu": "500m" }, "requests": { "cpu": 1 } } }).to_string(),
                "resources.requests.cpu: 1 is more than its limit, 500m",
            ),
            (
                json!({ "resources": { "limits": { "memory": "1000Mi" }, "requests": { "memory": "1Gi" } } })
                    .to_string(),
                "is more than its limit",
            ),
            (format!("{{\"serviceAccountName\":\"{}\"}}", "a".repeat(LENGTH)), "bytes; 16384 are allowed"),
            (json!({ "env": vec![json!({ "name": "A", "value": "" }); 51] }).to_string(), "env has 51 entries"),
        ] {
            let error = parse(&text).unwrap_err();
            assert!(error.contains(part), "{part}: {error}");
        }
        let error = of_namespace(&RuntimeSettings::default(), "demo", Some("{")).unwrap_err();
        assert!(
            error.starts_with("Annotation lifeboat.stash.appscode.com/job-defaults of Namespace demo is not valid: ")
        );
    }

    #[test]
    fn the_object_goes_before_the_namespace_and_that_before_the_chart() {
        let chart = settings(&json!({ "serviceAccountName": "chart", "nodeSelector": { "a": "chart" },
            "env": [{ "name": "TZ", "value": "chart" }, { "name": "NO_PROXY", "value": "chart" }],
            "resources": { "requests": { "cpu": "1" } } }));
        let own = json!({ "nodeSelector": { "b": "namespace" }, "env": [{ "name": "TZ", "value": "namespace" }] });
        let defaults = of_namespace(&chart, "n", Some(&own.to_string())).unwrap();
        let object: RuntimeSettings = serde_json::from_value(json!({
            "pod": { "serviceAccountName": "object", "priorityClassName": "high" },
            "container": { "env": [{ "name": "GOGC", "value": "object" }, { "name": "NO_PROXY", "value": "object" }] },
        }))
        .unwrap();
        assert_eq!(
            to_json(&over(Some(&object), &defaults)),
            json!({
                "pod": { "serviceAccountName": "object", "priorityClassName": "high", "nodeSelector": { "b": "namespace" } },
                "container": { "resources": { "requests": { "cpu": "1" } }, "env": [
                    { "name": "TZ", "value": "namespace" }, { "name": "GOGC", "value": "object" },
                    { "name": "NO_PROXY", "value": "object" } ] },
            })
        );
        assert_eq!(of_namespace(&chart, "n", None), Ok(chart));
    }

    #[test]
    fn an_object_can_ask_for_the_account_of_every_pod() {
        let defaults = settings(&json!({ "serviceAccountName": "mover" }));
        let of = |name: &str| -> RuntimeSettings {
            serde_json::from_value(json!({ "pod": { "serviceAccountName": name } })).unwrap()
        };
        assert_eq!(account(None, &defaults), Some("mover"));
        assert_eq!(account(Some(&of("")), &defaults), Some("mover"));
        assert_eq!(account(Some(&of("mine")), &defaults), Some("mine"));
        assert_eq!(account(Some(&of("default")), &defaults), None);
        assert_eq!(account(None, &RuntimeSettings::default()), None);
    }
}
