//! SHA-256 of files, on descriptors.

use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

const PIECE: usize = 16 * 1024;

/// Opens a file to read it, without waiting for the writer of a named pipe.
pub(crate) fn open_file(path: &Path) -> Result<File, Errno> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    open(path, flags, Mode::empty()).map(File::from)
}

/// The digest of the whole file, whatever its position is.
pub(crate) fn digest(file: &File) -> Result<[u8; 32], Errno> {
    if !file.metadata().map_err(errno)?.is_file() {
        return Err(Errno::INVAL);
    }
    let mut hasher = Sha256::new();
    let mut piece = vec![0; PIECE];
    let mut offset = 0;
    loop {
        match file.read_at(&mut piece, offset) {
            Ok(0) => return Ok(hasher.finalize().into()),
            Ok(count) => {
                hasher.update(&piece[..count]);
                offset += count as u64;
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => (),
            Err(error) => return Err(errno(error)),
        }
    }
}

/// What the kernel said; EINVAL where the standard library refused before asking it.
pub(crate) fn errno(error: std::io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or(Errno::INVAL)
}
