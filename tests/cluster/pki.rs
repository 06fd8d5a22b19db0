//! Certificates and kubeconfigs of a cluster.
//!
//! Three authorities: one for the cluster, one for the aggregation layer (the
//! API server trusts user names in headers only from its clients) and one for
//! the S3 server, which is the one tests hand to the operator as a private CA.
//! Everything is made once per cluster and kept.

use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use serde_json::json;

use crate::error::{Context, Result};
use crate::layout::Place;
use crate::net::{self, Veth};

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    dir: PathBuf,
}

impl Authority {
    fn create(dir: &Path, file: &str, name: &str) -> Result<Self> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name = distinguished(name, None);
        let key = KeyPair::generate().context("cannot make a key")?;
        let cert = params.self_signed(&key).context("cannot sign an authority")?;
        write_pair(dir, file, &cert.pem(), &key)?;
        Ok(Self { issuer: Issuer::new(params, key), dir: dir.to_owned() })
    }

    fn sign(&self, file: &str, mut params: CertificateParams) -> Result<()> {
        let key = KeyPair::generate().context("cannot make a key")?;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let cert = params.signed_by(&key, &self.issuer).context(format!("cannot sign {file}"))?;
        write_pair(&self.dir, file, &cert.pem(), &key)
    }

    fn server(&self, file: &str, names: Vec<String>) -> Result<()> {
        let mut params = CertificateParams::new(names).context(format!("bad name in {file}"))?;
        params.distinguished_name = distinguished(file, None);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.sign(file, params)
    }

    fn client(&self, file: &str, user: &str, group: Option<&str>) -> Result<()> {
        let mut params = CertificateParams::default();
        params.distinguished_name = distinguished(user, group);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(file, params)
    }
}

fn distinguished(name: &str, group: Option<&str>) -> DistinguishedName {
    let mut dn = DistinguishedName::new();
    if let Some(group) = group {
        dn.push(DnType::OrganizationName, group);
    }
    dn.push(DnType::CommonName, name);
    dn
}

fn write_pair(dir: &Path, file: &str, cert: &str, key: &KeyPair) -> Result<()> {
    write(&dir.join(format!("{file}.crt")), cert)?;
    write(&dir.join(format!("{file}.key")), &key.serialize_pem())
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).context(format!("cannot write {}", path.display()))
}

/// Users of the API server: file name, user, group.
const USERS: &[(&str, &str, Option<&str>)] = &[
    ("admin", "lifeboat-admin", Some("system:masters")),
    ("controller-manager", "system:kube-controller-manager", None),
    ("scheduler", "system:kube-scheduler", None),
    ("proxy", "system:kube-proxy", None),
    ("dns", "lifeboat-dns", Some("system:masters")),
    ("node1", "system:node:node1", Some("system:nodes")),
    ("node2", "system:node:node2", Some("system:nodes")),
];

/// Makes all certificates, keys and kubeconfigs, unless they are there.
pub fn ensure(place: &Place, veth: Veth) -> Result<()> {
    // This file is written last: a set without it is half-finished and made
    // again. It holds the address, which is part of the certificates.
    let complete = place.pki().join("complete");
    let address = veth.cluster.to_string();
    if fs::read_to_string(&complete).is_ok_and(|have| have == address) {
        return Ok(());
    }
    let dir = place.pki();
    fs::create_dir_all(&dir).context(format!("cannot make {}", dir.display()))?;

    let cluster = Authority::create(&dir, "ca", "lifeboat-cluster")?;
    let mut names: Vec<String> =
        ["kubernetes", "kubernetes.default", "kubernetes.default.svc"].iter().map(ToString::to_string).collect();
    names.push("kubernetes.default.svc.cluster.local".into());
    names.extend(["localhost".into(), "127.0.0.1".into(), net::SERVICE_API.into()]);
    names.extend([net::node_address(1), address.clone()]);
    cluster.server("apiserver", names)?;
    cluster.server("local", vec!["localhost".into(), "127.0.0.1".into()])?;
    for node in 1..=2 {
        let names = vec![format!("node{node}"), net::node_address(node)];
        cluster.server(&format!("kubelet{node}"), names)?;
    }
    cluster.client("apiserver-kubelet", "kube-apiserver", Some("system:masters"))?;
    for (file, user, group) in USERS {
        cluster.client(file, user, *group)?;
    }

    Authority::create(&dir, "front-ca", "lifeboat-front-proxy")?.client("front-proxy", "front-proxy-client", None)?;
    Authority::create(&dir, "s3-ca", "lifeboat-s3")?
        .server("s3", vec!["localhost".into(), "127.0.0.1".into(), net::node_address(1), address.clone()])?;

    let key = KeyPair::generate().context("cannot make a key")?;
    write(&dir.join("service-account.key"), &key.serialize_pem())?;
    write(&dir.join("service-account.pub"), &key.public_key_pem())?;

    // Node 2 reaches the API server by the first node's address.
    for (file, _, _) in USERS {
        let server = format!("https://{}:6443", net::node_address(1));
        kubeconfig(place, &dir.join(format!("{file}.kubeconfig")), file, &server)?;
    }
    kubeconfig(place, &place.kubeconfig(), "admin", &format!("https://{address}:6443"))?;
    write(&complete, &address)
}

/// A kubeconfig with everything inline, so that it can be copied. JSON is YAML.
fn kubeconfig(place: &Place, path: &Path, user: &str, server: &str) -> Result<()> {
    use base64::Engine as _;
    let inline = |file: &str| -> Result<String> {
        let bytes = fs::read(place.pki().join(file)).context(format!("cannot read {file}"))?;
        Ok(base64::engine::general_purpose::STANDARD.encode(bytes))
    };
    let name = format!("lifeboat-{}", place.name);
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": name,
        "clusters": [{"name": name, "cluster": {
            "server": server, "certificate-authority-data": inline("ca.crt")?}}],
        "users": [{"name": user, "user": {
            "client-certificate-data": inline(&format!("{user}.crt"))?,
            "client-key-data": inline(&format!("{user}.key"))?}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": user}}],
    });
    write(path, &format!("{config:#}\n"))
}
