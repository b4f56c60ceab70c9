use std::fmt;

use siphon_wire::types::EntityType;

use super::{Algorithm, CompressionMethod, Mode};
use crate::v2::{CompressionDoneFrame, CompressionRequestFrame};

/// With whom to compress, and how: Ceph's options, whose defaults are the default here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompressionOptions {
    /// `ms_osd_compress_mode`: whether to.
    pub mode: Mode,
    /// `ms_osd_compression_algorithm`: how, the preferred one first.
    pub algorithms: Vec<Algorithm>,
    /// `ms_osd_compress_min_size`: frames with fewer bytes in their segments go as they are.
    pub min_size: usize,
    /// `ms_compress_secure`: whether to compress in secure mode, too. The length of what is sealed
    /// then tells of its content to who listens, and more to who may add to it.
    pub secure: bool,
    /// Whether to compress with peers that are no OSDs. Ceph never does; so between a client and an
    /// OSD it is not compressed, since the OSD refuses.
    pub anybody: bool,
}

/// What both sides agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agreed {
    /// How frames are compressed, in both directions.
    pub algorithm: Algorithm,
    /// What we send with fewer bytes goes as it is; the peer has a minimum of its own.
    pub min_size: usize,
}

/// A server's choice that was not up to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NegotiationError {
    /// It chose to compress, and we had not asked for it.
    NotAsked,
    /// It chose an algorithm that we had not offered.
    NotOffered(CompressionMethod),
}

impl Default for CompressionOptions {
    fn default() -> Self {
        Self {
            mode: Mode::None,
            algorithms: vec![Algorithm::Snappy],
            min_size: 1 << 10,
            secure: false,
            anybody: false,
        }
    }
}

impl CompressionOptions {
    /// Whether to compress with a peer of this type, in secure mode or not
    /// (`CompressorRegistry::get_mode` of Ceph's `msg/compressor_registry.cc`).
    pub fn mode(&self, peer: EntityType, secure: bool) -> Mode {
        let refused = secure && !self.secure || !(self.anybody || peer == EntityType::OSD);
        if refused { Mode::None } else { self.mode }
    }

    /// What a client asks for (`ProtocolV2::send_compression_request`). It asks in any case, once
    /// the banners have the feature.
    pub fn request(&self, peer: EntityType, secure: bool) -> CompressionRequestFrame {
        let is_compress = self.mode(peer, secure) == Mode::Force;
        let methods = self.algorithms.iter().map(|algorithm| algorithm.method());
        CompressionRequestFrame { is_compress, preferred_methods: methods.collect() }
    }

    /// What a server answers: the first of the client's algorithms that is among ours
    /// (`ProtocolV2::handle_compression_request`, `CompressorRegistry::pick_method`). What was agreed
    /// holds for all frames behind the answer.
    pub fn answer(
        &self,
        request: &CompressionRequestFrame,
        peer: EntityType,
        secure: bool,
    ) -> (CompressionDoneFrame, Option<Agreed>) {
        let wanted = request.is_compress && self.mode(peer, secure) == Mode::Force;
        let mut known =
            request.preferred_methods.iter().copied().filter_map(Algorithm::from_method);
        let chosen = known.find(|algorithm| wanted && self.algorithms.contains(algorithm));
        let done = CompressionDoneFrame {
            is_compress: chosen.is_some(),
            method: chosen.map_or(CompressionMethod::NONE, Algorithm::method),
        };
        (done, chosen.map(|algorithm| self.agreed(algorithm)))
    }

    /// What a client makes of the answer to its request (`ProtocolV2::handle_compression_done`). What
    /// was agreed holds for all frames from here on.
    ///
    /// # Errors
    /// If the server chose what the client had not offered. Ceph's client goes on without
    /// compression then, while the server compresses.
    pub fn accept(
        &self,
        request: &CompressionRequestFrame,
        done: &CompressionDoneFrame,
    ) -> Result<Option<Agreed>, NegotiationError> {
        if !done.is_compress {
            return Ok(None);
        }
        if !request.is_compress {
            return Err(NegotiationError::NotAsked);
        }
        let offered = request.preferred_methods.contains(&done.method);
        let algorithm = Algorithm::from_method(done.method).filter(|_| offered);
        let algorithm = algorithm.ok_or(NegotiationError::NotOffered(done.method))?;
        Ok(Some(self.agreed(algorithm)))
    }

    fn agreed(&self, algorithm: Algorithm) -> Agreed {
        Agreed { algorithm, min_size: self.min_size }
    }
}

impl fmt::Display for NegotiationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAsked => f.write_str("it chose to compress, which it was not asked for"),
            Self::NotOffered(method) => {
                write!(f, "it chose compression by {method}, which it was not offered")
            }
        }
    }
}

impl std::error::Error for NegotiationError {}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::v2::payload::ControlFrame;

    fn forced(algorithms: &[Algorithm]) -> CompressionOptions {
        let algorithms = algorithms.to_vec();
        CompressionOptions { mode: Mode::Force, algorithms, ..CompressionOptions::default() }
    }

    /// Both sides' agreements, the server's first.
    fn negotiate(
        client: &CompressionOptions,
        server: &CompressionOptions,
        secure: bool,
    ) -> [Option<Algorithm>; 2] {
        let request = client.request(EntityType::OSD, secure);
        let (done, ours) = server.answer(&request, EntityType::OSD, secure);
        let theirs = client.accept(&request, &done).unwrap();
        [ours, theirs].map(|agreed| agreed.map(|agreed| agreed.algorithm))
    }

    #[test]
    fn the_clients_first_choice_that_the_server_has_is_taken() {
        use Algorithm::{Lz4, Snappy, Zlib, Zstd};
        let client = forced(&[Zstd, Lz4, Snappy]);
        for (server, expected) in [
            (&[Snappy, Lz4][..], Some(Lz4)),
            (&[Snappy, Lz4, Zstd], Some(Zstd)),
            (&[Zlib], None),
            (&[], None),
        ] {
            assert_eq!(negotiate(&client, &forced(server), false), [expected; 2]);
        }
    }

    #[test]
    fn both_sides_have_to_want_it() {
        let (yes, no) = (forced(&[Algorithm::Snappy]), CompressionOptions::default());
        for (client, server) in [(&yes, &no), (&no, &yes), (&no, &no)] {
            assert_eq!(negotiate(client, server, false), [None; 2]);
        }
        let snappy = Some(Algorithm::Snappy);
        assert_eq!(negotiate(&yes, &yes, false), [snappy; 2]);
        assert_eq!(negotiate(&yes, &yes, true), [None; 2]);
        let secure = CompressionOptions { secure: true, ..yes.clone() };
        assert_eq!(negotiate(&secure, &secure, true), [snappy; 2]);
        assert_eq!(negotiate(&secure, &yes, true), [None; 2]);
    }

    #[test]
    fn an_osd_refuses_a_client() {
        let options = forced(&[Algorithm::Snappy]);
        let request = options.request(EntityType::OSD, false);
        assert!(request.is_compress);
        let (done, agreed) = options.answer(&request, EntityType::CLIENT, false);
        assert_eq!((done.is_compress, done.method, agreed), (false, CompressionMethod::NONE, None));
        let anybody = CompressionOptions { anybody: true, ..options };
        assert!(anybody.answer(&request, EntityType::CLIENT, false).1.is_some());
    }

    #[test]
    fn a_server_may_not_choose_for_itself() {
        let options = forced(&[Algorithm::Snappy, Algorithm::Zlib]);
        let done =
            |number| CompressionDoneFrame { is_compress: true, method: CompressionMethod(number) };
        let request = options.request(EntityType::OSD, false);
        assert!(options.accept(&request, &done(2)).is_ok());
        for number in [0, 3, 5, u32::MAX] {
            let error = NegotiationError::NotOffered(CompressionMethod(number));
            assert_eq!(options.accept(&request, &done(number)), Err(error));
        }
        let unwanted = options.request(EntityType::MON, false);
        assert_eq!(options.accept(&unwanted, &done(1)), Err(NegotiationError::NotAsked));
    }

    #[test]
    fn payloads_are_a_flag_and_numbers() {
        let request = forced(&[Algorithm::Zstd, Algorithm::Snappy]).request(EntityType::OSD, false);
        let bytes = Bytes::from_static(b"\x01\x02\0\0\0\x03\0\0\0\x01\0\0\0");
        assert_eq!(request.payload(), bytes);
        assert_eq!(CompressionRequestFrame::parse(&bytes), Ok(request));
        let done = CompressionDoneFrame { is_compress: true, method: CompressionMethod(4) };
        let bytes = Bytes::from_static(b"\x01\x04\0\0\0");
        assert_eq!(done.payload(), bytes);
        assert_eq!(CompressionDoneFrame::parse(&bytes), Ok(done));
    }
}
