//! `--watch`: the view of `siphon top` on this process, while it measures.

use std::io::IsTerminal as _;

use anyhow::{Context as _, Result, anyhow, bail};
use siphon_common::Context;

use crate::top;
use siphon_common::interrupt::Interrupt;

/// Refuses to watch where nobody would see it.
pub(super) fn check(watch: bool) -> Result<()> {
    if watch && !std::io::stdout().is_terminal() {
        bail!(
            "--watch: the output is no terminal. Leave --watch out, or give the process an \
             --admin_socket and watch that with `siphon top` on a terminal"
        );
    }
    Ok(())
}

/// Runs something, and shows the process meanwhile if that is wanted. Who has seen enough (`q`) interrupts it: it
/// is to end with what it has.
pub(super) fn watched<T: Send>(
    watch: bool,
    context: &Context,
    interrupt: &Interrupt,
    run: impl FnOnce() -> Result<T> + Send,
) -> Result<T> {
    if !watch {
        return run();
    }
    std::thread::scope(|scope| {
        let running = scope.spawn(run);
        let shown = top::watch_own(context, &|| running.is_finished());
        if !running.is_finished() {
            interrupt.set();
        }
        let result = running.join().map_err(|_| anyhow!("the measurement ended by a panic"))?;
        shown.context("cannot show it on the terminal")?;
        result
    })
}
