//! Searches for planted secrets while tests run, in places that are gone afterwards: in the arguments and the
//! environment of every process of the operator and of Jobs, and in what pods print.
//!
//! The findings are in `planted.json` beside the cluster's logs, which `tests/afterwards.rs` reads.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::thread;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::manifests::PASSWORD;

/// Pause between two looks at processes; restic takes longer than this to open a repository.
const LOOK: Duration = Duration::from_millis(150);
/// Number of looks at processes for each look at logs.
const LOGS: u32 = 4;

/// Starts the search, once in a process.
pub fn start(state: &Path) {
    static STARTED: Once = Once::new();
    let state = state.to_owned();
    STARTED.call_once(|| {
        thread::spawn(move || watch(&state));
    });
}

fn watch(state: &Path) {
    let read = |file: &str| -> Value { serde_json::from_slice(&fs::read(state.join(file)).unwrap()).unwrap() };
    let (store, facts) = (read("s3.json"), read("cluster.json"));
    let plain = [PASSWORD, store["accessKey"].as_str().unwrap(), store["secretKey"].as_str().unwrap()];
    // Without the last characters, which depend on the text after them.
    let coded = plain.map(|text| STANDARD.encode(&text.as_bytes()[..text.len() / 3 * 3]));
    let group = format!("/{}/", facts["netns"][0].as_str().unwrap().strip_suffix("-1").unwrap());
    let mut seen = Seen { planted: plain.map(str::to_owned).into_iter().chain(coded).collect(), ..Seen::default() };
    for round in 0.. {
        seen.processes(&group);
        if round % LOGS == 0 {
            for node in ["node1", "node2"] {
                seen.logs(&state.join(node).join("pod-logs"));
            }
            let said = json!({
                "planted": seen.planted, "processes": seen.processes.len(), "restic": seen.restic,
                "logBytes": seen.offsets.values().sum::<u64>(), "found": seen.found,
            });
            // The file is replaced as a whole: a reader must not find half of it.
            let file = state.join("logs/planted.json");
            let written = fs::write(file.with_extension("new"), said.to_string());
            // The cluster may be gone by now.
            let _ = written.and_then(|()| fs::rename(file.with_extension("new"), &file));
        }
        thread::sleep(LOOK);
    }
}

#[derive(Default)]
struct Seen {
    planted: Vec<String>,
    processes: BTreeSet<(String, String)>,
    restic: usize,
    /// Offset up to which each log was read.
    offsets: BTreeMap<PathBuf, u64>,
    found: BTreeSet<String>,
}

impl Seen {
    fn search(&mut self, place: &str, text: &[u8]) {
        for secret in &self.planted {
            if text.windows(secret.len()).any(|w| w == secret.as_bytes()) {
                self.found.insert(format!("{secret} in {place}"));
            }
        }
    }

    fn processes(&mut self, group: &str) {
        let numbers = fs::read_dir("/proc").unwrap().flatten().filter_map(|e| e.file_name().into_string().ok());
        for number in numbers.filter(|n| n.bytes().all(|b| b.is_ascii_digit())) {
            let read = |what: &str| fs::read(format!("/proc/{number}/{what}")).unwrap_or_default();
            let name = String::from_utf8_lossy(&read("comm")).trim().to_owned();
            if !["lifeboat", "restic"].contains(&name.as_str())
                || !String::from_utf8_lossy(&read("cgroup")).contains(group)
            {
                continue;
            }
            let (arguments, environment) = (read("cmdline"), read("environ"));
            if environment.is_empty() {
                // The process has ended, or has not yet become its final program.
                continue;
            }
            let words = String::from_utf8_lossy(&arguments).replace('\0', " ");
            self.search(&format!("the arguments of {name}: {words}"), &arguments);
            self.search(&format!("the environment of {name}: {words}"), &environment);
            if self.processes.insert((number, words)) && name == "restic" {
                self.restic += 1;
            }
        }
    }

    fn logs(&mut self, folder: &Path) {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                self.logs(&path);
                continue;
            }
            let before = self.offsets.get(&path).copied().unwrap_or_default();
            let Ok(mut file) = fs::File::open(&path) else { continue };
            // The end of the last piece is read again, to find a text that was written in two pieces.
            let mut text = vec![];
            let again = before.min(64);
            if file.seek(SeekFrom::Start(before - again)).is_ok() && file.read_to_end(&mut text).is_ok() {
                self.offsets.insert(path.clone(), before - again + text.len() as u64);
                self.search(&path.display().to_string(), &text);
            }
        }
    }
}
