//! Bad manifests, each with the expected messages: `# expect: field: text` in its first lines. And good manifests.

use lifeboat::admission::{Reason, check, message, object_reason};

/// Proves: defect 5, defect 6, defect 15, defect 26, invented 3, invented 7, invented 21.
#[test]
fn each_is_told_what_is_wrong() {
    let files = super::manifests("bad");
    assert!(files.len() >= 100, "{}", files.len());
    let mut wrong = Vec::new();
    for (file, text) in &files {
        let expected: Vec<&str> = text.lines().filter_map(|l| l.strip_prefix("# expect: ")).collect();
        let objects = lifeboat::yaml::read(text).unwrap();
        let [object] = &objects[..] else { panic!("{file}: one object a file") };
        let errors = check(object["kind"].as_str().unwrap(), object, None);
        let told: Vec<String> = errors.iter().map(|e| message(std::slice::from_ref(e))).collect();
        let all = expected.iter().all(|e| told.iter().any(|t| t.starts_with(e)));
        // As many as expected: one mistake causes one message, not a cascade.
        if expected.is_empty()
            || !all
            || told.len() != expected.len()
            || object_reason(&errors) != Some(Reason::Invalid)
        {
            wrong.push(format!("{file}\n  expected {expected:#?}\n  told {told:#?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Proves: scenario 16, scenario 17, invented 4, invented 5, invented 6.
#[test]
fn each_good_one_is_right_before_and_after_it_is_brought_into_its_one_form() {
    let files = super::manifests("good");
    assert!(files.len() >= 60, "{}", files.len());
    for (file, text) in &files {
        let [object] = &lifeboat::yaml::read(text).unwrap()[..] else { panic!("{file}: one object a file") };
        let kind = object["kind"].as_str().unwrap();
        assert_eq!(message(&check(kind, object, None)), "", "{file}");
        let mut stored = object.clone();
        lifeboat::admission::default(kind, &mut stored);
        assert_eq!(message(&check(kind, &stored, None)), "", "{file}, as the webhook stores it");
        assert_eq!(message(&check(kind, object, Some(&stored))), "", "{file}, applied again");
    }
}
