//! The operator's process: what runs, in which order it starts, and how it ends.
//!
//! Stores, reads and writes are assembled only here. Writes get a client that checks leadership, so that a process that
//! lost leadership ends before it does harm.

use std::sync::Arc;
use std::time::Duration;

use kube::client::ClientBuilder;
use kube::runtime::events::Reporter;
use kube::runtime::reflector::ObjectRef;
use kube::{Client, Resource};
use tokio::sync::watch::Receiver;
use tokio::task::JoinSet;
use tracing::{Instrument as _, error, info, info_span};

use crate::admission;
use crate::admission::certs::CertHandle;
use crate::admission::server::{Doors, PathToken};
use crate::api::{BackupBlueprint, RestoreSession};
use crate::controller::apply::fence::Fenced;
use crate::controller::apply::rbac;
use crate::controller::apply::writes::Writes;
use crate::controller::cache::queue::{Queue, Requeue};
use crate::controller::cache::scope::{Presence, Scope};
use crate::controller::cache::slots::Slots;
use crate::controller::cache::sources::Source;
use crate::controller::cache::stored::Stored;
use crate::controller::cache::stores::Stores;
use crate::controller::cache::triggers::Sources;
use crate::controller::cache::verdicts::Verdicts;
use crate::controller::cache::{pages, scope, sources};
use crate::controller::kinds::context::Context;
use crate::controller::kinds::large_objects::LargeObjects;
use crate::controller::kinds::reconcile::{Error, error_policy};
use crate::controller::kinds::{blueprint, invoker, reconcile};
use crate::controller::observe::reads;
use crate::controller::observe::reads::Reads;
use crate::controller::process::certificates::Keeper;
use crate::controller::process::clock::Clock;
use crate::controller::process::code_rights::{Policy, Vouching};
use crate::controller::process::http::Readiness;
use crate::controller::process::leader::{Leader, Timing};
use crate::controller::process::metrics::Metrics;
use crate::controller::process::{http, owners};
use crate::names::OPERATOR;
use crate::plan::setup::Setup;

/// Name of the Lease, and of the Service of the webhook.
const LEASE: &str = "lifeboat";

/// What a replica needs to be ready.
const DEFINITIONS: &str = "custom resource definitions";
/// What a replica also needs to be ready if the operator is configured with a list of namespaces.
const RIGHTS: &str = "rights in the namespaces that are watched";

/// Longest silence of an answer or a watch.
const SILENCE: Duration = Duration::from_secs(90);
/// User agent of the operator in requests to the API server.
const AGENT: &str = concat!("lifeboat/", env!("CARGO_PKG_VERSION"));

/// How the operator is started.
#[derive(Clone, Debug)]
pub struct Options {
    /// Settings of runs.
    pub setup: Setup,
    /// Namespace of the operator itself, with its Lease and its Secrets. Operators in the same namespace are replicas
    /// of one operator.
    pub namespace: String,
    /// The namespaces that the operator works in.
    pub scope: Scope,
    /// Name of this replica; a Pod's name.
    pub identity: String,
    /// How long its Lease is valid without a renewal.
    pub lease: Duration,
    /// Whether to serve the webhook.
    pub webhook: bool,
    /// Name of the webhook's Service.
    pub service: String,
    /// Secret that holds the webhook's certificate.
    pub certificate: String,
    /// Name of the webhook configurations.
    pub webhooks: String,
    /// Where the webhook listens.
    pub webhook_port: u16,
    /// Port of health and metrics.
    pub port: u16,
    /// Whether the permission of users to run code is checked.
    pub code_rights: bool,
    /// Groups whose members may run code without a check.
    pub code_groups: Vec<String>,
}

/// Runs the operator until a signal, or until leadership is lost.
///
/// # Errors
/// The API server cannot be found, or leadership was lost: the process should end and be restarted.
pub async fn run(options: Options) -> Result<(), String> {
    // Runs while the Lease is being acquired: otherwise the first objects would wait for it.
    drop(tokio::task::spawn_blocking(admission::bounds::prepare));
    let clock = Clock::default();
    let client = client(&clock).await.map_err(|e| format!("cannot find the API server: {e}"))?;
    let (stop, stopping) = tokio::sync::watch::channel(false);
    let metrics = Metrics::default();
    let readiness = Readiness::waiting_for([DEFINITIONS]);
    let mut servers = JoinSet::new();
    let health = http::router(readiness.clone(), metrics.clone());
    let address = (std::net::Ipv4Addr::UNSPECIFIED, options.port).into();
    let stopped = ended(stopping.clone());
    servers.spawn(async move {
        if let Err(error) = http::serve(address, health, stopped).await {
            error!(%error, "health and metrics cannot be served");
        }
    });
    let policy = Policy { enabled: options.code_rights, groups: options.code_groups.clone(), webhook: options.webhook };
    let vouching = Vouching::new(client.clone(), options.namespace.clone(), policy);
    if options.webhook {
        webhook(&client, &options, &vouching, &stopping, &mut servers);
    }
    let leading = lead(client, clock, &options, vouching, metrics, readiness, stopping.clone());
    tokio::pin!(leading);
    let result = tokio::select! {
        () = signal() => {
            // All tasks receive the stop and release what they hold, first of all the Lease.
            let _ = stop.send(true);
            leading.await
        }
        result = &mut leading => result,
    };
    let _ = stop.send(true);
    let drained = async { while servers.join_next().await.is_some() {} };
    if tokio::time::timeout(Duration::from_secs(5), drained).await.is_err() {
        info!("some requests were still being answered at the end");
    }
    result
}

/// A client whose every response sets the clock, and whose lists are bounded.
async fn client(clock: &Clock) -> Result<Client, kube::Error> {
    let mut config = kube::Config::infer().await.map_err(kube::Error::InferConfig)?;
    // The API server sends something on every watch once a minute; a watch without data is broken.
    config.read_timeout = Some(SILENCE);
    let clock = clock.clone();
    let hear = tower::util::MapResponseLayer::new(move |response: hyper::Response<_>| {
        clock.observe(response.headers());
        response
    });
    // Audit logs show the user agent.
    let name = tower::util::MapRequestLayer::new(|mut request: hyper::Request<_>| {
        request.headers_mut().insert(hyper::header::USER_AGENT, hyper::header::HeaderValue::from_static(AGENT));
        request
    });
    Ok(pages::bounded(&ClientBuilder::try_from(config)?.with_layer(&name).with_layer(&hear).build()))
}

fn webhook(
    client: &Client,
    options: &Options,
    vouching: &Arc<Vouching>,
    stopping: &Receiver<bool>,
    servers: &mut JoinSet<()>,
) {
    let (handle, token) = (CertHandle::new(), PathToken::default());
    let keeper = Keeper::new(
        client.clone(),
        &options.namespace,
        &options.service,
        &options.certificate,
        &options.webhooks,
        handle.clone(),
    );
    servers.spawn(keeper.maintain(vouching.clone(), token.clone(), ended(stopping.clone())));
    let (stopped, port) = (ended(stopping.clone()), options.webhook_port);
    let doors = Doors { token, owners: owners::owners(client.clone(), options.scope.clone()), gate: vouching.gate() };
    servers.spawn(async move {
        let address = (std::net::Ipv4Addr::UNSPECIFIED, port).into();
        if let Err(error) = admission::server::serve(address, handle, doors, stopped).await {
            // Objects are still defaulted and validated by the controller.
            error!(%error, "the webhook cannot be served");
        }
    });
}

async fn ended(mut stopping: Receiver<bool>) {
    let _ = stopping.wait_for(|s| *s).await;
}

async fn signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else { return std::future::pending().await };
    tokio::select! {
        _ = terminate.recv() => info!("told to stop"),
        _ = tokio::signal::ctrl_c() => info!("told to stop"),
    }
}

/// Waits for leadership, reconciles while it lasts, and releases it.
async fn lead(
    client: Client,
    clock: Clock,
    options: &Options,
    vouching: Arc<Vouching>,
    metrics: Metrics,
    readiness: Readiness,
    stopping: Receiver<bool>,
) -> Result<(), String> {
    metrics.leading(false);
    let elected = async {
        definitions(&client, &options.scope, &readiness).await;
        let timing = Timing::of(options.lease);
        Leader::acquire_with(client.clone(), &options.namespace, LEASE, &options.identity, timing).await
    };
    let mut leader = tokio::select! {
        leader = elected => leader,
        () = ended(stopping.clone()) => return Ok(()),
    };
    metrics.leading(true);
    let client = leader.fence(&client);
    let result = tokio::select! {
        () = reconcile_all(client, clock, options, vouching, metrics.clone()) => Ok(()),
        () = leader.lost() => Err("leadership was lost; another replica continues".to_owned()),
        () = ended(stopping) => Ok(()),
    };
    metrics.leading(false);
    leader.release().await;
    result
}

/// Waits until the API server serves the operator's kinds, which may be installed after the operator, and until the
/// operator may read them in each namespace that exists.
async fn definitions(client: &Client, scope: &Scope, readiness: &Readiness) {
    let params = kube::api::ListParams::default().limit(1);
    for api in scope.apis::<RestoreSession>(client) {
        let namespace = api.namespace().unwrap_or_default().to_owned();
        while let Err(cause) = api.list_metadata(&params).await {
            if namespace.is_empty() || !scope::is_forbidden(&cause) {
                error!(%cause, "the custom resource definitions are not served yet; install them from crds/");
            } else if scope::presence(client, &namespace).await == Presence::There {
                readiness.lacks(RIGHTS);
                error!(%cause, namespace, "no right to read a namespace of --watch-namespaces; the chart makes Roles for those of watchNamespaces");
            } else {
                // The watches of the missing namespace report it, and begin once the namespace exists.
                break;
            }
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
        readiness.found(RIGHTS);
    }
    readiness.found(DEFINITIONS);
}

/// Runs every controller until the process ends.
async fn reconcile_all(client: Fenced, clock: Clock, options: &Options, vouching: Arc<Vouching>, metrics: Metrics) {
    let (fenced, client) = (client.clone(), client.client());
    let slots = Slots::default();
    let verdicts = Verdicts::default();
    let scope = options.scope.clone();
    let sources = Sources::new(&client, &scope, &slots, &verdicts);
    let (consumers, triggers, stored) = (sources.consumers(), sources.triggers(), sources.repositories.store.clone());
    let listings = sources.listings();
    let left = sources.left.clone();
    let followed = consumers.clone();
    metrics.follow(Arc::new(move || followed.invokers()));
    let (restores, of_sessions) = sources::with_jobs(sources.restores.queue(), &client, &scope, Some(&slots));
    let (restore_batches, of_batches) =
        sources::with_jobs(sources.restore_batches.queue(), &client, &scope, Some(&slots));
    let (backups, of_backups) = sources::with_jobs(sources.backups.queue(), &client, &scope, Some(&slots));
    let (repositories, of_repositories) =
        sources::with_jobs(sources.repositories.patient_queue(), &client, &scope, None);
    let blueprints = Source::<Stored<BackupBlueprint>>::new(&client, &scope, &verdicts, |_| vec![]).queue();
    let stores = Stores {
        scope: scope.clone(),
        repositories: stored,
        consumers,
        verdicts,
        of_restore_sessions: of_sessions,
        of_restore_batches: of_batches,
        of_backup_sessions: of_backups,
        of_repositories,
    };
    let clock: reads::Clock = Arc::new(move || clock.now());
    let reporter = Reporter { controller: OPERATOR.into(), instance: Some(options.identity.clone()) };
    let context = Arc::new(Context {
        setup: options.setup.clone(),
        reads: Reads::new(client, stores).sealed(vouching.seals()).by(clock.clone()),
        writes: Writes::new(&fenced, reporter, slots, Arc::new(metrics), clock),
        large_objects: LargeObjects::default(),
        listings,
        triggers,
        filled: tokio::sync::watch::Sender::default(),
    });
    info!(image = context.setup.image, namespaces = ?scope.names(), "reconciling");
    // One task: a store's `wait_until_ready` wakes only its last caller. With several tasks the others would stay
    // asleep.
    futures::join!(
        context.fill(),
        drive(restores, reconcile::reconcile, &context),
        drive(restore_batches, reconcile::reconcile, &context),
        drive(backups, reconcile::reconcile, &context),
        drive(sources.configurations.queue(), invoker::reconcile, &context),
        drive(sources.batches.queue(), invoker::reconcile, &context),
        drive(repositories, reconcile::reconcile, &context),
        drive(blueprints, blueprint::reconcile, &context),
        async {
            context.filled().await;
            rbac::collect(&context.writes, &context.reads.stores, &left).await;
        },
    );
}

async fn drive<K, R>(queue: Queue<K>, reconcile: impl Fn(Arc<K>, Arc<Context>) -> R, context: &Arc<Context>)
where
    K: Resource<DynamicType = ()> + Clone + Send + Sync + 'static,
    R: Future<Output = Result<Requeue, Error>> + Send + 'static,
{
    let look = |object: Arc<K>| {
        // Each line of the log contains its object.
        let span = info_span!("reconcile", object = %ObjectRef::from_obj(&*object));
        let look = reconcile(object.clone(), context.clone());
        async move { look.await.unwrap_or_else(|error| error_policy(&*object, &error)) }.instrument(span)
    };
    queue.run(context.filled(), look).await;
}
