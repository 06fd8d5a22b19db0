//! A repository that no longer exists, and a bucket that can never exist.

use std::fs;
use std::time::{Duration, Instant};

use lifeboat::contract::Class;
use lifeboat::contract::restic::{Answer, List, Prepare, Probe, RepositoryAccess, Step};
use lifeboat::names::reason;

use super::site::{Site, work};
use super::stores::store;

/// A volume that is not mounted looks like an empty one.
#[test]
#[ignore = "needs root and restic: make test-agent"]
fn a_repository_that_was_there_is_neither_created_nor_listed_as_empty() {
    let site = Site::new();
    let run = |step: Step, known: bool| {
        let mut task = site.task(step);
        work(&mut task).repository.known = known;
        site.run_task(&task)
    };
    fs::rename(site.path("repo"), site.path("elsewhere")).unwrap();
    fs::create_dir(site.path("repo")).unwrap();
    for step in [Step::Prepare(Prepare {}), Step::List(List::default())] {
        let ended = run(step, true);
        let failure = ended.failed(Class::Invalid, reason::REPOSITORY_MISSING);
        assert!(failure.message.contains("A repository existed there before"), "{}", failure.message);
        assert_eq!(fs::read_dir(site.path("repo")).unwrap().count(), 0, "nothing is written");
    }
    // The repository is back.
    fs::remove_dir(site.path("repo")).unwrap();
    fs::rename(site.path("elsewhere"), site.path("repo")).unwrap();
    assert_eq!(*run(Step::Prepare(Prepare {}), true).answer(), Answer::Prepared { created: false });
    fs::rename(site.path("repo"), site.path("elsewhere")).unwrap();
    assert_eq!(*run(Step::Prepare(Prepare {}), false).answer(), Answer::Prepared { created: true });
}

/// restic retries for minutes if its own client, or the store, refuses the name of the bucket.
#[test]
#[ignore = "needs root and restic: make test-agent"]
fn a_bucket_that_can_never_be_is_told_at_once_and_not_created() {
    let site = Site::empty();
    site.give_keys();
    let (refused, missing) = ("InvalidBucketName", reason::BUCKET_MISSING);
    for (bucket, code, class, why, said) in [
        ("b", refused, Class::Invalid, missing, "cannot be shorter than 3 characters"),
        ("BadBucket_", refused, Class::Invalid, missing, "contains invalid characters"),
        ("good-name", refused, Class::Invalid, missing, "The storage reported: InvalidBucketName: told by the test"),
        ("good-name", "ExpiredToken", Class::Transient, reason::REPOSITORY_UNREACHABLE, "400 Bad Request"),
    ] {
        for step in [Step::Prepare(Prepare {}), Step::Probe(Probe {})] {
            let (at, asked) = store("400 Bad Request", code);
            let mut task = site.task(step);
            let (url, region) = (format!("s3:http://{at}/{bucket}/prefix"), Some("eu-test-1".into()));
            work(&mut task).repository =
                RepositoryAccess { url, region, create_bucket: true, ..RepositoryAccess::default() };
            let started = Instant::now();
            let failure = site.run_task(&task).failed(class, why).clone();
            assert!(started.elapsed() < Duration::from_secs(20), "{bucket}: {:?}", started.elapsed());
            assert!(failure.message.contains(said), "{failure:?}");
            let names = failure.message.contains(&format!("bucket {bucket} at {at} cannot be used"));
            assert_eq!(names, why == missing, "{failure:?}");
            let asked: Vec<String> = asked.try_iter().collect();
            assert!(asked.iter().all(|r| !r.starts_with("PUT")), "{asked:?}");
        }
    }
}
