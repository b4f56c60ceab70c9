//! Two entities that connect to each other, send, and lose their links, in any order.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| siphon_fuzz::operations::run(data));
