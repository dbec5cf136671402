//! A process's place among its like, from the variables that `torchrun` and `langptune launch` set.

use std::time::Duration;

use super::{Communicator, DistError, Identity, Secret, Solo, Tcp, TcpOptions};

/// The variable with the text that ranks know each other by.
pub const SECRET_VARIABLE: &str = "LANGPTUNE_SECRET";

/// The variable that tells a process that its standard input is a pipe from `langptune launch`, closed when that ends.
pub const LAUNCHED_VARIABLE: &str = "LANGPTUNE_LAUNCHED";

/// Where a process stands in a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Its number over all hosts, from 0.
    pub rank: usize,
    /// How many there are.
    pub world: usize,
    /// Its number on its host, which chooses its device.
    pub local_rank: usize,
    /// `host:port` of rank 0.
    pub master: String,
}

/// Joins the run that the environment describes; alone where it describes none. Collectives that take longer than `watchdog`
/// fail; `on_unnoticed` is told of a failure that training, busy computing, has not noticed after ten seconds.
///
/// # Errors
/// A variable that is missing or wrong, a rank that does not come, or one that belongs to another run.
pub fn join(
    variable: impl Fn(&str) -> Option<String>,
    identity: &Identity,
    watchdog: Duration,
    on_unnoticed: fn(&DistError),
) -> Result<Box<dyn Communicator>, DistError> {
    let Some(place) = place(&variable)? else {
        return Ok(Box::new(Solo));
    };
    if place.world == 1 {
        return Ok(Box::new(Solo));
    }
    let options = TcpOptions {
        watchdog,
        on_unnoticed,
        ..TcpOptions::new(secret(&variable)?)
    };
    Ok(Box::new(Tcp::join(&place, identity, &options)?))
}

/// Ends this process when the launcher that started it is gone: nobody would see what it says, or could stop it.
pub fn end_with_launcher(variable: impl Fn(&str) -> Option<String>) {
    if variable(LAUNCHED_VARIABLE).is_none() {
        return;
    }
    std::thread::spawn(|| {
        let mut stdin = std::io::stdin().lock();
        let mut byte = [0];
        while std::io::Read::read(&mut stdin, &mut byte).is_ok_and(|bytes| bytes > 0) {}
        eprintln!("error: `langptune launch` is gone, so this rank ends");
        std::process::exit(1);
    });
}

/// The place that the variables describe: `RANK`, `WORLD_SIZE`, `LOCAL_RANK`, `MASTER_ADDR`, `MASTER_PORT`. `None` where neither
/// `RANK` nor `WORLD_SIZE` is set.
///
/// # Errors
/// A variable that is missing beside the others, or is no number in its range.
pub fn place(variable: &impl Fn(&str) -> Option<String>) -> Result<Option<Place>, DistError> {
    if variable("RANK").is_none() && variable("WORLD_SIZE").is_none() {
        return Ok(None);
    }
    let world = number(variable, "WORLD_SIZE", 1, 4096)?;
    let rank = number(variable, "RANK", 0, world - 1)?;
    let local_rank = match variable("LOCAL_RANK") {
        Some(_) => number(variable, "LOCAL_RANK", 0, world - 1)?,
        None => 0,
    };
    if world == 1 {
        return Ok(Some(Place {
            rank,
            world,
            local_rank,
            master: String::new(),
        }));
    }
    let Some(address) = variable("MASTER_ADDR").filter(|address| !address.is_empty()) else {
        return Err(environment(
            "MASTER_ADDR",
            "the host name or address of rank 0",
            "nothing",
        ));
    };
    let port = number(variable, "MASTER_PORT", 1, 65535)?;
    let master = if address.contains(':') && !address.starts_with('[') {
        format!("[{address}]:{port}") // IPv6
    } else {
        format!("{address}:{port}")
    };
    Ok(Some(Place {
        rank,
        world,
        local_rank,
        master,
    }))
}

fn number(
    variable: &impl Fn(&str) -> Option<String>,
    name: &'static str,
    least: usize,
    most: usize,
) -> Result<usize, DistError> {
    let text = variable(name);
    let found = text.as_deref().and_then(|text| text.trim().parse::<usize>().ok());
    found.filter(|number| (least..=most).contains(number)).ok_or_else(|| {
        environment(
            name,
            format!("a whole number from {least} to {most}"),
            text.map_or("nothing".to_owned(), |text| format!("`{text}`")),
        )
    })
}

fn secret(variable: &impl Fn(&str) -> Option<String>) -> Result<Secret, DistError> {
    let text = variable(SECRET_VARIABLE).unwrap_or_default();
    Secret::new(text.as_bytes()).ok_or_else(|| {
        // The secret itself is never printed.
        environment(
            SECRET_VARIABLE,
            format!(
                "at least {} random characters, the same for all ranks",
                Secret::SHORTEST
            ),
            format!("{} characters", text.len()),
        )
    })
}

fn environment(variable: &'static str, expected: impl Into<String>, found: impl Into<String>) -> DistError {
    DistError::Environment {
        variable,
        expected: expected.into(),
        found: found.into(),
        advice: "`langptune launch` sets all variables on one host; unset RANK and WORLD_SIZE to train in one process",
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn placed(variables: &[(&str, &str)]) -> Result<Option<Place>, String> {
        let variable = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        place(&variable).map_err(|error| error.to_string())
    }

    const FULL: [(&str, &str); 5] = [
        ("RANK", "2"),
        ("WORLD_SIZE", "4"),
        ("LOCAL_RANK", "1"),
        ("MASTER_ADDR", "10.0.0.1"),
        ("MASTER_PORT", "29500"),
    ];

    #[test]
    fn torchruns_variables_give_a_place() {
        let place = placed(&FULL).unwrap().unwrap();
        assert_eq!((place.rank, place.world, place.local_rank), (2, 4, 1));
        assert_eq!(place.master, "10.0.0.1:29500");
        assert_eq!(placed(&[]).unwrap(), None);
    }

    #[test]
    fn an_address_of_ipv6_is_bracketed() {
        let mut variables = FULL;
        variables[3].1 = "fe80::1";
        assert_eq!(placed(&variables).unwrap().unwrap().master, "[fe80::1]:29500");
    }

    #[test]
    fn a_missing_or_impossible_variable_is_named() {
        for (index, value, named) in [
            (0, "4", "RANK: expected a whole number from 0 to 3, found `4`"),
            (1, "0", "WORLD_SIZE: expected a whole number from 1 to 4096, found `0`"),
            (3, "", "MASTER_ADDR"),
            (
                4,
                "http",
                "MASTER_PORT: expected a whole number from 1 to 65535, found `http`",
            ),
        ] {
            let mut variables = FULL;
            variables[index].1 = value;
            let error = placed(&variables).unwrap_err();
            assert!(error.contains(named), "{error}");
        }
        let error = placed(&FULL[1..]).unwrap_err();
        assert!(
            error.contains("RANK: expected") && error.contains("found nothing"),
            "{error}"
        );
    }

    #[test]
    fn a_short_secret_is_refused_and_not_shown() {
        let error = secret(&|_: &str| Some("hunter2".to_owned())).unwrap_err().to_string();
        assert!(error.contains("7 characters") && !error.contains("hunter2"), "{error}");
    }
}
