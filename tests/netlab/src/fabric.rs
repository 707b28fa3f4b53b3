//! All wires of a lab and the packets on them, in the order of their arrival. Pure, as `wire.rs` is.

use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use crate::wire::{Fate, LinkConfig, Wire};

/// A packet on its way.
#[derive(Debug)]
pub(crate) struct Flying {
    pub(crate) from: usize,
    pub(crate) to: usize,
    pub(crate) packet: Box<[u8]>,
}

/// Every directed pair of nodes has a wire.
#[derive(Debug)]
pub(crate) struct Fabric {
    nodes: usize,
    /// The wire from `a` to `b` at `a * nodes + b`; those from a node to itself are never used.
    wires: Vec<Wire>,
    /// By arrival, then by entry. Bounded by what each wire bounds.
    flying: BTreeMap<(Instant, u64), Flying>,
    entered: u64,
}

impl Fabric {
    pub(crate) fn new(nodes: usize, seed: u64, link: LinkConfig, now: Instant) -> Self {
        let wires = (0..nodes * nodes).map(|n| Wire::new(link, seed, n / nodes, n % nodes, now)).collect();
        Self { nodes, wires, flying: BTreeMap::new(), entered: 0 }
    }

    /// The wire between two different nodes of the lab.
    ///
    /// # Panics
    /// If the lab has no such link; the indices come from the test.
    pub(crate) fn wire(&mut self, from: usize, to: usize) -> &mut Wire {
        let nodes = self.nodes;
        assert!(from < nodes && to < nodes && from != to, "no link from {from} to {to} among {nodes} nodes");
        &mut self.wires[from * nodes + to]
    }

    /// Takes in a packet. Returns to which node it goes at once, if it does.
    pub(crate) fn enter(&mut self, from: usize, packet: &[u8], now: Instant) -> Option<usize> {
        let to = destination(packet).filter(|to| *to < self.nodes && *to != from)?;
        match self.wire(from, to).enter(packet.len(), now) {
            Fate::Now => return Some(to),
            Fate::At(due) => {
                self.entered += 1;
                self.flying.insert((due, self.entered), Flying { from, to, packet: packet.into() });
            }
            Fate::Dropped => {}
        }
        None
    }

    /// Takes out the next packet that has reached its end.
    pub(crate) fn land(&mut self, now: Instant) -> Option<Flying> {
        let first = self.flying.first_entry().filter(|entry| entry.key().0 <= now)?;
        let flying = first.remove();
        self.wire(flying.from, flying.to).leave(flying.packet.len());
        Some(flying)
    }

    /// Time until [`Fabric::land`] has something; none if nothing is under way.
    pub(crate) fn next_landing(&self, now: Instant) -> Option<Duration> {
        self.flying.first_key_value().map(|((due, _), _)| due.saturating_duration_since(now))
    }

    /// Cuts a directed link; what is on it is lost.
    pub(crate) fn block(&mut self, from: usize, to: usize) {
        let before = self.flying.len();
        self.flying.retain(|_, flying| (flying.from, flying.to) != (from, to));
        let were_under_way = before - self.flying.len();
        self.wire(from, to).block(were_under_way as u64);
    }

    /// Mends all links.
    pub(crate) fn unblock_all(&mut self, now: Instant) {
        self.wires.iter_mut().for_each(|wire| wire.unblock(now));
    }

    /// Gives all links the same setting.
    pub(crate) fn set_all(&mut self, link: LinkConfig, now: Instant) {
        self.wires.iter_mut().for_each(|wire| wire.set(link, now));
    }
}

/// The address of a node: 10.77.`node`.2.
pub(crate) fn address(node: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, node, 2)
}

/// The node an IPv4 packet goes to; none for IPv6 (router solicitations) and for foreign addresses.
fn destination(packet: &[u8]) -> Option<usize> {
    // RFC 791 3.1: the version in the upper half of byte 0, the destination in bytes 16 to 19.
    if packet.first()? >> 4 != 4 {
        return None;
    }
    let [10, 77, node, 2] = *packet.get(16..20)? else { return None };
    Some(node.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn packet(to: u8, mark: u8) -> Vec<u8> {
        let mut packet = vec![0; 21];
        packet[0] = 0x45;
        packet[16..20].copy_from_slice(&address(to).octets());
        packet[20] = mark;
        packet
    }

    fn delayed(delay: Duration, now: Instant) -> Fabric {
        Fabric::new(3, 1, LinkConfig { delay, ..LinkConfig::default() }, now)
    }

    #[test]
    fn foreign_packets_enter_no_link() {
        let now = Instant::now();
        let mut fabric = delayed(Duration::ZERO, now);
        let mut six = packet(1, 0);
        six[0] = 0x60;
        let mut foreign = packet(1, 0);
        foreign[17] = 78;
        for stray in [&six[..], &foreign, &packet(0, 0), &packet(3, 0), &packet(1, 0)[..19], &[]] {
            assert_eq!(fabric.enter(0, stray, now), None);
        }
        assert_eq!(fabric.next_landing(now), None);
        assert_eq!(fabric.enter(0, &packet(1, 0), now), Some(1));
    }

    #[test]
    fn packets_land_when_due_and_in_order() {
        let now = Instant::now();
        let mut fabric = delayed(10 * MS, now);
        for mark in 0..3 {
            assert_eq!(fabric.enter(0, &packet(1, mark), now), None);
        }
        fabric.wire(0, 2).set(LinkConfig { delay: MS, ..LinkConfig::default() }, now);
        assert_eq!(fabric.enter(0, &packet(2, 9), now), None);
        assert_eq!(fabric.next_landing(now), Some(MS));
        assert_eq!(fabric.land(now + MS).map(|flying| flying.to), Some(2));
        assert!(fabric.land(now + 9 * MS).is_none());
        let marks: Vec<u8> =
            std::iter::from_fn(|| fabric.land(now + 10 * MS)).map(|flying| flying.packet[20]).collect();
        assert_eq!(marks, [0, 1, 2]);
    }

    #[test]
    fn cut_link_loses_what_is_on_it_and_no_other_does() {
        let now = Instant::now();
        let mut fabric = delayed(10 * MS, now);
        fabric.enter(0, &packet(1, 0), now);
        fabric.enter(1, &packet(0, 1), now);
        fabric.block(0, 1);
        fabric.enter(0, &packet(1, 2), now);
        fabric.unblock_all(now);
        fabric.enter(0, &packet(1, 3), now);
        let marks: Vec<u8> =
            std::iter::from_fn(|| fabric.land(now + 10 * MS)).map(|flying| flying.packet[20]).collect();
        assert_eq!(marks, [1, 3]);
        assert_eq!(fabric.wire(0, 1).stats().blocked, 2);
    }
}
