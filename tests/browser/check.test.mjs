// The page that ranks a user's items anew: its numbers beside the recorded ones, and beside those of `langptune metrics`.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdtemp, readFile, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { promisify } from "node:util";
import { assertAccessible } from "./axe.mjs";
import { choice, copyOfFixture, fixture, picture, read, report, scrollsSideways, setStage } from "./stage.mjs";

const run = promisify(execFile);
const { LANGPTUNE_PROGRAM } = process.env;

let stage, manifest, users, end, recorded;

/** The records of a list that is cut into files. */
async function all(chunks, field) {
  const files = await Promise.all(chunks.files.map(read));
  return files.flatMap((file) => file[field]);
}

before(async () => {
  manifest = await read("manifest.json");
  users = await all(manifest.users, "users");
  end = manifest.checkpoints.find(({ name }) => name === "end");
  recorded = await all(end.results, "results");
  stage = await setStage();
});

after(() => stage?.close());

const verdict = (page) => page.locator(".verdict");

async function open(user, parameters = "", options = {}) {
  const opened = await stage.open(`${report}#/report/check/${user}${parameters}`, options);
  await verdict(opened.page).waitFor();
  return opened;
}

/** The table of places: for each the rank, and item and score as recorded and now. */
function places(page) {
  return page.locator("#places tbody tr").evaluateAll((rows) =>
    rows.map((row) => {
      const [rank, recorded, recordedScore, now, score] = [...row.children];
      const item = (cell) => Number(cell.querySelector("[data-item]")?.dataset.item ?? NaN);
      return {
        rank: Number(rank.textContent),
        recorded: [item(recorded), Number(recordedScore.textContent)],
        now: [item(now), Number(score.textContent)],
      };
    }),
  );
}

/** The values of a metric of this user: recorded and now at the cutoff, and over the whole catalogue. */
async function measure(page, name) {
  const row = page.locator("#measures tbody tr").filter({ has: page.getByText(name, { exact: true }) });
  return (await row.locator("td").allInnerTexts()).map(Number);
}

/** Rows of f16 as they are in a file of the report. */
async function vectors(matrix) {
  const bytes = await readFile(join(fixture, matrix.file));
  const value = (bits) => {
    const [sign, exponent, mantissa] = [bits >> 15, (bits >> 10) & 31, bits & 1023];
    const size = exponent === 0 ? mantissa * 2 ** -24 : (1024 + mantissa) * 2 ** (exponent - 25);
    return sign ? -size : size;
  };
  return Array.from({ length: matrix.rows }, (_, row) =>
    Array.from({ length: matrix.dims }, (_, column) => value(bytes.readUInt16LE(2 * (row * matrix.dims + column)))),
  );
}

test("nothing changed, every user's ranks and scores are the recorded ones", async () => {
  const { page, problems, close } = await open(0);
  for (const [user, result] of recorded.entries()) {
    for (const [profile, found] of [["1", result.generated[0]], ["reference", result.reference]]) {
      await page.evaluate((hash) => (location.hash = hash), `#/report/check/${user}?profile=${profile}`);
      await page.getByRole("heading", { name: `Live check of user ${user}`, exact: true }).waitFor();
      const expected = found.top_items.map((item, place) => ({ item, score: Math.fround(found.top_scores[place]) }));
      // The table of another profile may still be there; where its items stay, the comparison below says what differs.
      const isThere = (items) => [...document.querySelectorAll("#places td:nth-child(4) [data-item]")].map(({ dataset }) => dataset.item).join() === items;
      await page.waitForFunction(isThere, found.top_items.join(), { timeout: 10_000 }).catch(() => {});
      assert.equal(await verdict(page).innerText(), "Equal: ranks and scores are the recorded ones, to the last bit.");
      const shown = await places(page);
      assert.deepEqual(shown.map(({ now }) => ({ item: now[0], score: Math.fround(now[1]) })), expected, `user ${user}`);
      assert.deepEqual(shown.map(({ recorded }) => recorded), shown.map(({ now }) => now));
      const ranks = await page.locator("#targets tbody tr td").allInnerTexts();
      assert.deepEqual(ranks, [String(found.targets[0].rank), String(found.targets[0].rank)]);
    }
  }
  assert.equal(page.workers().length, 1, "it is done beside the page");
  assert.deepEqual(problems, []);
  await close();
});

test("what is not masked is ranked, as plain arithmetic has it", async () => {
  const user = 1;
  const { page, close } = await open(user);
  await page.getByRole("button", { name: "Mask nothing" }).click();
  await verdict(page).filter({ hasText: "another mask" }).waitFor();
  const [items, [, profile]] = [await vectors(end.embeddings.items), await vectors(end.embeddings.profiles)];
  const dot = (a, b) => a.reduce((sum, value, place) => sum + value * b[place], 0);
  const cosine = (item) => dot(items[item], profile) / Math.sqrt(dot(items[item], items[item]) * dot(profile, profile));
  const order = items.map((_, item) => item).sort((a, b) => cosine(b) - cosine(a) || a - b);
  const shown = await places(page);
  assert.deepEqual(shown.map(({ now }) => now[0]), order.slice(0, 10));
  shown.forEach(({ now: [item, score] }) => assert.ok(Math.abs(score - cosine(item)) < 1e-6));
  const rank = order.indexOf(users[user].targets[0]) + 1;
  assert.equal(rank, recorded[user].generated[0].targets[0].rank + users[user].history.length);
  assert.equal(await page.locator("#targets td.found").innerText(), String(rank));
  await picture(page, "check-unmasked");
  await page.reload();
  await verdict(page).filter({ hasText: "another mask" }).waitFor();
  await page.getByRole("button", { name: "Mask all, as recorded" }).click();
  await verdict(page).filter({ hasText: "Equal" }).waitFor();
  await close();
});

test("one item of the history is let in by keyboard, and the order of the mask does not matter", async () => {
  const { page, close } = await open(2);
  await page.getByRole("checkbox", { name: /From its end/ }).focus();
  await page.keyboard.press("Space");
  await page.waitForURL(/order=reversed/);
  await verdict(page).filter({ hasText: "Equal" }).waitFor();
  await page.locator(".mask ol input").nth(1).focus();
  await page.keyboard.press("Space");
  await page.waitForURL(/unmasked=2/);
  await verdict(page).filter({ hasText: "another mask" }).waitFor();
  const [first] = await places(page);
  assert.equal(first.now[0], users[2].history[1].item);
  await page.locator("h2").first().click();
  await page.keyboard.press("j");
  await page.getByRole("heading", { name: "Live check of user 3", exact: true }).waitFor();
  await close();
});

test("metrics at any cutoff are those of `langptune metrics`", async (context) => {
  if (!LANGPTUNE_PROGRAM) return context.skip("LANGPTUNE_PROGRAM is not set");
  const folder = await mkdtemp(join(tmpdir(), "langptune-check-"));
  const { page, close } = await open(0);
  for (const user of users.keys()) {
    await page.evaluate((hash) => (location.hash = hash), `#/report/check/${user}?k=${manifest.items.count}`);
    await page.getByRole("heading", { name: `Live check of user ${user}`, exact: true }).waitFor();
    await page.waitForFunction((count) => document.querySelectorAll("#places tbody tr").length === count, manifest.items.count - 3);
    const ranking = (await places(page)).map(({ rank, now: [item, score] }) => `q Q0 ${item} ${rank} ${score} page\n`);
    await writeFile(join(folder, "run"), ranking.join(""));
    await writeFile(join(folder, "qrels"), `q 0 ${users[user].targets[0]} 1\n`);
    for (const cutoff of [3, 8]) {
      const flags = ["--run", join(folder, "run"), "--qrels", join(folder, "qrels"), "--cutoffs", String(cutoff), "--json"];
      const expected = JSON.parse((await run(LANGPTUNE_PROGRAM, ["metrics", ...flags])).stdout);
      await page.getByLabel("Places that count, k").fill(String(cutoff));
      await page.keyboard.press("Enter");
      await page.getByRole("columnheader", { name: `Now, at ${cutoff}` }).waitFor();
      for (const name of ["recall", "precision", "hit", "mrr", "mrr_first", "ndcg", "ndcg_exp", "map"]) {
        const { mean } = (expected.metrics ?? expected)[`${name}@${cutoff}`];
        const [before, now] = await measure(page, name);
        assert.ok(Math.abs(now - mean) <= 5e-7, `${name}@${cutoff} of user ${user}: ${now} on the page, ${mean} elsewhere`);
        assert.equal(before, now);
      }
    }
  }
  await close();
  await rm(folder, { recursive: true });
});

test("metrics over all users are those of the report", async () => {
  const { page, close } = await open(0);
  const sums = new Map();
  for (const user of users.keys()) {
    await page.evaluate((hash) => (location.hash = hash), `#/report/check/${user}`);
    await page.getByRole("heading", { name: `Live check of user ${user}`, exact: true }).waitFor();
    await verdict(page).filter({ hasText: "Equal" }).waitFor();
    for (const name of ["recall", "mrr", "ndcg", "map"]) {
      sums.set(name, (sums.get(name) ?? 0) + (await measure(page, name))[1]);
    }
  }
  for (const [name, sum] of sums) {
    assert.ok(Math.abs(sum / users.length - end.generated.metrics[`${name}@10`].mean) < 1e-6, name);
  }
  await close();
});

test("without workers the page says so and computes by itself", async () => {
  const context = await stage.browser.newContext();
  const page = await context.newPage();
  await page.addInitScript(() => delete window.Worker);
  await page.goto(`${stage.host.address}${report}#/report/check/0`);
  await verdict(page).filter({ hasText: "Equal" }).waitFor();
  await page.getByText(/gives the page no worker/).waitFor();
  assert.equal(page.workers().length, 0);
  await context.close();
});

test("a worker's script that is missing is no end either", async () => {
  const context = await stage.browser.newContext();
  const page = await context.newPage();
  await page.route("**/worker.js", (route) => route.fulfill({ status: 404, body: "" }));
  await page.goto(`${stage.host.address}${report}#/report/check/0`);
  await verdict(page).filter({ hasText: "Equal" }).waitFor();
  await page.getByText(/gives the page no worker/).waitFor();
  await context.close();
});

test("vectors that are damaged, left out or not kept are told", async () => {
  const folder = join(stage.folder, "damaged");
  await copyOfFixture(folder);
  await truncate(join(folder, end.embeddings.items.file), 3001);
  const damaged = await stage.open("/?report=made/damaged/#/report/check/0");
  const problem = damaged.page.getByRole("alert").filter({ hasText: "items.f16" });
  await problem.waitFor();
  assert.match(await problem.innerText(), /expected 3200 bytes of f16 embeddings, found 3001/);
  await assertAccessible(damaged.page);
  await copyOfFixture(folder);
  await damaged.page.getByRole("button", { name: "Try again" }).click();
  await verdict(damaged.page).filter({ hasText: "Equal" }).waitFor();
  await damaged.close();

  const checkpoints = manifest.checkpoints.map((checkpoint) => ({ ...checkpoint, embeddings: null }));
  await writeFile(join(folder, "manifest.json"), JSON.stringify({ ...manifest, redacted: true, checkpoints }));
  const redacted = await stage.open("/?report=made/damaged/#/report/check/0");
  await redacted.page.getByText("Vectors were left out of this report, so nothing can be ranked anew.").waitFor();
  await redacted.close();

  const other = await stage.open(`${report}#/report/check/0?checkpoint=update-1`);
  await other.page.getByText('The vectors of checkpoint "update-1" were not kept: the report has those of end.').waitFor();
  await other.page.getByRole("link", { name: "Check a checkpoint that has vectors" }).click();
  await verdict(other.page).filter({ hasText: "Equal" }).waitFor();
  await other.close();

  const beyond = await stage.open(`${report}#/report/check/6`);
  await beyond.page.getByText("the report has no user 6: it has 6, counted from 0").waitFor();
  await beyond.close();
});

test("the page is reached by its key and a link, and axe-core finds nothing wrong with it", async () => {
  const { page, problems, close } = await stage.open(`${report}#/report/users/4`);
  await page.getByRole("navigation", { name: "Users" }).getByRole("link", { name: "Live check" }).click();
  await page.getByRole("heading", { name: "Live check of user 4", exact: true }).waitFor();
  await verdict(page).filter({ hasText: "Equal" }).waitFor();
  await picture(page, "check-light");
  await assertAccessible(page);
  await page.keyboard.press("g");
  await page.keyboard.press("l");
  await page.getByRole("heading", { name: "Live check of user 0", exact: true }).waitFor();
  await choice(page, "Profile").selectOption("reference");
  await verdict(page).filter({ hasText: "Equal" }).waitFor();
  assert.deepEqual(problems, []);
  await close();
  const narrow = await open(3, "?unmasked=all", { colorScheme: "dark", viewport: { width: 390, height: 800 } });
  assert.equal(await scrollsSideways(narrow.page), false);
  await picture(narrow.page, "check-dark-narrow");
  await assertAccessible(narrow.page);
  await narrow.close();
});
