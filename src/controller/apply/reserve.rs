//! What a plan reserves before it is applied: slots and PVCs for its Jobs, or a turn to be listed.
//!
//! Reservations are not written to the cluster. Applying the plan releases the reservations of Jobs that it cannot
//! create.

use crate::controller::cache::consumers::{Consumer, Home};
use crate::controller::cache::listings::Listings;
use crate::controller::cache::slots::{Reserved, Slots};
use crate::plan::effects::Plan;
use crate::plan::repository::slots::queue::Room;
use crate::plan::seen::Seen;
use crate::plan::seen::surroundings::Surroundings;

/// The plan of a session whose Jobs have slots and PVCs. Slots and PVCs that other sessions took since the state was
/// observed stay with those sessions. A Repository has `most` slots.
pub fn reserved<K: Consumer>(
    slots: &Slots,
    object: &K,
    most: usize,
    seen: &mut Surroundings,
    next: impl Fn(&Surroundings) -> Plan,
) -> Plan {
    let is_new = matches!(&seen.repository, Seen::Found(found) if !found.known);
    // Plans once without the PVCs that are in use, and once without any Job.
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

/// Records whether a Repository is to be listed, according to its plan.
pub fn settle(listings: &Listings, home: &Home, plan: &Plan) {
    listings.settle(home, plan.listing);
}
