// The list of commands: by keyboard alone to pages, users, items, checkpoints, themes and files.

import assert from "node:assert/strict";
import { mkdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { assertAccessible } from "./axe.mjs";
import { writePeople } from "./people.mjs";
import { report, setStage } from "./stage.mjs";

const people = "/?report=made/people/";
const strange = '<img src=x onerror="window.broken = 1"> \u202ehsilgne\u202c أفلام 🎬 ' + "long".repeat(200);
let stage;

before(async () => {
  stage = await setStage();
  await mkdir(join(stage.folder, "people"));
  await writePeople(join(stage.folder, "people"), 120, { title: (item) => (item === 7 ? strange : `Title ${item}`) });
});

after(() => stage?.close());

const open = async (page) => {
  await page.keyboard.press("Control+k");
  const field = page.getByRole("combobox", { name: "Go to a page, user or item" });
  await field.waitFor();
  return field;
};
const options = (page) => page.locator("#commands [role=option]");

test("a page and a user are reached by keyboard, also while something is typed", async () => {
  const { page, problems, close } = await stage.open(people);
  await page.locator("main section").first().waitFor();
  await (await open(page)).fill("usr");
  await page.keyboard.press("Enter");
  await page.locator("#filter").focus();
  assert.match(page.url(), /#\/.*\/users$/);
  const field = await open(page);
  assert.equal(await field.inputValue(), "", "it begins anew");
  await field.fill("17");
  assert.equal(await options(page).first().locator(".name").textContent(), "User 17");
  await page.keyboard.press("Enter");
  await page.locator("p.profile").waitFor();
  assert.match(page.url(), /users\/17$/);
  assert.deepEqual(problems, []);
  await close();
});

test("arrows move the choice, Escape closes and gives the focus back", async () => {
  const { page, close } = await stage.open(report);
  await page.locator(".chart").first().waitFor();
  const button = page.getByRole("button", { name: "Commands" });
  await button.focus();
  await page.keyboard.press("Enter");
  const field = page.getByRole("combobox", { name: "Go to a page" });
  await field.waitFor();
  await page.keyboard.press("ArrowDown");
  const active = await field.getAttribute("aria-activedescendant");
  assert.equal(active, "commands-1");
  assert.equal(await page.locator(`#${active}`).getAttribute("aria-selected"), "true");
  await page.keyboard.press("ArrowUp");
  await page.keyboard.press("ArrowUp");
  const count = await options(page).count();
  assert.equal(await field.getAttribute("aria-activedescendant"), `commands-${count - 1}`, "around the end");
  await assertAccessible(page);
  await page.keyboard.press("Escape");
  await field.waitFor({ state: "hidden" });
  assert.ok(await button.evaluate((button) => button === document.activeElement));
  await close();
});

test("a checkpoint and a theme are chosen", async () => {
  const { page, close } = await stage.open(report);
  await page.locator(".chart").first().waitFor();
  await (await open(page)).fill("checkp update-1");
  await page.keyboard.press("Enter");
  await page.waitForFunction(() => location.hash.includes("checkpoint=update-1"));
  await (await open(page)).fill("dark theme");
  await page.keyboard.press("Enter");
  assert.equal(await page.evaluate(() => document.documentElement.dataset.theme), "dark");
  assert.equal(await page.getByRole("combobox", { name: "Theme" }).inputValue(), "dark");
  await close();
});

test("what a page can save is a command", async () => {
  const { page, close } = await stage.open(`${people}#/report/users`);
  await page.locator(".rows tbody a").first().waitFor();
  await (await open(page)).fill("save csv");
  const download = page.waitForEvent("download");
  await page.keyboard.press("Enter");
  const file = await download;
  assert.equal(file.suggestedFilename(), "people-users.csv");
  assert.match(await readFile(await file.path(), "utf8"), /person-0/);
  await close();
});

test("titles with markup, marks of direction and no end are shown as they are", async () => {
  const { page, problems, close } = await stage.open(people);
  await page.locator("main section").first().waitFor();
  const field = await open(page);
  await field.fill("أفلام");
  if (await page.evaluate(() => [...document.querySelectorAll("nav a")].some((link) => link.textContent === "Items"))) {
    await options(page).first().waitFor();
    assert.equal(await options(page).first().locator(".name").textContent(), strange);
    const width = await options(page).first().evaluate((option) => option.getBoundingClientRect().width);
    assert.ok(width <= 640, `${width} pixels`);
  }
  await field.fill('<img src=x onerror="window.broken = 1">zzz');
  await page.getByText("Nothing fits.").waitFor();
  assert.equal(await page.evaluate(() => window.broken), undefined);
  assert.deepEqual(problems, []);
  await close();
});
