//! What a plan takes before it is applied: slots and claims for its Jobs, or a turn to be listed.
//!
//! Nothing of it is written to the cluster. What comes to nothing is given back when the plan is applied.

use crate::controller::cache::consumers::{Consumer, Home};
use crate::controller::cache::listings::Listings;
use crate::controller::cache::slots::{Reserved, Slots};
use crate::plan::effects::Plan;
use crate::plan::repository::slots::queue::Room;
use crate::plan::seen::Seen;
use crate::plan::seen::surroundings::Surroundings;

/// The plan of a session whose Jobs have slots and claims: what others took since the look is left to them. A Repository has
/// `most` slots.
pub fn reserved<K: Consumer>(
    slots: &Slots,
    object: &K,
    most: usize,
    seen: &mut Surroundings,
    next: impl Fn(&Surroundings) -> Plan,
) -> Plan {
    let is_new = matches!(&seen.repository, Seen::Found(found) if !found.known);
    // Once without the claims that are in use, once without any Job.
    for _ in 0..2 {
        let plan = next(seen);
        match slots.reserve(object, &plan.jobs, most, is_new) {
            Reserved::All => return plan,
            Reserved::InUse(claims) => seen.writers.extend(claims),
            Reserved::NoRoom => seen.no_room(most),
            Reserved::BeingCreated => seen.room = Room::WHILE_CREATED,
        }
    }
    seen.no_room(most);
    next(seen)
}

/// Takes note of whether a Repository is to be listed, by its plan.
pub fn settle(listings: &Listings, home: &Home, plan: &Plan) {
    listings.settle(home, plan.listing);
}
