use std::cmp::Ordering;
use std::collections::binary_heap::PeekMut;
use std::collections::{BinaryHeap, HashMap};
use std::hash::Hash;

use slab::Slab;
use smallvec::SmallVec;

use crate::message::Priority;

/// A queue by priority, in which no priority and no key starves another: Ceph's `PrioritizedQueue`
/// (`common/PrioritizedQueue.h`), with turns by cost instead of by item.
///
/// # Between priorities
///
/// Above [`Priority::HIGH`] priority is strict: the highest goes first. At or below it, priorities
/// share in proportion to their numbers. Each that has items holds tokens, at most `max_tokens`; the
/// cost of what is taken is charged to its priority, and handed out to all in proportion. Of those
/// that can pay for their next item the *lowest* goes, as in Ceph: it could save for it out of its
/// share alone, and whoever goes as soon as it can never hoards. When none can pay, the highest goes
/// for free.
///
/// So, once nothing above `HIGH` is left, an item of cost `c` that is next of priority `p` can be paid
/// for when others were served `c * sum / p` in cost and one item more, where `sum` is that of the
/// weighted priorities with items. From then on it waits for lower priorities only, and those have at
/// most `max_tokens` each and their share of what is served. Priority 0 earns one token an item and
/// waits accordingly. In tokens an item costs at least `min_cost` and at most `max_tokens`; Ceph wants
/// a token more than the cost, so that what costs `max_tokens` can never be paid for.
/// The shares are exact for items up to half of `max_tokens`: what a larger one earns may not fit.
///
/// # Between keys
///
/// Within a priority, keys (connections) take turns by cost. When an item becomes the first of its
/// key it is stamped with the clock of its priority plus its cost; the lowest stamp goes first, the
/// older of equals; and the clock becomes the stamp of what was taken (self-clocked fair queueing).
/// Hence two bounds, in cost within the same priority:
///
/// - From when an item of cost `c` becomes the first of its key until it is taken, any other key is
///   served at most the item that was then its first, and `c` after it.
/// - While two keys both have items, what they were served differs by at most the sum of the costs
///   of the largest item of each.
///
/// An item costs at least `min_cost` here too, so items up to that size take turns one by one. A cost
/// above 4 GiB counts as 4 GiB.
///
/// # Order
///
/// Items of one key and one priority never overtake each other.
///
/// # Cost
///
/// [`push`](Self::push) and [`pop`](Self::pop) take time logarithmic in the keys of a priority, and,
/// where there are several, linear in the priorities that have items. With one priority and one key
/// there is nothing to compare and nothing to hash. Nothing is allocated but for more items, keys or
/// priorities at once than before, and what ran empty keeps room for [`MAX_IDLE_CLASSES`
/// ](Self::MAX_IDLE_CLASSES) priorities of [`MAX_IDLE_ITEMS`](Self::MAX_IDLE_ITEMS) each. A key is
/// dropped with its last item. The queue's length is bounded by whoever pushes.
///
/// ```
/// use siphon_proto::{Priority, WeightedQueue};
///
/// let mut queue = WeightedQueue::default();
/// queue.push("osd.0", Priority::DEFAULT, 4 << 20, "a large write");
/// queue.push("osd.0", Priority::DEFAULT, 4 << 20, "another one");
/// queue.push("osd.1", Priority::DEFAULT, 100, "a small one");
/// queue.push("osd.0", Priority::HIGHEST, 100, "a ping");
/// let order: Vec<_> = std::iter::from_fn(|| queue.pop()).map(|(_, item)| item).collect();
/// assert_eq!(order, ["a ping", "a small one", "a large write", "another one"]);
/// ```
#[derive(Debug)]
pub struct WeightedQueue<K, T> {
    /// The classes that have items, the highest priority last. Boxed, because they move.
    classes: SmallVec<[Box<Class<K, T>>; 1]>,
    /// Empty ones, for any priority.
    idle: SmallVec<[Box<Class<K, T>>; 1]>,
    /// The sum of the weighted priorities in `classes`.
    total_priority: u64,
    len: usize,
    max_tokens: u64,
    min_cost: u64,
}

impl<K, T> WeightedQueue<K, T> {
    /// Ceph's default for `ms_pq_max_tokens_per_priority`, in bytes.
    pub const DEFAULT_MAX_TOKENS: u64 = 16 << 20;
    /// Ceph's default for `ms_pq_min_cost`, in bytes.
    pub const DEFAULT_MIN_COST: u64 = 64 << 10;
    /// Most empty priorities whose room is kept; a sender uses a handful.
    pub const MAX_IDLE_CLASSES: usize = 4;
    /// Most items for which an empty priority keeps room.
    pub const MAX_IDLE_ITEMS: usize = 32;

    /// Items in the queue.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl<K: Clone + Eq + Hash, T> WeightedQueue<K, T> {
    /// An empty queue; for the arguments (bytes) see the type.
    pub fn new(max_tokens: u64, min_cost: u64) -> Self {
        Self {
            classes: SmallVec::new(),
            idle: SmallVec::new(),
            total_priority: 0,
            len: 0,
            max_tokens,
            min_cost,
        }
    }

    /// Puts an item of this cost (bytes) behind those of its key and priority.
    pub fn push(&mut self, key: K, priority: Priority, cost: u64, item: T) {
        let cost = u32::try_from(cost.max(self.min_cost)).unwrap_or(u32::MAX);
        self.class(priority).push(key, cost, item);
        self.len += 1;
    }

    /// Takes the item whose turn it is.
    pub fn pop(&mut self) -> Option<(K, T)> {
        let highest = self.classes.len().checked_sub(1)?;
        // One that is alone neither pays nor earns: it would pay itself.
        if highest == 0 || weight(self.classes[highest].priority) == 0 {
            return self.take(highest);
        }
        let max_tokens = self.max_tokens;
        let price = |class: &Class<K, T>| u64::from(class.next_cost()).min(max_tokens);
        let paying = self.classes.iter().position(|class| price(class) <= class.tokens);
        let at = paying.unwrap_or(highest);
        let class = &mut self.classes[at];
        let cost = price(class);
        class.tokens = class.tokens.saturating_sub(cost);
        let taken = self.take(at);
        for class in &mut self.classes {
            // One more than its share, or priority 0 would never be served.
            let share = weight(class.priority) * cost / self.total_priority.max(1) + 1;
            class.tokens = (class.tokens + share).min(max_tokens);
        }
        taken
    }

    /// Takes all items of a key, the highest priority first, and in order within each; Ceph's
    /// `remove_by_class`. Takes time linear in the keys of each priority.
    pub fn remove_key(&mut self, key: &K) -> Vec<T> {
        let mut removed = Vec::new();
        for at in (0..self.classes.len()).rev() {
            self.classes[at].remove_key(key, &mut removed);
            if self.classes[at].is_empty() {
                self.retire(at);
            }
        }
        self.len -= removed.len();
        removed
    }

    /// The class of this priority, which the caller gives an item.
    fn class(&mut self, priority: Priority) -> &mut Class<K, T> {
        let at = match self.classes.last() {
            Some(last) if last.priority == priority => self.classes.len() - 1,
            Some(last) if last.priority > priority => {
                let at = self.classes.partition_point(|class| class.priority < priority);
                if self.classes[at].priority != priority {
                    self.enlist(at, priority);
                }
                at
            }
            _ => {
                let at = self.classes.len();
                self.enlist(at, priority);
                at
            }
        };
        &mut self.classes[at]
    }

    fn enlist(&mut self, at: usize, priority: Priority) {
        let mut class = self.idle.pop().unwrap_or_default();
        class.priority = priority;
        self.total_priority += weight(priority);
        self.classes.insert(at, class);
    }

    fn retire(&mut self, at: usize) {
        let mut class = self.classes.remove(at);
        self.total_priority -= weight(class.priority);
        if self.idle.len() < Self::MAX_IDLE_CLASSES {
            class.reset(Self::MAX_IDLE_ITEMS);
            self.idle.push(class);
        }
    }

    #[inline]
    fn take(&mut self, at: usize) -> Option<(K, T)> {
        let taken = self.classes[at].pop();
        self.len -= usize::from(taken.is_some());
        if self.classes[at].is_empty() {
            self.retire(at);
        }
        taken
    }
}

/// With Ceph's defaults.
impl<K: Clone + Eq + Hash, T> Default for WeightedQueue<K, T> {
    fn default() -> Self {
        Self::new(Self::DEFAULT_MAX_TOKENS, Self::DEFAULT_MIN_COST)
    }
}

/// A priority's weight; 0 if it is strict, and if it is 0.
fn weight(priority: Priority) -> u64 {
    if priority > Priority::HIGH { 0 } else { priority.0.into() }
}

/// The items of one priority.
///
/// Invariants: `flows` and `turns` have one entry for each key with items; so has `by_key` if they
/// are two or more, else it is empty. `items` has what can be reached from `flows`.
#[derive(Debug)]
struct Class<K, T> {
    priority: Priority,
    tokens: u64,
    /// The stamp of the item that was taken last.
    clock: u64,
    /// How often a key's turn was set; tells which of equal stamps is older.
    turns_set: u64,
    turns: BinaryHeap<Turn>,
    flows: Slab<Flow<K>>,
    by_key: HashMap<K, usize>,
    items: Slab<Item<T>>,
}

/// The items of one key: a list within `Class::items`.
#[derive(Debug)]
struct Flow<K> {
    key: K,
    first: usize,
    last: usize,
}

#[derive(Debug)]
struct Item<T> {
    value: T,
    cost: u32,
    next: Option<usize>,
}

/// The first item of a key. The greatest of a heap is the one to be taken.
#[derive(Debug, PartialEq, Eq)]
struct Turn {
    stamp: u64,
    age: u64,
    flow: usize,
    cost: u32,
}

impl Ord for Turn {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.stamp, other.age).cmp(&(self.stamp, self.age))
    }
}

impl PartialOrd for Turn {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<K, T> Default for Class<K, T> {
    fn default() -> Self {
        Self {
            priority: Priority::default(),
            tokens: 0,
            clock: 0,
            turns_set: 0,
            turns: BinaryHeap::new(),
            flows: Slab::new(),
            by_key: HashMap::new(),
            items: Slab::new(),
        }
    }
}

impl<K: Clone + Eq + Hash, T> Class<K, T> {
    fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// What the item to be taken costs; 0 if there is none.
    fn next_cost(&self) -> u32 {
        self.turns.peek().map_or(0, |turn| turn.cost)
    }

    #[inline]
    fn push(&mut self, key: K, cost: u32, value: T) {
        let at = self.items.insert(Item { value, cost, next: None });
        if let Some(flow) = self.find(&key) {
            let flow = &mut self.flows[flow];
            self.items[flow.last].next = Some(at);
            flow.last = at;
            return;
        }
        if let Some(only) = self.only_flow() {
            self.by_key.insert(self.flows[only].key.clone(), only);
        }
        let flow = self.flows.vacant_key();
        if !self.flows.is_empty() {
            self.by_key.insert(key.clone(), flow);
        }
        self.flows.insert(Flow { key, first: at, last: at });
        let stamp = self.clock.saturating_add(cost.into());
        self.turns_set += 1;
        self.turns.push(Turn { stamp, age: self.turns_set, flow, cost });
    }

    #[inline]
    fn pop(&mut self) -> Option<(K, T)> {
        let mut turn = self.turns.peek_mut()?;
        self.clock = turn.stamp;
        let flow = &mut self.flows[turn.flow];
        let item = self.items.remove(flow.first);
        let key = if let Some(next) = item.next {
            flow.first = next;
            self.turns_set += 1;
            turn.cost = self.items[next].cost;
            turn.stamp = self.clock.saturating_add(turn.cost.into());
            turn.age = self.turns_set;
            flow.key.clone()
        } else {
            let flow = PeekMut::pop(turn).flow;
            self.forget(flow)
        };
        Some((key, item.value))
    }

    fn remove_key(&mut self, key: &K, removed: &mut Vec<T>) {
        let Some(flow) = self.find(key) else { return };
        let mut next = Some(self.flows[flow].first);
        while let Some(at) = next {
            let item = self.items.remove(at);
            next = item.next;
            removed.push(item.value);
        }
        self.turns.retain(|turn| turn.flow != flow);
        self.forget(flow);
    }

    /// Drops a key that has neither items nor a turn any more.
    fn forget(&mut self, flow: usize) -> K {
        let key = self.flows.remove(flow).key;
        if !self.flows.is_empty() {
            self.by_key.remove(&key);
            if let Some(only) = self.only_flow() {
                self.by_key.remove(&self.flows[only].key);
            }
        }
        key
    }

    fn find(&self, key: &K) -> Option<usize> {
        match self.only_flow() {
            Some(only) => (self.flows[only].key == *key).then_some(only),
            None if self.flows.is_empty() => None,
            None => self.by_key.get(key).copied(),
        }
    }

    fn only_flow(&self) -> Option<usize> {
        if self.flows.len() == 1 { self.turns.peek().map(|turn| turn.flow) } else { None }
    }

    /// Makes an empty class like a new one, with room for some items.
    fn reset(&mut self, room: usize) {
        debug_assert!(self.turns.is_empty() && self.flows.is_empty() && self.by_key.is_empty());
        self.tokens = 0;
        self.clock = 0;
        self.turns_set = 0;
        self.turns.shrink_to(room);
        self.by_key.shrink_to(room);
        // Also makes the next items go into consecutive places.
        reset_slab(&mut self.flows, room);
        reset_slab(&mut self.items, room);
    }
}

fn reset_slab<T>(slab: &mut Slab<T>, room: usize) {
    slab.clear();
    if slab.capacity() > room {
        *slab = Slab::new();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, VecDeque};

    use proptest::prelude::*;

    use super::*;

    const MIN: u64 = 64 << 10;
    const MAX: u64 = 16 << 20;

    #[derive(Clone, Debug)]
    enum Op {
        Push { key: u8, priority: u16, cost: u64 },
        Pop,
        RemoveKey(u8),
    }

    fn op() -> impl Strategy<Value = Op> {
        let priority = prop_oneof![0..4u16, 60..70u16, 190..200u16, Just(u16::MAX)];
        let cost = prop_oneof![0..MIN, MIN..2 * MAX, Just(u64::MAX)];
        prop_oneof![
            8 => (0..6u8, priority, cost)
                .prop_map(|(key, priority, cost)| Op::Push { key, priority, cost }),
            6 => Just(Op::Pop),
            1 => (0..6u8).prop_map(Op::RemoveKey),
        ]
    }

    /// For each priority and key, the numbers of the items that are in the queue.
    #[derive(Default)]
    struct Model(BTreeMap<(u16, u8), VecDeque<usize>>);

    impl Model {
        fn len(&self) -> usize {
            self.0.values().map(VecDeque::len).sum()
        }

        fn popped(&mut self, popped: Option<(u8, (u16, usize))>) {
            let highest = self.0.iter().rev().find(|(_, items)| !items.is_empty());
            let highest = highest.map(|((priority, _), _)| *priority);
            let Some((key, (priority, number))) = popped else {
                assert_eq!(highest, None, "an item was left");
                return;
            };
            if highest > Some(Priority::HIGH.0) {
                assert_eq!(Some(priority), highest, "a strict priority was overtaken");
            }
            let items = self.0.get_mut(&(priority, key)).expect("one of the model's");
            assert_eq!(items.pop_front(), Some(number), "an item of its key was overtaken");
        }

        fn removed(&mut self, key: u8, removed: &[(u16, usize)]) {
            let mut expected = Vec::new();
            for ((priority, of), items) in self.0.iter_mut().rev() {
                if *of == key {
                    expected.extend(items.drain(..).map(|number| (*priority, number)));
                }
            }
            assert_eq!(removed, expected);
        }
    }

    /// What the fields promise each other.
    fn check<K: Clone + Eq + Hash, T>(queue: &WeightedQueue<K, T>) {
        let classes = &queue.classes;
        assert!(classes.windows(2).all(|pair| pair[0].priority < pair[1].priority));
        assert_eq!(classes.iter().map(|c| weight(c.priority)).sum::<u64>(), queue.total_priority);
        assert_eq!(classes.iter().map(|c| c.items.len()).sum::<usize>(), queue.len());
        for class in classes {
            assert!(!class.is_empty() && class.tokens <= queue.max_tokens);
            assert_eq!(class.turns.len(), class.flows.len());
            let by_key = if class.flows.len() == 1 { 0 } else { class.flows.len() };
            assert_eq!(class.by_key.len(), by_key);
        }
        assert!(queue.idle.len() <= WeightedQueue::<K, T>::MAX_IDLE_CLASSES);
        for class in &queue.idle {
            assert!(class.is_empty() && class.flows.is_empty() && class.tokens == 0);
            assert!(class.items.capacity() <= WeightedQueue::<K, T>::MAX_IDLE_ITEMS);
        }
    }

    proptest! {
        #[test]
        fn nothing_is_lost_and_no_item_overtakes_another_of_its_key_and_priority(
            ops in prop::collection::vec(op(), 0..400),
        ) {
            let mut queue = WeightedQueue::default();
            let mut model = Model::default();
            for (number, op) in ops.into_iter().enumerate() {
                match op {
                    Op::Push { key, priority, cost } => {
                        queue.push(key, Priority(priority), cost, (priority, number));
                        model.0.entry((priority, key)).or_default().push_back(number);
                    }
                    Op::Pop => model.popped(queue.pop()),
                    Op::RemoveKey(key) => model.removed(key, &queue.remove_key(&key)),
                }
                check(&queue);
                prop_assert_eq!(queue.len(), model.len());
            }
            while !queue.is_empty() {
                model.popped(queue.pop());
            }
            model.popped(None);
            check(&queue);
        }

        /// The first of the bounds between keys.
        #[test]
        fn another_key_gets_its_first_item_and_my_cost_before_me(
            neighbours in prop::collection::vec(prop::collection::vec(MIN..MAX, 1..60), 1..5),
            warmup in 0..40usize,
            mine in 1..MAX,
        ) {
            let mut queue = WeightedQueue::new(MAX, MIN);
            for (key, costs) in neighbours.iter().enumerate() {
                for cost in costs {
                    queue.push(key, Priority::LOW, *cost, *cost);
                }
            }
            for _ in 0..warmup {
                queue.pop();
            }
            let me = usize::MAX;
            queue.push(me, Priority::LOW, mine, mine);
            let mut served = vec![Vec::new(); neighbours.len()];
            while let Some((key, cost)) = queue.pop() && key != me {
                served[key].push(cost);
            }
            for costs in served {
                let after_the_first: u64 = costs.iter().skip(1).sum();
                prop_assert!(after_the_first <= mine.max(MIN), "{} for {}", after_the_first, mine);
            }
        }

        /// The second of them.
        #[test]
        fn keys_that_both_have_items_are_served_the_same(
            large in prop::collection::vec(MIN..MAX, 100),
            small in prop::collection::vec(0..4 * MIN, 400),
        ) {
            let mut queue = WeightedQueue::new(MAX, MIN);
            let (mut left, mut served) = ([large.len(), small.len()], [0u64; 2]);
            for (key, costs) in [large, small].into_iter().enumerate() {
                for cost in costs {
                    queue.push(key, Priority::HIGHEST, cost, cost.max(MIN));
                }
            }
            while left.iter().all(|left| *left > 0) {
                let (key, cost) = queue.pop().expect("both keys have items");
                served[key] += cost;
                left[key] -= 1;
                prop_assert!(served[0].abs_diff(served[1]) <= MAX + 4 * MIN, "{:?}", served);
            }
        }

        #[test]
        fn a_low_priority_waits_for_no_more_than_its_share_comes_to(
            costs in prop::collection::vec(MIN..=MAX, 300),
            mine in 1..=MAX,
            (low, high) in (20..100u16, 100..=196u16),
        ) {
            let mut queue = WeightedQueue::new(MAX, MIN);
            for cost in &costs {
                queue.push(0, Priority(high), *cost, *cost);
            }
            queue.push(1, Priority(low), mine, mine);
            let others = std::iter::from_fn(|| queue.pop()).take_while(|(key, _)| *key == 0);
            let others: Vec<u64> = others.map(|(_, cost)| cost).collect();
            let but_one: u64 = others.iter().rev().skip(1).sum();
            let bound = mine.max(MIN) * u64::from(low + high) / u64::from(low);
            prop_assert!(but_one <= bound, "{but_one} of at most {bound}");
        }

        #[test]
        fn two_full_priorities_share_in_proportion(
            cost in 0..MAX / 2,
            (low, high) in (1..100u16, 100..=196u16),
        ) {
            let mut queue = WeightedQueue::new(MAX, MIN);
            let mut served = [0u32; 2];
            for priority in [low, high] {
                queue.push((), Priority(priority), cost, priority);
            }
            for _ in 0..20_000 {
                // What was taken is replaced while its priority still has another.
                for priority in [low, high] {
                    if queue.len() < 4 {
                        queue.push((), Priority(priority), cost, priority);
                    }
                }
                let ((), priority) = queue.pop().expect("both are full");
                served[usize::from(priority == high)] += 1;
                queue.push((), Priority(priority), cost, priority);
            }
            let ratio = f64::from(served[1]) / f64::from(served[0]);
            let expected = f64::from(high) / f64::from(low);
            prop_assert!((ratio / expected - 1.0).abs() < 0.2, "{ratio}, not {expected}");
        }
    }

    #[test]
    fn items_of_equal_cost_take_turns() {
        let mut queue = WeightedQueue::default();
        for (key, items) in [("a", 4), ("b", 2), ("c", 3)] {
            for _ in 0..items {
                queue.push(key, Priority::DEFAULT, 1, ());
            }
        }
        let keys: String = std::iter::from_fn(|| queue.pop()).map(|(key, ())| key).collect();
        assert_eq!(keys, "abcabcaca");
    }

    /// A client with one large request at a time is served once, then waits like everybody.
    #[test]
    fn whoever_comes_back_at_once_does_not_jump_the_line() {
        let mut queue = WeightedQueue::default();
        for _ in 0..1000 {
            queue.push("small", Priority::LOW, 1, ());
        }
        queue.push("large", Priority::LOW, 4 << 20, ());
        let mut order = String::new();
        for _ in 0..200 {
            let (key, ()) = queue.pop().expect("there are 1000");
            order.push_str(&key[..1]);
            if key == "large" {
                queue.push("large", Priority::LOW, 4 << 20, ());
            }
        }
        let turns: Vec<usize> = order.split('l').map(str::len).collect();
        // 4 MiB are 64 times the least cost; of equal stamps the large item's is older, at first.
        assert_eq!(turns, [63, 64, 64, 6]);
    }

    #[test]
    fn the_lowest_priority_is_served_too_and_so_is_the_dearest_item() {
        let mut queue = WeightedQueue::new(100, 1);
        queue.push((), Priority(0), 0, "lowest");
        queue.push((), Priority(1), 1000, "dearest");
        let others = std::iter::from_fn(|| {
            queue.push((), Priority::HIGH, 1, "other");
            queue.pop()
        });
        let order: Vec<_> = others.map(|((), item)| item).take(2000).collect();
        assert!(order.contains(&"lowest"));
        assert!(order.contains(&"dearest"));
    }

    #[test]
    fn what_ran_empty_keeps_little() {
        let mut queue = WeightedQueue::default();
        for priority in 0..1000 {
            for item in 0..100 {
                queue.push(item, Priority(priority), 0, item);
            }
        }
        check(&queue);
        while queue.pop().is_some() {}
        check(&queue);
        for class in &queue.idle {
            let most = 2 * WeightedQueue::<i32, i32>::MAX_IDLE_ITEMS;
            assert!(class.turns.capacity() <= most && class.by_key.capacity() <= most);
        }
    }

    #[test]
    fn a_clock_at_its_end_takes_turns_by_age() {
        let mut queue = WeightedQueue::default();
        queue.push(0, Priority::LOW, 1, ());
        queue.classes[0].clock = u64::MAX - 1;
        for key in [1, 2, 1, 2] {
            queue.push(key, Priority::LOW, u64::MAX, ());
        }
        let keys: Vec<i32> = std::iter::from_fn(|| queue.pop()).map(|(key, ())| key).collect();
        assert_eq!(keys, [0, 1, 2, 1, 2]);
    }
}
