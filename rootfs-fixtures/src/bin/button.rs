//! The tutorial's `button` module. `LED_URL` says where to post, `QWIIC_SIMULATE` (auto, always,
//! never) whether a model may stand in for the button.

use std::error::Error;
use std::process::ExitCode;

use kobune_fixtures::modules::{Stop, button, log_line};
use kobune_fixtures::qwiic::{self, Button};

fn main() -> ExitCode {
    log_line::finish("button", run())
}

fn run() -> Result<(), Box<dyn Error>> {
    let stop = Stop::listen()?;
    let url = std::env::var("LED_URL").unwrap_or_else(|_| button::DEFAULT_LED_URL.to_owned());
    let url = url.parse()?;
    let simulation = std::env::var("QWIIC_SIMULATE")
        .unwrap_or_default()
        .parse()?;
    let (bus, adapter) = qwiic::open(simulation)?;
    log_line::print(&adapter.to_string());
    button::run(&mut Button::new(bus), &url, &stop, log_line::print)?;
    Ok(())
}
