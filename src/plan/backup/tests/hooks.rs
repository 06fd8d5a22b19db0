//! Hooks of backups: when they run, when they do not, and what follows from their results.

use serde_json::{Value, json};

use crate::contract::Class;
use crate::names::reason;
use crate::plan::backup::tests::world::{World, retry, script};
use crate::plan::fake::End;

const PRE: &str = "hook/0/preBackup";
const POST: &str = "hook/0/postBackup";
const ALL_PRE: &str = "hook/preBackup";
const ALL_POST: &str = "hook/postBackup";
const FAILS: End = End::Fails(Class::Fatal, reason::HOOK_FAILED);

fn hooks(policy: &str) -> Value {
    let get = json!({ "host": "a.example", "port": 80 });
    json!({ "preBackup": { "httpGet": get }, "postBackup": { "httpGet": get, "executionPolicy": policy } })
}

/// A batch of two members with hooks of all kinds.
fn batch(policy: &str) -> World {
    let mut w = World::new(2, true, true);
    let invoker = w.invoker();
    invoker.hooks = serde_json::from_value(hooks(policy)).unwrap();
    for member in &mut invoker.members {
        member.hooks = serde_json::from_value(hooks(policy)).unwrap();
    }
    w
}

fn ran(w: &World) -> Vec<&str> {
    w.jobs.started.iter().map(String::as_str).collect()
}

fn condition(w: &World, list: &str, type_: &str) -> (String, String) {
    let all = w.status.pointer(list).and_then(Value::as_array).cloned().unwrap_or_default();
    let found = all.iter().find(|c| c["type"] == type_).unwrap_or_else(|| panic!("no {type_}: {:#}", w.status));
    (found["status"].as_str().unwrap().to_owned(), found["reason"].as_str().unwrap().to_owned())
}

#[test]
fn every_hook_of_a_batch_runs_once_and_in_order() {
    let mut w = batch("Always");
    w.settle();
    assert_eq!(w.phase(), "Succeeded", "{:#}", w.status);
    let all = [
        "prepare",
        ALL_PRE,
        PRE,
        "backup/0/m0",
        POST,
        "hook/1/preBackup",
        "backup/1/m1",
        "hook/1/postBackup",
        "maintain",
        ALL_POST,
    ];
    assert_eq!(w.steps(), all);
    assert_eq!(ran(&w).len(), 6);
    let done = |of: &str| ("True".to_owned(), of.to_owned());
    let conditions = [
        ("/conditions", "GlobalPreBackupHookSucceeded", "GlobalPreBackupHookExecutedSuccessfully"),
        ("/conditions", "GlobalPostBackupHookSucceeded", "GlobalPostBackupHookExecutedSuccessfully"),
        ("/targets/1/conditions", "PreBackupHookExecutionSucceeded", "SuccessfullyExecutedPreBackupHook"),
        ("/targets/1/conditions", "PostBackupHookExecutionSucceeded", "SuccessfullyExecutedPostBackupHook"),
    ];
    for (list, type_, why) in conditions {
        assert_eq!(condition(&w, list, type_), done(why));
    }
    assert_eq!(w.facts, 2, "the Repository learns of the maintenance, and of the success at the end");
}

/// Proves: B03.
#[test]
fn what_runs_follows_from_results_and_policies() {
    for (fails, retries, policy, runs) in [
        (false, 1, "Always", true),
        (false, 1, "OnSuccess", true),
        (false, 1, "OnFailure", false),
        (false, 1, "OnFinalRetryFailure", false),
        (true, 1, "Always", true),
        (true, 1, "OnSuccess", false),
        (true, 1, "OnFailure", true),
        (true, 1, "OnFinalRetryFailure", false),
        (true, 0, "OnFinalRetryFailure", true),
    ] {
        for of_batch in [false, true] {
            for end in [End::Ok, FAILS] {
                let mut w = World::new(1, true, true);
                w.invoker().retry = Some(retry(retries));
                let post = || serde_json::from_value(json!({ "postBackup": hooks(policy)["postBackup"] })).unwrap();
                if of_batch {
                    w.invoker().hooks = post();
                } else {
                    w.invoker().members[0].hooks = post();
                }
                let key = if of_batch { ALL_POST } else { POST };
                script(&mut w, key, std::slice::from_ref(&end));
                if fails {
                    script(&mut w, "backup/0/m0", &[End::DATA]);
                }
                w.settle();
                let what = format!("{fails} {retries} {policy} {of_batch} {end:?}: {:#}", w.status);
                assert_eq!(ran(&w), if runs { vec![key] } else { vec![] }, "{what}");
                let failed = fails || (runs && end != End::Ok);
                assert_eq!(w.phase(), if failed { "Failed" } else { "Succeeded" }, "{what}");
                let (list, type_) = if of_batch {
                    ("/conditions", "GlobalPostBackupHookSucceeded")
                } else {
                    ("/targets/0/conditions", "PostBackupHookExecutionSucceeded")
                };
                assert_eq!(condition(&w, list, type_).0 == "True", !(runs && end != End::Ok), "{what}");
                assert_eq!(
                    w.followers.len(),
                    usize::from(failed && retries > 0),
                    "a failed session is retried: {what}"
                );
            }
        }
    }
}

#[test]
fn a_first_hook_that_fails_skips_the_backup_and_not_the_last_hook() {
    let mut w = batch("OnFailure");
    script(&mut w, PRE, &[FAILS]);
    w.settle();
    assert_eq!((w.phase(), ran(&w)), ("Failed", vec![ALL_PRE, PRE, POST, ALL_POST]));
    assert_eq!(w.targets(), ["Failed", "Skipped"]);
    assert!(!w.steps().iter().any(|s| s.starts_with("backup/")), "{:?}", w.steps());
    assert_eq!(w.stalled(), "HookFailed");
    assert!(w.summary().contains("preBackup hook"), "{}", w.summary());
}

#[test]
fn no_member_is_backed_up_when_the_first_hook_of_the_batch_fails() {
    let mut w = batch("Always");
    script(&mut w, ALL_PRE, &[FAILS]);
    w.settle();
    assert_eq!((w.phase(), w.targets()), ("Failed", vec!["Skipped"; 2]));
    assert_eq!(w.steps(), ["prepare", ALL_PRE, ALL_POST]);
    assert!(w.summary().starts_with("No member was backed up: preBackup hook"), "{}", w.summary());
}

#[test]
fn the_data_stays_when_a_last_hook_fails() {
    for key in [POST, ALL_POST] {
        let mut w = batch("Always");
        w.invoker().stop = false;
        script(&mut w, key, &[FAILS]);
        w.settle();
        assert_eq!((w.phase(), w.stalled()), ("Failed", "HookFailed"), "{key}");
        for target in w.status["targets"].as_array().unwrap() {
            assert_eq!(target["stats"][0]["phase"], "Succeeded");
        }
        assert!(w.steps().contains(&"maintain"), "what was backed up is retained");
    }
}

#[test]
fn a_session_that_fails_before_it_begins_is_told_too() {
    let mut w = batch("OnFailure");
    script(&mut w, "prepare", &[End::Fails(Class::Invalid, reason::WRONG_PASSWORD)]);
    w.settle();
    assert_eq!((w.phase(), w.stalled()), ("Failed", "WrongPassword"));
    assert_eq!(ran(&w), [POST, "hook/1/postBackup", ALL_POST]);
}

#[test]
fn a_hook_in_doubt_is_not_run_again() {
    for key in [PRE, POST] {
        let mut w = batch("Always");
        script(&mut w, key, &[End::OutOfMemory]);
        w.settle();
        assert_eq!((w.phase(), w.stalled()), ("Failed", "HookInDoubt"), "{key}");
        assert_eq!(ran(&w).iter().filter(|k| **k == key).count(), 1);
    }
}

#[test]
fn last_hooks_run_also_when_the_session_is_canceled_deleted_or_late() {
    for passes in 1..40 {
        for way in ["cancel", "delete", "late"] {
            let mut w = batch("Always");
            if way == "late" {
                script(&mut w, "backup/0/m0", &[End::Never]);
            }
            for _ in 0..passes {
                let Some(wait) = w.pass() else { break };
                w.now += wait;
                if !wait.is_zero() {
                    w.jobs.tick();
                }
            }
            match way {
                "cancel" => w.run.canceled = true,
                "delete" => w.run.id.deleting = true,
                _ => {}
            }
            w.settle();
            let what = format!("{way} at {passes}: {:?} {:#}", w.jobs.started, w.status);
            let times = |key: &str| w.jobs.started.iter().filter(|k| *k == key).count();
            for key in [ALL_PRE, PRE, POST, "hook/1/preBackup", "hook/1/postBackup", ALL_POST] {
                assert!(times(key) <= 1, "{key} twice: {what}");
            }
            assert!(times(PRE) == 0 || times(POST) == 1, "{what}");
            assert!(times(ALL_PRE) == 0 || times(ALL_POST) == 1, "{what}");
            if way == "late" {
                assert_eq!(w.phase(), "Failed", "{what}");
                break;
            }
        }
    }
}

/// Proves: C01.
#[test]
fn a_crash_before_any_write_changes_nothing() {
    let mut calm = batch("Always");
    calm.settle();
    let writes = calm.writes;
    assert!(writes > 30, "{writes}");
    for crash in 0..writes {
        let mut w = batch("Always");
        w.crashes = vec![crash];
        w.settle();
        assert_eq!((w.phase(), &w.jobs.started), ("Succeeded", &calm.jobs.started), "crash before write {crash}");
    }
}
