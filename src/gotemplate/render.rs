//! Renders a template: bounded steps, output and nesting, so that no template and no data can hold up a reconcile.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::ast::{Branch, Call, Expression, Kind, Node, Pipeline};
use super::call::Body;
use super::error::{At, Error};
use super::format;
use super::parser::Parsed;
use super::value::{Answer, ELEMENT, Heap, IntType, Out, Value};

/// Maximum nesting of a rendering: control structures, parentheses and templates that call templates. The stack of a
/// thread takes several times as much.
const DEPTH_MAX: usize = 200;
/// What Go prints for nil, and for a key that a map does not have.
const NO_VALUE: &str = "<no value>";

/// The output of a template.
pub fn render(template: &Parsed, data: &serde_json::Value) -> Result<String, Error> {
    let start = At { line: 1, column: 1 };
    let mut heap = Heap::new();
    let dot = heap.of_data(data).map_err(|e| start.error(format!("the data cannot be used: {e}")))?;
    let variables = vec![("$", dot.clone())];
    let mut run = Run { defined: &template.defined, heap, out: Out::default(), variables, depth: 0 };
    run.nodes(start, &dot, &template.root)?;
    Ok(run.out.into_text())
}

struct Run<'t> {
    defined: &'t BTreeMap<String, Vec<Node>>,
    heap: Heap,
    out: Out,
    /// Variables that are visible, the newest at the end.
    variables: Vec<(&'t str, Value)>,
    depth: usize,
}

impl<'t> Run<'t> {
    fn nested<T>(&mut self, at: At, part: impl FnOnce(&mut Self) -> Result<T, Error>) -> Result<T, Error> {
        if self.depth == DEPTH_MAX {
            return Err(
                at.error(format!("templates are nested more than {DEPTH_MAX} deep; let them not call themselves"))
            );
        }
        self.depth += 1;
        let done = part(self);
        self.depth -= 1;
        done
    }

    fn nodes(&mut self, at: At, dot: &Value, nodes: &'t [Node]) -> Result<(), Error> {
        self.nested(at, |run| nodes.iter().try_for_each(|node| run.node(dot, node)))
    }

    fn node(&mut self, dot: &Value, node: &'t Node) -> Result<(), Error> {
        match node {
            Node::Text(at, text) => {
                let done = self.heap.charge(1 + text.len()).and_then(|()| self.out.push_str(text));
                done.map_err(|e| at.error(e))
            }
            Node::Action(pipeline) => {
                let value = self.pipeline(dot, pipeline)?;
                if !pipeline.variables.is_empty() {
                    return Ok(());
                }
                let done = match &value {
                    Value::Nil => self.out.push_str(NO_VALUE),
                    value => format::value(&self.heap, &mut self.out, value),
                };
                done.map_err(|e| pipeline.at.error(e))
            }
            Node::If(branch) | Node::With(branch) => {
                let visible = self.variables.len();
                let value = self.pipeline(dot, &branch.condition)?;
                let at = branch.condition.at;
                if !self.heap.is_true(&value) {
                    self.nodes(at, dot, &branch.otherwise)?;
                } else if matches!(node, Node::With(_)) {
                    self.nodes(at, &value, &branch.then)?;
                } else {
                    self.nodes(at, dot, &branch.then)?;
                }
                self.variables.truncate(visible);
                Ok(())
            }
            Node::Range(branch) => {
                let visible = self.variables.len();
                self.range(dot, branch)?;
                self.variables.truncate(visible);
                Ok(())
            }
            Node::Template { at, name, dot: pipeline } => {
                let value = match pipeline {
                    Some(pipeline) => self.pipeline(dot, pipeline)?,
                    None => Value::Nil,
                };
                let Some(nodes) = self.defined.get(name) else {
                    return Err(at.error(format!("the template {name:?} is not defined")));
                };
                let visible = std::mem::replace(&mut self.variables, vec![("$", value.clone())]);
                self.nodes(*at, &value, nodes)?;
                self.variables = visible;
                Ok(())
            }
        }
    }

    fn range(&mut self, dot: &Value, branch: &'t Branch) -> Result<(), Error> {
        let at = branch.condition.at;
        let elements: Vec<(Value, Value)> = match self.pipeline(dot, &branch.condition)? {
            Value::Nil => vec![],
            Value::List(id) => {
                self.heap.items(id).iter().enumerate().map(|(n, item)| (Value::int(n), item.clone())).collect()
            }
            Value::Map(id) => {
                self.heap.entries(id).iter().map(|(key, item)| (Value::Text(Rc::clone(key)), item.clone())).collect()
            }
            other => {
                let what = other.described();
                return Err(
                    at.error(format!("range over a value of type {what} is not supported; use a list or a map"))
                );
            }
        };
        self.heap.charge(elements.len() * ELEMENT).map_err(|e| at.error(e))?;
        if elements.is_empty() {
            return self.nodes(at, dot, &branch.otherwise);
        }
        let visible = self.variables.len();
        for (key, element) in elements {
            self.heap.charge(1).map_err(|e| at.error(e))?;
            match branch.condition.variables.as_slice() {
                [] => {}
                [name] => self.set(at, name, &element)?,
                [first, second, ..] => {
                    self.set(at, first, &key)?;
                    self.set(at, second, &element)?;
                }
            }
            self.nodes(at, &element, &branch.then)?;
            self.variables.truncate(visible);
        }
        Ok(())
    }

    /// The newest variable of a name.
    fn variable(&mut self, at: At, name: &str) -> Result<&mut Value, Error> {
        let found = self.variables.iter().rposition(|(known, _)| *known == name);
        let Some(found) = found else { return Err(at.error(format!("the variable {name} is not declared"))) };
        // A template may declare thousands.
        self.heap.charge(self.variables.len() - found).map_err(|e| at.error(e))?;
        Ok(&mut self.variables[found].1)
    }

    /// Gives a variable another value.
    fn set(&mut self, at: At, name: &str, value: &Value) -> Result<(), Error> {
        *self.variable(at, name)? = value.clone();
        Ok(())
    }

    fn pipeline(&mut self, dot: &Value, pipeline: &'t Pipeline) -> Result<Value, Error> {
        let mut value = self.expression(dot, &pipeline.first)?;
        for call in &pipeline.rest {
            value = self.call(dot, call, Some(value))?;
        }
        for name in &pipeline.variables {
            if pipeline.assigns {
                self.set(pipeline.at, name, &value)?;
            } else {
                self.variables.push((name, value.clone()));
            }
        }
        Ok(value)
    }

    fn expression(&mut self, dot: &Value, expression: &'t Expression) -> Result<Value, Error> {
        let at = expression.at;
        self.heap.charge(1).map_err(|e| at.error(e))?;
        match &expression.kind {
            Kind::Nil => Ok(Value::Nil),
            Kind::Bool(b) => Ok(Value::Bool(*b)),
            Kind::Int(n) => Ok(Value::Int(IntType::Int, *n)),
            Kind::Float(n) => Ok(Value::Float(*n)),
            Kind::Text(text) => self.heap.text(text.as_str()).map_err(|e| at.error(e)),
            Kind::Dot => Ok(dot.clone()),
            Kind::Variable(name) => self.variable(at, name).cloned(),
            Kind::Call(call) => self.call(dot, call, None),
            Kind::Pipeline(pipeline) => self.nested(at, |run| run.pipeline(dot, pipeline)),
            Kind::Fields(of, names) => {
                let value = self.expression(dot, of)?;
                self.fields(value, names).map_err(|e| at.error(e))
            }
        }
    }

    /// What is under the keys, one after the other. A key that is missing, as in Go, makes all that follow it nil, but
    /// a null that is present has no keys.
    fn fields(&mut self, mut value: Value, names: &[String]) -> Answer {
        for (n, name) in names.iter().enumerate() {
            self.heap.charge(1)?;
            value = match value {
                Value::Map(id) => match self.heap.entries(id).get(name.as_str()) {
                    Some(value) => value.clone(),
                    None => return Ok(Value::Nil),
                },
                Value::Nil if n == 0 => return Ok(Value::Nil),
                other => {
                    return Err(format!("a value of type {} has no field .{name}; only maps have", other.described()));
                }
            };
        }
        Ok(value)
    }

    fn call(&mut self, dot: &Value, call: &'t Call, last: Option<Value>) -> Result<Value, Error> {
        let failed = |e: String| call.at.error(format!("the function {:?} failed: {e}", call.function.name));
        match call.function.body {
            Body::Plain(function) => {
                let mut arguments = Vec::with_capacity(call.arguments.len() + 1);
                for argument in &call.arguments {
                    arguments.push(self.expression(dot, argument)?);
                }
                arguments.extend(last);
                self.heap.charge_reading(&arguments).and_then(|()| function(&mut self.heap, &arguments)).map_err(failed)
            }
            Body::And | Body::Or => {
                let is_or = matches!(call.function.body, Body::Or);
                let mut value = Value::Nil;
                for argument in &call.arguments {
                    value = self.expression(dot, argument)?;
                    if self.heap.is_true(&value) == is_or {
                        return Ok(value);
                    }
                }
                Ok(last.unwrap_or(value))
            }
        }
    }
}
