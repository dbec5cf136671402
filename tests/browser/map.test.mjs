// The map: where points are, what is near and what is chosen is worked out anew from the report's files.

import assert from "node:assert/strict";
import { readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { assertAccessible } from "./axe.mjs";
import { copyOfFixture, fixture, picture, read, report, scrollsSideways, setStage } from "./stage.mjs";

let stage, manifest, catalogue, end, results, targets;
const places = {};

/** Points of a file of the report. */
async function points(file) {
  const bytes = await readFile(join(fixture, file));
  return Array.from({ length: bytes.length / 8 }, (_, row) => [bytes.readFloatLE(8 * row), bytes.readFloatLE(8 * row + 4)]);
}

before(async () => {
  manifest = await read("manifest.json");
  catalogue = await read(manifest.catalogue);
  end = manifest.checkpoints.find(({ map }) => map !== null);
  for (const kind of ["items", "profiles", "references"]) places[kind] = await points(end.map[kind]);
  results = (await Promise.all(end.results.files.map(read))).flatMap((chunk) => chunk.results);
  targets = (await Promise.all(manifest.users.files.map(read))).flatMap(({ users }) => users.map((user) => user.targets));
  stage = await setStage();
  const copy = async (name, change) => {
    const folder = join(stage.folder, name);
    await copyOfFixture(folder);
    const changed = structuredClone(manifest);
    await change(changed, folder);
    await writeFile(join(folder, "manifest.json"), JSON.stringify(changed));
  };
  await copy("old", (manifest) => manifest.checkpoints.forEach((checkpoint) => delete checkpoint.map));
  await copy("holes", (_, folder) => rm(join(folder, end.map.profiles)));
});

after(() => stage?.close());

const open = (parameters = "", options = {}) => stage.open(`${report}#/report/map${parameters}`, options);

const everything = () =>
  Object.entries(places).flatMap(([kind, points]) => points.map((point, number) => ({ kind, number, point })));

/** What a point is called. */
function name({ kind, number }) {
  if (kind === "items") return `${catalogue.titles[number]}, ${catalogue.train_interactions[number]} interactions`;
  if (kind === "references") return `User ${number}, reference profile`;
  const rank = Math.min(...results[number].generated[0].targets.map(({ rank }) => rank));
  return `User ${number}, profile 1, rank ${rank}`;
}

/** The smallest rectangle around all points. */
function bounds() {
  const ends = (axis) => {
    const values = everything().map(({ point }) => point[axis]);
    return [Math.min(...values), Math.max(...values)];
  };
  return [ends(0), ends(1)];
}

/** Where a point is on the page when everything is in view. */
async function pixel(page, [x, y]) {
  const box = await page.locator(".map").evaluate((map) => {
    const { left, top } = map.getBoundingClientRect();
    return { left: left + map.clientLeft, top: top + map.clientTop, width: map.clientWidth, height: map.clientHeight };
  });
  const [across, up] = bounds();
  const scale = Math.min((box.width * 0.92) / (across[1] - across[0]), (box.height * 0.92) / (up[1] - up[0]));
  const middle = ([low, high]) => (low + high) / 2;
  return [box.left + box.width / 2 + (x - middle(across)) * scale, box.top + box.height / 2 - (y - middle(up)) * scale];
}

const near = (page) => page.locator("section", { hasText: "Nearest to the middle" }).locator("li");

async function ready(page) {
  await page.getByText(`In view: ${places.items.length} items, ${places.references.length} reference profiles, ${places.profiles.length} generated profiles.`).waitFor();
  await page.waitForFunction(() => document.querySelector(".map-legend")?.textContent.includes("rank"));
}

test("everything is in view, and what is nearest to the middle is listed", async () => {
  const { page, problems, close } = await open();
  await ready(page);
  const middle = bounds().map(([low, high]) => (low + high) / 2);
  const distance = ({ point }) => (point[0] - middle[0]) ** 2 + (point[1] - middle[1]) ** 2;
  const order = { profiles: 0, references: 1, items: 2 };
  const nearest = everything().sort((a, b) => distance(a) - distance(b) || order[a.kind] - order[b.kind] || a.number - b.number);
  await page.waitForFunction((expected) => document.body.textContent.includes(expected), name(nearest[0]));
  assert.deepEqual(await near(page).allInnerTexts(), nearest.slice(0, 12).map(name));
  const [first, second] = end.map.explained.map((share) => `${(share * 100).toFixed(1)} %`);
  await page.getByText(`horizontal axis lies ${first}`).waitFor();
  await page.getByText(`the vertical one ${second}`).waitFor();
  await page.getByText(`0 to ${Math.max(...catalogue.train_interactions)} interactions`).waitFor();
  assert.deepEqual(problems, []);
  await picture(page, "map-light");
  await assertAccessible(page);
  await close();
});

test("a point has its colour on the picture, and its name under the pointer", async () => {
  const { page, close } = await open("?kinds=items");
  await page.getByText(/In view: 40 items/).waitFor();
  const item = places.items.findIndex((point, item) => places.items.every((other, number) => number === item || Math.hypot(point[0] - other[0], point[1] - other[1]) > 0.05));
  const at = await pixel(page, places.items[item]);
  await page.mouse.move(...at);
  await page.locator(".map-label", { hasText: name({ kind: "items", number: item }) }).waitFor();
  const opacity = await page.locator(".map canvas").evaluate((canvas, [x, y]) => {
    const box = canvas.getBoundingClientRect();
    return canvas.getContext("2d").getImageData(Math.floor(x - box.left), Math.floor(y - box.top), 1, 1).data[3];
  }, at);
  assert.equal(opacity, 255);
  await page.mouse.click(...at);
  await page.getByRole("heading", { name: catalogue.titles[item], exact: true }).waitFor();
  await close();
});

test("what is drawn around is listed and saved", async () => {
  const { page, close } = await open("?kinds=items");
  await page.getByText(/In view: 40 items/).waitFor();
  const xs = places.items.map(([x]) => x).sort((a, b) => a - b);
  // Between two items, so that no rounding decides.
  const gap = xs.findIndex((x, place) => place > 5 && xs[place + 1] - x > 0.01);
  const border = (xs[gap] + xs[gap + 1]) / 2;
  const inside = places.items.map((point, number) => ({ kind: "items", number, point })).filter(({ point }) => point[0] < border);
  const box = await page.locator(".map").boundingBox();
  const [right] = await pixel(page, [border, 0]);
  await page.getByRole("button", { name: "Draw around points" }).click();
  await page.mouse.move(box.x + 2, box.y + 2);
  await page.mouse.down();
  for (const corner of [[right, box.y + 2], [right, box.y + box.height - 3], [box.x + 2, box.y + box.height - 3]]) await page.mouse.move(...corner);
  await page.mouse.up();
  await page.getByRole("heading", { name: `Chosen: ${inside.length} points` }).waitFor();
  const list = page.locator("section", { has: page.getByRole("heading", { name: /^Chosen/ }) });
  assert.deepEqual(await list.locator("li").allInnerTexts(), inside.map(name));
  await picture(page, "map-chosen");
  const waiting = page.waitForEvent("download");
  await list.getByRole("button", { name: "CSV" }).click();
  const lines = (await readFile(await (await waiting).path(), "utf8")).trimEnd().split("\r\n");
  assert.equal(lines[0], "kind,number,name,x,y");
  assert.deepEqual(lines.slice(1).map((line) => Number(line.split(",")[1])), inside.map(({ number }) => number));
  const [x, y] = lines[1].split(",").slice(-2).map(Number);
  assert.deepEqual([x, y], inside[0].point);
  await close();
});

test("keyboard, wheel and buttons change the view, and the address keeps it", async () => {
  const { page, problems, close } = await open();
  await ready(page);
  const view = async () => new URLSearchParams(new URL(page.url()).hash.split("?")[1]).get("view");
  assert.equal(await view(), null);
  await page.locator(".map").focus();
  await page.keyboard.press("+");
  await page.keyboard.press("ArrowRight");
  await page.locator(".map-label").waitFor();
  await page.waitForURL(/view=/);
  const [x, , zoom] = (await view()).split(",").map(Number);
  const [low, high] = bounds()[0];
  assert.equal(zoom, 1.5);
  assert.ok(x > (low + high) / 2);
  const shown = await near(page).allInnerTexts();
  await page.reload();
  await page.waitForFunction((expected) => document.body.textContent.includes(expected), shown[0]);
  await page.waitForFunction((expected) => {
    const list = [...document.querySelectorAll("section:last-of-type li")].map((entry) => entry.textContent);
    return JSON.stringify(list) === JSON.stringify(expected);
  }, shown);
  const box = await page.locator(".map").boundingBox();
  await page.mouse.move(box.x + box.width / 2, box.y + box.height / 2);
  await page.mouse.wheel(0, -400);
  await page.waitForFunction(() => Number(decodeURIComponent(location.hash).split(",")[2]) > 3);
  await page.getByRole("button", { name: "Everything" }).click();
  await page.waitForFunction(() => !location.hash.includes("view="));
  await page.mouse.move(box.x + box.width / 2, box.y + box.height / 2);
  await page.mouse.down();
  await page.mouse.move(box.x + box.width / 2 + 100, box.y + box.height / 2, { steps: 5 });
  await page.mouse.up();
  await page.waitForURL(/view=/);
  assert.ok(Number((await view()).split(",")[0]) < (low + high) / 2, "the map follows the pointer");
  await page.getByRole("checkbox", { name: "items" }).uncheck();
  await page.getByText("In view: 0 items").waitFor();
  assert.deepEqual(problems, []);
  await close();
});

test("two fingers zoom", async () => {
  const { page, close } = await open();
  await ready(page);
  await page.locator(".map").evaluate((map) => {
    const { left, top, width, height } = map.getBoundingClientRect();
    map.setPointerCapture = () => {};
    const send = (type, pointerId, right) =>
      map.dispatchEvent(new PointerEvent(type, { pointerId, bubbles: true, clientX: left + width / 2 + right, clientY: top + height / 2 }));
    send("pointerdown", 1, -50);
    send("pointerdown", 2, 50);
    send("pointermove", 2, 150);
    send("pointerup", 2, 150);
    send("pointerup", 1, -50);
  });
  await page.waitForFunction(() => Number(decodeURIComponent(location.hash).split(",")[2]) === 2);
  await close();
});

test("a user's profiles are joined with the target, and the pages lead to each other", async () => {
  const { page, problems, close } = await open("?user=2");
  await page.waitForFunction(() => document.querySelector(".map-marks")?.getAttribute("d").includes("L"));
  const path = await page.locator(".map-marks").getAttribute("d");
  assert.equal(path.split("L").length - 1, 2 * targets[2].length, "a line from the profile and one from the reference");
  await page.waitForURL(/view=/);
  await picture(page, "map-user");
  await near(page).first().getByRole("link").waitFor();
  const from = await near(page).getByRole("link", { name: /^User/ }).first();
  const [, user] = (await from.innerText()).match(/^User (\d+),/);
  await from.click();
  await page.getByRole("heading", { name: new RegExp(`^User ${user}`) }).waitFor();
  await page.getByRole("link", { name: "Show the profiles and the target on the map" }).click();
  await page.waitForURL(new RegExp(`map\\?.*user=${user}`));
  await page.goto(`${stage.host.address}${report}#/report/items/7`);
  await page.getByRole("link", { name: "Show it on the map" }).click();
  await page.waitForURL(/map\?.*item=7/);
  await page.waitForFunction((expected) => document.querySelector("section:last-of-type li")?.textContent === expected, name({ kind: "items", number: 7 }));
  await page.keyboard.press("g");
  await page.keyboard.press("i");
  await page.waitForURL(/items/);
  await page.keyboard.press("g");
  await page.keyboard.press("m");
  await page.waitForURL(/map/);
  assert.deepEqual(problems, []);
  await close();
});

test("a report without a map says so, and a file that is missing is named", async () => {
  const old = await stage.open("/?report=made/old#/report/map");
  await old.page.getByText("This report has no map").waitFor();
  await old.close();
  const { page, close } = await stage.open("/?report=made/holes#/report/map");
  await page.getByRole("alert").filter({ hasText: end.map.profiles }).waitFor();
  await page.getByText(`In view: ${places.items.length} items, ${places.references.length} reference profiles, 0 generated profiles.`).waitFor();
  await page.goto(`${stage.host.address}${report}#/report/map?checkpoint=update-1`);
  await page.getByText('no map of a checkpoint "update-1": expected one of end.').waitFor();
  await page.getByRole("link", { name: "Show the map without these settings" }).click();
  await page.getByRole("application").waitFor();
  await close();
});

test("the map fits a telephone in the dark, and its colours follow the theme", async () => {
  const { page, close } = await open("", { colorScheme: "dark", viewport: { width: 390, height: 800 } });
  await ready(page);
  assert.equal(await scrollsSideways(page), false);
  const gradient = () => page.locator(".map-items").evaluate((swatch) => swatch.style.background);
  await page.waitForFunction(() => document.querySelector(".map-items").style.background.includes("79, 127, 181"));
  await picture(page, "map-dark-narrow");
  await page.getByRole("combobox", { name: "Theme" }).selectOption("light");
  await page.waitForFunction(() => document.querySelector(".map-items").style.background.includes("106, 148, 196"));
  assert.match(await gradient(), /106, 148, 196/);
  await close();
});
