//! An `i2c-tiny-usb` adapter, as the kernel driver of that name sees it. Pure: time is given.
//!
//! With USB/IP ([`super::usbip`]) it gives a machine without any I2C hardware a true adapter,
//! `/dev/i2c-N`, with a Qwiic Button behind it.

use std::time::Duration;

use super::Chip;

/// A control request: the setup packet of USB 2.0, section 9.3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setup {
    /// Direction in bit 7, type in bits 5 and 6.
    pub request_type: u8,
    /// Which request.
    pub request: u8,
    /// Its first argument.
    pub value: u16,
    /// Its second argument.
    pub index: u16,
    /// Most bytes of the data stage.
    pub length: u16,
}

/// The request is not known to the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stall;

/// The adapter, with a button or nothing behind it.
#[derive(Clone, Debug)]
pub struct TinyUsb {
    chip: Option<Chip>,
    acknowledged: bool,
}

const DIRECTION_IN: u8 = 0x80;
const TYPE_MASK: u8 = 0x60;
const TYPE_VENDOR: u8 = 0x40;

const GET_STATUS: u8 = 0;
const SET_ADDRESS: u8 = 5;
const GET_DESCRIPTOR: u8 = 6;
const GET_CONFIGURATION: u8 = 8;
const SET_CONFIGURATION: u8 = 9;
const SET_INTERFACE: u8 = 11;

const ECHO: u8 = 0;
const GET_FUNCTIONALITY: u8 = 1;
const SET_DELAY: u8 = 2;
const GET_BUS_STATUS: u8 = 3;
/// Bit 0 begins a transfer, bit 1 ends it: 4 to 7.
const TRANSFER: u8 = 4;
const TRANSFER_BITS: u8 = 0b11;
/// `I2C_M_RD` in the value of a transfer.
const READ: u16 = 1;

/// `I2C_FUNC_I2C` and what the kernel emulates of SMBus over it.
const FUNCTIONALITY: u32 = 0x0EFF_0001;
const ADDRESS_ACKNOWLEDGED: u8 = 1;
const ADDRESS_REFUSED: u8 = 2;

/// USB 1.1, vendor-specific, FTDI's vendor and the adapter's product number.
const DEVICE_DESCRIPTOR: [u8; 18] = [
    18, 1, 0x10, 0x01, 0xFF, 0, 0, 8, 0x03, 0x04, 0x31, 0xC6, 0, 1, 0, 0, 0, 1,
];
/// One configuration, bus powered, 100 mA, with one interface and no endpoint but the first.
const CONFIGURATION_DESCRIPTOR: [u8; 18] =
    [9, 2, 18, 0, 1, 1, 0, 0x80, 50, 9, 4, 0, 0, 0, 0xFF, 0, 0, 0];

impl Setup {
    /// From the eight bytes on the wire.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 8]) -> Self {
        let word = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        Self {
            request_type: bytes[0],
            request: bytes[1],
            value: word(2),
            index: word(4),
            length: word(6),
        }
    }

    /// Whether the data stage goes to the host.
    #[must_use]
    pub fn is_in(&self) -> bool {
        self.request_type & DIRECTION_IN != 0
    }
}

impl TinyUsb {
    /// An adapter whose bus has `chip`, or no device.
    #[must_use]
    pub fn new(chip: Option<Chip>) -> Self {
        Self {
            chip,
            acknowledged: false,
        }
    }

    /// The chip on the bus.
    pub fn chip(&mut self) -> Option<&mut Chip> {
        self.chip.as_mut()
    }

    /// Answers a request on the control endpoint: the data stage to the host, which is empty
    /// for requests that go out with `data`.
    ///
    /// # Errors
    /// [`Stall`] for requests that the adapter does not know.
    pub fn control(&mut self, now: Duration, setup: Setup, data: &[u8]) -> Result<Vec<u8>, Stall> {
        let mut answer = if setup.request_type & TYPE_MASK == TYPE_VENDOR {
            self.vendor(now, setup, data)?
        } else {
            standard(setup)?
        };
        answer.truncate(setup.length.into());
        Ok(answer)
    }

    fn vendor(&mut self, now: Duration, setup: Setup, data: &[u8]) -> Result<Vec<u8>, Stall> {
        match setup.request {
            ECHO => Ok(setup.value.to_le_bytes().to_vec()),
            GET_FUNCTIONALITY => Ok(FUNCTIONALITY.to_le_bytes().to_vec()),
            SET_DELAY => Ok(Vec::new()),
            GET_BUS_STATUS => Ok(vec![if self.acknowledged {
                ADDRESS_ACKNOWLEDGED
            } else {
                ADDRESS_REFUSED
            }]),
            transfer if transfer & !TRANSFER_BITS == TRANSFER => {
                Ok(self.transfer(now, setup, data))
            }
            _ => Err(Stall),
        }
    }

    /// A read or write on the bus; how it went is in the bus status.
    fn transfer(&mut self, now: Duration, setup: Setup, data: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        if setup.is_in() {
            bytes.resize(setup.length.into(), 0);
        }
        let addressed = |chip: &&mut Chip| u16::from(chip.address()) == setup.index;
        let Some(chip) = self.chip.as_mut().filter(addressed) else {
            self.acknowledged = false;
            return bytes;
        };
        self.acknowledged = true;
        if setup.value & READ != 0 {
            chip.send(now, &mut bytes);
        } else {
            chip.receive(data);
        }
        bytes
    }
}

fn standard(setup: Setup) -> Result<Vec<u8>, Stall> {
    let [index, kind] = setup.value.to_le_bytes();
    match (setup.request, kind, index) {
        (GET_STATUS, ..) => Ok(vec![0, 0]),
        (GET_DESCRIPTOR, 1, 0) => Ok(DEVICE_DESCRIPTOR.to_vec()),
        (GET_DESCRIPTOR, 2, 0) => Ok(CONFIGURATION_DESCRIPTOR.to_vec()),
        (GET_CONFIGURATION, ..) => Ok(vec![1]),
        (SET_ADDRESS | SET_CONFIGURATION | SET_INTERFACE, ..) => Ok(Vec::new()),
        _ => Err(Stall),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::qwiic::{DEVICE_ID, register};

    const NOW: Duration = Duration::from_secs(1);

    fn transfer(adapter: &mut TinyUsb, address: u16, read: u16, data: &[u8]) -> (Vec<u8>, u8) {
        let setup = Setup {
            request_type: TYPE_VENDOR | if read > 0 { DIRECTION_IN } else { 0 },
            request: TRANSFER | TRANSFER_BITS,
            value: u16::from(read > 0),
            index: address,
            length: read.max(u16::try_from(data.len()).unwrap()),
        };
        let bytes = adapter.control(NOW, setup, data).unwrap();
        let status = Setup {
            request: GET_BUS_STATUS,
            request_type: TYPE_VENDOR | DIRECTION_IN,
            length: 1,
            ..setup
        };
        (bytes, adapter.control(NOW, status, &[]).unwrap()[0])
    }

    #[test]
    fn transfers_reach_the_chip_at_its_address_only() {
        let mut adapter = TinyUsb::new(Some(Chip::new()));
        let written = transfer(&mut adapter, 0x6F, 0, &[register::ID]);
        assert_eq!(written, (vec![], ADDRESS_ACKNOWLEDGED));
        let read = transfer(&mut adapter, 0x6F, 1, &[]);
        assert_eq!(read, (vec![DEVICE_ID], ADDRESS_ACKNOWLEDGED));
        let nobody = transfer(&mut adapter, 0x20, 2, &[]);
        assert_eq!(nobody, (vec![0, 0], ADDRESS_REFUSED));
        transfer(&mut adapter, 0x6F, 0, &[register::LED_BRIGHTNESS, 200]);
        assert_eq!(adapter.chip().unwrap().led().brightness, 200);
    }

    #[test]
    fn an_empty_bus_refuses_every_address() {
        let mut adapter = TinyUsb::new(None);
        for address in 0..0x80 {
            assert_eq!(transfer(&mut adapter, address, 1, &[]).1, ADDRESS_REFUSED);
        }
    }

    #[test]
    fn descriptors_are_cut_to_what_was_asked() {
        let mut adapter = TinyUsb::new(None);
        let mut setup = Setup::from_bytes([0x80, GET_DESCRIPTOR, 0, 1, 0, 0, 8, 0]);
        assert_eq!(
            adapter.control(NOW, setup, &[]).unwrap(),
            DEVICE_DESCRIPTOR[..8]
        );
        setup.value = 0x0300;
        assert_eq!(adapter.control(NOW, setup, &[]), Err(Stall));
    }
}
