//! How often a session may ask and a user may connect. A limit slows down, it never locks out; emergency traffic and
//! releases pass it by. Pure: time is handed in.

use crate::base::{Mono, UserId};
use std::collections::{HashMap, VecDeque};
use std::time::Duration;

/// Requests that a session may make in a second.
const REQUESTS_PER_S: u32 = 50;
/// What each request above the limit adds to the time until it is answered.
const SLOWER: Duration = Duration::from_millis(20);
/// No answer waits longer than this.
const SLOWEST: Duration = Duration::from_secs(2);
/// The window in which connections are counted.
const MINUTE: Duration = Duration::from_secs(60);
/// Old clients open one socket a channel, and again when the network comes back.
const CONNECTIONS_PER_CHANNEL: usize = 4;

/// The pace of one session's requests, by the generic cell rate algorithm: a request costs 1/50 s of a second's credit.
#[derive(Debug, Default)]
pub struct Pace {
    /// When all that was asked would have been asked at the even pace.
    paid_until: Mono,
    above: u32,
}

/// A request above the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooFast {
    /// After this a request will be carried out again.
    pub retry_after: Duration,
    /// The refusal is to be said after this.
    pub answer_after: Duration,
    /// True for the first one since the session was quiet.
    pub is_first: bool,
}

impl Pace {
    /// Takes a request.
    ///
    /// # Errors
    /// If it is one too many.
    pub fn take(&mut self, now: Mono) -> Result<(), TooFast> {
        let cost = Duration::from_secs(1) / REQUESTS_PER_S;
        if self.paid_until <= now {
            self.above = 0; // quiet for long enough to have all of the credit again
        }
        let paid_until = self.paid_until.max(now) + cost;
        let ahead = paid_until.since(now);
        if ahead <= Duration::from_secs(1) {
            self.paid_until = paid_until;
            return Ok(());
        }
        self.above = self.above.saturating_add(1);
        Err(TooFast {
            retry_after: ahead - Duration::from_secs(1),
            answer_after: SLOWER.saturating_mul(self.above).min(SLOWEST),
            is_first: self.above == 1,
        })
    }
}

/// The connections of each user in the last minute.
#[derive(Debug, Default)]
pub struct Arrivals(HashMap<UserId, VecDeque<Mono>>);

impl Arrivals {
    /// Takes a connection of a user who may join `channels` channels at once.
    ///
    /// # Errors
    /// If it is one too many: how long until there is room.
    pub fn take(&mut self, user: &UserId, channels: usize, now: Mono) -> Result<(), Duration> {
        self.0.retain(|_, times| times.back().is_some_and(|last| now.since(*last) < MINUTE));
        let times = self.0.entry(user.clone()).or_default();
        while times.front().is_some_and(|first| now.since(*first) >= MINUTE) {
            times.pop_front();
        }
        match times.front() {
            Some(first) if times.len() >= channels * CONNECTIONS_PER_CHANNEL => Err((*first + MINUTE).since(now)),
            Some(_) | None => {
                times.push_back(now);
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(ms: u64) -> Mono {
        Mono::from_millis(60_000 + ms)
    }

    #[test]
    fn fifty_requests_at_once_pass_and_then_fifty_a_second() {
        let mut pace = Pace::default();
        assert_eq!((0..200).filter(|_| pace.take(at(0)).is_ok()).count(), 50);
        let mut pace = Pace::default();
        let passed = (0..10_000).filter(|ms| pace.take(at(*ms)).is_ok()).count();
        assert_eq!(passed, 50 + 500 - 1, "one each millisecond for ten seconds");
    }

    #[test]
    fn answers_come_ever_more_slowly_and_nobody_is_locked_out() {
        let mut pace = Pace::default();
        while pace.take(at(0)).is_ok() {}
        let mut last = Duration::ZERO;
        for _ in 0..500 {
            let TooFast { retry_after, answer_after, is_first } = pace.take(at(0)).unwrap_err();
            assert_eq!(retry_after, Duration::from_millis(20));
            assert!(answer_after >= last && answer_after <= SLOWEST && !is_first);
            last = answer_after;
        }
        assert_eq!(last, SLOWEST);
        assert_eq!(pace.take(at(20)), Ok(()), "whoever comes back when told so is heard");
        assert_eq!(pace.take(at(20)).unwrap_err().answer_after, SLOWEST);
        assert_eq!(
            (0..60).filter(|_| pace.take(at(2_000)).is_ok()).count(),
            50,
            "after a quiet second all is forgotten"
        );
        assert_eq!(pace.take(at(2_000)).unwrap_err().answer_after, SLOWER * 11);
    }

    #[test]
    fn a_user_connects_four_times_a_channel_and_minute() {
        let (mut arrivals, anna, bert) = (Arrivals::default(), "anna".into(), "bert".into());
        for n in 0..40 {
            assert_eq!(arrivals.take(&anna, 10, at(n * 1000)), Ok(()));
        }
        assert_eq!(arrivals.take(&anna, 10, at(40_000)), Err(Duration::from_secs(20)));
        assert_eq!(arrivals.take(&bert, 10, at(40_000)), Ok(()), "each user has a limit of their own");
        assert_eq!(arrivals.take(&anna, 10, at(60_000)), Ok(()));
    }
}
