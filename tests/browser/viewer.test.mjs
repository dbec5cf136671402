// The viewer around its pages: which report it opens, how one moves in it, and what it says when something is wrong.

import assert from "node:assert/strict";
import { cp, mkdir, readFile, readdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { gzipSync } from "node:zlib";
import { choice, copyOfFixture, fixture, nativeDigest, picture, read, report, setStage, site } from "./stage.mjs";

/** All code of the viewer, packed, may have so many bytes. */
const SIZE_LIMIT = 500_000;

let stage, manifest;

before(async () => {
  manifest = await read("manifest.json");
  stage = await setStage(async (folder) => {
    // A site with two runs, one of them growing, under a path that nobody told the viewer.
    const many = join(folder, "many");
    await cp(site, many, { recursive: true });
    await copyOfFixture(join(many, "runs/growing"));
    const runs = [
      { name: "six users", path: "runs/six-users/" },
      { name: "growing", path: "runs/growing/" },
    ];
    await writeFile(join(many, "runs.json"), JSON.stringify({ runs, live: true }));
    return { "/any/base/": many, "/any/base/runs/six-users/": fixture };
  });
});

after(() => stage?.close());

const heading = (page, name) => page.getByRole("heading", { name, exact: true });

test("the code stays within its budget", async (context) => {
  const code = (await readdir(site)).filter((name) => /\.(js|wasm)$/.test(name));
  const sizes = await Promise.all(code.map(async (name) => gzipSync(await readFile(join(site, name)), { level: 9 }).length));
  const sum = sizes.reduce((a, b) => a + b, 0);
  context.diagnostic(`${code.map((name, place) => `${name} ${sizes[place]}`).join(", ")}: ${sum} bytes under gzip -9`);
  assert.ok(sum <= SIZE_LIMIT, `${sum} bytes are more than ${SIZE_LIMIT}`);
});

test("the browser computes the digest that a native build computes", async () => {
  const { page, close } = await stage.open(report);
  assert.equal(await page.locator("#digest").innerText(), nativeDigest);
  await close();
});

test("a report that is inside the page is read from there", async () => {
  const folder = join(stage.folder, "inside");
  await cp(site, folder, { recursive: true });
  const packed = async (file) => gzipSync(await readFile(join(fixture, file))).toString("base64");
  const files = ["manifest.json", "curves.json", ...manifest.checkpoints.flatMap(({ results }) => results.files)];
  const scripts = await Promise.all(
    files.map(async (file) =>
      `<script type="text/plain" data-file="report/${file}" data-encoding="gzip+base64">${await packed(file)}</script>`,
    ),
  );
  const index = await readFile(join(folder, "index.html"), "utf8");
  await writeFile(join(folder, "index.html"), index.replace("</head>", `${scripts.join("\n")}</head>`));
  const { page, problems, close } = await stage.open("/made/inside/index.html");
  await heading(page, manifest.run).waitFor();
  await page.locator(".chart-title", { hasText: "Share of targets" }).waitFor();
  await page.locator(".chart-title", { hasText: "objective/rewards" }).waitFor();
  assert.deepEqual(problems, []);
  await close();
});

test("the runs of a site are chosen by name", async () => {
  const { page, problems, close } = await stage.open("/any/base/");
  await heading(page, manifest.run).waitFor();
  assert.equal(await choice(page, "Run").inputValue(), "six users");
  await choice(page, "Run").selectOption("growing");
  await page.waitForURL(/#\/growing\/overview$/);
  await heading(page, manifest.run).waitFor();
  await page.goto(`${stage.host.address}/any/base/#/gone/overview`);
  assert.match(await page.getByRole("alert").innerText(), /no run “gone” here: choose one of six users, growing/);
  assert.deepEqual(problems, []);
  await close();
});

test("a run that still trains is followed, and silence is told", async () => {
  const path = join(stage.folder, "many/runs/growing/manifest.json");
  const whole = await readFile(path, "utf8");
  const { page, problems, close } = await stage.open("/any/base/#/growing/overview?checkpoint=end");
  await page.getByText("live", { exact: true }).waitFor();
  await heading(page, manifest.run).waitFor();
  await writeFile(path, JSON.stringify({ ...manifest, run: "grown" }));
  await heading(page, "grown").waitFor({ timeout: 15_000 });
  await writeFile(path, "{");
  await page.getByText("no answer: what was read last is shown").waitFor({ timeout: 15_000 });
  assert.equal(await heading(page, "grown").count(), 1);
  await writeFile(path, whole);
  await page.getByText("live", { exact: true }).waitFor({ timeout: 15_000 });
  assert.deepEqual(problems, []);
  await close();
});

test("a run that goes on does not disturb who reads it", async () => {
  const path = join(stage.folder, "many/runs/growing/manifest.json");
  const before = await readFile(path, "utf8");
  const { page, problems, close } = await stage.open("/any/base/#/growing/overview", { viewport: { width: 1280, height: 400 } });
  try {
    await page.locator(".small-multiples .chart").first().waitFor();
    await page.getByText("All 2 settings").click();
    await page.evaluate(() => {
      window.kept = [...document.querySelectorAll("main .small-multiples .chart, main #metrics")];
      window.scrollTo(0, 700);
    });
    const place = await page.evaluate(() => window.scrollY);
    const chosen = async (run) => {
      // As training does it: the checkpoint that was evaluated last is one more.
      const changed = JSON.parse(before);
      changed.run = run;
      changed.checkpoints.push({ ...changed.checkpoints.at(-1), name: `after ${run}`, update: 99 });
      await writeFile(path, JSON.stringify(changed));
    };
    await chosen("further");
    await heading(page, "further").waitFor({ timeout: 15_000, state: "attached" });
    assert.ok(await page.getByRole("option", { name: "after further, update 99" }).first().evaluate((option) => option.isConnected));
    assert.ok(await page.evaluate(() => window.kept.length > 1 && window.kept.every((element) => element.isConnected)), "charts stay");
    assert.equal(await page.evaluate(() => window.scrollY), place);
    const more = page.getByRole("button", { name: "New results: show" });
    assert.equal(await more.count(), 0, "the overview shows them");
    await page.evaluate(() => (location.hash = "#/growing/users"));
    await page.locator(".rows tbody a").first().waitFor();
    await page.locator("#filter").fill("rank<=100");
    await page.evaluate(() => (window.kept = document.querySelector(".rows tbody a")));
    await chosen("even further");
    await more.waitFor({ timeout: 15_000 });
    assert.ok(await page.evaluate(() => window.kept.isConnected), "the table stays");
    assert.equal(await page.getByRole("option", { name: "after even further, update 99" }).count(), 0);
    await more.click();
    await page.getByRole("option", { name: "after even further, update 99" }).first().waitFor({ state: "attached" });
    assert.equal(await page.locator("#filter").inputValue(), "rank<=100", "with what it was set to");
    await more.waitFor({ state: "detached" });
    assert.deepEqual(problems, []);
  } finally {
    await writeFile(path, before);
    await close();
  }
});

test("the keyboard goes from page to page, and shows its keys", async () => {
  const { page, close } = await stage.open(report);
  await page.locator("table.metrics").first().waitFor();
  const current = () => page.locator("nav [aria-current=page]").innerText();
  assert.equal(await current(), "Overview");
  await page.keyboard.press("Tab");
  assert.equal(await page.evaluate(() => document.activeElement.textContent), "Skip to the content");
  await page.keyboard.press("Enter");
  assert.equal(await page.evaluate(() => document.activeElement.tagName), "MAIN");
  assert.equal(new URL(page.url()).hash, "", "the link leaves the address alone");
  await page.keyboard.press("g");
  await page.keyboard.press("u");
  await page.waitForURL(/#\/.*\/users/);
  // The page follows its address a moment later.
  await page.locator("nav [aria-current=page]", { hasText: "Users" }).waitFor();
  await page.keyboard.press("g");
  await page.keyboard.press("o");
  await page.waitForURL(/#\/.*\/overview/);
  await page.keyboard.press("?");
  await page.getByRole("dialog", { name: "Keys" }).waitFor();
  await picture(page, "keys");
  await page.keyboard.press("Escape");
  await page.getByRole("dialog").waitFor({ state: "hidden" });
  await page.goBack();
  await page.waitForURL(/#\/.*\/users/);
  assert.match(await page.title(), /^Users/);
  await close();
});

test("letters typed into a choice are no shortcuts", async () => {
  const { page, close } = await stage.open(report);
  await choice(page, "Metric").focus();
  await page.keyboard.press("?");
  assert.equal(await page.getByRole("dialog").count(), 0);
  await close();
});

test("the theme is chosen and kept", async () => {
  const { page, close } = await stage.open(report, { colorScheme: "light" });
  const ground = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  assert.equal(await ground(), "rgb(251, 250, 248)");
  await choice(page, "Theme").selectOption("dark");
  assert.equal(await ground(), "rgb(22, 24, 28)");
  await page.reload();
  await page.locator("#digest").waitFor();
  assert.equal(await ground(), "rgb(22, 24, 28)");
  assert.equal(await choice(page, "Theme").inputValue(), "dark");
  await close();
});

test("an address without a page says so and leads on", async () => {
  const { page, close } = await stage.open(`${report}#/report/atlas`);
  await heading(page, "No such page").waitFor();
  assert.match(await page.getByRole("main").innerText(), /no page atlas/);
  await page.getByRole("link", { name: "Go to the overview" }).click();
  await heading(page, manifest.run).waitFor();
  await close();
});

test("a report that is not there is named with the host's answer", async () => {
  const { page, close } = await stage.open("/");
  const message = await page.getByRole("alert").innerText();
  assert.equal(message, "report/manifest.json answered with HTTP status 404");
  await close();
});

test("a report of a newer schema is refused with the way out", async () => {
  const folder = join(stage.folder, "newer");
  await mkdir(folder);
  await writeFile(join(folder, "manifest.json"), JSON.stringify({ schema_version: manifest.schema_version + 1 }));
  const { page, close } = await stage.open("/?report=made/newer");
  const message = await page.getByRole("alert").innerText();
  assert.match(message, /^made\/newer\/manifest\.json: .*schema version 2.*use a newer langptune/);
  await picture(page, "newer-schema");
  await close();
});

test("a broken manifest is named", async () => {
  const folder = join(stage.folder, "broken");
  await mkdir(folder);
  await writeFile(join(folder, "manifest.json"), JSON.stringify(manifest).slice(0, 2000));
  const { page, close } = await stage.open("/?report=made/broken");
  assert.match(await page.getByRole("alert").innerText(), /^made\/broken\/manifest\.json: .*EOF/);
  await close();
});
