#!/usr/bin/env python3
"""Compiles a module of kernels for the processor: python3 compile.py MODULE.cu MODULE.so. The stand-in's NVRTC calls it.

Each kernel gets a function that takes its arguments as the driver does and gives back a call to be made. A module with instructions
for tensor cores becomes an empty one.
"""
import pathlib
import re
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.append(str(HERE.parent))
from in_cpp import in_cpp  # noqa: E402


def binding(name, parameters):
    kinds = [re.match(r"(.*?)(\w+)$", " ".join(each.split()))[1].strip() for each in parameters.split(",")]
    places = range(len(kinds))
    lines = [f"    using P{i} = {kind};\n    P{i} p{i} = *(P{i}*)given[{i}];" for i, kind in enumerate(kinds)]
    call = f"{name}({', '.join(f'p{i}' for i in places)})"
    return f'extern "C" void* bind_{name}(void** given) {{\n' + "\n".join(lines) + \
        f"\n    return new std::function<void()>([=] {{ {call}; }});\n}}\n"


def main():
    source, out = sys.argv[1:]
    text = in_cpp(pathlib.Path(source).read_text())
    if "asm" in text:
        text = ""
    text = re.sub(r"^#(pragma|line).*$", "", text, flags=re.M)
    text = re.sub(r"__launch_bounds__\([^()]*(\([^()]*\)[^()]*)*\)", "", text)
    # A block's dynamic shared memory, as much as one can have.
    text = re.sub(r"extern __shared__ (?:__align__\(\d+\) )?([\w ]+?) (\w+)\[\];", r"alignas(128) static \1 \2[58000];", text)
    kernels = re.finditer(r'extern "C" __global__\s+void\s+(\w+)\(([^)]*)\)', text)
    bindings = "".join(binding(*kernel.groups()) for kernel in kernels)
    pathlib.Path(out + ".cpp").write_text(f'#include "{HERE}/threads.hpp"\n{text}\n{bindings}')
    options = ["-std=c++20", "-O2", "-w", "-fpermissive", "-shared", "-fPIC", "-ffp-contract=off", "-fno-strict-aliasing"]
    subprocess.run(["g++", *options, "-o", out, out + ".cpp"], check=True)


main()
