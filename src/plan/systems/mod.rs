//! The planning half of each system: the tasks of its Jobs, and the meaning of their answers. No system depends on
//! another.

pub mod application;
#[cfg(test)]
pub mod mock;
pub mod restic;
pub mod system;

use crate::api::common::Driver;
use crate::api::target::RestoreTarget;
use crate::plan::run::hosts::TargetKind;
use crate::plan::systems::application::system::Application;
use crate::plan::systems::restic::system::Restic;
use crate::plan::systems::system::System;

/// The system of a member with this driver and target; `None` for a driver that is only declared.
pub fn of(driver: Driver, target: Option<&RestoreTarget>) -> Option<&'static dyn System> {
    let kind = TargetKind::of(target.and_then(|t| t.ref_.as_ref()));
    match driver {
        Driver::Restic if kind == TargetKind::AppBinding => Some(&Application),
        Driver::Restic => Some(&Restic),
        Driver::VolumeSnapshotter => None,
        #[cfg(test)]
        Driver::Mock => Some(&mock::Mock),
    }
}
