//! Jobs as they are created: names, labels, settings, and what a pod may do.

use k8s_openapi::api::core::v1::EnvVar;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

use crate::api::volume::PvcTemplate;
use crate::contract::SecretPlace;
use crate::contract::restic::{Backup, Preflight, Prepare, RepositoryAccess, Restore, Settings, Step};
use crate::contract::{Class, Run, TASK_ENV, Work, restic};
use crate::names::{reason, volume};
use crate::plan::seen::job_status::{pod_of, task_text};
use crate::plan::seen::target::Reach;
use crate::plan::systems::restic::backend::Access;
use crate::plan::work::job_spec::env::check_task;
use crate::plan::work::job_spec::frame::Needs;
use crate::plan::work::job_spec::interim::interim_claim;
use crate::plan::work::job_spec::*;

fn frame() -> JobFrame {
    JobFrame {
        image: "i".into(),
        owner: OwnerReference {
            api_version: "v".into(),
            kind: "RestoreBatch".into(),
            name: "r".into(),
            uid: "u".into(),
            ..OwnerReference::default()
        },
        namespace: "n".into(),
        labels: BTreeMap::from([("team".into(), "shop".into()), (label::STEP.into(), "lie".into())]),
        component: label::COMPONENT_RESTORE,
        repository: "n/repo".into(),
        account: None,
        defaults: RuntimeSettings::default(),
    }
}

fn task(step: Step) -> Task {
    let verb = step.verb();
    let work = restic::Work { repository: RepositoryAccess::default(), settings: Settings::default(), step };
    Task::new(Run::default(), verb, vec![], Work::Restic(Box::new(work)))
}

/// What a step needs for the repository of `n/repo`. Its Secret is mounted, or is read by the agent.
fn needs(step: &Step, secret: Option<SecretPlace>) -> Needs {
    let told = RepositoryAccess { secret, ..RepositoryAccess::default() };
    let access = Access { told, display: "n/repo".into(), secret: "s".into(), local: None };
    crate::plan::systems::restic::needs(&access, &task(step.clone()).work)
}

fn reach() -> Reach {
    Reach {
        volumes: vec![Volume { name: "data".into(), ..Volume::default() }],
        mounts: vec![VolumeMount { name: "data".into(), mount_path: "/data/".into(), ..VolumeMount::default() }],
        node: Some("node-1".into()),
        ..Reach::default()
    }
}

fn spec(step: Step, runtime: Option<&RuntimeSettings>) -> PodSpec {
    let needs = needs(&step, None);
    let parts = JobParts {
        key: "k".into(),
        attempt: 1,
        needs,
        runtime,
        reach: reach(),
        seconds_left: 60,
        ..JobParts::default()
    };
    job(&frame(), &task(step), parts).spec.unwrap().template.spec.unwrap()
}

/// restic removes a lock of its own hostname if the process that holds it is not running.
#[test]
fn a_hostname_passes_on_by_death_only() {
    let pod = |attempt, deaths| {
        let parts = JobParts { key: "k".into(), attempt, deaths, ..JobParts::default() };
        job(&frame(), &task(Step::Backup(Backup::default())), parts).spec.unwrap().template.spec.unwrap()
    };
    let hostname = |attempt, deaths| pod(attempt, deaths).hostname.unwrap();
    // A death, another end, two deaths, another end.
    let names = [(1, 0), (2, 1), (3, 1), (4, 2), (5, 3), (6, 3)].map(|(attempt, deaths)| hostname(attempt, deaths));
    assert_eq!(names[0], names[1]);
    assert!(names[2] == names[3] && names[3] == names[4]);
    assert!(names[1] != names[2] && names[4] != names[5] && names[0] != names[5]);
    assert!(
        names.iter().all(|n| n.len() <= 63 && n.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')),
        "{names:?}"
    );
    let told = |deaths| Task::decode(task_text(&pod(2, deaths).containers).unwrap()).unwrap().after_death;
    assert_eq!((told(0), told(1)), (false, true));
}

#[test]
fn a_job_carries_no_kubernetes_credentials() {
    let pod = spec(Step::Preflight(Preflight::default()), None);
    assert_eq!(pod.automount_service_account_token, Some(false));
    assert_eq!(pod.security_context.unwrap().run_as_user, Some(NOBODY));
}

#[test]
fn a_job_that_reads_the_secret_carries_a_token_of_its_own_and_mounts_no_secret() {
    let read = |runtime: Option<&RuntimeSettings>| {
        let frame = JobFrame { account: Some("grant".into()), ..frame() };
        let step = Step::Prepare(Prepare {});
        let needs = needs(&step, Some(SecretPlace { namespace: "other".into(), name: "s".into() }));
        let parts = JobParts { key: "k".into(), attempt: 1, needs, runtime, ..JobParts::default() };
        job(&frame, &task(step), parts).spec.unwrap().template.spec.unwrap()
    };
    let pod = read(None);
    assert_eq!(
        (pod.service_account_name.as_deref(), pod.automount_service_account_token),
        (Some("grant"), Some(false))
    );
    let volumes = pod.volumes.unwrap();
    assert!(volumes.iter().all(|v| v.secret.is_none()));
    let kept = volumes.iter().find(|v| v.name == volume::SECRET).unwrap().empty_dir.clone().unwrap();
    assert_eq!(kept.medium.as_deref(), Some("Memory"));
    let sources = volumes.iter().find_map(|v| v.projected.clone()).unwrap().sources.unwrap();
    let token = sources.iter().find_map(|s| s.service_account_token.clone()).unwrap();
    assert_eq!(token.expiration_seconds, Some(TOKEN_SECONDS));
    let mine: RuntimeSettings =
        serde_json::from_value(serde_json::json!({ "pod": { "serviceAccountName": "mine" } })).unwrap();
    assert_eq!(read(Some(&mine)).service_account_name.as_deref(), Some("mine"));
    assert!(spec(Step::Prepare(Prepare {}), None).volumes.unwrap().iter().all(|v| v.projected.is_none()));
}

#[test]
fn restores_write_below_the_root_and_backups_read_only() {
    let mounted = |step| {
        spec(step, None).containers[0].volume_mounts.clone().unwrap().into_iter().find(|m| m.name == "data").unwrap()
    };
    let restore = mounted(Step::Restore(Restore::default()));
    assert_eq!((restore.mount_path.as_str(), restore.read_only), ("/lifeboat/restore/data", Some(false)));
    let backup = mounted(Step::Backup(Backup::default()));
    assert_eq!((backup.mount_path.as_str(), backup.read_only), ("/data", Some(true)));
}

#[test]
fn a_held_volume_pins_the_node_beside_the_users_own_terms() {
    let mut runtime = RuntimeSettings::default();
    let own: Affinity = serde_json::from_value(
        serde_json::json!({ "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": {
        "nodeSelectorTerms": [{ "matchExpressions": [{ "key": "a", "operator": "Exists" }] }, {}] } } }),
    )
    .unwrap();
    runtime.pod = Some(Box::new(crate::api::runtime::PodRuntimeSettings { affinity: Some(own), ..Default::default() }));
    let pod = spec(Step::Restore(Restore::default()), Some(&runtime));
    let terms = pod
        .affinity
        .unwrap()
        .node_affinity
        .unwrap()
        .required_during_scheduling_ignored_during_execution
        .unwrap()
        .node_selector_terms;
    assert_eq!(terms.len(), 2);
    assert!(terms.iter().all(|t| t.match_fields.as_ref().unwrap()[0].values.as_ref().unwrap() == &["node-1"]));
}

/// Proves: D05.
#[test]
fn what_a_tool_tells_its_own_by_is_not_copied_and_the_labels_of_stash_stand() {
    let texts = |own: &str| {
        let tracker = ("app.kubernetes.io/instance".to_owned(), "shop".to_owned());
        [(own.to_owned(), "mine".to_owned()), tracker, ("argocd.argoproj.io/tracking-id".into(), "x".into())]
    };
    let mut runtime = RuntimeSettings::default();
    runtime.pod = Some(Box::new(crate::api::runtime::PodRuntimeSettings {
        pod_labels: texts("team").into(),
        pod_annotations: texts("note").into(),
        ..Default::default()
    }));
    let template = PvcTemplate {
        metadata: Some(
            serde_json::from_value(serde_json::json!({ "labels": BTreeMap::from(texts("team")),
            "annotations": BTreeMap::from(texts("note")) }))
            .unwrap(),
        ),
        ..PvcTemplate::default()
    };
    let parts = JobParts {
        key: "k".into(),
        attempt: 1,
        runtime: Some(&runtime),
        interim: Some(&template),
        ..JobParts::default()
    };
    let claim = interim_claim(&frame(), &parts).unwrap();
    let made = job(&frame(), &task(Step::Restore(Restore::default())), parts);
    for text in [serde_json::to_string(&made).unwrap(), serde_json::to_string(&claim).unwrap()] {
        assert!(!text.contains("argocd") && !text.contains("kubernetes.io/instance"), "{text}");
    }
    let (labels, notes) = (claim.metadata.labels.unwrap(), claim.metadata.annotations.unwrap());
    assert_eq!((labels["team"].as_str(), notes["note"].as_str()), ("mine", "mine"));
    let of_job = made.metadata.labels.as_ref().unwrap();
    assert_eq!((of_job["team"].as_str(), of_job[label::STEP].as_str()), ("shop", "restore"));
    let pod = made.spec.unwrap().template.metadata.unwrap();
    assert_eq!(
        (&pod.labels.as_ref().unwrap()["team"], &pod.annotations.unwrap()["note"]),
        (&"mine".into(), &"mine".into())
    );
    for labels in [made.metadata.labels.unwrap(), pod.labels.unwrap()] {
        assert_eq!(labels[label::COMPONENT], "stash-restore");
        assert_eq!(labels[label::MANAGED_BY], "stash.appscode.com");
    }
}

/// Proves: defect 14.
#[test]
fn long_names_are_told_apart() {
    let long = |end: &str| JobFrame {
        owner: OwnerReference { name: format!("{}{end}", "x".repeat(250)), ..frame().owner },
        ..frame()
    };
    let host = |end: &str| format!("restore/0/{}{end}", "h".repeat(250));
    let names = [
        job_name(&long("a"), "restore", &host("1"), 1),
        job_name(&long("a"), "restore", &host("2"), 1),
        job_name(
            &JobFrame { owner: OwnerReference { uid: "v".into(), ..long("b").owner }, ..frame() },
            "restore",
            &host("1"),
            1,
        ),
    ];
    assert!(names.iter().all(|n| n.len() <= 63), "{names:?}");
    assert!(names[0] != names[1] && names[0] != names[2] && names[1] != names[2], "{names:?}");
}

#[test]
fn the_same_attempt_has_the_same_name_and_another_does_not() {
    let f = frame();
    assert_eq!(job_name(&f, "restore", "k", 1), job_name(&f, "restore", "k", 1));
    assert_ne!(job_name(&f, "restore", "k", 1), job_name(&f, "restore", "k", 2));
    assert_ne!(job_name(&f, "restore", "k", 1), job_name(&f, "restore", "k2", 1));
}

/// Of two variables with the same name, the kubelet uses the last, and `env` takes precedence over `envFrom`.
///
/// Closes: defect 7 of the second engine, row 6 of the attacks of tenants.
#[test]
fn no_variable_of_a_user_stands_for_one_of_ours() {
    let names = [
        "LIFEBOAT_TASK",
        "LIFEBOAT_OUTCOME_FILE",
        "LIFEBOAT_RESTORE_ROOT",
        "HOME",
        "LD_PRELOAD",
        "LD_AUDIT",
        "HTTPS_PROXY",
    ];
    let env: Vec<EnvVar> =
        names.iter().map(|n| EnvVar { name: (*n).into(), value: Some("mine".into()), ..EnvVar::default() }).collect();
    let runtime = RuntimeSettings {
        container: Some(Box::new(crate::api::runtime::ContainerRuntimeSettings { env, ..Default::default() })),
        ..RuntimeSettings::default()
    };
    let pod = spec(Step::Restore(Restore::default()), Some(&runtime));
    let env = pod.containers[0].env.clone().unwrap();
    let given: Vec<&str> = env.iter().map(|e| e.name.as_str()).collect();
    assert_eq!(given, ["HTTPS_PROXY", "HOME", "TMPDIR", TASK_ENV, "LD_PRELOAD", "LD_LIBRARY_PATH", "LD_AUDIT"]);
    assert!(env[1..].iter().all(|e| e.value.as_deref() != Some("mine")));
    assert!(Task::decode(task_text(&pod.containers).unwrap()).is_ok());
}

#[test]
fn a_task_that_no_process_can_be_started_with_is_refused() {
    let with = |bytes: usize| {
        let step = Step::Backup(Backup { exclude: vec!["x".repeat(bytes)], ..Backup::default() });
        check_task(&job(&frame(), &task(step), JobParts::default()))
    };
    assert_eq!(with(100 << 10), Ok(()));
    let failure = with(128 << 10).unwrap_err();
    assert_eq!((failure.class, failure.reason.as_str()), (Class::Invalid, reason::RUN_TOO_LARGE));
}

/// The pod that is checked for each host is only as large as its volumes, whatever the settings contain, and the result
/// is the same.
#[test]
fn what_pod_security_judges_is_all_that_is_made_of_a_pod_for_it() {
    use crate::plan::work::pod_security;
    use crate::plan::work::pod_security::Level;
    let env: Vec<_> =
        (0..2000).map(|i| serde_json::json!({ "name": format!("N{i}"), "value": "x".repeat(100) })).collect();
    let users = [
        serde_json::json!({}),
        serde_json::json!({ "runAsUser": 1000, "runAsNonRoot": true }),
        serde_json::json!({ "privileged": true }),
        serde_json::json!({ "capabilities": { "add": ["SYS_ADMIN"] } }),
    ];
    for (user, unowned) in users.iter().flat_map(|u| [(u, false), (u, true)]) {
        let settings = serde_json::json!({ "container": { "env": env, "securityContext": user } });
        let runtime: RuntimeSettings = serde_json::from_value(settings).unwrap();
        let step = Step::Restore(Restore::default());
        let needs = needs(&step, None);
        let task = task(step);
        let parts = JobParts { needs, runtime: Some(&runtime), reach: reach(), unowned, ..JobParts::default() };
        let guarded = guarded_pod(&frame(), &parts);
        assert!(serde_json::to_string(&guarded).unwrap().len() < 2000);
        let job = job(&frame(), &task, parts);
        let whole = pod_of(&job).unwrap();
        for level in [Level::Privileged, Level::Baseline, Level::Restricted] {
            assert_eq!(pod_security::check(level, &guarded, "n"), pod_security::check(level, whole, "n"));
            assert_eq!(pod_security::is_about_root(level, &guarded), pod_security::is_about_root(level, whole));
        }
        assert_eq!(pod_security::runner(&guarded), pod_security::runner(whole));
    }
}
