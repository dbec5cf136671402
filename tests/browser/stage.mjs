// What every browser test needs: the built viewer on a plain static host, reports beside it, and headless Chromium.
//
// LANGPTUNE_SITE             folder of the built viewer
// LANGPTUNE_CHROMIUM         Chromium's path
// LANGPTUNE_NATIVE_DIGEST    eval-core's digest as a native build computes it
// LANGPTUNE_SCREENSHOTS      a folder for pictures of the pages; none are taken without it

import assert from "node:assert/strict";
import { cp, mkdir, mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";
import { serve } from "./server.mjs";

const { LANGPTUNE_SITE, LANGPTUNE_CHROMIUM, LANGPTUNE_NATIVE_DIGEST, LANGPTUNE_SCREENSHOTS } = process.env;

/** The folder of the built viewer. */
export const site = LANGPTUNE_SITE;

/** eval-core's digest as a native build computes it. */
export const nativeDigest = LANGPTUNE_NATIVE_DIGEST;

/** The folder of the report with six users. */
export const fixture = fileURLToPath(new URL("../fixtures/report/", import.meta.url));

/** The page's address of the report with six users. */
export const report = `/?report=${encodeURIComponent("runs/six users/")}`;

/** A file of the report with six users, parsed. */
export async function read(file) {
  return JSON.parse(await readFile(join(fixture, file), "utf8"));
}

/**
 * Sets everything up. `folder` is an empty folder that is served as `/made/`; `folders(folder)` may name more prefixes.
 * `open(path, options)` gives a page, what went wrong in it, and a function that closes it.
 */
export async function setStage(folders = async () => ({})) {
  for (const [name, value] of Object.entries({ LANGPTUNE_SITE, LANGPTUNE_CHROMIUM, LANGPTUNE_NATIVE_DIGEST })) {
    assert.ok(value, `${name} is not set: run \`cargo xtask test --only browser\``);
  }
  const folder = await mkdtemp(join(tmpdir(), "langptune-browser-"));
  const more = await folders(folder);
  const host = await serve({ "/": site, "/runs/six users/": fixture, "/made/": folder, ...more });
  const browser = await chromium.launch({
    executablePath: LANGPTUNE_CHROMIUM,
    chromiumSandbox: process.getuid?.() !== 0, // Chromium has no sandbox for root
    args: ["--disable-gpu", "--disable-quic", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
  });
  const open = async (path, options = {}) => {
    const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, ...options });
    const page = await context.newPage();
    const problems = [];
    page.on("pageerror", (error) => problems.push(String(error)));
    await page.goto(`${host.address}${path}`);
    await page.locator("#digest").waitFor();
    return { page, problems, close: () => context.close() };
  };
  const close = async () => {
    await browser.close();
    await host.close();
    await rm(folder, { recursive: true });
  };
  return { browser, host, folder, open, close };
}

/** A copy of the fixture in `folder`, to be broken. */
export async function copyOfFixture(folder) {
  await mkdir(folder, { recursive: true });
  await cp(fixture, folder, { recursive: true });
}

/** Takes a picture of the whole page, if pictures are wanted. */
export async function picture(page, name) {
  if (LANGPTUNE_SCREENSHOTS) await page.screenshot({ path: join(LANGPTUNE_SCREENSHOTS, `${name}.png`), fullPage: true });
}

/** A choice among options by its label. */
export function choice(page, name) {
  return page.getByRole("combobox", { name });
}

/** Whether the page is wider than its window. */
export function scrollsSideways(page) {
  return page.evaluate(() => document.documentElement.scrollWidth > innerWidth);
}

/** A number with four decimals as Rust writes it: halves go to the even neighbour. */
export function four(value) {
  const tenThousandths = value * 1e4;
  const isHalf = Math.abs(tenThousandths % 1) === 0.5;
  return (isHalf ? (2 * Math.round(tenThousandths / 2)) / 1e4 : value).toFixed(4);
}
