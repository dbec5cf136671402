"""What the engine's kernels have in PTX, in C++, for a processor."""

INSTRUCTIONS = {
    'asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));': "y.bits = rounded(x);",
    'asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(words[i]) : "f"(x[2 * i + 1]), "f"(x[2 * i]));':
        "words[i] = rounded(x[2 * i]) | (u32)rounded(x[2 * i + 1]) << 16;",
    'asm("cvt.rn.f16.f32 %0, %1;" : "=h"(to->bits) : "f"(x));':
        "const _Float16 half = (_Float16)x; __builtin_memcpy(&to->bits, &half, 2);",
    'asm volatile("griddepcontrol.wait;" ::: "memory");': "",
}


def in_cpp(text):
    for instruction, instead in INSTRUCTIONS.items():
        text = text.replace(instruction, instead)
    return text
