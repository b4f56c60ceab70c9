use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use futures_channel::oneshot;
use siphon_net::ListenerId;
use siphon_wire::types::{AddrType, EntityAddr, EntityAddrVec};

use crate::error::BindError;
use crate::messenger::Shared;
use crate::worker::{Listen, Mail};

/// Listens at each address, or at none. Nobody is accepted before [`Mail::Serve`].
pub(crate) async fn bind(
    messenger: &Arc<Shared>,
    addrs: &[EntityAddr],
) -> Result<(EntityAddrVec, Vec<ListenerId>), BindError> {
    let mut bound = Vec::with_capacity(addrs.len());
    let mut listeners = Vec::with_capacity(addrs.len());
    for addr in addrs {
        match bind_one(messenger, addr).await {
            Ok((listener, socket_addr)) => {
                listeners.push(listener);
                let kind = match addr.kind() {
                    AddrType::LEGACY => AddrType::LEGACY,
                    _ => AddrType::MSGR2,
                };
                let addr = (*addr).with_kind(kind).with_socket_addr(socket_addr);
                bound.push(addr.with_nonce(messenger.nonce()));
            }
            Err(error) => {
                let (done, freed) = oneshot::channel();
                messenger.stack().listening_worker().send(Mail::Unlisten(listeners, done));
                let _ = freed.await; // dropped when the ports are free, or the worker has ended
                return Err(error);
            }
        }
    }
    Ok((bound.into_iter().collect(), listeners))
}

async fn bind_one(
    messenger: &Arc<Shared>,
    addr: &EntityAddr,
) -> Result<(ListenerId, SocketAddr), BindError> {
    let config = messenger.context().config();
    let unusable = |why| BindError::Unusable { addr: *addr, why };
    let wanted = addr.socket_addr().ok_or_else(|| unusable("it has no IP address"))?;
    match addr.kind() {
        AddrType::MSGR2 | AddrType::LEGACY | AddrType::ANY => {}
        _ => return Err(unusable("only v2 and v1 addresses can be listened at")),
    }
    let (min, max) = (config.ms_bind_port_min, config.ms_bind_port_max);
    let ports = match (wanted.port(), min) {
        (0, 0) => 0..=0,
        (0, _) => min..=max,
        (port, _) => port..=port,
    };
    for port in ports {
        match listen(messenger, SocketAddr::new(wanted.ip(), port)).await {
            Ok(listening) => return Ok(listening),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && wanted.port() == 0 => {}
            Err(source) => return Err(BindError::Listen { addr: *addr, source }),
        }
    }
    Err(BindError::NoFreePort { addr: *addr, min, max, tries: 1 })
}

/// One attempt, on the worker that keeps the listening sockets.
async fn listen(messenger: &Arc<Shared>, addr: SocketAddr) -> io::Result<(ListenerId, SocketAddr)> {
    let (answer, answered) = oneshot::channel();
    let listen = Listen { messenger: Arc::clone(messenger), addr, answer };
    messenger.stack().listening_worker().send(Mail::Listen(Box::new(listen)));
    answered.await.unwrap_or_else(|_| Err(io::Error::other("the network stack has stopped")))
}
