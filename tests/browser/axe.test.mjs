// Every page, and what stands there when something is wrong, without a violation that axe-core finds.

import assert from "node:assert/strict";
import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { assertAccessible } from "./axe.mjs";
import { writePeople } from "./people.mjs";
import { copyOfFixture, report, setStage } from "./stage.mjs";

const people = "/?report=made/people/";
let stage;

before(async () => {
  stage = await setStage();
  await mkdir(join(stage.folder, "people"));
  await writePeople(join(stage.folder, "people"), 120);
  const lacking = join(stage.folder, "lacking");
  await copyOfFixture(lacking);
  const { checkpoints } = JSON.parse(await readFile(join(lacking, "manifest.json"), "utf8"));
  for (const { results } of checkpoints) await rm(join(lacking, results.files[0]));
  await mkdir(join(stage.folder, "broken"));
  await writeFile(join(stage.folder, "broken/manifest.json"), "{");
});

after(() => stage?.close());

/** A page under an address, once `shown` is on it. */
function looked(name, address, shown, then = async () => {}) {
  test(`${name} has no violation`, async () => {
    const { page, close } = await stage.open(address);
    await page.locator(shown).first().waitFor();
    await then(page);
    await assertAccessible(page);
    await close();
  });
}

looked("the overview", report, ".chart", (page) => page.locator("table").first().waitFor());
looked("the users' table", `${people}#/report/users`, ".rows tbody a");
looked("the users' table with a filter that is not understood", `${people}#/report/users?filter=rank%3C`, ".rows tbody a");
looked("the users' table with completions", `${people}#/report/users`, ".rows tbody a", async (page) => {
  await page.locator("#filter").fill("ra");
  await page.locator(".filter li").first().waitFor();
});
looked("a user's page", `${people}#/report/users/3`, "p.profile");
looked("a user's page with a difference", `${people}#/report/users/4?with=checkpoint:start`, "p.profile");
looked("the list of keys", report, ".chart", async (page) => {
  await page.keyboard.press("?");
  await page.getByRole("dialog").waitFor();
});
looked("a user that is not there", `${people}#/report/users/999`, ".problem");
looked("a page that is not there", `${report}#/report/nowhere`, "main h2");
looked("an overview whose result file is missing", "/?report=made/lacking/", ".problem");
looked("a report that is not there", "/?report=made/none/", ".problem");
looked("a report that is broken", "/?report=made/broken/", ".problem");

test("the first stop of the Tab key skips the header", async () => {
  const { page, close } = await stage.open(report, { reducedMotion: "reduce" });
  await page.locator(".chart").first().waitFor();
  await page.evaluate(() => document.activeElement?.blur());
  await page.keyboard.press("Tab");
  const skip = page.getByRole("link", { name: "Skip to the content" });
  assert.ok(await skip.evaluate((link) => link === document.activeElement));
  assert.ok((await skip.boundingBox()).y >= 0, "it is seen while it has the focus");
  await page.keyboard.press("Enter");
  assert.equal(await page.evaluate(() => document.activeElement?.tagName), "MAIN");
  await close();
});
