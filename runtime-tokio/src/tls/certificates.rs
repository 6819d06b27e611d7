//! Certificates from secrets to what workers end TLS with.
//!
//! [`Keeper`] reads the [`Secrets`] that the table's hosts need, and again when one changes; `core::tls::certificates` decides
//! which of them each host is served with. Swapping them closes no connection: a handshake takes what is there when it begins.
//! Keys are held in memory alone and never shown.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::rc::Rc;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, ProducesTickets, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{CipherSuite, ServerConfig, SignatureAlgorithm};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tidegate_core::route::spec::CertificateRef;
use tidegate_core::route::{RouteTable, RuleHost};
use tidegate_core::secrets::SecretText;
use tidegate_core::settings::ciphers;
use tidegate_core::time::Duration;
use tidegate_core::tls::certificates::{CertificateBook, Loaded, Material, Problem};
use tokio::sync::watch;
use tokio::task::spawn_local;
use tokio_util::sync::CancellationToken;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::clock::Clock;
use crate::secrets::Secrets;
use crate::telemetry::exposition::Text;

/// Between two looks at the clock: certificates end, or are not valid yet.
const LOOK_EVERY: std::time::Duration = std::time::Duration::from_secs(10);

/// What TLS is ended with, by host. Cheap to look up, and never changed.
#[derive(Debug, Default)]
pub struct Served(BTreeMap<RuleHost, Arc<ServerConfig>>);

impl Served {
    /// The configuration of a host of the table.
    pub(crate) fn get(&self, host: &RuleHost) -> Option<Arc<ServerConfig>> {
        self.0.get(host).cloned()
    }
}

/// A pair of secrets as it was read last.
struct Read {
    versions: Vec<u64>,
    result: Result<Material, Problem>,
}

/// See the module. Lives on the control thread.
pub struct Keeper {
    secrets: Secrets,
    clock: Clock,
    hasher: RandomState,
    provider: Arc<CryptoProvider>,
    tickets: Arc<dyn ProducesTickets>,
    book: CertificateBook,
    wanted: BTreeMap<RuleHost, Arc<[CertificateRef]>>,
    read: BTreeMap<CertificateRef, Read>,
    /// By [`Material::id`].
    keys: BTreeMap<u64, Arc<CertifiedKey>>,
    configs: BTreeMap<Vec<u64>, Arc<ServerConfig>>,
    /// The oldest version of TLS and the ciphers that the settings name.
    spoken: (String, Vec<String>),
    ends: BTreeMap<String, Duration>,
    assigned: BTreeMap<RuleHost, Vec<u64>>,
    served: watch::Sender<Arc<Served>>,
}

impl Keeper {
    /// Reads from `secrets`. Nothing is read before [`Keeper::install`].
    ///
    /// # Errors
    /// If the system gives no randomness for the keys of session tickets.
    pub fn new(secrets: Secrets, clock: Clock) -> Result<Keeper, rustls::Error> {
        Ok(Keeper {
            secrets,
            clock,
            hasher: RandomState::new(),
            provider: Arc::new(rustls::crypto::aws_lc_rs::default_provider()),
            // Changes its keys every six hours, and takes tickets of the keys before.
            tickets: rustls::crypto::aws_lc_rs::Ticketer::new()?,
            book: CertificateBook::default(),
            wanted: BTreeMap::new(),
            read: BTreeMap::new(),
            keys: BTreeMap::new(),
            configs: BTreeMap::new(),
            spoken: (String::from("1.2"), Vec::new()),
            ends: BTreeMap::new(),
            assigned: BTreeMap::new(),
            served: watch::Sender::new(Arc::default()),
        })
    }

    /// What workers end TLS with, now and later.
    pub fn subscribe(&self) -> watch::Receiver<Arc<Served>> {
        self.served.subscribe()
    }

    /// Takes what a new table wants, once [`Secrets::want`] did. Call it before workers get the table.
    pub fn install(&mut self, table: &RouteTable) {
        self.wanted = table.certificates();
        let settings = table.settings();
        let spoken = (settings.tls_min_version.clone(), settings.tls_ciphers.clone());
        let is_new = self.spoken != spoken;
        if is_new {
            self.spoken = spoken;
            self.configs.clear();
        }
        self.refresh();
        if is_new {
            self.publish();
        }
    }

    /// Looks at the secrets and at the time again.
    pub fn refresh(&mut self) {
        let pairs: BTreeSet<CertificateRef> = self.wanted.values().flat_map(|pairs| pairs.iter()).cloned().collect();
        self.read.retain(|pair, _| pairs.contains(pair));
        for pair in pairs {
            let versions: Vec<u64> = pair.secrets().map(|name| self.secrets.get(name).version).collect();
            if self.read.get(&pair).is_some_and(|read| read.versions == versions) {
                continue;
            }
            let result = self.load(&pair);
            self.read.insert(pair, Read { versions, result });
        }
        let loaded: Loaded = self
            .read
            .iter()
            .map(|(pair, read)| (pair.clone(), read.result.clone()))
            .collect();
        let judgement = self.book.judge(&self.wanted, &loaded, self.clock.wall());
        self.secrets.report("certificates", judgement.findings);
        self.ends = judgement.ends;
        if self.assigned != judgement.served {
            self.assigned = judgement.served;
            self.publish();
        }
    }

    /// How many findings there are about secrets.
    pub fn findings(&self) -> usize {
        self.secrets.findings().borrow().len()
    }

    /// Seconds to the end of each certificate that could be read, by the name of its secret; negative where it is over.
    pub fn seconds_left(&self) -> BTreeMap<String, i64> {
        let now = i64::try_from(self.clock.wall().as_secs()).unwrap_or(i64::MAX);
        let left = |end: &Duration| i64::try_from(end.as_secs()).unwrap_or(i64::MAX).saturating_sub(now);
        self.ends.iter().map(|(name, end)| (name.clone(), left(end))).collect()
    }

    fn publish(&mut self) {
        let used: BTreeSet<&Vec<u64>> = self.assigned.values().collect();
        self.configs.retain(|ids, _| used.contains(ids));
        for ids in used {
            if !self.configs.contains_key(ids)
                && let Some(config) = self.config(ids)
            {
                self.configs.insert(ids.clone(), config);
            }
        }
        let held: BTreeSet<u64> = self.assigned.values().flatten().copied().collect();
        let readable = self.read.values().filter_map(|read| read.result.as_ref().ok());
        let kept: BTreeSet<u64> = readable.map(|material| material.id).chain(held).collect();
        self.keys.retain(|id, _| kept.contains(id));
        let by_host = self
            .assigned
            .iter()
            .filter_map(|(host, ids)| Some((host.clone(), Arc::clone(self.configs.get(ids)?))));
        self.served.send_replace(Arc::new(Served(by_host.collect())));
    }

    fn config(&self, ids: &[u64]) -> Option<Arc<ServerConfig>> {
        let mut keys: Vec<Arc<CertifiedKey>> = ids.iter().filter_map(|id| self.keys.get(id).cloned()).collect();
        // Smaller and faster first; who cannot use it gets the next.
        keys.sort_by_key(|key| key.key.algorithm() != SignatureAlgorithm::ECDSA);
        let (oldest, named) = &self.spoken;
        let mut provider = CryptoProvider::clone(&self.provider);
        provider
            .cipher_suites
            .retain(|suite| ciphers::allows(named, u16::from(suite.suite())));
        let versions: &[&rustls::SupportedProtocolVersion] = match oldest.as_str() {
            "1.3" => &[&rustls::version::TLS13],
            _ => &[&rustls::version::TLS13, &rustls::version::TLS12],
        };
        let builder = ServerConfig::builder_with_provider(Arc::new(provider)).with_protocol_versions(versions);
        let mut config = match builder {
            Ok(builder) => builder.with_no_client_auth().with_cert_resolver(Arc::new(Choice(keys))),
            Err(error) => {
                tracing::error!(%error, "TLS cannot be set up");
                return None;
            }
        };
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        config.ticketer = Arc::clone(&self.tickets);
        Some(Arc::new(config))
    }

    fn load(&mut self, pair: &CertificateRef) -> Result<Material, Problem> {
        let chain_pem = self.text(&pair.certificate)?;
        let key_secret = pair.key.as_ref().unwrap_or(&pair.certificate);
        let key_pem = match &pair.key {
            Some(name) => self.text(name)?,
            None => chain_pem.clone(),
        };
        let (chain_pem, key_pem) = (chain_pem.expose().as_bytes(), key_pem.expose().as_bytes());
        let unusable = |error: String| Problem::Unusable(pair.certificate.clone(), error);
        let chain = CertificateDer::pem_slice_iter(chain_pem)
            .collect::<Result<Vec<_>, _>>()
            .ok()
            .filter(|chain| !chain.is_empty())
            .ok_or_else(|| Problem::NotPem(pair.certificate.clone()))?;
        let key = PrivateKeyDer::from_pem_slice(key_pem).map_err(|_| Problem::NoKey(key_secret.clone()))?;
        let (names, not_before, not_after) = facts(&chain[0]).map_err(unusable)?;
        let certified = CertifiedKey::from_der(chain, key, &self.provider).map_err(|error| {
            if matches!(error, rustls::Error::InconsistentKeys(_)) {
                Problem::WrongKey(pair.certificate.clone(), key_secret.clone())
            } else {
                unusable(error.to_string())
            }
        })?;
        let id = self.hasher.hash_one((chain_pem, key_pem));
        self.keys.insert(id, Arc::new(certified));
        Ok(Material {
            id,
            names,
            not_before,
            not_after,
        })
    }

    fn text(&self, name: &str) -> Result<SecretText, Problem> {
        let secret = self.secrets.get(name);
        let last_good = secret.last_good().cloned();
        last_good.map_err(|problem| Problem::Secret(name.to_owned(), problem))
    }
}

/// The keeper of a process, shared by what installs tables, what looks at secrets and what shows metrics.
#[derive(Clone, Debug)]
pub struct Certificates(Rc<RefCell<Keeper>>);

impl Certificates {
    /// Shares `keeper`.
    pub fn new(keeper: Keeper) -> Self {
        Certificates(Rc::new(RefCell::new(keeper)))
    }

    /// See [`Keeper::install`].
    pub fn install(&self, table: &RouteTable) {
        self.0.borrow_mut().install(table);
    }

    /// See [`Keeper::subscribe`].
    pub fn subscribe(&self) -> watch::Receiver<Arc<Served>> {
        self.0.borrow().subscribe()
    }

    /// Looks again after each change of a secret and every few seconds, in a task of its own, until `stop`.
    pub fn follow(self, stop: CancellationToken) {
        let (clock, mut changes) = {
            let keeper = self.0.borrow();
            (keeper.clock, keeper.secrets.changes())
        };
        spawn_local(async move {
            loop {
                let at = clock.now() + LOOK_EVERY;
                tokio::select! { biased;
                    () = stop.cancelled() => return,
                    Ok(()) = changes.changed() => {}
                    () = clock.sleep_until(Some(at)) => {}
                }
                self.0.borrow_mut().refresh();
            }
        });
    }

    /// Prometheus text.
    pub fn metrics(&self) -> String {
        let keeper = self.0.borrow();
        let mut out = Text::default();
        out.family(
            "tidegate_certificate_expires_in_seconds",
            "gauge",
            "Time to the end of each certificate, by the name of its secret; negative where it is over",
        );
        for (name, seconds) in keeper.seconds_left() {
            out.sample(
                "tidegate_certificate_expires_in_seconds",
                &[("certificate", &name)],
                seconds,
            );
        }
        out.family(
            "tidegate_certificate_findings",
            "gauge",
            "What is wrong with certificates and other secrets now; the log has a line for each",
        );
        out.sample("tidegate_certificate_findings", &[], keeper.findings());
        out.0
    }
}

impl fmt::Debug for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keeper")
            .field("secrets", &self.secrets)
            .finish_non_exhaustive()
    }
}

type Facts = (Vec<String>, Duration, Duration);

/// DNS names in lower case, and the dates. The subject's common name counts where there is no other (RFC 6125 §6.4.4).
fn facts(certificate: &CertificateDer<'_>) -> Result<Facts, String> {
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|error| error.to_string())?;
    let mut names = Vec::new();
    if let Ok(Some(alternatives)) = parsed.subject_alternative_name() {
        for name in &alternatives.value.general_names {
            if let GeneralName::DNSName(name) = name {
                names.push(name.to_ascii_lowercase());
            }
        }
    }
    if names.is_empty() {
        let common = parsed
            .subject()
            .iter_common_name()
            .filter_map(|name| name.as_str().ok());
        names.extend(common.map(str::to_ascii_lowercase));
    }
    let since_1970 = |timestamp: i64| Duration::from_secs(u64::try_from(timestamp).unwrap_or(0));
    let validity = parsed.validity();
    Ok((
        names,
        since_1970(validity.not_before.timestamp()),
        since_1970(validity.not_after.timestamp()),
    ))
}

/// The first certificate that the client can use.
#[derive(Debug)]
struct Choice(Vec<Arc<CertifiedKey>>);

impl ResolvesServerCert for Choice {
    fn resolve(&self, client_hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let schemes = client_hello.signature_schemes();
        let suites = client_hello.cipher_suites();
        let usable = |key: &&Arc<CertifiedKey>| {
            let algorithm = key.key.algorithm();
            key.key.choose_scheme(schemes).is_some() && suites.iter().any(|suite| allows(*suite, algorithm))
        };
        // With none that fits, rustls says so in its alert.
        self.0.iter().find(usable).or(self.0.first()).cloned()
    }
}

/// Whether a client that offers `suite` can use a key of this kind with it: in TLS 1.3 any, in TLS 1.2 the suite says. Of
/// TLS 1.2 only the suites that rustls has count.
fn allows(suite: CipherSuite, algorithm: SignatureAlgorithm) -> bool {
    use CipherSuite as Suite;
    if [
        Suite::TLS13_AES_128_GCM_SHA256,
        Suite::TLS13_AES_256_GCM_SHA384,
        Suite::TLS13_CHACHA20_POLY1305_SHA256,
    ]
    .contains(&suite)
    {
        return true;
    }
    let ecdsa = [
        Suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        Suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        Suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    ];
    let rsa = [
        Suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        Suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
        Suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    ];
    let is_rsa = algorithm == SignatureAlgorithm::RSA;
    if is_rsa {
        rsa.contains(&suite)
    } else {
        ecdsa.contains(&suite)
    }
}
