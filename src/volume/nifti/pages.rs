//! Memory for the voxels of a scan, and its pages.

use bytemuck::Pod;

use crate::memory;

/// Bytes that are asked for at a time, so that the pages needed first come first.
const PIECE: usize = 8 << 20;

/// `count` zeros, or `None` when memory does not suffice. No page of them exists yet.
pub(super) fn zeroed<T: Pod>(count: usize) -> Option<Vec<T>> {
    bytemuck::allocation::try_zeroed_vec(count).ok()
}

/// Fills a large fresh buffer, and meanwhile lets another thread of the pool, if there is one, have
/// the kernel make its pages.
///
/// Otherwise the one thread that inflates a scan of 157 MB also pays for 38,000 page faults. Huge
/// pages would do as well, but cost more than they save where memory is fragmented.
pub(super) fn fill<R: Send>(buffer: &mut [u8], fill: impl FnOnce(&mut [u8]) -> R + Send) -> R {
    if buffer.len() < 2 * PIECE || rayon::current_num_threads() < 2 {
        return fill(buffer);
    }
    let pages = memory::Pages::of(buffer);
    rayon::join(|| fill(buffer), || pages.make(PIECE)).0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_filled_in_stays_while_pages_are_made() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build();
        let mut bytes: Vec<u8> = zeroed(5 * PIECE + 77).unwrap();
        let length = pool.unwrap().install(|| {
            fill(&mut bytes, |bytes| {
                let values = bytes.iter_mut().zip((0..=250).cycle());
                values.for_each(|(byte, value)| *byte = value);
                bytes.len()
            })
        });
        assert_eq!(length, bytes.len());
        assert!(bytes.iter().zip((0..=250).cycle()).all(|(&b, v)| b == v));
    }

    #[test]
    fn more_than_there_is_gives_nothing() {
        assert!(zeroed::<u64>(usize::MAX / 16).is_none());
    }
}
