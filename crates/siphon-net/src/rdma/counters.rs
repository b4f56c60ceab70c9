use std::ops::Add;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

macro_rules! counters {
    (counters { $($name:ident $doc:literal,)* } gauges { $($gauge:ident $gauge_doc:literal,)* }) => {
        /// Of a worker. A chunk may be given back by another thread.
        #[derive(Debug, Default)]
        pub(super) struct RdmaCounters {
            $(pub(super) $name: AtomicU64,)*
            $(pub(super) $gauge: AtomicI64,)*
        }

        /// What an RDMA stack, or one of its workers, did until a time: `AsyncMessenger::RDMADispatcher` and `RDMAWorker` of
        /// Ceph, whose names these are where Ceph has them.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct RdmaCounts {
            $(#[doc = $doc] pub $name: u64,)*
            $(#[doc = $gauge_doc] pub $gauge: i64,)*
        }

        impl RdmaCounters {
            pub(super) fn counts(&self) -> RdmaCounts {
                RdmaCounts {
                    $($name: self.$name.load(Ordering::Relaxed),)*
                    $($gauge: self.$gauge.load(Ordering::Relaxed),)*
                }
            }
        }

        impl Add for RdmaCounts {
            type Output = Self;

            fn add(self, other: Self) -> Self {
                Self {
                    $($name: self.$name + other.$name,)*
                    $($gauge: self.$gauge + other.$gauge,)*
                }
            }
        }

        impl RdmaCounts {
            /// Of each counter, in the order of [`iter`](Self::iter): its name, what it counts, and whether
            /// it goes up and down.
            pub const FIELDS: &[(&str, &str, bool)] = &[
                $((stringify!($name), $doc, false),)*
                $((stringify!($gauge), $gauge_doc, true),)*
            ];

            /// Each counter by its name.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, i64)> {
                let counts = [$((stringify!($name), self.$name as i64),)*];
                counts.into_iter().chain([$((stringify!($gauge), self.$gauge),)*])
            }
        }
    };
}

counters! {
    counters {
        created_queue_pair "Queue pairs that were made.",
        handshake_errors "Connections that failed before they stood.",
        tx_total_wc "Completions of sends.",
        tx_total_wc_errors "Those that failed.",
        tx_retry_errors "Those that a peer did not answer.",
        tx_wr_flush_errors "Those that were flushed from a dying queue pair.",
        tx_wr "Work requests of sends.",
        tx_chunks "Chunks and registered buffers that were sent from.",
        tx_bytes "Bytes that were sent.",
        tx_copied_bytes "Bytes that were copied into chunks to be sent.",
        tx_inline_bytes "Bytes that the device copied when they were posted.",
        tx_no_mem "Times that a send had to wait for a chunk.",
        tx_parital_mem "Times that part of a send had to wait for room.",
        tx_failed_post "Sends that the device did not take.",
        rx_total_wc "Completions of receives.",
        rx_total_wc_errors "Those that failed.",
        rx_chunks "Chunks that were received.",
        rx_bytes "Bytes that were received.",
        rx_copied_bytes "Bytes that were copied out of chunks, as these ran short.",
        rx_fin "Ends that peers told.",
        rx_bufs_total "Chunks that are registered to receive into.",
        polling "Times that a worker polled and found nothing, before it slept.",
        total_async_events "Asynchronous events.",
        async_last_wqe_events "Those by which a dying queue pair left its shared receive queue.",
    }
    gauges {
        active_queue_pair "Queue pairs that there are.",
        inflight_tx_chunks "Chunks that are being sent from.",
        rx_bufs_in_use "Chunks that were received and that somebody still has.",
        pending_sent_conns "Connections that wait for a chunk, or room, to send more.",
    }
}

/// Adds to one.
pub(super) fn add(counter: &AtomicU64, count: usize) {
    counter.fetch_add(count as u64, Ordering::Relaxed);
}
