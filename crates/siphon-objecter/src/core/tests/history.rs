//! Long histories of a cluster, drawn from a seed: nothing is lost, done twice or out of order.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use siphon_crush::ITEM_NONE;
use siphon_osdmap::{MapFlags, PgWorkspace, WEIGHT_IN};
use siphon_wire::types::{Epoch, PgId};

use super::world::{CODED, OSDS, REPLICATED, World, config};
use crate::core::{BudgetTicket, CoreConfig};
use crate::ticket::Ticket;
use crate::{OpError, OpReply};

const OBJECTS: u32 = 12;

struct History {
    world: World,
    rng: ChaCha8Rng,
    /// Writes by object, in the order of their submission.
    submitted: BTreeMap<(i64, String), Vec<Write>>,
    next: u64,
    /// Room that was wanted, and that writes may take up.
    budgets: Vec<BudgetTicket>,
}

struct Write {
    number: u64,
    ticket: Ticket<Result<OpReply, OpError>>,
    given_up: bool,
}

impl History {
    fn new(seed: u64, config: CoreConfig) -> Self {
        let world = World::new(config);
        Self {
            world,
            rng: ChaCha8Rng::seed_from_u64(seed),
            submitted: BTreeMap::new(),
            next: 0,
            budgets: vec![],
        }
    }

    fn step(&mut self) {
        match self.rng.random_range(0..100) {
            0..40 => self.submit(),
            40..62 => self.on_session(|world, session| world.serve(session)),
            62..84 => self.on_session(|world, session| world.deliver(session)),
            84..88 => {
                self.world.give_map();
            }
            88 => {
                self.world.tell_newest();
            }
            89 => self.on_session(|world, session| {
                world.lose(session);
                true
            }),
            90..92 => {
                if let Some(lost) = self.world.lost.choose(&mut self.rng).copied() {
                    self.world.tell_lost(lost);
                }
            }
            92..94 => self.toggle_backoff(),
            94 => self.give_up(),
            95 => {
                let time = self.rng.random_range(1..7_000);
                self.world.wait(Duration::from_millis(time));
            }
            _ => self.change_map(),
        }
    }

    fn submit(&mut self) {
        let pool = if self.rng.random_bool(0.7) { REPLICATED } else { CODED };
        let object = format!("object{}", self.rng.random_range(0..OBJECTS));
        self.next += 1;
        let number = self.next;
        let ticket = self.world.append(pool, &object, number);
        let writes = self.submitted.entry((pool, object)).or_default();
        writes.push(Write { number, ticket, given_up: false });
    }

    /// Wants room, gives some back, or has the next write take some up.
    fn reserve(&mut self) {
        let now = self.world.now;
        let had = self.budgets.iter().position(Ticket::is_done);
        match (self.rng.random_range(0..3), had) {
            (0, _) => {
                let ticket = Ticket::new();
                let bytes = self.rng.random_range(0..80);
                self.world.core.reserve(bytes, ticket.clone(), now);
                self.budgets.push(ticket);
            }
            (1, Some(had)) => self.world.budget = Some(self.budgets.swap_remove(had).id()),
            (2, _) if !self.budgets.is_empty() => {
                let any = self.rng.random_range(0..self.budgets.len());
                self.world.core.release(self.budgets.swap_remove(any).id(), now);
            }
            _ => {}
        }
        self.world.drain();
        self.submit();
    }

    fn give_up(&mut self) {
        let all: Vec<_> = self.submitted.values_mut().flatten().collect();
        let open = all.into_iter().filter(|write| !write.ticket.is_done() && !write.given_up);
        let mut open: Vec<_> = open.collect();
        if !open.is_empty() {
            let at = self.rng.random_range(0..open.len());
            let write = &mut open[at];
            write.given_up = true;
            let (id, now) = (write.ticket.id(), self.world.now);
            self.world.core.cancel(id, now);
            self.world.drain();
        }
    }

    fn on_session(&mut self, act: impl FnOnce(&mut World, crate::core::SessionId) -> bool) {
        if let Some(session) = self.world.sessions().choose(&mut self.rng) {
            act(&mut self.world, *session);
        }
    }

    fn toggle_backoff(&mut self) {
        let pool = [REPLICATED, CODED].choose(&mut self.rng).copied().unwrap();
        let Some(pg_num) = self.world.map.pool(pool).map(|pool| pool.pg_num) else { return };
        let pg = PgId { pool: pool as u64, seed: self.rng.random_range(0..pg_num) };
        self.on_session(|world, session| {
            world.toggle_backoff(session, pg);
            true
        });
    }

    fn change_map(&mut self) {
        let osd = self.rng.random_range(0..OSDS);
        let pool = [REPLICATED, CODED].choose(&mut self.rng).copied().unwrap();
        let world = &mut self.world;
        let pg_num = world.map.pools[&pool].pg_num;
        let pg = PgId { pool: pool as u64, seed: self.rng.random_range(0..pg_num) };
        match self.rng.random_range(0..14) {
            0 | 1 => world.stop_osd(osd),
            2 | 3 => world.start_osd(osd),
            4 => world.change(|_, inc| {
                inc.new_weight.insert(osd, 0);
            }),
            5 => world.change(|_, inc| {
                inc.new_weight.insert(osd, WEIGHT_IN);
            }),
            6 => {
                let mut osds: Vec<i32> = (0..OSDS).collect();
                osds.rotate_left(osd as usize);
                osds.truncate(3);
                world.change(|_, inc| {
                    inc.new_pg_temp.insert(pg, osds);
                });
            }
            7 => world.change(|_, inc| {
                inc.new_pg_temp.insert(pg, vec![]);
                inc.new_primary_temp.insert(pg, -1);
            }),
            8 => {
                // Monitors take one of the acting OSDs.
                let mut work = PgWorkspace::new();
                let acting = world.map.map_pg(pg, &mut work).acting;
                if let Some(osd) = acting.choose(&mut self.rng).filter(|osd| **osd != ITEM_NONE) {
                    world.change(|_, inc| {
                        inc.new_primary_temp.insert(pg, *osd);
                    });
                }
            }
            9 => {
                let more = self.rng.random_range(1..=8);
                world.change_pool(pool, |pool, _| {
                    pool.pg_num = (pool.pg_num + more).min(40);
                    (pool.pgp_num, pool.pg_num_pending) = (pool.pg_num, pool.pg_num);
                });
            }
            10 => world.change_pool(pool, |pool, epoch| {
                if pool.pg_num > 2 {
                    pool.pg_num -= 1;
                    (pool.pgp_num, pool.pg_num_pending) = (pool.pg_num, pool.pg_num);
                    pool.last_force_op_resend = epoch;
                }
            }),
            11 => {
                let full = self.rng.random_bool(0.5);
                world.set_full(pool, full);
            }
            12 => {
                let usual = MapFlags::SORTBITWISE | MapFlags::RECOVERY_DELETES;
                let pause = self.rng.random_bool(0.5);
                world.set_flags(if pause { usual | MapFlags::PAUSEWR } else { usual });
            }
            // Monitors forget what changed: who is behind gets whole maps.
            _ => world.oldest = Epoch(world.map.epoch.0.max(3) - 2),
        }
    }

    /// All is well again, and everything has come to its end.
    fn heal(&mut self) {
        let world = &mut self.world;
        for budget in self.budgets.drain(..) {
            world.core.release(budget.id(), world.now);
            world.drain();
        }
        world.set_flags(MapFlags::SORTBITWISE | MapFlags::RECOVERY_DELETES);
        for pool in [REPLICATED, CODED] {
            world.set_full(pool, false);
        }
        for osd in 0..OSDS {
            world.start_osd(osd);
            world.change(|_, inc| {
                inc.new_weight.insert(osd, WEIGHT_IN);
            });
        }
        world.change(|map, inc| {
            inc.new_pg_temp = map.pg_temp.keys().map(|pg| (*pg, vec![])).collect();
            inc.new_primary_temp = map.primary_temp.keys().map(|pg| (*pg, -1)).collect();
        });
        world.end_backoffs();
        world.settle();
        // What was dropped without a word is found by ticks.
        for _ in 0..4 {
            world.wait(Duration::from_secs(6));
            world.settle();
        }
    }

    fn check(&mut self) {
        let stuck = self.world.core.describe();
        assert!(stuck.is_empty(), "{stuck:#?}");
        for (key, writes) in &self.submitted {
            let done = self.world.objects.get(key).map_or(&[][..], |object| &object.done);
            let mut done = done.iter().peekable();
            for write in writes {
                let is_done = done.next_if(|number| **number == write.number).is_some();
                if write.given_up {
                    continue;
                }
                let order = &self.world.objects.get(key).map(|object| &object.done);
                assert!(is_done, "{key:?}: {} is missing or out of order: {order:?}", write.number);
                let result = write.ticket.take();
                assert!(matches!(result, Some(Ok(_))), "{key:?}: {}: {result:?}", write.number);
            }
            assert_eq!(done.next(), None, "{key:?}: more was done than was asked for");
        }
    }
}

/// The environment may ask for more.
pub(super) fn seeds() -> std::ops::Range<u64> {
    let count = std::env::var("SIPHON_OBJECTER_SEEDS");
    0..count.ok().and_then(|count| count.parse().ok()).unwrap_or(12)
}

#[test]
fn every_write_is_done_once_and_in_order() {
    let mut sent = (0, 0);
    for seed in seeds() {
        println!("seed {seed}");
        let mut history = History::new(seed, config());
        for _ in 0..2_000 {
            history.step();
        }
        history.heal();
        history.check();
        sent = (sent.0 + history.next, sent.1 + history.world.sent);
    }
    println!("{} writes in {} messages", sent.0, sent.1);
}

#[test]
fn a_maximum_of_operations_keeps_the_order() {
    for seed in seeds() {
        println!("seed {seed}");
        let config = CoreConfig { max_ops: 5, max_bytes: 64, ..config() };
        let mut history = History::new(seed, config);
        for _ in 0..1_000 {
            if history.rng.random_bool(0.1) {
                history.reserve();
            }
            history.step();
        }
        history.heal();
        history.check();
    }
}
