//! Entries with generations: a removed entry's key finds nothing.

use std::fmt;

/// Where an entry is (lower half) and which of those that lived there (upper half).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Key(pub(super) u64);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0 as u32, self.0 >> 32)
    }
}

#[derive(Debug)]
pub(super) struct Slab<T> {
    slots: Vec<(u32, Option<T>)>,
    free: Vec<u32>,
}

impl<T> Slab<T> {
    pub(super) const fn new() -> Self {
        Self { slots: Vec::new(), free: Vec::new() }
    }

    pub(super) fn insert(&mut self, value: T) -> Key {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push((0, None));
            (self.slots.len() - 1) as u32
        });
        let slot = &mut self.slots[index as usize];
        slot.1 = Some(value);
        Key(u64::from(slot.0) << 32 | u64::from(index))
    }

    pub(super) fn get(&self, key: Key) -> Option<&T> {
        let slot = self.slots.get(key.0 as u32 as usize)?;
        if u64::from(slot.0) == key.0 >> 32 { slot.1.as_ref() } else { None }
    }

    pub(super) fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        let slot = self.slots.get_mut(key.0 as u32 as usize)?;
        if u64::from(slot.0) == key.0 >> 32 { slot.1.as_mut() } else { None }
    }

    pub(super) fn remove(&mut self, key: Key) -> Option<T> {
        self.get(key)?;
        let slot = &mut self.slots[key.0 as u32 as usize];
        // A slot whose generations are used up is not used again.
        if let Some(next) = slot.0.checked_add(1) {
            slot.0 = next;
            self.free.push(key.0 as u32);
        }
        slot.1.take()
    }

    /// How many places there are, taken or not.
    pub(super) fn places(&self) -> usize {
        self.slots.len()
    }

    /// The key of what lives at a place.
    pub(super) fn key_at(&self, place: usize) -> Option<Key> {
        let slot = self.slots.get(place)?;
        slot.1.as_ref()?;
        Some(Key(u64::from(slot.0) << 32 | place as u64))
    }

    pub(super) fn keys(&self) -> Vec<Key> {
        (0..self.places()).filter_map(|place| self.key_at(place)).collect()
    }
}
