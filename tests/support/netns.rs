//! Two nodes with a cable between them that can be pulled: one of them is in a network namespace.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};

use super::{Node, Pair};

/// A network namespace of our own, and a cable to it; gone when dropped.
#[derive(Debug)]
pub(crate) struct Netns {
    name: String,
    cable: String,
    addresses: [Ipv4Addr; 2],
}

impl Netns {
    /// None, and a line that says so, where that is not allowed.
    pub(crate) fn new(test: &str) -> Option<Netns> {
        static COUNT: AtomicU8 = AtomicU8::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let id = std::process::id();
        let net = |host| Ipv4Addr::new(10, 200 + count, (id % 250) as u8, host);
        let netns = Netns {
            name: format!("recsync-{id}-{count}"),
            cable: format!("rs{id}-{count}"),
            addresses: [net(1), net(2)],
        };
        let (name, cable) = (&netns.name, &netns.cable);
        let [here, there] = netns.addresses.map(|address| format!("{address}/30"));
        let steps = [
            format!("netns add {name}"),
            format!("link add {cable} type veth peer name eth0 netns {name}"),
            format!("addr add {here} dev {cable}"),
            format!("link set {cable} up"),
            format!("-n {name} addr add {there} dev eth0"),
            format!("-n {name} link set eth0 up"),
            format!("-n {name} link set lo up"),
        ];
        for step in steps {
            let done = run("ip", &step);
            if !done.as_ref().is_ok_and(|done| done.status.success()) {
                eprintln!("SKIPPED {test}: no network namespaces (root, iproute2): {done:?}");
                return None;
            }
        }
        Some(netns)
    }

    /// Returns two nodes, one at each end of the cable.
    pub(crate) fn pair(&self) -> Pair {
        let dir = tempfile::tempdir().unwrap();
        let [here, there] = self
            .addresses
            .map(|address| [8730, 9873].map(|port| SocketAddr::new(IpAddr::V4(address), port)));
        let a = Node::new(dir.path(), "fs1");
        // By its own address in this namespace for HTTP, by the cable for the peer.
        let a_listen = SocketAddr::new(here[0].ip(), a.listen.port());
        a.set_listen(a_listen);
        let mut b = Node::listening(dir.path(), "fs2", there);
        b.allow_api();
        b.set_wrapper(&["ip", "netns", "exec", &self.name]);
        a.pair_with(&b);
        b.pair_with_at(&a, a_listen);
        Pair { a, b, dir }
    }

    pub(crate) fn pull(&self) {
        self.ip(&format!("-n {} link set eth0 down", self.name));
    }

    pub(crate) fn plug(&self) {
        self.ip(&format!("-n {} link set eth0 up", self.name));
    }

    /// Has the cable do to packets what `tc netem` can; false, and a line that says so, where the
    /// kernel lacks it.
    pub(crate) fn disturb(&self, test: &str, how: &str) -> bool {
        let done = run("tc", &format!("qdisc replace dev {} root netem {how}", self.cable));
        let is_done = done.as_ref().is_ok_and(|done| done.status.success());
        if !is_done {
            eprintln!("SKIPPED {test}, the part with netem: {done:?}");
        }
        is_done
    }

    fn ip(&self, args: &str) {
        let done = run("ip", args).unwrap();
        assert!(done.status.success(), "ip {args}: {done:?}");
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        // The cable goes with it. Some of it may never have been made.
        let _gone = run("ip", &format!("link del {}", self.cable)).is_ok();
        let _gone = run("ip", &format!("netns del {}", self.name)).is_ok();
    }
}

fn run(program: &str, args: &str) -> std::io::Result<Output> {
    Command::new(program).args(args.split(' ')).stdin(Stdio::null()).output()
}
