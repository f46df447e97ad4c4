//! Target conditions from a fixed seed, the same in every run: random ones are compared with
//! what they were made to mean, and changed ones are read or refused. `KOBUNE_FUZZ_SECONDS` makes
//! it go on for so long instead, from a seed of its own.

use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};

use super::super::Target;

/// Conditions of an ordinary run.
const CONDITIONS: u64 = 3000;
/// The deepest that a random condition is nested.
const DEPTH: u32 = 6;

/// Paths that may be there, and what twins and conditions have for values.
const PATHS: [&str; 7] = [
    "deviceId",
    "tags.type",
    "tags.site.floor",
    "tags.odd-name_1",
    "properties.reported.code",
    "properties.reported.$metadata.t",
    "tags.none",
];
const TEXTS: [&str; 6] = ["", "nano", "it's", "AND", "größe ☃", "a\"b\\c"];
const NUMBERS: [f64; 6] = [0.0, -1.0, 1.5, 2.0, 1e9, -0.25];
const OPERATORS: [&str; 7] = ["=", "!=", "<>", "<", "<=", ">", ">="];
/// What is put into conditions to spoil them.
const PIECES: [&str; 18] = [
    "'", "''", "(", ")", "[", "]", "[[", "]]", ".", "..", ",", "-", "NOT ", " AND ", " OR ",
    " IN ", "\u{0}", "𝕏",
];

/// xorshift64* (Marsaglia; Vigna).
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let number = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33;
        usize::try_from(number).map_or(0, |number| number % end.max(1))
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }

    fn value(&mut self) -> Value {
        match self.below(4) {
            0 => json!(self.of(&TEXTS)),
            1 => json!(self.below(2) == 0),
            2 => Value::Null,
            _ => json!(self.of(&NUMBERS)),
        }
    }

    /// A twin with some of the paths.
    fn twin(&mut self) -> Value {
        let mut twin = json!({"tags": {}, "properties": {"reported": {}}});
        for path in &PATHS[..6] {
            if self.below(4) == 0 {
                continue;
            }
            let value = self.value();
            let place = path.split('.').fold(&mut twin, |at, name| &mut at[name]);
            *place = value;
        }
        twin
    }

    fn space(&mut self) -> &'static str {
        self.of(&[" ", " ", "  ", "\t", " \n "])
    }

    /// A keyword in some spelling.
    fn keyword(&mut self, word: &str) -> String {
        match self.below(3) {
            0 => word.to_ascii_lowercase(),
            1 => word[..1].to_owned() + &word[1..].to_ascii_lowercase(),
            _ => word.to_owned(),
        }
    }

    /// A condition, and whether it holds of `twin`.
    fn condition(&mut self, twin: &Value, depth: u32) -> (String, bool) {
        match self.below(if depth == 0 { 3 } else { 7 }) {
            0 => self.comparison(twin),
            1 => {
                let path = self.of(&PATHS);
                let defined = self.keyword("IS_DEFINED");
                let space = self.space();
                (
                    format!("{defined}({space}{path})"),
                    found(twin, path).is_some(),
                )
            }
            2 => self.membership(twin),
            3 => {
                let (inner, holds) = self.condition(twin, depth - 1);
                let not = self.keyword("NOT");
                (format!("{not} ({inner})"), !holds)
            }
            4 | 5 => {
                let (left, first) = self.condition(twin, depth - 1);
                let (right, second) = self.condition(twin, depth - 1);
                let (and, space) = (self.keyword("AND"), self.space());
                (
                    format!("({left}){space}{and}{space}({right})"),
                    first && second,
                )
            }
            _ => {
                let (left, first) = self.condition(twin, depth - 1);
                let (right, second) = self.condition(twin, depth - 1);
                let (or, space) = (self.keyword("OR"), self.space());
                (format!("({left}{space}{or} {right})"), first || second)
            }
        }
    }

    fn comparison(&mut self, twin: &Value) -> (String, bool) {
        let (path, operator, literal) = (self.of(&PATHS), self.of(&OPERATORS), self.value());
        let space = self.of(&["", " ", "\t"]);
        let text = format!("{path}{space}{operator}{space}{}", written(&literal));
        let holds = found(twin, path).is_some_and(|value| compared(value, operator, &literal));
        (text, holds)
    }

    fn membership(&mut self, twin: &Value) -> (String, bool) {
        let path = self.of(&PATHS);
        let literals: Vec<Value> = (0..=self.below(3)).map(|_| self.value()).collect();
        let list: Vec<String> = literals.iter().map(written).collect();
        let within = self.keyword("IN");
        let text = format!("{path} {within} [{}]", list.join(","));
        let holds = found(twin, path)
            .is_some_and(|value| literals.iter().any(|one| compared(value, "=", one)));
        (text, holds)
    }

    /// A few changes of the kinds that find faults in parsers.
    fn changed(&mut self, text: &str, other: &str) -> String {
        let mut chars: Vec<char> = text.chars().collect();
        let other: Vec<char> = other.chars().collect();
        for _ in 0..=self.below(4) {
            let at = self.below(chars.len() + 1);
            let end = at + self.below(chars.len() - at + 1);
            match self.below(5) {
                0 => chars.truncate(at),
                1 => drop(chars.drain(at..end)),
                2 => drop(chars.splice(at..end, self.of(&PIECES).chars())),
                3 => drop(chars.splice(at..end, other[self.below(other.len())..].iter().copied())),
                _ => {
                    let again: Vec<char> = chars[at..end].to_vec();
                    let times = if self.below(20) == 0 { 200 } else { 2 };
                    let again = again.iter().copied().cycle().take(again.len() * times);
                    drop(chars.splice(at..at, again.collect::<Vec<_>>()));
                }
            }
        }
        chars.into_iter().collect()
    }
}

fn found<'t>(twin: &'t Value, path: &str) -> Option<&'t Value> {
    path.split('.')
        .try_fold(twin, |value, name| value.get(name))
}

fn written(literal: &Value) -> String {
    match literal {
        Value::String(text) => format!("'{}'", text.replace('\'', "''")),
        other => other.to_string(),
    }
}

/// What the documentation of the query language says, in other words than the hub's.
fn compared(value: &Value, operator: &str, literal: &Value) -> bool {
    let order = match (value, literal) {
        (Value::Number(a), Value::Number(b)) => a.as_f64().partial_cmp(&b.as_f64()),
        (Value::String(a), Value::String(b)) => Some(a.as_bytes().cmp(b.as_bytes())),
        _ => None,
    };
    let equal = value == literal || order.is_some_and(std::cmp::Ordering::is_eq);
    match operator {
        "=" => equal,
        "!=" | "<>" => !equal,
        "<" => order.is_some_and(std::cmp::Ordering::is_lt),
        "<=" => order.is_some_and(std::cmp::Ordering::is_le),
        ">" => order.is_some_and(std::cmp::Ordering::is_gt),
        _ => order.is_some_and(std::cmp::Ordering::is_ge),
    }
}

#[test]
fn conditions_mean_what_they_say_and_spoilt_ones_are_read_or_refused() {
    let seconds = std::env::var("KOBUNE_FUZZ_SECONDS").ok();
    let long: Option<Duration> = seconds
        .and_then(|s| s.parse().ok())
        .map(Duration::from_secs);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let seed = match long {
        Some(_) => now.map_or(1, |now| u64::from(now.subsec_nanos()) << 20) | 1,
        None => 0x9E37_79B9_7F4A_7C15,
    };
    let (mut random, begin, mut count) = (Random(seed), Instant::now(), 0);
    let (mut held, mut taken, mut last) = (0_u64, 0_u64, "tags.a = 1".to_owned());
    while long.map_or(count < CONDITIONS, |long| begin.elapsed() < long) {
        let depth = u32::try_from(random.below(DEPTH as usize)).expect("it is small");
        let twin = random.twin();
        let (text, holds) = random.condition(&twin, depth);
        let target = Target::parse(&text);
        let target = target.unwrap_or_else(|error| panic!("seed {seed}: {text:?}: {error}"));
        assert_eq!(
            target.meets(&twin),
            holds,
            "seed {seed}: {text:?} of {twin}"
        );
        let spoilt = random.changed(&text, &last);
        match Target::parse(&spoilt) {
            // What a device may see of itself is all that it looks at.
            Ok(target) => {
                let mut more = twin.clone();
                more["status"] = json!("enabled");
                more["properties"]["desired"] = json!({"code": 1});
                assert_eq!(target.meets(&more), target.meets(&twin), "{spoilt:?}");
                taken += 1;
            }
            Err(error) => assert!(error.to_string().len() < 400, "{spoilt:?}: {error}"),
        }
        held += u64::from(holds);
        count += 1;
        last = text;
    }
    // Otherwise nothing was tried.
    for part in [held, count - held, taken, count - taken] {
        assert!(part > count / 50, "{held} held, {taken} taken of {count}");
    }
}
