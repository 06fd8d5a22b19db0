//! How each fault is made.

#[path = "../support/faketime.rs"]
mod faketime;

use std::fs::{self, OpenOptions};
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{EvictParams, Patch, PatchParams};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::faults::{Fault, Planned};
use super::field::{Field, PREFIX, REPLICAS};
use super::harness::eventually;
use super::watched::{Watched, command_line, kill_9, processes};

/// How often a victim is looked for.
const POLL: Duration = Duration::from_millis(50);
/// Longest search for the operator, which another fault may have taken away.
const OPERATOR: u64 = 60;

/// Faults of the cluster and their times. All runs were affected.
pub static SHARED: Mutex<Vec<(Instant, Fault)>> = Mutex::new(vec![]);

/// Causes a fault. Returns false if its victim did not appear before the run was over.
pub async fn strike(field: &Field, watched: &Watched, planned: Planned, over: watch::Receiver<bool>) -> bool {
    let site = &field.site;
    let lasting = Duration::from_secs(planned.seconds);
    let shared = || SHARED.lock().unwrap().push((Instant::now(), planned.fault));
    let component = |name: &str, action: &str| site.component(name, action);
    let killed = |name: &str| {
        component(name, "kill");
        shared();
        true
    };
    let away = async |name: &str, from: &str, to: &str| {
        component(name, from);
        shared();
        tokio::time::sleep(lasting).await;
        component(name, to);
        true
    };
    match planned.fault {
        Fault::Operator | Fault::OneOperator => {
            let (group, one) = (site.control_group(), planned.fault == Fault::OneOperator);
            let killed = eventually(OPERATOR, async || {
                let mut all = processes("lifeboat", |g| g.contains(&group));
                all.retain(|pid| command_line(*pid).iter().any(|w| w == "operator"));
                if one && !all.is_empty() {
                    all = vec![all[usize::try_from(planned.seconds).unwrap() % all.len()]];
                }
                (all.into_iter().filter(|pid| kill_9(*pid)).count() > 0).then_some(())
            });
            let killed = killed.await.is_some();
            if killed {
                shared();
            }
            killed
        }
        Fault::OperatorAway => {
            change_operators(field, json!({ "replicas": 0 })).await;
            shared();
            tokio::time::sleep(lasting).await;
            change_operators(field, json!({ "replicas": REPLICAS })).await;
            true
        }
        Fault::OperatorAhead => {
            change_operators(field, with_clock(true)).await;
            shared();
            tokio::time::sleep(lasting * 3).await;
            change_operators(field, with_clock(false)).await;
            true
        }
        Fault::Kubelet => killed("kubelet"),
        Fault::Containerd => killed("containerd"),
        Fault::ApiServer => killed("apiserver"),
        Fault::Etcd => killed("etcd"),
        Fault::ControllerManager => killed("controller-manager"),
        Fault::Scheduler => killed("scheduler"),
        Fault::Store => killed("s3"),
        Fault::ApiServerAway => away("apiserver", "stop", "start").await,
        Fault::ApiServerSilent => away("apiserver", "pause", "resume").await,
        Fault::StoreAway => away("s3", "stop", "start").await,
        Fault::StoreSilent => away("s3", "pause", "resume").await,
        Fault::Agent => found(over, || watched.process("lifeboat").filter(|pid| kill_9(*pid))).await.is_some(),
        Fault::Restic => found(over, || watched.process("restic").filter(|pid| kill_9(*pid))).await.is_some(),
        Fault::PodDeleted => {
            let Some(pod) = found(over, || watched.pod()).await else { return false };
            site.try_delete("Pod", &pod.name).await;
            true
        }
        Fault::JobDeleted => {
            let Some(pod) = found(over, || watched.pod()).await else { return false };
            site.try_delete("Job", &pod.job).await;
            true
        }
        Fault::PodEvicted => {
            let Some(pod) = found(over, || watched.pod()).await else { return false };
            let pods: Api<Pod> = Api::namespaced(site.client.clone(), &site.namespace);
            pods.evict(&pod.name, &EvictParams::default()).await.is_ok()
        }
        Fault::NetworkCut => {
            let Some(address) = found(over, || watched.pod().and_then(|p| p.address)).await else { return false };
            let rule = |action: &str| {
                let words = ["iptables", "-w", "-t", "raw", action, "PREROUTING", "-s", &address, "-j", "DROP"];
                site.on_node(&words);
            };
            rule("-I");
            tokio::time::sleep(lasting).await;
            rule("-D");
            true
        }
        Fault::StoreRefuses => {
            field.proxy.refuse(true);
            tokio::time::sleep(lasting).await;
            field.proxy.refuse(false);
            true
        }
        Fault::DiskFull => {
            field.fill_last().await;
            true
        }
        _ => {
            harm(&site.bucket().join(PREFIX), planned);
            true
        }
    }
}

/// Searches for a victim until it finds one or the run is over.
async fn found<T>(over: watch::Receiver<bool>, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    loop {
        if let Some(victim) = look() {
            return Some(victim);
        }
        if *over.borrow() {
            return None;
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Changes the operator's Deployment, and retries while the API server is away.
async fn change_operators(field: &Field, spec: Value) {
    let api: Api<Deployment> = Api::namespaced(field.site.client.clone(), "lifeboat-system");
    let (params, patch) = (PatchParams::default(), Patch::Strategic(json!({ "spec": spec })));
    let changed = eventually(60, async || {
        let asked = api.patch("lifeboat", &params, &patch);
        tokio::time::timeout(Duration::from_secs(10), asked).await.ok()?.ok()
    });
    changed.await.expect("the operator could not be changed");
}

/// Sets the operator's clock an hour ahead, or resets it. Only the time of day is wrong: its timers run normally.
fn with_clock(ahead: bool) -> Value {
    let library = faketime::faketime();
    let folder = library.parent().unwrap();
    let env = [("LD_PRELOAD", library.to_str().unwrap()), ("FAKETIME", "+1h"), ("FAKETIME_DONT_FAKE_MONOTONIC", "1")];
    let item = |mut whole: Value, key: &str| {
        if ahead { whole } else { json!({ key: whole[key].take(), "$patch": "delete" }) }
    };
    let env: Vec<Value> = env.map(|(name, value)| item(json!({ "name": name, "value": value }), "name")).into();
    let mount = item(json!({ "name": "faketime", "mountPath": folder, "readOnly": true }), "mountPath");
    let volume = item(json!({ "name": "faketime", "hostPath": { "path": folder } }), "name");
    let container = json!({ "name": "lifeboat", "env": env, "volumeMounts": [mount] });
    json!({ "template": { "spec": { "containers": [container], "volumes": [volume] } } })
}

/// Harms one file of the repository.
fn harm(repository: &Path, planned: Planned) {
    let folder = match planned.fault {
        Fault::PackDamaged | Fault::PackMissing | Fault::PackCut => "data",
        Fault::IndexDamaged | Fault::IndexMissing | Fault::IndexCut => "index",
        _ => "snapshots",
    };
    let mut all = files(&repository.join(folder));
    all.sort_by_key(|f| fs::metadata(f).unwrap().len());
    let file = &all[usize::try_from(planned.seconds).unwrap() % all.len()];
    let size = fs::metadata(file).unwrap().len();
    match planned.fault {
        Fault::PackDamaged | Fault::IndexDamaged => {
            let mut open = OpenOptions::new().write(true).open(file).unwrap();
            open.seek(SeekFrom::Start(size / 2)).unwrap();
            open.write_all(&vec![0x5a; usize::try_from((size / 4).clamp(1, 4096)).unwrap()]).unwrap();
        }
        Fault::PackCut | Fault::IndexCut => {
            OpenOptions::new().write(true).open(file).unwrap().set_len(size / 2).unwrap();
        }
        _ => fs::remove_file(file).unwrap(),
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}
