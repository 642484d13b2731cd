//! The simulated disk does what the real one does: the same suite.

use std::sync::{Arc, Mutex};

use recsync::tree::{Place, Tree, Writer, suite};
use recsync_proto::SharePath;
use recsync_sim::disk::{Disk, Quiet, SimTree};
use recsync_sim::fs::Fs;
use recsync_sim::rng::Rng;

fn fresh() -> SimTree<Quiet> {
    let disk = Disk::new(Fs::new(1_000_000_000_000, 1), Quiet, Rng::new(1));
    SimTree::boot(&Arc::new(Mutex::new(disk)))
}

#[test]
fn the_simulated_disk_passes_the_suite() {
    for case in suite::cases::<SimTree<Quiet>>() {
        println!("{}", case.name);
        (case.run)(&fresh());
    }
}

#[test]
fn a_users_handle_is_a_writer() {
    let tree = fresh();
    let file = SharePath::new("file").unwrap();
    let id = tree.disk().fs.create(recsync_sim::fs::ROOT, b"file", 0o644).unwrap();
    let open = tree.open(&Place::Share(file)).unwrap();
    assert_eq!(tree.writer(&open), Ok(Writer::None));
    tree.disk().fs.open(id, true);
    assert_eq!(tree.writer(&open), Ok(Writer::Some));
    tree.disk().fs.close(id, true);
    assert_eq!(tree.writer(&open), Ok(Writer::None));
}

#[test]
fn a_stopped_node_reaches_its_disk_no_more() {
    let tree = fresh();
    let file = tree.create_temp("part").unwrap();
    tree.disk().kill();
    assert!(tree.write_at(&file, 0, b"late").is_err());
    assert!(tree.stat(&Place::Temp("part".into())).is_err());
    let next = SimTree::boot(&tree.shared());
    assert_eq!(next.stat(&Place::Temp("part".into())).unwrap().size, 0);
}
