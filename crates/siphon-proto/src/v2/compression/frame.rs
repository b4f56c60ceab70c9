use std::sync::Arc;

use bytes::Bytes;
use siphon_wire::buf::Rope;

use super::{Agreed, Compressor};
use crate::SessionCounters;
use crate::v2::frame::MAX_SEGMENTS;

/// Decides for every frame whether it is sent compressed, and compresses it.
///
/// As in Ceph, a frame whose segments have fewer bytes than the minimum together goes as it is, and
/// of others all segments are compressed (`TxHandler::compress` of `msg/async/compression_onwire.cc`).
/// Unlike in Ceph, a frame that would not become shorter goes as it is, too: [`FLAG_COMPRESSED`] is
/// each frame's own.
///
/// [`FLAG_COMPRESSED`]: super::FLAG_COMPRESSED
#[derive(Debug)]
pub struct FrameCompressor {
    compressor: Compressor,
    min_size: usize,
    counters: Arc<SessionCounters>,
}

impl FrameCompressor {
    /// For a link on which this was agreed; what it does is counted.
    pub fn new(agreed: Agreed, counters: Arc<SessionCounters>) -> Self {
        Self { compressor: Compressor::new(agreed.algorithm), min_size: agreed.min_size, counters }
    }

    /// The segments of a frame compressed; `None` if they go as they are. Segments that the frame
    /// does not have are empty, and those that are empty stay so: their number does not change.
    pub fn compress(&mut self, segments: &[Rope; MAX_SEGMENTS]) -> Option<[Bytes; MAX_SEGMENTS]> {
        let before: usize = segments.iter().map(Rope::len).sum();
        if before == 0 || before < self.min_size {
            return None;
        }
        let packed = self.shorter(segments, before);
        match &packed {
            None => self.counters.incompressible(1),
            Some(packed) => {
                let after: usize = packed.iter().map(Bytes::len).sum();
                self.counters.compressed(1);
                self.counters.compressed_from(before as u64);
                self.counters.compressed_to(after as u64);
            }
        }
        packed
    }

    /// Gives up what it works with: frames are not expected soon.
    pub fn release(&mut self) {
        self.compressor.release();
    }

    fn shorter(
        &mut self,
        segments: &[Rope; MAX_SEGMENTS],
        before: usize,
    ) -> Option<[Bytes; MAX_SEGMENTS]> {
        let mut packed = [const { Bytes::new() }; MAX_SEGMENTS];
        let mut after = 0;
        for (place, segment) in packed.iter_mut().zip(segments) {
            *place = self.compressor.compress(segment)?;
            after += place.len();
            if after >= before {
                return None;
            }
        }
        Some(packed)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Algorithm;
    use super::*;
    use crate::SessionCounts;

    fn segments(lengths: [usize; MAX_SEGMENTS]) -> [Rope; MAX_SEGMENTS] {
        lengths.map(|length| Bytes::from(vec![b'a'; length]).into())
    }

    #[test]
    fn the_minimum_is_of_all_segments_together() {
        for algorithm in Algorithm::ALL {
            let counters = Arc::new(SessionCounters::default());
            let agreed = Agreed { algorithm, min_size: 1024 };
            let mut frames = FrameCompressor::new(agreed, Arc::clone(&counters));
            assert_eq!(frames.compress(&segments([41, 0, 0, 982])), None);
            assert_eq!(counters.counts(), SessionCounts::default());
            let packed = frames.compress(&segments([41, 0, 0, 983])).unwrap();
            assert_eq!(packed.each_ref().map(Bytes::is_empty), [false, true, true, false]);
            let counts = counters.counts();
            assert_eq!((counts.compressed, counts.compressed_from), (1, 1024));
            assert_eq!(counts.compressed_to, packed.iter().map(|it| it.len() as u64).sum::<u64>());
        }
    }

    #[test]
    fn what_does_not_become_shorter_goes_as_it_is() {
        // Every byte once: nothing repeats.
        let noise: Bytes = (0..=255).collect();
        let segments = [Rope::from(noise), Rope::new(), Rope::new(), Rope::new()];
        for algorithm in Algorithm::ALL {
            let counters = Arc::new(SessionCounters::default());
            let agreed = Agreed { algorithm, min_size: 0 };
            let mut frames = FrameCompressor::new(agreed, Arc::clone(&counters));
            assert_eq!(frames.compress(&segments), None, "{algorithm}");
            assert_eq!(counters.counts().incompressible, 1);
            assert_eq!(counters.counts().compressed_from, 0);
        }
    }

    #[test]
    fn nothing_is_not_compressed() {
        let agreed = Agreed { algorithm: Algorithm::Snappy, min_size: 0 };
        assert_eq!(FrameCompressor::new(agreed, Arc::default()).compress(&segments([0; 4])), None);
    }
}
