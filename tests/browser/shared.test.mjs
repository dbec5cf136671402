// Reports as `langptune` itself serves and writes them, in headless Chromium.
//
// LANGPTUNE_PROGRAM          the program `langptune`
// LANGPTUNE_SITE             folder of the built viewer
// LANGPTUNE_CHROMIUM         Chromium's path
// LANGPTUNE_NATIVE_DIGEST    eval-core's digest as a native build computes it

import assert from "node:assert/strict";
import { execFile, spawn } from "node:child_process";
import { cp, mkdtemp, readFile, rename, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { after, before, test } from "node:test";
import { fileURLToPath, pathToFileURL } from "node:url";
import { promisify } from "node:util";
import { chromium } from "playwright-core";
import { serve } from "./server.mjs";

const { LANGPTUNE_PROGRAM, LANGPTUNE_SITE, LANGPTUNE_CHROMIUM, LANGPTUNE_NATIVE_DIGEST } = process.env;
const fixture = fileURLToPath(new URL("../fixtures/report/", import.meta.url));
const run = promisify(execFile);

let browser, folder, report, name;

before(async () => {
  const needed = { LANGPTUNE_PROGRAM, LANGPTUNE_SITE, LANGPTUNE_CHROMIUM, LANGPTUNE_NATIVE_DIGEST };
  for (const [name, value] of Object.entries(needed)) {
    assert.ok(value, `${name} is not set: run \`cargo xtask test --only browser\``);
  }
  folder = await mkdtemp(join(tmpdir(), "langptune-shared-"));
  report = join(folder, "demo/report");
  await cp(fixture, report, { recursive: true });
  name = JSON.parse(await readFile(join(fixture, "manifest.json"), "utf8")).run;
  browser = await chromium.launch({
    executablePath: LANGPTUNE_CHROMIUM,
    chromiumSandbox: process.getuid?.() !== 0, // Chromium has no sandbox for root
    args: ["--disable-gpu", "--disable-quic", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
  });
});

after(async () => {
  await browser?.close();
  if (folder) await rm(folder, { recursive: true });
});

/** A page at `address` once the viewer runs, and all that went wrong or was refused in it. */
async function open(address) {
  const page = await browser.newPage();
  const problems = [];
  const requests = [];
  page.on("pageerror", (error) => problems.push(String(error)));
  page.on("console", (message) => {
    if (message.text().includes("Content Security Policy")) problems.push(message.text());
  });
  page.on("request", (request) => requests.push(request.url()));
  await page.goto(address);
  await page.locator("#digest").waitFor();
  return { page, problems, requests };
}

/** The program with these arguments, and with the viewer that is tested. */
function bundle(...argumentsOfIt) {
  return run(LANGPTUNE_PROGRAM, ["report", "bundle", join(folder, "demo"), "--site", LANGPTUNE_SITE, ...argumentsOfIt]);
}

/** What `look` does while the run is served; it is given the server's address. */
async function whileServed(look) {
  const flags = ["--site", LANGPTUNE_SITE, "--port", "0", "--no-open"];
  const server = spawn(LANGPTUNE_PROGRAM, ["view", join(folder, "demo"), ...flags], { stdio: ["ignore", "pipe", "inherit"] });
  try {
    const address = await new Promise((resolve, reject) => {
      createInterface(server.stdout).once("line", resolve);
      server.once("exit", (code) => reject(new Error(`langptune view ended with ${code}`)));
    });
    await look(address);
  } finally {
    server.kill("SIGINT");
  }
}

test("a run is served to the browser under the server's own rules", () =>
  whileServed(async (address) => {
    const { page, problems, requests } = await open(address);
    await page.getByText(name).first().waitFor();
    assert.equal(await page.locator("#digest").textContent(), LANGPTUNE_NATIVE_DIGEST);
    assert.deepEqual(problems, []);
    assert.ok(requests.every((url) => url.startsWith(address) || url.startsWith("data:")), requests.join("\n"));
    await page.close();
  }));

/** The live check of the first user, made in a worker, finds what is recorded. */
async function checksLive(page, problems) {
  await page.evaluate(() => (location.hash = `${location.hash.split("/").slice(0, 2).join("/") || "#/"}/check/0`));
  await page.locator(".verdict", { hasText: "Equal: ranks and scores are the recorded ones" }).waitFor();
  assert.equal(page.workers().length, 1);
  assert.deepEqual(problems, []);
}

test("a served run is ranked anew in a worker", () =>
  whileServed(async (address) => {
    const { page, problems } = await open(address);
    await page.getByText(name).first().waitFor();
    await checksLive(page, problems);
    await page.close();
  }));

test("a run that still trains is followed", () =>
  whileServed(async (address) => {
    const { page, problems } = await open(address);
    await page.getByText(name).first().waitFor();
    const manifest = JSON.parse(await readFile(join(report, "manifest.json"), "utf8"));
    const next = { ...manifest, run: "the run as it went on" };
    // As training does it: the file takes the place of the earlier one, whole.
    await writeFile(join(report, "next.json"), JSON.stringify(next));
    await rename(join(report, "next.json"), join(report, "manifest.json"));
    try {
      await page.getByText(next.run).first().waitFor({ timeout: 20_000 });
      assert.deepEqual(problems, []);
    } finally {
      await writeFile(join(report, "manifest.json"), JSON.stringify(manifest));
    }
    await page.close();
  }));

test("another site's page gets nothing of what is served", () =>
  whileServed(async (address) => {
    // Another port is another origin.
    const elsewhere = await serve({ "/": fixture });
    const page = await browser.newPage();
    await page.goto(`${elsewhere.address}/manifest.json`);
    const read = (url, mode) =>
      page.evaluate(([url, mode]) => fetch(url, { mode }).then((answer) => answer.type, () => "refused"), [url, mode]);
    for (const mode of ["cors", "no-cors"]) assert.equal(await read(`${address}runs/demo/manifest.json`, mode), "refused");
    assert.equal(await read(`${elsewhere.address}/manifest.json`, "cors"), "basic", "its own files it gets");
    await page.close();
    await elsewhere.close();
  }));

test("a bundle opens from a static host under any address", async () => {
  const out = join(folder, "site");
  await bundle("--out", out);
  const host = await serve({ "/": fixture, "/deep/inside/": out });
  try {
    const { page, problems } = await open(`${host.address}/deep/inside/index.html`);
    await page.getByText(name).first().waitFor();
    assert.deepEqual(problems, []);
    await page.close();
  } finally {
    await host.close();
  }
});

test("one file shows its report from the disk", async () => {
  const file = join(folder, "demo.html");
  await bundle("--single-file", file);
  const { page, problems } = await open(pathToFileURL(file).href);
  await page.getByRole("heading", { name, exact: true }).waitFor();
  await page.locator(".chart-title", { hasText: "objective/rewards" }).waitFor();
  assert.equal(await page.locator("#digest").textContent(), LANGPTUNE_NATIVE_DIGEST);
  await checksLive(page, problems);
  await page.close();
});
