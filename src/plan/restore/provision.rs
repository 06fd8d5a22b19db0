//! The claims of a member's templates: announced in one pass, created in the next.

use crate::api::Condition;
use crate::api::restore_batch::RestoreMemberStatus;
use crate::contract::Class;
use crate::names::{condition, reason};
use crate::plan::restore::pass::{LOOK_FOR_MISSING, Pass, target_of};
use crate::plan::restore::status::{fail_member, is_started};
use crate::plan::run::conditions;

/// True when every claim that the member restores into exists.
pub fn ensure(pass: &mut Pass<'_>, index: usize) -> bool {
    // A claim that is lost later is not created again: an empty claim would look like a restored one.
    if is_started(&pass.now.members[index]) {
        return true;
    }
    if pass.parts_outside(index).is_some() {
        return true;
    }
    let Some(target) = target_of(pass.seen, index) else { return false };
    if target.to_make.is_empty() {
        return true;
    }
    let at = pass.at;
    let status = &mut pass.now.members[index];
    let is_there = |name: &str| target.claims.get(name).is_some_and(|c| c.exists);
    let missing: Vec<_> = target.to_make.iter().filter(|w| !is_there(&w.name)).collect();
    if missing.is_empty() {
        let names: Vec<&str> = target.to_make.iter().map(|w| w.name.as_str()).collect();
        let text = format!("PVCs exist: {}.", names.join(", "));
        conditions::set(&mut status.conditions, condition::CLAIMS_CREATED, true, reason::CLAIMS_CREATED, text, at);
        return true;
    }
    if let Some((name, refused)) = missing.iter().find_map(|w| Some((&w.name, pass.seen.refused_claims.get(&w.name)?)))
    {
        let text = format!("PersistentVolumeClaim {name} could not be created: {}", refused.message);
        conditions::set(&mut status.conditions, condition::CLAIMS_CREATED, false, &refused.reason, &text, at);
        if refused.class == Class::Invalid {
            let list = &mut status.conditions;
            conditions::set(list, condition::RESTORE_EXECUTOR_ENSURED, false, &refused.reason, &text, at);
            fail_member(status, &text);
        } else {
            status.message = Some(text);
            pass.plan.look_again(LOOK_FOR_MISSING);
        }
        return false;
    }
    let announced = pass.was.members.get(index).is_some_and(|m| said(m).is_some());
    if announced {
        // A claim that was refused is retried. Until it exists, status says why it does not.
        status.message = refused(status);
        pass.plan.claims.extend(missing.into_iter().map(|w| w.claim.clone()));
    } else {
        let names: Vec<&str> = target.to_make.iter().map(|w| w.name.as_str()).collect();
        let text = format!("PVCs will be created: {}. They are kept when this session is deleted.", names.join(", "));
        conditions::set(&mut status.conditions, condition::CLAIMS_CREATED, false, reason::CREATING_CLAIMS, text, at);
    }
    pass.plan.again = true;
    false
}

/// Why a claim does not exist, if it was refused.
pub fn refused(status: &RestoreMemberStatus) -> Option<String> {
    let made = |reason: &str| [reason::CREATING_CLAIMS, reason::CLAIMS_CREATED].contains(&reason);
    said(status).filter(|c| !c.reason.as_deref().is_some_and(made))?.message.clone()
}

fn said(status: &RestoreMemberStatus) -> Option<&Condition> {
    status.conditions.iter().find(|c| c.type_ == condition::CLAIMS_CREATED)
}
