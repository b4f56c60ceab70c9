//! Derives `siphon_wire::Encode` and `siphon_wire::Decode`, which tells of the attributes.
//!
//! Use it through `siphon-wire`, which exports the macros beside the traits.

mod attributes;
mod expand;

use proc_macro::TokenStream;
use syn::{DeriveInput, parse_macro_input};

/// Derives `siphon_wire::Encode` for a struct: its fields in order, or, with
/// `#[denc(version = …)]`, within a versioned section.
///
/// | attribute of the struct | meaning |
/// |---|---|
/// | `version = 2` | the section's version: that of the newest field |
/// | `compat = 1` | the oldest version that a decoder must understand; 1 if left out |
/// | `name = "eversion_t"` | Ceph's name of the type, for errors; the struct's own if left out |
/// | `fixed` | all fields are `siphon_wire::Fixed`, and so is the struct: it is appended at once |
///
/// | attribute of a field | meaning |
/// |---|---|
/// | `since = 2` | the version that appended it; decoded as `Default` from older ones |
#[proc_macro_derive(Encode, attributes(denc))]
pub fn derive_encode(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    expand::encode(&input).unwrap_or_else(syn::Error::into_compile_error).into()
}

/// Derives `siphon_wire::Decode` for a struct; the attributes are those of `Encode`.
#[proc_macro_derive(Decode, attributes(denc))]
pub fn derive_decode(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    expand::decode(&input).unwrap_or_else(syn::Error::into_compile_error).into()
}
