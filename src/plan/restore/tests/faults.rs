//! Faults, their reasons, and what they cause.

use serde_json::json;

use crate::contract::Class;
use crate::contract::restic::Step;
use crate::names::reason;
use crate::plan::fake::{End, key_of, step, work};
use crate::plan::restore::tests::world::World;
use crate::plan::restore::tests::{claim, order, preflight_key, script, web};
use crate::plan::seen::job_status;
use crate::plan::work::pod_security;
use crate::plan::work::pod_security::Level;

/// Proves: defect 9.
#[test]
fn a_store_that_was_away_does_not_use_up_the_tries_for_memory() {
    let mut w = World::session(web());
    w.object["spec"]["timeOut"] = "20m".into();
    let ends = [vec![End::TRANSIENT; 6], vec![End::OutOfMemory; 2], vec![End::TRANSIENT]].concat();
    script(&mut w, "restore/0/m0", &ends);
    w.settle();
    assert_eq!((w.phase().as_str(), w.jobs.attempts("restore/0/m0")), ("Succeeded", 10));
    assert_eq!(w.object["status"]["stats"][0]["podDeaths"], 2);

    let mut w = World::session(web());
    w.object["spec"]["timeOut"] = "20m".into();
    script(&mut w, &preflight_key(), &[End::TRANSIENT, End::TRANSIENT, End::TRANSIENT, End::OutOfMemory]);
    w.settle();
    assert_eq!(w.phase(), "Succeeded", "{:#}", w.object["status"]);
}

/// Proves: defect 9.
#[test]
fn a_job_that_is_deleted_by_hand_is_made_again_after_its_pod() {
    // The fake Jobs do not allow a second Job while a pod of the first is still ending.
    for key in ["restore/0/m0".to_owned(), preflight_key()] {
        let mut w = World::session(web());
        script(&mut w, &key, &[End::DeletedByHand]);
        w.settle();
        assert_eq!((w.phase().as_str(), w.jobs.attempts(&key)), ("Succeeded", 2), "{key}");
    }
}

/// The `--overwrite` argument that each Job passed to restic.
fn overwrites(w: &World) -> Vec<String> {
    let told = |job| match step(job) {
        Step::Restore(step) => step.args.into_iter().find(|a| a.starts_with("--overwrite")),
        _ => None,
    };
    w.jobs.made.iter().filter_map(told).collect()
}

/// Proves: A05.
#[test]
fn what_was_broken_off_is_not_taken_for_whole() {
    let of = |args: &[&str], end: End| {
        let mut w = World::session(web());
        w.object["spec"]["target"]["args"] = json!(args);
        script(&mut w, "restore/0/m0", &[end]);
        w.settle();
        w
    };
    // Attempts that have begun to write, or may have begun.
    let unknown = [End::OutOfMemory, End::PodLingers, End::Partial(Class::Transient, reason::TERMINATED)];
    for end in unknown {
        for args in [&["--overwrite=never"][..], &["--overwrite", "if-newer"]] {
            let w = of(args, end.clone());
            assert_eq!((w.phase().as_str(), w.jobs.attempts("restore/0/m0")), ("Failed", 1), "{args:?} {end:?}");
            let (_, why) = w.condition("Stalled");
            assert_eq!(why, reason::INCOMPLETE);
            let said = w.object["status"]["stats"][0]["error"].as_str().unwrap();
            assert!(said.contains("half written") && said.contains("--overwrite"), "{said}");
        }
        let w = of(&["--overwrite=if-changed"], end);
        assert_eq!((w.phase().as_str(), w.jobs.attempts("restore/0/m0")), ("Succeeded", 2));
        // Files that the first attempt has half written may have the right size and time.
        assert_eq!(overwrites(&w), ["--overwrite=if-changed", "--overwrite=always"]);
    }
    // Attempts that have not begun to write.
    let w = of(&["--overwrite=if-changed"], End::Untouched(Class::Transient, reason::REPOSITORY_UNREACHABLE));
    assert_eq!(overwrites(&w), ["--overwrite=if-changed", "--overwrite=if-changed"]);
    let w = of(&["--overwrite=never"], End::TRANSIENT);
    assert_eq!((w.phase().as_str(), w.jobs.attempts("restore/0/m0")), ("Succeeded", 2));

    // If a user deletes a Job before it reported its progress, its progress is not known.
    let w = of(&["--overwrite=never"], End::DeletedByHand);
    assert_eq!((w.phase().as_str(), w.jobs.attempts("restore/0/m0")), ("Failed", 1));
    assert_eq!(w.condition("Stalled").1, reason::INCOMPLETE);

    // If a user deletes a Job, it leaves no failure, but status has its progress.
    let mut w = World::session(web());
    w.object["spec"]["target"]["args"] = json!(["--overwrite=never"]);
    script(&mut w, "restore/0/m0", &[End::DeletedByHand]);
    while w.jobs.attempts("restore/0/m0") == 0 {
        w.step(1);
    }
    w.object["status"]["stats"][0]["progress"] =
        json!({ "percent": 50, "bytesDone": 1, "bytesTotal": 2, "filesDone": 1, "filesTotal": 2 });
    w.settle();
    assert_eq!((w.phase().as_str(), w.jobs.attempts("restore/0/m0")), ("Failed", 1));
    assert_eq!(w.condition("Stalled").1, reason::INCOMPLETE);
}

#[test]
fn what_cannot_be_mended_is_tried_once() {
    for (class, why) in [(Class::Invalid, reason::WRONG_PASSWORD), (Class::Data, reason::NO_SPACE)] {
        let mut w = World::session(web());
        script(&mut w, "restore/0/m0", &[End::Fails(class, why)]);
        w.settle();
        assert_eq!((w.phase().as_str(), w.jobs.attempts("restore/0/m0")), ("Failed", 1));
        assert_eq!(w.condition("Stalled").1, why);
    }
}

/// Proves: A03.
#[test]
fn a_repository_that_was_never_initialised_is_empty_where_that_is_allowed() {
    for (allowed, phase) in [(true, "Succeeded"), (false, "Failed")] {
        let mut w = World::session(web());
        let key = preflight_key();
        w.object["spec"]["target"]["allowEmpty"] = allowed.into();
        script(&mut w, &key, &[End::Fails(Class::Invalid, reason::REPOSITORY_MISSING)]);
        w.settle();
        assert_eq!((w.phase().as_str(), order(&w).len()), (phase, 0));
        assert_eq!(w.object["status"]["stats"][0]["reason"], reason::REPOSITORY_MISSING);
        assert!(w.object["status"].get("quiesce").is_none(), "nothing was touched");
    }
}

/// Proves: A09.
#[test]
fn owners_that_a_namespace_forbids_to_keep_are_found_before_anything_is_touched() {
    let mut w = World::batch("Sequential", "Stop", vec![web(), claim()]);
    w.pod_security = Level::Restricted;
    w.settle();
    assert_eq!((w.phase().as_str(), w.condition("Stalled").1.as_str()), ("Failed", reason::OWNERSHIP));
    assert!(w.jobs.created.is_empty() && w.object["status"]["members"][0].get("quiesce").is_none());
    let text = w.object["status"]["members"][0]["message"].as_str().unwrap();
    assert!(text.contains("restricted") && text.contains("target.ownership"), "{text}");

    // Settings of pods by the user can also be forbidden in namespaces with a less strict level.
    let mut w = World::session(web());
    w.pod_security = Level::Baseline;
    w.object["spec"]["runtimeSettings"] =
        json!({ "container": { "securityContext": { "capabilities": { "add": ["SYS_ADMIN"] } } } });
    w.settle();
    assert_eq!((w.phase().as_str(), w.condition("Stalled").1.as_str()), ("Failed", reason::POD_SECURITY));
    assert!(w.object["status"].get("quiesce").is_none());
}

/// Proves: A09, D10.
#[test]
fn without_owners_every_job_fits_a_restricted_namespace() {
    for runtime in [json!({}), json!({ "pod": { "securityContext": { "runAsUser": 1000, "fsGroup": 1000 } } })] {
        let mut w = World::session(web());
        w.pod_security = Level::Restricted;
        w.object["spec"]["target"]["ownership"] = "Ignore".into();
        w.object["spec"]["runtimeSettings"] = runtime;
        w.settle();
        assert_eq!(w.phase(), "Succeeded", "{:#}", w.object["status"]);
        assert_eq!(w.jobs.made.len(), 2);
        for job in &w.jobs.made {
            let pod = job_status::pod_of(job).unwrap();
            assert_eq!(pod_security::check(Level::Restricted, pod, "n"), Ok(()));
            if let Step::Restore(step) = step(job) {
                assert!(step.ignore_owners);
            }
        }
    }
}

/// Proves: A09.
#[test]
fn a_user_of_the_users_own_is_asked_about_in_the_preflight() {
    let asked = |patch: &dyn Fn(&mut World)| {
        let mut w = World::session(web());
        w.object["spec"]["runtimeSettings"] =
            json!({ "pod": { "securityContext": { "runAsUser": 1000, "runAsGroup": 1000, "fsGroup": 2000 } } });
        patch(&mut w);
        w.settle();
        let Step::Preflight(asked) = step(&w.jobs.made[0]) else { panic!("the first is the preflight") };
        asked.hosts[0].runner.clone()
    };
    let runner = asked(&|_| {}).unwrap();
    assert_eq!((runner.uid, runner.gids), (1000, vec![2000, 1000]));
    assert_eq!(asked(&|w| w.object["spec"]["target"]["ownership"] = "Ignore".into()), None);
    assert_eq!(asked(&|w| w.object["spec"]["runtimeSettings"] = json!({})), None, "root may give files away");
    let include = |w: &mut World| w.object["spec"]["target"]["rules"][0]["include"] = json!(["*.txt"]);
    assert!(asked(&include).is_some(), "owners of what patterns select are known in the preflight");
}

#[test]
fn a_members_own_deadline_ends_that_member_and_the_order_goes_on_as_it_says() {
    for (policy, last) in [("Continue", "Succeeded"), ("Stop", "Skipped")] {
        let mut w = World::batch("Sequential", policy, vec![web(), web(), claim()]);
        w.object["spec"]["timeOut"] = "1h".into();
        // The first member uses its own time, not that of the second member.
        w.object["spec"]["members"][1]["timeOut"] = "30s".into();
        script(&mut w, "restore/0/m0", &[End::TRANSIENT, End::TRANSIENT, End::TRANSIENT]);
        script(&mut w, "restore/1/m1", &[End::Never]);
        let start = w.now;
        w.settle();
        assert_eq!(w.members(), ["Succeeded", "Failed", last], "{:#}", w.object["status"]);
        assert_eq!(w.condition("Stalled").1, reason::DEADLINE_EXCEEDED);
        assert_eq!(w.object["status"]["members"][1]["stats"][0]["reason"], reason::DEADLINE_EXCEEDED);
        assert_eq!(w.object["status"]["members"][1]["quiesce"]["state"], "Held");
        assert!(w.now.duration_since(start).as_mins() < 5);
        let job = w.jobs.made.iter().find(|j| key_of(j) == "restore/1/m1").unwrap();
        // The Job's deadline is some time after that of the member: the plan ends the member first, and knows what a
        // pod waited for.
        assert!((55..=60).contains(&job.spec.as_ref().unwrap().active_deadline_seconds.unwrap()));
    }
}

#[test]
fn each_host_has_a_claim_of_its_own_for_dumps() {
    let mut w = World::batch("Sequential", "Stop", vec![super::set(), claim()]);
    w.object["spec"]["members"][0]["interimVolumeTemplate"] = json!({ "metadata": { "name": "dumps", "labels": { "a": "b" } },
        "spec": { "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "1Gi" } } } });
    script(&mut w, "restore/0/m0-1", &[End::TRANSIENT]);
    w.settle();
    assert_eq!(w.phase(), "Succeeded");
    assert_eq!(w.claims.len(), 2, "one a host, the same for its second try: {:?}", w.claims.keys());
    for job in w.jobs.made.iter().filter(|j| key_of(j).starts_with("restore/0/")) {
        let (work, pod) = (work(job), job_status::pod_of(job).unwrap());
        assert!(work.settings.interim);
        let volume = pod.volumes.as_ref().unwrap().iter().find(|v| v.name == "stash-interim-volume").unwrap();
        let claim = &w.claims[&volume.persistent_volume_claim.as_ref().unwrap().claim_name];
        assert_eq!(claim.metadata.owner_references.as_ref().unwrap()[0].name, "all");
        assert_eq!(claim.metadata.labels.as_ref().unwrap()["a"], "b");
        let mounts = pod.containers[0].volume_mounts.as_ref().unwrap();
        assert!(mounts.iter().any(|m| m.mount_path == "/stash-interim-volume"));
    }
}
