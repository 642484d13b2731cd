//! Networks that a peer may connect from.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use thiserror::Error;

/// A network, as `192.168.1.0/24`, or one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cidr {
    base: IpAddr,
    prefix_len: u8,
}

impl Cidr {
    /// True if the address lies in the network; an IPv4 address mapped into IPv6, as a socket that
    /// serves both shows it, counts as the IPv4 address that it is.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.base.is_ipv4() && masked(address, self.prefix_len) == self.base
    }
}

/// Why text is no [`Cidr`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CidrError {
    /// It does not parse.
    #[error("`{0}` is no network: write it as \"192.168.1.0/24\", or one address")]
    Malformed(String),
    /// Bits are set after the prefix.
    #[error("`{text}` is an address in a network: write {network}")]
    HostBits {
        /// As written.
        text: String,
        /// What is probably meant.
        network: Cidr,
    },
}

impl FromStr for Cidr {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Self, CidrError> {
        let malformed = || CidrError::Malformed(text.to_owned());
        let (address, prefix_len) = match text.split_once('/') {
            Some((address, len)) => (address, Some(len.parse().map_err(|_| malformed())?)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| malformed())?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let prefix_len = prefix_len.unwrap_or(bits);
        if prefix_len > bits {
            return Err(malformed());
        }
        let network = Cidr { base: masked(address, prefix_len), prefix_len };
        if network.base == address {
            Ok(network)
        } else {
            Err(CidrError::HostBits { text: text.to_owned(), network })
        }
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.prefix_len)
    }
}

/// Returns the address with all bits after the prefix cleared.
fn masked(address: IpAddr, prefix_len: u8) -> IpAddr {
    let keep = u32::from(prefix_len);
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - keep).unwrap_or(0);
            Ipv4Addr::from_bits(v4.to_bits() & mask).into()
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - keep).unwrap_or(0);
            Ipv6Addr::from_bits(v6.to_bits() & mask).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_in_a_network() {
        let rows = [
            ("192.168.1.0/24", "192.168.1.200", true),
            ("192.168.1.0/24", "::ffff:192.168.1.200", true),
            ("192.168.1.0/24", "192.168.2.1", false),
            ("192.168.1.7", "192.168.1.7", true),
            ("192.168.1.7", "192.168.1.8", false),
            ("0.0.0.0/0", "8.8.8.8", true),
            ("0.0.0.0/0", "2001:db8::1", false),
            ("2001:db8::/32", "2001:db8:1::1", true),
            ("::/0", "2001:db8::1", true),
        ];
        for (network, address, inside) in rows {
            let cidr: Cidr = network.parse().unwrap();
            assert_eq!(cidr.contains(address.parse().unwrap()), inside, "{network} {address}");
        }
    }

    #[test]
    fn text_that_is_no_network() {
        for text in ["", "fs2", "10.0.0.0/33", "10.0.0.0/x", "10.0.0.0/", "::/129", "10.0.0/8"] {
            assert!(matches!(text.parse::<Cidr>(), Err(CidrError::Malformed(_))), "{text}");
        }
        let error = "192.168.1.5/24".parse::<Cidr>().unwrap_err().to_string();
        assert_eq!(error, "`192.168.1.5/24` is an address in a network: write 192.168.1.0/24");
    }
}
