//! What a Job answers: an outcome that always fits a termination message.
//!
//! An outcome may contain both what was done and why it failed. Success is never derived from it alone: the plan
//! compares what was planned with what was done.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::contract::constants::{OUTCOME_LIMIT, OUTCOME_SLACK, VERSION, is_read};
use crate::contract::failure::{Class, Failure};
use crate::contract::tallies::Tallies;
use crate::contract::task::Part;
use crate::contract::{restic, upgrade};
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
    /// What is worth reporting, though it is not a failure.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// It failed before it wrote anything to the volumes.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub untouched: bool,
}

/// What a step found or did.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Answer {
    /// Of a look: one entry for each part, in the order asked. If not all fit, the first ones that fit.
    Found(Vec<Found>),
    /// Of work that acts on a part.
    Did(Did),
    /// Of other work of restic.
    Restic(restic::Answer),
}

impl From<restic::Answer> for Answer {
    fn from(answer: restic::Answer) -> Self {
        Self::Restic(answer)
    }
}

impl Answer {
    /// Whether an outcome has room for it.
    pub fn fits(&self) -> bool {
        serde_json::to_string(self).is_ok_and(|text| text.len() + OUTCOME_SLACK <= OUTCOME_LIMIT)
    }
}

/// What there is to do for a part, or why nothing can be done.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Found {
    /// The part.
    pub part: Part,
    /// What was pinned for it, as its system writes it. Later steps use this and nothing else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pin: Option<Value>,
    /// How much there is to do.
    #[serde(default, skip_serializing_if = "Tallies::is_empty")]
    pub planned: Tallies,
    /// Why it cannot be done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// What is worth reporting, though it is not a failure.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// What was done for a part. Success is computed from it.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Did {
    /// Counts by type: how many of how many.
    pub tallies: Tallies,
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
/// Bytes that messages of parts are cut to before a part is left out.
const MESSAGE_OF_PART: usize = 256;

impl Outcome {
    /// JSON of at most [`OUTCOME_LIMIT`] bytes. Messages are cut first. Then a system reports less of what it did, and
    /// a look leaves its last parts out, which are requested again. An outcome that still does not fit becomes a
    /// failure that says so, never a silent loss.
    pub fn encode(&self) -> String {
        for answer in self.forms() {
            for limit in MESSAGES {
                let mut cut = Self { answer: answer.clone(), ..self.clone() };
                cut.cut_messages(limit);
                if let Some(text) = cut.fitting() {
                    return text;
                }
                // Another attempt at the remaining parts is better than messages that say nothing.
                if limit == MESSAGE_OF_PART
                    && let Some(text) = cut.first_parts()
                {
                    return text;
                }
            }
        }
        let failure = Failure::new(
            Class::Fatal,
            reason::OUTCOME_TOO_LARGE,
            "The result of the step does not fit into a termination message (4096 bytes). Specify fewer paths or snapshots per host.",
        );
        Self { answer: None, failure: Some(failure), ..self.clone() }.fitting().unwrap_or_default()
    }

    fn fitting(&self) -> Option<String> {
        serde_json::to_string(self).ok().filter(|text| text.len() <= OUTCOME_LIMIT)
    }

    /// The answer, and shorter answers that can replace it.
    fn forms(&self) -> Vec<Option<Answer>> {
        let mut forms = vec![self.answer.clone()];
        if let Some(Answer::Restic(answer)) = &self.answer {
            forms.extend(answer.shorter().into_iter().map(|a| Some(Answer::Restic(a))));
        }
        forms
    }

    /// The outcome with the first parts of a look, as many as fit. The first part is always answered.
    fn first_parts(&self) -> Option<String> {
        let Some(Answer::Found(parts)) = &self.answer else { return None };
        let with = |parts: &[Found]| Self { answer: Some(Answer::Found(parts.to_vec())), ..self.clone() };
        let most = (1..=parts.len()).rev().find_map(|n| with(&parts[..n]).fitting());
        most.or_else(|| with(&[parts.first()?.too_large()]).fitting())
    }

    /// Reads a termination message.
    ///
    /// # Errors
    /// The text is not an outcome of this version or the previous one; the Job's result is then unknown.
    pub fn decode(text: &str) -> Result<Self, String> {
        let unreadable = |e: serde_json::Error| format!("the termination message is not an outcome: {e}");
        let text = text.trim();
        match upgrade::version(text).map_err(unreadable)? {
            VERSION => serde_json::from_str(text).map_err(unreadable),
            version if is_read(version) => {
                let old: Value = serde_json::from_str(text).map_err(unreadable)?;
                serde_json::from_value(upgrade::outcome(old)).map_err(unreadable)
            }
            version => Err(format!("the outcome is of version {version}")),
        }
    }

    fn cut_messages(&mut self, limit: usize) {
        if let Some(f) = &mut self.failure {
            cut(&mut f.message, limit);
        }
        self.warnings.iter_mut().for_each(|w| cut(w, limit));
        let Some(Answer::Found(parts)) = &mut self.answer else { return };
        for part in parts {
            part.failure.iter_mut().for_each(|f| cut(&mut f.message, limit));
            part.warnings.iter_mut().for_each(|w| cut(w, limit));
        }
    }
}

impl Found {
    /// The answer for a part whose own answer does not fit even alone.
    fn too_large(&self) -> Self {
        let text = "The result for this host does not fit into the result of a Job (4096 bytes). Specify fewer paths or snapshots in the rule, and restore the others in another session.";
        let failure = Some(Failure::new(Class::Invalid, reason::OUTCOME_TOO_LARGE, text));
        Self { part: self.part.clone(), failure, ..Self::default() }
    }
}

#[cfg(test)]
mod tests;
