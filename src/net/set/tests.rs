//! Two nodes, a network that delivers in any order, and every fault that the rule speaks of.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

const A: usize = 0;
const B: usize = 1;

/// What is under way from one node to the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Wire {
    /// Both lanes of a dial are connected.
    Connected { set: u64 },
    /// One lane's hello.
    Hello { set: u64, bulk: bool, instance: u64 },
    /// Both lanes' answers.
    Answer { set: u64, instance: u64 },
    /// Instead of an answer.
    Duplicate { set: u64 },
    /// The connections of a set were closed by the sender.
    Closed { set: u64 },
}

/// One fault or one step of the network.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// A node dials, if it may.
    Dial(usize),
    /// Something under way arrives.
    Deliver(usize),
    /// A node finds its set dead; the other side hears of it later.
    GiveUp(usize),
    /// As `GiveUp`, and the other side never hears of it.
    Vanish(usize),
    /// A node starts anew, its connections are not reset.
    Restart(usize),
    /// A half set's deadline passes.
    Expire(usize),
}

struct Node {
    sets: Sets,
    instance: u64,
    asking: Option<u64>,
}

struct World {
    nodes: [Node; 2],
    under_way: Vec<(usize, Wire)>,
    /// Sets whose dialler or taker has closed them.
    closed: BTreeSet<u64>,
    /// Every set that was ever in use at a node.
    used: BTreeSet<u64>,
    numbers: u64,
    reaches: [bool; 2],
}

impl World {
    fn new(reaches: [bool; 2]) -> Self {
        let node = |instance| Node { sets: Sets::new(), instance, asking: None };
        World {
            nodes: [node(1), node(2)],
            under_way: Vec::new(),
            closed: BTreeSet::new(),
            used: BTreeSet::new(),
            numbers: 100,
            reaches,
        }
    }

    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    fn send(&mut self, to: usize, wire: Wire) {
        self.under_way.push((to, wire));
    }

    fn close(&mut self, by: usize, set: u64) {
        self.closed.insert(set);
        self.send(1 - by, Wire::Closed { set });
    }

    fn run(&mut self, step: Step) {
        match step {
            Step::Dial(me) => self.dial(me),
            Step::Deliver(at) if !self.under_way.is_empty() => {
                let (to, wire) = self.under_way.remove(at % self.under_way.len());
                self.deliver(to, wire);
            }
            Step::Deliver(_) => {}
            Step::GiveUp(me) => {
                if let Some(used) = self.nodes[me].sets.in_use() {
                    self.nodes[me].sets.ended();
                    self.close(me, used.set);
                }
            }
            Step::Vanish(me) => {
                if let Some(used) = self.nodes[me].sets.in_use() {
                    self.nodes[me].sets.ended();
                    self.closed.insert(used.set);
                }
            }
            Step::Restart(me) => {
                let instance = self.number();
                self.closed.extend(self.nodes[me].sets.in_use().map(|used| used.set));
                self.closed.extend(self.nodes[me].asking);
                self.nodes[me] = Node { sets: Sets::new(), instance, asking: None };
                // What was sent to the old process reaches nobody.
                self.under_way.retain(|(to, _)| *to != me);
            }
            Step::Expire(me) => self.nodes[me].sets.half_dropped(),
        }
    }

    fn dial(&mut self, me: usize) {
        if !self.reaches[me] || !self.nodes[me].sets.may_dial() {
            return;
        }
        let set = self.number();
        self.nodes[me].sets.dialling();
        self.nodes[me].asking = Some(set);
        self.send(me, Wire::Connected { set });
    }

    fn deliver(&mut self, to: usize, wire: Wire) {
        let peer = 1 - to;
        let before = self.nodes[to].sets.in_use();
        match wire {
            Wire::Connected { set } => {
                if self.nodes[to].asking != Some(set) {
                    return;
                }
                if self.nodes[to].sets.may_ask(set) {
                    let instance = self.nodes[to].instance;
                    self.send(peer, Wire::Hello { set, bulk: false, instance });
                    self.send(peer, Wire::Hello { set, bulk: true, instance });
                } else {
                    self.nodes[to].asking = None;
                }
            }
            Wire::Hello { set, bulk, instance } => {
                if self.closed.contains(&set) {
                    return;
                }
                let lane = if bulk { Lane::Bulk } else { Lane::Live };
                let node = &mut self.nodes[to];
                match node.sets.offered(Offer { set, lane, instance }, to == A) {
                    Verdict::Duplicate => self.send(peer, Wire::Duplicate { set }),
                    Verdict::Half => {}
                    Verdict::Repeated => panic!("no lane was sent twice"),
                    Verdict::Taken => {
                        let instance = node.instance;
                        let given_up = node.asking.take();
                        self.send(peer, Wire::Answer { set, instance });
                        if let Some(own) = given_up {
                            self.close(to, own);
                        }
                    }
                }
            }
            Wire::Answer { set, instance } => {
                let node = &mut self.nodes[to];
                if node.asking == Some(set) && !self.closed.contains(&set) {
                    node.asking = None;
                    node.sets.answered(instance);
                }
            }
            Wire::Duplicate { set } | Wire::Closed { set } => {
                let node = &mut self.nodes[to];
                if node.asking == Some(set) {
                    node.asking = None;
                    node.sets.dial_failed();
                    self.close(to, set);
                } else if node.sets.in_use().is_some_and(|used| used.set == set) {
                    node.sets.ended();
                }
            }
        }
        self.used.extend(self.nodes[to].sets.in_use().map(|used| used.set));
        // What was in use and is not any more has been closed.
        if let Some(old) = before
            && self.nodes[to].sets.in_use() != Some(old)
        {
            self.close(to, old.set);
        }
    }

    /// Lets the network work without faults until both use the same set; returns the dials it took.
    fn heal(&mut self) -> u32 {
        for dials in 0..20 {
            while !self.under_way.is_empty() {
                self.run(Step::Deliver(0));
            }
            let used = [A, B].map(|node| self.nodes[node].sets.in_use().map(|used| used.set));
            if used[A].is_some() && used[A] == used[B] {
                return dials;
            }
            for node in [A, B] {
                // In time, a half is dropped, and a set or a dial that the other side does not know is found dead.
                self.nodes[node].sets.half_dropped();
                if let Some(set) = used[node]
                    && self.closed.contains(&set)
                {
                    self.nodes[node].sets.ended();
                }
                if self.nodes[node].asking.take().is_some() {
                    self.nodes[node].sets.dial_failed();
                }
            }
            self.run(Step::Dial(A));
            self.run(Step::Dial(B));
        }
        panic!("no common set: {:?}", [A, B].map(|node| self.nodes[node].sets));
    }
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..2usize).prop_map(Step::Dial),
        12 => any::<usize>().prop_map(Step::Deliver),
        1 => (0..2usize).prop_map(Step::GiveUp),
        1 => (0..2usize).prop_map(Step::Vanish),
        1 => (0..2usize).prop_map(Step::Restart),
        1 => (0..2usize).prop_map(Step::Expire),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn one_set_survives_whatever_happened(
        steps in prop::collection::vec(step(), 0..60),
        reaches in prop_oneof![Just([true, true]), Just([true, false]), Just([false, true])],
    ) {
        let mut world = World::new(reaches);
        for step in steps {
            world.run(step);
        }
        let dials = world.heal();
        prop_assert!(dials <= 4, "{dials} rounds of dialling");
    }
}

/// Every order in which two simultaneous dials can arrive ends in one set, without a second try
/// and without a set that was used on both sides and then replaced.
#[test]
fn every_order_of_a_simultaneous_dial() {
    fn explore(world: &World, orders: &mut u32) {
        if world.under_way.is_empty() {
            let [a, b] = [A, B].map(|node| world.nodes[node].sets.in_use());
            let (a, b) = (a.expect("a set"), b.expect("a set"));
            assert_eq!((a.set, a.dialler == Dialler::Us), (b.set, b.dialler == Dialler::Peer));
            assert_eq!(world.used.len(), 1, "no set was used and then replaced");
            *orders += 1;
            return;
        }
        for at in 0..world.under_way.len() {
            let mut next = World {
                nodes: [A, B].map(|node| Node { ..world.nodes[node] }),
                under_way: world.under_way.clone(),
                closed: world.closed.clone(),
                used: world.used.clone(),
                ..*world
            };
            next.run(Step::Deliver(at));
            explore(&next, orders);
        }
    }
    let mut world = World::new([true, true]);
    world.run(Step::Dial(A));
    world.run(Step::Dial(B));
    let mut orders = 0;
    explore(&world, &mut orders);
    assert!(orders > 50, "{orders} orders");
}

#[test]
fn the_table_of_offers() {
    let offer = |set, lane| Offer { set, lane, instance: 7 };
    let ours = |instance| {
        let mut sets = Sets::new();
        sets.dialling();
        assert!(sets.may_ask(1));
        sets.answered(instance);
        sets
    };
    let asked = {
        let mut sets = Sets::new();
        sets.dialling();
        assert!(sets.may_ask(1));
        sets
    };
    let rows = [
        ("nothing here, senior", Sets::new(), true, Verdict::Half),
        ("nothing here, junior", Sets::new(), false, Verdict::Half),
        ("we asked, senior", asked, true, Verdict::Duplicate),
        ("we asked, junior", asked, false, Verdict::Half),
        ("ours in use, senior", ours(7), true, Verdict::Duplicate),
        ("ours in use, junior", ours(7), false, Verdict::Half),
        ("ours in use, to an older instance, senior", ours(6), true, Verdict::Half),
    ];
    for (name, mut sets, senior, verdict) in rows {
        assert_eq!(sets.offered(offer(2, Lane::Live), senior), verdict, "{name}");
        if verdict == Verdict::Half {
            assert_eq!(sets.offered(offer(2, Lane::Live), senior), Verdict::Repeated, "{name}");
            assert_eq!(sets.offered(offer(2, Lane::Bulk), senior), Verdict::Taken, "{name}");
            let theirs = InUse { set: 2, dialler: Dialler::Peer, instance: 7 };
            assert_eq!(sets.in_use(), Some(theirs), "{name}");
            assert_eq!(sets.offered(offer(3, Lane::Bulk), senior), Verdict::Half, "a newer one");
            assert_eq!(sets.in_use(), Some(theirs), "until it is complete");
            assert!(!sets.may_dial());
        }
    }
}

#[test]
fn a_new_instance_voids_the_set_at_once() {
    let mut sets = Sets::new();
    for lane in [Lane::Live, Lane::Bulk] {
        sets.offered(Offer { set: 1, lane, instance: 7 }, true);
    }
    assert!(sets.in_use().is_some());
    sets.offered(Offer { set: 2, lane: Lane::Bulk, instance: 8 }, true);
    assert_eq!(sets.in_use(), None);
}
