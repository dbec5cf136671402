"""The reinforcement loss, the contrastive loss, their gradients and AdamW steps, in PyTorch.

    python tests/reference/tiny_models.py && python tests/reference/lora_adapters.py     (first)
    python tests/reference/training_steps.py [NAME...]

writes tests/fixtures/training/ (without names, all of)

- rl_gemma_lora.{json,safetensors}: the tiny Gemma with the recorded adapter; its A and B train
- rl_llama_last1.{json,safetensors}: the tiny untied Llama; its last block, final norm and lm_head train
- rl_llama_full.{json,safetensors}: the tiny Llama with biases; every parameter trains, its tied embedding too
- infonce_bert.{json,safetensors}: the tiny BERT, CLS and mean pooling; every parameter trains
- rewards.json: total rewards and whitening on given numbers

What is computed (y1, y2: the two responses of a user; n users):

    logprob(token) = log_softmax(logits / temperature)[token], at the position before it
    log pi(y)      = sum of logprob over all tokens of the response, its EOS included
    pair loss      = ([log pi(y1) - log pi_old(y1)] - [log pi(y2) - log pi_old(y2)] - eta (R1 - R2))^2
    loss           = mean of the pair losses over the n users
    entropy        = of softmax(logits / temperature), at the position before each response token
    InfoNCE        = mean over rows of cross-entropy of S / tau with the diagonal as labels,
                     S = normalise(pool(profiles)) . normalise(pool(targets))^T
    total reward   = reward - kl_coef (log pi_old - log pi_ref)
    whitened       = (R - mean) / sqrt(population variance + 1e-8)

Losses and gradients are computed in float64 from the float32 weights (the norms too, which transformers would round to
float32; the cosines and sines of the rotary embedding stay transformers' float32 ones) and stored rounded to float32;
the .json has them in full, and under `float32_apart` how far a plain float32 run is: the largest over all tensors
of |g32 - g64| / |g64| (2-norms). `log_pi_old` and the rewards are given numbers, not computed.

Names in the .safetensors: `grad_t1.NAME` and `grad_t0.7.NAME`, the loss's gradients at temperatures 1 and 0.7 (InfoNCE:
`grad_cls.NAME`, `grad_mean.NAME`), NAME as in the weight files; `STEPS.1.NAME` = (w1 - w0)/lr and
`STEPS.2.NAME` = (w2 - w1)/lr of two AdamW steps from the recorded weights, whose gradients are, as given tensors,
`grad_t1` in step 1 and `grad_t0.7` in step 2 (so the optimizer is tested apart from the model). STEPS is a key of
`adamw` in the .json, which has the settings. In float32 a weight near 1 is rounded by up to 6e-8, that is 6e-5 of an
update of size lr = 1e-3: compare norms or large weights at the recorded lr = 0.1 instead.
"""
import contextlib
import sys

import torch
import torch.nn.functional as F
import transformers
from safetensors.torch import save_file
from transformers import BertModel
from transformers.models.gemma.modeling_gemma import GemmaRMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from recorded import FIXTURES, made_with, write_json

TRAINING = FIXTURES / "training"
MADE_WITH = made_with(__file__, "torch", "transformers", "safetensors")
LENGTHS = [(7, 4, 6), (12, 5, 5), (5, 1, 8), (20, 7, 2)]  # prompt, y1, y2 of each user
TEMPERATURES = {"t1": 1.0, "t0.7": 0.7}
OLD_APART = [(0.8, -1.2), (-1.4, 0.5), (0.5, 2.1), (-0.9, -2.7)]  # log pi_old is log pi plus about this
REWARDS = [(0.9, 0.25), (-2.1, 0.4), (0.0, 0.0), (1.3, -1.6)]
ETA = 0.8
ADAMW = {
    "adamw_gemma": {"lr": 1e-3, "eps": 1e-6, "betas": (0.9, 0.999), "weight_decay": 0.01},
    "adamw_gemma_large": {"lr": 0.1, "eps": 1e-6, "betas": (0.9, 0.999), "weight_decay": 0.01},
    "adamw_llama": {"lr": 1e-3, "eps": 1e-6, "betas": (0.9, 0.95), "weight_decay": 1e-6},
    "adamw_llama_large": {"lr": 0.1, "eps": 1e-6, "betas": (0.9, 0.95), "weight_decay": 1e-6},
}


@contextlib.contextmanager
def norms_in_own_dtype():
    """RMSNorms that stay in float64 where transformers' own go through float32."""
    def scaled(self, x):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + (self.eps if hasattr(self, "eps") else self.variance_epsilon))

    saved = GemmaRMSNorm.forward, LlamaRMSNorm.forward
    GemmaRMSNorm.forward = lambda self, x: scaled(self, x) * (1.0 + self.weight)
    LlamaRMSNorm.forward = lambda self, x: scaled(self, x) * self.weight
    try:
        yield
    finally:
        GemmaRMSNorm.forward, LlamaRMSNorm.forward = saved


def numbers(tensor):
    return [float(f"{x:.12g}") for x in tensor.detach().double().flatten().tolist()]


def load_lm(name):
    return transformers.AutoModelForCausalLM.from_pretrained(
        FIXTURES / "models" / name, dtype=torch.float32, attn_implementation="eager").eval()


def gemma_lora():
    """The adapted Gemma and its trained tensors by their names in adapter_model.safetensors."""
    from peft import PeftModel
    model = PeftModel.from_pretrained(load_lm("gemma"), FIXTURES / "adapters" / "gemma", is_trainable=True).eval()
    return model, {n.replace(".default", ""): p for n, p in model.named_parameters() if p.requires_grad}


def llama_last1():
    """The untied Llama and its trained tensors: last block, final norm, head."""
    model = load_lm("llama_untied")
    last = f"model.layers.{model.config.num_hidden_layers - 1}."
    trained = {}
    for name, weight in model.named_parameters():
        weight.requires_grad_(name.startswith((last, "model.norm.", "lm_head.")))
        if weight.requires_grad:
            trained[name] = weight
    return model, trained


def llama_full():
    """The Llama with biases, all of it; the head is the embedding."""
    model = load_lm("llama_biased")
    return model, dict(model.named_parameters())


@torch.no_grad()
def users(model, seed):
    """Fixed prompts, and responses sampled from the model, so that their log-probabilities are of a usual size and
    float32 can tell them apart. No token is 0, Gemma's padding, whose embedding PyTorch gives no gradient."""
    generator = torch.Generator().manual_seed(seed)
    batch = []
    for prompt_length, *response_lengths in LENGTHS:
        prompt = torch.randint(1, model.config.vocab_size, (prompt_length,), generator=generator).tolist()
        responses = []
        for length in response_lengths:
            tokens = list(prompt)
            for _ in range(length):
                chances = model(torch.tensor([tokens])).logits[0, -1].softmax(-1)
                chances[0] = 0
                tokens.append(torch.multinomial(chances, 1, generator=generator).item())
            responses.append(tokens[prompt_length:])
        batch.append({"prompt": prompt, "responses": responses})
    return batch


def response_tokens(model, user, which, temperature):
    """Log-probability and entropy of each token of a response, computed on the single unpadded sequence."""
    prompt, response = user["prompt"], user["responses"][which]
    logits = model(torch.tensor([prompt + response])).logits[0, len(prompt) - 1:-1] / temperature
    log_probs = F.log_softmax(logits, -1)
    entropy = -(log_probs.exp() * log_probs).sum(-1)
    return log_probs.gather(1, torch.tensor(response)[:, None])[:, 0], entropy


def rl_loss(model, batch, temperature, log_pi_old):
    """The loss and what it was made of."""
    parts = {"token_logprobs": [], "entropy": [], "log_pi": []}
    pair_losses = []
    for user, old, reward in zip(batch, log_pi_old, REWARDS):
        tokens = [response_tokens(model, user, which, temperature) for which in (0, 1)]
        log_pi = [t[0].sum() for t in tokens]
        pair_losses.append(((log_pi[0] - old[0]) - (log_pi[1] - old[1]) - ETA * (reward[0] - reward[1])) ** 2)
        parts["token_logprobs"].append([numbers(t[0]) for t in tokens])
        parts["entropy"].append([numbers(t[1]) for t in tokens])
        parts["log_pi"].append([numbers(x)[0] for x in log_pi])
    loss = torch.stack(pair_losses).mean()
    return loss, parts | {"log_pi_old": log_pi_old, "pair_losses": numbers(torch.stack(pair_losses)), "loss": numbers(loss)[0]}


def gradients(loss, trained):
    return dict(zip(trained, torch.autograd.grad(loss, list(trained.values()))))


def apart(low, high):
    return max(((low[n].double() - high[n]).norm() / high[n].norm()).item() for n in high)


def adamw_steps(start, grads, settings):
    """(w1 - w0)/lr and (w2 - w1)/lr for two given gradients, in float64 from float32 values."""
    weights = {n: w.double().clone().requires_grad_() for n, w in start.items()}
    optimizer = torch.optim.AdamW(list(weights.values()), **settings)
    steps = []
    for grad in grads:
        before = {n: w.detach().clone() for n, w in weights.items()}
        for n, w in weights.items():
            w.grad = grad[n].double()
        optimizer.step()
        steps.append({n: (w.detach() - before[n]) / settings["lr"] for n, w in weights.items()})
    return steps


def record_rl(name, load, seed, optimizers, *packages):
    model, trained = load()
    batch = users(model, seed)
    start = {n: w.detach().clone() for n, w in trained.items()}
    with torch.no_grad():
        given = {key: [[round((response_tokens(model, u, k, t)[0].sum() + OLD_APART[i][k]).item(), 2) for k in (0, 1)]
                       for i, u in enumerate(batch)] for key, t in TEMPERATURES.items()}
    grads32 = {key: gradients(rl_loss(model, batch, t, given[key])[0], trained) for key, t in TEMPERATURES.items()}

    model.double()
    results, tensors, grads = {}, {}, {}
    with norms_in_own_dtype():
        for key, temperature in TEMPERATURES.items():
            loss, parts = rl_loss(model, batch, temperature, given[key])
            grad = gradients(loss, trained)
            grads[key] = {n: g.float() for n, g in grad.items()}
            tensors |= {f"grad_{key}.{n}": g for n, g in grads[key].items()}
            results[key] = {"temperature": temperature, **parts, "float32_apart": apart(grads32[key], grad)}
            print(name, key, "loss", parts["loss"], "float32 apart", results[key]["float32_apart"])
    for label in optimizers:
        for i, step in enumerate(adamw_steps(start, [grads["t1"], grads["t0.7"]], ADAMW[label])):
            tensors |= {f"{label}.{i + 1}.{n}": s.float() for n, s in step.items()}

    TRAINING.mkdir(parents=True, exist_ok=True)
    save_file({n: t.contiguous() for n, t in tensors.items()}, TRAINING / f"{name}.safetensors")
    for user, reward in zip(batch, REWARDS):
        user["rewards"] = list(reward)
    write_json(TRAINING / f"{name}.json", {
        "made_with": MADE_WITH | made_with(__file__, *packages), "stored": "float64 results, the tensors rounded to float32", "eta": ETA,
        "trained": {n: list(w.shape) for n, w in trained.items()}, "users": batch, "results": results,
        "adamw": {label: ADAMW[label] | {"betas": list(ADAMW[label]["betas"])} for label in optimizers}})


def infonce(model, pairs, pooling, tau):
    def vectors(sequences):
        longest = max(map(len, sequences))
        ids = torch.tensor([s + [0] * (longest - len(s)) for s in sequences])
        mask = torch.tensor([[1] * len(s) + [0] * (longest - len(s)) for s in sequences])
        hidden = model(ids, attention_mask=mask).last_hidden_state
        weight = mask[..., None].to(hidden.dtype)
        pooled = hidden[:, 0] if pooling == "cls" else (hidden * weight).sum(1) / weight.sum(1)
        return F.normalize(pooled, dim=-1)

    scores = vectors([p["profile"] for p in pairs]) @ vectors([p["target"] for p in pairs]).T
    return F.cross_entropy(scores / tau, torch.arange(len(pairs))), scores


def record_infonce():
    generator = torch.Generator().manual_seed(33)
    lengths = [(9, 5), (21, 8), (4, 17), (13, 13), (2, 30), (16, 3)]
    pairs = [{side: torch.randint(1, 320, (n,), generator=generator).tolist() for side, n in zip(("profile", "target"), two)}
             for two in lengths]
    tau, results, tensors = 0.1, {}, {}
    for pooling in ("cls", "mean"):
        grads = []
        for dtype in (torch.float32, torch.float64):
            model = BertModel.from_pretrained(FIXTURES / "models" / "bert", dtype=torch.float32,
                                              attn_implementation="eager", add_pooling_layer=False).eval().to(dtype)
            trained = dict(model.named_parameters())
            loss, scores = infonce(model, pairs, pooling, tau)
            used = torch.autograd.grad(loss, list(trained.values()), allow_unused=True)
            grads.append({f"bert.{n}": g for n, g in zip(trained, used) if g is not None})
        largest = max(g.norm() for g in grads[1].values())
        zero = sorted(n for n, g in grads[1].items() if g.norm() < 1e-12 * largest)
        compared = {n: g for n, g in grads[1].items() if n not in zero}
        tensors |= {f"grad_{pooling}.{n}": g.float().contiguous() for n, g in compared.items()}
        results[pooling] = {
            "scores": [numbers(row) for row in scores], "loss": numbers(loss)[0],
            "without_gradient": sorted(f"bert.{n}" for n, g in zip(trained, used) if g is None),
            "zero_up_to_rounding": zero, "float32_apart": apart(grads[0], compared)}
        print("infonce", pooling, results[pooling]["loss"], "float32 apart", results[pooling]["float32_apart"], zero)
    save_file(tensors, TRAINING / "infonce_bert.safetensors")
    write_json(TRAINING / "infonce_bert.json", {
        "made_with": MADE_WITH, "stored": "float64 results, the tensors rounded to float32", "tau": tau, "pairs": pairs,
        "results": results,
        "note": "a key's bias shifts all scores of a row alike, so its gradient is zero but for rounding and is not stored; "
                "token_type_embeddings row 1 and the positions and tokens that do not occur have gradient 0"})


def record_rewards():
    reward = [0.5, 0.0, 1.0, 0.315, 0.0, 0.63, 0.2, 0.0]
    old = [-41.25, -37.5, -120.0, -80.5, -12.125, -64.0, -55.75, -99.0]
    ref = [-42.0, -37.5, -118.5, -81.75, -12.0, -66.5, -55.0, -97.25]
    cases = []
    for kl_coef in (0.0, 0.2):
        total = torch.tensor(reward, dtype=torch.float64) - kl_coef * (torch.tensor(old).double() - torch.tensor(ref).double())
        whitened = (total - total.mean()) / torch.sqrt(total.var(unbiased=False) + 1e-8)
        cases.append({"kl_coef": kl_coef, "total": numbers(total), "whitened": numbers(whitened)})
    same = torch.full((8,), 0.25, dtype=torch.float64)
    constant = (same - same.mean()) / torch.sqrt(same.var(unbiased=False) + 1e-8)
    write_json(TRAINING / "rewards.json", {"made_with": MADE_WITH, "reward": reward, "log_pi_old": old, "log_pi_ref": ref,
                                           "cases": cases, "constant": {"total": numbers(same), "whitened": numbers(constant)}})


RECORDS = {
    "rl_gemma_lora": lambda name: record_rl(name, gemma_lora, 31, list(ADAMW), "peft"),
    "rl_llama_last1": lambda name: record_rl(name, llama_last1, 32, ["adamw_llama", "adamw_llama_large"]),
    "rl_llama_full": lambda name: record_rl(name, llama_full, 34, []),
    "infonce_bert": lambda name: record_infonce(),
    "rewards": lambda name: record_rewards(),
}

if __name__ == "__main__":
    for name in sys.argv[1:] or RECORDS:
        RECORDS[name](name)
