use std::str::FromStr;

/// A number of bytes as people write it: `4096`, `4K`, `4KiB`, `64M`. Units are powers of 1024.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size(pub(crate) usize);

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("\"{text}\" is not a size; write bytes, or a number with K, M or G");
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let number: usize = number.parse().map_err(|_| bad())?;
        let factor: usize = match unit.trim().to_ascii_lowercase().as_str() {
            "" | "b" => 1,
            "k" | "kib" | "kb" => 1 << 10,
            "m" | "mib" | "mb" => 1 << 20,
            "g" | "gib" | "gb" => 1 << 30,
            _ => return Err(bad()),
        };
        number.checked_mul(factor).map(Self).ok_or_else(bad)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_their_units() {
        for (text, bytes) in
            [("0", 0), ("4096", 4096), ("4K", 4096), ("4KiB", 4096), ("4 M", 4 << 20)]
        {
            assert_eq!(text.parse(), Ok(Size(bytes)));
        }
        for text in ["", "K", "4X", "-1", "1.5K", "99999999999999999999", "99999999999G"] {
            let error = text.parse::<Size>().unwrap_err();
            assert!(error.contains("write bytes"), "{error}");
        }
    }
}
