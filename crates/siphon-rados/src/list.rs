//! Objects of a pool, group by group.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::str::FromStr;
use std::task::{Context, Poll, ready};

use futures_util::Stream;
use siphon_messages::osd::{ListObject, OsdFlags, OsdOp, OsdOpCode, PgNlsResponse};
use siphon_objecter::{MapFuture, Op, OpFuture, OpReply, Target};
use siphon_wire::types::{ByteString, HObject, ParseError, PgId};
use siphon_wire::{DecodeError, DecodeErrorKind, Decoder};

use crate::{Error, Pool};

/// Objects that are asked for at once: no OSD gives more (`osd_max_pgls`).
const PAGE: u64 = 1024;
/// How often an OSD may have nothing to say on a group that was split meanwhile.
const MAX_SPLITS: u32 = 64;
/// What stands for all namespaces (`librados::all_nspaces`).
const ALL_NAMESPACES: ByteString = ByteString::from_static("\u{1}");

/// A place in the order of a pool's objects, to go on from later. Its text can be kept.
///
/// ```
/// use siphon_rados::Cursor;
/// let begin = Cursor::begin();
/// assert_eq!(begin.to_string().parse(), Ok(begin));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cursor(HObject);

impl Cursor {
    /// Before all objects.
    ///
    /// ```
    /// use siphon_rados::Cursor;
    /// assert!(Cursor::begin() < Cursor::end());
    /// ```
    pub fn begin() -> Self {
        Self(HObject::min())
    }

    /// Behind all objects.
    ///
    /// ```
    /// use siphon_rados::Cursor;
    /// assert!(Cursor::end() > Cursor::begin());
    /// ```
    pub fn end() -> Self {
        Self(HObject::max())
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl FromStr for Cursor {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        text.parse().map(Self)
    }
}

impl Pool {
    /// The pool's objects in this handle's namespace, in the order of their hashes. Objects that come
    /// or go meanwhile may be listed or not; every other is listed once, also if placement groups are
    /// split meanwhile. They are those of now, also of a handle that reads a snapshot: OSDs list no others.
    ///
    /// ```no_run
    /// # async fn example(pool: siphon_rados::Pool) -> Result<(), siphon_rados::Error> {
    /// use futures_util::TryStreamExt;
    ///
    /// let mut objects = pool.objects();
    /// while let Some(object) = objects.try_next().await? {
    ///     println!("{}", object.oid);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn objects(&self) -> Objects {
        self.objects_from(Cursor::begin())
    }

    /// The same from a [`Cursor`] on.
    ///
    /// ```no_run
    /// # async fn example(pool: siphon_rados::Pool) -> Result<(), siphon_rados::Error> {
    /// use futures_util::StreamExt;
    ///
    /// let mut objects = pool.objects();
    /// let first = objects.next().await;
    /// let kept = objects.cursor().to_string();
    /// let others = pool.objects_from(kept.parse().expect("a cursor's text"));
    /// # Ok(())
    /// # }
    /// ```
    pub fn objects_from(&self, cursor: Cursor) -> Objects {
        Objects::new(self.clone(), cursor)
    }

    /// The same, but the objects of one placement group only, `seed` of `pool.seed`.
    ///
    /// # Errors
    /// [`Error::NoSuchPg`]; [`Error::NoSuchPool`], if the pool is gone.
    ///
    /// ```no_run
    /// # async fn example(pool: siphon_rados::Pool) -> Result<(), siphon_rados::Error> {
    /// let group = pool.objects_of_pg(0x1f)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn objects_of_pg(&self, seed: u32) -> Result<Objects, Error> {
        let map = self.cluster().objecter().map();
        let pg_num = map.pool(self.id()).ok_or_else(|| self.gone())?.pg_num;
        if seed >= pg_num {
            return Err(Error::NoSuchPg {
                pg: PgId { pool: self.id().cast_unsigned(), seed },
                pg_num,
            });
        }
        let mut begin = HObject::min();
        (begin.pool, begin.hash) = (self.id(), seed);
        Ok(Objects { only: Some(seed), ..Objects::new(self.clone(), Cursor(begin)) })
    }

    /// The same pool, in all namespaces at once: for listings only.
    ///
    /// ```no_run
    /// # async fn example(pool: siphon_rados::Pool) -> Result<(), siphon_rados::Error> {
    /// let objects = pool.with_all_namespaces().objects();
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn with_all_namespaces(self) -> Self {
        self.with_namespace(ALL_NAMESPACES)
    }
}

/// Objects of a pool: a stream that asks for a page when the one before was taken. After an error it
/// ends; [`Objects::cursor`] tells where another could go on.
///
/// ```no_run
/// # async fn example(pool: siphon_rados::Pool) -> Result<(), siphon_rados::Error> {
/// use futures_util::TryStreamExt;
///
/// let names: Vec<_> = pool.objects().map_ok(|object| object.oid).try_collect().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Objects {
    pool: Pool,
    /// Where the next page begins.
    position: HObject,
    page: VecDeque<ListObject>,
    state: State,
    /// The placement group beyond which nothing is wanted.
    only: Option<u32>,
    /// Answers without anything, one after the other.
    splits: u32,
}

#[derive(Debug)]
enum State {
    Idle,
    Asking(OpFuture),
    /// The OSD has a newer map, in which the group is another.
    Waiting(MapFuture),
    Failed,
}

impl Objects {
    fn new(pool: Pool, cursor: Cursor) -> Self {
        let (position, page) = (cursor.0, VecDeque::new());
        Self { pool, position, page, state: State::Idle, only: None, splits: 0 }
    }

    /// Before the object that comes next.
    ///
    /// ```no_run
    /// # async fn example(pool: siphon_rados::Pool) -> Result<(), siphon_rados::Error> {
    /// println!("{}", pool.objects().cursor());
    /// # Ok(())
    /// # }
    /// ```
    pub fn cursor(&self) -> Cursor {
        let next = self.page.front().and_then(|object| self.place(object));
        Cursor(next.unwrap_or_else(|| self.position.clone()))
    }

    /// An object's place among the others.
    fn place(&self, object: &ListObject) -> Option<HObject> {
        let map = self.pool.cluster().objecter().map();
        let pool = map.pool(self.pool.id())?;
        let hashed = if object.locator.is_empty() { &object.oid } else { &object.locator };
        let hash = pool.hash_key(hashed, &object.nspace);
        let mut place = HObject::new(self.pool.id(), object.oid.clone(), hash);
        if object.locator != object.oid {
            place.key = object.locator.clone();
        }
        place.namespace = object.nspace.clone();
        Some(place)
    }

    /// The placement group that a hash belongs to, by the map of now.
    fn group_of(&self, hash: u32) -> Option<u32> {
        let map = self.pool.cluster().objecter().map();
        let raw = PgId { pool: self.pool.id().cast_unsigned(), seed: hash };
        map.pool(self.pool.id()).map(|pool| pool.pg_of_hash(raw).seed)
    }

    fn is_done(&self) -> bool {
        let beyond = |group| self.group_of(self.position.hash) != Some(group);
        self.position.is_max() || self.only.is_some_and(beyond)
    }

    fn ask(&self) -> OpFuture {
        let objecter = self.pool.cluster().objecter();
        let epoch = objecter.map().epoch;
        let target = Target::pg(self.pool.id(), self.position.hash);
        let target = target.in_namespace(self.pool.namespace().clone());
        let mut op = Op::read(target, vec![OsdOp::pgnls(PAGE, &self.position, epoch)]);
        op.flags |= OsdFlags::PGOP;
        objecter.submit(op)
    }

    fn take(&mut self, reply: &OpReply) -> Result<State, Error> {
        let op = reply.ops.first().ok_or(Error::MissingAnswer { step: OsdOpCode::PGNLS })?;
        // To the OSD's map the position is of another group (`do_pg_op` of osd/PrimaryLogPG.cc).
        if op.data.is_empty() && self.splits < MAX_SPLITS {
            self.splits += 1;
            return Ok(State::Waiting(
                self.pool.cluster().objecter().wait_for_epoch(reply.epoch, None),
            ));
        }
        let answer = decode(op).map_err(|error| Error::Answer { step: op.code, error })?;
        // An OSD that does not get on would keep us for ever.
        if answer.handle <= self.position {
            return Err(Error::ListStuck);
        }
        self.splits = 0;
        self.position = answer.handle;
        self.page = answer.entries.into();
        Ok(State::Idle)
    }
}

/// Some OSDs append what nobody needs.
fn decode(op: &OsdOp) -> Result<PgNlsResponse, DecodeError> {
    let output = op.data.to_bytes();
    let mut dec = Decoder::new(&output);
    let answer = dec.value()?;
    if dec.remaining() > 0 {
        dec.bytes()?;
    }
    match dec.remaining() {
        0 => Ok(answer),
        count => Err(dec.error(DecodeErrorKind::TrailingBytes { count })),
    }
}

impl Stream for Objects {
    type Item = Result<ListObject, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(object) = self.page.pop_front() {
                return Poll::Ready(Some(Ok(object)));
            }
            if matches!(self.state, State::Idle) && !self.is_done() {
                self.state = State::Asking(self.ask());
            }
            let next = match &mut self.state {
                State::Idle | State::Failed => return Poll::Ready(None),
                State::Waiting(map) => {
                    let map = ready!(Pin::new(map).poll(context));
                    map.map(|_| State::Idle).map_err(Error::from)
                }
                State::Asking(request) => {
                    let reply = ready!(Pin::new(request).poll(context));
                    reply.map_err(Error::from).and_then(|reply| self.take(&reply))
                }
            };
            match next {
                Ok(state) => self.state = state,
                Err(error) => {
                    self.state = State::Failed;
                    return Poll::Ready(Some(Err(error)));
                }
            }
        }
    }
}
