//! One browser's connection.

use std::io::{self, Read};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use super::Shown;
use super::request::{Incoming, read_request};
use super::response::Response;

/// How long a connection may be quiet, or a browser not take what is sent.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long, and over how many reads, what was not asked for is taken before a connection ends.
const LINGER: (Duration, usize) = (Duration::from_millis(200), 16);

/// Answers requests until the connection ends.
pub(super) fn serve(mut stream: TcpStream, shown: &Shown) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    let mut buffer = Vec::new();
    loop {
        match read_request(&mut stream, &mut buffer)? {
            Incoming::End => return Ok(()),
            Incoming::Refused(status) => {
                Response::refusal(status).write(&mut stream, false, true)?;
                return end(stream);
            }
            Incoming::Request(request) => {
                let response = shown.answer(&request);
                response.write(&mut stream, request.is_head(), request.closes)?;
                if request.closes {
                    return end(stream);
                }
            }
        }
    }
}

/// Ends a connection on which more may have been sent, such as a body: unread, it would have the system throw away our answer.
fn end(mut stream: TcpStream) -> io::Result<()> {
    stream.shutdown(Shutdown::Write)?;
    let (time, reads) = LINGER;
    stream.set_read_timeout(Some(time))?;
    let mut part = [0; 4096];
    for _ in 0..reads {
        if stream.read(&mut part)? == 0 {
            break;
        }
    }
    Ok(())
}
