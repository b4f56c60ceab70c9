use std::fs;
use std::io::{self, Read, Write as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::command::{CommandError, Commands};
use crate::Context;
use crate::serving::{Until, accept_until};

/// Bytes of a request at most; Ceph takes 1 KiB.
const MAX_REQUEST: usize = 64 << 10;
/// How long a client may take to ask, and to take a part of the answer: others wait meanwhile.
const PATIENCE: Duration = Duration::from_secs(5);
/// Bytes of a socket's path at most (`sockaddr_un`), without the NUL that ends it.
const MAX_PATH: usize = 107;

/// A socket that answers, on a thread of its own, until it is dropped.
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
    /// away.
    ///
    /// # Errors
    /// If the path cannot be used.
    pub fn listen(path: impl Into<PathBuf>, commands: &Commands) -> Result<Self, ListenError> {
        let path = path.into();
        let len = path.as_os_str().len();
        if len > MAX_PATH {
            return Err(ListenError::TooLong { path, len });
        }
        clear(&path)?;
        let failed = |source| ListenError::Io { path: path.clone(), source };
        let listener = UnixListener::bind(&path).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let inode = fs::symlink_metadata(&path).map_err(failed)?.ino();
        let (stop, stopped) = UnixStream::pair().map_err(failed)?;
        let commands = commands.clone();
        let thread = thread::Builder::new()
            .name("admin_socket".to_owned())
            .spawn(move || serve(&listener, &stopped, &commands))
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
        self.stop = None;
        if fs::symlink_metadata(&self.path).is_ok_and(|file| file.ino() == self.inode) {
            let _ = fs::remove_file(&self.path); // at worst the next process finds it stale
        }
        if let Some(thread) = self.thread.take()
            && thread.thread().id() != thread::current().id()
        {
            let _ = thread.join(); // a panic was told of by its hook
        }
    }
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
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(failed)
        }
        Err(error) => Err(failed(error)),
        Ok(_) => Err(ListenError::InUse { path: path.to_owned() }),
    }
}

fn serve(listener: &UnixListener, stopped: &UnixStream, commands: &Commands) {
    accept_until(listener, stopped, "the admin socket", || {
        let (stream, _) = listener.accept()?;
        if let Err(error) = answer(stream, commands) {
            tracing::debug!(%error, "a client of the admin socket went away");
        }
        Ok(())
    });
}

fn answer(mut stream: UnixStream, commands: &Commands) -> io::Result<()> {
    stream.set_write_timeout(Some(PATIENCE))?;
    let answer = match read_request(&mut Until::new(&stream, PATIENCE))? {
        Ok(text) => commands.execute(&text),
        Err(error) => Err(error),
    };
    let answer = answer.unwrap_or_else(|error| error.to_answer());
    let len = u32::try_from(answer.len()).map_err(io::Error::other)?;
    stream.write_all(&[&len.to_be_bytes()[..], answer.as_bytes()].concat())
}

/// Reads up to the end of a request, which is NUL or a line feed; of Ceph's oldest clients, a number of
/// four bytes.
fn read_request(stream: &mut impl Read) -> io::Result<Result<String, CommandError>> {
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
                Some(number) => return Ok(Ok(number[3].to_string())),
                None => continue,
            }
        }
        if let Some(end) = request.iter().position(|byte| matches!(byte, 0 | b'\n')) {
            request.truncate(end);
            let text = String::from_utf8(request);
            return Ok(text.map_err(|_| CommandError::invalid("a request that is not UTF-8")));
        }
        if request.len() > MAX_REQUEST {
            let text = format!("a request of more than {MAX_REQUEST} bytes");
            return Ok(Err(CommandError::invalid(text)));
        }
    }
}
