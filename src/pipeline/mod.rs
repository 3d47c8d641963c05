//! From plain bytes to stored objects and back: frames, hashes, compression, encryption, digests, fan-out.

pub mod plain;
