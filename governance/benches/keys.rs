//! Figures of sealing: `cargo bench -p aivillage-governance --bench keys`. Each row is one thread; the peer is `aes-gcm` of `RustCrypto`
//! in the same format, with a random nonce from the same source.

use std::hint::black_box;
use std::sync::LazyLock;

use aes_gcm::aead::{Aead, KeyInit, Payload};
use aes_gcm::{Aes256Gcm, Nonce};
use aivillage_governance::keys::{KeyVault, Keystore, Scope, TenantId, Vault, VaultHandle};
use aivillage_runtime::{ActorCx, Village};
use aws_lc_rs::digest::{SHA256, digest};
use divan::Bencher;
use divan::counter::BytesCount;

/// The allocator of the binary `village`, which is what the figures are about.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SIZES: [usize; 2] = [256, 64 * 1024];
const RECORD: &[u8] = b"memory/local/0198c0de";

/// A handle with one key. The village that made it has ended; its keys serve on.
static KEYS: LazyLock<(VaultHandle, Scope, Village)> = LazyLock::new(|| {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let handle = VaultHandle::new(Keystore::in_memory().expect("random bytes"));
    let scope = Scope::new(TenantId::of("local"), "ada", "memory").expect("short names");
    let made = runtime.block_on(async {
        let hosted = handle.clone();
        let village = Village::builder().host(move |_: &ActorCx| KeyVault::new(hosted.clone())).start().await;
        let vault = Vault::new(village.expect("starts"), handle.clone());
        vault.prepare(&scope).await.expect("a key");
        vault.village().clone()
    });
    // Its threads must not end: with them would go the actor, and with that the keys.
    std::mem::forget(runtime);
    (handle, scope, made)
});

fn main() {
    divan::main();
}

#[divan::bench(args = SIZES)]
fn seal(bencher: Bencher, bytes: usize) {
    let (handle, scope, _) = &*KEYS;
    let plain = vec![7; bytes];
    bencher.counter(BytesCount::new(bytes)).bench(|| handle.seal(scope, RECORD, black_box(&plain)).expect("seals"));
}

#[divan::bench(args = SIZES)]
fn open(bencher: Bencher, bytes: usize) {
    let (handle, scope, _) = &*KEYS;
    let sealed = handle.seal(scope, RECORD, &vec![7; bytes]).expect("seals");
    bencher.counter(BytesCount::new(bytes)).bench(|| handle.open(scope, RECORD, black_box(&sealed)).expect("opens"));
}

fn peer() -> Aes256Gcm {
    Aes256Gcm::new(&[7; 32].into())
}

fn aad(header: &[u8; 22]) -> [u8; 70] {
    let mut aad = [0; 70];
    let (head, rest) = aad.split_at_mut(22);
    head.copy_from_slice(header);
    let (_, place) = rest.split_at_mut(16);
    place.copy_from_slice(digest(&SHA256, RECORD).as_ref());
    aad
}

fn peer_seal(cipher: &Aes256Gcm, plain: &[u8]) -> Vec<u8> {
    let (header, mut nonce) = ([7; 22], [0; 12]);
    aws_lc_rs::rand::fill(&mut nonce).expect("random bytes");
    let payload = Payload { msg: plain, aad: &aad(&header) };
    let body = cipher.encrypt(&Nonce::from(nonce), payload).expect("seals");
    let mut out = Vec::with_capacity(34 + body.len());
    out.extend_from_slice(&header);
    out.extend_from_slice(&nonce);
    out.extend_from_slice(&body);
    out
}

#[divan::bench(args = SIZES)]
fn seal_aes_gcm(bencher: Bencher, bytes: usize) {
    let (cipher, plain) = (peer(), vec![7; bytes]);
    bencher.counter(BytesCount::new(bytes)).bench(|| peer_seal(&cipher, black_box(&plain)));
}

#[divan::bench(args = SIZES)]
fn open_aes_gcm(bencher: Bencher, bytes: usize) {
    let cipher = peer();
    let sealed = peer_seal(&cipher, &vec![7; bytes]);
    bencher.counter(BytesCount::new(bytes)).bench(|| {
        let sealed = black_box(&sealed);
        let nonce = Nonce::try_from(&sealed[22..34]).expect("12 bytes");
        cipher.decrypt(&nonce, Payload { msg: &sealed[34..], aad: &aad(&[7; 22]) }).expect("opens")
    });
}
