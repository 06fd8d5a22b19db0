//! Removes names of files from error texts, because they may contain words that identify errors.

/// A text without the path in it, because the name of a file does not identify an error. Go writes "open /a/b:
/// permission denied".
pub fn pathless(text: &str) -> String {
    let starts = text.starts_with('/').then_some(0).or_else(|| text.find(" /").map(|at| at + 1));
    let Some(from) = starts.filter(|at| !text[*at..].starts_with("/ ")) else { return text.to_owned() };
    let to = match text[from..].rfind(": ") {
        // The end of the path is missing.
        _ if text.ends_with('…') => text.len(),
        Some(at) => from + at,
        None => return text.to_owned(),
    };
    format!("{}{}", &text[..from], &text[to..])
}

/// A text without the path of an item.
pub fn without(text: &str, item: &str) -> String {
    let ends = |rest: &str| rest.chars().next().is_none_or(|c| c.is_whitespace() || ":\"',;)".contains(c));
    let mut kept = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(item).filter(|_| item.len() > 1) {
        let after = &rest[at + item.len()..];
        kept.push_str(if ends(after) { &rest[..at] } else { &rest[..at + item.len()] });
        rest = after;
    }
    kept + rest
}
