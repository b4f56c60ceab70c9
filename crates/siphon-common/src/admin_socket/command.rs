use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use serde::Serialize;
use serde_json::{Map, Value, json};

/// A command and what it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommandSpec {
    /// The words that name it: `perf dump`.
    pub prefix: &'static str,
    /// What follows them.
    pub args: &'static [Arg],
    /// What it does, in a line; none for those that `help` does not tell of.
    pub help: &'static str,
}

/// An argument of a command: a string.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arg {
    /// Its name in a request.
    pub name: &'static str,
    /// Whether it may be left out.
    pub optional: bool,
    /// Whether there may be several.
    pub many: bool,
}

impl Arg {
    /// One that must be there.
    pub const fn required(name: &'static str) -> Self {
        Self { name, optional: false, many: false }
    }

    /// One that may be left out.
    pub const fn optional(name: &'static str) -> Self {
        Self { name, optional: true, many: false }
    }

    /// One or more.
    pub const fn many(name: &'static str) -> Self {
        Self { name, optional: false, many: true }
    }
}

/// What somebody asks for.
#[derive(Debug)]
pub struct Request {
    args: Map<String, Value>,
}

/// Why a command was not done: as Ceph's, an error number and a text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct CommandError {
    /// Of Linux's numbers.
    pub errno: i32,
    /// What is wrong, and what to do.
    pub text: String,
}

/// Gives the answer in the format that is wanted.
type Handler = Arc<dyn Fn(&Request, &str) -> Result<String, CommandError> + Send + Sync>;

struct Command {
    spec: CommandSpec,
    handlers: Handlers,
}

enum Handlers {
    One(Handler),
    /// Of several things that there are, which the first argument names.
    Each {
        list: &'static str,
        each: Vec<Each>,
    },
}

/// One of several things that a command is for.
struct Each {
    number: u64,
    /// Its name, which it may get later.
    name: Box<dyn Fn() -> String + Send + Sync>,
    handler: Handler,
}

/// A thing that a command was [registered for](Commands::register_for); dropping it takes it away.
#[derive(Debug)]
pub struct Registration {
    commands: WeakCommands,
    prefix: &'static str,
    number: u64,
}

type ByPrefix = Mutex<BTreeMap<&'static str, Command>>;

/// The commands of a context. Clones are the same.
#[derive(Clone, Default)]
pub struct Commands {
    by_prefix: Arc<ByPrefix>,
}

/// The same, which keeps none alive.
pub(super) struct WeakCommands(Weak<ByPrefix>);

impl WeakCommands {
    pub(super) fn upgrade(&self) -> Option<Commands> {
        Some(Commands { by_prefix: self.0.upgrade()? })
    }
}

impl CommandError {
    /// `EINVAL`.
    pub const INVALID: i32 = 22;
    /// `ENOENT`.
    pub const NOT_FOUND: i32 = 2;
    /// `EPERM`.
    pub const NOT_PERMITTED: i32 = 1;
    /// `EAGAIN`.
    pub const TRY_AGAIN: i32 = 11;

    /// An error.
    pub fn new(errno: i32, text: impl Into<String>) -> Self {
        Self { errno, text: text.into() }
    }

    /// What the request says is wrong.
    pub fn invalid(text: impl Into<String>) -> Self {
        Self::new(Self::INVALID, text)
    }

    /// As it is sent: there is no other place for the number.
    pub(super) fn to_answer(&self) -> String {
        let Self { errno, text } = self;
        let name = std::io::Error::from_raw_os_error(*errno).to_string();
        let name = name.split(" (os error").next().unwrap_or_default();
        format!("ERROR: ({errno}) {name}\n{text}\n")
    }
}

impl Request {
    /// An argument that is a string, or a number or a boolean, which some clients make of it.
    pub fn get(&self, name: &str) -> Option<String> {
        match self.args.get(name)? {
            Value::String(text) => Some(text.clone()),
            Value::Array(parts) => Some(parts.iter().map(plain).collect::<Vec<_>>().join(" ")),
            other => Some(plain(other)),
        }
    }

    /// An argument that must be there.
    ///
    /// # Errors
    /// If it is not.
    pub fn require(&self, name: &str) -> Result<String, CommandError> {
        self.get(name)
            .ok_or_else(|| CommandError::invalid(format!("the argument {name} is missing")))
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

impl Commands {
    /// Adds a command, in the place of one that has this prefix already. What its handler gives is shown
    /// as JSON, a string as it is; it runs on a thread of the client's, and others may run beside it.
    pub fn register(
        &self,
        spec: CommandSpec,
        handler: impl Fn(&Request) -> Result<Value, CommandError> + Send + Sync + 'static,
    ) {
        self.insert(spec, move |request, format| Ok(render(&handler(request)?, format)));
    }

    /// The same for what becomes text at once: who dumps every second wants no tree made of it before.
    pub(super) fn register_dump<T: Serialize>(
        &self,
        spec: CommandSpec,
        handler: impl Fn(&Request) -> T + Send + Sync + 'static,
    ) {
        self.insert(spec, move |request, format| Ok(to_text(&handler(request), format)));
    }

    fn insert(
        &self,
        spec: CommandSpec,
        handler: impl Fn(&Request, &str) -> Result<String, CommandError> + Send + Sync + 'static,
    ) {
        let handlers = Handlers::One(Arc::new(handler));
        self.lock().insert(spec.prefix, Command { spec, handlers });
    }

    /// Adds a command for the thing with this name, which the command's first argument tells from others
    /// that there are. Without that argument their names are listed, as `list`.
    ///
    /// Two of a name are told apart by `#2`, `#3` behind it, in the order in which they came.
    pub fn register_for(
        &self,
        spec: CommandSpec,
        list: &'static str,
        name: impl Fn() -> String + Send + Sync + 'static,
        handler: impl Fn(&Request) -> Result<Value, CommandError> + Send + Sync + 'static,
    ) -> Registration {
        let mut commands = self.lock();
        let command = commands.entry(spec.prefix).or_insert_with(|| Command {
            spec,
            handlers: Handlers::Each { list, each: Vec::new() },
        });
        let mut number = 0;
        if let Handlers::Each { each, .. } = &mut command.handlers {
            number = each.last().map_or(1, |last| last.number + 1);
            let handler: Handler =
                Arc::new(move |request, format| Ok(render(&handler(request)?, format)));
            each.push(Each { number, name: Box::new(name), handler });
        }
        Registration { commands: self.downgrade(), prefix: spec.prefix, number }
    }

    /// Does what a request says: the text of one, as it is on the wire.
    ///
    /// # Errors
    /// If it is malformed, or its command unknown, or says so itself.
    pub fn execute(&self, text: &str) -> Result<String, CommandError> {
        let request = match text.trim_start().starts_with('{') {
            true => serde_json::from_str(text)
                .map_err(|error| CommandError::invalid(format!("invalid json: {error}")))?,
            // What Ceph's oldest clients send.
            false => Map::from_iter([("prefix".to_owned(), json!(text))]),
        };
        let named = |name: &str| request.get(name).and_then(Value::as_str).map(str::to_owned);
        let prefix = named("prefix").unwrap_or_default();
        let format = named("format").unwrap_or_default();
        let handler = match self.lock().get(prefix.as_str()) {
            Some(command) => {
                let missing =
                    command.spec.args.iter().find(|arg| {
                        !arg.optional && request.get(arg.name).is_none_or(Value::is_null)
                    });
                if let Some(missing) = missing {
                    let text = format!("{prefix} needs the argument {}", missing.name);
                    return Err(CommandError::invalid(text));
                }
                match &command.handlers {
                    Handlers::One(handler) => Arc::clone(handler),
                    Handlers::Each { list, each } => {
                        let names = distinct(each);
                        let wanted = command.spec.args.first().and_then(|arg| named(arg.name));
                        let Some(wanted) = wanted else {
                            return Ok(render(&json!({ *list: names }), &format));
                        };
                        let Some(at) = names.iter().position(|name| *name == wanted) else {
                            let text = format!("there is no {wanted}, but {}", names.join(", "));
                            return Err(CommandError::new(CommandError::NOT_FOUND, text));
                        };
                        Arc::clone(&each[at].handler)
                    }
                }
            }
            None => {
                let text = format!("unknown command prefix {prefix}; help lists all");
                return Err(CommandError::invalid(text));
            }
        };
        // With the list free: a handler may add commands.
        handler(&Request { args: request }, &format)
    }

    pub(super) fn downgrade(&self) -> WeakCommands {
        WeakCommands(Arc::downgrade(&self.by_prefix))
    }

    /// What `help` shows.
    pub(super) fn help(&self) -> Value {
        let commands = self.lock();
        let shown = commands.values().filter(|command| !command.spec.help.is_empty());
        shown.map(|command| (command.spec.prefix, command.spec.help)).collect()
    }

    /// What clients learn from how words become a request (`dump_cmd_and_help_to_json` of Ceph's
    /// `common/cmdparse.cc`).
    pub(super) fn descriptions(&self) -> Value {
        let describe = |(number, command): (usize, &Command)| {
            let CommandSpec { prefix, args, help } = command.spec;
            let words = prefix.split(' ').map(|word| json!(word));
            let args = args.iter().map(|arg| {
                let mut described = json!({ "name": arg.name, "type": "CephString" });
                if arg.optional {
                    described["req"] = json!(false);
                }
                if arg.many {
                    described["n"] = json!("N");
                }
                described
            });
            let sig: Vec<_> = words.chain(args).collect();
            (format!("cmd{number:03}"), json!({ "sig": sig, "help": help }))
        };
        let commands = self.lock();
        Value::Object(commands.values().enumerate().map(describe).collect())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, Command>> {
        self.by_prefix.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Names of which none is twice.
fn distinct(each: &[Each]) -> Vec<String> {
    let mut names: Vec<String> = Vec::with_capacity(each.len());
    for Each { name, .. } in each {
        let name = name();
        let before = names.iter().filter(|it| it.split('#').next() == Some(&name)).count();
        names.push(if before == 0 { name } else { format!("{name}#{}", before + 1) });
    }
    names
}

impl Drop for Registration {
    fn drop(&mut self) {
        let Some(commands) = self.commands.upgrade() else {
            return;
        };
        let mut commands = commands.lock();
        if let Some(Command { handlers: Handlers::Each { each, .. }, .. }) =
            commands.get_mut(self.prefix)
        {
            each.retain(|it| it.number != self.number);
        }
    }
}

fn render(value: &Value, format: &str) -> String {
    match value {
        Value::String(text) => text.clone(),
        value => to_text(value, format),
    }
}

/// JSON in a line; for people, who say no format, indented as Ceph's.
fn to_text(value: &impl Serialize, format: &str) -> String {
    let mut text = Vec::new();
    // Neither writing to memory nor a map whose keys are strings can fail.
    let _ = if format == "json" {
        serde_json::to_writer(&mut text, value)
    } else {
        let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
        value.serialize(&mut serde_json::Serializer::with_formatter(&mut text, formatter))
    };
    String::from_utf8(text).unwrap_or_default()
}

impl fmt::Debug for WeakCommands {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(Commands)")
    }
}

impl fmt::Debug for Commands {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.lock().keys()).finish()
    }
}
