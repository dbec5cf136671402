// The built viewer in headless Chromium, over reports on a plain static host.
//
// LANGPTUNE_SITE             folder of the built viewer
// LANGPTUNE_CHROMIUM         Chromium's path
// LANGPTUNE_NATIVE_DIGEST    eval-core's digest as a native build computes it
// LANGPTUNE_SCREENSHOTS      a folder for pictures of the pages; none are taken without it

import assert from "node:assert/strict";
import { mkdtemp, mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";
import { serve } from "./server.mjs";

const { LANGPTUNE_SITE, LANGPTUNE_CHROMIUM, LANGPTUNE_NATIVE_DIGEST, LANGPTUNE_SCREENSHOTS } = process.env;
const fixture = fileURLToPath(new URL("../fixtures/report/", import.meta.url));

let browser, host, folder, manifest;

before(async () => {
  for (const [name, value] of Object.entries({ LANGPTUNE_SITE, LANGPTUNE_CHROMIUM, LANGPTUNE_NATIVE_DIGEST })) {
    assert.ok(value, `${name} is not set: run \`cargo xtask test --only browser\``);
  }
  manifest = JSON.parse(await readFile(join(fixture, "manifest.json"), "utf8"));
  folder = await mkdtemp(join(tmpdir(), "langptune-browser-"));
  await mkdir(join(folder, "newer"));
  await writeFile(join(folder, "newer/manifest.json"), JSON.stringify({ schema_version: manifest.schema_version + 1 }));
  host = await serve({ "/": LANGPTUNE_SITE, "/runs/six users/": fixture, "/made/": folder });
  browser = await chromium.launch({
    executablePath: LANGPTUNE_CHROMIUM,
    chromiumSandbox: process.getuid?.() !== 0, // Chromium has no sandbox for root
    args: ["--disable-gpu", "--disable-quic", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
  });
});

after(async () => {
  await browser?.close();
  await host?.close();
  if (folder) await rm(folder, { recursive: true });
});

/** A page at `path`; what goes wrong in it is collected in `problems`. */
async function open(path, options = {}) {
  const context = await browser.newContext(options);
  const page = await context.newPage();
  const problems = [];
  page.on("pageerror", (error) => problems.push(String(error)));
  await page.goto(`${host.address}${path}`);
  await page.locator("#digest").waitFor();
  return { page, problems, close: () => context.close() };
}

async function picture(page, name) {
  if (LANGPTUNE_SCREENSHOTS) await page.screenshot({ path: join(LANGPTUNE_SCREENSHOTS, `${name}.png`), fullPage: true });
}

const report = `/?report=${encodeURIComponent("runs/six users/")}`;

test("the browser computes the digest that a native build computes", async () => {
  const { page, close } = await open(report);
  assert.equal(await page.locator("#digest").innerText(), LANGPTUNE_NATIVE_DIGEST);
  await close();
});

test("a report's metrics are shown as its manifest has them", async () => {
  const { page, problems, close } = await open(report);
  await page.getByRole("heading", { name: manifest.run, exact: true }).waitFor();
  const shown = await page.locator("table").evaluateAll((tables) =>
    tables.map((table) => ({
      columns: [...table.querySelectorAll("thead th")].slice(1).map((cell) => cell.textContent),
      rows: [...table.querySelectorAll("tbody tr")].map((row) => [...row.children].map((cell) => cell.textContent.trim())),
    })),
  );
  const ranked = [
    ...manifest.checkpoints.flatMap(({ name, update, generated, reference }) => [
      [`${name}, update ${update}`, generated.metrics],
      [`${name}, update ${update}, reference profiles`, reference.metrics],
    ]),
    ...manifest.baselines.map(({ name, metrics }) => [`baseline ${name}`, metrics.metrics]),
  ];
  const names = Object.keys(manifest.checkpoints[0].generated.metrics);
  const expected = ["@10", "@5"].map((cutoff) => {
    const columns = names.filter((name) => name.endsWith(cutoff));
    const cell = ({ mean, ci95: [low, high] }) => `${mean.toFixed(4)} ${low.toFixed(4)} to ${high.toFixed(4)}`;
    return { columns, rows: ranked.map(([name, metrics]) => [name, ...columns.map((column) => cell(metrics[column]))]) };
  });
  assert.deepEqual(shown, expected);
  assert.deepEqual(problems, []);
  await picture(page, "report-light");
  await close();
});

test("the page follows a dark colour scheme and fits a telephone", async () => {
  const { page, close } = await open(report, { colorScheme: "dark", viewport: { width: 390, height: 800 } });
  await page.locator("table").first().waitFor();
  const ground = await page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  assert.equal(ground, "rgb(22, 24, 28)");
  assert.equal(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), true, "the page scrolls sideways");
  await picture(page, "report-dark-narrow");
  await close();
});

test("a report that is not there is named with the host's answer", async () => {
  const { page, close } = await open("/");
  const message = await page.getByRole("alert").innerText();
  assert.equal(message, "report/manifest.json answered with HTTP status 404");
  await close();
});

test("a report of a newer schema is refused with the way out", async () => {
  const { page, close } = await open("/#made/newer");
  const message = await page.getByRole("alert").innerText();
  assert.match(message, /schema version 2.*use a newer langptune/);
  await picture(page, "newer-schema");
  await close();
});
