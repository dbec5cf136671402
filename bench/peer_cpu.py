#!/usr/bin/env python3
"""Sampling with SmolLM2 and embedding with MiniLM by transformers on the CPU, in float32: the other side of our figures.

    python bench/peer_cpu.py MODELS_DIR --threads 2 [--runs 5] [--inputs DIR] [--metadata meta_Movies_and_TV.jsonl.gz]

MODELS_DIR holds the Hugging Face folders SmolLM2-135M-Instruct and all-MiniLM-L6-v2. Prints one JSON object a line:

- sample: batch 8, prompts of about 256 tokens (left-padded), 64 new tokens each, temperature 1, no top-k or top-p, EOS
  ignored, transformers' generate with its KV cache. tokens_per_s counts new tokens over the whole call, prefill included.
- prefill: the same call with one new token, so that the decoding alone can be told apart.
- embed: 256 texts, token ids at hand, sorted by length, batches of 32 padded to their longest, mean pooling, normalised.
- embed_with_tokenizer: the same from the texts.

Each is run once to warm up, then --runs times; `seconds` lists all of them, the rates come from the median. The inputs are written
to DIR (prompts.jsonl: {"tokens": [...]}, texts.jsonl: {"text": ...}) or, when they lie there already, read from it, so that
another program can be timed on the same. Texts come from the item texts of --metadata, else they are generated.
"""
import argparse
import gzip
import json
import pathlib
import random
import statistics
import sys
import time

import torch
import transformers

BATCH, PROMPT_TOKENS, NEW_TOKENS = 8, 256, 64
TEXTS, EMBED_BATCH, EMBED_LIMIT = 256, 32, 512


def timed(name, runs, call, **rates):
    """Print the median time of `call` and, for each of `rates`, how many of it were done in a second."""
    call()
    seconds = []
    for _ in range(runs):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    median = statistics.median(seconds)
    row = {"name": name, "median_s": round(median, 4), **{rate: round(count / median, 2) for rate, count in rates.items()},
           "seconds": [round(s, 4) for s in seconds]}
    print(json.dumps(row), flush=True)


def item_texts(metadata):
    with gzip.open(metadata, "rt", encoding="utf-8") as lines:
        for line in lines:
            item = json.loads(line)
            if item["title"]:
                yield (f"Title: {item['title']}\nDescription: (average rating: {item['average_rating']}) "
                       f"{' '.join(item['description'])}\nCategory: {', '.join(item['categories'])}\nPrice: {item['price']}")


def generated_texts():
    words = ("a the of and quiet harbour winter detective stranger daughter island ending music story acting director season "
             "comedy drama horror family war love ghost city night road film with who finds returns to save her his").split()
    choose = random.Random(0)
    while True:
        yield "Title: " + " ".join(choose.choices(words, k=choose.randint(40, 130)))


def inputs(folder, metadata, tokenizer):
    """The prompts' token ids and the texts, from `folder` where they are, else made and written there."""
    prompts_file, texts_file = folder / "prompts.jsonl", folder / "texts.jsonl"
    if not (prompts_file.exists() and texts_file.exists()):
        source = item_texts(metadata) if metadata else generated_texts()
        texts = [next(source) for _ in range(TEXTS)]
        prompts, lengths = [], random.Random(1)
        for n in range(BATCH):
            content = "\n\n".join(["Summarise the preferences of a user who liked these films.", *texts[4 * n:4 * n + 4]])
            ids = tokenizer.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True, return_dict=False)
            length = PROMPT_TOKENS - lengths.randint(0, 16)
            prompts.append(ids[:length - 8] + ids[-8:])
        folder.mkdir(parents=True, exist_ok=True)
        prompts_file.write_text("".join(json.dumps({"tokens": p}) + "\n" for p in prompts))
        texts_file.write_text("".join(json.dumps({"text": t}) + "\n" for t in texts))
    prompts = [json.loads(line)["tokens"] for line in prompts_file.read_text().splitlines()]
    texts = [json.loads(line)["text"] for line in texts_file.read_text().splitlines()]
    return prompts, texts


@torch.no_grad()
def time_sampling(folder, prompts, runs):
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    longest = max(map(len, prompts))
    ids = torch.tensor([[0] * (longest - len(p)) + p for p in prompts])
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts])

    def generate(new):
        config = transformers.GenerationConfig(max_new_tokens=new, min_new_tokens=new, do_sample=True, temperature=1.0, top_k=0,
                                               top_p=1.0, pad_token_id=0, eos_token_id=None)
        out = model.generate(input_ids=ids, attention_mask=mask, generation_config=config)
        assert out.shape[1] == longest + new

    timed("sample", runs, lambda: generate(NEW_TOKENS), tokens_per_s=len(prompts) * NEW_TOKENS)
    timed("prefill", runs, lambda: generate(1), tokens_per_s=sum(map(len, prompts)))


@torch.no_grad()
def time_embedding(folder, texts, runs):
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder, dtype=torch.float32).eval()

    def tokenise():
        return tokenizer(texts, truncation=True, max_length=EMBED_LIMIT, padding=False)["input_ids"]

    def embed(rows):
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        vectors = torch.empty(len(rows), model.config.hidden_size)
        for start in range(0, len(order), EMBED_BATCH):
            part = order[start:start + EMBED_BATCH]
            longest = len(rows[part[-1]])
            ids = torch.tensor([rows[i] + [0] * (longest - len(rows[i])) for i in part])
            mask = torch.tensor([[1] * len(rows[i]) + [0] * (longest - len(rows[i])) for i in part])
            hidden = model(input_ids=ids, attention_mask=mask).last_hidden_state
            mean = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
            vectors[part] = torch.nn.functional.normalize(mean, dim=-1)
        return vectors

    rows = tokenise()
    timed("embed", runs, lambda: embed(rows), texts_per_s=len(texts), tokens_per_s=sum(map(len, rows)))
    timed("embed_with_tokenizer", runs, lambda: embed(tokenise()), texts_per_s=len(texts))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=pathlib.Path)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--inputs", type=pathlib.Path, default=pathlib.Path("bench-inputs.tmp"))
    parser.add_argument("--metadata", type=pathlib.Path)
    parser.add_argument("--only", choices=("sample", "embed"))
    args = parser.parse_args()
    if args.metadata and not args.metadata.exists():
        print(f"{args.metadata} is not there: texts are generated", file=sys.stderr)
        args.metadata = None
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    lm, embedder = args.models / "SmolLM2-135M-Instruct", args.models / "all-MiniLM-L6-v2"
    prompts, texts = inputs(args.inputs, args.metadata, transformers.AutoTokenizer.from_pretrained(lm))
    print(json.dumps({"torch": torch.__version__, "transformers": transformers.__version__, "threads": args.threads,
                      "prompt_tokens": [len(p) for p in prompts], "texts": len(texts)}), flush=True)
    if args.only != "embed":
        time_sampling(lm, prompts, args.runs)
    if args.only != "sample":
        time_embedding(embedder, texts, args.runs)


if __name__ == "__main__":
    main()
