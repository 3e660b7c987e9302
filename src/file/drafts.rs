//! Drafts: hidden siblings of what they will become, under names that say so.
//!
//! A draft goes away with what made it: when it is dropped, or through [`remove_all`] where a process ends
//! without unwinding, after which no other is made. After SIGKILL it stays, and [`remove_abandoned`] takes
//! it away at the next run: a living draft is locked, and the kernel unlocks it with the end of its process.

use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError, TryLockError};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use tempfile::{Builder, NamedTempFile, TempDir};

use super::folder_of;

const PREFIX: &str = ".voxmask-";
const SUFFIX: &str = ".part";

/// Drafts of this process that have a name; `None` once they were removed because it is ending.
static LIVING: Mutex<Option<Vec<PathBuf>>> = Mutex::new(Some(Vec::new()));

/// True for the name of a draft.
pub fn is_draft(name: &str) -> bool {
    name.starts_with(PREFIX) && name.ends_with(SUFFIX)
}

/// A draft that is removed with this, unless it got another name before.
pub(super) struct Draft<T> {
    pub(super) made: T,
    /// Holds the lock; `None` where the file system has none.
    _lock: Option<File>,
    _listed: Listed,
}

/// A path in the list of living drafts, as long as this lives.
struct Listed(PathBuf);

impl Listed {
    /// Lists what `make` makes before anybody else can look: a signal in between would leave it behind.
    fn made<T>(
        make: impl FnOnce() -> io::Result<T>,
        path: fn(&T) -> &Path,
    ) -> io::Result<(T, Self)> {
        let mut living = living();
        let paths = living.as_mut().ok_or_else(ending)?;
        let made = make()?;
        paths.push(path(&made).to_owned());
        let listed = Self(path(&made).to_owned());
        Ok((made, listed))
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        if let Some(paths) = &mut *living() {
            paths.retain(|path| *path != self.0);
        }
    }
}

fn living() -> std::sync::MutexGuard<'static, Option<Vec<PathBuf>>> {
    LIVING.lock().unwrap_or_else(PoisonError::into_inner)
}

fn ending() -> io::Error {
    io::Error::other("the process is ending")
}

impl<T> Draft<T> {
    /// Takes a lock on what `make` made; whoever removes abandoned drafts may have been faster, then
    /// once more.
    fn locked(make: impl Fn() -> io::Result<T>, path: fn(&T) -> &Path) -> io::Result<Self> {
        loop {
            let (made, listed) = Listed::made(&make, path)?;
            let lock = match File::open(path(&made)) {
                Ok(file) => file,
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                Err(e) => return Err(e),
            };
            let lock = match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => Some(lock),
                Err(e) if e == rustix::io::Errno::WOULDBLOCK => continue,
                Err(_) => None,
            };
            if path(&made).exists() {
                return Ok(Self {
                    made,
                    _lock: lock,
                    _listed: listed,
                });
            }
        }
    }
}

fn builder() -> Builder<'static, 'static> {
    let mut builder = Builder::new();
    builder.prefix(PREFIX).suffix(SUFFIX);
    builder
}

/// Runs `put`, which gives a draft its final name, while nobody removes drafts: a folder that
/// [`remove_all`] has half emptied must not appear under that name.
///
/// # Errors
/// What `put` comes back with; or the process is ending, and the draft is gone.
pub(super) fn publish(draft: &Path, put: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    let living = living();
    let paths = living.as_deref().unwrap_or_default();
    if !paths.iter().any(|path| path == draft) {
        return Err(ending());
    }
    put()
}

/// A new file in a folder, with a mode before the umask acts.
pub(super) fn file(folder: &Path, mode: u32) -> io::Result<Draft<NamedTempFile>> {
    let permissions = Permissions::from_mode(mode);
    let make = || {
        builder()
            .permissions(permissions.clone())
            .tempfile_in(folder)
    };
    Draft::locked(make, NamedTempFile::path)
}

/// A new folder in a folder, with a mode before the umask acts.
pub(super) fn folder(folder: &Path, mode: u32) -> io::Result<Draft<TempDir>> {
    let permissions = Permissions::from_mode(mode);
    let make = || {
        builder()
            .permissions(permissions.clone())
            .tempdir_in(folder)
    };
    Draft::locked(make, TempDir::path)
}

/// Gives `path` to what `link` gives a name to, in the place of what has it: a link replaces nothing, a
/// rename does, so that it bears a draft's name for a moment.
pub(super) fn rename_over(
    path: &Path,
    link: impl FnMut(&Path) -> io::Result<()>,
) -> io::Result<()> {
    let make = || builder().make_in(folder_of(path), link);
    let (made, _listed) = Listed::made(make, |made| made.path())?;
    made.into_temp_path().persist(path).map_err(|e| e.error)
}

/// Removes every named draft of this process, for ends without unwinding. If the list stays in use, which
/// is when the thread that ends has it itself, nothing is done.
pub fn remove_all() {
    for _ in 0..TRIES {
        let mut living = match LIVING.try_lock() {
            Ok(living) => living,
            Err(TryLockError::Poisoned(living)) => living.into_inner(),
            Err(TryLockError::WouldBlock) => {
                std::thread::sleep(PAUSE);
                continue;
            }
        };
        // The list stays in use meanwhile: what would become an output waits.
        let paths = living.take().unwrap_or_default();
        paths.iter().for_each(|path| remove_busy(path));
        return;
    }
}

/// Removes a draft that other threads may still be writing into.
fn remove_busy(path: &Path) {
    for _ in 0..TRIES {
        if remove(path).is_ok() || !path.exists() {
            return;
        }
        std::thread::sleep(PAUSE);
    }
}

/// Five seconds in all: a busy disk may take one to make a folder, whose maker has the list meanwhile.
const TRIES: usize = 2500;
const PAUSE: Duration = Duration::from_millis(2);

/// Removes drafts in a folder that no process is writing any more. What cannot be told or removed stays.
pub fn remove_abandoned(folder: &Path) {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return;
    };
    for entry in entries.flatten() {
        if !entry.file_name().to_str().is_some_and(is_draft) {
            continue;
        }
        // A link is no draft.
        let kept = entry.file_type().is_ok_and(|kind| kind.is_symlink());
        let Some(file) = File::open(entry.path()).ok().filter(|_| !kept) else {
            continue;
        };
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
            let _ = remove(&entry.path());
        }
    }
}

/// Removes a draft, file or folder.
///
/// # Errors
/// What the system says.
pub fn remove(path: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(path)?.is_dir() {
        true => std::fs::remove_dir_all(path),
        false => std::fs::remove_file(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(folder: &Path) -> usize {
        std::fs::read_dir(folder).unwrap().count()
    }

    #[test]
    fn only_drafts_that_nobody_holds_are_abandoned() {
        let base = tempfile::tempdir().unwrap();
        let held = folder(base.path(), 0o777).unwrap();
        let file = file(base.path(), 0o666).unwrap();
        std::fs::create_dir(base.path().join(".voxmask-x.part")).unwrap();
        std::fs::write(base.path().join(".voxmask-x.part/half"), "1").unwrap();
        std::fs::write(base.path().join(".voxmask-y.part"), "2").unwrap();
        std::fs::write(base.path().join(".voxmask-notes"), "3").unwrap();
        let away = tempfile::tempdir().unwrap();
        let link = base.path().join(".voxmask-z.part");
        std::os::unix::fs::symlink(away.path(), &link).unwrap();
        remove_abandoned(base.path());
        assert!(held.made.path().exists() && file.made.path().exists());
        assert!(link.is_symlink() && away.path().exists());
        assert_eq!(count(base.path()), 4);
        drop((held, file));
        assert_eq!(count(base.path()), 2);
    }

    #[test]
    fn a_draft_is_listed_as_long_as_it_lives() {
        let base = tempfile::tempdir().unwrap();
        let draft = folder(base.path(), 0o777).unwrap();
        let path = draft.made.path().to_owned();
        let is_listed = || living().as_ref().unwrap().contains(&path);
        assert!(is_listed());
        drop(draft);
        assert!(!is_listed() && !path.exists());
    }

    #[test]
    fn nobody_sees_the_list_while_a_draft_is_made() {
        let base = tempfile::tempdir().unwrap();
        let make = || {
            assert!(matches!(LIVING.try_lock(), Err(TryLockError::WouldBlock)));
            builder().tempfile_in(base.path())
        };
        let (made, listed) = Listed::made(make, NamedTempFile::path).unwrap();
        assert!(living().as_ref().unwrap().contains(&listed.0));
        assert_eq!(made.path(), listed.0);
    }

    #[test]
    fn a_draft_that_is_being_removed_gets_no_final_name() {
        let base = tempfile::tempdir().unwrap();
        let draft = folder(base.path(), 0o777).unwrap();
        let path = draft.made.path();
        let name = base.path().join("name");
        let put = || std::fs::rename(path, &name);
        // As `remove_all` does, which would also take what other tests have.
        let listed = |list: &dyn Fn(&mut Vec<PathBuf>)| list(living().as_mut().unwrap());
        listed(&|paths| paths.retain(|other| other != path));
        let refused = publish(path, put).unwrap_err();
        assert!(refused.to_string().contains("ending"), "{refused}");
        assert!(path.exists() && !name.exists());
        listed(&|paths| paths.push(path.to_owned()));
        publish(path, put).unwrap();
        assert!(name.exists());
    }
}
