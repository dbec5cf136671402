// What axe-core finds wrong with a page for those who cannot see it well, or use it without a mouse.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";

const source = await readFile(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

/** Windows and colours in which a page is looked at. */
const looks = [
  { name: "wide, light", viewport: { width: 1400, height: 900 }, colorScheme: "light" },
  { name: "wide, dark", viewport: { width: 1400, height: 900 }, colorScheme: "dark" },
  { name: "narrow, light", viewport: { width: 390, height: 800 }, colorScheme: "light" },
  { name: "narrow, dark", viewport: { width: 390, height: 800 }, colorScheme: "dark" },
];

/** What axe-core finds on the page as it is now: one line for each element and rule, none when all is well. */
export async function violations(page) {
  // Not as a <script>, which a page's own policy may forbid.
  if (!(await page.evaluate(() => "axe" in window))) await page.evaluate(source);
  const found = await page.evaluate(() => window.axe.run(document, { resultTypes: ["violations"] }));
  return found.violations.flatMap(({ id, help, nodes }) =>
    nodes.map(({ target, failureSummary }) => `${id} (${help}): ${target.join(" ")}: ${failureSummary.replaceAll(/\s+/g, " ")}`),
  );
}

/**
 * Looks at the page as it is in wide and narrow windows, light and dark, and fails with all that axe-core finds. The window and
 * the colours are as before afterwards.
 */
export async function assertAccessible(page) {
  const before = page.viewportSize();
  const found = [];
  for (const { name, viewport, colorScheme } of looks) {
    await page.setViewportSize(viewport);
    await page.emulateMedia({ colorScheme });
    // Charts and long tables measure themselves in the next frames.
    await page.evaluate(() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))));
    found.push(...(await violations(page)).map((line) => `${name}: ${line}`));
  }
  await page.setViewportSize(before);
  await page.emulateMedia({ colorScheme: null });
  assert.deepEqual(found, []);
}
