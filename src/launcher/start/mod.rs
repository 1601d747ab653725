//! One start of the plugin: find the program, verify digests, make the directory, execute.

use crate::checksum::{self, errno};
use crate::interpreter;
use patchbay_launcher::control::{Refusal, Start};
use rustix::fd::{AsRawFd, OwnedFd};
use rustix::fs::{Access, access};
use rustix::io::{Errno, FdFlags, fcntl_setfd, ioctl_fionbio};
use rustix::process::Pid;
use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A process that was just started.
pub(crate) struct Started {
    pub(crate) pid: Pid,
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: OwnedFd,
    pub(crate) directory: PathBuf,
}

/// Where PATH is not set.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// What a host tells its plugin; an inherited one would be somebody else's.
const HOST_VARIABLES: &[u8] = b"PLUGIN_";

/// Starts `command`, or says why not. Nothing is left behind then.
pub(crate) fn start(
    order: &Start,
    command: &OsStr,
    arguments: &[OsString],
    run: &Path,
) -> Result<Started, Refusal> {
    let env = environment(order);
    let program = find(command, &env)?;
    let verified = verify(order, &program)?;
    let directory = make_directory(order, run)?;
    execute(&program, verified, command, arguments, env)
        .map(|(pid, stdout, stderr)| Started {
            pid,
            stdout,
            stderr,
            directory: directory.clone(),
        })
        .inspect_err(|_| {
            let _ = fs::remove_dir(&directory);
        })
}

fn environment(order: &Start) -> Vec<(OsString, OsString)> {
    let inherited = std::env::vars_os().filter(|(key, _)| {
        order.keep_host_variables || !key.as_bytes().starts_with(HOST_VARIABLES)
    });
    layers(&order.defaults, inherited, &order.env)
}

/// A later one of the same name wins.
fn layers(
    defaults: &[(Vec<u8>, Vec<u8>)],
    inherited: impl Iterator<Item = (OsString, OsString)>,
    ordered: &[(Vec<u8>, Vec<u8>)],
) -> Vec<(OsString, OsString)> {
    fn owned(env: &[(Vec<u8>, Vec<u8>)]) -> impl Iterator<Item = (OsString, OsString)> {
        env.iter().map(|(key, value)| {
            (
                OsStr::from_bytes(key).to_os_string(),
                OsStr::from_bytes(value).to_os_string(),
            )
        })
    }
    owned(defaults)
        .chain(inherited)
        .chain(owned(ordered))
        .collect()
}

/// Searches along the plugin's PATH, as a shell would, unless the command holds a slash.
fn find(command: &OsStr, env: &[(OsString, OsString)]) -> Result<PathBuf, Refusal> {
    if command.as_bytes().contains(&b'/') {
        return Ok(PathBuf::from(command));
    }
    let path = env
        .iter()
        .rev()
        .find(|(key, _)| key == "PATH")
        .map(|(_, value)| value.as_os_str());
    let mut reason = Errno::NOENT;
    for folder in std::env::split_paths(path.unwrap_or(OsStr::new(DEFAULT_PATH))) {
        let candidate = if folder.as_os_str().is_empty() {
            Path::new(".")
        } else {
            &folder
        };
        let candidate = candidate.join(command);
        if !candidate.is_file() {
            continue;
        }
        if access(&candidate, Access::EXEC_OK).is_ok() {
            return Ok(candidate);
        }
        reason = Errno::ACCESS;
    }
    Err(Refusal::Exec {
        path: command.as_bytes().to_vec(),
        errno: reason.raw_os_error(),
        missing_interpreter: None,
    })
}

/// Verifies every digest. When one is for the program itself, gives the descriptor that was
/// verified, so that exactly this file is executed, whatever its path means by then.
///
/// Other files are verified by path: that protects against a wrong file in the image, not against
/// somebody who replaces it a moment later.
fn verify(order: &Start, program: &Path) -> Result<Option<File>, Refusal> {
    if order.checksums.is_empty() {
        return Ok(None);
    }
    let opened = checksum::open_file(program);
    let mut is_verified = false;
    for (path, expected) in &order.checksums {
        let refused = |error: Errno| Refusal::ChecksumError {
            path: path.clone(),
            errno: error.raw_os_error(),
        };
        let file_path = Path::new(OsStr::from_bytes(path));
        let got = if is_same_path(file_path, program) {
            is_verified = true;
            match &opened {
                Ok(file) => checksum::digest(file).map_err(refused)?,
                Err(Errno::NOENT) => return Err(exec_refusal(program, Errno::NOENT)),
                Err(error) => return Err(refused(*error)),
            }
        } else {
            let file = checksum::open_file(file_path).map_err(refused)?;
            is_verified |= opened
                .as_ref()
                .is_ok_and(|program| is_same_file(program, &file));
            checksum::digest(&file).map_err(refused)?
        };
        if got != *expected {
            return Err(Refusal::ChecksumMismatch {
                path: path.clone(),
                got,
            });
        }
    }
    Ok(opened.ok().filter(|_| is_verified))
}

fn is_same_path(one: &Path, other: &Path) -> bool {
    one == other
        || matches!((one.canonicalize(), other.canonicalize()), (Ok(one), Ok(other)) if one == other)
}

fn is_same_file(one: &File, other: &File) -> bool {
    match (one.metadata(), other.metadata()) {
        (Ok(one), Ok(other)) => one.dev() == other.dev() && one.ino() == other.ino(),
        _ => false,
    }
}

/// Only directly inside the shared folder, so that nothing else can ever be removed.
fn make_directory(order: &Start, run: &Path) -> Result<PathBuf, Refusal> {
    let refused = |error: Errno| Refusal::Directory {
        path: order.directory.clone(),
        errno: error.raw_os_error(),
    };
    let directory = PathBuf::from(OsStr::from_bytes(&order.directory));
    if directory.parent() != Some(run) || directory.file_name().is_none() {
        return Err(refused(Errno::INVAL));
    }
    DirBuilder::new()
        .mode(0o700)
        .create(&directory)
        .map_err(|error| refused(errno(error)))?;
    Ok(directory)
}

type Process = (Pid, OwnedFd, OwnedFd);

fn execute(
    program: &Path,
    verified: Option<File>,
    command: &OsStr,
    arguments: &[OsString],
    env: Vec<(OsString, OsString)>,
) -> Result<Process, Refusal> {
    let refused = |error| exec_refusal(program, errno(error));
    let mut call = match &verified {
        // The link leads to the opened file itself and not to whatever has its name now. With
        // execveat the kernel would do the same; this way needs no code between fork and exec.
        Some(file) => {
            if interpreter::is_script(file) {
                // The interpreter opens the link again, after the exec.
                fcntl_setfd(file, FdFlags::empty()).map_err(|error| refused(error.into()))?;
            }
            Command::new(format!("/proc/self/fd/{}", file.as_raw_fd()))
        }
        // A name without any folder would be searched along PATH again.
        None if !program.as_os_str().as_bytes().contains(&b'/') => {
            Command::new(Path::new(".").join(program))
        }
        None => Command::new(program),
    };
    let mut child = call
        .arg0(command)
        .args(arguments)
        .env_clear()
        .envs(env)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .map_err(refused)?;
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    match (pid, child.stdout.take(), child.stderr.take()) {
        (Some(pid), Some(stdout), Some(stderr)) => {
            let (stdout, stderr) = (OwnedFd::from(stdout), OwnedFd::from(stderr));
            for pipe in [&stdout, &stderr] {
                // Cannot fail on a pipe; if it did, a read would only come when there is data.
                let _ = ioctl_fionbio(pipe, true);
            }
            Ok((pid, stdout, stderr))
        }
        _ => Err(exec_refusal(program, Errno::INVAL)),
    }
}

fn exec_refusal(program: &Path, error: Errno) -> Refusal {
    let missing = if error == Errno::NOENT {
        interpreter::missing(program)
    } else {
        None
    };
    Refusal::Exec {
        path: program.as_os_str().as_bytes().to_vec(),
        errno: error.raw_os_error(),
        missing_interpreter: missing.map(|path| path.into_os_string().as_bytes().to_vec()),
    }
}

/// Removes what starts of an earlier launcher left behind: with it, their processes are gone.
pub(crate) fn remove_stale_directories(run: &Path) {
    let Ok(entries) = fs::read_dir(run) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let is_start_id =
            name.as_bytes().len() == 16 && name.as_bytes().iter().all(u8::is_ascii_hexdigit);
        if is_start_id && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
