use std::collections::BTreeMap;
use std::fmt;

use siphon_wire::types::SnapId;
use siphon_wire::{Decode, DecodeError, Decoder, Encode, Encoder};

/// A set of snapshots, as ranges (`interval_set<snapid_t>`).
///
/// ```
/// use siphon_osdmap::SnapSet;
/// use siphon_wire::types::SnapId;
/// let mut set: SnapSet = [(SnapId(3), 4)].into_iter().collect();
/// set.union(&[(SnapId(7), 2)].into_iter().collect());
/// assert!(set.contains(SnapId(8)) && !set.contains(SnapId(9)));
/// assert_eq!(set.ranges().collect::<Vec<_>>(), [(SnapId(3), 6)]);
/// ```
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct SnapSet {
    /// First snapshots, and how many follow each, itself among them. A peer's may overlap or be empty;
    /// ours don't and aren't.
    ranges: BTreeMap<u64, u64>,
}

impl SnapSet {
    /// No snapshot.
    pub const fn new() -> Self {
        Self { ranges: BTreeMap::new() }
    }

    /// Whether there is no snapshot.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Whether a snapshot is in the set.
    pub fn contains(&self, snap: SnapId) -> bool {
        let before = self.ranges.range(..=snap.0).next_back();
        before.is_some_and(|(start, length)| snap.0 - start < *length)
    }

    /// The ranges: the first snapshot, and how many there are.
    pub fn ranges(&self) -> impl Iterator<Item = (SnapId, u64)> {
        self.ranges.iter().map(|(start, length)| (SnapId(*start), *length))
    }

    /// Adds the snapshots of another set.
    pub fn union(&mut self, other: &Self) {
        for (start, length) in &other.ranges {
            self.insert(*start, *length);
        }
    }

    /// Takes away the snapshots of another set.
    pub fn subtract(&mut self, other: &Self) {
        for (start, length) in &other.ranges {
            self.remove(*start, start.saturating_add(*length));
        }
    }

    fn insert(&mut self, mut start: u64, length: u64) {
        if length == 0 {
            return;
        }
        let mut end = start.saturating_add(length);
        // Those that begin before its end, from the last: where one ends before its start, so do all
        // that begin earlier.
        while let Some((first, length)) = self.ranges.range(..=end).next_back() {
            let (first, last) = (*first, first.saturating_add(*length));
            if last < start {
                break;
            }
            (start, end) = (start.min(first), end.max(last));
            self.ranges.remove(&first);
        }
        self.ranges.insert(start, end - start);
    }

    fn remove(&mut self, start: u64, end: u64) {
        while let Some((first, length)) = self.ranges.range(..end).next_back() {
            let (first, last) = (*first, first.saturating_add(*length));
            if last <= start {
                break;
            }
            self.ranges.remove(&first);
            if last > end {
                self.ranges.insert(end, last - end);
            }
            if first < start {
                self.ranges.insert(first, start - first);
            }
        }
    }
}

impl FromIterator<(SnapId, u64)> for SnapSet {
    fn from_iter<I: IntoIterator<Item = (SnapId, u64)>>(ranges: I) -> Self {
        let mut set = Self::new();
        ranges.into_iter().for_each(|(start, length)| set.insert(start.0, length));
        set
    }
}

/// As Ceph shows it: `[3~6,b~1]`, in hexadecimal.
impl fmt::Display for SnapSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (index, (start, length)) in self.ranges.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{start:x}~{length:x}")?;
        }
        f.write_str("]")
    }
}

impl fmt::Debug for SnapSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Encode for SnapSet {
    fn encode(&self, enc: &mut Encoder) {
        enc.value(&self.ranges);
    }
}

impl Decode for SnapSet {
    const MIN_SIZE: usize = 4;

    fn decode(dec: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        dec.typed("interval_set", |dec| Ok(Self { ranges: dec.value()? }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(ranges: &[(u64, u64)]) -> SnapSet {
        ranges.iter().map(|(start, length)| (SnapId(*start), *length)).collect()
    }

    #[test]
    fn ranges_join_and_part_as_single_snapshots_would() {
        for a in 0..8_u64 {
            for b in 0..8_u64 {
                let mut union = set(&[(2, 2), (6, 1)]);
                union.union(&set(&[(a, b)]));
                let mut rest = set(&[(2, 2), (6, 1)]);
                rest.subtract(&set(&[(a, b)]));
                for snap in 0..20 {
                    let (own, other) = ([2, 3, 6].contains(&snap), (a..a + b).contains(&snap));
                    assert_eq!(union.contains(SnapId(snap)), own || other, "{snap} in {union}");
                    assert_eq!(rest.contains(SnapId(snap)), own && !other, "{snap} in {rest}");
                }
            }
        }
        assert_eq!(set(&[(1, 1), (2, 1), (3, 1)]).to_string(), "[1~3]");
        assert_eq!(set(&[(10, 2)]).to_string(), "[a~2]");
    }

    #[test]
    fn the_last_snapshots_do_not_overflow() {
        let mut all = set(&[(u64::MAX - 1, u64::MAX)]);
        all.union(&set(&[(5, u64::MAX)]));
        all.subtract(&set(&[(u64::MAX - 3, u64::MAX)]));
        assert!(all.contains(SnapId(5)) && !all.contains(SnapId(u64::MAX - 2)));
    }
}
