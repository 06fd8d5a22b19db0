//! Converts Rust types to OpenAPI schemas that an API server accepts.
//!
//! Embedded Kubernetes types keep their structure, but not their descriptions: with them, one PodSpec alone is 400 kB
//! of YAML. Keywords of schemars that Kubernetes does not support (nullable options, empty defaults, unsigned
//! formats) are removed in one pass over the generated schema.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::core::schema::{OptionalEnum, OptionalIntOrString, StructuralSchemaRewriter};
use schemars::transform::AddNullable;
use schemars::{JsonSchema, Schema, SchemaGenerator, generate::SchemaSettings, json_schema};
use serde_json::Value;

use crate::api::bounds;

/// Schema of an embedded Kubernetes type, inlined and without descriptions.
pub fn embedded<T: JsonSchema>(_: &mut SchemaGenerator) -> Schema {
    let settings = SchemaSettings::openapi3().with(|s| {
        s.inline_subschemas = true;
        s.meta_schema = None;
    });
    let schema = settings.into_generator().into_root_schema_for::<T>();
    let mut value = schema.to_value();
    strip_descriptions(&mut value);
    if let Value::Object(map) = &mut value {
        map.remove("title");
        map.remove("$schema");
        map.remove("components");
    }
    Schema::try_from(value).unwrap_or_default()
}

/// Schema of an object whose fields are not checked.
pub fn free_object(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true })
}

/// Schema of a value that is either a number or a string.
pub fn int_or_string(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "x-kubernetes-int-or-string": true })
}

fn strip_descriptions(value: &mut Value) {
    match value {
        Value::Object(map) => {
            // A *property* called "description" is an object; the keyword is a string.
            if map.get("description").is_some_and(Value::is_string) {
                map.remove("description");
            }
            map.values_mut().for_each(strip_descriptions);
        }
        Value::Array(items) => items.iter_mut().for_each(strip_descriptions),
        _ => {}
    }
}

/// Changes a generated CRD to the form that Kubernetes expects.
pub fn finish(crd: &CustomResourceDefinition) -> Value {
    let mut value = serde_json::to_value(crd).unwrap_or_default();
    if let Some(versions) = value.pointer_mut("/spec/versions").and_then(Value::as_array_mut) {
        for version in versions {
            if let Some(schema) = version.pointer_mut("/schema/openAPIV3Schema") {
                tidy(schema);
                // Only fields that users write have limits.
                if crd.spec.group == crate::names::GROUP
                    && let Some(spec) = schema.pointer_mut("/properties/spec")
                {
                    bounds::apply("spec", spec);
                }
            }
        }
    }
    super::json::clean(&mut value);
    if let Some(meta) = value.get_mut("metadata").and_then(Value::as_object_mut) {
        let app = if crd.spec.group == "appcatalog.appscode.com" { "catalog" } else { "stash" };
        meta.insert("labels".into(), serde_json::json!({ "app.kubernetes.io/name": app }));
    }
    value
}

/// The same schema for a spec alone, generated directly from its type. Generating a whole CRD takes several times as
/// long, and the operator needs the limits of a kind before it validates the first object.
pub fn of_spec<T: JsonSchema>() -> Value {
    // With the same settings as kube.
    let settings = SchemaSettings::openapi3().with(|s| {
        s.inline_subschemas = true;
        s.meta_schema = None;
    });
    let settings = settings
        .with_transform(AddNullable::default())
        .with_transform(StructuralSchemaRewriter)
        .with_transform(OptionalEnum)
        .with_transform(OptionalIntOrString);
    let mut value = settings.into_generator().into_root_schema_for::<T>().to_value();
    tidy(&mut value);
    bounds::apply("spec", &mut value);
    value
}

fn tidy(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.remove("nullable");
            // schemars writes Default::default() of every optional field; only defaults that are not empty are kept.
            let empty = map.get("default").is_some_and(|d| match d {
                Value::Null | Value::Bool(false) => true,
                Value::String(s) => s.is_empty(),
                Value::Array(a) => a.is_empty(),
                Value::Object(o) => o.is_empty(),
                _ => false,
            });
            if empty {
                map.remove("default");
            }
            if map.get("format").and_then(Value::as_str).is_some_and(|f| f.starts_with("uint")) {
                map.insert("format".into(), "int64".into());
            }
            if let Some(Value::Array(values)) = map.get_mut("enum") {
                values.retain(|v| !v.is_null());
            }
            map.values_mut().for_each(tidy);
        }
        Value::Array(items) => items.iter_mut().for_each(tidy),
        _ => {}
    }
}
