//! A child by fork(2), which shares the parent's pages until one of them writes.
#![allow(unsafe_code, reason = "Command does not fork: its child has no pages of its own")]

use std::io::{PipeWriter, Read, pipe};
use std::os::fd::AsRawFd;

/// Whether libibverbs leaves it to the kernel to give each process its pages at a fork
/// (`IBV_FORK_UNNEEDED`), so that `ibv_fork_init` does nothing.
pub(crate) fn kernel_copies() -> bool {
    const UNNEEDED: libc::c_int = 2;
    // SAFETY: the library is loaded already, and stays; the function takes nothing and returns an
    // enum of C, as <infiniband/verbs.h> has it.
    unsafe {
        let library = libc::dlopen(c"libibverbs.so.1".as_ptr(), libc::RTLD_NOW);
        let function = libc::dlsym(library, c"ibv_is_fork_initialized".as_ptr());
        assert!(!function.is_null(), "libibverbs has had it since version 35");
        let is_initialized =
            std::mem::transmute::<*mut libc::c_void, extern "C" fn() -> libc::c_int>(function);
        is_initialized() == UNNEEDED
    }
}

/// A process that stays until it is let go.
pub(crate) struct Child {
    id: libc::pid_t,
    stay: PipeWriter,
}

impl Child {
    /// Forks. The child writes to its memory at `touched`, if it has any there, and then stays.
    pub(crate) fn that_writes(touched: &mut [&mut [u8]]) -> Self {
        let (mut is_done, done) = pipe().unwrap();
        let (stayed, stay) = pipe().unwrap();
        // SAFETY: other threads may hold locks, so the child allocates nothing, calls only what
        // signal-safety(7) lists, and never returns. Where memory was kept from it, SIGSEGV ends it.
        let id = unsafe { libc::fork() };
        assert!(id >= 0, "{}", std::io::Error::last_os_error());
        if id == 0 {
            // SAFETY: as above; the descriptors and buffers are valid.
            unsafe {
                libc::close(stay.as_raw_fd());
                for bytes in touched {
                    for byte in bytes.iter_mut() {
                        std::ptr::write_volatile(byte, 0xcc);
                    }
                }
                libc::write(done.as_raw_fd(), [1_u8].as_ptr().cast(), 1);
                libc::read(stayed.as_raw_fd(), [0_u8].as_mut_ptr().cast(), 1);
                libc::_exit(0);
            }
        }
        drop((done, stayed));
        // Nothing comes of a child that SIGSEGV ended.
        let _ = is_done.read(&mut [0]).unwrap();
        Self { id, stay }
    }

    /// Lets it go, and returns the signal that had ended it before that.
    pub(crate) fn signal(self) -> Option<i32> {
        drop(self.stay);
        let mut status = 0;
        // SAFETY: it is a child of ours for which nobody has waited.
        let id = unsafe { libc::waitpid(self.id, &raw mut status, 0) };
        assert_eq!(id, self.id, "{}", std::io::Error::last_os_error());
        libc::WIFSIGNALED(status).then(|| libc::WTERMSIG(status))
    }
}
