//! How the ranks find each other: rank 0 listens, the others come, and all begin when the last has come.

use std::collections::BTreeMap;
use std::io;
use std::net::{TcpListener, TcpStream, ToSocketAddrs};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use super::TcpOptions;
use super::handshake::{Answer, Hello, Identity, Role, Spoken, Stage, introduce, receive};
use crate::dist::{DistError, Place};

/// Between two looks for a connection.
const POLL: Duration = Duration::from_millis(10);
/// Between two looks for ranks that are gone.
const LOOK: Duration = Duration::from_millis(500);
/// For one attempt to connect.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// Strangers that are told about, on stderr and in the error: more would be a flood.
const REFUSALS_TOLD: usize = 8;

/// The two connections between rank 0 and another rank.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) rank: usize,
    pub(super) control: TcpStream,
    pub(super) data: TcpStream,
}

/// Rank 0: waits for the others.
pub(super) fn gather(place: &Place, identity: &Identity, options: &TcpOptions) -> Result<Vec<Link>, DistError> {
    let listen_error = |source| DistError::Listen {
        address: place.master.clone(),
        source,
    };
    let listener = TcpListener::bind(&*place.master).map_err(listen_error)?;
    listener.set_nonblocking(true).map_err(listen_error)?;
    Gathering::new(place.world, identity, options).run(&listener)
}

/// What has come to rank 0 so far.
#[derive(Debug)]
struct Gathering<'a> {
    own: Hello,
    world: usize,
    options: &'a TcpOptions,
    /// Of each rank its control and its data connection.
    seats: Vec<[Option<Spoken>; 2]>,
    /// Handshakes that go on, the oldest first.
    talking: Vec<(u64, TcpStream)>,
    accepted: u64,
    refusals: Vec<String>,
    /// When the seats were last looked at, and since when those who came and went have been away.
    looked: Instant,
    away: BTreeMap<usize, Instant>,
}

type Heard = (u64, String, io::Result<Option<(Hello, Spoken)>>);

impl<'a> Gathering<'a> {
    fn new(world: usize, identity: &Identity, options: &'a TcpOptions) -> Self {
        Self {
            own: Hello::new(Role::Control, 0, world, identity),
            world,
            options,
            seats: (0..world).map(|_| [None, None]).collect(),
            talking: Vec::new(),
            accepted: 0,
            refusals: Vec::new(),
            looked: Instant::now(),
            away: BTreeMap::new(),
        }
    }

    fn run(mut self, listener: &TcpListener) -> Result<Vec<Link>, DistError> {
        let until = Instant::now() + self.options.rendezvous;
        let (send, heard) = channel();
        while !self.missing().is_empty() {
            if Instant::now() >= until {
                return Err(self.give_up());
            }
            let idle = !self.accept(listener, &send);
            let quiet = !self.seat_all(&heard)?;
            self.look_for_lost()?;
            if idle && quiet {
                std::thread::sleep(POLL);
            }
        }
        self.start()
    }

    fn missing(&self) -> Vec<usize> {
        let complete = |rank: usize| self.seats[rank].iter().all(Option::is_some);
        (1..self.world).filter(|&rank| !complete(rank)).collect()
    }

    /// Gives up when a rank that had come is gone, and does not come again: the others must not wait for it until the end.
    fn look_for_lost(&mut self) -> Result<(), DistError> {
        if self.looked.elapsed() < LOOK {
            return Ok(());
        }
        self.looked = Instant::now();
        for rank in 1..self.world {
            let mut seats = self.seats[rank].iter().flatten();
            if seats.all(|seat| is_open(&seat.stream)) {
                self.away.remove(&rank);
                continue;
            }
            let since = *self.away.entry(rank).or_insert(self.looked);
            if since.elapsed() < self.options.silence {
                continue;
            }
            let reason = format!(
                "it came and was gone {} s before all had come (killed?)",
                since.elapsed().as_secs()
            );
            self.tell_all(&Answer::Refused(format!("rank {rank} failed: {reason}")));
            let during = None;
            return Err(DistError::Failed { rank, reason, during });
        }
        Ok(())
    }

    /// Takes one connection, if there is one, and listens to it on a thread of its own.
    fn accept(&mut self, listener: &TcpListener, send: &Sender<Heard>) -> bool {
        let Ok((stream, address)) = listener.accept() else {
            return false;
        };
        let (number, secret) = (self.accepted, self.options.secret.clone());
        self.accepted += 1;
        let Ok(watched) = stream.try_clone() else { return true };
        self.talking.push((number, watched));
        // Whoever opens connections and says nothing pushes out the oldest of them, not those who speak.
        while self.talking.len() > self.options.handshakes {
            let (_, oldest) = self.talking.remove(0);
            let _ = oldest.shutdown(std::net::Shutdown::Both);
        }
        let (send, limit) = (send.clone(), self.options.handshake);
        let spawned = std::thread::Builder::new().spawn(move || {
            let result = stream
                .set_nonblocking(false)
                .and_then(|()| receive(stream, &secret, limit));
            let _ = send.send((number, address.to_string(), result));
        });
        if spawned.is_err() {
            self.talking.retain(|&(other, _)| other != number);
        }
        true
    }

    /// Answers all that have shown their proof; true if there were any.
    fn seat_all(&mut self, heard: &Receiver<Heard>) -> Result<bool, DistError> {
        let mut any = false;
        while let Ok((number, address, result)) = heard.try_recv() {
            any = true;
            self.talking.retain(|&(other, _)| other != number);
            match result {
                Ok(Some((hello, spoken))) => self.seat(&hello, spoken, &address)?,
                Ok(None) => self.turn_away(&address, "it has another secret"),
                Err(error) => self.turn_away(&address, &error.to_string()),
            }
        }
        Ok(any)
    }

    fn turn_away(&mut self, address: &str, reason: &str) {
        if self.refusals.len() < REFUSALS_TOLD {
            eprintln!("rank 0 turned a connection from {address} away: {reason}");
            self.refusals.push(format!("{address}: {reason}"));
        }
    }

    fn seat(&mut self, hello: &Hello, spoken: Spoken, address: &str) -> Result<(), DistError> {
        let secret = &self.options.secret;
        if let Some(reason) = hello.differs(&self.own) {
            let _ = spoken.answer(secret, Stage::Proof, &Answer::Refused(reason.clone()));
            let rank = hello.rank as usize;
            self.tell_all(&Answer::Refused(format!("rank {rank} was refused: {reason}")));
            return Err(DistError::Stranger {
                rank,
                address: address.to_owned(),
                reason,
            });
        }
        let seat = &mut self.seats[hello.rank as usize][usize::from(hello.role == Role::Data)];
        if seat.as_ref().is_some_and(|taken| is_open(&taken.stream)) {
            let reason = format!(
                "there is a rank {} already; give every process a RANK of its own",
                hello.rank
            );
            let _ = spoken.answer(secret, Stage::Proof, &Answer::Refused(reason.clone()));
            self.turn_away(address, &reason);
            return Ok(());
        }
        // A connection that broke before its answer comes again.
        if spoken.answer(secret, Stage::Proof, &Answer::Welcome).is_ok() {
            *seat = Some(spoken);
        }
        Ok(())
    }

    fn tell_all(&self, answer: &Answer) {
        for seat in self.seats.iter().filter_map(|[_, data]| data.as_ref()) {
            let _ = seat.answer(&self.options.secret, Stage::Start, answer);
        }
    }

    fn give_up(&self) -> DistError {
        let missing = self.missing();
        let listed = missing.iter().map(usize::to_string).collect::<Vec<_>>().join(", ");
        self.tell_all(&Answer::Refused(format!("these ranks did not come: {listed}")));
        DistError::Missing {
            missing,
            world: self.world,
            waited: self.options.rendezvous,
            refused: match self.refusals.is_empty() {
                true => String::new(),
                false => format!(" (turned away: {})", self.refusals.join("; ")),
            },
        }
    }

    fn start(self) -> Result<Vec<Link>, DistError> {
        self.tell_all(&Answer::Welcome);
        let mut links = Vec::with_capacity(self.world - 1);
        for (rank, seat) in self.seats.into_iter().enumerate() {
            if let [Some(control), Some(data)] = seat {
                links.push(Link {
                    rank,
                    control: control.stream,
                    data: data.stream,
                });
            }
        }
        Ok(links)
    }
}

/// Whether the other end is still there, as far as is known.
fn is_open(stream: &TcpStream) -> bool {
    let peeked = stream.set_nonblocking(true).and_then(|()| stream.peek(&mut [0]));
    let _ = stream.set_nonblocking(false);
    match peeked {
        Ok(bytes) => bytes > 0,
        Err(error) => error.kind() == io::ErrorKind::WouldBlock,
    }
}

/// Any other rank: comes to rank 0 and waits for the start.
pub(super) fn come(place: &Place, identity: &Identity, options: &TcpOptions) -> Result<Link, DistError> {
    let until = Instant::now() + options.rendezvous;
    let open = |role| {
        connect(
            place,
            &Hello::new(role, place.rank, place.world, identity),
            options,
            until,
        )
    };
    let control = open(Role::Control)?;
    let data = open(Role::Data)?;
    // Rank 0 gives up at its own limit, and says so: a little later than ours is soon enough.
    let limit = until.saturating_duration_since(Instant::now()) + options.handshake;
    match data.hear(&options.secret, Stage::Start, limit) {
        Ok(Answer::Welcome) => Ok(Link {
            rank: 0,
            control: control.stream,
            data: data.stream,
        }),
        Ok(answer) => Err(refused(place.rank, answer)),
        Err(error) => Err(DistError::Refused {
            rank: place.rank,
            reason: format!("it went away before all ranks had come ({error})"),
        }),
    }
}

fn refused(rank: usize, answer: Answer) -> DistError {
    let reason = match answer {
        Answer::Refused(reason) => reason,
        _ => format!(
            "the secret differs; give all ranks the same {}",
            crate::dist::SECRET_VARIABLE
        ),
    };
    DistError::Refused { rank, reason }
}

/// Tries until rank 0 listens and answers.
fn connect(place: &Place, hello: &Hello, options: &TcpOptions, until: Instant) -> Result<Spoken, DistError> {
    let mut pause = POLL;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let tried = try_connect(&place.master, left.min(CONNECT_LIMIT))
            .and_then(|stream| introduce(stream, hello, &options.secret, options.handshake))
            .and_then(|spoken| Ok((spoken.hear(&options.secret, Stage::Proof, options.handshake)?, spoken)));
        match tried {
            Ok((Answer::Welcome, spoken)) => return Ok(spoken),
            Ok((answer, _)) => return Err(refused(place.rank, answer)),
            Err(source) if Instant::now() + pause >= until => {
                return Err(DistError::Unreachable {
                    rank: place.rank,
                    address: place.master.clone(),
                    waited: options.rendezvous,
                    source,
                });
            }
            Err(_) => {
                std::thread::sleep(pause);
                pause = (pause * 2).min(Duration::from_millis(500));
            }
        }
    }
}

fn try_connect(address: &str, limit: Duration) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, limit.max(POLL)) {
            // While nobody listens, a connection on one host can meet itself.
            Ok(stream) if stream.local_addr()? == stream.peer_addr()? => {
                last = io::Error::from(io::ErrorKind::ConnectionRefused);
            }
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}
