//! Connections: accepted up to a limit, each with one request, none for ever.
//!
//! **Invariant:** a client that sends nothing, or reads nothing, costs one slot for a few seconds.

use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::{debug, error};

/// Time for the answers under way when the daemon stops.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);

/// Time to wait after `accept` failed for want of file descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a listener allows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Connections at a time; others wait in the kernel's queue.
    pub(super) connections_max: usize,
    /// Time to send a request's headers.
    pub(super) header: Duration,
    /// Time for a request and its answer; none where answers may take as long as they take.
    pub(super) exchange: Option<Duration>,
}

/// A scraper, a few probes and a few people at a time; a status takes milliseconds.
const TCP: Limits = Limits {
    connections_max: 32,
    header: Duration::from_secs(5),
    exchange: Some(Duration::from_secs(30)),
};

/// Serves a router on TCP until `stop` resolves.
pub async fn http(listener: TcpListener, router: Router, stop: impl Future<Output = ()> + Send) {
    serve(listener, router, TCP, stop).await;
}

/// Where connections come from.
pub(super) trait Listen: Send {
    /// A connection.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// Waits for the next one; `None` for one that is not let in.
    fn accept(&self) -> impl Future<Output = io::Result<Option<Self::Stream>>> + Send;
}

impl Listen for TcpListener {
    type Stream = TcpStream;

    async fn accept(&self) -> io::Result<Option<TcpStream>> {
        let (stream, _) = TcpListener::accept(self).await?;
        Ok(Some(stream))
    }
}

/// Serves a router until `stop` resolves; answers under way get a second more.
pub(super) async fn serve<L: Listen>(
    listener: L,
    router: Router,
    limits: Limits,
    stop: impl Future<Output = ()> + Send,
) {
    let mut stop = pin!(stop);
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = &mut stop => break,
            Some(ended) = connections.join_next() => log_panic(ended),
            accepted = listener.accept(), if connections.len() < limits.connections_max => {
                match accepted {
                    Ok(Some(stream)) => {
                        connections.spawn(exchange(stream, router.clone(), limits));
                    }
                    Ok(None) => {}
                    Err(error) => {
                        debug!("cannot accept a connection: {error}");
                        // The cause is seldom gone at once, and must not cost a processor. Who
                        // stops the daemon does not wait for this.
                        let pause = tokio::time::sleep(ACCEPT_PAUSE);
                        tokio::select! { () = &mut stop => break, () = pause => {} }
                    }
                }
            }
        }
    }
    drop(listener);
    let drained = async {
        while let Some(ended) = connections.join_next().await {
            log_panic(ended);
        }
    };
    if timeout(STOP_TIMEOUT, drained).await.is_err() {
        debug!("stopping with answers under way");
    }
}

/// Takes one request from a connection and answers it.
async fn exchange<S>(stream: S, router: Router, limits: Limits)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header)
        // With one request for each connection, none sits idle in a slot that others wait for.
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), hyper_service(router));
    let ended = match limits.exchange {
        Some(limit) => match timeout(limit, connection).await {
            Ok(ended) => ended,
            Err(_) => return debug!("a client took longer than {limit:?}"),
        },
        None => connection.await,
    };
    if let Err(error) = ended {
        debug!("a client went away: {error}");
    }
}

fn hyper_service(
    router: Router,
) -> impl hyper::service::Service<
    Request<Incoming>,
    Response = Response<Body>,
    Error = Infallible,
    Future: Send,
> {
    TowerToHyperService::new(router)
}

fn log_panic(ended: Result<(), tokio::task::JoinError>) {
    if let Err(panic) = ended {
        error!("a bug in recsync: a request ended with a panic: {panic}");
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::Notify;

    use super::*;

    async fn bind() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    async fn ask(address: SocketAddr) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn idle_clients_cannot_keep_others_out() {
        let (listener, address) = bind().await;
        let limits =
            Limits { connections_max: 2, header: Duration::from_millis(20), exchange: None };
        let router = Router::new().route("/", get(|| async { "well" }));
        let client = async {
            let mut idle = Vec::new();
            for _ in 0..5 {
                idle.push(TcpStream::connect(address).await.unwrap());
            }
            let answer = ask(address).await;
            drop(idle);
            answer
        };
        tokio::select! {
            () = serve(listener, router, limits, std::future::pending()) => unreachable!(),
            answer = client => assert!(answer.ends_with("well"), "{answer}"),
        }
    }

    #[tokio::test]
    async fn a_client_that_never_ends_is_dropped() {
        let (listener, address) = bind().await;
        let limits = Limits { exchange: Some(Duration::from_millis(20)), ..TCP };
        let router = Router::new().route("/", get(std::future::pending::<()>));
        tokio::select! {
            () = serve(listener, router, limits, std::future::pending()) => unreachable!(),
            answer = ask(address) => assert_eq!(answer, ""),
        }
    }

    #[tokio::test]
    async fn who_was_asked_before_the_stop_answers() {
        static ASKED: Notify = Notify::const_new();
        static STOPPING: Notify = Notify::const_new();
        let (listener, address) = bind().await;
        let handler = || async {
            ASKED.notify_one();
            STOPPING.notified().await;
            "done"
        };
        let router = Router::new().route("/", get(handler));
        let stop = async {
            ASKED.notified().await;
            STOPPING.notify_one();
        };
        let ((), answer) = tokio::join!(http(listener, router, stop), ask(address));
        assert!(answer.ends_with("done"), "{answer}");
        assert!(TcpStream::connect(address).await.is_err());
    }
}
