//! Network stacks by name.

use std::fmt;
use std::io;
use std::str::FromStr;
use std::sync::Arc;

use crate::driver::Driver;
use crate::error::UnknownStack;
use crate::posix::PosixDriver;

/// A way to move bytes. Several can run in one process at once.
///
/// A stack is shared by its workers' threads; each of them makes its own [`Driver`] from it.
/// What one driver of a stack accepts, each of its drivers can adopt.
pub trait NetworkStack: Send + Sync + 'static {
    /// Makes the share of one worker; called on that worker's thread.
    ///
    /// # Errors
    ///
    /// What the system says.
    fn driver(&self, worker: usize) -> io::Result<Box<dyn Driver>>;
}

/// The stacks that a configuration can name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum StackKind {
    /// The system's TCP sockets.
    #[default]
    Posix,
}

impl StackKind {
    /// All of them.
    pub const ALL: &'static [Self] = &[Self::Posix];

    /// The stack itself.
    pub fn open(self) -> Arc<dyn NetworkStack> {
        match self {
            Self::Posix => Arc::new(PosixStack),
        }
    }
}

/// Ceph's name for it, the value of `ms_type`.
impl fmt::Display for StackKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Posix => "async+posix",
        })
    }
}

/// From Ceph's `ms_type`, with or without its `async+`.
impl FromStr for StackKind {
    type Err = UnknownStack;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        match name.strip_prefix("async+").unwrap_or(name) {
            "posix" => Ok(Self::Posix),
            _ => Err(UnknownStack(name.to_owned())),
        }
    }
}

/// The stack of [`PosixDriver`]s.
#[derive(Clone, Copy, Debug, Default)]
pub struct PosixStack;

impl NetworkStack for PosixStack {
    fn driver(&self, _worker: usize) -> io::Result<Box<dyn Driver>> {
        Ok(Box::new(PosixDriver::new()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stacks_are_named_as_ceph_names_them() {
        for &kind in StackKind::ALL {
            assert_eq!(kind.to_string().parse(), Ok(kind));
        }
        assert_eq!("posix".parse(), Ok(StackKind::Posix));
        let error = "async+dpdk".parse::<StackKind>().unwrap_err();
        assert!(error.to_string().contains("async+dpdk"), "{error}");
        assert!("async+async+posix".parse::<StackKind>().is_err());
    }
}
