"use strict";

// What was answered, apart from the page: {rater, scores: {"case/slot/criterion": score}, revision: how often it was saved}.

function questions(study) {
  return study.cases.flatMap((one) => asked(study, one).flatMap(
    (slot) => Object.keys(study.criteria).map((criterion) => ({ case: one.id, slot, criterion }))));
}

// The slots that are rated: all, or, where videos are compared, one.
function asked(study, one) {
  return study.asked || Object.keys(one.videos);
}

function nameOf(question) {
  return JSON.stringify([question.case, question.slot, question.criterion]);
}

// The latest of several saved copies, each a JSON text or null.
function opened(study, ...texts) {
  let latest = { study: study.study, rater: "", scores: {}, revision: 0 };
  for (const text of texts) {
    try {
      const copy = JSON.parse(text);
      const revision = copy.revision || 0;
      if (copy.study === study.study && copy.scores && revision >= latest.revision) latest = { ...copy, revision };
    } catch { /* null, or damaged */ }
  }
  return latest;
}

function answered(study, state) {
  return questions(study).filter((question) => nameOf(question) in state.scores).length;
}

function exported(study, state) {
  const ratings = questions(study).filter((question) => nameOf(question) in state.scores)
    .map((question) => ({ ...question, score: state.scores[nameOf(question)] }));
  return { format: "a2-ratings/1", study: study.study, rater: { name: state.rater.trim(), kind: "person" }, ratings };
}

// Two copies of the answers: localStorage outlives the tab, the tab's history entry outlives a reload. A browser may refuse
// localStorage to a file, and one that has just started may lose what is written to it without an error.

const STORES = [
  { read: (place) => localStorage.getItem(place), write: (place, text) => localStorage.setItem(place, text) },
  { read: (place) => history.state[place], write: (place, text) => history.replaceState({ [place]: text }, "") },
];

function saved(place) {
  return STORES.map((store) => {
    try {
      return store.read(place);
    } catch {
      return null;
    }
  });
}

// Whether any copy was written.
function save(place, text) {
  return STORES.filter((store) => {
    try {
      store.write(place, text);
      return true;
    } catch {
      return false;
    }
  }).length > 0;
}

// The page.

function start() {
  const study = JSON.parse(document.getElementById("study").textContent);
  const place = "a2-study-" + study.study;
  const state = opened(study, ...saved(place));
  const total = questions(study).length;
  const part = (id) => document.getElementById(id);
  let at = 0;
  let warning = "";

  function keep() {
    state.revision += 1;
    warning = save(place, JSON.stringify(state)) ? "" : "; this browser does not keep them: export before you close the page";
    tally();
  }

  function tally() {
    const count = answered(study, state);
    part("progress").max = total;
    part("progress").value = count;
    part("count").textContent = `${count} of ${total} answers${warning}`;
  }

  function made(tag, text, into) {
    const element = document.createElement(tag);
    element.textContent = text;
    into.append(element);
    return element;
  }

  function ask(one, slot, name, into) {
    const criterion = study.criteria[name];
    const question = { case: one.id, slot, criterion: name };
    const box = made("fieldset", "", into);
    made("legend", criterion.title, box);
    made("small", criterion.asks, box);
    box.className = nameOf(question) in state.scores ? "" : "open";
    for (const [score, meaning] of Object.entries(criterion.anchors)) {
      const label = made("label", "", box);
      const input = document.createElement("input");
      input.type = "radio";
      input.name = `${slot}-${name}`;
      input.value = score;
      input.checked = state.scores[nameOf(question)] === Number(score);
      input.addEventListener("change", () => {
        state.scores[nameOf(question)] = Number(score);
        box.className = "";
        keep();
      });
      label.append(input, study.asked ? ` ${meaning}` : ` ${score} ${meaning}`);
    }
  }

  function show(number) {
    at = Math.max(0, Math.min(study.cases.length - 1, number));
    const one = study.cases[at];
    const main = part("case");
    main.replaceChildren();
    const pictures = made("div", "", main);
    pictures.className = "row";
    for (const reference of one.references) {
      const figure = made("figure", "", pictures);
      const image = made("img", "", figure);
      image.src = reference.picture;
      image.alt = reference.label || reference.role;
      made("figcaption", `${reference.role} ${reference.label}`, figure);
    }
    made("blockquote", one.prompt, main);
    const videos = made("div", "", main);
    videos.className = "row";
    for (const [slot, source] of Object.entries(one.videos)) {
      const column = made("section", "", videos);
      made("h2", `Video ${slot}`, column);
      const video = made("video", "", column);
      video.src = source;
      video.controls = video.loop = video.muted = video.autoplay = video.playsInline = true;
      for (const name of asked(study, one).includes(slot) ? Object.keys(study.criteria) : []) ask(one, slot, name, column);
    }
    part("where").textContent = `${at + 1} of ${study.cases.length}`;
    part("back").disabled = at === 0;
    part("next").disabled = at === study.cases.length - 1;
    scrollTo(0, 0);
    tally();
  }

  part("title").textContent = document.title = study.title;
  part("rater").value = state.rater;
  part("rater").addEventListener("input", (event) => { state.rater = event.target.value; keep(); });
  part("back").addEventListener("click", () => show(at - 1));
  part("next").addEventListener("click", () => show(at + 1));
  part("export").addEventListener("click", () => {
    if (!state.rater.trim()) {
      alert("Please give your name or number first.");
      return;
    }
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([JSON.stringify(exported(study, state), null, 1)], { type: "application/json" }));
    link.download = `ratings-${study.study}-${state.rater.trim().replace(/[^A-Za-z0-9]+/g, "_")}.json`;
    link.click();
  });
  const open = study.cases.findIndex((one) => questions({ ...study, cases: [one] }).some((q) => !(nameOf(q) in state.scores)));
  show(Math.max(0, open));
}

if (typeof document !== "undefined") start();
