//! What an OSD does not want to be asked for the time being.

use std::collections::{BTreeMap, HashMap};

use siphon_messages::MOSDBackoff;
use siphon_wire::types::{HObject, SpgId};

/// Ranges of objects that an OSD wants held back in one session; an OSD that asks for more of them errs.
const MAX_BACKOFFS: usize = 1 << 16;

/// The backoffs of a session with an OSD.
#[derive(Debug, Default)]
pub(crate) struct Backoffs {
    /// By placement group and first object: the OSD's ranges of one group do not overlap.
    ranges: BTreeMap<SpgId, BTreeMap<HObject, HObject>>,
    by_id: HashMap<u64, (SpgId, HObject)>,
}

impl Backoffs {
    /// Notes what an OSD asked for; `false` if it has asked for too much.
    pub(crate) fn block(&mut self, backoff: &MOSDBackoff) -> bool {
        if self.by_id.len() >= MAX_BACKOFFS {
            return false;
        }
        let range = self.ranges.entry(backoff.pgid).or_default();
        range.insert(backoff.begin.clone(), backoff.end.clone());
        self.by_id.insert(backoff.id, (backoff.pgid, backoff.begin.clone()));
        true
    }

    /// Forgets a range; `false` if there is none of this number.
    pub(crate) fn unblock(&mut self, id: u64) -> bool {
        let Some((pgid, begin)) = self.by_id.remove(&id) else { return false };
        if let Some(ranges) = self.ranges.get_mut(&pgid) {
            ranges.remove(&begin);
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
        before.is_some_and(|(begin, end)| *begin == object || object < *end)
    }

    pub(crate) fn clear(&mut self) {
        self.ranges.clear();
        self.by_id.clear();
    }
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
            assert!(backoffs.block(&backoff(id, object("a"), object("b"))));
        }
        assert!(!backoffs.block(&backoff(u64::MAX, object("a"), object("b"))));
    }
}
