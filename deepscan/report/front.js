// Sends clips one after the other, and shows what the server tells of them.
"use strict";

const byId = (id) => document.getElementById(id);
const list = byId("list");
const picker = byId("files");
const drop = byId("drop");
const most = Number(document.body.dataset.mostBytes);

document.documentElement.classList.add("scripted");

// Cards by key: "job ID" for what the server knows, "own N" for what is still on its way or was not taken.
const cards = new Map();
const states = new Map();
const asked = new Set(); // cards whose removal waits for a second press
const queue = [];
let sending = false;
let made = 0;
let timer = null;

const size = (bytes) =>
  bytes >= 1e9 ? `${(bytes / 1e9).toFixed(1)} GB`
  : bytes >= 1e6 ? `${(bytes / 1e6).toFixed(1)} MB`
  : bytes >= 1e3 ? `${(bytes / 1e3).toFixed(1)} kB` : `${bytes} bytes`;

function minutes(seconds) {
  const left = Math.ceil(seconds / 60);
  return seconds < 90 ? "about a minute" : `${left} minutes`;
}

/** Said aloud by screen readers, once. */
function tell(words) {
  byId("told").textContent = words;
}

// --- cards -----------------------------------------------------------------------------------------

function card(key, name) {
  if (!cards.has(key)) {
    const made = byId("job").content.firstElementChild.cloneNode(true);
    made.querySelector(".name").append(Object.assign(document.createElement("bdi"), { textContent: name }));
    made.querySelector("progress").setAttribute("aria-label", `Progress of ${name}`);
    cards.set(key, made);
    list.prepend(made); // the newest first
    byId("none").hidden = true;
  }
  return cards.get(key);
}

function forget(key) {
  const gone = cards.get(key);
  if (!gone) return;
  if (gone.classList.contains("open")) back();
  if (gone.contains(document.activeElement)) picker.focus();
  gone.remove();
  cards.delete(key);
  states.delete(key);
  byId("none").hidden = cards.size > 0;
}

/** Show a card: `share` of the work done (null: not known, undefined: no work), words, and what can be done. */
function show(key, name, { facts, share, stage = "", finding = "", raised = false, quiet = false, sentence = "", base = "", removal, remove }) {
  const shown = card(key, name);
  const part = (selector) => shown.querySelector(selector);
  part(".facts-line").textContent = facts;
  part(".bar-line").hidden = share === undefined;
  const bar = part("progress");
  if (share === null) bar.removeAttribute("value");
  else if (share !== undefined) bar.value = share;
  part(".stage").textContent = stage;
  part(".finding").textContent = finding;
  part(".finding").hidden = !finding;
  part(".finding").classList.toggle("raised", raised);
  part(".sentence").textContent = sentence;
  part(".sentence").hidden = !sentence;
  part(".finding").classList.toggle("quiet", quiet);
  shown.classList.toggle("open", base !== "" && base === opened);
  for (const link of shown.querySelectorAll("a")) {
    link.hidden = !base;
    if (base) link.href = `${base}/${link.dataset.file}`;
    link.setAttribute("aria-label", `${link.textContent}: ${name}`);
  }
  part(".act.main").onclick = (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return; // a tab of its own was asked for
    event.preventDefault();
    read(name, base, shown);
  };
  const button = part(".remove");
  button.textContent = removal;
  button.setAttribute("aria-label", `${removal}: ${name}`);
  button.onclick = remove;
}

// --- reading ---------------------------------------------------------------------------------------

let opened = ""; // the address of the report that is open, without its name

/** Open a report beside the list. */
function read(name, base, from) {
  document.querySelectorAll(".job.open").forEach((other) => other.classList.remove("open"));
  from.classList.add("open");
  opened = base;
  byId("reading-title").replaceChildren(Object.assign(document.createElement("bdi"), { textContent: name }));
  byId("report").title = `Report on ${name}`;
  byId("report").src = byId("alone").href = `${base}/report.html`;
  byId("reading").hidden = false;
  document.documentElement.classList.add("reads");
  byId("back").focus({ preventScroll: true });
  scrollTo({ top: 0 });
}

function back() {
  const from = document.querySelector(".job.open .act.main");
  opened = "";
  byId("reading").hidden = true;
  byId("report").removeAttribute("src");
  document.documentElement.classList.remove("reads");
  document.querySelectorAll(".job.open").forEach((other) => other.classList.remove("open"));
  (from ?? picker).focus();
}

byId("back").addEventListener("click", back);
addEventListener("keydown", (event) => {
  if (event.key === "Escape" && opened) back();
});

// --- sending ---------------------------------------------------------------------------------------

function add(files) {
  for (const file of files) {
    const key = `own ${++made}`;
    if (file.size > most) {
      refuse(key, file, `It is larger than the ${document.body.dataset.most} that this server accepts. Cut out the part in question, or use deepscan detect, which has no limit.`);
    } else {
      queue.push({ key, file });
      waiting(key, file);
    }
  }
  send();
}

function waiting(key, file) {
  show(key, file.name, {
    facts: size(file.size), share: 0, stage: "to be sent", removal: "Cancel",
    remove: () => {
      queue.splice(queue.findIndex((item) => item.key === key), 1);
      forget(key);
    },
  });
}

function refuse(key, file, words) {
  show(key, file.name, { facts: size(file.size), finding: "Not taken", quiet: true, sentence: words, removal: "Dismiss", remove: () => forget(key) });
  tell(`${file.name}: not taken. ${words}`);
}

function send() {
  if (sending || queue.length === 0) return;
  const { key, file } = queue.shift();
  sending = true;
  const stated = new URLSearchParams({ name: file.name });
  for (const id of ["case", "exhibit", "examiner", "notes"]) {
    if (byId(id).value) stated.set(id, byId(id).value);
  }
  const request = new XMLHttpRequest();
  request.open("POST", `jobs?${stated}`);
  request.setRequestHeader("content-type", "application/octet-stream");
  const progress = (share) =>
    show(key, file.name, { facts: size(file.size), share, stage: `being sent, ${Math.floor(100 * share)} %`, removal: "Cancel", remove: () => request.abort() });
  progress(0);
  request.upload.onprogress = (event) => progress(event.total ? event.loaded / event.total : 0);
  request.onload = () => {
    if (request.status === 202) {
      forget(key);
      showJob(JSON.parse(request.responseText));
      poll();
    } else {
      refuse(key, file, request.responseText || `The server answered ${request.status}.`);
    }
  };
  request.onerror = () => refuse(key, file, "The connection to the server broke off. Is deepscan serve still running?");
  request.onabort = () => forget(key);
  request.onloadend = () => {
    sending = false;
    send();
  };
  request.send(file);
}

// --- what the server tells -------------------------------------------------------------------------

const warned = (count) => (count === 0 ? "" : count === 1 ? " Its report holds a warning." : ` Its report holds ${count} warnings.`);

const pending = (job) => ["receiving", "waiting", "analysing"].includes(job.state);

function words(job, ahead) {
  if (job.state === "receiving") return "being received";
  if (job.state === "waiting") return ahead ? `waiting; ${ahead} before it` : "next";
  const unmeasured = { "second look": "looking closer at one part", explaining: "testing the maps", writing: "writing the report" };
  if (job.total === 0) return unmeasured[job.stage] || "opening the clip";
  return `looking at the clip, frame ${job.done} of ${job.total}`;
}

function showJob(job, ahead = 0) {
  const key = `job ${job.id}`;
  const removal = pending(job) ? "Cancel" : asked.has(key) ? "Yes, remove it" : "Remove";
  const remove = () => (pending(job) || asked.has(key) ? removeJob(job) : ask(key, job));
  if (job.state === "removed") {
    const undo = () => change(job, "POST", "/restore", "is back");
    if (opened === `jobs/${job.id}`) back();
    const sentence = `Deleted in ${job.seconds_left} seconds, with its report.`;
    show(key, job.name, { facts: size(job.bytes), finding: "Removed", quiet: true, sentence, removal: "Undo", remove: undo });
    states.set(key, job.state);
    return;
  }
  const facts = job.seconds_left === null ? size(job.bytes) : `${size(job.bytes)}, kept for ${minutes(job.seconds_left)} more`;
  if (pending(job)) {
    const share = job.state === "waiting" ? 0 : job.total ? job.done / job.total : null;
    show(key, job.name, { facts, share, stage: words(job, ahead), removal, remove });
  } else if (job.state === "finished") {
    show(key, job.name, {
      facts, finding: job.headline, raised: job.verdict === "manipulation_indicated", sentence: job.sentence + warned(job.warnings),
      base: `jobs/${job.id}`, removal, remove,
    });
  } else {
    show(key, job.name, { facts, finding: "Not analysed", quiet: true, sentence: job.sentence, removal, remove });
  }
  const before = states.get(key);
  states.set(key, job.state);
  if (before !== undefined && before !== job.state) {
    tell(`${job.name}: ${job.headline || (job.state === "failed" ? `not analysed. ${job.sentence}` : words(job, ahead))}`);
  }
}

/** Ask before a clip is removed: a second press within some seconds does it. */
function ask(key, job) {
  asked.add(key);
  setTimeout(() => {
    asked.delete(key);
    poll();
  }, 8000);
  showJob(job);
  tell(`${job.name}: press again to remove it`);
}

const removeJob = (job) => change(job, "DELETE", "", pending(job) ? "cancelled" : "removed; it can be undone for a minute");

async function change(job, method, place, words) {
  asked.delete(`job ${job.id}`);
  try {
    const answer = await fetch(`jobs/${job.id}${place}`, { method });
    if (answer.ok) tell(`${job.name}: ${words}`);
  } finally {
    poll();
  }
}

/** Ask once now, and again each second while something is under way, else each minute. */
async function poll() {
  clearTimeout(timer);
  let next = 60_000;
  try {
    const jobs = await (await fetch("jobs")).json();
    byId("lost").hidden = true;
    // One that this page is sending is shown by its own card.
    const known = jobs.filter((job) => job.state !== "receiving");
    let ahead = 0;
    for (const job of known) {
      showJob(job, ahead);
      ahead += pending(job);
    }
    const keys = new Set(known.map((job) => `job ${job.id}`));
    for (const key of [...cards.keys()]) if (key.startsWith("job ") && !keys.has(key)) forget(key);
    const soonest = Math.min(...known.map((job) => job.seconds_left ?? Infinity));
    next = known.some((job) => pending(job) || job.state === "removed") ? 700 : Math.min(next, Math.max(1000, 1000 * soonest));
  } catch {
    byId("lost").hidden = false;
    next = 3000;
  }
  timer = setTimeout(poll, next);
}

// --- dropping --------------------------------------------------------------------------------------

picker.addEventListener("change", () => {
  add([...picker.files]);
  picker.value = "";
});
byId("form").addEventListener("submit", (event) => event.preventDefault());
// Anywhere on the page will do: a clip dropped beside the field must not replace the page.
addEventListener("dragover", (event) => {
  event.preventDefault();
  drop.classList.add("over");
});
addEventListener("dragleave", (event) => {
  if (event.relatedTarget === null) drop.classList.remove("over");
});
addEventListener("drop", (event) => {
  event.preventDefault();
  drop.classList.remove("over");
  add([...event.dataTransfer.files]);
});
addEventListener("visibilitychange", () => {
  if (!document.hidden) poll();
});

poll();
