//! Workloads that others scale, that cannot be scaled, or that others use: what status says, and what comes back.

use k8s_openapi::jiff::SignedDuration;
use serde_json::{Value, json};

use crate::contract::Class;
use crate::names::reason;
use crate::plan::fake::End;
use crate::plan::restore::quiesce::instead_of;
use crate::plan::restore::tests::workload::Workload;
use crate::plan::restore::tests::world::World;
use crate::plan::restore::tests::{order, script, web};
use crate::plan::seen::target::PodSeen;

/// Steps until a run satisfies a condition.
fn until(w: &mut World, what: &str, is: impl Fn(&World) -> bool) {
    for _ in 0..300 {
        if is(w) {
            return;
        }
        w.step(1);
    }
    panic!("not {what}: {:#}", w.object["status"]);
}

fn said(list: &Value, type_: &str) -> Value {
    list.as_array().into_iter().flatten().find(|c| c["type"] == type_).cloned().unwrap_or_default()
}

fn count(w: &World, reason: &str) -> usize {
    w.events.iter().filter(|e| *e == reason).count()
}

#[test]
fn a_scale_to_zero_that_is_refused_holds_up_its_member_and_nobody_else() {
    let mut w = World::batch("Parallel", "Continue", vec![web(), web()]);
    w.object["spec"]["timeOut"] = "5m".into();
    w.refuses_scales = vec![(0, 0, Class::Transient)];
    until(&mut w, "over with the other", |w| w.object["status"]["members"][1]["phase"] == "Succeeded");
    w.step(10);
    let member = &w.object["status"]["members"][0];
    let text = "Deployment/m0 could not be scaled from 2 to 0 for the restore: Not that. Allow Lifeboat to scale it";
    assert!(member["message"].as_str().unwrap().starts_with(text), "{member:#}");
    assert_eq!(said(&member["conditions"], "Quiesced")["reason"], reason::REFUSED_BY_API);
    assert!(
        w.object["status"]["summary"].as_str().unwrap().contains("could not be scaled"),
        "{:#}",
        w.object["status"]
    );
    assert_eq!((count(&w, reason::REFUSED_BY_API), w.workloads[0].replicas), (1, 2));

    let mut allowed = w.clone();
    allowed.refuses_scales.clear();
    allowed.settle();
    assert_eq!(allowed.phase(), "Succeeded");
    let mut canceled = w.clone();
    canceled.cancel();
    canceled.settle();
    assert_eq!(canceled.members(), ["Skipped", "Succeeded"]);
    let mut deleted = w.clone();
    deleted.delete_at = deleted.passes;
    deleted.settle();
    w.settle();
    let host = &w.object["status"]["members"][0]["stats"][0];
    assert_eq!(
        (w.members(), &host["reason"]),
        (vec!["Failed".into(), "Succeeded".into()], &json!("RefusedByApiServer"))
    );
    assert!(host["error"].as_str().unwrap().contains("Last: Deployment/m0 could not be scaled"), "{host}");
}

#[test]
fn a_scale_that_can_never_be_allowed_fails_its_member_at_once() {
    let mut w = World::session(web());
    w.refuses_scales = vec![(0, 0, Class::Invalid)];
    let start = w.now;
    w.settle();
    assert_eq!((w.phase().as_str(), w.condition("Stalled").1.as_str()), ("Failed", reason::REFUSED_BY_API));
    assert!(w.now.duration_since(start).as_secs() < 30 && order(&w).is_empty());
    assert!(w.object["status"]["summary"].as_str().unwrap().contains("could not be scaled from 2 to 0"));
}

#[test]
fn a_scale_back_that_is_refused_is_said_and_tried_until_it_works() {
    for session in [false, true] {
        let mut w = if session { World::session(web()) } else { World::batch("Parallel", "Stop", vec![web(), web()]) };
        w.refuses_scales = vec![(0, 2, Class::Invalid)];
        until(&mut w, "restored", |w| w.jobs.done.contains("restore/0/m0"));
        // Also after the deadline: the workload must come back.
        w.step(150);
        let status = &w.object["status"];
        let (list, summary) = if session { (status, "summary") } else { (&status["members"][0], "message") };
        let texts = [&list[summary], &said(&list["conditions"], "ScaledBack")["message"]].map(ToString::to_string);
        assert!(
            texts.iter().all(|t| t.contains("could not be scaled back from 0 to 2 replicas: Not that.")),
            "{texts:?}"
        );
        assert!(texts[1].contains("kubectl -n demo scale deployment/m0 --replicas=2"), "{texts:?}");
        assert_eq!((w.phase().as_str(), count(&w, reason::REFUSED_BY_API)), ("Running", 1));
        assert!(w.now.as_second() > 1_800_000_120);
        let mut canceled = w.clone();
        canceled.cancel();
        canceled.step(2);
        assert!(
            canceled.condition("Canceled").0 == "False"
                && canceled.object["status"]["summary"].to_string().contains("scaled back")
        );
        for mut w in [w, canceled] {
            w.refuses_scales.clear();
            w.settle();
            let list = if session { &w.object["status"] } else { &w.object["status"]["members"][0] };
            assert_eq!(
                (w.phase().as_str(), &said(&list["conditions"], "ScaledBack")["status"]),
                ("Succeeded", &json!("True"))
            );
        }
    }
}

#[test]
fn a_session_that_goes_says_what_keeps_it_and_lets_go_after_ten_minutes() {
    let mut w = World::session(web());
    w.object["spec"]["target"]["afterFailure"] = "ScaleBack".into();
    script(&mut w, "restore/0/m0", &[End::Never]);
    until(&mut w, "begun", |w| w.jobs.attempts("restore/0/m0") == 1);
    w.refuses_scales = vec![(0, 2, Class::Transient)];
    let from = w.now;
    w.delete_at = w.passes;
    let is_told = |w: &World| said(&w.object["status"]["conditions"], "ScaledBack")["status"] == "False";
    for _ in 0..40 {
        w.advance();
    }
    assert!(is_told(&w) && !w.gone, "{:#}", w.object["status"]);
    assert_eq!((w.condition("Reconciling").1.as_str(), count(&w, reason::REFUSED_BY_API)), (reason::REFUSED_BY_API, 1));
    let mut allowed = w.clone();
    allowed.refuses_scales.clear();
    allowed.settle();
    assert!(allowed.gone);

    // The API server keeps refusing: the workload stays as it is, and the last event names the replicas.
    w.workloads[0].wanted = 0;
    w.settle();
    let took = w.now.duration_since(from).as_secs();
    assert!(w.gone && (600..660).contains(&took), "{took} s");
    assert_eq!(count(&w, reason::REFUSED_BY_API), 2);
}

/// Proves: defect 14, invented 4.
#[test]
fn a_workload_that_is_written_in_two_ways_is_one() {
    for order in ["Parallel", "Sequential"] {
        let mut w = World::batch(order, "Stop", vec![web(), web()]);
        w.object["spec"]["members"][1]["target"]["ref"] =
            json!({ "kind": "Deployment", "name": "m0", "namespace": "demo" });
        script(&mut w, "restore/0/m0", &[End::TRANSIENT]);
        script(&mut w, "restore/1/m1", &[End::TRANSIENT, End::TRANSIENT]);
        for delete_at in 0..40 {
            let mut w = w.clone();
            w.delete_at = delete_at;
            w.settle();
        }
        w.settle();
        assert_eq!((w.phase().as_str(), w.jobs.attempts("restore/1/m1")), ("Succeeded", 3), "{order}");
    }
}

/// Proves: invented 16.
#[test]
fn a_workload_that_somebody_scales_up_and_down_again_is_ours_again() {
    for way in ["", "delete", "cancel"] {
        let mut w = World::session(web());
        script(&mut w, "restore/0/m0", &[End::Never]);
        until(&mut w, "begun", |w| w.jobs.attempts("restore/0/m0") == 1);
        w.workloads[0].replicas = 3;
        until(&mut w, "noticed", |w| w.object["status"]["quiesce"]["state"] == "Broken");
        let text = said(&w.object["status"]["conditions"], "Quiesced")["message"].to_string();
        assert!(
            text.contains("scaled up to 3 by a user or another controller") && text.contains("It had 2 before"),
            "{text}"
        );
        w.workloads[0].replicas = 0;
        match way {
            "delete" => w.delete_at = w.passes,
            "cancel" => w.cancel(),
            _ => {}
        }
        // The world asserts that the workload stays down, and that status says so.
        w.settle();
        if way == "delete" {
            continue;
        }
        assert_eq!(w.phase(), "Failed");
        // Afterwards, only the user scales the workload.
        w.workloads[0].replicas = 0;
        w.workloads[0].wanted = 0;
        w.workloads[0].held = None;
        w.delete_at = w.passes;
        w.settle_but_for_rights();
        assert!(w.gone);
        assert_eq!((w.workloads[0].replicas, &w.workloads[0].held), (0, &None));
    }
}

#[test]
fn somebody_who_scales_it_up_again_and_again_is_named_and_ends_the_member() {
    let mut w = World::session(web());
    w.object["spec"]["timeOut"] = "30m".into();
    w.set_by_others = [(0, 2)].into();
    until(&mut w, "noticed", |w| w.events.contains(&reason::SCALED_UP_AGAIN.to_owned()));
    let text = w.object["status"]["summary"].to_string();
    assert!(text.contains("Deployment/m0 must stay at 0 replicas during the restore"), "{text}");
    let (from, mut pauses, mut late) = (w.now, w.clone(), w.clone());
    w.settle();
    let took = w.now.duration_since(from).as_secs();
    assert_eq!((w.phase().as_str(), w.condition("Stalled").1.as_str()), ("Failed", reason::QUIESCE_BROKEN));
    assert!((110..130).contains(&took), "{took} s");
    assert_eq!((order(&w).len(), count(&w, reason::SCALED_UP_AGAIN)), (0, 1));

    pauses.set_by_others.clear();
    pauses.settle();
    assert_eq!(pauses.phase(), "Succeeded");

    let deadline = late.now + SignedDuration::from_secs(20);
    late.object["status"]["sessionDeadline"] = json!(deadline.to_string());
    late.settle();
    let error = late.object["status"]["stats"][0]["error"].to_string();
    assert!(error.contains("Not restored before the deadline. Last: ") && error.contains("KEDA"), "{error}");
}

/// The session reports no interference if it has not seen the workload scaled down.
#[test]
fn an_operator_that_was_away_before_it_scaled_blames_nobody() {
    let mut w = World::session(web());
    w.object["spec"]["timeOut"] = "30m".into();
    until(&mut w, "announced", |w| w.object["status"]["quiesce"]["state"] == "Announced");
    assert_eq!(w.workloads[0].replicas, 2);
    w.now += SignedDuration::from_mins(5);
    w.settle();
    assert_eq!((w.phase().as_str(), count(&w, reason::SCALED_UP_AGAIN)), ("Succeeded", 0));
    // The same holds if its first scale is refused.
    let mut w = World::session(web());
    w.object["spec"]["timeOut"] = "30m".into();
    w.refuses_scales = vec![(0, 0, Class::Transient)];
    until(&mut w, "refused", |w| w.events.contains(&reason::REFUSED_BY_API.to_owned()));
    w.step(100);
    assert_eq!((count(&w, reason::REFUSED_BY_API), count(&w, reason::SCALED_UP_AGAIN)), (1, 0));
}

/// The two minutes count from when the other client is noticed, whatever happened before.
#[test]
fn who_scales_it_up_after_a_refusal_or_while_its_pods_end_has_two_minutes_all_the_same() {
    for refused in [true, false] {
        let mut w = World::session(web());
        w.object["spec"]["timeOut"] = "30m".into();
        if refused {
            w.refuses_scales = vec![(0, 0, Class::Transient)];
            until(&mut w, "refused", |w| w.events.contains(&reason::REFUSED_BY_API.to_owned()));
            w.step(100);
            w.refuses_scales.clear();
        } else {
            w.workloads[0].is_catching_up = true;
            until(&mut w, "down", |w| w.workloads[0].replicas == 0);
            w.step(200);
        }
        w.set_by_others = [(0, 2)].into();
        until(&mut w, "noticed", |w| w.events.contains(&reason::SCALED_UP_AGAIN.to_owned()));
        let from = w.now;
        w.settle();
        let took = w.now.duration_since(from).as_secs();
        assert_eq!((w.phase().as_str(), w.condition("Stalled").1.as_str()), ("Failed", reason::QUIESCE_BROKEN));
        assert!((110..130).contains(&took) && order(&w).is_empty(), "{took} s");
        assert_eq!(count(&w, reason::SCALED_UP_AGAIN), 1);
    }
}

/// Between the old and the new pods of a rollout, there are no pods, but the controller is about to create some.
#[test]
fn a_workload_is_out_of_the_way_once_its_controller_knows() {
    for replicas in [2, 0] {
        let mut w = World::session(Workload { is_catching_up: true, ..Workload::new("Deployment", replicas) });
        w.step(20);
        assert_eq!((w.workloads[0].replicas, w.workloads[0].pods, order(&w).len()), (0, 0, 0));
        let text = w.object["status"]["summary"].as_str().unwrap();
        assert!(text.contains("Waiting until the controller of Deployment/m0 has observed the 0 replicas"), "{text}");
        let mut late = w.clone();
        late.settle();
        assert_eq!((late.phase().as_str(), order(&late).len()), ("Failed", 0));
        let text = late.object["status"]["summary"].as_str().unwrap();
        assert!(text.contains("before the deadline") && text.contains("controller of Deployment/m0"), "{text}");
        w.workloads[0].is_catching_up = false;
        w.settle();
        assert_eq!((w.phase().as_str(), w.workloads[0].replicas), ("Succeeded", replicas));
    }
}

#[test]
fn pods_of_others_on_its_volumes_are_named_and_shared_with() {
    let beside = |claim: &str| PodSeen {
        name: "nightly-1".into(),
        node: Some("n3".into()),
        claims: vec![claim.into()],
        ..PodSeen::default()
    };
    for workload in [web(), Workload::new("Deployment", 0)] {
        let mut w = World::session(workload);
        w.others = vec![beside("data-m0"), beside("another")];
        until(&mut w, "begun", |w| w.jobs.attempts("restore/0/m0") == 1);
        assert_eq!(w.jobs.node("restore/0/m0"), "n3", "its ReadWriteOnce volume is there");
        let told = said(&w.object["status"]["conditions"], "Quiesced");
        assert_eq!((&told["status"], &told["reason"]), (&json!("False"), &json!(reason::NOT_QUIESCED)));
        assert!(told["message"].as_str().unwrap().contains("not scaled: nightly-1."), "{told}");
        w.settle();
        assert_eq!((w.phase().as_str(), count(&w, reason::NOT_QUIESCED)), ("Succeeded", 1));
    }
}

#[test]
fn an_owner_is_offered_as_the_target_only_where_it_can_be_one() {
    assert_eq!(instead_of("Deployment/web"), "Name Deployment/web as the target");
    for owner in ["Rollout/web", "CloneSet/web"] {
        assert!(instead_of(owner).starts_with(&format!("{owner} cannot be a target: scale it to zero")));
    }
}
