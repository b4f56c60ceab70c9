use std::cell::RefCell;
use std::fmt;
use std::ops::Deref;

use bytes::Bytes;
use siphon_wire::Encoder;
use siphon_wire::buf::Input;
use siphon_wire::types::Features;

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

/// Invariant: its capacity is 0 or one of [`ROOMS`].
struct Own(Vec<u8>);

/// Bytes of fronts' memory: most requests and answers have room in the first. An `MOSDOp` of one operation takes 216
/// bytes and its object's names, and 38 for each further operation.
const ROOMS: [usize; 2] = [384, Front::MAX_OWN];
/// Of each of these, how many a thread keeps.
const MAX_SPARE: [usize; 2] = [1024, 256];

thread_local! {
    /// Memory of fronts that are gone, by what it has room for: nothing is in it.
    static SPARE: RefCell<[Vec<Vec<u8>>; 2]> = const { RefCell::new([Vec::new(), Vec::new()]) };
}

impl Own {
    /// Room for so many bytes, [`Front::MAX_OWN`] at most.
    #[inline]
    fn with_room(len: usize) -> Self {
        let class = usize::from(len > ROOMS[0]);
        // A thread that ends keeps nothing.
        let spare = SPARE.try_with(|spare| spare.borrow_mut()[class].pop()).ok().flatten();
        Self(spare.unwrap_or_else(|| Vec::with_capacity(ROOMS[class])))
    }
}

impl Drop for Own {
    #[inline]
    fn drop(&mut self) {
        let Some(class) = ROOMS.iter().position(|room| *room == self.0.capacity()) else {
            return;
        };
        let mut memory = std::mem::take(&mut self.0);
        memory.clear();
        let _ = SPARE.try_with(|spare| {
            let kept = &mut spare.borrow_mut()[class];
            if kept.len() < MAX_SPARE[class] {
                kept.push(memory);
            }
        });
    }
}

impl Front {
    /// Bytes of memory that a short one has, and a message keeps.
    pub(crate) const ROOM: usize = ROOMS[0];
    /// The longest that has memory of its own, in bytes.
    pub const MAX_OWN: usize = 1024;

    /// Makes it what `body` encodes for a peer with `features`.
    ///
    /// ```
    /// use siphon_proto::Front;
    /// use siphon_wire::types::Features;
    ///
    /// let mut front = Front::default();
    /// front.encode(Features::ALL, |enc| enc.u16(7));
    /// assert_eq!(front, [7, 0]);
    /// ```
    #[inline]
    pub fn encode(&mut self, features: Features, body: impl FnOnce(&mut Encoder)) {
        Encoder::in_scratch(features, body, |encoded| match encoded.len() {
            ..=Self::MAX_OWN => self.set(encoded),
            _ => *self = std::mem::take(encoded).into(),
        });
    }

    /// A copy of `bytes`.
    pub fn copy_of(bytes: &[u8]) -> Self {
        let mut front = Self::default();
        front.set(bytes);
        front
    }

    /// Makes it a copy of `bytes`, in the memory that it has if there is room.
    #[inline]
    pub fn set(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            Place::Own(own) if bytes.len() <= own.0.capacity() => {
                own.0.clear();
                own.0.extend_from_slice(bytes);
            }
            _ => self.renew(bytes),
        }
    }

    #[inline(never)]
    fn renew(&mut self, bytes: &[u8]) {
        *self = match bytes.len() {
            0 => Self::default(),
            1..=Self::MAX_OWN => {
                let mut own = Own::with_room(bytes.len());
                own.0.extend_from_slice(bytes);
                Self(Place::Own(own))
            }
            _ => Bytes::copy_from_slice(bytes).into(),
        };
    }

    /// Removes everything, and the memory unless it is of the smaller kind, which every other can use as well.
    #[inline]
    pub(crate) fn clear(&mut self) {
        match &mut self.0 {
            Place::Own(own) if own.0.capacity() <= ROOMS[0] => own.0.clear(),
            _ => *self = Self::default(),
        }
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
        SPARE.with_borrow(|spare| {
            let memory = spare.iter().flatten();
            (memory.clone().count(), memory.map(Vec::capacity).sum())
        })
    }

    #[test]
    fn the_memory_of_short_ones_is_used_again() {
        let first = Front::copy_of(&[7; 100]);
        let at = first.as_ptr();
        drop(first);
        let second = Front::copy_of(&[8; 200]);
        assert_eq!((second.as_ptr(), &second[..]), (at, &[8; 200][..]));
        assert_eq!(spare(), (0, 0));
        drop(second);
        let long = Front::copy_of(&[9; ROOMS[0] + 1]);
        assert_eq!(spare(), (1, ROOMS[0]), "what is short does not hold what long ones need");
        drop(long);
        assert_eq!(spare(), (2, ROOMS[0] + ROOMS[1]));
    }

    #[test]
    fn what_is_encoded_stays_at_its_place_where_it_has_room() {
        let mut front = Front::copy_of(&[7; 100]);
        let at = front.as_ptr();
        for len in [0, 5, ROOMS[0]] {
            front.encode(Features::ALL, |enc| {
                let mut inner = Front::default();
                inner.encode(Features::ALL, |enc| enc.u8(2));
                enc.raw(&inner.repeat(len));
            });
            assert_eq!((&front[..], front.as_ptr()), (&vec![2; len][..], at));
        }
        front.clear();
        assert_eq!(front, [0; 0]);
        front.set(&[3; 4]);
        assert_eq!((&front[..], front.as_ptr()), (&[3; 4][..], at));
        for len in [ROOMS[0] + 1, Front::MAX_OWN + 1, 5, 0, 100_000, Front::MAX_OWN] {
            front.encode(Features::ALL, |enc| enc.raw(&vec![1; len]));
            assert_eq!(front, vec![1; len]);
        }
        front.clear();
        assert_eq!(SPARE.with_borrow(|[_, large]| large.len()), 1, "what is large is for others");
        let mut shared = Front::from(Bytes::from(vec![4; 10]));
        shared.clear();
        assert!(shared.is_empty() && matches!(shared.0, Place::Own(_)));
    }

    #[test]
    fn one_may_be_dropped_by_another_thread_and_by_one_that_ends() {
        struct Late(Front);
        impl Drop for Late {
            fn drop(&mut self) {
                self.0.encode(Features::ALL, |enc| enc.u8(7));
                assert_eq!(self.0, [7]);
                assert!(
                    [10, 1000].map(|len| Front::copy_of(&vec![8; len])).iter().all(|it| it[9] == 8)
                );
            }
        }
        thread_local!(static LAST: RefCell<Option<Late>> = const { RefCell::new(None) });
        let front = Front::copy_of(b"sent");
        let there = std::thread::spawn(move || {
            LAST.set(None); // what comes first here ends last
            LAST.set(Some(Late(Front::copy_of(b"kept until the end"))));
            Front::default().encode(Features::ALL, |enc| enc.u8(1));
            assert_eq!(front, b"sent");
        });
        there.join().unwrap();
    }

    #[test]
    fn what_a_thread_keeps_is_bounded() {
        let lengths = (0..3000).map(|n| n % (Front::MAX_OWN + 1));
        let fronts: Vec<_> = lengths.clone().map(|len| Front::copy_of(&vec![1; len])).collect();
        assert!(fronts.iter().zip(lengths).all(|(front, len)| front.len() == len));
        drop(fronts);
        let most = MAX_SPARE.iter().zip(ROOMS).map(|(count, room)| count * room).sum();
        let (count, bytes) = spare();
        assert!(count <= MAX_SPARE.iter().sum() && bytes <= most, "{count}, {bytes} bytes");
        assert!(bytes > most / 2);
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
