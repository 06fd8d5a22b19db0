//! A repository that refuses access, is damaged, is locked or is removed.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use lifeboat::contract::Runner;
use lifeboat::contract::restic::{Answer, Backup, HostQuery, Maintain, Preflight, Prepare, Probe, Restore, Step, Wipe};
use lifeboat::contract::{Class, Task};
use lifeboat::names::reason;

use super::site::{HASTY, PASSWORD, Site, replace, restic, strings, wait_for, work};
use super::support::tree::{describe, write_noise};

/// Stash passes the value to restic unchanged, and `echo` ends it with a line break.
///
/// Closes: R02 of the reports.
#[test]
#[ignore = "needs root and restic: make test-agent"]
fn a_password_with_a_line_break_opens_what_was_made_with_it_and_without() {
    for (whole, warns) in
        [(format!("{PASSWORD}\n"), true), (format!(" {PASSWORD} \r\n"), true), (PASSWORD.to_owned(), false)]
    {
        let site = Site::empty();
        let init = Command::new(restic()).args(["--repo", &site.url, "init"]).env("RESTIC_PASSWORD", &whole).output();
        assert!(init.unwrap().status.success());
        fs::write(site.path("secret/RESTIC_PASSWORD"), &whole).unwrap();
        let (data, path) = site.data("data");
        fs::write(data.join("f"), "x").unwrap();
        assert_eq!(*site.run(Step::Prepare(Prepare {})).answer(), Answer::Prepared { created: false });
        site.backup("host-0", &[&path]);
        site.target(&path);
        let ended = site.run(Step::Restore(site.step(&[&path])));
        ended.restored();
        let said = ended.outcome.warnings.iter().any(|w| w.contains("RESTIC_PASSWORD") && !w.contains("correct"));
        assert_eq!((said, ended.outcome.warnings.len()), (warns, usize::from(warns)), "{:?}", ended.outcome);
        assert!(!ended.log.contains(PASSWORD));
    }
    // The repository was made without the line break, as a password file is read. So is a new repository.
    let site = Site::new();
    for whole in [format!("{PASSWORD}\n"), format!("\t{PASSWORD}")] {
        fs::write(site.path("secret/RESTIC_PASSWORD"), whole).unwrap();
        let ended = site.run(Step::Prepare(Prepare {}));
        assert_eq!((ended.answer(), ended.outcome.warnings.len()), (&Answer::Prepared { created: false }, 0));
    }
    fs::write(site.path("secret/RESTIC_PASSWORD"), "something else\n").unwrap();
    site.run(Step::Prepare(Prepare {})).failed(Class::Invalid, reason::WRONG_PASSWORD);
    let site = Site::empty();
    fs::write(site.path("secret/RESTIC_PASSWORD"), format!("{PASSWORD}\n")).unwrap();
    assert_eq!(*site.run(Step::Prepare(Prepare {})).answer(), Answer::Prepared { created: true });
    fs::write(site.path("secret/RESTIC_PASSWORD"), PASSWORD).unwrap();
    assert_eq!(*site.run(Step::Prepare(Prepare {})).answer(), Answer::Prepared { created: false });
}

/// The snapshot was made by a machine whose clock was wrong.
///
/// Closes: R21 of the reports.
#[test]
#[ignore = "needs root and restic: make test-agent"]
fn a_snapshot_of_the_future_is_told_and_not_taken_for_the_latest() {
    let site = Site::new();
    let (data, path) = site.data("data");
    fs::write(data.join("f"), "future").unwrap();
    let status = site.restic(&["backup", "--host", "host-0", "--time", "2037-01-01 00:00:00", &path]).output().unwrap();
    assert!(status.status.success());
    let query = HostQuery {
        source_host: "host-0".into(),
        paths: vec![path.clone()],
        mounts: vec![path.clone()],
        ..HostQuery::default()
    };
    let asked = || site.resolve(query.clone()).hosts()[0].clone();
    let alone = asked();
    assert!(alone.snapshots.len() == 1 && alone.warnings[0].contains("has the time 2037-01-01T00:00:00Z"), "{alone:?}");
    fs::write(data.join("f"), "today").unwrap();
    let made = site.backup("host-0", &[&path]);
    let both = asked();
    assert_eq!(both.snapshots[0].id, made[0].id);
    assert!(both.warnings[0].contains("not selected as latest"), "{both:?}");
}

/// Proves: defect 12.
#[test]
#[ignore = "needs root and restic: make test-agent"]
fn what_is_wrong_with_the_repository_is_said() {
    let site = Site::empty();
    let look = || site.run(Step::Preflight(Preflight { hosts: vec![], ..Preflight::default() }));
    assert_eq!(look().failed(Class::Invalid, reason::REPOSITORY_MISSING).exit_code, Some(10));
    site.run(Step::Prepare(Prepare {})).answer();
    assert_eq!(*site.run(Step::Prepare(Prepare {})).answer(), Answer::Prepared { created: false });

    fs::write(site.path("secret/RESTIC_PASSWORD"), "something else").unwrap();
    assert_eq!(look().failed(Class::Invalid, reason::WRONG_PASSWORD).exit_code, Some(12));
    // The agent never creates a repository because a password does not open one.
    site.run(Step::Prepare(Prepare {})).failed(Class::Invalid, reason::WRONG_PASSWORD);
    fs::write(site.path("secret/RESTIC_PASSWORD"), "").unwrap();
    assert!(look().failed(Class::Invalid, reason::SECRET_INCOMPLETE).message.contains("RESTIC_PASSWORD"));
    fs::remove_file(site.path("secret/RESTIC_PASSWORD")).unwrap();
    assert!(look().failed(Class::Invalid, reason::SECRET_INCOMPLETE).message.contains("RESTIC_PASSWORD"));
}

#[test]
#[ignore = "needs root and restic: make test-agent"]
fn a_store_that_does_not_answer_is_said_at_once() {
    let site = Site::empty();
    fs::write(site.path("secret/AWS_ACCESS_KEY_ID"), "AKIA-not-for-the-log").unwrap();
    let mut task = site.task(Step::Preflight(Preflight { hosts: vec![], ..Preflight::default() }));
    work(&mut task).repository.url = "s3:http://127.0.0.1:9/bucket/prefix".into();
    assert!(
        site.run_task(&task)
            .failed(Class::Invalid, reason::SECRET_INCOMPLETE)
            .message
            .contains("AWS_SECRET_ACCESS_KEY")
    );
    fs::write(site.path("secret/AWS_SECRET_ACCESS_KEY"), "secret-not-for-the-log").unwrap();
    let started = Instant::now();
    let ended = site.run_task(&task);
    let failure = ended.failed(Class::Transient, reason::REPOSITORY_UNREACHABLE);
    assert!(failure.message.contains("127.0.0.1:9") && !failure.message.contains("not-for-the-log"));
    assert!(!ended.log.contains("not-for-the-log"));
    assert!(started.elapsed() < Duration::from_secs(10));
}

/// Proves: A04.
#[test]
#[ignore = "needs root and restic: make test-agent"]
fn a_damaged_pack_is_data_and_the_rest_is_salvaged() {
    let site = Site::new();
    let (data, path) = site.data("data");
    write_noise(&data.join("big"), 40 << 20, 5);
    for n in 0..20 {
        write_noise(&data.join(format!("small-{n}")), 20_000, 100 + n);
    }
    site.backup("host-0", &[&path]);
    let step = site.step(&[&path]);
    site.target(&path);

    let pack = site.packs().remove(0);
    let mut bytes = fs::read(&pack).unwrap();
    let good = bytes.clone();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 4096].fill(0xAA);
    replace(&pack, &bytes);
    let ended = site.run(Step::Restore(step.clone()));
    ended.failed(Class::Data, reason::DATA_CORRUPT);
    let counts = ended.counts().unwrap();
    assert!(counts.errors > 0 && counts.restored.files + 1 == counts.planned.files, "{counts:?}");
    let ended = site.run(Step::Maintain(Maintain::default()));
    let Answer::Maintained(facts) = ended.answer() else { panic!() };
    assert_eq!(facts.integrity, Some(true), "a check without reading data cannot see flipped bytes");

    replace(&pack, &good[..good.len() / 2]);
    site.run(Step::Restore(step.clone())).failed(Class::Data, reason::DATA_CORRUPT);

    fs::remove_file(&pack).unwrap();
    let ended = site.run(Step::Restore(step));
    ended.failed(Class::Data, reason::DATA_CORRUPT);
    let ended = site.run(Step::Maintain(Maintain::default()));
    ended.failed(Class::Data, reason::DATA_CORRUPT);
    let Some(Answer::Maintained(facts)) = ended.own() else { panic!() };
    assert_eq!(facts.integrity, Some(false));
    replace(&pack, &good);
    site.run(Step::Maintain(Maintain::default())).answer();
}

/// Proves: A04.
#[test]
#[ignore = "needs root and restic: make test-agent"]
fn a_tree_that_is_gone_is_data_and_nothing_is_written() {
    let site = Site::new();
    let (data, path) = site.data("data");
    write_noise(&data.join("f"), 10, 5);
    site.backup("host-0", &[&path]);
    let step = site.step(&[&path]);
    let target = site.target(&path);
    let _ = fs::remove_dir_all(site.path("work"));
    for pack in site.packs() {
        fs::remove_file(pack).unwrap();
    }
    site.run(Step::Restore(step)).failed(Class::Data, reason::DATA_CORRUPT);
    assert_eq!(fs::read_dir(target).unwrap().count(), 0);
}

/// Proves: C10, defect 11, invented 12.
#[test]
#[ignore = "needs root and restic: make test-agent"]
fn a_live_command_that_removes_data_is_waited_for_and_a_dead_ones_lock_is_not() {
    let site = Site::new();
    let (data, path) = site.data("data");
    write_noise(&data.join("f"), 2_000_000, 5);
    site.backup("host-0", &[&path]);
    let step = site.step(&[&path]);
    site.target(&path);
    // A check holds an exclusive lock, as a prune does. The check still runs, so its lock must not count as stale.
    let slow = ["check", "--read-data", "--limit-download", "20"];
    let mut child = site.restic(&slow).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_for(|| site.locks() > 0);
    let query = HostQuery {
        source_host: "host-0".into(),
        paths: vec![path.clone()],
        mounts: vec![path.clone()],
        ..HostQuery::default()
    };
    let ended = site.resolve(query.clone());
    let failure = ended.failed(Class::Transient, reason::REPOSITORY_LOCKED);
    assert!(failure.message.contains("never removes the lock of a running command"), "{}", failure.message);
    // A command that is already running continues.
    site.run(Step::Restore(step)).restored();
    assert_eq!(site.locks(), 1);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(site.locks(), 1, "killed, it leaves its lock");
    // Half an hour later.
    let script = r#"case " $* " in *" cat lock "*) "$RESTIC" "$@" | sed 's/"time": "20../"time": "2001/';; *) exec "$RESTIC" "$@";; esac"#;
    let preflight = Preflight { hosts: vec![query], ..Preflight::default() };
    let ended = site.run_through(script, &site.task(Step::Preflight(preflight)));
    assert_eq!(ended.hosts()[0].failure, None);
    assert_eq!(site.locks(), 1);
}

/// Proves: A04.
#[test]
#[ignore = "needs root and restic: make test-agent"]
fn a_truncated_index_is_data_and_nothing_is_written() {
    let site = Site::new();
    let (data, path) = site.data("data");
    write_noise(&data.join("f"), 100_000, 5);
    site.backup("host-0", &[&path]);
    let step = site.step(&[&path]);
    let target = site.target(&path);
    let _ = fs::remove_dir_all(site.path("work"));
    for index in fs::read_dir(site.path("repo/index")).unwrap() {
        let index = index.unwrap().path();
        let bytes = fs::read(&index).unwrap();
        replace(&index, &bytes[..bytes.len() / 2]);
    }
    site.run(Step::Restore(step)).failed(Class::Data, reason::DATA_CORRUPT);
    assert_eq!(fs::read_dir(target).unwrap().count(), 0);
}

/// Proves: C10, defect 11.
#[test]
#[ignore = "needs root and restic: make test-agent"]
fn the_lock_of_a_dead_command_stops_no_backup_and_that_of_a_live_one_stays() {
    let site = Site::new();
    let (data, path) = site.data("data");
    write_noise(&data.join("f"), 2_000_000, 5);
    site.backup("host-0", &[&path]);
    let slow = ["check", "--read-data", "--limit-download", "20"];
    let mut child = site.restic(&slow).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_for(|| site.locks() > 0);
    let backup = Backup { host: "host-0".into(), paths: strings(&[&path]), ..Backup::default() };
    let steps = [Step::Backup(backup), Step::Maintain(Maintain::default())];
    for step in &steps {
        let ended = site.run_through(HASTY, &site.task(step.clone()));
        let failure = ended.failed(Class::Transient, reason::REPOSITORY_LOCKED);
        assert!(failure.message.contains("if the command no longer runs"), "{}", failure.message);
        assert_eq!(site.locks(), 1, "the lock stays");
    }
    for step in &steps {
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(site.locks(), 1, "killed, it leaves its lock");
        let mut task = site.task(step.clone());
        // The lock is from a pod that was removed; the pod may still run on a node that is cut off.
        site.run_through(HASTY, &task).failed(Class::Transient, reason::REPOSITORY_LOCKED);
        assert_eq!(site.locks(), 1);
        task.after_death = true;
        site.run_through(HASTY, &task).answer();
        assert_eq!(site.locks(), 0);
        child = site.restic(&slow).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        wait_for(|| site.locks() > 0);
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Proves: C10, defect 11.
#[test]
#[ignore = "needs root and restic: make test-agent"]
fn a_restic_that_is_killed_takes_its_lock_along() {
    let site = Site::new();
    let (data, path) = site.data("data");
    write_noise(&data.join("f"), 2_000_000, 5);
    let step = Step::Backup(Backup { host: "host-0".into(), paths: strings(&[&path]), ..Backup::default() });
    let script = format!(
        r#"case " $* " in *" backup "*) ;; *) exec "$RESTIC" "$@";; esac
"$RESTIC" "$@" --limit-upload 20 & restic=$!
until ls {locks} | grep -q '^[0-9a-f]\{{64\}}$'; do sleep 0.05; done
ls /proc/$PPID/task | wc -l > {threads}; kill -9 $restic; wait $restic; kill -9 $$"#,
        locks = site.path("repo/locks").display(),
        threads = site.path("threads").display(),
    );
    let ended = site.run_through(&script, &site.task(step));
    ended.failed(Class::Transient, reason::OOM_KILLED);
    // In a Job's pod, the id of a second thread could equal that of a dead restic, which would then count as running.
    assert_eq!(fs::read_to_string(site.path("threads")).unwrap().trim(), "1");
    assert_eq!(site.locks(), 0);
}

/// Proves: C10, defect 11.
#[test]
#[ignore = "needs root and restic: make test-agent"]
fn an_old_lock_is_removed_only_if_nobody_renews_it() {
    let site = Site::new();
    let (_, path) = site.data("data");
    let backup = Backup { host: "host-0".into(), paths: strings(&[&path]), ..Backup::default() };
    // The second list of locks has the name in `$NEXT`; the lock is of another machine, and old by the local clock.
    let run = |next: &str, age: &str| {
        for mark in ["listed", "unlocked"] {
            let _ = fs::remove_file(site.path(mark));
        }
        let here = site.dir.path().display();
        let script = format!(
            r#"case " $* " in
*" list locks "*) if [ -e {here}/listed ]; then echo {next}; else touch {here}/listed; echo aaaa; fi; exit;;
*" cat lock "*) echo '{{"time":"{age}","exclusive":true,"hostname":"elsewhere","pid":1}}'; exit;;
*" unlock "*) touch {here}/unlocked; exit;;
*" backup "*) [ -e {here}/unlocked ] || exit 11;;
esac
exec "$RESTIC" "$@""#
        );
        let ended = site.run_through(&script, &site.task(Step::Backup(backup.clone())));
        (ended, site.path("unlocked").exists())
    };
    let (ended, unlocked) = run("aaaa", "2001-01-01T00:00:00Z");
    ended.answer();
    assert!(unlocked);
    let (ended, unlocked) = run("bbbb", "2001-01-01T00:00:00Z");
    ended.failed(Class::Transient, reason::REPOSITORY_LOCKED);
    assert!(!unlocked, "somebody renews it: it is our clock that is wrong");
    let (ended, unlocked) = run("aaaa", "2999-01-01T00:00:00Z");
    ended.failed(Class::Transient, reason::REPOSITORY_LOCKED);
    assert!(!unlocked);
}

/// Proves: A04.
#[test]
#[ignore = "needs root and restic: make test-agent"]
fn what_a_prune_has_moved_meanwhile_is_read_again() {
    let site = Site::new();
    let (data, path) = site.data("data");
    write_noise(&data.join("f"), 100_000, 5);
    site.backup("host-0", &[&path]);
    let target = site.target(&path);
    let step = site.step(&[&path]);
    let restore = site.task(Step::Restore(step.clone()));
    let query = HostQuery {
        source_host: "host-0".into(),
        paths: vec![path.clone()],
        mounts: vec![path.clone()],
        runner: Some(Runner { uid: 0, gids: vec![0] }),
        ..HostQuery::default()
    };
    let preflight = site.task(Step::Preflight(Preflight { hosts: vec![query], ..Preflight::default() }));
    // A command of each kind finds an outdated index, `times` times.
    let run = |pattern: &str, times: u32, task: &Task| {
        let count = site.path("count");
        fs::write(&count, "").unwrap();
        let script = format!(
            r#"case " $* " in {pattern})
if [ $(wc -c < {0}) -lt {times} ]; then printf x >> {0}
echo '{{"message_type":"error","error":{{"message":"Load(<data/1c2d3e4f>, 4242, 0): The specified key does not exist."}},"during":"restore","item":"{path}/f"}}' >&2
echo '{{"message_type":"exit_error","code":1,"message":"Fatal: There were 1 errors"}}' >&2
exit 1; fi;; esac
exec "$RESTIC" "$@""#,
            count.display()
        );
        let ended = site.run_through(&script, task);
        assert_eq!(
            fs::read(&count).unwrap().len(),
            usize::try_from(times.min(2)).unwrap(),
            "{pattern}
{}",
            ended.log
        );
        ended
    };
    // A snapshot without known paths is looked up.
    let mut unnamed = step.clone();
    unnamed.snapshots[0].path = None;
    let unnamed = site.task(Step::Restore(unnamed));
    for (pattern, task) in [("*' ls '*", &restore), ("*' restore '*", &restore), ("*' snapshots '*", &unnamed)] {
        assert_eq!(run(pattern, 1, task).restored().planned.files, 2, "{pattern}");
        fs::remove_file(target.join("f")).unwrap();
        run(pattern, 9, task).failed(Class::Data, reason::DATA_CORRUPT);
    }
    for pattern in ["*' ls '*", "*' snapshots '*"] {
        assert_eq!(run(pattern, 1, &preflight).hosts()[0].failure, None, "{pattern}");
    }
    let ended = run("*' ls '*", 9, &preflight);
    assert_eq!(ended.hosts()[0].failure.as_ref().unwrap().reason, reason::DATA_CORRUPT);
    // With these arguments, files that a run has begun to write would stay as they are: no retry.
    let keeps = site.task(Step::Restore(Restore { args: strings(&["--overwrite", "never"]), ..step }));
    let ended = run("*' restore '*", 1, &keeps);
    ended.failed(Class::Data, reason::DATA_CORRUPT);
}

#[test]
#[ignore = "needs root and restic: make test-agent"]
fn a_probe_opens_and_a_wipe_takes_all_of_this_repository_and_nothing_else() {
    let site = Site::empty();
    site.run(Step::Probe(Probe {})).failed(Class::Invalid, reason::REPOSITORY_MISSING);
    assert_eq!(*site.run(Step::Wipe(Wipe {})).answer(), Answer::Wiped { snapshots: 0 }, "nothing is there");
    let site = Site::new();
    assert_eq!(*site.run(Step::Probe(Probe {})).answer(), Answer::Probed);
    // As old Stash stored the members of a BackupBatch: a repository below the prefix.
    let below = site.path("repo/deployment/web");
    let init = site.restic(&["init"]).args(["--repo", &below.to_string_lossy()]).output().unwrap();
    assert!(init.status.success(), "{}", String::from_utf8_lossy(&init.stderr));
    let before = describe(&below);
    let (_, a) = site.data("a");
    let (_, b) = site.data("b");
    site.backup("host-0", &[&a]);
    site.backup("host-1", &[&b]);
    assert!(!site.packs().is_empty());
    assert_eq!(*site.run(Step::Wipe(Wipe {})).answer(), Answer::Wiped { snapshots: 2 });
    assert!(site.packs().is_empty(), "no data is left");
    assert_eq!(fs::read_dir(site.path("repo/snapshots")).unwrap().count(), 0);
    assert_eq!(describe(&below), before, "what is another's stays");
    assert_eq!(*site.run(Step::Wipe(Wipe {})).answer(), Answer::Wiped { snapshots: 0 }, "twice is once");
}
