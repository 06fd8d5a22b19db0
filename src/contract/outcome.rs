//! What a Job answers: an outcome that always fits a termination message.
//!
//! What was done and why it failed may both be there. Success is never read
//! from here alone: the plan compares what was planned with what was done.

use serde::{Deserialize, Serialize};

use super::failure::{Class, Failure};
use super::restic::{Answer, Detail, HostAnswer, Saved, pack, unpack_made};
use super::task::{OUTCOME_LIMIT, is_read};
use crate::names::reason;
use crate::text::cut;

/// What a Job answers. Failure and answer may both be present: what was done before it failed.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Outcome {
    /// [`VERSION`] of the agent that wrote it.
    pub version: u32,
    /// Id of the run.
    pub run: String,
    /// Seconds the step took.
    #[serde(default)]
    pub seconds: f64,
    /// Why it failed; `None` is success as far as the agent can tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// What it did or found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<Answer>,
    /// What is to be known of it, though it is no failure.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// It failed before it wrote anything to the volumes.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub untouched: bool,
}

/// How far a running step is.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    /// 0 to 100.
    pub percent: f64,
    /// Bytes done.
    pub bytes_done: u64,
    /// Bytes in all.
    pub bytes_total: u64,
    /// Entries done.
    pub files_done: u64,
    /// Entries in all.
    pub files_total: u64,
}

/// Bytes that messages are cut to, one after the other, until an outcome fits.
const MESSAGES: [usize; 4] = [usize::MAX, 1024, 256, 96];
/// Bytes that messages of hosts are cut to before a host is left out.
const MESSAGE_OF_HOST: usize = 256;

impl Outcome {
    /// JSON of at most [`OUTCOME_LIMIT`] bytes. Messages are cut first; then a backup tells less of each snapshot, and a
    /// preflight leaves its last hosts out, which are asked for again. What still does not fit becomes a failure that says
    /// so, never a silent loss.
    pub fn encode(&self) -> String {
        for answer in self.forms() {
            for limit in MESSAGES {
                let mut cut = Self { answer: answer.clone(), ..self.clone() };
                cut.cut_messages(limit);
                if let Some(text) = cut.fitting() {
                    return text;
                }
                // Rather another attempt at the rest than messages that say nothing.
                if limit == MESSAGE_OF_HOST
                    && let Some(text) = cut.first_hosts()
                {
                    return text;
                }
            }
        }
        let failure = Failure::new(
            Class::Fatal,
            reason::OUTCOME_TOO_LARGE,
            "The result of the step does not fit a termination message (4096 bytes). Name fewer paths or snapshots a host.",
        );
        Self { answer: None, failure: Some(failure), ..self.clone() }.fitting().unwrap_or_default()
    }

    fn fitting(&self) -> Option<String> {
        serde_json::to_string(self).ok().filter(|text| text.len() <= OUTCOME_LIMIT)
    }

    /// The answer, and shorter ones that stand for it.
    fn forms(&self) -> Vec<Option<Answer>> {
        let mut forms = vec![self.answer.clone()];
        if let Some(Answer::BackedUp(made)) = &self.answer {
            let shorter = [Detail::All, Detail::Sums, Detail::Id].map(|d| Some(Answer::Saved(pack(made, d))));
            forms.extend(shorter);
        }
        forms
    }

    /// With the first hosts of a preflight, as many as fit. The first is answered in any case.
    fn first_hosts(&self) -> Option<String> {
        let Some(Answer::Preflight(hosts)) = &self.answer else { return None };
        let with = |hosts: &[HostAnswer]| Self { answer: Some(Answer::Preflight(hosts.to_vec())), ..self.clone() };
        let most = (1..=hosts.len()).rev().find_map(|n| with(&hosts[..n]).fitting());
        most.or_else(|| with(&[hosts.first()?.too_large()]).fitting())
    }

    /// What a backup made of `paths`; `None` where it tells of no snapshots.
    ///
    /// # Errors
    /// What was packed does not read back.
    pub fn saved(&self, paths: &[String]) -> Result<Option<Vec<Saved>>, String> {
        match &self.answer {
            Some(Answer::BackedUp(made)) => {
                Ok(Some(made.iter().map(|made| Saved { made: made.clone(), detail: Detail::All }).collect()))
            }
            Some(Answer::Saved(text)) => unpack_made(text, paths).map(Some),
            _ => Ok(None),
        }
    }

    /// Reads a termination message.
    ///
    /// # Errors
    /// The text is no outcome of this version or the one before; the Job's result is then unknown.
    pub fn decode(text: &str) -> Result<Self, String> {
        let outcome: Self =
            serde_json::from_str(text.trim()).map_err(|e| format!("the termination message is no outcome: {e}"))?;
        if is_read(outcome.version) {
            Ok(outcome)
        } else {
            Err(format!("the outcome is of version {}", outcome.version))
        }
    }

    fn cut_messages(&mut self, limit: usize) {
        if let Some(f) = &mut self.failure {
            cut(&mut f.message, limit);
        }
        self.warnings.iter_mut().for_each(|w| cut(w, limit));
        let Some(Answer::Preflight(hosts)) = &mut self.answer else { return };
        for host in hosts {
            host.failure.iter_mut().for_each(|f| cut(&mut f.message, limit));
            host.warnings.iter_mut().for_each(|w| cut(w, limit));
        }
    }
}

#[cfg(test)]
mod tests;
