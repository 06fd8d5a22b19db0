//! Cost of the worst object of each kind that its definition and its size limit admit: time and memory of default and
//! validate. `make bench-admission`; it fails above 50 ms or 10 MB.
//!
//! The objects are made from the schema: each list and map filled to its limit, alone and in pairs, with few and many
//! items, with texts that are valid, invalid, and as long as possible. `KIND=RestoreBatch` selects one kind.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a bench ends where it cannot go on")]
#![allow(clippy::cast_precision_loss, reason = "figures for people")]

#[path = "../../src/fuzz/worst.rs"]
mod worst;

use std::time::Duration;

use lifeboat::admission::{self, bounds};
use lifeboat::api;
use nix::time::ClockId;
use peak_alloc::PeakAlloc;
use serde_json::Value;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// Limits for the largest object.
const TIME: Duration = Duration::from_millis(50);
const BYTES: usize = 10_000_000;
/// Number of runs for one object; the shortest counts.
const TRIES: usize = 3;

/// The maximum for one object, and the object.
#[derive(Default)]
struct Worst {
    took: Duration,
    bytes: usize,
    slowest: String,
    largest: String,
}

fn main() {
    // `cargo test --all-targets` also runs benches; only `cargo bench` passes this argument.
    if !std::env::args().any(|a| a == "--bench") {
        return;
    }
    let only = std::env::var("KIND").ok();
    println!("| Kind | objects | largest | slowest | most memory |\n|---|---|---|---|---|");
    let mut is_bounded = true;
    let mut details = vec![];
    for (kind, _) in admission::KINDS.iter().filter(|(kind, _)| only.as_ref().is_none_or(|o| o == kind)) {
        let spec = api::spec_of(kind).unwrap();
        let shapes = worst::shapes(&spec);
        let (mut worst, mut size) = (Worst::default(), 0);
        for shape in &shapes {
            let object = worst::largest(kind, &spec, shape, |o| bounds::check(kind, o).is_ok());
            let length = object.to_string().len();
            size = size.max(length);
            worst.take(kind, &object, &format!("{length} bytes, {:?} x{} {:?}", shape.text, shape.outer, shape.grown));
        }
        let (ms, mb) = (worst.took.as_secs_f64() * 1000.0, worst.bytes as f64 / 1e6);
        println!("| {kind} | {} | {size} bytes | {ms:.1} ms | {mb:.1} MB |", shapes.len());
        details.push(format!("{kind}\n  slowest: {}\n  most memory: {}", worst.slowest, worst.largest));
        is_bounded &= worst.took < TIME && worst.bytes < BYTES;
    }
    println!("\n{}", details.join("\n"));
    assert!(is_bounded, "an object takes more than {TIME:?} or {BYTES} bytes");
}

/// CPU time of this thread: other load of the machine does not count for an object.
fn now() -> Duration {
    ClockId::CLOCK_THREAD_CPUTIME_ID.now().unwrap().into()
}

impl Worst {
    fn take(&mut self, kind: &str, object: &Value, shape: &str) {
        let mut shortest = Duration::MAX;
        for _ in 0..TRIES {
            let before = MEMORY.current_usage();
            MEMORY.reset_peak_usage();
            let begun = now();
            // Like the webhook, which keeps the original object for the patch.
            let mut defaulted = object.clone();
            admission::default(kind, &mut defaulted);
            let errors = admission::check(kind, &defaulted, None);
            shortest = shortest.min(now().saturating_sub(begun));
            let bytes = MEMORY.peak_usage().saturating_sub(before);
            if bytes > self.bytes {
                (self.bytes, self.largest) = (bytes, format!("{shape}, {} mistakes", errors.len()));
            }
        }
        if shortest > self.took {
            (self.took, self.slowest) = (shortest, shape.to_owned());
        }
    }
}
