//! A small network for tests: every node a Linux network namespace of its own, every link with delay, jitter, loss, a rate and a switch.
//!
//! For kernels without netem. Each namespace has a TUN device that the test process holds; a forwarder thread there carries the IPv4
//! packets from device to device and does to them what the link says. Programs inside use ordinary sockets and notice nothing.
//!
//! It needs root (`CAP_NET_ADMIN`, `CAP_SYS_ADMIN`), `/dev/net/tun` and `ip` of iproute2; `nft` only for [`Lab::nft_drop`]. Where
//! something is missing, [`Lab::new`] says what, and [`skip_unless_available`] lets a test pass with a line that starts with `SKIPPED`.
//!
//! ```
//! use std::{net::UdpSocket, time::Duration};
//! use netlab::{LabConfig, LinkConfig};
//!
//! let slow = LinkConfig { delay: Duration::from_millis(5), ..LinkConfig::default() };
//! let config = LabConfig { nodes: 2, seed: 7, link: slow };
//! let Some(lab) = netlab::skip_unless_available("the example of netlab", config) else { return Ok(()) };
//!
//! let alice = lab.run_in(0, || UdpSocket::bind("0.0.0.0:0"))?;
//! let bob = lab.run_in(1, || UdpSocket::bind("0.0.0.0:7000"))?;
//! bob.set_read_timeout(Some(Duration::from_millis(100)))?;
//! let mut buffer = [0; 16];
//!
//! alice.send_to(b"hello", (lab.addr(1), 7000))?;
//! assert_eq!(bob.recv(&mut buffer)?, 5);
//!
//! lab.partition(&[0], &[1]);
//! alice.send_to(b"anyone?", (lab.addr(1), 7000))?;
//! assert!(bob.recv(&mut buffer).is_err(), "nothing arrives, and nobody is told");
//!
//! lab.heal();
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! # What repeats
//! The n-th packet that enters a directed link while it is not blocked has the same fate (lost or not, how much jitter) in each run
//! with the same seed and setting. Which packet is the n-th is up to the programs and the kernel: one datagram after another repeats
//! exactly, TCP nearly. The seed does not decide what overflows a queue; that is a matter of time.
//!
//! # Map
//! [`Lab`] (`lab.rs`) makes namespaces (`namespace.rs`) and starts the thread (`forwarder.rs`) that moves packets as the pure part
//! says: `wire.rs` decides on one packet of one directed link, `fabric.rs` holds all wires and what is on them.

#![cfg(target_os = "linux")]

mod fabric;
mod forwarder;
mod lab;
mod namespace;
mod wire;

pub use lab::{Lab, LabConfig, Link, MAX_NODES, Unavailable, skip_unless_available};
pub use wire::{LinkConfig, LinkStats};
