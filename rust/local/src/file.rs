//! Files: positioned reads, the identity of a version of a file, and a bounded set of open ones.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, ErrorKind as Io};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use voxfetch_core::chunk_cache::StoredVersion;
use voxfetch_core::error::{Error, ErrorKind, Result};
use voxfetch_core::metadata::TableVersion;
use voxfetch_core::subset::ByteRange;

/// One version of a file: replaced or rewritten, it is another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FileId {
    device: u64,
    inode: u64,
    /// Bytes of the file.
    pub nbytes: u64,
    modified_ns: i128,
}

impl FileId {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            nbytes: metadata.size(),
            modified_ns: i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec()),
        }
    }

    /// Whether a table of chunks is of this version of the file, as far as it says.
    #[must_use]
    pub fn is(&self, version: &TableVersion) -> bool {
        let Self { device, inode, nbytes, modified_ns } = *self;
        match version {
            TableVersion::File { .. } => *version == TableVersion::File { device, inode, nbytes, modified_ns },
            TableVersion::Object { total, .. } => total.is_none_or(|total| total == nbytes),
        }
    }

    /// The name under which decoded chunks are kept of it. None while the file was written so lately that its next version
    /// may get the same size, time and, after a rename, number: what it holds would stand for that version.
    #[must_use]
    pub fn lasting(&self) -> Option<StoredVersion> {
        let Self { device, inode, nbytes, modified_ns } = *self;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).ok()?;
        let age_ns = i128::try_from(now.as_nanos()).ok()?.checked_sub(modified_ns)?;
        (age_ns > CLOCK_STEP_NS).then_some(StoredVersion::File { device, inode, nbytes, modified_ns })
    }
}

/// An open file and the version it had when it was opened.
#[derive(Debug)]
pub struct OpenFile {
    file: File,
    /// The version.
    pub id: FileId,
}

impl OpenFile {
    /// Opens a file; None when there is none.
    ///
    /// # Errors
    /// What the system says; also for a link to nowhere and for what is no regular file.
    fn open(path: &Path) -> io::Result<Option<Self>> {
        let file = match OpenOptions::new().read(true).custom_flags(O_NONBLOCK).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == Io::NotFound => {
                return match dangling_link(path) {
                    None => Ok(None),
                    Some(link) => {
                        Err(io::Error::new(Io::NotFound, format!("the link {} leads nowhere", link.display())))
                    }
                };
            }
            Err(error) => return Err(error),
        };
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::other("is not a regular file"));
        }
        Ok(Some(Self { id: FileId::of(&metadata), file }))
    }

    /// Checks that the file lies below the folder `inside`, a path without links, whatever links led to it.
    ///
    /// # Errors
    /// `PermissionDenied` when it does not, or when that cannot be found out.
    pub fn check_inside(&self, path: &Path, inside: &Path) -> Result<()> {
        // Of what is open, so that nobody can put a link in place of it meanwhile; elsewhere than on Linux of the path.
        let real =
            std::fs::read_link(format!("/proc/self/fd/{}", self.file.as_raw_fd())).or_else(|_| path.canonicalize());
        match real {
            Ok(real) if real.starts_with(inside) => Ok(()),
            _ => {
                Err(ErrorKind::PermissionDenied { what: "a link leads out of the folder that was opened".into() }
                    .into())
            }
        }
    }

    /// Reads `range` into `body`, which becomes exactly that long. False when the file changed since it was opened.
    ///
    /// # Errors
    /// `Limit` when memory cannot be had, `Store` when the file cannot be read.
    pub fn read(&self, range: ByteRange, body: &mut Vec<u8>) -> Result<bool> {
        let nbytes = usize::try_from(range.len()).map_err(|_| Error::internal("range beyond the address space"))?;
        if body.len() < nbytes {
            body.try_reserve_exact(nbytes - body.len())
                .map_err(|_| Error::limit("memory for a request", range.len(), body.len() as u64))?;
            body.resize(nbytes, 0);
        }
        body.truncate(nbytes);
        let complete = match self.file.read_exact_at(body, range.start) {
            Ok(()) => true,
            Err(error) if error.kind() == Io::UnexpectedEof => false,
            Err(error) => return Err(store_error(&error)),
        };
        let now = FileId::of(&self.file.metadata().map_err(|error| store_error(&error))?);
        if now != self.id {
            return Ok(false);
        }
        if complete {
            return Ok(true);
        }
        Err(ErrorKind::Store { what: format!("the file ended before byte {}", range.end) }.into())
    }
}

/// The link that keeps `path` from being found, if that is the reason: data behind it is not mounted or not fetched,
/// which is not the same as data that was never stored.
fn dangling_link(path: &Path) -> Option<&Path> {
    let nearest = path.ancestors().find(|part| part.symlink_metadata().is_ok())?;
    matches!(nearest.metadata(), Err(error) if error.kind() == Io::NotFound).then_some(nearest)
}

/// The error of a failed operation on a file.
#[must_use]
pub fn store_error(error: &io::Error) -> Error {
    match error.kind() {
        Io::NotFound if error.raw_os_error().is_none() => ErrorKind::NotFound { what: error.to_string() }.into(),
        Io::NotFound => ErrorKind::NotFound { what: "no such file".into() }.into(),
        Io::PermissionDenied => ErrorKind::PermissionDenied { what: "permission denied".into() }.into(),
        _ => ErrorKind::Store { what: error.to_string() }.into(),
    }
}

/// True when a file or folder is there.
///
/// # Errors
/// `PermissionDenied` or `Store` when that cannot be found out.
pub fn exists(path: &Path) -> Result<bool> {
    match std::fs::metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == Io::NotFound => Ok(false),
        Err(error) => Err(store_error(&error)),
    }
}

/// Open files kept for later reads, at most `limit`, least recently used closed first.
#[derive(Debug)]
pub struct Files {
    limit: usize,
    open: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    /// By path, not taken apart into names as a `Path` is where it is a key.
    files: HashMap<OsString, (Arc<OpenFile>, u64)>,
    clock: u64,
}

impl Files {
    /// Keeps at most `limit` files open.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { limit, open: Mutex::default() }
    }

    /// Number of files kept open.
    #[must_use]
    pub fn count(&self) -> usize {
        self.kept(|kept| kept.files.len())
    }

    /// Opens a file for one use.
    ///
    /// # Errors
    /// As [`Files::get`].
    pub fn open(&self, path: &Path) -> Result<Option<OpenFile>> {
        let mut result = OpenFile::open(path);
        for _ in 0..MAX_TRIES {
            match &result {
                // Out of descriptors: give ours back and try again. Another thread may have taken them meanwhile.
                Err(error) if matches!(error.raw_os_error(), Some(EMFILE | ENFILE)) && self.clear() => {
                    result = OpenFile::open(path);
                }
                _ => break,
            }
        }
        result.map_err(|error| store_error(&error))
    }

    /// The current version of a file, from those kept open if it still is that; None when there is no such file. With
    /// `immutable` a kept file is taken without looking at its path again.
    ///
    /// # Errors
    /// `PermissionDenied` or `Store`.
    pub fn get(&self, path: &Path, immutable: bool) -> Result<Option<Arc<OpenFile>>> {
        let known = self.kept(|kept| {
            kept.clock += 1;
            let clock = kept.clock;
            kept.files.get_mut(path.as_os_str()).map(|(file, age)| {
                *age = clock;
                Arc::clone(file)
            })
        });
        if let Some(file) = known {
            if immutable {
                return Ok(Some(file));
            }
            match std::fs::metadata(path) {
                Ok(metadata) if FileId::of(&metadata) == file.id => return Ok(Some(file)),
                // Another file now, or none: what it is shows when it is opened.
                _ => self.forget(path),
            }
        }
        let Some(file) = self.open(path)? else { return Ok(None) };
        let file = Arc::new(file);
        self.kept(|kept| {
            if kept.files.len() >= self.limit
                && let Some(oldest) = kept.files.iter().min_by_key(|(_, (_, age))| *age).map(|(path, _)| path.clone())
            {
                kept.files.remove(&oldest);
            }
            if self.limit > 0 {
                kept.files.insert(path.into(), (Arc::clone(&file), kept.clock));
            }
        });
        Ok(Some(file))
    }

    /// Closes a file that is kept open.
    pub fn forget(&self, path: &Path) {
        self.kept(|kept| kept.files.remove(path.as_os_str()));
    }

    /// Closes all files that are kept open; true when there were any.
    pub fn clear(&self) -> bool {
        self.kept(|kept| !std::mem::take(&mut kept.files).is_empty())
    }

    fn kept<T>(&self, f: impl FnOnce(&mut Kept) -> T) -> T {
        f(&mut self.open.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// No file system in use counts the time of a change in larger steps (FAT: 2 s; a few ms on Linux).
const CLOCK_STEP_NS: i128 = 2_000_000_000;
/// Opening a named pipe waits for a writer without it; regular files do not care.
const O_NONBLOCK: i32 = if cfg!(target_os = "linux") { 0o4000 } else { 0x4 };
const ENFILE: i32 = 23;
const EMFILE: i32 = 24;
/// Times that a file is opened again after others were closed for it.
const MAX_TRIES: usize = 16;
