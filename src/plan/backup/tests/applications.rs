//! Targets that are applications.

use serde_json::json;

use crate::contract::Work;
use crate::contract::application::{Addon, Step};
use crate::plan::backup::tests::world::World;
use crate::plan::fake::task;
use crate::plan::seen::target::Target;

fn world(binding: &serde_json::Value) -> World {
    let mut w = World::new(1, true, true);
    let target = w.invoker().members[0].target.as_mut().unwrap();
    target.ref_.as_mut().unwrap().kind = Some("AppBinding".into());
    target.args = vec!["--compression=max".into()];
    let application = serde_json::from_value(binding.clone()).ok();
    w.found =
        Some(Target { kind: "AppBinding".into(), name: "m0".into(), replicas: 1, application, ..Target::default() });
    w
}

#[test]
fn an_application_is_dumped_with_its_manifest_and_both_are_retained() {
    let mut w = world(&json!({ "type": "kubedb.com/postgres", "clientConfig": { "url": "postgresql://pg" } }));
    w.settle();
    assert_eq!(w.phase(), "Succeeded", "{:#}", w.status);
    let job = w.jobs.made.iter().find(|j| task(j).verb == "backup").unwrap();
    let Work::Application(work) = task(job).work else { panic!("{job:?}") };
    let Step::Dump(dump) = &work.step else { panic!("{work:?}") };
    assert_eq!(
        (work.addon, dump.host.as_str(), &dump.args[..]),
        (Addon::Postgres, "m0", &["--compression=max".to_owned()][..])
    );
    let own: Vec<String> = match w.last_task.as_ref().map(|t| &t.work) {
        Some(Work::Restic(work)) => match &work.step {
            crate::contract::restic::Step::Maintain(step) => step.own.iter().map(|o| o.path.clone()).collect(),
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    };
    assert_eq!(own, ["/dumpfile.sql", "/manifest.json"]);
}

#[test]
fn an_application_that_cannot_be_reached_by_its_description_is_not_begun() {
    let mut w = world(&json!({ "type": "postgres", "clientConfig": {} }));
    w.settle();
    assert_eq!(w.phase(), "Failed");
    assert!(
        w.summary().contains("AppBinding m0: spec.clientConfig has neither a service nor a url"),
        "{}",
        w.summary()
    );
    assert!(w.jobs.made.iter().all(|j| task(j).verb != "backup"));
}
