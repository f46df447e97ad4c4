//! The blob: frames one after the other, counted and hashed.

use std::io::{self, Read, Write};
use std::ops::Range;

use ring::digest::{Context, SHA256};

use crate::Digest;

/// Begins a frame that decoders skip.
const SKIPPABLE: [u8; 4] = 0x184D_2A50_u32.to_le_bytes();

/// A blob that is being written.
pub(super) struct Blob<W> {
    out: Hashed<W>,
    level: i32,
    /// Framing that has no frame yet.
    framing: Vec<u8>,
}

/// Hashes and counts what goes through it.
pub(super) struct Hashed<T> {
    inner: T,
    context: Context,
    count: u64,
}

impl<W: Write> Blob<W> {
    pub(super) fn new(out: W, level: i32) -> Self {
        Self {
            out: Hashed::new(out),
            level,
            framing: Vec::new(),
        }
    }

    /// Adds bytes that are no file's content.
    pub(super) fn framing(&mut self, bytes: &[u8]) {
        self.framing.extend_from_slice(bytes);
    }

    /// Adds a frame with a file's content; says where it is, and what it hashes to.
    pub(super) fn content(
        &mut self,
        content: impl Read,
        size: u64,
    ) -> io::Result<(Range<u64>, Digest)> {
        self.flush_framing()?;
        let start = self.out.count;
        let mut encoder = zstd::Encoder::new(&mut self.out, self.level)?;
        encoder.set_pledged_src_size(Some(size))?;
        let mut content = Hashed::new(content);
        if io::copy(&mut content, &mut encoder)? != size {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        encoder.finish()?;
        Ok((start..self.out.count, content.digest()))
    }

    /// What `bytes` are as a frame of their own.
    pub(super) fn pack(&self, bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut encoder = zstd::Encoder::new(Vec::new(), self.level)?;
        encoder.set_pledged_src_size(Some(bytes.len() as u64))?;
        encoder.write_all(bytes)?;
        encoder.finish()
    }

    /// Adds a frame that decoders skip; says where its content begins.
    pub(super) fn skippable(&mut self, content: &[u8]) -> io::Result<u64> {
        self.flush_framing()?;
        let length = u32::try_from(content.len()).map_err(io::Error::other)?;
        self.out.write_all(&SKIPPABLE)?;
        self.out.write_all(&length.to_le_bytes())?;
        let start = self.out.count;
        self.out.write_all(content)?;
        Ok(start)
    }

    /// The digest of all, and its length.
    pub(super) fn finish(mut self) -> io::Result<(Digest, u64)> {
        self.flush_framing()?;
        self.out.flush()?;
        Ok((self.out.digest(), self.out.count))
    }

    fn flush_framing(&mut self) -> io::Result<()> {
        let framing = std::mem::take(&mut self.framing);
        if framing.is_empty() {
            return Ok(());
        }
        let packed = self.pack(&framing)?;
        self.out.write_all(&packed)
    }
}

impl<T> Hashed<T> {
    pub(super) fn new(inner: T) -> Self {
        Self {
            inner,
            context: Context::new(&SHA256),
            count: 0,
        }
    }

    pub(super) fn digest(&self) -> Digest {
        Digest::from_hash(self.context.clone().finish().as_ref())
    }

    fn note(&mut self, bytes: &[u8]) {
        self.context.update(bytes);
        self.count += bytes.len() as u64;
    }
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.note(&buffer[..count]);
        Ok(count)
    }
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.note(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
