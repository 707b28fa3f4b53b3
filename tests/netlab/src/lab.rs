//! The lab: what a test holds.

use std::{collections::BTreeSet, io::Write as _, net::Ipv4Addr, path::Path, process::Command, time::Instant};

use parking_lot::Mutex;

use crate::{
    fabric::{Fabric, address},
    forwarder::Forwarder,
    namespace::{Namespace, run, sweep},
    wire::{LinkConfig, LinkStats},
};

/// Most nodes of a lab. Every pair has two links, and a test with more nodes tests the machine.
pub const MAX_NODES: u8 = 64;
/// All nodes are in one network, so that one address gives the route to all.
const PREFIX: u8 = 16;

/// What a lab is made of.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LabConfig {
    /// Number of nodes, 1 to [`MAX_NODES`]; they are called 0, 1, 2 and so on.
    pub nodes: u8,
    /// Decides which packets are lost and how much jitter each has.
    pub seed: u64,
    /// What each directed link does at first.
    pub link: LinkConfig,
}

/// This machine cannot have a lab; the text says what is missing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no network lab: {what}")]
pub struct Unavailable {
    /// What is missing or was refused.
    pub what: String,
}

/// A network of namespaces. It is gone when dropped: the processes in it are killed, its namespaces and devices removed.
///
/// Nodes reach each other and themselves, nothing else: neither the machine's network nor other labs, whose addresses are the
/// same. The file system is shared, so Unix sockets go across. Methods panic for a node that the lab does not have.
#[derive(Debug)]
pub struct Lab {
    // Fields drop in this order: the devices before the namespaces that hold them.
    forwarder: Forwarder,
    nodes: Vec<Namespace>,
    /// The nodes that have rules of [`Lab::nft_drop`].
    filtered: Mutex<BTreeSet<usize>>,
}

impl Lab {
    /// Makes the namespaces and starts to carry packets. What killed runs have left is removed first.
    ///
    /// # Errors
    /// [`Unavailable`] if the machine lacks something; a test then passes with a note, see [`skip_unless_available`].
    ///
    /// # Panics
    /// If the number of nodes is not 1 to [`MAX_NODES`].
    pub fn new(config: LabConfig) -> Result<Self, Unavailable> {
        let LabConfig { nodes, seed, link } = config;
        assert!((1..=MAX_NODES).contains(&nodes), "a lab has 1 to {MAX_NODES} nodes, not {nodes}");
        Self::build(nodes, seed, link).map_err(|what| Unavailable { what })
    }

    fn build(nodes: u8, seed: u64, link: LinkConfig) -> Result<Self, String> {
        check_machine()?;
        sweep();
        let namespaces = (0..nodes).map(|_| Namespace::create()).collect::<Result<Vec<_>, _>>()?;
        let devices = namespaces.iter().zip(0..).map(|(namespace, node)| namespace.device(address(node), PREFIX));
        let devices = devices.collect::<Result<Vec<_>, _>>()?;
        let fabric = Fabric::new(nodes.into(), seed, link, Instant::now());
        let forwarder = Forwarder::start(fabric, devices).map_err(|error| format!("no forwarder: {error}"))?;
        Ok(Self { forwarder, nodes: namespaces, filtered: Mutex::default() })
    }

    /// The address of a node, the same in each lab.
    #[must_use]
    pub fn addr(&self, node: usize) -> Ipv4Addr {
        assert!(node < self.nodes.len(), "no node {node} among {}", self.nodes.len());
        address(u8::try_from(node).expect("less than MAX_NODES"))
    }

    /// The name of a node's namespace, for `ip netns`.
    #[must_use]
    pub fn namespace(&self, node: usize) -> &str {
        self.node(node).name()
    }

    /// A command that starts a program on a node. The child is the program itself: its pid, signals and exit status are the
    /// program's, but a program that does not exist shows as exit status 255 instead of an error.
    #[must_use]
    pub fn command(&self, node: usize, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = self.node(node).command();
        command.arg(program);
        command
    }

    /// Runs a closure on a thread of a node and returns what it returns; a panic goes on here. Sockets made there stay there,
    /// whoever uses them later, and so do threads: a tokio runtime built inside has all its threads on the node.
    pub fn run_in<T: Send>(&self, node: usize, work: impl FnOnce() -> T + Send) -> T {
        self.node(node).run(work).expect("root may enter a namespace that it has open")
    }

    /// The directed link between two nodes.
    #[must_use]
    pub fn link(&self, from: usize, to: usize) -> Link<'_> {
        let _exists = self.forwarder.fabric().wire(from, to);
        Link { lab: self, from, to }
    }

    /// Gives all links the same setting. Blocked ones stay blocked.
    pub fn set_all(&self, config: LinkConfig) {
        self.forwarder.fabric().set_all(config, Instant::now());
    }

    /// Cuts all links between two groups, in both directions. Packets vanish, those under way too; nobody is told. When this
    /// returns, nothing more goes from one side to the other.
    pub fn partition(&self, one: &[usize], other: &[usize]) {
        let mut fabric = self.forwarder.fabric();
        for &a in one {
            for &b in other {
                fabric.block(a, b);
                fabric.block(b, a);
            }
        }
    }

    /// Cuts one direction, as [`Lab::partition`] does both.
    pub fn block(&self, from: usize, to: usize) {
        self.forwarder.fabric().block(from, to);
    }

    /// Takes back all of [`Lab::partition`], [`Lab::block`] and [`Lab::nft_drop`]. The settings of links stay.
    ///
    /// # Panics
    /// If `nft` does not remove its own rules.
    pub fn heal(&self) {
        self.forwarder.fabric().unblock_all(Instant::now());
        for node in std::mem::take(&mut *self.filtered.lock()) {
            // Adding first makes the removal succeed where there is nothing.
            self.nft(node, "add table inet netlab; delete table inet netlab").expect("rules of netlab can be removed");
        }
    }

    /// Cuts one direction in the kernel of the receiving node, as a firewall there does. Silent as well; packets that arrive
    /// count as delivered in [`Link::stats`].
    ///
    /// # Errors
    /// [`Unavailable`] without `nft`.
    pub fn nft_drop(&self, from: usize, to: usize) -> Result<(), Unavailable> {
        let source = self.addr(from);
        self.filtered.lock().insert(to);
        let rules = format!(
            "add table inet netlab; \
             add chain inet netlab input {{ type filter hook input priority 0; }}; \
             add rule inet netlab input ip saddr {source} drop"
        );
        self.nft(to, &rules).map_err(|what| Unavailable { what })
    }

    fn nft(&self, node: usize, rules: &str) -> Result<(), String> {
        run(self.command(node, "nft").arg(rules)).map(drop).map_err(|error| format!("nft: {error}"))
    }

    fn node(&self, node: usize) -> &Namespace {
        self.nodes.get(node).unwrap_or_else(|| panic!("no node {node} among {}", self.nodes.len()))
    }
}

/// A directed link of a [`Lab`].
#[derive(Debug, Clone, Copy)]
pub struct Link<'lab> {
    lab: &'lab Lab,
    from: usize,
    to: usize,
}

impl Link<'_> {
    /// Sets what holds for packets that enter from now on. Those under way keep their time and may be overtaken.
    pub fn set(&self, config: LinkConfig) {
        self.lab.forwarder.fabric().wire(self.from, self.to).set(config, Instant::now());
    }

    /// What holds at present.
    #[must_use]
    pub fn config(&self) -> LinkConfig {
        self.lab.forwarder.fabric().wire(self.from, self.to).config()
    }

    /// What became of its packets so far.
    #[must_use]
    pub fn stats(&self) -> LinkStats {
        self.lab.forwarder.fabric().wire(self.from, self.to).stats()
    }
}

/// A lab, or none and a line `SKIPPED check: why` on standard error, past the capture of test output.
#[must_use]
pub fn skip_unless_available(check: &str, config: LabConfig) -> Option<Lab> {
    Lab::new(config)
        .inspect_err(|error| {
            // In one piece, as other tests print too.
            let _ = std::io::stderr().write_all(format!("SKIPPED {check}: {error}\n").as_bytes());
        })
        .ok()
}

/// What can be said before anything is tried.
fn check_machine() -> Result<(), String> {
    if !rustix::process::geteuid().is_root() {
        return Err("it needs root".into());
    }
    if !Path::new("/dev/net/tun").exists() {
        return Err("/dev/net/tun is missing (kernel module tun)".into());
    }
    run(Command::new("ip").arg("-V")).map(drop).map_err(|error| format!("{error} (package iproute2)"))
}
