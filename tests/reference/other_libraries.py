"""Checkpoints of langptune in transformers and PEFT, and theirs in langptune.

    python tests/reference/other_libraries.py check LM SCORED EMBEDDER TEXTS VECTORS
    python tests/reference/other_libraries.py write BASE OUT

`check` loads the language model LM (an adapter folder by PEFT over the base that it names, any other by transformers) and the
embedder as users would, and compares in float32: the log-probabilities in SCORED (output of `langptune logprob`) to 1e-4, and
VECTORS (`langptune embed --output`, mean pooling, of the lines of TEXTS) to 1e-5.

`write` makes of the model BASE: OUT/adapter, a PEFT adapter on all linear layers and the head; OUT/sharded, the model with its last
block and head changed, in bfloat16 and several files; and OUT/adapter.jsonl, OUT/sharded.jsonl with {"tokens", "logprobs"}.

The test `other_libraries` of the trainer runs both where TRANSFORMERS_PYTHON names a Python with torch, transformers and peft.
"""
import json
import pathlib
import sys
import warnings

import numpy
import peft
import torch
import transformers


def load(folder):
    adapter = folder / "adapter_config.json"
    base = json.loads(adapter.read_text())["base_model_name_or_path"] if adapter.is_file() else folder
    model, info = transformers.AutoModelForCausalLM.from_pretrained(
        base, dtype=torch.float32, attn_implementation="eager", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"], info
    if adapter.is_file():
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message=".*missing.*")  # PEFT only warns of keys that it does not find
            model = peft.PeftModel.from_pretrained(model, folder)
    return model.eval()


def logprobs(model, tokens):
    scores = model(torch.tensor([tokens])).logits[0].float().log_softmax(-1)
    return [None] + scores[:-1].gather(1, torch.tensor(tokens[1:])[:, None])[:, 0].tolist()


def check_lm(folder, scored):
    model = load(folder)
    worst = 0.0
    for line in scored.read_text().splitlines():
        line = json.loads(line)
        expected = logprobs(model, line["tokens"])
        worst = max([worst] + [abs(a - b) for a, b in zip(line["logprobs"][1:], expected[1:])])
    assert worst < 1e-4, worst
    return worst


def check_embedder(folder, texts, vectors):
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    found = numpy.load(vectors)
    worst = 0.0
    for text, vector in zip(texts.read_text().splitlines(), found, strict=True):
        tokens = tokenizer(text, return_tensors="pt", truncation=False)
        hidden = model(**tokens).last_hidden_state[0]
        worst = max(worst, (hidden.mean(0) - torch.tensor(vector)).abs().max().item())
    assert worst < 1e-5, worst
    return worst


def write_expected(path, model):
    generator = torch.Generator().manual_seed(5)
    vocabulary = model.config.vocab_size
    with path.open("w") as out:
        for length in (3, 17, 40):
            tokens = torch.randint(vocabulary, (length,), generator=generator).tolist()
            out.write(json.dumps({"tokens": tokens, "logprobs": logprobs(model, tokens)}) + "\n")


def write(base, out):
    out.mkdir(parents=True)
    generator = torch.Generator().manual_seed(4)
    model = load(base)
    last = f"layers.{model.config.num_hidden_layers - 1}."
    for name, weight in model.named_parameters():
        if last in name or "lm_head" in name or name.endswith("model.norm.weight"):
            weight.data += 0.1 * torch.randn(weight.shape, generator=generator)
    model.to(torch.bfloat16).save_pretrained(out / "sharded", max_shard_size="40KB")
    assert (out / "sharded" / "model.safetensors.index.json").is_file()
    write_expected(out / "sharded.jsonl", load(out / "sharded"))

    model = load(base)
    targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "lm_head"]
    config = peft.LoraConfig(r=3, lora_alpha=12, lora_dropout=0.0, task_type="CAUSAL_LM", target_modules=targets)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = peft.get_peft_model(model, config)
        for name, weight in model.named_parameters():
            if "lora_" in name:
                weight.data = 0.1 * torch.randn(weight.shape, generator=generator)
        model.save_pretrained(out / "adapter")
    write_expected(out / "adapter.jsonl", model.eval())


@torch.no_grad()
def main():
    transformers.logging.set_verbosity_error()
    if sys.argv[1] == "write":
        write(*map(pathlib.Path, sys.argv[2:4]))
        return
    lm, scored, embedder, texts, vectors = map(pathlib.Path, sys.argv[2:7])
    print(f"log-probabilities within {check_lm(lm, scored):.1e}, vectors within {check_embedder(embedder, texts, vectors):.1e}")


if __name__ == "__main__":
    main()
