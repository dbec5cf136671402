#!/usr/bin/env python3
"""decode.cu against references in f64 and against the host's sampler, then timed.

    python3 try_decode.py [--quick]
"""
import sys

import numpy as np
import torch

from kernels import DEV, Module, check, equal, finish, poison, randn, timed

TOKEN, POSITION, OWN_SLOT, OWN_LEN, PROMPT_SLOT, PROMPT_LEN, USER, SAMPLE, DRAWN, ENDED = range(10)
SHARED = {64: 49152, 128: 98304, 256: 98304}
BLOCK = {64: 128, 128: 128, 256: 64}
m = Module("decode.cu")


def ints(values):
    return torch.tensor(np.asarray(values, dtype=np.int64).astype(np.uint32).view(np.int32), device=DEV)


# ---- the sampler, as models/src/sample/draw.rs has it

def philox(c, k):
    c = [np.asarray(x, np.uint64) for x in c]
    k = [int(x) for x in k]
    low = np.uint64(0xFFFFFFFF)
    for _ in range(10):
        a, b = np.uint64(0xD2511F53) * c[0], np.uint64(0xCD9E8D57) * c[2]
        c = [(b >> np.uint64(32)) ^ c[1] ^ np.uint64(k[0]), b & low, (a >> np.uint64(32)) ^ c[3] ^ np.uint64(k[1]), a & low]
        k = [(k[0] + 0x9E3779B9) & 0xFFFFFFFF, (k[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return c


F = np.float32


def host_ln(x):
    bits = x.view(np.int32)
    shifted = bits - np.int32(0x3F3504F3)
    exponent = (shifted >> 23).astype(F)
    mantissa = (bits - (shifted & np.int32(~0x7FFFFF))).astype(np.int32).view(F)
    v = mantissa - F(1)
    p = np.full_like(v, F(7.0376836e-2))
    for c in [-0.1151461, 0.11676999, -0.12420141, 0.14249323, -0.16668057, 0.20000715, -0.24999994, 0.3333333]:
        p = p * v + F(c)
    square = v * v
    value = p * v * square + exponent * F(-2.1219444e-4) - F(0.5) * square
    return (v + value) + exponent * F(0.6933594)


def host_exponential(words):
    w = (words.astype(F) + F(0.5)) * F(1 / 4294967296)
    rest = np.maximum(F(1) - w, F(1 / 16777216))
    lost = (F(1) - rest) - w
    value = -(host_ln(rest) + lost / rest)
    return np.where(w < F(1e-4), w + F(0.5) * w * w, value).astype(F)


def host_draw(logits, temperature, seed, update, user, sample, position):
    """Token and log-probability; logits: f32 of one row."""
    inverse = F(1) / F(temperature)
    scaled = logits * inverse if inverse != 1 else logits
    quads = np.arange((len(logits) + 3) // 4, dtype=np.uint64)
    full = np.ones_like(quads)
    words = philox([quads | np.uint64((sample << 24) & 0xFFFFFFFF), full * np.uint64(position), full * np.uint64(user),
                    full * np.uint64(update)], [seed & 0xFFFFFFFF, seed >> 32])
    words = np.stack(words, 1).reshape(-1)[: len(logits)].astype(np.uint32)
    token = int(np.argmax(scaled - host_ln(host_exponential(words))))
    wide = scaled.astype(np.float64)
    top = wide.max()
    return token, wide[token] - top - np.log(np.exp(wide - top).sum())


def settings(seed, update, temperature, limit, ends):
    inverse = int((F(1) / F(temperature)).view(np.uint32))
    return ints([seed & 0xFFFFFFFF, seed >> 32, update, inverse, limit, len(ends), *ends])


def draw(logits, state, words, tokens, logprobs, parts, rows=None, advance=1, scratch=None, counters=None):
    count, vocabulary = logits.shape
    scratch = torch.empty(count * parts * 4, device=DEV) if scratch is None else scratch
    counters = torch.zeros(count, dtype=torch.int32, device=DEV) if counters is None else counters
    name = "draw_tokens_f32" if logits.dtype == torch.float32 else "draw_tokens_bf16"
    m(name, (parts, count), 256, logits, np.int64(logits.stride(0)), vocabulary, rows, state, state.shape[1], words, tokens,
      logprobs, tokens.shape[1], advance, scratch, counters)
    return counters


# What draw.rs draws from logits ((i · 2654435761 mod 2³²) >> 16) / 4096 of 256,000 tokens; its tests have the same.
KNOWN = [
    (555134, 3, 7, 1, 0, 1.0, 132313),
    (555134, 3, 7, 0, 41, 1.0, 230010),
    (1, 0, 4294967295, 255, 511, 0.7, 238435),
    (1311768467463790320, 77, 12345, 3, 5, 1.5, 217376),
]


def try_draws():
    i = np.arange(256000, dtype=np.uint64)
    row = (((i * np.uint64(2654435761)) & np.uint64(0xFFFFFFFF)) >> np.uint64(16)).astype(F) / F(4096)
    found = []
    for seed, update, user, sample, position, temperature, _ in KNOWN:
        state = torch.zeros(10, 1, dtype=torch.int32, device=DEV)
        state[USER], state[SAMPLE], state[DRAWN] = ints([user]), ints([sample]), position
        tokens = torch.zeros(1, 512, dtype=torch.int32, device=DEV)
        draw(torch.tensor(row[None], device=DEV), state, settings(seed, update, temperature, 512, []), tokens,
             torch.zeros(1, 512, device=DEV), 7)
        found.append(tokens[0, position].item())
    equal("draws known from the host", torch.tensor(found), torch.tensor([k[-1] for k in KNOWN]))
    generator = np.random.default_rng()
    for vocabulary, dtype, temperature, parts in [(5, torch.float32, 1.0, 1), (1003, torch.float32, 0.7, 3), (1000, torch.bfloat16, 1.0, 1),
                                                  (32001, torch.bfloat16, 1.3, 5), (256000, torch.float32, 1.0, 16), (256000, torch.bfloat16, 0.9, 2)]:
        count, capacity, limit = 9, 13, 6
        pad = 8 if vocabulary % 8 == 0 else 0
        logits = randn(count, vocabulary + pad, dtype=torch.float32, scale=3.0).to(dtype)[:, :vocabulary]
        logits[:, 1] = logits[:, 3]  # ties are possible
        rows = generator.permutation(capacity)[:count]
        state = torch.zeros(10, capacity, dtype=torch.int32, device=DEV)
        users, samples, drawn = generator.integers(0, 2**32, capacity), generator.integers(0, 256, capacity), generator.integers(0, limit, capacity)
        state[USER], state[SAMPLE], state[DRAWN] = ints(users), ints(samples), ints(drawn)
        state[OWN_LEN], state[POSITION] = 3, 50
        state[OWN_SLOT] = torch.arange(capacity, device=DEV)
        state[OWN_SLOT, rows[0]] = -1
        seed, update = int(generator.integers(0, 2**63)), int(generator.integers(0, 2**32))
        wide = logits.float().cpu().numpy()
        expected = [host_draw(wide[i], temperature, seed, update, int(users[r]), int(samples[r]), int(drawn[r])) for i, r in enumerate(rows)]
        ends = [expected[4][0], 10**9]
        tokens = torch.full((capacity, limit + 2), -7, dtype=torch.int32, device=DEV)
        logprobs = torch.zeros(capacity, limit + 2, device=DEV)
        before = state.clone()
        counters = draw(logits, state, settings(seed, update, temperature, limit, ends), tokens, logprobs, parts, ints(rows))
        after, idle = before.clone(), rows[0]
        wanted, wanted_logprobs = torch.full_like(tokens, -7), torch.zeros_like(logprobs)
        for i, r in enumerate(rows):
            if r == idle:
                continue
            token, logprob = expected[i]
            wanted[r, drawn[r]], wanted_logprobs[r, drawn[r]] = token, logprob
            after[TOKEN, r], after[DRAWN, r], after[OWN_LEN, r], after[POSITION, r] = token, int(drawn[r]) + 1, 4, 51
            ended = 1 if token in ends else 2 if drawn[r] + 1 >= limit else 0
            if ended:
                after[ENDED, r], after[OWN_SLOT, r] = ended, -1
        name = f"draws of {vocabulary} {dtype} temperature {temperature} parts {parts}"
        equal(name + ": tokens", tokens, wanted)
        equal(name + ": state", state, after)
        equal(name + ": counters", counters, torch.zeros_like(counters))
        check(name + ": log-probabilities", logprobs, wanted_logprobs, 1e-6)


# ---- the small kernels

def try_small():
    table, indices = randn(1000, 264), torch.randint(0, 1000, (37,), device=DEV, dtype=torch.int32)
    out = poison(37, 264)
    m("gather_bf16", 37, 64, out, table, indices, 264, 16.25)
    equal("gather, bf16", out, (table[indices.long()].float() * 16.25).bfloat16())
    out = poison(37, 264, dtype=torch.float32)
    m("gather_f32", 37, 64, out, table, indices, 264, 1.0)
    equal("gather, f32", out, table[indices.long()].float())
    for width, block in [(32, 256), (2048, 256), (4104, 256), (16384, 512)]:
        for dtype in (torch.bfloat16, torch.float32):
            residual, delta, weight = randn(19, width, dtype=dtype), randn(19, width), randn(width, dtype=torch.float32)
            for with_delta in (True, False):
                total = (residual.float() + delta.float() * with_delta).to(dtype)
                wide = total.double()
                expected = wide * (wide.square().mean(1, keepdim=True) + 1e-6).rsqrt() * (weight.double() + 1)
                own, out = residual.clone(), poison(19, width)
                m("add_rms_norm_" + ("bf16" if dtype == torch.bfloat16 else "f32"), 19, block, own, delta if with_delta else None, out,
                  weight, width, 1e-6, 1.0)
                equal(f"add_rms_norm {width} {dtype}: residual", own, total)
                check(f"add_rms_norm {width} {dtype}", out, expected)
    for kind in range(3):
        x, out = randn(11, 2 * 1032), poison(11, 1032)
        m("gated_activation", ((1032 // 8 + 127) // 128, 11), 128, out, x, 1032, kind)
        gate, up = x.double().chunk(2, 1)
        f = [torch.nn.functional.silu, torch.nn.functional.gelu, lambda g: torch.nn.functional.gelu(g, approximate="tanh")][kind]
        check(f"gated activation {kind}", out, f(gate) * up)
    for heads, kv, dim, bias in [(8, 1, 256, False), (14, 2, 64, True), (4, 4, 16, True), (3, 3, 32, False)]:
        rows, capacity, slots = 23, 40, 30
        qkv = randn(rows, (heads + 2 * kv) * dim)
        b = randn((heads + 2 * kv) * dim, dtype=torch.float32) if bias else None
        angles = torch.rand(100, dim // 2, device=DEV) * 6
        positions = torch.randint(0, 100, (rows,), device=DEV, dtype=torch.int32)
        order = torch.randperm(slots, device=DEV)[:rows].int()
        order[3] = -1
        places = torch.randint(0, capacity, (rows,), device=DEV, dtype=torch.int32)
        keys, values = randn(slots, kv, capacity, dim), randn(slots, kv, capacity, dim)
        x = qkv.double()
        if bias:
            x = (qkv.float() + b).bfloat16().double()
        x = x.view(rows, heads + 2 * kv, dim).clone()
        turn = angles.double()[positions.long()][:, None]
        a, c = x[:, : heads + kv, : dim // 2].clone(), x[:, : heads + kv, dim // 2:].clone()
        x[:, : heads + kv] = torch.cat([a * turn.cos() - c * turn.sin(), c * turn.cos() + a * turn.sin()], 2)
        own, expected_keys, expected_values = qkv.clone(), keys.clone(), values.clone()
        m("rotate_and_cache", rows, 256, own, b, angles.cos(), angles.sin(), positions, order, places, keys, values, heads, kv, dim, capacity)
        own = own.view(rows, heads + 2 * kv, dim)
        check(f"rotate {heads} {kv} {dim}", own, x)
        for r in range(rows):
            if order[r] >= 0:
                expected_keys[order[r], :, places[r]] = own[r, heads: heads + kv]
                expected_values[order[r], :, places[r]] = own[r, heads + kv:]
        equal(f"cache {heads} {kv} {dim}", torch.cat([keys, values]), torch.cat([expected_keys, expected_values]))
    state = torch.full((10, 7), 99, dtype=torch.int32, device=DEV)
    m("start_rows", 1, 128, state, 7, ints([[2, 5, 100, 2**32 - 1, 3], [6, 1, 7, 8, 9]]), 2)
    expected = torch.full((10, 7), 99, dtype=torch.int32, device=DEV)
    expected[:, 2] = torch.tensor([0, 100, 2, 0, 5, 100, -1, 3, 0, 0])
    expected[:, 6] = torch.tensor([0, 7, 6, 0, 1, 7, 8, 9, 0, 0])
    equal("start_rows", state, expected)


# ---- attention of one token a row

def state_of(prompt_slots, prompt_lens, own_lens):
    rows = len(prompt_slots)
    state = torch.zeros(10, rows, dtype=torch.int32, device=DEV)
    state[OWN_SLOT] = torch.arange(rows, device=DEV)
    state[PROMPT_SLOT], state[PROMPT_LEN], state[OWN_LEN] = ints(prompt_slots), ints(prompt_lens), ints(own_lens)
    return state


def attend(out, qkv, prompt, own, state, heads, kv, dim, splits, partial=None):
    rows, tiles = qkv.shape[0], kv * ((heads // kv + 7) // 8)
    partial = torch.empty(rows * tiles * splits * 8 * (dim + 2), device=DEV) if partial is None else partial
    head = (out, qkv, qkv.stride(0), *prompt, *own, state, state.shape[1], heads, kv, prompt[0].shape[2], own[0].shape[2], dim**-0.5)
    if dim in SHARED:
        m(f"attend_token_{dim}", (splits, tiles, rows), BLOCK[dim], *head, partial, shared=SHARED[dim])
        if splits > 1:
            m("join_splits", (heads, rows), max(32, dim // 4), out, partial, state, state.shape[1], heads, kv, splits, dim)
    else:
        m("attend_token_any", (1, heads, rows), 128, *head, dim)


def try_attention():
    for heads, kv, dim in [(8, 1, 256), (16, 1, 256), (32, 8, 128), (14, 2, 64), (12, 12, 64), (20, 1, 128), (4, 2, 32), (4, 1, 16), (6, 2, 80)]:
        for splits in (1, 3, 20):
            rows, prompts, prompt_capacity, own_capacity = 11, 5, 150, 70
            prompt = [randn(prompts, kv, prompt_capacity, dim) for _ in range(2)]
            own = [randn(rows, kv, own_capacity, dim) for _ in range(2)]
            prompt_slots = np.random.randint(0, prompts, rows)
            prompt_lens, own_lens = np.random.randint(0, prompt_capacity + 1, rows), np.random.randint(0, own_capacity, rows)
            prompt_lens[:4], own_lens[:4] = [0, 150, 16, 1], [0, 69, 15, 0]
            for r in range(rows):  # what lies beyond the lengths must not matter
                own[0][r, :, own_lens[r] + 1:], own[1][r, :, own_lens[r] + 1:] = float("nan"), float("nan")
            state = state_of(prompt_slots, prompt_lens, own_lens)
            state[OWN_SLOT, 5] = -1
            qkv, out = randn(rows, (heads + 2 * kv) * dim), poison(rows, heads * dim)
            expected = torch.zeros(rows, heads, dim, device=DEV, dtype=torch.float64)
            for r in range(rows):
                k, v = [torch.cat([p[prompt_slots[r], :, : prompt_lens[r]], o[r, :, : own_lens[r] + 1]], 1).double()
                        .repeat_interleave(heads // kv, 0) for p, o in zip(prompt, own)]
                q = qkv[r, : heads * dim].view(heads, 1, dim).double()
                expected[r] = (torch.softmax(q @ k.transpose(1, 2) * dim**-0.5, -1) @ v)[:, 0]
            attend(out, qkv, prompt, own, state, heads, kv, dim, splits)
            running = [r for r in range(rows) if r != 5]
            check(f"attend heads {heads}/{kv} dim {dim} splits {splits}", out.view(rows, heads, dim)[running], expected[running], 6e-3)
            if not torch.isnan(out[5]).all():
                equal("an idle row was written", out[5], torch.zeros_like(out[5]))


def time_all():
    print("attention of a token over prompt 1024 + own 511 (key-value bytes only)")
    for name, heads, kv, dim, rows, shared_prompts in [
            ("gemma-2b", 8, 1, 256, 8, 1), ("gemma-2b", 8, 1, 256, 64, 1), ("gemma-2b", 8, 1, 256, 256, 1), ("gemma-2b, two rows a prompt", 8, 1, 256, 256, 2),
            ("llama-3-8b", 32, 8, 128, 8, 1), ("llama-3-8b", 32, 8, 128, 64, 1), ("llama-3-8b, two rows a prompt", 32, 8, 128, 64, 2), ("dim 64", 14, 2, 64, 256, 1)]:
        prompts = rows // shared_prompts
        each = 2 * 2 * kv * dim * (prompts * 1024 + rows * 512)
        sets = max(1, min(8, int(6e8 / each) + 1))
        caches = [([randn(prompts, kv, 1024, dim) for _ in range(2)], [randn(rows, kv, 512, dim) for _ in range(2)]) for _ in range(sets)]
        state = state_of(np.arange(rows) // shared_prompts, [1024] * rows, [511] * rows)
        qkv, out = randn(rows, (heads + 2 * kv) * dim), poison(rows, heads * dim)
        best = None
        tiles = kv * ((heads // kv + 7) // 8)
        for splits in (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48):
            if not 100 <= rows * tiles * splits <= 3000:
                continue
            partial = torch.empty(rows * tiles * splits * 8 * (dim + 2), device=DEV)
            ms = timed([lambda p=p, o=o: attend(out, qkv, p, o, state, heads, kv, dim, splits, partial) for p, o in caches], repeat=4)
            best = min(best or (ms, splits), (ms, splits))
        print(f"  {name} rows {rows}: {best[0] * 1e3:.1f} us with {best[1]} splits, {each / best[0] / 1e6:.0f} GB/s", flush=True)
    print("drawing a token, vocabulary 256000")
    for rows in (8, 64, 256):
        for dtype in (torch.float32, torch.bfloat16):
            count = max(1, 64 // rows)
            logits = [randn(rows, 256000, dtype=torch.float32, scale=3.0).to(dtype) for _ in range(count)]
            state, words = state_of([0] * rows, [0] * rows, [0] * rows), settings(5, 1, 1.0, 10**6, [1])
            tokens, logprobs = torch.zeros(rows, 4, dtype=torch.int32, device=DEV), torch.zeros(rows, 4, device=DEV)
            best = None
            for parts in (2, 4, 8, 16, 32, 64):
                if not 130 <= parts * rows <= 2200:
                    continue
                scratch, counters = torch.empty(rows * parts * 4, device=DEV), torch.zeros(rows, dtype=torch.int32, device=DEV)
                ms = timed([lambda x=x: draw(x, state, words, tokens, logprobs, parts, scratch=scratch, counters=counters) for x in logits], repeat=4)
                best = min(best or (ms, parts), (ms, parts))
            print(f"  rows {rows} {dtype}: {best[0] * 1e3:.1f} us with {best[1]} parts, {logits[0].nbytes / best[0] / 1e6:.0f} GB/s", flush=True)
    print("small kernels")
    for rows in (8, 256):
        residual, delta, out, weight = randn(rows, 2048), randn(rows, 2048), poison(rows, 2048), randn(2048, dtype=torch.float32)
        print(f"  add_rms_norm {rows} x 2048: {timed([lambda: m('add_rms_norm_bf16', rows, 256, residual, delta, out, weight, 2048, 1e-6, 1.0)], repeat=50) * 1e3:.1f} us")
        x, gated = randn(rows, 32768), poison(rows, 16384)
        print(f"  gated_activation {rows} x 16384: {timed([lambda: m('gated_activation', (16, rows), 128, gated, x, 16384, 2)], repeat=50) * 1e3:.1f} us")
        qkv, angles = randn(rows, 2560), torch.rand(1024, 128, device=DEV)
        cache = [randn(rows, 1, 64, 256) for _ in range(2)]
        places = torch.zeros(rows, dtype=torch.int32, device=DEV)
        slots = torch.arange(rows, dtype=torch.int32, device=DEV)
        print(f"  rotate_and_cache {rows} x 2560: {timed([lambda: m('rotate_and_cache', rows, 160, qkv, None, angles, angles, places, slots, places, *cache, 8, 1, 256, 64)], repeat=50) * 1e3:.1f} us", flush=True)


print(torch.cuda.get_device_name(), torch.__version__)
try_small()
try_draws()
try_attention()
if "--quick" not in sys.argv:
    time_all()
finish()
