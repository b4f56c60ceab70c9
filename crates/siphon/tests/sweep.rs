//! `siphon perf sweep`, as a user runs it.

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};

use serde_json::Value;

fn sweep() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_siphon"));
    command.args(["perf", "sweep", "--stacks", "posix", "--rounds", "2"]).stdin(Stdio::null());
    command
}

#[test]
fn every_cell_is_reported_in_every_form() {
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("page.html");
    let mut command = sweep();
    command.args(["--sizes", "64,4K", "--depths", "1,8", "--jobs", "1,2", "--modes", "crc,secure"]);
    let output =
        command.args(["--seconds", "0.02", "--json", "-"]).arg("--html").arg(&page).output();
    let output = output.unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
    assert!(told.starts_with("16 cells, 2 rounds of 0.01 s"), "{told}");
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    let cells = json["cells"].as_array().unwrap();
    assert_eq!((cells.len(), &json["incomplete"]), (16, &Value::Bool(false)));
    for cell in cells {
        for side in ["ours", "raw"] {
            let side = &cell[side];
            assert!(side["ops"].as_u64().unwrap() > 0, "{cell}");
            let latency = |name: &str| side["latency_us"][name]["median"].as_f64().unwrap();
            assert!(latency("p50") > 0.0 && latency("p50") <= latency("p999"), "{cell}");
            let rate = &side["ops_per_second"];
            assert!(rate["min"].as_f64() <= rate["median"].as_f64(), "{cell}");
            assert!(rate["median"].as_f64() <= rate["max"].as_f64(), "{cell}");
        }
    }
    let page = std::fs::read_to_string(page).unwrap();
    assert_eq!(page.matches("<tr class='s'").count(), 16);
}

#[test]
fn the_congestion_control_is_what_was_asked_for_and_told() {
    let option = |name: &str| format!("ms_tcp_congestion_control={name}");
    let one = ["--sizes", "64", "--depths", "1", "--seconds", "0.02", "--json", "-"];
    let output = sweep().args(one).args(["-o", &option("reno")]).output().unwrap();
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["machine"]["congestion_control"], "reno");
    for (name, expected) in
        [("nosuchthing", "the system does not have it; there is"), ("a b", "no name")]
    {
        let output = sweep().args(one).args(["-o", &option(name)]).output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && told.contains(expected), "{told}");
    }
}

/// What was measured is not lost with what was not.
#[test]
fn a_sweep_that_is_interrupted_reports_what_it_has() {
    let mut command = sweep();
    command.args(["--sizes", "64", "--depths", "1,2,3,4,5,6,7,8", "--seconds", "1", "--json", "-"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.starts_with("cell 1 of 8") {
        line.clear();
        assert!(stderr.read_line(&mut line).unwrap() > 0, "it ended by itself");
    }
    let kill = Command::new("kill").arg("-INT").arg(child.id().to_string()).status().unwrap();
    assert!(kill.success());
    let mut rest = String::new();
    stderr.read_to_string(&mut rest).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{rest}");
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["incomplete"], true);
    let cells = json["cells"].as_array().unwrap().len();
    assert!((1..8).contains(&cells), "{cells} cells");
}

#[test]
fn what_cannot_be_written_is_said_before_anything_is_measured() {
    let output = sweep().args(["--html", "/nowhere/page.html"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("--html /nowhere/page.html: cannot be written"), "{told}");
    assert!(!told.contains("cells"), "{told}");
}
