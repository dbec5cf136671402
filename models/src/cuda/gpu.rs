//! One NVIDIA GPU: a stream of our own in the primary context, buffers in the order of that stream, kernels compiled when first
//! used, and matrix products by cuBLASLt.

use std::collections::{BTreeMap, HashMap};
use std::ffi::CString;
use std::fmt::{self, Debug};
use std::mem::size_of_val;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Instant;

use cudarc::cublaslt::{result as lt, sys as lts};
use cudarc::driver::{CudaContext, result, sys};

use super::gemm::Plans;
use super::kernels::{self, Kernel};
use super::staging::Staging;
use crate::ModelError;

/// What cuBLASLt may use beside its operands.
pub(super) const WORKSPACE: usize = 64 << 20;

/// The type of a buffer's elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Element {
    /// Single precision, for comparisons with the processor.
    F32,
    /// What models compute in; sums are f32 all the same.
    Bf16,
    /// What a catalogue's vectors are kept in; products take it, kernels do not.
    F16,
}

impl Element {
    /// Bytes of one.
    pub(super) fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 | Self::F16 => 2,
        }
    }
}

/// A GPU; clones share it.
#[derive(Clone)]
pub struct Gpu(Arc<Inner>);

struct Inner {
    ordinal: usize,
    context: Arc<CudaContext>,
    stream: sys::CUstream,
    name: String,
    /// Compute capability, as in `sm_90`.
    capability: (i32, i32),
    multiprocessors: u32,
    /// Bytes of shared memory that a block can ask for.
    shared_memory: u32,
    kernels: Mutex<HashMap<(Kernel, Element), sys::CUfunction>>,
    handle: lts::cublasLtHandle_t,
    workspace: sys::CUdeviceptr,
    plans: Mutex<Plans>,
    /// Made when it is first used.
    staging: Mutex<Option<Staging>>,
    /// Calls and seconds by what was done, while that is asked for.
    trace: Mutex<Option<BTreeMap<String, (usize, f64)>>>,
}

// SAFETY: handles of the driver and of cuBLASLt may be used from any thread that has made the context current, which
// every call here does; what they change is behind the mutexes.
unsafe impl Send for Inner {}
// SAFETY: as above.
unsafe impl Sync for Inner {}

impl Debug for Gpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Gpu").field(&self.0.name).finish()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if self.context.bind_to_thread().is_err() {
            return;
        }
        // SAFETY: nothing uses them any more: every buffer holds a clone of this GPU.
        unsafe {
            let _ = result::stream::synchronize(self.stream);
            *self.staging.get_mut().unwrap_or_else(PoisonError::into_inner) = None;
            self.plans.get_mut().unwrap_or_else(PoisonError::into_inner).destroy();
            let _ = lt::destroy_handle(self.handle);
            let _ = result::free_sync(self.workspace);
            let _ = result::stream::destroy(self.stream);
        }
    }
}

/// An error of the driver as one of ours.
pub(super) fn driver(what: &'static str) -> impl Fn(result::DriverError) -> ModelError {
    move |error| ModelError::Gpu {
        what: what.to_owned(),
        message: format!("{error:?}"),
    }
}

/// GPUs that are open, by number.
static OPEN: Mutex<BTreeMap<usize, Weak<Inner>>> = Mutex::new(BTreeMap::new());

impl Gpu {
    /// How many GPUs this process sees; 0 where there is no driver.
    pub fn count() -> usize {
        // SAFETY: it only looks for the library.
        let driver = unsafe { sys::is_culib_present() };
        let count = driver.then(|| CudaContext::device_count().ok()).flatten();
        count.and_then(|count| usize::try_from(count).ok()).unwrap_or(0)
    }

    /// GPU number `ordinal`, opened if it is not open yet: all who ask share its stream.
    ///
    /// # Errors
    /// As [`Gpu::open`].
    pub fn shared(ordinal: usize) -> Result<Self, ModelError> {
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(inner) = open.get(&ordinal).and_then(Weak::upgrade) {
            return Ok(Self(inner));
        }
        let gpu = Self::open(ordinal)?;
        open.insert(ordinal, Arc::downgrade(&gpu.0));
        Ok(gpu)
    }

    /// Opens GPU number `ordinal`.
    ///
    /// # Errors
    /// When there is no driver, no such GPU, or a library of CUDA is missing; the message says which.
    pub fn open(ordinal: usize) -> Result<Self, ModelError> {
        let missing = |library: &str| ModelError::Gpu {
            what: format!("GPU {ordinal}"),
            message: format!("{library} was not found; install it, or name its folder in LD_LIBRARY_PATH"),
        };
        // SAFETY: they only look for libraries.
        unsafe {
            if !sys::is_culib_present() {
                return Err(missing("NVIDIA's driver (libcuda)"));
            }
            if !lts::is_culib_present() {
                return Err(missing("cuBLASLt (libcublasLt)"));
            }
        }
        let open = driver("opening the GPU");
        let count = CudaContext::device_count().map_err(&open)?;
        if ordinal as i64 >= i64::from(count) {
            return Err(ModelError::Gpu {
                what: format!("GPU {ordinal}"),
                message: format!(
                    "this process sees {count}, counted from 0; start as many processes a host, or name one with --device cuda:N"
                ),
            });
        }
        let context = CudaContext::new(ordinal).map_err(&open)?;
        let attribute = |of| context.attribute(of).map_err(&open);
        use sys::CUdevice_attribute as Of;
        let capability = (
            attribute(Of::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
            attribute(Of::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        );
        if capability.0 < 8 {
            return Err(ModelError::Gpu {
                what: format!("GPU {ordinal}"),
                message: format!(
                    "compute capability {}.{} is too old: bf16 needs 8.0 (Ampere) or newer",
                    capability.0, capability.1
                ),
            });
        }
        let multiprocessors = attribute(Of::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)? as u32;
        let shared_memory = attribute(Of::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)? as u32;
        let name = context.name().map_err(&open)?;
        context.bind_to_thread().map_err(&open)?;
        // SAFETY: the context is current; the pool is the device's own.
        let (stream, workspace) = unsafe {
            let pool = result::device::get_default_mem_pool(context.cu_device()).map_err(&open)?;
            // What was freed stays for the next that asks.
            let keep = u64::MAX;
            result::mem_pool::set_attribute(
                pool,
                sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD,
                std::ptr::from_ref(&keep).cast_mut().cast(),
            )
            .map_err(&open)?;
            let stream = result::stream::create(result::stream::StreamKind::NonBlocking).map_err(&open)?;
            (stream, result::malloc_sync(WORKSPACE).map_err(&open)?)
        };
        let handle = lt::create_handle().map_err(|error| ModelError::Gpu {
            what: "cuBLASLt".to_owned(),
            message: format!("{error:?}"),
        })?;
        Ok(Self(Arc::new(Inner {
            ordinal,
            context,
            stream,
            name,
            capability,
            multiprocessors,
            shared_memory,
            kernels: Mutex::default(),
            handle,
            workspace,
            plans: Mutex::default(),
            staging: Mutex::default(),
            trace: Mutex::default(),
        })))
    }

    /// Its number among the GPUs that this process sees.
    pub fn ordinal(&self) -> usize {
        self.0.ordinal
    }

    /// What the card calls itself.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Compute capability, `(9, 0)` of an H100.
    pub fn capability(&self) -> (i32, i32) {
        self.0.capability
    }

    /// Number of multiprocessors.
    pub(super) fn multiprocessors(&self) -> u32 {
        self.0.multiprocessors
    }

    /// Bytes of shared memory that a block can ask for.
    pub(super) fn shared_memory(&self) -> u32 {
        self.0.shared_memory
    }

    /// Bytes that are free, and all.
    ///
    /// # Errors
    /// When the driver does not tell.
    pub fn memory(&self) -> Result<(usize, usize), ModelError> {
        self.bind()?;
        result::mem_get_info().map_err(driver("asking for free memory"))
    }

    /// Bytes that buffers can take: what is free, and what was given back and is kept for the next that asks.
    ///
    /// # Errors
    /// When the driver does not tell.
    pub(super) fn available(&self) -> Result<usize, ModelError> {
        // Only what is done is given back.
        self.wait()?;
        let (free, _) = self.memory()?;
        let reserved = self.pool(sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT)?;
        let used = self.pool(sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_USED_MEM_CURRENT)?;
        Ok(free + reserved.saturating_sub(used))
    }

    /// Does `work`, and counts the bytes of buffers that it has at once where it has most.
    ///
    /// # Errors
    /// When the driver does not tell.
    pub(super) fn most_taken<R>(&self, work: impl FnOnce() -> Result<R, ModelError>) -> Result<(R, usize), ModelError> {
        use sys::CUmemPool_attribute as Of;
        self.wait()?;
        let before = self.pool(Of::CU_MEMPOOL_ATTR_USED_MEM_CURRENT)?;
        // SAFETY: the pool is the device's own; zero is what this number can be set to.
        unsafe {
            let asked = driver("asking for the most memory");
            let pool = result::device::get_default_mem_pool(self.0.context.cu_device()).map_err(&asked)?;
            let zero = std::ptr::from_ref(&0_u64).cast_mut().cast();
            result::mem_pool::set_attribute(pool, Of::CU_MEMPOOL_ATTR_USED_MEM_HIGH, zero).map_err(&asked)?;
        }
        // The host must not run ahead of what is given back.
        self.start_trace();
        let done = work();
        self.take_trace();
        let most = self.pool(Of::CU_MEMPOOL_ATTR_USED_MEM_HIGH)?;
        Ok((done?, most.saturating_sub(before)))
    }

    /// A number of the memory that buffers come from.
    fn pool(&self, of: sys::CUmemPool_attribute) -> Result<usize, ModelError> {
        let asked = driver("asking for free memory");
        let mut bytes = 0_u64;
        // SAFETY: the pool is the device's own; what is asked for is a 64-bit number.
        unsafe {
            let pool = result::device::get_default_mem_pool(self.0.context.cu_device()).map_err(&asked)?;
            result::mem_pool::get_attribute(pool, of, std::ptr::from_mut(&mut bytes).cast()).map_err(&asked)?;
        }
        Ok(bytes as usize)
    }

    pub(super) fn bind(&self) -> Result<(), ModelError> {
        self.0.context.bind_to_thread().map_err(driver("using the GPU"))
    }

    pub(super) fn stream(&self) -> sys::CUstream {
        self.0.stream
    }

    pub(super) fn handle(&self) -> lts::cublasLtHandle_t {
        self.0.handle
    }

    pub(super) fn workspace(&self) -> sys::CUdeviceptr {
        self.0.workspace
    }

    pub(super) fn plans(&self) -> std::sync::MutexGuard<'_, Plans> {
        self.0.plans.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until all that was asked for is done.
    ///
    /// # Errors
    /// What went wrong on the card since it was last asked.
    pub fn wait(&self) -> Result<(), ModelError> {
        self.bind()?;
        // SAFETY: the stream lives as long as this GPU.
        unsafe { result::stream::synchronize(self.0.stream) }.map_err(driver("waiting for the GPU"))
    }

    /// From now on every operation is waited for and its time kept: what is under way takes longer than it would.
    pub fn start_trace(&self) {
        *self.0.trace.lock().unwrap_or_else(PoisonError::into_inner) = Some(BTreeMap::new());
    }

    /// What was done since [`Gpu::start_trace`]: calls and seconds, the longest first.
    pub fn take_trace(&self) -> Vec<(String, usize, f64)> {
        let trace = self.0.trace.lock().unwrap_or_else(PoisonError::into_inner).take();
        let each = trace.unwrap_or_default().into_iter();
        let mut times: Vec<_> = each.map(|(name, (calls, seconds))| (name, calls, seconds)).collect();
        times.sort_by(|one, other| other.2.total_cmp(&one.2));
        times
    }

    /// Does `work`, which is called `name`; keeps its time where that is asked for.
    pub(super) fn traced<R>(
        &self,
        name: impl FnOnce() -> String,
        work: impl FnOnce() -> Result<R, ModelError>,
    ) -> Result<R, ModelError> {
        let lock = || self.0.trace.lock().unwrap_or_else(PoisonError::into_inner);
        if lock().is_none() {
            return work();
        }
        self.wait()?;
        let start = Instant::now();
        let result = work()?;
        self.wait()?;
        if let Some(trace) = lock().as_mut() {
            let (calls, seconds) = trace.entry(name()).or_default();
            *calls += 1;
            *seconds += start.elapsed().as_secs_f64();
        }
        Ok(result)
    }

    /// Memory for `bytes` bytes, of no value yet.
    ///
    /// # Errors
    /// [`ModelError::GpuMemory`] where there is not enough.
    pub(super) fn bytes(&self, bytes: usize) -> Result<Buffer, ModelError> {
        self.bind()?;
        // SAFETY: it is used on this stream alone, and freed there.
        let allocate = || Ok(unsafe { result::malloc_async(self.0.stream, bytes.max(16)) });
        match self.traced(|| "allocation".to_owned(), allocate)? {
            Ok(pointer) => Ok(Buffer {
                gpu: self.clone(),
                pointer,
                bytes,
            }),
            Err(error) if error.0 == sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY => Err(ModelError::GpuMemory {
                wanted: bytes,
                free: result::mem_get_info().map_or(0, |(free, _)| free),
            }),
            Err(error) => Err(driver("allocating GPU memory")(error)),
        }
    }

    /// Room for `count` elements.
    pub(super) fn elements(&self, count: usize, element: Element) -> Result<Buffer, ModelError> {
        self.bytes(count * element.bytes())
    }

    /// Zeroed room for `count` elements.
    pub(super) fn zeros(&self, count: usize, element: Element) -> Result<Buffer, ModelError> {
        let buffer = self.elements(count, element)?;
        buffer.clear()?;
        Ok(buffer)
    }

    /// A copy of `values` on the card.
    pub(super) fn upload<T: bytemuck::Pod>(&self, values: &[T]) -> Result<Buffer, ModelError> {
        let buffer = self.bytes(size_of_val(values))?;
        buffer.write(0, values)?;
        Ok(buffer)
    }

    /// The kernel, compiled when first asked for.
    pub(super) fn function(&self, kernel: Kernel, element: Element) -> Result<sys::CUfunction, ModelError> {
        let mut known = self.0.kernels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(function) = known.get(&(kernel, element)) {
            return Ok(*function);
        }
        let image = kernels::image(kernel.module, element, self.0.capability)?;
        // SAFETY: the image is a whole cubin; modules stay loaded as long as the context.
        unsafe {
            let module = result::module::load_data(image.as_ptr().cast()).map_err(driver("loading a kernel"))?;
            for &name in kernel.module.kernels {
                let text = CString::new(name).unwrap_or_default();
                let function = result::module::get_function(module, text).map_err(driver("finding a kernel"))?;
                let of = Kernel {
                    module: kernel.module,
                    name,
                };
                known.insert((of, element), function);
            }
        }
        known.get(&(kernel, element)).copied().ok_or_else(|| ModelError::Gpu {
            what: format!("kernel {}", kernel.name),
            message: "is not in its module".to_owned(),
        })
    }
}

/// Memory on a card, given back when dropped, in the order of the stream.
pub(super) struct Buffer {
    gpu: Gpu,
    pointer: sys::CUdeviceptr,
    bytes: usize,
}

impl Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer({} bytes)", self.bytes)
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.gpu.bind().is_ok() {
            // SAFETY: it came from this stream's allocator, and work before this point is before the freeing.
            let _ = unsafe { result::free_async(self.pointer, self.gpu.stream()) };
        }
    }
}

impl Buffer {
    pub(super) fn pointer(&self) -> u64 {
        self.pointer
    }

    /// How many elements of this type it has room for.
    pub(super) fn count(&self, element: Element) -> usize {
        self.bytes / element.bytes()
    }

    /// A matrix of `rows` × `columns` elements that begins at the buffer's start.
    pub(super) fn matrix(&self, rows: usize, columns: usize) -> View {
        View {
            pointer: self.pointer,
            rows,
            columns,
            stride: columns,
        }
    }

    pub(super) fn clear(&self) -> Result<(), ModelError> {
        self.clear_bytes(0..self.bytes)
    }

    /// Clears some of its bytes.
    pub(super) fn clear_bytes(&self, bytes: Range<usize>) -> Result<(), ModelError> {
        assert!(bytes.end <= self.bytes, "clearing past a buffer");
        self.gpu.bind()?;
        // SAFETY: within the buffer.
        unsafe { result::memset_d8_async(self.pointer + bytes.start as u64, 0, bytes.len(), self.gpu.stream()) }
            .map_err(driver("clearing memory"))
    }

    /// Writes values from byte `offset` on. The host's copy may be changed at once.
    pub(super) fn write<T: bytemuck::Pod>(&self, offset: usize, values: &[T]) -> Result<(), ModelError> {
        if values.is_empty() {
            return Ok(());
        }
        assert!(offset + size_of_val(values) <= self.bytes, "a write past its buffer");
        self.gpu.bind()?;
        let (address, bytes) = (self.pointer + offset as u64, bytemuck::cast_slice(values));
        if Staging::takes(bytes.len()) {
            let mut staging = self.gpu.0.staging.lock().unwrap_or_else(PoisonError::into_inner);
            let staging = match &mut *staging {
                Some(staging) => staging,
                none => none.insert(Staging::new()?),
            };
            // SAFETY: within the buffer.
            return unsafe { staging.copy(address, bytes, self.gpu.stream()) };
        }
        // SAFETY: within the buffer; the driver copies from pageable memory before it returns.
        unsafe { result::memcpy_htod_async(address, bytes, self.gpu.stream()) }.map_err(driver("copying to the GPU"))
    }

    /// Reads `count` values from byte `offset` on, after all that was asked for before.
    pub(super) fn read<T: bytemuck::Pod>(&self, offset: usize, count: usize) -> Result<Vec<T>, ModelError> {
        let mut values = vec![T::zeroed(); count];
        if count == 0 {
            return Ok(values);
        }
        assert!(
            offset + size_of_val(&values[..]) <= self.bytes,
            "a read past its buffer"
        );
        self.gpu.bind()?;
        // SAFETY: within the buffer; the vector outlives the copy, which is waited for.
        unsafe {
            result::memcpy_dtoh_async(&mut values, self.pointer + offset as u64, self.gpu.stream())
                .map_err(driver("copying from the GPU"))?;
        }
        self.gpu.wait()?;
        Ok(values)
    }

    /// Copies all of `from` to the start of this.
    pub(super) fn copy_from(&self, from: &Self) -> Result<(), ModelError> {
        assert!(from.bytes <= self.bytes, "a copy past its buffer");
        self.gpu.bind()?;
        // SAFETY: within both buffers.
        unsafe { result::memcpy_dtod_async(self.pointer, from.pointer, from.bytes, self.gpu.stream()) }
            .map_err(driver("copying on the GPU"))
    }
}

/// A matrix in row-major order on a card, whose rows are `stride` elements apart. It does not keep its buffer alive.
#[derive(Debug, Clone, Copy)]
pub(super) struct View {
    pub(super) pointer: u64,
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) stride: usize,
}

impl View {
    /// Rows `first..first + rows`.
    pub(super) fn rows(self, first: usize, rows: usize, element: Element) -> Self {
        debug_assert!(first + rows <= self.rows);
        Self {
            pointer: self.pointer + (first * self.stride * element.bytes()) as u64,
            rows,
            ..self
        }
    }

    /// Columns `first..first + columns`.
    pub(super) fn columns(self, first: usize, columns: usize, element: Element) -> Self {
        debug_assert!(first + columns <= self.columns);
        Self {
            pointer: self.pointer + (first * element.bytes()) as u64,
            columns,
            ..self
        }
    }
}
