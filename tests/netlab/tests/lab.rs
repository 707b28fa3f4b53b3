//! What a lab promises, seen by programs in it. Needs root; says so and passes without.

#![cfg(target_os = "linux")]

use std::{
    io::{self, ErrorKind, Read as _, Write as _},
    net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket},
    os::unix::process::ExitStatusExt as _,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use netlab::{Lab, LabConfig, LinkConfig, skip_unless_available};

/// Longest wait for what must come.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long nothing must come.
const SILENCE: Duration = Duration::from_millis(200);

fn lab(check: &str, nodes: u8, seed: u64, link: LinkConfig) -> Option<Lab> {
    skip_unless_available(check, LabConfig { nodes, seed, link })
}

fn udp(lab: &Lab, node: usize) -> UdpSocket {
    let socket = lab.run_in(node, || UdpSocket::bind((lab.addr(node), 7))).expect("bind");
    socket.set_read_timeout(Some(PATIENCE)).expect("timeout");
    // The test reads when all is sent, so the socket must hold it.
    rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, 8 << 20).expect("root may have a large buffer");
    socket
}

fn tcp(lab: &Lab, from: usize, to: usize) -> (TcpStream, TcpStream) {
    let listener = lab.run_in(to, || TcpListener::bind((lab.addr(to), 0))).expect("bind");
    let target = listener.local_addr().expect("address");
    let client = lab.run_in(from, || TcpStream::connect_timeout(&target, PATIENCE)).expect("connect");
    let (server, _) = listener.accept().expect("accept");
    server.set_read_timeout(Some(PATIENCE)).expect("timeout");
    (client, server)
}

/// Repeats a call that a signal has ended: the SIGCHLD of another test's `ip` does so if it comes while a thread is being made.
fn uninterrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

fn send(from: &UdpSocket, to: Ipv4Addr, mark: u32) {
    from.send_to(&mark.to_le_bytes(), (to, 7)).expect("send");
}

fn receive(socket: &UdpSocket) -> (u32, Ipv4Addr) {
    let mut mark = [0; 4];
    let (_, from) = uninterrupted(|| socket.recv_from(&mut mark)).expect("a datagram");
    let std::net::IpAddr::V4(from) = from.ip() else { panic!("IPv4 only") };
    (u32::from_le_bytes(mark), from)
}

fn assert_silent(socket: &UdpSocket) {
    socket.set_read_timeout(Some(SILENCE)).expect("timeout");
    let error = uninterrupted(|| socket.recv(&mut [0; 4])).expect_err("nothing comes");
    assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "no error either: {error}");
    socket.set_read_timeout(Some(PATIENCE)).expect("timeout");
}

/// Sends numbered datagrams from node 0 to node 1 and returns which arrive. Node 2 hears a last one over a perfect link: when
/// it does, the forwarder has decided on all before it.
fn survivors(lab: &Lab, count: u32) -> Vec<u32> {
    let (sender, receiver, witness) = (udp(lab, 0), udp(lab, 1), udp(lab, 2));
    for mark in 0..count {
        send(&sender, lab.addr(1), mark);
    }
    send(&sender, lab.addr(2), count);
    assert_eq!(receive(&witness).0, count);
    receiver.set_nonblocking(true).expect("nonblocking");
    let mut mark = [0; 4];
    std::iter::from_fn(|| receiver.recv(&mut mark).ok().map(|_| u32::from_le_bytes(mark))).collect()
}

fn exists(namespace: &str) -> bool {
    Path::new("/var/run/netns").join(namespace).exists()
}

#[test]
fn datagram_goes_to_another_node_and_back() {
    let Some(lab) = lab("round trip", 2, 1, LinkConfig::default()) else { return };
    let (alice, bob) = (udp(&lab, 0), udp(&lab, 1));
    send(&alice, lab.addr(1), 17);
    assert_eq!(receive(&bob), (17, lab.addr(0)));
    send(&bob, lab.addr(0), 18);
    assert_eq!(receive(&alice), (18, lab.addr(1)));
    assert_eq!(lab.link(0, 1).stats().delivered, 1);
}

#[test]
fn delay_is_kept_in_both_directions() {
    let link =
        LinkConfig { delay: Duration::from_millis(20), jitter: Duration::from_millis(5), ..LinkConfig::default() };
    let Some(lab) = lab("delay", 2, 1, link) else { return };
    let (alice, bob) = (udp(&lab, 0), udp(&lab, 1));
    for mark in 0..5 {
        let start = Instant::now();
        send(&alice, lab.addr(1), mark);
        assert_eq!(receive(&bob).0, mark);
        assert!(start.elapsed() >= link.delay);
        send(&bob, lab.addr(0), mark);
        assert_eq!(receive(&alice).0, mark);
        assert!(start.elapsed() >= 2 * link.delay);
    }
}

#[test]
fn setting_of_one_direction_leaves_the_other_alone() {
    let Some(lab) = lab("one direction", 2, 1, LinkConfig::default()) else { return };
    let (alice, bob) = (udp(&lab, 0), udp(&lab, 1));
    lab.link(0, 1).set(LinkConfig { loss: 1.0, ..LinkConfig::default() });
    send(&alice, lab.addr(1), 1);
    send(&bob, lab.addr(0), 2);
    assert_eq!(receive(&alice).0, 2);
    assert_silent(&bob);
    assert_eq!(lab.link(0, 1).stats().lost, 1);
    lab.set_all(LinkConfig::default());
    send(&alice, lab.addr(1), 3);
    assert_eq!(receive(&bob).0, 3);
}

#[test]
fn same_seed_loses_the_same_datagrams_and_near_the_share() {
    let run = |seed| {
        let lab = lab("loss by seed", 3, seed, LinkConfig::default())?;
        lab.link(0, 1).set(LinkConfig { loss: 0.1, ..LinkConfig::default() });
        let survivors = survivors(&lab, 2_000);
        let stats = lab.link(0, 1).stats();
        assert_eq!((stats.delivered, stats.delivered + stats.lost), (survivors.len() as u64, 2_000));
        Some(survivors)
    };
    let Some(first) = run(42) else { return };
    assert_eq!(run(42).as_ref(), Some(&first));
    assert_ne!(run(43).as_ref(), Some(&first));
    // 200 expected, standard deviation 13.4
    assert!((150..250).contains(&(2_000 - first.len())), "{} lost", 2_000 - first.len());
}

#[test]
fn partition_is_silent_and_heals() {
    let Some(lab) = lab("partition", 3, 1, LinkConfig::default()) else { return };
    let (alice, bob, carol) = (udp(&lab, 0), udp(&lab, 1), udp(&lab, 2));
    lab.partition(&[0], &[1, 2]);
    send(&alice, lab.addr(1), 1);
    send(&carol, lab.addr(0), 2);
    assert_silent(&alice);
    assert_silent(&bob);
    send(&carol, lab.addr(1), 3);
    assert_eq!(receive(&bob), (3, lab.addr(2)), "within a side all goes on");

    let refused = lab.run_in(0, || TcpStream::connect_timeout(&(lab.addr(1), 9).into(), SILENCE)).expect_err("cut off");
    assert_eq!(refused.kind(), ErrorKind::TimedOut, "no reset");

    lab.heal();
    send(&alice, lab.addr(1), 4);
    assert_eq!(receive(&bob).0, 4, "what was cut off does not come later");
    let refused =
        lab.run_in(0, || TcpStream::connect_timeout(&(lab.addr(1), 9).into(), PATIENCE)).expect_err("no listener");
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn connection_outlives_a_partition() {
    let Some(lab) = lab("connection and partition", 2, 1, LinkConfig::default()) else { return };
    let (mut client, mut server) = tcp(&lab, 0, 1);
    lab.partition(&[0], &[1]);
    client.write_all(b"late").expect("the kernel takes it");
    server.set_read_timeout(Some(SILENCE)).expect("timeout");
    let mut text = [0; 4];
    let error = uninterrupted(|| server.read(&mut text)).expect_err("nothing comes");
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    lab.heal();
    server.set_read_timeout(Some(PATIENCE)).expect("timeout");
    server.read_exact(&mut text).expect("sent again");
    assert_eq!(&text, b"late");
}

#[test]
fn blocked_direction_leaves_the_other_open() {
    let Some(lab) = lab("one-way block", 2, 1, LinkConfig::default()) else { return };
    let (alice, bob) = (udp(&lab, 0), udp(&lab, 1));
    lab.block(0, 1);
    send(&alice, lab.addr(1), 1);
    send(&bob, lab.addr(0), 2);
    assert_eq!(receive(&alice).0, 2);
    assert_silent(&bob);
    lab.heal();
    send(&alice, lab.addr(1), 3);
    assert_eq!(receive(&bob).0, 3);
}

#[test]
fn firewall_of_the_receiver_drops_one_way_and_heals() {
    let Some(lab) = lab("nft", 2, 1, LinkConfig::default()) else { return };
    if let Err(error) = lab.nft_drop(0, 1) {
        let _ = writeln!(std::io::stderr(), "SKIPPED nft: {error}");
        return;
    }
    let (alice, bob) = (udp(&lab, 0), udp(&lab, 1));
    send(&alice, lab.addr(1), 1);
    send(&bob, lab.addr(0), 2);
    assert_eq!(receive(&alice).0, 2);
    assert_silent(&bob);
    lab.heal();
    send(&alice, lab.addr(1), 3);
    assert_eq!(receive(&bob).0, 3);
}

#[test]
fn rate_is_not_exceeded() {
    const BYTES: u32 = 256 << 10;
    const RATE: u32 = 1_000_000;
    let Some(lab) = lab("rate", 2, 1, LinkConfig::default()) else { return };
    let (mut client, mut server) = tcp(&lab, 0, 1);
    lab.link(0, 1).set(LinkConfig { rate_bytes_per_s: Some(RATE.into()), ..LinkConfig::default() });
    let start = Instant::now();
    let sender = thread::spawn(move || client.write_all(&vec![7; BYTES as usize]));
    server.read_exact(&mut vec![0; BYTES as usize]).expect("all arrives");
    let fastest = Duration::from_secs_f64(f64::from(BYTES) / f64::from(RATE));
    assert!(start.elapsed() >= fastest, "{:?} for what takes {fastest:?}", start.elapsed());
    sender.join().expect("no panic").expect("all is sent");
}

#[test]
fn full_queue_drops_the_tail() {
    let Some(lab) = lab("queue", 3, 1, LinkConfig::default()) else { return };
    // So slow that nothing leaves while the test runs. A datagram of 4 bytes is a packet of 32.
    lab.link(0, 1).set(LinkConfig { rate_bytes_per_s: Some(1), queue_bytes: 320, ..LinkConfig::default() });
    assert!(survivors(&lab, 100).is_empty());
    let overflowed = lab.link(0, 1).stats().overflowed;
    assert!((85..=90).contains(&overflowed), "{overflowed} dropped"); // one more fits for each half minute of a stalled machine
}

#[test]
fn program_runs_on_its_node() {
    let Some(lab) = lab("command", 2, 1, LinkConfig::default()) else { return };
    let output = lab.command(1, "ip").args(["-4", "-o", "addr"]).output().expect("ip runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("127.0.0.1/8") && text.contains("10.77.1.2/16") && !text.contains("10.77.0.2"), "{text}");
}

#[test]
fn nothing_is_left_of_a_lab() {
    let Some(lab) = lab("cleanup", 2, 1, LinkConfig::default()) else { return };
    let names = [lab.namespace(0).to_owned(), lab.namespace(1).to_owned()];
    assert!(names.iter().all(|name| exists(name)));
    let mut program = lab.command(0, "sleep").arg("1000").spawn().expect("sleep starts");
    // The child is in the namespace as soon as `ip` has become the program.
    let command = format!("/proc/{}/comm", program.id());
    let start = Instant::now();
    while std::fs::read_to_string(&command).expect("it runs").trim() != "sleep" {
        assert!(start.elapsed() < PATIENCE);
        thread::yield_now();
    }
    drop(lab);
    assert!(!names.iter().any(|name| exists(name)));
    assert_eq!(program.wait().expect("it ended").signal(), Some(9));
}

#[test]
fn nothing_is_left_after_a_panic() {
    let Some(lab) = lab("cleanup after a panic", 1, 1, LinkConfig::default()) else { return };
    let name = lab.namespace(0).to_owned();
    let result = catch_unwind(AssertUnwindSafe(move || lab.run_in(0, || panic!("on purpose"))));
    assert_eq!(result.expect_err("it goes on here").downcast_ref(), Some(&"on purpose"));
    assert!(!exists(&name));
}

#[test]
fn leftovers_of_a_dead_process_are_removed() {
    let Some(first) = lab("leftovers", 1, 1, LinkConfig::default()) else { return };
    let mut dead = Command::new("true").spawn().expect("true starts");
    dead.wait().expect("it ends");
    let left = format!("nl{}x0", dead.id());
    // It may fail: the lab of a test beside this one may remove it at any time.
    Command::new("ip").args(["netns", "add", &left]).output().expect("ip runs");
    let second = lab("leftovers", 1, 1, LinkConfig::default());
    assert!(second.is_some() && !exists(&left));
    assert!(exists(first.namespace(0)), "the living keep theirs");
}

/// Prints what one connection gets through; the forwarder must not be what limits a test.
#[test]
#[ignore = "a measurement: cargo test -p netlab bulk -- --ignored --nocapture"]
fn bulk_is_carried_fast() {
    const BYTES: usize = 512 << 20;
    for delay in [Duration::ZERO, Duration::from_millis(5)] {
        let link = LinkConfig { delay, ..LinkConfig::default() };
        let Some(lab) = lab("bulk", 2, 1, link) else { return };
        let (mut client, mut server) = tcp(&lab, 0, 1);
        let sender = thread::spawn(move || (0..BYTES >> 20).try_for_each(|_| client.write_all(&vec![7; 1 << 20])));
        let start = Instant::now();
        let mut buffer = vec![0; 1 << 20];
        let mut received = 0;
        while received < BYTES {
            received += uninterrupted(|| server.read(&mut buffer)).expect("all arrives");
        }
        let megabits =
            f64::from(u32::try_from(BYTES >> 20).expect("small")) * 8.388_608 / start.elapsed().as_secs_f64();
        let _ = writeln!(std::io::stderr(), "{megabits:.0} Mbit/s at a delay of {delay:?}");
        sender.join().expect("no panic").expect("all is sent");
    }
}

/// Prints the processor time of a lab in which nothing happens.
#[test]
#[ignore = "a measurement: cargo test -p netlab idle -- --ignored --nocapture"]
fn idle_lab_costs_nothing() {
    let Some(lab) = lab("idle", 8, 1, LinkConfig::default()) else { return };
    let socket = udp(&lab, 0);
    socket.set_read_timeout(Some(Duration::from_secs(2))).expect("timeout");
    let used = || rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let before = used();
    assert!(socket.recv(&mut [0; 4]).is_err());
    let after = used();
    let spent = Duration::try_from(after - before).expect("forward");
    let _ = writeln!(std::io::stderr(), "{spent:?} in 2 s");
    assert!(spent < Duration::from_millis(20));
}
