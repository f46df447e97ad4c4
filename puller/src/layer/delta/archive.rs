//! A layer's archive, put together from its framing, files that are here, and what is fetched. The
//! bytes are those of the archive that the image's configuration names, or they are refused: here by
//! their number, by the caller by their digest.

use std::fs::File;
use std::io::{self, BufRead, Read};

use tokio::sync::mpsc;
use zstd::stream::raw::{Decoder, InBuffer, Operation, OutBuffer};
use zstd::zstd_safe::DParameter;

use super::plan::Source;
use super::split;
use super::toc::Content;
use crate::layer::{Bytes, MAX_WINDOW_LOG, Piece};
use crate::unpack::LayerFiles;

/// One layer's archive, read forward.
pub(super) struct Archive<'a, L> {
    /// The framing.
    lines: L,
    contents: std::slice::Iter<'a, Content>,
    sources: std::slice::Iter<'a, Source>,
    arrivals: Arrivals,
    files: LayerFiles,
    decoder: Decoder<'static>,
    state: State,
}

/// What is read now.
enum State {
    Framing(io::Cursor<Vec<u8>>),
    Here(io::Take<File>),
    /// A file of which so many bytes are still in the blob, and so many to be given out.
    Fetched {
        packed: u64,
        left: u64,
    },
    Between,
}

/// Bytes of the blob, as they come through the channel.
pub(super) struct Arrivals {
    pieces: mpsc::Receiver<Piece>,
    current: io::Cursor<Bytes>,
}

impl<'a, L: BufRead> Archive<'a, L> {
    /// `sources` are where `contents` come from, in the same order.
    pub(super) fn new(
        lines: L,
        (contents, sources): (&'a [Content], &'a [Source]),
        arrivals: Arrivals,
    ) -> io::Result<Self> {
        let mut decoder = Decoder::new()?;
        decoder.set_parameter(DParameter::WindowLogMax(MAX_WINDOW_LOG))?;
        Ok(Self {
            lines,
            contents: contents.iter(),
            sources: sources.iter(),
            arrivals,
            files: LayerFiles::new(),
            decoder,
            state: State::Between,
        })
    }

    /// Goes on to the next piece; false at the end.
    fn advance(&mut self) -> io::Result<bool> {
        self.state = match split::next(&mut self.lines)? {
            Some(split::Piece::Framing(bytes)) => State::Framing(io::Cursor::new(bytes)),
            Some(split::Piece::Content(size)) => self.content(size)?,
            None if self.contents.next().is_none() => return Ok(false),
            None => {
                return Err(io::Error::other(
                    "the framing has fewer files than the table",
                ));
            }
        };
        Ok(true)
    }

    fn content(&mut self, size: u64) -> io::Result<State> {
        let content = self.contents.next().filter(|content| content.size == size);
        let source = self.sources.next();
        let (Some(_), Some(source)) = (content, source) else {
            return Err(io::Error::other(
                "the framing has other files than the table",
            ));
        };
        match source {
            Source::Here(place) => Ok(State::Here(place.open(&mut self.files)?.take(size))),
            Source::Fetched { skip, length } => {
                self.arrivals.skip(*skip)?;
                self.decoder.reinit()?;
                Ok(State::Fetched {
                    packed: *length,
                    left: size,
                })
            }
        }
    }
}

impl<L: BufRead> Read for Archive<'_, L> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            let count = match &mut self.state {
                State::Framing(bytes) => bytes.read(buffer)?,
                State::Here(file) => match file.read(buffer)? {
                    0 if file.limit() > 0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                    count => count,
                },
                State::Fetched { packed, left } if *left > 0 => {
                    let want = usize::try_from(*left).map_or(buffer.len(), |n| n.min(buffer.len()));
                    let buffer = &mut buffer[..want];
                    let count = decode(&mut self.decoder, &mut self.arrivals, packed, buffer)?;
                    *left -= count as u64;
                    count
                }
                State::Fetched { packed, .. } => {
                    self.arrivals.skip(std::mem::take(packed))?;
                    0
                }
                State::Between => 0,
            };
            if count > 0 {
                return Ok(count);
            }
            if !self.advance()? {
                return Ok(0);
            }
        }
    }
}

/// Unpacks at least one byte of a file of which `packed` bytes are still to come.
fn decode(
    decoder: &mut Decoder<'static>,
    arrivals: &mut Arrivals,
    packed: &mut u64,
    buffer: &mut [u8],
) -> io::Result<usize> {
    loop {
        let available = if *packed == 0 {
            &[]
        } else {
            arrivals.fill_buf()?
        };
        let length = usize::try_from(*packed).map_or(available.len(), |n| n.min(available.len()));
        let mut input = InBuffer::around(&available[..length]);
        let mut output = OutBuffer::around(&mut *buffer);
        decoder.run(&mut input, &mut output)?;
        let (used, count) = (input.pos(), output.pos());
        arrivals.consume(used);
        *packed -= used as u64;
        if count > 0 {
            return Ok(count);
        }
        if used == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

impl Arrivals {
    pub(super) fn new(pieces: mpsc::Receiver<Piece>) -> Self {
        Self {
            pieces,
            current: io::Cursor::default(),
        }
    }

    fn skip(&mut self, mut count: u64) -> io::Result<()> {
        while count > 0 {
            let available = self.fill_buf()?.len();
            let step = usize::try_from(count).map_or(available, |count| count.min(available));
            self.consume(step);
            count -= step as u64;
        }
        Ok(())
    }

    /// The next bytes, never empty.
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.current.fill_buf()?.is_empty() {
            match self.pieces.blocking_recv() {
                Some(Piece::Data(bytes)) => self.current = io::Cursor::new(bytes),
                Some(Piece::End) => return Err(io::ErrorKind::UnexpectedEof.into()),
                None => return Err(io::ErrorKind::ConnectionAborted.into()),
            }
        }
        self.current.fill_buf()
    }

    fn consume(&mut self, count: usize) {
        self.current.consume(count);
    }
}
