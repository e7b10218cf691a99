//! Addresses that SCTP chunks announce, in a handshake (RFC 9260 3.3.2, 3.3.3) and in later changes
//! (RFC 5061).
//!
//! This module reads the few packets that announce addresses. [`super::sctp`] has verified that
//! their chunks are well-formed.

use core::net::{Ipv4Addr, Ipv6Addr};

use super::ipv4;

/// Bytes of the common header (RFC 9260 3.1).
const HEADER_LEN: usize = 12;
/// Bytes of a chunk's or parameter's type and length.
const TLV_LEN: usize = 4;

const INIT: u8 = 1;
const INIT_ACK: u8 = 2;
/// RFC 4895 4.1.
const AUTH: u8 = 0x0f;
/// RFC 5061 4.1.1.
const ASCONF: u8 = 0xc1;
/// RFC 5061 4.1.2.
const ASCONF_ACK: u8 = 0x80;

const PARAMETER_IPV4: u16 = 5;
const PARAMETER_IPV6: u16 = 6;
const ADD_IP: u16 = 0xc001;
const DELETE_IP: u16 = 0xc002;
const ERROR_CAUSE: u16 = 0xc003;
const SUCCESS: u16 = 0xc005;

/// Maximum number of requests of one ASCONF that are tracked.
pub(crate) const MAX_REQUESTS: usize = 4;

/// Returns the chunks of a packet, each with its type and the bytes after its length.
fn chunks(packet: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    let mut rest = packet.get(HEADER_LEN..).unwrap_or_default();
    core::iter::from_fn(move || {
        let &[kind, _, a, b, ..] = rest else {
            return None;
        };
        let len = usize::from(u16::from_be_bytes([a, b]));
        let body = rest.get(TLV_LEN..len)?;
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, body))
    })
}

/// Returns the parameters in a part of a chunk, each with its type and the bytes after its length.
fn parameters(mut rest: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    core::iter::from_fn(move || {
        let &[k0, k1, a, b, ..] = rest else {
            return None;
        };
        let len = usize::from(u16::from_be_bytes([a, b]));
        let body = rest.get(TLV_LEN..len)?;
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((u16::from_be_bytes([k0, k1]), body))
    })
}

/// Returns the address of a parameter, in the form of [`super::Ip::src`].
fn address(kind: u16, body: &[u8]) -> Option<u128> {
    match kind {
        PARAMETER_IPV4 => {
            let address = body.first_chunk::<4>()?;
            Some(ipv4::mapped(u32::from_be_bytes(*address)))
        }
        PARAMETER_IPV6 => Some(u128::from_be_bytes(*body.first_chunk::<16>()?)),
        _ => None,
    }
}

/// Returns whether an address may belong to an end of an association across a network.
fn is_usable(address: u128) -> bool {
    let v6 = Ipv6Addr::from_bits(address);
    match v6.to_ipv4_mapped() {
        Some(v4) => {
            let [first, ..] = v4.octets();
            !(first == 0
                || first >= 240
                || v4.is_loopback()
                || v4.is_multicast()
                || v4.is_link_local()
                || v4 == Ipv4Addr::UNSPECIFIED)
        }
        None => {
            !(v6.is_unspecified()
                || v6.is_loopback()
                || v6.is_multicast()
                || v6.is_unicast_link_local())
        }
    }
}

/// Calls `each` with the usable addresses of an INIT or INIT ACK. `packet` begins with the common
/// header.
pub(crate) fn announced(packet: &[u8], each: impl FnMut(u128)) {
    /// Bytes of an INIT before its parameters, without the chunk header.
    const FIXED: usize = 16;
    let first = chunks(packet).next();
    let Some((INIT | INIT_ACK, body)) = first else {
        return;
    };
    parameters(body.get(FIXED..).unwrap_or_default())
        .filter_map(|(kind, body)| address(kind, body))
        .filter(|address| is_usable(*address))
        .for_each(each);
}

/// A request to change the sender's addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// Add an address.
    Add(u128),
    /// Remove an address.
    Delete(u128),
    /// Remove all addresses, except the source of the request (RFC 5061 4.2.2).
    DeleteOthers,
}

/// A change, and the number by which the answer refers to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) correlation: u32,
    pub(crate) change: Change,
}

/// The first requests of an ASCONF.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Requests {
    pub(crate) serial: u32,
    pub(crate) changes: [Option<Request>; MAX_REQUESTS],
}

/// Returns the body of the first chunk of a kind that follows an AUTH chunk, with its serial
/// number.
fn authenticated(packet: &[u8], wanted: u8) -> Option<(u32, &[u8])> {
    let mut is_behind_auth = false;
    for (kind, body) in chunks(packet) {
        is_behind_auth |= kind == AUTH;
        if kind == wanted && is_behind_auth {
            let (serial, rest) = body.split_first_chunk::<4>()?;
            return Some((u32::from_be_bytes(*serial), rest));
        }
    }
    None
}

/// Returns the requests of an ASCONF that follows an AUTH chunk, as required (RFC 5061 4.1.1). The
/// receiver checks the contents of the AUTH chunk.
pub(crate) fn requests(packet: &[u8]) -> Option<Requests> {
    let (serial, rest) = authenticated(packet, ASCONF)?;
    let mut found = parameters(rest).filter_map(|(kind, body)| {
        let (correlation, rest) = body.split_first_chunk::<4>()?;
        let (family, body) = parameters(rest).next()?;
        let address = address(family, body)?;
        let is_wildcard = address == 0 || address == ipv4::mapped(0);
        let change = match kind {
            ADD_IP if is_usable(address) => Change::Add(address),
            DELETE_IP if is_wildcard => Change::DeleteOthers,
            DELETE_IP => Change::Delete(address),
            _ => return None,
        };
        Some(Request {
            correlation: u32::from_be_bytes(*correlation),
            change,
        })
    });
    let changes: [Option<Request>; MAX_REQUESTS] = core::array::from_fn(|_| found.next());
    changes
        .iter()
        .any(Option::is_some)
        .then_some(Requests { serial, changes })
}

/// Returns the `requests` granted by an ASCONF ACK after an AUTH chunk. Requests that the answer
/// does not mention are granted, except those after a refused request (RFC 5061 5.1, rule V4).
pub(crate) fn granted(
    packet: &[u8],
    requests: &Requests,
) -> Option<[Option<Change>; MAX_REQUESTS]> {
    let (serial, rest) = authenticated(packet, ASCONF_ACK)?;
    if serial != requests.serial {
        return None;
    }
    let names = |wanted: u16, correlation: u32| {
        parameters(rest).any(|(kind, body)| {
            kind == wanted && body.first_chunk() == Some(&correlation.to_be_bytes())
        })
    };
    let mut any_refused = false;
    Some(requests.changes.map(|request| {
        let Request {
            correlation,
            change,
        } = request?;
        let is_refused = names(ERROR_CAUSE, correlation);
        any_refused |= is_refused;
        let is_granted = !is_refused && (!any_refused || names(SUCCESS, correlation));
        is_granted.then_some(change)
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tlv(kind: u16, body: &[u8]) -> Vec<u8> {
        let mut bytes = kind.to_be_bytes().to_vec();
        bytes.extend((4 + body.len() as u16).to_be_bytes());
        bytes.extend(body);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn chunk(kind: u8, body: &[u8]) -> Vec<u8> {
        tlv(u16::from(kind) << 8, body)
    }

    fn v4(last: u8) -> Vec<u8> {
        tlv(PARAMETER_IPV4, &[192, 0, 2, last])
    }

    const fn number(last: u8) -> u128 {
        0xffff_c000_0200 | last as u128
    }

    fn packet(chunks: &[Vec<u8>]) -> Vec<u8> {
        [&[0; HEADER_LEN][..], &chunks.concat()].concat()
    }

    fn list(packet: &[u8]) -> Vec<u128> {
        let mut found = Vec::new();
        announced(packet, |address| found.push(address));
        found
    }

    #[test]
    fn a_handshake_announces_the_usable_addresses_of_its_parameters() {
        let v6 = tlv(PARAMETER_IPV6, &[0x20; 16]);
        let unusable = [
            tlv(PARAMETER_IPV4, &[127, 0, 0, 1]),
            tlv(PARAMETER_IPV4, &[224, 0, 0, 1]),
            tlv(PARAMETER_IPV4, &[255; 4]),
            tlv(PARAMETER_IPV4, &[0; 4]),
            tlv(PARAMETER_IPV4, &[1, 2]),
            tlv(PARAMETER_IPV6, &[0; 16]),
            tlv(PARAMETER_IPV6, &[0xff; 16]),
            tlv(PARAMETER_IPV6, &[0x20; 15]),
        ];
        let cookie = tlv(7, &[9; 21]);
        let lists = [cookie, v4(1), unusable.concat(), v6, v4(2)].concat();
        for kind in [INIT, INIT_ACK] {
            let init = chunk(kind, &[&[0; 16][..], &lists].concat());
            let expected = [number(1), u128::from_be_bytes([0x20; 16]), number(2)];
            assert_eq!(list(&packet(&[init])), expected);
        }
        let data = chunk(0, &[&[0; 16][..], &lists].concat());
        assert!(list(&packet(&[data])).is_empty());
    }

    #[test]
    fn whatever_is_cut_off_is_not_read() {
        let init = chunk(INIT, &[&[0; 16][..], &v4(1), &v4(2)].concat());
        let whole = packet(&[init]);
        for len in 0..whole.len() {
            // The stated length of the chunk exceeds the packet.
            assert!(list(&whole[..len]).is_empty(), "{len}");
        }
        let mut lies = whole;
        lies[HEADER_LEN + 4 + 16 + 3] = 3;
        assert!(
            list(&lies).is_empty(),
            "a parameter shorter than its own header"
        );
    }

    fn request(kind: u16, correlation: u8, address: &[u8]) -> Vec<u8> {
        tlv(kind, &[&[0, 0, 0, correlation][..], address].concat())
    }

    fn asconf(requests: &[Vec<u8>]) -> Vec<u8> {
        chunk(
            ASCONF,
            &[&[0, 0, 0, 7][..], &v4(1), &requests.concat()].concat(),
        )
    }

    #[test]
    fn requests_count_behind_an_auth_chunk_only() {
        let changes = asconf(&[
            request(ADD_IP, 1, &v4(9)),
            request(0xc004, 2, &v4(9)),
            request(DELETE_IP, 3, &v4(1)),
            request(DELETE_IP, 4, &tlv(PARAMETER_IPV4, &[0; 4])),
            request(ADD_IP, 5, &tlv(PARAMETER_IPV4, &[0; 4])),
        ]);
        let auth = chunk(AUTH, &[0; 24]);
        assert_eq!(requests(&packet(&[changes.clone(), auth.clone()])), None);
        assert_eq!(requests(&packet(std::slice::from_ref(&changes))), None);
        let found = requests(&packet(&[auth, changes])).unwrap();
        let of = |correlation, change| {
            Some(Request {
                correlation,
                change,
            })
        };
        let expected = [
            of(1, Change::Add(number(9))),
            of(3, Change::Delete(number(1))),
            of(4, Change::DeleteOthers),
            None,
        ];
        assert_eq!((found.serial, found.changes), (7, expected));
    }

    #[test]
    fn what_the_answer_does_not_refuse_is_granted() {
        let auth = chunk(AUTH, &[0; 24]);
        let add = |n: u8| request(ADD_IP, n, &v4(n));
        let asked = requests(&packet(&[auth.clone(), asconf(&[add(1), add(2), add(3)])])).unwrap();
        let answer = |serial: u8, answers: &[Vec<u8>]| {
            let body = [&[0, 0, 0, serial][..], &answers.concat()].concat();
            let answer = packet(&[auth.clone(), chunk(ASCONF_ACK, &body)]);
            granted(&answer, &asked).map(|granted| granted.map(|change| change.is_some()))
        };
        let (error, success) = (tlv(ERROR_CAUSE, &[0, 0, 0, 2]), tlv(SUCCESS, &[0, 0, 0, 3]));
        assert_eq!(answer(7, &[]), Some([true, true, true, false]));
        assert_eq!(
            answer(7, std::slice::from_ref(&error)),
            Some([true, false, false, false])
        );
        assert_eq!(
            answer(7, &[error, success]),
            Some([true, false, true, false])
        );
        assert_eq!(answer(8, &[]), None, "the answer to another one");
    }
}
