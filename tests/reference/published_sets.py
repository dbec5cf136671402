"""Small sets in the layout in which LangPTune's authors publish prepared data, and what is in them.

    python tests/reference/published_sets.py

writes under tests/fixtures/published/

- gemma/         sessions as `push_to_hub` of two shards leaves them (data/train-00000-of-00002.parquet ...), 64-bit lists of
                 ids padded on the left, `sess_descriptions` with Gemma's turn markers
- items/         the items of both, data/train-00000-of-00001.parquet, indices from 0
- llama/         sessions and items in one folder, in other types (32-bit, large lists, large texts) and under other names
                 (train.parquet, validation/part-0.parquet, test.parquet, items.parquet), items in reverse order and numbered
                 from 1. `sess_descriptions` was decoded from the padded ids: it begins with [PAD]s, and has lost spaces as
                 transformers' clean-up does it
- expected.json  items (index, text, title, categories, embedder's ids), and for both sets and each split the index, the
                 history and the targets as places in the catalogue, ratings, reviews, the prompt and its ids, no padding

As the published scripts do, a token [PAD] is added to each tokenizer: the id after the vocabulary for the language models,
the existing 0 for the embedder. Dense rows are 64-bit floats, one entry an item.
"""
import shutil

import numpy
import pyarrow as pa
import pyarrow.parquet as pq
from tokenizers import AddedToken, Tokenizer
import jinja2

from recorded import FIXTURES, made_with, write_json

FOLDER = FIXTURES / "published"
PROMPT_LENGTH, ITEM_LENGTH = 1280, 192
INSTRUCTION = ("The user has rated (out of 5.0) and reviewed following movies and TV shows arranged chronologically from "
               "the oldest (top) to the newest (bottom). Please provide a high-level summary of the user preference in "
               "detail.")
TITLES = ["The Last Harbour (1994)", "Night Train to Lisbon: Season 2", "Amélie", "千と千尋の神隠し", "What ?  No !", "It 's a , b .",
          "A", "A B", "Do n't Look", "Title: Title", "Noir", "Last One"]
REVIEWS = ["I loved this film, the acting is great.", "Not what I expected : too long , poorly written .", "", "ok",
           "I do n't know , it 's fine !\n\nSecond paragraph (rating: 1.0) of it.", "Emoji 😀 and naïve façade",
           "ends with ) and ( brackets", "  two spaces before", "quoted ' here ' too"]


def items():
    rows = []
    for number, title in enumerate(TITLES):
        description = "None" if number == 3 else f"Story {number} , told slowly .  It is n't short."
        categories = ["None", "Movies & TV", "Movies & TV, Drama"][number % 3]
        price = ["None", "9.99", "15"][number % 3]
        text = (f"Title: {title}\nDescription: (average rating: {3.5 + number / 10:.1f}) {description}\n"
                f"Category: {categories}\nPrice: {price}")
        rows.append({"text": text, "title": title, "categories": [] if categories == "None" else categories.split(", ")})
    return rows


def sessions(split, count, random):
    rows = []
    for index in range(count):
        history = random.integers(0, len(TITLES), 4).tolist()
        if index == 1:
            history[2] = history[1]  # the same item twice, one after the other
        target = next(item for item in random.permutation(len(TITLES)).tolist() if item not in history)
        ratings = random.integers(1, 6, 4).astype(float).tolist()
        if index == 0:
            ratings[0] = 3.5
        reviews = [REVIEWS[number] for number in random.integers(0, len(REVIEWS), 4)]
        if split == "train" and index == 2:
            reviews[3] = "the end has spaces  \n"
        rows.append({"index": index, "history": history, "targets": [target], "ratings": ratings, "reviews": reviews})
    return rows


def prompt(session, catalogue):
    parts = [INSTRUCTION]
    for item, rating, review in zip(session["history"], session["ratings"], session["reviews"]):
        parts.append(f"{catalogue[item]['text']}\nReview from the user: (rating: {rating}) {review}")
    return "\n\n".join(parts)


def tokenizer(name):
    found = Tokenizer.from_file(str(FIXTURES / "tokenizers" / name / "tokenizer.json"))
    found.no_truncation()
    found.no_padding()
    found.add_special_tokens([AddedToken("[PAD]", special=True)])
    return found


def padded(ids, length, pad, left):
    assert len(ids) <= length, len(ids)
    padding = [pad] * (length - len(ids))
    return padding + ids if left else ids + padding


def cleaned_up(text):
    """The spaces that transformers' clean_up_tokenization takes away."""
    for spaced, tight in [(" .", "."), (" ?", "?"), (" !", "!"), (" ,", ","), (" ' ", "'"), (" n't", "n't"), (" 'm", "'m"),
                          (" 's", "'s"), (" 've", "'ve"), (" 're", "'re")]:
        text = text.replace(spaced, tight)
    return text


def gemma_turn(lm, text):
    rendered = f"<start_of_turn>user\n{text}<end_of_turn>\n<start_of_turn>model"
    return lm.encode(rendered).ids, rendered  # its post-processor adds <bos>


def llama_turn(lm, text):
    template = (FIXTURES / "tokenizers" / "llama3-like" / "chat_template.jinja").read_text()
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)
    rendered = environment.from_string(template).render(
        messages=[{"role": "user", "content": text}], add_generation_prompt=True)
    ids = lm.encode(rendered, add_special_tokens=False).ids
    pad = lm.token_to_id("[PAD]")
    text = lm.decode(padded(ids, PROMPT_LENGTH, pad, left=True), skip_special_tokens=False)
    return ids, cleaned_up(text)


def dense(indices):
    row = numpy.zeros(len(TITLES))
    row[indices] = 1
    return row.tolist()


def session_table(rows, types, token_column, first_item):
    integer, lists, text = types
    reference = lambda row: row["catalogue"][row["history"][-1]]
    columns = {
        "in_sess_item_idxs": ([[item + first_item for item in row["history"]] for row in rows], lists(integer)),
        "out_sess_item_idxs": ([[item + first_item for item in row["targets"]] for row in rows], lists(integer)),
        "dense_in_sesses": ([dense(row["history"]) for row in rows], lists(pa.float64())),
        "dense_out_sesses": ([dense(row["targets"]) for row in rows], lists(pa.float64())),
        "sess_descriptions": ([row["rendered"] for row in rows], text),
        token_column: ([row["padded"] for row in rows], lists(integer)),
        "ref_responses": ([reference(row)["text"] for row in rows], text),
        "ref_response_mxbai": ([reference(row)["padded"] for row in rows], lists(integer)),
        "index": ([row["index"] for row in rows], pa.int64()),
    }
    return pa.table({name: pa.array(values, kind) for name, (values, kind) in columns.items()})


def item_table(rows, indices, types):
    integer, lists, text = types
    return pa.table({
        "index": pa.array(indices, pa.int64()),
        "item_descriptions": pa.array([row["text"] for row in rows], text),
        "item_description_tokens": pa.array([row["padded"] for row in rows], lists(integer)),
    })


def save(table, *path):
    path = FOLDER.joinpath(*path)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)


def main():
    shutil.rmtree(FOLDER, ignore_errors=True)
    random = numpy.random.default_rng(7)
    embedder = tokenizer("bert-like")
    catalogue = items()
    for row in catalogue:
        row["tokens"] = embedder.encode(row["text"]).ids
        row["padded"] = padded(row["tokens"], ITEM_LENGTH, embedder.token_to_id("[PAD]"), left=False)
    splits = {split: sessions(split, count, random) for split, count in [("train", 7), ("val", 3), ("test", 2)]}
    turns = {"gemma": ("gemma-like", gemma_turn), "llama": ("llama3-like", llama_turn)}
    expected = {"made_with": made_with(__file__, "tokenizers", "pyarrow", "jinja2"), "instruction": INSTRUCTION,
                "prompt_length": PROMPT_LENGTH, "item_length": ITEM_LENGTH,
                "items": [{key: row[key] for key in ("text", "title", "categories", "tokens")} for row in catalogue]}
    tables = {}
    for name, (lm_name, turn) in turns.items():
        lm = tokenizer(lm_name)
        expected[name] = {}
        for split, rows in splits.items():
            recorded = []
            for row in rows:
                text = prompt(row, catalogue)
                ids, rendered = turn(lm, text)
                row.update(rendered=rendered, catalogue=catalogue,
                           padded=padded(ids, PROMPT_LENGTH, lm.token_to_id("[PAD]"), left=True))
                said, reviews = text, row["reviews"]
                if name == "llama":  # its template trims
                    said, reviews = text.strip(), [*reviews[:3], reviews[3].rstrip()]
                recorded.append({**{key: row[key] for key in ("index", "history", "targets", "ratings")},
                                 "reviews": reviews, "prompt": said, "prompt_tokens": ids})
            expected[name][split] = recorded
            usual = (pa.int64(), pa.list_, pa.string())
            other = (pa.int32(), pa.large_list, pa.large_string())
            tables[name, split] = session_table(rows, usual if name == "gemma" else other, f"sess_description_{name}",
                                                0 if name == "gemma" else 1)
    train = tables["gemma", "train"]
    save(train.slice(0, 4), "gemma", "data", "train-00000-of-00002.parquet")
    save(train.slice(4), "gemma", "data", "train-00001-of-00002.parquet")
    save(tables["gemma", "val"], "gemma", "data", "val-00000-of-00001.parquet")
    save(tables["gemma", "test"], "gemma", "data", "test-00000-of-00001.parquet")
    usual = (pa.int64(), pa.list_, pa.string())
    save(item_table(catalogue, range(len(catalogue)), usual), "items", "data", "train-00000-of-00001.parquet")
    save(tables["llama", "train"], "llama", "train.parquet")
    save(tables["llama", "val"], "llama", "validation", "part-0.parquet")
    save(tables["llama", "test"], "llama", "test.parquet")
    other = (pa.int32(), pa.large_list, pa.large_string())
    save(item_table(catalogue[::-1], range(len(catalogue), 0, -1), other), "llama", "items.parquet")
    write_json(FOLDER / "expected.json", expected)


if __name__ == "__main__":
    main()
