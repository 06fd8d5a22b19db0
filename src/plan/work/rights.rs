//! Which rights the fields of an object require, besides the right to create the object.
//!
//! A Job runs the operator's program with the operator's settings. A field that lets its author run other code in the
//! Job, read what the Job may read, or raise the rights of its pod requires more. Fields that are known to be harmless
//! are listed here. Every other field counts, so a field that a later Kubernetes version adds counts too. The object is
//! read as JSON in its one form; the webhook and the controller both read it here.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::plan::work::job_spec::FILE_CAPABILITIES;

/// A right in the namespace of the object. A user who may create pods needs none of the others: the user's pods may use
/// every Secret, ConfigMap and ServiceAccount of the namespace, and create claims.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Right {
    /// To create pods.
    Pods,
    /// To create PersistentVolumeClaims.
    Claims,
    /// To get a Secret.
    Secret(String),
    /// To get a ConfigMap.
    ConfigMap(String),
}

/// A field, and the right that it requires.
#[derive(Clone, Debug, PartialEq)]
pub struct Ask {
    /// Path such as `spec.runtimeSettings.pod.nodeName`.
    pub field: String,
    /// Right that the author of the field must have.
    pub right: Right,
    /// Value of the field.
    pub value: Value,
    /// Only the webhook checks this right. The controller accepts the field as it is: otherwise no Repository could do
    /// anything.
    pub at_admission_only: bool,
}

/// Variables that change only how the agent counts time and threads, and what it logs. Any other variable may run code
/// (`LD_PRELOAD`, `PATH`) or lead to files and addresses (`AWS_SHARED_CREDENTIALS_FILE`, or a proxy, which receives the
/// credentials of a store without TLS).
const HARMLESS_ENV: [&str; 6] = ["AWS_DEFAULT_REGION", "AWS_REGION", "GOGC", "GOMAXPROCS", "RUST_LOG", "TZ"];

/// Rights that the fields of an object of this kind require, in the order of the fields.
pub fn asked(kind: &str, object: &Value) -> Vec<Ask> {
    let mut asks = Asks(vec![]);
    let Some(spec) = object.get("spec").and_then(Value::as_object) else { return vec![] };
    match kind {
        // A Function and a Task contain code. They run nothing yet.
        "Function" => asks.pods("spec", &object["spec"]),
        "Task" => asks.each(spec, "spec", &["steps"]),
        "Repository" => {
            asks.backend(spec.get("backend"));
            asks.settings("spec", spec);
        }
        _ => {
            asks.backend(spec.get("backend"));
            asks.part("spec", spec);
            for (i, member) in list(spec.get("members")).iter().enumerate() {
                asks.part(&format!("spec.members[{i}]"), map(Some(member)));
            }
        }
    }
    asks.0
}

/// The content of the asks of an object as text, independent of the order of its keys.
pub fn content(asks: &[Ask]) -> String {
    let asks = asks.iter().filter(|a| !a.at_admission_only);
    asks.map(|a| format!("{}={}", a.field, sorted(&a.value))).collect::<Vec<_>>().join("\n")
}

fn sorted(value: &Value) -> String {
    match value {
        Value::Object(map) => {
            let keys: BTreeMap<_, _> =
                map.iter().map(|(k, v)| (Value::from(k.as_str()).to_string(), sorted(v))).collect();
            format!("{{{}}}", keys.iter().map(|(k, v)| format!("{k}:{v}")).collect::<Vec<_>>().join(","))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(sorted).collect::<Vec<_>>().join(",")),
        other => other.to_string(),
    }
}

struct Asks(Vec<Ask>);

impl Asks {
    fn ask(&mut self, field: &str, right: Right, value: &Value) {
        self.0.push(Ask { field: field.to_owned(), right, value: value.clone(), at_admission_only: false });
    }

    fn pods(&mut self, field: &str, value: &Value) {
        if !is_unset(value) {
            self.ask(field, Right::Pods, value);
        }
    }

    /// Asks for every field that is not harmless.
    fn each(&mut self, all: &Map<String, Value>, at: &str, harmless: &[&str]) {
        for (key, value) in all.iter().filter(|(key, _)| !harmless.contains(&key.as_str())) {
            self.pods(&format!("{at}.{key}"), value);
        }
    }

    /// A session's spec, or a member of a batch.
    fn part(&mut self, at: &str, part: &Map<String, Value>) {
        self.settings(at, part);
        self.pods(&format!("{at}.hooks"), part.get("hooks").unwrap_or(&Value::Null));
        self.claim(&format!("{at}.interimVolumeTemplate"), part.get("interimVolumeTemplate"));
        let templates = list(part.get("target").and_then(|t| t.get("volumeClaimTemplates")));
        for (i, template) in templates.iter().enumerate() {
            self.claim(&format!("{at}.target.volumeClaimTemplates[{i}]"), Some(template));
        }
    }

    fn settings(&mut self, at: &str, part: &Map<String, Value>) {
        let settings = map(part.get("runtimeSettings"));
        self.pod(&format!("{at}.runtimeSettings.pod"), map(settings.get("pod")));
        self.container(&format!("{at}.runtimeSettings.container"), map(settings.get("container")));
        self.each(settings, &format!("{at}.runtimeSettings"), &["pod", "container"]);
    }

    fn pod(&mut self, at: &str, pod: &Map<String, Value>) {
        for (key, value) in pod {
            let field = format!("{at}.{key}");
            match key.as_str() {
                // These fields decide where the pod runs, within what the scheduler and quotas allow, or have no
                // effect.
                "nodeSelector"
                | "tolerations"
                | "topologySpreadConstraints"
                | "readinessGates"
                | "serviceAccountAnnotations" => {}
                // Pod affinity and anti-affinity can name pods of any namespace: those pods would wait, or reveal where
                // they run.
                "affinity" => self.each(map(Some(value)), &field, &["nodeAffinity"]),
                "serviceAccountName" if value == "default" => {}
                "automountServiceAccountToken" | "enableServiceLinks" if value == false => {}
                "securityContext" => self.security(&field, map(Some(value))),
                "imagePullSecrets" => {
                    for (i, secret) in list(Some(value)).iter().enumerate() {
                        self.ask(&format!("{field}[{i}]"), Right::Secret(text(secret, "name")), secret);
                    }
                }
                // This includes labels and annotations: Services, network policies and sidecar injectors depend on
                // them.
                _ => self.pods(&field, value),
            }
        }
    }

    fn container(&mut self, at: &str, container: &Map<String, Value>) {
        for (key, value) in container {
            let field = format!("{at}.{key}");
            match key.as_str() {
                "nice" | "ionice" => {}
                "resources" => self.each(map(Some(value)), &field, &["limits", "requests"]),
                "securityContext" => self.security(&field, map(Some(value))),
                "env" => {
                    for (i, variable) in list(Some(value)).iter().enumerate() {
                        self.variable(&format!("{field}[{i}]"), variable);
                    }
                }
                _ => self.pods(&field, value),
            }
        }
    }

    fn variable(&mut self, at: &str, variable: &Value) {
        let from = map(variable.get("valueFrom"));
        if !HARMLESS_ENV.contains(&text(variable, "name").as_str()) {
            return self.pods(at, variable);
        }
        for (key, source) in from {
            match key.as_str() {
                "fieldRef" | "resourceFieldRef" => {}
                "secretKeyRef" => self.ask(at, Right::Secret(text(source, "name")), variable),
                "configMapKeyRef" => self.ask(at, Right::ConfigMap(text(source, "name")), variable),
                _ => self.pods(at, variable),
            }
        }
    }

    /// The securityContext of a pod or of a container.
    fn security(&mut self, at: &str, context: &Map<String, Value>) {
        let is_user = |v: &Value| v.as_i64().is_some_and(|n| n > 0);
        let is_default = |v: &Value| *v == serde_json::json!({ "type": "RuntimeDefault" });
        for (key, value) in context {
            let is_harmless = match key.as_str() {
                "runAsNonRoot" | "readOnlyRootFilesystem" => value == true,
                "privileged" | "allowPrivilegeEscalation" => value == false,
                "runAsUser" | "runAsGroup" | "fsGroup" => is_user(value),
                "supplementalGroups" => list(Some(value)).iter().all(is_user),
                "fsGroupChangePolicy" | "supplementalGroupsPolicy" => true,
                "seccompProfile" | "appArmorProfile" => is_default(value),
                // They replace the operator's own. Without `drop: [ALL]` the container runtime adds its defaults.
                "capabilities" => {
                    let all = |key| list(value.get(key)).iter().filter_map(Value::as_str);
                    all("drop").any(|c| c == "ALL") && all("add").all(|c| FILE_CAPABILITIES.contains(&c))
                }
                _ => is_unset(value),
            };
            if !is_harmless && !value.is_null() {
                self.ask(&format!("{at}.{key}"), Right::Pods, value);
            }
        }
    }

    /// A claim that the operator creates. Some fields bind it to an existing volume, fill it, or control its
    /// provisioner.
    fn claim(&mut self, at: &str, template: Option<&Value>) {
        let Some(template) = template else { return };
        let spec = map(template.get("spec"));
        let notes = template.pointer("/metadata/annotations").map(|v| (format!("{at}.metadata.annotations"), v));
        let harmless = ["accessModes", "resources", "storageClassName", "volumeMode"];
        let others = spec.iter().filter(|(key, _)| !harmless.contains(&key.as_str()));
        let others = others.map(|(key, value)| (format!("{at}.spec.{key}"), value));
        for (field, value) in notes.into_iter().chain(others).filter(|(_, v)| !is_unset(v)) {
            self.ask(&field, Right::Claims, value);
        }
    }

    fn backend(&mut self, backend: Option<&Value>) {
        let backend = map(backend);
        if let Some(Value::String(name)) = backend.get("storageSecretName")
            && !name.is_empty()
        {
            let field = "spec.backend.storageSecretName".to_owned();
            let right = Right::Secret(name.clone());
            // The value includes everything that says where the credentials are sent: a change to another store is
            // checked again.
            self.0.push(Ask { field, right, value: Value::Object(backend.clone()), at_admission_only: true });
        }
        // Paths of a node, servers, drivers: everything that a pod may mount, except claims of the namespace.
        let harmless = ["mountPath", "subPath", "persistentVolumeClaim"];
        self.each(map(backend.get("local")), "spec.backend.local", &harmless);
    }
}

fn is_unset(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(s) => s.is_empty(),
        Value::Array(a) => a.is_empty(),
        Value::Object(o) => o.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

fn map(value: Option<&Value>) -> &Map<String, Value> {
    static NONE: std::sync::LazyLock<Map<String, Value>> = std::sync::LazyLock::new(Map::new);
    value.and_then(Value::as_object).unwrap_or(&NONE)
}

fn list(value: Option<&Value>) -> &[Value] {
    value.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn text(value: &Value, key: &str) -> String {
    value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn session(settings: Value) -> Value {
        json!({ "spec": { "runtimeSettings": settings } })
    }

    fn asks(kind: &str, object: &Value) -> Vec<(String, Right)> {
        asked(kind, object).into_iter().map(|a| (a.field, a.right)).collect()
    }

    #[test]
    fn what_is_harmless_asks_for_nothing() {
        let settings = json!({
            "pod": {
                "nodeSelector": { "a": "b" }, "tolerations": [{ "operator": "Exists" }], "podLabels": {},
                "affinity": { "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": {} }, "podAffinity": {} },
                "serviceAccountName": "default", "automountServiceAccountToken": false, "imagePullSecrets": [],
                "securityContext": { "runAsNonRoot": true, "runAsUser": 1000, "fsGroup": 1000, "supplementalGroups": [5],
                    "fsGroupChangePolicy": "OnRootMismatch", "seccompProfile": { "type": "RuntimeDefault" } },
            },
            "container": {
                "resources": { "limits": { "memory": "1Gi" }, "requests": {} }, "nice": { "adjustment": 5 }, "env": [
                    { "name": "TZ", "value": "UTC" },
                    { "name": "GOMAXPROCS", "valueFrom": { "resourceFieldRef": { "resource": "limits.cpu" } } },
                ],
                "securityContext": { "privileged": false, "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
                    "capabilities": { "drop": ["ALL"], "add": ["CHOWN"] } },
            },
        });
        assert_eq!(asks("RestoreSession", &session(settings)), []);
        let templates = json!([{ "metadata": { "name": "a", "labels": { "a": "b" } },
            "spec": { "accessModes": ["ReadWriteOnce"], "resources": {}, "storageClassName": "s" } }]);
        let spec = json!({ "target": { "volumeClaimTemplates": templates }, "interimVolumeTemplate": templates[0] });
        assert_eq!(asks("RestoreSession", &json!({ "spec": spec })), []);
        let claim = json!({ "mountPath": "/m", "persistentVolumeClaim": { "claimName": "c" } });
        assert_eq!(asks("Repository", &json!({ "spec": { "backend": { "local": claim } } })), []);
        assert_eq!(asks("BackupSession", &json!({ "spec": { "invoker": { "kind": "BackupBatch" } } })), []);
        assert_eq!(asks("RestoreSession", &json!({ "spec": 1 })), []);
    }

    /// The settings of a Repository's own Jobs require the same rights as those of a session.
    #[test]
    fn settings_of_a_repository_ask_for_as_much_as_those_of_a_session() {
        let settings = json!({
            "pod": { "serviceAccountName": "builder", "automountServiceAccountToken": true, "hostNetwork": true,
                "imagePullSecrets": [{ "name": "p" }], "nodeSelector": { "a": "b" } },
            "container": { "env": [{ "name": "HTTPS_PROXY", "value": "x" }, { "name": "TZ", "value": "UTC" }],
                "lifecycle": { "postStart": {} }, "resources": { "limits": {} } },
            "fieldOfNextYear": 1,
        });
        let of_session = asks("RestoreSession", &session(settings.clone()));
        assert_eq!(of_session.len(), 7, "{of_session:?}");
        assert_eq!(asks("Repository", &session(settings)), of_session);
    }

    #[test]
    fn what_runs_code_or_raises_rights_asks_for_pods() {
        let exec = json!({ "exec": { "command": ["true"] } });
        for (outer, key, value) in [
            ("container", "lifecycle", json!({ "postStart": exec })),
            ("container", "livenessProbe", exec.clone()),
            ("container", "readinessProbe", json!({ "httpGet": { "host": "10.0.0.1", "port": 80 } })),
            ("container", "startupProbe", exec.clone()),
            ("container", "envFrom", json!([{ "secretRef": { "name": "s" } }])),
            ("container", "fieldOfNextYear", json!(false)),
            ("pod", "serviceAccountName", json!("builder")),
            ("pod", "automountServiceAccountToken", json!(true)),
            ("pod", "nodeName", json!("node1")),
            ("pod", "priorityClassName", json!("system-node-critical")),
            ("pod", "priority", json!(2_000_000_000)),
            ("pod", "runtimeClassName", json!("kata")),
            ("pod", "schedulerName", json!("mine")),
            ("pod", "podLabels", json!({ "app": "web" })),
            ("pod", "podAnnotations", json!({ "vault.hashicorp.com/agent-inject": "true" })),
        ] {
            let mut settings = json!({});
            settings[outer][key] = value;
            let field = format!("spec.runtimeSettings.{outer}.{key}");
            assert_eq!(asks("RestoreSession", &session(settings)), [(field, Right::Pods)]);
        }
        // Pods of any namespace beside which the pod must run, or which then cannot run there.
        for key in ["podAffinity", "podAntiAffinity"] {
            let terms =
                json!({ "requiredDuringSchedulingIgnoredDuringExecution": [{ "topologyKey": "kubernetes.io/os" }] });
            let settings = json!({ "pod": { "affinity": { key: terms, "nodeAffinity": {} } } });
            let field = format!("spec.runtimeSettings.pod.affinity.{key}");
            assert_eq!(asks("RestoreSession", &session(settings)), [(field, Right::Pods)]);
        }
        let context =
            |value: Value| asks("RestoreSession", &session(json!({ "container": { "securityContext": value } })));
        for value in [
            json!({ "privileged": true }),
            json!({ "allowPrivilegeEscalation": true }),
            json!({ "readOnlyRootFilesystem": false }),
            json!({ "runAsUser": 0 }),
            json!({ "runAsNonRoot": false }),
            json!({ "runAsUser": "0" }),
            json!({ "capabilities": {} }),
            json!({ "capabilities": { "drop": ["CHOWN"] } }),
            json!({ "capabilities": { "drop": ["ALL"], "add": ["SYS_ADMIN"] } }),
            json!({ "seccompProfile": { "type": "Unconfined" } }),
            json!({ "seLinuxOptions": { "type": "spc_t" } }),
            json!({ "procMount": "Unmasked" }),
        ] {
            assert_eq!(context(value.clone()).len(), 1, "{value}");
        }
        let member = json!({ "spec": { "members": [{}, { "hooks": { "preRestore": exec } }] } });
        assert_eq!(asks("RestoreBatch", &member), [("spec.members[1].hooks".into(), Right::Pods)]);
        let function = json!({ "spec": { "image": "x" } });
        assert_eq!(asks("Function", &function), [("spec".into(), Right::Pods)]);
        let task = json!({ "spec": { "steps": [{ "name": "f" }], "volumes": [{ "name": "v" }] } });
        assert_eq!(asks("Task", &task), [("spec.volumes".into(), Right::Pods)]);
    }

    #[test]
    fn environment_asks_by_its_name_and_its_source() {
        let env = |variable: Value| asks("RestoreSession", &session(json!({ "container": { "env": [variable] } })));
        let at = || "spec.runtimeSettings.container.env[0]".to_owned();
        let secret = json!({ "secretKeyRef": { "name": "s", "key": "k" } });
        assert_eq!(env(json!({ "name": "LD_PRELOAD", "value": "/data/x.so" })), [(at(), Right::Pods)]);
        assert_eq!(env(json!({ "name": "PASSWORD", "valueFrom": secret })), [(at(), Right::Pods)]);
        assert_eq!(env(json!({ "name": "HTTPS_PROXY", "value": "http://mine" })), [(at(), Right::Pods)]);
        assert_eq!(env(json!({ "name": "AWS_REGION", "valueFrom": secret })), [(at(), Right::Secret("s".into()))]);
        let config = json!({ "configMapKeyRef": { "name": "c", "key": "k" } });
        assert_eq!(env(json!({ "name": "TZ", "valueFrom": config })), [(at(), Right::ConfigMap("c".into()))]);
        assert_eq!(
            env(json!({ "name": "TZ", "valueFrom": { "fileKeyRef": { "path": "/x" } } })),
            [(at(), Right::Pods)]
        );
        let pull = session(json!({ "pod": { "imagePullSecrets": [{ "name": "p" }] } }));
        let field = "spec.runtimeSettings.pod.imagePullSecrets[0]".to_owned();
        assert_eq!(asks("BackupConfiguration", &pull), [(field, Right::Secret("p".into()))]);
    }

    #[test]
    fn claims_that_are_bound_or_filled_ask_for_claims() {
        for (key, value) in [
            ("volumeName", json!("pv-of-another")),
            ("selector", json!({ "matchLabels": { "a": "b" } })),
            ("dataSourceRef", json!({ "kind": "PersistentVolumeClaim", "name": "c", "namespace": "other" })),
        ] {
            let mut spec = json!({});
            spec["interimVolumeTemplate"]["spec"][key] = value.clone();
            spec["target"]["volumeClaimTemplates"] = json!([{ "spec": { key: value } }]);
            let found = asks("RestoreSession", &json!({ "spec": spec }));
            assert!(found.len() == 2 && found.iter().all(|(_, right)| *right == Right::Claims), "{found:?}");
        }
        let notes =
            json!({ "interimVolumeTemplate": { "metadata": { "annotations": { "nfs.io/storage-path": "x" } } } });
        assert_eq!(asks("BackupConfiguration", &json!({ "spec": notes }))[0].1, Right::Claims);
    }

    #[test]
    fn a_backend_asks_for_its_secret_and_for_volumes_that_are_no_claims() {
        let backend = json!({ "storageSecretName": "s", "local": { "mountPath": "/m", "hostPath": { "path": "/" } } });
        for kind in ["Repository", "BackupBlueprint"] {
            let found = asked(kind, &json!({ "spec": { "backend": backend } }));
            assert_eq!((&found[0].right, found[0].at_admission_only), (&Right::Secret("s".into()), true));
            assert_eq!((found[1].field.as_str(), found[1].at_admission_only), ("spec.backend.local.hostPath", false));
            assert_eq!(content(&found), r#"spec.backend.local.hostPath={"path":"/"}"#);
        }
        for source in ["nfs", "csi", "projected", "ephemeral", "iscsi", "ofNextYear"] {
            let backend = json!({ "local": { "mountPath": "/m", source: { "a": "b" } } });
            assert_eq!(asks("Repository", &json!({ "spec": { "backend": backend } }))[0].1, Right::Pods);
        }
    }

    #[test]
    fn the_order_of_keys_makes_no_difference() {
        let one = session(
            json!({ "container": { "lifecycle": { "preStop": { "a": 1 }, "postStart": ["b", null, "\"}"] } } }),
        );
        let two = session(
            json!({ "container": { "lifecycle": { "postStart": ["b", null, "\"}"], "preStop": { "a": 1 } } } }),
        );
        assert_eq!(content(&asked("RestoreSession", &one)), content(&asked("RestoreSession", &two)));
        let three = session(
            json!({ "container": { "lifecycle": { "postStart": ["b", "null", "\"}"], "preStop": { "a": 1 } } } }),
        );
        assert_ne!(content(&asked("RestoreSession", &one)), content(&asked("RestoreSession", &three)));
    }
}
