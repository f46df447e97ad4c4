//! The chip on the button's board, as its firmware 1.3 behaves on the wire. Pure: time is given.
//!
//! Not modelled: the address jumpers, the EEPROM (a new chip has the firmware's defaults) and the
//! clock stretching.

use std::collections::VecDeque;
use std::time::Duration;

use super::{DEFAULT_ADDRESS, DEVICE_ID, register};

/// The length of the register map; reading beyond it gives 0xFF.
const SIZE: usize = 0x20;
/// How many events a queue keeps; the oldest makes room.
const QUEUE_LENGTH: usize = 15;

const EVENT_AVAILABLE: u8 = 1 << 0;
const HAS_BEEN_CLICKED: u8 = 1 << 1;
const IS_PRESSED: u8 = 1 << 2;
const POP_REQUEST: u8 = 1 << 0;
const IS_EMPTY: u8 = 1 << 1;
const IS_FULL: u8 = 1 << 2;

/// Which bits of each register a host may write.
const WRITABLE: [u8; SIZE] = {
    let mut bits = [0; SIZE];
    bits[register::STATUS as usize] = 0b111;
    bits[register::INTERRUPT_CONFIG as usize] = 0b11;
    bits[register::DEBOUNCE_TIME as usize] = 0xFF;
    bits[register::DEBOUNCE_TIME as usize + 1] = 0xFF;
    bits[register::PRESSED_QUEUE_STATUS as usize] = POP_REQUEST;
    bits[register::CLICKED_QUEUE_STATUS as usize] = POP_REQUEST;
    let mut at = register::LED_BRIGHTNESS as usize;
    while at < SIZE {
        bits[at] = 0xFF;
        at += 1;
    }
    bits
};

/// A Qwiic Button. All times are since its power-on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chip {
    map: [u8; SIZE],
    /// The register that the next read starts from.
    pointer: u8,
    down: bool,
    changed: Option<Duration>,
    pressed: VecDeque<Duration>,
    clicked: VecDeque<Duration>,
}

/// What the LED does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Led {
    /// 0 to 255.
    pub brightness: u8,
    /// Steps of a pulse.
    pub granularity: u8,
    /// Milliseconds; 0 is no pulse.
    pub cycle_time: u16,
    /// Milliseconds.
    pub off_time: u16,
}

impl Default for Chip {
    fn default() -> Self {
        Self::new()
    }
}

impl Chip {
    /// A chip that was just powered on, with the button up.
    #[must_use]
    pub fn new() -> Self {
        let mut map = [0; SIZE];
        for (register, value) in [
            (register::ID, DEVICE_ID),
            (register::FIRMWARE, 3),
            (register::FIRMWARE + 1, 1),
            (register::INTERRUPT_CONFIG, 0b11),
            (register::DEBOUNCE_TIME, 10),
            (register::PRESSED_QUEUE_STATUS, IS_EMPTY),
            (register::CLICKED_QUEUE_STATUS, IS_EMPTY),
            (register::LED_PULSE_GRANULARITY, 1),
            (register::I2C_ADDRESS, DEFAULT_ADDRESS),
        ] {
            map[usize::from(register)] = value;
        }
        Self {
            map,
            pointer: 0,
            down: false,
            changed: None,
            pressed: VecDeque::new(),
            clicked: VecDeque::new(),
        }
    }

    /// Somebody pushes the button down. Nothing happens if it is down.
    pub fn press(&mut self, now: Duration) {
        if !std::mem::replace(&mut self.down, true) {
            self.change(now);
        }
    }

    /// Somebody lets the button go. Nothing happens if it is up.
    pub fn release(&mut self, now: Duration) {
        if std::mem::replace(&mut self.down, false) {
            self.change(now);
        }
    }

    /// An I2C write: the register, then the bytes for it and those after it.
    ///
    /// Read-only bits keep their value, bytes beyond the map are lost, and no byte at all (the
    /// SMBus quick command) changes nothing.
    pub fn receive(&mut self, bytes: &[u8]) {
        let Some((&pointer, values)) = bytes.split_first() else {
            return;
        };
        self.pointer = pointer;
        for (at, value) in (usize::from(pointer)..SIZE).zip(values) {
            self.map[at] = (self.map[at] & !WRITABLE[at]) | (value & WRITABLE[at]);
        }
        for (status, queue) in [
            (register::PRESSED_QUEUE_STATUS, &mut self.pressed),
            (register::CLICKED_QUEUE_STATUS, &mut self.clicked),
        ] {
            let status = &mut self.map[usize::from(status)];
            if *status & POP_REQUEST != 0 {
                queue.pop_front();
                *status = queue_status(queue);
            }
        }
    }

    /// An I2C read: the registers from the one that was written last. A second read starts there
    /// again.
    pub fn send(&mut self, now: Duration, bytes: &mut [u8]) {
        let status = &mut self.map[usize::from(register::STATUS)];
        *status = (*status & !IS_PRESSED) | if self.down { IS_PRESSED } else { 0 };
        for (register, queue) in [
            (register::PRESSED_QUEUE, &self.pressed),
            (register::CLICKED_QUEUE, &self.clicked),
        ] {
            for (register, event) in [(register, queue.back()), (register + 4, queue.front())] {
                let since = now.saturating_sub(event.copied().unwrap_or_default());
                let at = usize::from(register);
                self.map[at..at + 4].copy_from_slice(&milliseconds(since).to_le_bytes());
            }
        }
        for (at, byte) in (usize::from(self.pointer)..).zip(bytes) {
            *byte = self.map.get(at).copied().unwrap_or(0xFF);
        }
    }

    /// An SMBus read of one register.
    pub fn read(&mut self, now: Duration, register: u8) -> u8 {
        let mut value = [0];
        self.receive(&[register]);
        self.send(now, &mut value);
        value[0]
    }

    /// An SMBus write of one register.
    pub fn write(&mut self, register: u8, value: u8) {
        self.receive(&[register, value]);
    }

    /// The address that it answers at: the register if that holds a legal one, else the default.
    #[must_use]
    pub fn address(&self) -> u8 {
        match self.map[usize::from(register::I2C_ADDRESS)] {
            legal @ 0x08..=0x77 => legal,
            _ => DEFAULT_ADDRESS,
        }
    }

    /// What the LED does.
    #[must_use]
    pub fn led(&self) -> Led {
        Led {
            brightness: self.map[usize::from(register::LED_BRIGHTNESS)],
            granularity: self.map[usize::from(register::LED_PULSE_GRANULARITY)],
            cycle_time: self.word(register::LED_PULSE_CYCLE_TIME),
            off_time: self.word(register::LED_PULSE_OFF_TIME),
        }
    }

    /// Whether the interrupt line is pulled low.
    #[must_use]
    pub fn interrupt(&self) -> bool {
        let status = self.map[usize::from(register::STATUS)];
        let config = self.map[usize::from(register::INTERRUPT_CONFIG)];
        (status & HAS_BEEN_CLICKED != 0 && config & 0b01 != 0)
            || (status & IS_PRESSED != 0 && config & 0b10 != 0)
    }

    /// The button moved: both directions count as events of the pressed queue, as in the firmware.
    fn change(&mut self, now: Duration) {
        let debounce = Duration::from_millis(self.word(register::DEBOUNCE_TIME).into());
        if self
            .changed
            .is_some_and(|changed| now.saturating_sub(changed) < debounce)
        {
            return;
        }
        self.changed = Some(now);
        let happened = now.saturating_sub(debounce);
        let status = &mut self.map[usize::from(register::STATUS)];
        *status |= EVENT_AVAILABLE;
        push(&mut self.pressed, happened);
        if self.down {
            *status |= IS_PRESSED;
        } else {
            *status = (*status & !IS_PRESSED) | HAS_BEEN_CLICKED;
            push(&mut self.clicked, happened);
        }
        self.map[usize::from(register::PRESSED_QUEUE_STATUS)] = queue_status(&self.pressed);
        self.map[usize::from(register::CLICKED_QUEUE_STATUS)] = queue_status(&self.clicked);
    }

    fn word(&self, register: u8) -> u16 {
        let at = usize::from(register);
        u16::from_le_bytes([self.map[at], self.map[at + 1]])
    }
}

fn push(queue: &mut VecDeque<Duration>, event: Duration) {
    if queue.len() == QUEUE_LENGTH {
        queue.pop_front();
    }
    queue.push_back(event);
}

fn queue_status(queue: &VecDeque<Duration>) -> u8 {
    match queue.len() {
        0 => IS_EMPTY,
        QUEUE_LENGTH => IS_FULL,
        _ => 0,
    }
}

/// The chip's counter is 32 bits wide and starts again after 49 days.
fn milliseconds(time: Duration) -> u32 {
    (time.as_millis() & u128::from(u32::MAX))
        .try_into()
        .expect("invariant: masked to 32 bits")
}

#[cfg(test)]
mod tests;
