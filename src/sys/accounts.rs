//! Names of users and groups, and their numbers here, remembered for a while: the system's answer
//! may come over a network, and a tree has few owners but many files.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use recsync_proto::{Account, Owner};
use rustix::io::Errno;

use super::raw;

/// How long an answer is believed: an account that was made is seen after at most this.
const FRESH: Duration = Duration::from_secs(60);
/// Answers remembered of each kind; beyond that all are forgotten and asked for anew.
const KEPT_MAX: usize = 4_096;

/// Answers of the system on its accounts.
#[derive(Debug, Default)]
pub struct Accounts {
    users: Answers<u32, Account>,
    groups: Answers<u32, Account>,
    uids: Answers<Account, Option<u32>>,
    gids: Answers<Account, Option<u32>>,
}

impl Accounts {
    /// Returns the names of a user and a group; a number that has none stands for itself. None
    /// if the system does not answer now: then a number would be taken for a name.
    pub fn owner(&self, uid: u32, gid: u32) -> Option<Owner> {
        Some(Owner {
            user: self.users.get(&uid, |&uid| named(uid, raw::user_name(uid)))?,
            group: self.groups.get(&gid, |&gid| named(gid, raw::group_name(gid)))?,
        })
    }

    /// Returns the number of a user here, if there is such a user. A name that is a number and
    /// nobody's is taken for it, as chown(1) does.
    pub fn uid(&self, user: &Account) -> Option<u32> {
        self.uids.get(user, |user| numbered(user, raw::user_id(user.as_str()))).flatten()
    }

    /// Returns the number of a group here, likewise.
    pub fn gid(&self, group: &Account) -> Option<u32> {
        self.gids.get(group, |group| numbered(group, raw::group_id(group.as_str()))).flatten()
    }
}

fn named(number: u32, answer: Result<Option<String>, Errno>) -> Result<Account, Errno> {
    let name = answer?.and_then(|name| Account::new(name).ok());
    Ok(name.unwrap_or_else(|| Account::of_number(number)))
}

fn numbered(name: &Account, answer: Result<Option<u32>, Errno>) -> Result<Option<u32>, Errno> {
    // All bits set is no account: to chown(2) it means "leave it".
    let number = || name.as_str().parse().ok().filter(|&number| number != u32::MAX);
    Ok(answer?.or_else(number))
}

#[derive(Debug)]
struct Answers<K, V>(Mutex<HashMap<K, (V, Instant)>>);

impl<K, V> Default for Answers<K, V> {
    fn default() -> Self {
        Answers(Mutex::default())
    }
}

impl<K: Clone + Eq + std::hash::Hash, V: Clone> Answers<K, V> {
    #[expect(clippy::disallowed_methods, reason = "sys is the place that reads the clocks")]
    fn get(&self, key: &K, ask: impl FnOnce(&K) -> Result<V, Errno>) -> Option<V> {
        let lock = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((answer, at)) = lock().get(key)
            && at.elapsed() < FRESH
        {
            return Some(answer.clone());
        }
        // Unlocked: one that takes long keeps nobody else waiting.
        let answer = ask(key).ok()?;
        let mut kept = lock();
        if kept.len() >= KEPT_MAX {
            kept.clear();
        }
        kept.insert(key.clone(), (answer.clone(), Instant::now()));
        Some(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        let accounts = Accounts::default();
        let name = |name: &str| Account::new(name).unwrap();
        assert_eq!(accounts.owner(0, 0).unwrap().to_string(), "root:root");
        let unused = u32::MAX - 2;
        assert_eq!(accounts.owner(unused, unused).unwrap().to_string(), "4294967293:4294967293");
        assert_eq!((accounts.uid(&name("root")), accounts.gid(&name("root"))), (Some(0), Some(0)));
        assert_eq!(accounts.uid(&name("4294967293")), Some(unused));
        assert_eq!(accounts.uid(&name("4294967295")), None, "chown(2) would leave the owner");
        assert_eq!(accounts.uid(&name("no such account")), None);
        assert_eq!(accounts.gid(&name("-1")), None);
    }

    #[test]
    fn an_answer_is_asked_for_once() {
        let answers = Answers::default();
        assert_eq!(answers.get(&1, |_| Err(Errno::IO)), None);
        assert_eq!(answers.get(&1, |_| Ok("first")), Some("first"));
        assert_eq!(answers.get(&1, |_| Ok("second")), Some("first"));
        for n in 2..=2 * KEPT_MAX {
            answers.get(&n, |_| Ok("other"));
        }
        assert!(answers.0.lock().unwrap().len() <= KEPT_MAX);
    }
}
