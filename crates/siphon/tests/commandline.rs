//! Completions and man pages.

mod common;

use std::fs;
use std::process::{Command, Stdio};

use common::{failure, siphon, stdout};

#[test]
fn completions_know_the_commands_and_bash_reads_them() {
    for shell in ["bash", "zsh", "fish"] {
        let script = stdout(siphon(["completions", shell]));
        for word in ["perf", "sweep", "daemon", "probe", "rados"] {
            assert!(script.contains(word), "{shell} has no {word}");
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("siphon.bash");
    fs::write(&file, stdout(siphon(["completions", "bash"]))).unwrap();
    let ask = ". \"$0\" && COMP_WORDS=(siphon pe) && COMP_CWORD=1 && _siphon siphon pe siphon \
               && echo \"${COMPREPLY[@]}\"";
    let mut bash = Command::new("bash");
    bash.args(["--norc", "-c", ask]).arg(&file).stdin(Stdio::null());
    assert_eq!(stdout(bash).trim(), "perf");
}

#[test]
fn every_command_has_a_man_page() {
    let folder = tempfile::tempdir().unwrap();
    let pages = folder.path().join("man1");
    stdout(siphon(["man", pages.to_str().unwrap()]));
    for page in ["siphon.1", "siphon-perf.1", "siphon-perf-sweep.1", "siphon-daemon.1"] {
        let text = fs::read_to_string(pages.join(page)).unwrap();
        assert!(text.contains(".SH SYNOPSIS"), "{page}");
    }
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let error = failure(siphon(["man", file.to_str().unwrap()]));
    assert!(error.contains("cannot write man pages to"), "{error}");
}
