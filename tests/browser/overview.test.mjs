// The overview: every number on it is the report's.

import assert from "node:assert/strict";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { choice, copyOfFixture, four, picture, read, report, scrollsSideways, setStage } from "./stage.mjs";

let stage, manifest;

before(async () => {
  manifest = await read("manifest.json");
  stage = await setStage();
});

after(() => stage?.close());

/** The metric tables as the page shows them. */
function shownTables(page) {
  return page.locator("table.metrics").evaluateAll((tables) =>
    tables.map((table) => ({
      columns: [...table.querySelectorAll("thead th")].slice(1).map((cell) => cell.textContent),
      rows: [...table.querySelectorAll("tbody tr")].map((row) => [...row.children].map((cell) => cell.textContent.trim())),
    })),
  );
}

/** The metric tables as the manifest has them. */
function expectedTables(checkpoint) {
  const first = manifest.checkpoints[0];
  const ranked = [
    ["Generated profiles", checkpoint.generated, null],
    ["Reference profiles", checkpoint.reference, "reference"],
    ...(first === checkpoint ? [] : [[`Generated at first, ${first.name}`, first.generated, first.name]]),
    ...manifest.baselines.map(({ name, metrics }) => [`Baseline ${name}`, metrics, name]),
  ];
  const difference = (metric, partner) => {
    const made = checkpoint.comparisons.find((made) => made.metric === metric && made.with === partner);
    if (!made) return "";
    const { mean_difference: mean, p_value: p } = made.test;
    const size = four(Math.abs(mean));
    const sign = size === "0.0000" ? "" : mean < 0 ? "−" : "+";
    return ` ${sign}${size} p = ${four(p)}`;
  };
  return ["@10", "@5"].map((cutoff) => {
    const columns = Object.keys(checkpoint.generated.metrics).filter((name) => name.endsWith(cutoff));
    const cell = ({ mean, ci95: [low, high] }) => `${four(mean)} ${four(low)} to ${four(high)}`;
    const row = ([name, { metrics }, partner]) => [
      name,
      ...columns.map((column) => cell(metrics[column]) + difference(column, partner)),
    ];
    return { columns, rows: ranked.map(row) };
  });
}

/** The legend of the chart with that title: what is looked at, and the value of each series. */
async function legend(page, title) {
  const figure = page.locator("figure", { has: page.locator(".chart-title", { hasText: title }) }).first();
  const place = await figure.locator(".chart-place").innerText();
  const series = await figure.locator(".legend").allInnerTexts();
  return [place, ...series.map((text) => text.trim())];
}

async function ranksAreRead(page) {
  await page.locator(".chart-title", { hasText: "Share of targets by rank" }).waitFor();
  await page.locator("progress").waitFor({ state: "detached" });
}

test("the metrics of the best checkpoint are those of the manifest", async () => {
  const { page, problems, close } = await stage.open(report);
  await page.getByRole("heading", { name: manifest.run, exact: true }).waitFor();
  assert.deepEqual(await shownTables(page), expectedTables(manifest.checkpoints[1]));
  assert.deepEqual(problems, []);
  await close();
});

test("another checkpoint is chosen, and its address opens it again", async () => {
  const { page, close } = await stage.open(report);
  await choice(page, "Checkpoint").selectOption("update-1");
  assert.match(page.url(), /#\/.*checkpoint=update-1/);
  assert.deepEqual(await shownTables(page), expectedTables(manifest.checkpoints[0]));
  await page.reload();
  await page.locator("table.metrics").first().waitFor();
  assert.equal(await choice(page, "Checkpoint").inputValue(), "update-1");
  assert.deepEqual(await shownTables(page), expectedTables(manifest.checkpoints[0]));
  await close();
});

test("a checkpoint that is not there is said, and the best is shown", async () => {
  const { page, close } = await stage.open(`${report}#/report/overview?checkpoint=gone`);
  assert.match(await page.getByRole("alert").innerText(), /no checkpoint “gone”/);
  assert.deepEqual(await shownTables(page), expectedTables(manifest.checkpoints[1]));
  await close();
});

test("the learning curve is read by keyboard and by pointer, and as a table", async () => {
  const { page, close } = await stage.open(report);
  const title = "Mean over users with 95 % interval";
  const line = (place, metric) => {
    const { update, generated, reference } = manifest.checkpoints[place];
    const value = ({ metrics }) => {
      const { mean, ci95: [low, high] } = metrics[metric];
      return `${four(mean)} (${four(low)} to ${four(high)})`;
    };
    return [
      `update ${update}`,
      `generated ${value(generated)}`,
      `reference ${value(reference)}`,
      `popular, the best baseline ${four(manifest.baselines[0].metrics.metrics[metric].mean)}`,
    ];
  };
  assert.deepEqual(await legend(page, title), line(1, "ndcg@10"));
  const slider = page.getByRole("slider", { name: `Point of: ${title}` });
  await slider.focus();
  await page.keyboard.press("Home");
  assert.deepEqual(await legend(page, title), line(0, "ndcg@10"));
  assert.match(await slider.getAttribute("aria-valuetext"), /^update 1: generated 0\.2252/);
  await slider.blur();
  const plot = page.locator(".plot").first();
  await plot.hover({ position: { x: 60, y: 60 } });
  assert.deepEqual(await legend(page, title), line(0, "ndcg@10"));
  await choice(page, "Metric").selectOption("mrr@5");
  await page.mouse.move(0, 0);
  assert.deepEqual(await legend(page, title), line(1, "mrr@5"));
  assert.match(page.url(), /metric=mrr@5/);
  await page.getByText("The same as a table").click();
  const cells = await page.getByRole("region", { name: "Learning curve as a table" }).locator("tbody tr").first().locator("th, td").allInnerTexts();
  assert.deepEqual(cells, line(0, "mrr@5").map((text) => text.replace(/^(generated|reference|popular, the best baseline) /, "")));
  await close();
});

test("the ranks of all targets are counted", async () => {
  const { page, close } = await stage.open(report);
  // Ranks of the last checkpoint: generated 6 1 15 4 8 2, reference 3 11 9 20 28 6.
  const title = "Share of targets by rank";
  await ranksAreRead(page);
  const slider = page.getByRole("slider", { name: `Point of: ${title}` });
  await slider.focus();
  await page.keyboard.press("Home");
  assert.deepEqual(await legend(page, title), ["rank 1", "generated 16.7 % (1 of 6)", "reference 0.0 % (0 of 6)"]);
  await page.keyboard.press("ArrowRight");
  await page.keyboard.press("ArrowRight");
  assert.deepEqual(await legend(page, title), ["rank 4–7", "generated 33.3 % (2 of 6)", "reference 16.7 % (1 of 6)"]);
  await close();
});

test("what training logged is drawn, and smoothed as the address says", async () => {
  const { page, close } = await stage.open(`${report}#/report/overview?smoothing=0`);
  const { curves } = await read("curves.json");
  await page.locator(".small-multiples figure").nth(curves.length - 1).waitFor();
  for (const { name, steps, values } of curves) {
    const [place, recorded] = await legend(page, name);
    assert.equal(place, `update ${steps.at(-1)}`);
    assert.ok(Math.abs(Number(recorded.split(" ")[1]) / values.at(-1) - 1) < 1e-3, `${name}: ${recorded}`);
  }
  await page.getByRole("slider", { name: "Smoothing" }).fill("0.9");
  assert.match(page.url(), /smoothing=0\.9/);
  const shown = await legend(page, "embedder/loss");
  const { values } = curves.find(({ name }) => name === "embedder/loss");
  let [sum, weights] = [0, 0];
  for (const value of values) [sum, weights] = [0.9 * sum + 0.1 * value, 0.9 * weights + 0.1];
  assert.ok(Math.abs(Number(shown[2].replace("smoothed ", "")) / (sum / weights) - 1) < 1e-3, shown[2]);
  await close();
});

test("a result file that is missing is named, and the others are counted", async () => {
  await copyOfFixture(join(stage.folder, "holes"));
  await rm(join(stage.folder, "holes/checkpoints/end/results-1.json"));
  const { page, close } = await stage.open("/?report=made/holes");
  const message = await page.getByRole("alert").innerText();
  assert.match(message, /made\/holes\/checkpoints\/end\/results-1\.json answered with HTTP status 404\. .*try again/);
  await ranksAreRead(page);
  const [, generated] = await legend(page, "Share of targets by rank");
  assert.match(generated, /of 4\)$/);
  assert.deepEqual(await shownTables(page), expectedTables(manifest.checkpoints[1]));
  await close();
});

for (const colorScheme of ["light", "dark"]) {
  for (const [shape, width] of [["wide", 1280], ["narrow", 390]]) {
    test(`the overview fits a ${shape} window in ${colorScheme} colours`, async () => {
      const { page, problems, close } = await stage.open(report, { colorScheme, viewport: { width, height: 800 } });
      await page.locator(".small-multiples figure").nth(1).waitFor();
      await ranksAreRead(page);
      const ground = await page.evaluate(() => getComputedStyle(document.body).backgroundColor);
      assert.equal(ground, colorScheme === "dark" ? "rgb(22, 24, 28)" : "rgb(251, 250, 248)");
      assert.equal(await scrollsSideways(page), false, "the page scrolls sideways");
      const overhang = await page.locator(".plot").evaluateAll((plots) =>
        plots.filter((plot) => plot.querySelector("svg").viewBox.baseVal.width !== plot.clientWidth).length,
      );
      assert.equal(overhang, 0, "every chart has the width of its place");
      assert.deepEqual(problems, []);
      await picture(page, `overview-${colorScheme}-${shape}`);
      await close();
    });
  }
}
