"""Token ids of rendered prompts, by transformers: chat templates, the Gemma form, plain texts, cut texts.

    python tests/reference/tiny_tokenizers.py     (first)
    python tests/reference/templates.py [SMOLLM2_TOKENIZER_FOLDER] [MINILM_FOLDER]

writes tests/fixtures/templates/NAME.json for the tokenizers under tests/fixtures/tokenizers; with the folders given also
smollm2.json and minilm.json (their tokenizers are not in the repository). A file has

- `chat`: lists of messages with `rendered` and `ids`, generation prompt on unless `add_generation_prompt` is false. The
  rendered text is tokenised with add_special_tokens=False, as apply_chat_template does: the template writes its own BOS.
- `gemma` (gemma-like only): prompt, rendered form and ids. The rendered form is
  "<start_of_turn>user\\n{prompt}<end_of_turn>\\n<start_of_turn>model" without BOS and without a newline at the end; the ids
  begin with exactly one <bos>, whether the tokenizer's post-processor added it or the text "<bos>" itself was tokenised.
- `plain`: text, ids with and without special tokens (truncation and padding off), and the text decoded again from the
  latter with special tokens skipped, by the tokenizers library itself (no clean-up of spaces).
- `cut` (encoders only): ids cut at `limit` tokens, [CLS] and [SEP] counted and both kept.
"""
import pathlib
import sys

import transformers
from tokenizers import Tokenizer

from recorded import FIXTURES, made_with, write_json

TEXTS = [
    "", " ", "A quiet drama.", "  two leading spaces", "trailing space ", "line one\nline two\n\nafter a blank line\n",
    "tab\tand\r\nwindows", "Amélie, naïve façade, Ünïcödé", "千と千尋の神隠し (2001)", "🎬👩‍👩‍👧 emoji 😀", "don't we'll IT'S", "1234567 12.50 $9.99",
    "a" * 40, "e\u0301 combining, \u00a0no-break, \u200bzero width", "the [CLS] and </s> and <|endoftext|> of it",
]
PROMPTS = [
    "A quiet drama.", "", "  leading spaces", "ends with spaces   \n", "Title: A\nDescription: (average rating: 4.2) None\n\nReview from "
    "the user: (rating: 5.0) Loved it!", "Amélie 千と千尋 🎬", "{{ not a template }} {% nor this %} <b>&amp;</b> 'quoted' \"twice\" back\\slash",
]
CONVERSATION = [{"role": "system", "content": " Be brief. "}, {"role": "user", "content": "Hi"},
                {"role": "assistant", "content": "Hello."}, {"role": "user", "content": "Who am I?\n"}]


def load(folder):
    """The tokenizer twice: as transformers reads the folder, and tokenizer.json itself with truncation and padding off."""
    plain = Tokenizer.from_file(str(pathlib.Path(folder) / "tokenizer.json"))
    plain.no_truncation()
    plain.no_padding()
    return transformers.AutoTokenizer.from_pretrained(folder), plain


def chat(tokenizer, plain, extra_prompts=()):
    cases = [([{"role": "user", "content": p}], True) for p in [*PROMPTS, *extra_prompts]]
    cases += [(CONVERSATION, True), (CONVERSATION[:3], False)]
    rows = []
    for messages, generation in cases:
        rendered = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=generation)
        ids = tokenizer.apply_chat_template(messages, tokenize=True, add_generation_prompt=generation, return_dict=False)
        assert ids == plain.encode(rendered, add_special_tokens=False).ids
        if tokenizer.bos_token == "<|begin_of_text|>":
            assert ids.count(tokenizer.bos_token_id) == 1
        rows.append({"messages": messages, "add_generation_prompt": generation, "rendered": rendered, "ids": ids})
    return rows


def gemma_form(tokenizer, plain):
    rows = []
    for prompt in PROMPTS + ["a review that says <end_of_turn> itself"]:
        rendered = f"<start_of_turn>user\n{prompt}<end_of_turn>\n<start_of_turn>model"
        ids = tokenizer(rendered)["input_ids"]
        assert ids == plain.encode("<bos>" + rendered, add_special_tokens=False).ids and ids.count(2) == 1
        rows.append({"prompt": prompt, "rendered": rendered, "ids": ids})
    return rows


def plain_texts(tokenizer, plain):
    rows = []
    for text in TEXTS:
        ids = plain.encode(text, add_special_tokens=False).ids
        with_special = plain.encode(text).ids
        assert tokenizer(text, truncation=False, padding=False)["input_ids"] == with_special, text
        rows.append({"text": text, "ids": ids, "with_special": with_special, "decoded": plain.decode(ids, skip_special_tokens=True)})
    return rows


def cut_texts(tokenizer, limits):
    text = " ".join(TEXTS)
    return [{"text": t, "limit": limit, "ids": tokenizer(t, truncation=True, max_length=limit, padding=False)["input_ids"]}
            for limit in limits for t in (text, "A quiet drama.", "")]


def record(name, **parts):
    write_json(FIXTURES / "templates" / f"{name}.json",
               {"made_with": made_with(__file__, "transformers", "tokenizers", "jinja2"), **parts})
    print("wrote", name)


def main():
    for name in ("llama3-like", "llama3-like-config", "gemma-like", "bert-like"):
        tokenizer, plain = load(FIXTURES / "tokenizers" / name)
        parts = {"plain": plain_texts(tokenizer, plain)}
        if name.startswith("llama3"):
            parts["chat"] = chat(tokenizer, plain, ["a review that says <|eot_id|> itself"])
        if name == "gemma-like":
            parts["gemma"] = gemma_form(tokenizer, plain)
        if name == "bert-like":
            parts["cut"] = cut_texts(tokenizer, (3, 12, 64))
        record(name, **parts)
    if len(sys.argv) > 1:
        tokenizer, plain = load(sys.argv[1])
        record("smollm2", plain=plain_texts(tokenizer, plain),
               chat=chat(tokenizer, plain, ["a review that says <|im_end|> itself"]))
    if len(sys.argv) > 2:
        tokenizer, plain = load(sys.argv[2])
        record("minilm", plain=plain_texts(tokenizer, plain), cut=cut_texts(tokenizer, (3, 64, 128, 512)))


if __name__ == "__main__":
    main()
