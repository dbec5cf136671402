#!/usr/bin/env python3
"""The published code's steps in PyTorch, with the names of `langptune bench --gpu --json`, to time both in one run.

    python3 peer_torch.py [--only rollouts,scores,pair,llama,embedder,items,ranking] [--runs 3]

Random weights in bf16 of the published shapes: gemma-2b-it with adapters of rank 1024 on every layer and the head,
Meta-Llama-3-8B whose last four blocks are trained, mxbai-embed-large-v1. What is done follows LangPTune's published
code (arXiv 2410.18870): transformers' `generate` on padded prompts with the adapters beside the weights, a
log-softmax over all logits, gradient steps by autograd with gradient checkpointing off, AdamW in bf16 parameters.
One JSON object a line: name, runs, median_s, and a rate where one makes sense. Needs torch, transformers and peft.
"""
import argparse
import json
import math
import statistics
import time

import torch
import torch.nn.functional as F

DEVICE = "cuda"
PROMPT, RESPONSE, PAIRS = 1024, 512, 4
TEMPERATURE = 1.0 + 1e-7


def timed(name, work, runs, share=1, warm=None, **rates):
    """The median of `runs` calls after one of `warm` (default: of the same) to warm up, divided by `share`; rates are amounts a call."""
    seconds = []
    for run in range(runs + 1):
        torch.cuda.synchronize()
        start = time.perf_counter()
        (warm if warm and run == 0 else work)()
        torch.cuda.synchronize()
        if run > 0:
            seconds.append(time.perf_counter() - start)
    median = statistics.median(seconds)
    row = {"name": name, "runs": runs, "median_s": median / share}
    row.update({unit: amount / median for unit, amount in rates.items()})
    print(json.dumps(row), flush=True)


def gemma():
    from peft import LoraConfig, get_peft_model
    from transformers import GemmaConfig, GemmaForCausalLM

    config = GemmaConfig(
        vocab_size=256_000, hidden_size=2048, intermediate_size=16_384, num_hidden_layers=18, num_attention_heads=8,
        num_key_value_heads=1, head_dim=256, max_position_embeddings=8192,
    )
    with torch.device(DEVICE):
        model = GemmaForCausalLM(config).to(torch.bfloat16)
    layers = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "lm_head"]
    lora = LoraConfig(r=1024, lora_alpha=2048, lora_dropout=0.0, bias="none", target_modules=layers)
    return get_peft_model(model, lora).to(torch.bfloat16)


def llama():
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=128_256, hidden_size=4096, intermediate_size=14_336, num_hidden_layers=32, num_attention_heads=32,
        num_key_value_heads=8, max_position_embeddings=8192, rope_theta=500_000.0, tie_word_embeddings=False,
    )
    with torch.device(DEVICE):
        model = LlamaForCausalLM(config).to(torch.bfloat16)
    model.requires_grad_(False)
    for part in [*model.model.layers[-4:], model.model.norm, model.lm_head]:
        part.requires_grad_(True)
    return model


def tokens(rows, length, vocabulary):
    return torch.randint(10, vocabulary, (rows, length), device=DEVICE)


def logprobs(model, ids):
    """Log-probabilities of the responses' tokens, as the published code computes them."""
    output = model(input_ids=ids, attention_mask=torch.ones_like(ids))
    logits = output.logits[:, PROMPT - 1 : -1] / TEMPERATURE
    scores = F.log_softmax(logits, dim=-1)
    return scores.gather(2, ids[:, PROMPT:, None]).squeeze(2)


def rollouts(model, name, batches, vocabulary):
    model.eval()
    for batch in batches:
        ids = tokens(batch, PROMPT, vocabulary)

        @torch.no_grad()
        def generate(new=RESPONSE):
            model.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=True, temperature=TEMPERATURE, top_k=0,
                top_p=1.0, max_new_tokens=new, min_new_tokens=new, pad_token_id=0, eos_token_id=None,
            )

        label = f"{name}: rollouts, {PROMPT} + {RESPONSE} tokens, batch {batch}"
        timed(label, generate, 1, warm=lambda: generate(8), **{"tokens/s": batch * RESPONSE})


def scores(model):
    model.eval()
    ids = tokens(8, PROMPT + RESPONSE, 256_000)

    @torch.no_grad()
    def both():
        logprobs(model, ids)
        with model.disable_adapter():
            logprobs(model, ids)

    timed("gemma-2b: log-probabilities of 8 rollouts, policy and reference", both, 2)


def pairs(model, name, vocabulary, runs):
    model.train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-7, weight_decay=0.01)
    ids = tokens(2, PROMPT + RESPONSE, vocabulary)

    def update():
        for _ in range(PAIRS):
            sums = logprobs(model, ids).sum(1)
            loss = (sums[0] - sums[1] - 0.1) ** 2
            (loss / PAIRS).backward()
        optimizer.step()
        optimizer.zero_grad()

    # The name says 16: fewer are timed, and the step's share is small beside them.
    timed(f"{name}: one pair forward and backward, of 16 and a step", update, runs, share=PAIRS)


def bert():
    from transformers import BertConfig, BertModel

    config = BertConfig(
        vocab_size=30_522, hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16,
        max_position_embeddings=512, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )
    with torch.device(DEVICE):
        return BertModel(config, add_pooling_layer=False).to(torch.bfloat16)


def lengths(count):
    """Log-normal, mean 180, σ of the logarithm 0.6, at most 512."""
    torch.manual_seed(5)
    normal = torch.randn(count)
    return (math.log(180) - 0.18 + 0.6 * normal).exp().round().clamp(1, 512).long().to(DEVICE)


def masked(count, real):
    ids = tokens(count, 512, 30_000)
    if not real:
        return ids, torch.ones_like(ids)
    # The published code pads every text to 512 tokens.
    mask = (torch.arange(512, device=DEVICE)[None] < lengths(count)[:, None]).long()
    return ids, mask


def embed(model, ids, mask):
    return model(input_ids=ids, attention_mask=mask).last_hidden_state[:, 0]


def embedder(model, runs):
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-7, weight_decay=0.01)
    for kind, real in [("512 tokens", False), ("real lengths", True)]:
        profiles, items = masked(32, real), masked(32, real)

        def step():
            one = F.normalize(embed(model, *profiles).float(), dim=1)
            other = F.normalize(embed(model, *items).float(), dim=1)
            F.cross_entropy(one @ other.T / 0.05, torch.arange(32, device=DEVICE)).backward()
            optimizer.step()
            optimizer.zero_grad()

        timed(f"embedder: a step on 32 pairs of {kind}", step, runs)


def items(model, runs):
    model.eval()
    for kind, real in [("512 tokens", False), ("real lengths", True)]:
        ids, mask = masked(2048, real)

        @torch.no_grad()
        def all_items():
            for first in range(0, 2048, 256):
                embed(model, ids[first : first + 256], mask[first : first + 256])

        timed(f"embedder: 2048 items of {kind}", all_items, runs, **{"items/s": 2048})


def ranking(runs):
    for count in [10_945, 1_000_000]:
        vectors = F.normalize(torch.randn(count, 1024, device=DEVICE), dim=1).half()
        queries = F.normalize(torch.randn(64, 1024, device=DEVICE), dim=1).half()
        history = torch.randint(0, count, (64, 30), device=DEVICE)

        def rank():
            similarities = queries @ vectors.T
            similarities.scatter_(1, history, -torch.inf)
            order = similarities.argsort(dim=1, descending=True)
            (order == 5003).int().argmax(dim=1).cpu()

        timed(f"ranking: 64 profiles in {count} items of 1024 values", rank, runs)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    everything = "rollouts,scores,pair,llama,embedder,items,ranking"
    parser.add_argument("--only", default=everything)
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    wanted = set(arguments.only.split(","))
    if wanted & {"rollouts", "scores", "pair"}:
        model = gemma()
        if "rollouts" in wanted:
            rollouts(model, "gemma-2b", [8, 64], 256_000)
        if "scores" in wanted:
            scores(model)
        if "pair" in wanted:
            pairs(model, "gemma-2b", 256_000, arguments.runs)
        del model
        torch.cuda.empty_cache()
    if "llama" in wanted:
        model = llama()
        pairs(model, "llama-3-8b", 128_256, arguments.runs)
        del model
        torch.cuda.empty_cache()
    if wanted & {"embedder", "items"}:
        model = bert()
        if "embedder" in wanted:
            embedder(model, arguments.runs)
        if "items" in wanted:
            items(model, arguments.runs)
        del model
        torch.cuda.empty_cache()
    if "ranking" in wanted:
        ranking(arguments.runs)


if __name__ == "__main__":
    main()
