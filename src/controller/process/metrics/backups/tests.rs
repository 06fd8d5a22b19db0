//! The metrics that Prometheus gets, and whether the rules of the docs alert on them.

use prometheus_client::encoding::text;
use prometheus_client::registry::Registry;
use serde_json::json;

use crate::api::{BackupBatch, BackupConfiguration};
use crate::controller::cache::stored::{Facts, Stored};
use crate::controller::process::metrics::backups::*;

/// The page of the docs with the rules.
const PAGE: &str = include_str!("../../../../../docs/operations.md");

fn series(name: &str, backups: Backups) -> Series {
    let labels = Labels {
        namespace: "shop".into(),
        kind: "BackupConfiguration".into(),
        name: name.into(),
        repository: "store/s3".into(),
    };
    Series { labels, backups: Arc::new(backups) }
}

fn good() -> Backups {
    Backups {
        success: Some(1_800_000_000),
        next: Some(1_800_086_400),
        late: Some(false),
        result: Some((true, "Succeeded".into())),
    }
}

fn rendered(all: Vec<Series>) -> String {
    let exporter = Exporter::default();
    exporter.follow(Some(Arc::new(move || all.clone())));
    let mut registry = Registry::with_prefix("lifeboat");
    registry.register_collector(Box::new(exporter));
    let mut out = String::new();
    text::encode(&mut out, &registry).unwrap();
    out
}

#[test]
fn each_invoker_is_told_of_by_its_names() {
    let text = rendered(vec![
        series("web", good()),
        series("new", Backups { late: Some(true), ..Backups::default() }),
        series("bad", Backups { result: Some((false, "\"} 1\nlifeboat_backup_late 1".into())), ..Backups::default() }),
    ]);
    let of = |name: &str| format!(r#"namespace="shop",kind="BackupConfiguration",name="{name}",repository="store/s3""#);
    let expected = [
        format!("lifeboat_backup_last_success_timestamp_seconds{{{}}} 1800000000", of("web")),
        format!("lifeboat_backup_next_due_timestamp_seconds{{{}}} 1800086400", of("web")),
        format!("lifeboat_backup_late{{{}}} 1", of("new")),
        format!("lifeboat_backup_late{{{}}} 0", of("web")),
        format!("lifeboat_backup_last_result{{{},reason=\"Other\"}} 0", of("bad")),
        format!("lifeboat_backup_last_result{{{},reason=\"Succeeded\"}} 1", of("web")),
        "lifeboat_backup_series_left_out 0".to_owned(),
    ];
    let told: Vec<&str> = text.lines().filter(|l| !l.starts_with('#')).collect();
    assert_eq!(told, expected, "{text}");
}

#[test]
fn of_too_many_those_that_are_late_are_told_and_the_rest_is_counted() {
    let exporter = Exporter::default();
    assert!(exporter.read(2).0.is_empty(), "one that does not lead knows of none");
    let late = Backups { late: Some(true), ..Backups::default() };
    let all = vec![series("a", good()), series("c", good()), series("b", good()), series("z", late)];
    exporter.follow(Some(Arc::new(move || all.clone())));
    let (told, left_out) = exporter.read(2);
    assert_eq!(told.iter().map(|s| s.labels.name.as_str()).collect::<Vec<_>>(), ["z", "a"]);
    assert_eq!(left_out, 2);
    assert_eq!(exporter.read(4).1, 0);
}

#[test]
fn what_is_told_is_what_stands_in_status() {
    let status = json!({ "phase": "Ready", "nextScheduleTime": "2027-01-16T08:00:00Z",
        "lastSuccessTime": "2027-01-15T08:00:00Z",
        "lastBackup": { "session": "s", "phase": "Failed", "reason": "WrongPassword", "time": "2027-01-15T09:00:00Z" },
        "conditions": [{ "type": "BackupsLate", "status": "True", "lastTransitionTime": "2027-01-15T09:00:00Z" }] });
    let object = |kind: &str, target: serde_json::Value| {
        let mut spec = json!({ "repository": { "name": "s3", "namespace": "store" },
            "retentionPolicy": { "name": "r", "keepLast": 1, "prune": false } });
        spec.as_object_mut().unwrap().extend(target.as_object().unwrap().clone());
        json!({ "apiVersion": "stash.appscode.com/v1beta1", "kind": kind,
            "metadata": { "name": "web", "namespace": "shop" }, "spec": spec, "status": status })
        .to_string()
    };
    let expected = Backups {
        success: Some(1_800_000_000),
        next: Some(1_800_086_400),
        late: Some(true),
        result: Some((false, "WrongPassword".into())),
    };
    let one: Stored<BackupConfiguration> = serde_json::from_str(&object("BackupConfiguration", json!({}))).unwrap();
    let many: Stored<BackupBatch> = serde_json::from_str(&object("BackupBatch", json!({ "members": [] }))).unwrap();
    let of = |facts: &Facts| facts.backups.as_deref().cloned();
    assert_eq!((of(one.facts()), of(many.facts())), (Some(expected.clone()), Some(expected)));
}

/// Whether an expression of the docs returns anything for these metrics: `m OP n`, `m{l!="v"} OP n`, `max by (..) (m)
/// OP n`, `absent(m OP n)`.
fn fires(expression: &str, text: &str) -> bool {
    if let Some(inner) = expression.strip_prefix("absent(").and_then(|e| e.strip_suffix(')')) {
        return !fires(inner, text);
    }
    let words: Vec<&str> = expression.split(' ').collect();
    let [before @ .., operator, number] = words.as_slice() else { panic!("{expression}") };
    let metric = before.last().unwrap().trim_matches(['(', ')']);
    let (metric, without) = match metric.split_once('{') {
        Some((metric, label)) => (metric, Some(label.trim_end_matches('}').replace("!=", "="))),
        None => (metric, None),
    };
    if before.len() > 1 {
        let group = before[..before.len() - 1].join(" ");
        assert_eq!(group, "max by (namespace, kind, name, repository)", "{expression}");
    }
    let number: f64 = number.parse().unwrap();
    let mut values = text.lines().filter_map(|line| {
        let (name, value) = line.rsplit_once(' ')?;
        let is_left_out = without.as_ref().is_some_and(|label| name.contains(label));
        (name.split('{').next()? == metric && !is_left_out).then(|| value.parse::<f64>().unwrap())
    });
    values.any(|value| match *operator {
        "==" => (value - number).abs() < f64::EPSILON,
        ">" => value > number,
        other => panic!("{other} in {expression}"),
    })
}

#[test]
fn the_rules_in_the_docs_wake_somebody_when_they_should_and_only_then() {
    let rules = PAGE.split("```yaml").find(|block| block.trim_start().starts_with("groups:")).unwrap();
    let rules = crate::yaml::read(rules.split("```").next().unwrap()).unwrap().remove(0);
    let rule = |name: &str| {
        let all = rules["groups"][0]["rules"].as_array().unwrap();
        let found = all.iter().find(|r| r["alert"] == name).unwrap_or_else(|| panic!("no {name}"));
        found["expr"].as_str().unwrap().to_owned()
    };
    assert_eq!(rules["groups"][0]["rules"].as_array().unwrap().len(), 4, "each is tried here");
    let late = Backups { late: Some(true), ..good() };
    let failed = Backups { result: Some((false, "WrongPassword".into())), ..good() };
    let canceled = Backups { result: Some((false, "Canceled".into())), ..good() };
    let metrics = super::super::Metrics::default();
    let text = |all: Vec<Series>, leads: bool| {
        metrics.leading(leads);
        metrics.follow(Arc::new(move || all.clone()));
        metrics.render()
    };
    let fine = text(vec![series("web", good()), series("by-hand", Backups { late: None, next: None, ..good() })], true);
    let bad = text(vec![series("web", late), series("other", good())], true);
    let one_failed = text(vec![series("web", good()), series("other", failed)], true);
    let one_canceled = text(vec![series("web", good()), series("other", canceled)], true);
    let many = text((0..=MOST).map(|n| series(&n.to_string(), good())).collect(), true);
    let nobody = text(vec![], false);
    for (name, wakes) in [
        ("BackupsLate", &bad),
        ("LastBackupFailed", &one_failed),
        ("NobodyBacksUp", &nobody),
        ("BackupsNotWatched", &many),
    ] {
        for (index, numbers) in [&fine, &one_canceled, &bad, &one_failed, &many, &nobody].into_iter().enumerate() {
            assert_eq!(fires(&rule(name), numbers), std::ptr::eq(numbers, wakes), "{name}, {index}");
        }
    }
}
