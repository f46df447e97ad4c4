//! The tutorial's `led` module. `PORT` says where to listen, 80 unless set; `QWIIC_SIMULATE` (auto,
//! always, never) whether a model may stand in for the button.

use std::error::Error;
use std::net::{Ipv4Addr, TcpListener};
use std::process::ExitCode;

use kobune_fixtures::modules::{Stop, led, log_line};
use kobune_fixtures::qwiic::{self, Button};

fn main() -> ExitCode {
    log_line::finish("led", run())
}

fn run() -> Result<(), Box<dyn Error>> {
    let stop = Stop::listen()?;
    let port = std::env::var("PORT").unwrap_or_else(|_| "80".to_owned());
    let port: u16 = port
        .parse()
        .map_err(|_| format!("PORT is {port:?}, not a port number"))?;
    let simulation = std::env::var("QWIIC_SIMULATE")
        .unwrap_or_default()
        .parse()?;
    let (bus, adapter) = qwiic::open(simulation)?;
    log_line::print(&adapter.to_string());
    let led = led::Led::new(Button::new(bus))?;
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))
        .map_err(|error| format!("listening on port {port}: {error}"))?;
    log_line::print(&format!("listening on {}", listener.local_addr()?));
    led::run(led, &listener, &stop, log_line::print)?;
    Ok(())
}
