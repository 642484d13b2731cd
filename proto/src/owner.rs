//! Who owns an object, by name: numbers mean different accounts on different nodes.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use bincode::{Decode, Encode};
use thiserror::Error;

/// Longest name of an account or group: `LOGIN_NAME_MAX` of Linux without its NUL.
pub const ACCOUNT_LEN_MAX: usize = 255;

/// The name of an account or a group; where a node knows none, its number in decimal, as chown(1)
/// takes it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Account(Arc<str>);

/// Why text is not the name of an account.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("`{0}` is no name of an account: 1 to 255 bytes without `:`, `/` and control characters")]
pub struct AccountError(String);

impl Account {
    /// Checks and takes a name.
    ///
    /// # Errors
    /// If it is empty, too long, or holds a character that no account's name can have.
    pub fn new(name: impl Into<String>) -> Result<Self, AccountError> {
        let name = name.into();
        let illegal = |c: char| c == ':' || c == '/' || c.is_control();
        if (1..=ACCOUNT_LEN_MAX).contains(&name.len()) && !name.contains(illegal) {
            Ok(Account(name.into()))
        } else {
            Err(AccountError(name))
        }
    }

    /// Returns the account of a number that has no name.
    pub fn of_number(number: u32) -> Self {
        Account(number.to_string().into())
    }

    /// Returns the name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Encode for Account {
    fn encode<E: bincode::enc::Encoder>(
        &self,
        encoder: &mut E,
    ) -> Result<(), bincode::error::EncodeError> {
        self.0.encode(encoder)
    }
}

impl<C> Decode<C> for Account {
    fn decode<D: bincode::de::Decoder<Context = C>>(
        decoder: &mut D,
    ) -> Result<Self, bincode::error::DecodeError> {
        let name = String::decode(decoder)?;
        Account::new(name)
            .map_err(|error| bincode::error::DecodeError::OtherString(error.to_string()))
    }
}

bincode::impl_borrow_decode!(Account);

/// Owner and group of an object; shown and parsed as `USER:GROUP`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct Owner {
    /// The account.
    pub user: Account,
    /// The group.
    pub group: Account,
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.user, self.group)
    }
}

impl fmt::Debug for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for Owner {
    type Err = AccountError;

    fn from_str(text: &str) -> Result<Self, AccountError> {
        let (user, group) = text.split_once(':').ok_or_else(|| AccountError(text.to_owned()))?;
        Ok(Owner { user: Account::new(user)?, group: Account::new(group)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_accounts() {
        let longest = "x".repeat(ACCOUNT_LEN_MAX);
        for good in ["freeswitch", "0", "DOMAIN\\an user", "müller", "www-data", &longest] {
            assert_eq!(Account::new(good).unwrap().as_str(), good);
            let owner: Owner = format!("{good}:{good}").parse().unwrap();
            assert_eq!(owner.to_string(), format!("{good}:{good}"));
        }
        let too_long = "x".repeat(ACCOUNT_LEN_MAX + 1);
        for bad in ["", "a:b", "a/b", "a\nb", "a\0b", &too_long] {
            assert!(Account::new(bad).is_err(), "{bad:?}");
        }
        for bad in ["", "a", ":", "a:", ":a", "a:b:c"] {
            assert!(bad.parse::<Owner>().is_err(), "{bad:?}");
        }
    }
}
