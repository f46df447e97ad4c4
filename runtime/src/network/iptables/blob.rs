//! A table of legacy ip_tables as chains, read from and written to the kernel's form.
//!
//! There a table is one block of entries, and a jump is an offset into it. Here jumps are
//! names, so that chains can come and go; whatever is not understood is kept as it is.
//! Pure: everything from the kernel is checked, for a block that is misread would be
//! written back.

use std::collections::HashMap;
use std::io;

use super::rule::{ENTRY, EXTENSION, RETURN, Rule};

/// Hooks of netfilter.
pub(super) const HOOKS: usize = 5;

/// A table's chains, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Table {
    /// Bit set of the hooks it has a chain at.
    pub(super) hooks: u32,
    chains: Vec<Chain>,
    /// The entry after all chains.
    trailer: Entry,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Chain {
    label: Label,
    rules: Vec<Entry>,
    /// Policy of a hook's chain, return of another.
    end: Entry,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Label {
    Hook(usize),
    User(String, Entry),
}

/// One entry, with its own sizes but without offsets and counters.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) bytes: Vec<u8>,
    pub(super) leads: Leads,
    /// Its number in the table as it was read, by which its counters are known.
    pub(super) before: Option<usize>,
}

/// Where a matching packet goes on, if the entry's target is an offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Leads {
    Nowhere,
    /// The entry after this one: a rule that only counts.
    Next,
    Chain(String),
}

/// A table in the kernel's form.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) bytes: Vec<u8>,
    pub(super) starts: [u32; HOOKS],
    pub(super) policies: [u32; HOOKS],
    /// For every entry its number in the table as it was read.
    pub(super) origins: Vec<Option<usize>>,
}

impl PartialEq for Entry {
    /// Counters and origin do not count.
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes && self.leads == other.leads
    }
}

impl Eq for Entry {}

impl Table {
    /// Reads a block; `starts` tells where the chain of each hook of `hooks` begins.
    ///
    /// # Errors
    /// `InvalidData` if it is not what the kernel's headers say.
    pub(super) fn read(block: &[u8], hooks: u32, starts: [u32; HOOKS]) -> io::Result<Self> {
        let mut entries = split(block)?;
        let (_, trailer) = entries.pop().ok_or_else(invalid)?;
        let mut chains: Vec<Chain> = Vec::new();
        let mut open: Option<(Label, Vec<Entry>)> = None;
        for (offset, entry) in entries {
            let hook = (0..HOOKS).find(|h| hooks >> h & 1 == 1 && starts[*h] as usize == offset);
            let label = match (hook, chain_name(&entry)) {
                (Some(hook), _) => Some(Label::Hook(hook)),
                (None, Some(name)) => Some(Label::User(name, entry.clone())),
                (None, None) => None,
            };
            if let Some(label) = label {
                close(&mut chains, open.take())?;
                let first = matches!(label, Label::Hook(_)).then_some(entry);
                open = Some((label, first.into_iter().collect()));
            } else {
                open.as_mut().ok_or_else(invalid)?.1.push(entry);
            }
        }
        close(&mut chains, open)?;
        Ok(Self {
            hooks,
            chains,
            trailer,
        })
    }

    /// Gives the chain `name` these rules, and makes it if it is not there.
    pub(super) fn set_chain(&mut self, name: &str, rules: Vec<Entry>) {
        let label = Label::User(name.to_owned(), Rule::chain_header(name));
        let chain = Chain {
            label,
            rules,
            end: Rule::new().verdict(RETURN),
        };
        match self.chains.iter_mut().find(|chain| chain.is(name)) {
            Some(found) => *found = chain,
            None => self.chains.push(chain),
        }
    }

    /// Makes `jump`, which leads to one of the chains, the first rule at `hook`, unless one
    /// like it is somewhere there: others may have put theirs before it since.
    pub(super) fn jump_at(&mut self, hook: usize, jump: Entry) {
        let at_hook = |chain: &&mut Chain| matches!(chain.label, Label::Hook(h) if h == hook);
        if let Some(chain) = self.chains.iter_mut().find(at_hook)
            && !chain.rules.contains(&jump)
        {
            chain.rules.insert(0, jump);
        }
    }

    /// Removes the chain `name`, and whatever leads to it.
    pub(super) fn remove_chain(&mut self, name: &str) {
        self.chains.retain(|chain| !chain.is(name));
        for chain in &mut self.chains {
            chain
                .rules
                .retain(|rule| !matches!(&rule.leads, Leads::Chain(to) if to == name));
        }
    }

    /// The table in the kernel's form.
    pub(super) fn write(&self) -> Written {
        let heads = self.heads();
        let mut written = Written {
            bytes: Vec::new(),
            starts: [0; HOOKS],
            policies: [0; HOOKS],
            origins: Vec::new(),
        };
        for chain in &self.chains {
            match &chain.label {
                Label::Hook(hook) => written.starts[*hook] = written.offset(),
                Label::User(_, header) => written.push(header, &heads),
            }
            for rule in &chain.rules {
                written.push(rule, &heads);
            }
            if let Label::Hook(hook) = chain.label {
                written.policies[hook] = written.offset();
            }
            written.push(&chain.end, &heads);
        }
        written.push(&self.trailer, &heads);
        written
    }

    /// Offset of the first rule of each chain that is not a hook's.
    fn heads(&self) -> HashMap<&str, usize> {
        let mut heads = HashMap::new();
        let mut offset = 0;
        for chain in &self.chains {
            if let Label::User(name, header) = &chain.label {
                offset += header.bytes.len();
                heads.insert(name.as_str(), offset);
            }
            let rules = chain.rules.iter().chain([&chain.end]);
            offset += rules.map(|rule| rule.bytes.len()).sum::<usize>();
        }
        heads
    }
}

impl Chain {
    fn is(&self, name: &str) -> bool {
        matches!(&self.label, Label::User(own, _) if own == name)
    }
}

impl Written {
    fn offset(&self) -> u32 {
        u32::try_from(self.bytes.len()).expect("invariant: tables are below 4 GiB")
    }

    fn push(&mut self, entry: &Entry, heads: &HashMap<&str, usize>) {
        let start = self.bytes.len();
        self.bytes.extend(&entry.bytes);
        let leads_to = match &entry.leads {
            Leads::Nowhere => None,
            Leads::Next => Some(self.bytes.len()),
            Leads::Chain(name) => heads.get(name.as_str()).copied(),
        };
        if let Some(offset) = leads_to {
            let verdict = i32::try_from(offset).expect("invariant: tables are below 2 GiB");
            let place = start + half(&entry.bytes, 88) + EXTENSION;
            self.bytes[place..place + 4].copy_from_slice(&verdict.to_ne_bytes());
        }
        self.origins.push(entry.before);
    }
}

fn close(chains: &mut Vec<Chain>, open: Option<(Label, Vec<Entry>)>) -> io::Result<()> {
    if let Some((label, mut rules)) = open {
        let end = rules.pop().ok_or_else(invalid)?;
        chains.push(Chain { label, rules, end });
    }
    Ok(())
}

/// The entries of a block with their offsets.
fn split(block: &[u8]) -> io::Result<Vec<(usize, Entry)>> {
    let mut entries = Vec::new();
    let mut heads = HashMap::new();
    let mut offset = 0;
    while offset < block.len() {
        let rest = &block[offset..];
        let entry = entry(rest, entries.len())?;
        let next = offset + entry.bytes.len();
        if let Some(name) = chain_name(&entry) {
            heads.insert(next, name);
        }
        entries.push((offset, entry));
        offset = next;
    }
    for (offset, entry) in &mut entries {
        let next = *offset + entry.bytes.len();
        entry.leads = leads(entry, next, &heads)?;
    }
    Ok(entries)
}

fn entry(rest: &[u8], number: usize) -> io::Result<Entry> {
    if rest.len() < ENTRY {
        return Err(invalid());
    }
    let (target, size) = (half(rest, 88), half(rest, 90));
    let sound = target >= ENTRY && target + EXTENSION <= size && size <= rest.len();
    if !sound {
        return Err(invalid());
    }
    let mut bytes = rest[..size].to_vec();
    // Where it was reached from and how often: the kernel's to know.
    bytes[92..ENTRY].fill(0);
    Ok(Entry {
        bytes,
        leads: Leads::Nowhere,
        before: Some(number),
    })
}

/// Where the standard target of an entry leads, its offset taken out.
fn leads(entry: &mut Entry, next: usize, heads: &HashMap<usize, String>) -> io::Result<Leads> {
    let target = half(&entry.bytes, 88);
    if !name_at(&entry.bytes, target).is_empty() {
        return Ok(Leads::Nowhere);
    }
    let place = target + EXTENSION;
    let verdict = entry.bytes.get(place..place + 4).ok_or_else(invalid)?;
    let verdict = i32::from_ne_bytes(verdict.try_into().map_err(|_| invalid())?);
    let Ok(offset) = usize::try_from(verdict) else {
        return Ok(Leads::Nowhere);
    };
    entry.bytes[place..place + 4].fill(0);
    match heads.get(&offset) {
        Some(name) => Ok(Leads::Chain(name.clone())),
        None if offset == next => Ok(Leads::Next),
        None => Err(invalid()),
    }
}

/// The name of the chain that an entry begins.
fn chain_name(entry: &Entry) -> Option<String> {
    let target = half(&entry.bytes, 88);
    let begins = name_at(&entry.bytes, target) == b"ERROR";
    let label = entry.bytes.get(target + EXTENSION..)?;
    let label = label.split(|byte| *byte == 0).next()?;
    // Byte by byte: two names must not become one, whatever is in them.
    begins.then(|| label.iter().map(|byte| char::from(*byte)).collect())
}

/// The name in the header of a match or target.
fn name_at(bytes: &[u8], place: usize) -> &[u8] {
    let name = &bytes[place + 2..place + 31];
    name.split(|byte| *byte == 0).next().unwrap_or_default()
}

fn half(bytes: &[u8], place: usize) -> usize {
    usize::from(u16::from_ne_bytes([bytes[place], bytes[place + 1]]))
}

fn invalid() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        "an ip_tables table that makes no sense",
    )
}

#[cfg(test)]
mod tests;
