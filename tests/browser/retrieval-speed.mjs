// How long the live check takes over 100,000 items of 1,024 dimensions: `node retrieval-speed.mjs [ITEMS] [DIMS]`, with the variables
// of stage.mjs. The vectors are random; prints JSON, times in milliseconds: reading the vectors, and each of the rankings of the best
// 20 as the page shows them.

import { mkdir, open, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setStage } from "./stage.mjs";

const [items, dims] = [Number(process.argv[2] ?? 100_000), Number(process.argv[3] ?? 1024)];
const perFile = 500;

/** Rows of random f16 between 1/16 and 2 in size, of either sign. */
async function writeRandom(path, rows) {
  const file = await open(path, "w");
  let state = 1;
  for (let row = 0; row < rows; row++) {
    const values = new Uint16Array(dims);
    for (let place = 0; place < dims; place++) {
      state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
      values[place] = ((state >>> 16) & 0x83ff) | ((11 + ((state >>> 8) % 5)) << 10);
    }
    await file.write(Buffer.from(values.buffer));
  }
  await file.close();
}

const stage = await setStage();
try {
  const folder = join(stage.folder, "large");
  await mkdir(folder);
  await writeRandom(join(folder, "items.f16"), items);
  await writeRandom(join(folder, "profiles.f16"), 1);
  const json = (name, value) => writeFile(join(folder, name), JSON.stringify(value));
  const files = Array.from({ length: Math.ceil(items / perFile) }, (_, file) => `items-${file}.json`);
  for (const [file, name] of files.entries()) {
    const first = file * perFile;
    const titles = Array.from({ length: Math.min(perFile, items - first) }, (_, place) => `Item ${first + place}`);
    await json(name, { first, items: titles.map((title) => ({ id: title, title, text: title, train_interactions: 1 })) });
  }
  await json("users-0.json", {
    first: 0,
    users: [{ id: "one", history: [{ item: 5, rating: null, review: null }], targets: [7], prompt: null, reference_profile: null }],
  });
  const top = { top_items: Array.from({ length: 20 }, (_, item) => item), top_scores: Array(20).fill(0) };
  await json("results-0.json", {
    first: 0,
    results: [{ generated: [{ profile: "words", targets: [{ item: 7, rank: 8, above: 7, tied: 0 }], ...top }], reference: null }],
  });
  const model = { name: "", architecture: "", parameters: 0, trained_parameters: 0 };
  await json("manifest.json", {
    schema_version: 1,
    run: "large",
    created: "",
    generator: "",
    language_model: model,
    embedder: model,
    similarity: "cosine",
    dataset: { name: "", split: "val", items, train_users: 0, val_users: 1, test_users: 0 },
    config: {},
    items: { count: items, per_file: perFile, files },
    users: { count: 1, per_file: 1, files: ["users-0.json"] },
    baselines: [],
    checkpoints: [
      {
        name: "end",
        update: 1,
        phase: "end",
        profiles_per_user: 1,
        generated: { users: 1, users_without_target: 0, metrics: {} },
        reference: null,
        ties: { targets: 0, tied_share: 0, mean_rank: 0, mean_expected_rank: 0 },
        comparisons: [],
        results: { count: 1, per_file: 1, files: ["results-0.json"] },
        embeddings: {
          items: { file: "items.f16", rows: items, dims },
          profiles: { file: "profiles.f16", rows: 1, dims },
          references: null,
        },
      },
    ],
  });
  const { page, problems, close } = await stage.open("/?report=made/large/#/report/check/0");
  const began = Date.now();
  const megabytes = (2 * items * dims) / 2 ** 20;
  if (megabytes > 32) await page.getByRole("button", { name: /Read the items' vectors/ }).click();
  const took = page.locator("#took");
  await took.waitFor({ timeout: 300_000 });
  const read = Date.now() - began;
  const ranked = [];
  for (let round = 0; round < 20; round++) {
    ranked.push(Number((await took.textContent()).match(/in ([\d.]+) ms/)[1]));
    // What differs from the made-up record is said with or without "another mask", in turn.
    const verdict = page.locator(".verdict").filter({ [round % 2 === 0 ? "hasText" : "hasNotText"]: "another mask" });
    await page.locator(".mask ol input").first().click();
    await verdict.waitFor();
  }
  ranked.sort((a, b) => a - b);
  console.log(JSON.stringify({ items, dims, read, median: ranked[10], slowest: ranked.at(-1), ranked, problems }));
  await close();
} finally {
  await stage.close();
}
