// The items' table and the page of one item: numbers are worked out anew from the report's files.

import assert from "node:assert/strict";
import { readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { violations } from "./axe.mjs";
import { choice, copyOfFixture, four, picture, read, report, scrollsSideways, setStage } from "./stage.mjs";

/** Dimensions of the vectors that the tests add to the report. */
const dims = 3;

let stage, manifest, titles, popularity, exposure, baseline, results;

/** Bits of a half-precision number that needs no rounding. */
function half(value) {
  if (value === 0) return 0;
  const power = Math.floor(Math.log2(Math.abs(value)));
  return (value < 0 ? 0x8000 : 0) | ((power + 15) << 10) | ((Math.abs(value) / 2 ** power - 1) * 1024);
}

const vector = (item) => [(item % 7) - 3.5, (item % 5) - 2, (item * item) % 11];

/** Items by descending cosine, ties by number. */
function nearest(item) {
  const cosine = (a, b) => {
    const product = (a, b) => a.reduce((sum, value, place) => sum + value * b[place], 0);
    return product(a, b) / Math.sqrt(product(a, a) * product(b, b));
  };
  const others = titles.map((_, other) => other).filter((other) => other !== item);
  const scored = others.map((other) => ({ other, score: cosine(vector(item), vector(other)) }));
  return scored.sort((a, b) => b.score - a.score || a.other - b.other);
}

before(async () => {
  manifest = await read("manifest.json");
  ({ titles, train_interactions: popularity } = await read("catalogue.json"));
  const end = manifest.checkpoints.find(({ name }) => name === "end");
  exposure = await read(end.exposure);
  baseline = await read(manifest.baselines[0].exposure);
  const chunks = await Promise.all(end.results.files.map(read));
  results = chunks.flatMap((chunk) => chunk.results);
  stage = await setStage();
  // The same report with vectors, one of an older version, and one without a file.
  const copy = async (name, change) => {
    const folder = join(stage.folder, name);
    await copyOfFixture(folder);
    const changed = structuredClone(manifest);
    await change(changed, folder);
    await writeFile(join(folder, "manifest.json"), JSON.stringify(changed));
  };
  await copy("vectors", async (manifest, folder) => {
    const values = Uint16Array.from(titles.flatMap((_, item) => vector(item).map(half)));
    await writeFile(join(folder, "items.f16"), Buffer.from(values.buffer));
    const file = (name, rows) => ({ file: name, rows, dims });
    const users = manifest.users.count;
    manifest.checkpoints.at(-1).embeddings = { items: file("items.f16", titles.length), profiles: file("profiles.f16", users), references: null };
  });
  await copy("old", async (manifest) => {
    delete manifest.catalogue;
    [...manifest.checkpoints, ...manifest.baselines].forEach((of) => delete of.exposure);
  });
  await copy("holes", (_, folder) => rm(join(folder, "catalogue.json")));
  await copy("empty", (manifest) => {
    manifest.items = { count: 0, per_file: 1, files: [] };
    manifest.users = { count: 0, per_file: 1, files: [] };
    manifest.checkpoints = [];
    manifest.baselines = [];
  });
});

after(() => stage?.close());

const open = (fragment, options = {}) => stage.open(`${report}#/report/${fragment}`, options);
const openMade = (name, fragment) => stage.open(`/?report=made/${name}#/report/${fragment}`);

const body = (page) => page.locator(".rows tbody tr:not(.spacer)");

async function rows(page) {
  await body(page).first().waitFor();
  return body(page).evaluateAll((rows) => rows.map((row) => [...row.children].map((cell) => cell.textContent.trim())));
}

/** Waits until the table begins with these items. */
async function begins(page, items) {
  const expected = items.slice(0, 8).map((item) => titles[item]);
  await page.waitForFunction(
    (expected) => {
      const links = [...document.querySelectorAll(".rows tbody a")].slice(0, expected.length);
      return JSON.stringify(links.map((link) => link.textContent)) === JSON.stringify(expected);
    },
    expected,
    { timeout: 5000 },
  );
}

const everything = () => titles.map((_, item) => item);
const sorted = (value, sign = 1) => everything().sort((a, b) => sign * (value(a) - value(b)) || a - b);
const mean = ({ generated, rank_sum }, item) => rank_sum[item] / generated.at(-1)[item];

test("a row has an item's numbers, and what is recommended most comes first", async () => {
  const { page, problems, close } = await open("items?checkpoint=end");
  const order = sorted((item) => exposure.generated.at(-1)[item], -1);
  await begins(page, order);
  for (const [place, row] of (await rows(page)).slice(0, 10).entries()) {
    const item = order[place];
    const expected = [titles[item], item, popularity[item], exposure.generated.at(-1)[item], mean(exposure, item).toFixed(1)];
    assert.deepEqual(row, expected.map(String));
  }
  assert.deepEqual(problems, []);
  await picture(page, "items-light");
  assert.deepEqual(await violations(page), []);
  await close();
});

test("other top lists, lengths and checkpoints are counted", async () => {
  const { page, close } = await open("items?checkpoint=end&sort=-recommended");
  await begins(page, sorted((item) => exposure.generated.at(-1)[item], -1));
  await choice(page, "Length").selectOption(String(exposure.cutoffs[0]));
  await begins(page, sorted((item) => exposure.generated[0][item], -1));
  await choice(page, "Top lists of").selectOption("reference profiles");
  await begins(page, sorted((item) => exposure.reference[0][item], -1));
  await choice(page, "Top lists of").selectOption("popular");
  await begins(page, sorted((item) => baseline.generated[0][item], -1));
  await choice(page, "Checkpoint").selectOption("update-1");
  await choice(page, "Top lists of").selectOption("generated profiles");
  const first = await read(manifest.checkpoints[0].exposure);
  await begins(page, sorted((item) => first.generated[0][item], -1));
  await page.reload();
  await begins(page, sorted((item) => first.generated[0][item], -1));
  await close();
});

test("headings sort, words of titles narrow, and what is left is saved", async () => {
  const { page, close } = await open("items?checkpoint=end");
  await page.getByRole("columnheader", { name: "Popularity" }).getByRole("button").click();
  await begins(page, sorted((item) => popularity[item]));
  await page.keyboard.press("/");
  await page.keyboard.type("3 fil");
  const found = everything().filter((item) => titles[item].includes("3"));
  await page.getByText(`${found.length} of ${titles.length} items`).waitFor();
  await begins(page, found.reverse());
  const waiting = page.waitForEvent("download");
  await page.getByRole("button", { name: "CSV" }).click();
  const download = await waiting;
  const lines = (await readFile(await download.path(), "utf8")).split("\r\n");
  assert.equal(lines[0], "title,item,popularity,recommended,mean_rank");
  const cells = (item) => [titles[item], item, popularity[item], exposure.generated.at(-1)[item]].join();
  assert.deepEqual(lines.slice(1, -1).map((line) => line.slice(0, line.lastIndexOf(","))), found.map(cells));
  await page.getByLabel("Find in titles").fill("nothing like it");
  await page.getByText("No title has these words.").waitFor();
  await close();
});

test("the spread has the share of items that are recommended, and Gini", async () => {
  const { page, close } = await open("items?checkpoint=end");
  const gini = (counts) => {
    const ascending = [...counts].sort((a, b) => a - b);
    const total = counts.reduce((a, b) => a + b, 0);
    return ascending.reduce((sum, count, place) => sum + (2 * place + 1 - counts.length) * count, 0) / (counts.length * total);
  };
  const figures = (counts) => [`${((counts.filter((count) => count > 0).length / counts.length) * 100).toFixed(1)} %`, four(gini(counts))];
  await page.locator("table.spread tbody tr").nth(2).waitFor();
  const shown = await page.locator("table.spread tbody tr").evaluateAll((rows) => rows.map((row) => [...row.children].map((cell) => cell.textContent)));
  assert.deepEqual(shown, [
    ["generated profiles", ...figures(exposure.generated.at(-1))],
    ["reference profiles", ...figures(exposure.reference.at(-1))],
    ["popular", ...figures(baseline.generated.at(-1))],
  ]);
  // At half of the items the legend says what the least recommended half has.
  const slider = page.getByRole("slider", { name: /Share of places/ });
  await slider.focus();
  await slider.fill(String(titles.length / 2));
  const ascending = [...exposure.generated.at(-1)].sort((a, b) => a - b);
  const sum = (counts) => counts.reduce((a, b) => a + b, 0);
  const half = (sum(ascending.slice(0, titles.length / 2)) / sum(ascending)) * 100;
  await page.getByText(`generated profiles ${half.toFixed(1)} %`).first().waitFor();
  await close();
});

test("an item's page has its counts, its text and the users to whom it is recommended", async () => {
  const item = results[0].generated[0].targets[0].item;
  const { page, problems, close } = await open(`items/${item}?checkpoint=end`);
  const { first, items } = await read(manifest.items.files[Math.floor(item / manifest.items.per_file)]);
  await page.getByRole("heading", { name: titles[item], exact: true }).waitFor();
  assert.equal(await page.locator(".item-text").evaluate((text) => text.textContent), items[item - first].text);
  await page.locator("table.counts tbody tr").nth(2).waitFor();
  const counts = await page.locator("table.counts tbody tr").evaluateAll((rows) => rows.map((row) => [...row.children].map((cell) => cell.textContent)));
  const numbers = (of) => of.map((counts) => String(counts[item]));
  assert.deepEqual(counts[0], ["generated profiles", ...numbers(exposure.generated), mean(exposure, item).toFixed(1)]);
  assert.deepEqual(counts[1], ["reference profiles", ...numbers(exposure.reference), "–"]);
  assert.deepEqual(counts[2].slice(0, 3), ["popular", ...numbers(baseline.generated)]);
  const found = results.flatMap(({ generated, reference }) => [...generated, ...(reference ? [reference] : [])]);
  const targets = found.filter(({ targets }) => targets.some((target) => target.item === item));
  const listed = found.filter(({ top_items }) => top_items.includes(item));
  await page.getByText(`The target of ${targets.length} rankings`).waitFor();
  await page.getByText(`Recommended in ${listed.length} rankings`).waitFor();
  assert.deepEqual(problems, []);
  await picture(page, "item-light");
  assert.deepEqual(await violations(page), []);
  await page.locator(".mentions a").first().click();
  await page.getByRole("heading", { name: "User" }).first().waitFor();
  await page.goBack();
  await page.getByRole("heading", { name: titles[item], exact: true }).waitFor();
  await page.keyboard.press("j");
  await page.getByRole("heading", { name: titles[item + 1], exact: true }).waitFor();
  await close();
});

test("the nearest items are those of the vectors' cosines", async () => {
  const { page, problems, close } = await openMade("vectors", "items/17?checkpoint=end");
  await page.locator("table.near tbody tr").nth(19).waitFor();
  const shown = await page.locator("table.near tbody tr").evaluateAll((rows) => rows.map((row) => [...row.children].map((cell) => cell.textContent)));
  const expected = nearest(17).slice(0, 20);
  assert.deepEqual(shown.map(([title]) => title), expected.map(({ other }) => titles[other]));
  shown.forEach(([, cosine], place) => assert.ok(Math.abs(Number(cosine) - expected[place].score) < 6e-5, cosine));
  assert.deepEqual(problems, []);
  await page.locator("table.near a").first().click();
  await page.getByRole("heading", { name: titles[expected[0].other], exact: true }).waitFor();
  await close();
});

test("vectors that are not there are told, and why", async () => {
  const { page, close } = await open("items/3?checkpoint=update-1");
  await page.getByText("The report does not keep this checkpoint's vectors").waitFor();
  await close();
});

test("a report of an older version shows what it has and says what is missing", async () => {
  const { page, problems, close } = await openMade("old", "items");
  await page.getByText("This report does not count how often items are recommended").waitFor();
  await begins(page, sorted((item) => popularity[item], -1));
  assert.equal((await rows(page))[0][3], "–");
  assert.deepEqual(problems, []);
  await picture(page, "items-old");
  await close();
});

test("a file that is missing is named, and the rest is there", async () => {
  const { page, close } = await openMade("holes", "items?checkpoint=end");
  await page.getByRole("alert").filter({ hasText: "catalogue.json" }).waitFor();
  const most = sorted((item) => exposure.generated.at(-1)[item], -1)[0];
  await page.getByRole("link", { name: `item ${most}`, exact: true }).waitFor();
  await picture(page, "items-broken");
  await close();
});

test("no items, no such item and no such checkpoint are said", async () => {
  const empty = await openMade("empty", "items");
  await empty.page.getByText("The report has no items.").waitFor();
  await empty.close();
  const { page, close } = await open(`items/${titles.length}`);
  await page.getByText(`the report has no item ${titles.length}: it has ${titles.length}, counted from 0`).waitFor();
  await page.goto(`${stage.host.address}${report}#/report/items?checkpoint=nowhere`);
  await page.getByText('no counts of recommendations of a checkpoint "nowhere": expected one of update-1, end.').waitFor();
  await page.getByRole("link", { name: "Show the items without these settings" }).click();
  await page.getByRole("grid").waitFor();
  await close();
});

test("both pages fit a telephone in the dark", async () => {
  for (const [fragment, ready] of [["items", ".rows a"], ["items/3", ".item-text"]]) {
    const { page, close } = await open(fragment, { colorScheme: "dark", viewport: { width: 390, height: 800 } });
    await page.locator(ready).first().waitFor();
    await page.locator("svg").first().waitFor();
    assert.equal(await scrollsSideways(page), false, fragment);
    assert.deepEqual(await violations(page), []);
    await picture(page, `${fragment.replace("/", "-")}-dark-narrow`);
    await close();
  }
});
