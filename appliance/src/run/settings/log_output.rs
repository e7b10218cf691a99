//! Destination of the session log.

use std::path::PathBuf;

use portcullis::config::declare::{Scalar, Wrong};

use super::values::OFF;

/// Destination of the session log.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) enum LogOutput {
    /// None.
    #[default]
    Off,
    /// Standard output.
    Stdout,
    /// A file, device or named pipe.
    File(PathBuf),
    /// A receiver of syslog messages.
    Syslog {
        transport: SyslogTransport,
        /// Host and port.
        address: String,
    },
    /// A collector of IPFIX at a host and port, over UDP.
    Ipfix(String),
}

/// Transport of syslog messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SyslogTransport {
    /// A datagram for each message (RFC 5426).
    Udp,
    /// A connection, with the length before each message (RFC 6587).
    Tcp,
    /// A connection with TLS (RFC 5425).
    Tls,
}

impl SyslogTransport {
    const ALL: [Self; 3] = [Self::Udp, Self::Tcp, Self::Tls];

    /// Returns the scheme of the transport.
    const fn scheme(self) -> &'static str {
        match self {
            Self::Udp => "syslog+udp",
            Self::Tcp => "syslog+tcp",
            Self::Tls => "syslog+tls",
        }
    }
}

impl LogOutput {
    /// Returns the text of the configuration.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Off => OFF.to_owned(),
            Self::Stdout => "stdout".to_owned(),
            Self::File(path) => path.display().to_string(),
            Self::Syslog { transport, address } => format!("{}://{address}", transport.scheme()),
            Self::Ipfix(address) => format!("ipfix://{address}"),
        }
    }
}

/// Returns whether a text is a host, or an IPv6 address in brackets, with a port.
fn is_address(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else {
        return false;
    };
    let is_letter = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    let is_host = match host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
    {
        Some(inner) => inner.parse::<std::net::Ipv6Addr>().is_ok(),
        None => (1..=253).contains(&host.len()) && host.chars().all(is_letter),
    };
    is_host && port.parse::<u16>().is_ok_and(|port| port > 0)
}

impl Scalar for LogOutput {
    type Bound = ();

    const EXPECTED: &'static str = "\"off\", \"stdout\", a path, or a URL such as \
                                    \"syslog+udp://10.0.0.9:514\"";

    fn kind() -> String {
        "path, `\"stdout\"`, URL, or `\"off\"`".to_owned()
    }

    fn from_text(text: &str) -> Result<Self, Wrong> {
        match text {
            "" => return Err("the path is empty".to_owned().into()),
            OFF => return Ok(Self::Off),
            "stdout" | "/dev/stdout" => return Ok(Self::Stdout),
            _ => {}
        }
        let Some((scheme, address)) = text.split_once("://") else {
            return Ok(Self::File(text.into()));
        };
        if !is_address(address) {
            return Err(
                format!("`{address}` is not a host with a port, such as `10.0.0.9:514`").into(),
            );
        }
        let address = address.to_owned();
        let mut transports = SyslogTransport::ALL.into_iter();
        match transports.find(|transport| transport.scheme() == scheme) {
            Some(transport) => Ok(Self::Syslog { transport, address }),
            None if scheme == "ipfix" => Ok(Self::Ipfix(address)),
            None => Err(format!(
                "`{scheme}` is not one of `syslog+udp`, `syslog+tcp`, `syslog+tls`, `ipfix`"
            )
            .into()),
        }
    }

    fn written(&self) -> String {
        self.text().written()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_are_read_and_written_alike() {
        for text in [
            "off",
            "stdout",
            "/var/log/portcullis",
            "log",
            "syslog+udp://10.0.0.9:514",
            "syslog+tcp://log.example:601",
            "syslog+tls://[2001:db8::1]:6514",
            "ipfix://collector:4739",
        ] {
            assert_eq!(LogOutput::from_text(text).unwrap().text(), text);
        }
        for text in [
            "",
            "syslog://10.0.0.9:514",
            "syslog+udp://10.0.0.9",
            "syslog+udp://:514",
            "syslog+udp://10.0.0.9:0",
            "ipfix://a b:4739",
            "ipfix://[fe80:4739",
        ] {
            assert!(LogOutput::from_text(text).is_err(), "{text}");
        }
    }
}
