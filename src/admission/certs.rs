//! Generates certificates of the webhook; they are stored elsewhere.
//!
//! A [`Bundle`] is a CA, and a certificate signed by it, with its key. The key of the CA is discarded at once, so
//! that no other certificate can be signed by a CA that the API server trusts. Therefore a new certificate has a new
//! CA, and both CAs are trusted while replicas are updated. The server reads the certificate from [`CertHandle`] at
//! each handshake. This module does not use the clock or the cluster.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

/// Lifetime of the serving certificate.
const LEAF_DAYS: i64 = 90;
/// Lifetime of its CA, longer than that of the certificate, so that only the certificate can expire.
const CA_DAYS: i64 = 365;
/// A certificate is valid from this time before its creation, for clocks that differ.
const BACKDATE: SignedDuration = SignedDuration::from_hours(1);
const DAY: i64 = 24;

/// A serving certificate and the CA to trust for it.
#[derive(Clone, Eq, PartialEq)]
pub struct Bundle {
    /// Certificate of the CA.
    pub ca_pem: String,
    /// The serving certificate.
    pub cert_pem: String,
    /// Its key.
    pub key_pem: String,
    /// When the serving certificate expires.
    pub not_after: Timestamp,
}

/// Without the key: a bundle may end up in a log.
impl fmt::Debug for Bundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bundle").field("not_after", &self.not_after).finish_non_exhaustive()
    }
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum CertError {
    /// It could not be generated.
    #[error("the certificate cannot be made: {0}")]
    Make(#[from] rcgen::Error),
    /// The time cannot be represented in a certificate.
    #[error("the clock is wrong: {0}")]
    Clock(#[from] jiff::Error),
    /// Certificate or key is not PEM.
    #[error("certificate or key cannot be read: {0}")]
    Pem(#[from] rustls::pki_types::pem::Error),
    /// Certificate and key do not match, or have an unknown type.
    #[error("certificate or key cannot be used: {0}")]
    Use(#[from] rustls::Error),
}

/// Generates a CA and a certificate for these names, valid from now.
///
/// # Errors
/// A name is not a DNS name, or the clock is not valid.
pub fn issue(now: Timestamp, dns_names: &[String]) -> Result<Bundle, CertError> {
    let ca_key = KeyPair::generate()?;
    let mut ca = params(now, CA_DAYS, "lifeboat webhook CA", &[])?;
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    let ca_pem = ca.self_signed(&ca_key)?.pem();

    let key = KeyPair::generate()?;
    let mut leaf = params(now, LEAF_DAYS, "lifeboat webhook", dns_names)?;
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    leaf.use_authority_key_identifier_extension = true;
    let cert_pem = leaf.signed_by(&key, &Issuer::from_params(&ca, &ca_key))?.pem();
    Ok(Bundle { ca_pem, cert_pem, key_pem: key.serialize_pem(), not_after: end(now, LEAF_DAYS)? })
}

fn params(now: Timestamp, days: i64, name: &str, dns_names: &[String]) -> Result<CertificateParams, CertError> {
    let mut params = CertificateParams::new(dns_names.to_vec())?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    // rcgen uses the time type of another crate; only the epoch and the seconds since are needed from it.
    let epoch = date_time_ymd(1970, 1, 1);
    params.not_before = epoch + since_epoch(now.checked_sub(BACKDATE)?);
    params.not_after = epoch + since_epoch(end(now, days)?);
    Ok(params)
}

fn end(now: Timestamp, days: i64) -> Result<Timestamp, CertError> {
    Ok(now.checked_add(SignedDuration::from_hours(days * DAY))?)
}

fn since_epoch(at: Timestamp) -> Duration {
    Duration::from_secs(u64::try_from(at.as_second()).unwrap_or_default())
}

/// Whether a new certificate is due: two thirds of its lifetime have passed.
pub fn needs_rotation(bundle: &Bundle, now: Timestamp) -> bool {
    bundle.not_after.duration_since(now) < SignedDuration::from_hours(LEAF_DAYS * DAY / 3)
}

/// The certificate in use; an empty handle rejects every handshake.
#[derive(Default)]
pub struct CertHandle(ArcSwapOption<CertifiedKey>);

impl fmt::Debug for CertHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CertHandle").field(&self.is_loaded()).finish()
    }
}

impl CertHandle {
    /// A handle without a certificate.
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// Uses this certificate from the next handshake on.
    ///
    /// # Errors
    /// Certificate or key cannot be read, or do not match; the current one stays in use.
    pub fn load(&self, cert_pem: &str, key_pem: &str) -> Result<(), CertError> {
        let chain = CertificateDer::pem_slice_iter(cert_pem.as_bytes()).collect::<Result<Vec<_>, _>>()?;
        let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes())?;
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        self.0.store(Some(Arc::new(CertifiedKey::from_der(chain, key, &provider)?)));
        Ok(())
    }

    /// Whether there is a certificate: the webhook is ready.
    pub fn is_loaded(&self) -> bool {
        self.0.load().is_some()
    }
}

impl ResolvesServerCert for CertHandle {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.load_full()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Vec<String> {
        vec!["lifeboat.backup.svc".to_owned()]
    }

    fn now() -> Timestamp {
        "2026-11-20T12:00:00Z".parse().unwrap()
    }

    #[test]
    fn a_bundle_loads_and_lasts_ninety_days() {
        let bundle = issue(now(), &names()).unwrap();
        assert_eq!(bundle.not_after.to_string(), "2027-02-18T12:00:00Z");
        let handle = CertHandle::new();
        assert!(!handle.is_loaded());
        handle.load(&bundle.cert_pem, &bundle.key_pem).unwrap();
        assert!(handle.is_loaded());
        assert!(!format!("{bundle:?} {handle:?}").contains("PRIVATE"));
    }

    #[test]
    fn a_key_of_another_certificate_is_refused_and_the_old_one_stays() {
        let (one, other) = (issue(now(), &names()).unwrap(), issue(now(), &names()).unwrap());
        let handle = CertHandle::new();
        handle.load(&one.cert_pem, &one.key_pem).unwrap();
        assert!(matches!(handle.load(&one.cert_pem, &other.key_pem), Err(CertError::Use(_))));
        assert!(matches!(handle.load("nonsense", &one.key_pem), Err(CertError::Use(_) | CertError::Pem(_))));
        assert!(handle.is_loaded());
    }

    #[test]
    fn rotation_is_due_after_two_thirds() {
        let bundle = issue(now(), &names()).unwrap();
        let in_days = |d: i64| now() + SignedDuration::from_hours(d * 24);
        assert!(!needs_rotation(&bundle, now()) && !needs_rotation(&bundle, in_days(59)));
        assert!(needs_rotation(&bundle, in_days(61)) && needs_rotation(&bundle, in_days(400)));
    }
}
