//! The operator's own writes of the last moments, which the watches have not reported yet. A
//! reconcile in between decides from outdated objects, and writes a second time or into a conflict.
//! This state is not needed to continue: without it, the operator only pays for such a reconcile.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::api::batch::v1::Job;
use kube::runtime::reflector::ObjectRef;
use kube::{Resource, ResourceExt as _};

use crate::controller::cache::children::Children;

/// Longest wait for a watch to report a write. A write that is not reported by then may never be reported: the API
/// server was restored from a backup, or the Job was deleted as fast as it was created.
pub const LAG: Duration = Duration::from_secs(2);

/// Versions of objects, by uid, and Jobs, by the uid of their session.
#[derive(Debug, Default)]
pub struct Written(Mutex<All>);

#[derive(Debug, Default)]
struct All {
    versions: HashMap<String, (u64, Instant)>,
    jobs: HashMap<String, Vec<(String, Instant)>>,
}

/// Uid and resource version. Versions are comparable as numbers (Kubernetes API concepts, "Resource versions", since
/// 1.35).
fn version<K: Resource>(object: &K) -> Option<(String, u64)> {
    Some((object.uid()?, object.resource_version()?.parse().ok()?))
}

impl Written {
    fn all(&self) -> MutexGuard<'_, All> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records an object that a write has returned.
    pub fn note<K: Resource>(&self, object: &K) {
        if let Some((uid, version)) = version(object) {
            let mut all = self.all();
            // No reconcile asks for deleted objects again.
            all.versions.retain(|_, (_, at)| at.elapsed() < LAG);
            all.versions.insert(uid, (version, Instant::now()));
        }
    }

    /// Records a Job that exists now.
    pub fn note_job(&self, session: &str, job: &Job) {
        let mut all = self.all();
        all.jobs.retain(|_, jobs| jobs.iter().any(|(_, at)| at.elapsed() < LAG));
        all.jobs.entry(session.to_owned()).or_default().push((job.name_any(), Instant::now()));
    }

    /// Whether a watch has yet to report a write to the object, or a new Job of the object.
    pub fn is_ahead<K: Resource>(&self, object: &K, children: &Children) -> bool {
        let namespace = object.namespace().unwrap_or_default();
        let unseen = |job: &str| children.jobs.get(&ObjectRef::new(job).within(&namespace)).is_none();
        self.is_outdated(object) | self.has_unseen_jobs(&object.uid().unwrap_or_default(), unseen)
    }

    fn is_outdated<K: Resource>(&self, object: &K) -> bool {
        let Some((uid, seen)) = version(object) else { return false };
        let mut all = self.all();
        let outdated = all.versions.get(&uid).is_some_and(|(v, at)| seen < *v && at.elapsed() < LAG);
        if !outdated {
            all.versions.remove(&uid);
        }
        outdated
    }

    fn has_unseen_jobs(&self, session: &str, unseen: impl Fn(&str) -> bool) -> bool {
        let mut all = self.all();
        let Some(jobs) = all.jobs.get_mut(session) else { return false };
        jobs.retain(|(name, at)| at.elapsed() < LAG && unseen(name));
        let some = !jobs.is_empty();
        if !some {
            all.jobs.remove(session);
        }
        some
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;

    use super::*;

    fn object(uid: &str, version: &str) -> ConfigMap {
        let mut object = ConfigMap::default();
        object.metadata.uid = Some(uid.into());
        object.metadata.resource_version = Some(version.into());
        object
    }

    #[test]
    fn only_what_is_older_than_the_last_write_is_outdated() {
        let written = Written::default();
        assert!(!written.is_outdated(&object("a", "7")), "nothing is known");
        written.note(&object("a", "10"));
        assert!(written.is_outdated(&object("a", "9")) && written.is_outdated(&object("a", "7")));
        assert!(!written.is_outdated(&object("b", "9")));
        assert!(!written.is_outdated(&object("a", "10")));
        assert!(written.all().versions.is_empty(), "what has been seen is forgotten");
        written.note(&object("a", "of another kind"));
        assert!(!written.is_outdated(&object("a", "9")));
        let long_ago = Instant::now().checked_sub(LAG).unwrap();
        written.all().versions.insert("a".into(), (10, long_ago));
        assert!(!written.is_outdated(&object("a", "9")), "not for ever");
        written.all().versions.insert("gone".into(), (10, long_ago));
        written.note(&object("b", "11"));
        assert_eq!(written.all().versions.len(), 1, "what nobody asks about again is forgotten");
    }

    #[test]
    fn a_job_is_waited_for_until_its_watch_has_it() {
        let written = Written::default();
        let mut job = Job::default();
        job.metadata.name = Some("j".into());
        assert!(!written.has_unseen_jobs("a", |_| true), "none was made");
        written.note_job("a", &job);
        assert!(written.has_unseen_jobs("a", |name| name == "j") && !written.has_unseen_jobs("b", |_| true));
        assert!(!written.has_unseen_jobs("a", |_| false));
        assert!(written.all().jobs.is_empty());
        let long_ago = Instant::now().checked_sub(LAG).unwrap();
        written.all().jobs.insert("a".into(), vec![("j".into(), long_ago)]);
        assert!(!written.has_unseen_jobs("a", |_| true), "not for ever");
        written.all().jobs.insert("gone".into(), vec![("j".into(), long_ago)]);
        written.note_job("a", &job);
        assert_eq!(written.all().jobs.len(), 1, "what nobody asks about again is forgotten");
    }
}
