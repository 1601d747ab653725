//! Why executing an existing file says "no such file": its interpreter or loader is absent.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// An interpreter may be a script itself; the kernel stops after a few, too.
const DEEPEST: usize = 5;
const PT_INTERP: u32 = 3;

/// The interpreter that `program` needs and that does not exist.
pub(crate) fn missing(program: &Path) -> Option<PathBuf> {
    let mut program = program.to_path_buf();
    for _ in 0..DEEPEST {
        let file = File::open(&program).ok()?;
        let interpreter = of_script(&file).or_else(|| of_elf(&file))?;
        if interpreter.metadata().is_err() {
            return Some(interpreter);
        }
        program = interpreter;
    }
    None
}

/// Whether the kernel hands the file to an interpreter by name.
pub(crate) fn is_script(file: &File) -> bool {
    let mut mark = [0; 2];
    file.read_exact_at(&mut mark, 0).is_ok() && &mark == b"#!"
}

fn of_script(file: &File) -> Option<PathBuf> {
    let mut head = [0; 256];
    let count = file.read_at(&mut head, 0).ok()?;
    let line = head[..count].strip_prefix(b"#!")?;
    let name = line.trim_ascii_start();
    let end = name
        .iter()
        .position(|byte| matches!(byte, b' ' | b'\t' | b'\n' | 0));
    let name = &name[..end.unwrap_or(name.len())];
    (!name.is_empty()).then(|| PathBuf::from(OsStr::from_bytes(name)))
}

fn of_elf(file: &File) -> Option<PathBuf> {
    let mut header = [0; 64];
    file.read_exact_at(&mut header, 0).ok()?;
    if &header[..4] != b"\x7fELF" {
        return None;
    }
    let numbers = Numbers {
        wide: header[4] == 2,
        little: header[5] != 2,
    };
    let (table, size, count) = if numbers.wide {
        (
            numbers.read(&header, 32, 8)?,
            numbers.read(&header, 54, 2)?,
            numbers.read(&header, 56, 2)?,
        )
    } else {
        (
            numbers.read(&header, 28, 4)?,
            numbers.read(&header, 42, 2)?,
            numbers.read(&header, 44, 2)?,
        )
    };
    for index in 0..count.min(128) {
        let mut entry = [0; 56];
        let entry = if numbers.wide {
            &mut entry[..]
        } else {
            &mut entry[..32]
        };
        file.read_exact_at(entry, table.checked_add(index * size)?)
            .ok()?;
        if numbers.read(entry, 0, 4)? != u64::from(PT_INTERP) {
            continue;
        }
        let (offset, length) = if numbers.wide {
            (numbers.read(entry, 8, 8)?, numbers.read(entry, 32, 8)?)
        } else {
            (numbers.read(entry, 4, 4)?, numbers.read(entry, 16, 4)?)
        };
        let mut name = vec![0; usize::try_from(length.min(4096)).ok()?];
        file.read_exact_at(&mut name, offset).ok()?;
        let end = name
            .iter()
            .position(|byte| *byte == 0)
            .unwrap_or(name.len());
        return Some(PathBuf::from(OsStr::from_bytes(&name[..end])));
    }
    None
}

/// How an ELF file writes its numbers.
struct Numbers {
    wide: bool,
    little: bool,
}

impl Numbers {
    fn read(&self, bytes: &[u8], at: usize, length: usize) -> Option<u64> {
        let bytes = bytes.get(at..at + length)?;
        let add = |sum: u64, byte: &u8| sum << 8 | u64::from(*byte);
        Some(if self.little {
            bytes.iter().rev().fold(0, add)
        } else {
            bytes.iter().fold(0, add)
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn file(bytes: &[u8]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        file
    }

    fn elf(interpreter: &str) -> Vec<u8> {
        let mut bytes = vec![0; 64 + 56];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        bytes[32] = 64; // e_phoff
        bytes[54] = 56; // e_phentsize
        bytes[56] = 1; // e_phnum
        bytes[64] = 3; // p_type
        bytes[64 + 8] = 120; // p_offset
        bytes[64 + 32] = u8::try_from(interpreter.len() + 1).unwrap(); // p_filesz
        bytes.extend(interpreter.as_bytes());
        bytes.push(0);
        bytes
    }

    #[test]
    fn an_absent_interpreter_of_a_script_is_named() {
        let script = file(b"#! /no/such/python -u\nprint()\n");
        assert_eq!(missing(script.path()), Some("/no/such/python".into()));
        let script = file(b"#!/bin/sh\r\necho\n");
        assert_eq!(missing(script.path()), Some("/bin/sh\r".into()));
    }

    #[test]
    fn an_absent_loader_of_a_binary_is_named() {
        let binary = file(&elf("/no/such/ld.so"));
        assert_eq!(missing(binary.path()), Some("/no/such/ld.so".into()));
    }

    #[test]
    fn the_interpreter_of_an_interpreter_counts() {
        let inner = file(b"#!/no/such/thing\n");
        let outer = file(format!("#!{}\n", inner.path().display()).as_bytes());
        assert_eq!(missing(outer.path()), Some("/no/such/thing".into()));
    }

    #[test]
    fn nothing_is_missing_where_nothing_is_named() {
        for bytes in [
            &b""[..],
            b"#!",
            b"hello",
            b"\x7fELF",
            &[0xff; 200],
            b"#!/bin/sh\n",
        ] {
            assert_eq!(missing(file(bytes).path()), None, "{bytes:?}");
        }
        let mut wild = elf("/x");
        wild[32..40].fill(0xff);
        assert_eq!(missing(file(&wild).path()), None);
    }
}
