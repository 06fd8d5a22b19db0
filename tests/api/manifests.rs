//! Published manifests apply unchanged, and each object reaches the expected state.

use std::fs;
use std::path::Path;

use lifeboat::admission::{check, kind_of, message};

use super::cluster::Cluster;
use super::operator::Operator;

/// Final state of each object that the operator reconciles: file, kind, phase, and the beginning of its summary or
/// `Ready` condition. The message for a feature that is not implemented yet names its field.
const ENDS: &str = include_str!("manifests.tsv");

/// Proves: D02.
#[tokio::test]
#[ignore = "needs an API server: make test-api"]
async fn each_applies_strictly_and_ends_where_it_should() {
    let cluster = Cluster::alone().await;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/manifests/stash");
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|f| f.unwrap().path()).collect();
    files.retain(|f| f.extension().is_some_and(|e| e == "yaml"));
    files.sort();
    let mut applied = vec![];
    for (index, file) in files.iter().enumerate() {
        // Different files use the same names.
        let namespace = format!("published-{index}");
        cluster.ensure_namespace(&namespace).await;
        for mut object in lifeboat::yaml::read(&fs::read_to_string(file).unwrap()).unwrap() {
            object["metadata"]["namespace"] = namespace.clone().into();
            if ["BackupBlueprint", "Function", "Task"].contains(&object["kind"].as_str().unwrap()) {
                object["metadata"].as_object_mut().unwrap().remove("namespace");
            }
            let name = file.file_name().unwrap().to_str().unwrap().to_owned();
            let made = cluster.apply(&object).await.unwrap_or_else(|e| panic!("{name}: {e}"));
            applied.push((name, object, made));
        }
    }
    assert_eq!((files.len(), applied.len()), (44, 51));
    let _operator = Operator::leading(&cluster).await;
    let mut found = vec![];
    for (file, object, made) in &applied {
        let kind = object["kind"].as_str().unwrap();
        if kind_of(kind).is_none() || ["Function", "Task"].contains(&kind) {
            continue;
        }
        let now = cluster.until(made, &format!("{file} {kind}"), |o| o["status"]["conditions"].is_array()).await;
        let ready = super::cluster::message(&now, "Ready");
        let errors = check(kind, object, None);
        if !errors.is_empty() && kind != "BackupSession" {
            assert_eq!(super::cluster::message(&now, "ValidationPassed"), message(&errors), "{file} {kind}");
        }
        let phase = now["status"]["phase"].as_str().unwrap_or("-");
        let namespace = object["metadata"]["namespace"].as_str().unwrap_or_default();
        let line = if namespace.is_empty() { ready.to_owned() } else { ready.replace(namespace, "NS") };
        found.push(format!("{file}\t{kind}\t{phase}\t{line}"));
    }
    let expected: Vec<&str> = ENDS.lines().collect();
    let wrong: Vec<String> = (0..found.len().max(expected.len()))
        .filter_map(|i| {
            let (f, e) = (found.get(i).map_or("", String::as_str), expected.get(i).copied().unwrap_or("nothing"));
            // The message begins with the field; the rest of the words may change.
            (!f.starts_with(e)).then(|| format!("expected {e}\nfound    {f}"))
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
