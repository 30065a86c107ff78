// The audit: the list of pairs, one pair in detail, and the counts under other thresholds. Scores come from the data blocks of the
// page (pipelines/report/audit.py); nothing is fetched.
(() => {
  const app = document.getElementById("audit-app");
  if (!app) return;
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const data = read("audit-scores");
  const drawn = read("audit-pictures");
  const find = (id) => document.getElementById(`audit-${id}`);
  const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer;
  const ints = (text) => new Int32Array(bytes(text));
  const make = (tag, text = "", attributes = {}) => {
    const made = document.createElement(tag);
    made.textContent = text;
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    return made;
  };
  const shown = (value) => (Number.isFinite(value) ? String(+value.toPrecision(4)) : value > 0 ? "∞" : "−∞");
  const plain = (name) => name.replace(/_s$/, " (s)").replaceAll("_", " ");

  const target = ints(data.target), source = ints(data.source), kind = ints(data.kind), reason = ints(data.reason);
  const accepted = ints(data.accepted);
  const count = accepted.length;
  const column = (c, values = new Float32Array(bytes(c.values))) => ({
    name: c.name,
    values,
    rows: c.rows ? ints(c.rows) : Int32Array.from(values, (_, n) => n),
    limit: c.limit ? ints(c.limit) : new Int32Array(values.length),
    was: c.limits.map(([low, high]) => [low ?? -Infinity, high ?? Infinity]),
    limits: c.limits.map(([low, high]) => [low ?? -Infinity, high ?? Infinity]),
  });
  const rules = data.rules.map((c) => column(c)), parts = data.parts.map((c) => column(c));
  for (const c of [...rules, ...parts]) {
    c.at = new Int32Array(count).fill(-1); // pair -> place in the column
    c.rows.forEach((row, place) => { c.at[row] = place; });
  }
  const name = (ends, n) => `${data.clips[ends[2 * n]]}/${data.tails[ends[2 * n + 1]]}`;
  const packed = new Uint8Array(data.clips.length);
  for (const clip of ints(data.triplets)) packed[clip] = 1;
  const required = Uint8Array.from(data.kinds, (k) => (data.require.includes(k) ? 1 : 0));
  const numbers = new Map(); // target element -> its number
  const element = Int32Array.from({ length: count }, (_, n) => {
    const key = target[2 * n] * data.tails.length + target[2 * n + 1];
    if (!numbers.has(key)) numbers.set(key, numbers.size);
    return numbers.get(key);
  });

  // -- counting ------------------------------------------------------------------------------------------------------
  const bad = new Uint8Array(count); // 1 if a rule refuses the pair at the current slider values
  function judge() {
    bad.fill(0);
    for (const rule of rules) {
      const low = rule.limits.map((l) => Math.fround(l[0])), high = rule.limits.map((l) => Math.fround(l[1]));
      const { rows, limit, values } = rule;
      for (let i = 0; i < rows.length; i++) {
        if (values[i] < low[limit[i]] || values[i] > high[limit[i]]) bad[rows[i]] = 1;
      }
    }
  }
  judge();
  const first = bad.slice(); // a refused pair may have passed all its stored rules, if its identity was ambiguous
  const returns = (n) => !accepted[n] && first[n] && !bad[n];
  const tally = (lives) => {
    const elements = new Uint8Array(numbers.size), clips = new Uint8Array(packed.length);
    let pairs = 0, references = 0, triplets = 0;
    for (let n = 0; n < count; n++) {
      if (!lives(n)) continue;
      pairs++;
      if (!elements[element[n]]) { elements[element[n]] = 1; references++; }
      const clip = target[2 * n];
      if (packed[clip] && required[kind[n]] && !clips[clip]) { clips[clip] = 1; triplets++; }
    }
    return { pairs, references, triplets };
  };
  const before = tally((n) => accepted[n]);
  function recount() {
    judge();
    const now = tally((n) => accepted[n] && !bad[n]);
    for (const what of ["pairs", "references", "triplets"]) {
      find(what).textContent = now[what].toLocaleString("en");
      find(`${what}-of`).textContent = `of ${before[what].toLocaleString("en")}`;
    }
    let back = 0;
    for (let n = 0; n < count; n++) back += returns(n);
    find("back").textContent = back.toLocaleString("en");
    if (find("which").value === "changed") list();
    else relabel();
    detail();
  }

  // -- thresholds ----------------------------------------------------------------------------------------------------
  function slider(rule, which, side) {
    const limit = rule.was[which][side];
    let least = limit, most = limit;
    const kinds = new Set();
    rule.rows.forEach((row, place) => {
      if (rule.limit[place] !== which) return;
      kinds.add(data.kinds[kind[row]]);
      const value = rule.values[place];
      if (Number.isFinite(value)) { least = Math.min(least, value); most = Math.max(most, value); }
    });
    const room = 0.02 * (most - least) || 0.1;
    const called = `${plain(rule.name)} ${side ? "at most" : "at least"}`;
    const about = rule.was.length > 1 ? [...kinds].sort().join(", ") : "";
    const row = make("tr");
    const head = make("th", called, { scope: "row" });
    if (about) head.append(make("span", ` ${about}`, { class: "quiet" }));
    const said = `${called}${about ? `, ${about}` : ""}`;
    const range = make("input", "", { type: "range", min: least - room, max: most + room, step: "any", "aria-label": said });
    const number = make("input", "", { type: "number", step: "any", "aria-label": `${said}, exactly` });
    const reset = make("button", "reset", { type: "button", "aria-label": `reset ${said}` });
    range.dataset.rule = rule.name;
    const set = (value) => {
      rule.limits[which][side] = value;
      range.value = value;
      if (document.activeElement !== number) number.value = +value.toPrecision(5);
      reset.disabled = value === limit;
    };
    set(limit);
    range.addEventListener("input", () => { set(+range.value); recount(); });
    number.addEventListener("input", () => {
      if (number.value !== "" && Number.isFinite(+number.value)) { set(+number.value); recount(); }
    });
    reset.addEventListener("click", () => { set(limit); recount(); });
    row.append(head);
    for (const control of [range, number, reset]) {
      const cell = make("td");
      cell.append(control);
      row.append(cell);
    }
    find("sliders").append(row);
    return () => set(limit);
  }

  // -- the list ------------------------------------------------------------------------------------------------------
  const MOST = 400; // longest list
  const pictured = (n) => name(target, n) in drawn.elements && name(source, n) in drawn.elements;
  const mark = (n) => (accepted[n] ? (bad[n] ? "−" : "✓") : returns(n) ? "+" : "×");
  const clip = (ends, n) => data.clips[ends[2 * n]].replace(/^([0-9a-f]{8})[0-9a-f]{8}-/, "$1…-");
  const entry = (n) => `${mark(n)} ${data.tails[target[2 * n + 1]].padEnd(12)} ${clip(target, n)} ← ${clip(source, n)}`;
  const wanted = {
    all: () => true,
    accepted: (n) => accepted[n],
    refused: (n) => !accepted[n],
    changed: (n) => (accepted[n] ? bad[n] : returns(n)),
    pictured,
  };
  function nearness(n) {
    let least = Infinity;
    for (const rule of rules) {
      const place = rule.at[n];
      if (place < 0) continue;
      const [low, high] = rule.limits[rule.limit[place]], value = rule.values[place];
      for (const end of [low, high]) if (Number.isFinite(end)) least = Math.min(least, Math.abs(value - end));
    }
    return least;
  }
  function list() {
    const text = find("search").value.trim(), of = find("kind").value, order = find("order").value;
    const keep = wanted[find("which").value];
    let found = [];
    for (let n = 0; n < count; n++) {
      if ((of && data.kinds[kind[n]] !== of) || !keep(n)) continue;
      if (text && !name(target, n).includes(text) && !name(source, n).includes(text)) continue;
      found.push(n);
    }
    const rule = rules.find((r) => r.name === order);
    const by = order === "near" ? nearness : rule && ((n) => (rule.at[n] < 0 ? Infinity : rule.values[rule.at[n]]));
    if (by) {
      const value = new Map(found.map((n) => [n, by(n)]));
      found.sort((a, b) => (value.get(a) === value.get(b) ? a - b : value.get(a) - value.get(b)));
    }
    const box = find("list"), old = +box.value;
    box.replaceChildren(...found.slice(0, MOST).map((n) => new Option(entry(n), n)));
    const total = found.length.toLocaleString("en");
    find("found").textContent = found.length > MOST ? `the first ${MOST} of ${total} pairs` : `${total} pairs`;
    box.value = found.includes(old) ? old : found.length ? found[0] : "";
    detail();
  }
  function relabel() {
    for (const option of find("list").options) option.textContent = entry(+option.value);
  }

  // -- one pair ------------------------------------------------------------------------------------------------------
  function picture(figure, ends, n, what) {
    const known = drawn.elements[name(ends, n)], svg = figure.querySelector("svg");
    svg.toggleAttribute("hidden", !known);
    figure.querySelector(".gone").hidden = Boolean(known);
    figure.querySelector("figcaption").replaceChildren(make("b", what), ` ${known ? known[3] : ""} `, make("code", name(ends, n)));
    if (!known) return;
    const [frame, width, height, , path] = known, image = svg.querySelector("image");
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    svg.setAttribute("aria-label", `frame with the outline of ${name(ends, n)}`);
    image.setAttribute("href", drawn.frames[frame]);
    image.setAttribute("width", width);
    image.setAttribute("height", height);
    for (const line of svg.querySelectorAll("path")) line.setAttribute("d", path);
  }
  function allowed([low, high]) {
    if (low === -Infinity && high === Infinity) return "recorded only";
    if (high === Infinity) return `at least ${shown(low)}`;
    return low === -Infinity ? `at most ${shown(high)}` : `${shown(low)} to ${shown(high)}`;
  }
  function ruleRow(rule, n) {
    const place = rule.at[n], value = rule.values[place], limits = rule.limits[rule.limit[place]], was = rule.was[rule.limit[place]];
    const asks = limits.some(Number.isFinite);
    const passed = value >= Math.fround(limits[0]) && value <= Math.fround(limits[1]);
    const row = make("tr", "", { class: !asks ? "" : passed ? "pass" : "fail" });
    row.dataset.rule = rule.name;
    const limit = make("td", allowed(limits));
    if (limits.some((l, side) => l !== was[side])) limit.append(make("span", ` was ${allowed(was)}`, { class: "quiet" }));
    row.append(make("th", plain(rule.name), { scope: "row" }), make("td", shown(value), { class: "n" }), limit, make("td", !asks ? "" : passed ? "pass" : "FAIL"));
    return row;
  }
  function detail() {
    const chosen = find("list").value, box = find("pair");
    box.hidden = chosen === "";
    if (chosen === "") return;
    const n = +chosen;
    const verdict = accepted[n] ? (bad[n] ? "accepted, but not with these thresholds" : "accepted") : `refused: ${data.reasons[reason[n]]}`;
    const identity = data.identity[n] >= 0 ? ` · identity ${data.identity[n]}` : "";
    find("verdict").textContent = `${data.kinds[kind[n]]}, ${verdict}${identity}`;
    picture(find("target"), target, n, "in the clip");
    picture(find("source"), source, n, accepted[n] ? "reference" : "most likely candidate");
    const held = rules.filter((rule) => rule.at[n] >= 0);
    find("rules").replaceChildren(...held.map((rule) => ruleRow(rule, n)));
    find("only").hidden = accepted[n] === 1;
    const measured = parts.filter((part) => part.at[n] >= 0);
    find("parts-of").hidden = !measured.length;
    find("parts").replaceChildren(...measured.map((part) => {
      const row = make("tr");
      row.append(make("th", plain(part.name), { scope: "row" }), make("td", shown(part.values[part.at[n]]), { class: "n" }));
      return row;
    }));
  }
  function step(by) {
    const box = find("list");
    const next = box.selectedIndex + by;
    if (next >= 0 && next < box.options.length) { box.selectedIndex = next; detail(); }
  }

  const resets = [];
  for (const rule of rules) {
    rule.was.forEach((limits, which) => limits.forEach((limit, side) => {
      if (Number.isFinite(limit)) resets.push(slider(rule, which, side));
    }));
  }
  for (const k of data.kinds) find("kind").append(new Option(k, k));
  for (const rule of rules) find("order").append(new Option(`${plain(rule.name)}, lowest first`, rule.name));
  for (const id of ["search", "kind", "which", "order"]) find(id).addEventListener("input", list);
  find("list").addEventListener("input", detail);
  find("previous").addEventListener("click", () => step(-1));
  find("next").addEventListener("click", () => step(1));
  find("outlines").addEventListener("input", () => app.classList.toggle("bare", !find("outlines").checked));
  find("reset").addEventListener("click", () => { for (const set of resets) set(); recount(); });
  app.hidden = false;
  list();
  recount();
})();
