use serde_json::json;

use super::*;
use crate::api::hooks::RestoreHooks;
use crate::plan::fake::{setup, task};
use crate::plan::run::hooks::{Moment, of_restore};

fn pods() -> Vec<HookPod> {
    let container = |name: &str, ports: &[(&str, u16)]| HookContainer {
        name: name.into(),
        ports: ports.iter().map(|(n, p)| ((*n).to_owned(), *p)).collect(),
    };
    let pod = |name: &str, ready| HookPod {
        name: name.into(),
        ready,
        ip: Some("10.0.0.7".into()),
        containers: vec![container("web", &[("http", 8080)]), container("side", &[("admin", 9000)])],
    };
    vec![pod("web-0", false), pod("web-1", true), pod("web-2", true)]
}

fn target(kind: &str) -> TargetRef {
    TargetRef { kind: Some(kind.into()), name: Some("web".into()), ..TargetRef::default() }
}

struct Case {
    target: TargetRef,
    pods: Option<HookPods>,
    entry: HookStatus,
}

impl Case {
    fn of(kind: &str) -> Self {
        Self { target: target(kind), pods: Some(Ok(pods())), entry: HookStatus::default() }
    }

    fn make(&mut self, handler: Value) -> Result<(Job, Option<Grant>), Hold> {
        let hooks: RestoreHooks = serde_json::from_value(json!({ "preRestore": handler })).unwrap();
        let hook = of_restore(Some(&hooks), Moment::PreRestore, Some(0)).unwrap();
        let id = Identity { name: "r".into(), namespace: "demo".into(), uid: "u".into(), ..Identity::default() };
        let data = json!({ "Name": "r", "Status": { "Phase": "Failed", "Error": "x \"y\"" } });
        let defaults = Ok(RuntimeSettings::default());
        let (setup, level) = (setup(), Level::Restricted);
        let making = Making {
            setup: &setup,
            id: &id,
            component: "stash-restore",
            target: Some(&self.target),
            runtime: None,
            defaults: &defaults,
            pods: self.pods.as_ref(),
            data: &data,
            pod_security: level,
            at_once: false,
        };
        make(&hook, &mut self.entry, &making)
    }

    fn call(&mut self, handler: Value) -> Call {
        let (job, _) = self.make(handler).unwrap();
        let Work::Hook(call) = task(&job).work else { panic!() };
        *call
    }

    fn why(&mut self, handler: Value) -> String {
        match self.make(handler) {
            Err(Hold::Fail(failure) | Hold::Wait(failure)) => failure.message,
            Ok(_) => String::new(),
        }
    }
}

#[test]
fn a_command_runs_in_the_first_ready_pod_and_the_job_may_only_exec_there() {
    let mut case = Case::of("Deployment");
    let exec = json!({ "exec": { "command": ["sync"] }, "containerName": "side" });
    let (job, grant) = case.make(exec.clone()).unwrap();
    assert_eq!(case.entry.pod.as_deref(), Some("web-1"));
    let Work::Hook(call) = task(&job).work else { panic!() };
    let place = Some(Place { pod: "web-1".into(), container: "side".into() });
    assert_eq!(call.actions, [Action::Exec(Exec { command: vec!["sync".into()], place })]);
    let grant = grant.unwrap();
    let rules = grant.role.rules.unwrap();
    assert_eq!(rules.len(), 1);
    assert_eq!(rules[0].resources.as_deref(), Some(&["pods/exec".to_owned()][..]));
    assert_eq!(rules[0].resource_names.as_deref(), Some(&["web-1".to_owned()][..]));
    assert_eq!(grant.status.hook.as_deref(), Some("hook/0/preRestore"));
    let pod = job.spec.unwrap().template.spec.unwrap();
    assert_eq!(pod.service_account_name.as_deref(), Some(grant.status.name.as_str()));
    assert!(pod.volumes.unwrap().iter().all(|v| v.secret.is_none()), "no credentials of the Repository");
    // The choice is stable while its pod is ready, although another comes first.
    case.pods.as_mut().unwrap().as_mut().unwrap()[0].ready = true;
    case.make(exec.clone()).unwrap();
    assert_eq!(case.entry.pod.as_deref(), Some("web-1"));
    case.pods.as_mut().unwrap().as_mut().unwrap()[1].ready = false;
    case.make(exec).unwrap();
    assert_eq!(case.entry.pod.as_deref(), Some("web-0"));
}

#[test]
fn without_a_container_name_the_first_container_is_taken() {
    let call = Case::of("StatefulSet").call(json!({ "exec": { "command": ["a"] } }));
    let Action::Exec(exec) = &call.actions[0] else { panic!() };
    assert_eq!(exec.place.as_ref().unwrap().container, "web");
    let why = Case::of("StatefulSet").why(json!({ "exec": { "command": ["a"] }, "containerName": "no" }));
    assert_eq!(why, "containerName: pod web-1 has no container \"no\"; it has web, side.");
}

#[test]
fn a_claim_has_no_pod_so_a_command_runs_in_the_job_itself() {
    let mut case = Case { pods: None, ..Case::of("PersistentVolumeClaim") };
    let (job, grant) = case.make(json!({ "exec": { "command": ["true"] }, "containerName": "pre-task-hook" })).unwrap();
    let Work::Hook(call) = task(&job).work else { panic!() };
    assert_eq!(call.actions, [Action::Exec(Exec { command: vec!["true".into()], place: None })]);
    assert!(grant.is_none() && case.entry.pod.is_none());
    let token = |v: &k8s_openapi::api::core::v1::Volume| v.name == crate::names::volume::TOKEN;
    assert!(!job.spec.unwrap().template.spec.unwrap().volumes.unwrap().iter().any(token));
}

#[test]
fn a_container_of_stash_stands_for_the_job() {
    let exec = json!({ "exec": { "command": ["true"] }, "containerName": "stash-init" });
    let call = Case { pods: None, ..Case::of("Deployment") }.call(exec);
    assert_eq!(call.actions, [Action::Exec(Exec { command: vec!["true".into()], place: None })]);
}

#[test]
fn actions_have_the_order_of_stash_and_addresses_come_from_the_pod_where_the_hook_names_none() {
    let mut case = Case::of("Deployment");
    let call = case.call(json!({
        "exec": { "command": ["a"] }, "httpGet": { "port": "http", "path": "x?y" },
        "httpPost": { "port": 443, "host": "a.example", "scheme": "https", "body": "{\"a\":1}" },
        "tcpSocket": { "port": "8081" }, "timeOut": "10s" }));
    let labels: Vec<String> = call.actions.iter().map(Action::label).collect();
    assert_eq!(
        labels,
        [
            "exec in container web of pod web-1",
            "httpGet http://10.0.0.7:8080",
            "httpPost https://a.example:443",
            "tcpSocket 10.0.0.7:8081"
        ]
    );
    let Action::Http(get) = &call.actions[1] else { panic!() };
    assert_eq!((get.path.as_str(), call.seconds), ("/x?y", 10));
    let why = case.why(json!({ "httpGet": { "port": "admin" } }));
    assert_eq!(why, "httpGet.port: container web has no port of the name \"admin\".");
    let call = case.call(json!({ "httpGet": { "port": "admin" }, "containerName": "side" }));
    assert_eq!(call.actions[0].label(), "httpGet http://10.0.0.7:9000");
}

#[test]
fn a_form_wins_over_a_body_and_a_body_is_what_it_looks_like() {
    let body = |post: Value| {
        let call = Case::of("Deployment").call(json!({ "httpPost": post }));
        let Action::Http(http) = call.actions.into_iter().next().unwrap() else { panic!() };
        http.body.unwrap()
    };
    let form = json!([{ "key": "a b", "values": ["1&2", "\u{e9}"] }, { "key": "c", "values": [""] }]);
    let sent = body(json!({ "port": 80, "body": "ignored", "form": form }));
    assert_eq!(sent.text, "a+b=1%262&a+b=%C3%A9&c=");
    assert_eq!(sent.kind.as_deref(), Some("application/x-www-form-urlencoded"));
    for (text, kind) in
        [("{\"a\": 1}", Some("application/json")), ("{a", Some("text/plain; charset=utf-8")), ("", None)]
    {
        assert_eq!(body(json!({ "port": 80, "body": text })).kind.as_deref(), kind, "{text}");
    }
}

#[test]
fn templates_are_rendered_in_commands_and_bodies_only() {
    let call = Case::of("Deployment").call(json!({
        "exec": { "command": ["echo", "{{ .Name }}", "a { b"] },
        "httpPost": { "port": 80, "path": "/{{ .Name }}", "body": " {\"e\": {{ toJson .Status.Error }}} " } }));
    let Action::Exec(exec) = &call.actions[0] else { panic!() };
    assert_eq!(exec.command, ["echo", "r", "a { b"]);
    let Action::Http(http) = &call.actions[1] else { panic!() };
    assert_eq!(
        (http.path.as_str(), http.body.as_ref().unwrap().text.as_str()),
        ("/{{ .Name }}", r#"{"e": "x \"y\""}"#)
    );
}

/// Proves: invented 22.
#[test]
fn a_template_that_cannot_be_rendered_fails_the_hook_and_names_the_field() {
    let why = Case::of("Deployment").why(json!({ "exec": { "command": ["a", "{{ index .Name 1 2 3 }}"] } }));
    assert!(why.starts_with("exec.command[1]: "), "{why}");
}

#[test]
fn what_is_not_there_yet_is_waited_for_and_what_never_comes_is_not() {
    let exec = || json!({ "exec": { "command": ["a"] } });
    let not_ready = vec![HookPod { ready: false, ..pods()[1].clone() }];
    for (pods, waits, text) in [
        (None, true, "Looking for a pod."),
        (Some(Ok(vec![])), true, "Deployment/web has no running pod for the hook."),
        (Some(Ok(not_ready)), true, "No pod of Deployment/web is ready for the hook, for example web-1."),
        (Some(Err(NoPods::Unknown("away".into()))), true, "away"),
        (Some(Err(NoPods::Never("no service".into()))), false, "no service"),
    ] {
        let mut case = Case { pods, ..Case::of("Deployment") };
        match case.make(exec()) {
            Err(Hold::Wait(failure)) => assert!(waits && failure.message == text, "{failure:?}"),
            Err(Hold::Fail(failure)) => assert!(!waits && failure.message == text, "{failure:?}"),
            Ok(_) => panic!("{text}"),
        }
    }
    // A request to a host of its own needs no pod.
    let mut case = Case { pods: None, ..Case::of("Deployment") };
    assert!(case.make(json!({ "httpGet": { "host": "a.example", "port": 80 } })).is_ok());
}
