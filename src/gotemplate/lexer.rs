//! A template as tokens: text, and what is between `{{` and `}}`.
//!
//! Spaces are tokens inside an action, because they separate arguments: `.A.B` is one, `.A .B` are two. Trim markers
//! and comments end here.

use super::error::{At, Error};
use super::number;

#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    Text(String),
    Open,
    Close,
    Space,
    /// A function or a keyword.
    Word(String),
    Dot,
    /// `.Name`, without the point.
    Field(String),
    /// `$name`, with the `$`.
    Variable(String),
    Quoted(String),
    Int(i64),
    Float(f64),
    Declare,
    Assign,
    Pipe,
    Comma,
    Left,
    Right,
    End,
}

#[derive(Debug, Clone)]
pub struct Token {
    pub at: At,
    pub kind: Kind,
}

const SPACES: [char; 4] = [' ', '\t', '\r', '\n'];
const OPEN: &str = "{{";
const CLOSE: &str = "}}";

/// All tokens. The last one is [`Kind::End`].
pub fn tokens(template: &str) -> Result<Vec<Token>, Error> {
    let mut lexer = Lexer { rest: template, at: At { line: 1, column: 1 }, tokens: vec![] };
    lexer.template()?;
    Ok(lexer.tokens)
}

struct Lexer<'t> {
    rest: &'t str,
    at: At,
    tokens: Vec<Token>,
}

impl<'t> Lexer<'t> {
    /// Takes bytes of the rest, up to a character boundary.
    fn take(&mut self, length: usize) -> &'t str {
        let (taken, rest) = self.rest.split_at(length);
        for c in taken.chars() {
            if c == '\n' {
                self.at = At { line: self.at.line.saturating_add(1), column: 1 };
            } else {
                self.at.column = self.at.column.saturating_add(1);
            }
        }
        self.rest = rest;
        taken
    }

    fn take_spaces(&mut self) {
        self.take(self.rest.len() - self.rest.trim_start_matches(SPACES).len());
    }

    fn push(&mut self, at: At, kind: Kind) {
        self.tokens.push(Token { at, kind });
    }

    fn template(&mut self) -> Result<(), Error> {
        loop {
            let at = self.at;
            let (length, is_last) = self.rest.find(OPEN).map_or((self.rest.len(), true), |length| (length, false));
            let text = self.take(length);
            let after = self.rest.strip_prefix(OPEN).and_then(|after| after.strip_prefix('-'));
            let trims = after.is_some_and(|after| after.starts_with(SPACES));
            let text = if trims { text.trim_end_matches(SPACES) } else { text };
            if !text.is_empty() {
                self.push(at, Kind::Text(text.to_owned()));
            }
            if is_last {
                self.push(self.at, Kind::End);
                return Ok(());
            }
            let at = self.at;
            // The marker is followed by a space.
            self.take(OPEN.len() + if trims { 2 } else { 0 });
            if self.rest.starts_with("/*") {
                self.comment(at)?;
            } else {
                self.push(at, Kind::Open);
                while !self.action(at)? {}
            }
        }
    }

    fn comment(&mut self, at: At) -> Result<(), Error> {
        let end = self.rest[2..].find("*/").ok_or_else(|| at.error("the comment has no end; add \"*/}}\""))?;
        self.take(2 + end + 2);
        let trims = self.closes_with_marker();
        if !trims && !self.rest.starts_with(CLOSE) {
            return Err(self.at.error("a comment must fill its action; write {{/* ... */}}"));
        }
        self.close(trims);
        Ok(())
    }

    /// Whether a space, `-}}` follow.
    fn closes_with_marker(&self) -> bool {
        self.rest.strip_prefix(SPACES).is_some_and(|after| after.starts_with("-}}"))
    }

    fn close(&mut self, trims: bool) {
        self.take(CLOSE.len() + if trims { 2 } else { 0 });
        if trims {
            self.take_spaces();
        }
    }

    /// The next token of an action that begins at `open`. True at its end.
    fn action(&mut self, open: At) -> Result<bool, Error> {
        let at = self.at;
        let trims = self.closes_with_marker();
        if trims || self.rest.starts_with(CLOSE) {
            self.close(trims);
            self.push(at, Kind::Close);
            return Ok(true);
        }
        let Some(first) = self.rest.chars().next() else {
            return Err(open.error("the action has no end; add \"}}\""));
        };
        let second = self.rest[first.len_utf8()..].chars().next().unwrap_or('\0');
        let kind = match first {
            c if SPACES.contains(&c) => {
                // The last space may belong to a trim marker.
                let spaces = self.rest.len() - self.rest.trim_start_matches(SPACES).len();
                let is_marked = self.rest[spaces..].starts_with("-}}");
                self.take(if is_marked { spaces - 1 } else { spaces });
                Kind::Space
            }
            ':' if second == '=' => self.symbol(2, Kind::Declare),
            '=' => self.symbol(1, Kind::Assign),
            '|' => self.symbol(1, Kind::Pipe),
            ',' => self.symbol(1, Kind::Comma),
            '(' => self.symbol(1, Kind::Left),
            ')' => self.symbol(1, Kind::Right),
            '"' => self.quoted()?,
            '`' => self.raw()?,
            '\'' => {
                return Err(at.error("constants of characters are not supported; write a text between double quotes"));
            }
            '$' => {
                let length = 1 + word(&self.rest[1..]);
                Kind::Variable(self.take(length).to_owned())
            }
            '.' if !second.is_ascii_digit() => {
                self.take(1);
                match self.take(word(self.rest)) {
                    "" => Kind::Dot,
                    name => Kind::Field(name.to_owned()),
                }
            }
            c if c.is_ascii_digit() || matches!(c, '.' | '+' | '-') => self.number()?,
            c if c.is_alphanumeric() || c == '_' => Kind::Word(self.take(word(self.rest)).to_owned()),
            c => return Err(at.error(format!("{c:?} is not allowed here"))),
        };
        self.push(at, kind);
        Ok(false)
    }

    fn symbol(&mut self, length: usize, kind: Kind) -> Kind {
        self.take(length);
        kind
    }

    fn raw(&mut self) -> Result<Kind, Error> {
        let end = self.rest[1..].find('`').ok_or_else(|| self.at.error("the text has no end; add a backquote"))?;
        let text = self.take(end + 2);
        Ok(Kind::Quoted(text[1..=end].replace('\r', "")))
    }

    fn quoted(&mut self) -> Result<Kind, Error> {
        let start = self.at;
        self.take(1);
        let mut text = String::new();
        loop {
            let at = self.at;
            match self.rest.chars().next() {
                None | Some('\n') => return Err(start.error("the text has no end on its line; add a double quote")),
                Some('"') => {
                    self.take(1);
                    return Ok(Kind::Quoted(text));
                }
                Some('\\') => {
                    let (c, length) = escaped(&self.rest[1..]).ok_or_else(|| {
                        at.error("this escape is not supported; use \\n, \\t, \\\", \\\\ or \\u followed by 4 digits")
                    })?;
                    text.push(c);
                    self.take(1 + length);
                }
                Some(c) => {
                    text.push(c);
                    self.take(c.len_utf8());
                }
            }
        }
    }

    fn number(&mut self) -> Result<Kind, Error> {
        let at = self.at;
        let unsigned = self.rest.strip_prefix(['+', '-']).unwrap_or(self.rest);
        let is_prefixed = unsigned.starts_with("0x") || unsigned.starts_with("0X");
        let mut end = self.rest.len() - unsigned.len();
        let mut before = '\0';
        for c in unsigned.chars() {
            let is_sign = matches!(c, '+' | '-') && matches!(before, 'e' | 'E') && !is_prefixed;
            if !(c.is_alphanumeric() || matches!(c, '.' | '_') || is_sign) {
                break;
            }
            end += c.len_utf8();
            before = c;
        }
        let text = self.take(end);
        if text.ends_with('i') {
            return Err(at.error("complex numbers are not supported"));
        }
        if let Some(n) = number::integer(text) {
            return Ok(Kind::Int(n));
        }
        // Rust would also read words, such as "inf".
        let is_float =
            text.contains(['.', 'e', 'E']) && !text.contains(|c: char| c.is_alphabetic() && !"eE".contains(c));
        match number::float(text) {
            Some(n) if is_float && n.is_finite() => Ok(Kind::Float(n)),
            _ => Err(at.error(format!("{text:?} is not a number that is supported"))),
        }
    }
}

/// Length of the letters, digits and underscores at the beginning.
fn word(text: &str) -> usize {
    text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len())
}

/// The character of an escape, whose text follows a backslash, and the length of that text.
fn escaped(text: &str) -> Option<(char, usize)> {
    let digits = |from: usize, length: usize, radix: u32| {
        let digits = text.get(from..from + length)?;
        let is_number = digits.chars().all(|c| c.is_digit(radix));
        is_number.then(|| u32::from_str_radix(digits, radix).ok()).flatten()
    };
    // A byte above 0x7f alone is not a character.
    let ascii = |n: u32| char::from_u32(n).filter(char::is_ascii);
    Some(match text.chars().next()? {
        'a' => ('\x07', 1),
        'b' => ('\x08', 1),
        'f' => ('\x0c', 1),
        'n' => ('\n', 1),
        'r' => ('\r', 1),
        't' => ('\t', 1),
        'v' => ('\x0b', 1),
        c @ ('\\' | '"') => (c, 1),
        'x' => (ascii(digits(1, 2, 16)?)?, 3),
        'u' => (char::from_u32(digits(1, 4, 16)?)?, 5),
        'U' => (char::from_u32(digits(1, 8, 16)?)?, 9),
        '0'..='7' => (ascii(digits(0, 3, 8)?)?, 3),
        _ => return None,
    })
}
