//! The fence around writes: before each write is sent, the client checks whether this replica still leads.
//!
//! A process that was stopped in the middle of a reconcile continues it before it notices that another replica leads.
//! The leader is elected by [`leader`](crate::controller::process::leader), not here.

use kube::Client;
use kube::client::Body;

/// A write was not sent, because another replica may lead by now.
#[derive(Debug, thiserror::Error)]
#[error("this replica is no longer the leader")]
pub struct NotLeading;

impl NotLeading {
    /// Whether this is the reason why a request failed.
    pub fn is(error: &kube::Error) -> bool {
        matches!(error, kube::Error::Service(cause) if cause.is::<Self>())
    }
}

/// A client whose writes fail with [`NotLeading`] while its replica does not lead. Reads are always sent.
#[derive(Clone)]
pub struct Fenced(Client);

impl Fenced {
    /// The client, which writes only while `leads` returns true.
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
