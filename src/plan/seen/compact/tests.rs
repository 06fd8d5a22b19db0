use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::*;
use crate::contract::VERSION;
use crate::contract::restic::RepositoryAccess;
use crate::plan::seen::job_status::{JobSeen, see};

fn template() -> Value {
    let asks = json!([{ "source_host": "s", "paths": ["/long"], "mounts": [] }]);
    let work = json!({ "repository": RepositoryAccess::default(), "step": { "preflight": { "hosts": asks } } });
    let task = json!({ "version": VERSION, "run": { "id": "i", "kind": "k", "namespace": "n", "name": "r" },
        "verb": "preflight", "parts": [{ "member": 1, "name": "h" }], "work": { "restic": work } });
    let env = json!([{ "name": "HOME", "value": "/" }, { "name": TASK_ENV, "value": task.to_string() }]);
    let volumes = json!([{ "name": "work", "emptyDir": {} },
        { "name": "data", "persistentVolumeClaim": { "claimName": "claim" } }]);
    json!({ "containers": [{ "name": "agent", "env": env }], "volumes": volumes, "nodeName": "node",
        "tolerations": [{ "key": "k", "operator": "Exists" }] })
}

fn meta(labels: &Value) -> Value {
    json!({ "name": "j", "namespace": "n", "uid": "u", "managedFields": [{ "manager": "m" }], "labels": labels,
        "annotations": { annotation::ATTEMPT: "2", "note": "long" } })
}

/// Every test of a plan checks that everything that plans read is kept, see [`crate::plan::fake`].
#[test]
fn of_a_job_what_is_read_stays_and_the_rest_goes() {
    for step in ["preflight", "restore"] {
        let job = json!({ "metadata": meta(&json!({ label::STEP: step, "app": "shop" })),
            "spec": { "template": { "spec": template() } },
            "status": { "active": 1, "conditions": [{ "type": "Failed", "status": "True", "reason": "DeadlineExceeded" }] } });
        let whole: Job = serde_json::from_value(job.clone()).unwrap();
        let kept: Kept<Job> = serde_json::from_value(job).unwrap();
        let opened = kept.open();
        assert_eq!((opened.labels().len(), opened.annotations().len()), (1, 1));
        assert_eq!(kept.text.contains("LIFEBOAT_TASK"), step == "preflight");
        for gone in ["HOME", "emptyDir", "managedFields", "/long"] {
            assert!(!kept.text.contains(gone), "{}", kept.text);
        }
        let [whole, kept] = [&whole, &kept.open()].map(|job| see(job, &[], Timestamp::UNIX_EPOCH));
        let parts = if step == "preflight" { whole.parts.clone() } else { vec![] };
        assert!(!whole.parts.is_empty(), "{whole:?}");
        assert_eq!(kept, JobSeen { parts, ..whole });
        assert_eq!(kept.writes.is_empty(), step == "preflight");
    }
}

/// The user's variables come first, and the custom resource definitions allow 250.
#[test]
fn of_a_preflight_with_many_variables_stays_whom_it_asks_for() {
    let mut template = template();
    let mut env: Vec<Value> = (0..250).map(|i| json!({ "name": format!("N{i}"), "value": "x" })).collect();
    env.append(template["containers"][0]["env"].as_array_mut().unwrap());
    template["containers"][0]["env"] = env.into();
    let job =
        json!({ "metadata": meta(&json!({ label::STEP: "preflight" })), "spec": { "template": { "spec": template } } });
    let kept: Kept<Job> = serde_json::from_value(job).unwrap();
    assert!(!see(&kept.open(), &[], Timestamp::UNIX_EPOCH).parts.is_empty());
}

#[test]
fn of_a_pod_of_others_stays_which_claims_it_uses_and_where() {
    let pod = json!({ "metadata": meta(&json!({ "app": "shop" })), "spec": template(),
        "status": { "phase": "Running", "hostIP": "10.0.0.1" } });
    let kept: Kept<Pod> = serde_json::from_value(pod.clone()).unwrap();
    let (kept, spec) = (json!(kept.open()), &pod["spec"]);
    assert_eq!(kept["metadata"], json!({ "name": "j", "namespace": "n", "uid": "u", "labels": { "app": "shop" } }));
    assert_eq!(kept["spec"]["volumes"], json!([spec["volumes"][1]]));
    assert_eq!(kept["spec"]["tolerations"], spec["tolerations"]);
    assert_eq!((&kept["spec"]["nodeName"], &kept["status"]), (&json!("node"), &json!({ "phase": "Running" })));
    assert_eq!(kept["spec"]["containers"], json!([]));
}

#[test]
fn of_a_workload_stays_what_its_containers_mount_and_how() {
    fn pod<K: Keep>(spec: &Value) -> Value {
        let kept: Kept<K> = serde_json::from_value(json!({ "metadata": meta(&json!({})), "spec": spec })).unwrap();
        json!(kept.open())["spec"]["template"]["spec"].clone()
    }
    let mut template = template();
    let mounts =
        |read_only: bool| json!([{ "name": "data", "mountPath": "/d", "subPath": "a", "readOnly": read_only }]);
    template["containers"][0]["volumeMounts"] = mounts(true);
    template["initContainers"] = json!([{ "name": "i", "image": "x", "volumeMounts": mounts(false) }]);
    let spec = json!({ "replicas": 2, "template": { "spec": template } });
    for kept in
        [pod::<Deployment>, pod::<StatefulSet>, pod::<DaemonSet>, pod::<ReplicaSet>, pod::<ReplicationController>]
    {
        let kept = kept(&spec);
        assert_eq!((&kept["volumes"], &kept["tolerations"]), (&template["volumes"], &template["tolerations"]));
        for containers in ["containers", "initContainers"] {
            assert_eq!(kept[containers][0]["volumeMounts"], template[containers][0]["volumeMounts"]);
            assert!(kept[containers][0].get("env").is_none() && kept[containers][0].get("image").is_none());
        }
    }
}

#[test]
fn of_a_workload_that_can_be_scaled_stays_why_it_is_at_zero_and_no_more_than_is_read() {
    fn note<K: Keep>(text: &str) -> Option<String> {
        let meta = json!({ "name": "j", "annotations": { annotation::HELD_DOWN: text, "another": "x" } });
        let kept: Kept<K> = serde_json::from_value(json!({ "metadata": meta })).unwrap();
        assert!(!kept.text.contains("another") && kept.text.len() < 5000);
        kept.open().annotations().get(annotation::HELD_DOWN).cloned()
    }
    for note in [note::<Deployment>, note::<StatefulSet>, note::<ReplicaSet>, note::<ReplicationController>] {
        assert_eq!(note("{}").as_deref(), Some("{}"));
        let long = note(&"x".repeat(200_000)).unwrap();
        assert_eq!(held_note::Note::read(&long), Err("is longer than 32768 bytes"));
    }
    assert_eq!(note::<DaemonSet>("{}"), None);
}

#[test]
fn of_a_workload_that_can_be_scaled_stays_how_far_its_controller_is() {
    fn status<K: Keep>() -> Value {
        let status = json!({ "observedGeneration": 3, "replicas": 2, "readyReplicas": 1, "conditions": [] });
        let kept: Kept<K> =
            serde_json::from_value(json!({ "metadata": { "name": "j", "generation": 4 }, "status": status })).unwrap();
        let kept = json!(kept.open());
        json!([kept["metadata"]["generation"], kept["status"]])
    }
    for status in [status::<Deployment>, status::<StatefulSet>, status::<ReplicaSet>, status::<ReplicationController>] {
        assert_eq!(status(), json!([4, { "observedGeneration": 3, "replicas": 2 }]));
    }
}

#[test]
fn of_a_claim_stays_how_it_may_be_used() {
    let spec = json!({ "accessModes": ["ReadWriteOnce"], "volumeMode": "Block" });
    let mut claim = json!({ "metadata": meta(&json!({})), "spec": spec, "status": { "phase": "Bound" } });
    claim["spec"]["resources"] = json!({ "requests": { "storage": "1Gi" } });
    let kept: Kept<PersistentVolumeClaim> = serde_json::from_value(claim).unwrap();
    let kept = json!(kept.open());
    assert_eq!((&kept["spec"], kept.get("status")), (&spec, None));
    let meta = json!({ "annotations": {}, "labels": {}, "name": "j", "namespace": "n", "uid": "u" });
    assert_eq!(kept["metadata"], meta);
}
