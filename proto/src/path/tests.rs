//! Every rule of a path and a name, and bytes of chance against all of them.

use proptest::prelude::*;

use super::*;

fn path(text: &str) -> SharePath {
    SharePath::new(text).unwrap()
}

#[test]
fn what_is_no_path() {
    let rows = [
        ("", PathError::Empty),
        ("/a", PathError::NotNormal),
        ("a/", PathError::NotNormal),
        ("a//b", PathError::NotNormal),
        (".", PathError::NotNormal),
        ("a/./b", PathError::NotNormal),
        ("..", PathError::NotNormal),
        ("a/../../b", PathError::NotNormal),
        ("a\0", PathError::Nul),
        (".recsync", PathError::Reserved),
        (".recsync/trash/a", PathError::Reserved),
    ];
    for (text, error) in rows {
        assert_eq!(SharePath::new(text), Err(error), "{text:?}");
    }
    for text in ["...", ".a", "a/.recsync", ".recsync2", "a b", "\u{e9}", "a\nb"] {
        assert!(SharePath::new(text).is_ok(), "{text:?}");
    }
    assert!(SharePath::new(vec![0xff; COMPONENT_LEN_MAX]).is_ok());
    let long = SharePath::new(vec![b'x'; COMPONENT_LEN_MAX + 1]);
    assert_eq!(long, Err(PathError::ComponentTooLong(COMPONENT_LEN_MAX + 1)));
    let mut deep = b"a/".repeat(PATH_LEN_MAX / 2 - 1);
    deep.extend_from_slice(b"ab");
    assert_eq!(deep.len(), PATH_LEN_MAX);
    let full = SharePath::new(deep.clone()).unwrap();
    assert_eq!(full.join(b"a"), Err(PathError::TooLong(PATH_LEN_MAX + 2)));
    deep.push(b'c');
    assert_eq!(SharePath::new(deep), Err(PathError::TooLong(PATH_LEN_MAX + 1)));
}

#[test]
fn joining_keeps_the_rules() {
    let root = SharePath::root();
    assert_eq!(root.join(b"a").unwrap(), path("a"));
    assert_eq!(path("a").join(b"b").unwrap(), path("a/b"));
    assert_eq!(root.join(RESERVED), Err(PathError::Reserved));
    assert!(path("a").join(RESERVED).is_ok());
    for name in [&b""[..], b".", b"..", b"b/c"] {
        assert_eq!(path("a").join(name), Err(PathError::NotNormal), "{name:?}");
    }
}

#[test]
fn parts_of_a_path() {
    let file = path("2026/11/a.wav");
    assert_eq!((file.parent(), file.name()), (path("2026/11"), &b"a.wav"[..]));
    assert_eq!(file.ancestors().collect::<Vec<_>>(), [path("2026/11"), path("2026")]);
    assert_eq!(path("a").parent(), SharePath::root());
    assert_eq!(SharePath::root().parent(), SharePath::root());
    assert_eq!(SharePath::root().ancestors().count(), 0);
    assert!(file.is_below(&path("2026")) && file.is_below(&SharePath::root()));
    assert!(!file.is_below(&file) && !file.is_below(&path("202")));
    assert!(!SharePath::root().is_below(&SharePath::root()));
}

#[test]
fn what_people_see() {
    assert_eq!(
        SharePath::new(b"a\xff/\x1b[2J\n\xc3\xa9".to_vec()).unwrap().to_string(),
        "a\\xff/\\x1b[2J\\x0a\u{e9}"
    );
    assert_eq!(SharePath::root().to_string(), ".");
}

#[test]
fn names_of_nodes_and_shares() {
    for name in ["a", "fs1", "A.b-c_9", "_x", &"x".repeat(32)] {
        assert_eq!(NodeName::new(name).unwrap().as_str(), name);
    }
    for name in ["", ".", ".a", "-a", "a b", "a/b", "a\0", "\u{e9}", &"x".repeat(33)] {
        assert_eq!(ShareName::new(name), Err(NameError(name.to_owned())));
    }
}

proptest! {
    /// A directory sorts before what it holds, and nothing sorts between two paths of its subtree
    /// that is not in it.
    #[test]
    fn a_subtree_is_contiguous(texts in prop::collection::btree_set("[a./!-]{1,6}", 3..12)) {
        let mut paths: Vec<SharePath> =
            texts.into_iter().filter_map(|text| SharePath::new(text).ok()).collect();
        paths.sort();
        for dir in paths.clone() {
            let below: Vec<usize> =
                (0..paths.len()).filter(|&at| paths[at].is_below(&dir)).collect();
            if let (Some(first), Some(last)) = (below.first(), below.last()) {
                prop_assert_eq!(last - first + 1, below.len());
                prop_assert_eq!(&paths[first - 1], &dir);
            }
        }
    }

    /// However much of them is the same.
    #[test]
    fn paths_are_ordered_byte_by_byte(
        begin in "a{0,9}(/a{1,9}){0,4}", one in "[a./!-]{0,20}", other in "[a./!-]{0,20}",
    ) {
        let made = |end: &str| SharePath::new(format!("x{begin}{end}"));
        if let (Ok(one), Ok(other)) = (made(&one), made(&other)) {
            let keys = |path: &SharePath| path.as_bytes().iter().map(|&b| if b == b'/' { 0 } else { b }).collect::<Vec<_>>();
            prop_assert_eq!(one.cmp(&other), keys(&one).cmp(&keys(&other)));
        }
    }
}
