//! Durations in Go syntax, as Kubernetes users write them.

use std::time::Duration;

/// Reads `90s`, `1h30m`, `1.5h`.
///
/// # Errors
/// The text is no duration; the message says what one looks like.
pub fn parse(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a valid duration; write for example 30m, 1h30m or 90s");
    let mut rest = text;
    let mut seconds = 0.0_f64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
        let number: f64 = rest[..digits].parse().map_err(|_| wrong())?;
        let unit_end = rest[digits..].find(|c: char| c.is_ascii_digit() || c == '.').map_or(rest.len(), |i| digits + i);
        seconds += number
            * match &rest[digits..unit_end] {
                "h" => 3600.0,
                "m" => 60.0,
                "s" => 1.0,
                "ms" => 1e-3,
                "us" | "µs" => 1e-6,
                "ns" => 1e-9,
                _ => return Err(wrong()),
            };
        rest = &rest[unit_end..];
    }
    if text.is_empty() {
        return Err(wrong());
    }
    Duration::try_from_secs_f64(seconds).map_err(|_| wrong())
}

/// Writes whole seconds the way Go does: `1h2m3s`, `42s`.
pub fn format(duration: Duration) -> String {
    let s = duration.as_secs();
    let (h, m, s) = (s / 3600, s / 60 % 60, s % 60);
    match (h, m) {
        (0, 0) => format!("{s}s"),
        (0, _) => format!("{m}m{s}s"),
        _ => format!("{h}h{m}m{s}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_written_reads_back(seconds in 0u64..10_000_000) {
            let d = Duration::from_secs(seconds);
            prop_assert_eq!(parse(&format(d)), Ok(d));
        }

        #[test]
        fn nonsense_never_panics(text in ".{0,20}") {
            let _ = parse(&text);
        }
    }

    #[test]
    fn durations_of_go() {
        assert_eq!(parse("1h30m"), Ok(Duration::from_mins(90)));
        assert_eq!(parse("1.5h"), Ok(Duration::from_mins(90)));
        for wrong in ["", "5", "h", "1d", "-1h", "1h m"] {
            assert!(parse(wrong).unwrap_err().contains("30m"), "{wrong}");
        }
    }
}
