//! Monitors that DNS names: SRV records of `_ceph-mon._tcp`, as Ceph's clients ask for them where the
//! configuration names no monitors (`MonMap::init_with_dns_srv` of Ceph's `mon/MonMap.cc`).

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use simple_dns::rdata::RData;
use simple_dns::{CLASS, Name, Packet, PacketFlag, Question, RCODE, TYPE};

const RESOLV_CONF: &str = "/etc/resolv.conf";
const PORT: u16 = 53;
/// What one datagram may have.
const MAX_DATAGRAM: usize = 4096;
/// Datagrams that are looked at for one answer: others may send some.
const MAX_DATAGRAMS: u32 = 32;
/// Records that are taken of one answer.
const MAX_RECORDS: usize = 64;
/// Servers and domains that are tried, at most, as in glibc (`MAXNS` is 3, `MAXDNSRCH` was 6).
const MAX_SERVERS: usize = 3;
const MAX_DOMAINS: usize = 6;
/// Rounds over all servers, at most, whatever the system's file says.
const MAX_ATTEMPTS: u32 = 5;

/// One server of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Srv {
    pub(crate) priority: u16,
    pub(crate) weight: u16,
    pub(crate) port: u16,
    pub(crate) target: String,
    /// As far as the answer tells them along.
    pub(crate) addrs: Vec<IpAddr>,
}

/// Whom to ask.
#[derive(Clone, Debug)]
pub(crate) struct Resolver {
    pub(crate) servers: Vec<SocketAddr>,
    pub(crate) domains: Vec<String>,
    pub(crate) timeout: Duration,
    pub(crate) attempts: u32,
}

/// What one server says.
enum Verdict {
    Found(Vec<Srv>),
    /// There is no such name, or it has no such record.
    Nothing,
}

impl Resolver {
    /// As the system's file has it.
    pub(crate) fn system() -> Result<Self, String> {
        let text = fs::read(RESOLV_CONF).map_err(|error| format!("{RESOLV_CONF}: {error}"))?;
        let (conf, _) = resolv_conf::Config::parse_with_errors(&text);
        let servers = conf.nameservers.iter().map(|server| SocketAddr::new(server.into(), PORT));
        let domains = conf.get_last_search_or_domain().cloned();
        let seconds = u64::from(conf.timeout.clamp(1, 30));
        Ok(Self {
            servers: servers.take(MAX_SERVERS).collect(),
            domains: domains.take(MAX_DOMAINS).collect(),
            timeout: Duration::from_secs(seconds),
            attempts: conf.attempts.clamp(1, MAX_ATTEMPTS),
        })
    }

    /// The servers of a service over TCP, in this domain, else in those of the system.
    pub(crate) fn servers_of(
        &self,
        service: &str,
        domain: Option<&str>,
    ) -> Result<Vec<Srv>, String> {
        let prefix = format!("_{service}._tcp");
        let names: Vec<_> = match domain {
            Some(domain) => vec![format!("{prefix}.{domain}")],
            None => self.domains.iter().map(|domain| format!("{prefix}.{domain}")).collect(),
        };
        if names.is_empty() {
            return Err(format!("{RESOLV_CONF} names no domain in which to look for {prefix}"));
        }
        if self.servers.is_empty() {
            return Err(format!("{RESOLV_CONF} names no server"));
        }
        for name in &names {
            if let Verdict::Found(found) = self.look_up(name)? {
                return Ok(found);
            }
        }
        Err(format!("no SRV record of {}", names.join(" or ")))
    }

    /// Asks each server until one knows.
    fn look_up(&self, name: &str) -> Result<Verdict, String> {
        let mut failure = String::new();
        for _ in 0..self.attempts {
            for server in &self.servers {
                match self.ask(*server, name) {
                    Ok(verdict) => return Ok(verdict),
                    Err(error) => failure = format!("{server}: {error}"),
                }
            }
        }
        Err(failure)
    }

    fn ask(&self, server: SocketAddr, name: &str) -> io::Result<Verdict> {
        let id = rand::random();
        let question = question(id, name)?;
        let local: IpAddr = match server {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = UdpSocket::bind((local, 0))?;
        socket.connect(server)?;
        socket.set_read_timeout(Some(self.timeout))?;
        socket.send(&question)?;
        let mut datagram = [0; MAX_DATAGRAM];
        for _ in 0..MAX_DATAGRAMS {
            let len = socket.recv(&mut datagram).map_err(|error| match error.kind() {
                io::ErrorKind::WouldBlock => io::ErrorKind::TimedOut.into(),
                _ => error,
            })?;
            match read(&datagram[..len], id, name) {
                None => {} // not an answer to this
                Some(Read::Truncated) => return self.ask_by_tcp(server, id, name, &question),
                Some(Read::Verdict(verdict)) => return verdict,
            }
        }
        Err(io::Error::other("nothing but answers to other questions"))
    }

    /// What does not fit into a datagram.
    fn ask_by_tcp(
        &self,
        server: SocketAddr,
        id: u16,
        name: &str,
        question: &[u8],
    ) -> io::Result<Verdict> {
        let mut stream = TcpStream::connect_timeout(&server, self.timeout)?;
        stream.set_read_timeout(Some(self.timeout))?;
        stream.set_write_timeout(Some(self.timeout))?;
        let length = u16::try_from(question.len()).map_err(io::Error::other)?;
        stream.write_all(&[&length.to_be_bytes(), question].concat())?;
        let mut length = [0; 2];
        stream.read_exact(&mut length)?;
        let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut answer)?;
        match read(&answer, id, name) {
            Some(Read::Verdict(verdict)) => verdict,
            _ => Err(io::Error::other("no answer to this question")),
        }
    }
}

fn question(id: u16, name: &str) -> io::Result<Vec<u8>> {
    let mut packet = Packet::new_query(id);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    let name = Name::new(name).map_err(io::Error::other)?;
    packet.questions.push(Question::new(name, TYPE::SRV.into(), CLASS::IN.into(), false));
    packet.build_bytes_vec().map_err(io::Error::other)
}

enum Read {
    Truncated,
    Verdict(io::Result<Verdict>),
}

/// Reads an answer to the question of this id and name; none if it is none.
fn read(bytes: &[u8], id: u16, name: &str) -> Option<Read> {
    let packet = Packet::parse(bytes).ok()?;
    let asked = packet.questions.first()?.qname.to_string();
    let is_answer = packet.id() == id && packet.has_flags(PacketFlag::RESPONSE);
    if !is_answer || !asked.eq_ignore_ascii_case(name.trim_end_matches('.')) {
        return None;
    }
    if packet.has_flags(PacketFlag::TRUNCATION) {
        return Some(Read::Truncated);
    }
    let verdict = match packet.rcode() {
        RCODE::NoError => Ok(records(&packet)),
        RCODE::NameError => Ok(Verdict::Nothing),
        other => Err(io::Error::other(format!("the server answers {other:?}"))),
    };
    Some(Read::Verdict(verdict))
}

fn records(packet: &Packet<'_>) -> Verdict {
    let addrs = |target: &str| {
        let about = packet.additional_records.iter().take(MAX_RECORDS);
        let about = about.filter(|record| record.name.to_string().eq_ignore_ascii_case(target));
        let addr = about.filter_map(|record| match &record.rdata {
            RData::A(a) => Some(IpAddr::from(Ipv4Addr::from(a.address))),
            RData::AAAA(aaaa) => Some(IpAddr::from(Ipv6Addr::from(aaaa.address))),
            _ => None,
        });
        addr.collect()
    };
    let found = packet.answers.iter().take(MAX_RECORDS).filter_map(|record| match &record.rdata {
        RData::SRV(srv) => {
            let target = srv.target.to_string();
            let (priority, weight, port) = (srv.priority, srv.weight, srv.port);
            Some(Srv { priority, weight, port, addrs: addrs(&target), target })
        }
        _ => None,
    });
    let found: Vec<_> = found.collect();
    if found.is_empty() { Verdict::Nothing } else { Verdict::Found(found) }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::net::TcpListener;
    use std::thread;

    use simple_dns::rdata::{A, SRV};
    use simple_dns::{ResourceRecord, header_buffer};

    use super::*;

    const NAME: &str = "_ceph-mon._tcp.example.test";

    /// A server of the domain `example.test`, for so many questions; a record that is too long for
    /// datagrams is given by TCP.
    pub(crate) fn serve(
        records: Vec<(u16, u16, u16, &'static str, Option<Ipv4Addr>)>,
        truncates: bool,
        questions: usize,
    ) -> Resolver {
        // A port that is free for both: others take some as well.
        let both = || {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            let listener = TcpListener::bind(socket.local_addr().unwrap()).ok()?;
            Some((socket, listener))
        };
        let (socket, listener) = std::iter::repeat_with(both).flatten().next().unwrap();
        let addr = socket.local_addr().unwrap();
        thread::spawn(move || {
            for _ in 0..questions {
                let mut question = [0; 512];
                let (len, from) = socket.recv_from(&mut question).unwrap();
                let stray = answer(&question[..len], 1, &[], false);
                socket.send_to(b"not an answer", from).unwrap();
                socket.send_to(&stray, from).unwrap();
                let answered = answer(&question[..len], 0, &records, truncates);
                let by_tcp = header_buffer::has_flags(&answered, PacketFlag::TRUNCATION).unwrap();
                socket.send_to(&answered, from).unwrap();
                if by_tcp {
                    let (mut stream, _) = listener.accept().unwrap();
                    let mut length = [0; 2];
                    stream.read_exact(&mut length).unwrap();
                    let mut question = vec![0; usize::from(u16::from_be_bytes(length))];
                    stream.read_exact(&mut question).unwrap();
                    let answer = answer(&question, 0, &records, false);
                    let length = u16::try_from(answer.len()).unwrap().to_be_bytes();
                    stream.write_all(&[&length[..], &answer].concat()).unwrap();
                }
            }
        });
        let domains = vec!["nowhere.test".to_owned(), "example.test".to_owned()];
        Resolver { servers: vec![addr], domains, timeout: Duration::from_secs(30), attempts: 1 }
    }

    fn answer(
        question: &[u8],
        id_off_by: u16,
        records: &[(u16, u16, u16, &'static str, Option<Ipv4Addr>)],
        truncated: bool,
    ) -> Vec<u8> {
        let asked = Packet::parse(question).unwrap();
        let id = header_buffer::id(question).unwrap().wrapping_add(id_off_by);
        let mut packet = Packet::new_reply(id);
        packet.questions.clone_from(&asked.questions);
        let name = asked.questions[0].qname.clone();
        if name.to_string() != NAME {
            *packet.rcode_mut() = RCODE::NameError;
        } else if truncated {
            packet.set_flags(PacketFlag::TRUNCATION);
        } else {
            for (priority, weight, port, target, addr) in records {
                let (priority, weight, port) = (*priority, *weight, *port);
                let target = Name::new_unchecked(target);
                let srv = SRV { priority, weight, port, target: target.clone() };
                packet.answers.push(record(name.clone(), RData::SRV(srv)));
                if let Some(addr) = addr {
                    let address = u32::from(*addr);
                    packet.additional_records.push(record(target, RData::A(A { address })));
                }
            }
        }
        packet.build_bytes_vec_compressed().unwrap()
    }

    fn record<'a>(name: Name<'a>, data: RData<'a>) -> ResourceRecord<'a> {
        ResourceRecord::new(name, CLASS::IN, 60, data)
    }

    #[test]
    fn records_are_found_in_the_first_domain_that_has_them() {
        let ip = Ipv4Addr::new(10, 0, 0, 7);
        let records =
            vec![(1, 20, 3300, "mon1.example.test", Some(ip)), (2, 0, 6789, "localhost", None)];
        for truncates in [false, true] {
            // One for each domain of which it is asked; of the first there is nothing.
            let resolver = serve(records.clone(), truncates, 2);
            let found = resolver.servers_of("ceph-mon", None).unwrap();
            assert_eq!(found.len(), 2);
            assert_eq!((found[0].priority, found[0].weight, found[0].port), (1, 20, 3300));
            assert_eq!(found[0].addrs, [IpAddr::from(ip)]);
            assert_eq!((&*found[1].target, found[1].addrs.len()), ("localhost", 0));
        }
    }

    #[test]
    fn what_is_not_there_is_said() {
        let resolver = serve(Vec::new(), false, 3);
        let error = resolver.servers_of("ceph-mon", Some("other.test")).unwrap_err();
        assert_eq!(error, "no SRV record of _ceph-mon._tcp.other.test");
        let error = resolver.servers_of("ceph-mon", None).unwrap_err();
        assert!(error.ends_with("_ceph-mon._tcp.nowhere.test or _ceph-mon._tcp.example.test"));
        let nobody = Resolver { domains: Vec::new(), ..resolver };
        let error = nobody.servers_of("ceph-mon", None).unwrap_err();
        assert!(error.contains("names no domain"), "{error}");
    }

    #[test]
    fn strange_bytes_are_no_answer() {
        let resolver = serve(Vec::new(), false, 0);
        drop(resolver);
        let asked = question(7, NAME).unwrap();
        let whole = answer(&asked, 0, &[(1, 1, 1, "a.b", None)], false);
        assert!(matches!(read(&whole, 7, NAME), Some(Read::Verdict(Ok(Verdict::Found(_))))));
        assert!(read(&whole, 8, NAME).is_none());
        assert!(read(&whole, 7, "_ceph-mon._tcp.other.test").is_none());
        assert!(read(&asked, 7, NAME).is_none(), "the question itself");
        for len in 0..whole.len() {
            let _ = read(&whole[..len], 7, NAME);
        }
        for at in 0..whole.len() {
            for bit in 0..8 {
                let mut changed = whole.clone();
                changed[at] ^= 1 << bit;
                let _ = read(&changed, 7, NAME);
            }
        }
    }
}
