use std::fmt;

/// What a frame is.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tag(u8);

macro_rules! tags {
    ($($name:ident = $value:literal, $doc:literal;)*) => {
        impl Tag {
            $(#[doc = $doc] pub const $name: Self = Self($value);)*

            /// The tag with this number, if the protocol has it.
            pub const fn from_wire(value: u8) -> Option<Self> {
                match value {
                    $($value => Some(Self::$name),)*
                    _ => None,
                }
            }

            /// Ceph's name of it.
            pub const fn name(self) -> &'static str {
                match self.0 {
                    $($value => stringify!($name),)*
                    _ => unreachable!(), // from_wire makes no other
                }
            }
        }
    };
}

tags! {
    HELLO = 1, "Who we are, and how the peer's address looks from here.";
    AUTH_REQUEST = 2, "Opens authentication.";
    AUTH_BAD_METHOD = 3, "Refuses a method, names those allowed.";
    AUTH_REPLY_MORE = 4, "The server's next step of authentication.";
    AUTH_REQUEST_MORE = 5, "The client's next step of authentication.";
    AUTH_DONE = 6, "Ends authentication.";
    AUTH_SIGNATURE = 7, "Signs what was said before authentication ended.";
    CLIENT_IDENT = 8, "Opens a session.";
    SERVER_IDENT = 9, "Accepts a session.";
    IDENT_MISSING_FEATURES = 10, "Refuses a session for lack of features.";
    SESSION_RECONNECT = 11, "Goes on with a session.";
    SESSION_RESET = 12, "The session to go on with is not known.";
    SESSION_RETRY = 13, "Go on with a higher connect_seq.";
    SESSION_RETRY_GLOBAL = 14, "Go on with a higher global_seq.";
    SESSION_RECONNECT_OK = 15, "The session goes on.";
    WAIT = 16, "Our own attempt to connect to you comes first.";
    MESSAGE = 17, "A message.";
    KEEPALIVE2 = 18, "Are you there?";
    KEEPALIVE2_ACK = 19, "Yes.";
    ACK = 20, "Messages up to this one have arrived.";
    COMPRESSION_REQUEST = 21, "Offers compression (from Quincy on).";
    COMPRESSION_DONE = 22, "Chooses compression (from Quincy on).";
}

impl Tag {
    /// Its number on the wire.
    pub const fn to_wire(self) -> u8 {
        self.0
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Debug for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
