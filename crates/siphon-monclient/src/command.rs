use bytes::Bytes;
use serde_json::{Map, Value};
use siphon_messages::{
    MCommand, MCommandReply, MMgrCommand, MMgrCommandReply, MMonCommand, MMonCommandAck,
    MessageError, TypedMessage,
};
use siphon_proto::{Message, OutMessage};
use siphon_wire::types::Uuid;

/// A command for a monitor, a manager, an OSD or a placement group: its arguments as JSON, and what it
/// takes besides.
///
/// ```
/// use siphon_monclient::Command;
///
/// let command = Command::new("osd pool create").arg("pool", "data").arg("pg_num", 8);
/// assert_eq!(command.text(), r#"{"prefix":"osd pool create","pool":"data","pg_num":8}"#);
/// assert_eq!(Command::from_json(command.text()).unwrap().prefix(), "osd pool create");
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Command {
    args: Map<String, Value>,
    text: String,
    input: Bytes,
}

/// Why a text is no command.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommandSyntaxError {
    /// It is not JSON.
    #[error("a command is a JSON object, as {{\"prefix\": \"status\"}}")]
    Json(#[from] serde_json::Error),
    /// It is JSON, and no object with a `prefix`.
    #[error("a command is a JSON object with a prefix, as {{\"prefix\": \"status\"}}")]
    NoPrefix,
}

impl Command {
    /// The command of this prefix: `osd tree`.
    pub fn new(prefix: &str) -> Self {
        let args = Map::from_iter([("prefix".to_owned(), Value::from(prefix))]);
        Self { text: text_of(&args), args, input: Bytes::new() }
    }

    /// A whole command in JSON, as Ceph's daemons take it.
    ///
    /// # Errors
    /// If it is no JSON object, or has no `prefix`.
    pub fn from_json(text: &str) -> Result<Self, CommandSyntaxError> {
        let Value::Object(args) = serde_json::from_str(text)? else {
            return Err(CommandSyntaxError::NoPrefix);
        };
        if !args.get("prefix").is_some_and(Value::is_string) {
            return Err(CommandSyntaxError::NoPrefix);
        }
        Ok(Self { text: text_of(&args), args, input: Bytes::new() })
    }

    /// With one more argument: a text, a number, a boolean, a list.
    #[must_use]
    pub fn arg(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.args.insert(name.to_owned(), value.into());
        self.text = text_of(&self.args);
        self
    }

    /// Asks for JSON in place of text for people.
    #[must_use]
    pub fn json(self) -> Self {
        self.arg("format", "json")
    }

    /// With what the command takes besides: a file, as `-i` of Ceph's command line has it.
    #[must_use]
    pub fn input(mut self, input: impl Into<Bytes>) -> Self {
        self.input = input.into();
        self
    }

    /// Which command it is.
    pub fn prefix(&self) -> &str {
        self.args.get("prefix").and_then(Value::as_str).unwrap_or_default()
    }

    /// The command as it is sent.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What it takes besides.
    pub fn input_bytes(&self) -> &Bytes {
        &self.input
    }

    pub(crate) fn to_monitor(&self, fsid: Uuid) -> OutMessage {
        let (cmd, input) = (vec![self.text.as_str().into()], self.input.clone());
        MMonCommand { fsid, cmd, input }.into_out()
    }

    /// The message that asks a daemon itself, whichever it is, of the cluster `fsid`; a
    /// [`MCommandReply`] answers it.
    pub fn to_daemon(&self, fsid: Uuid) -> OutMessage {
        self.message(fsid).into_out()
    }

    pub(crate) fn to_manager(&self, fsid: Uuid) -> OutMessage {
        MMgrCommand(self.message(fsid)).into_out()
    }

    fn message(&self, fsid: Uuid) -> MCommand {
        let (cmd, input) = (vec![self.text.as_str().into()], self.input.clone());
        MCommand { fsid, cmd, input }
    }
}

fn text_of(args: &Map<String, Value>) -> String {
    serde_json::to_string(args).expect("a map with texts as keys can be written")
}

/// What a daemon answers to a command.
///
/// ```
/// let output = siphon_monclient::CommandOutput {
///     code: -2,
///     status: "unrecognized pool 'x'".to_owned(),
///     data: bytes::Bytes::new(),
/// };
/// assert!(output.json().is_none());
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommandOutput {
    /// 0, or a negative errno of Linux.
    pub code: i32,
    /// What a person is told of the result; Ceph's command line prints it to standard error.
    pub status: String,
    /// What the command printed.
    pub data: Bytes,
}

impl CommandOutput {
    /// What was printed, as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.data).into_owned()
    }

    /// What was printed, if it is JSON.
    pub fn json(&self) -> Option<Value> {
        serde_json::from_slice(&self.data).ok()
    }

    /// Reads any of the messages that answer a command.
    ///
    /// # Errors
    /// If it is another message, or malformed.
    pub fn from_message(message: &Message) -> Result<Self, MessageError> {
        let reply = match message.header.msg_type {
            MMonCommandAck::TYPE => {
                let MMonCommandAck { result, status, output, .. } =
                    MMonCommandAck::from_message(message)?;
                MCommandReply { result, status, output }
            }
            MMgrCommandReply::TYPE => MMgrCommandReply::from_message(message)?.0,
            _ => MCommandReply::from_message(message)?,
        };
        let MCommandReply { result: code, status, output: data } = reply;
        Ok(Self { code, status: status.to_string(), data })
    }
}
