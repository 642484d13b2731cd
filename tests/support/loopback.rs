//! Addresses of 127/8.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU32, Ordering};

/// Returns an address that only the caller listens on, one of 16,000 of this process. All of 127/8
/// is loopback, and connections go out from 127.0.0.1: a port of another address is taken by
/// nobody while its daemon is down.
pub(crate) fn address() -> Ipv4Addr {
    // 127.0.0 is not given away.
    static COUNT: AtomicU32 = AtomicU32::new(0x100);
    let number = COUNT.fetch_add(1, Ordering::Relaxed) % 0x4000;
    Ipv4Addr::from_bits(127 << 24 | (std::process::id() % 0x400) << 14 | number)
}
