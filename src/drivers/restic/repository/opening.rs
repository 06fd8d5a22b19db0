//! Determines why a repository does not open, and what a backup may create then.

use std::sync::atomic::Ordering;

use crate::contract::Failure;
use crate::contract::restic::Absent;
use crate::drivers::restic::bucket::Verdict;
use crate::drivers::restic::error;
use crate::drivers::restic::repository::Repository;
use crate::drivers::restic::run::{End, Ran};
use crate::names::reason;

impl Repository {
    /// The failure of a command that opens the repository. If there is no repository, the bucket may not exist; if a
    /// request was rejected, the name of the bucket may not be valid.
    pub async fn opening_failure(&self, ran: &Ran) -> Failure {
        let failure = self.failure(ran, "open the repository");
        let is_refused = ran.end == End::Hopeless && failure.reason == reason::REPOSITORY_UNREACHABLE;
        let is_missing = failure.reason == reason::REPOSITORY_MISSING;
        let asked = match &self.bucket {
            Some(bucket) if is_missing || is_refused => bucket.look().await,
            _ => Verdict::Unknown,
        };
        match asked {
            Verdict::Missing if is_missing => error::no_bucket(failure, &self.place.no_bucket()),
            Verdict::Refused(said) => {
                self.bad_bucket.store(true, Ordering::Relaxed);
                let mut text = format!("{} The storage reported: {said}", self.place.bad_bucket());
                self.secrets.blot(&mut text);
                error::no_bucket(failure, &text)
            }
            _ => {
                self.bad_bucket.fetch_or(error::is_bad_name(&ran.report), Ordering::Relaxed);
                failure
            }
        }
    }

    /// What a backup may create after this failure.
    pub fn may_create(&self, failure: &Failure) -> Option<Absent> {
        match failure.reason.as_str() {
            _ if self.known => None,
            reason::REPOSITORY_MISSING => Some(Absent::Repository),
            reason::BUCKET_MISSING if self.create_bucket && !self.bad_bucket.load(Ordering::Relaxed) => {
                Some(Absent::Bucket)
            }
            _ => None,
        }
    }
}
