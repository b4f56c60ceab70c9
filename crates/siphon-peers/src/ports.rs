use std::hash::{BuildHasher, RandomState};
use std::net::{Ipv4Addr, TcpListener};

/// Below the kernel's ephemeral ports, so that no outgoing connection takes one meanwhile.
const FIRST: u16 = 20_000;
const COUNT: u16 = 12_000;

/// `N` different TCP ports of 127.0.0.1 on which nothing listens at this moment.
///
/// Another process may take one before the caller does: who binds them must be ready to try again.
///
/// # Panics
/// Fewer than `N` of 12 000 ports are free.
pub fn free_ports<const N: usize>() -> [u16; N] {
    let start = RandomState::new().hash_one(std::process::id());
    let mut candidates = (0..u64::from(COUNT))
        .filter_map(|i| u16::try_from(start.wrapping_add(i) % u64::from(COUNT)).ok())
        .map(|offset| FIRST + offset)
        .filter(|&port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok());
    std::array::from_fn(|_| candidates.next().expect("a free port among 12 000"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_differ_and_can_be_bound() {
        let [a, b, c] = free_ports();
        assert!(a != b && b != c && a != c);
        assert!((FIRST..FIRST + COUNT).contains(&a));
    }
}
