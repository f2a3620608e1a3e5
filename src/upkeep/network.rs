//! How interfaces get their addresses, as files for systemd-networkd. Decides what stands in them, and touches nothing.

use crate::gateway::site::{Address, Network};
use std::fmt::Write;

/// What all names of our files begin with. Low, so that they go before what else there is.
pub const PREFIX: &str = "05-crosspatch-";

/// One file for each network: its name and its text.
#[must_use]
pub fn files(networks: &[Network]) -> Vec<(String, String)> {
    networks.iter().map(|network| (file_name(network), text(network))).collect()
}

fn file_name(network: &Network) -> String {
    // One that is named goes before "every wired interface".
    match &network.interface {
        Some(interface) => format!("{PREFIX}1-{interface}.network"),
        None => format!("{PREFIX}2-wired.network"),
    }
}

fn text(network: &Network) -> String {
    let mut text = String::from("# Made of crosspatch.toml at every boot: change that file.\n[Match]\n");
    let mut line = |words: String| writeln!(text, "{words}").expect("writing to a string works");
    match &network.interface {
        Some(interface) => line(format!("Name={interface}")),
        // Real ones, not bridges and the ends of tunnels.
        None => line("Type=ether\nKind=!*\nName=en* eth*".into()),
    }
    // A box is found by its name, and by an address of its own where nobody gives it one.
    line("\n[Link]\nRequiredForOnline=no\n\n[Network]\nMulticastDNS=yes".into());
    match network.address {
        Address::Dhcp => line("DHCP=yes\nLinkLocalAddressing=yes".into()),
        Address::Fixed(..) => line(format!("DHCP=no\nAddress={}", network.address)),
    }
    if let Some(gateway) = network.gateway {
        line(format!("Gateway={gateway}"));
    }
    for dns in &network.dns {
        line(format!("DNS={dns}"));
    }
    if network.serve_dhcp {
        // No router and no name server are announced: phones keep the internet that they have elsewhere.
        line("DHCPServer=yes\n\n[DHCPServer]\nEmitDNS=no\nEmitRouter=no".into());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::config::Config;

    fn made(networks: &str) -> Vec<(String, String)> {
        let event = "[event]\nid = \"e\"\n[[channel]]\nid = \"ops\"\nname = \"Ops\"\n";
        files(&Config::parse(&format!("{event}{networks}"), "x.toml").unwrap().networks)
    }

    #[test]
    fn every_network_is_a_file_and_a_named_interface_goes_first() {
        let made = made(
            "[[network]]\naddress = \"dhcp\"\n[[network]]\ninterface = \"eth1\"\naddress = \"192.168.10.1/24\"\n\
             gateway = \"192.168.10.254\"\ndns = [\"9.9.9.9\", \"fd00::1\"]\n",
        );
        let names: Vec<_> = made.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["05-crosspatch-2-wired.network", "05-crosspatch-1-eth1.network"]);
        let (dhcp, fixed) = (&made[0].1, &made[1].1);
        assert!(dhcp.contains("Name=en* eth*\n") && dhcp.contains("\nDHCP=yes\n"), "{dhcp}");
        let wanted = "DHCP=no\nAddress=192.168.10.1/24\nGateway=192.168.10.254\nDNS=9.9.9.9\nDNS=fd00::1\n";
        assert!(fixed.contains("Name=eth1\n") && fixed.ends_with(wanted), "{fixed}");
    }

    #[test]
    fn a_box_that_gives_addresses_announces_no_way_to_the_internet() {
        let made = made("[[network]]\naddress = \"10.0.0.1/24\"\nserve_dhcp = true\n");
        assert!(made[0].1.ends_with("DHCPServer=yes\n\n[DHCPServer]\nEmitDNS=no\nEmitRouter=no\n"), "{}", made[0].1);
    }
}
