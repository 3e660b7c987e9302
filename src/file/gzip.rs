//! Gzip: several members in, one member out that is deflated on all threads.

use std::io::{self, Read, Write};

use flate2::bufread::GzDecoder;
use flate2::{Compress, Compression, Crc, FlushCompress};
use libdeflater::Decompressor;
use rayon::prelude::*;

/// First two bytes of every gzip member.
///
/// # Source
/// RFC 1952, section 2.3.1.
pub const MAGIC: [u8; 2] = [0x1f, 0x8b];

/// Deflate cannot grow data by more than this factor on inflation, so a file that claims more is
/// refused unread.
///
/// # Source
/// A match of 258 bytes takes at least 2 bits: M. Adler, «zlib technical details», «Maximum
/// expansion factor».
const MAX_RATIO: u64 = 1032;

/// Bytes that are deflated as one piece; a constant, so that the file does not depend on the number
/// of threads.
const BLOCK: usize = 1 << 20;

/// True for bytes that begin like a gzip file.
pub fn is_gzip(bytes: &[u8]) -> bool {
    bytes.starts_with(&MAGIC)
}

/// The most bytes that `compressed` bytes of gzip can hold.
pub fn most_inflated(compressed: u64) -> u64 {
    compressed.saturating_mul(MAX_RATIO)
}

/// Reads the content of all members of a gzip file in turn, and checks the CRC of each.
///
/// What follows the last member and is no member itself is padding and left alone.
pub struct Members<'a> {
    member: Option<GzDecoder<&'a [u8]>>,
}

impl<'a> Members<'a> {
    /// Starts at the beginning of `compressed`.
    pub fn new(compressed: &'a [u8]) -> Self {
        Self {
            member: Some(GzDecoder::new(compressed)),
        }
    }
}

impl Read for Members<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(member) = &mut self.member {
            let n = member.read(buffer)?;
            if n > 0 || buffer.is_empty() {
                return Ok(n);
            }
            let rest = self.member.take().map(GzDecoder::into_inner);
            self.member = rest.filter(|rest| is_gzip(rest)).map(GzDecoder::new);
        }
        Ok(0)
    }
}

/// Inflates a file of one member that holds exactly `out.len()` bytes, the fast way; false when it
/// is not such a file or is damaged, which [`Members`] can tell apart.
pub fn inflate_exact(compressed: &[u8], out: &mut [u8]) -> bool {
    let Some(size) = compressed.last_chunk::<4>() else {
        return false;
    };
    // The trailer holds the size modulo 2³².
    if u64::from(u32::from_le_bytes(*size)) != out.len() as u64 & 0xffff_ffff {
        return false;
    }
    let inflated = Decompressor::new().gzip_decompress(compressed, out);
    inflated.is_ok_and(|n| n == out.len())
}

/// Writes `pieces`, one after the other, as one gzip member without name or time.
///
/// Blocks of 1 MiB are deflated on all threads of the current pool and written in order; a few
/// blocks per thread are held at a time. The bytes do not depend on the number of threads.
///
/// # Errors
/// What the writer says.
///
/// # Source
/// The layout is that of pigz: raw deflate blocks that each end in a sync flush, RFC 1951, and the
/// header and trailer of RFC 1952.
pub fn write_member(writer: &mut dyn Write, pieces: &[&[u8]], level: u32) -> io::Result<()> {
    let fastest = if level == 1 { 4 } else { 0 };
    writer.write_all(&[MAGIC[0], MAGIC[1], 8, 0, 0, 0, 0, 0, fastest, 255])?;
    let blocks: Vec<&[u8]> = pieces.iter().flat_map(|p| p.chunks(BLOCK)).collect();
    let mut crc = Crc::new();
    for batch in blocks.chunks(4 * rayon::current_num_threads()) {
        let new = || Compress::new(Compression::new(level), false);
        let deflated: Vec<io::Result<(Vec<u8>, Crc)>> = batch
            .par_iter()
            .with_max_len(1)
            .map_init(new, |compress, block| deflate(compress, block))
            .collect();
        for block in deflated {
            let (bytes, block_crc) = block?;
            crc.combine(&block_crc);
            writer.write_all(&bytes)?;
        }
    }
    // An empty last block with fixed codes ends the deflate stream.
    writer.write_all(&[3, 0])?;
    writer.write_all(&crc.sum().to_le_bytes())?;
    writer.write_all(&crc.amount().to_le_bytes())
}

fn deflate(compress: &mut Compress, block: &[u8]) -> io::Result<(Vec<u8>, Crc)> {
    let mut crc = Crc::new();
    crc.update(block);
    compress.reset();
    let mut bytes = Vec::with_capacity(block.len() / 2 + 64);
    let mut rest = block;
    loop {
        let before = compress.total_in();
        compress.compress_vec(rest, &mut bytes, FlushCompress::Sync)?;
        let taken = usize::try_from(compress.total_in() - before).map_err(io::Error::other)?;
        rest = &rest[taken..];
        // Room left over means that the flush is complete.
        if rest.is_empty() && bytes.len() < bytes.capacity() {
            return Ok((bytes, crc));
        }
        bytes.reserve(block.len() / 4 + 64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(n: usize) -> Vec<u8> {
        let mut state = 1_u32;
        let next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state.to_le_bytes()[3]
        };
        std::iter::repeat_with(next).take(n).collect()
    }

    fn member(pieces: &[&[u8]], level: u32) -> Vec<u8> {
        let mut file = Vec::new();
        write_member(&mut file, pieces, level).unwrap();
        file
    }

    fn inflated(file: &[u8]) -> io::Result<Vec<u8>> {
        let mut content = Vec::new();
        Members::new(file).read_to_end(&mut content)?;
        Ok(content)
    }

    #[test]
    fn what_is_written_is_read_back_both_ways() {
        for content in [
            vec![],
            noise(5),
            noise(BLOCK),
            noise(3 * BLOCK + 17),
            vec![7; 5 * BLOCK],
        ] {
            for level in [1, 6] {
                let file = member(
                    &[&content[..content.len() / 3], &content[content.len() / 3..]],
                    level,
                );
                assert_eq!(inflated(&file).unwrap(), content);
                let mut out = vec![0; content.len()];
                assert!(inflate_exact(&file, &mut out));
                assert_eq!(out, content);
            }
        }
    }

    #[test]
    fn one_thread_and_eight_write_the_same_bytes() {
        let content = noise(9 * BLOCK);
        let with = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
            pool.unwrap().install(|| member(&[&content], 1))
        };
        assert_eq!(with(1), with(8));
    }

    #[test]
    fn members_are_read_in_turn_and_padding_is_left_alone() {
        let mut file = member(&[b"one "], 6);
        file.extend(member(&[b"two"], 1));
        file.extend([0; 512]);
        assert_eq!(inflated(&file).unwrap(), b"one two");
        assert!(!inflate_exact(&file, &mut [0; 7]));
    }

    #[test]
    fn a_wrong_crc_and_a_missing_end_are_errors() {
        let mut file = member(&[&noise(1000)], 6);
        assert!(inflated(&file[..file.len() - 9]).is_err());
        assert!(inflated(&file[..500]).is_err());
        let crc = file.len() - 6;
        file[crc] ^= 1;
        assert!(inflated(&file).is_err());
        assert!(!inflate_exact(&file, &mut [0; 1000]));
    }

    #[test]
    fn another_size_is_not_exact() {
        let file = member(&[&noise(1000)], 6);
        assert!(!inflate_exact(&file, &mut [0; 999]));
        assert!(!inflate_exact(&file, &mut [0; 1001]));
        assert!(!inflate_exact(&[0x1f], &mut [0; 1]));
    }
}
