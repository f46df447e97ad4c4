//! Which rules go into what firewall.

use super::super::listing::Base;
use super::*;

const PASSAGE: Passage<'static> = Passage {
    table: "kobune-azure-iot-edge",
    bridge: "azure-iot-edge",
};

fn rule(end: End) -> Rule {
    Rule {
        handle: 1,
        comment: None,
        conditional: false,
        end,
        operands: Vec::new(),
    }
}

fn some(end: End) -> Rule {
    Rule {
        conditional: true,
        ..rule(end)
    }
}

fn leads(chain: &str) -> End {
    End::Leads(chain.to_owned())
}

fn chain(name: &str, drops: Option<bool>, rules: &[Rule]) -> Chain {
    let base = drops.map(|drops| Base {
        hook: HOOK_FORWARD,
        drops,
    });
    Chain {
        name: name.to_owned(),
        base,
        rules: rules.to_vec(),
    }
}

fn seen(family: Family, name: &str, chains: &[Chain]) -> Seen {
    let table = Table {
        family,
        name: name.to_owned(),
        owned: false,
        chains: chains.to_vec(),
    };
    Seen {
        tables: vec![table],
        knows_conntrack: true,
    }
}

/// What is inserted into which chains.
fn inserted(plan: &Plan) -> Vec<(&str, Option<Dialect>)> {
    let edits = plan.edits.iter();
    edits
        .map(|edit| (edit.chain.as_str(), edit.insert))
        .collect()
}

/// The chain `edited` after what `plan` says, as the kernel would list it.
fn carry_out(seen: &mut Seen, plan: &Plan) {
    let table = &mut seen.tables[0];
    for edit in &plan.edits {
        let chain = table.chains.iter_mut().find(|c| c.name == edit.chain);
        let rules = &mut chain.unwrap().rules;
        rules.retain(|rule| !edit.remove.contains(&rule.handle));
        let ours = edit
            .insert
            .map(|dialect| PASSAGE.rules(edit.family, dialect));
        let ours = ours.into_iter().flatten().zip(100..);
        rules.splice(
            0..0,
            ours.map(|((_, comment), handle)| Rule {
                handle,
                comment: Some(comment),
                ..some(End::Other)
            }),
        );
    }
}

/// What is inserted into the one chain that is changed, if one is; doing that is enough.
fn outcome(mut seen: Seen) -> Option<Option<Dialect>> {
    let plan = PASSAGE.plan(&seen);
    assert_eq!(plan.closed, []);
    carry_out(&mut seen, &plan);
    assert_eq!(PASSAGE.plan(&seen), Plan::default(), "once is enough");
    let inserted = inserted(&plan);
    assert!(inserted.len() < 2, "{inserted:?}");
    inserted.first().map(|(_, dialect)| *dialect)
}

#[test]
fn chains_that_let_nothing_through_by_themselves_are_opened() {
    let (plain, iptables) = (Dialect::NfTables, Dialect::IpTables);
    let dropping = |name| vec![chain(name, Some(true), &[])];
    let open = |rules: &[Rule]| chain("f", Some(false), rules);
    let rejecting = chain("all", None, &[rule(End::Refuses)]);
    let last = open(&[some(End::Other), rule(End::Refuses)]);
    let jump = open(&[rule(leads("all")), rule(End::Other)]);
    let cases = [
        ("t", Family::Ip, dropping("FORWARD"), plain),
        ("filter", Family::Ip, dropping("forward"), plain),
        ("filter", Family::Ip, dropping("FORWARD"), iptables),
        ("mangle", Family::Ip, dropping("FORWARD"), iptables),
        ("filter", Family::Inet, dropping("FORWARD"), plain),
        ("firewalld", Family::Inet, vec![last], plain),
        ("fw4", Family::Inet, vec![jump, rejecting], plain),
    ];
    for (name, family, chains, dialect) in cases {
        let found = outcome(seen(family, name, &chains));
        assert_eq!(found, Some(Some(dialect)), "{family} {name} {chains:?}");
    }
}

#[test]
fn chains_that_refuse_but_some_packets_are_left_alone() {
    let open = |rules: &[Rule]| chain("f", Some(false), rules);
    let rejecting = chain("all", None, &[rule(End::Refuses)]);
    let looped = chain("looped", None, &[rule(leads("looped"))]);
    let cases = [
        vec![open(&[some(End::Refuses), rule(End::Other)])],
        vec![open(&[some(leads("all"))]), rejecting.clone()],
        vec![open(&[rule(leads("looped")), rule(leads("gone"))]), looped],
        vec![open(&[]), rejecting],
    ];
    for chains in cases {
        let found = outcome(seen(Family::Inet, "t", &chains));
        assert_eq!(found, None, "{chains:?}");
    }
}

#[test]
fn without_the_match_of_ip_tables_its_chain_is_one_as_any_other() {
    let drop = chain("FORWARD", Some(true), &[]);
    let seen = Seen {
        knows_conntrack: false,
        ..seen(Family::Ip, "filter", &[drop])
    };
    let plan = PASSAGE.plan(&seen);
    assert_eq!(inserted(&plan), [("FORWARD", Some(Dialect::NfTables))]);
}

#[test]
fn what_somebody_damaged_is_made_anew_and_what_is_not_needed_goes() {
    let foreign = Rule {
        handle: 9,
        comment: Some("kobune-azure-iot-edge2: from modules".to_owned()),
        ..rule(End::Other)
    };
    let mut seen = seen(
        Family::Inet,
        "t",
        &[chain("f", Some(true), std::slice::from_ref(&foreign))],
    );
    let plan = PASSAGE.plan(&seen);
    carry_out(&mut seen, &plan);
    let whole = seen.tables[0].chains[0].rules.clone();
    assert_eq!(whole.len(), 4, "{whole:?}");
    for harm in [
        (|rules: &mut Vec<Rule>| drop(rules.remove(1))) as fn(&mut Vec<Rule>),
        |rules| rules.swap(0, 1),
        |rules| rules.insert(0, rules[0].clone()),
    ] {
        let rules = &mut seen.tables[0].chains[0].rules;
        rules.clone_from(&whole);
        harm(rules);
        let plan = PASSAGE.plan(&seen);
        carry_out(&mut seen, &plan);
        assert_eq!(seen.tables[0].chains[0].rules, whole);
    }
    // A rule that somebody puts before ours is wanted there.
    seen.tables[0].chains[0].rules.insert(0, some(End::Refuses));
    assert_eq!(PASSAGE.plan(&seen), Plan::default());
    seen.tables[0].chains[0].rules.remove(0);

    let mut ended = PASSAGE.plan_end(&seen);
    seen.tables[0].chains[0].base = Some(Base {
        hook: HOOK_FORWARD,
        drops: false,
    });
    assert_eq!(PASSAGE.plan(&seen), ended, "the firewall is open by now");
    carry_out(&mut seen, &ended);
    assert_eq!(seen.tables[0].chains[0].rules, [foreign]);
    ended = PASSAGE.plan_end(&seen);
    assert_eq!(ended, Plan::default());
}

#[test]
fn a_table_of_somebody_who_lets_nobody_change_it_is_named_until_it_is_told_of_the_bridge() {
    let base = chain("f", Some(true), &[some(leads("zones"))]);
    let mut seen = seen(
        Family::Inet,
        "firewalld",
        &[base, chain("zones", None, &[])],
    );
    seen.tables[0].owned = true;
    let plan = PASSAGE.plan(&seen);
    assert_eq!(plan.edits, []);
    let closed: Vec<_> = plan.closed.iter().map(ToString::to_string).collect();
    assert_eq!(closed, ["chain f of table inet firewalld"]);
    for (operand, told) in [("azure-iot-edge2", false), ("azure-iot-edge\0\0", true)] {
        seen.tables[0].chains[1].rules = vec![Rule {
            operands: vec![operand.into()],
            ..some(End::Other)
        }];
        assert_eq!(PASSAGE.plan(&seen).closed.is_empty(), told, "{operand:?}");
    }
}
