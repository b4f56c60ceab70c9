use std::cell::RefCell;
use std::fmt;
use std::ops::Deref;

use bytes::Bytes;
use siphon_wire::buf::Input;

/// The encoded fields of a message: what is short in memory of its own, which a thread uses again for
/// other messages, so that nobody counts who has a share in it; anything longer, and what arrived
/// where it can stay, as shared bytes.
///
/// ```
/// use bytes::Bytes;
/// use siphon_proto::Front;
///
/// let short = Front::copy_of(b"fields");
/// let shared = Front::from(Bytes::from_static(b"fields"));
/// assert_eq!(short, shared);
/// assert_eq!(&short[..3], b"fie");
/// ```
#[derive(Default)]
pub struct Front(Place);

enum Place {
    Own(Own),
    Shared(Bytes),
}

impl Default for Place {
    fn default() -> Self {
        Self::Own(Own(Vec::new()))
    }
}

/// Invariant: as a front that is whole, no more than [`Front::MAX_OWN`] bytes.
struct Own(Vec<u8>);

/// Fronts of which a thread keeps the memory, [`Front::MAX_OWN`] bytes each at most.
const MAX_SPARE: usize = 1024;
/// What a new one has room for, in bytes: most requests and answers.
const ROOM: usize = 256;

thread_local! {
    /// Memory of fronts that are gone: nothing is in it.
    static SPARE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

impl Own {
    #[inline]
    fn new() -> Self {
        // A thread that ends keeps nothing.
        let spare = SPARE.try_with(|spare| spare.borrow_mut().pop()).ok().flatten();
        Self(spare.unwrap_or_else(|| Vec::with_capacity(ROOM)))
    }
}

impl Drop for Own {
    #[inline]
    fn drop(&mut self) {
        if !(1..=Front::MAX_OWN).contains(&self.0.capacity()) {
            return;
        }
        let mut memory = std::mem::take(&mut self.0);
        memory.clear();
        let _ = SPARE.try_with(|spare| {
            let mut spare = spare.borrow_mut();
            if spare.len() < MAX_SPARE {
                spare.push(memory);
            }
        });
    }
}

impl Front {
    /// The longest that has memory of its own, in bytes.
    pub const MAX_OWN: usize = 1024;

    /// What `fill` appends to an empty buffer, which may be one that was used before.
    ///
    /// ```
    /// use siphon_proto::Front;
    ///
    /// let front = Front::filled(|mut buffer| {
    ///     buffer.extend_from_slice(b"fields");
    ///     buffer
    /// });
    /// assert_eq!(&front[..], b"fields");
    /// ```
    #[inline]
    pub fn filled(fill: impl FnOnce(Vec<u8>) -> Vec<u8>) -> Self {
        let mut own = Own::new();
        own.0 = fill(std::mem::take(&mut own.0));
        if own.0.len() > Self::MAX_OWN {
            return Self(Place::Shared(std::mem::take(&mut own.0).into()));
        }
        Self(Place::Own(own))
    }

    /// A copy of `bytes`.
    #[inline]
    pub fn copy_of(bytes: &[u8]) -> Self {
        if bytes.len() > Self::MAX_OWN {
            return Bytes::copy_from_slice(bytes).into();
        }
        Self::filled(|mut buffer| {
            buffer.extend_from_slice(bytes);
            buffer
        })
    }

    /// Its bytes, to be kept by others as well; copies what is in memory of its own.
    pub fn to_bytes(&self) -> Bytes {
        match &self.0 {
            Place::Own(own) => Bytes::copy_from_slice(&own.0),
            Place::Shared(bytes) => bytes.clone(),
        }
    }
}

impl Deref for Front {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match &self.0 {
            Place::Own(own) => &own.0,
            Place::Shared(bytes) => bytes,
        }
    }
}

impl Clone for Front {
    fn clone(&self) -> Self {
        match &self.0 {
            Place::Own(own) if own.0.is_empty() => Self::default(),
            Place::Own(own) => Self::copy_of(&own.0),
            Place::Shared(bytes) => bytes.clone().into(),
        }
    }
}

impl From<Bytes> for Front {
    fn from(bytes: Bytes) -> Self {
        Self(Place::Shared(bytes))
    }
}

impl From<Vec<u8>> for Front {
    fn from(bytes: Vec<u8>) -> Self {
        Bytes::from(bytes).into()
    }
}

/// To be decoded: large parts share the memory of a front that is shared.
impl<'a> From<&'a Front> for Input<'a> {
    #[inline]
    fn from(front: &'a Front) -> Self {
        match &front.0 {
            Place::Own(own) => own.0[..].into(),
            Place::Shared(bytes) => bytes.into(),
        }
    }
}

impl AsRef<[u8]> for Front {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl<T: AsRef<[u8]> + ?Sized> PartialEq<T> for Front {
    fn eq(&self, other: &T) -> bool {
        **self == *other.as_ref()
    }
}

impl Eq for Front {}

impl fmt::Debug for Front {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "b\"{}\"", self.escape_ascii())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the thread keeps: how many, and the bytes of all.
    fn spare() -> (usize, usize) {
        SPARE.with_borrow(|spare| (spare.len(), spare.iter().map(Vec::capacity).sum()))
    }

    #[test]
    fn the_memory_of_short_ones_is_used_again() {
        let first = Front::copy_of(&[7; 100]);
        let at = first.as_ptr();
        drop(first);
        let second = Front::copy_of(&[8; 200]);
        assert_eq!((second.as_ptr(), &second[..]), (at, &[8; 200][..]));
        assert_eq!(spare(), (0, 0));
    }

    #[test]
    fn what_a_thread_keeps_is_bounded() {
        let fronts: Vec<_> = (0..MAX_SPARE + 50).map(|n| Front::copy_of(&vec![1; n])).collect();
        assert!(fronts.iter().enumerate().all(|(n, front)| front.len() == n));
        drop(fronts);
        let (count, bytes) = spare();
        assert_eq!(count, MAX_SPARE);
        assert!(bytes <= MAX_SPARE * Front::MAX_OWN);
    }

    #[test]
    fn long_ones_are_shared_and_short_ones_copied() {
        for len in [1, Front::MAX_OWN, Front::MAX_OWN + 1, 100_000] {
            let front = Front::copy_of(&vec![3; len]);
            let copy = front.clone();
            assert_eq!(front, copy);
            assert_eq!(front, front.to_bytes());
            let is_shared = len > Front::MAX_OWN;
            assert_eq!(front.as_ptr() == copy.as_ptr(), is_shared, "{len} bytes");
            assert_eq!(Input::from(&front).is_shared(), is_shared);
        }
    }
}
