//! Watching objects, and notifying those who do.

use std::io::{self, BufRead};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use futures_util::StreamExt as _;
use futures_util::future::{Either, select};
use serde_json::{Value, json};
use siphon_rados::WatchEvent;
use siphon_wire::Encode as _;
use siphon_wire::types::Features;

use super::args::Words;
use super::locks::legacy;
use super::output::hexdump;
use super::{Failed, Session, named, say};

/// How long those who watch have to answer, as Ceph's `rados` has it.
const ANSWER: Duration = Duration::from_secs(10);

impl Session {
    pub(super) async fn watch(&self, words: Words) -> Result<()> {
        let (pool, words) = (self.pool().await?, self.words(words, &["OBJECT"], 1)?);
        let mut watch = pool.watch(words[0].clone(), None).await.context("error calling watch")?;
        say("press enter to exit...\n")?;
        let (pressed, mut entered) = futures_channel::oneshot::channel();
        std::thread::spawn(move || {
            let _ = io::stdin().lock().read_line(&mut String::new());
            let _ = pressed.send(()); // nobody waits any more if the watch ended before
        });
        loop {
            let event = match select(watch.next(), &mut entered).await {
                Either::Right(_) | Either::Left((None, _)) => break,
                Either::Left((Some(event), _)) => event,
            };
            match event {
                WatchEvent::Notify(it) => {
                    let (cookie, id, dump) = (it.cookie, it.notify_id, hexdump(&it.payload));
                    say(&format!(
                        "NOTIFY cookie {cookie} notify_id {id} from {}\n{dump}",
                        it.notifier
                    ))?;
                    // As Ceph's `rados`: what came goes back.
                    watch.acknowledge(&it, &it.payload).await.context("error acknowledging")?;
                }
                WatchEvent::Overflow(count) => {
                    say(&format!("ERROR cookie {} lost {count} notifications\n", watch.cookie()))?;
                }
                WatchEvent::Lost(error) => {
                    say(&format!("ERROR cookie {} err {error}\n", watch.cookie()))?;
                    bail!("the watch is lost");
                }
                _ => {} // of a newer library
            }
        }
        watch.unwatch().await.context("error calling unwatch")
    }

    pub(super) async fn notify(&self, words: Words) -> Result<()> {
        let (pool, words) = (self.pool().await?, self.words(words, &["OBJECT", "TEXT"], 2)?);
        let payload = words[1].to_bytes(Features::ALL);
        let answer = pool.notify(words[0].clone(), payload, Some(ANSWER)).await;
        let answer = answer.context("error calling notify")?;
        for ((client, cookie), payload) in &answer.answers {
            let (length, dump) = (payload.len(), hexdump(payload));
            say(&format!("reply client.{client} cookie {cookie} : {length} bytes\n{dump}"))?;
        }
        for (client, cookie) in &answer.missed {
            say(&format!("timeout client.{client} cookie {cookie}\n"))?;
        }
        match answer.error {
            Some(errno) => Err(Failed(errno)).context("error calling notify"),
            None => Ok(()),
        }
    }

    pub(super) async fn listwatchers(&self, words: Words) -> Result<()> {
        let (pool, words) = (self.pool().await?, self.words(words, &["OBJECT"], 1)?);
        let answer = pool.list_watchers(words[0].clone()).await;
        let watchers = answer
            .with_context(|| format!("error listing watchers {}", named(&pool, &words[0])))?;
        if self.json().is_some() {
            let watchers = watchers.iter().map(|it| {
                json!({
                    "name": it.name.to_string(),
                    "addr": legacy(&it.addr),
                    "cookie": it.cookie,
                    "timeout_seconds": it.timeout_seconds,
                })
            });
            return self.show(&Value::Array(watchers.collect()));
        }
        watchers.iter().try_for_each(|it| {
            let (addr, name) = (legacy(&it.addr), it.name.num);
            say(&format!("watcher={addr} client.{name} cookie={}\n", it.cookie))
        })
    }
}
