//! Workloads and claims of a world, and the targets that name them.

use k8s_openapi::api::core::v1::VolumeMount;
use serde_json::{Value, json};

use crate::api::common::TargetRef;
use crate::plan::restore::held_note::Note;
use crate::plan::run::hosts::TargetKind;
use crate::plan::seen::target::{ClaimSeen, PodSeen, Target};

/// Stands for a kind whose claims are created from templates, one for each replica.
pub const MADE: &str = "";

/// Stands for the kind of a member outside of the cluster.
pub const OUTSIDE: &str = "Outside";

/// An application, as its AppBinding describes it.
pub fn binding() -> Value {
    json!({ "type": "mysql", "clientConfig": { "service": { "name": "db", "port": 3306, "scheme": "mysql" } },
        "secret": { "name": "db-auth" } })
}

/// A workload or claim.
#[derive(Clone, Debug)]
pub struct Workload {
    pub kind: &'static str,
    pub replicas: i32,
    /// Replicas as the user wants them.
    pub wanted: i32,
    /// Pods that still exist.
    pub pods: i32,
    /// Pass at which it appears; `until` is the pass at which it disappears.
    pub from: usize,
    pub until: usize,
    /// Its annotation with the reason why it stays at zero.
    pub held: Option<String>,
    /// Its controller has not yet observed its replicas.
    pub is_catching_up: bool,
    /// Its volume is a folder of the node that its pods run on.
    pub on_host: bool,
    /// The claim that it mounts; `None` for its own claim.
    pub claim: Option<&'static str>,
}

impl Workload {
    pub fn new(kind: &'static str, replicas: i32) -> Self {
        Self {
            kind,
            replicas,
            wanted: replicas,
            pods: replicas,
            from: 0,
            until: usize::MAX,
            held: None,
            is_catching_up: false,
            on_host: false,
            claim: None,
        }
    }

    pub fn is_scalable(&self) -> bool {
        TargetKind::of_name(self.kind).is_scalable()
    }

    /// Whether driver Mock restores it, without a workload.
    pub fn is_outside(&self) -> bool {
        self.kind == OUTSIDE
    }

    /// Whether its claims are created, without a workload.
    pub fn is_made(&self) -> bool {
        self.kind == MADE
    }
}

/// Index of the workload that a reference names.
pub fn workload_of(target: Option<&TargetRef>) -> Option<usize> {
    target?.name.as_deref()?.trim_start_matches('m').parse().ok()
}

/// What a reconcile sees of the workload.
pub fn look_at(name: String, w: &Workload) -> Target {
    let claim = || ClaimSeen { exists: true, access_modes: vec!["ReadWriteOnce".into()], ..ClaimSeen::default() };
    let mut seen = Target {
        display: format!("{}/{name}", w.kind),
        kind: w.kind.into(),
        name: name.clone(),
        replicas: w.replicas,
        is_catching_up: w.is_catching_up,
        uid: format!("uid-{name}"),
        held_down: w.held.clone(),
        pods: (0..w.pods).map(|p| pod(&name, p, w)).collect(),
        ..Target::default()
    };
    seen.left_on = Note::valid(&seen).and_then(|n| n.node().map(ToOwned::to_owned));
    match w.kind {
        "StatefulSet" => {
            seen.claim_templates = vec!["data".into()];
            seen.claims = (0..w.wanted).map(|o| (format!("data-{name}-{o}"), claim())).collect();
            seen.dormant_ordinals = w.wanted;
        }
        "PersistentVolumeClaim" => seen.claims = [(name, claim())].into(),
        "AppBinding" => seen.application = serde_json::from_value(binding()).ok(),
        "DaemonSet" => {
            let volume = json!({ "name": "data", "hostPath": { "path": "/data" } });
            seen.volumes = vec![serde_json::from_value(volume).unwrap()];
            seen.mounts = vec![mounted()];
            seen.desired_nodes = Some(w.wanted);
        }
        _ if w.on_host => {
            let volume = json!({ "name": "data", "hostPath": { "path": "/data" } });
            seen.volumes = vec![serde_json::from_value(volume).unwrap()];
            seen.mounts = vec![mounted()];
        }
        _ => {
            let own = w.claim.map_or_else(|| format!("data-{name}"), ToOwned::to_owned);
            let volume = json!({ "name": "data", "persistentVolumeClaim": { "claimName": own } });
            seen.volumes = vec![serde_json::from_value(volume).unwrap()];
            seen.claims = [(own, claim())].into();
        }
    }
    seen
}

fn mounted() -> VolumeMount {
    VolumeMount { name: "data".into(), mount_path: "/in/container".into(), ..VolumeMount::default() }
}

fn pod(name: &str, index: i32, workload: &Workload) -> PodSeen {
    let spread = workload.kind == "DaemonSet";
    let node = match (spread, workload.on_host) {
        (true, _) => Some(format!("n{index}")),
        (false, true) => Some("n7".to_owned()),
        (false, false) => None,
    };
    PodSeen { name: format!("{name}-{index}"), node, ..PodSeen::default() }
}

/// A member of a batch.
pub fn member(index: usize, workload: &Workload) -> Value {
    if workload.is_outside() {
        let shelf = json!({ "endpoint": "shelves:1", "shelf": format!("s{index}"), "secret": "shelves" });
        return json!({ "driver": "Mock", "target": { "alias": format!("m{index}"), "mock": shelf } });
    }
    json!({ "target": target(index, workload) })
}

pub fn target(index: usize, workload: &Workload) -> Value {
    let mut target = json!({ "alias": format!("m{index}"), "rules": [{ "snapshots": ["latest"] }] });
    if workload.kind != "AppBinding" {
        target["volumeMounts"] = json!([{ "name": "data", "mountPath": "/data" }]);
    }
    if workload.is_made() {
        target["replicas"] = workload.wanted.into();
        target["volumeClaimTemplates"] = json!([{ "metadata": { "name": "data-${POD_ORDINAL}" }, "spec": {
            "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "1Gi" } } } }]);
    } else {
        let version = match workload.kind {
            "PersistentVolumeClaim" | "ReplicationController" => "v1",
            _ => "apps/v1",
        };
        target["ref"] = json!({ "apiVersion": version, "kind": workload.kind, "name": format!("m{index}") });
    }
    target
}
