//! Every way in which a process ends but by returning from `main`: a panic, a signal, no memory, an
//! input that vanishes while it is read. Each says why in one line, leaves no draft behind, and ends with
//! the exit code, or the signal, that stands for it.

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use signal_hook::consts::{SIGABRT, SIGBUS, SIGHUP, SIGINT, SIGTERM};
use signal_hook::low_level;

use crate::error::{Error, Result};
use crate::file::drafts;

/// Sets up all of them. A `cohort` ends on a signal by itself, after the scans that it is at.
///
/// # Errors
/// Exit 75 when the system refuses a signal handler or a thread.
pub(super) fn handle(cohort: bool) -> Result<()> {
    exit_70_on_panic();
    exit_75_without_memory()
        .and_then(|()| exit_66_without_input())
        .and_then(|()| if cohort { Ok(()) } else { tidy_on_signals() })
        .map_err(|e| Error::TryAgain(format!("signals cannot be handled: {e}")))
}

/// A panic is a fault of ours: one line that asks for a report, and exit code 70. But the standard
/// library also panics where the system refuses it a stack; that is no fault.
fn exit_70_on_panic() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map_or_else(String::new, |location| {
            // The file's name alone: a folder of the machine that built this says nothing.
            let file = location.file().rsplit('/').next().unwrap_or_default();
            format!(" at {file}:{}", location.line())
        });
        let message = panic.payload_as_str().unwrap_or("unknown");
        // ENOMEM and EAGAIN, in both of the standard library's ways to write them.
        if [
            "(os error 12)",
            "(os error 11)",
            "Os { code: 12,",
            "Os { code: 11,",
        ]
        .iter()
        .any(|code| message.contains(code))
        {
            end(75, format_args!("not enough memory or threads: {message}"));
        }
        let why = format_args!("{message}{place}; this is a bug in voxmask, please report it");
        end(70, why);
    }));
}

/// The thread that ends the process, by the address of its [`HERE`]; 0 as long as none does.
static ENDING: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static HERE: u8 = const { 0 };
}

/// True for the first thread that comes here; false when it comes here again, since ending met a fault
/// too. Any other thread waits for the end.
fn is_first() -> bool {
    let here = HERE.with(|here| std::ptr::from_ref(here).addr());
    let ending = ENDING.compare_exchange(0, here, Ordering::SeqCst, Ordering::SeqCst);
    if ending.is_err_and(|other| other != here) {
        wait();
    }
    ending.is_ok()
}

fn wait() -> ! {
    loop {
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// Waits for the end if another thread is ending the process: what goes wrong after its drafts were
/// taken from under it is no news.
pub(super) fn give_way() {
    if ENDING.load(Ordering::SeqCst) != 0 {
        wait();
    }
}

/// The same where this thread says why: from now on the others wait for it, so that one line says why.
pub(super) fn claim() {
    is_first();
}

fn end(code: i32, why: std::fmt::Arguments) -> ! {
    if is_first() {
        let _ = writeln!(std::io::stderr(), "error: {why}");
        remove_drafts();
    }
    low_level::exit(code);
}

fn remove_drafts() {
    // Room to look into folders in, however little is left.
    if let Ok(mut ballast) = BALLAST.try_lock() {
        *ballast = Vec::new();
    }
    drafts::remove_all();
}

/// Memory that is given back when there is none left.
static BALLAST: Mutex<Vec<u8>> = Mutex::new(Vec::new());

/// Ends as if nobody had listened, but without a draft. What the parent told this process to ignore, as
/// `nohup` does, stays ignored.
fn tidy_on_signals() -> std::io::Result<()> {
    let (told, tells) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    let tells = std::sync::Arc::new(tells);
    let ignored = ignored_signals();
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        if ignored & (1 << (signal - 1)) != 0 {
            continue;
        }
        let tells = std::sync::Arc::clone(&tells);
        let tell = move || {
            let _ = rustix::io::write(&*tells, &[signal.unsigned_abs() as u8]);
        };
        // SAFETY: the handler makes one system call and touches nothing else.
        unsafe { low_level::register(signal, tell) }?;
    }
    let wait = move || {
        let mut signal = [0];
        if let Ok(1) = rustix::io::read(&told, &mut signal)
            && is_first()
        {
            remove_drafts();
            let _ = low_level::emulate_default_handler(signal[0].into());
        }
    };
    std::thread::Builder::new().spawn(wait).map(drop)
}

/// Bit n - 1 for signal n. Without `/proc`: none.
fn ignored_signals() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    line.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok())
        .unwrap_or(0)
}

/// Rust aborts when memory runs out; here that is worth another try.
fn exit_75_without_memory() -> std::io::Result<()> {
    *BALLAST.lock().unwrap_or_else(PoisonError::into_inner) = Vec::with_capacity(1 << 20);
    let stop = || {
        let refused = REFUSED.load(Ordering::SeqCst);
        let more = "give it more, or fewer --threads";
        if refused > 0 {
            end(
                75,
                format_args!("not enough memory: {refused} bytes more were needed; {more}"),
            );
        }
        // The C library aborts too where it is refused memory, as for what a new thread leaves behind.
        if !memory_is_left() {
            end(75, format_args!("not enough memory; {more}"));
        }
        // Else it is an abort for another reason: returning ends the process.
    };
    // SAFETY: an abort comes out of the thread that it stops, which at that moment neither allocates
    // nor holds a lock that the handler takes; the process does not go on after it.
    unsafe { low_level::register(SIGABRT, stop) }.map(drop)
}

/// Whether the system would still give this process as much as its allocator asks for at least.
fn memory_is_left() -> bool {
    use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

    const BYTES: usize = 4 << 20;
    let (access, private) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE);
    // SAFETY: new memory at a place of the system's choice, which nobody else knows of.
    let found = unsafe { mmap_anonymous(std::ptr::null_mut(), BYTES, access, private) };
    // SAFETY: exactly that memory, to which nothing points.
    found.is_ok_and(|memory| unsafe { munmap(memory, BYTES) }.is_ok())
}

/// A mapped file that was shortened, or that a disk does not give back, is a signal instead of an error.
fn exit_66_without_input() -> std::io::Result<()> {
    let stop = || {
        let why =
            "an input cannot be read to its end: it was shortened meanwhile, or its disk fails";
        end(66, format_args!("{why}"));
    };
    // SAFETY: the signal comes out of a read of mapped bytes, where this thread neither allocates nor
    // holds a lock that the handler takes; the process does not go on after it.
    unsafe { low_level::register(SIGBUS, stop) }.map(drop)
}

/// Bytes that the system refused last; 0 as long as it refused nothing.
static REFUSED: AtomicUsize = AtomicUsize::new(0);

/// The system's allocator, with a note of what it refused.
struct Noting;

#[global_allocator]
static ALLOCATOR: Noting = Noting;

fn noted(memory: *mut u8, bytes: usize) -> *mut u8 {
    if memory.is_null() {
        REFUSED.store(bytes, Ordering::SeqCst);
    }
    memory
}

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Noting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as the caller's.
        noted(unsafe { System.alloc(layout) }, layout.size())
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as the caller's.
        noted(unsafe { System.alloc_zeroed(layout) }, layout.size())
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as the caller's.
        noted(unsafe { System.realloc(memory, layout, size) }, size)
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as the caller's.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_that_the_parent_ignores_are_read_as_bits() {
        // Rust itself ignores SIGPIPE (13).
        assert_ne!(ignored_signals() & (1 << 12), 0);
        assert_eq!(ignored_signals() & (1 << (SIGTERM - 1)), 0);
    }
}
