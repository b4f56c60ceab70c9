//! A system that forbids io_uring, as containers do: the thread of each test forbids it to itself.

#![expect(unsafe_code, reason = "a filter of system calls is set by a pointer")]
#![allow(clippy::disallowed_methods, reason = "time has to begin somewhere")]

mod common;

use common::{Net, pattern};
use siphon_net::{SocketOptions, StackKind, UringDriver};

/// Has io_uring_setup fail, for this thread and for good.
fn forbid_io_uring() {
    let statement = |code: u32, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf: 0, k };
    let is_setup = libc::sock_filter {
        code: (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16,
        jt: 0,
        jf: 1,
        k: libc::SYS_io_uring_setup as u32,
    };
    let denied = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
    let mut filter = [
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0), // the number of the call
        is_setup,
        statement(libc::BPF_RET | libc::BPF_K, denied),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: the program and its filter are valid for the call, which copies them.
    let result = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program)
    };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

#[test]
fn where_io_uring_is_forbidden_the_stack_is_posix() {
    forbid_io_uring();
    let error = UringDriver::new().unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied);

    assert_eq!(StackKind::Uring.here(), StackKind::Posix);
    let mut net = Net::new(StackKind::Uring.here());
    let (cli, srv) = net.pair("127.0.0.1:0", &SocketOptions::default());
    let _ = net.send(cli, pattern(1000));
    assert_eq!(net.recv_exactly(srv, 1000), pattern(1000));

    // What it accepts is posix's, and the other way round.
    let mut posix = Net::new(StackKind::Posix);
    let moved = net.driver.detach(srv).unwrap();
    let srv = posix.driver.adopt(moved, &SocketOptions::default()).unwrap();
    let _ = net.send(cli, pattern(1000));
    assert_eq!(posix.recv_exactly(srv, 1000), pattern(1000));
}
