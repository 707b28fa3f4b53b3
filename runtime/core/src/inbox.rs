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

impl<B> Inbox<B> {
    pub(crate) fn new() -> Self {
        Self { queue: SegQueue::new(), held: AtomicBool::new(false) }
    }

    /// Adds `mail`. If nobody holds the queue the caller does now, and has to bring the oldest mail, which it gets, to the
    /// activation.
    pub(crate) fn put(&self, mail: Mail<B>) -> Option<Mail<B>> {
        if !self.held.load(Ordering::SeqCst) && self.hold() {
            if self.queue.is_empty() {
                return Some(mail);
            }
            self.queue.push(mail);
            return self.next();
        }
        self.queue.push(mail);
        if self.held.load(Ordering::SeqCst) || !self.hold() { None } else { self.next() }
    }

    /// The oldest mail, for who holds the queue. Without any, lets go of the queue.
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
    use std::sync::atomic::{AtomicU32, AtomicUsize};

    use super::*;

    const SENDERS: usize = 4;
    const EACH: u32 = 20_000;

    /// Senders race the one who takes, which gives up its turn as soon as the queue is empty. A lost wake-up would
    /// leave mail behind; two takers at a time would disturb the order.
    #[test]
    fn racing_senders_lose_nothing_and_stay_in_order() {
        let inbox = Inbox::new();
        let (takers, taken) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let seen: [AtomicU32; SENDERS] = Default::default();
        // In place of the activation, whoever has to wake it does its work.
        let work = |first: Mail<(usize, u32)>| {
            let mut mail = Some(first);
            while let Some(Mail { body: (sender, n), .. }) = mail {
                assert_eq!(takers.fetch_add(1, Ordering::SeqCst), 0, "two take at the same time");
                assert_eq!(seen[sender].swap(n, Ordering::SeqCst) + 1, n, "sender {sender} is out of order");
                taken.fetch_add(1, Ordering::SeqCst);
                takers.fetch_sub(1, Ordering::SeqCst);
                mail = inbox.next();
            }
        };
        std::thread::scope(|scope| {
            for sender in 0..SENDERS {
                let (inbox, work) = (&inbox, &work);
                scope.spawn(move || (1..=EACH).filter_map(|n| inbox.put(Mail::from((sender, n)))).for_each(work));
            }
        });
        assert_eq!(taken.into_inner(), SENDERS * EACH as usize);
        assert!(!inbox.held.into_inner() && inbox.queue.is_empty());
    }

    #[test]
    fn first_mail_wakes_and_the_rest_waits() {
        let inbox = Inbox::new();
        assert_eq!(inbox.put(Mail::from(1)).map(|mail| mail.body), Some(1));
        assert!(inbox.put(Mail::from(2)).is_none());
        assert_eq!(inbox.next().map(|mail| mail.body), Some(2));
        assert!(inbox.next().is_none());
        assert_eq!(inbox.put(Mail::from(3)).map(|mail| mail.body), Some(3));
    }
}
