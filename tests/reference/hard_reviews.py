"""A generated raw set in which every rule of the preparation has something to do, and what has to come of it.

    python tests/reference/tiny_tokenizers.py     (first)
    python tests/reference/hard_reviews.py

writes tests/fixtures/raw/hard/: reviews.jsonl.gz and meta.jsonl.gz in the layout of Amazon Reviews 2023; expected.json,
the answer of prepare_reference.py for the tiny LM (chat template) and the tiny embedder with the default options; and
expected-gemma.json, its answer for the Gemma form with the gemma-like tokenizer and smaller limits. The script stops unless
every count that a rule can raise is above 0.

The hard cases: ties in time, within a user and between users' first interactions, where file order decides; the same user and
item twice; items with null title, null or missing or empty description, null or empty categories, null, numeric and textual
price, null average rating, empty title; reviews of unknown items; item texts over 512 embedder tokens, in and outside the
history; prompts over 1024 LM tokens; users and items that fall only in the second k-core, or whose history it moves; late
users with items that no
train user has, in the history (so that the first four move), so many that too few rows are left, or such that a long review
moves into the history; users whose later items are all in the history; unicode in ids, titles and reviews, escaped or not;
special tokens and template syntax spelled in a review; fields that nobody asked for.
"""
import gzip
import io
import json
import random
import shutil

from prepare_reference import arguments, prepare
from recorded import FIXTURES, write_json

HARD = FIXTURES / "raw" / "hard"
START, DAY = 1_300_000_000_000, 86_400_000
WORDS = ("quiet harbour winter train letters detective stranger daughter fisherman island ending music slow tense funny long "
         "story acting director season episode comedy drama horror family space war love ghost summer city night road").split()
TITLES = ["Amélie", "千と千尋の神隠し", "Ödipussi", "🎬 The Reel", "Ночной дозор", "L'Été meurtrier", "\"Quoted\" & <i>tagged</i>",
          "Tab\there", "Two\nlines", "  Padded  ", "Back\\slash", "e\u0301tude", "\u2028separator", "50% {{ off }}"]


class Generator:
    def __init__(self, seed):
        self.random = random.Random(seed)
        self.reviews = []

    def words(self, n):
        return " ".join(self.random.choice(WORDS) for _ in range(n))

    def review(self, user, item, time, text=None):
        text = self.words(self.random.randint(0, 12)) if text is None else text
        self.reviews.append({"rating": self.random.choice([1.0, 2.0, 3.0, 4.0, 5.0]), "title": self.words(2), "text": text,
                             "images": [], "asin": item, "parent_asin": item, "user_id": user, "timestamp": time,
                             "helpful_vote": self.random.randint(0, 3), "verified_purchase": True})

    def session(self, user, items, start, texts=None, step=DAY):
        for i, item in enumerate(items):
            self.review(user, item, start + i * step, (texts or {}).get(i))


def metadata(g, popular, cold, long, rare):
    rows = []
    for n, item in enumerate(popular + cold + rare):
        title = TITLES[n] if n < len(TITLES) else g.words(3).title()
        rows.append({"main_category": "Movies & TV", "title": title, "average_rating": round(g.random.uniform(1, 5), 1),
                     "rating_number": n, "features": [], "description": [g.words(8), g.words(5)],
                     "price": round(g.random.uniform(1, 30), 2), "categories": ["Movies & TV", g.words(1).title()],
                     "details": {"Director": g.words(2), "Nested": {"a": [1, None]}}, "parent_asin": item})
    rows[20]["description"] = None
    del rows[21]["description"]
    rows[22]["description"] = []
    rows[23]["description"] = ["", g.words(3), ""]
    rows[24]["categories"] = None
    rows[25]["categories"] = []
    rows[26]["price"] = None
    rows[27]["price"] = 10.0
    rows[28]["price"] = "from 9.99"
    rows[29]["average_rating"] = None
    rows[30]["title"] = ""
    rows[31]["price"] = "—"
    for item in long:
        rows.append({"title": "Long " + item, "average_rating": 4.0, "description": [g.words(420)], "price": None,
                     "categories": ["Movies & TV"], "parent_asin": item})
    for n in range(4):
        rows.append({"title": None, "average_rating": 3.5, "description": [g.words(5)], "price": None, "categories": None,
                     "parent_asin": f"NULL{n}"})
    g.random.shuffle(rows)
    return rows


def generate(seed=20):
    g = Generator(seed)
    popular = [f"B0{n:03d}" for n in range(58)] + ["0792839137", "Bß-é"]
    cold = [f"COLD{n}" for n in range(4)]
    long = [f"LONG{n}" for n in range(2)]
    rare = [f"RARE{n}" for n in range(3)]
    rows = metadata(g, popular, cold, long, rare)
    pick = lambda n: g.random.sample(popular, n)
    long_review = g.words(700)

    for n in range(120):  # ordinary early users; every third starts at the same time as the one before
        start = START + (n - (n % 3 == 2)) * DAY
        items = pick(g.random.randint(5, 11))
        g.session(f"early{n:03d}", items, start)
        if n % 10 == 0:  # all at once: file order decides
            g.session(f"ties{n:03d}", pick(7), start, step=0)
        if n % 12 == 0:  # the same item again, inside the history and later
            g.session(f"twice{n:03d}", [items[0], items[0], items[1], items[2], items[0], items[3], items[3]], start)
        if n % 20 == 0:  # nothing new after the history
            g.session(f"again{n:03d}", items[:4] + items[:3], start)
        if n % 15 == 0:
            g.session(f"unknown{n:03d}", ["MISSING1", *items[:3], "NULL0", *items[3:5], "NULL1", pick(1)[0]], start)
        if n % 24 == 0:  # four rows are left without the unknown items
            g.session(f"short{n:03d}", ["MISSING2", *items[:2], "NULL2", *items[2:4]], start)
    for n in range(12):  # a long item in the history or late; these keep RARE0 and RARE1 alive until they are dropped
        items = pick(6)
        items.insert(n % 6, long[n % 2])
        g.session(f"longitem{n}", items + rare[:2], START + 30 * DAY + n)
    g.session("afterrare", [rare[0], rare[1], *pick(3)], START + 31 * DAY)  # falls in the second k-core: three rows are left
    for n in range(2):  # and here a long review moves into the history once the rare item is gone
        g.session(f"rareshifted{n}", [rare[0], *pick(7)], START + 31 * DAY + 1 + n, {4: long_review})
    for n in range(5):  # the prompt alone is too long
        g.session(f"longprompt{n}", pick(6), START + 40 * DAY + n, {n % 4: long_review})
    g.session("longboth", [long[0], *pick(5)], START + 41 * DAY, {1: long_review})
    for n in range(3):  # a long review, but after the history
        g.session(f"longlater{n}", pick(6), START + 42 * DAY + n, {4: long_review})
    g.session("utilisateur-é-用户", pick(6), START + 43 * DAY, {
        0: "Très bon film ! 素晴らしい 🎬👍", 1: "line one\nline two\r\n\ttabbed", 2: "<|eot_id|> {{ bos_token }} {% if %} <end_of_turn>",
        3: "\u2028\u2029\u00a0 odd spaces  \u0000 nul"})

    late = START + 400 * DAY
    for n in range(16):
        g.session(f"late{n:02d}", pick(g.random.randint(5, 9)), late + n // 2 * DAY)
    for n in range(6):  # a cold item among the first four: the history moves
        items = pick(7)
        items.insert(n % 4, cold[n % 4])
        g.session(f"moved{n}", items, late + n * DAY)
    for n in range(5):  # two cold items of six: too few are left
        items = pick(4)
        items[1:1] = [cold[n % 4], cold[(n + 1) % 4]]
        g.session(f"thin{n}", items, late + n * DAY + 1)
    for n in range(3):  # the fifth row's long review becomes the fourth
        items = pick(7)
        items.insert(1, cold[n % 4])
        g.session(f"shifted{n}", items, late + n * DAY + 2, {4: long_review})
    for n in range(2):  # with the cold item a target, without it none
        items = pick(4)
        g.session(f"lateagain{n}", [*items, cold[n], items[0]], late + n * DAY + 3)
    g.session("latetwice", [*pick(4), *popular[:1] * 2, popular[1]], late + 4)
    for item in cold:  # enough rows for the k-core, all late
        g.session(f"cold-{item}", [*pick(5), *[item] * 3], late + 20 * DAY)
    g.session("lone", pick(3), START)
    g.random.shuffle(g.reviews)
    return g.reviews, rows


def write_gzip(path, rows):
    """JSON lines, every other one with non-ASCII characters escaped; the same bytes in every run."""
    text = "".join(json.dumps(row, ensure_ascii=i % 2 == 0) + "\n" for i, row in enumerate(rows))
    with open(path, "wb") as file, gzip.GzipFile("", "wb", 9, file, mtime=0) as zipped:
        shutil.copyfileobj(io.BytesIO(text.encode("utf-8")), zipped)


def main():
    HARD.mkdir(parents=True, exist_ok=True)
    reviews, rows = generate()
    write_gzip(HARD / "reviews.jsonl.gz", reviews)
    write_gzip(HARD / "meta.jsonl.gz", rows)
    common = ["--reviews", str(HARD / "reviews.jsonl.gz"), "--metadata", str(HARD / "meta.jsonl.gz"),
              "--embedder", str(FIXTURES / "models" / "tiny-embedder")]
    cases = {
        "expected.json": ["--lm", str(FIXTURES / "models" / "tiny-lm")],
        "expected-gemma.json": ["--lm", str(FIXTURES / "tokenizers" / "gemma-like"), "--template", "gemma",
                                "--item-limit", "80", "--prompt-limit", "750"],
    }
    for name, options in cases.items():
        result = prepare(arguments(common + options))
        print(name, result["counts"], result["more_counts"])
        silent = [key for key, value in (result["counts"] | result["more_counts"]).items() if value == 0]
        if name == "expected.json" and silent:
            raise SystemExit(f"no case for {silent}")
        write_json(HARD / name, result)


if __name__ == "__main__":
    main()
