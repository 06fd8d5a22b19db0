//! The planning half of each system: what its Jobs are asked, and what their answers mean. No two know each other.

#[cfg(test)]
pub mod mock;
pub mod restic;
pub mod system;

use crate::api::common::Driver;
use crate::plan::systems::restic::system::Restic;
use crate::plan::systems::system::System;

/// The system of a driver; none of one that is declared only.
pub fn of(driver: Driver) -> Option<&'static dyn System> {
    match driver {
        Driver::Restic => Some(&Restic),
        Driver::VolumeSnapshotter => None,
        #[cfg(test)]
        Driver::Mock => Some(&mock::Mock),
    }
}
