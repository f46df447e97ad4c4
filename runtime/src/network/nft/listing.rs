//! What tables, chains and rules there are, by whomever: as much of them as tells what becomes
//! of a packet that no rule has a special word for.

use std::collections::BTreeSet;
use std::io;

use super::encode::{
    COMMENT, Family, Listed, RULE_CHAIN, RULE_EXPRESSIONS, RULE_HANDLE, RULE_TABLE, RULE_USERDATA,
    list,
};
use super::expressions::{MATCH, NF_DROP, NFT_GOTO, NFT_JUMP, REG_VERDICT};
use crate::network::netlink::Netlink;
use crate::network::netlink::attributes::{attributes, find};

/// Bytes of the header that all netfilter messages have; the first is the family.
const NFGENMSG: usize = 4;

const TABLE_NAME: u16 = 1;
const TABLE_FLAGS: u16 = 2;
/// Only the program that made the table may change it.
const TABLE_OWNED: u32 = 2;

const CHAIN_TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
const CHAIN_HOOK: u16 = 4;
const CHAIN_POLICY: u16 = 5;
const HOOK_NUMBER: u16 = 1;
const POLICY_DROP: u32 = 0;

const LIST_ELEMENT: u16 = 1;
const EXPRESSION_NAME: u16 = 1;
const EXPRESSION_DATA: u16 = 2;
const IMMEDIATE_REGISTER: u16 = 1;
const IMMEDIATE_DATA: u16 = 2;
const DATA_VERDICT: u16 = 2;
const VERDICT_CODE: u16 = 1;
const VERDICT_CHAIN: u16 = 2;
const COMPARE_DATA: u16 = 3;
const DATA_VALUE: u16 = 1;

/// A table with its chains.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Table {
    pub(crate) family: Family,
    pub(crate) name: String,
    /// The kernel lets only the program change it that made it.
    pub(crate) owned: bool,
    pub(crate) chains: Vec<Chain>,
}

/// A chain with its rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Chain {
    pub(crate) name: String,
    /// Where packets come from by themselves, and whether they are dropped at its end.
    pub(crate) base: Option<Base>,
    pub(crate) rules: Vec<Rule>,
}

/// Of a base chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Base {
    pub(crate) hook: u32,
    pub(crate) drops: bool,
}

/// A rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) handle: u64,
    pub(crate) comment: Option<String>,
    /// Holds for some packets only.
    pub(crate) conditional: bool,
    pub(crate) end: End,
    /// What it compares with, names of interfaces among others.
    pub(crate) operands: Vec<Vec<u8>>,
}

/// What a rule does with what it holds for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    /// Drops or rejects it.
    Refuses,
    /// Has another chain look.
    Leads(String),
    /// Anything else.
    Other,
}

/// Lists the tables of IPv4 packets that have a chain at `hook`, but for the one named `own`;
/// fast where there are none.
pub(crate) fn tables_at(hook: u32, own: &str) -> io::Result<Vec<Table>> {
    let mut netlink = Netlink::netfilter()?;
    let mut sequence = 0;
    let mut ask = |what| {
        sequence += 1;
        netlink.exchange(&list(what, sequence), sequence)
    };
    let mut tables = tables_of(&ask(Listed::Chains)?);
    tables.retain(|table| table.name != own && table.base_chains(hook).next().is_some());
    if tables.is_empty() {
        return Ok(tables);
    }
    let listed = ask(Listed::Tables)?;
    for table in &mut tables {
        table.owned = listed.iter().any(|answer| is_owned(answer, table));
        let answers = ask(Listed::Rules(table.family, &table.name))?;
        let rules: Vec<_> = answers.iter().filter_map(|a| rule_of(a, table)).collect();
        for (name, rule) in rules {
            let chain = table.chains.iter_mut().find(|chain| chain.name == name);
            if let Some(chain) = chain {
                chain.rules.push(rule);
            }
        }
    }
    Ok(tables)
}

/// The chains of an answer, by their tables, without rules.
fn tables_of(answers: &[Vec<u8>]) -> Vec<Table> {
    let mut tables: Vec<Table> = Vec::new();
    for (family, name, chain) in answers.iter().filter_map(|answer| chain_of(answer)) {
        let same = |table: &&mut Table| table.family == family && table.name == name;
        match tables.iter_mut().find(same) {
            Some(table) => table.chains.push(chain),
            None => tables.push(Table {
                family,
                name,
                owned: false,
                chains: vec![chain],
            }),
        }
    }
    tables
}

/// How many rules a table of IPv4 has.
pub(crate) fn count_rules(table: &str) -> io::Result<usize> {
    let query = list(Listed::Rules(Family::Ip, table), 1);
    let answers = Netlink::netfilter()?.exchange(&query, 1)?;
    let of_table = |answer: &&Vec<u8>| {
        body(answer).is_some_and(|(family, body)| family == Family::Ip && is_in(body, table))
    };
    Ok(answers.iter().filter(of_table).count())
}

impl Table {
    /// The chains that packets come to by themselves at `hook`.
    pub(crate) fn base_chains(&self, hook: u32) -> impl Iterator<Item = &Chain> {
        let at_hook = move |chain: &&Chain| chain.base.is_some_and(|base| base.hook == hook);
        self.chains.iter().filter(at_hook)
    }

    /// The rules that `start` leads to by those that `follow`, its own included.
    pub(crate) fn reached<'a>(
        &'a self,
        start: &'a Chain,
        follow: fn(&Rule) -> bool,
    ) -> Vec<&'a Rule> {
        let (mut seen, mut ahead) = (BTreeSet::from([start.name.as_str()]), vec![start]);
        let mut rules = Vec::new();
        while let Some(chain) = ahead.pop() {
            for rule in chain.rules.iter().filter(|rule| follow(rule)) {
                rules.push(rule);
                if let End::Leads(target) = &rule.end
                    && seen.insert(target)
                {
                    ahead.extend(self.chains.iter().find(|chain| chain.name == *target));
                }
            }
        }
        rules
    }
}

/// Family and attributes of a message.
fn body(answer: &[u8]) -> Option<(Family, &[u8])> {
    Some((Family::of(*answer.first()?)?, answer.get(NFGENMSG..)?))
}

/// Whether an answer says that `table` is owned.
fn is_owned(answer: &[u8], table: &Table) -> bool {
    let flags = body(answer).and_then(|(family, body)| {
        let is_it = family == table.family && find(body, TABLE_NAME)?.text() == table.name;
        find(body, TABLE_FLAGS)?.number().filter(|_| is_it)
    });
    flags.is_some_and(|flags| flags & TABLE_OWNED != 0)
}

fn chain_of(answer: &[u8]) -> Option<(Family, String, Chain)> {
    let (family, body) = body(answer)?;
    let text = |kind| Some(find(body, kind)?.text().to_owned());
    let hook = find(body, CHAIN_HOOK).and_then(|hook| find(hook.value, HOOK_NUMBER)?.number());
    let policy = find(body, CHAIN_POLICY).and_then(|policy| policy.number());
    let chain = Chain {
        name: text(CHAIN_NAME)?,
        base: hook.map(|hook| Base {
            hook,
            drops: policy == Some(POLICY_DROP),
        }),
        rules: Vec::new(),
    };
    Some((family, text(CHAIN_TABLE)?, chain))
}

fn is_in(body: &[u8], table: &str) -> bool {
    find(body, RULE_TABLE).is_some_and(|name| name.text() == table)
}

/// Chain and rule of an answer that is one of `table`.
fn rule_of(answer: &[u8], table: &Table) -> Option<(String, Rule)> {
    let (family, body) = body(answer)?;
    if family != table.family || !is_in(body, &table.name) {
        return None;
    }
    let chain = find(body, RULE_CHAIN)?.text().to_owned();
    let handle = find(body, RULE_HANDLE)?.value.try_into().ok()?;
    let mut rule = Rule {
        handle: u64::from_be_bytes(handle),
        comment: find(body, RULE_USERDATA).and_then(|data| comment(data.value)),
        conditional: false,
        end: End::Other,
        operands: Vec::new(),
    };
    let expressions = find(body, RULE_EXPRESSIONS).map_or(&[][..], |list| list.value);
    for element in attributes(expressions).filter(|element| element.kind == LIST_ELEMENT) {
        let name = find(element.value, EXPRESSION_NAME)?;
        let data = find(element.value, EXPRESSION_DATA).map_or(&[][..], |data| data.value);
        rule.add(name.text(), data);
    }
    Some((chain, rule))
}

impl Rule {
    fn add(&mut self, expression: &str, data: &[u8]) {
        let extension = || find(data, MATCH).map(|name| name.text().to_owned());
        match expression {
            "counter" | "log" => {}
            "match" if extension().as_deref() == Some("comment") => {}
            "reject" => self.end = End::Refuses,
            "target" if extension().as_deref() == Some("REJECT") => self.end = End::Refuses,
            "immediate" => self.end = verdict(data).unwrap_or(End::Other),
            "target" => {}
            _ => self.conditional = true,
        }
        let operand = find(data, COMPARE_DATA).filter(|_| expression == "cmp");
        let operand = operand.and_then(|operand| find(operand.value, DATA_VALUE));
        self.operands
            .extend(operand.map(|found| found.value.to_vec()));
    }
}

/// The verdict of an `immediate`, which may also load something else.
fn verdict(data: &[u8]) -> Option<End> {
    let register = find(data, IMMEDIATE_REGISTER)?.number()?;
    let verdict = find(find(data, IMMEDIATE_DATA)?.value, DATA_VERDICT)?.value;
    let code = find(verdict, VERDICT_CODE)?.number()?.cast_signed();
    if register != REG_VERDICT {
        return None;
    }
    Some(match code {
        NF_DROP => End::Refuses,
        NFT_JUMP | NFT_GOTO => End::Leads(find(verdict, VERDICT_CHAIN)?.text().to_owned()),
        _ => End::Other,
    })
}

/// The comment in a rule's user data: kind, length, text and a zero, as `nft` keeps it.
fn comment(mut data: &[u8]) -> Option<String> {
    while let [kind, length, rest @ ..] = data {
        let (value, rest) = rest.split_at_checked(usize::from(*length))?;
        if *kind == COMMENT {
            let text = std::str::from_utf8(value).ok()?;
            return Some(text.trim_end_matches('\0').to_owned());
        }
        data = rest;
    }
    None
}
