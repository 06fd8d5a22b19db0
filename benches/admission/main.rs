//! What the worst object of each kind costs that its definition and its size limit admit: time and memory of default
//! and validate. `make bench-admission`; it fails past 50 ms or 10 MB.
//!
//! The objects are made from the schema: each list and map filled to its bound, alone and in pairs, few and many of
//! them, with texts that fit, that are wrong, and that are as long as they may be. `KIND=RestoreBatch` takes one kind.

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

/// What the largest object may take.
const TIME: Duration = Duration::from_millis(50);
const BYTES: usize = 10_000_000;
/// Tries of one object; the shortest counts.
const TRIES: usize = 3;

/// The most that one object took, and which.
#[derive(Default)]
struct Worst {
    took: Duration,
    bytes: usize,
    slowest: String,
    largest: String,
}

fn main() {
    // `cargo test --all-targets` runs benches too; only `cargo bench` says so.
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

/// Time that this thread was on a processor: what else the machine does is no cost of an object.
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
            // As the webhook does it: what was sent stays for the patch.
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
