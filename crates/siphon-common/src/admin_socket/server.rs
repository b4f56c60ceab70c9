use std::fs::{self, File};
use std::io::{self, Read};
use std::net::Shutdown;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

use super::command::{CommandError, Commands};
use crate::Context;
use crate::serving::{MAX_CLIENTS, Until, serve_each};

/// Bytes of a request at most; Ceph takes 1 KiB.
const MAX_REQUEST: usize = 64 << 10;
/// How long a client may take to ask, and to take a part of the answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Bytes of a socket's path at most (`sockaddr_un`), without the NUL that ends it.
const MAX_PATH: usize = 107;

/// How often the lock of the socket's folder is tried, and how long to wait between: who has it makes a socket.
const LOCK_TRIES: u32 = 500;
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// A socket that answers until it is dropped: a thread accepts, and each client has one of its own. 32 are served at
/// once, and who does not ask within 5 s is given up.
#[derive(Debug)]
pub struct AdminSocket {
    path: PathBuf,
    /// Which file is ours: another process may have taken the path meanwhile.
    inode: u64,
    /// Dropping it ends the thread.
    stop: Option<UnixStream>,
    thread: Option<JoinHandle<()>>,
}

/// Why there is no admin socket.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListenError {
    /// Longer than the system takes.
    #[error(
        "the admin socket's path {path} has {len} bytes, at most {MAX_PATH} are possible: choose a shorter \
         admin_socket"
    )]
    TooLong {
        /// The path.
        path: PathBuf,
        /// Its bytes.
        len: usize,
    },
    /// Another process answers there.
    #[error(
        "another process answers at the admin socket {path}: end it, or choose another admin_socket (with \
         $pid in it, each process has its own)"
    )]
    InUse {
        /// The path.
        path: PathBuf,
    },
    /// There is a file which is no socket.
    #[error("{path} is there and no socket: move it away, or choose another admin_socket")]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// What the system said.
    #[error("cannot listen at the admin socket {path}: {source}{}", advice(source, path))]
    Io {
        /// The path.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
}

fn advice(error: &io::Error, path: &Path) -> String {
    let folder = path.parent().unwrap_or(Path::new("/")).display();
    match error.kind() {
        io::ErrorKind::NotFound => {
            format!("; make the folder {folder}, or choose another admin_socket")
        }
        io::ErrorKind::PermissionDenied => {
            format!(
                "; this user may not write to {folder}: change that, or choose another admin_socket"
            )
        }
        io::ErrorKind::ReadOnlyFilesystem => {
            format!("; {folder} is mounted read-only: choose another admin_socket")
        }
        _ => String::new(),
    }
}

impl AdminSocket {
    /// Listens at `path`, and answers by `commands`. What a process that has crashed left there is taken
    /// away; of several that begin at once, one has the socket.
    ///
    /// # Errors
    /// If the path cannot be used.
    pub fn listen(path: impl Into<PathBuf>, commands: &Commands) -> Result<Self, ListenError> {
        let path = path.into();
        let len = path.as_os_str().len();
        if len > MAX_PATH {
            return Err(ListenError::TooLong { path, len });
        }
        let failed = |source| ListenError::Io { path: path.clone(), source };
        let (listener, inode) = {
            let _lock = lock_folder(&path);
            clear(&path)?;
            let listener = UnixListener::bind(&path).map_err(failed)?;
            (listener, fs::symlink_metadata(&path).map_err(failed)?.ino())
        };
        listener.set_nonblocking(true).map_err(failed)?;
        let (stop, stopped) = UnixStream::pair().map_err(failed)?;
        let commands = commands.clone();
        let thread = thread::Builder::new()
            .name("admin_socket".to_owned())
            .spawn(move || serve(&listener, &stopped, commands))
            .map_err(failed)?;
        tracing::debug!(path = %path.display(), "admin socket");
        Ok(Self { path, inode, stop: Some(stop), thread: Some(thread) })
    }

    /// The one that `admin_socket` of a context's configuration asks for, if it does.
    ///
    /// # Errors
    /// As [`listen`](Self::listen).
    pub fn of(context: &Context) -> Result<Option<Self>, ListenError> {
        match context.config().admin_socket.as_str() {
            "" => Ok(None),
            path => Self::listen(path, context.commands()).map(Some),
        }
    }

    /// Where it listens.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for AdminSocket {
    fn drop(&mut self) {
        // As long as it listens, nobody else has the path: so this first.
        if fs::symlink_metadata(&self.path).is_ok_and(|file| file.ino() == self.inode) {
            let _ = fs::remove_file(&self.path); // at worst the next process finds it stale
        }
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // it waits for nobody; a panic was told of by its hook
        }
    }
}

/// Between looking whether a socket is in use, taking it away and binding one's own, nobody else may: who makes one
/// of ours has the lock of its folder, which the system takes back however he ends. Folders that have no lock, or
/// may not be read, or whose lock somebody keeps, go without.
fn lock_folder(path: &Path) -> Option<File> {
    let folder = path.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let Ok(folder) = File::open(folder) else {
        return None; // what is wrong with it, binding tells better
    };
    for _ in 0..LOCK_TRIES {
        match flock(&folder, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Some(folder),
            Err(Errno::WOULDBLOCK) => thread::sleep(LOCK_PAUSE),
            Err(_) => return None,
        }
    }
    tracing::warn!(path = %path.display(), "another process keeps the admin socket's folder locked (flock)");
    None
}

/// Makes the path free, if nobody answers there.
fn clear(path: &Path) -> Result<(), ListenError> {
    let failed = |source| ListenError::Io { path: path.to_owned(), source };
    let file = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(failed)?,
    };
    if !file.file_type().is_socket() {
        return Err(ListenError::NotASocket { path: path.to_owned() });
    }
    match knock(path) {
        Err(Errno::CONNREFUSED) => fs::remove_file(path).map_err(failed),
        // Somebody listens who has more clients than he takes.
        Ok(()) | Err(Errno::AGAIN) => Err(ListenError::InUse { path: path.to_owned() }),
        Err(error) => Err(failed(error.into())),
    }
}

/// Connects without waiting for anybody.
fn knock(path: &Path) -> rustix::io::Result<()> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    connect(&socket, &SocketAddrUnix::new(path)?)
}

fn serve(listener: &UnixListener, stopped: &UnixStream, commands: Commands) {
    serve_each(
        (listener, stopped),
        ("admin_socket", "the admin socket"),
        |listener| Ok(listener.accept()?.0),
        refuse,
        move |stream| answer(&stream, &commands),
    );
}

/// Tells one that there are too many. What he has to say is not waited for.
fn refuse(stream: UnixStream) -> io::Result<()> {
    stream.set_nonblocking(true)?;
    let text = format!("{MAX_CLIENTS} clients are served at once, and that many ask: try again");
    send(&mut &stream, &CommandError::new(CommandError::TRY_AGAIN, text).to_answer())
}

fn answer(stream: &UnixStream, commands: &Commands) -> io::Result<()> {
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut client = Until::new(stream, PATIENCE);
    let (answer, is_whole) = match read_request(&mut client)? {
        Asked::Text(text) => (commands.execute(&text), true),
        Asked::NoText => (Err(CommandError::invalid("a request that is not UTF-8")), true),
        Asked::TooLong => {
            let text = format!("a request of more than {MAX_REQUEST} bytes");
            (Err(CommandError::invalid(text)), false)
        }
    };
    send(&mut &*stream, &answer.unwrap_or_else(|error| error.to_answer()))?;
    if !is_whole {
        // Closed with something unread, the system would take the answer back.
        stream.shutdown(Shutdown::Write)?;
        io::copy(&mut client, &mut io::sink())?;
    }
    Ok(())
}

fn send(stream: &mut impl io::Write, answer: &str) -> io::Result<()> {
    let len = u32::try_from(answer.len()).map_err(io::Error::other)?;
    stream.write_all(&[&len.to_be_bytes()[..], answer.as_bytes()].concat())
}

/// What a client says.
enum Asked {
    Text(String),
    NoText,
    TooLong,
}

/// Reads up to the end of a request, which is NUL or a line feed; of Ceph's oldest clients, a number of
/// four bytes.
fn read_request(stream: &mut impl Read) -> io::Result<Asked> {
    let mut request = Vec::new();
    let mut piece = [0; 1024];
    loop {
        let len = stream.read(&mut piece)?;
        if len == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        request.extend_from_slice(&piece[..len]);
        if request[0] == 0 {
            match request.get(..4) {
                Some(number) => return Ok(Asked::Text(number[3].to_string())),
                None => continue,
            }
        }
        let end = request.iter().position(|byte| matches!(byte, 0 | b'\n'));
        if end.unwrap_or(request.len()) > MAX_REQUEST {
            return Ok(Asked::TooLong);
        }
        if let Some(end) = end {
            request.truncate(end);
            return Ok(String::from_utf8(request).map_or(Asked::NoText, Asked::Text));
        }
    }
}
