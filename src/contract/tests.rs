//! Documents that the operator and its Jobs exchange: their versions, and what their environment does to them.

use crate::contract::restic::{
    Absent, Answer, Backup, Counts, Detail, Pins, RepositoryAccess, Restored, Settings, Step, reads_what_is_there,
};
use crate::contract::{Asked, OLDEST_VERSION, Outcome, Part, Process, Run, Task, VERSION, upgrade};

#[test]
fn what_trusts_sizes_and_times_reads_instead() {
    let of = |args: &[&str]| reads_what_is_there(&args.iter().map(|a| (*a).to_owned()).collect::<Vec<_>>());
    assert_eq!(of(&["--overwrite=if-changed", "--sparse"]), ["--overwrite=always", "--sparse"]);
    assert_eq!(of(&["--overwrite", "if-changed"]), ["--overwrite", "always"]);
    assert_eq!(of(&["--tag", "if-changed", "--overwrite=never"]), ["--tag", "if-changed", "--overwrite=never"]);
}

#[test]
fn another_version_is_refused() {
    for version in [0, OLDEST_VERSION - 1, VERSION + 1] {
        let text = format!(
            r#"{{"version":{version},"run":{{"id":"","kind":"","namespace":"","name":""}},"step":{{"prepare":{{}}}}}}"#
        );
        assert!(Task::decode(&text).unwrap_err().contains(&format!("version {version}")));
        let outcome = format!(r#"{{"version":{version},"run":""}}"#);
        assert!(Outcome::decode(&outcome).unwrap_err().contains(&format!("version {version}")));
    }
}

/// Documents of the previous version, recorded as it wrote them: a Job that runs during an upgrade must not be lost.
///
/// Closes: defect 9 of the second engine.
#[test]
fn documents_of_the_version_before_are_read() {
    let texts: Vec<&str> = include_str!("recorded/tasks-2.jsonl").lines().collect();
    let tasks: Vec<Task> = texts.iter().map(|text| Task::decode(text).unwrap()).collect();
    let verbs: Vec<&str> = tasks.iter().map(|t| t.verb.as_str()).collect();
    assert_eq!(verbs, ["preflight", "restore", "prepare", "backup", "maintain", "list", "probe", "wipe"]);
    let process = Process { nice: Some(5), ionice_class: Some(2), ionice_class_data: Some(7) };
    for (task, text) in tasks.iter().zip(texts) {
        assert_eq!((task.version, task.run.name.as_str(), task.attempt, task.after_death), (VERSION, "all", 1, true));
        assert_eq!((&task.process, Asked::decode(text).unwrap().parts), (&process, task.parts.clone()));
        let work = task.work.restic().unwrap();
        assert_eq!(work.settings, Settings { no_cache: true, interim: true });
        assert!(work.repository.known && work.repository.create_bucket && work.repository.secret.is_some());
        assert_eq!(work.step.verb(), task.verb);
    }
    let part = |member, name: &str| Part { member, name: name.to_owned() };
    assert_eq!(tasks[0].parts, [part(1, "db-0")]);
    assert_eq!((&tasks[1].parts, &tasks[3].parts), (&vec![part(1, "db-0")], &vec![part(0, "db-0")]));
    assert!(tasks[2].parts.is_empty());
    let step = |at: usize| tasks[at].work.restic().unwrap().step.clone();
    let Step::Preflight(preflight) = step(0) else { panic!() };
    assert_eq!((preflight.hosts[0].source_host.as_str(), preflight.hosts[0].previous), ("db-0", 1));
    assert!(preflight.hosts[0].exact && preflight.together[0].pinned.is_some());
    let Step::Restore(restore) = step(1) else { panic!() };
    assert_eq!(restore.snapshots[0].path.as_deref(), Some("/data"));
    assert_eq!((restore.planned, restore.exact), (Some(Counts { files: 12, bytes: 4096 }), true));

    let texts: Vec<&str> = include_str!("recorded/outcomes-2.jsonl").lines().collect();
    let outcomes: Vec<Outcome> = texts.iter().map(|text| Outcome::decode(text).unwrap()).collect();
    assert!(outcomes.iter().all(|o| o.version == VERSION && o.run == tasks[0].run.id && o.seconds > 1.0));
    let Some(super::Answer::Found(found)) = &outcomes[0].answer else { panic!() };
    let pins = Pins::read(found[0].pin.as_ref());
    assert!(pins.packed.is_some() && found[0].part == part(1, "db-0") && found[0].warnings.len() == 1);
    assert_eq!(
        (pins.unpacked(&["/data".into()]).unwrap(), pins.owner.as_deref()),
        (restore.snapshots, Some("1000:1000"))
    );
    assert_eq!(Counts::of_planned(&found[0].planned), restore.planned);
    assert_eq!(Counts::of_planned(&found[1].planned), None);
    assert_eq!(Pins::read(found[1].pin.as_ref()).snapshots.len(), 1);
    assert_eq!(found[2].failure.as_ref().unwrap().reason, "SnapshotNotFound");
    let Some(super::Answer::Did(did)) = &outcomes[1].answer else { panic!() };
    let (planned, restored) = (Counts { files: 12, bytes: 4096 }, Counts { files: 11, bytes: 4000 });
    assert_eq!(Restored::of(&did.tallies), Some(Restored { planned, restored, errors: 1, deleted: Some(2) }));
    let answer = |at: usize| match &outcomes[at].answer {
        Some(super::Answer::Restic(answer)) => answer.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(answer(2), Answer::Prepared { created: true });
    let saved = answer(3).saved(&["/data".to_owned()]).unwrap().unwrap();
    assert_eq!((saved[0].made.total_files, saved[0].made.uploaded_bytes, saved[0].detail), (12, 512, Detail::All));
    assert_eq!(answer(4).saved(&vec!["/data".to_owned(); 40]).unwrap().unwrap().len(), 40);
    assert!(matches!(answer(5), Answer::Maintained(f) if f.retained && f.removed == 3 && f.would_remove == Some(1)));
    assert_eq!(answer(6), Answer::Listed { snapshots: 3, written: 1, removed: 2, absent: Some(Absent::Bucket) });
    assert_eq!((answer(7), answer(8)), (Answer::Probed, Answer::Wiped { snapshots: 3 }));
    assert_eq!((outcomes[9].failure.as_ref().unwrap().exit_code, outcomes[9].untouched), (Some(10), true));
    // What tests write in the form of the previous version equals what it wrote.
    for (text, outcome) in texts.iter().zip(&outcomes) {
        let written: serde_json::Value = serde_json::from_str(text).unwrap();
        let mut again = upgrade::before(serde_json::to_value(outcome).unwrap());
        if let Some(hosts) = again.pointer_mut("/answer/preflight").and_then(|h| h.as_array_mut()) {
            for host in hosts {
                host.as_object_mut().unwrap().entry("snapshots").or_insert_with(|| serde_json::json!([]));
            }
        }
        assert_eq!(again, written);
    }
}

/// The kubelet expands `$(NAME)` in the value of a variable, and a user may set NAME.
#[test]
fn a_task_has_nothing_that_the_kubelet_would_expand() {
    let exclude = vec!["$(INJECTED)".to_owned(), "a$$(b)$".to_owned()];
    let step = Step::Backup(Backup { exclude: exclude.clone(), ..Backup::default() });
    let work = super::restic::Work { repository: RepositoryAccess::default(), settings: Settings::default(), step };
    let task = Task::new(Run::default(), "backup", vec![], super::Work::Restic(Box::new(work)));
    let text = task.encode();
    assert!(!text.contains('$'), "{text}");
    assert_eq!(Task::decode(&text).unwrap(), task);
}
