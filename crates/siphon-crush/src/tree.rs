//! Finding one's way in a map: names, classes, and what stands in what.

use std::collections::BTreeSet;

use siphon_wire::types::ByteString;

use crate::{Bucket, CrushMap};

/// A bucket on the way from an item to its root, as `ceph osd find` shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement<'a> {
    /// The bucket.
    pub bucket: &'a Bucket,
    /// The name of its type; empty if it has none.
    pub kind: &'a [u8],
    /// Its name; empty if it has none.
    pub name: &'a [u8],
}

/// What separates a bucket's name from the class of its shadow.
const SHADOW_MARK: u8 = b'~';

impl CrushMap {
    /// The name of a device or bucket.
    pub fn item_name(&self, item: i32) -> Option<&ByteString> {
        self.item_names.get(&item)
    }

    /// The device or bucket of a name.
    pub fn item_by_name(&self, name: &[u8]) -> Option<i32> {
        self.item_names.iter().find(|(_, found)| ***found == *name).map(|(item, _)| *item)
    }

    /// The rule of a name.
    pub fn rule_by_name(&self, name: &[u8]) -> Option<u32> {
        let found = self.rule_names.iter().find(|(_, found)| ***found == *name);
        found.and_then(|(rule, _)| u32::try_from(*rule).ok())
    }

    /// The type of a name: 1 for `host`, by custom.
    pub fn type_by_name(&self, name: &[u8]) -> Option<i32> {
        self.type_names.iter().find(|(_, found)| ***found == *name).map(|(kind, _)| *kind)
    }

    /// The type of a device or bucket.
    pub fn item_type(&self, item: i32) -> Option<i32> {
        if item >= 0 { Some(0) } else { self.bucket(item).map(|bucket| i32::from(bucket.kind)) }
    }

    /// The name of a device's class, such as `ssd`.
    pub fn class_of(&self, device: i32) -> Option<&ByteString> {
        self.class_names.get(self.device_classes.get(&device)?)
    }

    /// The class of a name.
    pub fn class_by_name(&self, name: &[u8]) -> Option<i32> {
        self.class_names.iter().find(|(_, found)| ***found == *name).map(|(class, _)| *class)
    }

    /// The bucket that has a bucket's devices of one class: where `step take default class ssd` starts.
    ///
    /// ```
    /// let mut map = siphon_crush::CrushMap::new();
    /// map.class_names = [(0, "ssd".into())].into();
    /// map.class_buckets = [(-1, [(0, -2)].into())].into();
    /// let ssd = map.class_by_name(b"ssd").unwrap();
    /// assert_eq!(map.shadow(-1, ssd), Some(-2));
    /// ```
    pub fn shadow(&self, bucket: i32, class: i32) -> Option<i32> {
        self.class_buckets.get(&bucket)?.get(&class).copied()
    }

    /// Whether a bucket is there for one class of devices only.
    pub fn is_shadow(&self, bucket: i32) -> bool {
        bucket < 0 && self.item_names.get(&bucket).is_some_and(|name| name.contains(&SHADOW_MARK))
    }

    /// Buckets that stand in no other bucket, shadows not among them, from -1 downwards.
    pub fn roots(&self) -> Vec<i32> {
        let inside: BTreeSet<i32> =
            self.buckets().flat_map(|bucket| bucket.items.iter().copied()).collect();
        let ids = self.buckets().map(|bucket| bucket.id);
        ids.filter(|id| !inside.contains(id) && !self.is_shadow(*id)).collect()
    }

    /// The bucket that an item stands in, shadows aside: the first one, should there be several.
    pub fn parent(&self, item: i32) -> Option<&Bucket> {
        self.buckets().find(|bucket| bucket.items.contains(&item) && !self.is_shadow(bucket.id))
    }

    /// Where an item stands, from the bucket around it up to its root.
    ///
    /// ```
    /// # use siphon_crush::{Bucket, CrushMap, Weights};
    /// # let mut map = CrushMap::new();
    /// # map.max_devices = 1;
    /// # map.type_names = [(0, "osd".into()), (1, "host".into()), (11, "root".into())].into();
    /// # map.item_names = [(-1, "default".into()), (-2, "a".into())].into();
    /// # map.set_bucket(Bucket::new(-1, 11, vec![-2], Weights::Straw2(vec![0x10000])));
    /// # map.set_bucket(Bucket::new(-2, 1, vec![0], Weights::Straw2(vec![0x10000])));
    /// let kinds: Vec<_> = map.location(0).iter().map(|place| place.kind).collect();
    /// assert_eq!(kinds, [&b"host"[..], b"root"]);
    /// ```
    pub fn location(&self, item: i32) -> Vec<Placement<'_>> {
        let mut places = Vec::new();
        let mut at = item;
        // A cycle ends where every bucket has been seen.
        while let Some(bucket) = self.parent(at).filter(|_| places.len() < self.buckets.len()) {
            places.push(Placement {
                bucket,
                kind: self.type_names.get(&i32::from(bucket.kind)).map_or(&[], |name| name),
                name: self.item_names.get(&bucket.id).map_or(&[], |name| name),
            });
            at = bucket.id;
        }
        places
    }

    /// How far a device is from a place that is described by types and names of buckets (a client's
    /// `crush_location`): the type of the nearest bucket that has both, or `None` if nothing has. It is
    /// what reads that prefer a near replica go by (`get_common_ancestor_distance`).
    ///
    /// ```
    /// # use siphon_crush::{Bucket, CrushMap, Weights};
    /// # let mut map = CrushMap::new();
    /// # map.type_names = [(1, "host".into()), (3, "rack".into())].into();
    /// # map.item_names = [(-1, "r1".into()), (-2, "a".into())].into();
    /// # map.set_bucket(Bucket::new(-1, 3, vec![-2], Weights::Straw2(vec![0x10000])));
    /// # map.set_bucket(Bucket::new(-2, 1, vec![0], Weights::Straw2(vec![0x10000])));
    /// // Another host of the same rack.
    /// assert_eq!(map.common_ancestor(0, &[(b"host", b"b"), (b"rack", b"r1")]), Some(3));
    /// ```
    pub fn common_ancestor(&self, device: i32, place: &[(&[u8], &[u8])]) -> Option<i32> {
        let location = self.location(device);
        let shared = |at: &Placement<'_>| place.contains(&(at.kind, at.name));
        location.iter().filter(|at| shared(at)).map(|at| i32::from(at.bucket.kind)).min()
    }

    /// All devices below an item, each once, in the order of their numbers.
    pub fn devices_below(&self, item: i32) -> Vec<i32> {
        let mut devices = BTreeSet::new();
        let mut seen = BTreeSet::new();
        let mut open = vec![item];
        while let Some(item) = open.pop() {
            if item >= 0 {
                devices.insert(item);
            } else if seen.insert(item) {
                open.extend(self.bucket(item).into_iter().flat_map(|bucket| &bucket.items));
            }
        }
        devices.into_iter().collect()
    }
}
