//! A target as it was found in the cluster, and the volumes a Job mounts to reach it.
//!
//! A Job can reach claims, host paths, NFS and the like. A volume that is deleted with its pod (emptyDir), or that is
//! created by the cluster (ConfigMap, Secret), is rejected with the reason. A host path is on one node, and so is its
//! Job.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{PersistentVolumeClaimVolumeSource, Toleration, Volume, VolumeMount};

use crate::api::app_binding::AppBindingSpec;
use crate::contract::{Class, Failure};
use crate::names::{PVC_MOUNT, reason};
use crate::plan::run::hosts::{Place, TargetKind, normal_path};
use crate::plan::seen::pvc::{Made, Wanted};

/// Maximum number of hosts of one target, and of one run: each host has a Job, and an entry in a status that must fit
/// into etcd. The API server accepts any number of replicas, so no loop may count up to that number.
pub const MOST_HOSTS: i32 = 1000;

/// A target, or why it is not there.
#[derive(Clone, Debug, PartialEq)]
pub enum TargetSeen {
    /// Not found; the text names it as `Kind/name`.
    Missing(String),
    /// It could not be looked up.
    Unknown(String),
    /// Found.
    Found(Box<Target>),
}

/// A target that was found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Target {
    /// `Kind/name`, as messages name it.
    pub display: String,
    /// Kind as it is written.
    pub kind: String,
    /// Name.
    pub name: String,
    /// Its uid, where it is a workload that can be scaled.
    pub uid: String,
    /// Its annotation that says why it stays at zero, as it is written.
    pub held_down: Option<String>,
    /// Node that its pods ran on before a restore left it at zero, if folders of that node are half restored.
    pub left_on: Option<String>,
    /// Requested replicas; 1 for a claim.
    pub replicas: i32,
    /// Its controller has not observed the requested replicas, or counts pods: it may still start pods. A workload that
    /// no controller has ever observed has no pods, and a controller that starts with it reads the requested replicas.
    pub is_catching_up: bool,
    /// First ordinal of a StatefulSet.
    pub first_ordinal: i32,
    /// Ordinals of a StatefulSet that is scaled to zero, by the claims that exist.
    pub dormant_ordinals: i32,
    /// Volumes of the pod template.
    pub volumes: Vec<Volume>,
    /// Names of a StatefulSet's volumeClaimTemplates.
    pub claim_templates: Vec<String>,
    /// A StatefulSet deletes its claims when it is scaled down.
    pub deletes_claims: bool,
    /// Nodes a DaemonSet should run on; `None` until they are counted.
    pub desired_nodes: Option<i32>,
    /// Taints that the pod template tolerates.
    pub tolerations: Vec<Toleration>,
    /// What controls the workload, as `Deployment/web`: a controlled ReplicaSet does not decide on its replicas.
    pub controller: Option<String>,
    /// HorizontalPodAutoscalers that scale it up from zero.
    pub autoscalers: Vec<String>,
    /// Claims that are created for the restore; then there is no workload.
    pub to_make: Vec<Wanted>,
    /// How the containers of its pods mount volumes.
    pub mounts: Vec<VolumeMount>,
    /// Pods that are not over and belong to the workload, or mount the claim.
    pub pods: Vec<PodSeen>,
    /// Pods that do not belong to the workload, and mount its claims, except pods of the operator's own Jobs.
    pub others: Vec<PodSeen>,
    /// How to connect to it, if it is an application.
    pub application: Option<Box<AppBindingSpec>>,
    /// Claims that were looked up.
    pub claims: BTreeMap<String, ClaimSeen>,
}

/// A pod of a target.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PodSeen {
    /// Name.
    pub name: String,
    /// Node, once it has one.
    pub node: Option<String>,
    /// Node that it is meant for: a DaemonSet creates each of its pods for one node.
    pub meant_for: Option<String>,
    /// Claims it mounts.
    pub claims: Vec<String>,
    /// Taints it tolerates; a Job beside it must tolerate them too.
    pub tolerations: Vec<Toleration>,
}

/// A claim.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClaimSeen {
    /// It exists.
    pub exists: bool,
    /// Access modes, as written.
    pub access_modes: Vec<String>,
    /// It is a device, and holds no files.
    pub is_block: bool,
    /// It is being deleted; its name is still taken.
    pub is_going: bool,
    /// The restore that created it, if a restore did.
    pub made: Option<Made>,
}

/// What a Job mounts to reach one host of a target.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reach {
    /// Volumes of the pod.
    pub volumes: Vec<Volume>,
    /// Their mounts, at the paths the user wrote.
    pub mounts: Vec<VolumeMount>,
    /// Node the Job must run on, because a running pod holds a volume there, or because it is the host's home.
    pub node: Option<String>,
    /// Node that the host's volumes are on, whether or not a pod runs: recorded before the workload's pods are removed.
    pub home: Option<String>,
    /// Taints to tolerate on that node.
    pub tolerations: Vec<Toleration>,
}

impl Reach {
    /// Mount points, normalised.
    pub fn mount_points(&self) -> Vec<String> {
        self.mounts.iter().map(|m| normal_path(&m.mount_path)).collect()
    }

    /// Claims that it mounts.
    pub fn claims(&self) -> impl Iterator<Item = &str> {
        self.volumes.iter().filter_map(|v| Some(v.persistent_volume_claim.as_ref()?.claim_name.as_str()))
    }
}

impl Target {
    /// Where its hosts are.
    pub fn places(&self) -> Vec<Place> {
        match TargetKind::of_name(&self.kind) {
            TargetKind::StatefulSet => {
                let count = if self.replicas > 0 { self.replicas } else { self.dormant_ordinals };
                (0..count.min(MOST_HOSTS)).map(|n| Place::ordinal(self.first_ordinal.saturating_add(n))).collect()
            }
            TargetKind::DaemonSet => self.nodes().into_iter().map(Place::node).collect(),
            _ if !self.to_make.is_empty() => {
                let all: BTreeSet<i32> = self.to_make.iter().map(|w| w.ordinal).collect();
                all.into_iter().map(Place::ordinal).collect()
            }
            _ => vec![Place::default()],
        }
    }

    /// Nodes that its pods run on, or are meant for.
    fn nodes(&self) -> BTreeSet<&str> {
        self.pods.iter().filter_map(|p| p.node.as_deref().or(p.meant_for.as_deref())).collect()
    }

    /// Why it has more hosts than a run can have.
    pub fn too_many(&self) -> Option<String> {
        let (count, what, help) = match TargetKind::of_name(&self.kind) {
            TargetKind::StatefulSet => (self.replicas, "replicas", "Scale it down."),
            TargetKind::DaemonSet => {
                let found = i32::try_from(self.nodes().len()).unwrap_or(i32::MAX);
                (found.max(self.desired_nodes.unwrap_or(0)), "nodes", "Select fewer nodes in its nodeSelector.")
            }
            _ => return None,
        };
        (count > MOST_HOSTS).then(|| {
            format!("{} has {count} {what}; a member can have at most {MOST_HOSTS} hosts. {help}", self.display)
        })
    }

    /// Why its hosts cannot be counted yet.
    pub fn uncounted(&self) -> Option<String> {
        if TargetKind::of_name(&self.kind) != TargetKind::DaemonSet {
            return None;
        }
        let found = self.nodes().len();
        match self.desired_nodes {
            None => Some(format!("The nodes of {} are not counted yet.", self.display)),
            Some(n) if usize::try_from(n).is_ok_and(|n| n > found) => {
                Some(format!("{} should run on {n} nodes, but has pods on {found} of them.", self.display))
            }
            Some(_) => None,
        }
    }

    /// Whether it has replicas that can be scaled to zero.
    pub fn is_scalable(&self) -> bool {
        TargetKind::of_name(&self.kind).is_scalable()
    }

    /// The node that the volumes of a host are on: for a DaemonSet, the host's node; for host paths, the node where its
    /// pod runs.
    fn home(&self, asked: &[VolumeMount], place: &Place) -> Result<Option<String>, Failure> {
        let on_host = |m: &&VolumeMount| self.volumes.iter().any(|v| v.name == m.name && v.host_path.is_some());
        if place.node.is_some() || TargetKind::of_name(&self.kind) == TargetKind::Claim {
            return Ok(place.node.clone());
        }
        let Some(mount) = asked.iter().find(on_host) else { return Ok(None) };
        let of_ordinal = format!("{}-{}", self.name, place.ordinal);
        let is_set = TargetKind::of_name(&self.kind) == TargetKind::StatefulSet;
        let pods = self.pods.iter().filter(|p| !is_set || p.name == of_ordinal);
        let nodes: BTreeSet<&str> = pods.filter_map(|p| p.node.as_deref()).collect();
        match Vec::from_iter(nodes)[..] {
            [node] => Ok(Some(node.to_owned())),
            // Each pod of a StatefulSet may have been on a different node.
            [] if !is_set && self.left_on.is_some() => Ok(self.left_on.clone()),
            [] => Err(Failure::new(
                Class::Waiting,
                reason::TARGET_NOT_AVAILABLE,
                format!(
                    "Volume {:?} of {} is a hostPath, and its node is not known without a pod: scale the workload up until the run has started.",
                    mount.name, self.display
                ),
            )),
            ref many => Err(self.unreachable(
                &mount.name,
                &format!("a hostPath, and its pods run on {}, so each node has its own folder", many.join(", ")),
            )),
        }
    }

    /// The claim behind a volume name for an ordinal, where there is one.
    fn volume(&self, name: &str, ordinal: i32) -> Option<Volume> {
        if let Some(wanted) = self.to_make.iter().find(|w| w.volume == name && w.ordinal == ordinal) {
            return Some(claim_volume(name, &wanted.name));
        }
        if self.claim_templates.iter().any(|t| t == name) {
            return Some(claim_volume(name, &format!("{name}-{}-{ordinal}", self.name)));
        }
        self.volumes.iter().find(|v| v.name == name).cloned()
    }

    /// What a Job mounts to reach one host. `live` says that pods which hold its volumes will stay.
    ///
    /// # Errors
    /// A volume does not exist, cannot be reached by a Job, cannot be written although `writes` is set, or is held in a
    /// way that no second pod can share.
    pub fn reach(&self, asked: &[VolumeMount], place: &Place, live: bool, writes: bool) -> Result<Reach, Failure> {
        let mut reach = Reach { home: self.home(asked, place)?, ..Reach::default() };
        reach.node.clone_from(&reach.home);
        if let Some(node) = &reach.home {
            let beside = self.pods.iter().find(|p| p.node.as_ref() == Some(node));
            reach.tolerations.clone_from(beside.map_or(&self.tolerations, |p| &p.tolerations));
        }
        if TargetKind::of_name(&self.kind) == TargetKind::Claim {
            let mount = asked
                .first()
                .cloned()
                .unwrap_or_else(|| VolumeMount { mount_path: PVC_MOUNT.to_owned(), ..VolumeMount::default() });
            reach.volumes.push(claim_volume("target", &self.name));
            reach.mounts.push(VolumeMount { name: "target".into(), ..mount });
        } else {
            for mount in asked {
                let volume = self.volume(&mount.name, place.ordinal).ok_or_else(|| self.no_such_volume(&mount.name))?;
                reachable(&volume).map_err(|what| self.unreachable(&mount.name, what))?;
                self.is_within_its_own(&volume, mount, writes).map_err(|what| self.unreachable(&mount.name, what))?;
                if writes && is_read_only(&volume) {
                    return Err(self.unreachable(&mount.name, "mounted read-only, so it cannot be restored"));
                }
                if !reach.volumes.iter().any(|v| v.name == volume.name) {
                    reach.volumes.push(volume);
                }
                reach.mounts.push(mount.clone());
            }
        }
        self.check_claims(&mut reach, live, writes)?;
        Ok(reach)
    }

    /// Whether a mount gives no more access than the containers have. A claim belongs to the namespace. Any other
    /// volume is a folder of a node, or of a server, and the workload may have been given only a part of it, or only
    /// read access. Jobs are root there.
    fn is_within_its_own(&self, volume: &Volume, asked: &VolumeMount, writes: bool) -> Result<(), &'static str> {
        if volume.persistent_volume_claim.is_some() {
            return Ok(());
        }
        // A folder that is named by variables of a container is different for each pod.
        let its = |m: &&VolumeMount| m.name == volume.name && m.sub_path_expr.is_none();
        let within: Vec<&VolumeMount> = self.mounts.iter().filter(its).filter(|m| is_below(asked, m)).collect();
        if within.is_empty() {
            return Err("not a PVC, and no container mounts it there: use a subPath that a container mounts");
        }
        if writes && within.iter().all(|m| m.read_only == Some(true)) {
            return Err("not a PVC, and its containers mount it read-only, so it cannot be restored");
        }
        Ok(())
    }

    fn check_claims(&self, reach: &mut Reach, live: bool, writes: bool) -> Result<(), Failure> {
        let names: Vec<String> = reach.claims().map(ToOwned::to_owned).collect();
        for name in names {
            let claim = self.claims.get(&name).cloned().unwrap_or_default();
            if !claim.exists && self.to_make.iter().any(|w| w.name == name) {
                continue;
            }
            if !claim.exists {
                return Err(Failure::new(
                    Class::Waiting,
                    reason::TARGET_NOT_AVAILABLE,
                    format!(
                        "PersistentVolumeClaim {name} of {} does not exist. Create it, or let the workload create it.",
                        self.display
                    ),
                ));
            }
            if writes && !claim.access_modes.is_empty() && claim.access_modes.iter().all(|m| m == "ReadOnlyMany") {
                return Err(Failure::new(
                    Class::Invalid,
                    reason::VOLUME_NOT_REACHABLE,
                    format!("PersistentVolumeClaim {name} is ReadOnlyMany, so nothing can be restored into it."),
                ));
            }
            if claim.is_block {
                return Err(Failure::new(
                    Class::Invalid,
                    reason::VOLUME_NOT_REACHABLE,
                    format!(
                        "PersistentVolumeClaim {name} has volumeMode Block. Use a PersistentVolumeClaim with volumeMode Filesystem."
                    ),
                ));
            }
            // Pods that do not belong to the workload stay, even if the workload is scaled down.
            let stay = self.pods.iter().filter(|_| live).chain(&self.others);
            let Some(pod) = stay.into_iter().find(|p| p.node.is_some() && p.claims.contains(&name)) else { continue };
            let shared = claim.access_modes.iter().any(|m| m == "ReadWriteMany" || m == "ReadOnlyMany");
            if claim.access_modes.iter().any(|m| m == "ReadWriteOncePod") {
                return Err(Failure::new(
                    Class::Invalid,
                    reason::VOLUME_NOT_REACHABLE,
                    format!(
                        "PersistentVolumeClaim {name} is ReadWriteOncePod and pod {} uses it, so no Job can mount it. Stop that pod first.",
                        pod.name
                    ),
                ));
            }
            if !shared && reach.home.is_none() {
                reach.node.clone_from(&pod.node);
                reach.tolerations.clone_from(&pod.tolerations);
            }
        }
        Ok(())
    }

    /// The first requested volume that the workload does not have.
    pub fn missing_volume(&self, asked: &[VolumeMount]) -> Option<Failure> {
        let is_claim = TargetKind::of_name(&self.kind) == TargetKind::Claim;
        let missing = asked.iter().find(|m| !is_claim && self.volume(&m.name, 0).is_none())?;
        Some(self.no_such_volume(&missing.name))
    }

    fn no_such_volume(&self, name: &str) -> Failure {
        let known: Vec<&str> = self
            .volumes
            .iter()
            .map(|v| v.name.as_str())
            .chain(self.claim_templates.iter().map(String::as_str))
            .chain(self.to_make.iter().map(|w| w.volume.as_str()))
            .collect();
        Failure::new(
            Class::Invalid,
            reason::VOLUME_NOT_REACHABLE,
            format!(
                "target.volumeMounts names volume {name:?}, which {} does not have; it has: {}.",
                self.display,
                known.join(", ")
            ),
        )
    }

    fn unreachable(&self, name: &str, what: &str) -> Failure {
        Failure::new(
            Class::Invalid,
            reason::VOLUME_NOT_REACHABLE,
            format!(
                "Volume {name:?} of {} is {what}. Name a volume that a Job can mount as the pods do, such as a PersistentVolumeClaim.",
                self.display
            ),
        )
    }
}

impl TargetKind {
    /// Kind by its name alone.
    pub fn of_name(kind: &str) -> Self {
        Self::of(Some(&crate::api::common::TargetRef { kind: Some(kind.to_owned()), ..Default::default() }))
    }
}

/// A volume that is a claim.
pub fn claim_volume(name: &str, claim: &str) -> Volume {
    Volume {
        name: name.to_owned(),
        persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
            claim_name: claim.to_owned(),
            read_only: None,
        }),
        ..Volume::default()
    }
}

/// Whether a mount uses the same folder of a volume as another mount, or a folder below it.
fn is_below(asked: &VolumeMount, other: &VolumeMount) -> bool {
    let parts = |m: &VolumeMount| -> Vec<String> {
        let path = m.sub_path.as_deref().unwrap_or_default();
        path.split('/').filter(|part| !["", "."].contains(part)).map(str::to_owned).collect()
    };
    let (asked, other) = (asked.sub_path_expr.is_none().then(|| parts(asked)), parts(other));
    asked.is_some_and(|asked| asked.starts_with(&other) && !asked.contains(&"..".to_owned()))
}

/// Whether the volume is declared as read-only, whichever kind of volume it is.
fn is_read_only(volume: &Volume) -> bool {
    let sources = crate::api::to_json(volume);
    sources.as_object().into_iter().flatten().any(|(_, source)| source["readOnly"] == true)
}

fn reachable(volume: &Volume) -> Result<(), &'static str> {
    if volume.empty_dir.is_some() {
        Err("an emptyDir, which is deleted with its pod, so no Job can mount it")
    } else if volume.config_map.is_some()
        || volume.secret.is_some()
        || volume.projected.is_some()
        || volume.downward_api.is_some()
    {
        Err("of type ConfigMap, Secret, projected or downwardAPI, which cannot be backed up or restored")
    } else if volume.ephemeral.is_some() {
        Err("an ephemeral volume, which is deleted with its pod, so no Job can mount it")
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
