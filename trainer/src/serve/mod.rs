//! `langptune view`: the viewer and reports over HTTP, to browsers on this machine.
//!
//! Reports hold people's reviews, and any page that a browser has open may try to read from 127.0.0.1. So the server listens
//! there alone, answers nothing but GET and HEAD under its own names (another name in `Host` is a foreign page's, led here by
//! its DNS), allows no other site to read or embed an answer, and gives no file but the viewer's and those inside the reports'
//! folders. What it gives is asked for again each time, and answered in a few bytes where it is as before, so that a report
//! that grows is followed cheaply.
//!
//! A handful of browser connections need no asynchronous runtime: a thread serves each. Heads are parsed by httparse, which is
//! hyper's parser; hyper itself would bring a runtime and nothing that is needed here. The one kept without a runtime,
//! tiny_http, was last released in 2022, gives no say over timeouts or the number of connections, and knows neither ranges
//! nor codings nor tags: what is written here would be written around it as well.
//!
//! Answers are packed: the viewer's own files once, with Brotli, which takes a tenth less than gzip, or with gzip; a report's files with
//! gzip, quickly, since they are packed anew each time.

mod connection;
mod content;
mod request;
mod response;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use eval_core::report::Runs;

use crate::site::{ReportPlace, Site, file_path, runs};
use content::{Asset, Content};
use request::Request;
use response::{Response, Status};

/// Where the viewer is served unless something else is there.
pub const DEFAULT_PORT: u16 = 7860;

/// Connections at a time; a browser opens six. Further ones are closed at once.
const MAX_CONNECTIONS: usize = 64;

/// Why nothing can be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The port is taken, or not ours to take.
    #[error("cannot listen on 127.0.0.1:{port}; choose another --port, or leave it out")]
    Listen {
        /// The port that was asked for.
        port: u16,
        /// What the system said.
        source: io::Error,
    },
    /// The reports cannot be listed.
    #[error("cannot write the list of runs")]
    List(#[from] eval_core::Error),
}

/// Serves the viewer and reports on 127.0.0.1.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    shown: Arc<Shown>,
}

/// What is served.
#[derive(Debug)]
struct Shown {
    port: u16,
    assets: BTreeMap<String, Asset>,
    reports: Vec<ReportPlace>,
}

impl Server {
    /// Listens on `port`; without one on [`DEFAULT_PORT`], or on any that is free where that is taken.
    ///
    /// # Errors
    /// When the port cannot be had.
    pub fn bind(port: Option<u16>, site: Site, reports: Vec<ReportPlace>) -> Result<Self, ServeError> {
        let listen = |port: u16| TcpListener::bind((Ipv4Addr::LOCALHOST, port));
        let listener = match port {
            Some(port) => listen(port),
            None => listen(DEFAULT_PORT).or_else(|_| listen(0)),
        };
        let failed = |source| ServeError::Listen {
            port: port.unwrap_or(DEFAULT_PORT),
            source,
        };
        let listener = listener.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let mut assets: BTreeMap<String, Asset> = site
            .into_files()
            .into_iter()
            .map(|(name, bytes)| (name, Asset::new(bytes)))
            .collect();
        let mut list = Vec::new();
        eval_core::report::write_json(&mut list, &runs(&reports, true))?;
        assets.insert(Runs::FILE.to_owned(), Asset::new(list.into()));
        let shown = Shown {
            port: address.port(),
            assets,
            reports,
        };
        Ok(Self {
            listener,
            address,
            shown: Arc::new(shown),
        })
    }

    /// The page's address.
    pub fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// The port that it listens on.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Serves until the process ends.
    pub fn run(self) -> ! {
        let open = Arc::new(AtomicUsize::new(0));
        loop {
            let Ok((stream, _)) = self.listener.accept() else {
                // Such as too many open files: that passes.
                std::thread::sleep(Duration::from_millis(50));
                continue;
            };
            if open.fetch_add(1, Ordering::SeqCst) >= MAX_CONNECTIONS {
                open.fetch_sub(1, Ordering::SeqCst);
                continue;
            }
            let (shown, counted) = (Arc::clone(&self.shown), Counted(Arc::clone(&open)));
            let started = std::thread::Builder::new()
                .name("connection".to_owned())
                .spawn(move || {
                    let _counted = counted;
                    // A browser that went away is no one's problem.
                    let _ = connection::serve(stream, &shown);
                });
            // Without a thread the connection is closed, and the browser tries again.
            drop(started);
        }
    }
}

/// Counts a connection for as long as it lives.
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Shown {
    /// The answer to a request.
    fn answer(&self, request: &Request) -> Response<'_> {
        if !self.is_ours(request) {
            return Response::refusal(Status::Misdirected);
        }
        if !["GET", "HEAD"].contains(&request.method.as_str()) {
            return Response::refusal(Status::MethodNotAllowed);
        }
        let Some(path) = request.path() else {
            return Response::refusal(Status::BadRequest);
        };
        let found = self
            .find(path)
            .and_then(|found| found.map(|content| content.answer(request)).transpose());
        match found {
            Ok(Some(response)) => response,
            Ok(None) => Response::refusal(Status::NotFound),
            // It was there a moment ago: a run that trains may have put another in its place.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Response::refusal(Status::NotFound),
            Err(_) => Response::refusal(Status::Unreadable),
        }
    }

    /// Whether the request was meant for this server: under a name of this machine's own, and our port.
    fn is_ours(&self, request: &Request) -> bool {
        let port = format!(":{}", self.port);
        let ours = |host: &str| {
            let name = match host.strip_suffix(&port) {
                Some(name) => name,
                None if self.port == 80 => host,
                None => return false,
            };
            ["127.0.0.1", "localhost", "[::1]"]
                .iter()
                .any(|own| own.eq_ignore_ascii_case(name))
        };
        let mut hosts = request.all("host");
        let one = hosts.next().is_some_and(ours) && hosts.next().is_none();
        one && request.authority().is_none_or(ours)
    }

    /// What lies at a path. Names here need no escapes, so none is undone: a path with one names nothing.
    fn find(&self, path: &str) -> io::Result<Option<Content<'_>>> {
        let name = match path {
            "" => Site::PAGE,
            other => other,
        };
        if let Some(asset) = self.assets.get(name) {
            return Ok(Some(Content::of_asset(name, asset)));
        }
        let of_report = |report: &ReportPlace| {
            let inside = name.strip_prefix(report.path().as_str())?;
            file_path(&report.folder, inside.split('/'))
        };
        match self.reports.iter().find_map(of_report) {
            Some(path) => Content::of_file(name, &path).map(Some),
            None => Ok(None),
        }
    }
}
