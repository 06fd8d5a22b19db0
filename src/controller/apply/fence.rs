//! The fence around writes: each asks whether this replica still leads, before it is sent.
//!
//! A process that was stopped in the middle of a look goes on with it before it notices that another one leads. Which
//! replica leads is not decided here; [`leader`](crate::controller::process::leader) knows.

use kube::Client;
use kube::client::Body;

/// A write was not sent, because another replica may lead by now.
#[derive(Debug, thiserror::Error)]
#[error("this replica is no longer the leader")]
pub struct NotLeading;

impl NotLeading {
    /// Whether this is why a request came to nothing.
    pub fn is(error: &kube::Error) -> bool {
        matches!(error, kube::Error::Service(cause) if cause.is::<Self>())
    }
}

/// A client whose writes end with [`NotLeading`] while its replica does not lead. Reads go by.
#[derive(Clone)]
pub struct Fenced(Client);

impl Fenced {
    /// The client, with writes as long as `leads`.
    pub fn new(client: &Client, leads: impl Fn() -> bool + Clone + Send + 'static) -> Self {
        let (inner, namespace) = (client.clone(), client.default_namespace().to_owned());
        let send = move |request: hyper::Request<Body>| {
            let may = request.method().is_safe() || leads();
            let inner = inner.clone();
            async move { if may { inner.send(request).await } else { Err(kube::Error::Service(NotLeading.into())) } }
        };
        Self(Client::new(tower::service_fn(send), namespace))
    }

    /// The client itself.
    pub fn client(&self) -> Client {
        self.0.clone()
    }
}

#[cfg(test)]
mod tests;
