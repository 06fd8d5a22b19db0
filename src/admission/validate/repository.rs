//! Repository: where backups are stored, and which namespaces may use it.
//!
//! Exactly one backend must be set. The controller checks that the Secret exists and the storage answers; the object
//! itself never contains credentials.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use crate::admission::error::{Errors, FieldError};
use crate::admission::validate::common::name;
use crate::admission::validate::runtime;
use crate::admission::validate::target::{is_clean_path, is_clean_sub_path, not_a_path};
use crate::api::Repository;
use crate::api::repository::{Backend, FromNamespaces, LocalBackend, S3Backend, UsagePolicy};
use crate::plan::run::hosts::is_within;

/// All errors of the object.
pub fn validate(new: &Repository, _: Option<&Repository>) -> Vec<FieldError> {
    let mut errors = Errors::default();
    match &new.spec.backend {
        None => errors.invalid("spec.backend", "is missing; write local or s3, and storageSecretName"),
        Some(backend) => self::backend(&mut errors, backend),
    }
    let keeps = |b: &Backend| b.local.as_ref().map(|_| "local").or(b.b2.as_ref().map(|_| "b2"));
    if let Some(store) = new.spec.backend.as_ref().and_then(keeps).filter(|_| new.spec.wipe_out == Some(true)) {
        errors.invalid(
            "spec.wipeOut",
            format!("is not possible with {store}; remove the field, and delete the data in the storage yourself"),
        );
    }
    if let Some(policy) = &new.spec.usage_policy {
        usage_policy(&mut errors, policy);
    }
    runtime::settings(&mut errors, "spec.runtimeSettings", new.spec.runtime_settings.as_ref());
    errors.into_vec()
}

fn backend(errors: &mut Errors, backend: &Backend) {
    let at = "spec.backend";
    match backend.storage_secret_name.as_deref() {
        None => errors.invalid(
            format!("{at}.storageSecretName"),
            "is required: a Secret with RESTIC_PASSWORD and the credentials of the storage",
        ),
        Some(secret) => name(errors, &format!("{at}.storageSecretName"), secret, "the Secret"),
    }
    let later = [
        ("gcs", backend.gcs.is_some()),
        ("azure", backend.azure.is_some()),
        ("swift", backend.swift.is_some()),
        ("b2", backend.b2.is_some()),
        ("rest", backend.rest.is_some()),
    ];
    let set: Vec<&str> = [("local", backend.local.is_some()), ("s3", backend.s3.is_some())]
        .iter()
        .chain(&later)
        .filter(|(_, is_set)| *is_set)
        .map(|(name, _)| *name)
        .collect();
    match set.len() {
        0 => errors.invalid(at, "has no backend; set local or s3"),
        1 => {}
        _ => errors.invalid(at, format!("has {} backends ({}); keep one", set.len(), set.join(", "))),
    }
    for (field, _) in later.iter().filter(|(_, is_set)| *is_set) {
        errors.not_supported(format!("{at}.{field}"), "is not supported yet; use local or s3");
    }
    if let Some(local) = &backend.local {
        self::local(errors, local);
    }
    if let Some(s3) = &backend.s3 {
        self::s3(errors, s3);
    }
}

fn local(errors: &mut Errors, local: &LocalBackend) {
    let at = "spec.backend.local";
    let possible = "possible are persistentVolumeClaim, hostPath and nfs";
    let text = |source: &str, field: &str| {
        local.source.get(source).and_then(|s| s.get(field)).and_then(|v| v.as_str()).unwrap_or_default().to_owned()
    };
    match local.source.len() {
        0 => errors.invalid(at, format!("names no volume; {possible}")),
        1 => {}
        n => errors.invalid(at, format!("names {n} volumes; keep one")),
    }
    for source in local.source.keys() {
        let at = format!("{at}.{source}");
        match source.as_str() {
            "persistentVolumeClaim" => {
                name(errors, &format!("{at}.claimName"), &text(source, "claimName"), "the PersistentVolumeClaim");
            }
            "hostPath" if !is_clean_path(&text(source, "path")) => {
                errors.invalid(format!("{at}.path"), "must be an absolute path of the node");
            }
            "nfs" if text(source, "server").is_empty() => {
                errors.invalid(format!("{at}.server"), "is missing; write the NFS server");
            }
            "nfs" if !is_clean_path(&text(source, "path")) => {
                errors.invalid(format!("{at}.path"), "must be an absolute path of the server");
            }
            "hostPath" | "nfs" => {}
            "emptyDir" => {
                errors.invalid(at, format!("is deleted with the pod, together with the backups; {possible}"));
            }
            _ => errors.not_supported(at, format!("is not supported yet; {possible}")),
        }
        if local.source.get(source).and_then(|s| s.get("readOnly")) == Some(&true.into()) {
            errors.invalid(format!("spec.backend.local.{source}.readOnly"), "is true, but backups write there");
        }
    }
    let mount = format!("{at}.mountPath");
    if !is_clean_path(&local.mount_path) {
        errors.invalid(mount, not_a_path(&local.mount_path, "/safe/data"));
    } else if is_within(&local.mount_path, "/stash") {
        errors.invalid(
            mount,
            format!(
                "{:?} is within /stash, which is reserved by Stash; write for example /safe/data",
                local.mount_path
            ),
        );
    }
    if local.sub_path.as_deref().is_some_and(|s| !is_clean_sub_path(s)) {
        errors.invalid(format!("{at}.subPath"), "must be a path within the volume: relative, and without ..");
    }
}

fn s3(errors: &mut Errors, s3: &S3Backend) {
    let at = "spec.backend.s3";
    let host =
        s3.endpoint.strip_prefix("https://").or_else(|| s3.endpoint.strip_prefix("http://")).unwrap_or(&s3.endpoint);
    let host = host.strip_suffix('/').unwrap_or(host);
    let endpoint = format!("{at}.endpoint");
    if host.is_empty() {
        errors.invalid(endpoint, "is empty; write a host such as s3.amazonaws.com, or a URL");
    } else if host.contains('@') {
        errors.invalid(endpoint, "holds credentials; they belong into the Secret");
    } else if host.contains("://")
        || host.contains(|c: char| c.is_whitespace() || c.is_control() || matches!(c, '/' | '?' | '#'))
    {
        errors.invalid(
            endpoint,
            format!(
                "{:?} is not a host or URL; write for example https://minio.example:9000, and set bucket and prefix",
                s3.endpoint
            ),
        );
    }
    if s3.bucket.is_empty()
        || s3.bucket.contains(|c: char| c.is_whitespace() || c.is_control() || matches!(c, '/' | ':'))
    {
        errors.invalid(
            format!("{at}.bucket"),
            format!("{:?} is not a bucket name; write only the name, and folders in prefix", s3.bucket),
        );
    }
    if s3.region.as_deref().is_some_and(|r| r.contains(|c: char| c.is_whitespace() || c.is_control())) {
        errors.invalid(format!("{at}.region"), "is not a region; write for example us-east-1");
    }
    if s3.prefix.as_deref().is_some_and(|p| p.split('/').any(|f| f == "..") || p.chars().any(char::is_control)) {
        errors.invalid(format!("{at}.prefix"), "must be a path without .. or control characters");
    }
}

fn usage_policy(errors: &mut Errors, policy: &UsagePolicy) {
    let allowed = &policy.allowed_namespaces;
    let at = "spec.usagePolicy.allowedNamespaces.selector";
    match (allowed.from, &allowed.selector) {
        (FromNamespaces::Selector, None) => {
            errors.invalid(at, "is missing; from: Selector needs the labels of the namespaces");
        }
        (FromNamespaces::Selector, Some(selector)) => self::selector(errors, at, selector),
        (_, None) => {}
        (from, Some(_)) => {
            errors
                .invalid(at, format!("has no effect with from: {from:?}; set from: Selector, or remove the selector"));
        }
    }
}

/// A selector that is not valid would match no namespace, without an error.
fn selector(errors: &mut Errors, at: &str, selector: &LabelSelector) {
    for (i, e) in selector.match_expressions.iter().flatten().enumerate() {
        let at = format!("{at}.matchExpressions[{i}]");
        let values = e.values.as_ref().map_or(0, Vec::len);
        match e.operator.as_str() {
            "In" | "NotIn" if values == 0 => {
                errors.invalid(format!("{at}.values"), format!("is empty; {} needs at least one value", e.operator));
            }
            "Exists" | "DoesNotExist" if values > 0 => {
                errors.invalid(format!("{at}.values"), format!("has no effect with {}; remove it", e.operator));
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => errors.invalid(
                format!("{at}.operator"),
                format!("is {other:?}; possible are In, NotIn, Exists and DoesNotExist"),
            ),
        }
        if e.key.is_empty() {
            errors.invalid(format!("{at}.key"), "is empty; write the name of a label");
        }
    }
}
