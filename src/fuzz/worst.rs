//! The worst objects that a schema admits, made from the schema itself.
//!
//! A shape names lists and maps that grow; all else stands only where it is
//! needed to get there. What grows is filled until the object is as large as it
//! may be. Shared by the unit tests, the fuzz targets and `make bench-admission`,
//! which names this file by its path: so it knows JSON and nothing of this library.

use serde_json::{Map, Value, json};

/// What texts are filled with.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Text {
    /// Short, and distinct; paths lie in mounts where there are as many.
    Fitting,
    /// Short, and wrong wherever a rule asks for something.
    Astray,
    /// As long as they may be.
    Long,
}

/// Which parts of an object grow.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Paths of lists and maps, such as `spec.members[].target.volumeMounts`.
    pub grown: Vec<String>,
    /// Items of the lists around them.
    pub outer: usize,
    /// What texts are.
    pub text: Text,
}

/// Fields that stand in every object, so that rules get far.
const STANDS: [&str; 6] = ["ref", "repository", "invoker", "kind", "name", "target"];
/// No object is built larger than this many values and bytes, whatever a shape says.
const VALUES: usize = 20_000;
const BYTES: usize = 600_000;
/// No list is longer than that.
const MOST: usize = 1024;

/// Every list and map alone, and every pair of those of a target, few and many of them.
pub fn shapes(spec: &Value) -> Vec<Shape> {
    let mut all = vec![];
    growing("spec", spec, &mut all);
    let mut shapes = vec![];
    for path in &all {
        for (outer, text) in [(1, Text::Long), (100, Text::Astray)] {
            shapes.push(Shape { grown: vec![path.clone()], outer, text });
        }
    }
    let ours = |path: &&String| path.contains("target.") || path.contains("rules") || path.ends_with("members");
    let ours: Vec<&String> = all.iter().filter(ours).filter(|p| !p.contains("Templates[]")).collect();
    for (i, one) in ours.iter().enumerate() {
        for other in &ours[i + 1..] {
            for (outer, text) in [(1, Text::Astray), (16, Text::Long), (100, Text::Fitting)] {
                shapes.push(Shape { grown: vec![(*one).clone(), (*other).clone()], outer, text });
            }
        }
    }
    let rules = |path: &&String| path.contains("rules") && !path.contains("members[].rules");
    let grown: Vec<String> = ours.iter().copied().filter(rules).cloned().collect();
    for outer in [1, 2, 16] {
        shapes.push(Shape { grown: grown.clone(), outer, text: Text::Fitting });
    }
    shapes
}

fn growing(path: &str, schema: &Value, all: &mut Vec<String>) {
    if let Some(items) = schema.get("items") {
        all.push(path.to_owned());
        growing(&format!("{path}[]"), items, all);
    }
    if let Some(values) = schema.get("additionalProperties").filter(|v| v.is_object()) {
        all.push(path.to_owned());
        growing(&format!("{path}{{}}"), values, all);
    }
    for (name, field) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
        growing(&format!("{path}.{name}"), field, all);
    }
}

/// The largest object of a shape that fits.
pub fn largest(kind: &str, spec: &Value, shape: &Shape, fits: impl Fn(&Value) -> bool) -> Value {
    let mut shape = shape.clone();
    let built = |shape: &Shape, n: usize| object(kind, spec, shape, n).filter(|o| fits(o));
    let mut best = built(&shape, 1);
    while best.is_none() && shape.outer > 1 {
        shape.outer /= 2;
        best = built(&shape, 1);
    }
    let (mut low, mut high) = (1, MOST + 1);
    while high - low > 1 {
        let n = usize::midpoint(low, high);
        match built(&shape, n) {
            Some(larger) => (best, low) = (Some(larger), n),
            None => high = n,
        }
    }
    best.unwrap_or(Value::Null)
}

/// The object of a shape in which what grows has `n` items, or as many as it may. `None` if it became too large.
pub fn object(kind: &str, spec: &Value, shape: &Shape, n: usize) -> Option<Value> {
    let mut builder = Builder { shape, n, values: 0, bytes: 0, texts: 0 };
    let spec = builder.value("spec", spec, 0);
    let api = if kind == "Repository" { "v1alpha1" } else { "v1beta1" };
    let object = json!({ "apiVersion": format!("stash.appscode.com/{api}"), "kind": kind,
        "metadata": { "name": "worst", "namespace": "n" }, "spec": spec });
    (!builder.is_full()).then_some(object)
}

struct Builder<'a> {
    shape: &'a Shape,
    n: usize,
    values: usize,
    bytes: usize,
    texts: usize,
}

impl Builder<'_> {
    fn is_full(&self) -> bool {
        self.values > VALUES || self.bytes > BYTES
    }

    /// Items of a list or entries of a map.
    fn count(&self, path: &str, schema: &Value, key: &str) -> usize {
        let most = schema.get(key).and_then(Value::as_u64).and_then(|n| usize::try_from(n).ok()).unwrap_or(MOST);
        let wanted = if self.shape.grown.iter().any(|g| g == path) { self.n } else { self.shape.outer };
        wanted.min(most)
    }

    fn leads(&self, path: &str) -> bool {
        self.shape
            .grown
            .iter()
            .any(|g| g.strip_prefix(path).is_some_and(|r| r.is_empty() || r.starts_with(['.', '[', '{'])))
    }

    fn value(&mut self, path: &str, schema: &Value, index: usize) -> Value {
        self.values += 1;
        if let Some(word) = schema.get("enum").and_then(|e| e.get(0)) {
            return word.clone();
        }
        if schema.get("x-kubernetes-int-or-string").is_some() {
            return "1".into();
        }
        if let Some(items) = schema.get("items") {
            let mut list = vec![];
            while list.len() < self.count(path, schema, "maxItems") && !self.is_full() {
                list.push(self.value(&format!("{path}[]"), items, list.len()));
            }
            return list.into();
        }
        if let Some(values) = schema.get("additionalProperties").filter(|v| v.is_object()) {
            let mut map = Map::new();
            while map.len() < self.count(path, schema, "maxProperties") && !self.is_full() {
                let value = self.value(&format!("{path}{{}}"), values, map.len());
                map.insert(format!("k{}", map.len()), value);
            }
            return map.into();
        }
        match schema.get("type").and_then(Value::as_str) {
            Some("object") => self.fields(path, schema, index),
            Some("integer" | "number") => 1.into(),
            Some("boolean") => false.into(),
            _ => self.text(path, schema, index).into(),
        }
    }

    fn fields(&mut self, path: &str, schema: &Value, index: usize) -> Value {
        let required = |name: &str| {
            let names = schema.get("required").and_then(Value::as_array);
            names.is_some_and(|names| names.iter().any(|n| n == name))
        };
        let mut map = Map::new();
        for (name, field) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
            let below = format!("{path}.{name}");
            let is_leaf = field.get("type").is_some_and(|t| t == "string");
            let stands = STANDS.contains(&name.as_str()) && (path == "spec" || name == "ref" || is_leaf);
            if required(name) || self.leads(&below) || stands {
                self.bytes += name.len() + 4;
                map.insert(name.clone(), self.value(&below, field, index));
            }
        }
        map.into()
    }

    fn text(&mut self, path: &str, schema: &Value, index: usize) -> String {
        self.texts += 1;
        let name = path.rsplit('.').next().unwrap_or_default();
        let mut text = match name {
            "kind" if path.contains("invoker") => "BackupBatch".to_owned(),
            "kind" => "Deployment".to_owned(),
            "mountPath" => format!("/m{index}"),
            "paths[]" if self.shape.text == Text::Astray => format!("/q{index}"),
            "paths[]" => format!("/m{index}/x"),
            "schedule" => "* * * * *".to_owned(),
            _ if schema.get("format").is_some() => "2026-11-20T16:00:00Z".to_owned(),
            _ if schema.get("pattern").is_some() => "1h".to_owned(),
            "targetHosts[]" => format!("h{}", self.texts),
            _ if self.shape.text == Text::Astray => String::new(),
            _ => format!("n{index}"),
        };
        let most = schema.get("maxLength").and_then(Value::as_u64).and_then(|n| usize::try_from(n).ok());
        let is_free = !["kind", "schedule"].contains(&name) && schema.get("format").or(schema.get("pattern")).is_none();
        if self.shape.text == Text::Long && is_free {
            let fill = if text.starts_with('/') { "/a" } else { "x" };
            let missing = most.unwrap_or(1024).saturating_sub(text.len());
            text.push_str(&fill.repeat(missing / fill.len()));
        }
        self.bytes += text.len() + 3;
        text
    }
}
