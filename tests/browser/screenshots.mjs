// Pictures of every page, light and dark, wide and narrow: `node screenshots.mjs FOLDER [REPORT]`, with the variables of
// stage.mjs; `cargo xtask screenshots` runs it. REPORT is a run's folder `report`; without it the report with six users is shown.
//
// Of each page there is what a window shows (`NAME-COLOURS-WIDTH-top.png`), the whole page (`NAME-COLOURS-WIDTH.png`), and how it
// prints (`NAME-light-wide.pdf`).

import { mkdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { fixture, setStage } from "./stage.mjs";

const [folder, shown = fixture] = process.argv.slice(2);
if (!folder) throw new Error("usage: node screenshots.mjs FOLDER [REPORT]");
const stage = await setStage(async () => ({ "/shown/": shown }));
const widths = { wide: { width: 1280, height: 860 }, narrow: { width: 390, height: 800 } };

/** Until nothing is read or computed any more, and the last frame is drawn. */
async function settle(page) {
  await page.waitForLoadState("networkidle");
  await page.locator("main progress").first().waitFor({ state: "detached" });
  await page.evaluate(() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))));
}

try {
  await mkdir(folder, { recursive: true });
  const { checkpoints } = JSON.parse(await readFile(join(shown, "manifest.json"), "utf8"));
  const last = checkpoints.findLast(({ results }) => results)?.name;
  const pages = {
    overview: ["overview", ".chart"],
    users: ["users", ".rows tbody a"],
    filtered: [`users?filter=${encodeURIComponent("rank<=20 and delta<0")}&sort=delta`, ".rows tbody a"],
    user: [`users/0?with=checkpoint:${checkpoints[0]?.name}`, "p.profile"],
    items: ["items", ".rows tbody a"],
    item: ["items/0", "main section"],
    map: ["map?user=0", "p[role=status]:has-text('In view'), .note"],
    compare: [`compare?a=${checkpoints[0]?.name}&b=${last}`, "#tests tbody tr"],
    check: ["check/0", ".verdict, .problem"],
  };
  for (const [name, [address, there]] of Object.entries(pages)) {
    for (const colorScheme of ["light", "dark"]) {
      for (const [width, viewport] of Object.entries(widths)) {
        const { page, close } = await stage.open(`/?report=shown/#/report/${address}`, { viewport, colorScheme });
        await page.locator(there).first().waitFor();
        await settle(page);
        if (name === "compare") await page.locator("#tests ~ *, p[role=status]", { hasText: "metrics tested" }).waitFor({ state: "detached" });
        const file = (kind) => join(folder, `${name}-${colorScheme}-${width}${kind}`);
        await page.screenshot({ path: file("-top.png") });
        await page.screenshot({ path: file(".png"), fullPage: true });
        if (colorScheme === "light" && width === "wide") await page.pdf({ path: file(".pdf"), format: "A4", printBackground: true });
        await close();
      }
    }
  }
} finally {
  await stage.close();
}
