//! RDMA-CM: connecting queue pairs by IP addresses.

use std::ffi::c_void;
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::Arc;

use crate::context::{CmLibrary, Verbs, set_nonblocking};
use crate::error::VerbsError;
use crate::ffi;
use crate::memory::ProtectionDomain;

/// Where connections tell what happens to them. Clones are the same.
///
/// ```no_run
/// # fn f(verbs: &siphon_verbs::Verbs) -> std::io::Result<()> {
/// use siphon_verbs::{CmEventKind, EventChannel};
///
/// let channel = EventChannel::new(verbs)?;
/// let listener = channel.create()?;
/// listener.bind("10.77.0.1:6800".parse().unwrap())?;
/// listener.listen(128)?;
/// // … when its descriptor is readable
/// while let Some(event) = channel.next_event()? {
///     if let CmEventKind::ConnectRequest { id, .. } = event.kind {
///         println!("{:?} wants to connect", id.peer_addr());
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct EventChannel(Arc<Channel>);

struct Channel {
    raw: NonNull<ffi::EventChannel>,
    verbs: Verbs,
}

// SAFETY: librdmacm may be called from several threads; the pointer is handed to it only.
unsafe impl Send for Channel {}
// SAFETY: as above.
unsafe impl Sync for Channel {}

impl EventChannel {
    /// A channel without connections.
    ///
    /// # Errors
    /// If librdmacm is missing, or what the system says.
    pub fn new(verbs: &Verbs) -> io::Result<Self> {
        let cm = verbs.cm().map_err(io::Error::other)?;
        // SAFETY: it has no arguments.
        let raw = unsafe { (cm.calls.rdma_create_event_channel)() };
        let raw = NonNull::new(raw).ok_or_else(|| VerbsError::last("rdma_create_event_channel"))?;
        let channel = Self(Arc::new(Channel { raw, verbs: verbs.clone() }));
        set_nonblocking(channel.as_fd())?;
        Ok(channel)
    }

    /// An identifier, to connect or to listen with.
    ///
    /// # Errors
    /// What the system says.
    pub fn create(&self) -> Result<CmId, VerbsError> {
        let mut raw = std::ptr::null_mut();
        let create = self.0.calls().rdma_create_id;
        let context = std::ptr::null_mut();
        // SAFETY: the channel is open, and the pointer is written before it returns.
        let result = unsafe { create(self.0.raw.as_ptr(), &raw mut raw, context, ffi::PS_TCP) };
        VerbsError::check("rdma_create_id", result)?;
        let raw = NonNull::new(raw).ok_or_else(|| VerbsError::last("rdma_create_id"))?;
        Ok(CmId::own(raw, self))
    }

    /// Takes an event, if there is one. [`AsFd`] tells when.
    ///
    /// # Errors
    /// What the system says.
    pub fn next_event(&self) -> Result<Option<CmEvent>, VerbsError> {
        let mut raw = std::ptr::null_mut();
        // SAFETY: the channel is open and does not block.
        let result =
            unsafe { (self.0.calls().rdma_get_cm_event)(self.0.raw.as_ptr(), &raw mut raw) };
        if result != 0 {
            let error = VerbsError::last("rdma_get_cm_event");
            let empty = error.raw_os_error() == Some(rustix::io::Errno::AGAIN.raw_os_error());
            return if empty { Ok(None) } else { Err(error) };
        }
        // SAFETY: the event is ours until it is acknowledged.
        let event = unsafe { self.read(&*raw) };
        // SAFETY: it was got above, and is acknowledged once.
        unsafe { (self.0.calls().rdma_ack_cm_event)(raw) };
        Ok(Some(event))
    }

    /// # Safety
    /// The event's pointers have to be valid: it was got and not acknowledged yet.
    unsafe fn read(&self, raw: &ffi::CmEvent) -> CmEvent {
        let private_data = || {
            let (data, len) = (raw.conn.private_data, usize::from(raw.conn.private_data_len));
            if data.is_null() || len == 0 {
                return Vec::new();
            }
            // SAFETY: librdmacm says that so many bytes are there until the event is acknowledged.
            unsafe { std::slice::from_raw_parts(data.cast::<u8>(), len) }.to_vec()
        };
        let failed = || io::Error::from_raw_os_error(raw.status.abs());
        let kind = match raw.event {
            0 => CmEventKind::AddrResolved,
            2 => CmEventKind::RouteResolved,
            1 | 3 | 6 | 7 => CmEventKind::Failed(failed()),
            4 => match NonNull::new(raw.id) {
                Some(id) => CmEventKind::ConnectRequest {
                    id: CmId::own(id, self),
                    private_data: private_data(),
                },
                None => CmEventKind::Other(raw.event),
            },
            8 => CmEventKind::Rejected { status: raw.status, private_data: private_data() },
            9 => CmEventKind::Established { private_data: private_data() },
            10 => CmEventKind::Disconnected,
            11 => CmEventKind::DeviceRemoved,
            14 => CmEventKind::AddrChanged,
            15 => CmEventKind::TimeWaitEnded,
            other => CmEventKind::Other(other),
        };
        let of = if raw.event == 4 { raw.listen_id } else { raw.id };
        CmEvent { id: CmKey(of.addr()), kind }
    }
}

impl AsFd for EventChannel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor is open for as long as the channel.
        unsafe { BorrowedFd::borrow_raw(self.0.raw.as_ref().fd) }
    }
}

impl fmt::Debug for EventChannel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventChannel").finish_non_exhaustive()
    }
}

impl Channel {
    fn calls(&self) -> &ffi::Cm {
        let Ok(CmLibrary { calls }) = self.verbs.cm() else {
            unreachable!("a channel was made by it");
        };
        calls
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        // SAFETY: each identifier of it has a clone of the Arc, so none is left.
        unsafe { (self.calls().rdma_destroy_event_channel)(self.raw.as_ptr()) };
    }
}

/// Which identifier an event is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CmKey(usize);

/// Something that happened to a connection.
#[derive(Debug)]
pub struct CmEvent {
    /// To which identifier; of a request, the one that listens.
    pub id: CmKey,
    /// What.
    pub kind: CmEventKind,
}

/// `rdma_cm_event_type`.
#[derive(Debug)]
#[non_exhaustive]
pub enum CmEventKind {
    /// The device is known by which the address is reached.
    AddrResolved,
    /// The way to it is known.
    RouteResolved,
    /// It did not come to a connection.
    Failed(io::Error),
    /// A peer wants to connect.
    ConnectRequest {
        /// To be accepted, or dropped.
        id: CmId,
        /// What it sent along.
        private_data: Vec<u8>,
    },
    /// The peer does not want to.
    Rejected {
        /// Why, as the transport numbers it.
        status: i32,
        /// What it sent along.
        private_data: Vec<u8>,
    },
    /// The connection stands.
    Established {
        /// What the peer sent along.
        private_data: Vec<u8>,
    },
    /// The peer ended it.
    Disconnected,
    /// The device is gone.
    DeviceRemoved,
    /// The address belongs to another device now.
    AddrChanged,
    /// The numbers of the connection may be used again.
    TimeWaitEnded,
    /// One that is not known here.
    Other(u32),
}

/// What a side tells the other when it connects or accepts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnectParameters {
    /// Bytes for the other side: up to 56 on InfiniBand and RoCE, and up to 196 in an answer.
    pub private_data: Vec<u8>,
    /// Whether receives are taken from a shared queue.
    pub shared_receives: bool,
}

/// A connection by RDMA-CM, or what listens for such. Clones are the same.
#[derive(Clone)]
pub struct CmId(Arc<Id>);

struct Id {
    raw: NonNull<ffi::CmId>,
    /// The channel of its events, which [`CmId::migrate`] changes.
    channel: std::sync::Mutex<EventChannel>,
    verbs: Verbs,
}

// SAFETY: librdmacm may be called from several threads; the pointer is handed to it only.
unsafe impl Send for Id {}
// SAFETY: as above.
unsafe impl Sync for Id {}

impl CmId {
    fn own(raw: NonNull<ffi::CmId>, channel: &EventChannel) -> Self {
        let verbs = channel.0.verbs.clone();
        Self(Arc::new(Id { raw, channel: std::sync::Mutex::new(channel.clone()), verbs }))
    }

    /// What its events are marked with.
    pub fn key(&self) -> CmKey {
        CmKey(self.0.raw.as_ptr().addr())
    }

    /// Takes an address of this host; port 0 is any.
    ///
    /// # Errors
    /// What the system says, among it that no RDMA device has this address.
    pub fn bind(&self, addr: SocketAddr) -> Result<(), VerbsError> {
        let mut reuse = 1i32;
        let value = (&raw mut reuse).cast();
        // SAFETY: the identifier lives, and the option is an int.
        let result = unsafe {
            let set = self.calls().rdma_set_option;
            set(self.raw(), ffi::OPTION_ID, ffi::OPTION_ID_REUSEADDR, value, size_of::<i32>())
        };
        VerbsError::check("rdma_set_option", result)?;
        let mut addr = RawAddr::from(addr);
        // SAFETY: the identifier lives, and the address is a whole sockaddr.
        let result = unsafe { (self.calls().rdma_bind_addr)(self.raw(), addr.as_mut_ptr()) };
        VerbsError::check("rdma_bind_addr", result)
    }

    /// Listens for so many peers that were not answered yet.
    ///
    /// # Errors
    /// What the system says, among it that the address is in use.
    pub fn listen(&self, backlog: u32) -> Result<(), VerbsError> {
        let backlog = i32::try_from(backlog).unwrap_or(i32::MAX);
        // SAFETY: the identifier lives.
        let result = unsafe { (self.calls().rdma_listen)(self.raw(), backlog) };
        VerbsError::check("rdma_listen", result)
    }

    /// Finds the device by which `peer` is reached, from our address `source` if one is given;
    /// [`CmEventKind::AddrResolved`] or an error follows.
    ///
    /// # Errors
    /// What the system says at once.
    pub fn resolve_addr(
        &self,
        source: Option<SocketAddr>,
        peer: SocketAddr,
        timeout_ms: i32,
    ) -> Result<(), VerbsError> {
        let mut peer = RawAddr::from(peer);
        let mut source = source.map(RawAddr::from);
        let from = source.as_mut().map_or(std::ptr::null_mut(), RawAddr::as_mut_ptr);
        let resolve = self.calls().rdma_resolve_addr;
        // SAFETY: the identifier lives, and the addresses are whole sockaddrs.
        let result = unsafe { resolve(self.raw(), from, peer.as_mut_ptr(), timeout_ms) };
        VerbsError::check("rdma_resolve_addr", result)
    }

    /// Finds the way; [`CmEventKind::RouteResolved`] or an error follows.
    ///
    /// # Errors
    /// What the system says at once.
    pub fn resolve_route(&self, timeout_ms: i32) -> Result<(), VerbsError> {
        // SAFETY: the identifier lives.
        let result = unsafe { (self.calls().rdma_resolve_route)(self.raw(), timeout_ms) };
        VerbsError::check("rdma_resolve_route", result)
    }

    /// Marks its packets with a traffic class.
    ///
    /// # Errors
    /// What the system says.
    pub fn set_traffic_class(&self, class: u8) -> Result<(), VerbsError> {
        let mut class = class;
        let value = (&raw mut class).cast();
        // SAFETY: the identifier lives, and the option is a byte.
        let result = unsafe {
            let set = self.calls().rdma_set_option;
            set(self.raw(), ffi::OPTION_ID, ffi::OPTION_ID_TOS, value, size_of::<u8>())
        };
        VerbsError::check("rdma_set_option", result)
    }

    /// Connects its queue pair; [`CmEventKind::Established`] or an error follows.
    ///
    /// # Errors
    /// What the system says at once.
    pub fn connect(&self, parameters: &ConnectParameters) -> Result<(), VerbsError> {
        let mut raw = conn_param(parameters);
        // SAFETY: the identifier lives, and the parameters' bytes outlive the call.
        let result = unsafe { (self.calls().rdma_connect)(self.raw(), &raw mut raw) };
        VerbsError::check("rdma_connect", result)
    }

    /// Takes a peer that wants to connect, with its queue pair; [`CmEventKind::Established`] or an
    /// error follows.
    ///
    /// # Errors
    /// What the system says at once.
    pub fn accept(&self, parameters: &ConnectParameters) -> Result<(), VerbsError> {
        let mut raw = conn_param(parameters);
        // SAFETY: the identifier lives, and the parameters' bytes outlive the call.
        let result = unsafe { (self.calls().rdma_accept)(self.raw(), &raw mut raw) };
        VerbsError::check("rdma_accept", result)
    }

    /// Turns a peer away that wants to connect.
    ///
    /// # Errors
    /// What the system says.
    pub fn reject(&self, private_data: &[u8]) -> Result<(), VerbsError> {
        let len = private_data.len().min(usize::from(u8::MAX)) as u8;
        let data = private_data.as_ptr().cast::<c_void>();
        // SAFETY: the identifier lives, and so many bytes are there.
        let result = unsafe { (self.calls().rdma_reject)(self.raw(), data, len) };
        VerbsError::check("rdma_reject", result)
    }

    /// Ends a connection; the peer is told.
    ///
    /// # Errors
    /// What the system says, among it that it is ended already.
    pub fn disconnect(&self) -> Result<(), VerbsError> {
        // SAFETY: the identifier lives.
        let result = unsafe { (self.calls().rdma_disconnect)(self.raw()) };
        VerbsError::check("rdma_disconnect", result)
    }

    /// Has its events come by another channel.
    ///
    /// # Errors
    /// What the system says.
    pub fn migrate(&self, channel: &EventChannel) -> Result<(), VerbsError> {
        let mut current = self.0.channel.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let migrate = self.calls().rdma_migrate_id;
        // SAFETY: identifier and channel live; events of it are acknowledged where they are taken.
        let result = unsafe { migrate(self.raw(), channel.0.raw.as_ptr()) };
        VerbsError::check("rdma_migrate_id", result)?;
        *current = channel.clone();
        Ok(())
    }

    /// The device, once the address is resolved or a request has come.
    pub fn device(&self) -> Option<String> {
        // SAFETY: the identifier lives; its context, if there is one, is open as long.
        let device = unsafe {
            let context = self.0.raw.as_ref().verbs;
            if context.is_null() {
                return None;
            }
            (*context).device
        };
        // SAFETY: the device has a name that ends.
        let name =
            unsafe { std::ffi::CStr::from_ptr((self.0.verbs.ibv().ibv_get_device_name)(device)) };
        Some(name.to_string_lossy().into_owned())
    }

    /// Our address.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        // SAFETY: the identifier lives, and has storage for an address here.
        socket_addr(unsafe { &self.0.raw.as_ref().src_addr })
    }

    /// The peer's.
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        // SAFETY: the identifier lives, and has storage for an address here.
        socket_addr(unsafe { &self.0.raw.as_ref().dst_addr })
    }

    pub(crate) fn create_qp(
        &self,
        domain: &ProtectionDomain,
        attr: &mut ffi::QpInitAttr,
    ) -> Result<NonNull<ffi::Qp>, VerbsError> {
        // SAFETY: identifier and domain live, and the attributes are whole. librdmacm checks that they
        // are of one device.
        let result = unsafe { (self.calls().rdma_create_qp)(self.raw(), domain.raw(), attr) };
        VerbsError::check("rdma_create_qp", result)?;
        // SAFETY: the identifier lives.
        let raw = unsafe { self.0.raw.as_ref().qp };
        NonNull::new(raw).ok_or_else(|| VerbsError::last("rdma_create_qp"))
    }

    pub(crate) fn destroy_qp(&self) {
        // SAFETY: it has a queue pair, whose owner calls this once.
        unsafe { (self.calls().rdma_destroy_qp)(self.raw()) };
    }

    fn calls(&self) -> &ffi::Cm {
        let Ok(CmLibrary { calls }) = self.0.verbs.cm() else {
            unreachable!("it was made by it");
        };
        calls
    }

    fn raw(&self) -> *mut ffi::CmId {
        self.0.raw.as_ptr()
    }
}

impl fmt::Debug for CmId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CmId")
            .field("local", &self.local_addr())
            .field("peer", &self.peer_addr())
            .finish()
    }
}

impl Drop for Id {
    fn drop(&mut self) {
        if let Ok(CmLibrary { calls }) = self.verbs.cm() {
            // SAFETY: a queue pair of it has a clone of the Arc, so there is none any more; every
            // event that was taken is acknowledged.
            unsafe { (calls.rdma_destroy_id)(self.raw.as_ptr()) };
        }
    }
}

/// The retries are those of `QueuePair::connect`.
fn conn_param(parameters: &ConnectParameters) -> ffi::ConnParam {
    let data = &parameters.private_data;
    ffi::ConnParam {
        private_data: data.as_ptr().cast(),
        private_data_len: data.len().min(usize::from(u8::MAX)) as u8,
        responder_resources: 1,
        initiator_depth: 1,
        flow_control: 0,
        retry_count: 7,
        rnr_retry_count: 7,
        srq: u8::from(parameters.shared_receives),
        qp_num: 0,
    }
}

const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;

/// A `sockaddr_storage`.
struct RawAddr([u64; 16]);

impl RawAddr {
    fn as_mut_ptr(&mut self) -> *mut c_void {
        self.0.as_mut_ptr().cast()
    }
}

impl From<SocketAddr> for RawAddr {
    fn from(addr: SocketAddr) -> Self {
        let mut bytes = [0u8; 128];
        bytes[2..4].copy_from_slice(&addr.port().to_be_bytes());
        match addr {
            SocketAddr::V4(addr) => {
                bytes[..2].copy_from_slice(&AF_INET.to_ne_bytes());
                bytes[4..8].copy_from_slice(&addr.ip().octets());
            }
            SocketAddr::V6(addr) => {
                bytes[..2].copy_from_slice(&AF_INET6.to_ne_bytes());
                bytes[4..8].copy_from_slice(&addr.flowinfo().to_be_bytes());
                bytes[8..24].copy_from_slice(&addr.ip().octets());
                bytes[24..28].copy_from_slice(&addr.scope_id().to_ne_bytes());
            }
        }
        let mut words = [0; 16];
        for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(8)) {
            *word = u64::from_ne_bytes(bytes.try_into().expect("chunks of eight"));
        }
        Self(words)
    }
}

fn socket_addr(words: &[u64; 16]) -> Option<SocketAddr> {
    let mut bytes = [0; 128];
    for (bytes, word) in bytes.chunks_exact_mut(8).zip(words) {
        bytes.copy_from_slice(&word.to_ne_bytes());
    }
    let port = u16::from_be_bytes([bytes[2], bytes[3]]);
    match u16::from_ne_bytes([bytes[0], bytes[1]]) {
        AF_INET => {
            let octets: [u8; 4] = bytes[4..8].try_into().ok()?;
            Some((Ipv4Addr::from(octets), port).into())
        }
        AF_INET6 => {
            let octets: [u8; 16] = bytes[8..24].try_into().ok()?;
            Some((Ipv6Addr::from(octets), port).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_their_form_in_c() {
        for addr in ["10.77.0.1:6800", "[fe80::1]:3300", "[::1]:1"] {
            let addr: SocketAddr = addr.parse().unwrap();
            assert_eq!(socket_addr(&RawAddr::from(addr).0), Some(addr));
        }
        assert_eq!(socket_addr(&[0; 16]), None);
    }
}
