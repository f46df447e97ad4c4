//! Plugs a Qwiic Button into a machine without I2C hardware: `/dev/i2c-1`, through the kernel's
//! `vhci-hcd` and `i2c-tiny-usb`.
//!
//! `qwiic-device FIFO LED`: the lines `press` and `release` that are written to FIFO move the
//! button; LED is a file that says `on` while the LED has any brightness, else `off`. Runs until it
//! is ended, and the button with it.

use std::error::Error;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use kobune_fixtures::qwiic::tiny_usb::{Setup, Stall, TinyUsb};
use kobune_fixtures::qwiic::{BUS, Chip, usbip};
use nix::errno::Errno;
use nix::sys::stat::Mode;

fn main() -> ExitCode {
    let args: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let result = match &args[..] {
        [fifo, led] => run(fifo, led),
        _ => Err("usage: qwiic-device FIFO LED".into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "qwiic-device: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(fifo: &Path, led: &Path) -> Result<(), Box<dyn Error>> {
    match nix::unistd::mkfifo(fifo, Mode::from_bits_truncate(0o600)) {
        Ok(()) | Err(Errno::EEXIST) => {}
        Err(errno) => return Err(format!("make {}: {errno}", fifo.display()).into()),
    }
    // Open for writing too, so that the end of one writer is not the end of all.
    let fifo = OpenOptions::new().read(true).write(true).open(fifo)?;
    let start = Instant::now();
    let button = Arc::new(Mutex::new(TinyUsb::new(Some(Chip::new()))));
    // Adapters are numbered as they come: empty ones go before the button's.
    for port in 0..u32::from(BUS) {
        let empty = Arc::new(Mutex::new(TinyUsb::new(None)));
        plug_in(port, move |setup, data| {
            lock(&empty).control(start.elapsed(), setup, data)
        })?;
        wait_for_node(port)?;
    }
    let lit = Lit::new(led)?;
    let adapter = Arc::clone(&button);
    plug_in(BUS.into(), move |setup, data| {
        let mut adapter = lock(&adapter);
        let answer = adapter.control(start.elapsed(), setup, data);
        lit.show(adapter.chip());
        answer
    })?;
    wait_for_node(BUS.into())?;
    let _ = writeln!(io::stdout(), "Qwiic Button on /dev/i2c-{BUS}");
    listen(fifo, |chip_moves| {
        if let Some(chip) = lock(&button).chip() {
            chip_moves(chip, start.elapsed());
        }
    })
}

fn lock(adapter: &Mutex<TinyUsb>) -> std::sync::MutexGuard<'_, TinyUsb> {
    adapter.lock().unwrap_or_else(PoisonError::into_inner)
}

fn plug_in(
    port: u32,
    control: impl FnMut(Setup, &[u8]) -> Result<Vec<u8>, Stall> + Send + 'static,
) -> Result<(), Box<dyn Error>> {
    let wire = usbip::plug_in(Path::new(usbip::ATTACH), port)
        .map_err(|error| format!("plug into {} port {port}: {error}", usbip::ATTACH))?;
    thread::spawn(move || usbip::serve(wire, control));
    Ok(())
}

/// Waits until the adapter has its node, so that the next one gets the next number.
fn wait_for_node(bus: u32) -> Result<(), Box<dyn Error>> {
    let node = PathBuf::from(format!("/dev/i2c-{bus}"));
    let start = Instant::now();
    while !node.exists() {
        if start.elapsed().as_secs() > 20 {
            return Err(format!("{} does not appear", node.display()).into());
        }
        thread::sleep(std::time::Duration::from_millis(20));
    }
    Ok(())
}

type Move = fn(&mut Chip, std::time::Duration);

fn listen(fifo: File, moved: impl Fn(Move)) -> Result<(), Box<dyn Error>> {
    for line in BufReader::new(fifo).lines() {
        match line?.trim() {
            "press" => moved(Chip::press),
            "release" => moved(Chip::release),
            other => {
                let _ = writeln!(io::stderr(), "qwiic-device: {other:?} is no move");
            }
        }
    }
    Ok(())
}

/// Shows the LED in a file.
struct Lit {
    path: PathBuf,
    shown: Mutex<Option<bool>>,
}

impl Lit {
    fn new(path: &Path) -> io::Result<Self> {
        fs::write(path, "off\n")?;
        Ok(Self {
            path: path.to_owned(),
            shown: Mutex::new(None),
        })
    }

    fn show(&self, chip: Option<&mut Chip>) {
        let on = chip.is_some_and(|chip| chip.led().brightness > 0);
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        if shown.replace(on) != Some(on) {
            let text: &[u8] = if on { b"on\n" } else { b"off\n" };
            if let Err(error) = fs::write(&self.path, text) {
                let _ = writeln!(
                    io::stderr(),
                    "qwiic-device: {}: {error}",
                    self.path.display()
                );
            }
        }
    }
}
