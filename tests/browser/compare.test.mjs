// The page that compares two checkpoints: its numbers beside those of `langptune metrics` and of the report.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { cp, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { promisify } from "node:util";
import { assertAccessible } from "./axe.mjs";
import { meanRank, profile, writePeople } from "./people.mjs";
import { choice, copyOfFixture, four, picture, read, report, scrollsSideways, setStage, site } from "./stage.mjs";

const run = promisify(execFile);
const { LANGPTUNE_PROGRAM } = process.env;

const users = 250;
const everyone = Array.from({ length: users }, (_, user) => user);
const gain = (user) => meanRank(user, 0) - meanRank(user, 1);

let stage, manifest;

before(async () => {
  manifest = await read("manifest.json");
  stage = await setStage(async (folder) => {
    // A site with two runs: the second has other users too, and in another order.
    const many = join(folder, "many");
    await cp(site, many, { recursive: true });
    for (const [name, count] of [["first", 120], ["second", 120]]) {
      await mkdir(join(many, "runs", name), { recursive: true });
      await writePeople(join(many, "runs", name), count);
    }
    const path = join(many, "runs/second/users-0.json");
    const chunk = JSON.parse(await readFile(path, "utf8"));
    chunk.users.forEach((user, place) => (user.id = place < 10 ? `stranger-${place}` : `person-${109 - place}`));
    await writeFile(path, JSON.stringify(chunk));
    const runs = ["first", "second"].map((name) => ({ name, path: `runs/${name}/` }));
    await writeFile(join(many, "runs.json"), JSON.stringify({ runs, live: false }));
    return { "/many/": many };
  });
  for (const name of ["people", "holes"]) {
    await mkdir(join(stage.folder, name));
    await writePeople(join(stage.folder, name), users);
  }
  await rm(join(stage.folder, "holes/checkpoints/end/results-1.json"));
});

after(() => stage?.close());

async function open(parameters = "", options = {}, name = "people") {
  const opened = await stage.open(`/?report=made/${name}/#/report/compare${parameters}`, options);
  await opened.page.locator("#wins").waitFor();
  return opened;
}

/** Waits until a metric is tested; its row by heading. */
async function tested(page, metric) {
  const row = page.locator(`#tests [data-metric="${metric}"]`);
  await row.waitFor();
  const [first, second, difference, interval, p, recorded] = await row.locator("td").allInnerTexts();
  return { first, second, difference, interval, p, recorded };
}

/** A p-value as the page writes it. */
const written = (p) => (p < 0.0001 ? "p < 0.0001" : `p = ${four(p)}`);

test("wins, losses and those who moved most are those of a plain count", async () => {
  const { page, problems, close } = await open("?a=start&b=end");
  const count = (is) => everyone.filter((user) => is(gain(user))).length;
  const [wins, ties, losses] = [count((gain) => gain > 0), count((gain) => gain === 0), count((gain) => gain < 0)];
  assert.ok(wins > 10 && losses > 10 && ties > 10, "a poor test");
  const said = `Of ${users} users ${wins} have a better rank, ${ties} the same and ${losses} a worse one.`;
  assert.equal(await page.locator("#wins").innerText(), said);
  for (const [caption, sign] of [["To a better rank", 1], ["To a worse rank", -1]]) {
    const expected = everyone
      .filter((user) => sign * gain(user) > 0)
      .sort((a, b) => sign * (gain(b) - gain(a)) || a - b)
      .slice(0, 10);
    const rows = page.getByRole("region", { name: caption }).locator("tbody tr");
    assert.deepEqual(await rows.locator("th").allInnerTexts(), expected.map((user) => `User ${user}`));
    const [before, after, change] = await rows.first().locator("td").allInnerTexts();
    const [first] = expected;
    assert.deepEqual([Number(before), Number(after), Number(change)], [meanRank(first, 0), meanRank(first, 1), -gain(first)]);
  }
  assert.deepEqual(problems, []);
  await picture(page, "compare-light");
  await close();
});

test("means, differences and p-values are those of `langptune metrics`, and the recorded ones", async (context) => {
  if (!LANGPTUNE_PROGRAM) return context.skip("LANGPTUNE_PROGRAM is not set");
  const { page, problems, close } = await stage.open(`${report}#/report/compare?a=update-1&b=end`);
  const folder = await mkdtemp(join(tmpdir(), "langptune-compare-"));
  const [first, end] = manifest.checkpoints;
  const results = async ({ results }) => (await Promise.all(results.files.map(read))).flatMap((file) => file.results);
  // A run needs only the targets at their ranks: others fill the places before them.
  const trec = (results) =>
    results.flatMap(({ generated: [{ targets: [{ item, rank }] }] }, user) =>
      Array.from({ length: rank }, (_, place) => `u${user} Q0 ${place + 1 === rank ? item : `x${place}`} ${place + 1} ${100 - place} t\n`),
    );
  const [before, after] = [await results(first), await results(end)];
  await writeFile(join(folder, "first"), trec(before).join(""));
  await writeFile(join(folder, "end"), trec(after).join(""));
  const qrels = after.map(({ generated: [{ targets: [{ item }] }] }, user) => `u${user} 0 ${item} 1\n`);
  await writeFile(join(folder, "qrels"), qrels.join(""));
  const flags = ["--run", join(folder, "end"), "--baseline", join(folder, "first"), "--qrels", join(folder, "qrels")];
  const { stdout } = await run(LANGPTUNE_PROGRAM, ["metrics", ...flags, "--cutoffs", "5,10", "--seed", manifest.config.seed, "--json"]);
  const expected = JSON.parse(stdout).metrics ?? JSON.parse(stdout);
  for (const metric of Object.keys(end.generated.metrics)) {
    const shown = await tested(page, metric);
    const { mean, baseline } = expected[metric];
    assert.deepEqual([shown.first, shown.second], [four(baseline.mean), four(mean)], metric);
    assert.equal(shown.p, written(baseline.p_value), metric);
    assert.equal(Number(shown.difference.replace("−", "-")), Number(four(baseline.difference)), metric);
    const recorded = end.comparisons.find((made) => made.with === first.name && made.metric === metric);
    assert.equal(shown.recorded, written(recorded.test.p_value), metric);
    const [low, high] = shown.interval.split(" to ").map(Number);
    assert.ok(low <= baseline.difference + 1e-4 && baseline.difference - 1e-4 <= high, metric);
  }
  assert.equal(page.workers().length, 1, "tests are made beside the page");
  assert.deepEqual(problems, []);
  await close();
  await rm(folder, { recursive: true });
});

test("a dot tells its user, and a click or Enter opens it", async () => {
  const { page, close } = await open();
  const plot = page.locator(".plot");
  await plot.scrollIntoViewIfNeeded();
  const box = await plot.boundingBox();
  // Ranks are drawn by their logarithms, between the axes' labels.
  const largest = Math.log2(Math.max(...everyone.flatMap((user) => [meanRank(user, 0), meanRank(user, 1)])));
  const at = (user) => [
    50 + (Math.log2(meanRank(user, 0)) / largest) * (box.width - 62),
    386 - (Math.log2(meanRank(user, 1)) / largest) * 376,
  ];
  const user = everyone.find((user) => everyone.every((other) => other === user || Math.hypot(at(user)[0] - at(other)[0], at(user)[1] - at(other)[1]) > 4));
  await page.mouse.move(box.x + at(user)[0], box.y + at(user)[1]);
  await page.locator(".chart-place", { hasText: `user ${user}` }).waitFor();
  const said = await page.locator("figcaption").innerText();
  assert.match(said, new RegExp(`rank at start ${meanRank(user, 0)}\\b.*rank at end ${meanRank(user, 1)}`, "s"));
  await page.mouse.click(box.x + at(user)[0], box.y + at(user)[1]);
  await page.getByRole("heading", { name: `User ${user} person-${user}` }).waitFor();
  await page.goBack();
  await page.getByRole("slider").focus();
  await page.keyboard.press("Home");
  await page.keyboard.press("Enter");
  await page.getByRole("heading", { name: /^User \d+ person-/ }).waitFor();
  await close();
});

test("both profiles of a user stand side by side, with what differs", async () => {
  const { page, close } = await open("?a=start&b=end&user=10");
  const texts = page.locator(".side-by-side p.profile");
  await texts.nth(1).waitFor();
  assert.equal(await texts.first().innerText(), profile(10, 0, 0));
  assert.deepEqual((await texts.nth(1).locator("del").allInnerTexts()).map((word) => word.trim()), ["old"]);
  assert.deepEqual((await texts.nth(1).locator("ins").allInnerTexts()).map((word) => word.trim()), ["new"]);
  const button = page.getByRole("region", { name: "To a better rank" }).getByRole("button").first();
  const chosen = (await button.getAttribute("aria-label")).match(/\d+/)[0];
  await button.click();
  await page.waitForURL(new RegExp(`user=${chosen}`));
  assert.equal(await page.getByLabel("User", { exact: true }).inputValue(), chosen);
  await page.waitForFunction((text) => document.querySelector(".side-by-side p.profile")?.textContent === text, profile(Number(chosen), 0, 0));
  await close();
});

test("the other way round it is the other way round", async () => {
  const { page, close } = await open("?a=start&b=end");
  const before = await page.locator("#wins .gain").innerText();
  await choice(page, "First checkpoint").selectOption("end");
  await choice(page, "Second checkpoint").selectOption("start");
  await page.waitForURL(/a=end&b=start/);
  await page.locator("#wins .loss").filter({ hasText: before.match(/\d+/)[0] }).waitFor();
  await close();
});

test("users of two runs are matched by their ids, and it is said when they differ", async () => {
  const { page, problems, close } = await stage.open("/many/#/first/compare?a=start&b=second%2Fend");
  await page.getByText(/The users differ: 10 are only in the first report and 10 only in the second\. The 110 that both have/).waitFor();
  // Person n is user 109 − n of the second run, from the tenth on; the last twenty are as they were.
  const pairs = Array.from({ length: 120 }, (_, person) => [person, person < 100 ? 109 - person : person]).filter(
    ([person, other]) => person >= 100 || other >= 10 && other < 100,
  );
  const wins = pairs.filter(([person, other]) => meanRank(other, 1) < meanRank(person, 0)).length;
  await page.locator("#wins", { hasText: `Of ${pairs.length} users ${wins} have a better rank` }).waitFor();
  assert.equal(await choice(page, "Run of the second").inputValue(), "second");
  await picture(page, "compare-two-runs");
  await choice(page, "Run of the second").selectOption("this run");
  await page.locator("#wins", { hasText: "Of 120 users" }).waitFor();
  assert.deepEqual(problems, []);
  await close();
});

test("what is missing is named, and the others are compared", async () => {
  const { page, close } = await open("?a=start&b=end", {}, "holes");
  await page.getByRole("alert").filter({ hasText: "end/results-1.json" }).waitFor();
  await page.getByText(/100 users are left out/).waitFor();
  await assertAccessible(page);
  await close();
  for (const [parameters, problem] of [
    ["?a=nowhere", 'No checkpoint "nowhere" has results about users: expected one of start, end.'],
    ["?b=gone%2Fend", "There is no run “gone” here."],
  ]) {
    const { page, close } = await stage.open(`/?report=made/people/#/report/compare${parameters}`);
    await page.getByText(problem).waitFor();
    await page.getByRole("link", { name: "Compare without these settings" }).click();
    await page.locator("#wins").waitFor();
    await close();
  }
  const folder = join(stage.folder, "redacted");
  await copyOfFixture(folder);
  const checkpoints = manifest.checkpoints.map((checkpoint) => ({ ...checkpoint, results: null, embeddings: null }));
  await writeFile(join(folder, "manifest.json"), JSON.stringify({ ...manifest, checkpoints }));
  const bare = await stage.open("/?report=made/redacted/#/report/compare");
  await bare.page.getByText("The report keeps only the metrics of its checkpoints, and nothing about single users.").waitFor();
  await bare.close();
});

test("a report that names no metric has its ranks compared, and no empty table", async () => {
  const folder = join(stage.folder, "unmeasured");
  await copyOfFixture(folder);
  const without = (summary) => summary && { ...summary, metrics: {} };
  const checkpoints = manifest.checkpoints.map((checkpoint) => ({
    ...checkpoint,
    generated: without(checkpoint.generated),
    reference: without(checkpoint.reference),
    comparisons: [],
  }));
  await writeFile(join(folder, "manifest.json"), JSON.stringify({ ...manifest, checkpoints, baselines: [] }));
  const { page, problems, close } = await stage.open("/?report=made/unmeasured/#/report/compare");
  await page.locator("#wins").waitFor();
  await page.getByText("The report names no metric").waitFor();
  assert.equal(await page.locator("#tests").count(), 0);
  assert.deepEqual(problems, []);
  await close();
});

test("the page is reached by its key, fits a telephone, and axe-core finds nothing wrong with it", async () => {
  const { page, problems, close } = await stage.open(report);
  await page.locator("table.metrics").first().waitFor();
  await page.keyboard.press("g");
  await page.keyboard.press("c");
  await page.locator("#wins").waitFor();
  await tested(page, "map@5");
  await page.locator(".side-by-side p.profile").nth(1).waitFor();
  await assertAccessible(page);
  await picture(page, "compare-fixture");
  assert.deepEqual(problems, []);
  await close();
  const narrow = await open("", { colorScheme: "dark", viewport: { width: 390, height: 800 } });
  assert.equal(await scrollsSideways(narrow.page), false);
  await picture(narrow.page, "compare-dark-narrow");
  await narrow.close();
});
