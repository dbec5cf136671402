//! The second connection between rank 0 and each other rank: signs of life, who is in which collective, the news of a failure.
//!
//! Rank 0 hears all others and passes the first cause on. Threads of their own do this, so a rank that computes, or waits in a
//! collective, learns of a death elsewhere at once.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::TcpOptions;
use super::rendezvous::Link;
use crate::dist::{DistError, Operation};

const HEAD_BYTES: usize = 16;
const LONGEST_REASON: usize = 4000;
/// For a broken connection to be explained by news of its cause.
const EXPLANATION: Duration = Duration::from_secs(3);
/// For the others to take the last news before this process closes its sockets.
const PARTING: Duration = Duration::from_secs(2);
/// A stuck reader must not hold up the news to the others.
const WRITE_LIMIT: Duration = Duration::from_secs(2);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Alive,
    Enter,
    Leave,
    Failed,
    Goodbye,
}

/// A message: kind 1, operation 1, length 2, rank 4, number 8, then a reason of that length.
#[derive(Debug, Clone)]
struct Message {
    kind: Kind,
    operation: Operation,
    rank: u32,
    number: u64,
    reason: String,
}

impl Message {
    fn new(kind: Kind) -> Self {
        Self {
            kind,
            operation: Operation::Barrier,
            rank: 0,
            number: 0,
            reason: String::new(),
        }
    }

    fn failed(rank: usize, reason: &str) -> Self {
        Self {
            rank: rank as u32,
            reason: reason.to_owned(),
            ..Self::new(Kind::Failed)
        }
    }

    fn write(&self, mut to: &TcpStream) -> io::Result<()> {
        let end = (0..=self.reason.len().min(LONGEST_REASON)).rev();
        let end = end
            .into_iter()
            .find(|&end| self.reason.is_char_boundary(end))
            .unwrap_or(0);
        let reason = &self.reason.as_bytes()[..end];
        let head = [self.kind as u8, self.operation.code()];
        let length = (reason.len() as u16).to_le_bytes();
        to.write_all(
            &[
                &head[..],
                &length,
                &self.rank.to_le_bytes(),
                &self.number.to_le_bytes(),
                reason,
            ]
            .concat(),
        )
    }

    fn read(mut from: &TcpStream) -> io::Result<Self> {
        let mut head = [0; HEAD_BYTES];
        from.read_exact(&mut head)?;
        let [kind, operation, low, high, a, b, c, d, number @ ..] = head;
        let kinds = [Kind::Alive, Kind::Enter, Kind::Leave, Kind::Failed, Kind::Goodbye];
        let garbled = || io::Error::new(io::ErrorKind::InvalidData, "a garbled message");
        let kind = kinds.get(usize::from(kind)).copied().ok_or_else(garbled)?;
        let operation = Operation::from_code(operation).ok_or_else(garbled)?;
        let length = usize::from(u16::from_le_bytes([low, high]));
        if length > LONGEST_REASON {
            return Err(garbled());
        }
        let mut reason = vec![0; length];
        from.read_exact(&mut reason)?;
        Ok(Self {
            kind,
            operation,
            rank: u32::from_le_bytes([a, b, c, d]),
            number: u64::from_le_bytes(number),
            reason: String::from_utf8_lossy(&reason).into_owned(),
        })
    }
}

/// What is known of a rank.
#[derive(Debug)]
struct Peer {
    heard: Instant,
    left: bool,
    /// The collective that it is in: number, kind, since when.
    inside: Option<(u64, Operation, Instant)>,
    /// The last collective that it has behind it.
    passed: u64,
}

#[derive(Debug)]
struct State {
    /// The first cause: the rank and what happened, and when it was known here.
    failure: Option<(usize, String, Instant)>,
    /// Whether the training thread knows of it.
    noticed: bool,
    /// Whether everything has ended well, or is over.
    finished: bool,
    /// This rank, and those that it is connected to.
    peers: BTreeMap<usize, Peer>,
    readers: usize,
}

/// One rank's view of all that is not a collective.
#[derive(Debug)]
pub(super) struct Control {
    rank: usize,
    options: TcpOptions,
    state: Mutex<State>,
    changed: Condvar,
    controls: Vec<(usize, Mutex<TcpStream>)>,
    /// Closed at a failure, so that a collective that waits ends.
    data: Vec<TcpStream>,
}

impl Control {
    /// Takes over the control connections of `links`.
    pub(super) fn start(rank: usize, links: &[Link], options: &TcpOptions) -> io::Result<Arc<Self>> {
        let now = Instant::now();
        let peer = || Peer {
            heard: now,
            left: false,
            inside: None,
            passed: 0,
        };
        let ranks = links.iter().map(|link| link.rank).chain([rank]);
        let mut controls = Vec::with_capacity(links.len());
        let mut data = Vec::with_capacity(links.len());
        for link in links {
            link.control.set_read_timeout(None)?;
            link.control.set_write_timeout(Some(WRITE_LIMIT))?;
            controls.push((link.rank, Mutex::new(link.control.try_clone()?)));
            data.push(link.data.try_clone()?);
        }
        let control = Arc::new(Self {
            rank,
            options: options.clone(),
            state: Mutex::new(State {
                failure: None,
                noticed: false,
                finished: false,
                peers: ranks.map(|rank| (rank, peer())).collect(),
                readers: links.len(),
            }),
            changed: Condvar::new(),
            controls,
            data,
        });
        for link in links {
            let (control, stream, peer) = (control.clone(), link.control.try_clone()?, link.rank);
            std::thread::Builder::new()
                .name(format!("rank-{peer}-control"))
                .spawn(move || control.listen(peer, &stream))?;
        }
        let ticking = control.clone();
        std::thread::Builder::new()
            .name("heart-beat".to_owned())
            .spawn(move || ticking.tick())?;
        Ok(control)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says that this rank enters collective `number`.
    pub(super) fn enter(&self, number: u64, operation: Operation) -> Result<(), DistError> {
        let mut state = self.state();
        if let Some((rank, reason, _)) = state.failure.clone() {
            state.noticed = true;
            return Err(DistError::Failed {
                rank,
                reason,
                during: Some(operation),
            });
        }
        if let Some(own) = state.peers.get_mut(&self.rank) {
            own.inside = Some((number, operation, Instant::now()));
        }
        drop(state);
        self.report(Kind::Enter, number, operation);
        Ok(())
    }

    /// Says that this rank has collective `number` behind it.
    pub(super) fn leave(&self, number: u64, operation: Operation) {
        if let Some(own) = self.state().peers.get_mut(&self.rank) {
            own.inside = None;
            own.passed = number;
        }
        self.report(Kind::Leave, number, operation);
    }

    /// Rank 0 knows itself; the others tell it.
    fn report(&self, kind: Kind, number: u64, operation: Operation) {
        if self.rank != 0 {
            self.send(&Message {
                operation,
                number,
                ..Message::new(kind)
            });
        }
    }

    fn send(&self, message: &Message) {
        for (_, stream) in &self.controls {
            let stream = stream.lock().unwrap_or_else(PoisonError::into_inner);
            // A connection that is broken is noticed by whoever reads from it.
            let _ = message.write(&stream);
        }
    }

    /// Notes the first cause of failure, tells the others, and ends what waits. Later causes are consequences.
    pub(super) fn fail(&self, rank: usize, reason: &str) {
        let mut state = self.state();
        if state.finished || state.failure.is_some() {
            return;
        }
        state.failure = Some((rank, reason.to_owned(), Instant::now()));
        drop(state);
        self.send(&Message::failed(rank, reason));
        for stream in &self.data {
            let _ = stream.shutdown(Shutdown::Both);
        }
        self.changed.notify_all();
    }

    /// Why the connection to `peer` broke in `operation`: the cause that is known, or becomes known in a moment, else the break.
    pub(super) fn explain(&self, peer: usize, operation: Operation, error: &io::Error) -> DistError {
        let until = Instant::now() + EXPLANATION;
        let mut state = self.state();
        while state.failure.is_none() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let waited = self.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        if state.failure.is_none() {
            drop(state);
            self.fail(peer, &format!("its connection broke ({error})"));
            state = self.state();
        }
        state.noticed = true;
        let (rank, reason) = match &state.failure {
            Some((rank, reason, _)) => (*rank, reason.clone()),
            None => (peer, error.to_string()),
        };
        DistError::Failed {
            rank,
            reason,
            during: Some(operation),
        }
    }

    /// Whether the run has failed.
    #[cfg(feature = "engine")]
    pub(super) fn failed(&self) -> bool {
        self.state().failure.is_some()
    }

    /// The first cause of failure, which training then knows.
    #[cfg(feature = "engine")]
    pub(super) fn cause(&self, operation: Operation) -> Option<DistError> {
        let mut state = self.state();
        let (rank, reason, _) = state.failure.clone()?;
        state.noticed = true;
        Some(DistError::Failed {
            rank,
            reason,
            during: Some(operation),
        })
    }

    /// Everything has ended well.
    pub(super) fn finish(&self) {
        let mut state = self.state();
        if state.failure.is_none() {
            state.finished = true;
            drop(state);
            self.send(&Message::new(Kind::Goodbye));
        }
    }

    /// This rank fails of itself.
    pub(super) fn abort(&self, reason: &str) {
        self.fail(self.rank, reason);
        self.state().noticed = true;
    }

    /// Closes this rank's ends, after the others had time to take the last news.
    pub(super) fn close(&self) {
        self.abort("it ended without a word");
        let mut state = self.state();
        state.finished = true;
        self.changed.notify_all();
        for (_, stream) in &self.controls {
            let stream = stream.lock().unwrap_or_else(PoisonError::into_inner);
            let _ = stream.shutdown(Shutdown::Write);
        }
        let until = Instant::now() + PARTING;
        while state.readers > 0 {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let waited = self.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Reads what `peer` says until its end.
    fn listen(&self, peer: usize, stream: &TcpStream) {
        let error = loop {
            match Message::read(stream) {
                Ok(message) => self.hear(peer, &message),
                Err(error) => break error,
            }
        };
        let left = self.state().peers.get(&peer).is_some_and(|peer| peer.left);
        if !left {
            let reason = match error.kind() {
                io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => {
                    "its process has ended without a word (killed?)".to_owned()
                }
                _ => format!("its control connection broke ({error})"),
            };
            self.fail(peer, &reason);
        }
        let _ = stream.shutdown(Shutdown::Both);
        self.state().readers -= 1;
        self.changed.notify_all();
    }

    fn hear(&self, peer: usize, message: &Message) {
        let now = Instant::now();
        if let Some(known) = self.state().peers.get_mut(&peer) {
            known.heard = now;
            match message.kind {
                Kind::Enter => known.inside = Some((message.number, message.operation, now)),
                Kind::Leave => {
                    known.inside = None;
                    known.passed = message.number;
                }
                Kind::Goodbye => known.left = true,
                Kind::Alive | Kind::Failed => {}
            }
        }
        if message.kind == Kind::Failed {
            self.fail(message.rank as usize, &message.reason);
        }
    }

    /// Sends signs of life and looks for those that are missing, until the end.
    fn tick(&self) {
        let mut state = self.state();
        loop {
            let waited = self.changed.wait_timeout(state, self.options.heartbeat);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
            if state.finished {
                return;
            }
            if let Some((rank, reason, at)) = state.failure.clone() {
                if state.noticed {
                    return;
                }
                if at.elapsed() >= self.options.grace {
                    drop(state);
                    let during = None;
                    (self.options.on_unnoticed)(&DistError::Failed { rank, reason, during });
                    return;
                }
                continue;
            }
            let found = self.silent(&state).or_else(|| self.overdue(&state));
            drop(state);
            match found {
                Some((rank, reason)) => self.fail(rank, &reason),
                None => self.send(&Message::new(Kind::Alive)),
            }
            state = self.state();
        }
    }

    /// A peer that gave no sign of life for too long.
    fn silent(&self, state: &State) -> Option<(usize, String)> {
        let others = state
            .peers
            .iter()
            .filter(|&(&rank, peer)| rank != self.rank && !peer.left);
        let silent = others.filter(|(_, peer)| peer.heard.elapsed() > self.options.silence);
        silent
            .map(|(&rank, peer)| {
                let seconds = peer.heard.elapsed().as_secs();
                let reason = format!("no sign of life for {seconds} s (stopped, or its host or network is down)");
                (rank, reason)
            })
            .next()
    }

    /// The peer that has been silent for longest, and how long.
    fn quietest(&self, state: &State) -> Option<(usize, Duration)> {
        let others = state
            .peers
            .iter()
            .filter(|&(&rank, peer)| rank != self.rank && !peer.left);
        others
            .map(|(&rank, peer)| (rank, peer.heard.elapsed()))
            .max_by_key(|&(_, silence)| silence)
    }

    /// Who holds up a collective that has lasted longer than the watchdog allows: a rank that has not come to it, else one
    /// that is still in it.
    fn overdue(&self, state: &State) -> Option<(usize, String)> {
        // Rank 0 sees all and names the right one; another rank fires only where rank 0 does not.
        let limit = match self.rank {
            0 => self.options.watchdog,
            _ => self.options.watchdog + self.options.silence,
        };
        let waiting = state
            .peers
            .iter()
            .filter_map(|(&rank, peer)| Some((rank, peer.inside?)));
        let late = waiting.filter(|(_, (_, _, since))| since.elapsed() > limit);
        let (waiter, (number, operation, since)) = late.min_by_key(|&(_, (number, ..))| number)?;
        let seconds = since.elapsed().as_secs();
        if self.rank != 0 {
            let reason = format!("it has not answered in {operation} {number} for {seconds} s (watchdog)");
            return Some((0, reason));
        }
        let entered = |peer: &Peer| peer.passed >= number || peer.inside.is_some_and(|(at, ..)| at >= number);
        let absent = state.peers.iter().find(|(_, peer)| !peer.left && !entered(peer));
        Some(match absent {
            Some((&rank, _)) => (
                rank,
                format!(
                    "it has not come to {operation} {number}, where rank {waiter} has waited for {seconds} s (watchdog)"
                ),
            ),
            // Whoever has stopped in the midst of it gives no sign of life either.
            None => match self
                .quietest(state)
                .filter(|(_, silence)| *silence > 3 * self.options.heartbeat)
            {
                Some((rank, silence)) => (
                    rank,
                    format!(
                        "it has been in {operation} {number} for {seconds} s and gave no sign of life for {} s (watchdog)",
                        silence.as_secs()
                    ),
                ),
                None => (
                    waiter,
                    format!("it has been in {operation} {number} for {seconds} s, though all have come (watchdog)"),
                ),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use std::net::TcpListener;

    #[test]
    fn garbled_news_are_errors_and_never_more_than_their_bound() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        for seed in 0..400 {
            let mut sender = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (receiver, _) = listener.accept().unwrap();
            let words = (0..40).flat_map(|at| models::philox([at, seed, 3, 0], [1, 2]));
            let mut bytes: Vec<u8> = words.flat_map(u32::to_le_bytes).collect();
            if seed % 2 == 0 {
                // A kind and an operation that there are, and any length.
                bytes[0] %= 5;
                bytes[1] %= 11;
            }
            sender.write_all(&bytes).unwrap();
            drop(sender);
            loop {
                match Message::read(&receiver) {
                    Ok(message) => assert!(message.reason.len() <= 3 * LONGEST_REASON),
                    Err(error) => {
                        let kinds = [io::ErrorKind::InvalidData, io::ErrorKind::UnexpectedEof];
                        assert!(kinds.contains(&error.kind()), "{error}");
                        break;
                    }
                }
            }
        }
    }

    #[test]
    fn news_come_as_they_were_sent_and_long_reasons_are_cut() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let sender = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (receiver, _) = listener.accept().unwrap();
        // Cut between letters, not within one of two bytes.
        let long = format!("x{}", "é".repeat(LONGEST_REASON));
        for reason in ["the disk is full", "", &long] {
            Message::failed(7, reason).write(&sender).unwrap();
            let found = Message::read(&receiver).unwrap();
            assert_eq!((found.kind, found.rank), (Kind::Failed, 7));
            assert!(reason.starts_with(&found.reason));
            assert_eq!(found.reason.len(), reason.len().min(LONGEST_REASON - 1));
        }
    }
}
