"""Raw reviews to sessions, in pandas: what `langptune prepare` has to agree with.

    python tests/reference/prepare_reference.py --reviews R.jsonl.gz --metadata M.jsonl.gz --lm DIR --embedder DIR \\
        [--template chat|gemma] [--k 5] [--history 4] [--item-limit 512] [--prompt-limit 1024] [--test-percent 20] \\
        [--instruction TEXT] [--hash-only] > expected.json

Written from the description of the data (docs of the dataset format), not from the Rust code. Of the Hugging Face folders
only the tokenizer and the chat template are read; truncation and padding are switched off. Where the description leaves a
choice, this is the reading:

- A metadata line with a null title is dropped before anything else, also before repeated ids are looked for; an empty title
  stays. Reviews of such items are reviews of unknown items.
- Description: null or missing is `None`; an empty list is the empty text. Categories: null or missing is `None`, an empty
  list the empty text. Price: null or missing is `None`, a string itself, a number as Python prints it (9.99, 10.0, 15).
  Ratings are printed as floats (5 as 5.0); a null average rating is `None`.
- The k-core counts rows, so a repeated (user, item) counts twice. The history is the first rows of a session, repeats
  included.
- A prompt's tokens are those of the whole rendered form, markers and the one BOS included.
- `users_too_long`: users of the first k-core that have a long item anywhere or too long a prompt.
- `users` and `items`: after the second k-core, so users = train_users + test_users_before_cold_items. `items_in_train` is
  the size of the final, renumbered catalogue.
- "In the order of their first interaction": by the first row of each user in the table sorted by time, ties in file order.
  That (a cold item included) is also the order of users everywhere below, and for numbering the items.
- The test share is the exact ceil(users x percent / 100).
- After the cold items are gone a test session needs k rows.
- The second length check looks at all users, train as well: the second k-core can move a history too. The catalogue is
  numbered before it, so an item that only a user dropped there has keeps its place.
- `train_users` counts before users without target are dropped, `train_users_with_target` after; val gets the floor of half
  of the test users that remain (after the second length check and the target rule), test the rest. The draw between val
  and test is the product's own: both stand under the split "heldout" here.

Output: `counts`; `items` (parent_asin in catalogue order, embedder tokens); `sessions` (user order, train before heldout:
user_id, split, history, target, prompt_tokens); `sessions_sha256` over their canonical form: for each session one line
`user_id TAB split TAB history joined by "," TAB target NEWLINE` in UTF-8; `prompts_sha256` likewise over
`user_id TAB prompt ids joined by "," NEWLINE`, `items_sha256` over `parent_asin TAB item text's ids joined by "," NEWLINE`.
--hash-only leaves `items` and `sessions` out.
"""
import argparse
import gzip
import hashlib
import json
import pathlib
import sys

import pandas as pd
import transformers
from tokenizers import Tokenizer

from recorded import made_with

INSTRUCTION = ("The user has rated (out of 5.0) and reviewed following movies and TV shows arranged chronologically from "
               "the oldest (top) to the newest (bottom). Please provide a high-level summary of the user preference in "
               "detail.")


def read_lines(path):
    with (gzip.open if str(path).endswith(".gz") else open)(path, "rt", encoding="utf-8", newline="\n") as lines:
        return [json.loads(line) for line in lines]


def rating_text(value):
    return "None" if value is None else str(float(value))


def item_text(row):
    description = "None" if row.get("description") is None else " ".join(row["description"])
    categories = "None" if row.get("categories") is None else ", ".join(row["categories"])
    price = "None" if row.get("price") is None else str(row["price"])
    return (f"Title: {row['title']}\nDescription: (average rating: {rating_text(row.get('average_rating'))}) {description}\n"
            f"Category: {categories}\nPrice: {price}")


class Texts:
    """Prompts and item texts as token ids."""

    def __init__(self, lm, embedder, template, instruction):
        self.embedder, self.lm = plain_tokenizer(embedder), plain_tokenizer(lm)
        self.template, self.instruction = template, instruction
        self.chat = transformers.AutoTokenizer.from_pretrained(lm)

    def item_ids(self, text):
        return self.embedder.encode(text).ids

    def prompt(self, rows, item_texts):
        parts = [self.instruction]
        parts += [f"{item_texts[r.item]}\nReview from the user: (rating: {rating_text(r.rating)}) {r.text}" for r in rows]
        return "\n\n".join(parts)

    def prompt_ids(self, prompt):
        if self.template == "gemma":
            rendered = f"<bos><start_of_turn>user\n{prompt}<end_of_turn>\n<start_of_turn>model"
        else:
            rendered = self.chat.apply_chat_template([{"role": "user", "content": prompt}], tokenize=False,
                                                     add_generation_prompt=True)
        return self.lm.encode(rendered, add_special_tokens=False).ids


def plain_tokenizer(folder):
    tokenizer = Tokenizer.from_file(str(pathlib.Path(folder) / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def k_core(rows, k):
    while True:
        before = len(rows)
        rows = rows[rows.groupby("user")["user"].transform("size") >= k]
        rows = rows[rows.groupby("item")["item"].transform("size") >= k]
        if len(rows) == before:
            return rows


def sessions_of(rows):
    """Users in the order of their first row; each one's rows in the order of the table."""
    return {user: list(group.itertuples()) for user, group in rows.groupby("user", sort=False)}


def too_long_prompts(sessions, texts, item_texts, history, limit):
    return {u for u, rows in sessions.items() if len(texts.prompt_ids(texts.prompt(rows[:history], item_texts))) > limit}


def target_of(items, history):
    return next((item for item in items[history:] if item not in items[:history]), None)


def prepare(args):
    texts = Texts(args.lm, args.embedder, args.template, args.instruction)
    metadata = [m for m in read_lines(args.metadata) if m["title"] is not None]
    item_texts = {m["parent_asin"]: item_text(m) for m in metadata}
    if len(item_texts) != len(metadata):
        sys.exit("metadata: a parent_asin is repeated")
    long_items = {item for item, text in item_texts.items() if len(texts.item_ids(text)) > args.item_limit}

    reviews = read_lines(args.reviews)
    rows = pd.DataFrame({"user": [r["user_id"] for r in reviews], "item": [r["parent_asin"] for r in reviews],
                         "rating": [r["rating"] for r in reviews], "time": [r["timestamp"] for r in reviews],
                         "text": [r["text"] for r in reviews]})
    counts = {"reviews_read": len(rows)}
    rows = rows[rows["item"].isin(item_texts)]
    counts["reviews_with_metadata"] = len(rows)
    rows = k_core(rows, args.k).sort_values("time", kind="stable")
    counts |= {"users_after_first_kcore": rows["user"].nunique(), "items_after_first_kcore": rows["item"].nunique(),
               "items_too_long": len(long_items)}

    long_prompt = too_long_prompts(sessions_of(rows), texts, item_texts, args.history, args.prompt_limit)
    has_long_item = set(rows.loc[rows["item"].isin(long_items), "user"])
    counts["users_too_long"] = len(long_prompt | has_long_item)
    by_rule = {"users_with_long_item_only": len(has_long_item - long_prompt),
               "users_with_long_prompt_only": len(long_prompt - has_long_item),
               "users_with_both": len(long_prompt & has_long_item)}
    rows = rows[~rows["user"].isin(long_prompt | has_long_item)]
    by_rule["users_before_second_kcore"] = rows["user"].nunique()
    rows = k_core(rows, args.k)
    counts |= {"users": rows["user"].nunique(), "items": rows["item"].nunique()}

    users = list(rows["user"].unique())
    test_count = -(-len(users) * args.test_percent // 100)
    train_users, test_users = users[:len(users) - test_count], set(users[len(users) - test_count:])
    train, test = rows[rows["user"].isin(train_users)], rows[rows["user"].isin(test_users)]
    counts |= {"train_users": len(train_users), "test_users_before_cold_items": test_count}

    warm = test[test["item"].isin(train["item"])]
    by_rule["test_rows_of_cold_items"] = len(test) - len(warm)
    enough = warm.groupby("user")["user"].transform("size") >= args.k
    by_rule["test_users_left_with_too_few"] = len(test_users) - warm[enough]["user"].nunique()
    train_sessions = sessions_of(train)
    test_sessions = {u: s for u, s in sessions_of(test).items() if u in set(warm[enough]["user"])}
    warm_sessions = sessions_of(warm[enough])
    # The order of users is that of their first interaction, a cold item included.
    moved = {u: warm_sessions[u] for u in test_sessions}
    by_rule["test_users_with_moved_history"] = sum(
        [r.item for r in moved[u][:args.history]] != [r.item for r in s[:args.history]] for u, s in test_sessions.items())
    catalogue = list(dict.fromkeys(row.item for s in train_sessions.values() for row in s))
    by_rule["items_in_train"] = len(catalogue)

    kept = {}
    for split, of_split in (("train", train_sessions), ("heldout", moved)):
        now_long = too_long_prompts(of_split, texts, item_texts, args.history, args.prompt_limit)
        now_long |= {u for u, s in of_split.items()
                     if len(texts.item_ids(item_texts[s[args.history - 1].item])) > args.item_limit}
        by_rule[f"{split}_users_too_long_again"] = len(now_long)
        by_rule[f"{split}_users_without_target"] = 0
        kept[split] = {u: s for u, s in of_split.items() if u not in now_long}

    sessions, prompts = [], []
    for split, of_split in kept.items():
        for user, session in of_split.items():
            items = [row.item for row in session]
            target = target_of(items, args.history)
            if target is None:
                by_rule[f"{split}_users_without_target"] += 1
                continue
            ids = texts.prompt_ids(texts.prompt(session[:args.history], item_texts))
            sessions.append({"user_id": user, "split": split, "history": items[:args.history], "target": target,
                             "prompt_tokens": len(ids)})
            prompts.append((user, ids))
    held = sum(s["split"] == "heldout" for s in sessions)
    counts |= {"train_users_with_target": len(sessions) - held, "val_users": held // 2, "test_users": held - held // 2}

    item_ids = {item: texts.item_ids(item_texts[item]) for item in catalogue}
    result = {"made_with": made_with(__file__, "pandas", "tokenizers", "transformers", "jinja2"), "options": options(args),
              "counts": counts, "more_counts": by_rule}
    if not args.hash_only:
        result["items"] = [{"parent_asin": item, "tokens": len(item_ids[item])} for item in catalogue]
        result["sessions"] = sessions
    result["sessions_sha256"] = sha256(
        f"{s['user_id']}\t{s['split']}\t{','.join(s['history'])}\t{s['target']}\n" for s in sessions)
    result["prompts_sha256"] = sha256(f"{user}\t{','.join(map(str, ids))}\n" for user, ids in prompts)
    result["items_sha256"] = sha256(f"{item}\t{','.join(map(str, item_ids[item]))}\n" for item in catalogue)
    return result


def options(args):
    named = ("template", "k", "history", "item_limit", "prompt_limit", "test_percent", "instruction")
    return {name: getattr(args, name) for name in named}


def sha256(lines):
    return hashlib.sha256("".join(lines).encode("utf-8")).hexdigest()


def arguments(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("reviews", "metadata", "lm", "embedder"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--template", choices=("chat", "gemma"), default="chat")
    for name, default in (("k", 5), ("history", 4), ("item-limit", 512), ("prompt-limit", 1024), ("test-percent", 20)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--instruction", default=INSTRUCTION)
    parser.add_argument("--hash-only", action="store_true")
    return parser.parse_args(argv)


if __name__ == "__main__":
    json.dump(prepare(arguments()), sys.stdout, ensure_ascii=False, indent=1)
    print()
