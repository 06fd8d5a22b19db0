//! What runs in a cluster: command lines, order of start, readiness.

use std::path::PathBuf;

use crate::config::{S3_ACCESS, S3_REGION, S3_SECRET};
use crate::layout::Place;
use crate::net;

/// How a component shows that it is ready.
#[derive(Clone, Debug)]
pub enum Probe {
    /// 200 from a plain address.
    Http(String, &'static str),
    /// 200 from an address with a certificate of the cluster, as its admin.
    Https(String, &'static str),
    /// Something accepts connections.
    Tcp(String),
    Socket(PathBuf),
    /// The node's condition in the API server.
    NodeReady(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Runs until stopped; started again when it dies on its own.
    Service,
    /// Runs until it succeeded once.
    Task,
}

#[derive(Clone, Debug)]
pub struct Spec {
    pub name: String,
    pub kind: Kind,
    pub argv: Vec<String>,
    /// Node (network namespace) it runs in.
    pub node: u8,
    /// Components that must have been ready before its first start.
    pub after: Vec<String>,
    pub probes: Vec<Probe>,
}

impl Spec {
    fn service(name: &str, argv: Vec<String>, after: &[&str], probes: Vec<Probe>) -> Self {
        let after = after.iter().map(ToString::to_string).collect();
        Self { name: name.to_owned(), kind: Kind::Service, argv, node: 1, after, probes }
    }

    fn task(name: &str, argv: Vec<String>, after: &[&str]) -> Self {
        Self { kind: Kind::Task, ..Self::service(name, argv, after, Vec::new()) }
    }
}

/// All components of a cluster with this many nodes. Without nodes, the cluster
/// is an API server and its store.
pub fn all(place: &Place, nodes: u8) -> Vec<Spec> {
    let mut specs = vec![etcd(place), apiserver(place), addons(place)];
    if nodes > 0 {
        specs.extend([controller_manager(place), scheduler(place), dns(place)]);
        specs.extend(s3(place));
    }
    for node in 1..=nodes {
        specs.extend(self::node(place, node));
    }
    specs
}

fn program(place: &Place, name: &str) -> String {
    place.home.bin().join(name).display().to_string()
}

/// A command line from a program and the lines of its flags.
fn argv(place: &Place, name: &str, flags: &[String]) -> Vec<String> {
    let mut words = vec![program(place, name)];
    words.extend(flags.iter().cloned());
    words
}

fn etcd(place: &Place) -> Spec {
    let flags = [
        format!("--data-dir={}", place.file("etcd").display()),
        "--listen-client-urls=http://127.0.0.1:2379".into(),
        "--advertise-client-urls=http://127.0.0.1:2379".into(),
        "--listen-peer-urls=http://127.0.0.1:2380".into(),
        // Test data may be lost on a power failure.
        "--unsafe-no-fsync".into(),
        "--log-level=warn".into(),
    ];
    let probe = Probe::Http("127.0.0.1:2379".into(), "/health");
    Spec::service("etcd", argv(place, "etcd", &flags), &[], vec![probe])
}

fn apiserver(place: &Place) -> Spec {
    let pki = |file: &str| place.pki().join(file).display().to_string();
    let flags = [
        "--etcd-servers=http://127.0.0.1:2379".into(),
        "--bind-address=0.0.0.0".into(),
        "--secure-port=6443".into(),
        format!("--advertise-address={}", net::node_address(1)),
        format!("--cert-dir={}", place.pki().display()),
        format!("--tls-cert-file={}", pki("apiserver.crt")),
        format!("--tls-private-key-file={}", pki("apiserver.key")),
        format!("--client-ca-file={}", pki("ca.crt")),
        format!("--service-cluster-ip-range={}", net::SERVICE_NET),
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local".into(),
        format!("--service-account-key-file={}", pki("service-account.pub")),
        format!("--service-account-signing-key-file={}", pki("service-account.key")),
        "--authorization-mode=Node,RBAC".into(),
        "--enable-admission-plugins=NodeRestriction".into(),
        "--allow-privileged=true".into(),
        format!("--kubelet-client-certificate={}", pki("apiserver-kubelet.crt")),
        format!("--kubelet-client-key={}", pki("apiserver-kubelet.key")),
        format!("--kubelet-certificate-authority={}", pki("ca.crt")),
        // No name server knows the node names.
        "--kubelet-preferred-address-types=InternalIP".into(),
        format!("--requestheader-client-ca-file={}", pki("front-ca.crt")),
        "--requestheader-allowed-names=front-proxy-client".into(),
        "--requestheader-username-headers=X-Remote-User".into(),
        "--requestheader-group-headers=X-Remote-Group".into(),
        "--requestheader-extra-headers-prefix=X-Remote-Extra-".into(),
        format!("--proxy-client-cert-file={}", pki("front-proxy.crt")),
        format!("--proxy-client-key-file={}", pki("front-proxy.key")),
        format!("--audit-policy-file={}", place.file("config/audit.json").display()),
        format!("--audit-log-path={}", place.logs().join("audit.log").display()),
        "--audit-log-maxsize=200".into(),
        "--audit-log-maxbackup=4".into(),
    ];
    let probe = Probe::Https("127.0.0.1:6443".into(), "/readyz");
    // The API server waits for etcd on its own; starting both at once saves a second.
    Spec::service("apiserver", argv(place, "kube-apiserver", &flags), &[], vec![probe])
}

fn addons(place: &Place) -> Spec {
    let words = [
        format!("--kubeconfig={}", place.pki().join("admin.kubeconfig").display()),
        "apply".into(),
        "--validate=false".into(),
        "--filename".into(),
        place.file("config/addons.json").display().to_string(),
    ];
    Spec::task("addons", argv(place, "kubectl", &words), &["apiserver"])
}

fn controller_manager(place: &Place) -> Spec {
    let pki = |file: &str| place.pki().join(file).display().to_string();
    let config = pki("controller-manager.kubeconfig");
    let flags = [
        format!("--kubeconfig={config}"),
        format!("--authentication-kubeconfig={config}"),
        format!("--authorization-kubeconfig={config}"),
        format!("--tls-cert-file={}", pki("local.crt")),
        format!("--tls-private-key-file={}", pki("local.key")),
        format!("--requestheader-client-ca-file={}", pki("front-ca.crt")),
        format!("--root-ca-file={}", pki("ca.crt")),
        format!("--cluster-signing-cert-file={}", pki("ca.crt")),
        format!("--cluster-signing-key-file={}", pki("ca.key")),
        format!("--service-account-private-key-file={}", pki("service-account.key")),
        "--use-service-account-credentials=true".into(),
        "--bind-address=127.0.0.1".into(),
        "--leader-elect=false".into(),
        "--enable-hostpath-provisioner=true".into(),
        // Tests must notice faults within their time limits.
        "--node-monitor-period=1s".into(),
        "--node-monitor-grace-period=12s".into(),
        "--pvclaimbinder-sync-period=2s".into(),
        "--kube-api-qps=200".into(),
        "--kube-api-burst=400".into(),
    ];
    let probes = vec![
        Probe::Https("127.0.0.1:10257".into(), "/healthz"),
        // Pods cannot be created before their namespace has its service account.
        Probe::Https("127.0.0.1:6443".into(), "/api/v1/namespaces/default/serviceaccounts/default"),
    ];
    let words = argv(place, "kube-controller-manager", &flags);
    Spec::service("controller-manager", words, &["apiserver"], probes)
}

fn scheduler(place: &Place) -> Spec {
    let pki = |file: &str| place.pki().join(file).display().to_string();
    let config = pki("scheduler.kubeconfig");
    let flags = [
        format!("--config={}", place.file("config/scheduler.json").display()),
        format!("--authentication-kubeconfig={config}"),
        format!("--authorization-kubeconfig={config}"),
        format!("--tls-cert-file={}", pki("local.crt")),
        format!("--tls-private-key-file={}", pki("local.key")),
        "--bind-address=127.0.0.1".into(),
    ];
    let probe = Probe::Https("127.0.0.1:10259".into(), "/healthz");
    Spec::service("scheduler", argv(place, "kube-scheduler", &flags), &["apiserver"], vec![probe])
}

fn dns(place: &Place) -> Spec {
    let flags = ["-conf".into(), place.file("config/Corefile").display().to_string()];
    let probe = Probe::Http("127.0.0.1:8181".into(), "/ready");
    Spec::service("dns", argv(place, "coredns", &flags), &["apiserver"], vec![probe])
}

/// The same store by plain and by encrypted transport.
fn s3(place: &Place) -> [Spec; 2] {
    let server = |name: &str, port: u16, tls: bool| {
        let mut flags = vec![
            "--access".into(),
            S3_ACCESS.into(),
            "--secret".into(),
            S3_SECRET.into(),
            "--region".into(),
            S3_REGION.into(),
            "--port".into(),
            format!(":{port}"),
        ];
        if tls {
            for (flag, file) in [("--cert", "s3.crt"), ("--key", "s3.key")] {
                flags.extend([flag.into(), place.pki().join(file).display().to_string()]);
            }
        }
        flags.extend(["posix".into(), place.file("s3").display().to_string()]);
        let probe = Probe::Tcp(format!("127.0.0.1:{port}"));
        Spec::service(name, argv(place, "versitygw", &flags), &[], vec![probe])
    };
    [server("s3", 9000, false), server("s3-tls", 9443, true)]
}

fn node(place: &Place, node: u8) -> Vec<Spec> {
    let dir = place.node(node);
    let name = |base: &str| format!("{base}-{node}");
    let mut containerd =
        argv(place, "containerd", &["--config".into(), dir.join("containerd.toml").display().to_string()]);
    if node > 1 {
        // The nodes share one file system, but a host path belongs to one node: pods of this node that mount from the
        // folder `disk` get another folder. The kubelet's mounts arrive here, and this mount stays.
        let words = ["unshare", "--mount", "--propagation", "slave", "sh", "-ec"];
        let script = "mount --bind \"$1\" \"$2\"; shift 2; exec \"$@\"";
        let disks = [dir.join("disk"), place.file("disk")].map(|d| d.display().to_string());
        let before = words.into_iter().chain([script, "sh"]).map(str::to_owned).chain(disks);
        containerd = before.chain(containerd).collect();
    }
    let kubelet = argv(
        place,
        "kubelet",
        &[
            format!("--config={}", dir.join("kubelet.json").display()),
            format!("--kubeconfig={}", place.pki().join(format!("node{node}.kubeconfig")).display()),
            format!("--root-dir={}", dir.join("kubelet").display()),
            format!("--cert-dir={}", dir.join("kubelet-pki").display()),
            format!("--node-ip={}", net::node_address(node)),
            format!("--hostname-override=node{node}"),
        ],
    );
    let proxy = argv(
        place,
        "kube-proxy",
        &[
            format!("--config={}", dir.join("proxy.json").display()),
            // The configuration file alone does not set the name.
            format!("--hostname-override=node{node}"),
        ],
    );
    let own = std::env::current_exe().unwrap_or_default().display().to_string();
    let images = vec![own, "load-cached".into(), "--name".into(), place.name.clone(), node.to_string()];
    let address = net::node_address(node);
    let mut specs = vec![
        Spec::service(&name("containerd"), containerd, &[], vec![Probe::Socket(place.containerd_socket(node))]),
        Spec::task(&name("images"), images, &[&name("containerd")]),
        Spec::service(
            &name("kubelet"),
            kubelet,
            &["apiserver", &name("containerd")],
            vec![Probe::Http(format!("{address}:10248"), "/healthz"), Probe::NodeReady(format!("node{node}"))],
        ),
        Spec::service(&name("proxy"), proxy, &["apiserver"], vec![Probe::Http(format!("{address}:10256"), "/healthz")]),
    ];
    for spec in &mut specs {
        spec.node = node;
    }
    specs
}
