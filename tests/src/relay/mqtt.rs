//! Packets of MQTT, passed on one by one.

use std::sync::Mutex;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;

use super::{Fault, State, lock};

const SUBACK: u8 = 9;
const PUBLISH: u8 = 3;

/// Who a packet comes from.
enum From {
    Device(Vec<u8>),
    Hub(Vec<u8>),
}

/// Passes packets on until one side ends or the fault ends both.
pub(super) async fn relay<N, F>(
    near: N,
    far: F,
    fault: Option<Fault>,
    state: &Mutex<State>,
) -> Option<()>
where
    N: AsyncRead + AsyncWrite + Send + 'static,
    F: AsyncRead + AsyncWrite + Send + 'static,
{
    let (mut device, mut to_device) = tokio::io::split(near);
    let (mut hub, mut to_hub) = tokio::io::split(far);
    let mut left = match fault {
        Some(Fault::Cut(packets)) => packets,
        _ => usize::MAX,
    };
    if let Some(Fault::Refuse(code)) = fault {
        read(&mut device).await?;
        return write(&mut to_device, &[0x20, 2, 0, code]).await;
    }
    let mut throttle = match fault {
        Some(Fault::Throttle(answers)) => answers,
        _ => 0,
    };
    // Packets are read whole by tasks of their own: a read that is given up halfway would
    // lose what it has.
    let (sender, mut packets) = mpsc::channel(8);
    let other = sender.clone();
    let reading = [
        tokio::spawn(async move { read_all(&mut device, From::Device, &sender).await }),
        tokio::spawn(async move { read_all(&mut hub, From::Hub, &other).await }),
    ];
    let pass = async {
        while left > 0 {
            match packets.recv().await?? {
                From::Device(packet) => {
                    if packet[0] >> 4 == PUBLISH {
                        lock(state).traffic.published += 1;
                    }
                    write(&mut to_hub, &packet).await?;
                }
                From::Hub(mut packet) => {
                    if let (Some(Fault::LateSubAck(late)), SUBACK) = (fault, packet[0] >> 4) {
                        tokio::time::sleep(late).await;
                    }
                    if throttle > 0 && replace_answer(&mut packet) {
                        throttle -= 1;
                        lock(state).traffic.throttled += 1;
                    }
                    write(&mut to_device, &packet).await?;
                }
            }
            left -= 1;
        }
        // What was passed shall have arrived before the link ends.
        tokio::time::sleep(Duration::from_millis(50)).await;
        Some(())
    };
    let passed = pass.await;
    for task in reading {
        task.abort();
    }
    passed
}

/// Hands on every packet, and the end.
async fn read_all<S: AsyncRead + Unpin>(
    stream: &mut S,
    of: fn(Vec<u8>) -> From,
    sender: &mpsc::Sender<Option<From>>,
) {
    while let Some(packet) = read(stream).await {
        let _ = sender.send(Some(of(packet))).await;
    }
    let _ = sender.send(None).await;
}

/// Turns the answer to a report into a 429, which is as long.
fn replace_answer(packet: &mut [u8]) -> bool {
    const TAKEN: &[u8] = b"$iothub/twin/res/204/";
    let at = packet.windows(TAKEN.len()).position(|part| part == TAKEN);
    match at {
        Some(at) if packet[0] >> 4 == PUBLISH => {
            let status = at + TAKEN.len() - 4;
            packet[status..status + 3].copy_from_slice(b"429");
            true
        }
        _ => false,
    }
}

async fn read<S: AsyncRead + Unpin>(stream: &mut S) -> Option<Vec<u8>> {
    let mut packet = vec![stream.read_u8().await.ok()?];
    let (mut length, mut shift) = (0, 0);
    loop {
        let byte = stream.read_u8().await.ok()?;
        packet.push(byte);
        length |= usize::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            break;
        }
    }
    let start = packet.len();
    packet.resize(start + length, 0);
    stream.read_exact(&mut packet[start..]).await.ok()?;
    Some(packet)
}

async fn write<S: AsyncWrite + Unpin>(stream: &mut S, packet: &[u8]) -> Option<()> {
    stream.write_all(packet).await.ok()?;
    stream.flush().await.ok()
}
