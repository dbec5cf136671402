"""Tiny tokenizers in Hugging Face form, and two complete tiny model folders for end-to-end tests.

    python tests/reference/tiny_tokenizers.py

writes under tests/fixtures/tokenizers/

- gemma-like          BPE with byte fallback, spaces as U+2581, <pad> <eos> <bos> <unk> <start_of_turn> <end_of_turn> with
                      Gemma's ids 0-3, a post-processor that adds <bos>; 480 tokens at most, so it fits the tiny gemma
- llama3-like         byte-level BPE, split by a regular expression, a post-processor that adds <|begin_of_text|>; the
                      template lies in chat_template.jinja, over several lines, and writes the BOS out
- llama3-like-config  the same tokens; the template is the string "chat_template" of tokenizer_config.json and says bos_token
- bert-like           lower-casing WordPiece with [CLS] and [SEP]; truncation and padding to 16 are switched on in
                      tokenizer.json, as in MiniLM's: a reader has to switch them off; 300 tokens at most

and under tests/fixtures/models/

- tiny-lm             random Llama (2 layers, hidden 64, GQA, rope scaling, tied, BF16) with llama3-like, generation_config
                      with two EOS ids
- tiny-embedder       random BERT (2 layers, hidden 48, 512 positions, F32) with bert-like and 1_Pooling (mean)
"""
import collections
import json
import re
import shutil

import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import BertConfig, BertModel, LlamaConfig, LlamaForCausalLM

from recorded import FIXTURES
from tiny_models import MODELS, edit_json, fresh, randomise, write_pooling

TOKENIZERS = FIXTURES / "tokenizers"
CORPUS = """
The user has rated (out of 5.0) and reviewed following movies and TV shows arranged chronologically from the oldest (top)
to the newest (bottom). Please provide a high-level summary of the user preference in detail.
Title: The Last Harbour (1994)
Description: (average rating: 4.2) A widowed fisherman and his daughter shelter a stranger through one long winter. None
Category: Movies & TV, Drama, Romance, Comedy, Thriller, Horror, Action & Adventure, Science Fiction, Documentary
Price: 9.99
Review from the user: (rating: 5.0) I loved this film, the acting is great and the story is never slow. Would watch again.
Review from the user: (rating: 1.0) Not what I expected: too long, poorly written, and the ending makes no sense at all.
Title: Night Train to Lisbon: Season 2
Description: (average rating: 3.7) Two detectives follow a trail of letters across Europe in this mystery series. None
The user enjoys quiet dramas with strong characters, dislikes violence, and prefers older films by the same director.
"""

# Written out over lines: trim_blocks and lstrip_blocks, which transformers switches on, decide what stays of the breaks.
TEMPLATE_FILE = """\
{%- if messages[0]['role'] == 'system' %}
    {%- set system = messages[0]['content'] | trim %}
    {%- set turns = messages[1:] %}
{%- else %}
    {%- set system = '' %}
    {%- set turns = messages %}
{%- endif %}
{{- '<|begin_of_text|>' }}
{%- if system %}
    {{- '<|start_header_id|>system<|end_header_id|>\\n\\n' + system + '<|eot_id|>' }}
{%- endif %}
{% for turn in turns %}
    {% if turn['role'] not in ['user', 'assistant'] %}
        {{ raise_exception('unknown role ' + turn['role']) }}
    {% endif %}
{{ '<|start_header_id|>' + turn['role'] + '<|end_header_id|>\\n\\n' + turn['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' -}}
{%- endif %}
"""
TEMPLATE_STRING = (
    "{{ bos_token }}{% for m in messages %}{{ '<|start_header_id|>' ~ m.role ~ '<|end_header_id|>\\n\\n' }}"
    "{{ m.content }}{{ eot if eot is defined else '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}")
LLAMA_SPECIAL = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
LLAMA_SPLIT = r"'\p{L}{1,2}\b|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


def write_config(folder, **config):
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")


def fresh_tokenizer(name):
    folder = TOKENIZERS / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def gemma_like():
    folder = fresh_tokenizer("gemma-like")
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"]
    byte_tokens = [f"<0x{b:02X}>" for b in range(256)]
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    trained.normalizer = normalizers.Replace(" ", "▁")
    trained.train_from_iterator(CORPUS.splitlines(keepends=True), trainers.BpeTrainer(
        vocab_size=480 - len(special) - len(byte_tokens), show_progress=False))
    model = json.loads(trained.to_str())["model"]
    pieces = sorted(model["vocab"], key=model["vocab"].get)
    vocab = {token: i for i, token in enumerate(special + byte_tokens + pieces)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[tuple(m) for m in model["merges"]], unk_token="<unk>",
                                     fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens(special)
    tokenizer.post_processor = processors.TemplateProcessing("<bos> $A", "<bos> $A <bos>:1 $B:1", [("<bos>", 2)])
    tokenizer.save(str(folder / "tokenizer.json"))
    write_config(folder, tokenizer_class="PreTrainedTokenizerFast", bos_token="<bos>", eos_token="<eos>",
                 pad_token="<pad>", unk_token="<unk>", add_bos_token=True, add_eos_token=False)


def llama3_tokenizer():
    tokenizer = Tokenizer(models.BPE(ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(LLAMA_SPLIT), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator([CORPUS], trainers.BpeTrainer(
        vocab_size=500 - len(LLAMA_SPECIAL), initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False))
    tokenizer.add_special_tokens(LLAMA_SPECIAL)  # after the ordinary tokens, as in Llama 3
    bos = LLAMA_SPECIAL[0]
    tokenizer.post_processor = processors.TemplateProcessing(
        f"{bos} $A", f"{bos} $A {bos}:1 $B:1", [(bos, tokenizer.token_to_id(bos))])
    return tokenizer


def llama3_like():
    tokenizer = llama3_tokenizer()
    common = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"}
    folder = fresh_tokenizer("llama3-like")
    tokenizer.save(str(folder / "tokenizer.json"))
    write_config(folder, **common)
    (folder / "chat_template.jinja").write_text(TEMPLATE_FILE)
    folder = fresh_tokenizer("llama3-like-config")
    tokenizer.save(str(folder / "tokenizer.json"))
    # Older files spell a special token as an object.
    common["bos_token"] = {"__type": "AddedToken", "content": "<|begin_of_text|>", "lstrip": False, "normalized": False,
                           "rstrip": False, "single_word": False}
    write_config(folder, **common, chat_template=TEMPLATE_STRING)


def wordpiece_vocab(size):
    """Letters, digits and marks, alone and continuing, then the corpus' commonest words, ends and beginnings of words.

    (The library's trainer breaks ties by chance, so that two runs write two vocabularies.)
    """
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    words = collections.Counter(re.findall(r"[a-z0-9]+", CORPUS.lower()))
    ends, starts = collections.Counter(), collections.Counter()
    for word, count in words.items():
        for n in (2, 3):
            if len(word) > n:
                ends["##" + word[-n:]] += count
                starts[word[:n]] += count
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"!\"$&'()+,-./:;?", *letters, *("##" + c for c in letters)]
    for counted, keep in ((words, 120), (ends, 60), (starts, size)):
        ranked = sorted((p for p in counted if p not in pieces), key=lambda p: (-counted[p], p))
        pieces += ranked[:keep]
    return {piece: i for i, piece in enumerate(pieces[:size])}


def bert_like():
    folder = fresh_tokenizer("bert-like")
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer = Tokenizer(models.WordPiece(wordpiece_vocab(300), unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens(special)
    tokenizer.post_processor = processors.TemplateProcessing(
        "[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", [("[CLS]", 2), ("[SEP]", 3)])
    tokenizer.enable_truncation(16)
    tokenizer.enable_padding(length=16, pad_id=0, pad_token="[PAD]")
    tokenizer.save(str(folder / "tokenizer.json"))
    write_config(folder, tokenizer_class="BertTokenizer", do_lower_case=True, cls_token="[CLS]", sep_token="[SEP]",
                 pad_token="[PAD]", unk_token="[UNK]", mask_token="[MASK]", model_max_length=512)


def copy_tokenizer(name, folder):
    for file in sorted((TOKENIZERS / name).iterdir()):
        shutil.copy(file, folder / file.name)


def tiny_lm():
    folder = fresh("tiny-lm")
    ids = {t: Tokenizer.from_file(str(TOKENIZERS / "llama3-like" / "tokenizer.json")).token_to_id(t) for t in LLAMA_SPECIAL}
    model = LlamaForCausalLM(LlamaConfig(
        vocab_size=512, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=4096, rms_norm_eps=1e-5, tie_word_embeddings=True,
        bos_token_id=ids["<|begin_of_text|>"], eos_token_id=ids["<|eot_id|>"],
        rope_parameters={"rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0,
                         "high_freq_factor": 4.0, "original_max_position_embeddings": 512}))
    randomise(model, 6)
    # As loaded, the random model would mostly repeat its last token: damp the embeddings beside the layers.
    model.get_input_embeddings().weight.data *= 0.3
    model.to(torch.bfloat16).save_pretrained(folder)
    edit_json(folder / "generation_config.json", eos_token_id=[ids["<|end_of_text|>"], ids["<|eot_id|>"]],
              bos_token_id=ids["<|begin_of_text|>"])
    copy_tokenizer("llama3-like", folder)


def tiny_embedder():
    folder = fresh("tiny-embedder")
    model = BertModel(BertConfig(
        vocab_size=300, hidden_size=48, num_hidden_layers=2, num_attention_heads=4, intermediate_size=80,
        max_position_embeddings=512, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0), add_pooling_layer=False)
    randomise(model, 7)
    model.save_pretrained(folder)
    write_pooling(folder, model.config.hidden_size)
    copy_tokenizer("bert-like", folder)


if __name__ == "__main__":
    for build in (gemma_like, llama3_like, bert_like, tiny_lm, tiny_embedder):
        build()
    for folder in sorted(TOKENIZERS.iterdir()):
        print(folder, Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab_size(), "tokens")
    print(MODELS / "tiny-lm", MODELS / "tiny-embedder")
