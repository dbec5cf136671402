"""Log-probabilities of SmolLM2-135M-Instruct and vectors of all-MiniLM-L6-v2, by transformers in float32.

    python tests/reference/real_models.py MODELS_DIR

MODELS_DIR holds the two Hugging Face folders SmolLM2-135M-Instruct and all-MiniLM-L6-v2. Writes tests/fixtures/real/

- smollm2.json: for each text its token ids and `logprobs` (log-softmax of the logits, of each token given those before it; the
  first is null), the bf16 weights widened to float32. The second text is a rendered chat prompt; no special tokens are added.
- minilm.json: for each text its token ids ([CLS] and [SEP] included, cut at 512, no padding) and `vector`, the mean of the
  last hidden states over all its tokens, divided by its 2-norm. One text is longer than 512 tokens; one is empty.

Rounded to 7 digits after the point.
"""
import pathlib
import sys

import torch
import transformers

from recorded import FIXTURES, made_with, write_json

LM_TEXTS = [
    "The quick brown fox jumps over the lazy dog. In 1994, the film won three awards and was shown in over 40 countries.",
    "",  # replaced by a rendered chat prompt
    "Title: Amélie (2001)\nDescription: (average rating: 8.3) A shy waitress in Montmartre decides to change the lives of those "
    "around her.\nCategory: Movies & TV, Comedy, Romance\nPrice: None\n\n  def reward(rank):\n      return 1.0 / math.log2(1 + rank)\n"
    "千と千尋の神隠し 🎬 — and back to plain English again, where nothing much happens for a while.",
]
CHAT = "The user liked Toy Story and Finding Nemo. Summarise the user's taste in one sentence."
EMBEDDED_TEXTS = [
    "Toy Story (1995)", "", "A cowboy doll is profoundly threatened when a new spaceman figure supplants him as top toy.",
    "The user prefers quiet European dramas with strong female leads and dislikes violence.",
    "Title: GoldenEye (1995)\nDescription: (average rating: 7.2) Years after a friend and fellow 00 agent is killed, a secret "
    "space based weapons program is stolen.\nCategory: Movies & TV, Action, Thriller\nPrice: None",
    "Amélie naïve façade 千と千尋の神隠し 🎬", "toy story, toy story, TOY STORY!!!",
    "A long text about films and the people who watch them, with commas, numbers like 1994 and more. " * 40,
]


def rounded(tensor):
    return [round(x, 7) for x in tensor.tolist()]


@torch.no_grad()
def smollm2(folder):
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    texts = list(LM_TEXTS)
    texts[1] = tokenizer.apply_chat_template([{"role": "user", "content": CHAT}], tokenize=False, add_generation_prompt=True)
    rows = []
    for text in texts:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        log_probs = torch.log_softmax(model(torch.tensor([ids])).logits[0].double(), -1)
        chosen = log_probs[:-1].gather(1, torch.tensor(ids[1:])[:, None])[:, 0]
        rows.append({"text": text, "tokens": ids, "logprobs": [None, *rounded(chosen)]})
        print(len(ids), "tokens, mean log-probability", chosen.mean().item())
    return rows


@torch.no_grad()
def minilm(folder):
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    rows = []
    for text in EMBEDDED_TEXTS:
        ids = tokenizer(text, truncation=True, max_length=512, padding=False)["input_ids"]
        mean = model(torch.tensor([ids])).last_hidden_state[0].double().mean(0)
        rows.append({"text": text, "tokens": ids, "vector": rounded(mean / mean.norm())})
        print(len(ids), "tokens, first", rows[-1]["vector"][:3])
    return rows


if __name__ == "__main__":
    models = pathlib.Path(sys.argv[1])
    about = made_with(__file__, "torch", "transformers", "tokenizers")
    write_json(FIXTURES / "real" / "smollm2.json", {"made_with": about, "texts": smollm2(models / "SmolLM2-135M-Instruct")})
    write_json(FIXTURES / "real" / "minilm.json", {"made_with": about, "texts": minilm(models / "all-MiniLM-L6-v2")})
