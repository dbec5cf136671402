#!/usr/bin/env python3
"""Compile the CUDA sources with NVRTC, no GPU needed, and print what each kernel uses.

    python3 compile.py LIBNVRTC [--arch sm_90a] [FILE.cu ...]

LIBNVRTC is libnvrtc.so.13 or so, as in the PyPI package nvidia-cuda-nvrtc.
"""
import argparse
import ctypes
import pathlib
import re
import sys

SOURCES = pathlib.Path(__file__).resolve().parents[3] / "models/src/ops/cuda"
ARCHITECTURES = ["sm_80", "sm_89", "sm_90a", "sm_100a"]
ONLY = {name: ["sm_90a"] for name in ("attention_hopper.cu", "attention_hopper_causal.cu", "attention_hopper_causal_keys.cu", "products_hopper.cu")}


def compile_source(library, text, name, arch, extra=()):
    """The log, or SystemExit with it."""
    program = ctypes.c_void_p()
    check = lambda code: code and sys.exit(f"NVRTC answered {code}")
    check(library.nvrtcCreateProgram(ctypes.byref(program), text.encode(), name.encode(), 0, None, None))
    options = [f"--gpu-architecture={arch}", "--std=c++17", "--ptxas-options=-v", "--ptxas-options=--warn-on-spills", *extra]
    array = (ctypes.c_char_p * len(options))(*[o.encode() for o in options])
    code = library.nvrtcCompileProgram(program, len(options), array)
    size = ctypes.c_size_t()
    library.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    library.nvrtcGetProgramLog(program, log)
    library.nvrtcDestroyProgram(ctypes.byref(program))
    if code:
        sys.exit(f"{name} for {arch}:\n{log.value.decode()}")
    return log.value.decode()


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("library")
    ap.add_argument("--arch", action="append")
    ap.add_argument("files", nargs="*")
    args = ap.parse_intermixed_args()
    for beside in pathlib.Path(args.library).parent.glob("libnvrtc-builtins.so.*"):
        ctypes.CDLL(beside)  # found by its name from then on
    library = ctypes.CDLL(args.library)
    for path in args.files or sorted(SOURCES.glob("*.cu")):
        path = SOURCES / path
        before = ["prelude.cuh"] + ["wgmma.cuh"] * (path.name in ONLY) + ["packed_hopper.cuh"] * path.name.startswith("attention_hopper_causal")
        text = "".join((SOURCES / name).read_text() for name in (*before, path))
        for arch in ONLY.get(path.name) or args.arch or ARCHITECTURES:
            log = compile_source(library, text, path.name, arch)
            print(f"{path.name} {arch}")
            for entry in re.finditer(r"Compiling entry function '(\w+)'.*?\n.*?\n\s*(.*?)\n.*?Used (\d+) registers(.*?)\n", log):
                name, stack, registers, rest = entry.groups()
                spilled = "" if "0 bytes stack" in stack else f"  STACK: {stack}"
                shared = re.search(r"(\d+) bytes smem", rest)
                print(f"  {name:40} {registers:>3} registers {shared.group(1) if shared else 0:>6} shared{spilled}")
            for line in log.splitlines():
                if "warning" in line.lower() or "Performance Loss" in line:
                    print("  " + line)


if __name__ == "__main__":
    main()
