// The users' table and the page of one user: what they show is worked out anew from the made-up report.

import assert from "node:assert/strict";
import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { hostile, meanRank, popularity, profile, rank, review, target, writePeople } from "./people.mjs";
import { choice, four, picture, scrollsSideways, setStage } from "./stage.mjs";

const users = 250;
const everyone = Array.from({ length: users }, (_, user) => user);
const change = (user) => meanRank(user, 1) - meanRank(user, 0);

let stage;

before(async () => {
  stage = await setStage();
  for (const name of ["people", "holes", "bare"]) {
    await mkdir(join(stage.folder, name));
    await writePeople(join(stage.folder, name), users);
  }
  await rm(join(stage.folder, "holes/users-1.json"));
  await rm(join(stage.folder, "bare/history-words-0.bin"));
});

after(() => stage?.close());

/** A page of a made-up report; ready when all users are counted. */
async function open(fragment, options = {}, report = "people") {
  return stage.open(`/?report=made/${report}/#/report/${fragment}`, options);
}

async function openTable(parameters = "", options = {}) {
  const opened = await open(`users${parameters}`, options);
  await opened.page.locator(".rows tbody tr:not(.spacer)").first().waitFor();
  await opened.page.locator(".status progress").waitFor({ state: "detached" });
  return opened;
}

/** The rows that are in the page. */
function rows(page) {
  return page
    .locator(".rows tbody tr:not(.spacer)")
    .evaluateAll((rows) => rows.map((row) => [...row.children].map((cell) => cell.textContent.trim())));
}

/** The users that are in the page, from the top. */
async function shownUsers(page) {
  return (await rows(page)).map(([user]) => Number(user.split(" ")[0]));
}

/** Waits until the table begins with these users. */
async function begins(page, expected) {
  await page.waitForFunction(
    (expected) => {
      const links = [...document.querySelectorAll(".rows tbody a")].slice(0, expected.length);
      return JSON.stringify(links.map((link) => Number(link.textContent))) === JSON.stringify(expected);
    },
    expected,
    { timeout: 5000 },
  );
}

/** Users sorted by a number, ties by user. */
const sorted = (value, sign = 1) => [...everyone].sort((a, b) => sign * (value(a) - value(b)) || a - b);

test("a row has a user's numbers, means over the profiles", async () => {
  const { page, problems, close } = await openTable();
  const shown = (value, sign = false) => `${sign && value > 0 ? "+" : ""}${Number.isInteger(value) ? value : value.toFixed(1)}`;
  for (const [user, row] of (await rows(page)).slice(0, 10).entries()) {
    const reciprocal = (1 / rank(user, 1, 0) + 1 / rank(user, 1, 1)) / 2;
    assert.deepEqual(row.slice(0, 4), [
      `${user} person-${user}`,
      shown(meanRank(user, 1)),
      four(reciprocal),
      shown(change(user), true),
    ]);
    assert.deepEqual(row.slice(5), [shown(1 + (user % 4)), shown(popularity(target(user)))]);
  }
  assert.deepEqual(problems, []);
  await picture(page, "users-light");
  await close();
});

test("only the rows in view are in the page, and scrolling brings the others", async () => {
  const { page, close } = await openTable();
  assert.equal(await page.getByRole("grid").getAttribute("aria-rowcount"), String(users + 1));
  assert.ok((await rows(page)).length < 60);
  await page.locator(".rows").evaluate((rows) => rows.scrollTo(0, rows.scrollHeight));
  await page.getByRole("link", { name: String(users - 1), exact: true }).waitFor();
  const last = page.locator(".rows tbody tr:not(.spacer)").last();
  assert.equal(await last.getAttribute("aria-rowindex"), String(users + 1));
  assert.ok((await rows(page)).length < 60);
  await close();
});

test("a click on a heading sorts, a second one turns it round, and a link keeps it", async () => {
  const { page, close } = await openTable();
  const heading = page.getByRole("columnheader", { name: "Target rank" });
  await heading.getByRole("button").click();
  await begins(page, sorted((user) => meanRank(user, 1)).slice(0, 10));
  assert.equal(await heading.getAttribute("aria-sort"), "ascending");
  await heading.getByRole("button").click();
  await begins(page, sorted((user) => meanRank(user, 1), -1).slice(0, 10));
  assert.equal(await heading.getAttribute("aria-sort"), "descending");
  await page.reload();
  await begins(page, sorted((user) => meanRank(user, 1), -1).slice(0, 10));
  await close();
});

test("a filter with words finds the users that a plain count finds", async () => {
  const { page, close } = await openTable();
  await page.getByLabel("Filter", { exact: true }).fill('rank<=30 and delta<0 and ("horror" or "weste*") and not history_length=2');
  const expected = everyone.filter(
    (user) =>
      meanRank(user, 1) <= 30 &&
      change(user) < 0 &&
      (review(user).startsWith("Horror") || [0, 1].some((sample) => profile(user, 1, sample).includes("western"))) &&
      1 + (user % 4) !== 2,
  );
  assert.ok(expected.length > 10 && expected.length < 100, `${expected.length} users make a poor test`);
  await page.getByText(`${expected.length} of ${users} users`).waitFor();
  await begins(page, expected.slice(0, 10));
  await picture(page, "users-filtered");
  await close();
});

test("a filter that is not understood says where, and the last one holds", async () => {
  const { page, close } = await openTable();
  const filter = page.getByLabel("Filter", { exact: true });
  await filter.fill("user<7");
  await page.getByText(`7 of ${users} users`).waitFor();
  await filter.fill("user<7 and rnak<3");
  await page.getByText("at character 12: expected a column or words in quotes, found rnak. Did you mean rank?").waitFor();
  assert.equal(await filter.getAttribute("aria-invalid"), "true");
  await page.getByText(`7 of ${users} users`).waitFor();
  await close();
});

test("completion is chosen with the keyboard", async () => {
  const { page, close } = await openTable();
  await page.keyboard.press("/");
  const filter = page.getByLabel("Filter", { exact: true });
  await page.keyboard.type("re");
  await page.getByRole("option", { name: "reciprocal_rank" }).waitFor();
  await page.keyboard.press("ArrowDown");
  await page.keyboard.press("Enter");
  assert.equal(await filter.inputValue(), "reciprocal_rank");
  await page.keyboard.press("ArrowDown");
  await page.keyboard.press("Tab");
  assert.equal(await filter.inputValue(), "reciprocal_rank<=");
  await page.keyboard.type("0.5 ");
  await page.getByRole("option", { name: "and" }).waitFor();
  await picture(page, "users-completion");
  await page.keyboard.press("Escape");
  assert.equal(await page.locator("#filter-options li").count(), 0);
  await close();
});

test("the table goes by keyboard, and Enter opens the user", async () => {
  const { page, close } = await openTable("?sort=-user");
  await page.getByRole("grid").focus();
  for (let press = 0; press < 40; press++) await page.keyboard.press("ArrowDown");
  const active = page.locator(`#${await page.getByRole("grid").getAttribute("aria-activedescendant")}`);
  assert.equal(await active.getAttribute("aria-selected"), "true");
  const user = users - 40;
  assert.equal(await active.getByRole("link").innerText(), String(user));
  await page.keyboard.press("Enter");
  await page.getByRole("heading", { name: `User ${user} person-${user}` }).waitFor();
  await close();
});

test("the rows that match are saved as CSV", async () => {
  const { page, close } = await openTable("?sort=-user&filter=user<3&columns=rank,delta");
  const waiting = page.waitForEvent("download");
  await page.getByRole("button", { name: "CSV" }).click();
  const download = await waiting;
  assert.equal(download.suggestedFilename(), "people-users.csv");
  const lines = [2, 1, 0].map((user) => `${user},person-${user},${meanRank(user, 1)},${change(user)}\r\n`);
  assert.equal(await readFile(await download.path(), "utf8"), `user,id,rank,delta\r\n${lines.join("")}`);
  await close();
});

test("another checkpoint is shown and compared", async () => {
  const { page, close } = await openTable();
  await choice(page, "Checkpoint").selectOption("start");
  await choice(page, "Change against").selectOption("end");
  await page.waitForFunction(
    (expected) => document.querySelector("#row-1 td")?.textContent === expected,
    String(meanRank(1, 0)),
    { timeout: 5000 },
  );
  await page.getByRole("columnheader", { name: "Change of rank" }).getByRole("button").click();
  await begins(page, sorted((user) => -change(user)).slice(0, 10));
  await close();
});

test("a file that is missing is named, and the other rows are there", async () => {
  const { page, close } = await open("users", {}, "holes");
  const problem = page.getByRole("alert").filter({ hasText: "users-1.json" });
  await problem.waitFor();
  assert.match(await problem.innerText(), /1 of \d+ files could not be read/);
  await page.getByRole("link", { name: "5", exact: true }).waitFor();
  await picture(page, "users-broken");
  await close();
});

test("an index that is missing is a problem that is told, not an empty table", async () => {
  const { page, close } = await open('users?filter="horror"', {}, "bare");
  await page.getByRole("alert").filter({ hasText: "history-words-0.bin" }).waitFor();
  await close();
});

test("an address that names what is not there says so and leads on", async () => {
  const { page, close } = await open("users?checkpoint=nowhere");
  await page.getByText('No checkpoint "nowhere" has results about users: expected one of start, end.').waitFor();
  await page.getByRole("link", { name: "Show the users without these settings" }).click();
  await page.getByRole("grid").waitFor();
  await close();
});

test("a profile that tries to be more is shown as text", async () => {
  const { page, problems, close } = await open("users/3");
  const shown = page.locator("p.profile");
  await shown.waitFor();
  assert.equal(await shown.evaluate((element) => element.textContent), hostile);
  assert.equal(await shown.getAttribute("dir"), "auto");
  assert.equal(await shown.locator("*").count(), 0);
  assert.equal(await page.evaluate(() => window.broken), undefined);
  assert.equal(await scrollsSideways(page), false);
  assert.deepEqual(problems, []);
  await picture(page, "user-hostile");
  await close();
});

test("a user's page has history, ranking with the target, and item texts on demand", async () => {
  const user = 10;
  const { page, problems, close } = await open(`users/${user}`);
  await page.getByText(review(user)).waitFor();
  assert.equal(await page.locator(".card").count(), 1 + (user % 4));
  assert.match(await page.locator(".target-rank").innerText(), new RegExp(`^rank ${rank(user, 1, 0)} `));
  const marked = page.locator(".ranking tr.target");
  await marked.getByText(`Title ${target(user)}`).waitFor();
  assert.equal(await marked.locator("td").first().innerText(), String(rank(user, 1, 0)));
  assert.equal(await page.getByText(`The text of item ${target(user)}`).count(), 0);
  await marked.locator("summary").click();
  await page.getByText(`The text of item ${target(user)}`).waitFor();
  await page.getByText(`Item ${target(user)}, ${popularity(target(user))} interactions`).waitFor();
  assert.deepEqual(problems, []);
  await picture(page, "user-light");
  await close();
});

test("a profile is compared word by word with the other sample and another checkpoint", async () => {
  const { page, close } = await open("users/10");
  await choice(page, "Compare with").selectOption({ label: "generated profile 2" });
  await page.locator("p.profile ins").waitFor();
  const words = (name) => page.locator(`p.profile ${name}`).allInnerTexts();
  assert.deepEqual([await words("del"), await words("ins")], [["2"], ["1"]]);
  await choice(page, "Compare with").selectOption({ label: "checkpoint start, update 1" });
  await page.locator("p.profile del", { hasText: "old" }).waitFor();
  assert.deepEqual((await words("ins")).map((word) => word.trim()), ["new"]);
  await picture(page, "user-compared");
  await close();
});

test("j and k go to the neighbours, and the ends are the ends", async () => {
  const { page, close } = await open("users/0?checkpoint=start&profile=2");
  await page.getByRole("heading", { name: "User 0 person-0" }).waitFor();
  await page.keyboard.press("k");
  await page.keyboard.press("j");
  await page.getByRole("heading", { name: "User 1 person-1" }).waitFor();
  await page.getByText(profile(1, 0, 1)).waitFor();
  await page.keyboard.press("k");
  await page.getByRole("heading", { name: "User 0 person-0" }).waitFor();
  await close();
});

test("j and k follow the table that one came from, sorted and filtered", async () => {
  const { page, close } = await openTable("?sort=-rank&filter=" + encodeURIComponent("rank<=20"));
  const ranked = Array.from({ length: users }, (_, user) => user).filter((user) => meanRank(user, 1) <= 20);
  const [first, second, third] = ranked.sort((a, b) => meanRank(b, 1) - meanRank(a, 1) || a - b);
  assert.notEqual(second, first + 1, "or the numbers would do");
  await begins(page, [first, second, third]);
  await page.locator(".rows tbody a").first().click();
  const isAt = (user) => page.getByRole("heading", { name: `User ${user} person-${user}`, exact: true }).waitFor();
  await isAt(first);
  assert.equal(await page.getByTitle("Key k").count(), 0, "nobody comes before the first");
  await page.keyboard.press("j");
  await isAt(second);
  await page.getByTitle("Key j").click();
  await isAt(third);
  await page.keyboard.press("k");
  await isAt(second);
  await close();
});

test("ids that try to be more than text stay text, in rows of one height", async () => {
  const folder = join(stage.folder, "hostile");
  await mkdir(folder);
  await writePeople(folder, 20);
  const file = join(folder, "users-0.json");
  const chunk = JSON.parse(await readFile(file, "utf8"));
  chunk.users[3].id = hostile;
  chunk.users[4].id = "=HYPERLINK(0)";
  await writeFile(file, JSON.stringify(chunk));
  const { page, problems, close } = await stage.open("/?report=made/hostile/#/report/users");
  const row = page.locator(".rows tbody tr", { has: page.getByRole("link", { name: "3", exact: true }) });
  await row.locator(".faint", { hasText: "onerror" }).waitFor();
  assert.equal(await row.locator(".faint").evaluate((note) => note.textContent), hostile);
  assert.equal(await page.locator(".rows img, .rows script").count(), 0);
  assert.equal(await page.evaluate(() => window.broken), undefined);
  assert.equal((await row.boundingBox()).height, 34);
  assert.equal(await scrollsSideways(page), false);
  const [download] = await Promise.all([page.waitForEvent("download"), page.getByRole("button", { name: "CSV", exact: true }).click()]);
  const csv = await readFile(await download.path(), "utf8");
  assert.ok(csv.includes(`"${hostile.replaceAll('"', '""')}"`), "whole and quoted");
  assert.ok(csv.includes("'=HYPERLINK(0)"), "no formula");
  assert.deepEqual(problems, []);
  await close();
});

test("a report without histories says so instead of counting none", async () => {
  const folder = join(stage.folder, "left-out");
  await mkdir(folder);
  await writePeople(folder, 20);
  const file = join(folder, "manifest.json");
  await writeFile(file, JSON.stringify({ ...JSON.parse(await readFile(file, "utf8")), redacted: true }));
  const { page, close } = await stage.open("/?report=made/left-out/#/report/users/3");
  await page.getByRole("heading", { name: "History: left out of this report" }).waitFor();
  assert.equal(await page.locator(".cards").count(), 0);
  await close();
});

test("a user that is not there is a problem that says how many there are", async () => {
  const { page, close } = await open(`users/${users}`);
  await page.getByText(`the report has no user ${users}: it has ${users}, counted from 0`).waitFor();
  await close();
});

test("both pages fit a telephone in the dark", async () => {
  for (const [fragment, ready] of [["users", ".rows a"], ["users/3", "p.profile"]]) {
    const { page, close } = await open(fragment, { colorScheme: "dark", viewport: { width: 390, height: 800 } });
    await page.locator(ready).first().waitFor();
    assert.equal(await scrollsSideways(page), false, fragment);
    await picture(page, `${fragment.replace("/", "-")}-dark-narrow`);
    await close();
  }
});
