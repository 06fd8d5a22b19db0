//! Hooks: each has something to do, and names what it needs to do it.
//!
//! A hook of the whole run, and a hook of a target without pods, has no pod: its commands run in its own Job, and its
//! requests need a host. Whether the installation runs commands at all is checked by the controller.

use hyper::Uri;
use hyper::header::{HeaderName, HeaderValue};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use crate::admission::error::Errors;
use crate::admission::validate::common;
use crate::api::common::TargetRef;
use crate::api::hooks::Handler;
use crate::gotemplate::Template;
use crate::plan::run::duration;
use crate::plan::run::hooks::MAX_LIMIT;
use crate::plan::work::hook_job::{OWN_CONTAINERS, TEMPLATE, has_pods, number};

/// Whose hook it is.
#[derive(Clone, Copy)]
pub enum Of<'a> {
    /// The whole run.
    Run,
    /// A member with this target.
    Member(Option<&'a TargetRef>),
}

impl Of<'_> {
    /// Why the hook has no pod; `None` if it has.
    fn without_pod(self) -> Option<&'static str> {
        match self {
            Self::Run => Some("a hook of the whole run has no pod"),
            Self::Member(target) if has_pods(target) => None,
            Self::Member(_) => Some("the target has no pods of its own"),
        }
    }
}

/// The hooks that are set, each with its field, in the object at `at`.
pub fn validate<'a>(
    errors: &mut Errors,
    at: &str,
    hooks: impl IntoIterator<Item = (&'static str, &'a Handler)>,
    of: Of<'_>,
) {
    for (field, handler) in hooks {
        one(errors, &format!("{at}.{field}"), handler, of);
    }
}

fn one(errors: &mut Errors, at: &str, handler: &Handler, of: Of<'_>) {
    let Handler { exec, http_get, http_post, tcp_socket, container_name, time_out, ca_bundle } = handler;
    if exec.is_none() && http_get.is_none() && http_post.is_none() && tcp_socket.is_none() {
        errors.invalid(at, "has no action; write exec, httpGet, httpPost or tcpSocket");
    }
    if let Some(exec) = exec {
        let command = exec.command.as_deref().unwrap_or_default();
        if command.first().is_none_or(String::is_empty) {
            errors.invalid(format!("{at}.exec.command"), "is empty; write a program and its arguments");
        }
        for (i, text) in command.iter().enumerate() {
            template(errors, &format!("{at}.exec.command[{i}]"), text);
        }
    }
    let named = container_name.as_deref().filter(|n| !n.is_empty());
    // Stash runs the commands of a whole run in the operator, whatever the container; a notice says that they run in a Job.
    if let (Of::Member(_), Some(why), Some(name)) = (of, of.without_pod(), named)
        && !OWN_CONTAINERS.contains(&name)
    {
        let text = format!("is {name:?}, but {why}: its command runs in its own Job; remove the field");
        errors.invalid(format!("{at}.containerName"), text);
    }
    if let Some(get) = http_get {
        let headers = get.http_headers.iter().flatten().map(|h| (h.name.as_str(), h.value.as_str()));
        let at = format!("{at}.httpGet");
        address(errors, &at, get.host.as_deref(), &get.port, of);
        request(errors, &at, get.scheme.as_deref(), get.path.as_deref(), headers);
    }
    if let Some(post) = http_post {
        let headers = post.http_headers.iter().map(|h| (h.name.as_str(), h.value.as_str()));
        let at = format!("{at}.httpPost");
        address(errors, &at, post.host.as_deref(), &post.port, of);
        request(errors, &at, post.scheme.as_deref(), post.path.as_deref(), headers);
        template(errors, &format!("{at}.body"), post.body.as_deref().unwrap_or_default());
        for (i, _) in post.form.iter().enumerate().filter(|(_, f)| f.key.as_ref().is_none_or(String::is_empty)) {
            errors.invalid(format!("{at}.form[{i}].key"), "is empty; write the name of the field");
        }
    }
    if let Some(tcp) = tcp_socket {
        address(errors, &format!("{at}.tcpSocket"), tcp.host.as_deref(), &tcp.port, of);
    }
    common::positive_duration(errors, &format!("{at}.timeOut"), time_out.as_deref());
    if time_out.as_deref().is_some_and(|t| duration::parse(t).is_ok_and(|t| t > MAX_LIMIT)) {
        let most = duration::format(MAX_LIMIT);
        errors.invalid(format!("{at}.timeOut"), format!("is longer than {most}; a run waits for its hooks"));
    }
    if let Some(ca) = ca_bundle {
        let all: Vec<_> = CertificateDer::pem_slice_iter(&ca.0).collect();
        if all.is_empty() || all.iter().any(Result::is_err) {
            errors.invalid(format!("{at}.caBundle"), "holds no certificates in PEM format (as base64)");
        }
    }
}

fn address(errors: &mut Errors, at: &str, host: Option<&str>, port: &IntOrString, of: Of<'_>) {
    let host = host.unwrap_or_default();
    if let Some(why) = of.without_pod().filter(|_| host.is_empty()) {
        errors.invalid(format!("{at}.host"), format!("is missing, and {why}; write a host name or an address"));
    }
    let is_odd = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '/' | '@' | '?' | '#');
    if host.contains(is_odd) {
        // The value may hold credentials.
        errors.invalid(format!("{at}.host"), "is not a host name; write it without scheme, user, port and path");
    }
    match (port, number(port)) {
        (_, Some(_)) => {}
        (IntOrString::String(name), None) if is_port_name(name) => {
            if let Some(why) = of.without_pod() {
                errors.invalid(format!("{at}.port"), format!("is the name {name:?}, but {why}; write a number"));
            }
        }
        _ => {
            errors.invalid(format!("{at}.port"), "is not a port; write a number from 1 to 65535, or the name of a port");
        }
    }
}

/// Whether a text is a name that a port can have (RFC 6335, as Kubernetes applies it).
fn is_port_name(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    (1..=15).contains(&name.len()) && name.chars().all(fits) && name.contains(|c: char| c.is_ascii_lowercase())
}

fn request<'a>(
    errors: &mut Errors,
    at: &str,
    scheme: Option<&str>,
    path: Option<&str>,
    headers: impl Iterator<Item = (&'a str, &'a str)>,
) {
    let scheme = scheme.unwrap_or_default();
    if !["", "http", "https"].contains(&scheme.to_ascii_lowercase().as_str()) {
        errors.invalid(format!("{at}.scheme"), format!("is {scheme:?}; write HTTP or HTTPS"));
    }
    let path = path.unwrap_or_default();
    let slash = if path.starts_with('/') { "" } else { "/" };
    if format!("{slash}{path}").parse::<Uri>().map_or(true, |uri| uri.host().is_some()) {
        errors.invalid(
            format!("{at}.path"),
            "is not a path of a URL; write for example /hook, with special characters as %20",
        );
    }
    for (i, (name, value)) in headers.enumerate() {
        if name.parse::<HeaderName>().is_err() {
            errors.invalid(format!("{at}.httpHeaders[{i}].name"), format!("{name:?} is not the name of a header"));
        }
        if HeaderValue::from_str(value).is_err() {
            errors.invalid(format!("{at}.httpHeaders[{i}].value"), "holds characters that no header can have");
        }
    }
}

fn template(errors: &mut Errors, at: &str, text: &str) {
    if text.contains(TEMPLATE)
        && let Err(error) = Template::parse(text)
    {
        errors.invalid(at, format!("is a template that cannot be rendered: {error}"));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::admission::error::message;

    fn said(handler: Value, kind: Option<&str>) -> String {
        let handler: Handler = serde_json::from_value(handler).unwrap();
        let target = kind.map(|k| TargetRef { kind: Some(k.into()), ..TargetRef::default() });
        let of = if kind.is_some() { Of::Member(target.as_ref()) } else { Of::Run };
        let mut errors = Errors::default();
        validate(&mut errors, "h", [("preRestore", &handler)], of);
        message(&errors.into_vec())
    }

    const WEB: Option<&str> = Some("Deployment");
    const PVC: Option<&str> = Some("PersistentVolumeClaim");

    #[test]
    fn what_a_hook_can_do_is_accepted() {
        for (handler, kind) in [
            (
                json!({ "exec": { "command": ["sh", "-c", "echo {{ .Status.Phase | upper }}"] }, "containerName": "db" }),
                WEB,
            ),
            (json!({ "exec": { "command": ["true"] }, "containerName": "post-task-hook" }), PVC),
            (json!({ "exec": { "command": ["true"] } }), None),
            (json!({ "httpGet": { "port": "http" } }), WEB),
            (json!({ "httpGet": { "port": 80, "host": "a.example", "path": "a/b?c=d", "scheme": "https" } }), None),
            (json!({ "tcpSocket": { "port": "8080" }, "timeOut": "30s" }), Some("AppBinding")),
            (
                json!({ "httpPost": { "port": 443, "host": "::1", "body": "{ no template }",
                "httpHeaders": [{ "name": "X-A", "value": "b c" }] } }),
                PVC,
            ),
        ] {
            assert_eq!(said(handler.clone(), kind), "", "{handler}");
        }
    }

    #[test]
    fn what_cannot_work_is_refused_by_its_field() {
        let get = |more: Value| {
            let mut get = json!({ "host": "a", "port": 80 });
            json_patch::merge(&mut get, &more);
            json!({ "httpGet": get })
        };
        for (handler, kind, text) in [
            (json!({}), WEB, "h.preRestore: has no action"),
            (json!({ "exec": { "command": [] } }), WEB, "h.preRestore.exec.command: is empty"),
            (
                json!({ "exec": { "command": ["a"] }, "containerName": "db" }),
                PVC,
                "h.preRestore.containerName: is \"db\", but the target has no pods",
            ),
            (json!({ "exec": { "command": ["a", "{{ exec }}"] } }), WEB, "h.preRestore.exec.command[1]: is a template"),
            (
                json!({ "httpPost": { "host": "a", "port": 80, "body": "{{ env \"X\" }}" } }),
                WEB,
                "h.preRestore.httpPost.body: is a template",
            ),
            (
                json!({ "httpPost": { "host": "a", "port": 80, "body": "{{ .A" } }),
                WEB,
                "h.preRestore.httpPost.body: is a template",
            ),
            (
                json!({ "httpPost": { "host": "a", "port": 80, "form": [{ "values": ["a"] }] } }),
                WEB,
                "form[0].key: is empty",
            ),
            (
                json!({ "httpGet": { "port": 80 } }),
                None,
                "h.preRestore.httpGet.host: is missing, and a hook of the whole run has no pod",
            ),
            (json!({ "tcpSocket": { "port": 80 } }), PVC, "h.preRestore.tcpSocket.host: is missing"),
            (get(json!({ "port": "http" })), PVC, "h.preRestore.httpGet.port: is the name \"http\", but"),
            (get(json!({ "port": 0 })), WEB, "h.preRestore.httpGet.port: is not a port"),
            (get(json!({ "port": 70000 })), WEB, "h.preRestore.httpGet.port: is not a port"),
            (get(json!({ "host": "http://user:pw@a" })), WEB, "h.preRestore.httpGet.host: is not a host name"),
            (get(json!({ "scheme": "FTP" })), WEB, "h.preRestore.httpGet.scheme: is \"FTP\""),
            (get(json!({ "path": "a b" })), WEB, "h.preRestore.httpGet.path: is not a path"),
            (get(json!({ "httpHeaders": [{ "name": "a b", "value": "" }] })), WEB, "httpHeaders[0].name: \"a b\""),
            (get(json!({ "httpHeaders": [{ "name": "a", "value": "b\nc" }] })), WEB, "httpHeaders[0].value: holds"),
            (json!({ "exec": { "command": ["a"] }, "timeOut": "2d" }), WEB, "h.preRestore.timeOut: "),
            (
                json!({ "exec": { "command": ["a"] }, "timeOut": "61m" }),
                WEB,
                "h.preRestore.timeOut: is longer than 1h0m0s",
            ),
            (
                json!({ "exec": { "command": ["a"] }, "caBundle": "aGVsbG8=" }),
                WEB,
                "h.preRestore.caBundle: holds no certificates",
            ),
        ] {
            let said = said(handler.clone(), kind);
            assert!(said.contains(text), "{handler}: {said}");
            assert!(!said.contains("pw"), "{said}");
        }
    }
}
