//! Targets as the operator sees them: hosts, volumes, and volumes that cannot be reached.

use crate::plan::seen::target::*;

fn mount(name: &str, path: &str) -> VolumeMount {
    VolumeMount { name: name.into(), mount_path: path.into(), ..VolumeMount::default() }
}

fn claim(modes: &[&str]) -> ClaimSeen {
    ClaimSeen { exists: true, access_modes: modes.iter().map(ToString::to_string).collect(), ..ClaimSeen::default() }
}

fn stateful_set() -> Target {
    Target {
        display: "StatefulSet/db".into(),
        kind: "StatefulSet".into(),
        name: "db".into(),
        replicas: 2,
        claim_templates: vec!["data".into()],
        volumes: vec![Volume {
            name: "scratch".into(),
            empty_dir: Some(k8s_openapi::api::core::v1::EmptyDirVolumeSource::default()),
            ..Volume::default()
        }],
        claims: [
            ("data-db-0".to_owned(), claim(&["ReadWriteOnce"])),
            ("data-db-1".to_owned(), claim(&["ReadWriteOnce"])),
        ]
        .into(),
        pods: vec![PodSeen {
            name: "db-1".into(),
            node: Some("n".into()),
            claims: vec!["data-db-1".into()],
            ..PodSeen::default()
        }],
        ..Target::default()
    }
}

#[test]
fn each_ordinal_reaches_its_own_claim() {
    let t = stateful_set();
    assert_eq!(t.places(), [0, 1].map(Place::ordinal));
    let reach = t.reach(&[mount("data", "/data")], &Place::ordinal(1), true, true).unwrap();
    assert_eq!(reach.volumes[0].persistent_volume_claim.as_ref().unwrap().claim_name, "data-db-1");
    assert_eq!(reach.node.as_deref(), Some("n"), "a live pod holds the ReadWriteOnce volume there");
    assert_eq!(t.reach(&[mount("data", "/data")], &Place::ordinal(1), false, true).unwrap().node, None);
}

/// Otherwise a restore would write as root to a volume that the workload mounts read-only or does not mount.
#[test]
fn a_volume_that_is_no_claim_is_reached_as_its_containers_reach_it() {
    let part = |path: &str, read_only: bool| VolumeMount {
        sub_path: Some(path.to_owned()).filter(|p| !p.is_empty()),
        read_only: Some(read_only),
        ..mount("host", "/in/container")
    };
    let asked = |path: &str| VolumeMount { sub_path: Some(path.to_owned()), ..mount("host", "/host") };
    let with = |source: &str, mounts: Vec<VolumeMount>| Target {
        kind: "DaemonSet".into(),
        volumes: vec![
            serde_json::from_value(serde_json::json!({ "name": "host", source: { "path": "/", "server": "s" } }))
                .unwrap(),
        ],
        mounts,
        ..Target::default()
    };
    let node = Place::node("n");
    for source in ["hostPath", "nfs"] {
        let reads = |t: &Target, m: VolumeMount| t.reach(&[m], &node, true, false).map(|_| ()).map_err(|e| e.message);
        let writes = |t: &Target, m: VolumeMount| t.reach(&[m], &node, true, true).map(|_| ()).map_err(|e| e.message);
        let whole = with(source, vec![part("", true)]);
        assert_eq!(reads(&whole, asked("etc")), Ok(()));
        assert!(writes(&whole, asked("etc")).unwrap_err().contains("mount it read-only"));
        let parts = with(source, vec![part("var/log", true), part("/var/lib/app/", false)]);
        for within in ["var/lib/app", "/var/lib//./app/data"] {
            assert_eq!((writes(&parts, asked(within)), reads(&parts, asked(within))), (Ok(()), Ok(())), "{within}");
        }
        assert_eq!(reads(&parts, asked("var/log/pods")), Ok(()));
        assert!(writes(&parts, asked("var/log/pods")).unwrap_err().contains("mount it read-only"));
        for beyond in ["", "var", "var/lib/application", "var/lib/app/../../etc", "etc"] {
            assert!(reads(&parts, asked(beyond)).unwrap_err().contains("no container mounts it there"), "{beyond}");
        }
        let by_variable = VolumeMount { sub_path_expr: Some("$(POD)".into()), ..mount("host", "/c") };
        assert!(reads(&with(source, vec![by_variable.clone()]), asked("x")).is_err());
        assert!(reads(&parts, VolumeMount { name: "host".into(), ..by_variable }).is_err());
        assert!(reads(&with(source, vec![]), asked("")).is_err(), "nobody mounts it");
    }
}

#[test]
fn what_a_job_cannot_reach_is_refused_with_the_reason() {
    let mut t = stateful_set();
    assert!(
        t.reach(&[mount("scratch", "/s")], &Place::ordinal(0), true, true).unwrap_err().message.contains("emptyDir")
    );
    let unknown = t.reach(&[mount("nope", "/s")], &Place::ordinal(0), true, true).unwrap_err();
    assert!(unknown.message.contains("\"nope\"") && unknown.message.contains("scratch, data"), "{}", unknown.message);
    t.claims.insert("data-db-1".into(), claim(&["ReadWriteOncePod"]));
    assert_eq!(
        t.reach(&[mount("data", "/d")], &Place::ordinal(1), true, true).unwrap_err().reason,
        reason::VOLUME_NOT_REACHABLE
    );
    t.claims.remove("data-db-1");
    assert_eq!(t.reach(&[mount("data", "/d")], &Place::ordinal(1), true, true).unwrap_err().class, Class::Waiting);
}

#[test]
fn pods_of_others_hold_a_claim_though_the_workload_is_down() {
    let mut t = stateful_set();
    let other = |claims: &[&str]| PodSeen {
        name: "nightly".into(),
        node: Some("o".into()),
        claims: claims.iter().map(ToString::to_string).collect(),
        ..PodSeen::default()
    };
    let reach = |t: &Target| t.reach(&[mount("data", "/d")], &Place::ordinal(1), false, true);
    t.others = vec![other(&["else"])];
    assert_eq!(reach(&t).unwrap().node, None);
    t.others.push(other(&["data-db-1"]));
    assert_eq!(reach(&t).unwrap().node.as_deref(), Some("o"), "no other node can attach it");
    t.claims.insert("data-db-1".into(), claim(&["ReadWriteMany"]));
    assert_eq!(reach(&t).unwrap().node, None);
    t.claims.insert("data-db-1".into(), claim(&["ReadWriteOncePod"]));
    let text = reach(&t).unwrap_err().message;
    assert!(text.contains("ReadWriteOncePod and pod nightly uses it"), "{text}");
}

#[test]
fn a_claim_that_is_a_device_is_refused() {
    let mut t = stateful_set();
    t.claims.insert("data-db-1".into(), ClaimSeen { is_block: true, ..claim(&["ReadWriteOnce"]) });
    for writes in [true, false] {
        let refused = t.reach(&[mount("data", "/d")], &Place::ordinal(1), false, writes).unwrap_err();
        assert_eq!((refused.class, refused.reason.as_str()), (Class::Invalid, reason::VOLUME_NOT_REACHABLE));
        assert!(refused.message.contains("volumeMode Block"), "{}", refused.message);
    }
}

#[test]
fn a_set_scaled_to_zero_keeps_the_hosts_of_its_claims() {
    let t = Target { replicas: 0, dormant_ordinals: 3, first_ordinal: 1, ..stateful_set() };
    assert_eq!(t.places(), [1, 2, 3].map(Place::ordinal));
}

#[test]
fn no_number_of_replicas_is_counted_to() {
    let t = Target { replicas: i32::MAX, first_ordinal: i32::MAX, ..stateful_set() };
    assert_eq!(t.places().len(), 1000);
    assert!(t.too_many().unwrap().contains("2147483647 replicas; a member can have at most 1000 hosts"));
    assert_eq!(Target { replicas: 1000, ..stateful_set() }.too_many(), None);
}

#[test]
fn a_claim_without_mounts_is_mounted_where_stash_did() {
    let t = Target {
        kind: "PersistentVolumeClaim".into(),
        name: "c".into(),
        claims: [("c".to_owned(), claim(&["ReadWriteMany"]))].into(),
        ..Target::default()
    };
    assert_eq!(t.reach(&[], &Place::ordinal(0), true, true).unwrap().mount_points(), ["/stash-data"]);
}
