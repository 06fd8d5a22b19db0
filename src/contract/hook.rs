//! What a Job is asked to do for a hook: its actions, with every name and template resolved by the plan.
//!
//! A hook answers with a [`Did`](super::Did) that counts its [`ACTIONS`]. A call holds what its author wrote into the
//! manifest, headers and body included, so it is never printed.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The type of what a hook counts.
pub const ACTIONS: &str = "actions";

/// The actions of one hook.
#[derive(Clone, Default, Deserialize, PartialEq, Serialize)]
pub struct Call {
    /// They run in this order, and all of them must succeed.
    pub actions: Vec<Action>,
    /// Seconds that all actions may take together.
    pub seconds: u64,
    /// Certificates in PEM that HTTPS trusts besides those of the system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.actions).finish()
    }
}

/// One action.
#[derive(Clone, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Action {
    /// A command.
    Exec(Exec),
    /// An HTTP request.
    Http(Http),
    /// A TCP connection that is opened and closed.
    Tcp(Address),
}

impl fmt::Debug for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.label())
    }
}

impl Action {
    /// How messages name it: never with a path, a header or an argument, which may hold credentials.
    pub fn label(&self) -> String {
        match self {
            Self::Exec(Exec { place: Some(place), .. }) => {
                format!("exec in container {} of pod {}", place.container, place.pod)
            }
            Self::Exec(_) => "exec in the Job of the hook".to_owned(),
            Self::Http(http) => http.label(),
            Self::Tcp(address) => format!("tcpSocket {address}"),
        }
    }
}

/// A command.
#[derive(Clone, Default, Deserialize, PartialEq, Serialize)]
pub struct Exec {
    /// Program and arguments.
    pub command: Vec<String>,
    /// Where it runs; `None` for the container of the Job itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<Place>,
}

/// A container of a running pod, in the namespace of the run.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Place {
    /// The pod.
    pub pod: String,
    /// The container.
    pub container: String,
}

/// An address to connect to.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Address {
    /// Name or IP address.
    pub host: String,
    /// Port.
    pub port: u16,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            return write!(f, "[{}]:{}", self.host, self.port);
        }
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// An HTTP request.
#[derive(Clone, Default, Deserialize, PartialEq, Serialize)]
pub struct Http {
    /// Where to.
    pub address: Address,
    /// Over TLS.
    #[serde(default)]
    pub tls: bool,
    /// Path and query, with the leading slash.
    pub path: String,
    /// Headers, as written.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<(String, String)>,
    /// The body of a POST; `None` for a GET.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<Body>,
}

impl Http {
    /// How messages name it.
    pub fn label(&self) -> String {
        let verb = if self.body.is_some() { "httpPost" } else { "httpGet" };
        format!("{verb} {}://{}", if self.tls { "https" } else { "http" }, self.address)
    }
}

/// A body.
#[derive(Clone, Default, Deserialize, PartialEq, Serialize)]
pub struct Body {
    /// Its Content-Type, if no header names one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Its text.
    pub text: String,
}
