//! What must hold in every state. An error says which invariant does not hold.

use crate::api::restore_session::{HostPhase, MemberPhase, RestorePhase};
use crate::names::{condition, reason};
use crate::plan::effects::Plan;
use crate::plan::restore::held;
use crate::plan::restore::held_note::Note;
use crate::plan::restore::run::RestoreState;
use crate::plan::restore::status::{is_over, member_is_over};
use crate::plan::restore::tests::states::cluster::{Cluster, Made, Scaled, Scene, is_preflight, is_restored};
use crate::plan::seen::job_status::JobState;

fn all(holds: &[(bool, &str)]) -> Result<(), String> {
    holds.iter().find(|(holds, _)| !holds).map_or(Ok(()), |(_, what)| Err((*what).to_owned()))
}

/// Whether every host of a member was really restored.
fn is_done(cluster: &Cluster, scene: &Scene, member: usize) -> bool {
    let hosts = scene.bound.hosts[member];
    let name = |i: i32| if hosts <= 1 { format!("m{member}") } else { format!("m{member}-{i}") };
    (0..hosts.max(1)).all(|i| cluster.done.contains(&format!("restore/{member}/{}", name(i))))
}

/// In sequential order, a member is touched only after all earlier members: with Stop, only if all of them were really
/// restored.
fn may_touch(cluster: &Cluster, scene: &Scene, member: usize) -> Result<(), String> {
    if !scene.bound.sequential {
        return Ok(());
    }
    for before in 0..member {
        let over = cluster.run.state.members.get(before).is_some_and(|m| member_is_over(m.phase));
        if !over {
            return Err(format!("member {member} is touched before member {before} is over"));
        }
        if scene.bound.stop && !is_done(cluster, scene, before) {
            return Err(format!("member {member} is touched after member {before} failed, under Stop"));
        }
    }
    Ok(())
}

/// Whether a Job works, as far as can be known. A Job that is lost or given up cannot be waited for.
fn works(job: &Made) -> bool {
    job.runs && !job.seen.given_up && matches!(job.seen.state, JobState::Active { .. })
}

/// Whether a Job may be created.
pub fn may_start(cluster: &Cluster, scene: &Scene, made: &Made) -> Result<(), String> {
    let (run, job) = (&cluster.run, &made.seen);
    let expired = run.state.deadline.as_ref().is_some_and(|d| cluster.now >= d.0);
    all(&[
        (!run.canceled && !run.id.deleting && !expired, "a Job is made on the way out"),
        (run.id.held || is_preflight(job), "a Job that writes is made before the finalizer is on"),
    ])?;
    if is_preflight(job) {
        return Ok(());
    }
    let (member, host) = cluster.host(&job.key).ok_or_else(|| format!("{} is not announced", job.key))?;
    may_touch(cluster, scene, member)?;
    let acted = cluster.touched.get(&job.key).is_some_and(|jobs| *jobs > 0);
    let beside = cluster.jobs.iter().find(|j| j.seen.key == job.key && j.runs);
    all(&[
        (beside.is_none(), "a restore runs twice: the pod of an earlier attempt is still there"),
        (!is_over(host.phase), "a restore runs twice: status says that it is over"),
        (host.attempt == Some(job.attempt), "an attempt is not announced"),
        (!host.snapshots.is_empty(), "a restore begins before its snapshots are pinned"),
        (cluster.workloads[member] == Scaled::Down, "a restore begins under a workload that runs"),
        (!(made.outside == Some(false) && acted), "a request is made again that was not looked up"),
        (made.exact == scene.bound.exact, "a Job deletes what is extraneous, or not, as nobody asked for"),
        (!(made.exact && cluster.visited[member]), "a Job that deletes begins while others use the volume"),
    ])
}

/// Whether a workload may be scaled to this number of replicas.
pub fn may_scale(cluster: &Cluster, scene: &Scene, member: usize, replicas: i32) -> Result<(), String> {
    let wanted = scene.workloads[member].wanted;
    if replicas == 0 {
        may_touch(cluster, scene, member)?;
        let written = cluster.run.state.members.get(member).and_then(|m| m.quiesce.as_ref());
        all(&[(written.is_some_and(|q| q.replicas == wanted), "a workload goes before its replicas are written")])?;
        let waits = scene.bound.exact && cluster.visited[member];
        return all(&[(!waits, "a workload goes for a restore that waits for others")]);
    }
    let writes = cluster.jobs.iter().any(|j| works(j) && cluster.host(&j.seen.key).is_some_and(|(i, _)| i == member));
    all(&[
        (replicas == wanted, "a workload gets other replicas than it had"),
        (!writes, "a workload comes back under a restore"),
        (scene.bound.scale_back || !is_half(cluster, member), "a workload comes back on half-restored data"),
    ])
}

/// Whether data of a member was really touched and is incomplete.
fn is_half(cluster: &Cluster, member: usize) -> bool {
    let of = format!("restore/{member}/");
    cluster.touched.iter().any(|(key, jobs)| key.starts_with(&of) && *jobs > 0 && !cluster.done.contains(key))
}

/// Whether data of a member may be half restored according to status.
fn is_said_half(cluster: &Cluster, member: usize) -> bool {
    let hosts = cluster.run.state.members.get(member).map_or(&[][..], |m| &m.stats);
    hosts.iter().any(held::is_half)
}

/// Whether the note of a workload may be written or removed.
pub fn may_hold(cluster: &Cluster, scene: &Scene, member: usize, note: Option<&str>) -> Result<(), String> {
    let Some(note) = note else {
        return all(&[(cluster.workloads[member] == Scaled::Up, "a workload that is down no longer says why")]);
    };
    let replicas = Note::read(note).map_err(|why| format!("the note {why}"))?.replicas;
    all(&[
        (!scene.bound.scale_back, "a workload stays down that is to be scaled back"),
        (cluster.workloads[member] == Scaled::Down, "a workload that is up is said to stay down"),
        (replicas == scene.workloads[member].wanted, "a workload would come back to other replicas than it had"),
        (is_said_half(cluster, member), "a workload stays down, and status announces no write to its data"),
    ])
}

/// Checks that phase, conditions and counts of a status agree.
pub fn agree(state: &RestoreState) -> Result<(), String> {
    let is = |type_: &str| state.conditions.iter().find(|c| c.type_ == type_).map(|c| c.status == "True");
    let phase = state.phase;
    let over = state.is_final();
    let members = &state.members;
    let succeeded = members.iter().filter(|m| m.phase == Some(MemberPhase::Succeeded)).count();
    let text = state.summary.clone().unwrap_or_default();
    all(&[
        (is(condition::READY) == Some(phase == Some(RestorePhase::Succeeded)), "Ready is not what the phase says"),
        (
            is(condition::STALLED).is_some() == (phase == Some(RestorePhase::Failed)),
            "Stalled is not what the phase says",
        ),
        (is(condition::RECONCILING).is_some() != over, "Reconciling is not what the phase says"),
        (state.run.completion_time.is_some() == over, "the time of the end is not what the phase says"),
        (!over || members.iter().all(|m| member_is_over(m.phase)), "the run is over, and a member is not"),
        (phase != Some(RestorePhase::Succeeded) || succeeded == members.len(), "Succeeded, and not every member is"),
        (phase != Some(RestorePhase::Failed) || succeeded < members.len(), "Failed, and every member succeeded"),
        (
            !text.contains(" members restored") || text.contains(&format!("{succeeded} of {} members", members.len())),
            "the line counts other members than there are",
        ),
    ])?;
    for (index, member) in members.iter().enumerate() {
        let hosts = &member.stats;
        let restored = hosts.iter().filter(|h| is_restored(h)).count();
        let phase = member.phase;
        let count = i32::try_from(hosts.len()).ok();
        all(&[
            (hosts.is_empty() || member.total_hosts == count, "totalHosts is not the number of hosts"),
            (
                phase != Some(MemberPhase::Succeeded) || restored == hosts.len(),
                "a member succeeded, and a host did not",
            ),
            (phase != Some(MemberPhase::Failed) || restored < hosts.len(), "a member failed, and its hosts did not"),
            (phase != Some(MemberPhase::Skipped) || restored == 0, "a member was skipped, and a host was restored"),
        ])
        .map_err(|what| format!("member {index}: {what}"))?;
        for host in hosts {
            let failed = host.phase == Some(HostPhase::Failed);
            let even = host.planned.is_some() && host.planned == host.restored;
            all(&[
                (!is_restored(host) || even, "a host succeeded, and less was restored than planned"),
                (!failed || (host.error.is_some() && host.reason.is_some()), "a host failed, and does not say why"),
                (!failed || host.reason.as_deref() != Some(reason::SUCCEEDED), "a host failed of success"),
            ])
            .map_err(|what| format!("host {}: {what}", host.hostname))?;
        }
    }
    Ok(())
}

/// Checks that Succeeded is reported only for data that was really restored.
pub fn all_restored(cluster: &Cluster, scene: &Scene, state: &RestoreState) -> Result<(), String> {
    for (index, member) in state.members.iter().enumerate() {
        if member.phase == Some(MemberPhase::Succeeded) && !is_done(cluster, scene, index) {
            return Err(format!("member {index} is called Succeeded, and was not restored"));
        }
        for host in &member.stats {
            let key = format!("restore/{index}/{}", host.hostname);
            let (really, known) = cluster.deleted.get(&key).copied().unwrap_or_default();
            let said = host.deleted.unwrap_or_default();
            all(&[
                (said <= really, "status counts more as deleted than was"),
                (
                    !is_restored(host) || (said > 0) == scene.bound.exact,
                    "a host succeeded, and does not say what was deleted",
                ),
                (
                    !is_restored(host) || said >= known || host.more_deleted == Some(true),
                    "more was deleted than is counted, and nobody says so",
                ),
            ])
            .map_err(|what| format!("host {}: {what}", host.hostname))?;
        }
    }
    Ok(())
}

/// Checks a cluster that the controller has left.
pub fn left_well(cluster: &Cluster, scene: &Scene) -> Result<(), String> {
    let scale_back = scene.bound.scale_back;
    // A preflight only reads: it is deleted, but not waited for.
    let runs = cluster.jobs.iter().any(|j| works(j) && !(is_preflight(&j.seen) && j.seen.deleting));
    for (m, workload) in cluster.workloads.iter().enumerate().filter(|(m, _)| !scene.workloads[*m].is_outside()) {
        let (is_up, is_held) = (*workload == Scaled::Up, cluster.held[m]);
        let stays = is_held && is_said_half(cluster, m);
        all(&[
            (is_up || stays, "the run is over, and a workload is not scaled back"),
            (!(is_up && is_held), "a workload is up, and says that it stays down"),
            (!is_up || !is_half(cluster, m) || scale_back, "a workload is up on half-restored data"),
        ])?;
    }
    all(&[(!runs, "the run is over, and a Job runs on")])
}

/// Checks that a controller that does nothing now will reconcile again: because of a Job, or by a requeue.
pub fn is_woken(cluster: &Cluster, plan: &Plan) -> Result<(), String> {
    let watched = cluster.jobs.iter().any(|j| j.seen.deleting || matches!(j.seen.state, JobState::Active { .. }));
    let over = cluster.gone || cluster.run.state.is_final();
    all(&[(over || watched || plan.requeue.is_some(), "nothing wakes the controller")])
}
