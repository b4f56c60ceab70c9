use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc;

use siphon_net::ListenerId;
use siphon_wire::types::{AddrType, EntityAddr, EntityAddrVec};

use crate::error::BindError;
use crate::messenger::Shared;
use crate::worker::{Listen, Mail};

/// Listens at each address, or at none. Nobody is accepted before [`Mail::Serve`].
pub(crate) fn bind(
    messenger: &Arc<Shared>,
    addrs: &[EntityAddr],
) -> Result<(EntityAddrVec, Vec<ListenerId>), BindError> {
    let mut bound = Vec::with_capacity(addrs.len());
    let mut listeners = Vec::with_capacity(addrs.len());
    for addr in addrs {
        match bind_one(messenger, addr) {
            Ok((listener, socket_addr)) => {
                listeners.push(listener);
                let addr = (*addr).with_kind(AddrType::MSGR2).with_socket_addr(socket_addr);
                bound.push(addr.with_nonce(messenger.nonce()));
            }
            Err(error) => {
                messenger.stack().listening_worker().send(Mail::Unlisten(listeners));
                return Err(error);
            }
        }
    }
    Ok((bound.into_iter().collect(), listeners))
}

fn bind_one(
    messenger: &Arc<Shared>,
    addr: &EntityAddr,
) -> Result<(ListenerId, SocketAddr), BindError> {
    let config = messenger.context().config();
    let unusable = |why| BindError::Unusable { addr: *addr, why };
    let wanted = addr.socket_addr().ok_or_else(|| unusable("it has no IP address"))?;
    match addr.kind() {
        AddrType::MSGR2 | AddrType::ANY => {}
        AddrType::LEGACY => return Err(unusable("msgr1 is not spoken; use a v2 address")),
        _ => return Err(unusable("only v2 addresses can be listened at")),
    }
    let (min, max) = (config.ms_bind_port_min, config.ms_bind_port_max);
    let ports = match (wanted.port(), min) {
        (0, 0) => 0..=0,
        (0, _) => min..=max,
        (port, _) => port..=port,
    };
    let tries = config.ms_bind_retry_count.saturating_add(1);
    for attempt in 0..tries {
        if attempt > 0 {
            tracing::info!(%addr, attempt, "the port is in use, trying again");
            std::thread::sleep(config.ms_bind_retry_delay);
        }
        for port in ports.clone() {
            match listen(messenger, SocketAddr::new(wanted.ip(), port)) {
                Ok(listening) => return Ok(listening),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                    if wanted.port() != 0 && attempt + 1 == tries {
                        return Err(BindError::Listen { addr: *addr, source: error });
                    }
                }
                Err(source) => return Err(BindError::Listen { addr: *addr, source }),
            }
        }
    }
    Err(BindError::NoFreePort { addr: *addr, min, max, tries })
}

/// One attempt, on the worker that keeps the listening sockets.
fn listen(messenger: &Arc<Shared>, addr: SocketAddr) -> io::Result<(ListenerId, SocketAddr)> {
    let (answer, answered) = mpsc::sync_channel(1);
    let listen = Listen { messenger: Arc::clone(messenger), addr, answer };
    messenger.stack().listening_worker().send(Mail::Listen(Box::new(listen)));
    answered.recv().unwrap_or_else(|_| Err(io::Error::other("the network stack has stopped")))
}
