//! Why a flow was refused, or how it ended.

use barecount_model::untrusted::Label;
use serde::{Deserialize, Serialize};

/// Why a flow was refused, or how it ended if not by itself.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reason {
    /// For programs.
    pub code: ReasonCode,
    /// For people: a fragment in lower case, mostly with words of the work or of a server.
    pub text: Label,
}

impl Reason {
    pub(crate) fn new(code: ReasonCode, text: impl Into<String>) -> Self {
        Self {
            code,
            text: text.into().into(),
        }
    }
}

/// Every reason, as evidence spells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReasonCode {
    /// No destination has this name.
    NameNotDeclared,
    /// The host is declared, but with other ports.
    PortNotDeclared,
    /// No destination has this address.
    AddressNotDeclared,
    /// Nothing but TCP and lookups gets anywhere.
    ProtocolRefused,
    /// The kernel did not tell where the connection was meant to go.
    DestinationUnknown,
    /// What was sent is not TLS.
    NotTls,
    /// The ClientHello names no server.
    ServerNameMissing,
    /// The ClientHello names another server than the one declared.
    ServerNameMismatch,
    /// The ClientHello hides the server's name, or has noise where it could: as browsers send.
    ServerNameEncrypted,
    /// What was sent is not HTTP/1.1 in the clear, or is not clear about where a request ends.
    NotHttp,
    /// A request names no host.
    HostMissing,
    /// A request names another host than the one declared.
    HostMismatch,
    /// `CONNECT` and `Upgrade` would make the connection carry what is not looked at.
    MethodRefused,
    /// The ClientHello or request head is longer than is looked at.
    HeadTooLarge,
    /// The ClientHello or request head did not come in time, or not whole.
    HeadMissing,
    /// The attempt has as many connections open as it may.
    TooManyFlows,
    /// The attempt makes connections faster than it may.
    FlowsTooFast,
    /// The attempt looks up names faster than it may.
    LookupsTooFast,
    /// A lookup that is not well formed, or for what this name server does not do.
    LookupRefused,
    /// The name leads to no public address.
    AddressNotPublic,
    /// The name or address leads outside the declared ranges.
    AddressOutsideRanges,
    /// No endpoint is declared for the name.
    NoEndpoint,
    /// The service's name resolves, and not to its endpoint.
    EndpointMismatch,
    /// The name is not on the path's allow list.
    NameNotAllowed,
    /// The name is not one of the facility's.
    NameOutsideFacility,
    /// The tunnel or interface is down.
    PathDown,
    /// The approved proxy refused.
    ProxyRefused,
    /// The name could not be resolved.
    NotResolved,
    /// Nothing took the connection.
    ConnectFailed,
    /// Resolving and connecting took too long.
    DialTimeout,
    /// Nothing was carried for too long.
    IdleTimeout,
    /// One side reset the connection.
    Reset,
    /// The attempt ended first.
    AttemptEnded,
}
