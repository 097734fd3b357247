"use strict";
// Draws figures when they come near the screen, filters tables, and, on a live page, takes new content from the server.

const REFRESH = 5000; // milliseconds between two questions to the server

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

// The page's colours, light or dark, in a figure.
function themed({ data, layout }) {
  const ink = colour("--ink");
  for (const trace of data.filter((part) => part.type === "heatmap")) trace.textfont = { color: ink };
  layout.paper_bgcolor = colour("--card"); // also the halo of texts on parallel coordinates
  layout.font = { ...layout.font, color: ink };
  layout.hoverlabel = { bgcolor: colour("--card"), bordercolor: colour("--soft"), font: { color: ink } };
  for (const name of Object.keys(layout).filter((key) => /^[xy]axis/.test(key))) {
    layout[name] = { ...layout[name], color: ink, linecolor: colour("--line") };
  }
  return [data, layout];
}

function draw(box) {
  const source = document.querySelector(`script[data-plot="${box.id}"]`);
  const figure = JSON.parse(source.textContent);
  box.dataset.drawn = "now";
  if (box.clientWidth < 480) figure.layout.margin = { ...figure.layout.margin, l: 48, r: 8 };
  return Plotly.react(box, ...themed(figure), { responsive: true, displayModeBar: false })
    .then(() => { box.dataset.drawn = "yes"; });
}

// Figures near the screen that are not drawn yet. They are drawn one by one, the nearest first, so that the page answers
// in between.
const due = new Set();
let drawing = false;

function distance(box) {
  const { top, bottom } = box.getBoundingClientRect();
  return Math.max(0, top - window.innerHeight, -bottom);
}

async function drawDue() {
  if (drawing) return;
  drawing = true;
  while (due.size) {
    const [box] = [...due].sort((one, other) => distance(one) - distance(other));
    due.delete(box);
    if (!box.dataset.drawn) await draw(box);
    await new Promise((done) => setTimeout(done));
  }
  drawing = false;
}

const near = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    if (isIntersecting && !target.dataset.drawn) due.add(target);
    else due.delete(target);
  }
  drawDue();
}, { rootMargin: "800px" });

const plots = () => [...document.querySelectorAll(".plot")];
const drawAll = (which) => Promise.all(plots().filter(which).map(draw));

function filter(box) {
  const [select, words] = [box.querySelector("select"), box.querySelector("input")];
  const wanted = words.value.toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0;
  for (const row of box.querySelectorAll("tbody tr")) {
    const text = row.textContent.toLowerCase();
    const task = row.cells[select.dataset.column].textContent;
    row.hidden = (select.value !== "" && task !== select.value) || !wanted.every((word) => text.includes(word));
    shown += !row.hidden;
  }
  box.querySelector("output").textContent = `${shown} rows`;
}

function begin() {
  for (const box of document.querySelectorAll(".filter")) {
    box.addEventListener("input", () => filter(box));
    box.querySelector("form").addEventListener("submit", (event) => event.preventDefault());
  }
  plots().forEach((box) => near.observe(box));
}

// The new content in place of the old one; what the reader opened, chose and scrolled to stays.
function replace(next) {
  const open = [...document.querySelectorAll("details")].map((part) => part.open);
  const filled = [...document.querySelectorAll(".filter")].map((box) => [box.id, box.querySelector("select").value, box.querySelector("input").value]);
  const focused = document.activeElement && document.activeElement.closest(".filter");
  const drawn = new Set(plots().filter((box) => box.dataset.drawn).map((box) => box.id));
  const top = window.scrollY;
  due.clear();
  plots().forEach((box) => { near.unobserve(box); Plotly.purge(box); });
  document.querySelector("main").innerHTML = next.main;
  document.querySelector("nav").innerHTML = next.navigation;
  document.querySelector("footer time").textContent = next.made;
  document.querySelectorAll("details").forEach((part, place) => { part.open = Boolean(open[place]); });
  begin();
  for (const [id, task, words] of filled) {
    const box = document.getElementById(id);
    if (!box) continue;
    box.querySelector("select").value = task;
    box.querySelector("input").value = words;
    filter(box);
    if (focused && focused.id === id) box.querySelector("input").focus({ preventScroll: true });
  }
  window.scrollTo(0, top);
  return drawAll((box) => drawn.has(box.id));
}

async function refresh(version) {
  const made = document.querySelector("footer time");
  try {
    const answer = await fetch(`content?since=${version}`, { cache: "no-store" });
    if (answer.status === 200) {
      const next = await answer.json();
      await replace(next);
      version = next.version;
    }
    delete made.dataset.stale;
  } catch (error) {
    made.dataset.stale = "yes"; // the server has ended; the page stays as it is
  }
  setTimeout(refresh, REFRESH, version);
}

begin();
window.addEventListener("beforeprint", () => drawAll((box) => !box.dataset.drawn));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawAll((box) => box.dataset.drawn));
if (document.body.dataset.version) setTimeout(refresh, REFRESH, document.body.dataset.version);
