//! Paths, methods and status codes: what is asked over HTTP, handed to the [`Service`].

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use recsync_proto::{NodeName, ShareName, SharePath};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::api::{
    ConflictRequest, ConflictsRequest, DecideRequest, ErrorBody, PurgeRequest, RescanRequest,
    ResolveRequest, RestoreRequest, TrashRequest, VerifyRequest, WaitRequest,
};
use super::{
    CommandError, ConflictQuery, Decision, Purge, Resolve, Restore, Scope, Service, TrashQuery,
    Verify, Wait, Whereabouts,
};
use crate::telemetry::Format;

/// Bodies of requests are a few names; more is a mistake or an attack.
const BODY_LEN_MAX: usize = 64 * 1024;
/// Things in the trash, and conflict copies, in one answer.
const PAGE: usize = 1_000;

type Daemon = State<Arc<dyn Service>>;

/// Returns the router that serves a daemon to those of a scope.
pub fn router(service: Arc<dyn Service>, scope: Scope) -> Router {
    let mut router = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(health))
        .route("/readyz", get(ready));
    if scope.has_api() {
        let mut api = Router::new().route("/api/v1/status", get(status));
        if scope == Scope::Loopback {
            api = api.layer(middleware::from_fn(refuse_foreign_names));
        }
        router = router.merge(api);
    }
    if scope.has_commands() {
        router = router
            .route("/api/v1/rescan", post(rescan))
            .route("/api/v1/confirm", post(decide))
            .route("/api/v1/verify", post(verify))
            .route("/api/v1/wait", post(wait))
            .route("/api/v1/reload", post(reload))
            .route("/api/v1/conflicts/list", post(conflicts))
            .route("/api/v1/conflicts/show", post(conflict))
            .route("/api/v1/conflicts/resolve", post(resolve))
            .route("/api/v1/trash/list", post(trash))
            .route("/api/v1/trash/restore", post(restore))
            .route("/api/v1/trash/purge", post(purge));
    }
    router
        .fallback(not_here)
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(BODY_LEN_MAX))
        .with_state(service)
}

async fn metrics(State(daemon): Daemon, headers: HeaderMap) -> Response {
    let accept = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let format = Format::accepted(&accept.collect::<Vec<_>>().join(","));
    let text = daemon.metrics_text(format).await;
    ([(header::CONTENT_TYPE, format.content_type())], text).into_response()
}

async fn health(State(daemon): Daemon) -> Response {
    let health = daemon.health();
    (ok_or_unavailable(health.healthy), Json(health)).into_response()
}

async fn ready(State(daemon): Daemon) -> Response {
    let ready = daemon.ready();
    (ok_or_unavailable(ready.ready), Json(ready)).into_response()
}

async fn status(State(daemon): Daemon) -> Response {
    Json(daemon.status().await).into_response()
}

async fn rescan(State(daemon): Daemon, body: Bytes) -> Result<Response, CommandError> {
    // Without a body: all shares, for `curl -X POST`.
    let request = if body.is_empty() { RescanRequest::default() } else { parse(&body)? };
    answer(daemon.rescan(share(request.share)?).await)
}

async fn decide(State(daemon): Daemon, body: Bytes) -> Result<Response, CommandError> {
    let request: DecideRequest = parse(&body)?;
    let decision = if request.reject { Decision::Reject } else { Decision::Confirm };
    answer(daemon.decide(request.id, decision).await)
}

async fn verify(State(daemon): Daemon, body: Bytes) -> Result<Response, CommandError> {
    let request: VerifyRequest = parse(&body)?;
    let verify = Verify {
        share: share(request.share)?,
        peer: peer(request.peer)?,
        timeout: Duration::from_millis(request.timeout_ms),
    };
    answer(daemon.verify(verify).await)
}

async fn wait(State(daemon): Daemon, body: Bytes) -> Result<Response, CommandError> {
    let WaitRequest { path, peer: name, all_peers, timeout_ms } = parse(&body)?;
    let at = match (peer(name)?, all_peers) {
        (None, false) => Whereabouts::Any,
        (None, true) => Whereabouts::All,
        (Some(peer), false) => Whereabouts::Peer(peer),
        (Some(_), true) => {
            return Err(CommandError::Invalid("say one peer or all, not both".to_owned()));
        }
    };
    answer(daemon.wait(Wait { path, at, timeout: Duration::from_millis(timeout_ms) }).await)
}

async fn reload(State(daemon): Daemon) -> Result<Response, CommandError> {
    answer(daemon.reload().await)
}

async fn trash(State(daemon): Daemon, body: Bytes) -> Result<Response, CommandError> {
    let request = if body.is_empty() { TrashRequest::default() } else { parse(&body)? };
    let TrashRequest { share: name, path, after } = request;
    let query = TrashQuery { share: share(name)?, path, after, limit: PAGE };
    answer(daemon.trash(query).await)
}

async fn restore(State(daemon): Daemon, body: Bytes) -> Result<Response, CommandError> {
    let RestoreRequest { share: name, path, at, to } = parse(&body)?;
    let restore = Restore { share: share(name)?, path, at: id(at)?, to };
    answer(daemon.restore(restore).await)
}

async fn purge(State(daemon): Daemon, body: Bytes) -> Result<Response, CommandError> {
    let PurgeRequest { share: name, path, at, older_than_seconds, all } = parse(&body)?;
    if path.is_none() && older_than_seconds.is_none() && !all {
        return Err(CommandError::Invalid("say what to purge: a path, an age, or all".to_owned()));
    }
    let older_than = older_than_seconds.map(Duration::from_secs);
    answer(daemon.purge(Purge { share: share(name)?, path, at: id(at)?, older_than }).await)
}

async fn conflicts(State(daemon): Daemon, body: Bytes) -> Result<Response, CommandError> {
    let request = if body.is_empty() { ConflictsRequest::default() } else { parse(&body)? };
    let ConflictsRequest { share: name, path, after } = request;
    let after = after.map(|after| place(&after)).transpose()?;
    let query = ConflictQuery { share: share(name)?, path, after, limit: PAGE };
    answer(daemon.conflicts(query).await)
}

async fn conflict(State(daemon): Daemon, body: Bytes) -> Result<Response, CommandError> {
    let ConflictRequest { path } = parse(&body)?;
    answer(daemon.conflict(path).await)
}

async fn resolve(State(daemon): Daemon, body: Bytes) -> Result<Response, CommandError> {
    let ResolveRequest { share: name, path, keep } = parse(&body)?;
    answer(daemon.resolve(Resolve { share: share(name)?, path, keep }).await)
}

async fn not_here() -> Response {
    let error =
        "there is nothing here: the path is wrong, or it is served on the control socket only";
    (StatusCode::NOT_FOUND, error_body(error)).into_response()
}

async fn wrong_method() -> Response {
    let error = "wrong method: what tells is asked with GET, what does something with POST";
    (StatusCode::METHOD_NOT_ALLOWED, error_body(error)).into_response()
}

/// Refuses requests for a host name other than `localhost`: a page in a browser on this machine
/// can point a name of its own at 127.0.0.1 and would read the answer (DNS rebinding).
async fn refuse_foreign_names(request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    if host.is_none_or(is_local_name) {
        return next.run(request).await;
    }
    let error = "only `localhost` and plain addresses are served here";
    (StatusCode::FORBIDDEN, error_body(error)).into_response()
}

fn is_local_name(host: &str) -> bool {
    let Ok(authority) = host.parse::<axum::http::uri::Authority>() else {
        return false;
    };
    let name = authority.host();
    let address = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok()
}

fn ok_or_unavailable(ok: bool) -> StatusCode {
    if ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

fn answer<T: Serialize>(result: Result<T, CommandError>) -> Result<Response, CommandError> {
    result.map(|answer| Json(answer).into_response())
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, CommandError> {
    serde_json::from_slice(body)
        .map_err(|error| CommandError::Invalid(format!("the request is not understood: {error}")))
}

fn share(name: Option<String>) -> Result<Option<ShareName>, CommandError> {
    let name = name.map(ShareName::new).transpose();
    name.map_err(|error| CommandError::Invalid(format!("no share can be called so: {error}")))
}

/// Parses where an answer ended, `SHARE:PATH` with the path in hex.
fn place(text: &str) -> Result<(ShareName, SharePath), CommandError> {
    let parse = || {
        let (share, path) = text.split_once(':')?;
        let digits = path
            .as_bytes()
            .chunks(2)
            .map(|pair| u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok());
        let bytes = digits.collect::<Option<Vec<u8>>>()?;
        let path = match bytes.as_slice() {
            [] => SharePath::root(),
            bytes => SharePath::new(bytes).ok()?,
        };
        Some((ShareName::new(share).ok()?, path))
    };
    parse().ok_or_else(|| CommandError::Invalid(format!("`{text}` is where no answer ended")))
}

fn id(text: Option<String>) -> Result<Option<u64>, CommandError> {
    let parse = |text: &String| u64::from_str_radix(text, 16);
    text.as_ref().map(parse).transpose().map_err(|_| {
        let text = text.unwrap_or_default();
        CommandError::Invalid(format!("`{text}` is no id; `recsync trash list` shows them"))
    })
}

fn peer(name: Option<String>) -> Result<Option<NodeName>, CommandError> {
    let name = name.map(NodeName::new).transpose();
    name.map_err(|error| CommandError::Invalid(format!("no peer can be called so: {error}")))
}

fn error_body(error: impl Into<String>) -> Json<ErrorBody> {
    Json(ErrorBody { error: error.into() })
}

impl IntoResponse for CommandError {
    fn into_response(self) -> Response {
        let code = match self {
            CommandError::Invalid(_) => StatusCode::BAD_REQUEST,
            CommandError::Unknown(_) => StatusCode::NOT_FOUND,
            CommandError::Refused(_) => StatusCode::CONFLICT,
            CommandError::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        (code, error_body(self.to_string())).into_response()
    }
}
