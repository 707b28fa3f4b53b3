//! A named network namespace, made and removed by `ip netns`.
//!
//! The name carries the pid of the process that made it, so that a later run can remove what a killed one left.

use std::{
    fs::File,
    io,
    net::Ipv4Addr,
    os::fd::AsFd as _,
    path::Path,
    process::{self, Command},
    sync::atomic::{AtomicU64, Ordering},
    thread,
};

use rustix::{
    process::{Pid, Signal, kill_process},
    thread::{LinkNameSpaceType, move_into_link_name_space},
};
use tun_rs::{DeviceBuilder, SyncDevice};

/// Where iproute2 keeps the names.
const DIRECTORY: &str = "/var/run/netns";
/// Of all our names, before the pid.
const PREFIX: &str = "nl";
/// As on an Ethernet, so that loss and rate meet packets of the usual size.
const MTU: u16 = 1_500;
/// Packets that may wait for the forwarder: it must not be the kernel that drops, as that would not repeat.
const DEVICE_QUEUE: u32 = 10_000;

/// Removed when dropped, with the processes in it.
#[derive(Debug)]
pub(crate) struct Namespace {
    name: String,
    handle: File,
}

impl Namespace {
    /// Makes a namespace with its loopback up. The error says what did not work.
    pub(crate) fn create() -> Result<Self, String> {
        static NAMES: AtomicU64 = AtomicU64::new(0);
        let name = format!("{PREFIX}{}x{}", process::id(), NAMES.fetch_add(1, Ordering::Relaxed));
        let path = Path::new(DIRECTORY).join(&name);
        if path.exists() {
            remove(&name); // of an earlier process with our pid
        }
        run(Command::new("ip").args(["netns", "add", &name]))?;
        let handle = File::open(&path).map_err(|error| {
            remove(&name);
            format!("{} cannot be opened: {error}", path.display())
        })?;
        let namespace = Self { name, handle };
        run(Command::new("ip").args(["-n", &namespace.name, "link", "set", "lo", "up"]))?;
        Ok(namespace)
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// A command that starts a program inside. `ip` replaces itself by the program, so a signal to the child reaches it.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]);
        command
    }

    /// Runs a closure on a thread inside and waits for it.
    pub(crate) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                move_into_link_name_space(self.handle.as_fd(), Some(LinkNameSpaceType::Network))?;
                Ok(work())
            });
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Makes a device inside that this process holds.
    pub(crate) fn device(&self, address: Ipv4Addr, prefix: u8) -> Result<SyncDevice, String> {
        let build = || {
            let builder = DeviceBuilder::new().name("wan0").mtu(MTU).tx_queue_len(DEVICE_QUEUE);
            let device = builder.ipv4(address, prefix, None).build_sync()?;
            device.set_nonblocking(true)?;
            Ok::<_, io::Error>(device)
        };
        self.run(build).flatten().map_err(|error| format!("no TUN device: {error}"))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        remove(&self.name);
    }
}

/// Removes what processes left that are dead by now.
pub(crate) fn sweep() {
    let Ok(names) = Path::new(DIRECTORY).read_dir() else { return };
    for name in names.filter_map(|entry| entry.ok()?.file_name().into_string().ok()) {
        if maker(&name).is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            remove(&name);
        }
    }
}

/// Runs a command to its end. The error says what it printed.
pub(crate) fn run(command: &mut Command) -> Result<String, String> {
    let program = command.get_program().to_string_lossy().into_owned();
    match command.output() {
        Ok(output) if output.status.success() => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        Ok(output) => Err(format!("`{program}` failed: {}", String::from_utf8_lossy(&output.stderr).trim())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(format!("`{program}` is not installed")),
        Err(error) => Err(format!("`{program}` cannot be started: {error}")),
    }
}

/// The pid in one of our names.
fn maker(name: &str) -> Option<u32> {
    let (pid, number) = name.strip_prefix(PREFIX)?.split_once('x')?;
    number.parse::<u64>().ok()?;
    pid.parse().ok()
}

/// Ends the processes inside and takes the name away; the kernel removes the rest. Failures are left to the next run.
fn remove(name: &str) {
    let inside = run(Command::new("ip").args(["netns", "pids", name])).unwrap_or_default();
    let own = i32::try_from(process::id()).ok();
    for pid in inside.lines().filter_map(|line| line.trim().parse().ok()).filter(|pid| Some(*pid) != own) {
        let _ = Pid::from_raw(pid).map(|pid| kill_process(pid, Signal::KILL));
    }
    let _ = run(Command::new("ip").args(["netns", "del", name]));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_names_are_swept() {
        assert_eq!(maker("nl4711x0"), Some(4711));
        for foreign in ["nl4711", "nlx0", "nl4711xa", "nlab", "blue", "xnl1x1"] {
            assert_eq!(maker(foreign), None, "{foreign}");
        }
    }
}
