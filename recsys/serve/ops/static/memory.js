// The memory page. Everything that comes from data goes in as text, never as markup.
"use strict";

const at = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";

function made(tag, className, text) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
}

async function ask(path, query) {
  const token = at("token").value;
  const reply = await fetch(`${path}?${new URLSearchParams(query)}`, {
    headers: token ? { Authorization: `Bearer ${token}` } : {},
  });
  const found = await reply.json().catch(() => ({ error: reply.statusText }));
  if (reply.status === 401) at("token-label").hidden = false;
  if (!reply.ok) throw new Error(found.error || reply.statusText);
  return found;
}

function say(text, wrong = false) {
  at("message").textContent = text;
  at("message").classList.toggle("wrong", wrong);
}

const day = (seconds) => (seconds === null ? "" : new Date(seconds * 1000).toISOString().slice(0, 16).replace("T", " "));
const signed = (number, digits = 3) => `${number < 0 ? "−" : "+"}${Math.abs(number).toFixed(digits)}`;
const count = (number, word) => `${number.toLocaleString("en")} ${word}${number === 1 ? "" : "s"}`;

// A bar a month, from the first to the last.
function life(months) {
  const box = at("life");
  box.replaceChildren();
  if (months.length < 2) return;
  const number = ([month]) => Number(month.slice(0, 4)) * 12 + Number(month.slice(5, 7)) - 1;
  const first = number(months[0]);
  const span = number(months[months.length - 1]) - first + 1;
  const most = Math.max(...months.map(([, events]) => events));
  const width = 800, height = 56, step = width / span;
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", `Events a month, at most ${most}`);
  for (const month of months) {
    const bar = document.createElementNS(SVG, "rect");
    const tall = Math.max((month[1] / most) * height, 1.5);
    const place = { x: (number(month) - first) * step, y: height - tall, width: Math.max(step - 1, 1), height: tall };
    for (const [name, value] of Object.entries(place)) bar.setAttribute(name, value);
    const tip = document.createElementNS(SVG, "title");
    tip.textContent = `${month[0]}: ${count(month[1], "event")}`;
    bar.append(tip);
    svg.append(bar);
  }
  const ends = made("div", "row id");
  ends.append(made("span", "", months[0][0]), made("span", "", months[months.length - 1][0]));
  box.append(svg, ends);
}

function named(row) {
  const title = made("span", "title", row.title || row.item_id);
  title.dir = "auto";
  const whole = made("span");
  whole.append(title);
  if (row.title) whole.append(" ", made("span", "id", row.item_id));
  return whole;
}

function memory(row, searched) {
  const line = made("li");
  const when = made("time", "", day(row.timestamp));
  const what = made("span");
  if (searched) what.append(made("span", "near", row.weight.toFixed(2)));
  what.append(named(row));
  const kind = row.value === null ? row.event_type : `${row.event_type} ${row.value}`;
  line.append(when, what, made("span", "kind", kind));
  return line;
}

function tableOf(rows) {
  const table = made("table");
  for (const [what, ...numbers] of rows) {
    const line = made("tr");
    const cell = made("td");
    cell.append(what);
    line.append(cell);
    for (const [text, className] of numbers) line.append(made("td", `number ${className}`, text));
    table.append(line);
  }
  return table;
}

const direction = (number) => (number < 0 ? "down" : "up");

function explanation(item) {
  const part = made("div");
  const head = made("h3");
  head.append(named(item), ` ${item.score.toFixed(3)}`);
  part.append(head, made("p", "caption", "What moved the score most"));
  part.append(tableOf(item.contributions.map((each) => [each.feature, [signed(each.share), direction(each.share)]])));
  if (item.memories.length) {
    part.append(made("p", "caption", "Events it used: their share, and what the score would change by without them"));
    part.append(
      tableOf(
        item.memories.map((each) => {
          const change = each.score_change;
          const effect = change === null ? ["", ""] : [signed(change), direction(change)];
          return [named(each), [day(each.timestamp).slice(0, 10), ""], [`${Math.round(each.weight * 100)} %`, ""], effect];
        }),
      ),
    );
  }
  return part;
}

function ranking(row) {
  const line = made("li");
  const head = made("div", "row");
  const button = made("button", "quiet", "Why?");
  button.type = "button";
  head.append(made("span", "id", `${count(Math.round(row.age_s), "second")} ago, snapshot ${row.snapshot_id}`), button);
  const items = made("ol", "items");
  for (const each of row.items) {
    const item = made("li");
    item.append(named(each));
    items.append(item);
  }
  const why = made("div", "why");
  why.hidden = true;
  button.addEventListener("click", async () => {
    button.disabled = true;
    try {
      const found = await ask("api/explain", { ranking: row.ranking_id });
      why.replaceChildren(...found.items.map(explanation));
      why.hidden = false;
    } catch (error) {
      say(error.message, true);
    }
    button.disabled = false;
  });
  line.append(head, items, why);
  return line;
}

async function show() {
  const user = at("user").value, text = at("text").value.trim();
  say("…");
  try {
    const found = await ask("api/memories", text ? { user, text } : { user });
    const kept = await ask("api/rankings", { user });
    at("found").hidden = false;
    at("life-title").textContent = text ? "Nearest memories" : "Time line";
    const dates = found.first === null ? "" : `, ${day(found.first).slice(0, 10)} to ${day(found.last).slice(0, 10)}`;
    at("summary").textContent = `${count(found.total, "event")}${dates}`;
    life(found.months);
    at("memories").replaceChildren(...found.memories.map((row) => memory(row, Boolean(text))));
    at("rankings").replaceChildren(...kept.rankings.map(ranking));
    at("no-rankings").hidden = kept.rankings.length > 0;
    say(found.total ? (found.memories.length < found.total ? `${found.memories.length} shown` : "") : "Nothing is remembered of this user.");
  } catch (error) {
    at("found").hidden = true;
    say(error.message, true);
  }
}

at("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  show();
});
