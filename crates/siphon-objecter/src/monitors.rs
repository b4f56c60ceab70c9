//! What the monitors are asked in the background.

use std::sync::Weak;

use siphon_common::Task;
use siphon_monclient::MonClient;
use siphon_wire::types::Epoch;

use crate::objecter::{Shared, epoch_of};

/// Asks for maps, and for what is the newest.
pub(crate) struct Monitors {
    mon: MonClient,
    shared: Weak<Shared>,
}

impl Monitors {
    pub(crate) fn new(mon: MonClient, shared: Weak<Shared>) -> Self {
        Self { mon, shared }
    }

    pub(crate) fn want_osdmap(&self, from: Epoch, continuous: bool) {
        self.mon.subscribe("osdmap", from.0.into(), !continuous);
    }

    /// The answer comes to the core.
    pub(crate) fn check_newest(&self) {
        let (mon, shared) = (self.mon.clone(), Weak::clone(&self.shared));
        Task::spawn(async move {
            let newest = mon.newest_version("osdmap", None).await;
            if let Err(error) = &newest {
                tracing::warn!(%error, "the newest epoch of the OSD map is not known");
            }
            if let Some(shared) = shared.upgrade() {
                let newest = newest.ok().map(|(newest, _)| epoch_of(newest));
                shared.with(|core, now| core.handle_newest(newest, now));
            }
        })
        .detach();
    }
}
