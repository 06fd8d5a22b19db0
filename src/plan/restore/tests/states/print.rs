//! What makes two states different.

use std::hash::{DefaultHasher, Hash, Hasher};

use crate::api::restore_batch::RestoreMemberStatus;
use crate::api::restore_session::HostRestoreStats;
use crate::contract::restic::Restored;
use crate::contract::{Answer, Found};
use crate::names::reason;
use crate::plan::restore::status::is_over;
use crate::plan::restore::tests::states::cluster::{Cluster, Made, is_preflight};
use crate::plan::seen::job_status::JobState;

impl Cluster {
    /// A hash of everything that a decision depends on, except texts and absolute times. Members and hosts are hashed
    /// in their order, although they are alike, because a crash comes between writes that have this order.
    pub fn print(&self) -> u64 {
        let mut h = DefaultHasher::new();
        let (id, state) = (&self.run.id, &self.run.state);
        (id.held, id.deleting, self.run.canceled, self.gone, self.faults, self.turns, self.visits).hash(&mut h);
        let expired = state.deadline.as_ref().map(|d| self.now >= d.0);
        (expired, state.phase.map(|p| p as u8), state.run.spec_hash.is_some()).hash(&mut h);
        print_conditions(&state.conditions, &mut h);
        for step in &state.run.steps {
            (step.attempt, step.pod_deaths, step.done, step.message.is_some()).hash(&mut h);
            step.not_before.as_ref().map(|t| (t.0.as_second() - self.now.as_second()).max(0)).hash(&mut h);
        }
        let current = state.run.steps.first().map_or(1, |s| s.attempt);
        for job in self.jobs.iter().filter(|j| is_preflight(&j.seen)) {
            print_job(job, job.seen.attempt < current, &mut h);
        }
        (0..self.workloads.len()).for_each(|i| self.print_member(i, &mut h));
        h.finish()
    }

    fn print_member(&self, index: usize, h: &mut DefaultHasher) {
        (self.workloads[index], self.held[index], self.visited[index]).hash(h);
        let empty = RestoreMemberStatus::default();
        let member = self.run.state.members.get(index).unwrap_or(&empty);
        (member.phase.map(|p| p as u8), member.message.is_some(), member.total_hosts).hash(h);
        member.quiesce.as_ref().map(|q| (q.state as u8, q.replicas)).hash(h);
        print_conditions(&member.conditions, h);
        // The answer of a preflight about a member that status does not have yet.
        if member.stats.is_empty() {
            self.answers(index).for_each(|(attempt, a)| (attempt, a.failure.is_some()).hash(h));
        }
        member.stats.iter().for_each(|host| self.print_host(index, host, h));
    }

    fn print_host(&self, index: usize, host: &HostRestoreStats, h: &mut DefaultHasher) {
        (host.phase.map(|p| p as u8), host.attempt, host.pod_deaths, host.snapshots.len()).hash(h);
        (host.error.is_some(), host.planned.is_some()).hash(h);
        // A cancel identifies its own hosts by the first reason. The second reason is written only once.
        [reason::CANCELED, reason::TARGET_BUSY].map(|why| host.reason.as_deref() == Some(why)).hash(h);
        host.not_before.as_ref().map(|t| (t.0.as_second() - self.now.as_second()).max(0)).hash(h);
        let key = format!("restore/{index}/{}", host.hostname);
        (
            self.done.contains(&key),
            self.touched.get(&key).copied().unwrap_or(0),
            host.unwritten,
            host.not_before.is_some(),
        )
            .hash(h);
        host.attempt.map(|attempt| self.done_with(&key, attempt)).hash(h);
        // Only the number of deleted entries that status does not have yet.
        let said = host.deleted.unwrap_or_default();
        (
            host.deleted.is_some(),
            host.more_deleted,
            self.deleted.get(&key).map(|(all, known)| (all - said, known - said)),
        )
            .hash(h);
        let mut jobs: Vec<&Made> = self.jobs.iter().filter(|j| j.seen.key == key).collect();
        jobs.sort_by_key(|j| j.seen.attempt);
        for job in jobs {
            print_job(job, is_over(host.phase) || Some(job.seen.attempt) < host.attempt, h);
        }
        if host.snapshots.is_empty() && !is_over(host.phase) {
            let own = self.answers(index).filter(|(_, a)| a.part.name == host.hostname);
            own.for_each(|(attempt, a)| (attempt, a.failure.is_some()).hash(h));
        }
    }

    /// Answers of preflights about a member, with their attempt.
    fn answers(&self, index: usize) -> impl Iterator<Item = (i32, &Found)> {
        self.jobs.iter().flat_map(move |job| {
            let answers = match &job.seen.state {
                JobState::Done(outcome) => match &outcome.answer {
                    Some(Answer::Found(answers)) => answers.as_slice(),
                    _ => &[],
                },
                _ => &[],
            };
            answers.iter().filter(move |a| a.part.member == index).map(move |a| (job.seen.attempt, a))
        })
    }
}

fn print_conditions(list: &[crate::api::Condition], h: &mut DefaultHasher) {
    list.iter().for_each(|c| (&c.type_, &c.status).hash(h));
}

/// The result of a Job counts until it has been read.
fn print_job(job: &Made, is_read: bool, h: &mut DefaultHasher) {
    let seen = &job.seen;
    (seen.attempt, seen.deleting, seen.given_up, job.runs).hash(h);
    let (state, failure) = match &seen.state {
        JobState::Active { .. } => (0, None),
        _ if is_read => (3, None),
        JobState::Lost(failure) => (1, Some(failure)),
        JobState::Done(outcome) => {
            if let Some(Answer::Did(did)) = &outcome.answer {
                let deleted = Restored::of(&did.tallies).and_then(|r| r.deleted);
                (did.tallies.incomplete().count(), deleted).hash(h);
            }
            (2, outcome.failure.as_ref())
        }
    };
    (state, failure.map(|f| (f.class as u8, f.reason.as_str()))).hash(h);
}
