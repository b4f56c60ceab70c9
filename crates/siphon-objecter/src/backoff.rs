//! What an OSD does not want to be asked for the time being.

use std::collections::{BTreeMap, HashMap};

use siphon_messages::MOSDBackoff;
use siphon_wire::types::{ByteString, HObject, SpgId};

/// Ranges of objects that an OSD wants held back in one session; an OSD that asks for more of them errs.
const MAX_BACKOFFS: usize = 1 << 16;
/// Bytes of the names that they begin and end with.
const MAX_BYTES: usize = 64 << 20;

/// The backoffs of a session with an OSD.
#[derive(Debug, Default)]
pub(crate) struct Backoffs {
    /// By placement group and first object: the OSD's ranges of one group do not overlap.
    ranges: BTreeMap<SpgId, BTreeMap<HObject, Range>>,
    by_id: HashMap<u64, (SpgId, HObject)>,
    bytes: usize,
}

#[derive(Debug)]
struct Range {
    end: HObject,
    id: u64,
    bytes: usize,
}

impl Backoffs {
    /// Notes what an OSD asked for; `false` if it has asked for too much.
    pub(crate) fn block(&mut self, backoff: &MOSDBackoff) -> bool {
        let MOSDBackoff { pgid, id, begin, end, .. } = backoff;
        // A number or a beginning that comes twice is that of the later one.
        self.unblock(*id);
        if let Some(before) = self.ranges.get(pgid).and_then(|ranges| ranges.get(begin)) {
            self.unblock(before.id);
        }
        let bytes = names_of(begin) + names_of(end);
        if self.by_id.len() >= MAX_BACKOFFS || self.bytes.saturating_add(bytes) > MAX_BYTES {
            return false;
        }
        self.bytes += bytes;
        let (begin, end) = (apart(begin), apart(end));
        self.by_id.insert(*id, (*pgid, begin.clone()));
        self.ranges.entry(*pgid).or_default().insert(begin, Range { end, id: *id, bytes });
        true
    }

    /// Forgets a range; `false` if there is none of this number.
    pub(crate) fn unblock(&mut self, id: u64) -> bool {
        let Some((pgid, begin)) = self.by_id.remove(&id) else { return false };
        if let Some(ranges) = self.ranges.get_mut(&pgid) {
            self.bytes -= ranges.remove(&begin).map_or(0, |range| range.bytes);
            if ranges.is_empty() {
                self.ranges.remove(&pgid);
            }
        }
        true
    }

    /// Whether an object of a placement group is held back; it is made only where that is in question.
    pub(crate) fn holds(&self, pgid: SpgId, object: impl FnOnce() -> HObject) -> bool {
        let Some(ranges) = self.ranges.get(&pgid) else { return false };
        let object = object();
        let before = ranges.range(..=&object).next_back();
        before.is_some_and(|(begin, range)| *begin == object || object < range.end)
    }

    pub(crate) fn clear(&mut self) {
        self.ranges.clear();
        self.by_id.clear();
        self.bytes = 0;
    }
}

fn names_of(object: &HObject) -> usize {
    object.oid.len() + object.key.len() + object.namespace.len()
}

/// The same, but not as parts of a message, which would be kept with them.
fn apart(object: &HObject) -> HObject {
    let mut object = object.clone();
    for name in [&mut object.oid, &mut object.key, &mut object.namespace] {
        *name = ByteString::from(&name[..]);
    }
    object
}

#[cfg(test)]
mod tests {
    use siphon_wire::types::PgId;

    use super::*;

    fn object(name: &str) -> HObject {
        HObject::new(1, name, 7)
    }

    fn pg() -> SpgId {
        PgId { pool: 1, seed: 7 }.into()
    }

    fn backoff(id: u64, begin: HObject, end: HObject) -> MOSDBackoff {
        MOSDBackoff { pgid: pg(), id, begin, end, ..MOSDBackoff::default() }
    }

    #[test]
    fn ranges_end_before_their_end_and_single_objects_are_held() {
        let mut backoffs = Backoffs::default();
        assert!(backoffs.block(&backoff(1, object("b"), object("d"))));
        assert!(backoffs.block(&backoff(2, object("f"), object("f"))));
        let held = |backoffs: &Backoffs, name: &str| backoffs.holds(pg(), || object(name));
        let names = ["a", "b", "c", "d", "e", "f", "g"];
        let all = |backoffs: &Backoffs| names.map(|name| held(backoffs, name));
        assert_eq!(all(&backoffs), [false, true, true, false, false, true, false]);
        assert!(!backoffs.holds(PgId { pool: 1, seed: 8 }.into(), || object("b")));
        assert!(backoffs.unblock(1) && !backoffs.unblock(1));
        assert_eq!(all(&backoffs), [false, false, false, false, false, true, false]);
        assert!(backoffs.unblock(2));
        assert!(backoffs.ranges.is_empty());
    }

    #[test]
    fn a_whole_placement_group_is_held() {
        let mut backoffs = Backoffs::default();
        assert!(backoffs.block(&backoff(1, HObject::min(), HObject::max())));
        assert!(backoffs.holds(pg(), || object("any")));
    }

    #[test]
    fn there_is_a_maximum() {
        let mut backoffs = Backoffs::default();
        for id in 0..MAX_BACKOFFS as u64 {
            let name = id.to_string();
            assert!(backoffs.block(&backoff(id, object(&name), object(&name))));
        }
        assert!(!backoffs.block(&backoff(u64::MAX, object("z"), object("zz"))));
    }

    #[test]
    fn what_is_used_twice_is_the_later_ones_and_takes_no_more() {
        let mut backoffs = Backoffs::default();
        let held = |backoffs: &Backoffs, name: &str| backoffs.holds(pg(), || object(name));
        for name in ["a", "c", "e"] {
            assert!(backoffs.block(&backoff(1, object(name), object(name))));
        }
        assert_eq!(["a", "c", "e"].map(|name| held(&backoffs, name)), [false, false, true]);
        assert!(backoffs.block(&backoff(2, object("e"), object("g"))));
        assert!(held(&backoffs, "f") && !backoffs.unblock(1));
        assert_eq!((backoffs.by_id.len(), backoffs.ranges[&pg()].len(), backoffs.bytes), (1, 1, 2));
        assert!(backoffs.unblock(2) && !held(&backoffs, "f"));
        assert_eq!(backoffs.bytes, 0);

        let long = "n".repeat(MAX_BYTES / 4);
        for id in 0..2 {
            let begin = object(&format!("{id}{}", &long[1..]));
            assert!(backoffs.block(&backoff(id, begin, object(&long))));
        }
        assert!(!backoffs.block(&backoff(2, object("a"), object("b"))));
    }
}
