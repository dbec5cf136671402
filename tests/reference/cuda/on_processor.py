#!/usr/bin/env python3
"""Runs kernels of the engine on the processor, thread by thread, and compares them with sums in f64: no GPU needed, but a C++ compiler.

    python3 on_processor.py [--compiler g++]

What it cannot see: how a compiler for GPUs contracts sums, races between blocks, and time.
"""
import argparse
import pathlib
import subprocess
import sys
import tempfile

from in_cpp import in_cpp

HERE = pathlib.Path(__file__).resolve().parent
KERNELS = HERE.parents[2] / "models/src/cuda/kernels"


def source(element):
    text = (KERNELS / "prelude.cuh").read_text() + f"\ntypedef {element} T;\n"
    for name in ("adam", "encoder"):
        # Both have functions of the same names.
        text += f"namespace {name} {{\n{(KERNELS / f'{name}.cu').read_text()}\n}}\n"
    text = in_cpp(text)
    if "asm(" in text:
        sys.exit("an instruction in PTX has no counterpart in C++ here")
    processor = (HERE / "on_processor.cpp").read_text()
    return processor.replace("// THE KERNELS", text.replace("#pragma unroll", "//"))


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--compiler", default="g++")
    args = ap.parse_args()
    failed = 0
    for element in ("float", "bf16"):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder)
            (path / "all.cpp").write_text(source(element))
            command = [args.compiler, "-std=c++20", "-O1", "-g", "-w", "-fsanitize=address,undefined",
                       "-fno-sanitize-recover=undefined", "-ffp-contract=off", "-o", path / "all", path / "all.cpp"]
            subprocess.run(command, check=True)
            failed += subprocess.run([path / "all"]).returncode
    sys.exit(min(failed, 1))


if __name__ == "__main__":
    main()
