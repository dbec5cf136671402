//! Our kernels, CUDA C++ compiled by NVRTC for the card at hand when first used, and kept on disk.

use std::ffi::CString;
use std::hash::{Hash, Hasher};
use std::path::PathBuf;

use cudarc::nvrtc::{result as nvrtc, sys};

use super::gpu::Element;
use crate::{ModelError, write_atomically};

/// What stands before the text of modules for either element.
const PRELUDE: &str = include_str!("kernels/prelude.cuh");
/// What stands before the text of modules for tensor cores.
const TENSOR_PRELUDE: &str = include_str!("../ops/cuda/prelude.cuh");
/// What stands between that and the text of modules for Hopper.
const HOPPER_PRELUDE: &str = include_str!("../ops/cuda/wgmma.cuh");
/// What stands between that and the text of attention over packed rows.
const PACKED_PRELUDE: &str = include_str!("../ops/cuda/packed_hopper.cuh");

/// What a module is written for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum For {
    /// Either element.
    Either,
    /// bf16 alone, on tensor cores.
    Tensor,
    /// The same, with instructions that cards of compute capability 9.0 alone have.
    Hopper,
    /// The same, attention over packed rows.
    HopperPacked,
}

/// A file of kernels.
#[derive(Debug)]
pub(super) struct Module {
    name: &'static str,
    text: &'static str,
    made: For,
    /// Whether its kernels say `after_others` first, so that they may begin before those ahead of them have ended.
    pub(super) early: bool,
    pub(super) kernels: &'static [&'static str],
}

/// A kernel of a module.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kernel {
    pub(super) module: &'static Module,
    pub(super) name: &'static str,
}

impl PartialEq for Kernel {
    fn eq(&self, other: &Self) -> bool {
        self.module.name == other.module.name && self.name == other.name
    }
}

impl Eq for Kernel {}

impl Hash for Kernel {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.module.name, self.name).hash(state);
    }
}

/// Whether a module is declared `early`.
macro_rules! begins {
    () => {
        false
    };
    (early) => {
        true
    };
}

/// Declares a module and a constant for each of its kernels.
macro_rules! module {
    ($module:ident, $file:literal, $path:literal, $made:ident $($early:ident)?: $($constant:ident = $name:literal),+ $(,)?) => {
        static $module: Module = Module {
            name: $file,
            text: include_str!($path),
            made: For::$made,
            early: begins!($($early)?),
            kernels: &[$($name),+],
        };
        $(pub(super) const $constant: Kernel = Kernel { module: &$module, name: $name };)+
    };
}

module!(ROWS, "rows.cu", "kernels/rows.cu", Either:
    EMBED = "embed",
    ADD_NORM = "add_norm",
    NORM_BACKWARD = "norm_backward",
    NORM_WEIGHT_PARTS = "norm_weight_parts",
    EMBED_GRADIENT = "embed_gradient",
    ADD_ROW = "add_row",
    SUM_ROWS = "sum_rows",
    ROTATE = "rotate",
    GATE = "gate",
    GATE_BACKWARD = "gate_backward",
    PLACE = "place",
    WIDEN = "widen",
    MERGE = "merge",
    NOISE = "noise",
    ADD_NORM_8 = "add_norm_8",
    NORM_BACKWARD_8 = "norm_backward_8",
    GATE_8 = "gate_8",
    GATE_BACKWARD_8 = "gate_backward_8",
);
module!(ENCODER, "encoder.cu", "kernels/encoder.cu", Either early:
    EMBED_TEXT = "embed_text",
    EMBED_TEXT_8 = "embed_text_8",
    SCATTER = "scatter",
    SCATTER_8 = "scatter_8",
    MOVE_ROWS = "move_rows",
    MOVE_ROWS_8 = "move_rows_8",
    LAYER_NORM = "layer_norm",
    LAYER_NORM_8 = "layer_norm_8",
    LAYER_NORM_BACKWARD = "layer_norm_backward",
    LAYER_NORM_BACKWARD_8 = "layer_norm_backward_8",
    ADD_PARTS = "add_parts",
    COLUMN_PARTS = "column_parts",
    COLUMN_PARTS_8 = "column_parts_8",
    ADD_BIAS = "add_bias",
    ADD_BIAS_8 = "add_bias_8",
    BEND = "bend",
    BEND_8 = "bend_8",
    BEND_BACKWARD = "bend_backward",
    BEND_BACKWARD_8 = "bend_backward_8",
    POOL = "pool",
    POOL_8 = "pool_8",
    POOL_BACKWARD = "pool_backward",
    POOL_BACKWARD_8 = "pool_backward_8",
);
module!(OPTIMIZER, "adam.cu", "kernels/adam.cu", Either: ADAM = "adam");
module!(UNITS, "units.cu", "kernels/units.cu", Either:
    UNIT_ROWS = "unit_rows",
    UNIT_ROWS_HALF = "unit_rows_half",
);
module!(CONTRAST_LOSS, "contrast.cu", "kernels/contrast.cu", Either:
    CONTRAST = "contrast",
    CONTRAST_BACKWARD = "contrast_backward",
);
module!(RANKS, "ranks.cu", "kernels/ranks.cu", Either: COUNT_RANKS = "count_ranks");
module!(ATTENTION, "attention.cu", "kernels/attention.cu", Either:
    ATTEND = "attend",
    ATTEND_DELTA = "attend_delta",
    ATTEND_QUERIES = "attend_queries",
    ATTEND_KEYS = "attend_keys",
);
module!(SCORES, "scores.cu", "kernels/scores.cu", Either:
    SCORE = "score",
    SCORE_BACKWARD = "score_backward",
);
module!(DECODE, "decode.cu", "kernels/decode.cu", Either:
    NEXT_TOKENS = "next_tokens",
    STORE_PROMPT = "store_prompt",
    ROTATE_STORE = "rotate_store",
    ATTEND_STEP = "attend_step",
    ATTEND_JOIN = "attend_join",
    SAMPLE = "sample",
    SAMPLE_JOIN = "sample_join",
);

module!(TENSOR_ATTENTION, "tensor_attention.cu", "../ops/cuda/attention.cu", Tensor:
    TENSOR_ATTEND_64 = "attend_64",
    TENSOR_ATTEND_128 = "attend_128",
    TENSOR_ATTEND_256 = "attend_256",
    TENSOR_DELTAS = "attention_deltas",
    TENSOR_QUERIES_64 = "attend_backward_q_64",
    TENSOR_QUERIES_128 = "attend_backward_q_128",
    TENSOR_QUERIES_256 = "attend_backward_q_256",
    TENSOR_KEYS_64 = "attend_backward_kv_64",
    TENSOR_KEYS_128 = "attend_backward_kv_128",
    TENSOR_KEYS_256 = "attend_backward_kv_256",
    SUM_PARTS = "sum_parts",
);
module!(HOPPER_ATTENTION, "attention_hopper.cu", "../ops/cuda/attention_hopper.cu", Hopper early:
    TEXTS_ATTEND_64 = "attend_texts_64",
    TEXTS_QUERIES_64 = "attend_texts_backward_q_64",
    TEXTS_KEYS_64 = "attend_texts_backward_kv_64",
);
module!(PRODUCTS, "products_hopper.cu", "../ops/cuda/products_hopper.cu", Hopper early:
    PRODUCT_BIAS = "product_bias",
    PRODUCT_GELU = "product_gelu",
    PRODUCT_GELU_KEPT = "product_gelu_kept",
    PRODUCT_ADD = "product_add",
    PRODUCT_PLAIN_ADD = "product_plain_add",
    PRODUCT_TIMES = "product_times",
    PRODUCT_TIMES_TWO = "product_times_two",
    PRODUCT_GATE_GELU = "product_gate_gelu",
    PRODUCT_GATE_SILU = "product_gate_silu",
    PRODUCT_GATE_GELU_KEPT = "product_gate_gelu_kept",
    PRODUCT_GATE_SILU_KEPT = "product_gate_silu_kept",
    PRODUCT_SCORE = "product_score",
    PRODUCT_SCORE_BACKWARD = "product_score_backward",
    JOIN_SCORES = "join_scores",
);
module!(HOPPER_CAUSAL_ATTENTION, "attention_hopper_causal.cu", "../ops/cuda/attention_hopper_causal.cu", HopperPacked early:
    ROWS_ATTEND_128 = "attend_rows_128",
    ROWS_ATTEND_256 = "attend_rows_256",
    ROWS_QUERIES_128 = "attend_rows_backward_q_128",
    ROWS_QUERIES_256 = "attend_rows_backward_q_256",
);
module!(HOPPER_CAUSAL_KEYS, "attention_hopper_causal_keys.cu", "../ops/cuda/attention_hopper_causal_keys.cu", HopperPacked early:
    ROWS_KEYS_128 = "attend_rows_backward_kv_128",
    ROWS_KEYS_256 = "attend_rows_backward_kv_256",
);
module!(TENSOR_STEP, "attend_token.cu", "kernels/attend_token.cu", Tensor:
    TOKEN_64 = "attend_token_64",
    TOKEN_128 = "attend_token_128",
    TOKEN_256 = "attend_token_256",
    JOIN_SPLITS = "join_splits",
);

/// The cubin of `module` for `element` on a card of this compute capability: from disk, or compiled and put there.
pub(super) fn image(module: &Module, element: Element, capability: (i32, i32)) -> Result<Vec<u8>, ModelError> {
    let architecture = architecture(module, capability);
    let source = source(module, element);
    let kept = cache_folder().map(|folder| folder.join(format!("{}-{architecture}.cubin", fingerprint(&source))));
    if let Some(image) = kept.as_ref().and_then(|path| std::fs::read(path).ok()) {
        return Ok(image);
    }
    let image = compile(module, &source, &architecture)?;
    if let Some(path) = kept {
        // Without a copy it is compiled again next time.
        let folder = path.parent().map_or(Ok(()), std::fs::create_dir_all);
        let _ = folder.map(|()| write_atomically(&path, |file| std::io::Write::write_all(file, &image)));
    }
    Ok(image)
}

fn architecture(module: &Module, (major, minor): (i32, i32)) -> String {
    // What a card has beyond its generation's common instructions goes by its name with an `a`.
    let hopper = !matches!(module.made, For::Either | For::Tensor);
    let own = if hopper { "a" } else { "" };
    format!("sm_{major}{minor}{own}")
}

fn source(module: &Module, element: Element) -> String {
    if module.made != For::Either {
        let more = match module.made {
            For::Either | For::Tensor => ["", ""],
            For::Hopper => [HOPPER_PRELUDE, ""],
            For::HopperPacked => [HOPPER_PRELUDE, PACKED_PRELUDE],
        };
        let before = more.concat();
        return format!(
            "{TENSOR_PRELUDE}\n{before}\n#line 1 \"{}\"\n{}",
            module.name, module.text
        );
    }
    let name = match element {
        Element::F32 | Element::F16 => "float",
        Element::Bf16 => "bf16",
    };
    format!(
        "{PRELUDE}\ntypedef {name} T;\n#line 1 \"{}\"\n{}",
        module.name, module.text
    )
}

/// Names a text by its content and the compiler's version (FNV-1a, 64 bits).
fn fingerprint(source: &str) -> String {
    let (mut major, mut minor) = (0, 0);
    // SAFETY: it writes two numbers.
    unsafe {
        if sys::is_culib_present() {
            let _ = sys::nvrtcVersion(&mut major, &mut minor);
        }
    }
    let version = [major.to_le_bytes(), minor.to_le_bytes()].concat();
    let hash = source
        .bytes()
        .chain(version)
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
    format!("{hash:016x}")
}

/// `$XDG_CACHE_HOME/langptune/kernels`, or under `~/.cache`.
fn cache_folder() -> Option<PathBuf> {
    let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let base = base.or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")))?;
    Some(base.join("langptune").join("kernels"))
}

fn compile(module: &Module, source: &str, architecture: &str) -> Result<Vec<u8>, ModelError> {
    let failed = |message: String| ModelError::Gpu {
        what: format!("compiling {} for {architecture}", module.name),
        message,
    };
    // SAFETY: it only looks for the library.
    if !unsafe { sys::is_culib_present() } {
        let message = "NVRTC (libnvrtc) was not found; install it, or name its folder in LD_LIBRARY_PATH";
        return Err(failed(message.to_owned()));
    }
    let text = CString::new(source).map_err(|error| failed(error.to_string()))?;
    let program = nvrtc::create_program(&text, None).map_err(|error| failed(format!("{error:?}")))?;
    let options = [
        format!("--gpu-architecture={architecture}"),
        "--std=c++17".to_owned(),
        "--fmad=true".to_owned(),
    ];
    // SAFETY: the program lives until it is destroyed below; sizes are asked for before they are used.
    unsafe {
        let compiled = nvrtc::compile_program(program, &options);
        let image = match compiled {
            Ok(()) => {
                let mut size = 0;
                let asked = sys::nvrtcGetCUBINSize(program, &mut size).result();
                let mut image = vec![0_u8; size];
                asked
                    .and_then(|()| sys::nvrtcGetCUBIN(program, image.as_mut_ptr().cast()).result())
                    .map(|()| image)
                    .map_err(|error| failed(format!("{error:?}")))
            }
            Err(error) => {
                let log = nvrtc::get_program_log(program).unwrap_or_default();
                let log: Vec<u8> = log.into_iter().map(|c| c as u8).filter(|&c| c != 0).collect();
                Err(failed(format!("{error:?}\n{}", String::from_utf8_lossy(&log))))
            }
        };
        let _ = nvrtc::destroy_program(program);
        image
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_that_may_begin_early_wait_first() {
        let modules = [
            &ENCODER,
            &HOPPER_ATTENTION,
            &PRODUCTS,
            &HOPPER_CAUSAL_ATTENTION,
            &HOPPER_CAUSAL_KEYS,
        ];
        for module in modules {
            assert!(module.early);
            // What stands between a kernel's opening brace and its first statement, in macros the line's end too.
            let bodies: Vec<&str> = module.text.split("extern \"C\" __global__").skip(1).collect();
            assert!(!bodies.is_empty());
            for body in bodies {
                let (head, first) = body.split_once('{').unwrap_or_default();
                let first = first.trim_start_matches(['\\', '\n', ' ']);
                assert!(first.starts_with("after_others();"), "{}: {head}", module.name);
            }
        }
    }
}
