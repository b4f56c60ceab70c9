use std::fmt;
use std::str::FromStr;

/// A number for a compression algorithm, as peers send it: one of `Compressor::COMP_ALG_*` of Ceph's
/// `compressor/Compressor.h`, or one that we don't know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CompressionMethod(pub u32);

impl CompressionMethod {
    /// `COMP_ALG_NONE`.
    pub const NONE: Self = Self(0);
}

/// How bytes are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// Snappy, Ceph's default.
    Snappy,
    /// Deflate without zlib's header.
    Zlib,
    /// Zstandard.
    Zstd,
    /// LZ4 in blocks.
    Lz4,
}

/// When to compress: `ms_osd_compress_mode`, which knows these two of Ceph's four modes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Never.
    #[default]
    None,
    /// Every frame that is long enough.
    Force,
}

/// A name that no algorithm or mode has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownName(String);

/// Algorithms with their numbers on the wire and their names in options.
const ALGORITHMS: [(Algorithm, u32, &str); 4] = [
    (Algorithm::Snappy, 1, "snappy"),
    (Algorithm::Zlib, 2, "zlib"),
    (Algorithm::Zstd, 3, "zstd"),
    (Algorithm::Lz4, 4, "lz4"),
];

impl Algorithm {
    /// All that there are, in the order of their numbers.
    pub const ALL: [Self; 4] = [Self::Snappy, Self::Zlib, Self::Zstd, Self::Lz4];

    /// Ceph's name of it, as in `ms_osd_compression_algorithm`.
    pub fn name(self) -> &'static str {
        self.row().2
    }

    /// Its number.
    pub fn method(self) -> CompressionMethod {
        CompressionMethod(self.row().1)
    }

    /// The algorithm with this number, if we have it: not `COMP_ALG_NONE`, and not brotli (5), which
    /// no packaged Ceph is built with.
    pub fn from_method(method: CompressionMethod) -> Option<Self> {
        ALGORITHMS.iter().find(|(_, number, _)| *number == method.0).map(|row| row.0)
    }

    /// A list as `ms_osd_compression_algorithm` has it, the preferred one first: names between
    /// commas, semicolons, equals signs or blanks.
    ///
    /// # Errors
    /// If it has a name that no algorithm has, which Ceph leaves out with a line in its log.
    pub fn list(names: &str) -> Result<Vec<Self>, UnknownName> {
        let names = names.split([';', ',', '=', ' ', '\t']).filter(|name| !name.is_empty());
        names.map(str::parse).collect()
    }

    fn row(self) -> &'static (Self, u32, &'static str) {
        &ALGORITHMS[self as usize]
    }
}

impl FromStr for Algorithm {
    type Err = UnknownName;

    fn from_str(name: &str) -> Result<Self, UnknownName> {
        let row = ALGORITHMS.iter().find(|row| row.2 == name);
        row.map(|row| row.0).ok_or_else(|| UnknownName(name.to_owned()))
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Mode {
    type Err = UnknownName;

    fn from_str(name: &str) -> Result<Self, UnknownName> {
        match name {
            "none" => Ok(Self::None),
            "force" => Ok(Self::Force),
            _ => Err(UnknownName(name.to_owned())),
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Force => "force",
        })
    }
}

impl fmt::Display for CompressionMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Algorithm::from_method(*self) {
            Some(algorithm) => algorithm.fmt(f),
            None if *self == Self::NONE => f.write_str("none"),
            None => write!(f, "number {}", self.0),
        }
    }
}

impl fmt::Display for UnknownName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is no way to compress that we know", self.0)
    }
}

impl std::error::Error for UnknownName {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_those_of_ceph() {
        let shown = Algorithm::ALL.map(|algorithm| (algorithm.method().0, algorithm.name()));
        assert_eq!(shown, [(1, "snappy"), (2, "zlib"), (3, "zstd"), (4, "lz4")]);
        for algorithm in Algorithm::ALL {
            assert_eq!(algorithm.name().parse(), Ok(algorithm));
            assert_eq!(Algorithm::from_method(algorithm.method()), Some(algorithm));
        }
        assert_eq!([0, 5, 9].map(|n| Algorithm::from_method(CompressionMethod(n))), [None; 3]);
        assert_eq!("Snappy".parse::<Algorithm>(), Err(UnknownName("Snappy".to_owned())));
        let both = vec![Algorithm::Zstd, Algorithm::Lz4];
        assert_eq!(Algorithm::list("zstd, lz4"), Ok(both));
        assert_eq!(Algorithm::list(" ;"), Ok(vec![]));
        assert!(Algorithm::list("zstd,lzo").is_err());
        assert_eq!(CompressionMethod(5).to_string(), "number 5");
    }

    #[test]
    fn modes_have_two_names() {
        for mode in [Mode::None, Mode::Force] {
            assert_eq!(mode.to_string().parse(), Ok(mode));
        }
        assert!("aggressive".parse::<Mode>().is_err(), "a mode of bluestore's");
    }
}
