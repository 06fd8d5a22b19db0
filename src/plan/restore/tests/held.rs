//! Workloads whose data is half restored: they stay at zero, say so, and come back with the next successful restore.

use serde_json::{Value, json};

use crate::contract::Class;
use crate::names::reason;
use crate::plan::fake::End;
use crate::plan::restore::held_note::Note;
use crate::plan::restore::tests::holds_end::of;
use crate::plan::restore::tests::workload::Workload;
use crate::plan::restore::tests::world::World;
use crate::plan::restore::tests::{script, set, web};

pub fn note(w: &World, index: usize) -> Option<Note> {
    w.workloads[index].held.as_deref().map(|text| Note::read(text).unwrap())
}

/// A run in the middle of restoring its data.
fn caught(mut w: World) -> World {
    script(&mut w, "restore/0/m0", &[End::Never]);
    while !w.jobs.running().contains(&"restore/0/m0".to_owned()) {
        w.step(1);
    }
    w
}

/// A later restore of the same workload.
pub fn again(before: &World) -> World {
    let mut w = World::session(before.workloads[0].clone());
    w.now = before.now;
    w.object["metadata"]["name"] = "again".into();
    w.object["metadata"]["uid"] = "u-2".into();
    w
}

/// A run that has left its workload down, with half-restored data.
pub fn left_down() -> World {
    let mut w = World::session(web());
    script(&mut w, "restore/0/m0", &[End::DATA]);
    w.settle();
    w
}

#[test]
fn whatever_ends_it_in_the_middle_it_stays_down_and_says_so() {
    for way in ["cancel", "delete", "deadline", "data", "withdrawn", "changed"] {
        let mut w = World::session(web());
        let why = match way {
            "data" => {
                script(&mut w, "restore/0/m0", &[End::DATA]);
                "Host m0: It is DataCorrupt."
            }
            "withdrawn" => {
                w = caught(w.elsewhere(0));
                w.policies.push((w.passes, json!({})));
                "The run was ended during the restore"
            }
            _ => {
                w = caught(w);
                match way {
                    "cancel" => w.cancel(),
                    "delete" => w.delete_at = w.passes,
                    "changed" => w.object["spec"]["target"]["allowEmpty"] = true.into(),
                    _ => {}
                }
                match way {
                    "cancel" => "The run was canceled",
                    "delete" => "The session was deleted",
                    "changed" => "The spec was changed",
                    _ => "Host m0: Not restored before the deadline.",
                }
            }
        };
        // The world asserts that the workload is at zero, and that its note says how many replicas it comes back to.
        w.settle();
        let note = note(&w, 0).unwrap_or_else(|| panic!("{way}: {:#}", w.object["status"]));
        assert_eq!((note.replicas, note.session.as_str(), note.uid.as_str()), (2, "RestoreSession/demo/all", "u-1"));
        assert!(note.why.starts_with(why), "{way}: {}", note.why);
        let told: Vec<&str> = w.told.iter().map(|(_, why)| why.as_str()).collect();
        assert_eq!(told, [reason::SCALING_DOWN, reason::HELD_DOWN], "{way}: on the workload itself, once");
        if way == "delete" {
            assert!(w.gone);
            continue;
        }
        let status = &w.object["status"];
        assert_eq!((w.phase().as_str(), &status["quiesce"]["state"]), ("Failed", &json!("Held")), "{way}");
        assert_eq!(w.condition("Quiesced"), ("True".into(), reason::HELD_DOWN.into()), "{way}");
        let ready = status["conditions"].as_array().unwrap().iter().find(|c| c["type"] == "Ready").unwrap();
        let text = ready["message"].as_str().unwrap();
        assert!(text.contains("Deployment/m0 stays at 0 replicas and had 2: restore it again, or scale it up by hand"));
    }
}

#[test]
fn a_crash_anywhere_on_the_way_ends_the_same() {
    for way in ["cancel", "delete", "data"] {
        let mut w = caught(World::session(web()));
        match way {
            "cancel" => w.cancel(),
            "delete" => w.delete_at = w.passes,
            _ => {
                w = World::session(web());
                script(&mut w, "restore/0/m0", &[End::DATA]);
            }
        }
        w.settle_dying(true, |write, w| assert!(note(&w, 0).is_some(), "{way}: crash before write {write}"));
    }
    // The same for a restore that brings the workload back.
    let mut w = again(&left_down());
    w.settle_dying(true, |write, w| {
        assert_eq!((w.workloads[0].replicas, note(&w, 0)), (2, None), "crash before write {write}");
    });
}

#[test]
fn what_was_not_touched_is_scaled_back() {
    for (end, retried) in
        [(End::Untouched(Class::Data, reason::NO_SPACE), false), (End::Untouched(Class::Transient, "X"), true)]
    {
        let mut w = World::session(web());
        let ends = if retried { vec![end.clone(), end.clone(), End::Untouched(Class::Data, "Y")] } else { vec![end] };
        script(&mut w, "restore/0/m0", &ends);
        w.settle();
        assert_eq!((w.phase().as_str(), w.workloads[0].replicas, note(&w, 0)), ("Failed", 2, None));
    }
    // The first attempt may have touched data, although the second has not.
    let mut w = World::session(web());
    script(&mut w, "restore/0/m0", &[End::TRANSIENT, End::Untouched(Class::Data, reason::NO_SPACE)]);
    w.settle();
    assert_eq!((w.workloads[0].replicas, note(&w, 0).map(|n| n.replicas)), (0, Some(2)));
}

#[test]
fn who_wants_it_back_whatever_came_of_it_gets_it_back() {
    let mut w = World::session(web());
    w.object["spec"]["target"]["afterFailure"] = "ScaleBack".into();
    w = caught(w);
    w.cancel();
    w.settle();
    assert_eq!((w.phase().as_str(), w.workloads[0].replicas), ("Failed", 2));
    let told: Vec<&str> = w.told.iter().map(|(_, why)| why.as_str()).collect();
    assert_eq!(told, [reason::SCALING_DOWN, reason::SCALED_BACK]);
    // This also applies to a workload that an earlier restore has left down.
    let mut w = again(&left_down());
    w.object["spec"]["target"]["afterFailure"] = "ScaleBack".into();
    script(&mut w, "restore/0/m0", &[End::DATA]);
    w.settle();
    assert_eq!((w.workloads[0].replicas, note(&w, 0)), (2, None));
}

#[test]
fn the_next_restore_that_succeeds_brings_it_back_and_no_other() {
    let left = left_down();
    let mut fails = again(&left);
    script(&mut fails, "restore/0/m0", &[End::DATA]);
    fails.settle();
    assert_eq!(note(&fails, 0).map(|n| (n.replicas, n.uid)), Some((2, "u-2".into())), "the replicas go with it");

    let mut untouched = again(&left);
    script(&mut untouched, "restore/0/m0", &[End::Untouched(Class::Data, reason::NO_SPACE)]);
    untouched.settle_but_for_rights();
    assert_eq!((untouched.workloads[0].replicas, note(&untouched, 0).map(|n| n.uid)), (0, Some("u-1".into())));
    let text = untouched.condition_text("Quiesced");
    assert!(text.contains("half restored by RestoreSession/demo/all"), "{text}");

    for before in [left, fails, untouched] {
        let mut w = again(&before);
        w.settle();
        assert_eq!((w.phase().as_str(), w.workloads[0].replicas, note(&w, 0)), ("Succeeded", 2, None));
        assert_eq!(w.object["status"]["quiesce"]["held"], true);
    }
}

#[test]
fn who_scales_it_up_by_hand_has_decided() {
    let mut left = left_down();
    (left.workloads[0].replicas, left.workloads[0].wanted, left.workloads[0].pods) = (3, 3, 3);
    let mut w = again(&left);
    w.settle();
    assert_eq!((w.workloads[0].replicas, note(&w, 0)), (3, None), "its own replicas, and the stale note is gone");
    // The data that the earlier note named no longer counts as half restored.
    let mut w = again(&left);
    w.jobs.snapshot = Some("ef".repeat(32));
    script(&mut w, "restore/0/m0", &[End::DATA]);
    w.settle();
    let places = note(&w, 0).unwrap().places;
    assert_eq!(places.iter().flat_map(|p| &p.snapshots).collect::<Vec<_>>(), ["efefefef"]);
    // A restore that touches nothing leaves the workload as it found it.
    let mut w = again(&left);
    while w.workloads[0].replicas != 0 {
        w.step(1);
    }
    w.cancel();
    w.settle();
    assert_eq!((w.workloads[0].replicas, note(&w, 0)), (3, None));
}

#[test]
fn a_forged_note_is_no_number_and_is_told() {
    for forged in ["{", "{\"replicas\":2147483647}", &"x".repeat(100_000)] {
        let mut before = World::session(Workload { held: Some(forged.into()), ..Workload::new("Deployment", 0) });
        before.now = left_down().now;
        let mut w = again(&before);
        w.settle_but_for_rights();
        assert_eq!((w.phase().as_str(), w.workloads[0].replicas), ("Succeeded", 0));
        let told = w.events.iter().filter(|e| *e == reason::HELD_DOWN_IGNORED).count();
        assert_eq!((told, w.workloads[0].held.as_deref()), (1, Some(forged)));
    }
}

#[test]
fn several_members_with_one_workload_and_a_batch_that_goes_on() {
    for (order, policy) in [("Parallel", "Continue"), ("Sequential", "Continue"), ("Parallel", "Stop")] {
        let mut w = World::batch(order, policy, vec![web(), web(), set()]);
        w.object["spec"]["members"][1]["target"]["ref"]["name"] = "m0".into();
        script(&mut w, "restore/0/m0", &[End::DATA]);
        w.settle();
        assert_eq!(w.members(), ["Failed", "Succeeded", "Succeeded"], "{order} {policy}");
        assert_eq!((w.workloads[0].replicas, w.workloads[2].replicas), (0, 2), "{order} {policy}");
        let of = |why: &str| w.told.iter().filter(|(name, said)| name == "m0" && said == why).count();
        let told = [reason::SCALING_DOWN, reason::HELD_DOWN, reason::SCALED_BACK].map(of);
        // In sequential order, the workload is up again between its members.
        assert!(told[0] <= 2 && told[1] == 1 && told[2] == 0, "{order} {policy}: {:?}", w.told);
        let text = w.object["status"]["members"][0]["message"].as_str().unwrap();
        assert!(text.contains("stays at 0 replicas"), "{text}");
    }
    // In sequential order, the second restore of a workload finds it as the first restore left it.
    let mut w = World::batch("Sequential", "Continue", vec![web(), web()]);
    w.object["spec"]["members"][1]["target"]["ref"]["name"] = "m0".into();
    script(&mut w, "restore/1/m1", &[End::DATA]);
    w.settle();
    assert_eq!((w.members(), note(&w, 0).map(|n| n.replicas)), (vec!["Succeeded".into(), "Failed".into()], Some(2)));
    let told: Vec<&str> = w.told.iter().map(|(_, why)| why.as_str()).collect();
    let (down, back) = (reason::SCALING_DOWN, reason::SCALED_BACK);
    assert_eq!(told, [down, back, down, reason::HELD_DOWN]);
}

#[test]
fn what_is_not_scaled_is_not_held() {
    let mut w = World::session(Workload::new("PersistentVolumeClaim", 0));
    script(&mut w, "restore/0/m0", &[End::DATA]);
    w.settle();
    assert_eq!((w.phase().as_str(), note(&w, 0), w.told.len()), ("Failed", None, 0));
    let mut w = World::session(web());
    w.object["spec"]["target"]["quiesce"] = "Never".into();
    w.may_run_on = true;
    script(&mut w, "restore/0/m0", &[End::DATA]);
    while !w.run().state.is_final() {
        w.step(1);
    }
    assert_eq!((w.workloads[0].replicas, note(&w, 0)), (2, None));
}

#[test]
fn a_note_that_is_refused_is_said_and_tried_until_it_works() {
    let mut w = World::session(web());
    w.refuses_holds = true;
    script(&mut w, "restore/0/m0", &[End::DATA]);
    w.step(60);
    let told: Value = w.object["status"]["conditions"].clone();
    let told = told.as_array().unwrap().iter().find(|c| c["type"] == "ScaledBack").unwrap();
    let text = told["message"].as_str().unwrap();
    assert!(text.contains("stays at 0 replicas, and had 2 before") && text.contains("Not that."), "{text}");
    assert_eq!((w.phase().as_str(), w.workloads[0].replicas), ("Running", 0));
    let mut deleted = w.clone();
    deleted.delete_at = deleted.passes;
    deleted.settle_but_for_rights();
    assert!(deleted.gone && deleted.workloads[0].replicas == 0, "it lets go after ten minutes, and scales nothing up");
    w.refuses_holds = false;
    w.settle();
    assert_eq!((w.phase().as_str(), note(&w, 0).map(|n| n.replicas)), ("Failed", Some(2)));
}

/// Members with one workload fail one after the other: the note has the places of all of them.
#[test]
fn what_fails_later_is_added_to_the_note() {
    for order in ["Parallel", "Sequential"] {
        let mut w = World::batch(order, "Continue", vec![web(), web()]);
        w.object["spec"]["members"][1]["target"]["ref"]["name"] = "m0".into();
        for (i, path) in ["/data/a", "/data/b"].iter().enumerate() {
            w.object["spec"]["members"][i]["target"]["rules"] = json!([{ "paths": [path] }]);
            script(&mut w, &format!("restore/{i}/m{i}"), &[End::DATA]);
        }
        w.settle();
        let places = note(&w, 0).unwrap().places;
        let paths: Vec<&str> = places.iter().map(|p| p.path.as_str()).collect();
        assert_eq!(paths, ["/a", "/b"], "{order}: {:#}", w.object["status"]);
    }
}

/// What a restore would have to restore is not known.
#[test]
fn where_it_is_not_known_what_is_half_restored_no_restore_ends_it() {
    let mut w = caught(World::session(web()));
    w.object["spec"]["target"]["rules"] = json!([{ "paths": ["/data/other"] }]);
    w.settle();
    assert_eq!(note(&w, 0).map(|n| n.places), Some(vec![]), "the spec is another one");
    let text = w.condition_text("Quiesced");
    assert!(text.contains("is not known which data is half restored"), "{text}");
    let mut w = again(&w);
    w.settle();
    assert_eq!((w.phase().as_str(), w.workloads[0].replicas), ("Succeeded", 0));
    // A second restore also fails: the unknown places stay unknown.
    let mut w = of(&w, "u-3", json!({ "paths": ["/data"] }));
    script(&mut w, "restore/0/m0", &[End::DATA]);
    w.settle();
    assert_eq!(note(&w, 0).map(|n| (n.uid, n.places)), Some(("u-3".into(), vec![])));
}

#[test]
fn what_is_at_zero_is_restored_whatever_quiesce_says() {
    let mut w = again(&left_down());
    w.object["spec"]["target"]["quiesce"] = "Never".into();
    w.settle();
    assert_eq!((w.phase().as_str(), w.workloads[0].replicas, note(&w, 0)), ("Succeeded", 2, None));
}

/// The volumes are folders of a node: the note records where the pods ran.
#[test]
fn a_workload_with_folders_of_a_node_is_restored_where_it_was() {
    let mut first = World::session(Workload { on_host: true, ..web() });
    script(&mut first, "restore/0/m0", &[End::DATA]);
    first.settle();
    assert_eq!((first.workloads[0].pods, note(&first, 0).unwrap().node()), (0, Some("n7")));
    let mut w = again(&first);
    w.settle();
    assert_eq!((w.phase().as_str(), w.workloads[0].replicas, note(&w, 0)), ("Succeeded", 2, None));
}

/// Two workloads mount one claim: neither starts while the restore of the other writes to it, or on data that the other
/// restore left half restored.
#[test]
fn workloads_that_share_a_volume_come_back_together() {
    let shared = || Workload { claim: Some("shared"), ..web() };
    for last in [End::Ok, End::DATA] {
        let mut w = World::batch("Parallel", "Continue", vec![shared(), shared()]);
        script(&mut w, "restore/1/m1", std::slice::from_ref(&last));
        let mut both = 0;
        while !w.run().state.is_final() {
            w.step(1);
            let writes = w.jobs.running().iter().any(|key| key.starts_with("restore/"));
            assert!(!writes || w.workloads.iter().all(|w| w.replicas == 0), "{:#}", w.object["status"]);
            both += usize::from(writes);
        }
        assert!(both > 0);
        let up = if last == End::Ok { 2 } else { 0 };
        assert_eq!(w.workloads.iter().map(|w| w.replicas).collect::<Vec<_>>(), [up, up], "{:#}", w.object["status"]);
        let volumes =
            |i: usize| note(&w, i).map(|n| n.places.iter().flat_map(|p| p.volumes.clone()).collect::<Vec<_>>());
        let noted = (last == End::DATA).then(|| vec!["PersistentVolumeClaim shared".to_owned()]);
        assert_eq!((volumes(0), volumes(1)), (noted.clone(), noted));
    }
}

/// The workload had no replicas: its data is half restored nevertheless, and must not be backed up.
#[test]
fn a_workload_that_had_none_is_noted_too() {
    let mut w = World::session(Workload::new("Deployment", 0));
    script(&mut w, "restore/0/m0", &[End::DATA]);
    w.settle();
    assert_eq!((w.workloads[0].replicas, note(&w, 0).map(|n| n.replicas)), (0, Some(0)), "{:#}", w.object["status"]);
    let text = w.condition_text("Quiesced");
    assert!(text.contains("Restore it again before you scale it up. Or accept the data as it is: remove"), "{text}");
    let mut w = again(&w);
    w.settle();
    assert_eq!((w.phase().as_str(), w.workloads[0].replicas, note(&w, 0)), ("Succeeded", 0, None));
    let text = w.condition_text("Quiesced");
    assert!(text.contains("had 0 replicas before the restore, and has 0 now"), "{text}");
}

#[test]
fn who_wants_it_back_whatever_came_of_it_is_told_that_it_runs_on_half_of_it() {
    let mut w = World::session(web());
    w.object["spec"]["target"]["afterFailure"] = "ScaleBack".into();
    script(&mut w, "restore/0/m0", &[End::DATA]);
    w.settle();
    assert_eq!((w.phase().as_str(), w.workloads[0].replicas), ("Failed", 2));
    let quiesced =
        w.object["status"]["conditions"].as_array().unwrap().iter().find(|c| c["type"] == "Quiesced").unwrap();
    let said = quiesced["message"].as_str().unwrap();
    assert!(said.contains("is scaled back to 2 replicas. Its data may be half restored"), "{said}");
    // If the data is complete when the workload comes back, the message does not mention half-restored data.
    let mut w = World::session(web());
    w.settle();
    let quiesced =
        w.object["status"]["conditions"].as_array().unwrap().iter().find(|c| c["type"] == "Quiesced").unwrap();
    assert!(!quiesced["message"].as_str().unwrap().contains("half"), "{quiesced:#}");
}
