// Charts: a range of them, and as files.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { after, before, test } from "node:test";
import { picture, report, setStage } from "./stage.mjs";

let stage;

before(async () => {
  stage = await setStage();
});

after(() => stage?.close());

/** The overview's charts once training's curves are there. */
async function charts() {
  const opened = await stage.open(report);
  const chart = opened.page.locator("#training").locator("xpath=ancestor::section").locator(".chart").first();
  await chart.locator("svg path.line").first().waitFor();
  return { ...opened, chart };
}

const points = async (chart) => 1 + Number(await chart.locator("input.slider").getAttribute("max"));

test("a range that is drawn is shown, and a double click shows all again", async () => {
  const { page, problems, chart, close } = await charts();
  const all = await points(chart);
  await chart.scrollIntoViewIfNeeded();
  const box = await chart.locator(".plot").boundingBox();
  const y = box.y + box.height / 2;
  await page.mouse.move(box.x + box.width * 0.1, y);
  await page.mouse.down();
  await page.mouse.move(box.x + box.width * 0.6, y, { steps: 4 });
  await chart.locator("path.selection").waitFor();
  await page.mouse.up();
  await chart.getByRole("button", { name: "Show all" }).waitFor();
  assert.equal(await chart.locator("path.selection").count(), 0);
  const some = await points(chart);
  assert.ok(some >= 2 && some < all, `${some} of ${all}`);
  await picture(page, "chart-zoomed");
  await page.mouse.dblclick(box.x + box.width / 2, y);
  await chart.getByRole("button", { name: "Show all" }).waitFor({ state: "detached" });
  assert.equal(await points(chart), all);
  assert.deepEqual(problems, []);
  await close();
});

test("the keyboard looks closer and from further away", async () => {
  const { page, chart, close } = await charts();
  const slider = chart.locator("input.slider");
  const all = await points(chart);
  await slider.focus();
  await page.keyboard.press("Home");
  await page.keyboard.press("ArrowRight");
  const at = await slider.getAttribute("aria-valuetext");
  await page.keyboard.press("+");
  const some = await points(chart);
  assert.ok(some >= 3 && some < all, `${some} of ${all}`);
  assert.equal(await slider.getAttribute("aria-valuetext"), at, "the point stays");
  await page.keyboard.press("-");
  assert.ok((await points(chart)) > some);
  await page.keyboard.press("+");
  await page.keyboard.press("0");
  assert.equal(await points(chart), all);
  assert.equal(await slider.getAttribute("aria-valuetext"), at);
  await close();
});

test("a chart is saved as SVG that needs nothing else, and as PNG of twice its size", async () => {
  const { page, problems, chart, close } = await charts();
  const save = async (name) => {
    await chart.hover();
    const download = page.waitForEvent("download");
    await chart.getByRole("button", { name: `as ${name}:` }).click();
    const file = await download;
    return { name: file.suggestedFilename(), bytes: await readFile(await file.path()) };
  };
  const svg = await save("SVG");
  const title = await chart.locator(".chart-title").textContent();
  assert.match(svg.name, /\.svg$/);
  assert.ok(svg.name.includes(title.replaceAll(/[^\p{L}\p{N}._-]/gu, "-")), svg.name);
  const text = svg.bytes.toString();
  assert.ok(!/class=|var\(|href|url\(/.test(text), "no style sheet, no other file");
  // As a document of its own.
  const read = await page.evaluate((text) => {
    const parsed = new DOMParser().parseFromString(text, "image/svg+xml");
    const paths = [...parsed.querySelectorAll("path")];
    return {
      error: parsed.querySelector("parsererror")?.textContent ?? "",
      title: parsed.querySelector("title").textContent,
      strokes: paths.filter((path) => /^rgb|^oklab|^color/.test(path.getAttribute("stroke") ?? "")).length,
      width: Number(parsed.documentElement.getAttribute("width")),
      height: Number(parsed.documentElement.getAttribute("height")),
    };
  }, text);
  assert.equal(read.error, "");
  assert.equal(read.title, title);
  assert.ok(read.strokes >= 2, `${read.strokes} lines with a colour`);
  const png = await save("PNG");
  assert.equal(png.name, svg.name.replace(/svg$/, "png"));
  assert.equal(png.bytes.subarray(1, 4).toString(), "PNG");
  assert.equal(png.bytes.readUInt32BE(16), Math.ceil(read.width * 2));
  assert.equal(png.bytes.readUInt32BE(20), Math.ceil(read.height * 2));
  assert.deepEqual(problems, []);
  await close();
});
