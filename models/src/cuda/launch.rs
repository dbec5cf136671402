//! Starting kernels.

use std::ffi::c_void;

use cudarc::driver::{result, sys};

use super::gpu::{Buffer, Element, Gpu, View, driver};
use super::kernels::Kernel;
use crate::ModelError;

impl Gpu {
    /// Starts a kernel over `grid` blocks of `threads`, with `shared` bytes of dynamic shared memory.
    ///
    /// # Safety
    /// The arguments are those that the kernel takes, in order, and what they point to is large enough.
    pub(super) unsafe fn launch(
        &self,
        kernel: Kernel,
        element: Element,
        grid: [u32; 3],
        threads: u32,
        shared: u32,
        arguments: &[Argument],
    ) -> Result<(), ModelError> {
        let name = || kernel.name.to_owned();
        // SAFETY: the caller's promise.
        unsafe { self.launch_called(name, kernel, element, grid, threads, shared, arguments) }
    }

    /// The same, which is called `name` in a trace.
    ///
    /// # Safety
    /// As [`Gpu::launch`].
    #[expect(clippy::too_many_arguments, reason = "the driver's own, and a name")]
    pub(super) unsafe fn launch_called(
        &self,
        name: impl FnOnce() -> String,
        kernel: Kernel,
        element: Element,
        grid: [u32; 3],
        threads: u32,
        shared: u32,
        arguments: &[Argument],
    ) -> Result<(), ModelError> {
        if grid.contains(&0) {
            return Ok(());
        }
        self.bind()?;
        let function = self.function(kernel, element)?;
        let mut pointers: Vec<*mut c_void> = arguments.iter().map(Argument::pointer).collect();
        // SAFETY: the caller's promise.
        let launch = || unsafe {
            if shared > 48 << 10 {
                let limit = sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
                result::function::set_function_attribute(function, limit, shared as i32)
                    .map_err(driver("asking for shared memory"))?;
            }
            match kernel.module.early && self.capability() >= (9, 0) {
                true => launch_early(function, grid, threads, shared, self.stream(), &mut pointers),
                false => result::launch_kernel(
                    function,
                    (grid[0], grid[1], grid[2]),
                    (threads, 1, 1),
                    shared,
                    self.stream(),
                    &mut pointers,
                ),
            }
            .map_err(|error| ModelError::Gpu {
                what: format!("kernel {}", kernel.name),
                message: format!("{error:?}"),
            })
        };
        self.traced(name, launch)
    }
}

/// Starts a kernel whose blocks may take their places before those of the kernel ahead have all ended; it waits for that itself.
///
/// # Safety
/// As [`Gpu::launch`], and the kernel says `after_others` first.
unsafe fn launch_early(
    function: sys::CUfunction,
    grid: [u32; 3],
    threads: u32,
    shared: u32,
    stream: sys::CUstream,
    arguments: &mut [*mut c_void],
) -> Result<(), result::DriverError> {
    let mut early = sys::CUlaunchAttribute {
        id: sys::CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION,
        pad: [0; 4],
        value: sys::CUlaunchAttributeValue {
            programmaticStreamSerializationAllowed: 1,
        },
    };
    let config = sys::CUlaunchConfig {
        gridDimX: grid[0],
        gridDimY: grid[1],
        gridDimZ: grid[2],
        blockDimX: threads,
        blockDimY: 1,
        blockDimZ: 1,
        sharedMemBytes: shared,
        hStream: stream,
        attrs: &mut early,
        numAttrs: 1,
    };
    // SAFETY: the caller's promise; the attribute outlives the call.
    unsafe { sys::cuLaunchKernelEx(&config, function, arguments.as_mut_ptr(), std::ptr::null_mut()) }.result()
}

/// An argument of a kernel.
#[derive(Debug, Clone, Copy)]
pub(super) enum Argument {
    /// An address on the card; 0 for none.
    Address(u64),
    /// `int`.
    Int(i32),
    /// `unsigned int`.
    Word(u32),
    /// `float`.
    Float(f32),
    /// A matrix as the copy engine knows it.
    Map([u64; 16]),
}

impl Argument {
    fn pointer(&self) -> *mut c_void {
        let pointer: *const c_void = match self {
            Self::Address(value) => std::ptr::from_ref(value).cast(),
            Self::Int(value) => std::ptr::from_ref(value).cast(),
            Self::Word(value) => std::ptr::from_ref(value).cast(),
            Self::Float(value) => std::ptr::from_ref(value).cast(),
            Self::Map(value) => std::ptr::from_ref(value).cast(),
        };
        pointer.cast_mut()
    }
}

impl From<&Buffer> for Argument {
    fn from(buffer: &Buffer) -> Self {
        Self::Address(buffer.pointer())
    }
}

impl From<usize> for Argument {
    /// Sizes of kernels are `int`.
    fn from(value: usize) -> Self {
        Self::Int(value as i32)
    }
}

impl From<f32> for Argument {
    fn from(value: f32) -> Self {
        Self::Float(value)
    }
}

impl From<u32> for Argument {
    fn from(value: u32) -> Self {
        Self::Word(value)
    }
}

impl From<View> for Argument {
    fn from(view: View) -> Self {
        Self::Address(view.pointer)
    }
}
