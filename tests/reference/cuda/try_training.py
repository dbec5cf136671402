#!/usr/bin/env python3
"""training.cu against PyTorch in f64, then timed.

    python3 try_training.py [--quick]
"""
import sys

import numpy as np
import torch
import torch.nn.functional as F

from kernels import DEV, Module, check, equal, finish, poison, randn, timed

m = Module("training.cu")
f32, bf16 = torch.float32, torch.bfloat16
ACTIVATIONS = [F.silu, F.gelu, lambda x: F.gelu(x, approximate="tanh")]


def wide(*tensors):
    return [t.double().detach().requires_grad_() for t in tensors]


def ints(values):
    return torch.tensor(values, dtype=torch.int32, device=DEV)


def over(width, block=128):
    return (width // 8 + block - 1) // block


def try_norms():
    for rows, width, block, blocks in [(1, 32, 256, 1), (37, 264, 256, 5), (200, 2048, 256, 132), (9, 8192, 256, 9), (5, 16384, 512, 2)]:
        for dtype in (bf16, f32):
            x, d, weight, before = randn(rows, width, dtype=dtype), randn(rows, width), randn(width, dtype=f32), randn(rows, width, dtype=dtype)
            a, w = wide(x, weight)
            (a * (a.square().mean(1, keepdim=True) + 1e-6).rsqrt() * (w + 1)).backward(d.double())
            for add in (0, 1):
                out = before.clone() if add else poison(rows, width, dtype=dtype)
                parts, d_weight = poison(blocks, width, dtype=f32), poison(width, dtype=f32)
                m("rms_norm_backward_" + ("bf16" if dtype == bf16 else "f32"), blocks, block, out, d, x, weight, parts, rows, width, 1e-6, 1.0, add)
                m("sum_rows", (width + 127) // 128, 128, d_weight, parts, blocks, width, 0)
                check(f"rms_norm_backward {rows} x {width} {dtype} add {add}", out, a.grad + before.double() * add, 4e-3 if dtype == bf16 else 1e-5)
                check("  weight", d_weight, w.grad, 1e-5)
    for rows, width, block, blocks in [(1, 32, 256, 1), (37, 264, 256, 5), (300, 1024, 256, 64), (7, 8192, 512, 3)]:
        for variant in range(3):
            x, delta, d, more = [randn(rows, width) for _ in range(4)]
            shift, weight, bias = [randn(width, dtype=f32) for _ in range(3)]
            delta, shift = (delta, shift) if variant == 0 else (delta, None) if variant == 1 else (None, None)
            total = x.float() + (0 if delta is None else delta.float()) + (0 if shift is None else shift)
            a, w, b = wide(total.bfloat16(), weight, bias)
            expected = F.layer_norm(a, (width,), w, b, 1e-12)
            expected.backward(d.double() + (more.double() if variant else 0))
            out, kept, d_x = poison(rows, width), poison(rows, width), poison(rows, width)
            m("add_layer_norm", rows, block, out, kept, x, delta, shift, weight, bias, width, 1e-12)
            parts, bias_parts, sums = poison(blocks, width, dtype=f32), poison(blocks, width, dtype=f32), [torch.ones(width, device=DEV) for _ in range(2)]
            m("layer_norm_backward", blocks, block, d_x, d, more if variant else None, kept, weight, parts, bias_parts, rows, width, 1e-12)
            for s, p in zip(sums, (parts, bias_parts)):
                m("sum_rows", (width + 127) // 128, 128, s, p, blocks, width, 1)
            name = f"layer norm {rows} x {width} variant {variant}"
            equal(name + " sum", kept, total.bfloat16())
            check(name, out, expected)
            check(name + " dx", d_x, a.grad)
            check(name + " weight", sums[0] - 1, w.grad, 1e-5)
            check(name + " bias", sums[1] - 1, b.grad, 1e-5)


def try_elementwise():
    rows, width = 53, 1032
    for kind in range(3):
        x, d = randn(rows, 2 * width, scale=2.0), randn(rows, width)
        a, = wide(x)
        gate, up = a.chunk(2, 1)
        out = ACTIVATIONS[kind](gate) * up
        out.backward(d.double())
        d_x, again = poison(rows, 2 * width), poison(rows, width)
        m("gated_activation_backward", (over(width), rows), 128, d_x, again, d, x, width, kind)
        check(f"gated activation {kind} backward", d_x, a.grad)
        check("  again", again, out)
        in_place = x.clone()
        m("gated_activation_backward", (over(width), rows), 128, in_place, None, d, in_place, width, kind)
        equal("  in place", in_place, d_x)
        x, bias = randn(rows, width, scale=2.0), randn(width, dtype=f32)
        for b in (bias, None):
            a, = wide(x.float() + (0 if b is None else b))
            out = ACTIVATIONS[kind](a)
            out.backward(d.double())
            found, d_found = poison(rows, width), poison(rows, width)
            m("activation", (over(width), rows), 128, found, x, b, width, kind)
            m("activation_backward", (over(width), rows), 128, d_found, d, x, b, width, kind)
            check(f"activation {kind}", found, out)
            check("  backward", d_found, a.grad)
    x, bias = randn(rows, width), randn(width, dtype=f32)
    own, parts, total = x.clone(), poison(7, width, dtype=f32), poison(width, dtype=f32)
    m("add_bias", (over(width), rows), 128, own, bias, width)
    equal("add_bias", own, (x.float() + bias).bfloat16())
    m("column_parts", (over(width), 7), 128, parts, x, rows, width)
    m("sum_rows", (width + 127) // 128, 128, total, parts, 7, width, 0)
    check("column sums", total, x.double().sum(0), 1e-5)
    for heads, dim in [(3, 64), (5, 16), (2, 256)]:
        x, angles = randn(rows, (heads + 2) * dim), torch.rand(80, dim // 2, device=DEV) * 6
        positions = torch.randint(0, 80, (rows,), device=DEV, dtype=torch.int32)
        own, t = x.clone(), angles.double()[positions.long()][:, None]
        m("rotate", rows, 128, own, angles.cos(), angles.sin(), positions, x.stride(0), heads, dim, 1.0)
        expected = x.double().view(rows, heads + 2, dim).clone()
        a, b = expected[:, :heads, : dim // 2].clone(), expected[:, :heads, dim // 2:].clone()
        expected[:, :heads] = torch.cat([a * t.cos() - b * t.sin(), b * t.cos() + a * t.sin()], 2)
        check(f"rotate {heads} {dim}", own, expected.view(rows, -1))
        m("rotate", rows, 128, own, angles.cos(), angles.sin(), positions, x.stride(0), heads, dim, -1.0)
        check("  and back", own, x)


def try_embeddings():
    width, count = 136, 400
    words, places, kind = randn(50, width), randn(30, width), randn(1, width)
    tokens, positions = torch.randint(0, 50, (count,), device=DEV, dtype=torch.int32), torch.randint(0, 30, (count,), device=DEV, dtype=torch.int32)
    out, d = poison(count, width), randn(count, width)
    m("embed_text", count, 64, out, words, places, kind, tokens, positions, width)
    check("embed_text", out, words.double()[tokens.long()] + places.double()[positions.long()] + kind.double())
    order = torch.argsort(tokens, stable=True).int()
    ids, counts = torch.unique(tokens, return_counts=True)
    starts = torch.cat([torch.zeros(1, device=DEV, dtype=torch.int64), counts.cumsum(0)]).int()
    table = randn(50, width, dtype=f32)
    expected = table.double().index_add(0, tokens.long(), d.double() * 0.5)
    m("scatter_rows", (over(width), len(ids)), 128, table, d, order, starts, ids.int(), width, 0.5)
    check("scatter_rows", table, expected, 1e-6)
    rows, x = torch.randperm(count, device=DEV)[:90].int(), randn(90, width)
    for add in (0, 1):
        own, expected = d.clone(), d.clone()
        expected[rows.long()] = (x.float() + d.float()[rows.long()] * add).bfloat16()
        m("put_rows", (over(width), 90), 128, own, x, rows, width, add)
        equal(f"put_rows add {add}", own, expected)


def try_scores():
    for rows, vocabulary, dtype, temperature in [(3, 5, bf16, 1.0), (40, 1003, bf16, 0.7), (17, 32000, f32, 1.3), (9, 256000, bf16, 1.0)]:
        logits = randn(rows, (vocabulary + 7) // 8 * 8, dtype=f32, scale=4.0).to(dtype)
        tokens, d = torch.randint(0, vocabulary, (rows,), device=DEV, dtype=torch.int32), randn(rows, dtype=f32)
        a, = wide(logits[:, :vocabulary])
        every = torch.log_softmax(a / temperature, 1)
        picked = every.gather(1, tokens.long()[:, None])[:, 0]
        picked.backward(d.double())
        logprobs, entropies, lse = [poison(rows, dtype=f32) for _ in range(3)]
        name, inverse, stride = "bf16" if dtype == bf16 else "f32", float(1 / temperature), np.int64(logits.stride(0))
        m("token_scores_" + name, rows, 512, logprobs, entropies, lse, logits, tokens, stride, vocabulary, inverse)
        check(f"token scores {rows} x {vocabulary} {dtype}", logprobs, picked, 1e-6)
        check("  entropy", entropies, -(every.exp() * every).sum(1), 1e-5)
        padding = logits[:, vocabulary:].clone()
        m("token_scores_backward_" + name, (3, rows), 256, logits, d, lse, tokens, stride, vocabulary, inverse)
        check("  backward", logits[:, :vocabulary], a.grad, 4e-3 if dtype == bf16 else 1e-5)
        equal("  padding", logits[:, vocabulary:], padding)


def try_texts():
    lengths = [1, 7, 64, 33, 200]
    starts = ints(np.cumsum([0] + lengths).tolist())
    for width in (64, 1024, 2056):
        hidden = randn(sum(lengths), width)
        for mode in (0, 1):
            for normal in (0, 1):
                a, = wide(hidden)
                vectors = torch.stack([part[0] if mode == 0 else part.mean(0) for part in a.split(lengths)])
                expected = F.normalize(vectors, dim=1) if normal else vectors
                d = randn(len(lengths), width, dtype=f32)
                expected.backward(d.double())
                out, norms, d_hidden = poison(len(lengths), width, dtype=f32), poison(len(lengths), dtype=f32), poison(sum(lengths), width)
                m("pool", len(lengths), 256, out, norms, hidden, starts, width, mode, normal, shared=4 * width)
                m("pool_backward", (len(lengths), 3), 256, d_hidden, d, out, norms, starts, width, mode, normal)
                check(f"pool {width} mode {mode} normal {normal}", out, expected, 1e-5)
                check("  backward", d_hidden, a.grad)
    for rows, columns, first in [(32, 32, 0), (5, 37, 20), (1, 300, 299)]:
        for masked in (False, True):
            s = torch.randn(rows, columns, device=DEV)
            left_out = (torch.rand(rows, columns, device=DEV) < 0.3).to(torch.uint8)
            a, = wide(s)
            own = torch.arange(rows, device=DEV) + first
            hidden = left_out.bool() & (torch.arange(columns, device=DEV)[None] != own[:, None]) & masked
            scores = a.masked_fill(hidden, float("-inf"))
            losses = F.cross_entropy(scores / 0.1, own, reduction="none")
            (losses.sum() / rows).backward()
            found, hits, grad = poison(rows, dtype=f32), ints([-1] * rows), s.clone()
            m("info_nce", rows, 256, grad, found, hits, left_out if masked else None, columns, first, 10.0, 1 / rows)
            check(f"info_nce {rows} x {columns} masked {masked}", found, losses, 1e-5)
            check("  gradient", grad, a.grad, 1e-5)
            equal("  hits", hits, (scores.argmax(1) == own).int())


def try_optimizer():
    count = 100_003
    values, gradients = randn(count, dtype=f32), randn(count, dtype=f32)
    p, plain = [torch.nn.Parameter(values.double().clone()) for _ in range(2)]
    settings = dict(lr=1e-3, betas=(0.9, 0.98), eps=1e-6, weight_decay=0.1)
    peer, plain_peer = torch.optim.AdamW([p], **settings), torch.optim.Adam([plain], **settings)
    plain_own, plain_first, plain_second = values.clone(), torch.zeros(count, device=DEV), torch.zeros(count, device=DEV)
    own, first, second, shadow = values.clone(), torch.zeros(count, device=DEV), torch.zeros(count, device=DEV), poison(count)
    rough, rough_first, rough_second = values.bfloat16(), first.clone(), second.clone()
    start = rough.double()
    more = torch.tensor([0.5], device=DEV)
    for t in range(1, 6):
        p.grad = gradients.double() * 0.5 * 3
        plain.grad = p.grad.clone()
        peer.step()
        plain_peer.step()
        ends = (1 - 0.9**t, (1 - 0.98**t) ** 0.5, 3.0, more)
        args = (1e-3, 0.9, 0.98, 1e-6, 1e-4, 0.0, *ends)
        m("adamw_f32", (count + 2047) // 2048, 256, plain_own, plain_first, plain_second, gradients, None, np.int64(count), 1e-3, 0.9, 0.98, 1e-6, 0.0, 0.1, *ends)
        m("adamw_f32", (count + 2047) // 2048, 256, own, first, second, gradients, shadow, np.int64(count), *args)
        m("adamw_bf16", (count + 2047) // 2048, 256, rough, rough_first, rough_second, gradients, np.int64(count), *args, 5, 6, t, 1)
        gradients = randn(count, dtype=f32)
    check("adamw", own - values, p.detach() - values.double(), 1e-4)
    equal("  shadow", shadow, own.bfloat16())
    check("adam", plain_own - values, plain.detach() - values.double(), 1e-4)
    moved = (rough.double() - start).mean(), (p.detach() - values.double()).mean()
    print(f"     mean move by chance rounding {moved[0].item():.3e}, exact {moved[1].item():.3e}")
    # Rounding by chance is right in the mean: an update far below half a step.
    ones, update, out = torch.full((1 << 20,), 1.0, device=DEV, dtype=bf16), torch.full((1 << 20,), 1e-3, device=DEV), poison(1 << 20)
    m("merge_weight", (1 << 20) // 2048, 256, out, ones, update, np.int64(1 << 20), 0.5, 1, 2, 3, 4)
    check("merge_weight: mean", out.double().mean()[None] - 1, torch.tensor([5e-4], device=DEV), 0.02)
    equal("  two neighbours", (out == 1) | (out == 1 + 2**-7), torch.ones_like(out, dtype=torch.bool))
    x = randn(1_000_003, dtype=f32)
    parts, norms = torch.full((100,), float("nan"), device=DEV, dtype=torch.float64), poison(2, dtype=f32)
    m("square_parts", 100, 512, parts, x, np.int64(len(x)))
    m("norm_of_parts", 1, 32, norms, parts, 100, 0.25, 1.0)
    norm = x.double().norm() * 0.25
    check("gradient norm", norms, torch.stack([norm, 1 / (norm + 1e-6)]), 1e-6)


def try_copies():
    count = 10_005
    x, y = randn(count, dtype=f32), randn(count)
    cases = [("f32_to_bf16", poison(count), x, None), ("bf16_to_f32", poison(count, dtype=f32), y, None), ("add_f32", x.clone(), x, x),
             ("add_bf16_to_f32", x.clone(), y, x), ("add_bf16", y.clone(), y, y)]
    for name, out, source, old in cases:
        m(name, (count + 2047) // 2048, 256, out, source, np.int64(count), 0.3)
        check(name, out, source.double() * 0.3 + (0 if old is None else old.double()), 1e-6 if out.dtype == f32 else 4e-3)
    for rows, columns in [(1, 1), (33, 100), (256, 64)]:
        for name, source in (("transpose_f32", randn(rows, columns, dtype=f32)), ("transpose_bf16", randn(rows, columns))):
            out = poison(columns, rows)
            m(name, ((columns + 31) // 32, (rows + 31) // 32), 256, out, source, rows, columns, 2.0)
            equal(f"{name} {rows} x {columns}", out, (source.float() * 2).bfloat16().T)


def time_all():
    def line(name, call, moved, repeat=3, sets=1):
        ms = timed(call if isinstance(call, list) else [call], repeat=repeat)
        print(f"  {name}: {ms * 1e3:.1f} us, {moved / ms / 1e6:.0f} GB/s", flush=True)

    rows, width = 16384, 2048
    x, d, weight, d_x, parts = randn(rows, width), randn(rows, width), randn(width, dtype=f32), randn(rows, width), poison(264, width, dtype=f32)
    total = 2 * rows * width
    for blocks in (132, 264):
        line(f"rms_norm_backward {rows} x {width}, {blocks} blocks", lambda: m("rms_norm_backward_bf16", blocks, 256, d_x, d, x, weight, parts, rows, width, 1e-6, 1.0, 1), 4 * total)
    line("  its sum_rows", lambda: m("sum_rows", 16, 128, weight, parts, 264, width, 0), 4 * 264 * width)
    width = 1024
    rows = 32768
    bias, out, more, bias_parts = randn(width, dtype=f32), poison(rows, width), randn(rows, width), poison(264, width, dtype=f32)
    x, d, d_x = randn(rows, width), randn(rows, width), randn(rows, width)
    line(f"add_layer_norm {rows} x {width}", lambda: m("add_layer_norm", rows, 128, out, d_x, x, d, bias, weight, bias, width, 1e-12), 4 * total)
    line(f"layer_norm_backward {rows} x {width}", lambda: m("layer_norm_backward", 264, 128, d_x, d, more, x, weight, parts, bias_parts, rows, width, 1e-12), 4 * total)
    rows, width = 4096, 16384
    x, d, again = randn(rows, 2 * width), randn(rows, width), poison(rows, width)
    line(f"gated_activation_backward {rows} x {width}", lambda: m("gated_activation_backward", (over(width), rows), 128, x, None, d, x, width, 2), 10 * rows * width)
    line(f"activation (gelu) {rows} x {width}", lambda: m("activation", (over(width), rows), 128, again, d, None, width, 1), 4 * rows * width)
    line(f"activation_backward (gelu) {rows} x {width}", lambda: m("activation_backward", (over(width), rows), 128, again, d, d, None, width, 1), 6 * rows * width)
    rows, vocabulary = 1024, 256000
    logits, d, lse = randn(rows, vocabulary), randn(rows, dtype=f32), torch.full((rows,), 13.0, device=DEV)
    tokens, a, b = torch.randint(0, vocabulary, (rows,), device=DEV, dtype=torch.int32), poison(rows, dtype=f32), poison(rows, dtype=f32)
    line(f"token_scores {rows} x {vocabulary}", lambda: m("token_scores_bf16", rows, 512, a, b, lse, logits, tokens, np.int64(vocabulary), vocabulary, 1.0), 2 * rows * vocabulary)
    line(f"token_scores_backward {rows} x {vocabulary}", lambda: m("token_scores_backward_bf16", (4, rows), 256, logits, d, lse, tokens, np.int64(vocabulary), vocabulary, 1.0), 4 * rows * vocabulary)
    del logits, x
    count = 400_000_000
    values, first, second, gradients = [torch.rand(count, device=DEV) for _ in range(4)]
    shadow = poison(count)
    line("adamw_f32 of 400 million", lambda: m("adamw_f32", (count + 2047) // 2048, 256, values, first, second, gradients, shadow, np.int64(count), 1e-5, 0.9, 0.999, 1e-6, 0.0, 0.0, 0.1, 0.03, 1.0, None), 30 * count)
    line("adamw_bf16 of 400 million", lambda: m("adamw_bf16", (count + 2047) // 2048, 256, shadow, first, second, gradients, np.int64(count), 1e-5, 0.9, 0.999, 1e-6, 0.0, 0.0, 0.1, 0.03, 1.0, None, 1, 2, 3, 4), 24 * count)
    squares = torch.zeros(1056, device=DEV, dtype=torch.float64)
    line("square_parts of 400 million", lambda: m("square_parts", 1056, 512, squares, gradients, np.int64(count)), 4 * count)
    line("merge_weight of 400 million", lambda: m("merge_weight", (count + 2047) // 2048, 256, shadow, shadow, gradients, np.int64(count), 1.0, 1, 2, 3, 4), 8 * count)
    line("f32_to_bf16 of 400 million", lambda: m("f32_to_bf16", (count + 2047) // 2048, 256, shadow, gradients, np.int64(count), 1.0), 6 * count)
    line("transpose_f32 20000 x 20000", lambda: m("transpose_f32", (625, 625), 256, shadow, gradients, 20000, 20000, 1.0), 6 * count)


print(torch.cuda.get_device_name(), torch.__version__)
for part in (try_norms, try_elementwise, try_embeddings, try_scores, try_texts, try_optimizer, try_copies):
    part()
if "--quick" not in sys.argv:
    time_all()
finish()
