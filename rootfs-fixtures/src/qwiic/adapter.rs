//! Opening the bus, or announcing that a model stands in for it.

use std::io;
use std::str::FromStr;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use rppal::i2c::{self, I2c};
use thiserror::Error;

use super::{BUS, Bus, Chip, DEFAULT_ADDRESS};

/// The simulated button changes every so many seconds.
const SIMULATED_CHANGE_SECONDS: u64 = 4;

/// When a model stands in for the button.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Simulation {
    /// Where the machine has no adapter: no `/dev/i2c-1`, or nothing behind it.
    #[default]
    Auto,
    /// In any case.
    Always,
    /// In no case.
    Never,
}

/// What was opened.
#[derive(Debug)]
pub enum Adapter {
    /// The button on the bus.
    Real,
    /// A model, because this error says that there is no adapter.
    NoAdapter(io::Error),
    /// A model, because it was asked for.
    Asked,
}

/// Why neither a bus nor a model was opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The bus is there and cannot be used, or is not there and must not be simulated.
    #[error("opening /dev/i2c-{BUS}")]
    Bus {
        /// What the system said. `EPERM` is what device rules answer.
        #[source]
        source: io::Error,
    },
    /// The text is none of the known modes.
    #[error("QWIIC_SIMULATE is {text:?}, not auto, always or never")]
    Mode {
        /// The text as found.
        text: String,
    },
}

impl FromStr for Simulation {
    type Err = OpenError;

    /// `auto`, `always` or `1`, `never` or `0`, in any case; empty is `auto`.
    fn from_str(text: &str) -> Result<Self, OpenError> {
        match text.to_ascii_lowercase().as_str() {
            "" | "auto" => Ok(Self::Auto),
            "always" | "1" => Ok(Self::Always),
            "never" | "0" => Ok(Self::Never),
            _ => Err(OpenError::Mode {
                text: text.to_owned(),
            }),
        }
    }
}

impl std::fmt::Display for Adapter {
    /// The line that a module must log, so that nobody takes a model for a button.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Real => write!(
                f,
                "Qwiic button on /dev/i2c-{BUS}, address {DEFAULT_ADDRESS:#04x}"
            ),
            Self::NoAdapter(error) => write!(
                f,
                "no I2C adapter at /dev/i2c-{BUS} ({}): using a simulated Qwiic button",
                errno_name(error)
            ),
            Self::Asked => f.write_str("QWIIC_SIMULATE is set: using a simulated Qwiic button"),
        }
    }
}

/// Opens the button at its default address, or a model of it where `simulation` allows.
///
/// Being refused (`EACCES`, `EPERM`) is never a reason to simulate.
///
/// # Errors
/// [`OpenError::Bus`] with what the system said.
pub fn open(simulation: Simulation) -> Result<(Box<dyn Bus>, Adapter), OpenError> {
    if simulation == Simulation::Always {
        return Ok((Box::new(Simulated::new()), Adapter::Asked));
    }
    match open_real() {
        Ok(bus) => Ok((Box::new(bus), Adapter::Real)),
        Err(error) if simulation == Simulation::Auto && means_no_adapter(&error) => {
            Ok((Box::new(Simulated::new()), Adapter::NoAdapter(error)))
        }
        Err(source) => Err(OpenError::Bus { source }),
    }
}

fn open_real() -> io::Result<I2c> {
    let mut bus = I2c::with_bus(BUS).map_err(io_error)?;
    bus.set_slave_address(DEFAULT_ADDRESS.into())
        .map_err(io_error)?;
    Ok(bus)
}

/// The node is missing, or no driver stands behind it.
fn means_no_adapter(error: &io::Error) -> bool {
    matches!(errno(error), Errno::ENOENT | Errno::ENXIO | Errno::ENODEV)
}

fn errno(error: &io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(0))
}

fn errno_name(error: &io::Error) -> String {
    format!("{:?}", errno(error))
}

fn io_error(error: i2c::Error) -> io::Error {
    match error {
        i2c::Error::Io(error) => error,
        other => io::Error::new(io::ErrorKind::Unsupported, other.to_string()),
    }
}

impl Bus for I2c {
    fn read_byte(&mut self, register: u8) -> io::Result<u8> {
        self.smbus_read_byte(register).map_err(io_error)
    }

    fn write_byte(&mut self, register: u8, value: u8) -> io::Result<()> {
        self.smbus_write_byte(register, value).map_err(io_error)
    }

    fn write_word(&mut self, register: u8, value: u16) -> io::Result<()> {
        self.smbus_write_word(register, value).map_err(io_error)
    }
}

/// A chip whose button somebody seems to press and let go.
struct Simulated {
    chip: Chip,
    start: Instant,
}

impl Simulated {
    fn new() -> Self {
        Self {
            chip: Chip::new(),
            start: Instant::now(),
        }
    }

    fn now(&mut self) -> Duration {
        let now = self.start.elapsed();
        if simulated_press(now) {
            self.chip.press(now);
        } else {
            self.chip.release(now);
        }
        now
    }
}

fn simulated_press(now: Duration) -> bool {
    now.as_secs() / SIMULATED_CHANGE_SECONDS % 2 == 1
}

impl Bus for Simulated {
    fn read_byte(&mut self, register: u8) -> io::Result<u8> {
        let now = self.now();
        Ok(self.chip.read(now, register))
    }

    fn write_byte(&mut self, register: u8, value: u8) -> io::Result<()> {
        self.chip.write(register, value);
        Ok(())
    }

    fn write_word(&mut self, register: u8, value: u16) -> io::Result<()> {
        let [low, high] = value.to_le_bytes();
        self.chip.receive(&[register, low, high]);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::qwiic::{Button, Led};

    #[test]
    fn only_a_missing_adapter_is_simulated() {
        for (errno, simulated) in [
            (Errno::ENOENT, true),
            (Errno::ENXIO, true),
            (Errno::ENODEV, true),
            (Errno::EACCES, false),
            (Errno::EPERM, false),
            (Errno::ENOTTY, false),
            (Errno::EIO, false),
        ] {
            assert_eq!(
                means_no_adapter(&io::Error::from(errno)),
                simulated,
                "{errno}"
            );
        }
    }

    #[test]
    fn the_announcement_names_the_error() {
        assert_eq!(
            Adapter::NoAdapter(Errno::ENXIO.into()).to_string(),
            "no I2C adapter at /dev/i2c-1 (ENXIO): using a simulated Qwiic button"
        );
    }

    #[test]
    fn modes_are_read_in_any_case() {
        for (text, mode) in [
            ("", Simulation::Auto),
            ("auto", Simulation::Auto),
            ("1", Simulation::Always),
            ("Always", Simulation::Always),
            ("NEVER", Simulation::Never),
        ] {
            assert_eq!(text.parse::<Simulation>().unwrap(), mode, "{text}");
        }
        let error = "maybe".parse::<Simulation>().unwrap_err().to_string();
        assert!(error.contains("maybe"), "{error}");
    }

    #[test]
    fn the_simulated_button_goes_up_and_down() {
        let states: Vec<_> = (0..10)
            .map(|s| simulated_press(Duration::from_secs(s)))
            .collect();
        assert_eq!(
            states,
            [[false; 4].as_slice(), &[true; 4], &[false; 2]].concat()
        );
    }

    #[test]
    fn the_driver_sees_the_button_and_sets_the_led() {
        let mut simulated = Simulated::new();
        simulated.start = Instant::now().checked_sub(Duration::from_secs(5)).unwrap();
        let mut button = Button::new(simulated);
        assert!(button.is_present().unwrap());
        assert!(button.is_pressed().unwrap());
        let lit = Led {
            brightness: 255,
            granularity: 1,
            cycle_time: 0,
            off_time: 0,
        };
        let dark = Led {
            brightness: 0,
            granularity: 0,
            ..lit
        };
        for (on, led) in [(true, lit), (false, dark)] {
            button.set_led(on).unwrap();
            assert_eq!(button.bus.chip.led(), led);
        }
    }
}
