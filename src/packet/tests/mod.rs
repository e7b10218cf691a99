#[test]
fn a_parsed_packet_fits_two_cache_lines() {
    use super::*;
    eprintln!(
        "Parsed {} Result {} Ip {} Transport {} Segment {} Options {} IcmpError {} Quoted {} QT {}",
        size_of::<Parsed>(),
        size_of::<Result<Parsed, Malformed>>(),
        size_of::<Ip>(),
        size_of::<Transport>(),
        size_of::<Segment>(),
        size_of::<TcpOptions>(),
        size_of::<IcmpError>(),
        size_of::<Quoted>(),
        size_of::<QuotedTransport>()
    );
}
