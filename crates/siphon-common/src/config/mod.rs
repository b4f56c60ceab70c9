//! Ceph's options: one typed table, and the ways in which a user sets them.
//!
//! The table stands in one place (`table.rs`); [`Config`] has a typed field for each of its rows.
//! Names, defaults, units and ranges are Ceph's own (`src/common/options.cc`, 16.2.7).
//!
//! ```
//! use siphon_common::Config;
//!
//! let mut config = Config::default();
//! config.set("ms_tcp_rcvbuf", "64K")?;
//! assert_eq!(config.ms_tcp_rcvbuf, 64 << 10);
//!
//! let error = config.set("ms_asynch_op_threads", "4").unwrap_err();
//! assert!(error.to_string().contains("ms_async_op_threads"));
//! # Ok::<(), siphon_common::ConfigError>(())
//! ```

mod args;
mod changes;
mod check;
mod conf_file;
mod error;
mod identity;
mod info;
mod known;
mod load;
mod metavariables;
mod table;
mod value;
mod values;

pub(crate) use args::injected;
pub use changes::OptionDiff;
pub use conf_file::{ConfFile, ConfLine, MAX_FILE_BYTES};
pub use error::{ConfigError, SyntaxRule, ValueError};
pub(crate) use info::is_of_monitors;
pub use info::{OptionInfo, OptionLevel};
pub use load::{ConfigLoader, ConfigWarning, Loaded};
pub use table::Config;
pub use value::{DebugLevels, OptionKind};
pub use values::{Place, Setting, Source};
