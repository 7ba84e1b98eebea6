//! The encoding of all persisted structs and of messages between nodes. Only this module uses
//! bincode.
//!
//! ```text
//!   kind u8 | version u8 | length u32 LE | crc32c u32 LE | payload (bincode, fixed-width LE)
//! ```
//!
//! bincode has no version and no checksum, accepts trailing bytes, and allocates any length that
//! corrupt bytes claim; the envelope and the limit handle each. A changed struct is a new version
//! with a conversion from the old one, never an appended field. Enum variants are only appended,
//! because their number is their position in the declaration.
//!
//! RocksDB *keys* are not encoded here, because their byte order matters (`machine/keys.rs`).

use bincode::config::{Configuration, Fixint, Limit, LittleEndian};
use bincode::de::{BorrowDecoder, Decoder};
use bincode::enc::Encoder;
use bincode::enc::write::Writer;
use bincode::error::{DecodeError, EncodeError};
use bincode::{BorrowDecode, Decode, Encode};
use bytes::Bytes;

/// The largest payload that is decoded, in bytes. A batch of commands or a frame of messages stays
/// far below it.
pub const PAYLOAD_BYTES_MAX: usize = 64 << 20;
/// Bytes before the payload.
pub const ENVELOPE_BYTES: usize = 10;

const CONFIG: Configuration<LittleEndian, Fixint, Limit<PAYLOAD_BYTES_MAX>> =
    bincode::config::legacy().with_limit::<PAYLOAD_BYTES_MAX>();

/// The type of an envelope's payload. The numbers are on disk: append, never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A [`crate::Record`].
    Record = 1,
    /// A [`crate::Entry`] of a Raft log.
    Entry = 2,
    /// A [`crate::Vote`].
    Vote = 3,
    /// A [`crate::LogId`].
    LogId = 4,
    /// A [`crate::Proposal`]: commands for a shard.
    Proposal = 5,
    /// A struct of a replica's state beside user data.
    Meta = 6,
    /// Outcomes of a session's commands.
    Session = 7,
    /// A frame of [`crate::peer::PeerMessage`]s.
    Peer = 8,
    /// A [`crate::topology::Command`]: a change of the cluster.
    Topology = 9,
    /// A record of the topology group's state machine.
    TopologyRecord = 10,
    /// A [`crate::topology::Identity`] of a data directory.
    Identity = 11,
    /// The header of a snapshot on the wire.
    SnapshotHeader = 12,
    /// A [`crate::topology::Bootstrap`]: the order to bootstrap a cluster, on disk and on the wire.
    Bootstrap = 13,
    /// A whole [`crate::topology::Topology`], cached on disk and on the wire.
    TopologyImage = 14,
    /// The log's record of an existing replica: its group.
    Replica = 15,
    /// A [`crate::report::NodeReport`], on the wire only.
    Report = 16,
    /// A [`crate::report::Order`], on the wire only.
    Order = 17,
    /// A [`crate::peer::SnapshotAnswer`], on the wire only.
    SnapshotAnswer = 18,
    /// A [`crate::ping::Ping`], on the wire only.
    Ping = 21,
}

impl Kind {
    /// The format version that this release writes and reads.
    const fn version(self) -> u8 {
        match self {
            // 2: the estimated size instead of a list of files.
            Kind::SnapshotHeader => 2,
            _ => 1,
        }
    }
}

/// The reason why bytes could not be decoded. On disk this is corruption, and the caller stops the
/// node; on the wire the message is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// The length differs from the one in the envelope.
    #[error("truncated {kind:?}: {bytes} bytes")]
    Truncated {
        /// The expected kind.
        kind: Kind,
        /// The number of bytes.
        bytes: usize,
    },
    /// The envelope has another kind.
    #[error("expected {expected:?}, found kind {found}")]
    Kind {
        /// The expected kind.
        expected: Kind,
        /// The kind in the envelope.
        found: u8,
    },
    /// Written by another release.
    #[error("{kind:?} has format version {found}, this release reads version {supported}")]
    Version {
        /// The kind.
        kind: Kind,
        /// The version found.
        found: u8,
        /// The version that this release reads.
        supported: u8,
    },
    /// The bytes changed since they were written.
    #[error("{kind:?} has a wrong checksum")]
    Checksum {
        /// The kind.
        kind: Kind,
    },
    /// The payload is not of its kind.
    #[error("malformed {kind:?}: {reason}")]
    Malformed {
        /// The kind.
        kind: Kind,
        /// The error of bincode.
        reason: String,
    },
}

/// Encodes a value into a new envelope. Never fails: no encoding of our types can fail, and their
/// constructors bound their sizes.
pub fn encode<T: Encode>(kind: Kind, value: &T) -> Vec<u8> {
    let mut out = Vec::with_capacity(128);
    encode_into(&mut out, kind, value);
    out
}

/// Appends a value's envelope to `out`.
pub fn encode_into<T: Encode>(out: &mut Vec<u8>, kind: Kind, value: &T) {
    let start = out.len();
    out.extend_from_slice(&[kind as u8, kind.version(), 0, 0, 0, 0, 0, 0, 0, 0]);
    bincode::encode_into_std_write(value, out, CONFIG).expect("our types always encode into memory");
    let payload = start + ENVELOPE_BYTES;
    let length = out.len() - payload;
    assert!(length <= PAYLOAD_BYTES_MAX, "{kind:?} of {length} bytes is over the codec's limit");
    let checksum = crc32c::crc32c(&out[payload..]);
    let length = u32::try_from(length).expect("the limit is below 4 GiB");
    out[start + 2..start + 6].copy_from_slice(&length.to_le_bytes());
    out[start + 6..payload].copy_from_slice(&checksum.to_le_bytes());
}

/// Decodes an envelope that must fill `bytes` exactly.
pub fn decode<T: Decode<()>>(kind: Kind, bytes: &[u8]) -> Result<T, CodecError> {
    let payload = open(kind, bytes)?;
    let (value, read) = bincode::decode_from_slice(payload, CONFIG)
        .map_err(|e| CodecError::Malformed { kind, reason: e.to_string() })?;
    if read != payload.len() {
        return Err(CodecError::Malformed { kind, reason: format!("{} bytes left over", payload.len() - read) });
    }
    Ok(value)
}

/// Checks an envelope and returns its payload.
fn open(kind: Kind, bytes: &[u8]) -> Result<&[u8], CodecError> {
    if bytes.len() < ENVELOPE_BYTES {
        return Err(CodecError::Truncated { kind, bytes: bytes.len() });
    }
    let (envelope, payload) = bytes.split_at(ENVELOPE_BYTES);
    let word = |at: usize| u32::from_le_bytes([envelope[at], envelope[at + 1], envelope[at + 2], envelope[at + 3]]);
    if envelope[0] != kind as u8 {
        return Err(CodecError::Kind { expected: kind, found: envelope[0] });
    }
    if envelope[1] != kind.version() {
        return Err(CodecError::Version { kind, found: envelope[1], supported: kind.version() });
    }
    if word(2) as usize != payload.len() {
        return Err(CodecError::Truncated { kind, bytes: bytes.len() });
    }
    if word(6) != crc32c::crc32c(payload) {
        return Err(CodecError::Checksum { kind });
    }
    Ok(payload)
}

/// Bytes that are cloned without copying: `length u64 | bytes` on disk and on the wire.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Blob(pub Bytes);

impl Encode for Blob {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        (self.0.len() as u64).encode(encoder)?;
        encoder.writer().write(&self.0)
    }
}

impl<Context> Decode<Context> for Blob {
    fn decode<D: Decoder<Context = Context>>(decoder: &mut D) -> Result<Self, DecodeError> {
        Ok(Blob(Vec::<u8>::decode(decoder)?.into()))
    }
}

impl<'de, Context> BorrowDecode<'de, Context> for Blob {
    fn borrow_decode<D: BorrowDecoder<'de, Context = Context>>(decoder: &mut D) -> Result<Self, DecodeError> {
        Ok(Blob(Vec::<u8>::decode(decoder)?.into()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{Record, Value};

    fn record(version: u64, value: Vec<u8>, expires_at_ms: Option<u64>) -> Record {
        Record { version, value: Value::new(value).unwrap(), expires_at_ms }
    }

    /// The bytes of a record on disk, written out: a change of them breaks every data directory.
    #[test]
    fn the_bytes_of_a_record_are_frozen() {
        let bytes = encode(Kind::Record, &record(7, b"hi".to_vec(), None));
        let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, "01011300000049b052af07000000000000000200000000000000686900");
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let bytes = encode(Kind::Record, &record(7, b"some value".to_vec(), Some(9)));
        for bit in 0..bytes.len() * 8 {
            let mut broken = bytes.clone();
            broken[bit / 8] ^= 1 << (bit % 8);
            assert!(decode::<Record>(Kind::Record, &broken).is_err(), "bit {bit}");
        }
        for len in 0..bytes.len() {
            assert!(decode::<Record>(Kind::Record, &bytes[..len]).is_err(), "cut to {len}");
        }
    }

    #[test]
    fn a_newer_format_is_refused_by_number() {
        let mut bytes = encode(Kind::Record, &record(1, vec![], None));
        bytes[1] = 2;
        let refusal = CodecError::Version { kind: Kind::Record, found: 2, supported: 1 };
        assert_eq!(decode::<Record>(Kind::Record, &bytes), Err(refusal));
    }

    /// A corrupt length does not allocate that many bytes.
    #[test]
    fn an_absurd_length_is_an_error_and_not_an_allocation() {
        let mut bytes = encode(Kind::Record, &record(1, vec![1], None));
        bytes[ENVELOPE_BYTES + 8..ENVELOPE_BYTES + 16].copy_from_slice(&(u64::MAX / 2).to_le_bytes());
        let checksum = crc32c::crc32c(&bytes[ENVELOPE_BYTES..]);
        bytes[6..10].copy_from_slice(&checksum.to_le_bytes());
        assert!(matches!(decode::<Record>(Kind::Record, &bytes), Err(CodecError::Malformed { .. })));
    }

    proptest! {
        #[test]
        fn a_record_round_trips(version: u64, value: Vec<u8>, expires_at_ms: Option<u64>) {
            let record = record(version, value, expires_at_ms);
            prop_assert_eq!(decode::<Record>(Kind::Record, &encode(Kind::Record, &record)), Ok(record));
        }
    }
}
