"""Checks an export of `langptune export-dataset` against the dataset that it was made from.

    python tests/reference/published_check.py DATASET EXPORT [--datasets]

DATASET is the folder of `langptune prepare`, EXPORT that of `langptune export-dataset`. Read with pyarrow alone: column names
and types as the published sets have them, indices, dense rows, padding on the side that the published scripts read it on, and
texts and token ids equal to the dataset's. With --datasets also through Python's `datasets`, by the calls that the published
training scripts make.
"""
import argparse
import json
import pathlib

import pyarrow as pa
import pyarrow.parquet as pq

SPLITS = ("train", "val", "test")
ITEM_TYPES = {"index": pa.int64(), "item_descriptions": pa.string(), "item_description_tokens": [pa.int64()]}
SESSION_TYPES = {
    "index": pa.int64(), "in_sess_item_idxs": [pa.int64()], "out_sess_item_idxs": [pa.int64()],
    "dense_in_sesses": [pa.float64()], "dense_out_sesses": [pa.float64()], "sess_descriptions": pa.string(),
    "sess_description": [pa.int64()], "ref_responses": pa.string(), "ref_response_mxbai": [pa.int64()],
}


def check_types(path, expected):
    schema = pq.read_schema(path)
    assert schema.names == list(expected), (path, schema.names)
    for name, kind in expected.items():
        found = schema.field(name).type
        if isinstance(kind, list):
            assert pa.types.is_list(found) and found.value_type == kind[0], (path, name, found)
        else:
            assert found == kind, (path, name, found)


def unpadded(row, pad, left):
    """The ids without the pad on one side; the pad must stand nowhere else."""
    ids = [token for token in row if token != pad]
    padding = [pad] * (len(row) - len(ids))
    assert row == (padding + ids if left else ids + padding)
    return ids


def places(row):
    assert set(row) <= {0.0, 1.0}
    return [place for place, value in enumerate(row) if value]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("dataset", type=pathlib.Path)
    parser.add_argument("export", type=pathlib.Path)
    parser.add_argument("--datasets", action="store_true")
    arguments = parser.parse_args()
    manifest = json.loads((arguments.dataset / "manifest.json").read_text())
    rules = manifest["rules"]
    token_column = {"gemma": "sess_description_gemma", "chat": "sess_description_llama"}[rules["template"]]
    types = {token_column if name == "sess_description" else name: kind for name, kind in SESSION_TYPES.items()}

    ours = pq.read_table(arguments.dataset / "items.parquet").to_pylist()
    path = arguments.export / "items/data/train-00000-of-00001.parquet"
    check_types(path, ITEM_TYPES)
    items = pq.read_table(path).to_pylist()
    assert [item["index"] for item in items] == list(range(len(ours)))
    for item, our in zip(items, ours, strict=True):
        assert item["item_descriptions"] == our["text"]
        assert len(item["item_description_tokens"]) == rules["max_item_tokens"]
        assert unpadded(item["item_description_tokens"], 0, left=False) == our["tokens"]

    pad = manifest["lm_tokenizer"]["vocabulary_size"]
    before, after = manifest["prompt_form"].split("{prompt}")
    for split in SPLITS:
        users = pq.read_table(arguments.dataset / f"users-{split}.parquet").to_pylist()
        path = arguments.export / f"sessions/data/{split}-00000-of-00001.parquet"
        check_types(path, types)
        sessions = pq.read_table(path).to_pylist()
        assert [session["index"] for session in sessions] == list(range(len(users)))
        for session, user in zip(sessions, users, strict=True):
            assert session["in_sess_item_idxs"] == user["history"] and session["out_sess_item_idxs"] == user["targets"]
            assert len(session["dense_in_sesses"]) == len(session["dense_out_sesses"]) == len(ours)
            assert places(session["dense_in_sesses"]) == sorted(set(user["history"]))
            assert places(session["dense_out_sesses"]) == sorted(set(user["targets"]))
            entries = [f"{ours[item]['text']}\nReview from the user: (rating: {rating}) {review}"
                       for item, rating, review in zip(user["history"], user["ratings"], user["reviews"], strict=True)]
            assert session["sess_descriptions"] == before + "\n\n".join([rules["instruction"], *entries]) + after
            assert len(session[token_column]) == rules["max_prompt_tokens"]
            assert unpadded(session[token_column], pad, left=True) == user["prompt_tokens"]
            last = user["history"][-1]
            assert session["ref_responses"] == ours[last]["text"]
            assert session["ref_response_mxbai"] == items[last]["item_description_tokens"]
        print(f"{split}: {len(users)} sessions are right")
    print(f"{len(items)} items are right")

    if arguments.datasets:
        from datasets import load_dataset

        for split in SPLITS:
            loaded = load_dataset(str(arguments.export / "sessions"), split=split)
            columns = ["index", "dense_in_sesses", "dense_out_sesses", token_column, "ref_response_mxbai"]
            batch = loaded.with_format("torch", columns=columns)[:2]
            assert batch[token_column].shape[1] == rules["max_prompt_tokens"]
            assert batch["dense_in_sesses"].shape[1] == len(items)
            print(f"datasets: {split} has {len(loaded)} rows")
        tokens = load_dataset(str(arguments.export / "items"), split="train").with_format(
            "torch", columns=["index", "item_description_tokens"])["item_description_tokens"]
        assert tuple(tokens[:].shape) == (len(items), rules["max_item_tokens"])
        print(f"datasets: {len(items)} items")


if __name__ == "__main__":
    main()
