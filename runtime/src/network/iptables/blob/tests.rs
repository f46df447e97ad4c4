use super::super::rule::{ACCEPT, DROP};
use super::*;

/// A table with a chain at two hooks and two others, the first of which leads to the second.
fn table() -> Table {
    let chain = |label, rules| Chain {
        label,
        rules,
        end: Rule::new().verdict(ACCEPT),
    };
    let user = |name: &str| Label::User(name.to_owned(), Rule::chain_header(name));
    let mut counting = Rule::new().arrives_at("eth0").verdict(0);
    counting.leads = Leads::Next;
    Table {
        hooks: 0b1_0001,
        chains: vec![
            chain(Label::Hook(0), vec![Rule::new().jump("A"), counting]),
            chain(Label::Hook(4), Vec::new()),
            chain(
                user("A"),
                vec![Rule::new().jump("B"), Rule::new().verdict(DROP)],
            ),
            chain(user("B"), vec![Rule::new().masquerade()]),
        ],
        trailer: Rule::chain_header("ERROR"),
    }
}

fn read(written: &Written) -> io::Result<Table> {
    Table::read(&written.bytes, 0b1_0001, written.starts)
}

#[test]
fn what_is_written_is_read_again() {
    let table = table();
    let written = table.write();
    assert_eq!(read(&written).unwrap(), table);
    assert_eq!(read(&written).unwrap().write().bytes, written.bytes);
}

#[test]
fn jumps_follow_their_chains_when_others_come_and_go() {
    let mut table = read(&table().write()).unwrap();
    table.set_chain(
        "OURS",
        vec![Rule::new().masquerade(), Rule::new().jump("A")],
    );
    table.jump_at(0, Rule::new().jump("OURS"));
    table.jump_at(0, Rule::new().jump("OURS"));
    let grown = read(&table.write()).unwrap();
    assert_eq!(grown, table);
    assert_eq!(grown.chains[0].rules.len(), 3, "one jump: {grown:?}");
    let mut again = grown.clone();
    again.remove_chain("OURS");
    assert_eq!(again, self::table());
    again.remove_chain("OURS");
    assert_eq!(again, self::table());
}

#[test]
fn a_removed_chain_takes_along_what_leads_to_it() {
    let mut table = table();
    table.remove_chain("B");
    assert_eq!(table.chains[2].rules.len(), 1);
    assert_eq!(read(&table.write()).unwrap(), table);
}

#[test]
fn every_entry_keeps_its_counters() {
    let mut table = read(&table().write()).unwrap();
    table.set_chain("OURS", vec![Rule::new().masquerade()]);
    table.jump_at(0, Rule::new().jump("OURS"));
    let origins = table.write().origins;
    let old: Vec<usize> = origins.iter().copied().flatten().collect();
    assert_eq!(old, (0..old.len()).collect::<Vec<_>>(), "all, in order");
    assert_eq!(origins[0], None, "our jump is new");
    assert_eq!(origins.len(), old.len() + 4);
}

#[test]
fn a_block_that_is_cut_or_leads_astray_is_refused() {
    let written = table().write();
    for length in [0, 1, ENTRY, ENTRY + EXTENSION, written.bytes.len() - 1] {
        let cut = &written.bytes[..length];
        let result = Table::read(cut, 0b1_0001, written.starts);
        assert!(result.is_err(), "{length}: {result:?}");
    }
    // Every size and place of every entry, one after another.
    let mut refused = 0;
    for place in 0..written.bytes.len() {
        let mut bytes = written.bytes.clone();
        bytes[place] ^= 0x81;
        match Table::read(&bytes, 0b1_0001, written.starts) {
            Ok(table) => assert_eq!(table.write().bytes.len(), bytes.len(), "{place}"),
            Err(error) => {
                assert_eq!(error.kind(), io::ErrorKind::InvalidData);
                refused += 1;
            }
        }
    }
    assert!(refused > 50, "{refused}");
}
