//! The offline matrix: everything that can be done to a path on one node × the same on the other,
//! while they do not see each other. Then they meet, and all must be as docs/semantics.md says.
//!
//! `cargo test --test matrix -- --nocapture` prints the tables.
#![expect(clippy::disallowed_methods, reason = "tests are the users: they work on the files")]
#![expect(
    clippy::unwrap_used,
    reason = "clippy.toml frees test functions only, not what they call"
)]

#[path = "matrix/deeds.rs"]
mod deeds;
#[path = "matrix/model.rs"]
mod model;
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::Duration;

use deeds::{Author, DEEDS, Deed, STORIES, WRITING, prepare};
use model::{Copy, Expected, Word, meet};
use support::{Object, Pair, Tree, until};

/// Time for some thousand files on a busy machine.
const PATIENCE: Duration = Duration::from_secs(180);

/// One clash, in a directory of its own.
struct Cell {
    name: String,
    /// What fs1 and fs2 do.
    deeds: [Vec<Deed>; 2],
    /// Both write the same bytes.
    alike: bool,
}

impl Cell {
    fn act(&self, node: usize, root: &Path) {
        let author = if self.alike { Author::Both } else { Author::Node(node + 1) };
        for deed in &self.deeds[node] {
            deed.act(&root.join(&self.name), author);
        }
    }
}

fn square(title: &str, deeds: &[Deed], alike: bool) -> Vec<Cell> {
    let mut cells = Vec::new();
    for one in deeds {
        for two in deeds {
            let name = format!("{title}: {} x {}", one.name(), two.name());
            cells.push(Cell { name, deeds: [vec![*one], vec![*two]], alike });
        }
    }
    cells
}

/// What lies in each cell's directory.
fn cells_of(tree: &Tree) -> BTreeMap<String, Tree> {
    let mut cells = BTreeMap::<String, Tree>::new();
    for (path, object) in &tree.0 {
        let path = str::from_utf8(path).unwrap();
        let (cell, rest) = path.split_once('/').unwrap_or((path, ""));
        let cell = cells.entry(cell.to_owned()).or_default();
        if !rest.is_empty() {
            // The mode of a directory is a register of its own, and no part of who wins.
            let object = match object {
                Object::Dir { .. } => Object::Dir { mode: 0 },
                other => other.clone(),
            };
            cell.0.insert(rest.as_bytes().to_vec(), object);
        }
    }
    cells
}

/// How many paths of a cell are not as they were.
fn changed(before: &BTreeMap<String, Tree>, now: &BTreeMap<String, Tree>, cell: &str) -> usize {
    let [before, now] = [before, now].map(|trees| &trees[cell].0);
    let paths: BTreeSet<_> = before.keys().chain(now.keys()).collect();
    paths.into_iter().filter(|path| before.get(*path) != now.get(*path)).count()
}

/// Takes the conflict copies out of a tree.
fn take_copies(tree: &mut Tree) -> BTreeMap<Copy, Object> {
    let mut copies = BTreeMap::new();
    for path in tree.paths() {
        let Some((stem, rest)) = path.split_once(".conflict-") else { continue };
        let (node, rest) = rest.split_once('-').unwrap();
        let extension = rest.split_once('.').map(|(_, extension)| format!(".{extension}"));
        let fought_over = format!("{stem}{}", extension.unwrap_or_default());
        let object = tree.0.remove(path.as_bytes()).unwrap();
        let taken = copies.insert((fought_over.into_bytes(), node.to_owned()), object);
        assert!(taken.is_none(), "one loser of each node at most: {path}");
    }
    copies
}

/// No content is lost but one that somebody who knew it took away.
fn check_nothing_lost(base: &Tree, one: &Tree, two: &Tree, end: &Tree) -> Result<(), String> {
    let has = |tree: &Tree, hash| tree.hashes().any(|found| found == hash);
    for hash in one.hashes().chain(two.hashes()) {
        let taken_away = has(base, hash) && !(has(one, hash) && has(two, hash));
        if !has(end, hash) && !taken_away {
            return Err("a content is lost".to_owned());
        }
    }
    Ok(())
}

/// Lets two nodes share the bases of all cells, has each do its part alone, lets them meet, and
/// returns what became of each cell.
fn play(cells: &[Cell]) -> BTreeMap<String, Word> {
    let mut pair = Pair::new();
    for node in [&pair.a, &pair.b] {
        node.set("max_delete", "\"100%\"");
    }
    for cell in cells {
        prepare(&pair.a.path(&cell.name));
    }
    pair.start();
    let base = cells_of(&pair.wait_until_consistent_within(PATIENCE));
    pair.a.stop();
    pair.b.stop();

    for cell in cells {
        cell.act(0, &pair.a.root);
        cell.act(1, &pair.b.root);
    }
    let [one, two] = [&pair.a, &pair.b].map(|node| cells_of(&node.tree()));
    // Each notes its own alone, fs2 later: so its stamps are the greater ones.
    for (node, now) in [(&mut pair.a, &one), (&mut pair.b, &two)] {
        let changed: usize = cells.iter().map(|cell| changed(&base, now, &cell.name)).sum();
        node.start();
        until("all that changed is noted", || {
            let noted = &node.status()["peers"][0]["shares"][0]["pending_files"];
            if *noted == changed { Ok(()) } else { Err(format!("{noted} of {changed}")) }
        });
        node.stop();
    }
    pair.start();
    let end = cells_of(&pair.wait_until_consistent_within(PATIENCE));
    pair.stays(Duration::from_millis(300));
    assert_eq!(end.len(), cells.len(), "nothing beside the cells");

    let mut words = BTreeMap::new();
    let mut wrong = String::new();
    for cell in cells {
        let of =
            |trees: &BTreeMap<String, Tree>| trees.get(&cell.name).cloned().unwrap_or_default();
        let [base, one, two, mut end] = [&base, &one, &two, &end].map(of);
        let Expected { tree, copies, word } = meet(&base, &one, &two);
        let lost = check_nothing_lost(&base, &one, &two, &end).err();
        let found = take_copies(&mut end);
        let difference = tree.difference(&end);
        if !difference.is_empty() || found != copies || lost.is_some() {
            let name = &cell.name;
            writeln!(wrong, "{name}: {lost:?}\nexpected | found: {difference}").unwrap();
            writeln!(wrong, "copies, expected: {copies:?}\nfound: {found:?}\n").unwrap();
        }
        words.insert(cell.name.clone(), word);
    }
    assert!(wrong.is_empty(), "{wrong}");
    words
}

fn table(title: &str, deeds: &[Deed], words: &BTreeMap<String, Word>) -> String {
    let mut out = format!("{:<9}", title);
    for two in deeds {
        write!(out, "│{:<7}", two.name()).unwrap();
    }
    for one in deeds {
        write!(out, "\n{:<9}", one.name()).unwrap();
        for two in deeds {
            let word = words[&format!("{title}: {} x {}", one.name(), two.name())];
            write!(out, "│{:<7}", word.text()).unwrap();
        }
    }
    out.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

#[test]
fn what_two_nodes_did_while_apart_ends_as_documented() {
    let (different, alike) = ("unlike", "alike");
    let mut cells = square(different, &DEEDS, false);
    cells.extend(square(alike, &WRITING, true));
    cells.extend(STORIES.iter().map(|story| Cell {
        name: format!("story: {}", story.name),
        deeds: story.deeds.map(<[Deed]>::to_vec),
        alike: false,
    }));
    let words = play(&cells);

    let tables = [table(different, &DEEDS, &words), table(alike, &WRITING, &words)];
    let stories = STORIES.iter().map(|story| {
        let word = words[&format!("story: {}", story.name)];
        format!("{:<8}{}\n", word.text(), story.name)
    });
    let stories: String = stories.collect();
    println!("{}\n{}\n{stories}", tables[0], tables[1]);
    println!("{} cells, all as expected, nothing lost", cells.len());

    let documented = fs::read_to_string("docs/semantics.md").unwrap();
    for table in tables.iter().chain([&stories]) {
        assert!(documented.contains(table.as_str()), "docs/semantics.md has another table");
    }
}
