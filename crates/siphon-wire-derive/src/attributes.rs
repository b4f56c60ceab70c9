//! The `#[denc(…)]` attributes, checked.

use syn::meta::ParseNestedMeta;
use syn::spanned::Spanned;
use syn::{
    Attribute, Data, DeriveInput, Error, Fields, Ident, LitInt, LitStr, Member, Result, Type,
};

/// What the derives know of a struct.
pub(crate) struct Struct<'a> {
    /// Ceph's name, if errors shall name the type.
    pub(crate) name: Option<String>,
    /// The versioned section, if it stands in one.
    pub(crate) section: Option<Section>,
    /// Whether it is `Fixed`, as all its fields are.
    pub(crate) fixed: bool,
    /// In the order of the wire.
    pub(crate) fields: Vec<Field<'a>>,
}

/// A versioned section's head: `1 <= compat <= version`.
#[derive(Clone, Copy)]
pub(crate) struct Section {
    pub(crate) version: u8,
    pub(crate) compat: u8,
}

/// A field; `since` is not more than the section's version.
pub(crate) struct Field<'a> {
    pub(crate) member: Member,
    pub(crate) ty: &'a Type,
    pub(crate) since: Option<u8>,
}

impl<'a> Struct<'a> {
    pub(crate) fn parse(input: &'a DeriveInput) -> Result<Self> {
        let fields = match &input.data {
            Data::Struct(data) => &data.fields,
            Data::Enum(_) | Data::Union(_) => {
                return Err(Error::new(
                    input.ident.span(),
                    "only structs have one encoding for all values; implement Encode and Decode \
                     by hand",
                ));
            }
        };
        let Container { name, section, fixed } = container(&input.attrs)?;
        // What wraps another value is named by what it wraps.
        let default_name =
            (!matches!(fields, Fields::Unnamed(fields) if fields.unnamed.len() == 1))
                .then(|| input.ident.to_string());
        let name = name.or(default_name);
        let fields = parse_fields(fields, section)?;
        if let Some(field) = fields.iter().find(|field| fixed && field.since.is_some()) {
            return Err(Error::new(field.ty.span(), "a `fixed` struct has no version but its own"));
        }
        Ok(Self { name, section, fixed, fields })
    }
}

/// A struct's attributes.
struct Container {
    name: Option<String>,
    section: Option<Section>,
    fixed: bool,
}

fn container(attributes: &[Attribute]) -> Result<Container> {
    let (mut version, mut compat, mut name, mut fixed) = (None, None, None, None);
    each(attributes, |meta| {
        if meta.path.is_ident("version") {
            number(&meta, &mut version)
        } else if meta.path.is_ident("compat") {
            number(&meta, &mut compat)
        } else if meta.path.is_ident("name") {
            let value = meta.value()?.parse::<LitStr>()?;
            set(&meta, &mut name, value.value())
        } else if meta.path.is_ident("fixed") {
            set(&meta, &mut fixed, ())
        } else {
            Err(meta.error("a struct has `version`, `compat`, `name` and `fixed`"))
        }
    })?;
    let section = match (version, compat) {
        (Some((version, _)), None) => Some(Section { version, compat: 1 }),
        (Some((version, _)), Some((compat, span))) => {
            if compat > version {
                return Err(Error::new(span, "`compat` is more than `version`"));
            }
            Some(Section { version, compat })
        }
        (None, Some((_, span))) => {
            return Err(Error::new(span, "`compat` goes with a `version`"));
        }
        (None, None) => None,
    };
    Ok(Container { name, section, fixed: fixed.is_some() })
}

fn parse_fields(fields: &Fields, section: Option<Section>) -> Result<Vec<Field<'_>>> {
    let mut newest = 1;
    let mut parsed = Vec::new();
    for (member, field) in fields.members().zip(fields) {
        let mut since = None;
        each(&field.attrs, |meta| {
            if meta.path.is_ident("since") {
                number(&meta, &mut since)
            } else {
                Err(meta.error("a field has `since`"))
            }
        })?;
        if let Some((since, span)) = since {
            let error = match section {
                None => Some("`since` goes with the struct's `version`"),
                Some(section) if since > section.version => {
                    Some("`since` is more than the struct's `version`")
                }
                Some(_) => None,
            };
            if let Some(message) = error {
                return Err(Error::new(span, message));
            }
        }
        let appended = since.map_or(1, |(since, _)| since);
        if appended < newest {
            return Err(Error::new(
                field.span(),
                "a version appends its fields: this one is older than the one before it",
            ));
        }
        newest = appended;
        parsed.push(Field { member, ty: &field.ty, since: since.map(|(since, _)| since) });
    }
    Ok(parsed)
}

fn each(
    attributes: &[Attribute],
    mut logic: impl FnMut(ParseNestedMeta<'_>) -> Result<()>,
) -> Result<()> {
    attributes
        .iter()
        .filter(|attribute| attribute.path().is_ident("denc"))
        .try_for_each(|attribute| attribute.parse_nested_meta(&mut logic))
}

/// Parses `= 7` into `slot`, with the place that errors point at.
fn number(meta: &ParseNestedMeta<'_>, slot: &mut Option<(u8, proc_macro2::Span)>) -> Result<()> {
    let value = meta.value()?.parse::<LitInt>()?;
    let number = value.base10_parse::<u8>()?;
    if number == 0 {
        return Err(Error::new(value.span(), "versions begin with 1"));
    }
    set(meta, slot, (number, value.span()))
}

fn set<T>(meta: &ParseNestedMeta<'_>, slot: &mut Option<T>, value: T) -> Result<()> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => {
            let name = meta.path.get_ident().map(Ident::to_string).unwrap_or_default();
            Err(meta.error(format!("`{name}` is given twice")))
        }
    }
}
