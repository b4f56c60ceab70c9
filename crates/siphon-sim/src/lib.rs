//! A deterministic simulator of messengers. [`net`] is its network: a [`siphon_net::Driver`] whose
//! time is virtual and whose every latency, piece of bytes and fault comes from one seed. [`world`]
//! runs real messengers over it, in one thread. [`explore`] lets them talk, breaks what can break,
//! and checks what must hold; a failing seed is [`shrink`]ed.
#![forbid(unsafe_code)]

pub mod explore;
mod ledger;
pub mod net;
mod random;
pub mod shrink;
pub mod world;
