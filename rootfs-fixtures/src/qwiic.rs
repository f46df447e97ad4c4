//! The SparkFun Qwiic Button: its registers as a model, and a driver over any bus that has it.
//!
//! The driver uses SMBus byte and word calls only, which every Linux adapter offers, `i2c-stub` and
//! USB adapters included; `I2C_RDWR` is not among them.

mod adapter;
mod chip;
pub mod tiny_usb;
pub mod usbip;

use std::io;

pub use self::adapter::{Adapter, OpenError, Simulation, open};
pub use self::chip::{Chip, Led};

/// Where the button answers unless it was told otherwise.
pub const DEFAULT_ADDRESS: u8 = 0x6F;
/// What the register [`ID`](register::ID) of every Qwiic Button says.
pub const DEVICE_ID: u8 = 0x5D;
/// The bus that the tutorial's modules use: `/dev/i2c-1`.
pub const BUS: u8 = 1;

/// The register map; values of more than one byte are little-endian.
pub mod register {
    /// Always [`DEVICE_ID`](super::DEVICE_ID).
    pub const ID: u8 = 0x00;
    /// Minor, then major version.
    pub const FIRMWARE: u8 = 0x01;
    /// Bit 0 event available, bit 1 has been clicked, bit 2 is pressed. The host clears by writing 0.
    pub const STATUS: u8 = 0x03;
    /// Bit 0 interrupt on click, bit 1 on press.
    pub const INTERRUPT_CONFIG: u8 = 0x04;
    /// Two bytes, milliseconds.
    pub const DEBOUNCE_TIME: u8 = 0x05;
    /// Bit 0 pop request, bit 1 empty, bit 2 full.
    pub const PRESSED_QUEUE_STATUS: u8 = 0x07;
    /// Four bytes each: milliseconds since the youngest, then since the oldest event.
    pub const PRESSED_QUEUE: u8 = 0x08;
    /// As [`PRESSED_QUEUE_STATUS`].
    pub const CLICKED_QUEUE_STATUS: u8 = 0x10;
    /// As [`PRESSED_QUEUE`].
    pub const CLICKED_QUEUE: u8 = 0x11;
    /// 0 to 255.
    pub const LED_BRIGHTNESS: u8 = 0x19;
    /// How many steps a pulse has.
    pub const LED_PULSE_GRANULARITY: u8 = 0x1A;
    /// Two bytes, milliseconds; 0 is no pulse.
    pub const LED_PULSE_CYCLE_TIME: u8 = 0x1B;
    /// Two bytes, milliseconds.
    pub const LED_PULSE_OFF_TIME: u8 = 0x1D;
    /// 0x08 to 0x77.
    pub const I2C_ADDRESS: u8 = 0x1F;
}

/// Bit 2 of [`register::STATUS`].
const IS_PRESSED: u8 = 1 << 2;

/// The SMBus calls that the driver makes, to one device.
pub trait Bus: Send {
    /// Reads one register.
    ///
    /// # Errors
    /// What the bus says; `ENXIO` when nobody answers at the address.
    fn read_byte(&mut self, register: u8) -> io::Result<u8>;

    /// Writes one register.
    ///
    /// # Errors
    /// As [`Bus::read_byte`].
    fn write_byte(&mut self, register: u8, value: u8) -> io::Result<()>;

    /// Writes two registers, the low byte first.
    ///
    /// # Errors
    /// As [`Bus::read_byte`].
    fn write_word(&mut self, register: u8, value: u16) -> io::Result<()>;
}

/// The driver.
#[derive(Debug)]
pub struct Button<B> {
    bus: B,
}

impl<B: Bus> Button<B> {
    /// A button on `bus`; nothing is sent yet.
    pub fn new(bus: B) -> Self {
        Self { bus }
    }

    /// Whether it is a Qwiic Button that answers.
    ///
    /// # Errors
    /// When nothing answers.
    pub fn is_present(&mut self) -> io::Result<bool> {
        Ok(self.bus.read_byte(register::ID)? == DEVICE_ID)
    }

    /// Whether the button is down at this moment.
    ///
    /// # Errors
    /// What the bus says.
    pub fn is_pressed(&mut self) -> io::Result<bool> {
        Ok(self.bus.read_byte(register::STATUS)? & IS_PRESSED != 0)
    }

    /// Lights the LED steadily at full brightness, or puts it out. Idempotent; an error may leave it
    /// in between.
    ///
    /// # Errors
    /// What the bus says.
    pub fn set_led(&mut self, on: bool) -> io::Result<()> {
        let (brightness, granularity) = if on { (255, 1) } else { (0, 0) };
        self.bus.write_byte(register::LED_BRIGHTNESS, brightness)?;
        self.bus
            .write_byte(register::LED_PULSE_GRANULARITY, granularity)?;
        self.bus.write_word(register::LED_PULSE_CYCLE_TIME, 0)?;
        self.bus.write_word(register::LED_PULSE_OFF_TIME, 0)
    }
}

impl Bus for Box<dyn Bus> {
    fn read_byte(&mut self, register: u8) -> io::Result<u8> {
        self.as_mut().read_byte(register)
    }

    fn write_byte(&mut self, register: u8, value: u8) -> io::Result<()> {
        self.as_mut().write_byte(register, value)
    }

    fn write_word(&mut self, register: u8, value: u16) -> io::Result<()> {
        self.as_mut().write_word(register, value)
    }
}
