//! Values of the command line that several commands share.

use std::net::SocketAddrV4;
use std::time::Duration;

use portcullis::geneve::PORT;

/// Default endpoint id.
pub(super) const ENDPOINT: &str = "74a11ad96ec49886";

/// Parses the address of an appliance, with or without a port.
pub(super) fn appliance(text: &str) -> Result<SocketAddrV4, String> {
    let whole = text.parse();
    whole
        .or_else(|_| text.parse().map(|address| SocketAddrV4::new(address, PORT)))
        .map_err(|_| "an IPv4 address is needed, with or without :PORT".to_owned())
}

/// Parses a number of up to 16 hexadecimal digits.
pub(super) fn hexadecimal(text: &str) -> Result<u64, String> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    u64::from_str_radix(digits, 16)
        .map_err(|_| format!("{text:?} is not a number of up to 16 hexadecimal digits"))
}

/// Parses a number of seconds, which may have a fraction.
pub(super) fn seconds(text: &str) -> Result<Duration, String> {
    let number: f64 = text
        .parse()
        .map_err(|_| "a number of seconds is needed".to_owned())?;
    // At most a day, so that no instant overflows.
    if number > 0.0 && number <= 86_400.0 {
        Ok(Duration::from_secs_f64(number))
    } else {
        Err("more than 0 and at most 86400 seconds are needed".to_owned())
    }
}
