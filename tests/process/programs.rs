//! Where the programs are that the tests start.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

static PYTHON: OnceLock<PathBuf> = OnceLock::new();

/// Looks for everything once, so that what is missing is said once.
pub fn prepare() -> Result<(), String> {
    for name in ["patchbay-launcher", "patchbay-sidecar"] {
        if !ours(name).exists() {
            return Err(format!(
                "{} is missing: run `make binaries`, or set PATCHBAY_BIN_DIR",
                ours(name).display()
            ));
        }
    }
    for name in [
        "echo-plugin",
        "kv-go",
        "kv-go-1.0",
        "echo-client",
        "stock-host",
    ] {
        if !fixture(name).exists() {
            return Err(format!(
                "{} is missing: run tests/plugins/build.sh",
                fixture(name).display()
            ));
        }
    }
    for (program, package) in [("python3", "python3"), ("unshare", "util-linux")] {
        if Command::new(program).arg("--version").output().is_err() {
            return Err(format!(
                "{program} is missing: run `apt-get install -y {package}`"
            ));
        }
    }
    let _ = PYTHON.set(python_packages()?);
    Ok(())
}

/// A program of ours.
pub fn ours(name: &str) -> PathBuf {
    let folder = match std::env::var_os("PATCHBAY_BIN_DIR") {
        Some(folder) => PathBuf::from(folder),
        None => {
            let this = std::env::current_exe().expect("the path of this program");
            // <profile>/deps/process-<hash>
            this.ancestors()
                .nth(2)
                .expect("a profile's folder")
                .to_owned()
        }
    };
    folder.join(name)
}

/// Whether they were built with the release profile; others are larger.
pub fn are_optimized() -> bool {
    ours("patchbay-sidecar")
        .parent()
        .is_some_and(|folder| folder.ends_with("release"))
}

/// A program that `tests/plugins/build.sh` makes.
pub fn fixture(name: &str) -> PathBuf {
    cache().join("plugins-bin").join(name)
}

/// A file of the repository.
pub fn source(path: &str) -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().expect("the repository").join(path)
}

/// What the Python plugins import, for PYTHONPATH.
pub fn python_path() -> &'static Path {
    PYTHON.get().expect("prepared")
}

fn cache() -> PathBuf {
    let folder = |name| std::env::var_os(name).map(PathBuf::from);
    folder("CACHE").unwrap_or_else(|| {
        folder("XDG_CACHE_HOME")
            .or_else(|| folder("HOME").map(|home| home.join(".cache")))
            .unwrap_or_else(|| PathBuf::from("/tmp"))
            .join("patchbay")
    })
}

/// The example's pinned packages for the Python of this machine, installed once into the cache.
fn python_packages() -> Result<PathBuf, String> {
    let requirements = source("examples/python/requirements.txt");
    let pinned = std::fs::read(&requirements)
        .map_err(|error| format!("{}: {error}", requirements.display()))?;
    let version = Command::new("python3")
        .args(["-c", "import sys; print('%d.%d' % sys.version_info[:2])"])
        .output()
        .map_err(|error| format!("asking python3 for its version: {error}"))?;
    let version = String::from_utf8_lossy(&version.stdout).trim().to_owned();
    let key = pinned.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    });
    let folder = cache().join("python").join(format!("{version}-{key:016x}"));
    if folder.exists() {
        return Ok(folder);
    }
    let fresh = folder.with_extension(format!("new-{}", std::process::id()));
    println!(
        "process tier: installing the Python packages of {}",
        requirements.display()
    );
    let status = Command::new("python3")
        .args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--only-binary=:all:",
        ])
        .args([
            "--disable-pip-version-check",
            "--root-user-action=ignore",
            "--target",
        ])
        .arg(&fresh)
        .arg("--requirement")
        .arg(&requirements)
        .status()
        .map_err(|error| format!("running python3 -m pip: {error}"))?;
    if !status.success() {
        let _ = std::fs::remove_dir_all(&fresh);
        return Err(format!(
            "installing the packages of {} failed; pip is the Debian package python3-pip",
            requirements.display()
        ));
    }
    // Another run may have been quicker.
    if std::fs::rename(&fresh, &folder).is_err() {
        let _ = std::fs::remove_dir_all(&fresh);
    }
    Ok(folder)
}
