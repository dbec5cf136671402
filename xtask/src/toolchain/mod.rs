//! Setting up what the checks need. Each part looks first whether it is there already, says what it does, and installs
//! system packages only where it may.

pub mod browser;
pub mod cuda;
pub mod native;
pub mod node;
pub mod nvrtc;
pub mod wasm;

mod debian;
