// Pictures of every page, light and dark, wide and narrow: `node screenshots.mjs FOLDER [REPORT]`, with the variables of
// stage.mjs. REPORT is a run's folder `report`; without it the report with six users is shown.

import { mkdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { fixture, setStage } from "./stage.mjs";

const [folder, shown = fixture] = process.argv.slice(2);
if (!folder) throw new Error("usage: node screenshots.mjs FOLDER [REPORT]");
const stage = await setStage(async () => ({ "/shown/": shown }));
try {
  await mkdir(folder, { recursive: true });
  const { checkpoints } = JSON.parse(await readFile(join(shown, "manifest.json"), "utf8"));
  const pages = {
    overview: [`overview`, ".chart"],
    users: ["users", ".rows tbody a"],
    user: [`users/0?with=checkpoint:${checkpoints[0]?.name}`, "p.profile"],
    items: ["items", ".rows tbody a"],
    item: ["items/0", "main section"],
  };
  for (const [name, [address, there]] of Object.entries(pages)) {
    for (const colorScheme of ["light", "dark"]) {
      for (const [width, viewport] of Object.entries({ wide: { width: 1280, height: 860 }, narrow: { width: 390, height: 800 } })) {
        const { page, close } = await stage.open(`/?report=shown/#/report/${address}`, { viewport, colorScheme });
        await page.locator(there).first().waitFor();
        await page.waitForLoadState("networkidle");
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
