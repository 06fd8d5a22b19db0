//! The written status announces what a plan is about to do.

use k8s_openapi::api::core::v1::PersistentVolumeClaim;

use crate::api::restore_batch::RestoreMemberStatus;
use crate::names::annotation;
use crate::plan::effects::Plan;
use crate::plan::fake::task;
use crate::plan::restore::tests::workload::workload_of;
use crate::plan::restore::tests::world::World;
use crate::plan::seen::job_status::JobSeen;

impl World {
    /// Intent before effect: whatever a plan scales down or overwrites is already in the written status.
    pub fn announced(&self, plan: &Plan) {
        let run = self.run();
        for grant in &plan.grants {
            assert!(run.id.held && run.state.run.grants.contains(&grant.status), "{grant:?} is not announced");
        }
        for scale in plan.scales.iter().filter(|s| s.replicas == 0) {
            let index: usize = scale.name.trim_start_matches('m').parse().unwrap();
            let records = run.state.members.iter().filter_map(|m| m.quiesce.as_ref());
            let quiesce = records.into_iter().find(|q| q.ref_.name.as_deref() == Some(&scale.name)).unwrap();
            assert_eq!(quiesce.replicas, self.workloads[index].wanted, "the replicas to go back to are written");
        }
        // A claim for dumps is not a target, so it needs no announcement.
        let of_step = |c: &PersistentVolumeClaim| {
            c.metadata.annotations.as_ref().is_some_and(|a| a.contains_key(annotation::STEP_KEY))
        };
        if !plan.claims.iter().all(of_step) {
            let said = |m: &RestoreMemberStatus| m.conditions.iter().any(|c| c.type_ == "ClaimsCreated");
            assert!(run.id.held && run.state.members.iter().any(said), "claims are announced");
        }
        for job in &plan.jobs {
            let task = task(job);
            let ("restore", [part]) = (task.verb.as_str(), &task.parts[..]) else { continue };
            assert!(run.id.held, "no data is touched before the finalizer is on");
            let member = &run.state.members[part.member];
            let host = member.stats.iter().find(|h| h.hostname == part.name).unwrap();
            assert_eq!(
                host.attempt.map(|a| a.to_string()),
                job.metadata.annotations.as_ref().unwrap().get(annotation::ATTEMPT).cloned()
            );
            assert!(!host.snapshots.is_empty(), "pinned before it is restored");
            let Some(index) = workload_of(run.targets()[part.member].as_ref()) else { continue };
            let workload = &self.workloads[index];
            assert!(
                self.may_run_on || !workload.is_scalable() || !self.is_there(index) || workload.pods == 0,
                "a pod still runs"
            );
        }
    }

    /// A second reconcile of the same cluster does nothing.
    pub fn rests(&self) {
        let plan = self.decide();
        assert!(plan.status.is_none(), "{:#} became {:#}", self.object["status"], plan.status.unwrap());
        assert!(
            plan.jobs.is_empty()
                && plan.claims.is_empty()
                && plan.scales.is_empty()
                && plan.holds.is_empty()
                && plan.events.is_empty()
        );
        // A deleted Job counts as active until it is gone: what its pod does until then is not known.
        if !self.jobs.seen().iter().any(JobSeen::is_active) && !self.refuses_revokes {
            assert!(self.grants.there.is_empty(), "rights without a Job: {:?}", self.grants.there);
        }
    }
}
