//! The daemon's door to people, scripts and monitoring: HTTP on the control socket and, if
//! configured, on TCP. One router serves both; what it may serve where is its [`Scope`].
//!
//! **Invariant:** commands are taken on the control socket only; beyond loopback no path is shown
//! unless the config says so.
//! **May not:** know how anything is done: that is behind [`Service`].
#![forbid(unsafe_code)]

pub mod api;
pub mod client;
mod control;
mod listen;
mod routes;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use recsync_proto::{NodeName, ShareName, SharePath};
use thiserror::Error;

use crate::telemetry::Format;
use api::{
    ConflictPage, ConflictView, Decided, Health, Keep, Purged, Ready, Reloaded, Rescan, Resolved,
    Restored, Status, TrashCursor, TrashPage, VerifyReport, Waited,
};

pub use api::Named;

pub use client::{Client, ClientError};
pub use control::{ControlError, ControlSocket};
pub use listen::http;
pub use routes::router;

/// An answer that takes its time. Dropped if the one who asked hangs up.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What the daemon can be asked.
pub trait Service: Send + Sync + 'static {
    /// Tells how everything is.
    fn status(&self) -> Answer<'_, Status>;
    /// Tells whether the daemon does its job. Must not wait for anything: probes give up after 900 ms.
    fn health(&self) -> Health;
    /// Tells whether every share is scanned and watched. Must not wait for anything.
    fn ready(&self) -> Ready;
    /// Returns the metrics as they are now.
    fn metrics_text(&self, format: Format) -> Answer<'_, String>;
    /// Starts a full scan of a share, or of all.
    fn rescan(&self, share: Option<ShareName>) -> Answer<'_, Result<Rescan, CommandError>>;
    /// Lets go or undoes what waits under an id, [`api::Held::id`].
    fn decide(&self, id: String, decision: Decision) -> Answer<'_, Result<Decided, CommandError>>;
    /// Compares trees; returns when that is done.
    fn verify(&self, verify: Verify) -> Answer<'_, Result<VerifyReport, CommandError>>;
    /// Waits until a file, as it is now, is durable on peers, or the time is over.
    fn wait(&self, wait: Wait) -> Answer<'_, Result<Waited, CommandError>>;
    /// Reads the config again.
    fn reload(&self) -> Answer<'_, Result<Reloaded, CommandError>>;
    /// Lists a part of the trash.
    fn trash(&self, query: TrashQuery) -> Answer<'_, Result<TrashPage, CommandError>>;
    /// Puts something from the trash back.
    fn restore(&self, restore: Restore) -> Answer<'_, Result<Restored, CommandError>>;
    /// Lists a part of the conflict copies.
    fn conflicts(&self, query: ConflictQuery) -> Answer<'_, Result<ConflictPage, CommandError>>;
    /// Shows the versions of a path that has conflict copies.
    fn conflict(&self, path: Named) -> Answer<'_, Result<ConflictView, CommandError>>;
    /// Resolves conflicts.
    fn resolve(&self, resolve: Resolve) -> Answer<'_, Result<Resolved, CommandError>>;
    /// Removes something from the trash for good.
    fn purge(&self, purge: Purge) -> Answer<'_, Result<Purged, CommandError>>;
}

/// What becomes of something that a guard holds back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// It may go.
    Confirm,
    /// It is undone.
    Reject,
}

/// What to verify.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verify {
    /// One share; none for all.
    pub share: Option<ShareName>,
    /// Against one peer; none for all.
    pub peer: Option<NodeName>,
    /// How long to wait for what is in flight.
    pub timeout: Duration,
}

/// What to wait for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wait {
    /// The file.
    pub path: Named,
    /// Where it is to be durable.
    pub at: Whereabouts,
    /// For how long.
    pub timeout: Duration,
}

/// On which peers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whereabouts {
    /// On one at least, whichever.
    Any,
    /// On this one.
    Peer(NodeName),
    /// On all of them.
    All,
}

/// What to list of the trash, the newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrashQuery {
    /// One share; none for all.
    pub share: Option<ShareName>,
    /// What was this, or lay below it; none for all.
    pub path: Option<Named>,
    /// Where the answer before ended.
    pub after: Option<TrashCursor>,
    /// About how many at most.
    pub limit: usize,
}

/// What to put back from the trash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restore {
    /// Its share, if the path does not say.
    pub share: Option<ShareName>,
    /// The file or directory that it was.
    pub path: Named,
    /// Which one of several; none for the one displaced last.
    pub at: Option<u64>,
    /// Another name for it.
    pub to: Option<Named>,
}

/// What to remove from the trash for good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Purge {
    /// One share; none for all.
    pub share: Option<ShareName>,
    /// What was this, or lay below it; none for all.
    pub path: Option<Named>,
    /// Which one of several; none for all.
    pub at: Option<u64>,
    /// What has been there for so long; none for all.
    pub older_than: Option<Duration>,
}

/// Which conflict copies to list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConflictQuery {
    /// One share; none for all.
    pub share: Option<ShareName>,
    /// A file, a copy, or a directory; none for all.
    pub path: Option<Named>,
    /// Where the answer before ended.
    pub after: Option<(ShareName, SharePath)>,
    /// How many to look at.
    pub limit: usize,
}

/// Which conflicts to resolve, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolve {
    /// The share, if the path does not say.
    pub share: Option<ShareName>,
    /// One copy; or a file, for all of its copies; or a directory, for all below it.
    pub path: Named,
    /// What is kept.
    pub keep: Keep,
}

/// Why a command was not carried out; the text says what, why, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CommandError {
    /// What was asked for makes no sense (HTTP 400).
    #[error("{0}")]
    Invalid(String),
    /// No such share, peer or id (HTTP 404).
    #[error("{0}")]
    Unknown(String),
    /// Not now (HTTP 409): it is done already, or something stands in the way.
    #[error("{0}")]
    Refused(String),
    /// It was tried and did not work (HTTP 500).
    #[error("{0}")]
    Failed(String),
}

/// Who is served, and so what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// The control socket: everything.
    Control,
    /// TCP on loopback: everything that only tells.
    Loopback,
    /// TCP beyond: what shows no path.
    Network,
    /// TCP beyond, with `[http] api = true`: everything that only tells.
    NetworkWithApi,
}

impl Scope {
    /// Returns the scope of a TCP listener; `api` as configured.
    pub fn of_listener(address: SocketAddr, api: bool) -> Self {
        match (address.ip().to_canonical().is_loopback(), api) {
            (true, _) => Scope::Loopback,
            (false, false) => Scope::Network,
            (false, true) => Scope::NetworkWithApi,
        }
    }

    fn has_api(self) -> bool {
        self != Scope::Network
    }

    fn has_commands(self) -> bool {
        self == Scope::Control
    }
}
