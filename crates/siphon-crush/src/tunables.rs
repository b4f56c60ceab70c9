/// Numbers that change how a map is evaluated, so that mappings of older clusters stay as they are
/// (`crush_map`'s tunables).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tunables {
    /// Retries within the same bucket after a collision.
    pub choose_local_tries: u32,
    /// Retries within the same bucket, by a permutation of its items, after that; 0 for none.
    pub choose_local_fallback_tries: u32,
    /// Retries from the top, for each position.
    pub choose_total_tries: u32,
    /// Whether `chooseleaf` looks for a device once, and then retries from the top.
    pub chooseleaf_descend_once: u32,
    /// Whether the search for a device goes on from where the outer one is, shifted right by one less
    /// than this; 0 for no.
    pub chooseleaf_vary_r: u8,
    /// How lengths of straws are computed; for who makes maps.
    pub straw_calc_version: u8,
    /// Which bucket algorithms a map may be given, one bit for each; for who makes maps.
    pub allowed_bucket_algs: u32,
    /// Whether a device is looked for in the same way for each position.
    pub chooseleaf_stable: u8,
    /// Descents from the top of MSR rules.
    pub msr_descents: u32,
    /// Retries of MSR rules within a bucket, after a collision.
    pub msr_collision_tries: u32,
}

/// Named sets of tunables, after the releases that brought them (`set_tunables_*` of
/// `crush/CrushWrapper.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Profile {
    /// The first ones: "legacy" too.
    Argonaut,
    /// 0.56.
    Bobtail,
    /// 0.80.
    Firefly,
    /// 0.94: straw2 is allowed.
    Hammer,
    /// 10.2 and everything since: "optimal" and "default".
    Jewel,
}

/// What a rule of Squid starts from (`set_default_msr_tunables`).
const MSR_DEFAULT: u32 = 100;

const LEGACY_ALGS: u32 = 1 << 1 | 1 << 2 | 1 << 4;
const STRAW2: u32 = 1 << 5;

impl Tunables {
    /// The tunables of a profile.
    ///
    /// ```
    /// use siphon_crush::{Profile, Tunables};
    /// assert_eq!(Tunables::of(Profile::Argonaut).choose_total_tries, 19);
    /// ```
    pub const fn of(profile: Profile) -> Self {
        let legacy = Self {
            choose_local_tries: 2,
            choose_local_fallback_tries: 5,
            choose_total_tries: 19,
            chooseleaf_descend_once: 0,
            chooseleaf_vary_r: 0,
            straw_calc_version: 0,
            allowed_bucket_algs: LEGACY_ALGS,
            chooseleaf_stable: 0,
            msr_descents: MSR_DEFAULT,
            msr_collision_tries: MSR_DEFAULT,
        };
        let bobtail = Self {
            choose_local_tries: 0,
            choose_local_fallback_tries: 0,
            choose_total_tries: 50,
            chooseleaf_descend_once: 1,
            straw_calc_version: 1,
            ..legacy
        };
        let firefly = Self { chooseleaf_vary_r: 1, ..bobtail };
        let hammer = Self { allowed_bucket_algs: LEGACY_ALGS | STRAW2, ..firefly };
        match profile {
            Profile::Argonaut => legacy,
            Profile::Bobtail => bobtail,
            Profile::Firefly => firefly,
            Profile::Hammer => hammer,
            Profile::Jewel => Self { chooseleaf_stable: 1, ..hammer },
        }
    }
}

/// Those of [`Profile::Jewel`].
impl Default for Tunables {
    fn default() -> Self {
        Self::of(Profile::Jewel)
    }
}
