//! A communicator over sockets, for processors. Rank 0 is the hub: it takes what the others send, in rank order, and sends
//! them the result.

mod control;
mod handshake;
mod parts;
mod rendezvous;
#[cfg(test)]
mod tests;
mod wire;

use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Communicator, DistError, Operation, Place, Spent};
use control::Control;
pub use handshake::{Identity, Secret};
use wire::{Head, Sum};

/// Times and bounds.
#[derive(Debug, Clone)]
pub struct TcpOptions {
    /// What ranks know each other by.
    pub secret: Secret,
    /// For all ranks to come; default 5 min.
    pub rendezvous: Duration,
    /// For one connection to introduce itself; default 10 s.
    pub handshake: Duration,
    /// Introductions that may go on at a time; default 256.
    pub handshakes: usize,
    /// Between signs of life; default 1 s.
    pub heartbeat: Duration,
    /// Without a sign of life a rank counts as lost; default 30 s.
    pub silence: Duration,
    /// For a collective, from the first rank's coming to its end; default 10 min.
    pub watchdog: Duration,
    /// For training to notice a failure by itself, before `on_unnoticed`; default 10 s.
    pub grace: Duration,
    /// Called, on another thread, for a failure that training has not noticed: a program may end itself here.
    pub on_unnoticed: fn(&DistError),
    /// Bytes of a message, and of all messages of a gathering together; default 4 GiB.
    pub largest: u64,
}

impl TcpOptions {
    /// The defaults.
    pub fn new(secret: Secret) -> Self {
        Self {
            secret,
            rendezvous: Duration::from_secs(300),
            handshake: Duration::from_secs(10),
            handshakes: 256,
            heartbeat: Duration::from_secs(1),
            silence: Duration::from_secs(30),
            watchdog: Duration::from_secs(600),
            grace: Duration::from_secs(10),
            on_unnoticed: |_| {},
            largest: 4 << 30,
        }
    }
}

/// One rank of several that are joined over TCP.
#[derive(Debug)]
pub struct Tcp {
    rank: usize,
    world: usize,
    local_rank: usize,
    largest: u64,
    /// Collectives entered so far.
    entered: u64,
    spent: Spent,
    /// Rank 0: to ranks 1, 2, …; another rank: to rank 0.
    data: Vec<TcpStream>,
    control: Arc<Control>,
}

/// A collective on its way.
#[derive(Debug, Clone, Copy)]
struct Call {
    operation: Operation,
    number: u64,
    root: usize,
}

impl Tcp {
    /// Meets the other ranks; returns when all have come.
    ///
    /// # Errors
    /// A rank that does not come, one that belongs to another run, a secret that differs.
    pub fn join(place: &Place, identity: &Identity, options: &TcpOptions) -> Result<Self, DistError> {
        let links = match place.rank {
            0 => rendezvous::gather(place, identity, options)?,
            _ => vec![rendezvous::come(place, identity, options)?],
        };
        let system = |error: std::io::Error| DistError::System {
            rank: place.rank,
            reason: error.to_string(),
        };
        for link in &links {
            link.data.set_read_timeout(None).map_err(system)?;
            link.data.set_write_timeout(None).map_err(system)?;
        }
        let control = Control::start(place.rank, &links, options).map_err(system)?;
        Ok(Self {
            rank: place.rank,
            world: place.world,
            local_rank: place.local_rank,
            largest: options.largest,
            entered: 0,
            spent: Spent::default(),
            data: links.into_iter().map(|link| link.data).collect(),
            control,
        })
    }

    /// The rank at the other end of `self.data[index]`.
    fn peer(&self, index: usize) -> usize {
        if self.rank == 0 { index + 1 } else { 0 }
    }

    fn is_hub(&self) -> bool {
        self.rank == 0
    }

    /// Runs `body` between entering and leaving; an error of the socket is explained by its cause.
    fn collective<T>(
        &mut self,
        operation: Operation,
        root: usize,
        body: impl FnOnce(&mut Self, Call) -> Result<T, Broken>,
    ) -> Result<T, DistError> {
        if root >= self.world {
            let world = self.world;
            return Err(DistError::NoSuchRank { operation, root, world });
        }
        self.entered += 1;
        let number = self.entered;
        self.control.enter(number, operation)?;
        let call = Call {
            operation,
            number,
            root,
        };
        let (start, waited) = (Instant::now(), self.spent.waiting);
        let outcome = body(self, call);
        let waited = self.spent.waiting.saturating_sub(waited);
        self.spent.moving += start.elapsed().saturating_sub(waited);
        match outcome {
            Ok(value) => {
                self.control.leave(number, operation);
                Ok(value)
            }
            Err(Broken::Socket(index, error)) => Err(self.control.explain(self.peer(index), operation, &error)),
            Err(Broken::Rule(error)) => {
                self.control.abort(&error.to_string());
                Err(error)
            }
        }
    }

    /// All ranks show what they are about to do, `length` being what they bring; the hub compares and sends its own head back
    /// with the length that `reply` makes of all. Returns the lengths at the hub, the reply elsewhere. It takes until the last
    /// rank has come.
    fn agree(
        &mut self,
        call: Call,
        length: u64,
        must_match: bool,
        reply: impl FnOnce(&[u64]) -> u64,
    ) -> Result<Vec<u64>, Broken> {
        let start = Instant::now();
        let agreed = self.agree_untimed(call, length, must_match, reply);
        self.spent.waiting += start.elapsed();
        agreed
    }

    fn agree_untimed(
        &mut self,
        call: Call,
        length: u64,
        must_match: bool,
        reply: impl FnOnce(&[u64]) -> u64,
    ) -> Result<Vec<u64>, Broken> {
        let own = Head::new(call, length);
        self.check_size(call, self.rank, length)?;
        if !self.is_hub() {
            own.write(&self.data[0]).map_err(at(0))?;
            let answer = Head::read(&self.data[0]).map_err(at(0))?;
            self.compare(0, own, answer, false)?;
            self.check_size(call, 0, answer.length)?;
            return Ok(vec![answer.length]);
        }
        let mut lengths = vec![length];
        for index in 0..self.data.len() {
            let theirs = Head::read(&self.data[index]).map_err(at(index))?;
            self.compare(index + 1, own, theirs, must_match)?;
            self.check_size(call, index + 1, theirs.length)?;
            lengths.push(theirs.length);
        }
        let answer = Head::new(call, reply(&lengths));
        self.check_size(call, self.rank, answer.length)?;
        for index in 0..self.data.len() {
            answer.write(&self.data[index]).map_err(at(index))?;
        }
        Ok(lengths)
    }

    fn compare(&self, rank: usize, own: Head, theirs: Head, must_match: bool) -> Result<(), Broken> {
        if theirs.same_call(own) && (!must_match || theirs.length == own.length) {
            return Ok(());
        }
        Err(Broken::Rule(DistError::Disagree {
            rank,
            own: own.to_string(),
            found: theirs.to_string(),
        }))
    }

    fn check_size(&self, call: Call, rank: usize, bytes: u64) -> Result<(), Broken> {
        if bytes <= self.largest {
            return Ok(());
        }
        Err(Broken::Rule(DistError::TooLarge {
            rank,
            operation: call.operation,
            bytes,
            limit: self.largest,
        }))
    }

    fn reduce<T: Sum>(&mut self, operation: Operation, values: &mut [T]) -> Result<(), DistError> {
        self.collective(operation, 0, |this, call| {
            let length = size_of_val(values) as u64;
            this.agree(call, length, true, |_| length)?;
            // Piece by piece, in step: neither end ever writes while the other writes.
            for piece in values.chunks_mut(wire::PIECE) {
                if !this.is_hub() {
                    wire::write(&this.data[0], piece).map_err(at(0))?;
                    wire::read(&this.data[0], piece).map_err(at(0))?;
                    continue;
                }
                let mut sums: Vec<f64> = piece.iter().map(|value| value.to_f64()).collect();
                let mut theirs = piece.to_vec();
                for (index, stream) in this.data.iter().enumerate() {
                    wire::read(stream, &mut theirs).map_err(at(index))?;
                    sums.iter_mut()
                        .zip(&theirs)
                        .for_each(|(sum, value)| *sum += value.to_f64());
                }
                piece
                    .iter_mut()
                    .zip(sums)
                    .for_each(|(value, sum)| *value = T::from_f64(sum));
                for (index, stream) in this.data.iter().enumerate() {
                    wire::write(stream, piece).map_err(at(index))?;
                }
            }
            Ok(())
        })
    }

    /// Passes what `root` has in `values` to all.
    fn spread<T: wire::Number>(&mut self, root: usize, values: &mut [T]) -> Result<(), Broken> {
        if !self.is_hub() {
            return match self.rank == root {
                true => wire::write(&self.data[0], values),
                false => wire::read(&self.data[0], values),
            }
            .map_err(at(0));
        }
        if root != 0 {
            wire::read(&self.data[root - 1], values).map_err(at(root - 1))?;
        }
        let others = self.data.iter().enumerate().filter(|&(index, _)| index + 1 != root);
        for (index, stream) in others {
            wire::write(stream, values).map_err(at(index))?;
        }
        Ok(())
    }
}

/// Why a collective's body stopped: a socket, by its place in `data`, or a rule.
#[derive(Debug)]
enum Broken {
    Socket(usize, std::io::Error),
    Rule(DistError),
}

fn at(index: usize) -> impl FnOnce(std::io::Error) -> Broken {
    move |error| Broken::Socket(index, error)
}

impl Communicator for Tcp {
    fn rank(&self) -> usize {
        self.rank
    }

    fn world(&self) -> usize {
        self.world
    }

    fn broadcast(&mut self, values: &mut [f32], root: usize) -> Result<(), DistError> {
        self.collective(Operation::Broadcast, root, |this, call| {
            let length = size_of_val(values) as u64;
            this.agree(call, length, true, |_| length)?;
            this.spread(root, values)
        })
    }

    fn broadcast_bytes(&mut self, bytes: &mut Vec<u8>, root: usize) -> Result<(), DistError> {
        self.collective(Operation::BroadcastBytes, root, |this, call| {
            let own = if this.rank == root { bytes.len() as u64 } else { 0 };
            let lengths = this.agree(call, own, false, |lengths| lengths[root])?;
            let length = if this.is_hub() { lengths[root] } else { lengths[0] };
            if this.rank == root {
                return this.spread(root, bytes);
            }
            bytes.clear();
            bytes.resize(length as usize, 0);
            this.spread(root, bytes)
        })
    }

    fn all_reduce_sum(&mut self, values: &mut [f32]) -> Result<(), DistError> {
        self.reduce(Operation::AllReduce, values)
    }

    fn all_reduce_sum_f64(&mut self, values: &mut [f64]) -> Result<(), DistError> {
        self.reduce(Operation::AllReduceF64, values)
    }

    fn all_gather(&mut self, own: &[u8]) -> Result<Vec<Vec<u8>>, DistError> {
        self.collective(Operation::AllGather, 0, |this, call| {
            let total = |lengths: &[u64]| lengths.iter().fold(0u64, |sum, &length| sum.saturating_add(length));
            let lengths = this.agree(call, own.len() as u64, false, total)?;
            if this.is_hub() {
                return this.gather_at_hub(own, &lengths);
            }
            wire::write(&this.data[0], own).map_err(at(0))?;
            let mut lengths_found = vec![0u64; this.world];
            wire::read(&this.data[0], &mut lengths_found).map_err(at(0))?;
            if total(&lengths_found) != lengths[0] {
                let garbled = std::io::Error::new(std::io::ErrorKind::InvalidData, "garbled lengths");
                return Err(Broken::Socket(0, garbled));
            }
            let mut all = Vec::with_capacity(this.world);
            for length in lengths_found {
                let mut bytes = vec![0; length as usize];
                wire::read(&this.data[0], &mut bytes).map_err(at(0))?;
                all.push(bytes);
            }
            Ok(all)
        })
    }

    fn gather(&mut self, own: &[u8]) -> Result<Vec<Vec<u8>>, DistError> {
        self.gather_bytes(own)
    }

    fn reduce_scatter_f64(&mut self, values: &[f64]) -> Result<Vec<f64>, DistError> {
        self.reduce_parts(values)
    }

    fn all_gather_parts(&mut self, values: &mut [f32]) -> Result<(), DistError> {
        self.spread_parts(values)
    }

    fn barrier(&mut self) -> Result<(), DistError> {
        self.collective(Operation::Barrier, 0, |this, call| {
            this.agree(call, 0, true, |_| 0).map(|_| ())
        })
    }

    fn finish(&mut self) -> Result<(), DistError> {
        self.collective(Operation::Finish, 0, |this, call| {
            this.agree(call, 0, true, |_| 0).map(|_| ())
        })?;
        self.control.finish();
        Ok(())
    }

    fn abort(&mut self, reason: &str) {
        self.control.abort(reason);
    }

    fn spent(&self) -> Spent {
        self.spent
    }

    fn local_rank(&self) -> usize {
        self.local_rank
    }

    fn description(&self) -> String {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let host = if host.trim().is_empty() { "unknown" } else { host.trim() };
        format!("host {host}, local rank {}, collectives over TCP", self.local_rank)
    }
}

#[cfg(feature = "engine")]
impl Tcp {
    /// Does `work`, whose data go another way, as a collective that is watched over; `work` says how long it moved data.
    pub(super) fn watched<T>(&mut self, work: impl FnOnce() -> (T, Duration)) -> Result<T, DistError> {
        let (before, mut moved) = (self.spent.moving, Duration::ZERO);
        let outcome = self.collective(Operation::OnDevice, 0, |this, call| {
            this.agree(call, 0, true, |_| 0)?;
            let (outcome, moving) = work();
            moved = moving;
            Ok(outcome)
        });
        self.spent.moving = before + moved;
        outcome
    }

    /// Whether the run has failed, for whoever waits for something else.
    pub(super) fn failed(&self) -> Box<dyn Fn() -> bool + Send> {
        let control = self.control.clone();
        Box::new(move || control.failed())
    }

    /// The first cause of the run's failure, if it has failed.
    pub(super) fn cause(&self) -> Option<DistError> {
        self.control.cause(Operation::OnDevice)
    }
}

impl Tcp {
    fn gather_at_hub(&mut self, own: &[u8], lengths: &[u64]) -> Result<Vec<Vec<u8>>, Broken> {
        let mut all = vec![own.to_vec()];
        for (index, (stream, &length)) in self.data.iter().zip(&lengths[1..]).enumerate() {
            let mut bytes = vec![0; length as usize];
            wire::read(stream, &mut bytes).map_err(at(index))?;
            all.push(bytes);
        }
        for (index, stream) in self.data.iter().enumerate() {
            wire::write(stream, lengths).map_err(at(index))?;
            for bytes in &all {
                wire::write(stream, bytes).map_err(at(index))?;
            }
        }
        Ok(all)
    }
}

impl Drop for Tcp {
    fn drop(&mut self) {
        self.control.close();
    }
}
