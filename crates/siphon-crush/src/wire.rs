//! How a map is encoded (`CrushWrapper::encode`, `decode` of Ceph 12 to 20): one sequence without
//! sections, to which releases appended.

use std::collections::BTreeMap;

use siphon_wire::types::{ByteString, Features};
use siphon_wire::{Decode, DecodeError, DecodeErrorKind, Decoder, Encode, Encoder};

use crate::{
    Bucket, BucketAlg, ChooseArg, ChooseArgs, CrushMap, Profile, Rule, RuleKind, Step, Tunables,
    Weights,
};

/// What every map begins with (`CRUSH_MAGIC`).
const MAGIC: u32 = 0x1_0000;

/// In the form that a peer with the encoder's features understands: without
/// [`CRUSH_TUNABLES5`](Features::CRUSH_TUNABLES5) it has no `chooseleaf_stable`, without
/// [`SERVER_LUMINOUS`](Features::SERVER_LUMINOUS) neither classes nor replaced weights, without
/// [`CRUSH_MSR`](Features::CRUSH_MSR) no tunables of MSR rules.
///
/// For peers that have no [`CRUSH_CHOOSE_ARGS`](Features::CRUSH_CHOOSE_ARGS), replaced weights become
/// those of the buckets, as far as there is one position.
impl Encode for CrushMap {
    fn encode(&self, enc: &mut Encoder) {
        let features = enc.features();
        enc.u32(MAGIC);
        enc.count(self.buckets.len());
        enc.count(self.rules.len());
        enc.i32(self.max_devices);
        let compat = match self.choose_args.values().next() {
            Some(args) if !features.has(Features::CRUSH_CHOOSE_ARGS) => Some(args),
            _ => None,
        };
        for bucket in &self.buckets {
            match bucket {
                Some(bucket) => encode_bucket(bucket, compat, enc),
                None => enc.u32(0),
            }
        }
        for rule in &self.rules {
            enc.u32(u32::from(rule.is_some()));
            if let Some(rule) = rule {
                encode_rule(rule, enc);
            }
        }
        for names in [&self.type_names, &self.item_names, &self.rule_names] {
            encode_names(names, enc);
        }
        encode_tunables(&self.tunables, enc);
        if features.has(Features::CRUSH_TUNABLES5) {
            enc.u8(self.tunables.chooseleaf_stable);
        }
        if !features.has(Features::SERVER_LUMINOUS) {
            // Kraken has another feature on the bit of MSR rules.
            return;
        }
        enc.value(&self.device_classes);
        enc.value(&self.class_names);
        enc.value(&self.class_buckets);
        enc.value(&self.choose_args);
        if features.has(Features::CRUSH_MSR) {
            enc.u32(self.tunables.msr_descents);
            enc.u32(self.tunables.msr_collision_tries);
        }
    }
}

fn encode_tunables(tunables: &Tunables, enc: &mut Encoder) {
    enc.u32(tunables.choose_local_tries);
    enc.u32(tunables.choose_local_fallback_tries);
    enc.u32(tunables.choose_total_tries);
    enc.u32(tunables.chooseleaf_descend_once);
    enc.u8(tunables.chooseleaf_vary_r);
    enc.u8(tunables.straw_calc_version);
    enc.u32(tunables.allowed_bucket_algs);
}

fn encode_bucket(bucket: &Bucket, compat: Option<&ChooseArgs>, enc: &mut Encoder) {
    let alg = bucket.alg().0;
    enc.u32(u32::from(alg));
    enc.i32(bucket.id);
    enc.u16(bucket.kind);
    enc.u8(alg);
    enc.u8(bucket.hash);
    enc.u32(bucket.weight);
    enc.count(bucket.items.len());
    bucket.items.iter().for_each(|item| enc.i32(*item));
    // A weight for each item, whatever there is.
    let padded = |weights: &[u32], at: usize| weights.get(at).copied().unwrap_or(0);
    let places = 0..bucket.items.len();
    match &bucket.weights {
        Weights::Uniform(weight) => enc.u32(*weight),
        Weights::List { items, sums: others } | Weights::Straw { items, straws: others } => {
            for at in places {
                enc.u32(padded(items, at));
                enc.u32(padded(others, at));
            }
        }
        Weights::Tree(nodes) => {
            let count = u8::try_from(nodes.len()).unwrap_or(u8::MAX);
            enc.u8(count);
            nodes.iter().take(usize::from(count)).for_each(|node| enc.u32(*node));
        }
        Weights::Straw2(weights) => {
            let replaced = compat.and_then(|args| args.of_bucket(bucket.id)?.weights(0));
            let weights = replaced.unwrap_or(weights);
            places.for_each(|at| enc.u32(padded(weights, at)));
        }
    }
}

fn encode_rule(rule: &Rule, enc: &mut Encoder) {
    enc.count(rule.steps.len());
    enc.u8(rule.ruleset);
    enc.value(&rule.kind);
    enc.u8(rule.min_size);
    enc.u8(rule.max_size);
    rule.steps.iter().for_each(|step| enc.value(step));
}

/// Names that are empty cannot be told: see [`decode_names`].
fn encode_names(names: &BTreeMap<i32, ByteString>, enc: &mut Encoder) {
    let names = names.iter().filter(|(_, name)| !name.is_empty());
    enc.count(names.clone().count());
    for (number, name) in names {
        enc.i32(*number);
        enc.value(name);
    }
}

impl Encode for ChooseArgs {
    fn encode(&self, enc: &mut Encoder) {
        let buckets = self.buckets.iter().filter(|(_, arg)| !arg.is_empty());
        enc.count(buckets.clone().count());
        for (at, arg) in buckets {
            enc.u32(*at);
            enc.value(&arg.weight_set);
            enc.value(&arg.ids);
        }
    }
}

/// Reads maps of any release since Argonaut; what an older one does not have is as it was then.
impl Decode for CrushMap {
    const MIN_SIZE: usize = 4 * 4 + 3 * 4;

    fn decode(dec: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        dec.typed("CrushWrapper", |dec| {
            let magic = dec.u32()?;
            if magic != MAGIC {
                return Err(dec.invalid("the magic number 0x10000 of CRUSH maps", u64::from(magic)));
            }
            let counts = [dec.u32()?, dec.u32()?];
            let mut map = Self { max_devices: dec.i32()?, ..Self::new() };
            map.tunables = Tunables::of(Profile::Argonaut);
            let [buckets, rules] = counts;
            map.buckets = decode_table(dec, buckets, decode_bucket)?;
            map.rules = decode_table(dec, rules, decode_rule)?;
            map.type_names = decode_names(dec)?;
            map.item_names = decode_names(dec)?;
            map.rule_names = decode_names(dec)?;
            map.decode_appended(dec)?;
            Ok(map)
        })
    }
}

/// Reads a table of which every entry takes 4 bytes or more.
fn decode_table<T>(
    dec: &mut Decoder<'_>,
    count: u32,
    entry: impl Fn(&mut Decoder<'_>, usize) -> Result<Option<T>, DecodeError>,
) -> Result<Vec<Option<Box<T>>>, DecodeError> {
    let available = dec.remaining();
    if count as usize > available / 4 {
        return Err(dec.error(DecodeErrorKind::ImpossibleCount { count, available }));
    }
    let mut table = Vec::with_capacity(count as usize);
    for at in 0..count as usize {
        table.push(entry(dec, at)?.map(Box::new));
    }
    Ok(table)
}

fn decode_bucket(dec: &mut Decoder<'_>, at: usize) -> Result<Option<Bucket>, DecodeError> {
    let alg = dec.u32()?;
    if alg == 0 {
        return Ok(None);
    }
    let (id, kind) = (dec.i32()?, dec.u16()?);
    if usize::try_from(!id) != Ok(at) {
        return Err(dec.invalid("the bucket that belongs at its place", id as u64));
    }
    let inner = dec.u8()?;
    if u32::from(inner) != alg {
        return Err(dec.invalid("a bucket's algorithm, twice", u64::from(inner)));
    }
    let (hash, weight) = (dec.u8()?, dec.u32()?);
    let items = dec.value::<Vec<i32>>()?;
    let count = items.len();
    let weights = match BucketAlg(inner) {
        BucketAlg::UNIFORM => Weights::Uniform(dec.u32()?),
        BucketAlg::LIST => {
            let (items, sums) = decode_pairs(dec, count)?;
            Weights::List { items, sums }
        }
        BucketAlg::TREE => {
            let nodes = dec.u8()?;
            Weights::Tree(decode_numbers(dec, usize::from(nodes))?)
        }
        BucketAlg::STRAW => {
            let (items, straws) = decode_pairs(dec, count)?;
            Weights::Straw { items, straws }
        }
        BucketAlg::STRAW2 => Weights::Straw2(decode_numbers(dec, count)?),
        _ => return Err(dec.invalid("a bucket algorithm from 1 to 5", u64::from(alg))),
    };
    Ok(Some(Bucket { id, kind, hash, weight, items, weights }))
}

/// Reads `count` numbers, each of 4 bytes.
fn decode_numbers(dec: &mut Decoder<'_>, count: usize) -> Result<Vec<u32>, DecodeError> {
    let mut numbers = Vec::with_capacity(count.min(dec.remaining() / 4));
    for _ in 0..count {
        numbers.push(dec.u32()?);
    }
    Ok(numbers)
}

/// Reads `count` pairs of numbers, each number into a list of its own.
fn decode_pairs(dec: &mut Decoder<'_>, count: usize) -> Result<(Vec<u32>, Vec<u32>), DecodeError> {
    let capacity = count.min(dec.remaining() / 8);
    let mut pairs = (Vec::with_capacity(capacity), Vec::with_capacity(capacity));
    for _ in 0..count {
        pairs.0.push(dec.u32()?);
        pairs.1.push(dec.u32()?);
    }
    Ok(pairs)
}

fn decode_rule(dec: &mut Decoder<'_>, _at: usize) -> Result<Option<Rule>, DecodeError> {
    if dec.u32()? == 0 {
        return Ok(None);
    }
    let count = dec.u32()?;
    let rule = Rule {
        ruleset: dec.u8()?,
        kind: RuleKind(dec.u8()?),
        min_size: dec.u8()?,
        max_size: dec.u8()?,
        steps: Vec::new(),
    };
    let available = dec.remaining();
    if count as usize > available / size_of::<Step>() {
        return Err(dec.error(DecodeErrorKind::ImpossibleCount { count, available }));
    }
    let steps = (0..count).map(|_| dec.value()).collect::<Result<_, _>>()?;
    Ok(Some(Rule { steps, ..rule }))
}

/// Reads names by number. A release of old wrote the numbers in 64 bits: a name without a length is
/// the upper half of one, and the length follows.
fn decode_names(dec: &mut Decoder<'_>) -> Result<BTreeMap<i32, ByteString>, DecodeError> {
    let count = dec.count(4 + 4)?;
    let mut names = Vec::with_capacity(count.min(dec.remaining() / size_of::<(i32, ByteString)>()));
    for _ in 0..count {
        let number = dec.i32()?;
        let mut length = dec.u32()?;
        if length == 0 {
            length = dec.u32()?;
        }
        if length > 0 {
            names.push((number, dec.raw(length as usize)?.into()));
        }
    }
    // Sorted as they are, a map is made of them at once.
    Ok(names.into_iter().collect())
}

impl CrushMap {
    /// Reads what releases appended, each of them whole.
    fn decode_appended(&mut self, dec: &mut Decoder<'_>) -> Result<(), DecodeError> {
        let tunables = &mut self.tunables;
        if dec.remaining() > 0 {
            tunables.choose_local_tries = dec.u32()?;
            tunables.choose_local_fallback_tries = dec.u32()?;
            tunables.choose_total_tries = dec.u32()?;
        }
        if dec.remaining() > 0 {
            tunables.chooseleaf_descend_once = dec.u32()?;
        }
        if dec.remaining() > 0 {
            tunables.chooseleaf_vary_r = dec.u8()?;
        }
        if dec.remaining() > 0 {
            tunables.straw_calc_version = dec.u8()?;
        }
        if dec.remaining() > 0 {
            tunables.allowed_bucket_algs = dec.u32()?;
        }
        if dec.remaining() > 0 {
            tunables.chooseleaf_stable = dec.u8()?;
        }
        if dec.remaining() > 0 {
            self.device_classes = dec.value()?;
            self.class_names = dec.value()?;
            self.class_buckets = dec.value()?;
        }
        if dec.remaining() > 0 {
            self.decode_choose_args(dec)?;
        }
        if dec.remaining() > 0 {
            self.tunables.msr_descents = dec.u32()?;
            self.tunables.msr_collision_tries = dec.u32()?;
        }
        Ok(())
    }

    fn decode_choose_args(&mut self, dec: &mut Decoder<'_>) -> Result<(), DecodeError> {
        let pools = dec.count(8 + 4)?;
        for _ in 0..pools {
            let pool = dec.i64()?;
            let mut args = ChooseArgs::default();
            for _ in 0..dec.count(3 * 4)? {
                let at = dec.u32()?;
                if at as usize >= self.buckets.len() {
                    return Err(dec.invalid("the place of a bucket", u64::from(at)));
                }
                let arg = ChooseArg { weight_set: dec.value()?, ids: dec.value()? };
                let bucket = self.bucket(!at.cast_signed());
                let size = bucket.map_or(0, |bucket| bucket.items.len());
                if !arg.ids.is_empty() && arg.ids.len() != size {
                    return Err(dec.invalid("a number for each item", arg.ids.len() as u64));
                }
                args.buckets.insert(at, arg);
            }
            self.mend(&mut args);
            self.choose_args.insert(pool, args);
        }
        Ok(())
    }

    /// Drops what is not about straw2 buckets, as Ceph does with what older releases left behind
    /// (`CrushWrapper::update_choose_args`). Where it then gives weights the size of their bucket, ours
    /// count as 0 where there are none.
    fn mend(&self, args: &mut ChooseArgs) {
        args.buckets.retain(|at, _| {
            let bucket = self.bucket(!at.cast_signed());
            bucket.is_some_and(|bucket| bucket.alg() == BucketAlg::STRAW2)
        });
    }
}
