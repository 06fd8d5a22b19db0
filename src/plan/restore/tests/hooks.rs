//! Hooks of restores: when they run, when they do not, and what follows from their results.

use serde_json::{Value, json};

use crate::contract::Class;
use crate::names::reason;
use crate::plan::fake::End;
use crate::plan::restore::tests::world::World;
use crate::plan::restore::tests::{claim, order, script, web};
use crate::plan::seen::hook_pods::{HookContainer, HookPod};

const PRE: &str = "hook/0/preRestore";
const POST: &str = "hook/0/postRestore";
const ALL_PRE: &str = "hook/preRestore";
const ALL_POST: &str = "hook/postRestore";

fn call(policy: Option<&str>) -> Value {
    let mut hook = json!({ "httpGet": { "host": "a.example", "port": 80 } });
    hook["executionPolicy"] = policy.unwrap_or("Always").into();
    hook
}

fn hooks(policy: &str) -> Value {
    json!({ "preRestore": { "httpGet": { "host": "a.example", "port": 80 } }, "postRestore": call(Some(policy)) })
}

/// A batch of two members with hooks of all kinds.
fn batch(policy: &str) -> World {
    let mut w = World::batch("Sequential", "Stop", vec![web(), claim()]);
    w.object["spec"]["hooks"] = hooks(policy);
    for i in 0..2 {
        w.object["spec"]["members"][i]["hooks"] = hooks(policy);
    }
    w
}

fn session(hooks: Value) -> World {
    let mut w = World::session(web());
    w.object["spec"]["hooks"] = hooks;
    w
}

const FAILS: End = End::Fails(Class::Fatal, reason::HOOK_FAILED);

/// Keys of everything that ran, in the order of its begin: hooks by their start, restores by their Job.
fn ran(w: &World) -> Vec<&str> {
    w.jobs.started.iter().map(String::as_str).collect()
}

fn hook(w: &World, at: &str, name: &str) -> Value {
    let list = w.object["status"].pointer(at).cloned().unwrap_or_default();
    list.as_array().into_iter().flatten().find(|h| h["name"] == name).cloned().unwrap_or_default()
}

/// Proves: invented 2, invented 26.
#[test]
fn every_hook_of_a_batch_runs_once_and_in_order() {
    let mut w = batch("Always");
    w.settle();
    assert_eq!(w.phase(), "Succeeded", "{:#}", w.object["status"]);
    let keys: Vec<&str> =
        w.jobs.created.iter().map(|(k, _)| k.as_str()).filter(|k| !k.starts_with("preflight")).collect();
    let all = [ALL_PRE, PRE, "restore/0/m0", POST, "hook/1/preRestore", "restore/1/m1", "hook/1/postRestore", ALL_POST];
    assert_eq!(keys, all);
    assert_eq!(ran(&w), [ALL_PRE, PRE, POST, "hook/1/preRestore", "hook/1/postRestore", ALL_POST]);
    for (list, type_, why) in [
        ("/conditions", "GlobalPreRestoreHookSucceeded", "GlobalPreRestoreHookExecutedSuccessfully"),
        ("/conditions", "GlobalPostRestoreHookSucceeded", "GlobalPostRestoreHookExecutedSuccessfully"),
        ("/members/1/conditions", "PreRestoreHookExecutionSucceeded", "SuccessfullyExecutedPreRestoreHook"),
        ("/members/1/conditions", "PostRestoreHookExecutionSucceeded", "SuccessfullyExecutedPostRestoreHook"),
    ] {
        let conditions = w.object["status"].pointer(list).unwrap().as_array().unwrap();
        let found = conditions.iter().find(|c| c["type"] == type_).unwrap_or_else(|| panic!("{type_}: {conditions:?}"));
        assert_eq!((&found["status"], &found["reason"]), (&json!("True"), &json!(why)));
    }
}

#[test]
fn the_workload_runs_before_its_first_hook_and_is_back_before_its_last() {
    let mut w = session(hooks("Always"));
    let mut seen = vec![];
    while w.advance() {
        for key in w.jobs.running() {
            if key.starts_with("hook/") && !seen.contains(&key) {
                assert_eq!(w.workloads[0].replicas, 2, "{key}");
                seen.push(key);
            }
        }
    }
    assert_eq!((seen.len(), w.phase().as_str()), (2, "Succeeded"));
}

/// Proves: B03.
#[test]
fn what_runs_follows_from_results_and_policies() {
    // The result of the run, the policy, and whether the hook after it runs.
    for (fails, policy, runs) in [
        (false, "Always", true),
        (false, "OnSuccess", true),
        (false, "OnFailure", false),
        (true, "Always", true),
        (true, "OnSuccess", false),
        (true, "OnFailure", true),
    ] {
        for of_batch in [false, true] {
            for end in [End::Ok, FAILS] {
                let mut w = World::batch("Sequential", "Stop", vec![web()]);
                let place = if of_batch { "/spec" } else { "/spec/members/0" };
                w.object.pointer_mut(place).unwrap()["hooks"] = json!({ "postRestore": call(Some(policy)) });
                let key = if of_batch { ALL_POST } else { POST };
                script(&mut w, key, std::slice::from_ref(&end));
                if fails {
                    script(&mut w, "restore/0/m0", &[End::DATA]);
                }
                w.settle();
                let what = format!("{fails} {policy} {of_batch} {end:?}: {:#}", w.object["status"]);
                assert_eq!(ran(&w), if runs { vec![key] } else { vec![] }, "{what}");
                let failed = fails || (runs && end != End::Ok);
                assert_eq!(w.phase(), if failed { "Failed" } else { "Succeeded" }, "{what}");
                let (list, type_) = if of_batch {
                    ("/conditions", "GlobalPostRestoreHookSucceeded")
                } else {
                    ("/members/0/conditions", "PostRestoreHookExecutionSucceeded")
                };
                let conditions = w.object["status"].pointer(list).unwrap().as_array().unwrap();
                let found = conditions.iter().find(|c| c["type"] == type_).unwrap();
                assert_eq!(found["status"] == "True", !(runs && end != End::Ok), "{what}");
                if !runs {
                    let phase = if fails { "Failed" } else { "Succeeded" };
                    let said = format!(
                        "Skipping executing postRestore. Reason: executionPolicy is \"{policy}\" but phase is \"{phase}\"."
                    );
                    assert_eq!(found["message"], said);
                }
            }
        }
    }
}

#[test]
fn a_member_whose_first_hook_fails_is_not_touched_and_its_last_hook_runs() {
    let mut w = batch("OnFailure");
    script(&mut w, PRE, &[FAILS]);
    w.settle();
    assert_eq!(w.phase(), "Failed");
    assert_eq!(order(&w), Vec::<&str>::new());
    assert_eq!(w.workloads[0].replicas, 2);
    assert!(w.told.is_empty(), "its workload was never scaled: {:?}", w.told);
    assert_eq!(ran(&w), [ALL_PRE, PRE, POST, ALL_POST]);
    let summary = w.object["status"]["summary"].as_str().unwrap();
    assert!(summary.contains("preRestore hook"), "{summary}");
    assert_eq!(w.condition("Ready"), ("False".into(), "HookFailed".into()));
    assert_eq!(w.object["status"]["members"][1]["phase"], "Skipped");
}

/// Proves: defect 3.
#[test]
fn no_member_begins_when_the_first_hook_of_the_batch_fails() {
    let mut w = batch("Always");
    script(&mut w, ALL_PRE, &[FAILS]);
    w.settle();
    assert_eq!((w.phase().as_str(), ran(&w)), ("Failed", vec![ALL_PRE, ALL_POST]));
    assert_eq!(order(&w), Vec::<&str>::new());
    for i in 0..2 {
        assert_eq!(w.object["status"]["members"][i]["phase"], "Skipped");
    }
    assert_eq!(w.condition("GlobalPreRestoreHookSucceeded").0, "False");
}

#[test]
fn the_data_stays_when_the_last_hook_fails() {
    let mut w = session(hooks("Always"));
    script(&mut w, POST, &[FAILS]);
    w.settle();
    assert_eq!((w.phase().as_str(), order(&w)), ("Failed", vec!["restore/0/m0"]));
    assert_eq!(w.object["status"]["stats"][0]["phase"], "Succeeded");
    assert_eq!(w.workloads[0].replicas, 2);
    let summary = w.object["status"]["summary"].as_str().unwrap();
    assert!(summary.starts_with("The data was restored and stays, but the postRestore hook:"), "{summary}");
    assert_eq!(w.condition("Ready").1, "HookFailed");
}

/// Proves: invented 24.
#[test]
fn the_hook_after_a_member_knows_the_results_of_all_its_hosts() {
    let mut w = World::batch("Parallel", "Continue", vec![super::set()]);
    w.object["spec"].as_object_mut().unwrap().remove("onFailure");
    w.object["spec"]["members"][0]["hooks"] = json!({ "postRestore": call(Some("OnFailure")) });
    script(&mut w, "restore/0/m0-1", &[End::DATA]);
    w.settle();
    assert_eq!((w.phase().as_str(), ran(&w)), ("Failed", vec![POST]));
    let last = w.jobs.created.last().unwrap();
    assert_eq!(last.0, POST, "after the last host");
}

#[test]
fn a_run_that_fails_before_it_begins_is_told_too() {
    let mut w = batch("OnFailure");
    w.jobs.without_snapshot.insert("m0".into());
    w.settle();
    assert_eq!((w.phase().as_str(), ran(&w)), ("Failed", vec![POST, ALL_POST]), "{:#}", w.object["status"]);
    assert_eq!(w.object["status"]["members"][1]["hooks"], Value::Null, "a member that was skipped has no hooks");
}

/// Proves: invented 23.
#[test]
fn a_hook_in_doubt_is_not_run_again() {
    for (key, end) in [(PRE, End::OutOfMemory), (PRE, End::PodLingers), (POST, End::OutOfMemory)] {
        let mut w = session(hooks("Always"));
        script(&mut w, key, std::slice::from_ref(&end));
        w.settle();
        assert_eq!(w.phase(), "Failed", "{key} {end:?}");
        assert_eq!(w.jobs.started.iter().filter(|k| *k == key).count(), 1);
        let name = key.rsplit('/').next().unwrap();
        assert_eq!(hook(&w, "/hooks", name)["phase"], "InDoubt");
        assert_eq!(w.condition("Ready").1, "HookInDoubt");
        let condition =
            if key == PRE { "PreRestoreHookExecutionSucceeded" } else { "PostRestoreHookExecutionSucceeded" };
        assert_eq!(w.condition(condition), ("False".into(), "HookInDoubt".into()));
        let restored = if key == PRE { vec![] } else { vec!["restore/0/m0"] };
        assert_eq!(order(&w), restored, "what follows a first hook in doubt is not begun");
        assert_eq!(ran(&w), [PRE, POST], "the last hook runs");
    }
}

/// Proves: C09.
#[test]
fn last_hooks_run_also_when_the_run_is_canceled_deleted_or_late() {
    for passes in 1..40 {
        for way in ["cancel", "delete", "late"] {
            let mut w = batch("Always");
            match way {
                "cancel" => w.cancel_at = passes,
                "delete" => w.delete_at = passes,
                _ => script(&mut w, "restore/0/m0", &[End::Never]),
            }
            while w.advance() {}
            let what = format!("{way} at {passes}: {:?} {:#}", w.jobs.started, w.object["status"]);
            for key in [ALL_PRE, PRE, POST, "hook/1/preRestore", "hook/1/postRestore", ALL_POST] {
                assert!(w.jobs.started.iter().filter(|k| *k == key).count() <= 1, "{key} twice: {what}");
            }
            let has = |key: &str| w.jobs.started.iter().any(|k| k == key);
            assert!(!has(PRE) || has(POST), "{what}");
            assert!(!has(ALL_PRE) || has(ALL_POST), "{what}");
            assert!(w.jobs.running().is_empty(), "{what}");
            if way == "late" {
                assert_eq!(w.phase(), "Failed");
                break;
            }
        }
    }
}

#[test]
fn hooks_that_were_changed_during_the_run_are_not_run() {
    let mut w = batch("Always");
    script(&mut w, "restore/0/m0", &[End::Never]);
    while !w.jobs.running().iter().any(|k| k == "restore/0/m0") {
        assert!(w.advance());
    }
    w.object["spec"]["members"][0]["hooks"]["postRestore"]["httpGet"]["host"] = "evil.example".into();
    w.settle();
    assert_eq!((w.phase().as_str(), ran(&w)), ("Failed", vec![ALL_PRE, PRE]));
    let said = hook(&w, "/members/0/hooks", "postRestore");
    assert_eq!(said["phase"], "Skipped");
    assert!(said["message"].as_str().unwrap().contains("were changed during the run"), "{said}");
}

#[test]
fn another_change_of_the_spec_ends_the_run_and_runs_its_hooks() {
    let mut w = batch("Always");
    script(&mut w, "restore/0/m0", &[End::Never]);
    while !w.jobs.running().iter().any(|k| k == "restore/0/m0") {
        assert!(w.advance());
    }
    w.object["spec"]["members"][0]["target"]["rules"][0]["snapshots"] = json!(["other"]);
    w.settle();
    assert_eq!((w.phase().as_str(), ran(&w)), ("Failed", vec![ALL_PRE, PRE, POST, ALL_POST]));
    assert_eq!(w.condition("Ready").1, "SpecChanged");
}

/// Proves: C01.
#[test]
fn a_crash_before_any_write_changes_nothing() {
    let mut calm = batch("Always");
    calm.settle();
    let writes = calm.writes;
    for crash in 0..writes {
        let mut w = batch("Always");
        w.crashes = vec![crash];
        w.settle();
        assert_eq!(w.phase(), "Succeeded", "crash before write {crash}");
        assert_eq!(w.jobs.started, calm.jobs.started, "crash before write {crash}");
    }
    assert!(writes > 30, "{writes}");
}

fn pod(ready: bool) -> HookPod {
    let containers = vec![HookContainer { name: "web".into(), ports: vec![] }];
    HookPod { name: "m0-a".into(), ready, ip: None, containers }
}

fn exec() -> Value {
    json!({ "preRestore": { "exec": { "command": ["sync"] } }, "postRestore": { "exec": { "command": ["sync"] } } })
}

#[test]
fn a_command_has_its_right_for_its_own_time_only() {
    let mut w = session(exec());
    w.hook_pods = Some(Ok(vec![pod(true)]));
    let mut most = 0;
    while w.advance() {
        let rights = w.grants.there.iter().filter(|(kind, ..)| *kind == "RoleBinding").count();
        most = most.max(rights);
        if w.jobs.running().iter().any(|k| k.starts_with("restore/")) {
            assert_eq!(rights, 0, "a restore runs, and no hook");
        }
    }
    assert_eq!((w.phase().as_str(), most, w.grants.there.len()), ("Succeeded", 1, 0), "{:#}", w.object["status"]);
    let roles = w.grants.made.iter().filter(|(kind, ..)| *kind == "Role").count();
    assert_eq!(roles, 2, "each hook has its own");
    assert_eq!(hook(&w, "/hooks", "preRestore")["pod"], "m0-a");
}

/// Proves: B04.
#[test]
fn a_pod_that_is_never_ready_is_waited_for_within_the_time_of_the_hook() {
    let mut w = session(exec());
    w.object["spec"]["hooks"]["preRestore"]["timeOut"] = "20s".into();
    w.object["spec"]["hooks"].as_object_mut().unwrap().remove("postRestore");
    w.hook_pods = Some(Ok(vec![pod(false)]));
    let began = w.now;
    w.settle();
    assert_eq!((w.phase().as_str(), w.condition("Ready").1.as_str()), ("Failed", "HookPodNotReady"));
    let took = w.now.duration_since(began).as_secs();
    assert!((20..60).contains(&took), "{took}");
    assert_eq!((order(&w).len(), w.jobs.started.len(), w.workloads[0].replicas), (0, 0, 2));
}

#[test]
fn commands_need_the_consent_of_the_installation() {
    let mut w = session(exec());
    w.hook_exec = false;
    w.settle();
    assert_eq!(w.phase(), "Invalid");
    let said = w.object["status"]["summary"].as_str().unwrap();
    assert!(said.starts_with("spec.hooks.preRestore.exec: this operator runs no commands of hooks."), "{said}");
    let mut w = session(hooks("Always"));
    w.hook_exec = false;
    w.settle();
    assert_eq!(w.phase(), "Succeeded", "requests need none");
}

#[test]
fn hooks_take_no_slot_of_the_repository() {
    let mut w = session(hooks("Always"));
    while hook(&w, "/hooks", "preRestore").is_null() {
        assert!(w.advance());
    }
    w.busy = w.passes..w.passes + 6;
    while w.busy.contains(&w.passes) {
        assert!(w.advance());
    }
    assert_eq!(ran(&w), [PRE], "all slots were taken meanwhile");
    w.settle();
    assert_eq!(w.phase(), "Succeeded");
}
