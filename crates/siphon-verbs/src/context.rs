use std::ffi::CStr;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::{Arc, OnceLock};

use crate::error::VerbsError;
use crate::ffi::{self, LoadError};
use crate::sysfs::{self, GidEntry};

/// libibverbs, and librdmacm where it is.
///
/// ```no_run
/// use siphon_verbs::Verbs;
///
/// let verbs = Verbs::load()?;
/// for device in verbs.devices()? {
///     println!("{device}");
/// }
/// let context = verbs.open("rxe0")?;
/// println!("{:?}", context.port(1)?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Verbs(Arc<Libraries>);

struct Libraries {
    ibv: ffi::Ibv,
    cm: OnceLock<Result<CmLibrary, Arc<LoadError>>>,
}

pub(crate) struct CmLibrary {
    pub(crate) calls: ffi::Cm,
}

/// What is known of a device without opening it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceInfo {
    /// Its name: `mlx5_0`, `rxe0`.
    pub name: String,
    /// That of its file in `/dev/infiniband`: `uverbs0`.
    pub file: String,
    /// Its GUID, as a number in the order of the network.
    pub guid: u64,
    /// What it speaks.
    pub transport: Transport,
}

/// What a device speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// InfiniBand or RoCE.
    InfiniBand,
    /// iWARP: RDMA over TCP, which connects by RDMA-CM only.
    Iwarp,
    /// Anything else.
    Other,
}

impl Verbs {
    /// Finds libibverbs.
    ///
    /// # Errors
    /// If it isn't there, with the package that brings it.
    pub fn load() -> Result<Self, LoadError> {
        Ok(Self(Arc::new(Libraries { ibv: ffi::Ibv::load()?, cm: OnceLock::new() })))
    }

    /// The devices there are.
    ///
    /// # Errors
    /// If the system has no verbs at all.
    pub fn devices(&self) -> Result<Vec<DeviceInfo>, VerbsError> {
        let list = self.list()?;
        Ok(list.iter().map(|device| self.info(device)).collect())
    }

    /// Opens the device of this name.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] if there is none, or what the system says.
    pub fn open(&self, name: &str) -> Result<Context, VerbsError> {
        let list = self.list()?;
        let device = list.iter().find(|device| self.info(*device).name == name);
        let Some(device) = device else {
            let known: Vec<_> = list.iter().map(|device| self.info(device).name).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            let message = format!("there is no RDMA device {name:?}; there are: {known}");
            let source = io::Error::new(io::ErrorKind::NotFound, message);
            return Err(VerbsError::new("ibv_open_device", source));
        };
        let info = self.info(device);
        // SAFETY: the device is of the list, which lives until the end of this function.
        let raw = unsafe { (self.ibv().ibv_open_device)(device) };
        let raw = NonNull::new(raw).ok_or_else(|| VerbsError::last("ibv_open_device"))?;
        Context::own(self.clone(), raw, info, Origin::Opened)
    }

    /// Opens the device of this name for connections of RDMA-CM, which has a context of its own.
    ///
    /// # Errors
    /// As of [`open`](Self::open), and if librdmacm is missing.
    pub fn open_for_cm(&self, name: &str) -> io::Result<Context> {
        let cm = self.cm().map_err(io::Error::other)?;
        let mut count = 0;
        // SAFETY: the count is written before it returns.
        let list = unsafe { (cm.calls.rdma_get_devices)(&raw mut count) };
        if list.is_null() {
            return Err(VerbsError::last("rdma_get_devices").into());
        }
        let origin = Origin::Cm(list);
        for at in 0..usize::try_from(count).unwrap_or(0) {
            // SAFETY: the list has `count` open contexts, each of a device.
            let (raw, info) = unsafe {
                let raw = *list.add(at);
                (raw, self.info((*raw).device))
            };
            if info.name == name
                && let Some(raw) = NonNull::new(raw)
            {
                return Ok(Context::own(self.clone(), raw, info, origin)?);
            }
        }
        // SAFETY: nothing of the list is used any more.
        unsafe { (cm.calls.rdma_free_devices)(list) };
        let message = format!("RDMA-CM has no device {name:?}: see `rdma link`");
        Err(io::Error::new(io::ErrorKind::NotFound, message))
    }

    /// Whether librdmacm is there.
    ///
    /// # Errors
    /// If it isn't, with the package that brings it.
    pub fn check_cm(&self) -> Result<(), Arc<LoadError>> {
        self.cm().map(|_| ())
    }

    pub(crate) fn cm(&self) -> Result<&CmLibrary, Arc<LoadError>> {
        let load = || match ffi::Cm::load() {
            Ok(calls) => Ok(CmLibrary { calls }),
            Err(error) => Err(Arc::new(error)),
        };
        self.0.cm.get_or_init(load).as_ref().map_err(Arc::clone)
    }

    pub(crate) fn ibv(&self) -> &ffi::Ibv {
        &self.0.ibv
    }

    fn list(&self) -> Result<DeviceList<'_>, VerbsError> {
        let mut count = 0;
        // SAFETY: the count is written before it returns.
        let raw = unsafe { (self.ibv().ibv_get_device_list)(&raw mut count) };
        let raw = NonNull::new(raw).ok_or_else(|| VerbsError::last("ibv_get_device_list"))?;
        Ok(DeviceList { verbs: self, raw, count: usize::try_from(count).unwrap_or(0) })
    }

    fn info(&self, device: *mut ffi::Device) -> DeviceInfo {
        // SAFETY: the device is of a list that lives, and its names are strings that end.
        let (name, file, guid, transport) = unsafe {
            let name = CStr::from_ptr((self.ibv().ibv_get_device_name)(device));
            let file = CStr::from_ptr((&raw const (*device).dev_name).cast());
            (name, file, (self.ibv().ibv_get_device_guid)(device), (*device).transport_type)
        };
        DeviceInfo {
            name: name.to_string_lossy().into_owned(),
            file: file.to_string_lossy().into_owned(),
            guid: u64::from_be(guid),
            transport: match transport {
                0 => Transport::InfiniBand,
                1 => Transport::Iwarp,
                _ => Transport::Other,
            },
        }
    }
}

impl fmt::Debug for Verbs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verbs").finish_non_exhaustive()
    }
}

impl fmt::Display for DeviceInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({:?}, GUID {:016x})", self.name, self.transport, self.guid)
    }
}

struct DeviceList<'a> {
    verbs: &'a Verbs,
    raw: NonNull<*mut ffi::Device>,
    count: usize,
}

impl DeviceList<'_> {
    fn iter(&self) -> impl Iterator<Item = *mut ffi::Device> {
        // SAFETY: libibverbs says that so many pointers are there.
        (0..self.count).map(|at| unsafe { *self.raw.as_ptr().add(at) })
    }
}

impl Drop for DeviceList<'_> {
    fn drop(&mut self) {
        // SAFETY: it came from ibv_get_device_list, and nobody else frees it.
        unsafe { (self.verbs.ibv().ibv_free_device_list)(self.raw.as_ptr()) };
    }
}

/// An open device. Clones are the same.
#[derive(Clone)]
pub struct Context(Arc<Inner>);

struct Inner {
    verbs: Verbs,
    raw: NonNull<ffi::Context>,
    info: DeviceInfo,
    origin: Origin,
}

/// Who closes it, and how.
#[derive(Clone, Copy)]
enum Origin {
    Opened,
    /// By librdmacm, as one of a list.
    Cm(*mut *mut ffi::Context),
}

// SAFETY: the functions of libibverbs may be called from several threads at once (ibv_open_device's
// family is documented as thread-safe), and `Inner` has no state of its own.
unsafe impl Send for Inner {}
// SAFETY: as above.
unsafe impl Sync for Inner {}

/// What a device allows.
#[derive(Clone, Debug)]
pub struct DeviceLimits {
    /// Its firmware's version.
    pub firmware: String,
    /// The vendor, and its number for the part.
    pub vendor: (u32, u32),
    /// Queue pairs.
    pub max_qp: u32,
    /// Work requests of one queue.
    pub max_qp_wr: u32,
    /// Pieces of memory of one work request.
    pub max_sge: u32,
    /// Completion queues.
    pub max_cq: u32,
    /// Completions in one of them.
    pub max_cqe: u32,
    /// Memory regions.
    pub max_mr: u32,
    /// Bytes of one of them.
    pub max_mr_size: u64,
    /// Shared receive queues.
    pub max_srq: u32,
    /// Work requests of one of them.
    pub max_srq_wr: u32,
    /// Ports, numbered from 1.
    pub ports: u8,
}

/// State of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortState {
    /// Nothing is connected.
    Down,
    /// Connected and not ready.
    Init,
    /// Ready, and not told to go.
    Armed,
    /// Packets go.
    Active,
    /// Anything else.
    Other,
}

/// What a port is connected by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkLayer {
    /// InfiniBand.
    InfiniBand,
    /// Ethernet: RoCE, iWARP.
    Ethernet,
    /// Not told.
    Unspecified,
}

/// Bytes of a packet's payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mtu(pub(crate) u32);

impl Mtu {
    /// 1024 bytes, which every device has.
    pub const B1024: Self = Self(3);
    /// 4096 bytes, the most that a queue pair has.
    pub const B4096: Self = Self(5);

    /// In bytes.
    pub fn bytes(self) -> u32 {
        128 << self.0
    }

    /// The MTU of so many bytes: 256, 512, 1024, 2048 or 4096, and no other.
    pub fn from_bytes(bytes: u32) -> Option<Self> {
        (1..=5).map(Self).find(|mtu| mtu.bytes() == bytes)
    }
}

/// A port of a device.
#[derive(Clone, Copy, Debug)]
pub struct PortInfo {
    /// Its state.
    pub state: PortState,
    /// What it is connected by.
    pub link_layer: LinkLayer,
    /// The longest packets now.
    pub active_mtu: Mtu,
    /// The longest packets at all.
    pub max_mtu: Mtu,
    /// Its address in an InfiniBand subnet; 0 on Ethernet.
    pub lid: u16,
    /// Entries of its table of GIDs, used or not.
    pub gids: u32,
    /// Bytes of the longest message.
    pub max_message: u32,
}

impl Context {
    fn own(
        verbs: Verbs,
        raw: NonNull<ffi::Context>,
        info: DeviceInfo,
        origin: Origin,
    ) -> Result<Self, VerbsError> {
        let context = Self(Arc::new(Inner { verbs, raw, info, origin }));
        set_nonblocking(context.as_fd()).map_err(|error| VerbsError::new("fcntl", error))?;
        Ok(context)
    }

    /// The libraries.
    pub fn verbs(&self) -> &Verbs {
        &self.0.verbs
    }

    /// Which device it is.
    pub fn device(&self) -> &DeviceInfo {
        &self.0.info
    }

    /// Whether the system still offers the device. One that is removed while it is open, and whose
    /// driver cannot take it from a program, tells nothing of it: `rdma link delete` waits until the
    /// program ends its use.
    pub fn is_offered(&self) -> bool {
        sysfs::is_offered(&self.device().file)
    }

    /// What the device allows.
    ///
    /// # Errors
    /// What the system says.
    pub fn limits(&self) -> Result<DeviceLimits, VerbsError> {
        // SAFETY: all zeros is a value of a struct of numbers.
        let mut attr: ffi::DeviceAttr = unsafe { std::mem::zeroed() };
        // SAFETY: the context is open, and the struct is as large as the library expects.
        let result = unsafe { (self.ibv().ibv_query_device)(self.raw(), &raw mut attr) };
        VerbsError::check("ibv_query_device", result)?;
        let count = |number: i32| u32::try_from(number).unwrap_or(0);
        let firmware = attr.fw_ver.split(|byte| *byte == 0).next().unwrap_or_default();
        Ok(DeviceLimits {
            firmware: String::from_utf8_lossy(firmware).into_owned(),
            vendor: (attr.vendor_id, attr.vendor_part_id),
            max_qp: count(attr.max_qp),
            max_qp_wr: count(attr.max_qp_wr),
            max_sge: count(attr.max_sge),
            max_cq: count(attr.max_cq),
            max_cqe: count(attr.max_cqe),
            max_mr: count(attr.max_mr),
            max_mr_size: attr.max_mr_size,
            max_srq: count(attr.max_srq),
            max_srq_wr: count(attr.max_srq_wr),
            ports: attr.phys_port_cnt,
        })
    }

    /// A port, numbered from 1.
    ///
    /// # Errors
    /// What the system says, among it that there is no such port.
    pub fn port(&self, number: u8) -> Result<PortInfo, VerbsError> {
        // SAFETY: all zeros is a value of a struct of numbers.
        let mut attr: ffi::PortAttr = unsafe { std::mem::zeroed() };
        // SAFETY: the context is open, and the struct at least as large as the library expects.
        let result = unsafe { (self.ibv().ibv_query_port)(self.raw(), number, &raw mut attr) };
        VerbsError::check("ibv_query_port", result)?;
        Ok(PortInfo {
            state: match attr.state {
                1 => PortState::Down,
                2 => PortState::Init,
                3 => PortState::Armed,
                4 => PortState::Active,
                _ => PortState::Other,
            },
            link_layer: match attr.link_layer {
                1 => LinkLayer::InfiniBand,
                2 => LinkLayer::Ethernet,
                _ => LinkLayer::Unspecified,
            },
            active_mtu: Mtu(u32::try_from(attr.active_mtu).unwrap_or(0).min(8)),
            max_mtu: Mtu(u32::try_from(attr.max_mtu).unwrap_or(0).min(8)),
            lid: attr.lid,
            gids: u32::try_from(attr.gid_tbl_len).unwrap_or(0),
            max_message: attr.max_msg_sz,
        })
    }

    /// The GIDs of a port that are set, with their types and network interfaces.
    ///
    /// # Errors
    /// What reading `/sys/class/infiniband` says.
    pub fn gids(&self, port: u8) -> io::Result<Vec<GidEntry>> {
        sysfs::gids(&self.0.info.name, port)
    }

    /// Takes an asynchronous event, if there is one. [`AsFd`] tells when.
    ///
    /// # Errors
    /// What the system says.
    pub fn async_event(&self) -> Result<Option<AsyncEvent>, VerbsError> {
        let mut event = ffi::AsyncEvent { element: std::ptr::null_mut(), event_type: 0 };
        // SAFETY: the context is open; its descriptor does not block.
        let result = unsafe { (self.ibv().ibv_get_async_event)(self.raw(), &raw mut event) };
        if result != 0 {
            let error = VerbsError::last("ibv_get_async_event");
            let nothing = error.raw_os_error() == Some(rustix::io::Errno::AGAIN.raw_os_error());
            return if nothing { Ok(None) } else { Err(error) };
        }
        let kind = AsyncEventKind::from_raw(event.event_type);
        let (mut qp_num, mut port) = (None, None);
        if kind.is_of_queue_pair() {
            // SAFETY: the element is a queue pair, which can't go before the event is acknowledged.
            qp_num = Some(unsafe { (*event.element.cast::<ffi::Qp>()).qp_num });
        } else if kind.is_of_port() {
            port = Some(event.element.addr() as u8); // the union's int
        }
        // SAFETY: it was got above, and is acknowledged once.
        unsafe { (self.ibv().ibv_ack_async_event)(&raw mut event) };
        Ok(Some(AsyncEvent { kind, qp_num, port }))
    }

    pub(crate) fn ibv(&self) -> &ffi::Ibv {
        self.0.verbs.ibv()
    }

    pub(crate) fn raw(&self) -> *mut ffi::Context {
        self.0.raw.as_ptr()
    }

    pub(crate) fn ops(&self) -> &ffi::ContextOps {
        // SAFETY: the context is open for as long as `self`, and its table does not change.
        unsafe { &(*self.raw()).ops }
    }
}

impl AsFd for Context {
    /// Of asynchronous events; it does not block.
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor is open for as long as the context.
        unsafe { BorrowedFd::borrow_raw((*self.raw()).async_fd) }
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Context").field(&self.0.info.name).finish()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        match self.origin {
            // SAFETY: whatever stands on it has a clone of the Arc, so nothing does any more.
            Origin::Opened => unsafe {
                (self.verbs.ibv().ibv_close_device)(self.raw.as_ptr());
            },
            Origin::Cm(list) => {
                if let Ok(cm) = self.verbs.cm() {
                    // SAFETY: it came from rdma_get_devices, and nothing of it is used any more.
                    unsafe { (cm.calls.rdma_free_devices)(list) };
                }
            }
        }
    }
}

/// What a device tells by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AsyncEvent {
    /// What happened.
    pub kind: AsyncEventKind,
    /// To which queue pair, if to one.
    pub qp_num: Option<u32>,
    /// To which port, if to one.
    pub port: Option<u8>,
}

macro_rules! async_events {
    ($($value:literal $name:ident $doc:literal,)*) => {
        /// `ibv_event_type`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum AsyncEventKind {
            $(#[doc = $doc] $name,)*
            /// One that is not known here.
            Other(u32),
        }

        impl AsyncEventKind {
            fn from_raw(raw: u32) -> Self {
                match raw {
                    $($value => Self::$name,)*
                    other => Self::Other(other),
                }
            }
        }
    };
}

async_events! {
    0 CqError "A completion queue overflowed.",
    1 QpFatal "A queue pair failed.",
    2 QpRequestError "A peer asked a queue pair for what it may not.",
    3 QpAccessError "A peer asked a queue pair for memory that it may not have.",
    4 CommunicationEstablished "A queue pair had its first packet before it was ready to send.",
    5 SendQueueDrained "What a queue pair had to send is sent.",
    8 DeviceFatal "The device is gone, or must be opened anew.",
    9 PortActive "A port's packets go.",
    10 PortError "A port is down.",
    11 LidChange "A port's address in its subnet is another.",
    12 PkeyChange "A port's table of partitions is another.",
    14 SrqError "A shared receive queue failed.",
    15 SrqLimitReached "A shared receive queue runs low.",
    16 LastWqeReached "A dying queue pair takes nothing more from its shared receive queue.",
    18 GidChange "A port's table of GIDs is another.",
}

impl AsyncEventKind {
    fn is_of_queue_pair(self) -> bool {
        matches!(
            self,
            Self::QpFatal
                | Self::QpRequestError
                | Self::QpAccessError
                | Self::CommunicationEstablished
                | Self::SendQueueDrained
                | Self::LastWqeReached
        )
    }

    fn is_of_port(self) -> bool {
        matches!(
            self,
            Self::PortActive
                | Self::PortError
                | Self::LidChange
                | Self::PkeyChange
                | Self::GidChange
        )
    }
}

/// A descriptor that does not block.
pub(crate) fn set_nonblocking(fd: BorrowedFd<'_>) -> io::Result<()> {
    let flags = rustix::fs::fcntl_getfl(fd)?;
    Ok(rustix::fs::fcntl_setfl(fd, flags | rustix::fs::OFlags::NONBLOCK)?)
}
