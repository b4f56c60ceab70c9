//! The command line of `siphon rados`: verbs and options of Ceph's `rados`.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use siphon_wire::types::{ByteString, PgId};

use crate::cluster::ClusterArgs;
use crate::size::Size;

/// Objects in a cluster, with the verbs, options and exit codes of Ceph's rados
#[derive(Debug, clap::Args)]
#[command(args_override_self = true)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(super) cluster: ClusterArgs,
    #[command(flatten)]
    pub(super) options: Options,
    #[command(subcommand)]
    pub(super) verb: Verb,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Options")]
pub(crate) struct Options {
    /// The pool
    #[arg(short, long, global = true, value_name = "POOL", value_parser = name())]
    pub(super) pool: Option<ByteString>,
    /// Create the pool first
    #[arg(short = 'C', long, alias = "create-pool", global = true)]
    pub(super) create: bool,
    /// The pool that cp writes to
    #[arg(long, global = true, value_name = "POOL", value_parser = name())]
    pub(super) target_pool: Option<ByteString>,
    /// ls: list this placement group only
    #[arg(long, global = true, value_name = "PG")]
    pub(super) pgid: Option<PgId>,
    /// The namespace in the pool
    #[arg(short = 'N', long, global = true, value_name = "NAME", value_parser = name())]
    pub(super) namespace: Option<ByteString>,
    /// ls, cleanup: all namespaces
    #[arg(long, global = true)]
    pub(super) all: bool,
    /// ls, cleanup: the namespace without name, in spite of --all
    #[arg(long, global = true)]
    pub(super) default: bool,
    /// What places the object in place of its name
    #[arg(long, global = true, value_name = "KEY", value_parser = name())]
    pub(super) object_locator: Option<ByteString>,
    /// cp: what places the new object in place of its name
    #[arg(long, global = true, value_name = "KEY", value_parser = name())]
    pub(super) target_locator: Option<ByteString>,
    /// cp: the namespace of the new object
    #[arg(long, global = true, value_name = "NAME", value_parser = name())]
    pub(super) target_nspace: Option<ByteString>,
    /// Read at this snapshot
    #[arg(short, long, global = true, value_name = "NAME", value_parser = name())]
    pub(super) snap: Option<ByteString>,
    /// The same, by its number
    #[arg(short = 'S', long, global = true, value_name = "ID", conflicts_with = "snap")]
    pub(super) snapid: Option<u64>,
    /// Bytes of an operation of put, get, append and bench write; with K, M or G
    #[arg(short, long, global = true, value_name = "BYTES")]
    pub(super) block_size: Option<Size>,
    /// Bytes of an object of bench write
    #[arg(short = 'O', long, global = true, value_name = "BYTES")]
    pub(super) object_size: Option<Size>,
    /// put: where in the object to begin, without replacing it; get: from where on to read
    #[arg(long, global = true, value_name = "BYTES")]
    pub(super) offset: Option<Size>,
    /// Take the object's name from a file: its argument is left out
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) obj_name_file: Option<PathBuf>,
    /// Take the omap's key from a file: its argument is left out
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) omap_key_file: Option<PathBuf>,
    /// setomapval, setomapheader: take the value from a file
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) input_file: Option<PathBuf>,
    /// rm: also if the cluster or the pool is full
    #[arg(long, global = true)]
    pub(super) force_full: bool,
    /// The form of the output
    #[arg(short, long, global = true, value_enum)]
    pub(super) format: Option<Format>,
    /// The same as --format json
    #[arg(long, global = true, conflicts_with = "format")]
    pub(super) json: bool,
    /// Show JSON with line breaks
    #[arg(long, global = true)]
    pub(super) pretty_format: bool,
    /// ls, bench: write to a file
    #[arg(short, long, global = true, value_name = "FILE")]
    pub(super) output: Option<PathBuf>,
    /// bench, cleanup, purge: operations in flight
    #[arg(short = 't', long, global = true, value_name = "N", default_value = "16")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=MAX_CONCURRENT))]
    pub(super) concurrent_ios: u32,
    /// Give up on an operation that is not answered after so many seconds [default: never]
    #[arg(long, global = true, value_name = "S")]
    pub(super) op_timeout: Option<f64>,
    /// No progress bar
    #[arg(long, global = true)]
    pub(super) no_progress: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    Plain,
    Json,
    JsonPretty,
}

/// Operations that may be asked for at once; of more than `objecter_inflight_ops` the others wait.
const MAX_CONCURRENT: i64 = 1 << 16;

/// Any bytes: names in Ceph are not always text.
fn name() -> impl clap::builder::TypedValueParser<Value = ByteString> {
    use clap::builder::TypedValueParser as _;
    clap::builder::OsStringValueParser::new().map(bytes)
}

pub(super) fn bytes(text: OsString) -> ByteString {
    text.into_vec().into()
}

/// The words behind a verb: first an object, which `--obj-name-file` may give instead, and for
/// some then a key of its map, which `--omap-key-file` may give.
#[derive(Debug, clap::Args)]
pub(crate) struct Words {
    /// See the usage above; what a file gives is left out
    #[arg(value_name = "WORD")]
    pub(super) words: Vec<OsString>,
}

/// No argument of a verb may be called as an option is, since options are given anywhere.
#[derive(Debug, clap::Subcommand)]
#[command(rename_all = "lower")]
pub(crate) enum Verb {
    /// List pools
    Lspools,
    /// Show what each pool and the cluster hold
    Df,
    /// Copy all objects of a pool into another
    Cppool {
        #[arg(value_parser = name())]
        source: ByteString,
        #[arg(value_parser = name())]
        target: ByteString,
        /// Although snapshots are not copied
        #[arg(long = "yes-i-really-mean-it")]
        yes_i_really_mean_it: bool,
    },
    /// Remove all objects of a pool
    Purge {
        #[arg(value_name = "POOL", value_parser = name())]
        purged: ByteString,
        /// Although what is removed is gone for good
        #[arg(long = "yes-i-really-really-mean-it")]
        yes_i_really_really_mean_it: bool,
    },
    /// List objects
    Ls {
        /// - for standard output
        #[arg(value_name = "-")]
        stdout: Option<OsString>,
    },
    /// List the pool's snapshots
    Lssnap,
    /// Take a snapshot of the pool
    Mksnap {
        #[arg(value_name = "SNAP", value_parser = name())]
        snapshot: ByteString,
    },
    /// Remove a snapshot of the pool
    Rmsnap {
        #[arg(value_name = "SNAP", value_parser = name())]
        snapshot: ByteString,
    },
    /// Make an object what it was at a snapshot
    Rollback {
        #[arg(value_parser = name())]
        object: ByteString,
        #[arg(value_name = "SNAP", value_parser = name())]
        snapshot: ByteString,
    },
    /// List an object's states at snapshots
    #[command(override_usage = "siphon rados listsnaps -p POOL [OPTIONS] OBJECT")]
    Listsnaps(Words),
    /// Fetch an object into a file; - is standard output
    #[command(override_usage = "siphon rados get -p POOL [OPTIONS] OBJECT FILE")]
    Get(Words),
    /// Write a file into an object; - is standard input
    #[command(override_usage = "siphon rados put -p POOL [OPTIONS] OBJECT FILE")]
    Put(Words),
    /// Append a file to an object; - is standard input
    #[command(override_usage = "siphon rados append -p POOL [OPTIONS] OBJECT FILE")]
    Append(Words),
    /// Make an object so many bytes long
    #[command(override_usage = "siphon rados truncate -p POOL [OPTIONS] OBJECT BYTES")]
    Truncate(Words),
    /// Create an object; an error if it exists
    #[command(override_usage = "siphon rados create -p POOL [OPTIONS] OBJECT")]
    Create(Words),
    /// Remove objects
    #[command(override_usage = "siphon rados rm -p POOL [OPTIONS] OBJECT...")]
    Rm(Words),
    /// Copy an object; the OSDs do it
    #[command(override_usage = "siphon rados cp -p POOL [OPTIONS] OBJECT [TARGET]")]
    Cp(Words),
    /// Show an object's length and time
    #[command(override_usage = "siphon rados stat -p POOL [OPTIONS] OBJECT")]
    Stat(Words),
    /// The same, with fractions of a second
    #[command(override_usage = "siphon rados stat2 -p POOL [OPTIONS] OBJECT")]
    Stat2(Words),
    /// Change an object's time, to now or to seconds since 1970; create it if need be
    #[command(override_usage = "siphon rados touch -p POOL [OPTIONS] OBJECT [SECONDS]")]
    Touch(Words),
    /// List the names of an object's attributes
    #[command(override_usage = "siphon rados listxattr -p POOL [OPTIONS] OBJECT")]
    Listxattr(Words),
    /// Show an attribute
    #[command(override_usage = "siphon rados getxattr -p POOL [OPTIONS] OBJECT NAME")]
    Getxattr(Words),
    /// Set an attribute, to a value or to standard input
    #[command(override_usage = "siphon rados setxattr -p POOL [OPTIONS] OBJECT NAME [VALUE]")]
    Setxattr(Words),
    /// Remove an attribute
    #[command(override_usage = "siphon rados rmxattr -p POOL [OPTIONS] OBJECT NAME")]
    Rmxattr(Words),
    /// List the names in an object's map
    #[command(override_usage = "siphon rados listomapkeys -p POOL [OPTIONS] OBJECT")]
    Listomapkeys(Words),
    /// List the names and values in an object's map
    #[command(override_usage = "siphon rados listomapvals -p POOL [OPTIONS] OBJECT")]
    Listomapvals(Words),
    /// Show a value of an object's map, or write it into a file
    #[command(override_usage = "siphon rados getomapval -p POOL [OPTIONS] OBJECT KEY [FILE]")]
    Getomapval(Words),
    /// Set a value of an object's map, to one given, to standard input, or to --input-file
    #[command(override_usage = "siphon rados setomapval -p POOL [OPTIONS] OBJECT KEY [VALUE]")]
    Setomapval(Words),
    /// Remove a name from an object's map
    #[command(override_usage = "siphon rados rmomapkey -p POOL [OPTIONS] OBJECT KEY")]
    Rmomapkey(Words),
    /// Remove the maps of objects
    #[command(override_usage = "siphon rados clearomap -p POOL [OPTIONS] OBJECT...")]
    Clearomap(Words),
    /// Show what stands before an object's map, or write it into a file
    #[command(override_usage = "siphon rados getomapheader -p POOL [OPTIONS] OBJECT [FILE]")]
    Getomapheader(Words),
    /// Set what stands before an object's map
    #[command(override_usage = "siphon rados setomapheader -p POOL [OPTIONS] OBJECT VALUE")]
    Setomapheader(Words),
    /// Watch an object until Enter is pressed
    #[command(override_usage = "siphon rados watch -p POOL [OPTIONS] OBJECT")]
    Watch(Words),
    /// Notify those who watch an object
    #[command(override_usage = "siphon rados notify -p POOL [OPTIONS] OBJECT TEXT")]
    Notify(Words),
    /// List those who watch an object
    #[command(override_usage = "siphon rados listwatchers -p POOL [OPTIONS] OBJECT")]
    Listwatchers(Words),
    /// Tell how an object will be used: its bytes, and those of writes
    #[command(
        override_usage = "siphon rados set-alloc-hint -p POOL [OPTIONS] OBJECT BYTES WRITE_BYTES",
        name = "set-alloc-hint"
    )]
    SetAllocHint(Words),
    /// Advisory locks
    Lock(LockArgs),
    /// Measure: bench SECONDS write|seq|rand
    Bench(BenchArgs),
    /// Remove what bench left
    Cleanup(CleanupArgs),
}

#[derive(Debug, clap::Args)]
#[command(args_override_self = true)]
pub(crate) struct LockArgs {
    #[command(subcommand)]
    pub(super) verb: LockVerb,
    /// What all who take the lock must say alike
    #[arg(long, global = true, value_name = "TAG", value_parser = name())]
    pub(super) lock_tag: Option<ByteString>,
    /// Which of the client's owners
    #[arg(long, global = true, value_name = "COOKIE", value_parser = name())]
    pub(super) lock_cookie: Option<ByteString>,
    /// For people
    #[arg(long, global = true, value_name = "TEXT", value_parser = name())]
    pub(super) lock_description: Option<ByteString>,
    /// Seconds after which others may have it
    #[arg(long, global = true, value_name = "S")]
    pub(super) lock_duration: Option<u32>,
    /// Who may have it at once
    #[arg(long, global = true, value_enum, default_value = "exclusive")]
    pub(super) lock_type: LockType,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum LockType {
    Shared,
    Exclusive,
}

#[derive(Debug, clap::Subcommand)]
pub(super) enum LockVerb {
    /// List an object's locks
    List {
        #[arg(value_parser = name())]
        object: ByteString,
    },
    /// Show who has a lock
    Info {
        #[arg(value_parser = name())]
        object: ByteString,
        #[arg(value_parser = name())]
        lock: ByteString,
    },
    /// Take a lock
    Get {
        #[arg(value_parser = name())]
        object: ByteString,
        #[arg(value_parser = name())]
        lock: ByteString,
    },
    /// Take a lock from who has it
    Break {
        #[arg(value_parser = name())]
        object: ByteString,
        #[arg(value_parser = name())]
        lock: ByteString,
        /// As lock info shows it: client.4123
        locker: siphon_wire::types::EntityName,
    },
}

#[derive(Clone, Debug, clap::Args)]
#[command(args_override_self = true)]
pub(crate) struct BenchArgs {
    /// How long, in seconds; max goes on until it is interrupted
    #[arg(value_parser = seconds)]
    pub(super) seconds: u32,
    /// What to measure
    #[arg(value_enum)]
    pub(super) operation: BenchOperation,
    /// Leave what was written, for seq and rand
    #[arg(long)]
    pub(super) no_cleanup: bool,
    /// The object that remembers what was written
    #[arg(long, value_name = "NAME", value_parser = name())]
    pub(super) run_name: Option<ByteString>,
    /// write: at most so many objects
    #[arg(long, value_name = "N")]
    pub(super) max_objects: Option<u64>,
    /// write: over what a run before it left
    #[arg(long)]
    pub(super) reuse_bench: bool,
    /// write: tell the OSDs nothing of the objects' size
    #[arg(long)]
    pub(super) no_hints: bool,
    /// seq, rand: don't compare what is read
    #[arg(long)]
    pub(super) no_verify: bool,
    /// Begin each line with the time
    #[arg(long)]
    pub(super) show_time: bool,
    /// write: into the objects' data (the default)
    #[arg(long, visible_alias = "object")]
    pub(super) write_object: bool,
    /// write: into the objects' maps
    #[arg(long, visible_alias = "omap")]
    pub(super) write_omap: bool,
    /// write: into the objects' attributes
    #[arg(long, visible_alias = "xattr")]
    pub(super) write_xattr: bool,
}

/// Seconds of a benchmark, as Ceph's `rados` of 20.2 has them.
fn seconds(text: &str) -> Result<u32, String> {
    match text {
        "max" => Ok(u32::MAX),
        text => {
            text.parse().map_err(|_| format!("\"{text}\" is no time in whole seconds, nor max"))
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum BenchOperation {
    Write,
    Seq,
    Rand,
}

#[derive(Debug, clap::Args)]
#[command(args_override_self = true)]
pub(crate) struct CleanupArgs {
    /// The object that remembers what was written
    #[arg(long, value_name = "NAME", value_parser = name())]
    pub(super) run_name: Option<ByteString>,
    /// Remove objects whose names begin so
    #[arg(long, value_name = "TEXT", value_parser = name())]
    pub(super) prefix: Option<ByteString>,
}
