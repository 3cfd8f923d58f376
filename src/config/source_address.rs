//! `source` of a connector: the addresses that its connections come from.

use std::net::IpAddr;

use super::fault_list::FaultList;
use super::reader::TomlValue;
use super::spelling::shorten;
use super::values::{full_list, text};

const REMEDY: &str = "Write an address of this computer, such as \"192.0.2.10\" or \"2001:db8::10\"; one of each family.";

/// Reads a list with at most one address of each family.
pub(super) fn source(value: &TomlValue<'_>, faults: &mut FaultList<'_>) -> Option<Vec<IpAddr>> {
    let mut addresses: Vec<IpAddr> = Vec::new();
    let mut is_valid = true;
    for written in full_list(value, faults, REMEDY, address)? {
        let is_second = addresses
            .iter()
            .any(|other| other.is_ipv4() == written.value.is_ipv4());
        if is_second {
            let message = "source has two addresses of one family";
            faults.add(&written.location, message, REMEDY);
            is_valid = false;
        }
        addresses.push(written.value);
    }
    is_valid.then_some(addresses)
}

fn address(value: &TomlValue<'_>, faults: &mut FaultList<'_>) -> Option<IpAddr> {
    let written = text(value, faults)?;
    let parsed: Option<IpAddr> = written.parse().ok();
    let is_usable = |address: &IpAddr| {
        let is_mapped = matches!(address, IpAddr::V6(six) if six.to_ipv4_mapped().is_some());
        !address.is_unspecified() && !address.is_multicast() && !is_mapped
    };
    parsed.filter(is_usable).or_else(|| {
        let message = format!(
            "source: \"{}\" is not an address to send from",
            shorten(written)
        );
        faults.add(&value.location, message, REMEDY);
        None
    })
}
