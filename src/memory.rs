//! Whether memory suffices, asked before it is taken, and how its pages are made.
//!
//! Linux hands out more memory than there is and kills whoever uses it. What a file, a card or a flag
//! asks for is therefore compared with what is free first.

use std::path::Path;

use rustix::mm::{Advice, madvise};

use crate::error::{Error, Result};

/// Less than this is never worth the question [bytes].
const SMALL: f64 = 64e6;

/// Tells the C library to keep memory for what comes next: a scan goes through buffers of megabytes, one after
/// the other. By itself it gives each back to the kernel, which has to fill the next one with zeros page by page,
/// and lets each thread grow a heap of its own by a call of the kernel for every buffer. Where the library is not
/// GNU's, nothing is done.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub fn keep_pages() {
    /// Larger buffers are mapped for themselves, and given back at once [bytes].
    const MAPPED_FROM: i32 = 32 << 20;
    /// More than this is given back where it is free at the heap's end [bytes].
    const KEPT: i32 = 128 << 20;
    /// What the heap grows by beside what is asked for [bytes].
    const GROWN_BY: i32 = 16 << 20;
    for (which, value) in [
        (libc::M_ARENA_MAX, 1),
        (libc::M_MMAP_THRESHOLD, MAPPED_FROM),
        (libc::M_TRIM_THRESHOLD, KEPT),
        (libc::M_TOP_PAD, GROWN_BY),
    ] {
        // SAFETY: sets a number, while there is one thread.
        unsafe { libc::mallopt(which, value) };
    }
}

/// Does nothing: the C library is not GNU's.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn keep_pages() {}

/// No page of a machine that this runs on is larger, or the kernel refuses, which does no harm.
const PAGE: usize = 1 << 16;

/// Whole pages of a buffer, by address: they are never read or written through it.
pub struct Pages {
    start: usize,
    end: usize,
}

impl Pages {
    /// Those of a buffer, but for what it has of a page at its ends.
    pub fn of<T>(buffer: &mut [T]) -> Self {
        let start = buffer.as_ptr().addr();
        Self {
            start: start.next_multiple_of(PAGE),
            end: (start + size_of_val(buffer)) / PAGE * PAGE,
        }
    }

    /// Has the kernel make them, so many bytes at a time (rounded up to whole pages), which costs less than the first write to each would; what
    /// they hold stays. Nothing happens where there is no such kernel, or no memory.
    pub fn make(&self, at_a_time: usize) {
        let at_a_time = at_a_time.max(1).next_multiple_of(PAGE);
        for at in (self.start..self.end).step_by(at_a_time) {
            let length = at_a_time.min(self.end - at);
            let address = std::ptr::without_provenance_mut(at);
            // SAFETY: at worst the range was given back meanwhile, and pages are made that nobody asked for, or an
            // error is; the kernel leaves what pages hold as it is.
            let done = unsafe { madvise(address, length, Advice::LinuxPopulateWrite) };
            // Kernels before 5.14 cannot; and without memory the writer will meet the same end.
            if done.is_err() {
                return;
            }
        }
    }
}

/// Refuses what does not fit into the memory that is free; `what` needs it.
///
/// # Errors
/// Exit 75.
pub fn check(bytes: f64, what: &str) -> Result<()> {
    lacking(bytes).map_or(Ok(()), |free| {
        Err(Error::TryAgain(format!(
            "not enough memory: {what} needs {:.0} MB, and {:.0} MB are free",
            bytes / 1e6,
            free as f64 / 1e6
        )))
    })
}

/// Whether so many bytes fit into the memory that is free, where that is known.
pub fn suffices(bytes: f64) -> bool {
    lacking(bytes).is_none()
}

/// What is free where it is less than `bytes`.
fn lacking(bytes: f64) -> Option<u64> {
    (bytes > SMALL)
        .then(free)
        .flatten()
        .filter(|&free| bytes > free as f64)
}

/// Voxels of a grid, also of one with more than can be counted in 64 bits.
pub fn voxels(shape: [usize; 3]) -> f64 {
    shape.iter().map(|&n| n as f64).product()
}

/// Refuses what the limit of the address space (`ulimit -v`) leaves no room for; `what` needs it. Where
/// address space is short, the C library ends a process as it likes, however much memory is free.
///
/// # Errors
/// Exit 75.
pub fn check_address_space(bytes: u64, what: &str) -> Result<()> {
    match address_space() {
        Some(left) if bytes > left => Err(Error::TryAgain(format!(
            "not enough memory: {what} needs {:.1} MB of address space, and {:.1} MB are left",
            bytes as f64 / 1e6,
            left as f64 / 1e6
        ))),
        _ => Ok(()),
    }
}

/// Bytes that are free, swap included, by the kernel's estimate and the control group's limit; `None`
/// where neither is known.
pub fn free() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let machine = meminfo(&text, "MemAvailable:");
    let machine = machine.map(|free| free + meminfo(&text, "SwapFree:").unwrap_or(0));
    let second = group("memory.max", "memory.current");
    let first = group(
        "memory/memory.limit_in_bytes",
        "memory/memory.usage_in_bytes",
    );
    machine.into_iter().chain(second).chain(first).min()
}

/// What the limit of the address space leaves; `None` without one.
fn address_space() -> Option<u64> {
    let limit = rustix::process::getrlimit(rustix::process::Resource::As).current?;
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    Some(limit.saturating_sub(meminfo(&text, "VmSize:")?))
}

/// What a control group leaves, seen from inside a container.
fn group(most: &str, used: &str) -> Option<u64> {
    let read = |name: &str| -> Option<u64> {
        let path = Path::new("/sys/fs/cgroup").join(name);
        std::fs::read_to_string(path).ok()?.trim().parse().ok()
    };
    Some(read(most)?.saturating_sub(read(used).unwrap_or(0)))
}

fn meminfo(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_estimate_is_in_kibibytes() {
        let text = "MemTotal:  24689876 kB\nMemFree: 1 kB\nMemAvailable:   22913264 kB\n";
        assert_eq!(meminfo(text, "MemAvailable:"), Some(22_913_264 << 10));
        assert_eq!(meminfo("MemTotal: 1 kB", "MemAvailable:"), None);
    }

    #[test]
    fn more_than_any_machine_has_is_refused() {
        assert!(check(1e6, "a scan").is_ok());
        let refused = check(voxels([usize::MAX; 3]), "a grid").unwrap_err();
        assert_eq!(refused.exit_code(), 75);
        assert!(refused.to_string().contains("a grid needs"), "{refused}");
    }
}
