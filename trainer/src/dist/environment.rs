//! A process's place among its like, from the variables that its launcher sets: `torchrun` or `langptune launch`, `mpirun`, `srun`.

use std::fmt;
use std::time::Duration;

use super::{DistError, Identity, Secret, Tcp, TcpOptions};

/// The variable with the text that ranks know each other by.
pub const SECRET_VARIABLE: &str = "LANGPTUNE_SECRET";

/// The variable that tells a process that its standard input is a pipe from `langptune launch`, closed when that ends.
pub const LAUNCHED_VARIABLE: &str = "LANGPTUNE_LAUNCHED";

/// The variable that tells a process that it takes the place of one that failed, with the second (since 1970) in which the first of
/// them was started: it goes on from the last checkpoint since then, whatever its command line says of resuming and overwriting.
pub const RESTARTED_VARIABLE: &str = "LANGPTUNE_RESTARTED";

/// Where `torchrun` listens unless told otherwise.
const DEFAULT_PORT: usize = 29500;

/// Whose variables describe a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Launcher {
    /// `RANK`, `WORLD_SIZE`, `LOCAL_RANK`.
    Torchrun,
    /// `OMPI_COMM_WORLD_RANK`, `_SIZE`, `_LOCAL_RANK`.
    OpenMpi,
    /// `PMI_RANK`, `PMI_SIZE`, `MPI_LOCALRANKID`: MPICH, Intel MPI.
    Mpich,
    /// `SLURM_PROCID`, `SLURM_NTASKS`, `SLURM_LOCALID` of a job step.
    Slurm,
}

impl fmt::Display for Launcher {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Torchrun => "torchrun's variables (RANK, WORLD_SIZE)",
            Self::OpenMpi => "Open MPI's variables (OMPI_COMM_WORLD_RANK)",
            Self::Mpich => "MPICH's variables (PMI_RANK)",
            Self::Slurm => "srun's variables (SLURM_PROCID)",
        })
    }
}

impl Launcher {
    /// The first whose variables are there. `RANK` goes before what surrounds it; MPI's go before Slurm's, under which `mpirun` may
    /// itself have been started; Slurm's count only in a step of `srun`, as a batch script has some of them too.
    fn find(variable: &impl Fn(&str) -> Option<String>) -> Option<Self> {
        let any = |names: &[&str]| names.iter().any(|name| variable(name).is_some());
        if any(&["RANK", "WORLD_SIZE"]) {
            Some(Self::Torchrun)
        } else if any(&["OMPI_COMM_WORLD_SIZE"]) {
            Some(Self::OpenMpi)
        } else if any(&["PMI_SIZE"]) {
            Some(Self::Mpich)
        } else if any(&["SLURM_STEP_ID", "SLURM_STEPID"]) && any(&["SLURM_PROCID"]) {
            Some(Self::Slurm)
        } else {
            None
        }
    }

    /// The variables of a process's number, of how many there are, of its number on its host, and of how many are there.
    fn names(self, variable: &impl Fn(&str) -> Option<String>) -> [&'static str; 4] {
        match self {
            Self::Torchrun => ["RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"],
            Self::OpenMpi => [
                "OMPI_COMM_WORLD_RANK",
                "OMPI_COMM_WORLD_SIZE",
                "OMPI_COMM_WORLD_LOCAL_RANK",
                "OMPI_COMM_WORLD_LOCAL_SIZE",
            ],
            // Started by srun, its processes have Slurm's local number alone.
            Self::Mpich if variable("MPI_LOCALRANKID").is_none() && variable("SLURM_LOCALID").is_some() => {
                ["PMI_RANK", "PMI_SIZE", "SLURM_LOCALID", "MPI_LOCALNRANKS"]
            }
            Self::Mpich => ["PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"],
            Self::Slurm if variable("SLURM_STEP_NUM_TASKS").is_some() => [
                "SLURM_PROCID",
                "SLURM_STEP_NUM_TASKS",
                "SLURM_LOCALID",
                "SLURM_NTASKS_PER_NODE",
            ],
            Self::Slurm => ["SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID", "SLURM_NTASKS_PER_NODE"],
        }
    }
}

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
    /// Whose variables said so.
    pub launcher: Launcher,
}

/// Joins the run that the environment describes; `None` where it describes none, or one of one process. Collectives that take longer than `watchdog`
/// fail; `on_unnoticed` is told of a failure that training, busy computing, has not noticed after ten seconds.
///
/// # Errors
/// A variable that is missing or wrong, a rank that does not come, or one that belongs to another run.
pub fn join(
    variable: impl Fn(&str) -> Option<String>,
    identity: &Identity,
    watchdog: Duration,
    on_unnoticed: fn(&DistError),
) -> Result<Option<Tcp>, DistError> {
    let Some(place) = place(&variable)?.filter(|place| place.world > 1) else {
        return Ok(None);
    };
    let options = TcpOptions {
        watchdog,
        on_unnoticed,
        ..TcpOptions::new(secret(&variable)?)
    };
    Tcp::join(&place, identity, &options).map(Some)
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

/// The place that the variables of a launcher describe, with `MASTER_ADDR` and `MASTER_PORT`. `None` where there are none.
///
/// Under `srun` rank 0 is on the step's first host and the port follows from the job's number, unless the two are given; under
/// `mpirun` the port is 29500 and, where all processes are on one host, the address is its own.
///
/// # Errors
/// A variable that is missing beside the others, or is no number in its range.
pub fn place(variable: &impl Fn(&str) -> Option<String>) -> Result<Option<Place>, DistError> {
    let Some(launcher) = Launcher::find(variable) else {
        return Ok(None);
    };
    let [rank, world, local, _] = launcher.names(variable);
    let world = number(variable, world, 1, 4096)?;
    let rank = number(variable, rank, 0, world - 1)?;
    let local_rank = match variable(local) {
        Some(_) => number(variable, local, 0, world - 1)?,
        None => 0,
    };
    let master = match world {
        1 => String::new(),
        _ => master(variable, launcher, world)?,
    };
    Ok(Some(Place {
        rank,
        world,
        local_rank,
        master,
        launcher,
    }))
}

/// `host:port` of rank 0.
fn master(variable: &impl Fn(&str) -> Option<String>, launcher: Launcher, world: usize) -> Result<String, DistError> {
    let text = |name: &str| variable(name).filter(|text| !text.is_empty());
    let [.., local_size] = launcher.names(variable);
    let nodes = ["SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST", "SLURM_NODELIST"];
    let found = text("MASTER_ADDR").or_else(|| match launcher {
        Launcher::Torchrun => None,
        Launcher::OpenMpi | Launcher::Mpich => {
            let here = text(local_size).is_some_and(|size| size.trim() == world.to_string());
            here.then(|| "127.0.0.1".to_owned())
        }
        Launcher::Slurm => nodes.into_iter().find_map(text).map(|nodes| first_host(&nodes)),
    });
    let Some(address) = found else {
        return Err(environment(
            "MASTER_ADDR",
            "the host name or address of rank 0",
            "nothing",
        ));
    };
    let port = match (text("MASTER_PORT"), launcher) {
        (None, Launcher::OpenMpi | Launcher::Mpich) => DEFAULT_PORT,
        (None, Launcher::Slurm) => slurm_port(variable),
        _ => number(variable, "MASTER_PORT", 1, 65535)?,
    };
    Ok(if address.contains(':') && !address.starts_with('[') {
        format!("[{address}]:{port}") // IPv6
    } else {
        format!("{address}:{port}")
    })
}

/// A port that two jobs on one host hardly share: 20000 to 39999, below those that systems give out by themselves.
fn slurm_port(variable: &impl Fn(&str) -> Option<String>) -> usize {
    let digits = |name: &str| variable(name).and_then(|text| text.trim().parse::<usize>().ok());
    let (job, step) = (digits("SLURM_JOB_ID"), digits("SLURM_STEP_ID"));
    20_000 + (job.unwrap_or(0) % 20_000 + 31 * (step.unwrap_or(0) % 20_000)) % 20_000
}

/// The first of a list of hosts as Slurm writes them: of `gpu-[003-006,010],login` it is `gpu-003`.
fn first_host(nodes: &str) -> String {
    let mut host = String::new();
    let mut rest = nodes.trim().chars();
    while let Some(letter) = rest.next() {
        match letter {
            ',' => break,
            '[' => {
                let inside: String = rest.by_ref().take_while(|&letter| letter != ']').collect();
                let first = inside.split([',', '-']).next().unwrap_or_default();
                host.push_str(first);
            }
            letter => host.push(letter),
        }
    }
    host
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
        advice: "`langptune launch` sets all variables on one host; docs/cluster.md has the others; without RANK and WORLD_SIZE one process trains alone",
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
        assert_eq!(place.launcher, Launcher::Torchrun);
        assert_eq!(placed(&[]).unwrap(), None);
    }

    #[test]
    fn sruns_variables_give_a_place_on_the_steps_first_host() {
        let step = [
            ("SLURM_PROCID", "5"),
            ("SLURM_NTASKS", "16"),
            ("SLURM_LOCALID", "1"),
            ("SLURM_STEP_ID", "2"),
            ("SLURM_JOB_ID", "1234567"),
            ("SLURM_JOB_NODELIST", "gpu-[003-006,010],login"),
        ];
        let place = placed(&step).unwrap().unwrap();
        assert_eq!((place.rank, place.world, place.local_rank), (5, 16, 1));
        // 1234567 mod 20000 is 14567, and 31 for each step.
        assert_eq!(place.master, "gpu-003:34629");
        assert_eq!(place.launcher.to_string(), "srun's variables (SLURM_PROCID)");
        let given = [&step[..], &[("MASTER_ADDR", "10.1.1.1"), ("MASTER_PORT", "4000")]].concat();
        assert_eq!(placed(&given).unwrap().unwrap().master, "10.1.1.1:4000");
        // A step of fewer tasks than the job.
        let fewer = [
            &step[..],
            &[("SLURM_STEP_NUM_TASKS", "8"), ("SLURM_STEP_NODELIST", "b7")],
        ]
        .concat();
        let place = placed(&fewer).unwrap().unwrap();
        assert_eq!((place.world, place.master.as_str()), (8, "b7:34629"));
        // A batch script has a number too, but is no step.
        let script: Vec<_> = step.into_iter().filter(|(name, _)| *name != "SLURM_STEP_ID").collect();
        assert_eq!(placed(&script).unwrap(), None);
        // What `langptune launch` sets within a step goes before.
        let launched = [&FULL[..], &step].concat();
        assert_eq!(placed(&launched).unwrap().unwrap().launcher, Launcher::Torchrun);
    }

    #[test]
    fn the_first_host_of_a_list_is_found() {
        for (nodes, first) in [
            ("node7", "node7"),
            ("a,b", "a"),
            ("n[01-04]", "n01"),
            ("n[7,9]", "n7"),
            ("rack[2-3]n[10-19].cluster,x", "rack2n10.cluster"),
            ("n[5", "n5"),
        ] {
            assert_eq!(first_host(nodes), first);
        }
    }

    #[test]
    fn mpiruns_variables_give_a_place() {
        let open = [
            ("OMPI_COMM_WORLD_RANK", "3"),
            ("OMPI_COMM_WORLD_SIZE", "4"),
            ("OMPI_COMM_WORLD_LOCAL_RANK", "3"),
            ("OMPI_COMM_WORLD_LOCAL_SIZE", "4"),
            // It was started in a step of one daemon a host.
            ("SLURM_PROCID", "0"),
            ("SLURM_NTASKS", "1"),
            ("SLURM_STEP_ID", "0"),
        ];
        let place = placed(&open).unwrap().unwrap();
        assert_eq!((place.rank, place.world, place.local_rank), (3, 4, 3));
        assert_eq!(
            (place.launcher, place.master.as_str()),
            (Launcher::OpenMpi, "127.0.0.1:29500")
        );
        let mut spread = open;
        spread[3].1 = "2";
        let error = placed(&spread).unwrap_err();
        assert!(
            error.contains("MASTER_ADDR: expected the host name or address of rank 0"),
            "{error}"
        );

        let mpich = [
            ("PMI_RANK", "1"),
            ("PMI_SIZE", "2"),
            ("MPI_LOCALRANKID", "0"),
            ("MASTER_ADDR", "head"),
            ("MASTER_PORT", "1234"),
        ];
        let place = placed(&mpich).unwrap().unwrap();
        assert_eq!((place.rank, place.world, place.local_rank), (1, 2, 0));
        assert_eq!((place.launcher, place.master.as_str()), (Launcher::Mpich, "head:1234"));
        let error = placed(&mpich[1..]).unwrap_err();
        assert!(
            error.contains("PMI_RANK: expected a whole number from 0 to 1"),
            "{error}"
        );
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
