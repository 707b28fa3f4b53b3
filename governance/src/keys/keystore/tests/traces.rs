//! What a core dump of the process would show.

use std::fs::File;
use std::io::{BufRead, BufReader, Cursor};
use std::os::unix::fs::FileExt;

use zeroize::Zeroizing;

use super::*;
use crate::keys::VaultHandle;

const MASK: u8 = 0x5a;
const PIECE: usize = 1 << 20;

/// The chain key, masked so that the test itself does not keep it.
fn masked(store: &Keystore) -> Vec<u8> {
    store.root().chain().bytes().iter().map(|byte| byte ^ MASK).collect()
}

/// How often the masked bytes are in the writable memory of this process.
fn traces(masked: &[u8]) -> usize {
    let memory = File::open("/proc/self/mem").unwrap();
    let maps = BufReader::new(File::open("/proc/self/maps").unwrap());
    let mut found = 0;
    // It holds the key for a moment, too.
    let mut piece = Zeroizing::new(vec![0; PIECE]);
    for line in maps.lines() {
        let line = line.unwrap();
        let (range, rest) = line.split_once(' ').unwrap();
        let (from, to) = range.split_once('-').unwrap();
        let [from, to] = [from, to].map(|at| u64::from_str_radix(at, 16).unwrap());
        let mut at = from;
        while rest.starts_with("rw") && at < to {
            let Ok(read @ 1..) = memory.read_at(&mut piece, at) else { break };
            let inside = usize::try_from(to - at).unwrap().min(read);
            found += count(&piece[..inside], masked);
            // The last bytes again, for what crosses the border of two pieces.
            at += if at + inside as u64 == to { inside } else { inside - masked.len() + 1 } as u64;
        }
    }
    found
}

fn count(bytes: &[u8], masked: &[u8]) -> usize {
    let (mut found, mut ahead) = (0, Cursor::new(bytes));
    while ahead.skip_until(masked[0] ^ MASK).unwrap() > 0 {
        let at = usize::try_from(ahead.position()).unwrap() - 1;
        let window = bytes[at..].iter().take(masked.len());
        found += usize::from(window.map(|byte| byte ^ MASK).eq(masked.iter().copied()));
    }
    found
}

#[test]
fn root_key_is_not_left_in_memory() {
    let dir = tempfile::tempdir().unwrap();
    let secret = SecretString::from("correct horse".to_owned());
    let cost = Argon2Cost { m_kib: 64, t: 1, p: 1 };
    drop(Keystore::open(dir.path(), &Unlock::Passphrase(&secret, cost), 1).unwrap());
    let mut store = Keystore::open(dir.path(), &Unlock::Passphrase(&secret, cost), 1).unwrap();
    store.reseal(&Unlock::File).unwrap();
    store.enroll(TenantId::of("local"), 1).unwrap();
    store.advance(2).unwrap();
    let masked = masked(&store);
    assert!(traces(&masked) > 0, "the search finds the key while it is in use");
    let handle = VaultHandle::new(store);
    handle.keystore(|store| store.root().epoch_key(2)).unwrap().unwrap();
    drop(handle);
    drop(Keystore::open(dir.path(), &Unlock::File, 1).unwrap());
    assert_eq!(traces(&masked), 0);
}
