//! What Go makes of a template, and what this module makes of it.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::value::TEXT_MAX;
use super::{Error, Template, functions};

/// One line each: a set of data, or a template with the output of Go 1.26 and sprig 3.3, or the fact of an error.
///
/// `differs` says why this module does something else on purpose: `ours`, or an error.
const RECORDED: &str = include_str!("recorded.jsonl");

fn rendered(template: &str, data: &Value) -> Result<String, Error> {
    Template::parse(template)?.render(data)
}

fn text(line: &Value, key: &str) -> Option<String> {
    line[key].as_str().map(str::to_owned)
}

#[test]
fn every_recorded_template_renders_as_in_go() {
    let lines: Vec<Value> = RECORDED.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let (data, vectors): (Vec<_>, Vec<_>) = lines.iter().partition(|line| line.get("data").is_some());
    let data: BTreeMap<String, &Value> =
        data.iter().map(|line| (text(line, "data").unwrap(), &line["value"])).collect();
    assert!(vectors.len() > 450, "{} vectors", vectors.len());
    let mut wrong = vec![];
    for line in vectors {
        let template = text(line, "template").unwrap();
        let ours = rendered(&template, data[&text(line, "with").unwrap()]);
        let go = text(line, "output");
        let expected = if line.get("differs").is_some() {
            let expected = text(line, "ours");
            assert_ne!(expected, go, "{template} does not differ");
            expected
        } else {
            go
        };
        if ours.as_ref().ok() != expected.as_ref() {
            wrong.push(format!("{template}\n  expected {expected:?}\n  ours     {ours:?}"));
        }
    }
    assert!(wrong.is_empty(), "{} are not as in Go:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn every_function_is_recorded_and_described() {
    let description: String = include_str!("mod.rs").lines().filter(|line| line.starts_with("//!")).collect();
    for name in functions() {
        assert!(description.contains(&format!("`{name}`")), "{name} is missing in the description");
        let is_called = |line: &str| line.split(|c: char| !c.is_alphanumeric()).any(|word| word == name);
        assert!(RECORDED.lines().any(is_called), "{name} is not recorded");
    }
}

#[test]
fn what_is_not_supported_is_refused_when_it_is_parsed() {
    let refused = [
        ("{{ 'a' }}", "constants of characters"),
        ("{{ range .A }}{{ break }}{{ end }}", "break is not supported"),
        ("{{ range .A }}{{ continue }}{{ end }}", "continue is not supported"),
        ("{{ range 3 }}{{ end }}", "range over a number"),
        ("{{ range $i := 3 }}{{ end }}", "range over a number"),
        ("{{ call .A }}", "the function \"call\" is not supported"),
        ("{{ now }}", "the function \"now\" is not supported"),
        ("{{ env \"HOME\" }}", "the function \"env\" is not supported"),
        ("{{ randAlpha 5 }}", "the function \"randAlpha\" is not supported"),
        ("{{ getHostByName \"a\" }}", "the function \"getHostByName\" is not supported"),
        ("{{ genPrivateKey \"rsa\" }}", "the function \"genPrivateKey\" is not supported"),
        ("{{ regexMatch \"a\" .A }}", "the function \"regexMatch\" is not supported"),
        ("{{ 1i }}", "complex numbers"),
        ("{{ 0x1p4 }}", "is not a number that is supported"),
        ("{{ \"\\xff\" }}", "this escape is not supported"),
        ("{{ .A 1 }}", "is not a function"),
        ("{{ .A | .B }}", "must be a function"),
        ("{{ .A | }}", "is missing here"),
        ("{{ nil }}", "nil alone"),
        ("{{ upper }}", "takes 1 argument, and gets 0"),
        ("{{ eq 1 }}", "takes at least 2 arguments, and gets 1"),
        ("{{ print upper }}", "takes 1 argument, and gets 0"),
        ("{{ $x }}", "the variable $x is not declared"),
        ("{{ $x = 1 }}", "the variable $x is not declared"),
        ("{{ template \"a\" }}", "the template \"a\" is not defined"),
        ("{{ define \"a\" }}{{ end }}{{ define \"a\" }}{{ end }}", "defined twice"),
        ("{{ if .A }}{{ define \"a\" }}{{ end }}{{ end }}", "define is not allowed"),
        ("{{ if .A }}", "has no end"),
        ("{{ end }}", "no if, with or range"),
        ("{{ (.A }}", "is not closed"),
        ("{{ .A", "the action has no end"),
        ("{{ \"a }}", "the text has no end"),
        ("{{ `a }}", "the text has no end"),
        ("{{/* a }}", "the comment has no end"),
        ("{{ ? }}", "'?' is not allowed here"),
    ];
    for (template, message) in refused {
        let error = Template::parse(template).err().unwrap_or_else(|| panic!("{template} is let in"));
        assert!(error.message.contains(message), "{template}: {error}");
    }
}

#[test]
fn what_is_not_supported_in_data_and_formats_is_refused_when_it_is_rendered() {
    let refused = [
        ("{{ range .N }}{{ end }}", "range over a value of type int32"),
        ("{{ range .S }}{{ end }}", "range over a value of type string"),
        ("{{ printf \"%T\" .N }}", "%T is not supported"),
        ("{{ printf \"%p\" .N }}", "%p is not supported"),
        ("{{ printf \"%#v\" .N }}", "%#v is not supported"),
        ("{{ printf \"%#U\" .N }}", "%#U is not supported"),
        ("{{ printf \"%x\" 1.5 }}", "%x of a float is not supported"),
        ("{{ printf \"%#f\" 1.5 }}", "%#f of a float is not supported"),
        ("{{ printf \"%.1001f\" 1.5 }}", "precision"),
        ("{{ printf \"%*d\" 5 .N }}", "\"*\" after % is not supported"),
        ("{{ printf \"%[1]d\" .N }}", "\"[\" after % is not supported"),
        ("{{ b64dec \"%\" }}", "not base64"),
        ("{{ .S.X }}", "a value of type string has no field .X"),
        ("{{ upper .N }}", "argument 1 must be a string, and is int32; use toString"),
        ("{{ upper .Missing }}", "use default to give it a value"),
        ("{{ eq .S 1 }}", "cannot be compared"),
        ("{{ div 1 0 }}", "the divisor is 0"),
    ];
    for (template, message) in refused {
        let error = rendered(template, &json!({"N": 3, "S": "text"})).err();
        let error = error.unwrap_or_else(|| panic!("{template} is rendered"));
        assert!(error.message.contains(message), "{template}: {error}");
    }
}

#[test]
fn an_error_tells_its_place_and_nothing_of_the_data() {
    let error = rendered("a\n é {{ .Secret | int | upper }}", &json!({"Secret": "hunter2"})).unwrap_err();
    assert_eq!(
        error.to_string(),
        "line 2, column 23: the function \"upper\" failed: argument 1 must be a string, and is int; use toString to \
         convert it"
    );
    let error = rendered("{{ .Secret.Key }}{{ .Secret }}", &json!({"Secret": "hunter2"})).unwrap_err();
    assert!(!error.to_string().contains("hunter2"), "{error}");
}

#[test]
fn a_template_that_is_too_long_or_nested_too_deep_is_refused() {
    assert!(Template::parse(&"x".repeat(64 * 1024)).is_ok());
    let error = Template::parse(&"x".repeat(64 * 1024 + 1)).err().unwrap();
    assert!(error.message.contains("longer than 64 KiB"), "{error}");
    let nested = |n: usize| format!("{{{{ {}1{} }}}}", "(".repeat(n), ")".repeat(n));
    assert_eq!(rendered(&nested(50), &Value::Null).unwrap(), "1");
    for template in [nested(51), nested(20_000), "{{ if 1 }}".repeat(51), "{{ if 1 }}{{ else if 1 }}".repeat(2000)] {
        let error = Template::parse(&template).err().unwrap();
        assert!(error.message.contains("nested more than 50 deep"), "{error}");
    }
}

/// Each ends with an error, and soon: no memory and no stack is used up.
#[test]
fn no_rendering_is_endless() {
    let twice = "{{ $x := \"aaaaaaaa\" }}".to_owned() + &"{{ $x = printf \"%s%s\" $x $x }}".repeat(40);
    let pairs = "{{ $x := list 1 }}".to_owned() + &"{{ $x = list $x $x }}".repeat(90);
    // Prints 200 KiB.
    let wide = "{{ $x := list 1 }}".to_owned() + &"{{ $x = list $x $x }}".repeat(15);
    let variables: String = (0..4000).map(|n| format!("{{{{$a{n}:=1}}}}")).collect();
    let loops = "{{ range $.A }}".repeat(8) + &"{{ end }}".repeat(8);
    let templates = [
        (
            "{{ define \"a\" }}{{ template \"a\" . }}{{ end }}{{ template \"a\" . }}".to_owned(),
            "nested more than 200 deep",
        ),
        (twice, "longer than 256 KiB"),
        (format!("{pairs}{{{{ $x }}}}"), "longer than 256 KiB"),
        (format!("{pairs}{{{{ toJson $x }}}}"), "longer than 256 KiB"),
        (format!("{pairs}{{{{ has $x (list $x) }}}}"), "too many steps"),
        ("{{ $d := dict }}{{ $_ := set $d \"d\" $d }}{{ $d }}".to_owned(), "nested more than 100 deep"),
        ("{{ $d := dict }}{{ $_ := set $d \"d\" $d }}{{ toPrettyJson $d }}".to_owned(), "nested more than 100 deep"),
        ("{{ $d := dict }}{{ $_ := set $d \"d\" $d }}{{ has $d (list $d) }}".to_owned(), "nested more than 100 deep"),
        (loops, "too many steps"),
        (
            format!("{variables}{{{{ range .A }}}}{{{{ range $.A }}}}{{{{ $a0 }}}}{{{{ end }}}}{{{{ end }}}}"),
            "too many steps",
        ),
        (format!("{wide}{}", "{{ $y := sortAlpha (list $x $x) }}".repeat(99)), "too many steps"),
        (format!("{wide}{}", "{{ $y := dict $x $x }}".repeat(99)), "too many steps"),
        ("{{ repeat 9223372036854775807 \"ab\" }}".to_owned(), "longer than 256 KiB"),
        ("{{ indent 9223372036854775807 \"a\\nb\" }}".to_owned(), "longer than 256 KiB"),
        ("{{ $x := repeat 200000 \"a\" }}{{ replace \"a\" $x $x }}".to_owned(), "longer than 256 KiB"),
        ("{{ $x := repeat 200000 \"a\" }}{{ replace \"\" $x $x }}".to_owned(), "longer than 256 KiB"),
        ("{{ $x := repeat 200000 \"a\" }}{{ join $x (splitList \"a\" $x) }}".to_owned(), "longer than 256 KiB"),
        ("{{ printf \"%1000000d\" 1 }}".to_owned(), "longer than 256 KiB"),
        ("{{ printf \"%.1000000d%.1000000x\" 1 1 }}".to_owned(), "longer than 256 KiB"),
        (
            "{{ $x := splitList \"\" (repeat 100000 \"ab\") }}{{ uniq $x }}{{ uniq (reverse $x) }}".to_owned(),
            "too many steps",
        ),
    ];
    for (template, message) in templates {
        let start: String = template.chars().take(80).collect();
        let error = rendered(&template, &json!({"A": vec![0; 50]})).unwrap_err();
        assert!(error.message.contains(message), "{start}: {error}");
    }
}

#[test]
fn a_long_set_of_characters_takes_no_longer_than_a_short_one() {
    let template = "{{ $x := repeat 100000 \"ab\" }}{{ trimAll (print \"c\" $x) $x }}{{ omit (dict $x 1) $x }}";
    assert_eq!(rendered(template, &Value::Null).unwrap(), "map[]");
}

/// The deepest rendering that is let in, with the most on the stack at each level.
#[test]
fn the_deepest_rendering_fits_the_stack_of_a_thread() {
    let deep = |n: usize| {
        let calls = "{{ if 1 }}".repeat(40) + "{{ template \"a\" (int (sub . 1)) }}" + &"{{ end }}".repeat(40);
        format!(
            "{{{{ define \"a\" }}}}{{{{ if gt . 0 }}}}{calls}{{{{ end }}}}{{{{ end }}}}{{{{ template \"a\" {n} }}}}"
        )
    };
    assert_eq!(rendered(&deep(4), &Value::Null).unwrap(), "");
    let error = rendered(&deep(5), &Value::Null).unwrap_err();
    assert!(error.message.contains("nested more than 200 deep"), "{error}");
}

#[test]
fn data_that_is_nested_too_deep_is_refused() {
    let deep = |n: usize| (0..n).fold(json!(1), |inner, _| json!([inner]));
    assert!(rendered("{{ . }}", &deep(100)).is_ok());
    let error = rendered("text", &deep(101)).unwrap_err();
    assert!(error.message.contains("the data cannot be used"), "{error}");
}

#[test]
fn rendering_leaves_the_data_and_the_template_as_they_are() {
    let (template, data) = (Template::parse("{{ set . \"a\" 2 }}{{ .b }}").unwrap(), json!({"a": 1, "b": {}}));
    let first = template.render(&data).unwrap();
    assert_eq!(first, "map[a:2 b:map[]]map[]");
    assert_eq!(template.render(&data).unwrap(), first);
    assert_eq!(data, json!({"a": 1, "b": {}}));
}

/// Pieces of templates: in any order most do not parse, and those that do reach all of the module.
fn piece() -> impl Strategy<Value = String> {
    const PIECES: [&str; 56] = [
        "{{",
        "}}",
        "{{- ",
        " -}}",
        " ",
        "\n",
        "(",
        ")",
        "|",
        ",",
        ":=",
        "=",
        ".",
        "$",
        "$x",
        ".s",
        ".list",
        ".m.a",
        "\"a\"",
        "\"%5.3v%q\"",
        "`b`",
        "0",
        "-1",
        "2.5",
        "9223372036854775807",
        "1e300",
        "true",
        "nil",
        "é",
        "/*",
        "*/",
        "{{ if .s }}",
        "{{ range $k, $x := .list }}",
        "{{ range .m }}",
        "{{ with .m }}",
        "{{ else }}",
        "{{ end }}",
        "{{ define \"t\" }}",
        "{{ template \"t\" . }}",
        "{{ block \"b\" . }}",
        "{{ $x := .m }}",
        "{{ $x = .list }}",
        "{{ set $x \"k\" $x }}",
        "{{ printf \"%08.3f|%-+5d|%x\" .n .n .s }}",
        "{{ .list | toJson | quote }}",
        "{{ substr 1 2 .s }}",
        "{{ trunc -1 .s }}",
        "{{ index .list 1 }}",
        "{{ slice .list 1 9 }}",
        "{{ repeat 99999 .s }}",
        "{{ fromJson .s }}",
        "{{ mod .n -1 }}",
        "{{ int .s }}",
        "{{ abbrev 5 .s }}",
        "{{ splitList .s .s }}",
        "{{ dict . . }}",
    ];
    prop_oneof![
        6 => proptest::sample::select(PIECES.to_vec()).prop_map(str::to_owned),
        2 => proptest::sample::select(functions().collect::<Vec<_>>()).prop_map(|name| format!(" {name} ")),
        1 => any::<String>(),
    ]
}

/// Any function with any arguments: parses whenever their number is right.
fn action() -> impl Strategy<Value = String> {
    let argument = prop_oneof![
        proptest::sample::select(vec![
            ".", ".s", ".n", ".f", ".list", ".m", ".m.a", "nil", "true", "-1", "0", "3", "1.5", "1e19"
        ])
        .prop_map(str::to_owned),
        // Escapes of JSON are escapes of Go.
        any::<String>().prop_map(|text| json!(text).to_string()),
        any::<i64>().prop_map(|n| n.to_string()),
    ];
    let function = proptest::sample::select(functions().collect::<Vec<_>>());
    (function, proptest::collection::vec(argument, 0..5))
        .prop_map(|(name, arguments)| format!("{{{{ {name} {} }}}}", arguments.join(" ")))
}

fn check(template: &str, text: &str) {
    let data = json!({"s": text, "n": -7, "f": 0.1, "list": [text, null, 1, [2]], "m": {"a": text, "b": {}}});
    if let Ok(output) = rendered(template, &data) {
        assert!(output.len() <= TEXT_MAX, "{} bytes", output.len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_parsed_or_refused(template in any::<String>(), inside in any::<String>()) {
        check(&template, &inside);
        check(&format!("{{{{{inside}}}}}"), &template);
    }

    #[test]
    fn any_pieces_are_rendered_or_refused(pieces in proptest::collection::vec(piece(), 0..30), text in any::<String>()) {
        check(&pieces.concat(), &text);
    }

    #[test]
    fn any_call_is_rendered_or_refused(actions in proptest::collection::vec(action(), 1..6), text in any::<String>()) {
        for action in &actions {
            check(action, &text);
        }
    }
}
