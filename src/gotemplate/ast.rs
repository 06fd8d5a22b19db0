//! A template that was read.

use super::call::Function;
use super::error::At;

/// A part of a template.
pub enum Node {
    Text(At, String),
    /// Prints the value of a pipeline that declares no variable.
    Action(Pipeline),
    If(Branch),
    With(Branch),
    Range(Branch),
    /// Renders a defined template.
    Template {
        at: At,
        name: String,
        dot: Option<Pipeline>,
    },
}

/// `if`, `with` or `range`.
pub struct Branch {
    pub condition: Pipeline,
    pub then: Vec<Node>,
    pub otherwise: Vec<Node>,
}

/// Commands, each of which gets the value of the previous one as its last argument.
pub struct Pipeline {
    pub at: At,
    /// Variables that take the value, with their `$`.
    pub variables: Vec<String>,
    /// The variables exist already.
    pub assigns: bool,
    pub first: Expression,
    pub rest: Vec<Call>,
}

/// A function with its arguments, without the one that the pipeline adds.
pub struct Call {
    pub at: At,
    pub function: &'static Function,
    pub arguments: Vec<Expression>,
}

pub struct Expression {
    pub at: At,
    pub kind: Kind,
}

pub enum Kind {
    Nil,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    Dot,
    Variable(String),
    Call(Call),
    Pipeline(Box<Pipeline>),
    /// Keys of maps, one after the other: `.A.B`, `$x.A`, `(index .A 0).B`.
    Fields(Box<Expression>, Vec<String>),
}
