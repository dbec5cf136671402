// How long the viewer takes with 20,000 users: `node speed.mjs`, with the variables of stage.mjs. Prints JSON; times are
// in milliseconds. A sort or filter is timed from the event to the end of the task that changes the rows, painting left out.
//
// LANGPTUNE_LARGE_REPORT    a report of `cargo xtask large-report`; without it, people who have nothing but ranks, no map and no vectors

import { mkdir, readFile } from "node:fs/promises";
import { cpus, loadavg } from "node:os";
import { join } from "node:path";
import { writePeople } from "./people.mjs";
import { setStage } from "./stage.mjs";

const { LANGPTUNE_LARGE_REPORT: large } = process.env;
const users = 20_000;
const stage = await setStage(async (folder) => ({ "/large/": large ?? folder }));

/** Opens the overview: when the run's name is there, and when the page last changed, with its charts. */
async function overview(address) {
  const context = await stage.browser.newContext({ viewport: { width: 1280, height: 800 } });
  const page = await context.newPage();
  await page.addInitScript(() => {
    const seen = {};
    const look = () => {
      if (seen.heading === undefined && document.querySelector("#run")) seen.heading = performance.now();
      if (document.querySelector("main svg")) seen.charts = performance.now();
    };
    // The last change that finds charts, for as long as the page goes on changing.
    new MutationObserver(look).observe(document, { childList: true, subtree: true });
    window.seen = seen;
  });
  await page.goto(`${stage.host.address}${address}`);
  await page.locator("main svg").first().waitFor();
  await page.waitForLoadState("networkidle");
  const seen = await page.evaluate(() => window.seen);
  await context.close();
  return { first_content: seen.heading, overview_complete: seen.charts };
}

/** Gives the page what its measurements share. */
async function addTools(page) {
  await page.evaluate(() => {
    const frame = () => new Promise((resolve) => requestAnimationFrame(resolve));
    // Effects run in microtasks: behind a message they are through.
    const task = () => {
      const channel = new MessageChannel();
      return new Promise((resolve) => ((channel.port1.onmessage = resolve), channel.port2.postMessage(0)));
    };
    const rows = () => [...document.querySelectorAll(".rows tbody a")].map((link) => link.textContent).join();
    const timed = async (act) => {
      await frame();
      const before = rows();
      const start = performance.now();
      act();
      await task();
      const time = performance.now() - start;
      if (rows() === before) throw new Error("the rows did not change");
      return time;
    };
    /** The lengths of so many frames, `act` being done in each. */
    const frames = async (count, act) => {
      const lengths = [];
      await frame();
      let last = performance.now();
      for (let step = 0; step < count; step++) {
        act(step);
        await frame();
        const now = performance.now();
        lengths.push(now - last);
        last = now;
      }
      lengths.sort((a, b) => a - b);
      return { p50: lengths[count >> 1], p95: lengths[Math.floor(count * 0.95)], longest: lengths.at(-1) };
    };
    window.tools = { frame, task, timed, frames };
  });
}

/** Sorts by each of the columns. */
function sorted(page, names) {
  return page.evaluate(async (names) => {
    const times = [];
    for (const name of names) {
      const heading = [...document.querySelectorAll(".rows th button")].find((button) => button.textContent.startsWith(name));
      if (!heading) throw new Error(`there is no column ${name}`);
      times.push(await window.tools.timed(() => heading.click()));
    }
    return times;
  }, names);
}

/** Filters by each of the texts, and takes the last away. */
function filtered(page, texts) {
  return page.evaluate(async (texts) => {
    const field = document.querySelector("#filter");
    const type = (text) => {
      field.value = text;
      field.dispatchEvent(new Event("input", { bubbles: true }));
    };
    const times = [];
    for (const text of texts) times.push(await window.tools.timed(() => type(text)));
    type("");
    await window.tools.frame();
    return times;
  }, texts);
}

async function openUsers(address, settings) {
  const began = Date.now();
  const opened = await stage.open(`${address}#/report/users${settings}`);
  const { page } = opened;
  await page.locator(".rows tbody a").first().waitFor();
  await page.locator(".status progress").waitFor({ state: "detached", timeout: 120_000 });
  const loaded = Date.now() - began;
  await addTools(page);
  return { ...opened, loaded };
}

/** Resident memory of the page's process, the largest of its kind: what Chromium shares among processes is in it. Linux only. */
async function memory() {
  const session = await stage.browser.newBrowserCDPSession();
  const { processInfo } = await session.send("SystemInfo.getProcessInfo");
  const resident = async ({ id }) => {
    const status = await readFile(`/proc/${id}/status`, "utf8").catch(() => "");
    return Number(status.match(/VmRSS:\s+(\d+) kB/)?.[1] ?? 0) / 1000;
  };
  const renderers = processInfo.filter(({ type }) => type === "renderer");
  return Math.max(...(await Promise.all(renderers.map(resident))));
}

/** The table of users: sorts, filters, scrolling, and opening users. */
async function people(address) {
  const { page, problems, close, loaded } = await openUsers(address, "?columns=rank,reciprocal_rank,delta,profile_length,history_length");
  const sorts = await sorted(page, ["Target rank", "Target rank", "Change of rank", "History, items"]);
  const filters = await filtered(page, ["rank<=20", "rank<=20 and delta<0", "(rank>10 or not delta<0) and history_length!=2"]);
  const scrolling = await page.evaluate(() => {
    const list = document.querySelector(".rows");
    return window.tools.frames(300, () => (list.scrollTop += 400));
  });
  const opened = [];
  for (const user of [12_345, 678, 19_999]) {
    const start = Date.now();
    await page.evaluate((user) => (location.hash = `#/report/users/${user}`), user);
    await page.locator("h2", { hasText: `User ${user} ` }).waitFor();
    await page.locator("p.profile").waitFor();
    opened.push(Date.now() - start);
  }
  const memory_mb = await memory();
  await close();
  return { loaded, sorts, filters, scrolling, opened, memory_mb, problems };
}

/** The same with the column that needs to know the items. */
async function popularity(address) {
  const { page, problems, close, loaded } = await openUsers(address, "?columns=rank,popularity");
  const sorts = await sorted(page, ["Target popularity", "Target popularity"]);
  const filters = await filtered(page, ["popularity>=0 and rank<=20", "popularity>=0 and not rank<=20"]);
  const memory_mb = await memory();
  await close();
  return { loaded, sorts, filters, memory_mb, problems };
}

/** The map: a pointer that moves it, a wheel that zooms, and a pointer that looks for names. */
async function map(address) {
  const { page, problems, close } = await stage.open(`${address}#/report/map`);
  await addTools(page);
  await page.locator("section p[role=status]", { hasText: /In view: [1-9]/ }).waitFor();
  const measured = await page.evaluate(async () => {
    const area = document.querySelector(".map");
    const { left, top, width, height } = area.getBoundingClientRect();
    const send = (type, x, y, more = {}) => {
      const init = { bubbles: true, cancelable: true, pointerId: 1, clientX: left + x, clientY: top + y, ...more };
      area.dispatchEvent(type === "wheel" ? new WheelEvent(type, init) : new PointerEvent(type, init));
    };
    // A pointer that no hand holds cannot be captured.
    area.setPointerCapture = () => {};
    const way = (step) => [width / 2 + 120 * Math.sin(step / 15), height / 2 + 80 * Math.cos(step / 11)];
    send("pointerdown", ...way(0));
    const pan = await window.tools.frames(150, (step) => send("pointermove", ...way(step)));
    send("pointercancel", ...way(150));
    const zoom = await window.tools.frames(150, (step) => send("wheel", width / 2, height / 2, { deltaY: step < 75 ? -40 : 40 }));
    await new Promise((resolve) => setTimeout(resolve, 500));
    const tasks = [];
    const hover = await window.tools.frames(150, (step) => {
      const start = performance.now();
      send("pointermove", ...way(step));
      tasks.push(performance.now() - start);
    });
    tasks.sort((a, b) => a - b);
    return { pan, zoom, hover, hover_task: { p50: tasks[75], p95: tasks[142] } };
  });
  const memory_mb = await memory();
  await close();
  return { ...measured, memory_mb, problems };
}

/** Reads the items' vectors, all that are kept of a checkpoint: until the nearest items are there, and a user is ranked anew. */
async function vectors(address) {
  const { page, problems, close } = await stage.open(`${address}#/report/items/5`);
  const began = Date.now();
  await page.getByRole("button", { name: "Read the items' vectors" }).click();
  await page.locator("table.near").waitFor();
  const nearest = Date.now() - began;
  const memory_nearest_mb = await memory();
  const start = Date.now();
  await page.evaluate(() => (location.hash = "#/report/check/7"));
  await page.locator(".verdict").waitFor();
  const ranked = Date.now() - start;
  const memory_mb = await memory();
  await close();
  return { nearest, memory_nearest_mb, ranked, memory_mb, problems };
}

try {
  const load_before = loadavg()[0];
  let address = "/?report=made/many/";
  if (large) {
    address = "/?report=large/";
  } else {
    const folder = join(stage.folder, "many");
    await mkdir(folder);
    await writePeople(folder, users);
  }
  const overviews = [];
  for (let run = 0; run < 5; run++) overviews.push(await overview(`${address}#/report`));
  const of_people = await people(address);
  const of_popularity = await popularity(address);
  const of_map = large ? await map(address) : null;
  const of_vectors = large ? await vectors(address) : null;
  const machine = { processors: cpus().length, load_before, load_after: loadavg()[0] };
  console.log(JSON.stringify({ users, machine, overviews, people: of_people, popularity: of_popularity, map: of_map, vectors: of_vectors }, null, 1));
} finally {
  await stage.close();
}
