//! The corpus, and changes to it from a fixed seed: the same in every run. `KOBUNE_FUZZ_SECONDS`
//! makes each target go on for so long instead, from a seed of its own.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use super::*;

/// Changed inputs for each target in an ordinary run.
const CHANGES: u64 = 200;
/// Largest input.
const LONGEST: usize = 256 << 10;

/// xorshift64* (Marsaglia; Vigna).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() >> 33).map_or(0, |number| number % end.max(1))
    }
}

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let entries = fs::read_dir(directory.join(target)).expect(target);
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "{target}");
    let read = |path: &PathBuf| fs::read(path).expect("an input");
    paths.iter().map(read).collect()
}

/// A few changes of the kinds that find faults in parsers.
fn changed(seeds: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut data = seeds[random.below(seeds.len())].clone();
    for _ in 0..=random.below(4) {
        let at = random.below(data.len());
        match random.below(8) {
            _ if data.is_empty() => data.push(0),
            0 => data[at] ^= 1 << random.below(8),
            1 => data[at] = [0, 1, b'/', b'.', b'7', b'"', 0x7f, 0xff][random.below(8)],
            2 => data.truncate(at),
            3 => {
                let other = &seeds[random.below(seeds.len())];
                let from = random.below(other.len());
                data.truncate(at);
                data.extend(&other[from..]);
            }
            // Whole blocks, as archives have them.
            4 => {
                let (from, to) = (at / 512 * 512, random.below(data.len()) / 512 * 512);
                let block = data[from..data.len().min(from + 512)].to_vec();
                data.splice(to..to, block);
            }
            5 => {
                let length = random.below(16).min(data.len() - at);
                data.drain(at..at + length);
            }
            6 => {
                let length = random.below(40).min(data.len() - at);
                let piece = data[at..at + length].to_vec();
                data.splice(at..at, piece);
            }
            _ => {
                let digits = b"01234567".map(|digit| digit ^ u8::from(random.below(2) == 0));
                let length = digits.len().min(data.len() - at);
                data[at..at + length].copy_from_slice(&digits[..length]);
            }
        }
    }
    data.truncate(LONGEST);
    data
}

/// Gives headers that were changed the checksum they need to be looked at.
fn with_checksums(mut data: Vec<u8>) -> Vec<u8> {
    for block in data.chunks_exact_mut(512) {
        if &block[257..262] == b"ustar" {
            block[148..156].fill(b' ');
            let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
            block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
    }
    data
}

fn packed(target: &str, data: Vec<u8>) -> Vec<u8> {
    match target {
        "gzip" => {
            let mut encoder =
                flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            io::Write::write_all(&mut encoder, &data).expect("in memory");
            encoder.finish().expect("in memory")
        }
        "zstd" => ::zstd::encode_all(data.as_slice(), 1).expect("in memory"),
        _ => data,
    }
}

/// The most memory this process had, in KiB.
fn peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("a status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let words = line.and_then(|line| line.split_whitespace().next());
    words.and_then(|word| word.parse().ok()).expect("a number")
}

fn run(name: &str) {
    let (_, target) = TARGETS
        .into_iter()
        .find(|(known, _)| *known == name)
        .expect("a target");
    let seeds = corpus(name);
    seeds.iter().for_each(|seed| target(seed));
    let archives = corpus("archive");
    let seconds = std::env::var("KOBUNE_FUZZ_SECONDS").ok();
    let seconds = seconds.and_then(|seconds| seconds.parse().ok());
    let long: Option<Duration> = seconds.map(Duration::from_secs);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let seed = match long {
        Some(_) => now.map_or(1, |now| u64::from(now.subsec_nanos()) << 20) | 1,
        None => 0x9E37_79B9_7F4A_7C15,
    };
    let (mut random, begin, before, mut count) = (Random(seed), Instant::now(), peak(), 0);
    while long.map_or(count < CHANGES, |long| begin.elapsed() < long) {
        let inside = matches!(name, "gzip" | "zstd") && random.below(2) == 0;
        let data = match name {
            "archive" => with_checksums(changed(&seeds, &mut random)),
            _ if inside => packed(name, with_checksums(changed(&archives, &mut random))),
            _ => changed(&seeds, &mut random),
        };
        let caught = std::panic::catch_unwind(|| target(&data));
        if caught.is_err() {
            let path = std::env::temp_dir().join(format!("kobune-{name}-fault"));
            fs::write(&path, &data).expect("kept");
            panic!(
                "{name}: input {count} of seed {seed}, kept as {}",
                path.display()
            );
        }
        count += 1;
    }
    if long.is_some() {
        let grown = peak() - before;
        println!("{name}: {count} inputs, {grown} KiB more at the most");
        assert!(grown < 64 << 10, "{name} took {grown} KiB");
    }
}

#[test]
fn archives_that_are_changed_stay_inside_and_are_read_or_refused() {
    run("archive");
}

#[test]
fn compressed_layers_that_are_changed_are_read_or_refused() {
    run("gzip");
    run("zstd");
}

#[test]
fn documents_and_headers_that_are_changed_are_read_or_refused() {
    for name in [
        "manifest",
        "challenge",
        "reference",
        "pax",
        "signature",
        "delta",
    ] {
        run(name);
    }
}
