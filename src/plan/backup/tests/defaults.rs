//! Settings from the namespace reach every Job of a session. Settings that cannot be read start no Job.

use serde_json::json;

use crate::plan::backup::tests::world::World;
use crate::plan::seen::job_status::pod_of;
use crate::plan::work::job_defaults::parse;

#[test]
fn every_job_of_a_backup_has_the_settings_of_its_namespace() {
    let mut w = World::new(2, false, true);
    let text = json!({ "serviceAccountName": "mover", "resources": { "limits": { "memory": "1Gi" } } }).to_string();
    w.job_defaults = parse(&text);
    w.invoker().members[1].runtime_settings =
        serde_json::from_value(json!({ "pod": { "serviceAccountName": "mine" } })).unwrap();
    w.settle();
    assert_eq!((w.phase(), w.jobs.made.len()), ("Succeeded", 4));
    for job in &w.jobs.made {
        let pod = pod_of(job).unwrap();
        let own = crate::plan::fake::key_of(job) == "backup/1/m1";
        assert_eq!(pod.service_account_name.as_deref(), Some(if own { "mine" } else { "mover" }));
        assert!(pod.containers[0].resources.as_ref().unwrap().limits.is_some());
        assert_eq!(pod.automount_service_account_token, Some(false), "an account is no token");
    }
}

#[test]
fn settings_of_a_namespace_that_cannot_be_read_start_no_job() {
    let mut w = World::new(1, false, true);
    w.job_defaults = Err("Annotation a of Namespace n is not valid: it is.".into());
    w.step(5);
    assert_eq!((w.phase(), w.jobs.created.len()), ("Pending", 0));
    assert!(w.status.to_string().contains("Annotation a of Namespace n"), "{:#}", w.status);
    w.job_defaults = parse("");
    w.settle();
    assert_eq!(w.phase(), "Succeeded");
}
