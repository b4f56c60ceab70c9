//! The worker's loop, its timers and its ends, in virtual time where time matters.

#![allow(clippy::disallowed_methods, reason = "time has to begin somewhere")]

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Wake, Waker};
use std::time::{Duration, Instant};

use siphon_net::{
    Accepted, Completion, Driver, EventCenter, FileId, FillBuf, Handler, Interest, ListenOptions,
    ListenerId, MailSender, NetworkStack, SendStatus, SocketId, SocketOptions, StackKind, TimerId,
    Wait, Worker, WorkerFailure, mailbox,
};
use siphon_wire::buf::Rope;

/// A driver without a network, whose time jumps to the limit of each wait.
struct Clock {
    now: Instant,
    waits: Arc<AtomicUsize>,
}

struct NoWake;

impl Wake for NoWake {
    fn wake(self: Arc<Self>) {}
}

fn unsupported<T>() -> io::Result<T> {
    Err(io::ErrorKind::Unsupported.into())
}

impl Driver for Clock {
    fn now(&self) -> Instant {
        self.now
    }

    fn waited(&self) -> bool {
        true
    }

    fn waker(&self) -> Waker {
        Waker::from(Arc::new(NoWake))
    }

    fn listen(&mut self, _: SocketAddr, _: &ListenOptions) -> io::Result<(ListenerId, SocketAddr)> {
        unsupported()
    }

    fn close_listener(&mut self, _: ListenerId) {}

    fn connect(&mut self, _: SocketAddr, _: &SocketOptions) -> io::Result<SocketId> {
        unsupported()
    }

    fn adopt(&mut self, _: Accepted, _: &SocketOptions) -> io::Result<SocketId> {
        unsupported()
    }

    fn detach(&mut self, _: SocketId) -> io::Result<Accepted> {
        unsupported()
    }

    fn recv(&mut self, _: SocketId, _: Option<FillBuf>) {}

    fn send(&mut self, _: SocketId, rope: &mut Rope) -> SendStatus {
        rope.clear();
        SendStatus::Pending
    }

    fn shutdown_write(&mut self, _: SocketId) -> io::Result<()> {
        unsupported()
    }

    fn close(&mut self, _: SocketId) {}

    fn local_addr(&self, _: SocketId) -> io::Result<SocketAddr> {
        unsupported()
    }

    fn peer_addr(&self, _: SocketId) -> io::Result<SocketAddr> {
        unsupported()
    }

    fn register_file(&mut self, _: BorrowedFd<'_>, _: Interest, _: u64) -> io::Result<FileId> {
        unsupported()
    }

    fn modify_file(&mut self, _: FileId, _: Interest) -> io::Result<()> {
        unsupported()
    }

    fn deregister_file(&mut self, _: FileId) {}

    fn wait(&mut self, limit: Wait, _: &mut dyn FnMut(Instant, Completion<'_>)) -> io::Result<()> {
        self.waits.fetch_add(1, Ordering::Relaxed);
        match limit {
            Wait::Poll => {}
            Wait::Until(at) => self.now = self.now.max(at),
            Wait::Forever => return Err(io::Error::other("nothing would ever happen")),
        }
        Ok(())
    }
}

fn clock() -> (EventCenter, Arc<AtomicUsize>) {
    let waits = Arc::new(AtomicUsize::new(0));
    let driver = Clock { now: Instant::now(), waits: Arc::clone(&waits) };
    (EventCenter::new(Box::new(driver)), waits)
}

/// Sets, moves and cancels timers as told, and notes which expire when.
#[derive(Default)]
struct TimerUser {
    tasks: VecDeque<Task>,
    ids: Vec<TimerId>,
    start: Option<Instant>,
    expired: Vec<(Duration, u64)>,
}

enum Task {
    Set(u64, u64),
    Reset(usize, u64),
    Cancel(usize),
}

impl Handler for TimerUser {
    type Mail = Task;

    fn handle_completion(&mut self, _: Instant, _: Completion<'_>) {}

    fn handle_timer(&mut self, now: Instant, token: u64) {
        self.expired.push((now - self.start.unwrap(), token));
    }

    fn handle_mail(&mut self, _: Instant, task: Task) {
        self.tasks.push_back(task);
    }

    fn drain(&mut self, center: &mut EventCenter) {
        let start = *self.start.get_or_insert(center.now());
        let at = |seconds| start + Duration::from_secs(seconds);
        for task in self.tasks.drain(..) {
            match task {
                Task::Set(seconds, token) => self.ids.push(center.set_timer(at(seconds), token)),
                Task::Reset(index, seconds) => {
                    assert!(center.reset_timer(self.ids[index], at(seconds)));
                }
                Task::Cancel(index) => {
                    assert!(center.cancel_timer(self.ids[index]));
                    assert!(!center.cancel_timer(self.ids[index]));
                }
            }
        }
    }

    fn is_done(&self) -> bool {
        false
    }
}

#[test]
fn timers_expire_in_order_unless_cancelled() {
    let (center, waits) = clock();
    let (sender, mailbox) = mailbox();
    for task in [
        Task::Set(30, 3),
        Task::Set(10, 1),
        Task::Set(20, 2),
        Task::Set(10, 11),
        Task::Set(15, 99),
        Task::Cancel(4),
        Task::Reset(2, 40),
    ] {
        sender.send(task);
    }
    let mut worker = Worker::new(center, mailbox, TimerUser::default());
    assert_eq!(worker.run().unwrap_err().to_string(), "nothing would ever happen");
    let seconds = Duration::from_secs;
    let expected = [(seconds(10), 1), (seconds(10), 11), (seconds(30), 3), (seconds(40), 2)];
    assert_eq!(worker.handler().expired, expected);
    // One to start, one for each deadline, one to find that there are no more.
    assert_eq!(waits.load(Ordering::Relaxed), 5);
}

#[test]
fn a_timer_ends_a_real_wait() {
    for kind in [StackKind::Posix] {
        let mut center = EventCenter::new(kind.driver().unwrap());
        let deadline = Instant::now() + Duration::from_millis(5);
        center.set_timer(deadline, 5);
        while center.now() < deadline {
            assert_eq!(center.pop_expired_timer(), None);
            center.wait(Wait::Forever, &mut |_, completion| panic!("{completion:?}")).unwrap();
        }
        assert_eq!(center.pop_expired_timer(), Some(5));
        assert_eq!(center.next_deadline(), None);
    }
}

/// Mails itself in every drain.
struct SelfMailer {
    sender: MailSender<u64>,
    mails: u64,
    drains: u64,
    enough: u64,
}

impl Handler for SelfMailer {
    type Mail = u64;

    fn handle_completion(&mut self, _: Instant, _: Completion<'_>) {}

    fn handle_timer(&mut self, _: Instant, _: u64) {}

    fn handle_mail(&mut self, _: Instant, mail: u64) {
        assert_eq!(mail, self.mails, "in order");
        self.mails += 1;
    }

    fn drain(&mut self, _: &mut EventCenter) {
        self.sender.send(self.drains);
        self.drains += 1;
    }

    fn is_done(&self) -> bool {
        self.mails >= self.enough
    }
}

/// The clock's driver fails a wait that sleeps: the worker must poll while it has mail, and return
/// to its sockets however much it mails itself.
#[test]
fn mail_to_oneself_neither_sleeps_nor_keeps_the_sockets_waiting() {
    let (center, waits) = clock();
    let (sender, mailbox) = mailbox();
    let handler = SelfMailer { sender, mails: 0, drains: 0, enough: 100 };
    let mut worker = Worker::new(center, mailbox, handler);
    worker.run().unwrap();
    let waits = waits.load(Ordering::Relaxed);
    assert!((10..=100).contains(&waits), "{waits} waits for a hundred mails");
    let before = worker.handler().mails;
    let applied = worker.step(Wait::Poll).unwrap() as u64;
    assert_eq!(before + applied, worker.handler().mails);
}

/// Has so much to tell the application, a piece of it in each round.
struct Talker {
    rounds: usize,
    left: usize,
    waits: Arc<AtomicUsize>,
    sender: MailSender<u64>,
    mails: u64,
}

impl Handler for Talker {
    type Mail = u64;

    fn handle_completion(&mut self, _: Instant, _: Completion<'_>) {}

    fn handle_timer(&mut self, _: Instant, _: u64) {}

    fn handle_mail(&mut self, _: Instant, mail: u64) {
        assert_eq!(mail, self.mails, "in order");
        self.mails += 1;
    }

    fn dispatch(&mut self, _: &mut EventCenter) {
        assert_eq!(self.waits.load(Ordering::Relaxed), 1, "all in one turn");
        assert_eq!(self.mails, self.rounds as u64, "what a round led to comes before the next");
        self.sender.send(self.mails);
        self.left -= 1;
    }

    fn drain(&mut self, _: &mut EventCenter) {
        self.rounds += 1;
        assert_eq!(self.mails, self.rounds as u64, "and is sent in its own");
    }

    fn has_more(&self) -> bool {
        self.left > 0
    }

    fn is_done(&self) -> bool {
        self.left == 0
    }
}

#[test]
fn a_turn_has_as_many_rounds_as_there_is_to_tell() {
    let (center, waits) = clock();
    let (sender, mailbox) = mailbox();
    let handler = Talker { rounds: 0, left: 20, waits, sender, mails: 0 };
    let mut worker = Worker::new(center, mailbox, handler);
    worker.run().unwrap();
    assert_eq!((worker.handler().rounds, worker.handler().mails), (20, 20));
}

/// Does as it is told.
struct Told {
    done: bool,
}

enum Order {
    Panic,
    End,
    Answer(mpsc::Sender<()>),
}

impl Handler for Told {
    type Mail = Order;

    fn handle_completion(&mut self, _: Instant, _: Completion<'_>) {}

    fn handle_timer(&mut self, _: Instant, _: u64) {}

    fn handle_mail(&mut self, _: Instant, order: Order) {
        match order {
            Order::Panic => panic!("as ordered"),
            Order::End => self.done = true,
            Order::Answer(to) => to.send(()).unwrap(),
        }
    }

    fn drain(&mut self, _: &mut EventCenter) {}

    fn is_done(&self) -> bool {
        self.done
    }
}

#[test]
fn a_panic_of_one_worker_is_reported_and_leaves_the_others() {
    for kind in [StackKind::Posix] {
        let workers = NetworkStack::new(kind.here())
            .spawn(2, |index, _| {
                let name = format!("msgr-worker-{index}");
                assert_eq!(std::thread::current().name(), Some(&*name));
                Told { done: false }
            })
            .unwrap();
        let [first, second] = workers.senders() else { panic!("two workers") };
        first.send(Order::Panic);
        // Whatever is mailed to it: its drop tells that no answer will come.
        let (answer, answered) = mpsc::channel();
        while !first.is_closed() {
            first.send(Order::Answer(answer.clone()));
            std::thread::yield_now();
        }
        drop(answer);
        assert!(answered.recv().is_err());

        let (answer, answered) = mpsc::channel();
        second.send(Order::Answer(answer));
        answered.recv().unwrap();
        second.send(Order::End);
        let error = workers.join().unwrap_err();
        assert_eq!(error.worker, 0);
        assert_eq!(error.to_string(), "messenger worker 0 panicked: as ordered");
    }
}

#[test]
fn a_driver_that_fails_is_reported() {
    let stack = NetworkStack::from_fn("clock", |_| {
        Ok(Box::new(Clock { now: Instant::now(), waits: Arc::default() }))
    });
    let workers = stack.spawn(1, |_, _| Told { done: false }).unwrap();
    let error = workers.join().unwrap_err();
    assert!(matches!(error.cause, WorkerFailure::Driver(_)), "{error}");
}

#[test]
fn no_worker_starts_where_one_has_no_driver() {
    let stack = NetworkStack::from_fn("broken", |worker| match worker {
        2 => Err(io::Error::other("no device for worker 2")),
        _ => StackKind::Posix.driver(),
    });
    let factory = |_: usize, _: Arc<[MailSender<Order>]>| -> Told { panic!("a handler was made") };
    let error = stack.spawn(3, factory).unwrap_err();
    assert_eq!(error.to_string(), "no device for worker 2");
}
