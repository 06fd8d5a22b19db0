//! One binary, several roles: the operator, the agent in its Jobs, and the generator of its definitions.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use lifeboat::agent;
use lifeboat::api::runtime::RuntimeSettings;
use lifeboat::controller::cache::scope::{self, Scope};
use lifeboat::controller::process::operator::{self, Options};
use lifeboat::names::OPERATOR;
use lifeboat::plan::run::duration;
use lifeboat::plan::setup::{AddonImages, Setup};
use lifeboat::plan::work::job_defaults;
use tokio::runtime::Builder;

/// Declarative backup and restore for Kubernetes.
#[derive(Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    role: Role,
}

#[derive(Subcommand)]
enum Role {
    /// Run the operator.
    Operator(OperatorArgs),
    /// Do one step of a run. Only of use inside the Jobs that the operator makes.
    Agent(agent::Options),
    /// Run the clients of a dump for restic. Only of use inside the Jobs that the operator makes.
    #[command(hide = true)]
    Meter {
        /// What to run.
        order: PathBuf,
    },
    /// Write the custom resource definitions, one file a kind.
    Crds {
        /// Folder to write to.
        #[arg(long, default_value = "crds")]
        out: PathBuf,
    },
}

#[derive(Args)]
struct OperatorArgs {
    /// Image of the Jobs; the operator's own.
    #[arg(long, env = "LIFEBOAT_JOB_IMAGE")]
    job_image: String,
    /// Image of Jobs that dump or load PostgreSQL; the operator's own, which has no clients.
    #[arg(long, env = "LIFEBOAT_POSTGRES_IMAGE", default_value = "")]
    postgres_image: String,
    /// Image of Jobs that dump or load MariaDB or MySQL.
    #[arg(long, env = "LIFEBOAT_MARIADB_IMAGE", default_value = "")]
    mariadb_image: String,
    /// Image of Jobs that dump or load Redis or Valkey.
    #[arg(long, env = "LIFEBOAT_REDIS_IMAGE", default_value = "")]
    redis_image: String,
    /// Namespace the operator runs in.
    #[arg(long, env = "LIFEBOAT_NAMESPACE", default_value = "lifeboat-system")]
    namespace: String,
    /// Namespaces to work in, separated by commas; all if there are none.
    #[arg(long, env = "LIFEBOAT_WATCH_NAMESPACES", value_delimiter = ',', value_parser = scope::parse)]
    watch_namespaces: Vec<String>,
    /// Name of this replica, unique among all.
    #[arg(long, env = "LIFEBOAT_POD_NAME", default_value = "lifeboat")]
    identity: String,
    /// How long the Lease of a leader holds that is not heard of. For tests on a machine that is slow.
    #[arg(long, default_value = "8s", value_parser = lease, hide = true)]
    lease_duration: Duration,
    /// Deadline of a run that sets no timeOut.
    #[arg(long, env = "LIFEBOAT_DEFAULT_TIMEOUT", default_value = "24h", value_parser = duration::parse)]
    default_timeout: Duration,
    /// Longest timeOut that a run may ask for.
    #[arg(long, env = "LIFEBOAT_MAX_TIMEOUT", default_value = "168h", value_parser = duration::parse)]
    max_timeout: Duration,
    /// How often the Snapshots of each Repository are brought up to date by themselves; 0s for never.
    #[arg(long, env = "LIFEBOAT_SNAPSHOT_SYNC", default_value = "60m", value_parser = duration::parse)]
    snapshot_sync: Duration,
    /// Jobs that may work on one Repository at once; further sessions wait. Places are shared by namespace.
    #[arg(long, env = "LIFEBOAT_JOBS_PER_REPOSITORY", default_value_t = 16, value_parser = at_least_one)]
    jobs_per_repository: usize,
    /// Time between two probes of a Repository that does not answer. For tests.
    #[arg(long, env = "LIFEBOAT_PROBE_INTERVAL", default_value = "1m", value_parser = duration::parse, hide = true)]
    probe_interval: Duration,
    /// Settings of Jobs where neither the object nor its namespace names any, as JSON.
    #[arg(long, env = "LIFEBOAT_JOB_DEFAULTS", default_value = "", value_parser = job_defaults::parse)]
    job_defaults: RuntimeSettings,
    /// Serve the admission webhook.
    #[arg(long, env = "LIFEBOAT_WEBHOOK", default_value_t = true, action = clap::ArgAction::Set)]
    webhook: bool,
    /// Service in front of the webhook.
    #[arg(long, env = "LIFEBOAT_WEBHOOK_SERVICE", default_value = "lifeboat")]
    webhook_service: String,
    /// Secret for the webhook's certificate.
    #[arg(long, env = "LIFEBOAT_WEBHOOK_SECRET", default_value = "lifeboat-webhook-cert")]
    webhook_secret: String,
    /// Name of the webhook configurations.
    #[arg(long, env = "LIFEBOAT_WEBHOOK_CONFIGURATIONS", default_value = OPERATOR)]
    webhook_configurations: String,
    /// Port of the webhook; the chart's Service says the default. For tests.
    #[arg(long, default_value_t = 9443, hide = true)]
    webhook_port: u16,
    /// Take fields that can run code or raise rights only from those who may create Pods in the namespace.
    #[arg(long, env = "LIFEBOAT_CODE_RIGHTS", default_value_t = true, action = clap::ArgAction::Set)]
    code_rights: bool,
    /// Groups whose members may set such fields without that right.
    #[arg(long, env = "LIFEBOAT_CODE_GROUPS", value_delimiter = ',')]
    code_groups: Vec<String>,
    /// Port of /healthz, /readyz and /metrics.
    #[arg(long, default_value_t = 8080)]
    port: u16,
}

/// How long a thread of the agent outlives its work. Threads and processes are numbered alike: where one has the number of
/// a restic that died in an earlier pod, restic takes that for alive, and its lock with it.
const IDLE_THREAD: Duration = Duration::from_millis(50);

fn run<T>(runtime: &mut Builder, role: impl Future<Output = T>) -> Result<T, String> {
    let runtime = runtime.enable_all().build().map_err(|e| format!("could not start: {e}"))?;
    Ok(runtime.block_on(role))
}

async fn operate(args: OperatorArgs) -> Result<(), String> {
    lifeboat::telemetry::init();
    operator::run(Options {
        setup: Setup {
            addons: AddonImages {
                postgres: or(args.postgres_image, &args.job_image),
                mariadb: or(args.mariadb_image, &args.job_image),
                redis: or(args.redis_image, &args.job_image),
            },
            image: args.job_image,
            default_timeout: args.default_timeout,
            // A default that is longer is meant.
            max_timeout: args.max_timeout.max(args.default_timeout),
            sync_every: args.snapshot_sync,
            jobs_per_repository: args.jobs_per_repository,
            probe_interval: args.probe_interval,
            job_defaults: args.job_defaults,
        },
        namespace: args.namespace,
        scope: Scope::new(args.watch_namespaces),
        identity: args.identity,
        lease: args.lease_duration,
        webhook: args.webhook,
        service: args.webhook_service,
        certificate: args.webhook_secret,
        webhooks: args.webhook_configurations,
        webhook_port: args.webhook_port,
        port: args.port,
        code_rights: args.code_rights,
        code_groups: args.code_groups.into_iter().filter(|g| !g.is_empty()).collect(),
    })
    .await
}

fn or(image: String, default: &str) -> String {
    if image.is_empty() { default.to_owned() } else { image }
}

/// Whole seconds, as a Lease has them; and no more than a candidate believes.
fn lease(text: &str) -> Result<Duration, String> {
    let lease = duration::parse(text)?;
    let is_right = lease.subsec_nanos() == 0 && (4..=60).contains(&lease.as_secs());
    if is_right { Ok(lease) } else { Err("write whole seconds from 4s to 60s".to_owned()) }
}

fn at_least_one(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|n| *n > 0).ok_or_else(|| "write a number from 1".to_owned())
}

fn main() -> ExitCode {
    // One TLS provider for the whole process; rustls refuses to guess between two.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let result = match Cli::parse().role {
        Role::Operator(args) => run(&mut Builder::new_multi_thread(), operate(args)).flatten(),
        Role::Agent(options) => {
            match run(Builder::new_current_thread().thread_keep_alive(IDLE_THREAD), agent::run(options)) {
                Ok(code) => return code,
                Err(message) => Err(message),
            }
        }
        Role::Meter { order } => return agent::measure(&order),
        Role::Crds { out } => lifeboat::cli::crds::write(&out),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("lifeboat: {message}");
            ExitCode::FAILURE
        }
    }
}
