//! The PROXY protocol header of a load balancer: read as proxy-protocol.txt specifies, to its end
//! and no further.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::pin;
use std::task::{Context, Poll, Waker};

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// The maximum length in octets of a header of version 1, and of one of version 2 after its first
/// sixteen octets.
const LINE_MAX: usize = 107;
const REST_MAX: usize = 4096;

/// Returns the client that a header names, if any, and the input after the header.
type Read<'a> = (Option<SocketAddr>, &'a [u8]);

pub(crate) fn run(input: &[u8]) {
    let reading = pin!(gatepost::relay::inbound::proxy_header(input));
    let Poll::Ready(read) = reading.poll(&mut Context::from_waker(Waker::noop())) else {
        panic!("a slice is never waited for");
    };
    let strict = version_1(input).or_else(|| version_2(input));
    match (read, strict) {
        (Ok(read), Some(strict)) => assert_eq!(read, strict, "{}", input.escape_ascii()),
        (Ok(read), None) => panic!("{} is accepted: {read:?}", input.escape_ascii()),
        (Err(fault), Some(strict)) => panic!("{} is refused ({fault}): {strict:?}", input.escape_ascii()),
        (Err(_), None) => {}
    }
}

fn version_1(input: &[u8]) -> Option<Read<'_>> {
    let end = input.iter().position(|octet| *octet == b'\n')? + 1;
    let line = std::str::from_utf8(&input[..end]).ok().filter(|line| line.len() <= LINE_MAX);
    let unknown = input.starts_with(b"PROXY UNKNOWN\r\n") || input.starts_with(b"PROXY UNKNOWN ");
    if unknown && end <= LINE_MAX {
        let is_one_line = input[..end].ends_with(b"\r\n") && input[..end - 2].iter().all(|octet| *octet != b'\r');
        return is_one_line.then_some((None, &input[end..]));
    }
    let words: Vec<&str> = line?.strip_suffix("\r\n")?.split(' ').collect();
    let ["PROXY", family, source, destination, source_port, destination_port] = words[..] else { return None };
    let address = |text: &str| match family {
        "TCP4" => text.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
        "TCP6" => text.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        _ => None,
    };
    let port = |text: &str| text.parse::<u16>().ok().filter(|port| port.to_string() == text);
    let (source, _) = (address(source)?, address(destination)?);
    let (source_port, _) = (port(source_port)?, port(destination_port)?);
    Some((Some(SocketAddr::new(source, source_port)), &input[end..]))
}

fn version_2(input: &[u8]) -> Option<Read<'_>> {
    let [command, family, high, low, rest @ ..] = input.strip_prefix(SIGNATURE)? else { return None };
    let length = usize::from(u16::from_be_bytes([*high, *low]));
    let (body, behind) = rest.split_at_checked(length).filter(|_| length <= REST_MAX)?;
    let least = match family {
        0x00 => 0,
        0x11 | 0x12 => 12,
        0x21 | 0x22 => 36,
        0x31 | 0x32 => 216,
        _ => return None,
    };
    if body.len() < least {
        return None;
    }
    let named = match (command, family) {
        // The balancer speaks for itself, or for a client without an Internet address.
        (0x20, _) | (0x21, 0x00 | 0x31 | 0x32) => None,
        (0x21, 0x11) => {
            let address = Ipv4Addr::from(*body.first_chunk::<4>()?);
            Some(SocketAddr::new(address.into(), u16::from_be_bytes([body[8], body[9]])))
        }
        (0x21, 0x21) => {
            let address = Ipv6Addr::from(*body.first_chunk::<16>()?);
            Some(SocketAddr::new(address.into(), u16::from_be_bytes([body[32], body[33]])))
        }
        _ => return None,
    };
    Some((named, behind))
}
