//! `stages hash|gunzip|unzstd FILE`: one step of a pull by itself, for `cargo xtask bench pull`.

use std::fs::File;
use std::io::{self, BufReader, Read};

fn main() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [stage, file] = arguments.as_slice() else {
        return Err(io::Error::other("usage: stages hash|gunzip|unzstd FILE"));
    };
    let file = File::open(file)?;
    match stage.as_str() {
        "hash" => hash(file),
        "gunzip" => through(flate2::bufread::MultiGzDecoder::new(BufReader::new(file))),
        "unzstd" => through(zstd::Decoder::new(file)?),
        other => Err(io::Error::other(format!("no stage {other:?}"))),
    }
}

fn hash(mut file: File) -> io::Result<()> {
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    let mut buffer = vec![0; 128 << 10];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            count => context.update(&buffer[..count]),
        }
    }
    assert_eq!(context.finish().as_ref().len(), 32);
    Ok(())
}

/// With the buffer size of the puller.
fn through(mut decoded: impl Read) -> io::Result<()> {
    let mut buffer = vec![0; 128 << 10];
    while decoded.read(&mut buffer)? > 0 {}
    Ok(())
}
