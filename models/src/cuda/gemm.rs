//! Matrix products by cuBLASLt: bf16 or f32 operands, f32 sums. What is known about a shape, its descriptors and the chosen
//! algorithm, is kept: asking anew costs more than many products.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ffi::c_void;
use std::ptr::from_ref;

use cudarc::cublaslt::{result as lt, sys};

use super::gpu::{Element, Gpu, View, WORKSPACE};
use crate::ModelError;

/// Everything that the choice of an algorithm may depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    /// Rows and columns of the result, and the inner dimension.
    shape: [usize; 3],
    strides: [usize; 3],
    transposed: [bool; 2],
    operands: Element,
    result: Element,
    /// Bytes that each address is a multiple of, 256 at most.
    alignment: [u32; 3],
    /// What is done to the result, and how far apart the rows are of what goes with it.
    epilogue: (u32, usize),
}

/// What is done to a product before it is rounded. Rows are of the result's type and begin at multiples of 16 bytes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Epilogue {
    /// Nothing.
    None,
    /// A row is added to every row.
    Bias(u64),
    /// A row is added and GELU taken, in its tanh form.
    Gelu(u64),
    /// The same; what GELU was taken of is kept.
    GeluKept(u64, View),
}

impl Epilogue {
    fn kind(self) -> sys::cublasLtEpilogue_t {
        match self {
            Self::None => sys::cublasLtEpilogue_t::CUBLASLT_EPILOGUE_DEFAULT,
            Self::Bias(_) => sys::cublasLtEpilogue_t::CUBLASLT_EPILOGUE_BIAS,
            Self::Gelu(_) => sys::cublasLtEpilogue_t::CUBLASLT_EPILOGUE_GELU_BIAS,
            Self::GeluKept(..) => sys::cublasLtEpilogue_t::CUBLASLT_EPILOGUE_GELU_AUX_BIAS,
        }
    }

    fn bias(self) -> Option<u64> {
        match self {
            Self::Bias(bias) | Self::Gelu(bias) | Self::GeluKept(bias, _) => Some(bias),
            Self::None => None,
        }
    }

    fn kept(self) -> Option<View> {
        match self {
            Self::GeluKept(_, kept) => Some(kept),
            Self::None | Self::Bias(_) | Self::Gelu(_) => None,
        }
    }

    /// Tells a product of it.
    ///
    /// # Safety
    /// `product` is a descriptor.
    unsafe fn describe(self, product: sys::cublasLtMatmulDesc_t) -> Result<(), lt::CublasError> {
        use sys::cublasLtMatmulDescAttributes_t as Of;
        // SAFETY: each attribute gets a value of its type and size.
        unsafe {
            let set = |of, value: *const c_void| lt::set_matmul_desc_attribute(product, of, value, 8);
            if let Some(bias) = self.bias() {
                set(Of::CUBLASLT_MATMUL_DESC_BIAS_POINTER, from_ref(&bias).cast())?;
            }
            if let Some(kept) = self.kept() {
                let stride = kept.stride as i64;
                set(
                    Of::CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER,
                    from_ref(&kept.pointer).cast(),
                )?;
                set(Of::CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, from_ref(&stride).cast())?;
            }
        }
        Ok(())
    }
}

struct Plan {
    product: sys::cublasLtMatmulDesc_t,
    layouts: [sys::cublasLtMatrixLayout_t; 3],
    algorithm: sys::cublasLtMatmulAlgo_t,
}

/// Plans that are kept.
const MOST_PLANS: usize = 4096;

/// The plans of one GPU.
#[derive(Default)]
pub(super) struct Plans(HashMap<Key, Plan>);

impl Plans {
    /// Gives all descriptors back.
    ///
    /// # Safety
    /// No product is being started.
    pub(super) unsafe fn destroy(&mut self) {
        for (_, plan) in self.0.drain() {
            // SAFETY: made by `Plan::new`, and removed from the map with this.
            unsafe {
                for layout in plan.layouts {
                    let _ = lt::destroy_matrix_layout(layout);
                }
                let _ = lt::destroy_matmul_desc(plan.product);
            }
        }
    }
}

/// What a product is multiplied by, and what of the result before is added.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scale {
    pub(super) product: f32,
    pub(super) before: f32,
}

impl Scale {
    /// The product alone.
    pub(super) const ONE: Self = Self {
        product: 1.0,
        before: 0.0,
    };
    /// Added to what is there.
    pub(super) const ADD: Self = Self {
        product: 1.0,
        before: 1.0,
    };

    /// The product times `factor`.
    pub(super) fn times(factor: f32) -> Self {
        Self {
            product: factor,
            before: 0.0,
        }
    }
}

/// A factor: as it stands, or transposed.
#[derive(Debug, Clone, Copy)]
pub(super) enum Factor {
    Plain(View),
    Transposed(View),
}

impl Factor {
    fn view(self) -> (View, bool) {
        match self {
            Self::Plain(view) => (view, false),
            Self::Transposed(view) => (view, true),
        }
    }

    /// Rows and columns as multiplied.
    fn shape(self) -> (usize, usize) {
        match self {
            Self::Plain(view) => (view.rows, view.columns),
            Self::Transposed(view) => (view.columns, view.rows),
        }
    }
}

impl Gpu {
    /// `into = scale.product · left · right + scale.before · into`.
    ///
    /// `left` and `right` have elements of `operands`, `into` of `result`; all in row-major order.
    pub(super) fn multiply(
        &self,
        into: (View, Element),
        left: Factor,
        right: Factor,
        operands: Element,
        scale: Scale,
    ) -> Result<(), ModelError> {
        self.multiply_with(into, left, right, operands, scale, Epilogue::None)
    }

    /// The same, and `epilogue` done to it, which is for the product alone: nothing is added to what was there.
    pub(super) fn multiply_then(
        &self,
        into: (View, Element),
        left: Factor,
        right: Factor,
        operands: Element,
        epilogue: Epilogue,
    ) -> Result<(), ModelError> {
        self.multiply_with(into, left, right, operands, Scale::ONE, epilogue)
    }

    fn multiply_with(
        &self,
        into: (View, Element),
        left: Factor,
        right: Factor,
        operands: Element,
        scale: Scale,
        epilogue: Epilogue,
    ) -> Result<(), ModelError> {
        let (into, result) = into;
        let ((rows, inner), (inner_too, columns)) = (left.shape(), right.shape());
        assert!(
            inner == inner_too && into.rows == rows && into.columns == columns,
            "shapes of a product: {rows}×{inner} · {inner_too}×{columns} into {}×{}",
            into.rows,
            into.columns
        );
        if rows == 0 || columns == 0 {
            return Ok(());
        }
        self.bind()?;
        let ((left, left_transposed), (right, right_transposed)) = (left.view(), right.view());
        let align = |view: View| 1_u32 << view.pointer.trailing_zeros().min(8);
        let key = Key {
            shape: [rows, columns, inner],
            strides: [left.stride, right.stride, into.stride],
            transposed: [left_transposed, right_transposed],
            operands,
            result,
            alignment: [align(left), align(right), align(into)],
            epilogue: (epilogue.kind() as u32, epilogue.kept().map_or(0, |kept| kept.stride)),
        };
        let mut plans = self.plans();
        // Packed batches are of any number of rows: plans that are asked for once must not pile up.
        if plans.0.len() >= MOST_PLANS && !plans.0.contains_key(&key) {
            // SAFETY: products under way do not look at them any more; they are read when one is started.
            unsafe { plans.destroy() };
        }
        let plan = match plans.0.entry(key) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) => {
                place.insert(Plan::new(self, &key, epilogue).map_err(|error| failed(&key, &error))?)
            }
        };
        // Row-major matrices are the transposes of column-major ones: intoᵀ = rightᵀ · leftᵀ.
        // SAFETY: the plan was made for these shapes, and the caller's views lie in their buffers.
        let launch = || unsafe {
            epilogue.describe(plan.product).map_err(|error| failed(&key, &error))?;
            lt::matmul(
                self.handle(),
                plan.product,
                from_ref(&scale.product).cast(),
                from_ref(&scale.before).cast(),
                right.pointer as *const c_void,
                plan.layouts[1],
                left.pointer as *const c_void,
                plan.layouts[0],
                into.pointer as *const c_void,
                plan.layouts[2],
                into.pointer as *mut c_void,
                plan.layouts[2],
                &plan.algorithm,
                self.workspace() as *mut c_void,
                WORKSPACE,
                self.stream().cast(),
            )
            .map_err(|error| failed(&key, &error))
        };
        let name = || {
            format!(
                "product {rows}×{inner}×{columns}{}{}",
                if result == operands { "" } else { " to f32" },
                match epilogue {
                    Epilogue::None => "",
                    Epilogue::Bias(_) => ", bias",
                    Epilogue::Gelu(_) | Epilogue::GeluKept(..) => ", GELU",
                }
            )
        };
        self.traced(name, launch)
    }
}

fn failed(key: &Key, error: &lt::CublasError) -> ModelError {
    let [rows, columns, inner] = key.shape;
    ModelError::Gpu {
        what: format!(
            "product {rows}×{inner}×{columns} ({:?} into {:?})",
            key.operands, key.result
        ),
        message: format!("{error:?}"),
    }
}

fn data_type(element: Element) -> sys::cudaDataType_t {
    match element {
        Element::F32 => sys::cudaDataType_t::CUDA_R_32F,
        Element::Bf16 => sys::cudaDataType_t::CUDA_R_16BF,
        Element::F16 => sys::cudaDataType_t::CUDA_R_16F,
    }
}

impl Plan {
    fn new(gpu: &Gpu, key: &Key, epilogue: Epilogue) -> Result<Self, lt::CublasError> {
        use sys::cublasLtMatmulDescAttributes_t as Of;
        use sys::cublasLtMatmulPreferenceAttributes_t as Wish;
        let [rows, columns, inner] = key.shape.map(|size| size as u64);
        let [left, right, into] = key.strides.map(|stride| stride as i64);
        let operands = data_type(key.operands);
        // Stored rows are columns here.
        let layout = |of, plain: [u64; 2], transposed: bool, stride| {
            let [first, second] = if transposed { [plain[1], plain[0]] } else { plain };
            lt::create_matrix_layout(of, first, second, stride)
        };
        let layouts = [
            layout(operands, [inner, rows], key.transposed[0], left)?,
            layout(operands, [columns, inner], key.transposed[1], right)?,
            lt::create_matrix_layout(data_type(key.result), columns, rows, into)?,
        ];
        let product = lt::create_matmul_desc(
            sys::cublasComputeType_t::CUBLAS_COMPUTE_32F,
            sys::cudaDataType_t::CUDA_R_32F,
        )?;
        let wish = lt::create_matmul_pref()?;
        // SAFETY: each attribute gets a value of its type and size.
        unsafe {
            let operation = |transposed: bool| i32::from(transposed);
            let (first, second) = (operation(key.transposed[1]), operation(key.transposed[0]));
            lt::set_matmul_desc_attribute(product, Of::CUBLASLT_MATMUL_DESC_TRANSA, from_ref(&first).cast(), 4)?;
            lt::set_matmul_desc_attribute(product, Of::CUBLASLT_MATMUL_DESC_TRANSB, from_ref(&second).cast(), 4)?;
            if !matches!(epilogue, Epilogue::None) {
                let kind = epilogue.kind();
                lt::set_matmul_desc_attribute(
                    product,
                    Of::CUBLASLT_MATMUL_DESC_EPILOGUE,
                    from_ref(&kind).cast(),
                    size_of::<sys::cublasLtEpilogue_t>(),
                )?;
                epilogue.describe(product)?;
            }
            let set = |of, value: *const c_void, bytes| lt::set_matmul_pref_attribute(wish, of, value, bytes);
            set(
                Wish::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                from_ref(&WORKSPACE).cast(),
                size_of::<usize>(),
            )?;
            let [left, right, into] = &key.alignment;
            for (of, value) in [
                (Wish::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, right),
                (Wish::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, left),
                (Wish::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, into),
                (Wish::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, into),
            ] {
                set(of, from_ref(value).cast(), 4)?;
            }
            let found = lt::get_matmul_algo_heuristic(
                gpu.handle(),
                product,
                layouts[1],
                layouts[0],
                layouts[2],
                layouts[2],
                wish,
            );
            lt::destroy_matmul_pref(wish)?;
            Ok(Self {
                product,
                layouts,
                algorithm: found?.algo,
            })
        }
    }
}
