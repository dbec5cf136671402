//! Prints the digest of a seed, 0 unless told, as this platform computes it: `cargo run -p eval-core --example digest -- 7`.

#![allow(clippy::print_stdout)]

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    let seed = std::env::args().nth(1).map_or(Ok(0), |seed| seed.parse())?;
    println!("{:#018x}", eval_core::selfcheck::digest(seed)?);
    Ok(())
}
