//! Makes authorities and certificates, as PEM texts that fit into a Docker secret.

use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tidegate_core::identity::{AUTHORITY_LIFE, CERTIFICATE_LIFE};
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::Role;

/// Certificates are valid from a little earlier on, since clocks of nodes differ.
const CLOCK_SKEW: Duration = Duration::from_secs(3600);

/// Why a certificate cannot be made or read.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The text is not what a secret of ours holds.
    #[error("{0} holds no usable identity: {1}; remove the secret and let the controller make a new one")]
    Unreadable(String, String),
    /// The library refused.
    #[error("a certificate cannot be made: {0}")]
    Make(#[from] rcgen::Error),
    /// TLS cannot be set up with it.
    #[error("TLS cannot be set up: {0}")]
    Tls(String),
}

/// The holder of a signing key.
#[derive(Debug)]
pub struct Authority {
    certificate_pem: String,
    ends: Duration,
    issuer: Issuer<'static, KeyPair>,
    key_pem: String,
}

impl Authority {
    /// A new authority, valid from `wall` (time since 1970) on.
    ///
    /// # Errors
    /// If the library cannot make a key or certificate.
    pub fn generate(wall: Duration) -> Result<Authority, IdentityError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = params("Tidegate authority", wall, AUTHORITY_LIFE);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate_pem = params.self_signed(&key)?.pem();
        let key_pem = key.serialize_pem();
        Ok(Authority {
            certificate_pem,
            ends: wall + AUTHORITY_LIFE,
            issuer: Issuer::new(params, key),
            key_pem,
        })
    }

    /// Reads what [`Authority::to_pem`] wrote; `name` is for the message.
    ///
    /// # Errors
    /// If the text holds no certificate and key of an authority.
    pub fn from_pem(name: &str, pem: &str) -> Result<Authority, IdentityError> {
        let unreadable = |error: String| IdentityError::Unreadable(name.to_owned(), error);
        let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|e| unreadable(e.to_string()))?;
        let key = PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|e| unreadable(e.to_string()))?;
        let key = KeyPair::try_from(&key).map_err(|e| unreadable(e.to_string()))?;
        let key_pem = key.serialize_pem();
        let certificate_pem = pem_of_certificate(pem);
        let (_, read) = X509Certificate::from_der(&certificate).map_err(|e| unreadable(e.to_string()))?;
        let ends = read.validity().not_after.timestamp();
        let issuer = Issuer::from_ca_cert_der(&certificate, key).map_err(|e| unreadable(e.to_string()))?;
        Ok(Authority {
            certificate_pem,
            ends: Duration::from_secs(ends.try_into().unwrap_or_default()),
            issuer,
            key_pem,
        })
    }

    /// Certificate and key, for a secret that controllers alone mount.
    pub fn to_pem(&self) -> String {
        format!("{}{}", self.certificate_pem, self.key_pem)
    }

    /// The certificate, which everyone may see.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// The end of its life, since 1970.
    pub(super) fn ends(&self) -> Duration {
        self.ends
    }

    /// A certificate for `role`; its holder will trust `roots` (PEM certificates of authorities).
    ///
    /// # Errors
    /// If the library cannot make a key or certificate.
    pub fn issue(&self, role: &Role, roots: &[&str], wall: Duration) -> Result<IdentityPem, IdentityError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = params(&role.to_string(), wall, CERTIFICATE_LIFE);
        params.subject_alt_names = vec![rcgen::SanType::DnsName(role.dns_name().try_into()?)];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![match role {
            Role::Controller => ExtendedKeyUsagePurpose::ServerAuth,
            Role::Courier | Role::Proxy(_) => ExtendedKeyUsagePurpose::ClientAuth,
        }];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, &self.issuer)?.pem();
        Ok(IdentityPem {
            certificate,
            key: key.serialize_pem(),
            roots: roots.concat(),
        })
    }
}

/// A role's certificate, its key, and whom it trusts.
#[derive(Clone, Debug)]
pub struct IdentityPem {
    pub(super) certificate: String,
    pub(super) key: String,
    pub(super) roots: String,
}

impl IdentityPem {
    /// One text for a secret: certificate, key, then the trusted authorities.
    pub fn to_pem(&self) -> String {
        format!("{}{}{}", self.certificate, self.key, self.roots)
    }

    /// Reads what [`IdentityPem::to_pem`] wrote; `name` is for the message.
    ///
    /// # Errors
    /// If certificate, key or authorities are missing.
    pub fn from_pem(name: &str, pem: &str) -> Result<IdentityPem, IdentityError> {
        let key_at = pem.find("-----BEGIN PRIVATE KEY-----");
        let end = "-----END PRIVATE KEY-----\n";
        let parts = key_at.and_then(|start| {
            let stop = pem[start..].find(end)? + start + end.len();
            Some((&pem[..start], &pem[start..stop], &pem[stop..]))
        });
        match parts {
            Some((certificate, key, roots)) if certificate.contains("CERTIFICATE") && roots.contains("CERTIFICATE") => {
                Ok(IdentityPem {
                    certificate: certificate.to_owned(),
                    key: key.to_owned(),
                    roots: roots.to_owned(),
                })
            }
            _ => Err(IdentityError::Unreadable(
                name.to_owned(),
                "wanted are a certificate, a private key and trusted authorities, in this order".to_owned(),
            )),
        }
    }
}

fn params(common_name: &str, wall: Duration, life: Duration) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.not_before = date(wall.saturating_sub(CLOCK_SKEW));
    params.not_after = date(wall + life);
    params
}

fn date(wall: Duration) -> OffsetDateTime {
    OffsetDateTime::UNIX_EPOCH + wall
}

fn pem_of_certificate(pem: &str) -> String {
    let end = "-----END CERTIFICATE-----\n";
    pem.find("-----BEGIN CERTIFICATE-----")
        .and_then(|start| Some(pem[start..pem[start..].find(end)? + start + end.len()].to_owned()))
        .unwrap_or_default()
}
