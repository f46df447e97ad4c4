//! Forgetting tracked UDP flows.
//!
//! Rules that rewrite addresses are asked once per flow, and a sender that never pauses
//! keeps its flow for ever. One that was tracked before the port was published would never
//! reach the module, and one to an earlier publisher would go on to where that was.

use std::io;

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP};

use super::netlink::attributes::find;
use super::netlink::{Netlink, netfilter_message};

const NFNL_SUBSYS_CTNETLINK: u16 = 1;
const IPCTNL_MSG_CT_GET: u16 = 1;
const IPCTNL_MSG_CT_DELETE: u16 = 2;
const NFPROTO_IPV4: u8 = 2;
/// Bytes of the netfilter header before the attributes.
const NFGENMSG: usize = 4;

const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_ZONE: u16 = 18;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_DST_PORT: u16 = 3;
const UDP: u8 = 17;

/// Forgets every tracked IPv4 flow that was sent to one of the UDP `ports` of the host or
/// of any other; one that is still in use is tracked anew, by the rules as they are now.
pub(crate) fn forget_udp(ports: &[u16]) -> io::Result<()> {
    if ports.is_empty() {
        return Ok(());
    }
    let mut netlink = Netlink::netfilter()?;
    let kind = |message| NFNL_SUBSYS_CTNETLINK << 8 | message;
    let query = |kind, flags, sequence, body: &[u8]| {
        netfilter_message((kind, flags), sequence, (NFPROTO_IPV4, 0), body)
    };
    let list = query(kind(IPCTNL_MSG_CT_GET), NLM_F_DUMP, 1, &[]);
    let flows = netlink.exchange(&list, 1)?;
    let keys = flows
        .iter()
        .filter_map(|flow| key(flow.get(NFGENMSG..)?, ports));
    for (key, sequence) in keys.zip(2..) {
        let delete = query(kind(IPCTNL_MSG_CT_DELETE), NLM_F_ACK, sequence, &key);
        match netlink.exchange(&delete, sequence) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// The attributes that name a flow, if it is UDP to one of `ports`.
fn key(flow: &[u8], ports: &[u16]) -> Option<Vec<u8>> {
    let tuple = find(flow, CTA_TUPLE_ORIG)?;
    let protocol = find(tuple.value, CTA_TUPLE_PROTO)?.value;
    let number = find(protocol, CTA_PROTO_NUM)?.value.first();
    let port = find(protocol, CTA_PROTO_DST_PORT)?.value.first_chunk();
    let wanted = number == Some(&UDP) && ports.contains(&u16::from_be_bytes(*port?));
    let zone = find(flow, CTA_ZONE).map_or(&[][..], |zone| zone.whole);
    wanted.then(|| [tuple.whole, zone].concat())
}

#[cfg(all(test, target_endian = "little"))]
mod tests {
    use super::*;

    fn flow(protocol: u8, port: u16) -> Vec<u8> {
        let [high, low] = port.to_be_bytes();
        let number = [5, 0, 1, 0, protocol, 0, 0, 0];
        let port = [6, 0, 3, 0, high, low, 0, 0];
        let proto = [&[20, 0, 2, 0x80], &number[..], &port].concat();
        let tuple = [&[24, 0, 1, 0x80], &proto[..]].concat();
        [
            &[8, 0, 3, 0, 0, 0, 0, 0][..],
            &tuple,
            &[6, 0, 18, 0, 0, 9, 0, 0],
        ]
        .concat()
    }

    #[test]
    fn only_udp_to_a_port_of_ours_is_named_by_its_tuple_and_zone() {
        let udp = flow(UDP, 514);
        assert_eq!(key(&udp, &[80, 514]).as_deref(), Some(&udp[8..]));
        assert_eq!(key(&udp, &[80]), None);
        assert_eq!(key(&flow(6, 514), &[514]), None);
        for length in 0..udp.len() - 8 {
            assert_eq!(key(&udp[..length], &[514]), None, "torn after {length}");
        }
    }
}
