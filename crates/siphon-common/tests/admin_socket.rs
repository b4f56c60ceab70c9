//! The admin socket, with clients that behave and others.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Barrier, Mutex};

use serde_json::{Value, json};
use siphon_common::admin_socket::{
    AdminSocket, Arg, AskError, CommandError, CommandSpec, ListenError, ask, request,
};
use siphon_common::{Config, Context, PidFile, PidFileError};

fn listening(path: &Path) -> (Context, AdminSocket) {
    let context = Context::new(Config::default());
    let socket = AdminSocket::listen(path, context.commands()).unwrap();
    (context, socket)
}

fn text(answer: Vec<u8>) -> String {
    String::from_utf8(answer).unwrap()
}

#[test]
fn commands_get_their_arguments_by_name_and_errors_a_number() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("asok");
    let (context, socket) = listening(&path);
    let args = const { &[Arg::required("var"), Arg::many("val")] };
    let spec = CommandSpec { prefix: "config set", args, help: "set it" };
    context.commands().register(spec, |request| match request.require("var")?.as_str() {
        "no_such_option" => {
            Err(CommandError::new(CommandError::NOT_FOUND, "there is no such option"))
        }
        var => Ok(json!({ var: request.require("val")? })),
    });
    for (words, expected) in [
        (&["config", "set", "a", "1"][..], json!({ "a": "1" })),
        (&["config", "set", "a", "1", "2"], json!({ "a": "1 2" })),
        (&["perf", "reset", "all"], json!({ "error": "Not find: all" })),
        (&["perf", "dump", "nobody"], json!({})),
        (&["0"], json!(2)),
    ] {
        let answer = text(ask(&path, words, Some("json")).unwrap());
        assert_eq!(serde_json::from_str::<Value>(&answer).unwrap(), expected, "{words:?}");
    }
    let pretty = text(ask(&path, &["config", "set", "a", "1"], None).unwrap());
    assert_eq!(pretty, "{\n    \"a\": \"1\"\n}");
    let failed = text(ask(&path, &["config", "set", "no_such_option", "1"], None).unwrap());
    assert_eq!(failed, "ERROR: (2) No such file or directory\nthere is no such option\n");
    for (asked, expected) in [
        (r#"{"prefix": "config set", "var": "a"}"#, "config set needs the argument val"),
        (r#"{"prefix": "no such"}"#, "unknown command prefix no such; help lists all"),
        (r#"{"prefix": "perf"#, "invalid json"),
        ("nonsense", "unknown command prefix nonsense"),
    ] {
        let answer = text(request(&path, asked).unwrap());
        assert!(answer.starts_with("ERROR: (22) Invalid argument\n"), "{answer}");
        assert!(answer.contains(expected), "{asked}: {answer}");
    }
    let error = ask(&path, &["config", "set"], None).unwrap_err();
    assert_eq!(error.to_string(), "config set: no such command; there is config set <var> <val>");
    drop(socket);
    assert!(!path.exists());
    assert!(matches!(ask(&path, &["help"], None), Err(AskError::Connect { .. })));
}

#[test]
fn a_client_that_leaves_or_floods_or_is_of_old_stops_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("asok");
    let (_context, _socket) = listening(&path);
    drop(UnixStream::connect(&path).unwrap());
    let mut leaves = UnixStream::connect(&path).unwrap();
    leaves.write_all(b"{\"prefix\": ").unwrap();
    drop(leaves);
    for bytes in [(64 << 10) + 1, 1 << 20] {
        let error = text(request(&path, &"x".repeat(bytes)).unwrap());
        let expected = "ERROR: (22) Invalid argument\na request of more than 65536 bytes\n";
        assert_eq!(error, expected, "{bytes}");
    }
    for (asked, expected) in
        [(&[0, 0, 0, 0][..], &b"2"[..]), (b"0\n", b"2"), (b"perfcounters_dump\0", b"{}")]
    {
        let mut old = UnixStream::connect(&path).unwrap();
        old.write_all(asked).unwrap();
        let mut answer = Vec::new();
        old.read_to_end(&mut answer).unwrap();
        assert_eq!(&answer[4..], expected);
    }
    assert!(
        text(ask(&path, &["help"], None).unwrap())
            .contains("\"perf dump\": \"dump perfcounters value\"")
    );
}

/// Clients that say nothing once had the socket for 5 s each, one behind the other: for whoever came then, nobody
/// answered within a minute.
#[test]
fn who_says_nothing_keeps_nobody_waiting() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("asok");
    let (_context, _socket) = listening(&path);
    let idle: Vec<_> = (0..31).map(|_| UnixStream::connect(&path).unwrap()).collect();
    assert_eq!(text(request(&path, "0").unwrap()), "2");
    drop(idle);
}

#[test]
fn no_more_are_served_at_once_than_it_says() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("asok");
    let (context, _socket) = listening(&path);
    let (entered, enters) = std::sync::mpsc::channel();
    let gate = Arc::new(Mutex::new(()));
    let held = gate.lock().unwrap();
    let passed = Arc::clone(&gate);
    context.commands().register(CommandSpec { prefix: "wait", args: &[], help: "" }, move |_| {
        entered.send(()).unwrap();
        drop(passed.lock().unwrap());
        Ok(json!("done"))
    });
    std::thread::scope(|scope| {
        let asking: Vec<_> =
            (0..32).map(|_| scope.spawn(|| text(request(&path, "wait").unwrap()))).collect();
        asking.iter().for_each(|_| enters.recv().unwrap());
        let refused = text(request(&path, "0").unwrap());
        assert!(refused.contains("(11)") && refused.contains("32 clients"), "{refused}");
        drop(held);
        assert!(asking.into_iter().all(|asked| asked.join().unwrap() == "done"));
    });
}

/// Two that found the same stale socket both took it away, the second one the first one's, which answered already.
#[test]
fn of_many_that_begin_at_once_one_has_the_socket_and_the_pid_file() {
    const MANY: usize = 24;
    let folder = tempfile::tempdir().unwrap();
    let (path, pid_file) = (folder.path().join("asok"), folder.path().join("pid"));
    let context = Context::default();
    for round in 0..20 {
        drop(UnixListener::bind(&path).unwrap());
        fs::write(&pid_file, "1\n").unwrap();
        let together = Barrier::new(MANY);
        let begin = || {
            together.wait();
            let socket = AdminSocket::listen(&path, context.commands());
            // Whoever had it is asked while others still try.
            let answers = socket.as_ref().ok().map(|_| request(&path, "0").unwrap() == b"2");
            (socket, PidFile::write(&pid_file), answers)
        };
        let all: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..MANY).map(|_| scope.spawn(begin)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let sockets = all.iter().filter(|it| it.0.is_ok()).count();
        let files = all.iter().filter(|it| it.1.is_ok()).count();
        assert_eq!((sockets, files), (1, 1), "round {round}");
        for (socket, file, answers) in &all {
            assert!(matches!(socket, Ok(_) | Err(ListenError::InUse { .. })), "{socket:?}");
            assert!(matches!(file, Ok(_) | Err(PidFileError::Held { .. })), "{file:?}");
            assert_ne!(*answers, Some(false));
        }
        assert_eq!(request(&path, "0").unwrap(), b"2");
        drop(all);
        assert!(!path.exists() && !pid_file.exists());
    }
}

#[test]
fn a_path_that_cannot_be_used_is_told_of_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let context = Context::default();
    let error = |path: &Path| AdminSocket::listen(path, context.commands()).unwrap_err();
    let long = folder.path().join("x".repeat(108));
    assert!(matches!(error(&long), ListenError::TooLong { .. }));
    assert!(
        error(&long)
            .to_string()
            .contains("at most 107 are possible: choose a shorter admin_socket")
    );

    let missing = error(&folder.path().join("no/such/asok")).to_string();
    assert!(missing.contains("make the folder"), "{missing}");

    let file = folder.path().join("file");
    fs::write(&file, "precious").unwrap();
    assert!(matches!(error(&file), ListenError::NotASocket { .. }));
    assert_eq!(fs::read(&file).unwrap(), b"precious");

    let path = folder.path().join("asok");
    let first = AdminSocket::listen(&path, context.commands()).unwrap();
    assert!(matches!(error(&path), ListenError::InUse { .. }));
    assert!(request(&path, "0").is_ok(), "the first goes on");
    drop(first);

    // What a crash leaves is taken away.
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let again = AdminSocket::listen(&path, context.commands()).unwrap();
    assert!(request(&path, "0").is_ok());

    // What another process put in its place is left there.
    fs::remove_file(&path).unwrap();
    let other = UnixListener::bind(&path).unwrap();
    drop(again);
    assert!(path.exists());
    drop(other);

    if !rustix::process::geteuid().is_root() {
        let closed = folder.path().join("closed");
        fs::create_dir(&closed).unwrap();
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o500)).unwrap();
        let error = error(&closed.join("asok")).to_string();
        assert!(error.contains("may not write to"), "{error}");
    }
}
