//! The messages, each in a file of its name in Ceph.

mod mauth;
mod mauthreply;
mod mcommand;
mod mcommandreply;
mod mconfig;
mod mgetpoolstats;
mod mgetpoolstatsreply;
mod mmgrcommand;
mod mmgrcommandreply;
mod mmgrmap;
mod mmoncommand;
mod mmoncommandack;
mod mmongetmap;
mod mmongetversion;
mod mmongetversionreply;
mod mmonmap;
mod mmonsubscribe;
mod mmonsubscribeack;
mod mosdbackoff;
mod mosdmap;
mod mosdop;
mod mosdopreply;
mod mping;
mod mpoolop;
mod mpoolopreply;
mod mstatfs;
mod mstatfsreply;
mod mwatchnotify;

pub use mauth::MAuth;
pub use mauthreply::MAuthReply;
pub use mcommand::MCommand;
pub use mcommandreply::MCommandReply;
pub use mconfig::MConfig;
pub use mgetpoolstats::MGetPoolStats;
pub use mgetpoolstatsreply::MGetPoolStatsReply;
pub use mmgrcommand::MMgrCommand;
pub use mmgrcommandreply::MMgrCommandReply;
pub use mmgrmap::MMgrMap;
pub use mmoncommand::MMonCommand;
pub use mmoncommandack::MMonCommandAck;
pub use mmongetmap::MMonGetMap;
pub use mmongetversion::MMonGetVersion;
pub use mmongetversionreply::MMonGetVersionReply;
pub use mmonmap::MMonMap;
pub use mmonsubscribe::{MMonSubscribe, SubscribeItem};
pub use mmonsubscribeack::MMonSubscribeAck;
pub use mosdbackoff::MOSDBackoff;
pub use mosdmap::MOSDMap;
pub use mosdop::MOSDOp;
pub use mosdopreply::MOSDOpReply;
pub use mping::MPing;
pub use mpoolop::{MPoolOp, PoolOpCode};
pub use mpoolopreply::MPoolOpReply;
pub use mstatfs::MStatfs;
pub use mstatfsreply::MStatfsReply;
pub use mwatchnotify::MWatchNotify;

use siphon_proto::Front;
use siphon_wire::{DecodeError, DecodeErrorKind, Decoder, Encoder};

/// Reads `front` to its last byte.
fn decode_front<T>(
    front: &Front,
    name: &'static str,
    body: impl FnOnce(&mut Decoder<'_>) -> Result<T, DecodeError>,
) -> Result<T, DecodeError> {
    let mut dec = Decoder::named(name, front);
    let value = body(&mut dec)?;
    dec.finish()?;
    Ok(value)
}

/// What every message to the monitors' services begins with (`paxos_encode` of Ceph's
/// `messages/PaxosServiceMessage.h`): a version, and what nobody reads any more.
fn put_paxos(enc: &mut Encoder, version: u64) {
    enc.u64(version);
    enc.i16(-1); // deprecated_session_mon
    enc.u64(0); // deprecated_session_mon_tid
}

fn paxos_version(dec: &mut Decoder<'_>) -> Result<u64, DecodeError> {
    let version = dec.u64()?;
    dec.skip(2 + 8)?;
    Ok(version)
}

/// Refuses versions outside of `oldest..=newest`. Unlike a versioned section, a message's front
/// may gain fields in its middle, so a version that is not known cannot be read at all.
fn check_version(
    dec: &Decoder<'_>,
    version: u16,
    oldest: u8,
    newest: u8,
) -> Result<(), DecodeError> {
    let version = u8::try_from(version).unwrap_or(u8::MAX);
    if version < oldest {
        return Err(dec.error(DecodeErrorKind::TooOld { version, oldest }));
    }
    if version > newest {
        let kind = DecodeErrorKind::TooNew { compat: version, understood: newest };
        return Err(dec.error(kind));
    }
    Ok(())
}
