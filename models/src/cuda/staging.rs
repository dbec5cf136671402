//! Copies to a card by way of memory that its copy engine reads by itself: the host goes on at once, where a copy from other memory
//! may wait for all that was asked of the card before.

use std::ffi::c_void;

use cudarc::driver::{result, sys};

use super::gpu::driver;
use crate::ModelError;

/// Bytes of each of the two halves, which are filled in turn.
const HALF: usize = 4 << 20;
/// What stands there begins at multiples of this.
const ALIGNMENT: usize = 256;

/// Where copies wait for their turn.
pub(super) struct Staging {
    memory: *mut u8,
    /// When what was copied from a half has left it.
    left: [sys::CUevent; 2],
    half: usize,
    /// Bytes of that half that are taken.
    taken: usize,
}

// SAFETY: the memory and the events belong to this alone.
unsafe impl Send for Staging {}

impl Staging {
    /// Takes memory; the context is current.
    pub(super) fn new() -> Result<Self, ModelError> {
        let failed = driver("taking memory for copies to the GPU");
        let event = || result::event::create(sys::CUevent_flags::CU_EVENT_DISABLE_TIMING).map_err(&failed);
        let left = [event()?, event()?];
        // SAFETY: it is freed once, when this is dropped.
        let memory = unsafe { result::malloc_host(2 * HALF, 0) }.map_err(&failed)?;
        Ok(Self {
            memory: memory.cast(),
            left,
            half: 0,
            taken: 0,
        })
    }

    /// Whether so many bytes go by way of it.
    pub(super) fn takes(bytes: usize) -> bool {
        bytes <= HALF
    }

    /// Copies `bytes` to `address` on the card in the order of `stream`.
    ///
    /// # Safety
    /// There are so many bytes at that address; they are no more than a half.
    pub(super) unsafe fn copy(&mut self, address: u64, bytes: &[u8], stream: sys::CUstream) -> Result<(), ModelError> {
        let failed = driver("copying to the GPU");
        if self.taken + bytes.len() > HALF {
            // SAFETY: the events live as long as this.
            unsafe {
                result::event::record(self.left[self.half], stream).map_err(&failed)?;
                self.half = 1 - self.half;
                self.taken = 0;
                // An event that was never recorded has happened.
                result::event::synchronize(self.left[self.half]).map_err(&failed)?;
            }
        }
        // SAFETY: the place lies in a half, and nothing is copied from it any more; the address is the caller's promise.
        unsafe {
            let place = self.memory.add(self.half * HALF + self.taken);
            place.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
            let from = std::slice::from_raw_parts(place.cast_const(), bytes.len());
            result::memcpy_htod_async(address, from, stream).map_err(&failed)?;
        }
        self.taken += bytes.len().next_multiple_of(ALIGNMENT);
        Ok(())
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // SAFETY: whoever drops it has waited for the stream, with the context current.
        unsafe {
            let _ = result::free_host(self.memory.cast::<c_void>());
            for event in self.left {
                let _ = result::event::destroy(event);
            }
        }
    }
}
