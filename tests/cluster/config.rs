//! Configuration files of the cluster's programs.
//!
//! Written anew at every start, from the cluster's folder and addresses, so
//! that a moved or half-written folder never leaves a stale path behind.

use std::fs;
use std::path::Path;

use serde_json::json;

use crate::error::{Context, Result};
use crate::layout::Place;
use crate::net::{self, Veth};

/// Unlike any other text, so that tests find them wherever they should not be.
pub const S3_ACCESS: &str = "planted-key-id-8472";
pub const S3_SECRET: &str = "planted-secret-key-5099";
pub const S3_REGION: &str = "us-east-1";
pub const PAUSE_IMAGE: &str = "localhost/pause:1";

fn write(path: &Path, text: &str) -> Result<()> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).context(format!("cannot make {}", dir.display()))?;
    }
    fs::write(path, text).context(format!("cannot write {}", path.display()))
}

/// Files of the control plane; all that a cluster without nodes needs.
pub fn write_control_plane(place: &Place) -> Result<()> {
    write(
        &place.file("config/audit.json"),
        &json!({
            "apiVersion": "audit.k8s.io/v1", "kind": "Policy",
            // Start and end of a request say the same at this level.
            "omitStages": ["RequestReceived"],
            "rules": [
                {"level": "Metadata", "resources": [
                    {"group": "", "resources": ["secrets"]}, {"group": "authentication.k8s.io", "resources": ["*"]}]},
                // Includes what is written of a run, because tests search it for secrets.
                {"level": "Request", "userGroups": ["system:serviceaccounts", "system:nodes"],
                 "verbs": ["create", "update", "patch"], "resources": [
                    {"group": "", "resources": ["pods", "pods/status", "events", "persistentvolumeclaims"]},
                    {"group": "batch", "resources": ["jobs", "jobs/status"]},
                    {"group": "events.k8s.io"}, {"group": "rbac.authorization.k8s.io"},
                    {"group": "stash.appscode.com"}, {"group": "repositories.stash.appscode.com"}]},
                {"level": "Metadata"},
            ],
        })
        .to_string(),
    )?;
    write(
        &place.file("config/scheduler.json"),
        &json!({
            "apiVersion": "kubescheduler.config.k8s.io/v1", "kind": "KubeSchedulerConfiguration",
            "clientConnection": {"kubeconfig": place.pki().join("scheduler.kubeconfig")},
            "leaderElection": {"leaderElect": false},
            // A pod whose volume appears late is tried again soon.
            "podInitialBackoffSeconds": 1, "podMaxBackoffSeconds": 2,
        })
        .to_string(),
    )?;
    write(
        &place.file("config/addons.json"),
        &json!({
            "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
            "metadata": {"name": "standard", "annotations":
                {"storageclass.kubernetes.io/is-default-class": "true"}},
            "provisioner": "kubernetes.io/host-path",
            "reclaimPolicy": "Delete",
            "volumeBindingMode": "WaitForFirstConsumer",
        })
        .to_string(),
    )
}

/// Files of the name server and the S3 server, which run beside the first node.
pub fn write_services(place: &Place, veth: Veth) -> Result<()> {
    let kubeconfig = place.pki().join("dns.kubeconfig");
    let kubeconfig = kubeconfig.display();
    let upstream = net::node_address(1);
    write(
        &place.file("config/Corefile"),
        &format!(
            ".:53 {{\n  bind {upstream}\n  errors\n  ready 127.0.0.1:8181\n  \
             kubernetes cluster.local in-addr.arpa {{\n    kubeconfig {kubeconfig} lifeboat-{}\n    \
             pods insecure\n    ttl 2\n  }}\n}}\n",
            place.name
        ),
    )?;
    fs::create_dir_all(place.file("s3")).context("cannot make the S3 server's folder")?;
    let ca = fs::read_to_string(place.pki().join("s3-ca.crt")).context("cannot read the S3 CA")?;
    write(
        &place.file("s3.json"),
        &format!(
            "{:#}\n",
            json!({
                // One address for pods and for the host.
                "endpoint": format!("http://{}:9000", veth.cluster),
                "tlsEndpoint": format!("https://{}:9443", veth.cluster),
                "accessKey": S3_ACCESS, "secretKey": S3_SECRET, "region": S3_REGION,
                "caFile": place.pki().join("s3-ca.crt"), "ca": ca,
                "root": place.file("s3"),
            })
        ),
    )
}

/// Files of one node.
pub fn write_node(place: &Place, node: u8) -> Result<()> {
    let dir = place.node(node);
    for disk in [dir.join("disk"), place.file("disk")] {
        fs::create_dir_all(&disk).context(format!("cannot make {}", disk.display()))?;
    }
    write(&dir.join("containerd.toml"), &containerd(place, node))?;
    let cni = json!({
        "cniVersion": "1.0.0", "name": format!("pods{node}"),
        "plugins": [
            {"type": "bridge", "bridge": net::BRIDGE, "isDefaultGateway": true, "hairpinMode": true,
             // Masquerading is done once, where traffic leaves for the host.
             "ipMasq": false,
             "ipam": {"type": "host-local", "dataDir": dir.join("ipam"),
                      "ranges": [[{"subnet": net::pod_subnet(node), "gateway": net::node_address(node)}]]}},
            {"type": "portmap", "capabilities": {"portMappings": true}},
        ],
    });
    write(&dir.join("cni/10-pods.conflist"), &cni.to_string())?;
    write(&dir.join("resolv.conf"), &format!("nameserver {}\n", net::node_address(1)))?;
    write(&dir.join("kubelet.json"), &kubelet(place, node).to_string())?;
    let proxy = json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": place.pki().join("proxy.kubeconfig")},
        "mode": "iptables", "clusterCIDR": net::POD_NET, "hostnameOverride": format!("node{node}"),
        "healthzBindAddress": format!("{}:10256", net::node_address(node)),
        "metricsBindAddress": "127.0.0.1:10249",
        // Limits of connection tracking belong to the machine, not to a test.
        "conntrack": {"maxPerCore": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        "iptables": {"minSyncPeriod": "100ms"},
    });
    write(&dir.join("proxy.json"), &proxy.to_string())
}

fn containerd(place: &Place, node: u8) -> String {
    let dir = place.node(node);
    let dir = dir.display();
    format!(
        "version = 3
root = '{dir}/containerd'
state = '{dir}/containerd-state'
imports = []
[grpc]
  address = '{socket}'
[plugins.'io.containerd.internal.v1.opt']
  path = '{dir}/opt'
[plugins.'io.containerd.metadata.v1.bolt']
  no_sync = true
[plugins.'io.containerd.cri.v1.images']
  snapshotter = 'overlayfs'
[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = '{PAUSE_IMAGE}'
[plugins.'io.containerd.cri.v1.runtime']
  # Lowering it takes CAP_SYS_RESOURCE, which containers of CI lack.
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
[plugins.'io.containerd.cri.v1.runtime'.cni]
  bin_dirs = ['/usr/lib/cni']
  conf_dir = '{dir}/cni'
[plugins.'io.containerd.cri.v1.runtime'.containerd]
  default_runtime_name = 'runc'
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
  runtime_type = 'io.containerd.runc.v2'
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
  SystemdCgroup = false
",
        socket = place.containerd_socket(node).display(),
    )
}

fn kubelet(place: &Place, node: u8) -> serde_json::Value {
    let dir = place.node(node);
    let pki = place.pki();
    let socket = format!("unix://{}", place.containerd_socket(node).display());
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": false}, "webhook": {"enabled": true, "cacheTTL": "5s"},
            "x509": {"clientCAFile": pki.join("ca.crt")}},
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": pki.join(format!("kubelet{node}.crt")),
        "tlsPrivateKeyFile": pki.join(format!("kubelet{node}.key")),
        "address": net::node_address(node),
        "healthzBindAddress": net::node_address(node), "healthzPort": 10248,
        "containerRuntimeEndpoint": socket, "imageServiceEndpoint": socket,
        "cgroupDriver": "cgroupfs", "cgroupRoot": format!("/{}/node{node}", place.cgroup()),
        "failCgroupV1": false, "failSwapOn": false, "oomScoreAdj": 0,
        "podLogsDir": dir.join("pod-logs"), "volumePluginDir": dir.join("volume-plugins"),
        "resolvConf": dir.join("resolv.conf"),
        "clusterDNS": [net::node_address(1)], "clusterDomain": "cluster.local",
        "nodeStatusUpdateFrequency": "2s", "nodeStatusReportFrequency": "10s",
        "nodeLeaseDurationSeconds": 8,
        "volumeStatsAggPeriod": "10s",
        // Images cannot be pulled again, so none may be collected.
        "imageGCHighThresholdPercent": 100, "imageGCLowThresholdPercent": 99,
        "evictionHard": {"memory.available": "50Mi", "nodefs.available": "0%",
                         "nodefs.inodesFree": "0%", "imagefs.available": "0%"},
        "serializeImagePulls": false,
        "crashLoopBackOff": {"maxContainerRestartPeriod": "2s"},
    })
}
