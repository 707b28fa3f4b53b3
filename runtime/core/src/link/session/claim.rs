//! Process groups, names and pids of `ractor` belong to the process, so only one node of a process can have sessions.

use std::sync::atomic::{AtomicBool, Ordering};

static PROCESS: Place = Place::free();

/// What one at a time can hold.
#[derive(Debug)]
struct Place(AtomicBool);

impl Place {
    const fn free() -> Self {
        Self(AtomicBool::new(false))
    }

    fn take(&'static self) -> Option<Claim> {
        let taken = self.0.swap(true, Ordering::AcqRel);
        (!taken).then(|| Claim(self))
    }
}

/// The right of a node to have sessions in this process, until it is dropped.
#[derive(Debug)]
pub(crate) struct Claim(&'static Place);

impl Claim {
    /// None while another node has it.
    pub(crate) fn take() -> Option<Self> {
        PROCESS.take()
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.0.0.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time() {
        static PLACE: Place = Place::free();
        let first = PLACE.take();
        assert!(first.is_some());
        assert!(PLACE.take().is_none() && PLACE.take().is_none(), "one that was refused frees nothing");
        drop(first);
        assert!(PLACE.take().is_some(), "what was dropped at once is free again");
        let (started, won) = (std::sync::Barrier::new(8), std::sync::Mutex::new(Vec::new()));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    started.wait();
                    won.lock().unwrap().extend(PLACE.take());
                });
            }
        });
        assert_eq!(won.into_inner().unwrap().len(), 1);
    }
}
