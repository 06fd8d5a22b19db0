//! Settings from the namespace reach every Job of a restore. Settings that cannot be read start no Job.

use k8s_openapi::api::batch::v1::Job;
use kube::ResourceExt as _;

use crate::names::annotation;
use crate::plan::fake::End;
use crate::plan::restore::tests::world::World;
use crate::plan::restore::tests::{claim, script, web};
use crate::plan::seen::job_status::pod_of;
use crate::plan::work::job_defaults::parse;

#[test]
fn every_job_of_a_restore_has_the_settings_of_its_namespace() {
    let mut w = World::session(web());
    w.job_defaults =
        parse(r#"{"tolerations":[{"operator":"Exists"}],"env":[{"name":"HTTPS_PROXY","value":"http://p"}]}"#);
    w.settle();
    assert_eq!(w.phase(), "Succeeded");
    assert_eq!(w.jobs.made.len(), 2);
    for job in &w.jobs.made {
        let pod = pod_of(job).unwrap();
        assert_eq!(pod.tolerations.as_ref().map(Vec::len), Some(1));
        assert!(pod.containers[0].env.as_ref().unwrap().iter().any(|e| e.name == "HTTPS_PROXY"));
    }
}

#[test]
fn an_account_of_the_namespace_may_read_the_secret_of_another_one() {
    let mut w = World::session(web()).elsewhere(0);
    w.job_defaults = parse(r#"{"serviceAccountName":"mover"}"#);
    w.settle();
    assert_eq!(w.phase(), "Succeeded");
    let kinds: Vec<_> = w.grants.made.iter().map(|(kind, _, _)| *kind).collect();
    assert_eq!(kinds, ["Role", "RoleBinding"], "no account of ours");
}

#[test]
fn settings_of_a_namespace_that_cannot_be_read_touch_nothing() {
    let mut w = World::session(web());
    w.job_defaults = Err("Annotation a of Namespace n is not valid: it is.".into());
    w.step(5);
    assert_eq!(w.jobs.made.len(), 0);
    let ready = w.condition("Ready");
    assert_eq!(ready.0, "False", "{ready:?}");
    assert!(w.object["status"].to_string().contains("Annotation a of Namespace n"), "{:#}", w.object["status"]);
    w.job_defaults = parse("");
    w.settle();
    assert_eq!(w.phase(), "Succeeded");
}

/// Otherwise a quota, or a selector that matches no node, would block the restore until the deadline, even if the
/// settings are corrected.
#[test]
fn a_job_that_cannot_start_is_made_anew_when_the_settings_change() {
    let mut w = World::session(claim());
    script(&mut w, "restore/0/m0", &[End::Unschedulable]);
    while !w.jobs.running().contains(&"restore/0/m0".to_owned()) {
        w.step(1);
    }
    let made = |w: &World| {
        let of = |j: &&Job| j.annotations()[annotation::STEP_KEY] == "restore/0/m0";
        w.jobs.made.iter().filter(of).map(|j| j.annotations()[annotation::DEFAULTS].clone()).collect::<Vec<_>>()
    };
    w.step(5);
    assert_eq!(made(&w).len(), 1, "it waits");
    w.job_defaults = parse(r#"{"nodeSelector":{"disk":"ssd"}}"#);
    w.step(8);
    let all = made(&w);
    assert!(all.len() == 2 && all[0] != all[1], "{all:?}");
    w.step(8);
    assert_eq!(made(&w).len(), 2, "once");
}
