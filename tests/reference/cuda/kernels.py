"""What the try_*.py scripts share: compiling a source, launching, comparing and timing. Needs torch and CuPy."""
import ctypes
import pathlib

import cupy
import numpy as np
import torch
from cupy.cuda import nvrtc

HERE = pathlib.Path(__file__).resolve().parent
SOURCES = HERE.parents[2] / "models/src/ops/cuda"
if not SOURCES.is_dir():
    SOURCES = HERE  # sources copied beside the scripts
DEV = "cuda"
WORST = {"failed": 0}


class Module:
    """The kernels of one source file, compiled for this GPU, or for `arch`, after prelude.cuh and `before`."""

    def __init__(self, name, arch=None, before=()):
        text = "".join((SOURCES / file).read_text() for file in ("prelude.cuh", *before, name))
        self.module = cupy.RawModule(code=text, backend="nvrtc", options=("--std=c++17",)) if arch is None else Loaded(text, name, arch)
        self.kernels = {}

    def __call__(self, name, grid, block, *args, shared=0):
        """Launches `name`: tensors as pointers (None: null), int as int32, float as f32, np.int64 as it is."""
        if isinstance(self.module, Loaded):
            return self.module.launch(name, grid if isinstance(grid, tuple) else (grid,), block, args, shared)
        kernel = self.kernels.get(name)
        if kernel is None:
            kernel = self.kernels[name] = self.module.get_function(name)
            if shared > 40 * 1024:  # 48 KB are free without asking, static shared memory counted
                kernel.max_dynamic_shared_size_bytes = shared
        grid = grid if isinstance(grid, tuple) else (grid,)
        kernel(grid, (block,), tuple(argument(a) for a in args), shared_mem=shared)


class Loaded:
    """A module for an architecture that CuPy does not choose by itself, as sm_90a, launched by the driver, so that kernels may take `Boxes`."""

    def __init__(self, text, name, arch):
        program = nvrtc.createProgram(text, name, (), ())
        try:
            nvrtc.compileProgram(program, (f"--gpu-architecture={arch}", "--std=c++17"))
        except nvrtc.NVRTCError:
            raise SystemExit(nvrtc.getProgramLog(program))
        torch.zeros(1, device=DEV)  # makes the context
        self.module, self.functions = ctypes.c_void_p(), {}
        driven("cuModuleLoadData", ctypes.byref(self.module), nvrtc.getCUBIN(program))

    def launch(self, name, grid, block, args, shared):
        function = self.functions.get(name)
        if function is None:
            function = self.functions[name] = ctypes.c_void_p()
            driven("cuModuleGetFunction", ctypes.byref(function), self.module, name.encode())
            driven("cuFuncSetAttribute", function, 8, shared)
        values = [a.map if isinstance(a, Boxes) else argument(a) for a in args]
        values = [v if isinstance(v, ctypes.Array) else np.array([v]) for v in values]
        places = [ctypes.addressof(v) if isinstance(v, ctypes.Array) else v.ctypes.data for v in values]
        stream = ctypes.c_void_p(cupy.cuda.get_current_stream().ptr)
        driven("cuLaunchKernel", function, *(grid + (1, 1))[:3], block, 1, 1, shared, stream, (ctypes.c_void_p * len(places))(*places), None)


def driven(name, *args):
    code = getattr(ctypes.CDLL("libcuda.so.1"), name)(*args)
    if code:
        raise SystemExit(f"{name} answered {code}")


class Boxes:
    """A bf16 matrix that a kernel reads in boxes of 64 rows and 64 columns, swizzled by 128 bytes."""

    def __init__(self, x):
        room = (ctypes.c_uint64 * 24)()
        self.map = (ctypes.c_uint64 * 16).from_buffer(room, -ctypes.addressof(room) % 64)
        sizes, strides = (ctypes.c_uint64 * 2)(x.shape[1], x.shape[0]), (ctypes.c_uint64 * 1)(x.stride(0) * 2)
        box, steps = (ctypes.c_uint32 * 2)(64, 64), (ctypes.c_uint32 * 2)(1, 1)
        # bf16, no interleaving, 128-byte swizzle, promotion to 256 bytes, zeros beyond.
        driven("cuTensorMapEncodeTiled", self.map, 9, 2, ctypes.c_void_p(x.data_ptr()), sizes, strides, box, steps, 0, 3, 3, 0)


def argument(a):
    if a is None:
        return np.uint64(0)
    if isinstance(a, torch.Tensor):
        return np.uint64(a.data_ptr())
    if isinstance(a, int):
        return np.uint32(a) if a > 2**31 - 1 else np.int32(a)
    if isinstance(a, float):
        return np.float32(a)
    return a


def error(found, expected):
    """‖found − expected‖ / ‖expected‖ in f64; NaN anywhere is infinite."""
    found, expected = found.detach().double(), expected.detach().double()
    value = ((found - expected).norm() / expected.norm().clamp_min(1e-30)).item()
    return value if value == value else float("inf")


def check(name, found, expected, most=4e-3):
    value = error(found, expected)
    ok = value <= most
    WORST["failed"] += not ok
    print(f"{'ok  ' if ok else 'FAIL'} {name}: error {value:.2e} (at most {most:.0e})", flush=True)


def check_each(name, found, expected, most):
    """The worst ‖found − expected‖ of a row, by its norm or by 0.3 of the average norm where that is more."""
    found, expected = found.detach().double(), expected.detach().double()
    norms = expected.norm(dim=-1)
    value = ((found - expected).norm(dim=-1) / norms.clamp_min(0.3 * norms.mean())).max().item()
    ok = value <= most
    WORST["failed"] += not ok
    print(f"{'ok  ' if ok else 'FAIL'} {name}: worst row {value:.2e} (at most {most:.0e})", flush=True)


def equal(name, found, expected):
    ok = bool((found == expected).all())
    WORST["failed"] += not ok
    print(f"{'ok  ' if ok else 'FAIL'} {name}: {'equal' if ok else 'DIFFERENT'}", flush=True)


def randn(*shape, dtype=torch.bfloat16, scale=1.0):
    return (torch.randn(*shape, device=DEV, dtype=torch.float32) * scale).to(dtype)


def poison(*shape, dtype=torch.bfloat16):
    return torch.full(shape, float("nan"), device=DEV, dtype=dtype)


def timed(calls, rounds=5, repeat=1):
    """Median milliseconds of one of `calls`, which are captured one after the other, `repeat` times, in a CUDA graph."""
    stream = cupy.cuda.Stream(non_blocking=True)
    torch.cuda.synchronize()
    for call in calls:
        call()
    torch.cuda.synchronize()
    with stream:
        stream.begin_capture()
        for _ in range(repeat):
            for call in calls:
                call()
        graph = stream.end_capture()
        graph.launch(stream)
        stream.synchronize()
        times = []
        for _ in range(rounds):
            start, end = cupy.cuda.Event(), cupy.cuda.Event()
            start.record(stream)
            graph.launch(stream)
            end.record(stream)
            end.synchronize()
            times.append(cupy.cuda.get_elapsed_time(start, end))
    return sorted(times)[rounds // 2] / (len(calls) * repeat)


def finish():
    print("all right" if WORST["failed"] == 0 else f"{WORST['failed']} FAILED", flush=True)
    raise SystemExit(WORST["failed"] != 0)
