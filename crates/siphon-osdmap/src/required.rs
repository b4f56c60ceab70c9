use siphon_crush::{BucketAlg, CrushMap, Rule, StepOp};
use siphon_wire::types::{EntityType, Features, Release};

use crate::{DEFAULT_PRIMARY_AFFINITY, OsdMap, PoolFlags};

impl OsdMap {
    /// What a peer must support to make sense of this map (`OSDMap::get_features`): a monitor turns away
    /// who does not.
    ///
    /// ```
    /// use siphon_osdmap::OsdMap;
    /// use siphon_wire::types::{EntityType, Features};
    /// let features = OsdMap::default().required_features(EntityType::CLIENT);
    /// assert!(Features::ALL.contains(features));
    /// ```
    pub fn required_features(&self, peer: EntityType) -> Features {
        let mut features = self.crush_features();
        let mut needs = |needed: bool, feature: Features| {
            if needed {
                features = features | feature;
            }
        };
        let by_hand = !self.pg_upmap.is_empty() || !self.pg_upmap_items.is_empty();
        needs(by_hand, Features::OSDMAP_PG_UPMAP);
        needs(!self.pg_upmap_primaries.is_empty(), Features::SERVER_REEF);
        for pool in self.pools.values() {
            needs(pool.flags.contains(PoolFlags::HASHPSPOOL), Features::OSDHASHPSPOOL);
            needs(!pool.tiers.is_empty() || pool.tier_of >= 0, Features::OSD_CACHEPOOL);
        }
        let affinities = self.osd_primary_affinity.as_deref().unwrap_or_default();
        let preferred = affinities.iter().any(|one| *one != DEFAULT_PRIMARY_AFFINITY);
        needs(preferred, Features::OSD_PRIMARY_AFFINITY);
        let osd = peer == EntityType::OSD;
        let release = self.require_osd_release;
        needs(osd && release >= Release::JEWEL, Features::SERVER_JEWEL);
        let kraken = Features::SERVER_KRAKEN | Features::MSG_ADDR2;
        needs(osd && release >= Release::KRAKEN, kraken);
        needs(osd && self.stretch_mode.enabled, Features::STRETCH_MODE);
        let signed = self.require_min_compat_client >= Release::NAUTILUS
            || (osd && release >= Release::NAUTILUS);
        needs(signed, Features::CEPHX_V2);
        features
    }

    /// The features that a cluster's monitors encode its maps for, which the checksum goes by
    /// (`OSDMap::get_encoding_features`), as far as they are what we know of.
    pub fn encoding_features(&self) -> Features {
        let mut features = Features::PGID64
            | Features::PGPOOL3
            | Features::OSDENC
            | Features::OSDMAP_ENC
            | Features::OSD_POOLRESEND;
        let steps = [
            (
                Release::JEWEL,
                Features::SERVER_JEWEL | Features::NEW_OSDOP_ENCODING | Features::CRUSH_TUNABLES5,
            ),
            (Release::KRAKEN, Features::MSG_ADDR2),
            (Release::LUMINOUS, Features::SERVER_LUMINOUS | Features::CRUSH_CHOOSE_ARGS),
            (Release::MIMIC, Features::SERVER_MIMIC),
            (Release::NAUTILUS, Features::SERVER_NAUTILUS),
            (Release::OCTOPUS, Features::SERVER_OCTOPUS),
            (Release::REEF, Features::SERVER_REEF),
            (Release::TENTACLE, Features::SERVER_TENTACLE),
        ];
        for (release, feature) in steps {
            if self.require_osd_release >= release {
                features = features | feature;
            }
        }
        features
    }

    fn crush_features(&self) -> Features {
        let crush = &*self.crush;
        let tunables = &crush.tunables;
        let mut features = Features::NONE;
        let mut needs = |needed: bool, feature: Features| {
            if needed {
                features = features | feature;
            }
        };
        let tries = (
            tunables.choose_local_tries,
            tunables.choose_local_fallback_tries,
            tunables.choose_total_tries,
        );
        needs(tries != (2, 5, 19), Features::CRUSH_TUNABLES);
        needs(tunables.chooseleaf_descend_once != 0, Features::CRUSH_TUNABLES2);
        needs(tunables.chooseleaf_vary_r != 0, Features::CRUSH_TUNABLES3);
        needs(tunables.chooseleaf_stable != 0, Features::CRUSH_TUNABLES5);
        let straw2 = crush.buckets().any(|bucket| bucket.alg() == BucketAlg::STRAW2);
        needs(straw2, Features::CRUSH_V4);
        needs(has_incompatible_args(crush), Features::CRUSH_CHOOSE_ARGS);
        let rules = self.pools.values().filter_map(|pool| crush.rule(u32::from(pool.crush_rule)));
        for rule in rules {
            needs(rule.kind.is_msr(), Features::CRUSH_MSR);
            needs(uses(rule, V2_STEPS), Features::CRUSH_V2);
            needs(uses(rule, &[StepOp::SET_CHOOSELEAF_VARY_R]), Features::CRUSH_TUNABLES3);
            needs(uses(rule, &[StepOp::SET_CHOOSELEAF_STABLE]), Features::CRUSH_TUNABLES5);
        }
        features
    }
}

const V2_STEPS: &[StepOp] = &[
    StepOp::CHOOSE_INDEP,
    StepOp::CHOOSELEAF_INDEP,
    StepOp::SET_CHOOSE_TRIES,
    StepOp::SET_CHOOSELEAF_TRIES,
];

fn uses(rule: &Rule, ops: &[StepOp]) -> bool {
    rule.steps.iter().any(|step| ops.contains(&step.op))
}

/// Whether replaced weights cannot be told to older peers as those of the buckets.
fn has_incompatible_args(crush: &CrushMap) -> bool {
    let mut sets = crush.choose_args.iter();
    match (sets.next(), sets.next()) {
        (None, _) => false,
        (Some((&CrushMap::DEFAULT_CHOOSE_ARGS, args)), None) => {
            args.buckets.values().any(|arg| arg.weight_set.len() != 1 || !arg.ids.is_empty())
        }
        _ => true,
    }
}
