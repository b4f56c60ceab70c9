//! A slab whose keys carry a generation: a key of something removed finds nothing.

/// Where an entry is, and which of the entries that lived there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

impl Key {
    /// Packed as the generation above the index.
    pub(crate) fn bits(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }

    pub(crate) fn from_bits(bits: u64) -> Self {
        Self { index: bits as u32, generation: (bits >> 32) as u32 }
    }
}

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    value: Option<T>,
}

/// Most slots of a slab: indices leave the two upper bits of their half to the epoll token's kind.
pub(crate) const MAX_ENTRIES: u32 = 1 << 30;

/// Entries found by [`Key`] in constant time; free places are used again.
///
/// Invariant: `free` lists exactly the slots without a value. A slot whose generations are used up
/// is never freed, so that no key is given twice.
#[derive(Debug)]
pub(crate) struct Slab<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
}

impl<T> Slab<T> {
    pub(crate) const fn new() -> Self {
        Self { slots: Vec::new(), free: Vec::new() }
    }

    /// The key that the next [`insert`](Self::insert) gives.
    ///
    /// # Panics
    ///
    /// With [`MAX_ENTRIES`] in use: memory and descriptors end long before.
    pub(crate) fn next_key(&self) -> Key {
        if let Some(&index) = self.free.last() {
            // Invariant: what `free` lists is a slot.
            return Key { index, generation: self.slots[index as usize].generation };
        }
        assert!(self.slots.len() < MAX_ENTRIES as usize, "the slab is full");
        Key { index: self.slots.len() as u32, generation: 0 }
    }

    /// Adds an entry under [`next_key`](Self::next_key).
    pub(crate) fn insert(&mut self, value: T) -> Key {
        let key = self.next_key();
        if self.free.pop().is_some() {
            self.slots[key.index as usize].value = Some(value);
        } else {
            self.slots.push(Slot { generation: 0, value: Some(value) });
        }
        key
    }

    pub(crate) fn get(&self, key: Key) -> Option<&T> {
        let slot = self.slots.get(key.index as usize)?;
        if slot.generation == key.generation { slot.value.as_ref() } else { None }
    }

    pub(crate) fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        let slot = self.slots.get_mut(key.index as usize)?;
        if slot.generation == key.generation { slot.value.as_mut() } else { None }
    }

    /// The first entry that is wanted.
    pub(crate) fn find(&self, wanted: impl Fn(&T) -> bool) -> Option<Key> {
        let index = self.slots.iter().position(|slot| slot.value.as_ref().is_some_and(&wanted))?;
        Some(Key { index: index as u32, generation: self.slots[index].generation })
    }

    pub(crate) fn remove(&mut self, key: Key) -> Option<T> {
        let slot = self.slots.get_mut(key.index as usize)?;
        if slot.generation != key.generation {
            return None;
        }
        let value = slot.value.take()?;
        if let Some(next) = slot.generation.checked_add(1) {
            slot.generation = next;
            self.free.push(key.index);
        }
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_removed_entrys_key_finds_nothing() {
        let mut slab = Slab::new();
        let a = slab.insert('a');
        let b = slab.insert('b');
        assert_eq!(slab.remove(a), Some('a'));
        assert_eq!(slab.remove(a), None);
        let c = slab.insert('c');
        assert_eq!(c.index, a.index);
        assert_eq!((slab.get(a), slab.get(b), slab.get(c)), (None, Some(&'b'), Some(&'c')));
        assert_eq!(Key::from_bits(c.bits()), c);
    }

    #[test]
    fn a_slot_retires_with_its_last_generation() {
        let mut slab = Slab::new();
        slab.insert(0);
        slab.slots[0].generation = u32::MAX;
        assert_eq!(slab.remove(Key { index: 0, generation: u32::MAX }), Some(0));
        assert_eq!(slab.insert(1), Key { index: 1, generation: 0 });
    }
}
