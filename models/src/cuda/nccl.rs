//! Collectives between GPUs by NCCL: one process a GPU, a communicator and a stream of our own.
//!
//! NCCL's stream waits for what the GPU's own stream has been given so far, and that one for what NCCL's does, by events; the
//! host waits only at the end of a run of collectives, looking all the while whether the run has failed elsewhere.

use std::ffi::{CStr, c_void};
use std::fmt::{self, Debug};
use std::time::{Duration, Instant};

use cudarc::driver::{result, sys as driver_sys};
use cudarc::nccl::{result as nccl, sys};

use super::gpu::{Buffer, Element, Gpu, driver};
use super::kernels::{PLACE, WIDEN};
use super::launch::Argument;
use super::layers::blocks;
use crate::ModelError;

/// Between two looks at what is under way.
const POLL: Duration = Duration::from_micros(50);

/// What ranks find each other by: made by one, given to all.
pub const UNIQUE_ID_BYTES: usize = 128;

/// Says whether the run has failed on another rank, which may then never come.
pub type Failed = Box<dyn Fn() -> bool + Send>;

/// This process's GPU among those of all ranks.
pub struct Nccl {
    gpu: Gpu,
    comm: sys::ncclComm_t,
    stream: driver_sys::CUstream,
    rank: usize,
    world: usize,
    /// What gradients travel in.
    wire: Element,
    failed: Failed,
    /// Starts and ends of collectives whose time is not counted yet.
    timed: Vec<[driver_sys::CUevent; 2]>,
    seconds: f64,
}

// SAFETY: a communicator may be used by any one thread at a time, and so may streams and events.
unsafe impl Send for Nccl {}

impl Debug for Nccl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Nccl(rank {} of {})", self.rank, self.world)
    }
}

fn failure(what: &str, message: impl Into<String>) -> ModelError {
    ModelError::Gpu {
        what: format!("NCCL, {what}"),
        message: message.into(),
    }
}

fn present() -> Result<(), ModelError> {
    // SAFETY: it only looks for the library.
    if unsafe { sys::is_culib_present() } {
        return Ok(());
    }
    Err(failure(
        "several GPUs",
        "libnccl was not found; install it, or name its folder in LD_LIBRARY_PATH",
    ))
}

/// NCCL's version, such as 2.28.9.
///
/// # Errors
/// When there is no NCCL.
pub fn nccl_version() -> Result<String, ModelError> {
    present()?;
    let version = nccl::get_nccl_version().map_err(|error| failure("its version", format!("{:?}", error.0)))?;
    Ok(format!(
        "{}.{}.{}",
        version / 10_000,
        version / 100 % 100,
        version % 100
    ))
}

/// A new id for a group of ranks.
///
/// # Errors
/// When there is no NCCL, or no network interface that it could use.
pub fn nccl_unique_id() -> Result<[u8; UNIQUE_ID_BYTES], ModelError> {
    present()?;
    let id = nccl::get_uniqueid().map_err(|error| failure("a unique id", format!("{:?}", error.0)))?;
    Ok(id.internal.map(|byte| byte as u8))
}

impl Nccl {
    /// Joins the ranks that have the same `id`; returns when all have come. Gradients will travel in `wire`.
    ///
    /// # Errors
    /// When there is no NCCL, two ranks have one GPU, or they do not reach each other.
    pub fn join(
        gpu: &Gpu,
        id: [u8; UNIQUE_ID_BYTES],
        [rank, world]: [usize; 2],
        wire: Element,
        failed: Failed,
    ) -> Result<Self, ModelError> {
        present()?;
        gpu.bind()?;
        let id = sys::ncclUniqueId {
            internal: id.map(|byte| byte as std::ffi::c_char),
        };
        let stream = result::stream::create(result::stream::StreamKind::NonBlocking).map_err(driver("a stream"))?;
        let mut comm = std::ptr::null_mut();
        // SAFETY: the context is current, and `comm` is written before it is used.
        let joined = unsafe { nccl::comm_init_rank(&mut comm, world as i32, id, rank as i32) };
        if let Err(error) = joined {
            // SAFETY: nothing was put on it.
            let _ = unsafe { result::stream::destroy(stream) };
            let message = format!("{:?}: {}", error.0, last_error(std::ptr::null_mut()));
            return Err(failure("joining the ranks", message));
        }
        Ok(Self {
            gpu: gpu.clone(),
            comm,
            stream,
            rank,
            world,
            wire,
            failed,
            timed: Vec::new(),
            seconds: 0.0,
        })
    }

    /// This process's GPU.
    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// This process's number.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// How many there are.
    pub fn world(&self) -> usize {
        self.world
    }

    /// Seconds that collectives have taken on the card since the last call.
    pub fn take_seconds(&mut self) -> f64 {
        std::mem::take(&mut self.seconds)
    }

    fn check(&self, what: &str, done: Result<nccl::NcclStatus, nccl::NcclError>) -> Result<(), ModelError> {
        done.map(drop)
            .map_err(|error| failure(what, format!("{:?}: {}", error.0, last_error(self.comm))))
    }

    /// Puts `work` on NCCL's stream, after all that the GPU's stream has been given and before all that it will be given.
    fn collective(
        &mut self,
        what: &'static str,
        work: impl FnOnce(&Self, sys::cudaStream_t) -> Result<nccl::NcclStatus, nccl::NcclError>,
    ) -> Result<(), ModelError> {
        self.gpu.bind()?;
        let own = self.gpu.stream();
        let wait = driver_sys::CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT;
        let event = || result::event::create(driver_sys::CUevent_flags::CU_EVENT_DEFAULT).map_err(driver("an event"));
        let [ready, start, end] = [event()?, event()?, event()?];
        // SAFETY: streams and events live; the events are destroyed when they have been waited for.
        unsafe {
            result::event::record(ready, own).map_err(driver(what))?;
            result::stream::wait_event(self.stream, ready, wait).map_err(driver(what))?;
            result::event::record(start, self.stream).map_err(driver(what))?;
        }
        let done = work(self, self.stream.cast());
        self.check(what, done)?;
        // SAFETY: as above. What a stream still waits for is kept by the driver until then.
        unsafe {
            result::event::record(end, self.stream).map_err(driver(what))?;
            result::stream::wait_event(own, end, wait).map_err(driver(what))?;
            let _ = result::event::destroy(ready);
        }
        self.timed.push([start, end]);
        Ok(())
    }

    /// Waits for all collectives so far.
    ///
    /// # Errors
    /// What went wrong in one of them, or when the run has failed elsewhere: then NCCL is aborted, and nothing more goes.
    pub fn wait(&mut self) -> Result<(), ModelError> {
        self.gpu.bind()?;
        let Some(&[_, last]) = self.timed.last() else {
            return Ok(());
        };
        let begun = Instant::now();
        loop {
            // SAFETY: the event lives.
            match unsafe { result::event::query(last) } {
                Ok(()) => break,
                Err(error) if error.0 == driver_sys::CUresult::CUDA_ERROR_NOT_READY => {}
                Err(error) => return Err(driver("collectives")(error)),
            }
            let mut state = sys::ncclResult_t::ncclSuccess;
            // SAFETY: the communicator lives.
            let asked = unsafe { sys::ncclCommGetAsyncError(self.comm, &mut state) };
            let in_order = [sys::ncclResult_t::ncclSuccess, sys::ncclResult_t::ncclInProgress];
            let broken = asked != sys::ncclResult_t::ncclSuccess || !in_order.contains(&state);
            if broken || (self.failed)() {
                let said = last_error(self.comm);
                self.abort();
                return Err(match broken {
                    true => failure("a collective", format!("{state:?}: {said}")),
                    false => failure("a collective", "ended, as another rank has failed"),
                });
            }
            // Short ones end within a spin.
            if begun.elapsed() > Duration::from_millis(1) {
                std::thread::sleep(POLL);
            }
        }
        for [start, end] in self.timed.drain(..) {
            // SAFETY: both have been reached, on one stream, and are used no more.
            unsafe {
                self.seconds += f64::from(result::event::elapsed(start, end).map_err(driver("an event"))?) / 1e3;
                let _ = result::event::destroy(start);
                let _ = result::event::destroy(end);
            }
        }
        Ok(())
    }

    /// Ends what is under way; afterwards every collective fails.
    fn abort(&mut self) {
        if !self.comm.is_null() {
            // SAFETY: it is used no more: NCCL refuses a null communicator.
            let _ = unsafe { nccl::comm_abort(self.comm) };
            self.comm = std::ptr::null_mut();
        }
    }

    /// Replaces `count` f32 values at `at` by their sums over the ranks.
    pub(super) fn all_reduce(&mut self, at: u64, count: usize, element: Element) -> Result<(), ModelError> {
        let kind = kind(element);
        self.collective("all-reduce", |this, stream| {
            let at = at as *mut c_void;
            let sum = sys::ncclRedOp_t::ncclSum;
            // SAFETY: the caller's buffer has so many elements.
            unsafe { nccl::all_reduce(at, at, count, kind, sum, this.comm, stream) }
        })
    }

    /// The sums over the ranks of this rank's `count` values of `from`, which has so many for each rank, at `into`.
    pub(super) fn reduce_scatter(
        &mut self,
        from: u64,
        into: u64,
        count: usize,
        element: Element,
    ) -> Result<(), ModelError> {
        let kind = kind(element);
        self.collective("reduce-scatter", |this, stream| {
            let sum = sys::ncclRedOp_t::ncclSum;
            // SAFETY: the callers' buffers have so many elements.
            unsafe { nccl::reduce_scatter(from as _, into as _, count, kind, sum, this.comm, stream) }
        })
    }

    /// Every rank's `count` values, rank after rank, at `into`; this rank's own are at `from`.
    pub(super) fn all_gather(
        &mut self,
        from: u64,
        into: u64,
        count: usize,
        element: Element,
    ) -> Result<(), ModelError> {
        let kind = kind(element);
        self.collective("all-gather", |this, stream| {
            // SAFETY: the callers' buffers have so many elements.
            unsafe { nccl::all_gather(from as _, into as _, count, kind, this.comm, stream) }
        })
    }

    /// Replaces `values` by those of rank `root`, over the card.
    ///
    /// # Errors
    /// As [`Nccl::wait`].
    pub fn broadcast_host(&mut self, values: &mut [f32], root: usize) -> Result<(), ModelError> {
        self.over_card(values, |this, at, count| {
            this.collective("broadcast", |this, stream| {
                let at = at as *mut c_void;
                // SAFETY: the buffer has so many elements.
                unsafe { nccl::broadcast(at, at, count, kind(Element::F32), root as i32, this.comm, stream) }
            })
        })
    }

    /// Replaces `values` by their sums over the ranks, over the card.
    ///
    /// # Errors
    /// As [`Nccl::wait`].
    pub fn all_reduce_host(&mut self, values: &mut [f32]) -> Result<(), ModelError> {
        self.over_card(values, |this, at, count| this.all_reduce(at, count, Element::F32))
    }

    /// The sums over the ranks of this rank's part of `values`, over the card, in what gradients travel in.
    ///
    /// # Errors
    /// As [`Nccl::wait`]; values that are no equal parts.
    pub fn reduce_scatter_host(&mut self, values: &[f32]) -> Result<Vec<f32>, ModelError> {
        let count = self.part(values.len())?;
        let from = self.gpu.upload(values)?;
        let sums = self.scatter_gradients(&from, values.len(), count)?;
        self.wait()?;
        sums.read(0, count)
    }

    /// Fills in the other ranks' parts of `values`, over the card.
    ///
    /// # Errors
    /// As [`Nccl::wait`]; values that are no equal parts.
    pub fn all_gather_host(&mut self, values: &mut [f32]) -> Result<(), ModelError> {
        let count = self.part(values.len())?;
        let own = self.rank * count;
        self.over_card(values, |this, at, _| {
            this.all_gather(at + 4 * own as u64, at, count, Element::F32)
        })
    }

    fn part(&self, values: usize) -> Result<usize, ModelError> {
        match values % self.world {
            0 => Ok(values / self.world),
            _ => Err(failure(
                "parts",
                format!("{values} values are not {} equal parts", self.world),
            )),
        }
    }

    fn over_card(
        &mut self,
        values: &mut [f32],
        work: impl FnOnce(&mut Self, u64, usize) -> Result<(), ModelError>,
    ) -> Result<(), ModelError> {
        let buffer = self.gpu.upload(values)?;
        work(self, buffer.pointer(), values.len())?;
        self.wait()?;
        values.copy_from_slice(&buffer.read::<f32>(0, values.len())?);
        Ok(())
    }

    /// Sums `terms`, `total` f32 values in as many parts as there are ranks, and returns this rank's, `count` f32.
    pub(super) fn scatter_gradients(
        &mut self,
        terms: &Buffer,
        total: usize,
        count: usize,
    ) -> Result<Buffer, ModelError> {
        if self.wire == Element::F32 {
            let sums = self.gpu.elements(count, Element::F32)?;
            self.reduce_scatter(terms.pointer(), sums.pointer(), count, Element::F32)?;
            return Ok(sums);
        }
        let (narrow, narrow_sums) = (
            self.gpu.elements(total, Element::Bf16)?,
            self.gpu.elements(count, Element::Bf16)?,
        );
        convert(&self.gpu, PLACE, narrow.pointer(), terms.pointer(), total)?;
        self.reduce_scatter(narrow.pointer(), narrow_sums.pointer(), count, Element::Bf16)?;
        widen(&self.gpu, &narrow_sums, count)
    }

    /// Replaces `count` f32 terms by their sums over the ranks.
    pub(super) fn sum_gradients(&mut self, terms: &Buffer, count: usize) -> Result<(), ModelError> {
        if self.wire == Element::F32 {
            return self.all_reduce(terms.pointer(), count, Element::F32);
        }
        let narrow = self.gpu.elements(count, Element::Bf16)?;
        convert(&self.gpu, PLACE, narrow.pointer(), terms.pointer(), count)?;
        self.all_reduce(narrow.pointer(), count, Element::Bf16)?;
        convert(&self.gpu, WIDEN, terms.pointer(), narrow.pointer(), count)
    }
}

impl Drop for Nccl {
    fn drop(&mut self) {
        if self.gpu.bind().is_err() {
            return;
        }
        // Another rank may be gone: a communicator that is destroyed in order would wait for it.
        self.abort();
        for [start, end] in self.timed.drain(..) {
            // SAFETY: they are used no more.
            unsafe {
                let _ = result::event::destroy(start);
                let _ = result::event::destroy(end);
            }
        }
        // SAFETY: nothing uses it any more.
        let _ = unsafe { result::stream::destroy(self.stream) };
    }
}

fn kind(element: Element) -> sys::ncclDataType_t {
    match element {
        Element::F32 => sys::ncclDataType_t::ncclFloat32,
        Element::Bf16 => sys::ncclDataType_t::ncclBfloat16,
        Element::F16 => sys::ncclDataType_t::ncclFloat16,
    }
}

/// What NCCL says of its last error.
fn last_error(comm: sys::ncclComm_t) -> String {
    // SAFETY: it returns a text of its own, or null.
    let text = unsafe { sys::ncclGetLastError(comm) };
    if text.is_null() {
        return "no more is known".to_owned();
    }
    // SAFETY: a text that ends with zero, which is copied at once.
    let text = unsafe { CStr::from_ptr(text) }.to_string_lossy().trim().to_owned();
    if text.is_empty() {
        "NCCL_DEBUG=INFO says more".to_owned()
    } else {
        text
    }
}

/// As many values in f32 as `count` in bf16.
pub(super) fn widen(gpu: &Gpu, narrow: &Buffer, count: usize) -> Result<Buffer, ModelError> {
    let wide = gpu.elements(count, Element::F32)?;
    convert(gpu, WIDEN, wide.pointer(), narrow.pointer(), count)?;
    Ok(wide)
}

/// Puts `count` values at `into` in another type, as rows that a grid has room for.
fn convert(gpu: &Gpu, kernel: super::kernels::Kernel, into: u64, from: u64, count: usize) -> Result<(), ModelError> {
    const COLUMNS: usize = 1 << 20;
    let [into_bytes, from_bytes] = match kernel == PLACE {
        true => [2, 4],
        false => [4, 2],
    };
    let mut first = 0;
    while first < count {
        let left = count - first;
        let (rows, columns) = match left / COLUMNS {
            0 => (1, left),
            rows => (rows.min(32_768), COLUMNS),
        };
        let at = |start: u64, bytes: usize| Argument::Address(start + (first * bytes) as u64);
        let (into, from) = (at(into, into_bytes), at(from, from_bytes));
        let arguments = match kernel == PLACE {
            true => [into, columns.into(), from, columns.into()],
            false => [into, from, columns.into(), columns.into()],
        };
        // SAFETY: both sides have `count` values.
        unsafe {
            gpu.launch(
                kernel,
                Element::Bf16,
                [blocks(columns), rows as u32, 1],
                256,
                0,
                &arguments,
            )?;
        }
        first += rows * columns;
    }
    Ok(())
}
