//! Identity of a process that outlives the program that started it.
//!
//! A pid alone may have been given to another process since, in particular
//! after a reboot; pid, start time and boot id together name one process.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{Context, Result};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    pub pid: i32,
    start: u64,
    boot: String,
}

impl Identity {
    pub fn of(pid: i32) -> Option<Self> {
        let (state, start) = stat(pid)?;
        // A zombie is dead, and on some machines no process ever reaps it.
        if matches!(state, 'Z' | 'X') {
            return None;
        }
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        Some(Self { pid, start, boot: boot.trim().to_owned() })
    }

    pub fn alive(&self) -> bool {
        Self::of(self.pid).as_ref() == Some(self)
    }

    pub fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string(self).context("cannot encode a process identity")?;
        fs::write(path, text).context(format!("cannot write {}", path.display()))
    }

    pub fn read(path: &Path) -> Option<Self> {
        serde_json::from_str(&fs::read_to_string(path).ok()?).ok()
    }
}

/// State letter and start time, in ticks since boot.
fn stat(pid: i32) -> Option<(char, u64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command's name may hold spaces and brackets: count from its end.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    Some((fields.first()?.chars().next()?, fields.get(19)?.parse().ok()?))
}
