//! Progress of long work on stderr: a bar with rate and time left on a terminal, plain lines elsewhere.

use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Between two plain lines.
const LINE_INTERVAL: Duration = Duration::from_secs(10);

/// Whether nothing is shown.
static SILENT: AtomicBool = AtomicBool::new(false);

/// Shows no progress from here on: another process does.
pub fn silence() {
    SILENT.store(true, Ordering::Relaxed);
}

/// How far one piece of work is.
#[derive(Debug)]
pub struct Progress {
    what: String,
    unit: &'static str,
    done: u64,
    total: Option<u64>,
    /// What else is counted, with its unit: shown as rates.
    others: Vec<(&'static str, u64)>,
    started: Instant,
    output: Output,
}

#[derive(Debug)]
enum Output {
    Bar(ProgressBar),
    Lines { last: Instant },
    Nothing,
}

impl Progress {
    /// Starts `what` (e.g. `profiles`), counted in `unit`s (e.g. `users`); without a `total` only the rate is shown.
    pub fn start(what: impl Into<String>, unit: &'static str, total: Option<u64>) -> Self {
        let what = what.into();
        let now = Instant::now();
        let output = if SILENT.load(Ordering::Relaxed) {
            Output::Nothing
        } else if std::io::stderr().is_terminal() {
            Output::Bar(bar(&what, unit, total))
        } else {
            Output::Lines { last: now }
        };
        Self {
            what,
            unit,
            done: 0,
            total,
            others: Vec::new(),
            started: now,
            output,
        }
    }

    /// Counts `more` units as done.
    pub fn add(&mut self, more: u64) {
        self.done += more;
        let elapsed = self.started.elapsed();
        match &mut self.output {
            Output::Nothing => {}
            Output::Bar(bar) => {
                bar.set_message(rates(&self.others, elapsed));
                bar.set_position(self.done);
            }
            Output::Lines { last } => {
                if last.elapsed() >= LINE_INTERVAL {
                    *last = Instant::now();
                    eprintln!("{}", self.line(self.total, elapsed));
                }
            }
        }
    }

    /// Counts `more` of something else, such as `tokens`, whose rate is shown beside.
    pub fn count(&mut self, unit: &'static str, more: usize) {
        match self.others.iter_mut().find(|(other, _)| *other == unit) {
            Some((_, count)) => *count += more as u64,
            None => self.others.push((unit, more as u64)),
        }
    }

    fn line(&self, total: Option<u64>, elapsed: Duration) -> String {
        let others = rates(&self.others, elapsed);
        line(&self.what, self.unit, self.done, total, &others, elapsed)
    }

    /// Says something without breaking the bar.
    pub fn note(&self, text: &str) {
        match &self.output {
            Output::Bar(bar) => bar.suspend(|| eprintln!("{text}")),
            Output::Lines { .. } => eprintln!("{text}"),
            Output::Nothing => {}
        }
    }

    /// Ends the work with a last line.
    pub fn finish(self) {
        match &self.output {
            Output::Bar(bar) => bar.finish_and_clear(),
            Output::Lines { .. } => {}
            Output::Nothing => return,
        }
        let seconds = self.started.elapsed();
        eprintln!("{} in {}", self.line(None, seconds), duration(seconds));
    }
}

fn bar(what: &str, unit: &str, total: Option<u64>) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr());
    let template = match total {
        Some(_) => {
            format!("{what} {{wide_bar}} {{human_pos}}/{{human_len}} {unit} · {{per_sec}}{{msg}} · {{eta}} left")
        }
        None => format!("{what} {{spinner}} {{human_pos}} {unit} · {{per_sec}}{{msg}}"),
    };
    if let Ok(style) = ProgressStyle::with_template(&template) {
        bar.set_style(style);
    }
    bar
}

/// E.g. `, 3,412 tokens/s`; nothing where nothing else is counted.
fn rates(others: &[(&'static str, u64)], elapsed: Duration) -> String {
    let rate = |&(unit, count): &(&str, u64)| format!(", {} {unit}/s", per_second(count, elapsed));
    others.iter().map(rate).collect()
}

fn per_second(count: u64, elapsed: Duration) -> String {
    let rate = count as f64 / elapsed.as_secs_f64().max(1e-9);
    let precision = if rate < 10.0 { 1 } else { 0 };
    format!("{rate:.precision$}")
}

/// E.g. `profiles: 120 of 480 users, 4.0/s, 1m 30s left`, with `others` after the rate.
fn line(what: &str, unit: &str, done: u64, total: Option<u64>, others: &str, elapsed: Duration) -> String {
    let rate = per_second(done, elapsed);
    match total {
        Some(total) => {
            let each = elapsed.as_secs_f64() / (done as f64).max(1e-9);
            let left = Duration::try_from_secs_f64(total.saturating_sub(done) as f64 * each);
            let left = left.map_or_else(|_| "unknown time".to_owned(), duration);
            format!("{what}: {done} of {total} {unit}, {rate}/s{others}, {left} left")
        }
        None => format!("{what}: {done} {unit}, {rate}/s{others}"),
    }
}

fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..60 => format!("{}.{}s", seconds, duration.subsec_millis() / 100),
        60..3600 => format!("{}m {:02}s", seconds / 60, seconds % 60),
        _ => format!("{}h {:02}m", seconds / 3600, seconds / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_line_has_count_rates_and_time_left() {
        let half_minute = Duration::from_secs(30);
        let text = line("profiles", "users", 120, Some(480), "", half_minute);
        assert_eq!(text, "profiles: 120 of 480 users, 4.0/s, 1m 30s left");
        let others = rates(&[("tokens", 6_000), ("profiles", 240)], half_minute);
        let text = line("language model", "updates", 15, Some(30), &others, half_minute);
        assert_eq!(
            text,
            "language model: 15 of 30 updates, 0.5/s, 200 tokens/s, 8.0 profiles/s, 30.0s left"
        );
    }

    #[test]
    fn without_a_total_there_is_no_time_left() {
        let text = line("reviews", "lines", 5_000, None, "", Duration::from_secs(2));
        assert_eq!(text, "reviews: 5000 lines, 2500/s");
    }

    #[test]
    fn nothing_done_yet_is_no_division_by_zero() {
        let text = line("profiles", "users", 0, Some(480), "", Duration::ZERO);
        assert!(text.starts_with("profiles: 0 of 480 users, 0.0/s"), "{text}");
    }
}
