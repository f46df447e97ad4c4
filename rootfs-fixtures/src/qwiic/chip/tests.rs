use super::*;

fn at(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn long(chip: &mut Chip, now: Duration, register: u8) -> u32 {
    let mut bytes = [0; 4];
    chip.receive(&[register]);
    chip.send(now, &mut bytes);
    u32::from_le_bytes(bytes)
}

#[test]
fn a_new_chip_has_the_firmwares_defaults() {
    let mut chip = Chip::new();
    let mut map = [0; 34];
    chip.receive(&[register::ID]);
    chip.send(at(0), &mut map);
    for (register, value) in [
        (0x00, 0x5D),
        (0x01, 3),
        (0x02, 1),
        (0x03, 0),
        (0x04, 3),
        (0x05, 10),
        (0x06, 0),
        (0x07, 2),
        (0x10, 2),
        (0x19, 0),
        (0x1A, 1),
        (0x1B, 0),
        (0x1D, 0),
        (0x1F, 0x6F),
        (0x20, 0xFF),
        (0x21, 0xFF),
    ] {
        assert_eq!(map[register], value, "register {register:#04x}");
    }
    assert_eq!(chip.address(), 0x6F);
}

#[test]
fn status_follows_press_release_and_clear() {
    let mut chip = Chip::new();
    assert_eq!(chip.read(at(50), register::STATUS), 0b000);
    chip.press(at(100));
    assert_eq!(chip.read(at(150), register::STATUS), 0b101);
    assert!(chip.interrupt());
    chip.write(register::STATUS, 0);
    assert_eq!(
        chip.read(at(160), register::STATUS),
        0b100,
        "still down, as every read finds out"
    );
    chip.release(at(200));
    assert_eq!(chip.read(at(250), register::STATUS), 0b011);
    chip.write(register::STATUS, 0);
    assert_eq!(chip.read(at(260), register::STATUS), 0b000);
    assert!(!chip.interrupt());
}

#[test]
fn moves_within_the_debounce_time_are_no_events() {
    let mut chip = Chip::new();
    chip.press(at(100));
    chip.release(at(104));
    assert_eq!(
        chip.read(at(200), register::STATUS),
        0b001,
        "up, but not clicked"
    );
    chip.receive(&[register::DEBOUNCE_TIME, 0x00, 0x01]);
    chip.press(at(300));
    assert_eq!(chip.read(at(300), register::CLICKED_QUEUE_STATUS), IS_EMPTY);
    chip.release(at(600));
    assert_eq!(chip.read(at(600), register::STATUS), 0b011);
}

#[test]
fn read_only_bits_stay() {
    for (register, written, expected) in [
        (register::ID, 0, DEVICE_ID),
        (register::FIRMWARE, 9, 3),
        (register::INTERRUPT_CONFIG, 0xFF, 0b11),
        (register::PRESSED_QUEUE_STATUS, 0b110, IS_EMPTY),
        (register::LED_BRIGHTNESS, 0xFF, 0xFF),
        (register::I2C_ADDRESS, 0x20, 0x20),
        (0x40, 1, 0xFF),
    ] {
        let mut chip = Chip::new();
        chip.write(register, written);
        assert_eq!(
            chip.read(at(0), register),
            expected,
            "register {register:#04x}"
        );
    }
}

#[test]
fn writes_run_on_little_endian_and_end_with_the_map() {
    let mut chip = Chip::new();
    chip.receive(&[
        register::LED_BRIGHTNESS,
        255,
        2,
        0xE8,
        0x03,
        0xF4,
        0x01,
        0x30,
        99,
        99,
    ]);
    let led = Led {
        brightness: 255,
        granularity: 2,
        cycle_time: 1000,
        off_time: 500,
    };
    assert_eq!(chip.led(), led);
    assert_eq!(chip.address(), 0x30);
    chip.write(register::I2C_ADDRESS, 0x78);
    assert_eq!(
        chip.address(),
        DEFAULT_ADDRESS,
        "an illegal address is none"
    );
}

#[test]
fn a_read_starts_where_the_last_write_pointed() {
    let mut chip = Chip::new();
    chip.receive(&[register::ID]);
    for _ in 0..2 {
        let mut bytes = [0; 2];
        chip.send(at(0), &mut bytes);
        assert_eq!(bytes, [DEVICE_ID, 3]);
    }
    chip.receive(&[]);
    let mut byte = [0];
    chip.send(at(0), &mut byte);
    assert_eq!(byte, [DEVICE_ID], "the quick command moves nothing");
}

#[test]
fn queues_count_milliseconds_and_pop_the_oldest() {
    let mut chip = Chip::new();
    chip.press(at(1010));
    chip.release(at(2010));
    assert_eq!(chip.read(at(3000), register::PRESSED_QUEUE_STATUS), 0);
    assert_eq!(
        long(&mut chip, at(3000), register::PRESSED_QUEUE),
        1000,
        "youngest"
    );
    assert_eq!(
        long(&mut chip, at(3000), register::PRESSED_QUEUE + 4),
        2000,
        "oldest"
    );
    assert_eq!(long(&mut chip, at(3000), register::CLICKED_QUEUE), 1000);
    chip.write(register::PRESSED_QUEUE_STATUS, POP_REQUEST);
    assert_eq!(long(&mut chip, at(3000), register::PRESSED_QUEUE + 4), 1000);
    chip.write(register::PRESSED_QUEUE_STATUS, POP_REQUEST);
    assert_eq!(
        chip.read(at(3000), register::PRESSED_QUEUE_STATUS),
        IS_EMPTY
    );
    assert_eq!(
        chip.read(at(3000), register::CLICKED_QUEUE_STATUS),
        0,
        "the other queue stays"
    );
}

#[test]
fn a_full_queue_forgets_the_oldest() {
    let mut chip = Chip::new();
    for click in 1..=20 {
        chip.press(at(click * 1000));
        chip.release(at(click * 1000 + 510));
    }
    assert_eq!(
        chip.read(at(21_000), register::CLICKED_QUEUE_STATUS),
        IS_FULL
    );
    assert_eq!(
        long(&mut chip, at(21_000), register::CLICKED_QUEUE + 4),
        21_000 - 6500
    );
}
