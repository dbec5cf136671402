#!/usr/bin/env python3
"""Runs a program whose GPU is the processor: no GPU, CUDA or NCCL needed, but an x86-64 Linux, g++ and patience.

    python3 run.py target/debug/langptune doctor --gpu --only operations --only embedders

The program is langptune with the feature `engine`. It calls the driver, NVRTC, cuBLASLt and NCCL of stand_in.cpp: every launch, copy, product and
captured graph of the engine is made, kernels run thread by thread, and what writes past a buffer ends the program. What it
cannot see: kernels for tensor cores, other orders of threads and blocks, what an NVIDIA compiler makes of a kernel, and time.
STAND_IN_TRACE=1 prints every launch.
"""
import os
import pathlib
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        library = folder / "libstandin.so"
        subprocess.run(["g++", "-std=c++20", "-O2", "-w", "-shared", "-fPIC", "-o", library, HERE / "stand_in.cpp", "-ldl"], check=True)
        for other in ("cuda", "nvrtc", "cublasLt", "nccl"):
            (folder / f"lib{other}.so").symlink_to(library.name)
        environment = {
            **os.environ,
            "LD_LIBRARY_PATH": f"{folder}:{os.environ.get('LD_LIBRARY_PATH', '')}",
            # Modules are compiled anew in every run.
            "XDG_CACHE_HOME": str(folder / "cache"),
            "STAND_IN_OUT": str(folder),
            "STAND_IN_COMPILER": str(HERE / "compile.py"),
        }
        sys.exit(subprocess.run(sys.argv[1:], env=environment).returncode)


main()
