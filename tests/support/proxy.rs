//! A line between two nodes that can be cut, swallow, delay, throttle and spoil what goes over it.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use super::loopback;

/// What the line does.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Line {
    Good,
    /// Connections are reset, new ones too.
    Cut,
    /// Connections stay, and nothing arrives any more: neither way, or only one way.
    Swallows,
    SwallowsAnswers,
    /// Everything comes this much later.
    Delays(Duration),
    /// So many bytes in a second, each way of each connection.
    Throttles(u64),
    /// One bit in so many bytes is another one.
    Spoils(usize),
}

#[derive(Debug)]
struct State {
    line: Line,
    open: Vec<TcpStream>,
    closed: bool,
}

/// A listener whose connections go on to a node.
#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl Proxy {
    pub(crate) fn to(target: SocketAddr) -> Proxy {
        let listener = TcpListener::bind((loopback::address(), 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let state = State { line: Line::Good, open: Vec::new(), closed: false };
        let state = Arc::new(Mutex::new(state));
        let shared = state.clone();
        thread::spawn(move || {
            for near in listener.incoming() {
                if shared.lock().unwrap().closed {
                    return;
                }
                take(near.unwrap(), target, &shared);
            }
        });
        Proxy { address, state }
    }

    pub(crate) fn set(&self, line: Line) {
        let mut state = self.state.lock().unwrap();
        state.line = line;
        if line == Line::Cut {
            for stream in state.open.drain(..) {
                // Some are closed already.
                let _closed = stream.shutdown(Shutdown::Both).is_ok();
            }
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.set(Line::Cut);
        self.state.lock().unwrap().closed = true;
        // Wakes the one who accepts.
        let _woken = TcpStream::connect(self.address).is_ok();
    }
}

fn take(near: TcpStream, target: SocketAddr, state: &Arc<Mutex<State>>) {
    if state.lock().unwrap().line == Line::Cut {
        return;
    }
    let Ok(far) = TcpStream::connect(target) else { return };
    state.lock().unwrap().open.extend([near.try_clone().unwrap(), far.try_clone().unwrap()]);
    for (from, to, is_answer) in
        [(near.try_clone().unwrap(), far.try_clone().unwrap(), false), (far, near, true)]
    {
        let state = state.clone();
        thread::spawn(move || {
            carry(&from, &to, is_answer, &state);
            for stream in [from, to] {
                let _closed = stream.shutdown(Shutdown::Both).is_ok();
            }
        });
    }
}

/// Carries bytes one way, until either end closes.
fn carry(mut from: &TcpStream, mut to: &TcpStream, is_answer: bool, state: &Mutex<State>) {
    let mut buffer = [0; 16_384];
    let mut carried = 0;
    loop {
        let count = match from.read(&mut buffer) {
            Ok(0) => return,
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(_) => return,
        };
        let bytes = &mut buffer[..count];
        let line = state.lock().unwrap().line;
        match line {
            Line::Good => {}
            Line::Cut => return,
            Line::Swallows => continue,
            Line::SwallowsAnswers if is_answer => continue,
            Line::SwallowsAnswers => {}
            Line::Delays(time) => thread::sleep(time),
            Line::Throttles(bytes_per_s) => {
                wait_while(state, line, Duration::from_secs(1) * count as u32 / bytes_per_s as u32);
            }
            Line::Spoils(every) => {
                let first = every - carried % every;
                for at in (first..count).step_by(every) {
                    bytes[at] ^= 0x10;
                }
            }
        }
        carried += count;
        if to.write_all(bytes).is_err() {
            return;
        }
    }
}

/// Waits, but not longer than the line is as it was.
fn wait_while(state: &Mutex<State>, line: Line, time: Duration) {
    let begun = Instant::now();
    while begun.elapsed() < time && state.lock().unwrap().line == line {
        thread::sleep(Duration::from_millis(2));
    }
}
