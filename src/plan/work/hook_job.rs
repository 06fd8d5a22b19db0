//! The Job of a hook: the pod that it acts on, its call, and the right to run a command there.
//!
//! A hook acts on the first ready pod of its member's target, by name. A target without pods has none: its commands run
//! in the container of the Job itself, and so do those of a whole run. The Job takes no slot of the Repository, and has
//! no credentials of it.

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{HTTPGetAction, HTTPHeader};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use crate::api::common::TargetRef;
use crate::api::hooks::{Handler, HookStatus, HttpPostAction};
use crate::api::runtime::RuntimeSettings;
use crate::contract::hook::{Action, Address, Body, Call, Exec, Http, Place};
use crate::contract::{Class, Failure, Part, Task, Work};
use crate::gotemplate::Template;
use crate::names::{HOOK_STEP, reason};
use crate::plan::effects::Grant;
use crate::plan::run::hooks::Hook;
use crate::plan::run::hosts::{TargetKind, display};
use crate::plan::seen::hook_pods::{HookContainer, HookPod, HookPods, NoPods};
use crate::plan::seen::identity::Identity;
use crate::plan::setup::Setup;
use crate::plan::work::job_spec::env;
use crate::plan::work::job_spec::frame::{JobFrame, JobParts};
use crate::plan::work::once::Hold;
use crate::plan::work::pod_security::Level;
use crate::plan::work::{job_spec, pod_security, process, rbac};

/// Names of containers of Stash. They stand for the Job of the hook, which takes their place.
pub const OWN_CONTAINERS: [&str; 4] = ["pre-task-hook", "post-task-hook", "stash", "stash-init"];
/// Begin of a template.
pub const TEMPLATE: &str = "{{";
/// Seconds beyond the time limit that the pod of the Job gets to start: those that every Job gets.
const START_SECONDS: i64 = 300;

/// What the Job of a hook is made from.
pub struct Making<'a> {
    /// How the operator is set up.
    pub setup: &'a Setup,
    /// The session.
    pub id: &'a Identity,
    /// Component of its Jobs.
    pub component: &'static str,
    /// The target of the hook's member.
    pub target: Option<&'a TargetRef>,
    /// Settings of the pod.
    pub runtime: Option<&'a RuntimeSettings>,
    /// Default settings, or why they are not known.
    pub defaults: &'a Result<RuntimeSettings, String>,
    /// Pods of the target, if they were looked up.
    pub pods: Option<&'a HookPods>,
    /// What templates may use.
    pub data: &'a Value,
    /// Pod Security level that the namespace enforces.
    pub pod_security: Level,
    /// Nothing is waited for.
    pub at_once: bool,
}

/// Whether a target has pods that a hook can act on.
pub fn has_pods(target: Option<&TargetRef>) -> bool {
    let kind = TargetKind::of(target);
    kind.is_workload() || kind == TargetKind::AppBinding
}

/// Whether a hook acts on a pod of its target: by a command, by an address that only a pod has, or by the name of a port.
pub fn needs_pod(handler: &Handler, target: Option<&TargetRef>) -> bool {
    has_pods(target) && ((handler.exec.is_some() && !is_own(handler)) || names_pod(handler))
}

/// Whether a command runs in the Job of the hook, by the name of the container.
fn is_own(handler: &Handler) -> bool {
    handler.container_name.as_deref().is_some_and(|name| OWN_CONTAINERS.contains(&name))
}

/// Whether the address of an action is that of a pod, or its port has a name.
pub fn names_pod(handler: &Handler) -> bool {
    let of_pod =
        |host: Option<&String>, port: &IntOrString| host.is_none_or(String::is_empty) || number(port).is_none();
    handler.http_get.as_ref().is_some_and(|a| of_pod(a.host.as_ref(), &a.port))
        || handler.http_post.as_ref().is_some_and(|a| of_pod(a.host.as_ref(), &a.port))
        || handler.tcp_socket.as_ref().is_some_and(|a| of_pod(a.host.as_ref(), &a.port))
}

/// The number of a port that is written as a number.
pub fn number(port: &IntOrString) -> Option<u16> {
    match port {
        IntOrString::Int(n) => u16::try_from(*n).ok().filter(|n| *n > 0),
        IntOrString::String(text) => text.parse().ok().filter(|n| *n > 0),
    }
}

/// The Job of a hook, and the right that it needs. Records its pod in the entry.
///
/// # Errors
/// Something is missing, or the hook cannot run.
pub fn make(hook: &Hook<'_>, entry: &mut HookStatus, of: &Making<'_>) -> Result<(Job, Option<Grant>), Hold> {
    let defaults = match of.defaults {
        Ok(defaults) => defaults,
        Err(why) => return Err(of.wait(reason::PENDING, why)),
    };
    let pod = if needs_pod(hook.handler, of.target) { Some(choose(entry, of)?) } else { None };
    let call = call(hook, pod, of).map_err(|why| Hold::Fail(Failure::new(Class::Invalid, reason::HOOK_FAILED, why)))?;
    let execs = call.actions.iter().any(|a| matches!(a, Action::Exec(Exec { place: Some(_), .. })));
    let key = hook.key();
    let grant = pod.filter(|_| execs).map(|pod| rbac::to_exec(of.id, &key, &pod.name, of.runtime, defaults));
    let account = grant.as_ref().map(|g| g.status.name.clone());
    let frame = JobFrame::of(of.setup, of.id, of.component, "", account, defaults.clone());
    let parts = hook.member.map(|member| Part { member, name: hook.moment.field().to_owned() });
    let seconds = i64::try_from(call.seconds).unwrap_or(i64::MAX).saturating_add(START_SECONDS);
    let task = Task {
        process: process::of(of.runtime),
        ..Task::new(of.id.told(), HOOK_STEP, parts.into_iter().collect(), Work::Hook(Box::new(call)))
    };
    let parts = JobParts { key, attempt: 1, runtime: of.runtime, seconds_left: seconds, ..JobParts::default() };
    let job = job_spec::job(&frame, &task, parts);
    env::check_task(&job).and_then(|()| pod_security::check_job(of.pod_security, &job)).map_err(Hold::Fail)?;
    Ok((job, grant))
}

impl Making<'_> {
    fn wait(&self, why: &str, text: &str) -> Hold {
        let failure = Failure::new(Class::Waiting, why, text);
        if self.at_once { Hold::Fail(failure) } else { Hold::Wait(failure) }
    }
}

/// The pod that the entry names, or the first one that is ready.
fn choose<'p>(entry: &mut HookStatus, of: &'p Making<'_>) -> Result<&'p HookPod, Hold> {
    let name = of.target.map(display).unwrap_or_default();
    let pods = match of.pods {
        Some(Ok(pods)) => pods,
        Some(Err(NoPods::Unknown(why))) => return Err(of.wait(reason::HOOK_POD_NOT_READY, why)),
        Some(Err(NoPods::Never(why))) => {
            return Err(Hold::Fail(Failure::new(Class::Invalid, reason::HOOK_POD_NOT_READY, why)));
        }
        // They are looked up in the next pass.
        None => return Err(Hold::Wait(Failure::new(Class::Waiting, reason::PENDING, "Looking for a pod."))),
    };
    let ready = || pods.iter().filter(|p| p.ready);
    let same = ready().find(|p| entry.pod.as_ref() == Some(&p.name));
    let Some(pod) = same.or_else(|| ready().next()) else {
        let text = match pods.as_slice() {
            [] => format!("{name} has no running pod for the hook."),
            [first, ..] => format!("No pod of {name} is ready for the hook, for example {}.", first.name),
        };
        return Err(of.wait(reason::HOOK_POD_NOT_READY, &text));
    };
    entry.pod = Some(pod.name.clone());
    Ok(pod)
}

fn call(hook: &Hook<'_>, pod: Option<&HookPod>, of: &Making<'_>) -> Result<Call, String> {
    let handler = hook.handler;
    let container = pod.map(|pod| container(handler, pod)).transpose()?;
    let reach = Reach { pod, container };
    let mut actions = vec![];
    if let Some(exec) = &handler.exec {
        let place = pod
            .zip(container)
            .filter(|_| !is_own(handler))
            .map(|(p, c)| Place { pod: p.name.clone(), container: c.name.clone() });
        let command = exec.command.iter().flatten().enumerate();
        let command = command.map(|(i, text)| rendered(text, &format!("exec.command[{i}]"), of.data));
        actions.push(Action::Exec(Exec { command: command.collect::<Result<_, _>>()?, place }));
    }
    if let Some(get) = &handler.http_get {
        actions.push(Action::Http(http_get(get, &reach)?));
    }
    if let Some(post) = &handler.http_post {
        actions.push(Action::Http(http_post(post, &reach, of.data)?));
    }
    if let Some(tcp) = &handler.tcp_socket {
        actions.push(Action::Tcp(reach.address("tcpSocket", tcp.host.as_ref(), &tcp.port)?));
    }
    let ca = handler.ca_bundle.as_ref().map(|ca| String::from_utf8_lossy(&ca.0).into_owned());
    Ok(Call { actions, seconds: hook.limit().as_secs().max(1), ca })
}

/// The container that the hook names, or the first.
fn container<'p>(handler: &Handler, pod: &'p HookPod) -> Result<&'p HookContainer, String> {
    let named = handler.container_name.as_ref().filter(|n| !n.is_empty() && !is_own(handler));
    let found = match named {
        Some(name) => pod.containers.iter().find(|c| c.name == *name),
        None => pod.containers.first(),
    };
    found.ok_or_else(|| {
        let there: Vec<&str> = pod.containers.iter().map(|c| c.name.as_str()).collect();
        let named = named.map(String::as_str).unwrap_or_default();
        format!("containerName: pod {} has no container {named:?}; it has {}.", pod.name, there.join(", "))
    })
}

/// Where the addresses of a hook lead.
struct Reach<'p> {
    pod: Option<&'p HookPod>,
    container: Option<&'p HookContainer>,
}

impl Reach<'_> {
    fn address(&self, at: &str, host: Option<&String>, port: &IntOrString) -> Result<Address, String> {
        let host = match host.filter(|h| !h.is_empty()) {
            Some(host) => host.clone(),
            None => self.pod.and_then(|p| p.ip.clone()).ok_or_else(|| format!("{at}.host: the pod has no address."))?,
        };
        let port = number(port).map_or_else(|| self.named(at, port), Ok)?;
        Ok(Address { host, port })
    }

    fn named(&self, at: &str, port: &IntOrString) -> Result<u16, String> {
        let IntOrString::String(name) = port else { return Err(format!("{at}.port: is not a port.")) };
        let found = self.container.and_then(|c| c.ports.iter().find(|(n, _)| n == name));
        found.map(|(_, port)| *port).ok_or_else(|| {
            let container = self.container.map(|c| c.name.as_str()).unwrap_or_default();
            format!("{at}.port: container {container} has no port of the name {name:?}.")
        })
    }
}

fn is_tls(scheme: Option<&String>) -> bool {
    scheme.is_some_and(|s| s.eq_ignore_ascii_case("https"))
}

fn path(path: Option<&String>) -> String {
    match path.map(String::as_str).unwrap_or_default() {
        path if path.starts_with('/') => path.to_owned(),
        path => format!("/{path}"),
    }
}

fn http_get(get: &HTTPGetAction, reach: &Reach<'_>) -> Result<Http, String> {
    let header = |h: &HTTPHeader| (h.name.clone(), h.value.clone());
    Ok(Http {
        address: reach.address("httpGet", get.host.as_ref(), &get.port)?,
        tls: is_tls(get.scheme.as_ref()),
        path: path(get.path.as_ref()),
        headers: get.http_headers.iter().flatten().map(header).collect(),
        body: None,
    })
}

fn http_post(post: &HttpPostAction, reach: &Reach<'_>, data: &Value) -> Result<Http, String> {
    let body = if post.form.is_empty() {
        let text = rendered(post.body.as_deref().unwrap_or_default(), "httpPost.body", data)?;
        Body { kind: kind_of(&text).map(str::to_owned), text }
    } else {
        let pairs = post.form.iter().flat_map(|entry| {
            let key = encoded(entry.key.as_deref().unwrap_or_default());
            entry.values.iter().map(move |value| format!("{key}={}", encoded(value)))
        });
        let text = pairs.collect::<Vec<_>>().join("&");
        Body { kind: Some("application/x-www-form-urlencoded".into()), text }
    };
    Ok(Http {
        address: reach.address("httpPost", post.host.as_ref(), &post.port)?,
        tls: is_tls(post.scheme.as_ref()),
        path: path(post.path.as_ref()),
        headers: post.http_headers.iter().map(|h| (h.name.clone(), h.value.clone())).collect(),
        body: Some(body),
    })
}

/// Content-Type of a body that the user gives none.
fn kind_of(text: &str) -> Option<&'static str> {
    let is_json = || serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok();
    match text.trim_start().chars().next()? {
        '{' | '[' if is_json() => Some("application/json"),
        _ => Some("text/plain; charset=utf-8"),
    }
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string().replace("%20", "+")
}

/// A text with its template rendered, if it has one.
fn rendered(text: &str, at: &str, data: &Value) -> Result<String, String> {
    if !text.contains(TEMPLATE) {
        return Ok(text.to_owned());
    }
    let template = Template::parse(text).map_err(|e| format!("{at}: {e}."))?;
    template.render(data).map(|text| text.trim().to_owned()).map_err(|e| format!("{at}: {e}."))
}

#[cfg(test)]
mod tests;
