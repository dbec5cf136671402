#!/usr/bin/env python3
"""Whether optimizer steps at a rate of 1e-7 survive bf16, in PyTorch with peft beside `langptune bench --small-updates`.

    python tests/reference/small_updates.py make DIR
    python tests/reference/small_updates.py run DIR --arm f32 [--device cuda]           writes DIR/torch-f32.json
    langptune bench --small-updates DIR --device cuda --precision bf16 > DIR/ours-bf16.json
    python tests/reference/small_updates.py compare DIR                                 reads all of DIR/*.json

`make` writes a model of Gemma's form, weights N(0, 0.02) exact in bf16; an adapter on all its layers and the head as peft
initialises it (A random and exact in bf16, B zero); and 64 rollouts of 64 tokens to 32 prompts of 64, drawn from the model, with the
slopes that the published loss has at its first step for rewards that are normal.

All programs start from these files and take steps of AdamW (betas 0.9 and 0.999, eps 1e-6, weight decay 0.01) on the same objective,
sum of slope * log pi(response). Arms, of which the last four compute in bf16:

    f32      float32 throughout, TF32 off
    bf16     model, adapter and optimizer in bf16: model.to(bfloat16) after get_peft_model
    peft     bf16 model, f32 adapter and optimizer: what peft does with a bf16 model when nothing is said (autocast_adapter_dtype)
    master   as bf16, but the optimizer moves f32 copies, from which the bf16 adapter is rounded: what DeepSpeed does
    merged   the f32 arm's adapter (run with it) added to the weights and rounded to bf16

Log-softmax is taken of logits widened to float32 in every arm. `compare` prints Pearson's correlation of the change of the log-probabilities
with the change in PyTorch's f32 arm: of the rollouts' sums, and of their tokens. Needs torch, transformers, peft and safetensors.

    python tests/reference/small_updates.py fixture

writes tests/fixtures/small_updates/: rollouts.jsonl, and expected.json with their log-probabilities under the tiny Gemma and its recorded
adapter (tests/fixtures/models/gemma, adapters/gemma) before and after 1 and 3 steps of the f32 arm on a processor, at a rate at which they show.
"""
import argparse
import copy
import json
import pathlib
import shutil
import tempfile
import warnings

import torch
import torch.nn.functional as F

COUNTS = [10, 100, 1000]
SETTINGS = {"betas": (0.9, 0.999), "eps": 1e-6, "weight_decay": 0.01}
PROMPT, RESPONSE, PROMPTS = 64, 64, 32
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "lm_head"]
ARMS = ["f32", "bf16", "peft", "master"]


def make(folder, hidden, layers, vocabulary, rank):
    import transformers
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(7)
    config = transformers.GemmaConfig(
        vocab_size=vocabulary, hidden_size=hidden, intermediate_size=4 * hidden, num_hidden_layers=layers,
        num_attention_heads=hidden // 256, num_key_value_heads=1, head_dim=256, max_position_embeddings=512,
    )
    model = transformers.GemmaForCausalLM(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() == 2:
                weight.normal_(0.0, 0.02)
            weight.copy_(weight.bfloat16())
    model.bfloat16().save_pretrained(folder / "model")

    prompts = torch.randint(3, vocabulary, (PROMPTS, PROMPT))
    model = model.float().to("cuda" if torch.cuda.is_available() else "cpu")
    drawn = model.generate(
        input_ids=prompts.repeat_interleave(2, 0).to(model.device), do_sample=True, temperature=1.0, top_k=0, top_p=1.0,
        max_new_tokens=RESPONSE, min_new_tokens=RESPONSE, eos_token_id=None, pad_token_id=0,
    )[:, PROMPT:].cpu()
    rewards = torch.randn(PROMPTS, 2)
    with open(folder / "rollouts.jsonl", "w") as out:
        for prompt, pair, (one, two) in zip(prompts.tolist(), drawn.view(PROMPTS, 2, RESPONSE).tolist(), rewards.tolist()):
            slope = -2.0 * (one - two) / PROMPTS
            out.write(json.dumps({"prompt": prompt, "responses": pair, "slopes": [slope, -slope]}) + "\n")

    lora = LoraConfig(r=rank, lora_alpha=2 * rank, lora_dropout=0.0, bias="none", task_type="CAUSAL_LM", target_modules=TARGETS)
    adapted = get_peft_model(model.cpu(), lora)
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora_" in name:
                weight.copy_(weight.bfloat16())
    adapted.save_pretrained(folder / "adapter")


class Rollouts:
    """Each response behind its prompt, one row each; all rows are of one length, or padded at the end."""

    def __init__(self, path, device):
        self.prompts, self.responses, slopes = [], [], []
        for line in open(path):
            row = json.loads(line)
            for response, slope in zip(row["responses"], row["slopes"]):
                self.prompts.append(row["prompt"])
                self.responses.append(response)
                slopes.append(slope)
        rows = [prompt + response for prompt, response in zip(self.prompts, self.responses)]
        longest = max(map(len, rows))
        # Nothing looks at what stands behind it, so that padding at the end needs no mask.
        self.ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows], device=device)
        self.mask = torch.zeros_like(self.ids, dtype=torch.bool)
        for index, (prompt, row) in enumerate(zip(self.prompts, rows)):
            self.mask[index, len(prompt) : len(row)] = True
        self.mask = self.mask[:, 1:]
        self.slopes = torch.tensor(slopes, device=device)

    def logprobs(self, model):
        """Of the tokens at which the mask is set, 0 elsewhere."""
        logits = model(input_ids=self.ids, use_cache=False).logits[:, :-1].float()
        scores = F.log_softmax(logits, dim=-1).gather(2, self.ids[:, 1:, None]).squeeze(2)
        return scores * self.mask

    def lists(self, scores):
        return [row[keep].tolist() for row, keep in zip(scores, self.mask)]


def load(folder, arm, device):
    import transformers
    from peft import PeftModel

    dtype = torch.float32 if arm == "f32" else torch.bfloat16
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = transformers.AutoModelForCausalLM.from_pretrained(folder / "model", dtype=dtype)
        # An adapter on a tied head must not change the embedding: peft wraps the head alone.
        model = PeftModel.from_pretrained(model, folder / "adapter", is_trainable=True)
    if arm in ("bf16", "master"):
        model.to(torch.bfloat16)
    return model.to(device)


def merged(base, model):
    """`base`, a bf16 copy of the model without adapter, with `model`'s adapter in its weights; the share of changed weights."""
    result, changed, count = copy.deepcopy(base), 0, 0
    result.lm_head.weight = torch.nn.Parameter(result.lm_head.weight.detach().clone())
    for name, layer in model.base_model.model.named_modules():
        if hasattr(layer, "get_delta_weight"):
            weight = result.get_submodule(name).weight
            new = (weight.detach().float() + layer.get_delta_weight("default")).to(torch.bfloat16)
            changed += (new != weight).sum().item()
            count += new.numel()
            weight.data = new
    return result, changed / count


def run(folder, arm, device, counts, lr):
    import peft
    import transformers

    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    rollouts = Rollouts(folder / "rollouts.jsonl", device)
    model = load(folder, arm, device)
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    dtypes = sorted({str(weight.dtype) for weight in trained})
    masters = [weight.detach().float().requires_grad_() for weight in trained] if arm == "master" else trained
    optimizer = torch.optim.AdamW(masters, lr=lr, **SETTINGS)
    base = None
    if arm == "f32":
        base = transformers.AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.bfloat16).to(device)

    after, after_merged, shares = [], [], []
    for step in range(max(counts) + 1):
        if step == 0 or step in counts:
            with torch.no_grad():
                after.append({"steps": step, "logprobs": rollouts.lists(rollouts.logprobs(model))})
                if base is not None:
                    other, share = merged(base, model)
                    after_merged.append({"steps": step, "logprobs": rollouts.lists(rollouts.logprobs(other))})
                    shares.append(share)
        if step == max(counts):
            break
        (rollouts.logprobs(model).sum(1) * rollouts.slopes).sum().backward()
        if arm == "master":
            for master, weight in zip(masters, trained):
                master.grad, weight.grad = weight.grad.float(), None
        optimizer.step()
        optimizer.zero_grad()
        if arm == "master":
            with torch.no_grad():
                for master, weight in zip(masters, trained):
                    weight.copy_(master)
    versions = {"torch": torch.__version__, "transformers": transformers.__version__, "peft": peft.__version__}
    about = {"lr": lr, "adapter": dtypes, "versions": versions}
    (folder / f"torch-{arm}.json").write_text(json.dumps({**about, "after": after}))
    if base is not None:
        result = {**about, "changed_weights": shares, "after": after_merged}
        (folder / "torch-merged.json").write_text(json.dumps(result))


def fixture():
    from recorded import FIXTURES, made_with, write_json

    folder, lr, counts = FIXTURES / "small_updates", 1e-3, [1, 3]
    folder.mkdir(exist_ok=True)
    torch.manual_seed(11)
    tokens = lambda count: torch.randint(3, 512, (count,)).tolist()
    with open(folder / "rollouts.jsonl", "w") as out:
        for prompt, lengths, slopes in [(5, [4, 7], [-0.5, 0.25]), (9, [3, 1, 6], [0.125, 0.75, -1.0])]:
            responses = [tokens(length) for length in lengths]
            out.write(json.dumps({"prompt": tokens(prompt), "responses": responses, "slopes": slopes}) + "\n")
    with tempfile.TemporaryDirectory() as place:
        place = pathlib.Path(place)
        shutil.copytree(FIXTURES / "models" / "gemma", place / "model")
        shutil.copytree(FIXTURES / "adapters" / "gemma", place / "adapter")
        shutil.copy(folder / "rollouts.jsonl", place)
        run(place, "f32", "cpu", counts, lr)
        after = json.loads((place / "torch-f32.json").read_text())["after"]
    made = made_with(__file__, "torch", "transformers", "peft", "safetensors")
    write_json(folder / "expected.json", {"made_with": made, "lr": lr, "after": after})


def changes(path):
    """The tokens' and the sums' changes, by steps."""
    after = json.loads(path.read_text())["after"]
    values = {entry["steps"]: [torch.tensor(row, dtype=torch.float64) for row in entry["logprobs"]] for entry in after}
    first = values.pop(0)
    result = {}
    for steps, rows in values.items():
        rows = [row - before for row, before in zip(rows, first)]
        result[steps] = torch.stack([row.sum() for row in rows]), torch.cat(rows)
    return result


def correlation(one, other):
    one, other = one - one.mean(), other - other.mean()
    size = one.norm() * other.norm()
    return f"{(one @ other / size).item():.5f}" if size > 0 else "no change"


def compare(folder):
    reference = changes(folder / "torch-f32.json")
    files = sorted(path for path in folder.glob("*-*.json"))
    steps = sorted(reference)
    print("change in torch-f32, root mean square in nats: " + "; ".join(
        f"{count} steps: sums {sums.pow(2).mean().sqrt():.2e}, tokens {tokens.pow(2).mean().sqrt():.2e}"
        for count, (sums, tokens) in sorted(reference.items())))
    print("| correlation with torch-f32 | " + " | ".join(f"sums, {count} steps" for count in steps) + " | "
          + " | ".join(f"tokens, {count} steps" for count in steps) + " |")
    print("|---" * (1 + 2 * len(steps)) + "|")
    for path in files:
        found = changes(path)
        cells = [correlation(found[count][part], reference[count][part]) for part in (0, 1) for count in steps]
        print(f"| {path.stem} | " + " | ".join(cells) + " |")
    if (folder / "ours-f32.json").exists() and (folder / "ours-bf16.json").exists():
        own, found = changes(folder / "ours-f32.json"), changes(folder / "ours-bf16.json")
        cells = [correlation(found[count][part], own[count][part]) for part in (0, 1) for count in steps]
        print("| ours-bf16 with ours-f32 | " + " | ".join(cells) + " |")
    if (folder / "torch-merged.json").exists():
        shares = json.loads((folder / "torch-merged.json").read_text())["changed_weights"]
        print("weights that rounding changes in merging, by steps: " + ", ".join(f"{share:.2e}" for share in shares[1:]))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("make")
    command.add_argument("folder", type=pathlib.Path)
    for name, value in [("hidden", 512), ("layers", 4), ("vocabulary", 4096), ("rank", 256)]:
        command.add_argument(f"--{name}", type=int, default=value)
    command = commands.add_parser("run")
    command.add_argument("folder", type=pathlib.Path)
    command.add_argument("--arm", choices=ARMS, required=True)
    command.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    command.add_argument("--steps", type=int, nargs="+", default=COUNTS)
    command.add_argument("--lr", type=float, default=1e-7)
    command = commands.add_parser("compare")
    command.add_argument("folder", type=pathlib.Path)
    commands.add_parser("fixture")
    arguments = parser.parse_args()
    if arguments.command == "fixture":
        fixture()
    elif arguments.command == "make":
        make(arguments.folder, arguments.hidden, arguments.layers, arguments.vocabulary, arguments.rank)
    elif arguments.command == "run":
        run(arguments.folder, arguments.arm, arguments.device, arguments.steps, arguments.lr)
    else:
        compare(arguments.folder)


if __name__ == "__main__":
    main()
