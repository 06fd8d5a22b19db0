//! Numbers as Go reads and writes them.

/// An integer of Go's syntax: decimal, or with the prefix `0x`, `0o`, `0b` or `0`, and with `_` between digits.
pub fn integer(text: &str) -> Option<i64> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let (radix, prefixed) = match digits.as_bytes() {
        [b'0', b'x' | b'X', ..] => (16, 2),
        [b'0', b'o' | b'O', ..] => (8, 2),
        [b'0', b'b' | b'B', ..] => (2, 2),
        [b'0', _, ..] => (8, 1),
        _ => (10, 0),
    };
    let digits = &digits[prefixed..];
    // A prefix counts as a digit: 0x_ff and 0_7 are numbers, _7 and 7_ are not.
    if digits.is_empty() || digits.ends_with('_') || digits.contains("__") || (prefixed == 0 && digits.starts_with('_'))
    {
        return None;
    }
    let mut value = 0_i128;
    for c in digits.chars().filter(|c| *c != '_') {
        value = value * i128::from(radix) + i128::from(c.to_digit(radix)?);
        if value > 1 << 64 {
            return None;
        }
    }
    i64::try_from(if negative { -value } else { value }).ok()
}

/// A floating-point number of Go's syntax, with `_` between digits; infinite if it is too large.
pub fn float(text: &str) -> Option<f64> {
    let is_digit = |at: Option<usize>| at.and_then(|at| text.as_bytes().get(at)).is_some_and(u8::is_ascii_digit);
    let separates = |at: usize| is_digit(at.checked_sub(1)) && is_digit(at.checked_add(1));
    if !text.match_indices('_').all(|(at, _)| separates(at)) {
        return None;
    }
    text.replace('_', "").parse().ok()
}

/// The digits of a finite number and its decimal exponent: 1250 is `125` and 3. Without a sign.
pub struct Digits {
    pub digits: String,
    pub exponent: i32,
}

impl Digits {
    /// The fewest digits that read back as the same number.
    pub fn shortest(value: f64) -> Self {
        Self::of(&format!("{:e}", value.abs()))
    }

    /// A number of significant digits, at least 1, without zeros at the end.
    pub fn significant(value: f64, digits: usize) -> Self {
        let mut found = Self::of(&format!("{:.*e}", digits.max(1) - 1, value.abs()));
        let used = found.digits.trim_end_matches('0').len().max(1);
        found.digits.truncate(used);
        found
    }

    /// Digits after the point: `%e`.
    pub fn places(value: f64, places: usize) -> Self {
        Self::of(&format!("{:.places$e}", value.abs()))
    }

    fn of(text: &str) -> Self {
        let (mantissa, exponent) = text.split_once('e').unwrap_or((text, "0"));
        Self { digits: mantissa.replace('.', ""), exponent: exponent.parse().unwrap_or(0) }
    }

    /// `1.25e+03`: the exponent has at least two digits.
    pub fn scientific(&self, e: char) -> String {
        let (first, rest) = self.digits.split_at(1);
        let point = if rest.is_empty() { "" } else { "." };
        let sign = if self.exponent < 0 { '-' } else { '+' };
        format!("{first}{point}{rest}{e}{sign}{:02}", self.exponent.unsigned_abs())
    }

    /// `1250`, `0.00125`.
    pub fn plain(&self) -> String {
        let length = i32::try_from(self.digits.len()).unwrap_or(i32::MAX);
        let before = self.exponent.saturating_add(1);
        let zeros = |n: i32| "0".repeat(usize::try_from(n).unwrap_or(0));
        if before <= 0 {
            format!("0.{}{}", zeros(-before), self.digits)
        } else if before >= length {
            format!("{}{}", self.digits, zeros(before - length))
        } else {
            let (whole, part) = self.digits.split_at(usize::try_from(before).unwrap_or(0));
            format!("{whole}.{part}")
        }
    }
}

/// The absolute value of a finite number with the verb `%g` of Go: an exponent below -4 or from the precision on is
/// written. Without a precision, as many digits as needed are written, and an exponent from 6 on.
pub fn general(value: f64, precision: Option<usize>, e: char) -> String {
    let (digits, limit) = match precision {
        None => (Digits::shortest(value), 6),
        Some(precision) => {
            let precision = precision.max(1);
            let digits = Digits::significant(value, precision);
            let used = digits.digits.len();
            let has_units = i64::try_from(used).is_ok_and(|n| n > i64::from(digits.exponent));
            (digits, if precision > used && has_units { used } else { precision })
        }
    };
    let plain = usize::try_from(digits.exponent).map_or(digits.exponent >= -4, |exponent| exponent < limit);
    if plain { digits.plain() } else { digits.scientific(e) }
}
