//! The thread that carries packets from device to device. It sleeps in `ppoll` until a packet comes or is due.

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use parking_lot::{Mutex, MutexGuard};
use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll},
    io::Errno,
};
use tun_rs::SyncDevice;

use crate::fabric::Fabric;

/// Packets taken from one device before the others and the lab have their turn.
const BATCH: usize = 64;
/// Largest IP packet there is.
const PACKET_BYTES_MAX: usize = 65_535;

/// Carries packets until it is dropped; then the devices are gone.
#[derive(Debug)]
pub(crate) struct Forwarder {
    fabric: Arc<Mutex<Fabric>>,
    stop: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Forwarder {
    /// Starts to carry packets between the devices, the n-th being that of node n.
    pub(crate) fn start(fabric: Fabric, devices: Vec<SyncDevice>) -> io::Result<Self> {
        let fabric = Arc::new(Mutex::new(fabric));
        let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC)?);
        let carrier = Carrier { devices, fabric: Arc::clone(&fabric) };
        let stopped = Arc::clone(&stop);
        let thread = std::thread::Builder::new().name("netlab".into()).spawn(move || carrier.run(&stopped))?;
        Ok(Self { fabric, stop, thread: Some(thread) })
    }

    /// The links. No packet moves while this is held.
    pub(crate) fn fabric(&self) -> MutexGuard<'_, Fabric> {
        self.fabric.lock()
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        // Writing 8 bytes to a fresh eventfd cannot fail, and a panic of the thread has been printed.
        let _ = rustix::io::write(&self.stop, &1u64.to_ne_bytes());
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

struct Carrier {
    devices: Vec<SyncDevice>,
    fabric: Arc<Mutex<Fabric>>,
}

impl Carrier {
    fn run(&self, stop: &OwnedFd) {
        let mut buffer = vec![0; PACKET_BYTES_MAX];
        let sources = self.devices.iter().map(|device| device.as_fd()).chain([stop.as_fd()]);
        let mut polled: Vec<PollFd<'_>> = sources.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
        loop {
            let wait = self.fabric.lock().next_landing(Instant::now());
            match poll(&mut polled, wait.map(timespec).as_ref()) {
                Ok(_) => {}
                Err(Errno::INTR) => continue,
                Err(error) => panic!("netlab cannot wait for packets: {error}"),
            }
            let (stopped, readable) = polled.split_last().expect("the stop event was put there");
            if !stopped.revents().is_empty() {
                return;
            }
            self.land();
            for (node, _) in readable.iter().enumerate().filter(|(_, source)| !source.revents().is_empty()) {
                self.read(node, &mut buffer);
            }
        }
    }

    /// Hands over what is due.
    fn land(&self) {
        let mut fabric = self.fabric.lock();
        let now = Instant::now();
        while let Some(flying) = fabric.land(now) {
            self.hand_over(&mut fabric, (flying.from, flying.to), &flying.packet);
        }
    }

    /// Takes what a node has sent.
    fn read(&self, node: usize, buffer: &mut [u8]) {
        let mut fabric = self.fabric.lock();
        for _ in 0..BATCH {
            let packet = match self.devices[node].recv(buffer) {
                Ok(bytes) => &buffer[..bytes],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => panic!("netlab cannot read the device of node {node}: {error}"),
            };
            if let Some(to) = fabric.enter(node, packet, Instant::now()) {
                self.hand_over(&mut fabric, (node, to), packet);
            }
        }
    }

    fn hand_over(&self, fabric: &mut Fabric, (from, to): (usize, usize), packet: &[u8]) {
        let was_taken = self.devices[to].send(packet).is_ok();
        fabric.wire(from, to).arrived(was_taken);
    }
}

fn timespec(wait: Duration) -> Timespec {
    // A year is as good as any longer time, which might not fit.
    Timespec::try_from(wait).unwrap_or(Timespec { tv_sec: 31_536_000, tv_nsec: 0 })
}
