//! What goes between operator and Jobs: versions, and what surroundings do to it.

use super::restic::*;
use super::*;

#[test]
fn what_trusts_sizes_and_times_reads_instead() {
    let of = |args: &[&str]| reads_what_is_there(&args.iter().map(|a| (*a).to_owned()).collect::<Vec<_>>());
    assert_eq!(of(&["--overwrite=if-changed", "--sparse"]), ["--overwrite=always", "--sparse"]);
    assert_eq!(of(&["--overwrite", "if-changed"]), ["--overwrite", "always"]);
    assert_eq!(of(&["--tag", "if-changed", "--overwrite=never"]), ["--tag", "if-changed", "--overwrite=never"]);
}

#[test]
fn another_version_is_refused() {
    for version in [0, VERSION + 1] {
        let text = format!(
            r#"{{"version":{version},"run":{{"id":"","kind":"","namespace":"","name":""}},"repository":{{"url":""}},"step":{{"prepare":{{}}}}}}"#
        );
        assert!(Task::decode(&text).unwrap_err().contains(&format!("version {version}")));
        let outcome = format!(r#"{{"version":{version},"run":""}}"#);
        assert!(Outcome::decode(&outcome).unwrap_err().contains(&format!("version {version}")));
    }
}

/// What the version before wrote, recorded as it wrote it: a Job in flight during an upgrade must not be lost.
///
/// Closes: defect 9 of the second engine.
#[test]
fn documents_of_the_version_before_are_read() {
    let tasks: Vec<Task> =
        include_str!("recorded/tasks-1.jsonl").lines().map(|line| Task::decode(line).unwrap()).collect();
    let verbs: Vec<&str> = tasks.iter().map(|t| t.step.verb()).collect();
    assert_eq!(verbs, ["preflight", "restore", "prepare", "backup", "maintain", "list", "probe", "wipe"]);
    assert!(tasks.iter().all(|t| t.version == 1 && t.run.name == "all" && t.settings.nice == Some(5)));
    let Step::Preflight(preflight) = &tasks[0].step else { panic!() };
    assert_eq!((preflight.hosts[0].host.as_str(), preflight.hosts[0].previous), ("db-0", 1));
    let Step::Restore(restore) = &tasks[1].step else { panic!() };
    assert_eq!(restore.snapshots[0].path.as_deref(), Some("/data"));

    let outcomes: Vec<Outcome> =
        include_str!("recorded/outcomes-1.jsonl").lines().map(|line| Outcome::decode(line).unwrap()).collect();
    assert!(outcomes.iter().all(|o| o.version == 1 && o.run == tasks[0].run.id));
    let Some(Answer::Preflight(hosts)) = &outcomes[0].answer else { panic!() };
    assert_eq!(hosts[0].pins(&[]).unwrap(), restore.snapshots);
    assert_eq!(hosts[1].failure.as_ref().unwrap().reason, "SnapshotNotFound");
    assert!(
        matches!(&outcomes[1].answer, Some(Answer::Restored(r)) if r.planned.files == 12 && r.planned == r.restored)
    );
    let saved = outcomes[3].saved(&["/data".to_owned()]).unwrap().unwrap();
    assert_eq!((saved[0].made.total_files, saved[0].made.uploaded_bytes, saved[0].detail), (12, 512, Detail::All));
    assert!(matches!(&outcomes[4].answer, Some(Answer::Maintained(f)) if f.retained && f.removed == 3));
    assert_eq!(outcomes[8].failure.as_ref().unwrap().exit_code, Some(10));
}

/// The kubelet expands `$(NAME)` in the value of a variable, and a user may set NAME.
#[test]
fn a_task_has_nothing_that_the_kubelet_would_expand() {
    let exclude = vec!["$(INJECTED)".to_owned(), "a$$(b)$".to_owned()];
    let step = Backup { exclude: exclude.clone(), ..Backup::default() };
    let task = Task {
        version: VERSION,
        run: Run::default(),
        repository: RepositoryAccess::default(),
        settings: Settings::default(),
        step: Step::Backup(step),
    };
    let text = task.encode();
    assert!(!text.contains('$'), "{text}");
    assert_eq!(Task::decode(&text).unwrap(), task);
}
