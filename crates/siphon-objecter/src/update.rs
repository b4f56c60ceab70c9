//! Maps that came, read where nobody waits for it.

use std::collections::BTreeMap;
use std::error::Error;

use bytes::Bytes;
use siphon_messages::MOSDMap;
use siphon_osdmap::{Incremental, OsdMap};
use siphon_wire::types::{CephFsid, Epoch};
use siphon_wire::{Decode, DecodeError};

/// The maps of a message.
pub(crate) struct MapUpdate {
    pub(crate) fsid: CephFsid,
    incrementals: BTreeMap<Epoch, Part<Incremental>>,
    maps: BTreeMap<Epoch, Part<OsdMap>>,
}

enum Part<T> {
    Encoded(Bytes),
    Read(Result<Box<T>, DecodeError>),
}

impl<T: Decode> Part<T> {
    fn read(&mut self) {
        if let Self::Encoded(bytes) = self {
            *self = Self::Read(T::from_bytes(bytes).map(Box::new));
        }
    }

    fn into_read(mut self) -> Result<Box<T>, DecodeError> {
        self.read();
        match self {
            Self::Read(result) => result,
            Self::Encoded(_) => unreachable!("it was read"),
        }
    }
}

/// Who has the map of one epoch is served by another.
pub(crate) enum Step {
    /// What changed since the epoch before.
    Incremental(Box<Incremental>),
    /// All of it.
    Whole(Box<OsdMap>),
}

impl From<&MOSDMap> for MapUpdate {
    fn from(message: &MOSDMap) -> Self {
        Self {
            fsid: message.fsid,
            incrementals: encoded(&message.incremental_maps),
            maps: encoded(&message.maps),
        }
    }
}

fn encoded<T>(parts: &BTreeMap<Epoch, Bytes>) -> BTreeMap<Epoch, Part<T>> {
    parts.iter().map(|(epoch, bytes)| (*epoch, Part::Encoded(bytes.clone()))).collect()
}

impl MapUpdate {
    /// The last epoch in it; 0 if it has none.
    pub(crate) fn last(&self) -> Epoch {
        let last = [self.incrementals.keys().next_back(), self.maps.keys().next_back()];
        last.into_iter().flatten().max().copied().unwrap_or_default()
    }

    /// Reads what who has the map of epoch `have` will take, as far as is known: what is not read yet is
    /// read when it is taken.
    pub(crate) fn read_after(&mut self, mut have: Epoch) {
        while let Some((epoch, whole)) = self.next(have) {
            match (whole, self.incrementals.get_mut(&epoch), self.maps.get_mut(&epoch)) {
                (false, Some(part), _) => part.read(),
                (true, _, Some(part)) => part.read(),
                _ => return,
            }
            have = epoch;
        }
    }

    /// Which step comes after epoch `have`, and whether it is a whole map.
    fn next(&self, have: Epoch) -> Option<(Epoch, bool)> {
        let next = Epoch(have.0.wrapping_add(1));
        if have.0 == 0 {
            // The first map may be any; the newest is the one that is of use.
            return self.maps.keys().next_back().map(|epoch| (*epoch, true));
        }
        if self.incrementals.contains_key(&next) {
            return Some((next, false));
        }
        self.maps.range(next..).next().map(|(epoch, _)| (*epoch, true))
    }

    /// Takes the step after epoch `have`, and which epoch it leads to; `None` if there is none.
    ///
    /// # Errors
    /// It cannot be read, or is not of the epoch that it came as.
    pub(crate) fn take_after(
        &mut self,
        have: Epoch,
    ) -> Result<Option<(Epoch, Step)>, Box<dyn Error>> {
        let Some((epoch, whole)) = self.next(have) else { return Ok(None) };
        if !whole {
            let part = self.incrementals.remove(&epoch);
            let read = part.map(Part::into_read).transpose()?;
            return Ok(read.map(|incremental| (epoch, Step::Incremental(incremental))));
        }
        let Some(map) = self.maps.remove(&epoch).map(Part::into_read).transpose()? else {
            return Ok(None);
        };
        if map.epoch != epoch {
            let came = map.epoch;
            return Err(format!("a map of epoch {came} came as that of epoch {epoch}").into());
        }
        Ok(Some((epoch, Step::Whole(map))))
    }
}

#[cfg(test)]
mod tests {
    use siphon_wire::Encode as _;
    use siphon_wire::types::Features;

    use super::*;

    fn update(incrementals: &[u32], maps: &[u32]) -> MapUpdate {
        let mut message = MOSDMap::default();
        for &epoch in incrementals {
            let incremental = Incremental { epoch: Epoch(epoch), ..Incremental::default() };
            let bytes = incremental.to_bytes(Features::ALL);
            message.incremental_maps.insert(Epoch(epoch), bytes);
        }
        for &epoch in maps {
            let map = OsdMap { epoch: Epoch(epoch), ..OsdMap::default() };
            message.maps.insert(Epoch(epoch), map.to_bytes(Features::ALL));
        }
        MapUpdate::from(&message)
    }

    /// The epochs that are taken, whole maps with an `m`; and whether each was read before.
    fn taken(update: &mut MapUpdate, mut have: u32) -> (String, bool) {
        let (mut steps, mut before) = (String::new(), true);
        while let Some((epoch, whole)) = update.next(Epoch(have)) {
            before &= match whole {
                true => matches!(update.maps[&epoch], Part::Read(_)),
                false => matches!(update.incrementals[&epoch], Part::Read(_)),
            };
            let (epoch, step) = update.take_after(Epoch(have)).unwrap().unwrap();
            let kind = if matches!(step, Step::Whole(_)) { "m" } else { "" };
            steps += &format!("{kind}{epoch} ");
            have = epoch.0;
        }
        (steps, before)
    }

    #[test]
    fn what_will_be_taken_is_read_before() {
        for (incrementals, maps, have, steps) in [
            (&[2, 3][..], &[1][..], 0, "m1 2 3 "),
            (&[2, 3], &[1, 3], 0, "m3 "),
            (&[2, 3, 6], &[1, 5], 1, "2 3 m5 6 "),
            (&[2, 3], &[1], 3, ""),
            (&[9], &[], 3, ""),
            (&[], &[], 0, ""),
        ] {
            let mut ready = update(incrementals, maps);
            ready.read_after(Epoch(have));
            assert_eq!(taken(&mut ready, have), (steps.to_owned(), true));
            // Nor is what was not expected lost.
            let mut other = update(incrementals, maps);
            other.read_after(Epoch(7));
            assert_eq!(taken(&mut other, have).0, steps);
        }
    }

    #[test]
    fn what_is_damaged_or_of_another_epoch_is_an_error() {
        let mut bad = update(&[2], &[]);
        bad.incrementals.insert(Epoch(2), Part::Encoded(Bytes::from_static(b"no map")));
        bad.read_after(Epoch(1));
        assert!(bad.take_after(Epoch(1)).is_err());
        let mut other = update(&[], &[3]);
        let three = other.maps.remove(&Epoch(3)).unwrap();
        other.maps.insert(Epoch(4), three);
        let error = other.take_after(Epoch(0)).map(drop).unwrap_err();
        assert_eq!(error.to_string(), "a map of epoch 3 came as that of epoch 4");
    }
}
