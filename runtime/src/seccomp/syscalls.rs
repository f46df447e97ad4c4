//! System call numbers by name.

use std::collections::HashMap;

/// A system call interface: an architecture's, or one that it also offers to older or
/// smaller programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Abi {
    X86_64,
    X86,
    Aarch64,
    Arm,
    X32,
}

/// The numbers of all calls; parsed once per compilation, some tens of microseconds.
#[derive(Debug)]
pub(super) struct Table(HashMap<&'static str, [Option<u32>; 5]>);

/// Set in every x32 number.
pub(super) const X32_BIT: u32 = 0x4000_0000;

/// From here on numbers are ARM's private calls; they say nothing about the kernel's age.
pub(super) const ARM_PRIVATE: u32 = 0x000f_0000;

impl Abi {
    #[cfg(test)]
    pub(super) const ALL: [Self; 5] =
        [Self::X86_64, Self::X86, Self::Aarch64, Self::Arm, Self::X32];

    /// Whether registers, and so arguments, have 64 bits.
    pub(super) fn is_wide(self) -> bool {
        matches!(self, Self::X86_64 | Self::Aarch64)
    }
}

impl Table {
    pub(super) fn parse() -> Self {
        let lines = include_str!("syscalls.txt").lines();
        Self(lines.filter_map(line).collect())
    }

    /// Whether any ABI has a call of this name.
    pub(super) fn knows(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    pub(super) fn number(&self, abi: Abi, name: &str) -> Option<u32> {
        self.0.get(name)?[abi as usize]
    }

    #[cfg(test)]
    pub(super) fn names(&self) -> impl Iterator<Item = &'static str> {
        self.0.keys().copied()
    }
}

fn line(text: &'static str) -> Option<(&'static str, [Option<u32>; 5])> {
    let mut fields = text.split_ascii_whitespace();
    let name = fields.next().filter(|name| !name.starts_with('#'))?;
    let mut column = || fields.next().unwrap_or("-");
    let [x86_64, x86, aarch64, arm] = [(); 4].map(|()| column().parse().ok());
    let x32 = match column() {
        "=" => x86_64,
        own => own.parse().ok(),
    };
    let x32 = x32.map(|number: u32| number | X32_BIT);
    Some((name, [x86_64, x86, aarch64, arm, x32]))
}
