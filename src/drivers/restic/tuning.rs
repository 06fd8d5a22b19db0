//! Computes the concurrency of restic from the available memory.
//!
//! restic opens five connections to storage, independent of the memory, and needs about 100 MiB plus 27 MiB per
//! connection. If the storage limits the rate of a connection, more connections are faster; if memory is short, fewer
//! connections avoid that the Job runs out of memory. All numbers are explained in docs/performance.md.

use std::fs;
use std::path::Path;

const MIB: u64 = 1 << 20;
/// Memory of restic without connections, including the agent.
const BASE: u64 = 128 * MIB;
/// Maximum memory of a connection: packs of 16 MiB, read and written at the same time.
const CONNECTION: u64 = 32 * MIB;
/// More connections are not faster.
const MOST: u64 = 20;
/// With fewer connections, a slow request blocks all others.
const LEAST: u64 = 2;
/// A Job without a limit assumes this fraction of the node's free memory.
const SHARE: u64 = 4;

/// Memory of the Job's container.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Memory {
    /// Memory limit of the container, in bytes; `None` without a limit.
    pub limit: Option<u64>,
    /// Free memory of the node, in bytes; 0 if unknown.
    pub free: u64,
}

impl Memory {
    /// Reads the values of the kernel.
    pub fn look() -> Self {
        Self::look_below(Path::new("/"))
    }

    fn look_below(root: &Path) -> Self {
        let read = |file: &str| fs::read_to_string(root.join(file)).ok();
        // Version 2 of control groups, then version 1, which writes a huge number for "none".
        let files = ["sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory/memory.limit_in_bytes"];
        let limit = files.iter().find_map(|f| read(f)).and_then(|text| text.trim().parse().ok());
        let limit = limit.filter(|bytes| *bytes < 1 << 60);
        let free = read("proc/meminfo").unwrap_or_default();
        let free =
            free.lines().find_map(|l| l.strip_prefix("MemAvailable:")?.trim().strip_suffix("kB")?.trim().parse().ok());
        Self { limit, free: free.unwrap_or(0_u64) * 1024 }
    }

    /// Number of connections to storage on the network.
    pub fn connections(self) -> u64 {
        let budget = self.limit.unwrap_or(self.free / SHARE);
        (budget.saturating_sub(BASE) / CONNECTION).clamp(LEAST, MOST)
    }

    /// restic's options for the storage.
    pub fn options(self, url: &str) -> Vec<String> {
        if url.starts_with("s3:") {
            vec!["-o".into(), format!("s3.connections={}", self.connections())]
        } else {
            vec![]
        }
    }

    /// `GOMEMLIMIT`: nine tenths of the limit; the rest is for memory outside of the Go heap.
    pub fn go_limit(self) -> Option<String> {
        self.limit.map(|bytes| (bytes / 10 * 9).to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(limit: Option<u64>, free: u64) -> u64 {
        Memory { limit: limit.map(|m| m * MIB), free: free * MIB }.connections()
    }

    #[test]
    fn connections_fit_the_memory() {
        assert_eq!([of(Some(64), 0), of(Some(192), 0), of(Some(288), 0)], [2, 2, 5]);
        assert_eq!([of(Some(512), 0), of(Some(768), 0), of(Some(8192), 0)], [12, 20, 20]);
        assert_eq!([of(None, 0), of(None, 1024), of(None, 16_384)], [2, 4, 20]);
        for limit in 192..2000 {
            let taken = BASE + CONNECTION * of(Some(limit), 0);
            assert!(taken <= limit * MIB, "{limit} MiB");
        }
    }

    #[test]
    fn only_a_store_over_the_network_has_connections() {
        let memory = Memory { limit: Some(512 * MIB), free: 0 };
        assert_eq!(memory.options("s3:http://store/b"), ["-o", "s3.connections=12"]);
        assert!(memory.options("/lifeboat/repository").is_empty());
        assert_eq!(memory.go_limit().as_deref(), Some("483183819"));
        assert_eq!(Memory::default().go_limit(), None);
    }

    #[test]
    fn both_versions_of_control_groups_are_read() {
        let write = |files: &[(&str, &str)]| {
            let root = tempfile::tempdir().unwrap();
            for (name, text) in files {
                let file = root.path().join(name);
                fs::create_dir_all(file.parent().unwrap()).unwrap();
                fs::write(file, text).unwrap();
            }
            Memory::look_below(root.path())
        };
        let free = ("proc/meminfo", "MemTotal:  9 kB\nMemAvailable:    2048 kB\n");
        let v2 = |text| write(&[("sys/fs/cgroup/memory.max", text), free]);
        assert_eq!(v2("536870912\n"), Memory { limit: Some(512 * MIB), free: 2 * MIB });
        assert_eq!(v2("max\n").limit, None);
        let v1 = |text| write(&[("sys/fs/cgroup/memory/memory.limit_in_bytes", text), free]);
        assert_eq!(v1("536870912\n").limit, Some(512 * MIB));
        assert_eq!(v1("9223372036854771712\n").limit, None);
        assert_eq!(write(&[]), Memory::default());
    }
}
