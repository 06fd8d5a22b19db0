//! The agent as a process: its task, its folders, its end, and the data that other processes can read of it.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use lifeboat::contract::restic::{Answer, Maintain, Prepare, Restore, Step};
use lifeboat::contract::{Class, Process, Progress};
use lifeboat::names::reason;

use super::site::{PASSWORD, Site, kill, strings, wait_for, wait_for_restic, work};
use super::support::tree::write_noise;

#[test]
#[ignore = "needs root and restic: make test-agent"]
fn cache_and_temporary_files_go_to_the_interim_volume() {
    let site = Site::new();
    let (data, path) = site.data("data");
    fs::write(data.join("f"), "x").unwrap();
    site.backup("host-0", &[&path]);
    fs::remove_dir_all(site.path("work")).unwrap();
    fs::create_dir(site.path("interim")).unwrap();
    let _ = fs::remove_file(site.path("outcome"));
    let mut task = site.task(Step::Maintain(Maintain::default()));
    work(&mut task).settings.interim = true;
    let child = site.command(&task.encode(), &[]).arg("--interim-dir").arg(site.path("interim")).spawn().unwrap();
    site.finish(child).answer();
    assert!(fs::read_dir(site.path("interim/data/cache")).unwrap().count() > 0, "the cache is there");
    assert!(!site.path("work/cache").exists() && !site.path("work/tmp").exists());
    let all = Command::new("grep").args(["-r", "-l", PASSWORD]).arg(site.path("interim")).output().unwrap();
    assert!(all.stdout.is_empty(), "no secret outlives the pod");
}

/// Proves: C08.
#[test]
#[ignore = "needs root and restic: make test-agent"]
fn told_to_stop_it_ends_and_says_so() {
    let site = Site::new();
    let (data, path) = site.data("data");
    write_noise(&data.join("big"), 30 << 20, 5);
    site.backup("host-0", &[&path]);
    site.target(&path);
    let slow = Restore { args: strings(&["--limit-download", "500"]), ..site.step(&[&path]) };
    let task = site.task(Step::Restore(slow));
    let _ = fs::remove_file(site.path("outcome"));
    let child = site.command(&task.encode(), &[]).spawn().unwrap();
    let restic = wait_for_restic(child.id(), "restore");
    let started = Instant::now();
    kill(child.id(), "TERM");
    let ended = site.finish(child);
    ended.failed(Class::Transient, reason::TERMINATED);
    assert!(started.elapsed() < Duration::from_secs(20));
    assert!(!Path::new(&format!("/proc/{restic}")).exists(), "restic is still there");
}

#[test]
#[ignore = "needs root and restic: make test-agent"]
fn no_secret_is_where_others_can_read_it() {
    let site = Site::new();
    let (data, path) = site.data("data");
    write_noise(&data.join("big"), 64 << 20, 5);
    site.backup("host-0", &[&path]);
    site.target(&path);
    let port = 20_000 + u16::try_from(std::process::id() % 20_000).unwrap();
    let slow = Restore { args: strings(&["--limit-download", "4000"]), ..site.step(&[&path]) };
    let task = site.task(Step::Restore(slow)).encode();
    let mut command = site.command(&task, &[]);
    command.arg("--progress-port").arg(port.to_string());
    for name in ["MARK_OF_THE_PARENT", "RESTIC_REPOSITORY", "RESTIC_PASSWORD_COMMAND", "GODEBUG", "SSL_CERT_FILE"] {
        command.env(name, "leaks");
    }
    let child = command.spawn().unwrap();
    // The dry run comes first; wait for the run that writes.
    let restic = wait_for_restic(child.id(), "--sparse");
    let read =
        |file: &str| String::from_utf8_lossy(&fs::read(format!("/proc/{restic}/{file}")).unwrap()).replace('\0', "\n");
    let (argv, env) = (read("cmdline"), read("environ"));
    assert!(argv.contains("--no-lock") && argv.contains("--password-file"), "{argv}");
    for text in [&argv, &env] {
        assert!(!text.contains(PASSWORD), "{text}");
    }
    let names: Vec<_> = env.lines().filter_map(|l| l.split('=').next()).filter(|n| !n.is_empty()).collect();
    for name in &names {
        assert!(
            ["PATH", "HOME", "TMPDIR", "TZ", "RESTIC_PROGRESS_FPS", "GOMEMLIMIT", "GOMAXPROCS", "GOGC"].contains(name)
                || name.to_lowercase().ends_with("_proxy"),
            "{name} is passed on"
        );
    }
    // Progress can be read while the agent runs.
    let mut seen = Progress::default();
    wait_for(|| {
        seen = get_progress(port).unwrap_or_default();
        seen.bytes_done > 0
    });
    assert_eq!(seen.bytes_total, 64 << 20);
    kill(child.id(), "TERM");
    let ended = site.finish(child);
    for line in ended.log.lines().filter(|l| l.starts_with('{')) {
        assert!(line.contains("run-1"), "a line without the run: {line}");
    }
    assert!(ended.log.contains(r#""step":"restore""#) && ended.log.contains(r#""host":"host-0""#));
}

#[test]
#[ignore = "needs root and restic: make test-agent"]
fn nonsense_is_an_outcome_too() {
    let site = Site::empty();
    for task in [
        "",
        "{",
        r#"{"version":1}"#,
        r#"{"version":9,"run":{"id":"","kind":"","namespace":"","name":""},"repository":{"url":""},"step":{"prepare":{}}}"#,
    ] {
        let _ = fs::remove_file(site.path("outcome"));
        let ended = site.finish(site.command(task, &[]).spawn().unwrap());
        ended.failed(Class::Fatal, reason::AGENT_FAILED);
    }
}

#[test]
#[ignore = "needs root and restic: make test-agent"]
fn priorities_and_no_cache_are_honoured() {
    let site = Site::empty();
    let mut task = site.task(Step::Prepare(Prepare {}));
    work(&mut task).settings.no_cache = true;
    task.process = Process { nice: Some(5), ionice_class: Some(2), ionice_class_data: Some(7) };
    assert_eq!(*site.run_task(&task).answer(), Answer::Prepared { created: true });
    assert_eq!(fs::read_dir(site.path("work/cache")).unwrap().count(), 0);
}

#[test]
#[ignore = "needs root and restic: make test-agent"]
fn a_restic_that_is_not_there_is_said() {
    let site = Site::empty();
    let task = site.task(Step::Prepare(Prepare {})).encode();
    let ended = site.finish(site.command(&task, &[]).args(["--restic", "/nonexistent/restic"]).spawn().unwrap());
    assert!(ended.failed(Class::Fatal, reason::AGENT_FAILED).message.contains("could not be started"));
}

/// The author of a session may set variables of its Jobs. The variables that once moved the outcome, restic and the
/// root of a restore have no effect; and a restic that the user has put on the PATH is not run.
///
/// Closes: defect 7 of the second engine, row 6 of the attacks of tenants.
#[test]
#[ignore = "needs root and restic: make test-agent"]
fn no_variable_of_a_user_steers_the_agent() {
    let site = Site::new();
    let (data, path) = site.data("data");
    fs::write(data.join("file"), "content").unwrap();
    site.backup("host-0", &[&path]);
    let target = site.target(&path);
    let (evil, ran) = (site.path("evil"), site.path("ran"));
    fs::create_dir_all(&evil).unwrap();
    for program in ["restic", "nice", "ionice"] {
        let script = format!("#!/bin/sh\ntouch {}\nexit 0\n", ran.display());
        fs::write(evil.join(program), script).unwrap();
        fs::set_permissions(evil.join(program), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
    let mut task = site.task(Step::Restore(site.step(&[&path])));
    task.process.nice = Some(1);
    let _ = fs::remove_file(site.path("outcome"));
    let mut command = site.command(&task.encode(), &[]);
    command.env("PATH", &evil).env("LIFEBOAT_RESTIC", evil.join("restic"));
    for (name, place) in
        [("OUTCOME_FILE", "evil/outcome"), ("RESTORE_ROOT", "evil"), ("SECRET_DIR", "evil"), ("WORK_DIR", "evil")]
    {
        command.env(format!("LIFEBOAT_{name}"), site.path(place));
    }
    let ended = site.finish(command.spawn().unwrap());
    assert!(ended.restored().restored.files > 0);
    assert_eq!(fs::read_to_string(target.join("file")).unwrap(), "content");
    assert!(!ran.exists() && !evil.join("outcome").exists() && !evil.join("cache").exists());
}

fn get_progress(port: u16) -> Option<Progress> {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.write_all(b"GET /progress HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    serde_json::from_str(text.split("\r\n\r\n").nth(1)?).ok()
}
