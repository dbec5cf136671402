"""LoRA adapter folders as PEFT writes them, with the logits of the adapted model.

    python tests/reference/tiny_models.py     (first: the models that are adapted)
    python tests/reference/lora_adapters.py

writes tests/fixtures/adapters/{gemma,llama_untied}/: adapter_config.json and adapter_model.safetensors of a random
adapter (r 4, alpha 8, so scale 2) on q, k, v, o, gate, up, down and lm_head of the tiny model of the same name;
expected.safetensors with float32 `adapted.N` and `base.N` [tokens, vocab] (the adapter on and switched off), and
expected.json with the token ids and the names that PEFT wrote.

With an adapter on the head PEFT also writes the head's own weight, under the name of the wrapped layer
(`base_model.model.lm_head.base_layer.weight`); expected.json lists what this version wrote beyond A and B as `beyond_lora`.
The base weights in these files equal those of the model. In the tied Gemma the adapter changes the head alone: the
embedding is used as it was loaded.
"""
import json
import shutil
import warnings

import peft
import torch
import transformers
from safetensors.torch import load_file, save_file

from recorded import FIXTURES, made_with, write_json

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "lm_head"]


def load_base(name):
    folder = FIXTURES / "models" / name
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    model.name_or_path = model.config._name_or_path = f"tests/fixtures/models/{name}"
    return model


def adapt(name, seed):
    config = peft.LoraConfig(r=4, lora_alpha=8, lora_dropout=0.0, bias="none", task_type="CAUSAL_LM",
                             target_modules=TARGETS)
    model = peft.get_peft_model(load_base(name), config).eval()
    generator = torch.Generator().manual_seed(seed)
    for parameter_name, weight in sorted(model.named_parameters()):
        if "lora_" in parameter_name:
            weight.data.copy_(0.3 * torch.randn(weight.shape, generator=generator) / weight.shape[-1] ** 0.5)
    return model


@torch.no_grad()
def record(name, seed):
    folder = FIXTURES / "adapters" / name
    shutil.rmtree(folder, ignore_errors=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = adapt(name, seed)
        model.save_pretrained(folder)
    (folder / "README.md").unlink()
    config = json.loads((folder / "adapter_config.json").read_text())
    config["target_modules"].sort()  # a set in PEFT, so in any order
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n")

    sequences = json.loads((FIXTURES / "models" / name / "expected.json").read_text())["sequences"][1:]
    tensors = {}
    for i, s in enumerate(sequences):
        ids = torch.tensor([s])
        tensors[f"adapted.{i}"] = model(ids).logits[0]
        with model.disable_adapter():
            tensors[f"base.{i}"] = model(ids).logits[0].clone()
        assert (tensors[f"adapted.{i}"] - tensors[f"base.{i}"]).abs().mean() > 0.1, "the adapter must matter"
    save_file(tensors, folder / "expected.safetensors")

    written = load_file(folder / "adapter_model.safetensors")
    beyond = sorted(n for n in written if "lora_" not in n)
    write_json(folder / "expected.json", {
        "made_with": made_with(__file__, "torch", "transformers", "peft", "safetensors"),
        "beyond_lora": beyond, "names": sorted(written), "sequences": sequences})

    again = peft.PeftModel.from_pretrained(load_base(name), folder).eval()
    assert torch.equal(again(torch.tensor([sequences[0]])).logits[0], tensors["adapted.0"])
    print("wrote", folder, "beyond A and B:", beyond)


if __name__ == "__main__":
    for seed, name in enumerate(("gemma", "llama_untied")):
        record(name, 21 + seed)
