//! The queue before a running activation.
//!
//! Through ractor every message costs a box, a wake-up and a select over four ports. Only the first message of a burst
//! goes that way: it wakes the activation, which then takes what has gathered here in the same turn.
//!
//! Whoever holds the queue may take from it: the activation while it works, or a sender that is about to wake it. So there is
//! one taker at a time, and mail stays in order.

use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_queue::SegQueue;

use crate::mail::Mail;

#[derive(Debug)]
pub(crate) struct Inbox<B> {
    queue: SegQueue<Mail<B>>,
    /// Sequentially consistent, like the ends of the queue: of a sender that adds and a holder that lets go at the same
    /// time at least one sees the other, so no mail is left behind.
    held: AtomicBool,
}

/// What became of a mail, and what the sender has to do.
#[derive(Debug)]
pub(crate) enum Put<B> {
    /// Somebody holds the queue and will come to it.
    Queued,
    /// The caller holds the empty queue and has to bring this mail, its own, to the activation.
    First(Mail<B>),
    /// The caller holds the queue and has to bring this mail, the oldest, to the activation.
    Oldest(Mail<B>),
}

impl<B> Inbox<B> {
    pub(crate) fn new() -> Self {
        Self { queue: SegQueue::new(), held: AtomicBool::new(false) }
    }

    /// Adds `mail`, and takes hold of the queue if nobody has it.
    #[inline]
    pub(crate) fn put(&self, mail: Mail<B>) -> Put<B> {
        if !self.held.load(Ordering::SeqCst) && self.hold() {
            if self.queue.is_empty() {
                return Put::First(mail);
            }
            self.queue.push(mail);
            return self.next().map_or(Put::Queued, Put::Oldest);
        }
        self.queue.push(mail);
        let held = self.held.load(Ordering::SeqCst) || !self.hold();
        if held { Put::Queued } else { self.next().map_or(Put::Queued, Put::Oldest) }
    }

    /// The oldest mail, for who holds the queue. Without any, lets go of the queue.
    #[inline]
    pub(crate) fn next(&self) -> Option<Mail<B>> {
        loop {
            // Looking first spares an idle activation the fence in `pop`.
            if !self.queue.is_empty()
                && let Some(mail) = self.queue.pop()
            {
                return Some(mail);
            }
            self.held.store(false, Ordering::SeqCst);
            if self.queue.is_empty() || !self.hold() {
                return None;
            }
        }
    }

    fn hold(&self) -> bool {
        !self.held.swap(true, Ordering::SeqCst)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::atomic::AtomicU32;

    use super::*;

    const SENDERS: u32 = 3;
    const ROUNDS: u32 = 10_000;
    const EACH: u32 = 3;

    fn woken<B>(put: Put<B>) -> Option<Mail<B>> {
        match put {
            Put::Queued => None,
            Put::First(mail) | Put::Oldest(mail) => Some(mail),
        }
    }

    /// Senders race the one who takes, in short rounds: mail whose wake-up was lost stays behind at the end of its round,
    /// where no later mail hides it. Two takers at a time would disturb the order.
    #[test]
    fn racing_senders_lose_nothing_and_stay_in_order() {
        let (inbox, round) = (Inbox::new(), Barrier::new(SENDERS as usize));
        let (takers, taken, wrong) = (AtomicU32::new(0), AtomicU32::new(0), AtomicU32::new(0));
        let seen: [AtomicU32; SENDERS as usize] = Default::default();
        // In place of the activation, whoever has to wake it does its work.
        let work = |first: Mail<(u32, u32)>| {
            let mut mail = Some(first);
            while let Some(Mail { body: (sender, n), .. }) = mail {
                // Counted and judged at the end: who panics here leaves the others waiting.
                let alone = takers.fetch_add(1, Ordering::SeqCst) == 0;
                let in_order = seen[sender as usize].swap(n, Ordering::SeqCst) + 1 == n;
                wrong.fetch_add(u32::from(!alone || !in_order), Ordering::SeqCst);
                taken.fetch_add(1, Ordering::SeqCst);
                takers.fetch_sub(1, Ordering::SeqCst);
                mail = inbox.next();
            }
        };
        let send = |sender: u32| {
            for first in (1..=ROUNDS * EACH).step_by(EACH as usize) {
                round.wait();
                (first..first + EACH).filter_map(|n| woken(inbox.put(Mail::from((sender, n))))).for_each(&work);
                if round.wait().is_leader() && inbox.queue.pop().is_some() {
                    wrong.fetch_add(1, Ordering::SeqCst);
                }
            }
        };
        std::thread::scope(|scope| {
            for sender in 0..SENDERS {
                let send = &send;
                scope.spawn(move || send(sender));
            }
        });
        assert_eq!(wrong.into_inner(), 0);
        assert_eq!(taken.into_inner(), ROUNDS * EACH * SENDERS);
        assert!(!inbox.held.into_inner());
    }

    #[test]
    fn first_mail_wakes_and_the_rest_waits() {
        let inbox = Inbox::new();
        assert_eq!(woken(inbox.put(Mail::from(1))).map(|mail| mail.body), Some(1));
        assert!(woken(inbox.put(Mail::from(2))).is_none());
        assert_eq!(inbox.next().map(|mail| mail.body), Some(2));
        assert!(inbox.next().is_none());
        assert_eq!(woken(inbox.put(Mail::from(3))).map(|mail| mail.body), Some(3));
    }
}
