// How long the viewer takes with 20,000 users: `node speed.mjs`, with the variables of stage.mjs. Prints JSON; times are
// in milliseconds. A sort or filter is timed from the event to the end of the task that changes the rows, painting left out.
//
// LANGPTUNE_LARGE_REPORT    a report of `cargo xtask large-report`; without it, people who have nothing but ranks

import { mkdir, readFile } from "node:fs/promises";
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

try {
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
  const began = Date.now();
  const { page, problems, close } = await stage.open(`${address}#/report/users`);
  await page.locator(".rows tbody a").first().waitFor();
  await page.locator(".status progress").waitFor({ state: "detached", timeout: 120_000 });
  const loaded = Date.now() - began;
  const measured = await page.evaluate(async () => {
    const frame = () => new Promise((resolve) => requestAnimationFrame(resolve));
    const rows = () => [...document.querySelectorAll(".rows tbody a")].map((link) => link.textContent).join();
    const timed = async (act) => {
      await frame();
      const before = rows();
      const start = performance.now();
      act();
      // Effects run in microtasks: behind a message they are through.
      const channel = new MessageChannel();
      await new Promise((resolve) => ((channel.port1.onmessage = resolve), channel.port2.postMessage(0)));
      const time = performance.now() - start;
      if (rows() === before) throw new Error("the rows did not change");
      return time;
    };
    const sorts = [];
    for (const name of ["Target rank", "Target rank", "Change of rank", "History, items", "Target popularity"]) {
      const heading = [...document.querySelectorAll(".rows th button")].find((button) => button.textContent.startsWith(name));
      if (!heading) continue; // a column that is not shown at first
      sorts.push(await timed(() => heading.click()));
    }
    const filters = [];
    const field = document.querySelector("#filter");
    for (const text of ["rank<=20", "rank<=20 and delta<0", "(rank>10 or not delta<0) and history_length!=2 and popularity>=3"]) {
      filters.push(
        await timed(() => {
          field.value = text;
          field.dispatchEvent(new Event("input", { bubbles: true }));
        }),
      );
    }
    field.value = "";
    field.dispatchEvent(new Event("input", { bubbles: true }));
    await frame();
    const list = document.querySelector(".rows");
    const frames = [];
    let last = performance.now();
    for (let step = 0; step < 180; step++) {
      list.scrollTop += 400;
      await frame();
      const now = performance.now();
      frames.push(now - last);
      last = now;
    }
    frames.sort((a, b) => a - b);
    return { sorts, filters, frame_p95: frames[Math.floor(frames.length * 0.95)] };
  });
  const start = Date.now();
  await page.evaluate(() => (location.hash = "#/report/users/12345"));
  await page.locator("p.profile").waitFor();
  const open_user = Date.now() - start;
  // Resident memory of the page's process, the largest of its kind: what Chromium shares among processes is in it. Linux only.
  const session = await stage.browser.newBrowserCDPSession();
  const { processInfo } = await session.send("SystemInfo.getProcessInfo");
  const resident = async ({ id }) => {
    const status = await readFile(`/proc/${id}/status`, "utf8").catch(() => "");
    return Number(status.match(/VmRSS:\s+(\d+) kB/)?.[1] ?? 0) / 1000;
  };
  const renderers = processInfo.filter(({ type }) => type === "renderer");
  const memory_mb = Math.max(...(await Promise.all(renderers.map(resident))));
  console.log(JSON.stringify({ users, overviews, loaded, ...measured, open_user, memory_mb, problems }));
  await close();
} finally {
  await stage.close();
}
