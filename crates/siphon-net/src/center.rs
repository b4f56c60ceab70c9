//! A worker's driver and timers in one.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::task::Waker;
use std::time::Instant;

use siphon_wire::buf::Rope;

use crate::FillBuf;
use crate::driver::{
    Accepted, Completion, Driver, FileId, Interest, ListenOptions, ListenerId, SendStatus,
    SocketId, SocketOptions, Wait,
};
use crate::tcp_info::{self, TcpInfo};
use crate::timers::{TimerId, Timers};

/// What a worker does its IO with: its share of the stack, and its timers.
///
/// The ops are [`Driver`]'s, with its contract. An event center stays on its worker's thread:
///
/// ```compile_fail
/// fn sent<T: Send>() {}
/// sent::<siphon_net::EventCenter>();
/// ```
pub struct EventCenter {
    driver: Box<dyn Driver>,
    timers: Timers,
    /// There was nothing to do in the turn before this one.
    idle: bool,
}

impl EventCenter {
    /// An event center on this thread's driver.
    pub fn new(driver: Box<dyn Driver>) -> Self {
        Self { driver, timers: Timers::new(), idle: true }
    }

    /// The time of this turn of the worker's loop, which all of the turn shares.
    pub fn now(&self) -> Instant {
        self.driver.now()
    }

    /// As [`Driver::clock`].
    pub fn clock(&self) -> Instant {
        self.driver.clock()
    }

    /// Whether the worker had nothing to do before this turn began, and so has time to spare.
    pub fn waited(&self) -> bool {
        self.idle || self.driver.waited()
    }

    /// As [`Driver::submit`].
    pub(crate) fn submit(&mut self) -> io::Result<()> {
        self.driver.submit()
    }

    /// A turn ends, in which there was nothing to do if it was `idle`.
    pub(crate) fn end_turn(&mut self, idle: bool) {
        self.idle = idle;
    }

    /// As [`Driver::waker`].
    pub fn waker(&self) -> Waker {
        self.driver.waker()
    }

    /// Sets a timer: [`Handler::handle_timer`](crate::Handler::handle_timer) gets `token` in the
    /// first turn whose time is not before `deadline`.
    pub fn set_timer(&mut self, deadline: Instant, token: u64) -> TimerId {
        self.timers.set(deadline, token)
    }

    /// Moves a timer, keeping its token, to save setting another. Whether it was still set.
    pub fn reset_timer(&mut self, id: TimerId, deadline: Instant) -> bool {
        self.timers.reset(id, deadline)
    }

    /// Cancels a timer, whose expiry is not told afterwards. Whether it was still set.
    pub fn cancel_timer(&mut self, id: TimerId) -> bool {
        self.timers.cancel(id)
    }

    /// When the next timer expires.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.timers.next_deadline()
    }

    /// Takes a timer that has expired by [`now`](Self::now), and gives its token.
    pub fn pop_expired_timer(&mut self) -> Option<u64> {
        self.timers.pop_expired(self.driver.now())
    }

    /// As [`Driver::wait`], but no longer than to the next timer.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn wait(
        &mut self,
        limit: Wait,
        sink: &mut dyn FnMut(Instant, Completion<'_>),
    ) -> io::Result<()> {
        self.driver.wait(limit.min(self.timers.next_deadline().into()), sink)
    }

    /// As [`Driver::listen`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn listen(
        &mut self,
        addr: SocketAddr,
        options: &ListenOptions,
    ) -> io::Result<(ListenerId, SocketAddr)> {
        self.driver.listen(addr, options)
    }

    /// As [`Driver::close_listener`].
    pub fn close_listener(&mut self, id: ListenerId) {
        self.driver.close_listener(id);
    }

    /// As [`Driver::connect`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn connect(&mut self, addr: SocketAddr, options: &SocketOptions) -> io::Result<SocketId> {
        self.driver.connect(addr, options)
    }

    /// As [`Driver::adopt`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn adopt(&mut self, accepted: Accepted, options: &SocketOptions) -> io::Result<SocketId> {
        self.driver.adopt(accepted, options)
    }

    /// As [`Driver::detach`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn detach(&mut self, id: SocketId) -> io::Result<Accepted> {
        self.driver.detach(id)
    }

    /// What the kernel knows of a connection, if it goes by TCP.
    pub fn tcp_info(&self, id: SocketId) -> Option<TcpInfo> {
        self.driver.tcp_socket(id).and_then(|socket| tcp_info::of(socket).ok())
    }

    /// As [`Driver::recv`].
    pub fn recv(&mut self, id: SocketId, fill: Option<FillBuf>) {
        self.driver.recv(id, fill);
    }

    /// As [`Driver::fills`].
    pub fn fills(&self) -> bool {
        self.driver.fills()
    }

    /// As [`Driver::send`].
    pub fn send(&mut self, id: SocketId, rope: &mut Rope) -> SendStatus {
        self.driver.send(id, rope)
    }

    /// As [`Driver::shutdown_write`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn shutdown_write(&mut self, id: SocketId) -> io::Result<()> {
        self.driver.shutdown_write(id)
    }

    /// As [`Driver::close`].
    pub fn close(&mut self, id: SocketId) {
        self.driver.close(id);
    }

    /// As [`Driver::local_addr`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn local_addr(&self, id: SocketId) -> io::Result<SocketAddr> {
        self.driver.local_addr(id)
    }

    /// As [`Driver::peer_addr`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn peer_addr(&self, id: SocketId) -> io::Result<SocketAddr> {
        self.driver.peer_addr(id)
    }

    /// As [`Driver::register_file`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn register_file(
        &mut self,
        file: BorrowedFd<'_>,
        interest: Interest,
        token: u64,
    ) -> io::Result<FileId> {
        self.driver.register_file(file, interest, token)
    }

    /// As [`Driver::modify_file`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn modify_file(&mut self, id: FileId, interest: Interest) -> io::Result<()> {
        self.driver.modify_file(id, interest)
    }

    /// As [`Driver::deregister_file`].
    pub fn deregister_file(&mut self, id: FileId) {
        self.driver.deregister_file(id);
    }
}

impl fmt::Debug for EventCenter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventCenter").field("timers", &self.timers.len()).finish_non_exhaustive()
    }
}
