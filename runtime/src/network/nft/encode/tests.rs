//! The wire format byte by byte, as a little endian machine writes it.

use super::*;

#[test]
fn a_batch_is_framed_and_only_its_last_message_asks_for_an_answer() {
    let mut batch = Batch::new();
    batch.add_table("t");
    batch.delete_table("t");
    let (bytes, last) = batch.finish();
    let marker = |kind, sequence| {
        [
            20, 0, 0, 0, kind, 0, 1, 0, sequence, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10,
        ]
    };
    let table = |kind, flags: [u8; 2], sequence| {
        let header = [
            28, 0, 0, 0, kind, 10, flags[0], flags[1], sequence, 0, 0, 0, 0, 0, 0, 0,
        ];
        [&header[..], &[2, 0, 0, 0, 6, 0, 1, 0, b't', 0, 0, 0]].concat()
    };
    let expected = [
        marker(0x10, 1).to_vec(),
        table(0, [1, 4], 2),
        table(2, [5, 0], 3),
        marker(0x11, 4).to_vec(),
    ];
    assert_eq!(bytes, expected.concat());
    assert_eq!(last, 3);
}

#[test]
fn comments_are_bounded() {
    assert_eq!(user_data("led"), [0, 4, b'l', b'e', b'd', 0]);
    assert_eq!(user_data(&"x".repeat(300)).len(), 2 + 128);
}
