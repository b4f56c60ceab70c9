use serde_json::{Value, json};

use super::command::{Arg, CommandSpec, Commands};
use crate::perf_counters::PerfCollection;

/// The version of the admin socket's protocol (`CEPH_ADMIN_SOCK_VERSION`).
const PROTOCOL: &str = "2";
const LOGGER_AND_COUNTER: &[Arg] = &[Arg::optional("logger"), Arg::optional("counter")];

/// The commands that every process has.
pub(crate) fn register(commands: &Commands, perf: &PerfCollection) {
    let hidden = |prefix| CommandSpec { prefix, args: &[], help: "" };
    let spec = |prefix, args, help| CommandSpec { prefix, args, help };

    commands.register(hidden("0"), |_| Ok(json!(PROTOCOL)));
    commands.register(spec("version", &[], "get siphon's version"), |_| {
        let version = format!("siphon version {}", env!("CARGO_PKG_VERSION"));
        Ok(json!({ "version": version, "release": "siphon", "release_type": "dev" }))
    });
    let listed = commands.downgrade();
    commands.register(spec("help", &[], "list available commands"), move |_| {
        Ok(listed.upgrade().map_or(Value::Null, |commands| commands.help()))
    });
    let listed = commands.downgrade();
    commands
        .register(spec("get_command_descriptions", &[], "list available commands"), move |_| {
            Ok(listed.upgrade().map_or(Value::Null, |commands| commands.descriptions()))
        });

    for prefix in ["perf dump", "perfcounters_dump", "1"] {
        let perf = perf.clone();
        let help = if prefix == "perf dump" { "dump perfcounters value" } else { "" };
        commands.register_dump(spec(prefix, LOGGER_AND_COUNTER, help), move |request| {
            perf.numbers(request.get("logger"), request.get("counter"))
        });
    }
    for prefix in ["perf schema", "perfcounters_schema", "2"] {
        let perf = perf.clone();
        let help = if prefix == "perf schema" { "dump perfcounters schema" } else { "" };
        commands.register(spec(prefix, &[], help), move |_| Ok(perf.schema()));
    }
    let dumped = perf.clone();
    commands.register_dump(
        spec("perf histogram dump", LOGGER_AND_COUNTER, "dump perf histogram values"),
        move |request| dumped.histograms(request.get("logger"), request.get("counter")),
    );
    let described = perf.clone();
    commands
        .register(spec("perf histogram schema", &[], "dump perf histogram schema"), move |_| {
            Ok(described.histogram_schema())
        });
    let reset = perf.clone();
    commands.register(
        spec(
            "perf reset",
            const { &[Arg::required("var")] },
            "perf reset <name>: perf reset all or one perfcounter name",
        ),
        move |request| {
            let name = request.require("var")?;
            Ok(match reset.reset(&name) {
                true => json!({ "success": format!("perf reset {name}") }),
                false => json!({ "error": format!("Not find: {name}") }),
            })
        },
    );
}
