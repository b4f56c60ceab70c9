use std::ffi::c_void;
use std::fmt;
use std::io;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::Arc;

use rustix::mm::{MapFlags, ProtFlags};

use crate::completion::WorkCompletion;
use crate::context::{Context, Verbs};
use crate::error::VerbsError;
use crate::ffi;

/// Bytes of a huge page, as most systems have them.
const HUGE_PAGE: usize = 2 << 20;
const PAGE: usize = 4096;

/// Readies libibverbs for a process that forks: registered memory is kept out of the child, so that
/// the parent's stays where the device knows it.
///
/// It belongs before the first registration. With `huge_pages`, libibverbs is told first that memory
/// may lie in them (`RDMAV_HUGEPAGES_SAFE`), else it refuses to register any. That is set in the
/// environment: a program that asks for huge pages does so before it has threads that read it by other
/// means than `std::env`, or sets the variable itself.
///
/// # Errors
/// What libibverbs says, among it that memory was registered already.
pub fn fork_init(verbs: &Verbs, huge_pages: bool) -> Result<(), VerbsError> {
    if huge_pages && std::env::var_os("RDMAV_HUGEPAGES_SAFE").is_none() {
        // SAFETY: std's own readers are locked out. That no other reads the environment at this
        // moment is what the documentation asks of the program, as Ceph relies on it.
        unsafe { std::env::set_var("RDMAV_HUGEPAGES_SAFE", "1") };
    }
    // SAFETY: it has no arguments, and may be called several times.
    VerbsError::check("ibv_fork_init", unsafe { (verbs.ibv().ibv_fork_init)() })
}

/// How many bytes this process may lock (RLIMIT_MEMLOCK), and so register; none is no limit.
pub fn memlock_limit() -> Option<u64> {
    rustix::process::getrlimit(rustix::process::Resource::Memlock).current
}

/// What memory and queues belong to together. Clones are the same.
#[derive(Clone)]
pub struct ProtectionDomain(Arc<Domain>);

struct Domain {
    raw: NonNull<ffi::Pd>,
    context: Context,
}

// SAFETY: libibverbs may be called from several threads; the pointer is only ever handed to it.
unsafe impl Send for Domain {}
// SAFETY: as above.
unsafe impl Sync for Domain {}

impl ProtectionDomain {
    /// A domain of a device.
    ///
    /// # Errors
    /// What the device says.
    pub fn new(context: &Context) -> Result<Self, VerbsError> {
        // SAFETY: the context is open.
        let raw = unsafe { (context.ibv().ibv_alloc_pd)(context.raw()) };
        let raw = NonNull::new(raw).ok_or_else(|| VerbsError::last("ibv_alloc_pd"))?;
        Ok(Self(Arc::new(Domain { raw, context: context.clone() })))
    }

    /// The device.
    pub fn context(&self) -> &Context {
        &self.0.context
    }

    /// Registers `count` chunks of `chunk_len` bytes, in one piece of memory of their own.
    ///
    /// ```no_run
    /// # fn f(domain: &siphon_verbs::ProtectionDomain) -> Result<(), siphon_verbs::VerbsError> {
    /// use siphon_verbs::PageKind;
    ///
    /// let mut chunks = domain.register(128 << 10, 64, PageKind::Usual)?;
    /// chunks[0][..5].copy_from_slice(b"hello");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// What the system says, usually that no more memory may be locked.
    ///
    /// # Panics
    /// If there are no chunks, or none of a byte.
    pub fn register(
        &self,
        chunk_len: usize,
        count: usize,
        pages: PageKind,
    ) -> Result<Vec<Chunk>, VerbsError> {
        assert!(chunk_len > 0 && count > 0, "{count} chunks of {chunk_len} bytes");
        let len = chunk_len
            .checked_mul(count)
            .filter(|_| u32::try_from(chunk_len).is_ok())
            .ok_or_else(|| VerbsError::new("mmap", io::ErrorKind::OutOfMemory.into()))?;
        let map = Map::new(len, pages).map_err(|error| VerbsError::new("mmap", error))?;
        let access = ffi::ACCESS_LOCAL_WRITE;
        let addr = map.addr.as_ptr();
        // SAFETY: the memory is ours, and stays mapped until the region is deregistered.
        let raw = unsafe { (self.ibv().ibv_reg_mr)(self.raw(), addr, map.len, access) };
        let raw = NonNull::new(raw).ok_or_else(|| VerbsError::last("ibv_reg_mr"))?;
        // SAFETY: it is the region that was just registered.
        let lkey = unsafe { raw.as_ref().lkey };
        let region = Region(Arc::new(Registered { raw, lkey, map, domain: self.clone() }));
        let chunk =
            |at: usize| Chunk { region: region.clone(), at: at * chunk_len, len: chunk_len };
        Ok((0..count).map(chunk).collect())
    }

    pub(crate) fn ibv(&self) -> &ffi::Ibv {
        self.0.context.ibv()
    }

    pub(crate) fn raw(&self) -> *mut ffi::Pd {
        self.0.raw.as_ptr()
    }

    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl fmt::Debug for ProtectionDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ProtectionDomain").field(self.context()).finish()
    }
}

impl Drop for Domain {
    fn drop(&mut self) {
        // SAFETY: whatever belongs to it has a clone of the Arc, so nothing does any more.
        let result = unsafe { (self.context.ibv().ibv_dealloc_pd)(self.raw.as_ptr()) };
        leaked("ibv_dealloc_pd", result);
    }
}

/// Logs that something could not be given back.
pub(crate) fn leaked(call: &'static str, result: i32) {
    if let Err(error) = VerbsError::check(call, result) {
        tracing::error!(%error, "leaked");
    }
}

/// What kind of pages memory lies in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PageKind {
    /// What the system gives.
    #[default]
    Usual,
    /// Huge ones, if there are any left, else usual ones.
    Huge,
}

/// Memory that the system gave us.
struct Map {
    addr: NonNull<c_void>,
    len: usize,
    huge: bool,
}

impl Map {
    fn new(len: usize, pages: PageKind) -> io::Result<Self> {
        if pages == PageKind::Huge {
            let len = len.next_multiple_of(HUGE_PAGE);
            match Self::anonymous(len, MapFlags::PRIVATE | MapFlags::HUGETLB | MapFlags::POPULATE) {
                Ok(addr) => return Ok(Self { addr, len, huge: true }),
                Err(error) => tracing::info!(
                    %error,
                    "no huge pages are left (vm.nr_hugepages): registering usual ones"
                ),
            }
        }
        let len = len.next_multiple_of(PAGE);
        Ok(Self { addr: Self::anonymous(len, MapFlags::PRIVATE)?, len, huge: false })
    }

    fn anonymous(len: usize, flags: MapFlags) -> io::Result<NonNull<c_void>> {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: new pages, wherever the system likes.
        let addr = unsafe { rustix::mm::mmap_anonymous(std::ptr::null_mut(), len, access, flags)? };
        NonNull::new(addr).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: it was mapped with this length, and nothing refers to it any more.
        if let Err(error) = unsafe { rustix::mm::munmap(self.addr.as_ptr(), self.len) } {
            tracing::error!(%error, "leaked mapped memory");
        }
    }
}

/// Registered memory, which is there for as long as there are chunks of it. Clones are the same.
#[derive(Clone)]
pub struct Region(Arc<Registered>);

/// The order is that of dropping: `map` and `domain` after what `Drop` does.
struct Registered {
    raw: NonNull<ffi::Mr>,
    lkey: u32,
    map: Map,
    domain: ProtectionDomain,
}

// SAFETY: the pointers are handed to libibverbs only, and the memory is reached through chunks, of
// which each has bytes of its own.
unsafe impl Send for Registered {}
// SAFETY: as above.
unsafe impl Sync for Registered {}

impl Region {
    /// Whether these bytes lie in it.
    pub fn contains(&self, bytes: &[u8]) -> bool {
        let (start, end) = self.range();
        let at = bytes.as_ptr().addr();
        start <= at && at + bytes.len() <= end
    }

    /// Where it begins and ends, as addresses.
    pub fn range(&self) -> (usize, usize) {
        let start = self.0.map.addr.as_ptr().addr();
        (start, start + self.0.map.len)
    }

    /// Bytes that are registered.
    pub fn len(&self) -> usize {
        self.0.map.len
    }

    /// Never: a region has bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether it lies in huge pages.
    pub fn is_huge(&self) -> bool {
        self.0.map.huge
    }

    pub(crate) fn lkey(&self) -> u32 {
        self.0.lkey
    }

    pub(crate) fn domain(&self) -> &ProtectionDomain {
        &self.0.domain
    }
}

impl fmt::Debug for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Region").field("len", &self.len()).field("huge", &self.is_huge()).finish()
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        // SAFETY: no chunk is left, so nothing of it is posted.
        let result = unsafe { (self.domain.ibv().ibv_dereg_mr)(self.raw.as_ptr()) };
        leaked("ibv_dereg_mr", result);
    }
}

/// Registered bytes, owned by whoever has this.
///
/// Invariant: no other chunk has bytes of it.
pub struct Chunk {
    region: Region,
    at: usize,
    len: usize,
}

impl Chunk {
    /// The region that it is of.
    pub fn region(&self) -> &Region {
        &self.region
    }

    /// The memory region's key and its place, for a work request.
    pub(crate) fn sge(&self, len: usize) -> ffi::Sge {
        let addr = self.as_ptr().expose_provenance() as u64;
        ffi::Sge { addr, length: len as u32, lkey: self.region.lkey() }
    }

    fn start(&self) -> *mut u8 {
        // SAFETY: `at + len` is within the mapping.
        unsafe { self.region.0.map.addr.as_ptr().cast::<u8>().add(self.at) }
    }
}

impl Deref for Chunk {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the bytes are mapped for as long as the region, initialised by the system, and
        // nobody else's; while they are a device's, the chunk is in its queue and not here.
        unsafe { std::slice::from_raw_parts(self.start(), self.len) }
    }
}

impl DerefMut for Chunk {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and the borrow is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.start(), self.len) }
    }
}

impl fmt::Debug for Chunk {
    /// Without its contents, which may be anybody's.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Chunk({} bytes)", self.len)
    }
}

/// Chunks that a device receives into, by the number of their work request.
#[derive(Debug, Default)]
pub(crate) struct InFlight {
    slots: Vec<Option<Chunk>>,
    free: Vec<u32>,
}

impl InFlight {
    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    pub(crate) fn insert(&mut self, chunk: Chunk) -> u32 {
        match self.free.pop() {
            Some(slot) => {
                self.slots[slot as usize] = Some(chunk);
                slot
            }
            None => {
                self.slots.push(Some(chunk));
                self.slots.len() as u32 - 1
            }
        }
    }

    pub(crate) fn take(&mut self, slot: u32) -> Option<Chunk> {
        let chunk = self.slots.get_mut(slot as usize)?.take()?;
        self.free.push(slot);
        Some(chunk)
    }

    pub(crate) fn into_chunks(self) -> Vec<Chunk> {
        self.slots.into_iter().flatten().collect()
    }

    pub(crate) fn complete(&mut self, done: &WorkCompletion) -> Option<Chunk> {
        self.take(done.slot())
    }
}
