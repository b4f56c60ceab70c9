//! The implementations, as tokens.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{DeriveInput, Generics, Result, TypeParamBound, parse_quote};

use crate::attributes::{Field, Section, Struct};

/// Bytes of a versioned section before its contents.
const SECTION_HEAD: usize = 6;

pub(crate) fn encode(input: &DeriveInput) -> Result<TokenStream> {
    let parsed = Struct::parse(input)?;
    if parsed.fixed {
        return Ok(encode_fixed(input, &parsed));
    }
    let members = parsed.fields.iter().map(|field| &field.member);
    let body = quote! { #( __enc.value(&self.#members); )* };
    let body = match parsed.section {
        Some(section) => {
            let (version, compat) = (section.version, section.compat);
            quote! { __enc.versioned(#version, #compat, |__enc| { #body }); }
        }
        None => body,
    };
    let ident = &input.ident;
    let generics = bounded(&input.generics, &parse_quote!(::siphon_wire::Encode));
    let (impl_generics, ty_generics, where_clause) = generics.split_for_impl();
    Ok(quote! {
        #[automatically_derived]
        impl #impl_generics ::siphon_wire::Encode for #ident #ty_generics #where_clause {
            #[inline]
            #[allow(unused_variables)]
            fn encode(&self, __enc: &mut ::siphon_wire::Encoder) {
                #body
            }
        }
    })
}

/// `Fixed`, and `Encode` by it.
fn encode_fixed(input: &DeriveInput, parsed: &Struct<'_>) -> TokenStream {
    let members = parsed.fields.iter().map(|field| &field.member);
    let types = parsed.fields.iter().map(|field| field.ty);
    let values = quote! { ( #( self.#members, )* ) };
    let (head, values) = match parsed.section {
        Some(Section { version, compat }) => {
            (SECTION_HEAD, quote! { ::siphon_wire::Fixed::section(#values, #version, #compat) })
        }
        None => (0, values),
    };
    let ident = &input.ident;
    let generics = bounded(&input.generics, &parse_quote!(::siphon_wire::Fixed));
    let (impl_generics, ty_generics, where_clause) = generics.split_for_impl();
    quote! {
        #[automatically_derived]
        impl #impl_generics ::siphon_wire::Fixed for #ident #ty_generics #where_clause {
            const SIZE: usize = #head #( + <#types as ::siphon_wire::Fixed>::SIZE )*;

            #[inline]
            fn put(self, __out: &mut [u8]) {
                ::siphon_wire::Fixed::put(#values, __out);
            }
        }

        #[automatically_derived]
        impl #impl_generics ::siphon_wire::Encode for #ident #ty_generics #where_clause {
            #[inline]
            fn encode(&self, __enc: &mut ::siphon_wire::Encoder) {
                __enc.fixed(*self);
            }
        }
    }
}

pub(crate) fn decode(input: &DeriveInput) -> Result<TokenStream> {
    let parsed = Struct::parse(input)?;
    let fields = parsed.fields.iter().map(decode_field);
    // What a newer version appended may be missing.
    let types = parsed.fields.iter().filter(|field| field.since.is_none()).map(|field| field.ty);
    let min_size = quote! { 0 #( + <#types as ::siphon_wire::Decode>::MIN_SIZE )* };
    let body = quote! {
        __dec.require(#min_size)?;
        ::core::result::Result::Ok(Self { #( #fields )* })
    };
    let body = match (parsed.section, &parsed.name) {
        (Some(section), name) => {
            let version = section.version;
            let name = name.clone().unwrap_or_else(|| input.ident.to_string());
            quote! { __dec.versioned(#name, #version, |__dec, __version| { #body }) }
        }
        (None, Some(name)) => quote! { __dec.typed(#name, |__dec| { #body }) },
        (None, None) => body,
    };
    let head = parsed.section.map_or(0, |_| SECTION_HEAD);
    let ident = &input.ident;
    let generics = bounded(&input.generics, &parse_quote!(::siphon_wire::Decode));
    let (impl_generics, ty_generics, where_clause) = generics.split_for_impl();
    Ok(quote! {
        #[automatically_derived]
        impl #impl_generics ::siphon_wire::Decode for #ident #ty_generics #where_clause {
            const MIN_SIZE: usize = #head + #min_size;

            #[inline]
            #[allow(unused_variables)]
            fn decode(
                __dec: &mut ::siphon_wire::Decoder<'_>,
            ) -> ::core::result::Result<Self, ::siphon_wire::DecodeError> {
                #body
            }
        }
    })
}

fn decode_field(field: &Field<'_>) -> TokenStream {
    let (member, ty) = (&field.member, field.ty);
    let value = quote! { __dec.value::<#ty>()? };
    match field.since {
        None => quote! { #member: #value, },
        Some(since) => quote! {
            #member: if __version >= #since {
                #value
            } else {
                ::core::default::Default::default()
            },
        },
    }
}

/// `generics` with `bound` on every type.
fn bounded(generics: &Generics, bound: &TypeParamBound) -> Generics {
    let mut generics = generics.clone();
    for param in generics.type_params_mut() {
        param.bounds.push(bound.clone());
    }
    generics
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a user reads who derives `input`.
    #[track_caller]
    fn message(input: DeriveInput) -> String {
        let encode = encode(&input).unwrap_err().to_string();
        assert_eq!(encode, decode(&input).unwrap_err().to_string());
        encode
    }

    #[test]
    fn only_structs() {
        let input = parse_quote!(
            enum E {
                A,
            }
        );
        assert!(message(input).starts_with("only structs have one encoding"));
    }

    #[test]
    fn attributes_that_do_not_exist() {
        let input = parse_quote!(
            #[denc(versoin = 1)]
            struct S;
        );
        assert_eq!(message(input), "a struct has `version`, `compat`, `name` and `fixed`");
        let input = parse_quote!(
            struct S(#[denc(sinec = 1)] u8);
        );
        assert_eq!(message(input), "a field has `since`");
    }

    #[test]
    fn versions_that_contradict() {
        let input = parse_quote!(
            #[denc(version = 1, compat = 2)]
            struct S;
        );
        assert_eq!(message(input), "`compat` is more than `version`");
        let input = parse_quote!(
            #[denc(compat = 2)]
            struct S;
        );
        assert_eq!(message(input), "`compat` goes with a `version`");
        let input = parse_quote!(
            struct S(#[denc(since = 2)] u8);
        );
        assert_eq!(message(input), "`since` goes with the struct's `version`");
        let input = parse_quote!(
            #[denc(version = 1)]
            struct S(#[denc(since = 2)] u8);
        );
        assert_eq!(message(input), "`since` is more than the struct's `version`");
        let input = parse_quote!(
            #[denc(version = 2, fixed)]
            struct S(u8, #[denc(since = 2)] u8);
        );
        assert_eq!(message(input), "a `fixed` struct has no version but its own");
        let input = parse_quote!(
            #[denc(version = 2)]
            struct S(#[denc(since = 2)] u8, u8);
        );
        assert!(message(input).starts_with("a version appends its fields"));
    }

    #[test]
    fn values_that_are_none() {
        let input = parse_quote!(
            #[denc(version = 0)]
            struct S;
        );
        assert_eq!(message(input), "versions begin with 1");
        let input = parse_quote!(
            #[denc(version = 256)]
            struct S;
        );
        assert!(message(input).contains("too large"));
        let input = parse_quote!(
            #[denc(version = 1, version = 2)]
            struct S;
        );
        assert_eq!(message(input), "`version` is given twice");
        let input = parse_quote!(
            #[denc(name = 7)]
            struct S;
        );
        assert!(message(input).contains("expected string literal"));
    }
}
