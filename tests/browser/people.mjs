// A made-up report with users, so that what pages show of them can be worked out apart from the viewer.

import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";

/** Numbers of users in a file, and of items. */
const usersPerFile = 100;
const itemsPerFile = 25;

/** The names and updates of the checkpoints. */
export const checkpoints = [
  { name: "start", update: 1 },
  { name: "end", update: 90 },
];

/** Number of items. */
export const items = 60;

/** A profile that tries to be more than text. */
export const hostile =
  '<script>window.broken = 1</script><img src=x onerror="window.broken = 1"> &amp; \u202ehsilgne\u202c أفلام 🎬 ' + "long".repeat(500);

/** The rank of a user's target with a profile, by checkpoint. */
export function rank(user, checkpoint, profile) {
  return 1 + ((user * 37 + profile * 11 + checkpoint * 101 * (user % 3)) % 59);
}

/** The mean rank over both profiles. */
export function meanRank(user, checkpoint) {
  return (rank(user, checkpoint, 0) + rank(user, checkpoint, 1)) / 2;
}

/** A user's target and history. */
export function target(user) {
  return user % items;
}

export function history(user) {
  return Array.from({ length: 1 + (user % 4) }, (_, place) => (user + place + 1) % items);
}

/** Interactions with an item. */
export function popularity(item) {
  return (item * 13) % 17;
}

/** What a user wrote of the history's first item. */
export function review(user) {
  return user % 5 === 0 ? `Horror, user ${user}` : `A comedy for user ${user}`;
}

/** A profile's text. */
export function profile(user, checkpoint, number) {
  if (user === 3 && checkpoint === 1 && number === 0) return hostile;
  const liked = user % 2 === 0 ? "western" : "romance";
  return `Likes ${["old", "new"][checkpoint]} ${liked} films, version ${number + 1}`;
}

function found(user, checkpoint, number) {
  const own = rank(user, checkpoint, number);
  const others = Array.from({ length: items }, (_, item) => item).filter(
    (item) => item !== target(user) && !history(user).includes(item),
  );
  others.splice(own - 1, 0, target(user));
  const top = others.slice(0, 20);
  return {
    profile: profile(user, checkpoint, number),
    targets: [{ item: target(user), rank: own, above: own - 1, tied: 0 }],
    top_items: top,
    top_scores: top.map((_, place) => 1 - place / 64),
  };
}

/** A file of a text index: the layout is in docs/report.md. */
function indexFile(texts) {
  const users = new Map();
  for (const [user, text] of texts) {
    for (const word of text.toLowerCase().match(/[\p{L}\p{N}]+/gu) ?? []) {
      users.set(word, (users.get(word) ?? new Set()).add(user));
    }
  }
  const words = [...users.keys()].map((word) => Buffer.from(word)).sort(Buffer.compare);
  const bytes = [...Buffer.from("LTX1"), 0, 0, 0, 0];
  Buffer.from(Uint32Array.of(words.length).buffer).forEach((byte, place) => (bytes[4 + place] = byte));
  const push = (value) => {
    for (; value >= 128; value >>= 7) bytes.push((value & 127) | 128);
    bytes.push(value);
  };
  for (const word of words) {
    const having = [...users.get(word.toString())].sort((a, b) => a - b);
    push(word.length);
    bytes.push(...word);
    push(having.length);
    having.forEach((user, place) => push(place === 0 ? user : user - having[place - 1] - 1));
  }
  return { bytes: Buffer.from(bytes), first: words[0].toString() };
}

const model = { name: "", architecture: "", parameters: 0, trained_parameters: 0 };
const metrics = (users) => ({ users, users_without_target: 0, metrics: {} });
const ties = { targets: 0, tied_share: 0, mean_rank: 0, mean_expected_rank: 0 };
const files = (stem, count, perFile) => ({
  count,
  per_file: perFile,
  files: Array.from({ length: Math.ceil(count / perFile) }, (_, file) => `${stem}-${file}.json`),
});

/** Writes the report with so many users into a folder; `title` gives the titles of items. */
export async function writePeople(folder, users, { title = (item) => `Title ${item}` } = {}) {
  const json = (file, value) => writeFile(join(folder, file), JSON.stringify(value));
  const everyone = Array.from({ length: users }, (_, user) => user);
  const chunked = async (chunks, field, records) => {
    for (const [file, name] of chunks.files.entries()) {
      const first = file * chunks.per_file;
      await json(name, { first, [field]: records.slice(first, first + chunks.per_file) });
    }
    return chunks;
  };
  const index = async (name, texts) => {
    const { bytes, first } = indexFile(texts);
    await writeFile(join(folder, name), bytes);
    return { files: [{ file: name, first }] };
  };
  for (const { name } of checkpoints) await mkdir(join(folder, "checkpoints", name), { recursive: true });
  const made = [];
  for (const [number, { name, update }] of checkpoints.entries()) {
    const results = everyone.map((user) => ({ generated: [0, 1].map((sample) => found(user, number, sample)), reference: null }));
    const texts = everyone.flatMap((user) => [0, 1].map((sample) => [user, profile(user, number, sample)]));
    made.push({
      name,
      update,
      phase: "end",
      profiles_per_user: 2,
      generated: metrics(users),
      reference: null,
      ties,
      comparisons: [],
      results: await chunked(files(`checkpoints/${name}/results`, users, usersPerFile), "results", results),
      profile_index: await index(`checkpoints/${name}/profile-words-0.bin`, texts),
      embeddings: null,
    });
  }
  const itemRecords = Array.from({ length: items }, (_, item) => ({
    id: `i${item}`,
    title: title(item),
    text: `The text of item ${item}`,
    train_interactions: popularity(item),
  }));
  const userRecords = everyone.map((user) => ({
    id: `person-${user}`,
    history: history(user).map((item, place) => ({ item, rating: 4.5, review: place === 0 ? review(user) : null })),
    targets: [target(user)],
    prompt: `The prompt of user ${user}`,
    reference_profile: null,
  }));
  await json("manifest.json", {
    schema_version: 1,
    run: "people",
    created: "",
    generator: "the tests of langptune",
    language_model: model,
    embedder: model,
    similarity: "cosine",
    dataset: { name: "made up", split: "val", items, train_users: 0, val_users: users, test_users: 0 },
    config: {},
    items: await chunked(files("items", items, itemsPerFile), "items", itemRecords),
    users: await chunked(files("users", users, usersPerFile), "users", userRecords),
    history_index: await index("history-words-0.bin", everyone.map((user) => [user, review(user)])),
    baselines: [],
    checkpoints: made,
  });
}
