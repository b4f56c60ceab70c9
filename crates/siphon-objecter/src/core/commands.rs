//! Commands to OSDs, by their number or by a placement group.

use std::time::{Duration, Instant};

use bytes::Bytes;
use siphon_messages::{MCommand, MCommandReply, MessageError, TypedMessage};
use siphon_monclient::CommandOutput;
use siphon_osdmap::PgWorkspace;
use siphon_proto::OutMessage;
use siphon_proto::v2::Limits;
use siphon_wire::types::{ByteString, Epoch, Errno, PgId};

use super::{CommandTicket, Core, Done, Output, SessionId, Subject};
use crate::OpError;
use crate::error::BadReply;

/// Whom a command is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CommandTarget {
    Osd(i32),
    Pg(PgId),
}

pub(super) struct Command {
    target: CommandTarget,
    message: MCommand,
    ticket: CommandTicket,
    osd: Option<i32>,
    pub(super) session: Option<i32>,
    unsent: bool,
    /// From which epoch on what it is for is known not to be there.
    gone_by: Option<Epoch>,
    pub(super) timeout: Option<(Instant, Duration)>,
}

impl Command {
    /// A session is over: it is sent again.
    pub(super) fn lose(&mut self) {
        self.session = None;
        self.unsent = true;
    }
}

impl Core {
    /// Sends a command, a JSON object each, with what it takes besides.
    pub(crate) fn command(
        &mut self,
        target: CommandTarget,
        cmd: Vec<ByteString>,
        input: Bytes,
        timeout: Option<Duration>,
        ticket: CommandTicket,
        now: Instant,
    ) {
        if self.is_shut {
            self.done(Done::Command(ticket, Err(OpError::Shutdown)));
            return;
        }
        // A message that nobody takes would end its session again and again.
        let limit = u64::from(Limits::SESSION.data);
        let bytes = cmd.iter().map(|text| text.len() as u64).sum::<u64>() + input.len() as u64;
        if bytes > limit {
            self.done(Done::Command(ticket, Err(OpError::TooLong { bytes, limit })));
            return;
        }
        let id = self.next_id();
        ticket.set_id(id);
        let timeout = timeout.or(self.config.timeout);
        let timeout = timeout.and_then(|after| Some((now.checked_add(after)?, after)));
        if let Some((at, _)) = timeout {
            self.deadlines.insert((at, id));
        }
        let message = MCommand { fsid: self.config.fsid, cmd, input };
        let command = Command {
            target,
            message,
            ticket,
            osd: None,
            session: None,
            unsent: true,
            gone_by: None,
            timeout,
        };
        self.commands.insert(id, command);
        self.keep_ticking(now);
        self.look_up_command(id);
        self.send_command(id);
        self.check();
    }

    fn osd_for(&self, target: CommandTarget) -> Result<Option<i32>, OpError> {
        let map = &self.map;
        match target {
            CommandTarget::Osd(osd) if !map.exists(osd) => Err(OpError::NoSuchOsd { osd }),
            CommandTarget::Osd(osd) if !map.is_up(osd) => Err(OpError::OsdDown { osd }),
            CommandTarget::Osd(osd) => Ok(Some(osd)),
            CommandTarget::Pg(pg) => {
                let pool = pg.pool.cast_signed();
                if map.pool(pool).is_none() {
                    return Err(OpError::NoSuchPool { pool });
                }
                Ok(map.primary_shard(pg, &mut PgWorkspace::new()).map(|(_, osd)| osd))
            }
        }
    }

    fn look_up_command(&mut self, id: u64) {
        let Some(target) = self.commands.get(&id).map(|command| command.target) else { return };
        let found = self.osd_for(target);
        let Some(command) = self.commands.get_mut(&id) else { return };
        match found {
            Ok(osd) => {
                command.gone_by = None;
                if command.osd != osd {
                    command.osd = osd;
                    command.lose();
                }
                if osd.is_none() {
                    self.want_map();
                }
            }
            Err(_) => {
                command.osd = None;
                self.command_without_osd(id, None);
            }
        }
    }

    /// After a map.
    pub(super) fn look_up_commands(&mut self) {
        for id in self.commands.keys().copied().collect::<Vec<_>>() {
            self.look_up_command(id);
        }
    }

    pub(super) fn command_without_osd(&mut self, id: u64, newest: Option<Epoch>) {
        let Some(target) = self.commands.get(&id).map(|command| command.target) else { return };
        let Err(error) = self.osd_for(target) else { return };
        let epoch = self.map.epoch;
        let Some(command) = self.commands.get_mut(&id) else { return };
        command.lose();
        if let Some(newest) = newest {
            command.gone_by.get_or_insert(newest);
        }
        match command.gone_by {
            Some(by) if epoch >= by => self.finish_command(id, Err(error)),
            Some(_) => self.want_map(),
            None => self.check_newest(Subject::Command(id)),
        }
    }

    pub(super) fn flush_commands(&mut self) {
        for id in self.commands.keys().copied().collect::<Vec<_>>() {
            self.send_command(id);
        }
    }

    fn send_command(&mut self, id: u64) {
        let unsent = self.commands.get(&id).filter(|command| command.unsent);
        let Some(osd) = unsent.and_then(|command| command.osd) else { return };
        if !self.open_session(osd) {
            return;
        }
        let Self { commands, sessions, outputs, .. } = self;
        let (Some(command), Some(session)) = (commands.get_mut(&id), sessions.get(&osd)) else {
            return;
        };
        if session.is_waiting() {
            return;
        }
        command.unsent = false;
        command.session = Some(osd);
        let mut message: OutMessage = command.message.clone().into_out();
        message.header_mut().tid = id;
        outputs.push_back(Output::Send { session: session.id, message });
    }

    /// An OSD answered a command.
    pub(crate) fn handle_command_reply(
        &mut self,
        session: SessionId,
        tid: u64,
        reply: Result<MCommandReply, MessageError>,
    ) {
        let Some(osd) = self.osd_of(session) else { return };
        if let Some(session) = self.sessions.get_mut(&osd) {
            session.heard = true;
        }
        let Some(command) = self.commands.get_mut(&tid) else { return };
        if command.session != Some(osd) {
            return;
        }
        match reply {
            // The placement group is not there any more: it is asked where it is now, at the latest at
            // the next tick.
            Ok(reply) if Errno::of_result(reply.result) == Some(Errno::EAGAIN) => {
                command.lose();
                self.want_map();
            }
            Ok(MCommandReply { result, status, output }) => {
                let (code, status) = (result, status.to_string());
                let output = CommandOutput { code, status, data: output };
                self.finish_command(tid, Ok(output));
            }
            Err(error) => self.finish_command(tid, Err(BadReply::Malformed(error).into())),
        }
        self.check();
    }

    pub(super) fn finish_command(&mut self, id: u64, result: Result<CommandOutput, OpError>) {
        if let Some(command) = self.remove_command(id) {
            self.done(Done::Command(command.ticket, result));
        }
    }

    pub(super) fn remove_command(&mut self, id: u64) -> Option<Command> {
        let command = self.commands.remove(&id)?;
        if let Some((at, _)) = command.timeout {
            self.deadlines.remove(&(at, id));
        }
        Some(command)
    }
}
