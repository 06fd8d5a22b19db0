//! The corpus and its mutations, on a stable compiler.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::fuzz::mutate::{Dice, edge, mutate_document};
use crate::fuzz::*;

/// Mutations of each target; with LIFEBOAT_FUZZ_SECONDS, mutations continue for that time instead.
const MUTATIONS: usize = 1500;
/// Maximum time for one input. It is generous, because tests share a machine.
const LONGEST: Duration = Duration::from_secs(20);

fn mutate_bytes(data: &mut Vec<u8>, dice: &mut Dice) {
    let (from, len) = (dice.roll(data.len()), 1 + dice.roll(16));
    let to = (from + len).min(data.len());
    match dice.roll(4) {
        0 if from < data.len() => data[from] = u8::try_from(dice.roll(256)).unwrap(),
        1 => drop(data.drain(from..to)),
        2 => {
            let piece = data[from..to].to_vec();
            data.splice(from..from, piece.repeat(1 + dice.roll(30)));
        }
        _ => drop(data.splice(from..from, edge(dice).to_string().into_bytes())),
    }
}

fn mutated(seed: &[u8], dice: &mut Dice) -> Vec<u8> {
    let times = 1 + dice.roll(4);
    if dice.roll(5) > 0
        && let Ok(mut document) = serde_json::from_slice::<Value>(seed)
    {
        (0..times).for_each(|_| mutate_document(&mut document, dice));
        return document.to_string().into_bytes();
    }
    let mut data = seed.to_vec();
    (0..times).for_each(|_| mutate_bytes(&mut data, dice));
    data
}

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let files = |folder: &Path| {
        let mut all: Vec<_> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
        all.sort();
        all.into_iter().filter(|p| p.is_file()).map(|p| std::fs::read(p).unwrap()).collect::<Vec<_>>()
    };
    let mut all = files(&tests.join("fuzz/corpus").join(target));
    if target == "admission" {
        for folder in ["good", "bad"] {
            let texts = files(&tests.join("manifests").join(folder)).into_iter();
            let read = texts.flat_map(|t| crate::yaml::read(&String::from_utf8(t).unwrap()).unwrap());
            all.extend(read.map(|object| object.to_string().into_bytes()));
        }
    }
    all
}

fn feed(target: &str, body: Body, data: &[u8]) {
    let begun = Instant::now();
    let fine = catch_unwind(AssertUnwindSafe(|| body(data))).is_ok();
    let took = begun.elapsed();
    assert!(fine && took < LONGEST, "{target}, {took:?}: {}", data.escape_ascii());
}

fn fuzz(target: &str) {
    let body = BODIES.iter().find(|(name, _)| *name == target).unwrap().1;
    let seeds = corpus(target);
    assert!(seeds.len() >= 3, "{target} has a corpus");
    seeds.iter().for_each(|seed| feed(target, body, seed));
    let seconds = std::env::var("LIFEBOAT_FUZZ_SECONDS").ok().and_then(|s| s.parse().ok()).map(Duration::from_secs);
    let begun = Instant::now();
    let mut dice = Dice(0x2545_f491_4f6c_dd1d);
    let mut tried = 0;
    while seconds.map_or(tried < MUTATIONS, |most| begun.elapsed() < most) {
        let seed = &seeds[dice.roll(seeds.len())];
        feed(target, body, &mutated(seed, &mut dice));
        tried += 1;
    }
    println!("{target}: {} seeds, {tried} mutations, {:.1} s", seeds.len(), begun.elapsed().as_secs_f64());
}

#[test]
fn any_object_can_be_judged() {
    fuzz("admission");
}

#[test]
fn any_session_in_any_surroundings_can_be_planned() {
    fuzz("plan");
}

#[test]
fn any_output_of_restic_can_be_read() {
    fuzz("restic");
}

#[test]
fn any_listing_of_a_repository_can_be_read() {
    fuzz("listing");
}

#[test]
fn any_termination_message_can_be_read() {
    fuzz("outcome");
}

#[test]
fn any_name_and_annotation_can_be_read() {
    fuzz("names");
}

/// For the largest objects that each definition admits (all of them: `make bench-admission`), the answer is short. Its
/// work is counted, not timed.
#[test]
fn the_largest_objects_are_judged_in_few_words() {
    const EVERY: usize = 97;
    for ((kind, segment), (spec, shapes)) in admission::KINDS.iter().zip(KITCHEN.iter()) {
        assert!(!shapes.is_empty(), "{kind}");
        for shape in shapes.iter().step_by(EVERY) {
            let object = worst::largest(kind, spec, shape, |o| admission::bounds::check(kind, o).is_ok());
            assert!(object.is_object(), "{kind}: something of {shape:?} fits");
            let errors = admission::check(kind, &object, None);
            let text = admission::message(&errors);
            assert!(errors.len() <= 20 && text.len() <= 20_000, "{kind} {shape:?}: {}", text.len());
            let asked = json!({ "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
                "request": { "uid": "u", "operation": "CREATE", "namespace": "n", "object": object } });
            let answer = review::validate(segment, &asked, None).unwrap().to_string();
            assert!(answer.len() <= 40_000, "{kind} {shape:?}: {}", answer.len());
        }
    }
}

/// The objects of the generator are large: near the maximum size of an object, or with as many entries as the
/// definition admits.
#[test]
fn the_largest_objects_are_large() {
    let (spec, shapes) = &KITCHEN[admission::KINDS.iter().position(|(kind, _)| *kind == "RestoreBatch").unwrap()];
    let named = |shape: &&worst::Shape, ends: [&str; 2]| {
        shape.grown.len() == 2 && ends.iter().all(|end| shape.grown.iter().any(|g| g.ends_with(end)))
    };
    let shape =
        shapes.iter().find(|s| s.outer == 100 && named(s, ["target.volumeMounts", "target.rules[].paths"])).unwrap();
    let object = worst::largest("RestoreBatch", spec, shape, |o| admission::bounds::check("RestoreBatch", o).is_ok());
    assert!(object["spec"]["members"].as_array().is_some_and(|members| members.len() > 2), "{shape:?}");
    let length = object.to_string().len();
    assert!(length > 50_000, "{length}");
}

/// The fuzz bodies do find defects: a body with a defect is caught.
#[test]
fn a_body_that_panics_is_caught() {
    let caught = catch_unwind(|| feed("broken", |data| assert!(data.len() < 3), b"{\"a\":1}"));
    assert!(caught.is_err());
}

/// The seeds of every corpus are valid input for their target.
#[test]
fn the_seeds_are_read() {
    let documents =
        |t: &str| corpus(t).iter().filter_map(|s| serde_json::from_slice::<Value>(s).ok()).collect::<Vec<_>>();
    for scene in documents("plan") {
        let kind = scene["object"]["kind"].as_str().unwrap().to_owned();
        assert_eq!(admission::message(&admission::check(&kind, &scene["object"], None)), "", "{scene:#}");
        let invoker = &scene["invoker"];
        assert!(kind != "BackupSession" || members_of(invoker).is_some(), "{invoker:#}");
        assert!(scene["targets"].as_array().unwrap().iter().all(|t| matches!(target(t), TargetSeen::Found(_))));
    }
    assert!(corpus("outcome").iter().any(|s| Outcome::decode(std::str::from_utf8(s).unwrap()).is_ok()));
    assert!(documents("listing").iter().all(|d| Vec::<Listed>::deserialize(d).is_ok()));
}
