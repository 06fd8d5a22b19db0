//! Values as text, as Go's package fmt writes them: `print`, `println` and the verbs of `printf`.
//!
//! An unfit verb is no error: as in Go, the text says so, for example `%!d(string=x)`. What is not built is an error:
//! `%T`, `%p`, `%#v`, `#` with floats, floats in binary and hexadecimal, `*` as width, and `[1]` as the number of an
//! argument.

use super::escape::{fits_backquotes, quoted};
use super::number::{Digits, general};
use super::value::{Answer, Heap, Out, Value, check_depth};

/// Go's limit of widths and precisions: one that is larger ends the format.
const WIDTH_MAX: usize = 10_000_009;
/// Maximum precision of a float. More digits tell nothing.
const PRECISION_MAX: usize = 1000;

/// One verb with its flags.
#[allow(clippy::struct_excessive_bools, reason = "the flags of a verb")]
#[derive(Clone, Copy, Default)]
struct Spec {
    minus: bool,
    plus: bool,
    sharp: bool,
    space: bool,
    zero: bool,
    width: Option<usize>,
    precision: Option<usize>,
}

/// `print`: with a space between two arguments of which none is a text.
pub fn print(heap: &Heap, out: &mut Out, arguments: &[Value]) -> Answer<()> {
    let is_text = |n: usize| matches!(arguments[n], Value::Text(_));
    for (n, argument) in arguments.iter().enumerate() {
        if n > 0 && !is_text(n) && !is_text(n - 1) {
            out.push(' ')?;
        }
        value(heap, out, argument)?;
    }
    Ok(())
}

/// `println`: with a space between all arguments, and a line feed.
pub fn println(heap: &Heap, out: &mut Out, arguments: &[Value]) -> Answer<()> {
    for (n, argument) in arguments.iter().enumerate() {
        if n > 0 {
            out.push(' ')?;
        }
        value(heap, out, argument)?;
    }
    out.push('\n')
}

/// A value with the verb `%v`.
pub fn value(heap: &Heap, out: &mut Out, value: &Value) -> Answer<()> {
    Printer { heap, out, spec: Spec::default() }.argument(value, 'v')
}

/// `printf`.
pub fn printf(heap: &Heap, out: &mut Out, format: &str, arguments: &[Value]) -> Answer<()> {
    let mut rest = format;
    let mut left = arguments.iter();
    while let Some((before, after)) = rest.split_once('%') {
        out.push_str(before)?;
        let (spec, after) = spec(after)?;
        let Some(verb) = after.chars().next() else {
            out.push_str("%!(NOVERB)")?;
            rest = "";
            break;
        };
        rest = &after[verb.len_utf8()..];
        if verb == '%' {
            out.push('%')?;
        } else if let Some(argument) = left.next() {
            Printer { heap, out, spec }.verb(argument, verb)?;
        } else {
            out.push_str(&format!("%!{verb}(MISSING)"))?;
        }
    }
    out.push_str(rest)?;
    if left.len() > 0 {
        out.push_str("%!(EXTRA ")?;
        for (n, argument) in left.enumerate() {
            if n > 0 {
                out.push_str(", ")?;
            }
            if !matches!(argument, Value::Nil) {
                out.push_str(go_type(argument))?;
                out.push('=')?;
            }
            value(heap, out, argument)?;
        }
        out.push(')')?;
    }
    Ok(())
}

/// Reads flags, width and precision. Nothing is left of a text with a number that is too large, as in Go.
fn spec(text: &str) -> Answer<(Spec, &str)> {
    let mut spec = Spec::default();
    let mut rest = text;
    while let Some(flag) = rest.chars().next() {
        match flag {
            '#' => spec.sharp = true,
            '0' => spec.zero = true,
            '+' => spec.plus = true,
            '-' => spec.minus = true,
            ' ' => spec.space = true,
            _ => break,
        }
        rest = &rest[1..];
    }
    (spec.width, rest) = number(rest);
    // A point at the end is the verb, and not a precision.
    if rest.len() > 1
        && let Some(after) = rest.strip_prefix('.')
    {
        let (precision, after) = number(after);
        (spec.precision, rest) = (Some(precision.unwrap_or(0)), after);
    }
    for refused in ['*', '['] {
        if rest.starts_with(refused) {
            return Err(format!("\"{refused}\" after % is not supported; write the number itself"));
        }
    }
    Ok((spec, rest))
}

fn number(text: &str) -> (Option<usize>, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    match digits.parse() {
        Ok(n) if n <= WIDTH_MAX => (Some(n), rest),
        Err(_) if digits.is_empty() => (None, rest),
        _ => (None, ""),
    }
}

fn go_type(value: &Value) -> &'static str {
    match value {
        Value::List(_) => "[]interface {}",
        Value::Map(_) => "map[string]interface {}",
        _ => value.kind(),
    }
}

struct Printer<'h, 'o> {
    heap: &'h Heap,
    out: &'o mut Out,
    spec: Spec,
}

impl Printer<'_, '_> {
    /// A verb of a format.
    fn verb(mut self, value: &Value, verb: char) -> Answer<()> {
        if matches!(verb, 'T' | 'p') || (verb == 'v' && self.spec.sharp) {
            let sharp = if self.spec.sharp { "#" } else { "" };
            return Err(format!("%{sharp}{verb} is not supported; use %v, %s, %q or %d"));
        }
        if verb == 'v' {
            // It shows the fields of a struct, and no sign of a number.
            self.spec.plus = false;
        }
        self.argument(value, verb)
    }

    fn argument(&mut self, value: &Value, verb: char) -> Answer<()> {
        match value {
            Value::Nil if verb == 'v' => self.pad("<nil>"),
            Value::Nil => self.out.push_str(&format!("%!{verb}(<nil>)")),
            value => self.value(value, verb, 0),
        }
    }

    fn value(&mut self, value: &Value, verb: char, depth: usize) -> Answer<()> {
        check_depth(depth)?;
        match value {
            // An element: an argument is another case.
            Value::Nil => self.out.push_str("<nil>"),
            Value::Bool(b) if matches!(verb, 'v' | 't') => self.pad(if *b { "true" } else { "false" }),
            Value::Int(_, n) => self.integer(*n, verb, value),
            Value::Float(n) => self.float(*n, verb, value),
            Value::Text(text) => self.text(text, verb, value),
            Value::List(id) => {
                self.out.push('[')?;
                for (n, item) in self.heap.items(*id).iter().enumerate() {
                    if n > 0 {
                        self.out.push(' ')?;
                    }
                    self.value(item, verb, depth + 1)?;
                }
                self.out.push(']')
            }
            Value::Map(id) => {
                self.out.push_str("map[")?;
                let heap = self.heap;
                for (n, (key, item)) in heap.entries(*id).iter().enumerate() {
                    if n > 0 {
                        self.out.push(' ')?;
                    }
                    self.text(key, verb, &Value::Text(key.clone()))?;
                    self.out.push(':')?;
                    self.value(item, verb, depth + 1)?;
                }
                self.out.push(']')
            }
            Value::Bool(_) => self.unfit(verb, value),
        }
    }

    /// The verb does not fit the type.
    fn unfit(&mut self, verb: char, value: &Value) -> Answer<()> {
        self.out.push_str(&format!("%!{verb}({}=", go_type(value)))?;
        self.value(value, 'v', 0)?;
        self.out.push(')')
    }

    fn pad(&mut self, text: &str) -> Answer<()> {
        let padding = self.spec.width.unwrap_or(0).saturating_sub(text.chars().count());
        if self.spec.minus {
            self.out.push_str(text)?;
            return self.out.fill(' ', padding);
        }
        self.out.fill(if self.spec.zero { '0' } else { ' ' }, padding)?;
        self.out.push_str(text)
    }

    fn pad_with_spaces(&mut self, text: &str) -> Answer<()> {
        let zero = std::mem::take(&mut self.spec.zero);
        let done = self.pad(text);
        self.spec.zero = zero;
        done
    }

    fn integer(&mut self, n: i64, verb: char, value: &Value) -> Answer<()> {
        let absolute = n.unsigned_abs();
        let character = || u32::try_from(n).ok().and_then(char::from_u32).unwrap_or(char::REPLACEMENT_CHARACTER);
        let digits = match verb {
            'v' | 'd' => absolute.to_string(),
            'b' => format!("{absolute:b}"),
            'o' | 'O' => format!("{absolute:o}"),
            'x' => format!("{absolute:x}"),
            'X' => format!("{absolute:X}"),
            'c' => return self.pad(&character().to_string()),
            'q' => return self.pad(&quoted(&character().to_string(), '\'', self.spec.plus)),
            'U' if !self.spec.sharp => {
                let least = self.spec.precision.unwrap_or(0).max(4);
                #[allow(clippy::cast_sign_loss, reason = "Go shows the bits of a negative number")]
                let hex = format!("{:X}", n as u64);
                let text = format!("U+{}{hex}", "0".repeat(least.saturating_sub(hex.len())));
                return self.pad_with_spaces(&text);
            }
            'U' => return Err("%#U is not supported; use %U or %c".into()),
            _ => return self.unfit(verb, value),
        };
        let sign = match (n < 0, self.spec.plus, self.spec.space) {
            (true, ..) => "-",
            (_, true, _) => "+",
            (.., true) => " ",
            _ => "",
        };
        let least = match (self.spec.precision, self.spec.width) {
            // No digit at all.
            (Some(0), _) if n == 0 => return self.pad_with_spaces(""),
            (Some(precision), _) => precision,
            (None, Some(width)) if self.spec.zero && !self.spec.minus => width.saturating_sub(sign.len()),
            _ => 0,
        };
        let zeros = "0".repeat(least.saturating_sub(digits.len()));
        let prefix = match verb {
            'O' => "0o",
            'b' if self.spec.sharp => "0b",
            'o' if self.spec.sharp && zeros.is_empty() && n != 0 => "0",
            'x' if self.spec.sharp => "0x",
            'X' if self.spec.sharp => "0X",
            _ => "",
        };
        self.pad_with_spaces(&format!("{sign}{prefix}{zeros}{digits}"))
    }

    fn float(&mut self, n: f64, verb: char, value: &Value) -> Answer<()> {
        if !matches!(verb, 'v' | 'e' | 'E' | 'f' | 'F' | 'g' | 'G' | 'b' | 'x' | 'X') {
            return self.unfit(verb, value);
        }
        if self.spec.sharp || matches!(verb, 'b' | 'x' | 'X') {
            let sharp = if self.spec.sharp { "#" } else { "" };
            return Err(format!("%{sharp}{verb} of a float is not supported; use %v, %f, %e or %g"));
        }
        let Spec { plus, space, zero, minus, precision, .. } = self.spec;
        if precision.is_some_and(|precision| precision > PRECISION_MAX) {
            return Err(format!("the precision of %{verb} is more than {PRECISION_MAX}"));
        }
        if n.is_nan() {
            return self.pad_with_spaces(if plus {
                "+NaN"
            } else if space {
                " NaN"
            } else {
                "NaN"
            });
        }
        let sign = match (n.is_sign_negative(), plus, space) {
            (true, ..) => "-",
            (_, true, _) => "+",
            (.., true) => " ",
            _ => "",
        };
        if n.is_infinite() {
            // Go's text of the number has a sign, which is taken away from finite numbers only.
            return self.pad_with_spaces(&format!("{}Inf", if sign.is_empty() { "+" } else { sign }));
        }
        let text = match verb {
            'e' => Digits::places(n, precision.unwrap_or(6)).scientific('e'),
            'E' => Digits::places(n, precision.unwrap_or(6)).scientific('E'),
            'f' | 'F' => format!("{:.*}", precision.unwrap_or(6), n.abs()),
            'G' => general(n, precision, 'E'),
            _ => general(n, precision, 'e'),
        };
        if zero && !minus && !sign.is_empty() {
            // The sign stands before the zeros.
            let width = self.spec.width.unwrap_or(0);
            self.out.push_str(sign)?;
            self.out.fill('0', width.saturating_sub(text.len() + 1))?;
            return self.out.push_str(&text);
        }
        self.pad(&format!("{sign}{text}"))
    }

    fn text(&mut self, text: &str, verb: char, value: &Value) -> Answer<()> {
        let end = self.spec.precision.and_then(|n| text.char_indices().nth(n)).map_or(text.len(), |(at, _)| at);
        let cut = &text[..end];
        match verb {
            'v' | 's' => self.pad(cut),
            'q' if self.spec.sharp && fits_backquotes(cut) => self.pad(&format!("`{cut}`")),
            'q' => self.pad(&quoted(cut, '"', self.spec.plus)),
            'x' | 'X' => self.hexadecimal(text, verb),
            _ => self.unfit(verb, value),
        }
    }

    /// The bytes of a text. The precision is a number of bytes.
    fn hexadecimal(&mut self, text: &str, verb: char) -> Answer<()> {
        let prefix = match (self.spec.sharp, verb) {
            (false, _) => "",
            (true, 'x') => "0x",
            (true, _) => "0X",
        };
        let bytes = text.bytes().take(self.spec.precision.unwrap_or(usize::MAX)).enumerate().map(|(n, byte)| {
            let prefix = if n == 0 || self.spec.space { prefix } else { "" };
            let space = if n > 0 && self.spec.space { " " } else { "" };
            if verb == 'x' { format!("{space}{prefix}{byte:02x}") } else { format!("{space}{prefix}{byte:02X}") }
        });
        let hex = bytes.collect::<String>();
        self.pad(&hex)
    }
}
