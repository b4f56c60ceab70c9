//! A deterministic simulator. [`net`] is its network: a [`siphon_net::Driver`] whose time is
//! virtual and whose every latency, piece of bytes and fault comes from one seed.
#![forbid(unsafe_code)]

pub mod net;
