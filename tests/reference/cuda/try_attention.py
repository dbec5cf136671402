#!/usr/bin/env python3
"""attention.cu, and on Hopper attention_hopper.cu and attention_hopper_causal.cu, against dense attention in f64, forward and backward, then timed beside PyTorch's.

    python3 try_attention.py [--quick] [--hopper | --packed]

`--hopper`: the sources for Hopper alone, timed beside attention.cu; `--packed`: attention_hopper_causal.cu and attention_hopper_causal_keys.cu alone.
"""
import random
import sys

import torch

from kernels import DEV, Boxes, Module, check, check_each, equal, finish, poison, randn, timed

SHARED = {"attend": {64: 49152, 128: 98304, 256: 98304}, "q": {64: 49152, 128: 98304, 256: 98304}, "kv": {64: 49664, 128: 66048, 256: 131584}}
m = Module("attention.cu")


class Rows:
    """Packed rows: each is [len] or [prompt, branch, branch, ...]."""

    def __init__(self, rows, causal, order="late first"):
        self.causal, segments, start = causal, [], 0
        self.lengths = [sum(row) for row in rows]
        for prompt, *branches in rows:
            first = len(segments)
            segments.append([start, prompt, 0, 0, first + 1, len(branches)])
            at = start + prompt
            for branch in branches:
                segments.append([at, branch, start, prompt, 0, 0])
                at += branch
            start = at
        self.tokens, self.list = start, segments
        tiles = [(s, i) for s in range(len(segments)) for i in range((segments[s][1] + 63) // 64)]
        # Late rows of causal texts see most; else the longest texts come first, each text's tiles together.
        tiles.sort(key=(lambda t: -t[1] - (segments[t[0]][3] + 63) // 64) if order == "late first" else (lambda t: -segments[t[0]][1]))
        self.segments = torch.tensor(segments, dtype=torch.int32, device=DEV)
        self.tiles = torch.tensor(tiles, dtype=torch.int32, device=DEV)

    def masks(self):
        """Where each row begins and what its tokens see of it."""
        first = 0
        for length in self.lengths:
            seen = torch.zeros(length, length, dtype=torch.bool)
            for start, count, prefix, prefix_len, _, _ in self.list:
                start, prefix = start - first, prefix - first
                if 0 <= start < length:
                    own = torch.ones(count, count, dtype=torch.bool)
                    seen[start:start + count, start:start + count] = own.tril() if self.causal else own
                    seen[start:start + count, prefix:prefix + prefix_len] = True
            yield first, seen.to(DEV)
            first += length

    def pairs(self):
        return sum((n * (n + 1) // 2 if self.causal else n * n) + n * p for _, n, _, p, _, _ in self.list)


def name_of(kernel, dim):
    return f"{kernel}_{dim}" if dim in (64, 128, 256) else f"{kernel}_any"


def more(dim):
    return () if dim in (64, 128, 256) else (dim,)


def forward(rows, out, lse, q, k, v, heads, kv, dim):
    m(name_of("attend", dim), (heads, len(rows.tiles)), 128, out, lse, q, k, v, q.stride(0), k.stride(0), v.stride(0), rows.segments, rows.tiles,
      rows.tokens, heads, kv, int(rows.causal), dim**-0.5, *more(dim), shared=SHARED["attend"].get(dim, 0))


def deltas_of(rows, deltas, d_out, out, heads, dim):
    m("attention_deltas", ((heads + 3) // 4, rows.tokens), 128, deltas, d_out, out, rows.tokens, heads, dim)


def backward_q(rows, dq, d_out, lse, deltas, q, k, v, heads, kv, dim):
    m(name_of("attend_backward_q", dim), (heads, len(rows.tiles)), 128, dq, d_out, lse, deltas, q, k, v, dq.stride(0), q.stride(0), k.stride(0),
      v.stride(0), rows.segments, rows.tiles, rows.tokens, heads, kv, int(rows.causal), dim**-0.5, *more(dim), shared=SHARED["q"].get(dim, 0))


def backward_kv(rows, dk, dv, d_out, lse, deltas, q, k, v, heads, kv, dim, together, parts=None):
    launch = lambda *args: m(name_of("attend_backward_kv", dim), (heads // together, len(rows.tiles)), 256 if dim == 256 else 128, *args, *more(dim),
                             shared=SHARED["kv"].get(dim, 0))
    keys_by(launch, rows, dk, dv, d_out, lse, deltas, q, k, v, heads, kv, dim, together, parts)


def keys_by(launch, rows, dk, dv, d_out, lse, deltas, q, k, v, heads, kv, dim, together, parts):
    count = heads // kv // together
    dk_parts, dv_parts = (None, None) if count == 1 else parts if parts is not None else [poison(rows.tokens, heads // together, dim, dtype=torch.float32) for _ in range(2)]
    launch(dk, dv, dk_parts, dv_parts, d_out, lse, deltas, q, k, v, dk.stride(0), dv.stride(0), q.stride(0), k.stride(0), v.stride(0), rows.segments,
           rows.tiles, rows.tokens, heads, kv, together, int(rows.causal), dim**-0.5)
    if count > 1:
        for out, x in ((dk, dk_parts), (dv, dv_parts)):
            m("sum_parts", ((kv * dim // 8 + 127) // 128, rows.tokens), 128, out, x, out.stride(0), kv, count, dim)


def parts_of(qkv, heads, kv, dim):
    return qkv[:, : heads * dim], qkv[:, heads * dim: (heads + kv) * dim], qkv[:, (heads + kv) * dim:]


def reference(rows, *given):
    """out, lse, dq, dk and dv in f64, one row after the other."""
    results = [row_reference(seen, first, *given) for first, seen in rows.masks() if len(seen)]
    return [torch.cat(x, -1 if i == 1 else 0) for i, x in enumerate(zip(*results))]


def row_reference(seen, first, q, k, v, heads, kv, dim, d_out):
    end = first + len(seen)
    split = lambda x, n: x[first:end].double().reshape(len(seen), n, dim).transpose(0, 1).detach().requires_grad_()
    a, b, c = split(q, heads), split(k, kv), split(v, kv)
    scores = a @ b.repeat_interleave(heads // kv, 0).transpose(1, 2) * dim**-0.5
    scores = scores.masked_fill(~seen, float("-inf"))
    out = torch.softmax(scores, -1) @ c.repeat_interleave(heads // kv, 0)
    join = lambda x: x.transpose(0, 1).reshape(len(seen), -1)
    join(out).backward(d_out[first:end].double())
    return [x.detach() for x in (join(out), torch.logsumexp(scores, -1), join(a.grad), join(b.grad), join(c.grad))]


def try_all():
    trees = [[100, 37, 65], [1], [64], [1, 1], [130, 64], [63, 1, 1, 200], [257]]
    plain = [[5], [64], [200], [1], [129], [33]]
    for heads, kv, dim, togethers in [(4, 1, 64, (4, 2, 1)), (3, 3, 64, (1,)), (8, 2, 128, (4, 1)), (2, 2, 128, (1,)), (8, 1, 256, (8, 1)), (2, 2, 256, (1,)),
                                      (4, 2, 32, (2,)), (2, 2, 16, (1,)), (4, 1, 80, (4,))]:
        for layout, causal in ((trees, True), (plain, False), (plain, True)):
            rows = Rows(layout, causal)
            qkv, d_qkv = randn(rows.tokens, (heads + 2 * kv) * dim), poison(rows.tokens, (heads + 2 * kv) * dim)
            q, k, v = parts_of(qkv, heads, kv, dim)
            dq, dk, dv = parts_of(d_qkv, heads, kv, dim)
            d_out, out = randn(rows.tokens, heads * dim), poison(rows.tokens, heads * dim)
            lse, deltas = poison(heads, rows.tokens, dtype=torch.float32), poison(heads, rows.tokens, dtype=torch.float32)
            expected = reference(rows, q, k, v, heads, kv, dim, d_out)
            forward(rows, out, lse, q, k, v, heads, kv, dim)
            name = f"heads {heads}/{kv} dim {dim} {'trees' if layout is trees else 'plain'}{' causal' if causal else ''}"
            check(name + " out", out, expected[0], 6e-3)
            check(name + " lse", lse, expected[1], 1e-5)
            deltas_of(rows, deltas, d_out, out, heads, dim)
            backward_q(rows, dq, d_out, lse, deltas, q, k, v, heads, kv, dim)
            check(name + " dq", dq, expected[2], 1e-2)
            for together in togethers:
                dk.fill_(float("nan"))
                dv.fill_(float("nan"))
                backward_kv(rows, dk, dv, d_out, lse, deltas, q, k, v, heads, kv, dim, together)
                check(name + f" together {together} dk", dk, expected[3], 1e-2)
                check(name + f" together {together} dv", dv, expected[4], 1e-2)
            before = d_qkv.clone()
            backward_q(rows, dq, d_out, lse, deltas, q, k, v, heads, kv, dim)
            backward_kv(rows, dk, dv, d_out, lse, deltas, q, k, v, heads, kv, dim, togethers[-1])
            equal(name + " again", d_qkv.view(torch.int16), before.view(torch.int16))


def sdpa_times(batch, length, heads, kv, dim, causal):
    def run():
        torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=kv != heads)

    def clock(f):
        for _ in range(3):
            f()
        times = []
        for _ in range(10):
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            start.record()
            f()
            end.record()
            torch.cuda.synchronize()
            times.append(start.elapsed_time(end))
        return sorted(times)[5]

    q, k, v = [randn(batch, n, length, dim) for n in (heads, kv, kv)]
    if kv != heads and dim == 256:
        k, v = [x.repeat_interleave(heads // kv, 1) for x in (k, v)]
    with torch.no_grad():
        ahead = clock(run)
    for x in (q, k, v):
        x.requires_grad_()
    out = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=k.shape[1] != heads)
    d_out = torch.randn_like(out)
    return ahead, clock(lambda: torch.autograd.grad(out, (q, k, v), d_out, retain_graph=True))


class Hopper:
    """The kernels of attention_hopper.cu: whole texts, dim 64, as many key heads as heads."""

    def __init__(self):
        self.m = Module("attention_hopper.cu", "sm_90a", ("wgmma.cuh",))

    def forward(self, rows, out, lse, q, k, v, heads):
        self.out = out  # dq comes with deltas, of what comes out here
        self.m("attend_texts_64", (heads, len(rows.tiles)), 256, out, lse, q, k, v, q.stride(0), k.stride(0), v.stride(0), rows.segments, rows.tiles,
               rows.tokens, heads, heads, 0, 0.125, 0, shared=81920)

    def backward_q(self, rows, dq, d_out, lse, deltas, q, k, v, heads):
        self.m("attend_texts_backward_q_64", (heads, len(rows.tiles)), 256, dq, d_out, lse, deltas, q, k, v, dq.stride(0), q.stride(0), k.stride(0),
               v.stride(0), rows.segments, rows.tiles, rows.tokens, heads, heads, 0, 0.125, 0, self.out, None, shared=98304)

    def backward_kv(self, rows, dk, dv, d_out, lse, deltas, q, k, v, heads):
        self.m("attend_texts_backward_kv_64", (heads, len(rows.tiles)), 128, dk, dv, None, None, d_out, lse, deltas, q, k, v, dk.stride(0),
               dv.stride(0), q.stride(0), k.stride(0), v.stride(0), rows.segments, rows.tiles, rows.tokens, heads, heads, 1, 0, 0.125, 0, None, shared=50176)


class Case:
    """Random inputs of whole texts, and poisoned outputs."""

    def __init__(self, lengths, heads, order="texts", scale=1.0):
        self.heads, self.rows = heads, Rows([[n] for n in lengths], False, order)
        tokens, width = self.rows.tokens, heads * 64
        self.qkv, self.d_qkv = randn(tokens, 3 * width, scale=scale), poison(tokens, 3 * width)
        self.inputs, self.gradients = parts_of(self.qkv, heads, heads, 64), parts_of(self.d_qkv, heads, heads, 64)
        self.d_out, self.out = randn(tokens, width), poison(tokens, width)
        self.lse, self.deltas = [poison(heads, tokens, dtype=torch.float32) for _ in range(2)]

    def calls(self, hopper):
        """Forward, deltas, dq, and dk with dv; by `hopper`, or where it is None by attention.cu."""
        rows, heads, (q, k, v), (dq, dk, dv) = self.rows, self.heads, self.inputs, self.gradients
        known = (self.d_out, self.lse, self.deltas, q, k, v, heads)
        deltas = lambda: deltas_of(rows, self.deltas, self.d_out, self.out, heads, 64)
        if hopper is None:
            return [lambda: forward(rows, self.out, self.lse, q, k, v, heads, heads, 64), deltas,
                    lambda: backward_q(rows, dq, *known, heads, 64), lambda: backward_kv(rows, dk, dv, *known, heads, 64, 1)]
        return [lambda: hopper.forward(rows, self.out, self.lse, q, k, v, heads), deltas,
                lambda: hopper.backward_q(rows, dq, *known), lambda: hopper.backward_kv(rows, dk, dv, *known)]


def try_hopper(hopper):
    chance = random.Random(5)
    many = [chance.randint(1, 512) for _ in range(12)]
    for lengths, heads, scale in [([5], 1, 1.0), ([1, 64, 65, 63, 127, 128, 129, 1], 3, 1.0), ([512, 511, 257, 192, 200, 33], 2, 1.0), (many, 16, 1.0), (many, 5, 3.0)]:
        case = Case(lengths, heads, scale=scale)
        expected = reference(case.rows, *case.inputs, heads, heads, 64, case.d_out)
        name = f"texts of {min(lengths)} to {max(lengths)} tokens, heads {heads}, scale {scale:g}"
        found = {}
        for kind, by in (("attention.cu", None), ("hopper", hopper)):
            for x in (case.out, case.lse, case.deltas, case.d_qkv):
                x.fill_(float("nan"))
            for call in case.calls(by):
                call()
            results = [case.out, case.lse, *case.gradients]
            # No less accurate than the kernels for any GPU, whose limits these are.
            for what, x, y, most in zip(("out", "lse", "dq", "dk", "dv"), results, expected, (6e-3, 1e-5, 1e-2, 1e-2, 1e-2)):
                check(f"{name}, {kind} {what}", x, y, most)
            found[kind] = [x.clone() for x in results]
        for call in case.calls(hopper):
            call()
        equal(name + " again", torch.cat([x.float().flatten() for x in (case.out, case.lse, *case.gradients)]), torch.cat([x.float().flatten() for x in found["hopper"]]))


def time_hopper(hopper):
    chance = random.Random(7)
    for name, lengths in (("64 texts of 512", [512] * 64), ("texts of 32 to 512", [chance.randint(32, 512) for _ in range(120)])):
        for order in ("late first", "texts"):
            case = Case(lengths, 16, order)
            flops = 4 * case.rows.pairs() * 64 * 16
            for kind, by in (("attention.cu", None), ("hopper", hopper)):
                ahead, _, back_q, back_kv = [timed([call], repeat=24) for call in case.calls(by)]
                print(f"{name} ({case.rows.tokens} tokens), tiles {order}, {kind}: forward {ahead:.3f} ms {flops / ahead / 1e9:.0f} TFLOP/s; "
                      f"q {back_q:.3f} ms {1.5 * flops / back_q / 1e9:.0f}; kv {back_kv:.3f} ms {2 * flops / back_kv / 1e9:.0f}", flush=True)
    ahead, back = sdpa_times(64, 512, 16, 16, 64, False)
    print(f"PyTorch, 64 texts of 512: forward {ahead:.3f} ms, backward {back:.3f} ms", flush=True)


class Packed:
    """The kernels of attention_hopper_causal.cu and attention_hopper_causal_keys.cu: heads of 256 and 128 over packed rows."""

    def __init__(self):
        self.m, self.keys = [Module(f"attention_hopper_causal{part}.cu", "sm_90a", ("wgmma.cuh", "packed_hopper.cuh")) for part in ("", "_keys")]
        self.multiprocessors = torch.cuda.get_device_properties(0).multi_processor_count

    def forward(self, rows, out, lse, q, k, v, heads, kv, dim):
        self.m(f"attend_rows_{dim}", self.multiprocessors // 2 * 2, 384, out, lse, q, Boxes(k), Boxes(v), q.stride(0), rows.segments, rows.tiles,
               rows.tokens, heads, kv, int(rows.causal), dim**-0.5, len(rows.tiles), shared=229632)

    def backward_q(self, rows, dq, d_out, lse, deltas, q, k, v, heads, kv, dim):
        self.m(f"attend_rows_backward_q_{dim}", self.multiprocessors // 2 * 2, 384, dq, d_out, lse, deltas, q, Boxes(k), Boxes(v), dq.stride(0),
               q.stride(0), rows.segments, rows.tiles, rows.tokens, heads, kv, int(rows.causal), dim**-0.5, len(rows.tiles), shared=229632)

    def backward_kv(self, rows, dk, dv, d_out, lse, deltas, q, k, v, heads, kv, dim, together, parts=None):
        def launch(dk, dv, dk_parts, dv_parts, d_out, lse, deltas, q, k, v, dk_stride, dv_stride, q_stride, *rest):
            self.keys(f"attend_rows_backward_kv_{dim}", (2 * heads // together, len(rows.tiles)), 384, dk, dv, dk_parts, dv_parts, Boxes(d_out), lse,
                   deltas, Boxes(q), k, v, dk_stride, dv_stride, *rest, shared={256: 214272, 128: 198912}[dim])
        keys_by(launch, rows, dk, dv, d_out, lse, deltas, q, k, v, heads, kv, dim, together, parts)


def try_packed(packed):
    lengths = [[n] for n in range(1, 201)]
    trees = [[p, p * 7 % 131, 0, p * 3 % 67] for p in range(1, 201, 2)]
    long = [[1024, 512, 512], [1000, 499, 1, 0, 333], [1], [65], [2, 700]]
    for heads, kv, dim in [(8, 1, 256), (32, 8, 128), (2, 2, 256), (6, 2, 256), (4, 2, 128), (3, 3, 128)]:
        small = heads * dim < 2048
        for name, layout, causal in [("lengths 1 to 200", lengths[::9] if small else lengths, True), ("trees", trees[::9] if small else trees, True),
                                     ("long trees", long, True), ("few tokens", [[3, 2]], True), ("whole texts", lengths[::13], False)]:
            rows = Rows(layout, causal)
            qkv, d_qkv = randn(rows.tokens, (heads + 2 * kv) * dim), poison(rows.tokens, (heads + 2 * kv) * dim)
            q, k, v = parts_of(qkv, heads, kv, dim)
            gradients = parts_of(d_qkv, heads, kv, dim)
            dq, dk, dv = gradients
            d_out, out = randn(rows.tokens, heads * dim), poison(rows.tokens, heads * dim)
            lse, deltas = [poison(heads, rows.tokens, dtype=torch.float32) for _ in range(2)]
            expected = reference(rows, q, k, v, heads, kv, dim, d_out)
            name = f"{heads}/{kv} heads of {dim}, {name}"
            each = lambda x: x.reshape(rows.tokens, -1, dim)
            known = (d_out, lse, deltas, q, k, v, heads, kv, dim)

            def compare(kind, what, x, y, most):
                check(f"{name}, {kind} {what}", x, y, most)
                check_each(f"{name}, {kind} {what}", each(x), each(y), 0.2 if what == "dq" else 5 * most)  # some rows of dq are next to nothing

            for kind, by in (("attention.cu", None), ("packed", packed)):
                for x in (out, lse, d_qkv):
                    x.fill_(float("nan"))
                (by.forward if by else forward)(rows, out, lse, q, k, v, heads, kv, dim)
                compare(kind, "out", out, expected[0], 6e-3)
                check(f"{name}, {kind} lse", lse, expected[1], 1e-5)
                deltas_of(rows, deltas, d_out, out, heads, dim)
                (by.backward_q if by else backward_q)(rows, dq, *known)
                compare(kind, "dq", dq, expected[2], 1e-2)
                for together in [n for n in (1, 2, 3, 4, 8) if heads // kv % n == 0]:
                    dk.fill_(float("nan"))
                    dv.fill_(float("nan"))
                    (by.backward_kv if by else backward_kv)(rows, dk, dv, *known, together)
                    compare(kind, f"{together} together dk", dk, expected[3], 1e-2)
                    compare(kind, f"{together} together dv", dv, expected[4], 1e-2)
            before = [x.clone() for x in (out, lse, d_qkv)]
            packed.forward(rows, out, lse, q, k, v, heads, kv, dim)
            packed.backward_q(rows, dq, *known)
            packed.backward_kv(rows, dk, dv, *known, together)
            for x, y in zip((out, lse, d_qkv), before):
                equal(name + " again", x, y)


def time_packed(packed):
    pair = [1024, 512, 512]
    for name, layout, heads, kv, dim in [
            ("gemma-2b, a pair", [pair], 8, 1, 256), ("gemma-2b, 8 pairs", [pair] * 8, 8, 1, 256), ("gemma-2b, 16 prompts of 1024", [[1024]] * 16, 8, 1, 256),
            ("llama-3-8b, a pair", [pair], 32, 8, 128), ("llama-3-8b, 8 pairs", [pair] * 8, 32, 8, 128), ("llama-3-8b, 16 prompts of 1024", [[1024]] * 16, 32, 8, 128)]:
        rows = Rows(layout, True)
        qkv, d_qkv = randn(rows.tokens, (heads + 2 * kv) * dim), poison(rows.tokens, (heads + 2 * kv) * dim)
        q, k, v = parts_of(qkv, heads, kv, dim)
        dq, dk, dv = parts_of(d_qkv, heads, kv, dim)
        d_out, out = randn(rows.tokens, heads * dim), poison(rows.tokens, heads * dim)
        lse, deltas = [poison(heads, rows.tokens, dtype=torch.float32) for _ in range(2)]
        known = (d_out, lse, deltas, q, k, v, heads, kv, dim)
        flops = 4 * rows.pairs() * dim * heads
        for kind, by in (("attention.cu", None), ("packed", packed)):
            ahead = timed([lambda: (by.forward if by else forward)(rows, out, lse, q, k, v, heads, kv, dim)], repeat=10)
            delta = timed([lambda: deltas_of(rows, deltas, d_out, out, heads, dim)], repeat=10)
            back_q = timed([lambda: (by.backward_q if by else backward_q)(rows, dq, *known)], repeat=10)
            line = f"{name}, {kind}: forward {ahead:.3f} ms {flops / ahead / 1e9:.0f} TFLOP/s; deltas {delta:.3f}, q {back_q:.3f} ms {1.5 * flops / back_q / 1e9:.0f}"
            times = {}
            for together in [n for n in (1, 2, 4, 8) if heads // kv % n == 0]:
                parts = [poison(rows.tokens, heads // together, dim, dtype=torch.float32) for _ in range(2)]
                times[together] = timed([lambda: (by.backward_kv if by else backward_kv)(rows, dk, dv, *known, together, parts)], repeat=10)
            best = min(times, key=times.get)
            back = delta + back_q + times[best]
            line += f"; kv {times[best]:.3f} ms {2 * flops / times[best] / 1e9:.0f} (" + ", ".join(f"{n}: {x:.3f}" for n, x in times.items()) + \
                f"); backward {back:.3f} ms {2.5 * flops / back / 1e9:.0f} TFLOP/s"
            print(line, flush=True)


def time_all():
    for name, layout, causal, heads, kv, dim, sdpa in [
            ("gemma-2b, 2 x 1536", [[1536]] * 2, True, 8, 1, 256, (2, 1536)), ("gemma-2b, pair 1024 + 2 x 512", [[1024, 512, 512]], True, 8, 1, 256, None),
            ("gemma-2b, 4 x 1536", [[1536]] * 4, True, 8, 1, 256, (4, 1536)), ("gemma-2b, 8 pairs", [[1024, 512, 512]] * 8, True, 8, 1, 256, None),
            ("llama-3-8b, 2 x 1536", [[1536]] * 2, True, 32, 8, 128, (2, 1536)), ("llama-3-8b, pair 1024 + 2 x 512", [[1024, 512, 512]], True, 32, 8, 128, None),
            ("llama-3-8b, 8 pairs", [[1024, 512, 512]] * 8, True, 32, 8, 128, None), ("bert-large, 64 x 512", [[512]] * 64, False, 16, 16, 64, (64, 512)),
            ("4 x 4096, dim 128", [[4096]] * 4, True, 16, 16, 128, (4, 4096))]:
        rows = Rows(layout, causal)
        qkv, d_qkv = randn(rows.tokens, (heads + 2 * kv) * dim), poison(rows.tokens, (heads + 2 * kv) * dim)
        q, k, v = parts_of(qkv, heads, kv, dim)
        dq, dk, dv = parts_of(d_qkv, heads, kv, dim)
        d_out, out = randn(rows.tokens, heads * dim), poison(rows.tokens, heads * dim)
        lse, deltas = [poison(heads, rows.tokens, dtype=torch.float32) for _ in range(2)]
        flops = 4 * rows.pairs() * dim * heads
        ahead = timed([lambda: forward(rows, out, lse, q, k, v, heads, kv, dim)], repeat=10)
        delta = timed([lambda: deltas_of(rows, deltas, d_out, out, heads, dim)], repeat=10)
        back_q = timed([lambda: backward_q(rows, dq, d_out, lse, deltas, q, k, v, heads, kv, dim)], repeat=10)
        best = None
        for together in (1, 2, 4, 8):
            if heads // kv % together == 0:
                parts = [poison(rows.tokens, heads // together, dim, dtype=torch.float32) for _ in range(2)]
                ms = timed([lambda: backward_kv(rows, dk, dv, d_out, lse, deltas, q, k, v, heads, kv, dim, together, parts)], repeat=10)
                best = min(best or (ms, together), (ms, together))
        back = delta + back_q + best[0]
        peer = sdpa_times(*sdpa, heads, kv, dim, causal) if sdpa else None
        print(f"{name}: forward {ahead:.3f} ms {flops / ahead / 1e9:.0f} TFLOP/s; backward {back:.3f} ms {2.5 * flops / back / 1e9:.0f} TFLOP/s "
              f"(deltas {delta:.3f}, q {back_q:.3f}, kv {best[0]:.3f} with {best[1]} heads together)"
              + (f"; PyTorch {peer[0]:.3f} and {peer[1]:.3f} ms" if peer else ""), flush=True)


print(torch.cuda.get_device_name(), torch.__version__)
hopper, packed = (Hopper(), Packed()) if torch.cuda.get_device_capability() == (9, 0) else (None, None)
if "--hopper" not in sys.argv and "--packed" not in sys.argv:
    try_all()
if hopper and "--packed" not in sys.argv:
    try_hopper(hopper)
if packed:
    try_packed(packed)
if "--quick" not in sys.argv:
    if "--hopper" not in sys.argv and "--packed" not in sys.argv:
        time_all()
    if hopper and "--packed" not in sys.argv:
        time_hopper(hopper)
    if packed:
        time_packed(packed)
finish()
