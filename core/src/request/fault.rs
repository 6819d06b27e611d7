//! Why a request is not served, by whose fault, and which status says so.

use alloc::string::String;
use core::fmt;
use thiserror::Error;

use crate::pool::Unavailable;
use crate::time::Duration;

/// The client must send something else.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum ClientFault {
    /// Two readers could see two lengths.
    #[error("the length of the request is ambiguous: send either Content-Length or Transfer-Encoding, once")]
    AmbiguousLength,
    /// A `Host` or `:authority` that is none.
    #[error("the host of the request is malformed: send host or host:port")]
    BadHost,
    /// A target that is neither a path nor a URL nor `*`.
    #[error("the target of the request is malformed: send a path that begins with /")]
    BadTarget,
    /// The body did not come in time, or broke off.
    #[error("the body of the request did not arrive in full")]
    BodyIncomplete,
    /// More than the limit.
    #[error("the body of the request is larger than the {max} bytes that are allowed here")]
    BodyTooLarge {
        /// The limit in bytes.
        max: u64,
    },
    /// `CONNECT`, which asks for a forward proxy.
    #[error("CONNECT is not served here: this is a reverse proxy")]
    ConnectMethod,
    /// More headers or bytes of them than the limit.
    #[error("the headers of the request are larger than allowed here")]
    HeadTooLarge,
    /// HTTP/1.1 without `Host`.
    #[error("the request has no Host header, which HTTP/1.1 requires")]
    MissingHost,
    /// Several `Host`, or one that differs from `:authority`.
    #[error("the request names several hosts: send one Host header")]
    SeveralHosts,
    /// A transfer coding other than chunked.
    #[error("the transfer coding of the request is not supported: send chunked alone")]
    UnknownTransferCoding,
}

/// The endpoint did not answer as it should.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum UpstreamFault {
    /// What came is no HTTP.
    #[error("the service answered with something that is not HTTP")]
    BadResponse,
    /// Its certificate is none that the route takes.
    #[error("the certificate of the service {0}")]
    Certificate(CertificateFault),
    /// Refused, unreachable or reset while connecting.
    #[error("no connection to the service")]
    ConnectFailed,
    /// No answer to the connection attempt.
    #[error("no connection to the service in time")]
    ConnectTimedOut,
    /// The connection ended before a response.
    #[error("the service closed the connection without a response")]
    Died,
    /// No response within the limit.
    #[error("the service did not answer in time")]
    FirstByteTimedOut,
    /// TLS began, and it does not speak the HTTP version that the route wants.
    #[error("the service does not agree over TLS to the HTTP version that its route wants")]
    NoCommonProtocol,
    /// The network is reached through a leg, and there is none.
    #[error("no connection to the service: nothing connects the proxy to its network at the moment")]
    NoLeg,
    /// The proxy itself has no socket left to connect with; says nothing about the endpoint.
    #[error("the proxy has no socket left to reach the service with: raise its limit of open files")]
    NoSocket,
    /// The authorities that are to have signed its certificate are not known yet; nothing was tried.
    #[error("the authorities that the certificate of the service is verified with cannot be read")]
    NoTrust,
    /// What came instead of a TLS handshake, or an alert.
    #[error("the service does not speak TLS as its route wants")]
    TlsFailed,
}

/// What is wrong with the certificate of an endpoint.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum CertificateFault {
    /// Its time is over.
    #[error("has expired")]
    Expired,
    /// It is broken, revoked, or made for something else.
    #[error("cannot be used")]
    Invalid,
    /// Its time has not come.
    #[error("is not valid yet")]
    NotYetValid,
    /// None of the authorities signed it.
    #[error("was not signed by an authority that its route trusts")]
    UnknownAuthority,
    /// It is for other names.
    #[error("is not for the name that its route verifies")]
    WrongName,
}

impl UpstreamFault {
    /// Whether the endpoint had a part in it: another one may do better, and this one is judged by it.
    pub fn blames_endpoint(&self) -> bool {
        !matches!(self, UpstreamFault::NoSocket | UpstreamFault::NoTrust)
    }

    /// Whether a TLS handshake failed: that is seldom over in a moment, and whoever waits in vain is told.
    pub fn is_handshake(&self) -> bool {
        match self {
            UpstreamFault::Certificate(_) | UpstreamFault::NoCommonProtocol | UpstreamFault::TlsFailed => true,
            UpstreamFault::BadResponse
            | UpstreamFault::ConnectFailed
            | UpstreamFault::ConnectTimedOut
            | UpstreamFault::Died
            | UpstreamFault::FirstByteTimedOut
            | UpstreamFault::NoLeg
            | UpstreamFault::NoSocket
            | UpstreamFault::NoTrust => false,
        }
    }
}

/// Any reason for which a request is answered by the proxy itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// By the client.
    Client(ClientFault),
    /// The request waited until its time was up, and all endpoints had as many requests as they may have.
    BusyTimedOut {
        /// How long it waited.
        waited: Duration,
    },
    /// The route is not for this client's address.
    NotAllowed,
    /// The request waited for an endpoint until its time was up.
    ParkTimedOut {
        /// How long it waited.
        waited: Duration,
    },
    /// The host's requests go elsewhere.
    Redirect {
        /// The answer's `Location`.
        location: String,
    },
    /// The path wants a slash at its end.
    ToSlash {
        /// The answer's `Location`.
        location: String,
    },
    /// The client must say who it is.
    Unauthorized {
        /// What it is told that it logs in to.
        realm: String,
    },
    /// The route wants users, and it is not known yet who they are, or too many ask.
    UsersUnknown,
    /// The route has no endpoint and the request may not wait.
    Unavailable(Unavailable),
    /// The host is served over TLS alone, which is passed through.
    TlsAlone {
        /// The host.
        host: String,
        /// Whether the request came over TLS that ended here: on a connection for another name.
        misdirected: bool,
    },
    /// No rule has this host.
    UnknownHost {
        /// The host, or empty where there was none.
        host: String,
        /// The status that the settings want.
        status: u16,
    },
    /// Rules have this host, but none of them this path.
    UnknownPath {
        /// The host.
        host: String,
        /// The path, without query.
        path: String,
    },
    /// By the endpoint.
    Upstream(UpstreamFault),
}

impl Fault {
    /// The status of the answer.
    pub fn status(&self) -> u16 {
        match self {
            Fault::Client(fault) => match fault {
                ClientFault::AmbiguousLength
                | ClientFault::BadHost
                | ClientFault::BadTarget
                | ClientFault::BodyIncomplete
                | ClientFault::MissingHost
                | ClientFault::SeveralHosts => 400,
                ClientFault::BodyTooLarge { .. } => 413,
                ClientFault::ConnectMethod => 405,
                ClientFault::HeadTooLarge => 431,
                ClientFault::UnknownTransferCoding => 501,
            },
            Fault::NotAllowed => 403,
            Fault::Unauthorized { .. } => 401,
            Fault::UsersUnknown => 503,
            Fault::Redirect { .. } => 302,
            Fault::ToSlash { .. } => 301,
            Fault::TlsAlone { misdirected: true, .. } => 421,
            Fault::BusyTimedOut { .. }
            | Fault::ParkTimedOut { .. }
            | Fault::TlsAlone { .. }
            | Fault::Unavailable(_) => 503,
            Fault::UnknownHost { status, .. } => *status,
            Fault::UnknownPath { .. } => 404,
            Fault::Upstream(fault) => match fault {
                UpstreamFault::BadResponse
                | UpstreamFault::Certificate(_)
                | UpstreamFault::ConnectFailed
                | UpstreamFault::Died
                | UpstreamFault::NoCommonProtocol
                | UpstreamFault::TlsFailed => 502,
                UpstreamFault::ConnectTimedOut | UpstreamFault::FirstByteTimedOut => 504,
                UpstreamFault::NoLeg | UpstreamFault::NoSocket | UpstreamFault::NoTrust => 503,
            },
        }
    }

    /// Seconds for `Retry-After`, where trying again makes sense.
    pub fn retry_after(&self) -> Option<u32> {
        match self {
            Fault::BusyTimedOut { .. }
            | Fault::ParkTimedOut { .. }
            | Fault::Unavailable(_)
            | Fault::Upstream(UpstreamFault::NoLeg | UpstreamFault::NoSocket)
            | Fault::UsersUnknown => Some(1),
            Fault::Client(_)
            | Fault::NotAllowed
            | Fault::Redirect { .. }
            | Fault::TlsAlone { .. }
            | Fault::ToSlash { .. }
            | Fault::Unauthorized { .. }
            | Fault::UnknownHost { .. }
            | Fault::UnknownPath { .. }
            | Fault::Upstream(_) => None,
        }
    }

    /// Whether the client's connection cannot be trusted any more, because it is unclear what its next bytes are.
    pub fn closes_connection(&self) -> bool {
        matches!(self, Fault::Client(_))
    }

    /// The reason as one word for logs and metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Fault::Client(fault) => match fault {
                ClientFault::AmbiguousLength => "ambiguous_length",
                ClientFault::BadHost => "bad_host",
                ClientFault::BadTarget => "bad_target",
                ClientFault::BodyIncomplete => "body_incomplete",
                ClientFault::BodyTooLarge { .. } => "body_too_large",
                ClientFault::ConnectMethod => "connect_method",
                ClientFault::HeadTooLarge => "head_too_large",
                ClientFault::MissingHost => "missing_host",
                ClientFault::SeveralHosts => "several_hosts",
                ClientFault::UnknownTransferCoding => "unknown_transfer_coding",
            },
            Fault::BusyTimedOut { .. } => "busy_timed_out",
            Fault::NotAllowed => "not_allowed",
            Fault::ParkTimedOut { .. } => "park_timed_out",
            Fault::Redirect { .. } => "redirect",
            Fault::TlsAlone { .. } => "tls_alone",
            Fault::ToSlash { .. } => "to_slash",
            Fault::Unauthorized { .. } => "unauthorized",
            Fault::UsersUnknown => "users_unknown",
            Fault::Unavailable(Unavailable::Busy) => "busy",
            Fault::Unavailable(Unavailable::ParkingFull) => "parking_full",
            Fault::Unavailable(Unavailable::ParkingOff) => "no_endpoint",
            Fault::UnknownHost { .. } => "unknown_host",
            Fault::UnknownPath { .. } => "unknown_path",
            Fault::Upstream(fault) => match fault {
                UpstreamFault::BadResponse => "bad_response",
                UpstreamFault::Certificate(fault) => match fault {
                    CertificateFault::Expired => "certificate_expired",
                    CertificateFault::Invalid => "certificate_invalid",
                    CertificateFault::NotYetValid => "certificate_not_yet_valid",
                    CertificateFault::UnknownAuthority => "certificate_unknown_authority",
                    CertificateFault::WrongName => "certificate_wrong_name",
                },
                UpstreamFault::ConnectFailed => "connect_failed",
                UpstreamFault::ConnectTimedOut => "connect_timed_out",
                UpstreamFault::Died => "upstream_died",
                UpstreamFault::FirstByteTimedOut => "first_byte_timed_out",
                UpstreamFault::NoCommonProtocol => "no_common_protocol",
                UpstreamFault::NoLeg => "no_leg",
                UpstreamFault::NoSocket => "no_socket",
                UpstreamFault::NoTrust => "no_trust",
                UpstreamFault::TlsFailed => "tls_failed",
            },
        }
    }
}

impl fmt::Display for Fault {
    /// One sentence for whoever sent the request, without full stop.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Client(fault) => write!(f, "{fault}"),
            Fault::BusyTimedOut { waited } => write!(
                f,
                "all endpoints of the service had as many requests as they may have for {} ms",
                waited.as_millis()
            ),
            Fault::NotAllowed => f.write_str("this is not served to clients with your address"),
            Fault::Redirect { location } | Fault::ToSlash { location } => write!(f, "this has moved to {location}"),
            Fault::Unauthorized { .. } => f.write_str("this is served to users with a password alone"),
            Fault::UsersUnknown => f.write_str("who may see this cannot be told now"),
            Fault::ParkTimedOut { waited } => write!(
                f,
                "no endpoint of the service became ready within {} ms",
                waited.as_millis()
            ),
            Fault::TlsAlone { host, .. } => write!(f, "{host} is served over HTTPS alone, by the service itself"),
            Fault::Unavailable(Unavailable::Busy) => {
                f.write_str("all endpoints of the service have as many requests as they may have, and no more may wait")
            }
            Fault::Unavailable(Unavailable::ParkingFull) => {
                f.write_str("no endpoint of the service is ready, and too many requests wait for one")
            }
            Fault::Unavailable(Unavailable::ParkingOff) => f.write_str("no endpoint of the service is ready"),
            Fault::UnknownHost { host, .. } if host.is_empty() => {
                f.write_str("no service is the default here, and the request names no host")
            }
            Fault::UnknownHost { host, .. } => write!(f, "no service has the host {host}"),
            Fault::UnknownPath { host, path } => write!(f, "no service of the host {host} has the path {path}"),
            Fault::Upstream(fault) => write!(f, "{fault}"),
        }
    }
}

impl From<ClientFault> for Fault {
    fn from(fault: ClientFault) -> Self {
        Fault::Client(fault)
    }
}

impl From<UpstreamFault> for Fault {
    fn from(fault: UpstreamFault) -> Self {
        Fault::Upstream(fault)
    }
}

#[cfg(test)]
mod tests {
    use alloc::format;

    use super::*;

    #[test]
    fn each_fault_has_its_status_word_and_sentence() {
        let faults = [
            Fault::from(ClientFault::AmbiguousLength),
            ClientFault::BodyTooLarge { max: 5 }.into(),
            ClientFault::ConnectMethod.into(),
            ClientFault::HeadTooLarge.into(),
            ClientFault::UnknownTransferCoding.into(),
            Fault::NotAllowed,
            Fault::Unauthorized { realm: "shop".into() },
            Fault::UsersUnknown,
            Fault::ToSlash { location: "/x/".into() },
            Fault::Redirect {
                location: "https://new.example/x".into(),
            },
            Fault::ParkTimedOut {
                waited: Duration::from_millis(10),
            },
            Fault::BusyTimedOut {
                waited: Duration::from_millis(10),
            },
            Fault::Unavailable(Unavailable::Busy),
            Fault::Unavailable(Unavailable::ParkingFull),
            Fault::Unavailable(Unavailable::ParkingOff),
            Fault::UnknownHost {
                host: "a.example".into(),
                status: 503,
            },
            Fault::UnknownHost {
                host: "".into(),
                status: 404,
            },
            Fault::UnknownPath {
                host: "a.example".into(),
                path: "/x".into(),
            },
            Fault::TlsAlone {
                host: "a.example".into(),
                misdirected: false,
            },
            UpstreamFault::BadResponse.into(),
            UpstreamFault::ConnectFailed.into(),
            UpstreamFault::ConnectTimedOut.into(),
            UpstreamFault::Died.into(),
            UpstreamFault::FirstByteTimedOut.into(),
            UpstreamFault::NoLeg.into(),
            UpstreamFault::NoSocket.into(),
            UpstreamFault::Certificate(CertificateFault::Expired).into(),
            UpstreamFault::Certificate(CertificateFault::Invalid).into(),
            UpstreamFault::Certificate(CertificateFault::NotYetValid).into(),
            UpstreamFault::Certificate(CertificateFault::UnknownAuthority).into(),
            UpstreamFault::Certificate(CertificateFault::WrongName).into(),
            UpstreamFault::NoCommonProtocol.into(),
            UpstreamFault::NoTrust.into(),
            UpstreamFault::TlsFailed.into(),
        ];
        let mut lines = String::new();
        for fault in faults {
            lines += &format!("{} {}: {fault}\n", fault.status(), fault.name());
        }
        insta::assert_snapshot!(lines);
    }
}
