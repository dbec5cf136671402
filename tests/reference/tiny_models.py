"""Tiny random models in Hugging Face layout, with what transformers computes from them.

    python tests/reference/tiny_models.py [NAME...]

writes tests/fixtures/models/NAME/ for (without names, all of)

- gemma         Gemma 1: head_dim 16 with 4 heads on hidden 48 (so heads x head_dim is not hidden), one KV head, tied
                head, F32, sharded with model.safetensors.index.json
- llama         Llama 3.1: 4 heads, 2 KV heads, llama3 rope scaling that already matters at 40 tokens, tied, BF16;
                the config keeps `rope_parameters` as transformers 5 writes it
- llama_untied  Llama 2: plain rope, untied head, F32; the config is rewritten to the older style with top-level
                `rope_theta`, `rope_scaling: null` and `torch_dtype`
- llama_biased  Llama with biases on all linear layers of its blocks, tied, F32
- bert          BERT with the prefix `bert.`, the I64 buffer `bert.embeddings.position_ids` and no pooler, F32
- bert_pooled   BERT without the prefix, with a pooler and 1_Pooling/config.json that asks for the mean, F16

NAME/expected.safetensors holds float32 results of the model loaded with dtype float32 and attention "eager":
`logits.N` [tokens, vocab] for the language models; for BERT `last_hidden.N` [tokens, hidden], `cls.N` [hidden],
`mean.N` [hidden] (mean over all tokens), `pooler.N` [hidden] where there is one, none normalised, each from the single
sequence; and `batch.last_hidden` [sequences, longest, hidden] from the right-padded batch with its attention mask (rows
past a sequence's length mean nothing and are stored as 0). NAME/expected.json has the token ids. Token type ids are 0.
"""
import json
import shutil
import sys

import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import (BertConfig, BertModel, GemmaConfig, GemmaForCausalLM, LlamaConfig, LlamaForCausalLM)

from recorded import FIXTURES, made_with, write_json

MODELS = FIXTURES / "models"
LM_LENGTHS = (1, 9, 40)
BERT_LENGTHS = (3, 12, 30)


def randomise(model, seed):
    """Fill every weight so that no part of the model is idle: gains away from 1 (Gemma: from 0), biases away from 0."""
    generator = torch.Generator().manual_seed(seed)
    is_gemma = isinstance(model, GemmaForCausalLM)  # scales its tied embeddings up: keep them from drowning the layers
    embedding_size, gain = (0.2, 2.0) if is_gemma else (0.4, 1.2)
    for name, weight in model.named_parameters():
        noise = torch.randn(weight.shape, generator=generator)
        is_norm = name.endswith("norm.weight") or "LayerNorm.weight" in name
        if is_norm:
            value = (0.0 if is_gemma else 1.0) + 0.25 * noise
        elif name.endswith("bias"):
            value = 0.2 * noise
        elif "embed" in name or "lm_head" in name:
            value = embedding_size * noise
        else:
            value = gain * noise / weight.shape[-1] ** 0.5
        weight.data.copy_(value)


def token_sequences(lengths, vocab, seed):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(0, vocab, (n,), generator=generator).tolist() for n in lengths]


def fresh(name):
    folder = MODELS / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def edit_json(path, **changes):
    value = json.loads(path.read_text())
    for key, new in changes.items():
        if new is ...:
            value.pop(key, None)
        else:
            value[key] = new
    path.write_text(json.dumps(value, indent=2) + "\n")


def record(folder, sequences, tensors, **about):
    save_file({k: v.contiguous() for k, v in tensors.items()}, folder / "expected.safetensors")
    write_json(folder / "expected.json", {"made_with": made_with(__file__, "torch", "transformers", "safetensors"),
                                          **about, "sequences": sequences})


@torch.no_grad()
def record_lm(folder, seed):
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    sequences = token_sequences(LM_LENGTHS, model.config.vocab_size, seed)
    logits = {f"logits.{i}": model(torch.tensor([s])).logits[0] for i, s in enumerate(sequences)}
    last = logits[f"logits.{len(sequences) - 1}"]
    assert last.std() > 0.5 and last.argmax(-1).unique().numel() > 10, "logits must vary"
    record(folder, sequences, logits)


@torch.no_grad()
def record_bert(folder, seed, pooler):
    model = BertModel.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager", add_pooling_layer=pooler)
    sequences = token_sequences(BERT_LENGTHS, model.config.vocab_size, seed)
    tensors = {}
    for i, s in enumerate(sequences):
        out = model(torch.tensor([s]))
        hidden = out.last_hidden_state[0]
        tensors |= {f"last_hidden.{i}": hidden, f"cls.{i}": hidden[0].clone(), f"mean.{i}": hidden.mean(0)}
        if pooler:
            tensors[f"pooler.{i}"] = out.pooler_output[0]
    longest = max(map(len, sequences))
    ids = torch.tensor([s + [0] * (longest - len(s)) for s in sequences])
    mask = torch.tensor([[1] * len(s) + [0] * (longest - len(s)) for s in sequences])
    batch = model(ids, attention_mask=mask).last_hidden_state * mask[..., None]
    apart = max((batch[i, :len(s)] - tensors[f"last_hidden.{i}"]).abs().max().item() for i, s in enumerate(sequences))
    assert apart < 1e-5, apart
    tensors["batch.last_hidden"] = batch
    record(folder, sequences, tensors, batch_pad_id=0)


def gemma():
    folder = fresh("gemma")
    model = GemmaForCausalLM(GemmaConfig(
        vocab_size=512, hidden_size=48, intermediate_size=80, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=1, head_dim=16, max_position_embeddings=512, pad_token_id=0, eos_token_id=1, bos_token_id=2))
    randomise(model, 1)
    model.save_pretrained(folder, max_shard_size="120KB")
    assert len(list(folder.glob("model-*-of-*.safetensors"))) >= 2
    record_lm(folder, 11)


def llama():
    folder = fresh("llama")
    model = LlamaForCausalLM(LlamaConfig(
        vocab_size=320, hidden_size=48, intermediate_size=80, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=256, rms_norm_eps=1e-5, tie_word_embeddings=True,
        rope_parameters={"rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0,
                         "high_freq_factor": 4.0, "original_max_position_embeddings": 32}))
    randomise(model, 2)
    model.to(torch.bfloat16).save_pretrained(folder)
    record_lm(folder, 12)
    assert_rope_scaling_matters(folder)


@torch.no_grad()
def assert_rope_scaling_matters(folder):
    """A reader that ignored the scaling would have to fail on the longest recorded sequence."""
    config = transformers.AutoConfig.from_pretrained(folder)
    config.rope_parameters = {"rope_type": "default", "rope_theta": config.rope_parameters["rope_theta"]}
    plain = LlamaForCausalLM.from_pretrained(folder, config=config, dtype=torch.float32, attn_implementation="eager")
    sequences = json.loads((folder / "expected.json").read_text())["sequences"]
    scaled = load_file(folder / "expected.safetensors")[f"logits.{len(sequences) - 1}"]
    assert (plain(torch.tensor([sequences[-1]])).logits[0] - scaled).abs().max() > 0.1


def llama_untied():
    folder = fresh("llama_untied")
    model = LlamaForCausalLM(LlamaConfig(
        vocab_size=300, hidden_size=48, intermediate_size=80, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=4, max_position_embeddings=256, rms_norm_eps=1e-6, tie_word_embeddings=False,
        rope_parameters={"rope_type": "default", "rope_theta": 5000.0}))
    randomise(model, 3)
    model.save_pretrained(folder)
    edit_json(folder / "config.json", rope_parameters=..., dtype=..., head_dim=..., rope_theta=5000.0,
              rope_scaling=None, torch_dtype="float32", transformers_version="4.37.0")
    reread = transformers.AutoConfig.from_pretrained(folder)
    assert reread.rope_parameters["rope_theta"] == 5000.0, reread
    record_lm(folder, 13)


def llama_biased():
    folder = fresh("llama_biased")
    model = LlamaForCausalLM(LlamaConfig(
        vocab_size=120, hidden_size=24, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=256, rms_norm_eps=1e-6, tie_word_embeddings=True,
        attention_bias=True, mlp_bias=True, rope_parameters={"rope_type": "default", "rope_theta": 10000.0}))
    assert sum(name.endswith("bias") for name, _ in model.named_parameters()) == 14
    randomise(model, 6)
    model.save_pretrained(folder)
    record_lm(folder, 16)


def bert_config():
    return BertConfig(vocab_size=320, hidden_size=48, num_hidden_layers=2, num_attention_heads=4, intermediate_size=80,
                      max_position_embeddings=64, type_vocab_size=2, hidden_dropout_prob=0.0,
                      attention_probs_dropout_prob=0.0)


def bert():
    folder = fresh("bert")
    model = BertModel(bert_config(), add_pooling_layer=False)
    randomise(model, 4)
    model.save_pretrained(folder)
    weights = {f"bert.{name}": w for name, w in load_file(folder / "model.safetensors").items()}
    weights["bert.embeddings.position_ids"] = torch.arange(model.config.max_position_embeddings)[None]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    record_bert(folder, 14, pooler=False)


def bert_pooled():
    folder = fresh("bert_pooled")
    model = BertModel(bert_config())
    randomise(model, 5)
    model.to(torch.float16).save_pretrained(folder)
    write_pooling(folder, model.config.hidden_size)
    record_bert(folder, 15, pooler=True)


def write_pooling(folder, hidden):
    """The file by which sentence-transformers says that a sentence's vector is the mean over its tokens."""
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({
        "word_embedding_dimension": hidden, "pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True,
        "pooling_mode_max_tokens": False, "pooling_mode_mean_sqrt_len_tokens": False}, indent=2) + "\n")


if __name__ == "__main__":
    for build in (gemma, llama, llama_untied, llama_biased, bert, bert_pooled):
        if len(sys.argv) == 1 or build.__name__ in sys.argv[1:]:
            build()
            print("wrote", MODELS / build.__name__)
