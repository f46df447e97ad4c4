use bytes::BytesMut;
use proptest::prelude::*;

use super::*;

fn read(bytes: &[u8]) -> Result<Option<Packet>, PacketError> {
    decode(&mut BytesMut::from(bytes))
}

/// A packet of `first` and `body`.
fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first, u8::try_from(body.len()).unwrap()];
    bytes.extend_from_slice(body);
    bytes
}

const CONNECT: &[u8] = b"\0\x04MQTT\x04\xc4\0\x3c\0\x03d/m\0\x01w\0\x02hi\0\x01u\0\x02pw";

#[test]
fn connect_is_read_with_will_and_credentials() {
    let expected = Connect {
        client_id: "d/m".into(),
        clean_session: false,
        username: Some("u".into()),
        password: Some(b"pw".to_vec()),
        keep_alive: 60,
        will: Some(("w".into(), b"hi".to_vec())),
    };
    let read = read(&packet(0x10, CONNECT)).unwrap();
    assert_eq!(read, Some(Packet::Connect(expected.clone())));
    assert!(!format!("{expected:?}").contains("pw"));
}

#[test]
fn a_packet_is_read_once_it_is_complete() {
    let whole = packet(0x10, CONNECT);
    for end in 0..whole.len() {
        assert_eq!(read(&whole[..end]), Ok(None), "{end}");
    }
    let mut two = BytesMut::from(&whole[..]);
    two.extend_from_slice(&[0xc0, 0, 0xe0]);
    assert!(matches!(decode(&mut two), Ok(Some(Packet::Connect(_)))));
    assert_eq!(decode(&mut two), Ok(Some(Packet::PingReq)));
    assert_eq!(decode(&mut two), Ok(None));
}

#[test]
fn messages_and_subscriptions_are_read() {
    let publish = |id, retain| {
        Packet::Publish(Publish {
            id,
            retain,
            topic: "t".into(),
            payload: b"x".to_vec(),
        })
    };
    let cases = [
        (packet(0x30, b"\0\x01tx"), publish(None, false)),
        (packet(0x3b, b"\0\x01t\0\x07x"), publish(Some(7), true)),
        (packet(0x40, b"\0\x07"), Packet::PubAck),
        (
            packet(0x82, b"\0\x01\0\x01a\x02\0\x01b\0"),
            Packet::Subscribe {
                id: 1,
                filters: vec![("a".into(), 2), ("b".into(), 0)],
            },
        ),
        (
            packet(0xa2, b"\0\x02\0\x01a"),
            Packet::Unsubscribe {
                id: 2,
                filters: vec!["a".into()],
            },
        ),
        (packet(0xe0, b""), Packet::Disconnect),
    ];
    for (bytes, expected) in cases {
        assert_eq!(read(&bytes), Ok(Some(expected)));
    }
}

#[test]
fn what_is_not_in_the_protocol_is_refused() {
    use PacketError::{Malformed, Protocol, Qos, TooLarge, Type};
    let v5 = || Protocol {
        name: "MQTT".into(),
        level: 5,
    };
    let cases = [
        (packet(0x34, b"\0\x01t\0\x07x"), Qos(2)),
        (packet(0x20, b"\0\0"), Type(2)),
        (packet(0x10, b"\0\x04MQTT\x05"), v5()),
        (packet(0x80, b"\0\x01\0\x01a\0"), Malformed("flags")),
        (packet(0x82, b"\0\x01"), Malformed("list of filters")),
        (packet(0x82, b"\0\0\0\x01a\0"), Malformed("packet id")),
        (packet(0x82, b"\0\x01\0\x01a\x03"), Malformed("QoS")),
        (packet(0x82, b"\0\x01\0\x09a\0"), Malformed("filter")),
        (packet(0x30, b"\0\x01#x"), Malformed("topic")),
        (packet(0x30, b"\0\x01\xffx"), Malformed("topic")),
        (packet(0xc0, b"x"), Malformed("length")),
        (
            vec![0x30, 255, 255, 255, 255, 1],
            Malformed("remaining length"),
        ),
        (vec![0x30, 255, 255, 255, 127], TooLarge(268_435_455)),
    ];
    for (bytes, expected) in cases {
        assert_eq!(read(&bytes), Err(expected));
    }
}

#[test]
fn packets_for_clients_are_as_the_standard_has_them() {
    assert_eq!(conn_ack(ConnectCode::NotAuthorized, false), [0x20, 2, 0, 5]);
    assert_eq!(conn_ack(ConnectCode::Accepted, true), [0x20, 2, 1, 0]);
    assert_eq!(publish("a/b", b"hi"), b"\x30\x07\0\x03a/bhi");
    assert_eq!(pub_ack(258), [0x40, 2, 1, 2]);
    assert_eq!(sub_ack(1, [0, 1, 2].into_iter()), [0x90, 5, 0, 1, 0, 1, 1]);
    assert_eq!(unsub_ack(1), [0xb0, 2, 0, 1]);
    assert_eq!(ping_resp(), [0xd0, 0]);
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        let _ = read(&bytes);
    }

    #[test]
    fn messages_of_any_size_are_read_back(size in 0_usize..70_000) {
        let payload = vec![7; size];
        let read = read(&publish("t", &payload)).unwrap();
        let expected = Publish { id: None, retain: false, topic: "t".into(), payload };
        prop_assert_eq!(read, Some(Packet::Publish(expected)));
    }
}
