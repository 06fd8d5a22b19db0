//! What a reconcile sees of the world.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use serde_json::json;

use crate::api::common::TargetRef;
use crate::api::target::RestoreTarget;
use crate::plan::repository::slots::queue::Room;
use crate::plan::restore::pvc_templates;
use crate::plan::restore::run::RestoreRun;
use crate::plan::restore::tests::workload::{look_at, workload_of};
use crate::plan::restore::tests::world::World;
use crate::plan::seen::Seen;
use crate::plan::seen::pvc::Made;
use crate::plan::seen::repository::{RepositorySeen, Silence};
use crate::plan::seen::surroundings::Surroundings;
use crate::plan::seen::target::{ClaimSeen, Target, TargetSeen};

impl World {
    pub(super) fn room(&self) -> Room {
        if self.busy.contains(&self.passes) { Room { free: 0, ahead: 16 } } else { Room { free: 2, ahead: 14 } }
    }

    pub(super) fn look(&self) -> Surroundings {
        let policy = self.policies.iter().rev().find(|(from, _)| *from <= self.passes).map(|(_, policy)| policy);
        let spec = json!({ "backend": { "storageSecretName": "s", "s3": { "endpoint": "e", "bucket": "b" } },
            "usagePolicy": policy });
        let silence = || Silence { since: self.now, message: "It is away.".into() };
        let found = RepositorySeen {
            spec: serde_json::from_value(spec).unwrap(),
            first_backup: None,
            known: false,
            secret: Seen::Found(()),
            labels: Seen::Missing,
            unreachable: self.silent.then(silence),
            not_ready: None,
        };
        let there = self.repository && self.passes < self.repository_until;
        Surroundings {
            refusal: self.refusal.clone(),
            source: self.source(),
            repository: if there { Seen::Found(found) } else { Seen::Missing },
            targets: self.targets(),
            pod_security: self.pod_security,
            job_defaults: self.job_defaults.clone(),
            jobs: self.jobs.seen().into_iter().chain(self.refused_jobs.clone()).collect(),
            room: self.room(),
            rooms: self.rooms.clone(),
            rivals: self.rivals.clone(),
            writers: self.writers.clone(),
            refused_claims: self.refused.clone(),
            refused_scales: self.refused_scales.clone(),
            refused_holds: self.refused_holds.clone(),
            refused_revoke: self.refused_revoke.clone(),
            hook_pods: self.hook_pods.iter().flat_map(|pods| [(0, pods.clone()), (1, pods.clone())]).collect(),
            progress: BTreeMap::new(),
        }
    }

    /// The targets that the run looks for. A member that names no target has a missing one.
    fn targets(&self) -> Vec<TargetSeen> {
        let run = self.run();
        let seen = |t: Option<&TargetRef>| workload_of(t).map_or(TargetSeen::Missing(String::new()), |i| self.see(i));
        let spec = |i: usize| run.members.get(i)?.target.as_ref().filter(|t| !t.volume_claim_templates.is_empty());
        let targets = run.targets();
        let all = targets.iter().enumerate();
        all.map(|(i, t)| spec(i).map_or_else(|| seen(t.as_ref()), |spec| self.see_made(&run, spec))).collect()
    }

    fn see_made(&self, run: &RestoreRun, spec: &RestoreTarget) -> TargetSeen {
        let to_make = pvc_templates::wanted(spec, &run.id);
        let seen = |c: &PersistentVolumeClaim| ClaimSeen { exists: true, made: Made::of(c), ..ClaimSeen::default() };
        let claims = to_make.iter().map(|w| (w.name.clone(), self.claims.get(&w.name).map(seen).unwrap_or_default()));
        let claims = claims.collect();
        TargetSeen::Found(Box::new(Target { display: "claims".into(), to_make, claims, ..Target::default() }))
    }

    fn see(&self, index: usize) -> TargetSeen {
        let (w, name) = (&self.workloads[index], format!("m{index}"));
        if self.unreadable == Some(index) {
            return TargetSeen::Unknown("deployments.apps is forbidden".into());
        }
        if !self.is_there(index) {
            return TargetSeen::Missing(name);
        }
        let seen = Target { autoscalers: self.autoscalers.clone(), others: self.others.clone(), ..look_at(name, w) };
        TargetSeen::Found(Box::new(seen))
    }
}
