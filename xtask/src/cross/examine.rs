//! Sees that a built program is what a device needs: static, for its processor, and alive.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::Arch;
use crate::setup;

/// Emulates foreign programs; it registers nothing with the kernel.
const EMULATOR: (&str, &str) = ("qemu-user", "/usr/bin/qemu-arm");

/// Program headers that a static program without relocations does not have.
const DYNAMIC: u32 = 2;
const INTERPRETER: u32 = 3;

/// What of an ELF file says how it is to be loaded.
#[derive(Debug, PartialEq, Eq)]
struct Elf {
    machine: u16,
    /// Types of the program headers.
    headers: Vec<u32>,
}

impl Elf {
    /// Reads a little-endian file, as those of all our processors are.
    fn read(bytes: &[u8]) -> Option<Self> {
        let wide = match bytes.get(..6)? {
            [0x7f, b'E', b'L', b'F', 1, 1] => false,
            [0x7f, b'E', b'L', b'F', 2, 1] => true,
            _ => return None,
        };
        let half = |at: usize| Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
        let word = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        // The table is at an offset below 4 GB, so that its lower half is all of it.
        let (table, sizes) = if wide { (32, 54) } else { (28, 42) };
        let start = usize::try_from(word(table)?).ok()?;
        let (size, count) = (half(sizes)?, half(sizes + 2)?);
        let headers =
            (0..count).map(|number| word(start + usize::from(size) * usize::from(number)));
        Some(Self {
            machine: half(18)?,
            headers: headers.collect::<Option<_>>()?,
        })
    }

    /// What is wrong with it for a device of `arch`.
    fn fault(&self, arch: Arch) -> Option<&'static str> {
        if self.machine != arch.machine {
            return Some("is for another processor");
        }
        let has = |kind| self.headers.contains(&kind);
        (has(DYNAMIC) || has(INTERPRETER)).then_some("is not static")
    }
}

/// Fails where `program` is for another processor than `arch`, or wants a loader or libraries.
pub(super) fn is_static(program: &Path, arch: Arch) -> Result<(), String> {
    let shown = program.display();
    let bytes = fs::read(program).map_err(|error| format!("read {shown}: {error}"))?;
    let elf = Elf::read(&bytes).ok_or_else(|| format!("{shown} is no ELF file"))?;
    match elf.fault(arch) {
        Some(fault) => Err(format!("{shown} {fault}")),
        None => Ok(()),
    }
}

/// Runs the agent's program, on an emulated processor of the oldest kind where it is not for
/// this machine: it says its version, and looks at the machine to its end.
pub(super) fn runs(program: &Path, arch: Arch) -> Result<(), String> {
    if !arch.emulator.is_empty() {
        setup::install(&[EMULATOR])?;
    }
    let version = output(program, arch, "--version")?;
    if !version.starts_with("kobune ") {
        return Err(format!("{} --version says {version:?}", program.display()));
    }
    // What it finds is about this machine; that it finds the end is about the program.
    let found = output(program, arch, "check")?;
    println!(
        "{}; check says {} lines",
        version.trim(),
        found.lines().count()
    );
    Ok(())
}

/// What `program` says when it is run with `argument`; an error where a signal ends it.
fn output(program: &Path, arch: Arch, argument: &str) -> Result<String, String> {
    let line = arch.emulator.iter().map(AsRef::as_ref);
    let mut line = line.chain([program.as_os_str(), argument.as_ref()]);
    let first = line.next().unwrap_or_default();
    let shown = format!("{} {argument}", program.display());
    let output = Command::new(first).args(line).output();
    let output = output.map_err(|error| format!("run {shown}: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.code().is_none() || text.is_empty() {
        let errors = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{shown}: {}: {text}{errors}", output.status));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header and program headers of the types `headers`.
    fn file(wide: bool, machine: u16, headers: &[u32]) -> Vec<u8> {
        let (table, sizes, start, size) = if wide {
            (32, 54, 64, 56)
        } else {
            (28, 42, 52, 32)
        };
        let mut bytes = vec![0; start];
        bytes[..6].copy_from_slice(&[0x7f, b'E', b'L', b'F', if wide { 2 } else { 1 }, 1]);
        bytes[18..20].copy_from_slice(&machine.to_le_bytes());
        bytes[table] = u8::try_from(start).unwrap();
        bytes[sizes] = size;
        bytes[sizes + 2] = u8::try_from(headers.len()).unwrap();
        for kind in headers {
            bytes.extend(kind.to_le_bytes());
            bytes.resize(bytes.len() + usize::from(size) - 4, 0);
        }
        bytes
    }

    #[test]
    fn static_programs_of_the_processor_pass_and_no_others() {
        for arch in super::super::ARCHES {
            let wide = arch.name.contains("64");
            let fault = |machine, headers: &[u32]| {
                let elf = Elf::read(&file(wide, machine, headers)).expect("an ELF file");
                elf.fault(arch)
            };
            assert_eq!(fault(arch.machine, &[1, 1, 7]), None);
            assert_eq!(fault(arch.machine, &[1, DYNAMIC]), Some("is not static"));
            assert_eq!(
                fault(arch.machine, &[INTERPRETER, 1]),
                Some("is not static")
            );
            assert_eq!(fault(8, &[1]), Some("is for another processor"));
        }
    }

    #[test]
    fn the_program_of_this_test_is_not_static() {
        let own = fs::read(std::env::current_exe().expect("a program")).expect("its file");
        let elf = Elf::read(&own).expect("an ELF file");
        assert!(elf.headers.contains(&DYNAMIC), "{:?}", elf.headers);
        assert_eq!(Elf::read(&own[..40]), None, "cut short");
        assert_eq!(Elf::read(b"#!/bin/sh\n"), None);
    }
}
