//! The planning half of each system: the tasks of its Jobs, and the meaning of their answers. No system depends on
//! another.

#[cfg(test)]
pub mod mock;
pub mod restic;
pub mod system;

use crate::api::common::Driver;
use crate::plan::systems::restic::system::Restic;
use crate::plan::systems::system::System;

/// The system of a driver; `None` for a driver that is only declared.
pub fn of(driver: Driver) -> Option<&'static dyn System> {
    match driver {
        Driver::Restic => Some(&Restic),
        Driver::VolumeSnapshotter => None,
        #[cfg(test)]
        Driver::Mock => Some(&mock::Mock),
    }
}
