//! What stands in where io_uring cannot be had.

use std::io;
use std::sync::OnceLock;

use super::UringDriver;
use crate::driver::Driver;
use crate::posix::PosixDriver;

/// Whether the drivers of a stack are of `uring` or of `posix`: all of them, since each can adopt what
/// another accepted.
#[derive(Debug, Default)]
pub(crate) struct UringOrPosix {
    usable: OnceLock<bool>,
}

impl UringOrPosix {
    /// A driver for the calling thread. The first one decides, and the log has why it is not `uring`.
    ///
    /// # Errors
    ///
    /// Where the system has not what a driver needs, or no longer.
    pub(crate) fn driver(&self) -> io::Result<Box<dyn Driver>> {
        self.driver_by(UringDriver::new)
    }

    fn driver_by(&self, open: impl Fn() -> io::Result<UringDriver>) -> io::Result<Box<dyn Driver>> {
        let mut opened = None;
        let usable = *self.usable.get_or_init(|| match open() {
            Ok(driver) => {
                opened = Some(driver);
                true
            }
            Err(error) => {
                tracing::warn!(%error, "io_uring cannot be used: the posix stack takes its place");
                false
            }
        });
        Ok(match opened {
            Some(driver) => Box::new(driver),
            None if usable => Box::new(open()?),
            None => Box::new(PosixDriver::new()?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_io_uring_all_drivers_of_a_stack_are_posix() {
        let stack = UringOrPosix::default();
        let denied = || Err(io::Error::from_raw_os_error(libc::EPERM));
        stack.driver_by(denied).unwrap();
        // Though it could be had now.
        stack.driver_by(|| panic!("it is decided")).unwrap();
        assert_eq!(stack.usable.get(), Some(&false));
    }

    #[test]
    fn a_ring_that_one_worker_has_and_another_cannot_have_is_an_error() {
        let stack = UringOrPosix::default();
        if UringDriver::new().is_err() {
            return eprintln!("no io_uring on this machine: not tested");
        }
        stack.driver().unwrap();
        let denied = || Err(io::Error::from_raw_os_error(libc::ENOMEM));
        let error = stack.driver_by(denied).err().expect("its peers have another stack");
        assert_eq!(error.raw_os_error(), Some(libc::ENOMEM));
    }
}
