//! What a pod may do in a namespace that enforces a Pod Security Standard, checked before anything is done.
//!
//! The API server rejects the pods of a Job, not the Job, so a rejected Job looks like a Job that waits. The rules
//! follow the standard ("Pod Security Standards", Kubernetes documentation), as far as the operator's Jobs and
//! runtimeSettings can come near it. What the cluster's administrator has set for namespaces without a label cannot be
//! seen; such a rejection shows as a Job without a pod.

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Container, PodSecurityContext, PodSpec, SecurityContext, Volume};

use crate::contract::Runner;
use crate::contract::{Class, Failure};
use crate::names::reason;
use crate::plan::seen::job_status::pod_of;

/// Label of a namespace that says which level is enforced.
pub const ENFORCE_LABEL: &str = "pod-security.kubernetes.io/enforce";
/// Capabilities that `baseline` allows a pod to add.
const BASELINE_CAPABILITIES: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// What a namespace enforces.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Level {
    /// No level was found.
    #[default]
    Privileged,
    /// Forbids known ways to more rights.
    Baseline,
    /// Forbids root, ways to become root, and volumes that do not belong to the cluster.
    Restricted,
}

impl Level {
    /// The level from the label's value. The API server treats an unknown value as `restricted`.
    pub fn of(label: Option<&str>) -> Self {
        match label {
            None | Some("privileged") => Self::Privileged,
            Some("baseline") => Self::Baseline,
            Some(_) => Self::Restricted,
        }
    }

    /// The level, as a label spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Privileged => "privileged",
            Self::Baseline => "baseline",
            Self::Restricted => "restricted",
        }
    }
}

/// Checks whether a pod may be created. The error lists everything that forbids it.
///
/// # Errors
/// What the level forbids in it.
pub fn check(level: Level, pod: &PodSpec, namespace: &str) -> Result<(), Failure> {
    let against = violations(level, pod);
    if against.is_empty() {
        return Ok(());
    }
    let text = format!(
        "Namespace {namespace} enforces the Pod Security level {}, which does not allow the pod of this step: {}. Change runtimeSettings or the volumes of the target, or use a namespace with another level.",
        level.as_str(),
        against.join("; ")
    );
    Err(Failure::new(Class::Invalid, reason::POD_SECURITY, text))
}

/// The same, for a Job.
///
/// # Errors
/// What the level forbids in its pod.
pub fn check_job(level: Level, job: &Job) -> Result<(), Failure> {
    let namespace = job.metadata.namespace.as_deref().unwrap_or_default();
    pod_of(job).map_or(Ok(()), |pod| check(level, pod, namespace))
}

/// Whether the level forbids only root, or the rights of root.
pub fn is_about_root(level: Level, pod: &PodSpec) -> bool {
    let mut without = pod.clone();
    without.security_context.get_or_insert_with(PodSecurityContext::default).run_as_user = Some(65_532);
    without.security_context.get_or_insert_with(PodSecurityContext::default).run_as_non_root = Some(true);
    for container in &mut without.containers {
        let security = container.security_context.get_or_insert_with(SecurityContext::default);
        (security.run_as_user, security.run_as_non_root) = (None, None);
        if let Some(capabilities) = &mut security.capabilities {
            let kept = capabilities.add.take().into_iter().flatten();
            capabilities.add = Some(kept.filter(|c| !BASELINE_CAPABILITIES.contains(&c.as_str())).collect());
        }
    }
    !violations(level, pod).is_empty() && violations(level, &without).is_empty()
}

fn violations(level: Level, pod: &PodSpec) -> Vec<String> {
    let mut against = vec![];
    if level == Level::Privileged {
        return against;
    }
    let of_pod = pod.security_context.clone().unwrap_or_default();
    let none = vec![];
    let volumes = pod.volumes.as_ref().unwrap_or(&none);
    against.extend(volumes.iter().filter_map(|v| volume(level, v)));
    let unconfined =
        |p: Option<&k8s_openapi::api::core::v1::SeccompProfile>| p.is_some_and(|p| p.type_ == "Unconfined");
    if unconfined(of_pod.seccomp_profile.as_ref()) {
        against.push("seccompProfile Unconfined".to_owned());
    }
    for container in &pod.containers {
        let own = container.security_context.clone().unwrap_or_default();
        if own.privileged == Some(true) {
            against.push("privileged: true".to_owned());
        }
        if unconfined(own.seccomp_profile.as_ref()) {
            against.push("seccompProfile Unconfined".to_owned());
        }
        let added = own.capabilities.as_ref().and_then(|c| c.add.clone()).unwrap_or_default();
        let allowed: &[&str] = if level == Level::Restricted { &["NET_BIND_SERVICE"] } else { &BASELINE_CAPABILITIES };
        let beyond: Vec<&str> = added.iter().map(String::as_str).filter(|c| !allowed.contains(c)).collect();
        if !beyond.is_empty() {
            against.push(format!("capabilities {}", beyond.join(", ")));
        }
        if level == Level::Restricted {
            against.extend(restricted(&of_pod, &own, container));
        }
    }
    against
}

fn restricted(of_pod: &PodSecurityContext, own: &SecurityContext, container: &Container) -> Vec<String> {
    let mut against = vec![];
    if own.run_as_non_root.or(of_pod.run_as_non_root) != Some(true) {
        against.push("runAsNonRoot is not true".to_owned());
    }
    if own.run_as_user == Some(0) || of_pod.run_as_user == Some(0) {
        against.push("runAsUser: 0".to_owned());
    }
    if own.allow_privilege_escalation != Some(false) {
        against.push("allowPrivilegeEscalation is not false".to_owned());
    }
    if own.seccomp_profile.is_none() && of_pod.seccomp_profile.is_none() {
        against.push("no seccompProfile".to_owned());
    }
    let drops = own.capabilities.as_ref().and_then(|c| c.drop.as_ref());
    if !drops.is_some_and(|d| d.iter().any(|c| c == "ALL")) {
        against.push(format!("container {} does not drop ALL capabilities", container.name));
    }
    against
}

/// Why a volume is not allowed.
fn volume(level: Level, v: &Volume) -> Option<String> {
    if v.host_path.is_some() {
        return Some(format!("volume {} is a hostPath", v.name));
    }
    let of_the_cluster = v.config_map.is_some()
        || v.csi.is_some()
        || v.downward_api.is_some()
        || v.empty_dir.is_some()
        || v.ephemeral.is_some()
        || v.persistent_volume_claim.is_some()
        || v.projected.is_some()
        || v.secret.is_some();
    (level == Level::Restricted && !of_the_cluster).then(|| format!("volume {} is not of an allowed type", v.name))
}

/// Whether a pod may create device files.
pub fn makes_devices(pod: &PodSpec) -> bool {
    has_capability(pod, "MKNOD")
}

/// Whether a pod runs as root with a capability that container runtimes grant (containerd, `defaultUnixCaps`).
fn has_capability(pod: &PodSpec, name: &str) -> bool {
    let of_pod = pod.security_context.clone().unwrap_or_default();
    let own = pod.containers.first().and_then(|c| c.security_context.clone()).unwrap_or_default();
    let capabilities = own.capabilities.unwrap_or_default();
    let has = |list: &Option<Vec<String>>| list.iter().flatten().any(|c| c == name || c == "ALL");
    let is_given = has(&capabilities.add) || !has(&capabilities.drop);
    own.privileged == Some(true) || (own.run_as_user.or(of_pod.run_as_user) == Some(0) && is_given)
}

/// The user that a pod runs as, if that user cannot change the owner of files; `None` if it can.
pub fn runner(pod: &PodSpec) -> Option<Runner> {
    let of_pod = pod.security_context.clone().unwrap_or_default();
    let own = pod.containers.first().and_then(|c| c.security_context.clone()).unwrap_or_default();
    let uid = own.run_as_user.or(of_pod.run_as_user)?;
    if has_capability(pod, "CHOWN") {
        return None;
    }
    let gid = own.run_as_group.or(of_pod.run_as_group).unwrap_or(0);
    let groups = of_pod.supplemental_groups.into_iter().flatten().chain(of_pod.fs_group).chain([gid]);
    let id = |n: i64| u32::try_from(n).unwrap_or(u32::MAX);
    Some(Runner { uid: id(uid), gids: groups.map(id).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(pod: Value, container: Value, volume: Value) -> PodSpec {
        serde_json::from_value(json!({ "securityContext": pod, "volumes": [volume],
            "containers": [{ "name": "agent", "securityContext": container }] }))
        .unwrap()
    }

    fn claim() -> Value {
        json!({ "name": "data", "persistentVolumeClaim": { "claimName": "c" } })
    }

    fn strict() -> PodSpec {
        let seccomp = json!({ "type": "RuntimeDefault" });
        pod(
            json!({ "runAsNonRoot": true, "runAsUser": 1000, "seccompProfile": seccomp }),
            json!({ "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] } }),
            claim(),
        )
    }

    fn root() -> PodSpec {
        pod(
            json!({ "runAsUser": 0, "seccompProfile": { "type": "RuntimeDefault" } }),
            json!({ "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"], "add": ["CHOWN"] } }),
            claim(),
        )
    }

    #[test]
    fn each_level_forbids_its_own() {
        let host = pod(json!({}), json!({}), json!({ "name": "h", "hostPath": { "path": "/x" } }));
        let nfs = json!({ "name": "n", "nfs": { "server": "s", "path": "/" } });
        let mut with_nfs = strict();
        with_nfs.volumes = Some(vec![serde_json::from_value(nfs).unwrap()]);
        let mut admin = root();
        admin.containers[0].security_context.as_mut().unwrap().capabilities.as_mut().unwrap().add =
            Some(vec!["SYS_ADMIN".into()]);
        let cases = [
            (strict(), [true, true, true]),
            (root(), [true, true, false]),
            (host, [true, false, false]),
            (with_nfs, [true, true, false]),
            (admin, [true, false, false]),
        ];
        for (pod, allowed) in cases {
            for (level, want) in [Level::Privileged, Level::Baseline, Level::Restricted].into_iter().zip(allowed) {
                assert_eq!(check(level, &pod, "n").is_ok(), want, "{level:?} {pod:?}");
            }
        }
    }

    #[test]
    fn a_level_nobody_knows_is_the_strictest() {
        assert_eq!(Level::of(None), Level::Privileged);
        assert_eq!(Level::of(Some("resticted")), Level::Restricted);
    }

    #[test]
    fn root_alone_can_be_what_is_against_it() {
        assert!(is_about_root(Level::Restricted, &root()));
        assert!(!is_about_root(Level::Restricted, &strict()) && !is_about_root(Level::Baseline, &root()));
        let mut host = root();
        host.volumes =
            Some(vec![serde_json::from_value(json!({ "name": "h", "hostPath": { "path": "/x" } })).unwrap()]);
        assert!(!is_about_root(Level::Restricted, &host));
    }

    #[test]
    fn only_root_with_its_right_may_give_files_away() {
        assert_eq!(runner(&root()), None);
        assert_eq!(runner(&strict()), Some(Runner { uid: 1000, gids: vec![0] }));
        let mut bare = root();
        bare.containers[0].security_context.as_mut().unwrap().capabilities.as_mut().unwrap().add = None;
        assert_eq!(runner(&bare).map(|r| r.uid), Some(0));
    }
}
