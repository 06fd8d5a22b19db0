//! Texts. Lengths and positions count bytes, as in Go; half a character becomes U+FFFD.

use std::collections::BTreeSet;
use std::rc::Rc;

use super::output::printed;
use crate::gotemplate::call::{Function, int, length, text};
use crate::gotemplate::value::{Answer, Entries, Heap, Out, TEXT_MAX, Value};

pub const FUNCTIONS: &[Function] = &[
    Function::fixed("upper", 1, |heap, args| changed(heap, args, |s| s.chars().map(upper).collect())),
    Function::fixed("lower", 1, |heap, args| changed(heap, args, |s| s.chars().map(lower).collect())),
    Function::fixed("title", 1, |heap, args| changed(heap, args, title)),
    Function::fixed("untitle", 1, |heap, args| changed(heap, args, untitle)),
    Function::fixed("nospace", 1, |heap, args| {
        changed(heap, args, |s| s.chars().filter(|c| !c.is_whitespace()).collect())
    }),
    Function::fixed("trim", 1, |heap, args| changed(heap, args, |s| s.trim().to_owned())),
    Function::fixed("trimAll", 2, |heap, args| {
        combined(heap, args, |set, s| {
            let set: BTreeSet<char> = set.chars().collect();
            s.trim_matches(|c| set.contains(&c)).to_owned()
        })
    }),
    Function::fixed("trimPrefix", 2, |heap, args| {
        combined(heap, args, |prefix, s| s.strip_prefix(prefix).unwrap_or(s).to_owned())
    }),
    Function::fixed("trimSuffix", 2, |heap, args| {
        combined(heap, args, |suffix, s| s.strip_suffix(suffix).unwrap_or(s).to_owned())
    }),
    Function::fixed("contains", 2, |_, args| asked(args, |part, s| s.contains(part))),
    Function::fixed("hasPrefix", 2, |_, args| asked(args, |prefix, s| s.starts_with(prefix))),
    Function::fixed("hasSuffix", 2, |_, args| asked(args, |suffix, s| s.ends_with(suffix))),
    Function::fixed("replace", 3, replace),
    Function::fixed("repeat", 2, |heap, args| {
        let (times, text) = (length(args, 0)?, text(args, 1)?);
        check_length(times.saturating_mul(text.len()))?;
        heap.text(text.repeat(times))
    }),
    Function::fixed("substr", 3, substr),
    Function::fixed("trunc", 2, trunc),
    Function::fixed("abbrev", 2, |heap, args| {
        let (width, text) = (int(args, 0)?, text(args, 1)?);
        match usize::try_from(width) {
            // Three points, and what fits before them.
            Ok(width) if width >= 4 && text.len() > width => {
                heap.bytes(&[&text.as_bytes()[..width - 3], b"...".as_slice()].concat())
            }
            _ => Ok(Value::Text(text)),
        }
    }),
    Function::fixed("indent", 2, |heap, args| {
        let text = indented(args)?;
        heap.text(text)
    }),
    Function::fixed("nindent", 2, |heap, args| {
        let text = indented(args)?;
        heap.text(format!("\n{text}"))
    }),
    Function::fixed("plural", 3, |_, args| {
        let (one, many) = (text(args, 0)?, text(args, 1)?);
        Ok(Value::Text(if int(args, 2)? == 1 { one } else { many }))
    }),
    Function::fixed("join", 2, join),
    Function::fixed("splitList", 2, |heap, args| {
        let parts = split(args)?.into_iter().map(|part| heap.text(part)).collect::<Answer<_>>()?;
        heap.list(parts)
    }),
    Function::fixed("split", 2, |heap, args| {
        let mut entries = Entries::new();
        for (n, part) in split(args)?.into_iter().enumerate() {
            entries.insert(format!("_{n}").into(), heap.text(part)?);
        }
        heap.map(entries)
    }),
];

fn changed(heap: &mut Heap, args: &[Value], change: impl Fn(&str) -> String) -> Answer {
    let changed = change(&text(args, 0)?);
    heap.text(changed)
}

fn combined(heap: &mut Heap, args: &[Value], change: impl Fn(&str, &str) -> String) -> Answer {
    let changed = change(&text(args, 0)?, &text(args, 1)?);
    heap.text(changed)
}

fn asked(args: &[Value], ask: impl Fn(&str, &str) -> bool) -> Answer {
    Ok(Value::Bool(ask(&text(args, 0)?, &text(args, 1)?)))
}

/// Checks the length of a text before it is made.
fn check_length(length: usize) -> Answer<()> {
    if length > TEXT_MAX {
        return Err(format!("the text would be longer than {} KiB", TEXT_MAX / 1024));
    }
    Ok(())
}

/// One character for one character, as in Go: `ß` stays what it is.
fn upper(c: char) -> char {
    let mut all = c.to_uppercase();
    match (all.next(), all.next()) {
        (Some(upper), None) => upper,
        _ => c,
    }
}

fn lower(c: char) -> char {
    c.to_lowercase().next().unwrap_or(c)
}

/// The first letter of each word is upper case.
fn title(text: &str) -> String {
    let mut before = ' ';
    let change = |c: char| {
        let separates = if before.is_ascii() {
            !before.is_ascii_alphanumeric() && before != '_'
        } else {
            !before.is_alphanumeric() && before.is_whitespace()
        };
        before = c;
        if separates { upper(c) } else { c }
    };
    text.chars().map(change).collect()
}

/// The first letter of each word is lower case.
fn untitle(text: &str) -> String {
    let mut is_first = true;
    let change = |c: char| {
        if c.is_whitespace() {
            is_first = true;
            c
        } else if std::mem::take(&mut is_first) {
            lower(c)
        } else {
            c
        }
    };
    text.chars().map(change).collect()
}

fn replace(heap: &mut Heap, args: &[Value]) -> Answer {
    let (old, new, text) = (text(args, 0)?, text(args, 1)?, text(args, 2)?);
    let found = text.matches(&*old).count();
    check_length((text.len() - found * old.len()).saturating_add(found.saturating_mul(new.len())))?;
    heap.text(text.replace(&*old, &new))
}

fn substr(heap: &mut Heap, args: &[Value]) -> Answer {
    let (start, end, text) = (int(args, 0)?, int(args, 1)?, text(args, 2)?);
    let bytes = text.as_bytes();
    let part = match (usize::try_from(start), usize::try_from(end)) {
        (Err(_), Ok(end)) => bytes.get(..end),
        (Err(_), Err(_)) => None,
        (Ok(start), Ok(end)) if end <= bytes.len() => bytes.get(start..end),
        (Ok(start), _) => bytes.get(start..),
    };
    let part = part.ok_or("the positions are outside of the text; use trunc for texts of any length")?;
    heap.bytes(part)
}

/// The first bytes, or the last ones if the number is negative.
fn trunc(heap: &mut Heap, args: &[Value]) -> Answer {
    let (count, text) = (int(args, 0)?, text(args, 1)?);
    let bytes = text.as_bytes();
    let length = usize::try_from(count.unsigned_abs()).unwrap_or(usize::MAX).min(bytes.len());
    let part = if count < 0 { &bytes[bytes.len() - length..] } else { &bytes[..length] };
    heap.bytes(part)
}

fn indented(args: &[Value]) -> Answer<String> {
    let (spaces, text) = (length(args, 0)?, text(args, 1)?);
    let lines = 1 + text.matches('\n').count();
    check_length(spaces.saturating_mul(lines).saturating_add(text.len()))?;
    let pad = " ".repeat(spaces);
    Ok(format!("{pad}{}", text.replace('\n', &format!("\n{pad}"))))
}

/// The elements of a list as texts, without nil. Another value counts as a list of one.
pub fn texts(heap: &mut Heap, value: &Value) -> Answer<Vec<Rc<str>>> {
    let items = match value {
        Value::List(id) => heap.items(*id),
        other => Rc::from([other.clone()]),
    };
    let mut texts = vec![];
    for item in items.iter() {
        texts.push(match item {
            Value::Nil => continue,
            Value::Text(text) => Rc::clone(text),
            other => printed(heap, other)?,
        });
    }
    Ok(texts)
}

fn join(heap: &mut Heap, args: &[Value]) -> Answer {
    let separator = text(args, 0)?;
    let mut out = Out::default();
    for (n, part) in texts(heap, &args[1])?.iter().enumerate() {
        if n > 0 {
            out.push_str(&separator)?;
        }
        out.push_str(part)?;
    }
    heap.text(out.into_text())
}

fn split(args: &[Value]) -> Answer<Vec<String>> {
    let (separator, text) = (text(args, 0)?, text(args, 1)?);
    Ok(if separator.is_empty() {
        text.chars().map(String::from).collect()
    } else {
        text.split(&*separator).map(str::to_owned).collect()
    })
}
