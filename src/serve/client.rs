//! Asks a daemon over its control socket; blocking, for the commands.

use std::error::Error as _;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;
use tokio::net::UnixStream;

use super::api::{ErrorBody, Health};

/// Time for an answer, where no other is set.
pub const TIMEOUT: Duration = Duration::from_secs(30);

/// An answer may be a list of differences in a tree of millions, but is not without end.
const ANSWER_LEN_MAX: usize = 256 << 20;

/// Why there is no answer, and what to do.
#[derive(Debug, Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error(
        "no recsync daemon answers at {}: is it running? start it with `systemctl start recsync`",
        .0.display()
    )]
    NoDaemon(PathBuf),
    /// The socket is not for this user.
    #[error(
        "no permission to ask the recsync daemon at {}: be root, or a member of the socket's group",
        .0.display()
    )]
    Denied(PathBuf),
    /// It did not answer in time.
    #[error("the recsync daemon at {} did not answer within {}", path.display(), humantime::format_duration(*after))]
    Timeout {
        /// The socket.
        path: PathBuf,
        /// The time.
        after: Duration,
    },
    /// It answered that it will not or cannot.
    #[error("{message}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// Its words.
        message: String,
    },
    /// It ended the connection before there was an answer.
    #[error(
        "the recsync daemon at {} hung up without an answer: it is stopping, or does not let this user in; \
         see its log, `journalctl -u recsync`",
        .0.display()
    )]
    HungUp(PathBuf),
    /// What answers does not speak as this version expects.
    #[error("what answers at {} is not understood: {why}; is the daemon of another version?", path.display())]
    Unintelligible {
        /// The socket.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
}

/// A daemon's control socket, seen from a command.
#[derive(Debug, Clone)]
pub struct Client {
    path: PathBuf,
    timeout: Duration,
}

impl Client {
    /// Makes a client; nothing is asked yet.
    pub fn new(control: &Path) -> Self {
        Client { path: control.to_owned(), timeout: TIMEOUT }
    }

    /// Sets the time for a whole answer, connecting included.
    pub fn with_timeout(self, timeout: Duration) -> Self {
        Client { timeout, ..self }
    }

    /// Asks for something (GET).
    ///
    /// # Errors
    /// If there is no daemon, no permission, no answer in time, or a refusal.
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.parse(self.ask(Method::GET, path, Bytes::new())?)
    }

    /// Asks to do something (POST).
    ///
    /// # Errors
    /// As [`Client::get`].
    pub fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        request: &impl Serialize,
    ) -> Result<T, ClientError> {
        let body =
            serde_json::to_vec(request).expect("requests are structs of strings and numbers");
        self.parse(self.ask(Method::POST, path, body.into())?)
    }

    /// Asks how the daemon is; that it is unwell (503) is an answer too.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub fn health(&self) -> Result<Health, ClientError> {
        let (status, body) = self.ask(Method::GET, "/healthz", Bytes::new())?;
        let told = status == StatusCode::SERVICE_UNAVAILABLE;
        self.parse((if told { StatusCode::OK } else { status }, body))
    }

    fn parse<T: DeserializeOwned>(
        &self,
        (status, body): (StatusCode, Bytes),
    ) -> Result<T, ClientError> {
        if !status.is_success() {
            let message = match serde_json::from_slice::<ErrorBody>(&body) {
                Ok(body) => body.error,
                Err(_) => format!("the daemon answered: {status}"),
            };
            return Err(ClientError::Refused { status: status.as_u16(), message });
        }
        serde_json::from_slice(&body).map_err(|error| self.unintelligible(error))
    }

    fn ask(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<(StatusCode, Bytes), ClientError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| self.unintelligible(error))?;
        runtime.block_on(async {
            tokio::time::timeout(self.timeout, self.exchange(method, path, body))
                .await
                .unwrap_or_else(|_| Err(self.late()))
        })
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<(StatusCode, Bytes), ClientError> {
        let stream = UnixStream::connect(&self.path).await.map_err(|why| self.no_way(&why))?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|why| self.broken(&why))?;
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "localhost")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .expect("method, path and headers are part of the program");
        let answer = async move {
            let answer = sender.send_request(request).await.map_err(|why| self.broken(&why))?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), ANSWER_LEN_MAX).collect().await;
            let body = body.map_err(|why| {
                if why.is::<LengthLimitError>() {
                    self.unintelligible(format!("the answer is longer than {ANSWER_LEN_MAX} bytes"))
                } else {
                    self.unintelligible(why)
                }
            })?;
            Ok((status, body.to_bytes()))
        };
        // The connection moves the bytes of both directions; how it ends is told by the answer.
        let (answer, _) = tokio::join!(answer, connection);
        answer
    }

    /// The socket cannot be reached.
    fn no_way(&self, why: &io::Error) -> ClientError {
        let path = self.path.clone();
        match why.kind() {
            io::ErrorKind::NotFound
            | io::ErrorKind::NotADirectory
            | io::ErrorKind::ConnectionRefused => ClientError::NoDaemon(path),
            io::ErrorKind::PermissionDenied => ClientError::Denied(path),
            // The queue of those who wait to be let in is full.
            io::ErrorKind::WouldBlock => self.late(),
            _ => self.unintelligible(why),
        }
    }

    /// The connection broke before there was an answer.
    fn broken(&self, why: &hyper::Error) -> ClientError {
        let io = || why.source().and_then(|why| why.downcast_ref::<io::Error>());
        let reset = || io().is_some_and(|why| why.kind() == io::ErrorKind::ConnectionReset);
        if why.is_incomplete_message() || why.is_canceled() || why.is_closed() || reset() {
            return ClientError::HungUp(self.path.clone());
        }
        self.unintelligible(why)
    }

    fn late(&self) -> ClientError {
        ClientError::Timeout { path: self.path.clone(), after: self.timeout }
    }

    fn unintelligible(&self, why: impl ToString) -> ClientError {
        ClientError::Unintelligible { path: self.path.clone(), why: why.to_string() }
    }
}
