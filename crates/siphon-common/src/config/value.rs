use std::fmt;
use std::time::Duration;

use serde_json::Value;

use super::error::ValueError;

/// An option's type, with its unit and range.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum OptionKind {
    /// Any text.
    Text,
    /// `true`, `false`, or an integer: 0 is false.
    Bool,
    /// A whole number, with Ceph's decimal suffixes: `K` is 1000.
    Integer {
        /// The least value.
        min: u64,
        /// The greatest value.
        max: u64,
    },
    /// Whole numbers, parted by blanks or commas, or nothing.
    Integers {
        /// The least value of each.
        min: u64,
        /// The greatest value of each.
        max: u64,
    },
    /// A number of bytes, with Ceph's binary suffixes: `K` and `Ki` are 1024, `B` is 1.
    Size {
        /// The least value, in bytes.
        min: u64,
        /// The greatest value, in bytes.
        max: u64,
    },
    /// A time in seconds, with or without a fraction.
    Seconds {
        /// The least value, in seconds.
        min: u64,
        /// The greatest value, in seconds.
        max: u64,
    },
    /// A time in whole seconds, or with a fraction (which Ceph does not take).
    WholeSeconds {
        /// The least value, in seconds.
        min: u64,
        /// The greatest value, in seconds.
        max: u64,
    },
    /// How likely something is: 0 never, 1 always.
    Probability,
    /// A number, with or without a fraction.
    Number {
        /// The least value.
        min: u64,
        /// The greatest value.
        max: u64,
    },
    /// The levels of a subsystem, `N` or `N/M`: see [`DebugLevels`].
    DebugLevels,
    /// Any of these words, parted by blanks or commas, or nothing.
    Words(&'static [&'static str]),
}

impl fmt::Display for OptionKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text => f.write_str("text"),
            Self::Bool => f.write_str("true or false"),
            Self::Integer { min, max } => write!(f, "an integer from {min} to {max}"),
            Self::Integers { min, max } => {
                write!(f, "integers from {min} to {max}, parted by commas, or nothing")
            }
            Self::Size { min, max } => {
                write!(f, "bytes from {min} to {max}, also as 64K, 4M, 1G")
            }
            Self::Seconds { min, max } | Self::WholeSeconds { min, max } => {
                write!(f, "seconds from {min} to {max}")
            }
            Self::Probability => f.write_str("a probability from 0 to 1"),
            Self::Number { min, max } => write!(f, "a number from {min} to {max}"),
            Self::DebugLevels => {
                write!(f, "a level from 0 to {MAX_LEVEL}, or two as 1/5: to log, and to remember")
            }
            Self::Words(words) => write!(f, "any of {}, or nothing", words.join(", ")),
        }
    }
}

impl OptionKind {
    /// Ceph's word for the type.
    pub const fn type_name(self) -> &'static str {
        match self {
            Self::Text | Self::Integers { .. } | Self::Words(_) | Self::DebugLevels => "str",
            Self::Bool => "bool",
            Self::Integer { .. } | Self::WholeSeconds { .. } => "uint",
            Self::Size { .. } => "size",
            Self::Seconds { .. } | Self::Probability | Self::Number { .. } => "float",
        }
    }

    /// A value, as it is shown, as Ceph's dumps have those of the type: true or false, a number, or text.
    pub(super) fn to_json(self, shown: &str) -> Value {
        let value = match self.type_name() {
            "bool" => shown.parse::<bool>().ok().map(Value::from),
            // Of what is whole Ceph writes no fraction.
            "uint" | "float" => {
                shown.parse::<f64>().ok().map(|number| match shown.split_once('.') {
                    Some((whole, fraction)) if fraction.bytes().all(|digit| digit == b'0') => {
                        whole.parse::<u64>().map_or(number.into(), Value::from)
                    }
                    None => shown.parse::<u64>().map_or(number.into(), Value::from),
                    _ => number.into(),
                })
            }
            _ => None,
        };
        value.unwrap_or_else(|| shown.into())
    }

    /// The least and the greatest value, if it has such.
    pub const fn range(self) -> Option<(u64, u64)> {
        match self {
            Self::Integer { min, max }
            | Self::Integers { min, max }
            | Self::Size { min, max }
            | Self::Seconds { min, max }
            | Self::WholeSeconds { min, max }
            | Self::Number { min, max } => Some((min, max)),
            Self::Probability => Some((0, 1)),
            Self::Text | Self::Bool | Self::Words(_) | Self::DebugLevels => None,
        }
    }
}

/// The highest level of a subsystem.
const MAX_LEVEL: u8 = 99;

/// What is logged of a subsystem, and what is remembered to be written if the program panics: what has
/// at most these levels. As `debug_ms = 1/5` has them; `1` alone is `1/1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct DebugLevels {
    /// Up to this level lines are logged.
    pub log: u8,
    /// Up to this level lines are kept in memory.
    pub gather: u8,
}

impl DebugLevels {
    /// To log up to `log`, and to remember up to `gather`; both at most 99.
    pub const fn new(log: u8, gather: u8) -> Self {
        Self { log, gather }
    }
}

/// A field of [`Config`](super::Config), set from text and shown as text.
pub(super) trait OptionValue {
    /// Takes the value that `text` stands for, or stays as it is.
    fn parse(&mut self, kind: OptionKind, text: &str) -> Result<(), ValueError>;
    /// The value as `parse` takes it, and as Ceph shows it.
    fn render(&self, kind: OptionKind) -> String;
}

impl OptionValue for String {
    fn parse(&mut self, kind: OptionKind, text: &str) -> Result<(), ValueError> {
        if let OptionKind::Words(words) = kind
            && !words_of(text).all(|word| words.contains(&word))
        {
            return Err(ValueError::UnknownWord);
        }
        text.clone_into(self);
        Ok(())
    }

    fn render(&self, _: OptionKind) -> String {
        self.clone()
    }
}

impl OptionValue for bool {
    fn parse(&mut self, _: OptionKind, text: &str) -> Result<(), ValueError> {
        *self = if text.eq_ignore_ascii_case("true") {
            true
        } else if text.eq_ignore_ascii_case("false") {
            false
        } else {
            text.parse::<i32>().map_err(|_| ValueError::NotABool)? != 0
        };
        Ok(())
    }

    fn render(&self, _: OptionKind) -> String {
        self.to_string()
    }
}

macro_rules! number {
    ($($type:ty)*) => {$(
        impl OptionValue for $type {
            fn parse(&mut self, kind: OptionKind, text: &str) -> Result<(), ValueError> {
                *self = Self::try_from(number(kind, text)?).map_err(|_| ValueError::OutOfRange)?;
                Ok(())
            }

            fn render(&self, _: OptionKind) -> String {
                self.to_string()
            }
        }
    )*};
}

number!(u16 u32 u64);

impl OptionValue for Vec<u32> {
    fn parse(&mut self, kind: OptionKind, text: &str) -> Result<(), ValueError> {
        let one = |word| u32::try_from(number(kind, word)?).map_err(|_| ValueError::OutOfRange);
        *self = words_of(text).map(one).collect::<Result<_, _>>()?;
        Ok(())
    }

    fn render(&self, _: OptionKind) -> String {
        self.iter().map(u32::to_string).collect::<Vec<_>>().join(",")
    }
}

/// Nothing is not set.
impl OptionValue for Option<u16> {
    fn parse(&mut self, kind: OptionKind, text: &str) -> Result<(), ValueError> {
        let mut value = 0u16;
        if !text.is_empty() {
            value.parse(kind, text)?;
        }
        *self = (!text.is_empty()).then_some(value);
        Ok(())
    }

    fn render(&self, _: OptionKind) -> String {
        self.map_or(String::new(), |value| value.to_string())
    }
}

impl OptionValue for DebugLevels {
    fn parse(&mut self, _: OptionKind, text: &str) -> Result<(), ValueError> {
        let level = |text: &str| {
            let level: u32 = text.trim().parse().map_err(|_| ValueError::NotANumber)?;
            u8::try_from(level).ok().filter(|it| *it <= MAX_LEVEL).ok_or(ValueError::OutOfRange)
        };
        let (log, gather) = text.split_once('/').unwrap_or((text, text));
        *self = Self::new(level(log)?, level(gather)?);
        Ok(())
    }

    fn render(&self, _: OptionKind) -> String {
        format!("{}/{}", self.log, self.gather)
    }
}

impl OptionValue for f64 {
    fn parse(&mut self, kind: OptionKind, text: &str) -> Result<(), ValueError> {
        let value: Self = text.parse().map_err(|_| ValueError::NotANumber)?;
        let (min, max) = match kind {
            OptionKind::Number { min, max } => (min as Self, max as Self),
            _ => (0.0, 1.0),
        };
        if !(min..=max).contains(&value) {
            return Err(ValueError::OutOfRange);
        }
        *self = value;
        Ok(())
    }

    fn render(&self, _: OptionKind) -> String {
        format!("{self:.6}")
    }
}

impl OptionValue for Duration {
    fn parse(&mut self, kind: OptionKind, text: &str) -> Result<(), ValueError> {
        let whole = match kind {
            OptionKind::WholeSeconds { .. } => number(kind, text).ok(), // 1K are 1000
            _ => None,
        };
        let seconds = match whole {
            Some(seconds) => seconds as f64,
            None => text.parse().map_err(|_| ValueError::NotANumber)?,
        };
        let time = Self::try_from_secs_f64(seconds).map_err(|_| ValueError::OutOfRange)?;
        if let Some((min, max)) = kind.range()
            && !(Self::from_secs(min)..=Self::from_secs(max)).contains(&time)
        {
            return Err(ValueError::OutOfRange);
        }
        *self = time;
        Ok(())
    }

    fn render(&self, kind: OptionKind) -> String {
        match kind {
            OptionKind::WholeSeconds { .. } => self.as_secs_f64().to_string(),
            _ => format!("{:.6}", self.as_secs_f64()),
        }
    }
}

/// The words of a list, as [`OptionKind::Words`] has it.
pub(super) fn words_of(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| c == ',' || c.is_whitespace()).filter(|word| !word.is_empty())
}

/// A number with a suffix: binary for sizes, decimal for integers (`strict_iec_cast` and
/// `strict_si_cast` of Ceph's `src/common/strtol.cc`).
fn number(kind: OptionKind, text: &str) -> Result<u64, ValueError> {
    let (step, min, max) = match kind {
        OptionKind::Size { min, max } => (1024u64, min, max),
        OptionKind::Integer { min, max }
        | OptionKind::Integers { min, max }
        | OptionKind::WholeSeconds { min, max } => (1000, min, max),
        _ => (1, 0, u64::MAX),
    };
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, suffix) = text.split_at(split);
    if digits.is_empty() {
        return Err(if text.starts_with('-') {
            ValueError::OutOfRange
        } else {
            ValueError::NotANumber
        });
    }
    // "Ki" is the same as "K", but only of sizes, and there is no "Bi".
    let suffix = match suffix.strip_suffix('i') {
        Some(letter) if step == 1024 && letter != "B" && !letter.is_empty() => letter,
        _ => suffix,
    };
    let power = match suffix {
        "" | "B" => 0,
        "K" => 1,
        "M" => 2,
        "G" => 3,
        "T" => 4,
        "P" => 5,
        "E" => 6,
        _ => return Err(ValueError::UnknownUnit),
    };
    let value = digits.parse::<u64>().ok().and_then(|n| n.checked_mul(step.pow(power)));
    value.filter(|n| (min..=max).contains(n)).ok_or(ValueError::OutOfRange)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: OptionKind = OptionKind::Size { min: 0, max: u64::MAX };
    const INTEGER: OptionKind = OptionKind::Integer { min: 0, max: u64::MAX };

    #[test]
    fn sizes_count_in_1024_and_integers_in_1000() {
        for (kind, text, want) in [
            (SIZE, "0", Ok(0)),
            (SIZE, "64K", Ok(65536)),
            (SIZE, "64Ki", Ok(65536)),
            (SIZE, "7B", Ok(7)),
            (SIZE, "16E", Err(ValueError::OutOfRange)),
            (SIZE, "99999999999999999999", Err(ValueError::OutOfRange)),
            (SIZE, "7Bi", Err(ValueError::UnknownUnit)),
            (SIZE, "7i", Err(ValueError::UnknownUnit)),
            (SIZE, "K", Err(ValueError::NotANumber)),
            (SIZE, "", Err(ValueError::NotANumber)),
            (INTEGER, "2K", Ok(2000)),
            (INTEGER, "2Ki", Err(ValueError::UnknownUnit)),
            (INTEGER, "-2", Err(ValueError::OutOfRange)),
        ] {
            assert_eq!(number(kind, text), want, "{text}");
        }
    }
}
