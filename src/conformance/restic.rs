//! restic, held to the same as every system. It needs a real restic.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::acts;
use super::acts::{Fault, Subject};
use super::mock::options;
use crate::agent::Options;
use crate::api::common::Rule;
use crate::api::restore_batch::RestoreMember;
use crate::api::restore_session::HostRestoreStats;
use crate::api::target::RestoreTarget;
use crate::contract::restic::RepositoryAccess;
use crate::contract::{Found, Part, Work};
use crate::digest;
use crate::plan::run::selection::Selection;
use crate::plan::systems::restic::backend::Access;
use crate::plan::systems::restic::system::Restic;
use crate::plan::systems::system::{Acting, Looking, Open, System};

const PASSWORD: &str = "correct horse battery staple";

/// A repository with one snapshot of a folder, and a place to restore it to.
struct Repository {
    dir: tempfile::TempDir,
    access: Access,
    target: RestoreTarget,
}

/// The content of every file below a folder.
fn read(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(root).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            all.extend(read(&path).into_iter().map(|(p, text)| (PathBuf::from(entry.file_name()).join(p), text)));
        } else {
            all.insert(entry.file_name().into(), digest::hex(&digest::hmac(b"", &fs::read(&path).unwrap())));
        }
    }
    all
}

impl Repository {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for folder in ["data/deep", "secret", "work", "root"] {
            fs::create_dir_all(at(folder)).unwrap();
        }
        fs::write(at("secret/RESTIC_PASSWORD"), PASSWORD).unwrap();
        for (n, name) in ["data/one", "data/deep/two"].iter().enumerate() {
            // Nothing that can be compressed.
            let mut state = n as u64 + 1;
            let bytes = std::iter::repeat_with(|| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                state.to_be_bytes()[0]
            });
            fs::write(at(name), bytes.take(1_500_000).collect::<Vec<u8>>()).unwrap();
        }
        let source = at("data").to_str().unwrap().to_owned();
        for words in [&["init"][..], &["backup", "--host", "host-0", &source]] {
            let mut restic = Command::new("restic");
            restic.args(words).env("RESTIC_PASSWORD", PASSWORD).env("RESTIC_REPOSITORY", at("repo"));
            let ran = restic.arg("--no-cache").stdout(Stdio::null()).status();
            assert!(ran.expect("these tests need restic on the PATH").success(), "restic {words:?}");
        }
        fs::create_dir_all(dir.path().join("root").join(source.trim_start_matches('/'))).unwrap();
        let told = RepositoryAccess { url: at("repo").to_str().unwrap().to_owned(), ..RepositoryAccess::default() };
        let access = Access { display: "demo/repo".into(), told, secret: "s".into(), local: None };
        let rule = Rule { snapshots: vec!["latest".into()], ..Rule::default() };
        let target = RestoreTarget { rules: vec![rule], ..RestoreTarget::default() };
        Self { dir, access, target }
    }

    fn source(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn restored(&self) -> PathBuf {
        let inside = self.source();
        self.dir.path().join("root").join(inside.strip_prefix("/").unwrap())
    }
}

impl Subject for Repository {
    fn system(&self) -> &'static dyn System {
        &Restic
    }

    fn target(&self) -> RestoreTarget {
        self.target.clone()
    }

    fn look(&self) -> Work {
        let selection = Selection::default();
        let began = k8s_openapi::jiff::Timestamp::now();
        let about = Looking { access: Some(&self.access), selection: &selection, began, members: &[], parts: vec![] };
        let part = Part { member: 0, name: "host-0".into() };
        let mounts = vec![self.source().to_str().unwrap().to_owned()];
        let rule = self.target.rules.first();
        let open = Open { part, target: &self.target, rule, mounts, runner: None, no_devices: false };
        self.system().look(vec![open], &about).remove(0).1
    }

    fn act(&self, found: &Found, may_have_acted: bool) -> Work {
        let (member, rule) = (RestoreMember::default(), self.target.rules.first());
        let mut host = HostRestoreStats { hostname: "host-0".into(), ..HostRestoreStats::default() };
        self.system().pin(&mut host, found, rule).unwrap();
        let mounts = vec![self.source().to_str().unwrap().to_owned()];
        let (access, target) = (Some(&self.access), &self.target);
        let acting = Acting {
            run: "run-1",
            access,
            host: &host,
            member: &member,
            target,
            seen: None,
            namespace: "demo",
            rule,
            mounts,
            may_have_acted,
        };
        self.system().act(acting).unwrap()
    }

    fn options(&self) -> Options {
        let at = |name: &str| self.dir.path().join(name).to_str().unwrap().to_owned();
        let restic = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
            .map(|dir| dir.join("restic"))
            .find(|file| file.is_file())
            .unwrap();
        let (work, root) = (at("work"), at("root"));
        let more = ["--work-dir", &work, "--restore-root", &root, "--restic", restic.to_str().unwrap()];
        options(&self.dir.path().join("secret"), &more)
    }

    fn state(&self) -> String {
        // A reader locks the repository while it reads.
        let repository = read(&self.dir.path().join("repo"));
        let stays: Vec<_> = repository.iter().filter(|(path, _)| !path.starts_with("locks")).collect();
        format!("{stays:?} {:?}", read(&self.dir.path().join("root")))
    }

    fn is_restored(&self) -> bool {
        read(&self.restored()) == read(&self.source())
    }

    fn times(&self) -> Option<usize> {
        None
    }

    fn break_with(&mut self, fault: Fault) -> bool {
        match fault {
            // It asks nobody who could lose a reply, and counts by itself.
            Fault::LosesReply | Fault::DoesLess => false,
            Fault::Fails => {
                for (path, _) in read(&self.dir.path().join("repo/data")) {
                    let pack = self.dir.path().join("repo/data").join(path);
                    let whole = fs::read(&pack).unwrap();
                    if whole.len() > 100_000 {
                        fs::remove_file(&pack).unwrap();
                        fs::write(&pack, &whole[..whole.len() / 2]).unwrap();
                    }
                }
                true
            }
            Fault::NeverEnds => {
                // A KiB a second.
                self.target.args = vec!["--limit-download=1".into()];
                true
            }
        }
    }

    fn secrets(&self) -> Vec<String> {
        vec![PASSWORD.into()]
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs restic: make test-agent"]
async fn it_looks_without_writing() {
    Box::pin(acts::looks_without_writing(Repository::new())).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs restic: make test-agent"]
async fn it_restores_and_counts() {
    Box::pin(acts::restores_and_counts(Repository::new())).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs restic: make test-agent"]
async fn it_believes_tallies_only() {
    Box::pin(acts::believes_tallies_only(Repository::new())).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs restic: make test-agent"]
async fn it_does_nothing_twice() {
    Box::pin(acts::does_nothing_twice(Repository::new())).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs restic: make test-agent"]
async fn it_stops_when_told() {
    Box::pin(acts::stops_when_told(Repository::new())).await;
}
