// Sends answers and shows the next label. The server renders every page; nothing is put together
// here but the list of what is sent.
"use strict";

const BASE = "/review/";
const SAID = { right: "the label is right", wrong: "no label", skip: "skipped" };
let isSending = false;

const main = () => document.querySelector("main");

function say(text, isError = false) {
  const status = document.getElementById("status");
  status.textContent = text;
  status.classList.toggle("error", isError);
}

// Focus is on the page itself whenever it is in no field, so that keys always reach it.
function rest() {
  main().focus({ preventScroll: true });
  const rows = document.querySelector(".rows");
  const here = rows?.querySelector(".here");
  if (here) rows.scrollTop = here.offsetTop - rows.offsetTop - rows.clientHeight / 2;
}

async function post(path, content) {
  const answer = await fetch(BASE + path, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(content),
  });
  if (!answer.ok) throw new Error((await answer.text()).trim());
  return answer.status === 204 ? null : answer.json();
}

// Replace the page by another one without losing the focus or the status.
async function show(address) {
  const answer = await fetch(address);
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  document.querySelector("header")?.remove();
  const header = page.querySelector("header");
  main().replaceWith(page.querySelector("main"));
  if (header) main().before(header);
  document.title = page.title;
  history.replaceState(null, "", address);
  window.scrollTo(0, 0);
  rest();
}

// One thing at a time: a key that is pressed twice must not answer what nobody has seen yet.
async function alone(work) {
  if (isSending) return;
  isSending = true;
  document.body.classList.add("sending");
  try {
    await work();
  } catch (error) {
    const lost = error instanceof TypeError;
    say(lost ? "The server cannot be reached: nothing is known to be stored." : error.message, true);
    rest();
  } finally {
    isSending = false;
    document.body.classList.remove("sending");
  }
}

function give(choice) {
  const page = main();
  const toLabel = choice.dataset.toLabel ?? null;
  return alone(async () => {
    const shown = [...page.querySelectorAll("[data-label]")];
    const labels = shown.filter(isTicked).map((one) => one.dataset.label);
    document.getElementById("types").close();
    if (!labels.length) throw new Error("No label is ticked: the answer would be about none.");
    await post("answer", {
      labels,
      // An answer that leaves labels out says nothing of their kind.
      kind: labels.length === shown.length ? page.dataset.kind ?? null : null,
      verdict: choice.dataset.verdict,
      to_label: toLabel,
      note: document.getElementById("note").value,
      proposal_shown: page.dataset.proposalShown === "true",
    });
    const what = toLabel ?? SAID[choice.dataset.verdict];
    say(labels.length > 1 ? `Stored for ${labels.length} labels: ${what}` : `Stored: ${what}`);
    await show(page.dataset.next);
  });
}

function isTicked(row) {
  return row.querySelector("[data-tick]")?.checked ?? true;
}

const ticks = () => [...document.querySelectorAll("[data-tick]")];

function goThroughTicks(event) {
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  const all = ticks();
  if (!step || !all.length) return false;
  const at = all.indexOf(document.activeElement);
  const next = at < 0 ? (step > 0 ? 0 : all.length - 1) : at + step;
  all[Math.min(Math.max(next, 0), all.length - 1)].focus();
  event.preventDefault();
  return true;
}

function undo(button) {
  const next = main().dataset.next;
  return alone(async () => {
    const { key } = await post("undo", { answer_id: button.dataset.undo });
    say("Your last answer is taken back");
    await show(`${next}&key=${encodeURIComponent(key)}`);
  });
}

function filtered() {
  const query = new URLSearchParams();
  for (const field of document.querySelectorAll("[data-filter]")) {
    const value = field.type === "checkbox" && !field.checked ? "" : field.value;
    if (value) query.set(field.dataset.filter, value);
  }
  location.assign(`${BASE}?${query}`);
}

// The list of label types: what is typed leaves those that contain it, the first of them is chosen.
const found = () => [...document.querySelectorAll("#found li:not([hidden])")];

function choose(one) {
  for (const other of document.querySelectorAll("#found li")) other.removeAttribute("aria-current");
  one?.setAttribute("aria-current", "true");
  one?.scrollIntoView({ block: "nearest" });
}

function search(text) {
  const wanted = text.trim().toLowerCase().replaceAll(" ", "_");
  for (const one of document.querySelectorAll("#found li")) {
    const name = (one.dataset.toLabel ?? "no_label").toLowerCase();
    one.hidden = !name.includes(wanted);
  }
  choose(found()[0]);
}

function openTypes() {
  const field = document.getElementById("search");
  field.value = "";
  search("");
  const dialog = document.getElementById("types");
  dialog.addEventListener("close", rest, { once: true });
  dialog.showModal();
  field.focus();
}

function keyInTypes(event) {
  const listed = found();
  const at = listed.findIndex((one) => one.hasAttribute("aria-current"));
  const steps = { ArrowDown: 1, ArrowUp: -1 };
  if (event.key in steps) {
    choose(listed[(at + steps[event.key] + listed.length) % listed.length]);
  } else if (event.key === "Enter" && at >= 0) {
    give(listed[at]);
  } else {
    return;
  }
  event.preventDefault();
}

function use(control) {
  if (control.dataset.verdict) give(control);
  else if (control.dataset.undo) undo(control);
  else if (control.dataset.opens) openTypes();
  else if (control.dataset.reopen) alone(async () => {
    await post("reopen", { rule: control.dataset.reopen });
    location.reload();
  });
  else if (control.tagName === "INPUT") control.focus();
  else control.click();
}

let isTyped = false;

// Keyboards of other scripts have the letters of the page on the same keys.
function nameOf(event) {
  const letter = /^Key([A-Z])$/.exec(event.code);
  return letter && event.key.charCodeAt(0) > 127 ? letter[1].toLowerCase() : event.key;
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey || event.isComposing) return;
  if (document.getElementById("types")?.open) {
    keyInTypes(event);
    return;
  }
  if (goThroughTicks(event)) return;
  const field = event.target.closest("input:not([data-tick]), select");
  if (field) {
    // Letters and arrows go through the choices of a filter; the one to keep is taken by Enter.
    if (field.matches("[data-filter]") && event.key === "Enter") {
      event.preventDefault();
      filtered();
    }
    isTyped = true;
    if (field.id === "note" && (event.key === "Enter" || event.key === "Escape")) {
      event.preventDefault();
      rest();
    }
    return;
  }
  if (event.repeat || (event.key === "Enter" && event.target.closest("button, a"))) return;
  const control = [...document.querySelectorAll("[data-keys]")].find((one) =>
    one.dataset.keys.split(" ").includes(nameOf(event)));
  if (!control) return;
  event.preventDefault();
  if (!isSending) use(control);
});

document.addEventListener("click", (event) => {
  const control = event.target.closest("button, #found li");
  if (control && control.closest("form") === null) use(control);
});

document.addEventListener("input", (event) => {
  if (event.target.id === "search") search(event.target.value);
});

document.addEventListener("pointerdown", () => { isTyped = false; });

document.addEventListener("change", (event) => {
  if (event.target.matches("select[data-filter]") && isTyped) return;
  if (event.target.closest("[data-filter]")) filtered();
});

document.addEventListener("submit", (event) => {
  event.preventDefault();
  const { posts, field, then } = event.target.dataset;
  const value = event.target.querySelector("input").value;
  alone(async () => {
    await post(posts, { [field]: value });
    location.assign(then);
  });
});

const first = document.querySelector("[data-first]");
if (first) first.focus();
else rest();
