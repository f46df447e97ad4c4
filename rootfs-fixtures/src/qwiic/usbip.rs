//! The device's side of USB/IP, as the kernel's `vhci_hcd` speaks it once a port is attached.
//!
//! Every request is answered before the next is read, so there is never one to unlink.

use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

use nix::errno::Errno;

use super::tiny_usb::{Setup, Stall};

/// Where a port of the first virtual host controller is attached.
pub const ATTACH: &str = "/sys/devices/platform/vhci_hcd.0/attach";

const HEADER: usize = 48;
const CMD_SUBMIT: u32 = 1;
const CMD_UNLINK: u32 = 2;
const RET_SUBMIT: u32 = 3;
const RET_UNLINK: u32 = 4;
/// Full speed, of `enum usb_device_speed`.
const SPEED: u32 = 2;
/// More than any request on the control endpoint carries.
const BUFFER_MAX: u32 = 1 << 16;

/// A request header.
struct Request {
    command: u32,
    sequence: u32,
    is_in: bool,
    length: u32,
    setup: Setup,
}

/// Plugs a device into `port` of the host controller behind `attach`; the stream is its wire.
///
/// # Errors
/// What the system says: `ENOENT` where `vhci-hcd` is not loaded, `EINVAL` where the port is taken.
pub fn plug_in(attach: &Path, port: u32) -> io::Result<UnixStream> {
    let (ours, theirs) = UnixStream::pair()?;
    // Any number that no other port has.
    let device = 1 << 16 | (port + 2);
    let line = format!("{port} {} {device} {SPEED}", theirs.as_raw_fd());
    OpenOptions::new()
        .write(true)
        .open(attach)?
        .write_all(line.as_bytes())?;
    Ok(ours)
}

/// Answers requests with `control` until the host unplugs the device.
///
/// # Errors
/// What the wire says, and `InvalidData` for a request that is none.
pub fn serve(
    mut wire: impl Read + Write,
    mut control: impl FnMut(Setup, &[u8]) -> Result<Vec<u8>, Stall>,
) -> io::Result<()> {
    let mut header = [0; HEADER];
    loop {
        match wire.read_exact(&mut header) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error),
        }
        let request = Request::parse(&header)?;
        let reply = match request.command {
            CMD_SUBMIT => {
                let mut data = Vec::new();
                if !request.is_in {
                    data.resize(usize::try_from(request.length).unwrap_or(0), 0);
                    wire.read_exact(&mut data)?;
                }
                request.submitted(control(request.setup, &data))
            }
            CMD_UNLINK => reply(RET_UNLINK, request.sequence, 0, 0),
            _ => return Err(invalid("an unknown command")),
        };
        wire.write_all(&reply)?;
    }
}

impl Request {
    fn parse(header: &[u8; HEADER]) -> io::Result<Self> {
        let word = |index: usize| {
            let at = index * 4;
            u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
        };
        let mut setup = [0; 8];
        setup.copy_from_slice(&header[HEADER - 8..]);
        let request = Self {
            command: word(0),
            sequence: word(1),
            is_in: word(3) == 1,
            length: word(6),
            setup: Setup::from_bytes(setup),
        };
        if request.command == CMD_SUBMIT && request.length > BUFFER_MAX {
            return Err(invalid("a transfer buffer that is too long"));
        }
        Ok(request)
    }

    fn submitted(&self, answer: Result<Vec<u8>, Stall>) -> Vec<u8> {
        match answer {
            Err(Stall) => reply(RET_SUBMIT, self.sequence, -(Errno::EPIPE as i32), 0),
            Ok(_) if !self.is_in => reply(RET_SUBMIT, self.sequence, 0, self.length),
            Ok(mut bytes) => {
                bytes.truncate(usize::try_from(self.length).unwrap_or(usize::MAX));
                let length = u32::try_from(bytes.len()).unwrap_or(self.length);
                let mut reply = reply(RET_SUBMIT, self.sequence, 0, length);
                reply.append(&mut bytes);
                reply
            }
        }
    }
}

fn reply(command: u32, sequence: u32, status: i32, length: u32) -> Vec<u8> {
    let mut bytes = vec![0; HEADER];
    for (index, word) in [
        (0, command.to_be_bytes()),
        (1, sequence.to_be_bytes()),
        (5, status.to_be_bytes()),
        (6, length.to_be_bytes()),
    ] {
        bytes[index * 4..index * 4 + 4].copy_from_slice(&word);
    }
    bytes
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("the host controller sent {what}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(command: u32, is_in: bool, length: u32, setup: [u8; 8]) -> [u8; HEADER] {
        let mut header = [0; HEADER];
        for (index, word) in [command, 7, 0x0001_0002, u32::from(is_in), 0, 0, length]
            .into_iter()
            .enumerate()
        {
            header[index * 4..index * 4 + 4].copy_from_slice(&word.to_be_bytes());
        }
        header[40..].copy_from_slice(&setup);
        header
    }

    fn exchange(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let (mut host, device) = UnixStream::pair().unwrap();
        host.write_all(bytes).unwrap();
        host.shutdown(std::net::Shutdown::Write).unwrap();
        let result = serve(device, |setup, data| match setup.request {
            1 => Ok(vec![1, 2, 3]),
            2 if data == [8, 9] => Ok(Vec::new()),
            _ => Err(Stall),
        });
        let mut answer = Vec::new();
        host.read_to_end(&mut answer).unwrap();
        result.map(|()| answer)
    }

    #[test]
    fn requests_are_answered_under_their_number() {
        let read = request(CMD_SUBMIT, true, 2, [0xC0, 1, 0, 0, 0, 0, 2, 0]);
        let mut expected = reply(RET_SUBMIT, 7, 0, 2);
        expected.extend([1, 2]);
        assert_eq!(exchange(&read).unwrap(), expected);

        let mut write = request(CMD_SUBMIT, false, 2, [0x40, 2, 0, 0, 0, 0, 2, 0]).to_vec();
        write.extend([8, 9]);
        assert_eq!(exchange(&write).unwrap(), reply(RET_SUBMIT, 7, 0, 2));

        let unknown = request(CMD_SUBMIT, true, 2, [0xC0, 9, 0, 0, 0, 0, 2, 0]);
        assert_eq!(exchange(&unknown).unwrap(), reply(RET_SUBMIT, 7, -32, 0));

        let unlink = request(CMD_UNLINK, false, 0, [0; 8]);
        assert_eq!(exchange(&unlink).unwrap(), reply(RET_UNLINK, 7, 0, 0));
    }

    #[test]
    fn nonsense_ends_the_connection() {
        for header in [
            request(9, false, 0, [0; 8]),
            request(CMD_SUBMIT, false, BUFFER_MAX + 1, [0; 8]),
        ] {
            let error = exchange(&header).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        }
        let cut = request(CMD_SUBMIT, false, 2, [0; 8]);
        assert!(exchange(&cut).is_err(), "the data stage is missing");
    }
}
