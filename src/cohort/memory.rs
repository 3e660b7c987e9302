//! How many scans may be in memory at once.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::error::Result;

/// What the process takes without a scan: libraries and buffers of files.
const BASE: u64 = 200 << 20;

/// Bytes a worker needs whatever the scan: its networks, their activations, which ONNX Runtime keeps for
/// the next scan, and its own buffers. On twelve altered MR heads of 1 mm, where every network is used,
/// one worker took 1,046 MB in all, two 1,839 MB.
const PER_SCAN: u64 = 768 << 20;

/// Address space that a thread takes before its first scan: its stack, and what libraries keep for it.
const START: u64 = 20 << 20;

/// Refuses to begin where so many threads would have no room to start.
///
/// # Errors
/// Exit 75.
pub(super) fn check_start(threads: usize) -> Result<()> {
    crate::memory::check_address_space(threads as u64 * START, "starting the work")
}

/// Bytes that may be in use at once, handed out to scans in the order in which they ask.
pub(super) struct Memory {
    limit: u64,
    free: Mutex<u64>,
    freed: Condvar,
    turn: Mutex<()>,
}

/// Memory that is given back when this goes.
pub(super) struct Taken<'a> {
    memory: &'a Memory,
    bytes: u64,
}

impl Memory {
    /// With so many bytes; what the process itself needs is taken off.
    pub(super) fn new(bytes: u64) -> Self {
        let limit = bytes.saturating_sub(BASE);
        Self {
            limit,
            free: Mutex::new(limit),
            freed: Condvar::new(),
            turn: Mutex::new(()),
        }
    }

    /// What one scan may need at most.
    pub(super) fn limit(&self) -> u64 {
        self.limit
    }

    /// Waits until so many bytes are free; more than the limit is never.
    pub(super) fn take(&self, bytes: u64) -> Taken<'_> {
        let _turn = lock(&self.turn);
        let mut free = lock(&self.free);
        while *free < bytes.min(self.limit) {
            free = self
                .freed
                .wait(free)
                .unwrap_or_else(PoisonError::into_inner);
        }
        let bytes = bytes.min(self.limit);
        *free -= bytes;
        Taken {
            memory: self,
            bytes,
        }
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        *lock(&self.memory.free) += self.bytes;
        self.memory.freed.notify_all();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Bytes that the chain needs for a scan: the image as stored and turned (`image_bytes` each), up to
/// six masks' worth of bytes for masks, runs and pieces, and the network.
pub(super) fn needed(image_bytes: usize, voxels: usize, self_check: bool) -> u64 {
    let cells = if self_check { 2 } else { 1 };
    2 * image_bytes as u64 + 6 * voxels as u64 + cells * PER_SCAN
}

/// Four fifths of the memory that is free.
pub(super) fn available() -> u64 {
    crate::memory::free().map_or(4 << 30, |bytes| bytes / 5 * 4)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    #[test]
    fn what_is_taken_at_once_stays_within_the_limit() {
        let memory = Memory::new(BASE + 100);
        let (now, most) = (AtomicU64::new(0), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for bytes in [60, 30, 50, 100, 10, 40, 70, 20] {
                let (memory, now, most) = (&memory, &now, &most);
                scope.spawn(move || {
                    let taken = memory.take(bytes);
                    let used = now.fetch_add(bytes, Ordering::SeqCst) + bytes;
                    most.fetch_max(used, Ordering::SeqCst);
                    std::thread::yield_now();
                    now.fetch_sub(bytes, Ordering::SeqCst);
                    drop(taken);
                });
            }
        });
        assert!(most.load(Ordering::SeqCst) <= 100);
        assert_eq!(*lock(&memory.free), 100);
    }
}
