//! Tokens to a template. What would fail in any rendering is refused here, so that it is known before anything runs:
//! unknown functions, templates and variables, wrong numbers of arguments, and what is not supported.

use std::collections::BTreeMap;

use super::ast::{Branch, Call, Expression, Kind, Node, Pipeline};
use super::error::{At, Error};
use super::functions;
use super::lexer::{self, Token};

/// Maximum length of a template in bytes. A body of a hook is a message, and etcd takes objects of 1.5 MB.
const LENGTH_MAX: usize = 64 * 1024;
/// Maximum nesting of control structures and parentheses.
const DEPTH_MAX: usize = 50;

/// A parsed template: what it prints, and the templates that it defines.
pub struct Parsed {
    pub root: Vec<Node>,
    pub defined: BTreeMap<String, Vec<Node>>,
}

/// Parses a template.
pub fn parse(template: &str) -> Result<Parsed, Error> {
    let start = At { line: 1, column: 1 };
    if template.len() > LENGTH_MAX {
        return Err(start.error(format!("the template is longer than {} KiB; shorten it", LENGTH_MAX / 1024)));
    }
    let tokens = lexer::tokens(template)?;
    let mut parser = Parser { tokens, next: 0, variables: globals(), depth: 0, defined: BTreeMap::new(), used: vec![] };
    let (root, end) = parser.nodes(true)?;
    if let Stop::Else(at) | Stop::End(at) = end {
        return Err(at.error("there is no if, with or range that this belongs to"));
    }
    if let Some((at, name)) = parser.used.iter().find(|(_, name)| !parser.defined.contains_key(name)) {
        return Err(at.error(format!("the template {name:?} is not defined; define it with {{{{define {name:?}}}}}")));
    }
    Ok(Parsed { root, defined: parser.defined })
}

fn globals() -> Vec<String> {
    vec!["$".to_owned()]
}

/// What ended a list of nodes.
enum Stop {
    Text,
    /// The `else` was read, and the rest of its action was not.
    Else(At),
    End(At),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Control {
    If,
    With,
    Range,
}

struct Parser {
    tokens: Vec<Token>,
    next: usize,
    /// Variables that are visible.
    variables: Vec<String>,
    depth: usize,
    defined: BTreeMap<String, Vec<Node>>,
    /// Templates that are rendered somewhere.
    used: Vec<(At, String)>,
}

impl Parser {
    /// The last token is never passed.
    fn peek(&self) -> &Token {
        &self.tokens[self.next.min(self.tokens.len() - 1)]
    }

    fn take(&mut self) -> Token {
        let token = self.peek().clone();
        self.next += 1;
        token
    }

    fn skip_spaces(&mut self) {
        while self.peek().kind == lexer::Kind::Space {
            self.next += 1;
        }
    }

    fn peek_word(&mut self) -> Option<(At, String)> {
        self.skip_spaces();
        match self.peek() {
            Token { at, kind: lexer::Kind::Word(word) } => Some((*at, word.clone())),
            _ => None,
        }
    }

    fn close(&mut self, after: &str) -> Result<(), Error> {
        self.skip_spaces();
        let token = self.take();
        if token.kind == lexer::Kind::Close {
            return Ok(());
        }
        Err(token.at.error(format!("{} cannot follow {after}; close the action with \"}}}}\"", shown(&token.kind))))
    }

    /// Runs a part of the parser one level deeper.
    fn nested<T>(&mut self, at: At, part: impl FnOnce(&mut Self) -> Result<T, Error>) -> Result<T, Error> {
        if self.depth == DEPTH_MAX {
            return Err(at.error(format!("this is nested more than {DEPTH_MAX} deep; split the template with define")));
        }
        self.depth += 1;
        let done = part(self);
        self.depth -= 1;
        done
    }

    /// Nodes up to `else`, `end` or the end of the text.
    fn nodes(&mut self, is_top: bool) -> Result<(Vec<Node>, Stop), Error> {
        let mut nodes = vec![];
        loop {
            let Token { at, kind } = self.take();
            match kind {
                lexer::Kind::Text(text) => {
                    nodes.push(Node::Text(at, text));
                    continue;
                }
                lexer::Kind::Open => {}
                _ => return Ok((nodes, Stop::Text)),
            }
            let Some((at_word, word)) = self.peek_word().filter(|(_, word)| is_keyword(word)) else {
                let pipeline = self.pipeline(at, false)?;
                self.close("a pipeline")?;
                nodes.push(Node::Action(pipeline));
                continue;
            };
            self.next += 1;
            match word.as_str() {
                "else" => return Ok((nodes, Stop::Else(at_word))),
                "end" => {
                    self.close("end")?;
                    return Ok((nodes, Stop::End(at_word)));
                }
                "if" => nodes.push(self.control(at_word, Control::If)?),
                "with" => nodes.push(self.control(at_word, Control::With)?),
                "range" => nodes.push(self.control(at_word, Control::Range)?),
                "template" => nodes.push(self.template(at_word)?),
                "block" => nodes.push(self.block(at_word)?),
                "define" if is_top => {
                    let name = self.name("define")?;
                    self.close("the name")?;
                    self.define(at_word, name)?;
                }
                "define" => return Err(at_word.error("define is not allowed inside other actions; move it outside")),
                word => return Err(at_word.error(format!("{word} is not supported; use if inside the range"))),
            }
        }
    }

    fn control(&mut self, at: At, control: Control) -> Result<Node, Error> {
        self.nested(at, |parser| {
            let visible = parser.variables.len();
            let condition = parser.pipeline(at, control == Control::Range)?;
            if control == Control::Range && condition.rest.is_empty() && matches!(condition.first.kind, Kind::Int(_)) {
                return Err(at.error("range over a number is not supported; use a list, such as (list 1 2 3)"));
            }
            parser.close("a pipeline")?;
            let (then, stop) = parser.nodes(false)?;
            let otherwise = match stop {
                Stop::End(_) => vec![],
                Stop::Else(at_else) => parser.otherwise(at_else, control)?,
                Stop::Text => return Err(at.error("this has no end; add {{end}}")),
            };
            parser.variables.truncate(visible);
            let branch = Branch { condition, then, otherwise };
            Ok(match control {
                Control::If => Node::If(branch),
                Control::With => Node::With(branch),
                Control::Range => Node::Range(branch),
            })
        })
    }

    /// What follows the word `else`, up to the `end` of the whole structure.
    fn otherwise(&mut self, at: At, control: Control) -> Result<Vec<Node>, Error> {
        match (self.peek_word(), control) {
            (Some((at, word)), Control::If) if word == "if" => {
                self.next += 1;
                return Ok(vec![self.control(at, control)?]);
            }
            (Some((at, word)), Control::With) if word == "with" => {
                self.next += 1;
                return Ok(vec![self.control(at, control)?]);
            }
            _ => {}
        }
        self.close("else")?;
        let (nodes, stop) = self.nodes(false)?;
        match stop {
            Stop::End(_) => Ok(nodes),
            Stop::Else(at) => Err(at.error("there is an else already")),
            Stop::Text => Err(at.error("this has no end; add {{end}}")),
        }
    }

    fn name(&mut self, of: &str) -> Result<String, Error> {
        self.skip_spaces();
        let token = self.take();
        match token.kind {
            lexer::Kind::Quoted(name) => Ok(name),
            _ => Err(token.at.error(format!("{of} needs a name between double quotes"))),
        }
    }

    /// The pipeline after a name, up to the end of the action.
    fn dot(&mut self, at: At) -> Result<Option<Pipeline>, Error> {
        self.skip_spaces();
        if self.peek().kind == lexer::Kind::Close {
            self.next += 1;
            return Ok(None);
        }
        let pipeline = self.pipeline(at, false)?;
        self.close("a pipeline")?;
        Ok(Some(pipeline))
    }

    fn template(&mut self, at: At) -> Result<Node, Error> {
        let name = self.name("template")?;
        let dot = self.dot(at)?;
        self.used.push((at, name.clone()));
        Ok(Node::Template { at, name, dot })
    }

    fn block(&mut self, at: At) -> Result<Node, Error> {
        let name = self.name("block")?;
        let Some(dot) = self.dot(at)? else {
            return Err(at.error("block needs a value after its name, such as a dot"));
        };
        self.define(at, name.clone())?;
        Ok(Node::Template { at, name, dot: Some(dot) })
    }

    /// The body of a template, in which no variable is visible.
    fn define(&mut self, at: At, name: String) -> Result<(), Error> {
        let visible = std::mem::replace(&mut self.variables, globals());
        let (nodes, stop) = self.nested(at, |parser| parser.nodes(false))?;
        self.variables = visible;
        match stop {
            Stop::End(_) => {}
            Stop::Else(at) => return Err(at.error("there is no if, with or range that this belongs to")),
            Stop::Text => return Err(at.error("this has no end; add {{end}}")),
        }
        if self.defined.contains_key(&name) {
            return Err(at.error(format!("the template {name:?} is defined twice; give one another name")));
        }
        self.defined.insert(name, nodes);
        Ok(())
    }

    /// A pipeline up to the end of its action or parenthesis, which is not read.
    fn pipeline(&mut self, at: At, is_range: bool) -> Result<Pipeline, Error> {
        let (declared, assigns) = self.declarations(is_range)?;
        let mut first = None;
        let mut rest = vec![];
        loop {
            self.skip_spaces();
            let at = self.peek().at;
            if self.is_at_end() {
                return Err(at.error("a value or a function is missing here"));
            }
            let is_piped = first.is_some();
            let command = self.command(is_piped)?;
            match command {
                command if !is_piped => first = Some(command),
                Expression { kind: Kind::Call(call), .. } => rest.push(call),
                Expression { at, .. } => {
                    return Err(at.error("what follows | must be a function, because it gets the value before it"));
                }
            }
            if self.peek().kind != lexer::Kind::Pipe {
                break;
            }
            self.next += 1;
        }
        let Some(first) = first else { return Err(at.error("a value or a function is missing here")) };
        if !assigns {
            // A variable is not visible in its own value.
            self.variables.extend(declared.iter().cloned());
        }
        Ok(Pipeline { at, variables: declared, assigns, first, rest })
    }

    fn is_at_end(&self) -> bool {
        matches!(self.peek().kind, lexer::Kind::Close | lexer::Kind::Right | lexer::Kind::End | lexer::Kind::Pipe)
    }

    /// `$x :=`, `$x =`, and in a range also with two variables.
    fn declarations(&mut self, is_range: bool) -> Result<(Vec<String>, bool), Error> {
        let start = self.next;
        let mut declared = vec![];
        loop {
            self.skip_spaces();
            let token = self.take();
            let lexer::Kind::Variable(name) = token.kind else { break };
            declared.push(name.clone());
            self.skip_spaces();
            let after = self.take().kind;
            match after {
                lexer::Kind::Declare => return Ok((declared, false)),
                lexer::Kind::Assign => {
                    if let Some(name) = declared.iter().find(|name| !self.variables.contains(name)) {
                        return Err(token.at.error(format!("the variable {name} is not declared; use {name} :=")));
                    }
                    return Ok((declared, true));
                }
                lexer::Kind::Comma if is_range && declared.len() == 1 => {}
                _ => break,
            }
        }
        if declared.len() > 1 {
            return Err(self.tokens[start].at.error("the variables of a range must be followed by :="));
        }
        self.next = start;
        Ok((vec![], false))
    }

    /// Operands up to `|` or the end of the pipeline: a value, or a function with its arguments.
    fn command(&mut self, is_piped: bool) -> Result<Expression, Error> {
        let mut operands = vec![];
        loop {
            self.skip_spaces();
            if self.is_at_end() {
                break;
            }
            operands.push(self.operand()?);
            if self.peek().kind != lexer::Kind::Space {
                break;
            }
        }
        if !self.is_at_end() {
            let token = self.peek();
            return Err(token
                .at
                .error(format!("{} is not allowed here; separate values with spaces", shown(&token.kind))));
        }
        let mut operands = operands.into_iter();
        let Some(first) = operands.next() else { return Err(self.peek().at.error("a value is missing here")) };
        let arguments: Vec<_> = operands.collect();
        match first {
            Expression { at, kind: Kind::Call(mut call) } => {
                call.arguments = arguments;
                let count = call.arguments.len() + usize::from(is_piped);
                check_count(&call, count)?;
                Ok(Expression { at, kind: Kind::Call(call) })
            }
            Expression { at, .. } if !arguments.is_empty() => {
                Err(at.error("this is not a function and takes no arguments; use printf to print several values"))
            }
            Expression { at, kind: Kind::Nil } => Err(at.error("nil alone has no meaning; use it as an argument")),
            value => Ok(value),
        }
    }

    /// A term with the fields after it. A function has no arguments yet.
    fn operand(&mut self) -> Result<Expression, Error> {
        let term = self.term()?;
        let mut names = vec![];
        while let lexer::Kind::Field(name) = &self.peek().kind {
            names.push(name.clone());
            self.next += 1;
        }
        if names.is_empty() {
            return Ok(term);
        }
        match term.kind {
            Kind::Variable(_) | Kind::Pipeline(_) => {
                Ok(Expression { at: term.at, kind: Kind::Fields(Box::new(term), names) })
            }
            Kind::Fields(of, mut before) => {
                before.extend(names);
                Ok(Expression { at: term.at, kind: Kind::Fields(of, before) })
            }
            Kind::Call(call) => {
                Err(term.at.error(format!("write ({}) to take a field of its value", call.function.name)))
            }
            _ => Err(term.at.error("this has no fields")),
        }
    }

    fn term(&mut self) -> Result<Expression, Error> {
        let Token { at, kind } = self.take();
        let kind = match kind {
            lexer::Kind::Quoted(text) => Kind::Text(text),
            lexer::Kind::Int(n) => Kind::Int(n),
            lexer::Kind::Float(n) => Kind::Float(n),
            lexer::Kind::Dot => Kind::Dot,
            lexer::Kind::Field(name) => Kind::Fields(Box::new(Expression { at, kind: Kind::Dot }), vec![name]),
            lexer::Kind::Variable(name) if self.variables.contains(&name) => Kind::Variable(name),
            lexer::Kind::Variable(name) => {
                return Err(at.error(format!("the variable {name} is not declared here; use {name} := before")));
            }
            lexer::Kind::Left => self.nested(at, |parser| {
                let pipeline = parser.pipeline(at, false)?;
                let token = parser.take();
                match token.kind {
                    lexer::Kind::Right => Ok(Kind::Pipeline(Box::new(pipeline))),
                    _ => Err(at.error("the parenthesis is not closed in its action; add \")\"")),
                }
            })?,
            lexer::Kind::Word(word) => match word.as_str() {
                "true" => Kind::Bool(true),
                "false" => Kind::Bool(false),
                "nil" => Kind::Nil,
                word if is_keyword(word) => return Err(at.error(format!("{word} must begin an action"))),
                word => match functions::find(word) {
                    Some(function) => Kind::Call(Call { at, function, arguments: vec![] }),
                    None => {
                        return Err(at.error(format!(
                            "the function {word:?} is not supported; functions of clocks, random numbers, the \
                             environment, networks and cryptography never are"
                        )));
                    }
                },
            },
            kind => return Err(at.error(format!("{} is not allowed here", shown(&kind)))),
        };
        Ok(Expression { at, kind })
    }
}

/// A function as an argument has no arguments of its own. [`Parser::command`] checks all others.
fn check_count(call: &Call, count: usize) -> Result<(), Error> {
    let function = call.function;
    if count < function.least || function.most.is_some_and(|most| count > most) {
        let wanted = match (function.least, function.most) {
            (least, None) => format!("at least {least}"),
            (least, Some(most)) if least == most => least.to_string(),
            (least, Some(most)) => format!("{least} to {most}"),
        };
        let (name, s) = (function.name, if wanted == "1" || wanted.ends_with(" 1") { "" } else { "s" });
        return Err(call.at.error(format!("the function {name:?} takes {wanted} argument{s}, and gets {count}")));
    }
    for argument in &call.arguments {
        if let Kind::Call(call) = &argument.kind {
            check_count(call, 0)?;
        }
    }
    Ok(())
}

fn is_keyword(word: &str) -> bool {
    matches!(word, "if" | "else" | "end" | "range" | "with" | "template" | "define" | "block" | "break" | "continue")
}

fn shown(kind: &lexer::Kind) -> String {
    match kind {
        lexer::Kind::Text(_) | lexer::Kind::Open | lexer::Kind::End => "the end of the template".to_owned(),
        lexer::Kind::Close => "\"}}\"".to_owned(),
        lexer::Kind::Space => "a space".to_owned(),
        lexer::Kind::Word(word) => format!("{word:?}"),
        lexer::Kind::Dot => "\".\"".to_owned(),
        lexer::Kind::Field(name) => format!("\".{name}\""),
        lexer::Kind::Variable(name) => format!("\"{name}\""),
        lexer::Kind::Quoted(_) => "a text".to_owned(),
        lexer::Kind::Int(_) | lexer::Kind::Float(_) => "a number".to_owned(),
        lexer::Kind::Declare => "\":=\"".to_owned(),
        lexer::Kind::Assign => "\"=\"".to_owned(),
        lexer::Kind::Pipe => "\"|\"".to_owned(),
        lexer::Kind::Comma => "\",\"".to_owned(),
        lexer::Kind::Left => "\"(\"".to_owned(),
        lexer::Kind::Right => "\")\"".to_owned(),
    }
}
