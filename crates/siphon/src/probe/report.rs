//! What was found, for people and for programs.

use std::fmt::{self, Write as _};

use serde_json::{Map, Value, json};
use siphon_messages::mon::Release;
use siphon_proto::Protocol;
use siphon_proto::v1::{ConnectReply, tag};
use siphon_proto::v2::{AuthDoneFrame, BannerFeatures};
use siphon_wire::types::{AddrType, EntityType, Features};

use super::failure::Failure;
use super::stranger::looks_like;
use super::talk::{Msgr1, Msgr2, Seen};
use super::target::Target;
use super::{Finding, of_target};

/// For a terminal: a paragraph for each address.
pub(super) fn text(findings: &[Finding]) -> String {
    let mut text = String::new();
    for (number, finding) in findings.iter().enumerate() {
        if number > 0 {
            text.push('\n');
        }
        let mut paragraph = Paragraph(&mut text);
        paragraph.title(finding);
        match &finding.seen {
            Seen::Msgr2(seen) => paragraph.msgr2(seen),
            Seen::Msgr1(seen) => paragraph.msgr1(seen),
            Seen::Stranger { first, spoken_to } => {
                paragraph.line("says", quoted(first));
                if *spoken_to {
                    paragraph.line("when", "spoken to; by itself it says nothing");
                }
                paragraph.line("looks like", looks_like(first).unwrap_or("nothing that we know"));
            }
            Seen::HalfABanner(first, failure) => {
                paragraph.line("says", quoted(first));
                paragraph.line("then", failure);
            }
            Seen::Silent | Seen::Closed { .. } | Seen::Nothing(_) => {}
        }
    }
    text
}

/// For programs: an object for each target, with one for each of its addresses.
pub(super) fn json(targets: &[Target], findings: &[Finding]) -> Value {
    let targets = (0..).zip(targets).map(|(number, target)| {
        let found: Vec<_> = of_target(number, findings).map(finding_to_json).collect();
        let ceph = target.is_ceph(of_target(number, findings));
        json!({ "target": target.text, "ceph": ceph, "addrs": found })
    });
    Value::Array(targets.collect())
}

/// What an address speaks, in a few words.
fn verdict(finding: &Finding) -> String {
    let spoken = match &finding.seen {
        Seen::Msgr2(seen) => seen.protocol().to_string(),
        Seen::Msgr1(_) => Protocol::Msgr1.to_string(),
        Seen::Stranger { .. } => return "not Ceph".to_owned(),
        Seen::HalfABanner(..) => return "begins as Ceph does, but says no whole banner".to_owned(),
        Seen::Silent => return "not Ceph: accepts connections and is silent".to_owned(),
        Seen::Closed { spoken_to: false } => {
            return "not Ceph: accepts connections and closes them without a word".to_owned();
        }
        Seen::Closed { spoken_to: true } => {
            return "not Ceph: closes connections without a word when spoken to".to_owned();
        }
        Seen::Nothing(failure) => return failure.to_string(),
    };
    match (finding.endpoint.kind, &finding.seen) {
        (AddrType::LEGACY, Seen::Msgr2(_)) | (AddrType::MSGR2, Seen::Msgr1(_)) => {
            format!("{spoken}, and not {} as was said", finding.endpoint.kind)
        }
        _ => spoken,
    }
}

/// A title, and lines of a name and what it is.
struct Paragraph<'a>(&'a mut String);

impl Paragraph<'_> {
    fn title(&mut self, finding: &Finding) {
        let (endpoint, verdict) = (finding.endpoint.to_string(), verdict(finding));
        let _ = match finding.addr.map(|addr| addr.to_string()) {
            Some(addr) if addr != endpoint => {
                writeln!(self.0, "{endpoint} ({addr})  {verdict}")
            }
            _ => writeln!(self.0, "{endpoint}  {verdict}"),
        };
    }

    fn line(&mut self, name: &str, what: impl fmt::Display) {
        let _ = writeln!(self.0, "  {name:<12} {what}");
    }

    fn msgr2(&mut self, seen: &Msgr2) {
        let banner = seen.banner;
        let (supported, required) = (of_banner(banner.supported), of_banner(banner.required));
        self.line("banner", format!("supports {supported}, requires {required}"));
        if let Some(hello) = &seen.hello {
            self.line("daemon", hello.entity_type);
            self.line("sees us at", hello.peer_addr);
        }
        if let Some(offers) = &seen.offers {
            self.line("methods", list(&offers.allowed_methods));
            self.line("modes", list(&offers.allowed_modes));
        }
        match &seen.none {
            Some(Ok(done)) => self.line("key", no_key(done)),
            Some(Err(failure)) => self.line("key", format!("none should do, but {failure}")),
            None if seen.offers.is_some() => self.line("key", "needed"),
            None => {}
        }
        self.line("release", format!("{} or newer, by its banner", seen.release()));
        self.failure(seen.failure.as_ref());
    }

    fn msgr1(&mut self, seen: &Msgr1) {
        if let Some(addrs) = seen.addrs {
            self.line("calls itself", addrs.server);
            self.line("sees us at", addrs.client);
        }
        if let Some(about) = seen.about {
            let daemon = seen.daemon().map_or("not told", name_of);
            let version = about.protocol_version;
            self.line("daemon", format!("{daemon}, by version {version} of its protocol"));
        }
        if let Some(reply) = seen.without_key {
            self.line("key", key_of_msgr1(reply, seen.none.as_ref()));
        }
        if let Some(about) = seen.about {
            let release = match seen.release() {
                Some(release) => format!("{release} or newer, by its features"),
                None => "older than luminous, by its features".to_owned(),
            };
            self.line("release", release);
            self.line("features", about.features.names().collect::<Vec<_>>().join(" "));
        }
        self.failure(seen.failure.as_ref());
    }

    fn failure(&mut self, failure: Option<&Failure>) {
        if let Some(failure) = failure {
            self.line("then", failure);
        }
    }
}

fn no_key(done: &AuthDoneFrame) -> String {
    format!("not needed: lets us in as global id {}, in mode {}", done.global_id, done.mode)
}

/// What the answers to a client without an authorizer, and to one of method `none`, mean.
fn key_of_msgr1(reply: ConnectReply, none: Option<&Result<ConnectReply, Failure>>) -> String {
    let opens = |reply: ConnectReply| matches!(reply.tag, tag::READY | tag::SEQ);
    match reply.tag {
        tag::FEATURES => format!("not told: we lack {}", missing(reply.features)),
        // A monitor opens the session, and asks within it who the client is.
        _ if opens(reply) => "not needed to open a session; a monitor asks later".to_owned(),
        tag::BADAUTHORIZER => match none {
            Some(Ok(reply)) if opens(*reply) => "not needed: lets us in by method none".to_owned(),
            _ => "needed".to_owned(),
        },
        other => format!("not told: {}", answer(other)),
    }
}

fn answer(reply: u8) -> &'static str {
    tag::name(reply).unwrap_or("unknown")
}

/// What a server requires, and we do not have.
fn missing(features: Features) -> Features {
    Features::ALL_SUPPORTED.missing(features)
}

fn of_banner(features: BannerFeatures) -> String {
    match features {
        BannerFeatures::NONE => "nothing".to_owned(),
        features => features.to_string(),
    }
}

fn name_of(kind: EntityType) -> &'static str {
    kind.name().unwrap_or("unknown")
}

fn list(items: &[impl fmt::Display]) -> String {
    match items {
        [] => "none at all".to_owned(),
        items => texts(items).join(", "),
    }
}

fn texts(items: &[impl fmt::Display]) -> Vec<String> {
    items.iter().map(ToString::to_string).collect()
}

fn quoted(bytes: &[u8]) -> String {
    format!("\"{}\"", bytes.escape_ascii())
}

fn finding_to_json(finding: &Finding) -> Value {
    let mut object = Map::new();
    let mut put = |name: &str, value: Value| drop(object.insert(name.to_owned(), value));
    put("addr", json!(finding.addr.map_or(finding.endpoint.to_string(), |it| it.to_string())));
    put("ceph", json!(finding.is_ceph()));
    match &finding.seen {
        Seen::Msgr2(seen) => msgr2_to_json(seen, &mut put),
        Seen::Msgr1(seen) => msgr1_to_json(seen, &mut put),
        Seen::Stranger { first, spoken_to } => {
            put("says", json!(first.escape_ascii().to_string()));
            put("spoken_to", json!(spoken_to));
            put("looks_like", json!(looks_like(first)));
        }
        Seen::HalfABanner(first, failure) => {
            put("says", json!(first.escape_ascii().to_string()));
            put("error", json!(failure.to_string()));
        }
        Seen::Silent | Seen::Closed { .. } | Seen::Nothing(_) => {
            put("error", json!(verdict(finding)));
        }
    }
    Value::Object(object)
}

fn msgr2_to_json(seen: &Msgr2, put: &mut impl FnMut(&str, Value)) {
    put("protocol", json!(seen.protocol().to_string()));
    put("banner_supported", json!(banner_names(seen.banner.supported)));
    put("banner_required", json!(banner_names(seen.banner.required)));
    put("daemon", json!(seen.hello.as_ref().map(|it| it.entity_type.to_string())));
    put("sees_us_at", json!(seen.hello.as_ref().map(|it| it.peer_addr.to_string())));
    put("methods", json!(seen.offers.as_ref().map(|it| texts(&it.allowed_methods))));
    put("modes", json!(seen.offers.as_ref().map(|it| texts(&it.allowed_modes))));
    let none = seen.none.as_ref().map(|none| match none {
        Ok(done) => json!({ "global_id": done.global_id, "mode": done.mode.to_string() }),
        Err(failure) => json!({ "error": failure.to_string() }),
    });
    put("with_none", none.unwrap_or(Value::Null));
    put_release(Some(seen.release()), put);
    put_error(seen.failure.as_ref(), put);
}

fn msgr1_to_json(seen: &Msgr1, put: &mut impl FnMut(&str, Value)) {
    put("protocol", json!(Protocol::Msgr1.to_string()));
    put("own_addr", json!(seen.addrs.map(|it| it.server.to_string())));
    put("sees_us_at", json!(seen.addrs.map(|it| it.client.to_string())));
    put("daemon", json!(seen.daemon().map(name_of)));
    put("protocol_version", json!(seen.about.map(|it| it.protocol_version)));
    put("without_authorizer", json!(seen.without_key.map(|it| answer(it.tag))));
    let none = seen.none.as_ref().map(|none| match none {
        Ok(reply) => answer(reply.tag).to_owned(),
        Err(failure) => failure.to_string(),
    });
    put("with_none", json!(none));
    let features = seen.about.map(|it| it.features);
    put("features", json!(features.map(|it| it.names().collect::<Vec<_>>())));
    put("features_mask", json!(features.map(|it| format!("{:#x}", it.0))));
    put_release(seen.release(), put);
    put_error(seen.failure.as_ref(), put);
}

fn put_release(release: Option<Release>, put: &mut impl FnMut(&str, Value)) {
    put("at_least_release", json!(release.map(|it| it.to_string())));
}

fn put_error(failure: Option<&Failure>, put: &mut impl FnMut(&str, Value)) {
    if let Some(failure) = failure {
        put("error", json!(failure.to_string()));
    }
}

fn banner_names(features: BannerFeatures) -> Vec<String> {
    match features {
        BannerFeatures::NONE => Vec::new(),
        features => features.to_string().split(',').map(str::to_owned).collect(),
    }
}
