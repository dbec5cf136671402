//! How a process proves that it belongs: challenge and response by HMAC-SHA256 over a shared secret, both ways.
//!
//! | from | message | bytes |
//! |---|---|---|
//! | worker | hello: magic 8, protocol 2, role 1, rank 4, world 4, nonce 32, version 32, config 32, dataset 32 | 147 |
//! | rank 0 | challenge: nonce | 32 |
//! | worker | proof: HMAC(secret, "worker" ‖ hello ‖ challenge) | 32 |
//! | rank 0 | answer: code 1, length 2, reason, HMAC(secret, label ‖ hello ‖ challenge ‖ code ‖ reason) | 35 to 1035 |
//!
//! Every message but the reason has a fixed size, and a handshake has one time limit for all of it, so that neither a garbled
//! length nor a slow writer costs more than a socket for a few seconds. Nothing is encrypted.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use hmac::{Hmac, Mac};
use sha2::Sha256;

const MAGIC: [u8; 8] = *b"LANGPTUN";
/// Raised when a message changes its form.
const PROTOCOL: u16 = 1;
const HELLO_BYTES: usize = 147;
const NONCE_BYTES: usize = 32;
const MAC_BYTES: usize = 32;
const LONGEST_REASON: usize = 1000;

/// What ranks know each other by. Never printed.
#[derive(Clone)]
pub struct Secret(Hmac<Sha256>);

impl Secret {
    /// Fewest bytes of a secret.
    pub const SHORTEST: usize = 16;

    /// `None` if the text has fewer than [`Secret::SHORTEST`] bytes.
    pub fn new(text: &[u8]) -> Option<Self> {
        if text.len() < Self::SHORTEST {
            return None;
        }
        Hmac::new_from_slice(text).ok().map(Self)
    }

    fn mac(&self, parts: &[&[u8]]) -> Hmac<Sha256> {
        let mut mac = self.0.clone();
        parts.iter().for_each(|part| mac.update(part));
        mac
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Secret")
    }
}

/// What all ranks of a run must have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The program's version, of which the first 32 bytes count.
    pub version: String,
    /// SHA-256 of the settings that must agree.
    pub config: [u8; 32],
    /// SHA-256 of what the dataset says about itself.
    pub dataset: [u8; 32],
}

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Signs of life and the news of a failure.
    Control,
    /// Collectives.
    Data,
}

/// What a worker says first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hello {
    pub(super) protocol: u16,
    pub(super) role: Role,
    pub(super) rank: u32,
    pub(super) world: u32,
    version: [u8; 32],
    config: [u8; 32],
    dataset: [u8; 32],
}

impl Hello {
    pub(super) fn new(role: Role, rank: usize, world: usize, identity: &Identity) -> Self {
        let mut version = [0; 32];
        let text = identity.version.as_bytes();
        let kept = text.len().min(version.len());
        version[..kept].copy_from_slice(&text[..kept]);
        Self {
            protocol: PROTOCOL,
            role,
            rank: rank as u32,
            world: world as u32,
            version,
            config: identity.config,
            dataset: identity.dataset,
        }
    }

    fn to_bytes(&self, nonce: &[u8; NONCE_BYTES]) -> Vec<u8> {
        let role = match self.role {
            Role::Control => 0u8,
            Role::Data => 1,
        };
        [
            &MAGIC[..],
            &self.protocol.to_le_bytes(),
            &[role],
            &self.rank.to_le_bytes(),
            &self.world.to_le_bytes(),
            nonce,
            &self.version,
            &self.config,
            &self.dataset,
        ]
        .concat()
    }

    fn from_bytes(bytes: &[u8; HELLO_BYTES]) -> Option<Self> {
        let (magic, rest) = bytes.split_first_chunk::<8>()?;
        let (protocol, rest) = rest.split_first_chunk()?;
        let (role, rest) = rest.split_first()?;
        let (rank, rest) = rest.split_first_chunk()?;
        let (world, rest) = rest.split_first_chunk()?;
        let (_nonce, rest) = rest.split_first_chunk::<NONCE_BYTES>()?;
        let (version, rest) = rest.split_first_chunk()?;
        let (config, rest) = rest.split_first_chunk()?;
        let (dataset, _) = rest.split_first_chunk()?;
        let role = match role {
            0 => Role::Control,
            1 => Role::Data,
            _ => return None,
        };
        (*magic == MAGIC).then_some(Self {
            protocol: u16::from_le_bytes(*protocol),
            role,
            rank: u32::from_le_bytes(*rank),
            world: u32::from_le_bytes(*world),
            version: *version,
            config: *config,
            dataset: *dataset,
        })
    }

    /// How this worker differs from what rank 0 runs, `own` being rank 0's hello.
    pub(super) fn differs(&self, own: &Self) -> Option<String> {
        let text = |version: &[u8; 32]| {
            String::from_utf8_lossy(version)
                .trim_end_matches('\0')
                .escape_default()
                .to_string()
        };
        if self.protocol != own.protocol || self.version != own.version {
            let (theirs, ours) = (text(&self.version), text(&own.version));
            return Some(format!(
                "it is langptune {theirs} (protocol {}), rank 0 is {ours} (protocol {}); start the same program everywhere",
                self.protocol, own.protocol
            ));
        }
        if self.world != own.world {
            return Some(format!(
                "its WORLD_SIZE is {}, rank 0's is {}; give all ranks the same",
                self.world, own.world
            ));
        }
        if self.rank == 0 || self.rank >= own.world {
            return Some(format!(
                "its RANK is {}, expected 1 to {}; give every process a number of its own",
                self.rank,
                own.world - 1
            ));
        }
        if self.config != own.config {
            return Some(
                "its settings differ from rank 0's; start all ranks with the same flags, file and LANGPTUNE_ variables"
                    .to_owned(),
            );
        }
        (self.dataset != own.dataset)
            .then(|| "its dataset differs from rank 0's; give all ranks the same --dataset".to_owned())
    }
}

/// What rank 0 answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    Welcome,
    Refused(String),
    WrongSecret,
}

/// Which answer it is: the first is to the proof, the second when all ranks have come.
#[derive(Debug, Clone, Copy)]
pub(super) enum Stage {
    Proof,
    Start,
}

impl Stage {
    fn label(self) -> &'static [u8] {
        match self {
            Self::Proof => b"answer",
            Self::Start => b"start",
        }
    }
}

/// A connection on which a handshake goes on: both sides keep what was said, which answers are signed over.
#[derive(Debug)]
pub(super) struct Spoken {
    pub(super) stream: TcpStream,
    hello: Vec<u8>,
    challenge: [u8; NONCE_BYTES],
}

/// Rank 0's half up to the proof. `Ok(None)` is a connection that spoke our protocol and has another secret; it was told so.
pub(super) fn receive(stream: TcpStream, secret: &Secret, limit: Duration) -> io::Result<Option<(Hello, Spoken)>> {
    let until = Instant::now() + limit;
    stream.set_nodelay(true)?;
    stream.set_write_timeout(Some(limit))?;
    let mut bytes = [0; HELLO_BYTES];
    read_until(&stream, &mut bytes, until)?;
    let garbled = || io::Error::new(io::ErrorKind::InvalidData, "it does not speak langptune's protocol");
    let hello = Hello::from_bytes(&bytes).ok_or_else(garbled)?;
    let challenge = nonce()?;
    (&stream).write_all(&challenge)?;
    let mut proof = [0; MAC_BYTES];
    read_until(&stream, &mut proof, until)?;
    let spoken = Spoken {
        stream,
        hello: bytes.to_vec(),
        challenge,
    };
    let expected = secret.mac(&[b"worker", &spoken.hello, &spoken.challenge]);
    if expected.verify_slice(&proof).is_err() {
        spoken.answer(secret, Stage::Proof, &Answer::WrongSecret)?;
        return Ok(None);
    }
    Ok(Some((hello, spoken)))
}

/// The worker's half up to the proof.
pub(super) fn introduce(stream: TcpStream, hello: &Hello, secret: &Secret, limit: Duration) -> io::Result<Spoken> {
    let until = Instant::now() + limit;
    stream.set_nodelay(true)?;
    stream.set_write_timeout(Some(limit))?;
    let hello = hello.to_bytes(&nonce()?);
    (&stream).write_all(&hello)?;
    let mut challenge = [0; NONCE_BYTES];
    read_until(&stream, &mut challenge, until)?;
    let proof = secret.mac(&[b"worker", &hello, &challenge]).finalize().into_bytes();
    (&stream).write_all(&proof)?;
    Ok(Spoken {
        stream,
        hello,
        challenge,
    })
}

impl Spoken {
    /// Rank 0 answers.
    pub(super) fn answer(&self, secret: &Secret, stage: Stage, answer: &Answer) -> io::Result<()> {
        let (code, reason) = match answer {
            Answer::Welcome => (0u8, ""),
            Answer::Refused(reason) => (1, reason.as_str()),
            Answer::WrongSecret => (2, ""),
        };
        let end = (0..=reason.len().min(LONGEST_REASON))
            .rev()
            .find(|&end| reason.is_char_boundary(end));
        let reason = &reason.as_bytes()[..end.unwrap_or(0)];
        let length = (reason.len() as u16).to_le_bytes();
        let mac = match answer {
            // Whoever has another secret learns nothing that was made with ours.
            Answer::WrongSecret => [0; MAC_BYTES],
            _ => self.signed(secret, stage, code, reason).finalize().into_bytes().into(),
        };
        (&self.stream).write_all(&[&[code][..], &length, reason, &mac].concat())
    }

    /// The worker hears the answer within `limit`.
    pub(super) fn hear(&self, secret: &Secret, stage: Stage, limit: Duration) -> io::Result<Answer> {
        let until = Instant::now() + limit;
        let mut head = [0; 3];
        read_until(&self.stream, &mut head, until)?;
        let [code, low, high] = head;
        let length = usize::from(u16::from_le_bytes([low, high]));
        let invalid = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what);
        if length > LONGEST_REASON || code > 2 {
            return Err(invalid("the answer is garbled: something else listens there"));
        }
        let mut reason = vec![0; length];
        read_until(&self.stream, &mut reason, until)?;
        let mut mac = [0; MAC_BYTES];
        read_until(&self.stream, &mut mac, until)?;
        if code == 2 {
            return Ok(Answer::WrongSecret);
        }
        if self.signed(secret, stage, code, &reason).verify_slice(&mac).is_err() {
            return Err(invalid(
                "the answer is not signed with our secret: it is another run's rank 0, or none",
            ));
        }
        Ok(match code {
            0 => Answer::Welcome,
            _ => Answer::Refused(String::from_utf8_lossy(&reason).into_owned()),
        })
    }

    fn signed(&self, secret: &Secret, stage: Stage, code: u8, reason: &[u8]) -> Hmac<Sha256> {
        secret.mac(&[stage.label(), &self.hello, &self.challenge, &[code], reason])
    }
}

fn nonce() -> io::Result<[u8; NONCE_BYTES]> {
    let mut nonce = [0; NONCE_BYTES];
    getrandom::fill(&mut nonce).map_err(io::Error::other)?;
    Ok(nonce)
}

/// Fills `bytes` before `until`: a writer that sends byte by byte gains no time.
fn read_until(mut stream: &TcpStream, bytes: &mut [u8], until: Instant) -> io::Result<()> {
    let mut filled = 0;
    while filled < bytes.len() {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "it took too long to speak"));
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut bytes[filled..]) {
            Ok(0) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it closed the connection")),
            Ok(more) => filled += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
