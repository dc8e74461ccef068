// Runs once in the page. Gradio gives it `element`, `props`, `trigger` and `watch`.
// The server has the document; this draws what it sends and tells it what is wanted.
const find = (selector) => element.querySelector(selector);
const all = (selector) => [...element.querySelectorAll(selector)];
const canvases = all("canvas");

let view = {};
let tool = "select";
let paintClass = 0;
let points = []; // of the stroke or polygon that is being drawn, in pixels of the picture
const near = 0.25; // pixels; a point of a stroke that is nearer to the last one is left out
const maxPoints = 200_000; // of a stroke; the server takes no more
let drag = null; // {from, to} while an object is being dragged
let cursor = null;
const outline = new Image();
let hits = null; // pixels of the outline: their alpha tells what belongs to the selected object
let sent = 0;
let answered = 0;

function send(action, args = {}) {
  if (!view.size) return;
  sent += 1;
  find(".busy").classList.add("on");
  find(".busy").style.setProperty("--seconds", `${Math.max(view.seconds, 0.2)}s`);
  trigger("edit", { action, serial: sent, ...args });
}

// What is refused is shown by Gradio, and has no answer.
document.addEventListener("hdgan-refused", () => {
  answered = sent;
  find(".busy").classList.remove("on");
});

function setTool(name) {
  tool = name;
  all("[data-tool]").forEach((button) => button.setAttribute("aria-pressed", button.dataset.tool === name));
  find(".panes").dataset.tool = name;
  drop();
}

function drop() {
  points = [];
  drag = null;
  draw();
}

function setClass(label) {
  paintClass = label;
  all(".classes button").forEach((b) => b.setAttribute("aria-checked", Number(b.dataset.label) === label));
}

function setWidth(width) {
  find(".width").value = width;
  find(".tools output").textContent = find(".width").value;
}

const brushWidth = () => Number(find(".width").value);
const extend = () => find(".extend").checked;

// What the server sent

function show() {
  const { opening } = view;
  view = { ...view, ...props.value }; // an answer may hold a message alone
  answered = props.value?.serial ?? answered;
  if (answered >= sent) find(".busy").classList.remove("on");
  for (const [selector, text] of [[".alert", view.message], [".done", view.done]]) {
    find(selector).textContent = text || "";
    find(selector).hidden = !text;
    if (text) find(selector).scrollIntoView({ block: "nearest" });
  }
  find(".notes").replaceChildren(...(view.notes || []).map((note) => make("li", { textContent: note })));
  if (view.legend && !find(".classes").childElementCount) showLegend();
  if (!view.size) return;
  if (view.opening !== opening) drop(); // what was begun on another picture
  const [width, height] = view.size;
  if (canvases[0].width !== width || canvases[0].height !== height) {
    canvases.forEach((canvas) => Object.assign(canvas, { width, height }));
    find(".width").max = Math.ceil(width / 4);
    setWidth(Math.ceil(width / 32));
  }
  for (const part of ["label", "ids", "picture"]) find(`[data-part=${part}]`).src = view[part];
  find("[data-action=undo]").disabled = !view.canUndo;
  find("[data-action=redo]").disabled = !view.canRedo;
  find("[data-action=remove]").disabled = !view.selected;
  showSelected();
  element.dataset.serial = view.serial;
}

function make(tag, properties) {
  return Object.assign(document.createElement(tag), properties);
}

function showLegend() {
  for (const { label, name, colour } of view.legend) {
    const button = make("button", { title: `Paint ${name}`, textContent: name, onclick: () => setClass(label) });
    button.dataset.label = label;
    button.setAttribute("role", "radio");
    button.prepend(make("i", { style: `background: ${colour}` }));
    find(".classes").append(button);
    find("select.class").append(make("option", { value: label, textContent: name }));
  }
  setClass(view.legend[0].label);
}

function showSelected() {
  const { selected } = view;
  find(".object .none").hidden = Boolean(selected);
  find(".object .some").hidden = !selected;
  hits = null;
  if (!selected) return draw();
  find(".name").textContent = selected.name;
  find(".id").textContent = selected.id;
  find(".style").textContent = selected.style;
  find("select.class").value = selected.label;
  const mean = make("button", { title: "Mean of the class (0)", textContent: "mean", onclick: () => choose(null) });
  mean.setAttribute("aria-pressed", selected.mean);
  const buttons = selected.choices.map((source, cluster) => {
    const key = cluster < 9 ? ` (${cluster + 1})` : "";
    const button = make("button", { title: `Cluster ${cluster}${key}`, onclick: () => choose(cluster) });
    button.setAttribute("aria-pressed", selected.cluster === cluster);
    button.append(make("img", { src: source, alt: `style ${cluster}` }));
    return button;
  });
  find(".styles").replaceChildren(...(buttons.length ? [mean, ...buttons] : []));
  outline.src = selected.outline;
}

const choose = (cluster) => view.selected && view.selected.choices.length > (cluster ?? 0) && send("style", { cluster });

outline.onload = () => {
  const scratch = new OffscreenCanvas(outline.width, outline.height).getContext("2d");
  scratch.drawImage(outline, 0, 0);
  hits = scratch.getImageData(0, 0, outline.width, outline.height);
  if (view.selected) element.dataset.outlined = view.selected.id;
  draw();
};

// What lies over the pictures: outline, object on its way, stroke, polygon

function draw() {
  for (const canvas of canvases) {
    const context = canvas.getContext("2d");
    context.clearRect(0, 0, canvas.width, canvas.height);
    if (view.selected && outline.complete) {
      if (find(".lines").checked) context.drawImage(outline, 0, 0);
      if (drag) context.drawImage(outline, drag.to[0] - drag.from[0], drag.to[1] - drag.from[1]);
    }
    context.strokeStyle = context.fillStyle = "rgba(255, 240, 60, 0.8)";
    context.lineCap = context.lineJoin = "round";
    context.lineWidth = tool === "brush" ? brushWidth() : Math.max(1, canvas.width / 512);
    const way = tool === "polygon" && points.length && cursor ? [...points, cursor] : points;
    if (way.length) {
      context.beginPath();
      context.moveTo(...way[0]);
      way.forEach(([x, y]) => context.lineTo(x + 0.01, y)); // a line of no length would not be drawn
      context.stroke();
    } else if (tool === "brush" && cursor) {
      context.globalAlpha = 0.4;
      context.beginPath();
      context.arc(...cursor, brushWidth() / 2, 0, 2 * Math.PI);
      context.fill();
      context.globalAlpha = 1;
    }
  }
}

// Pointer

const hundredths = (value) => Math.round(value * 100) / 100;

function pixelOf(event) {
  const box = event.currentTarget.getBoundingClientRect();
  return [
    hundredths(((event.clientX - box.left) / box.width) * view.size[0]),
    hundredths(((event.clientY - box.top) / box.height) * view.size[1]),
  ];
}

function isSelected([x, y]) {
  const inside = hits && x >= 0 && y >= 0 && x < hits.width && y < hits.height;
  return Boolean(inside && view.selected && hits.data[(Math.floor(y) * hits.width + Math.floor(x)) * 4 + 3]);
}

function press(event) {
  if (!view.size || event.button) return;
  const point = pixelOf(event);
  if (tool === "brush") {
    points = [point];
  } else if (tool === "polygon") {
    points.push(point);
  } else if (tool !== "select" && isSelected(point)) {
    drag = { from: point, to: point };
  } else {
    send("select", { x: point[0], y: point[1] });
    return;
  }
  event.currentTarget.setPointerCapture(event.pointerId);
  draw();
}

function follow(event) {
  if (!view.size) return;
  cursor = pixelOf(event);
  if (drag) drag.to = cursor;
  if (tool === "brush" && event.buttons && points.length) lengthen(cursor);
  draw();
}

function lengthen([x, y]) {
  const [lastX, lastY] = points.at(-1);
  if (Math.hypot(x - lastX, y - lastY) >= near) points.push([x, y]);
  if (points.length === maxPoints) release();
}

function release() {
  if (drag) {
    const [dx, dy] = [drag.to[0] - drag.from[0], drag.to[1] - drag.from[1]];
    drag = null;
    if (Math.round(dx) || Math.round(dy)) send(tool, { dx, dy });
  } else if (tool === "brush" && points.length) {
    send("brush", { points, width: brushWidth(), label: paintClass, extend: extend() });
    points = [];
  }
  draw();
}

function closePolygon() {
  if (tool !== "polygon" || !points.length) return;
  send("polygon", { points, label: paintClass, extend: extend() });
  points = [];
  draw();
}

for (const canvas of canvases) {
  canvas.addEventListener("pointerdown", press);
  canvas.addEventListener("pointermove", follow);
  canvas.addEventListener("pointerup", release);
  canvas.addEventListener("pointercancel", drop); // the browser has taken a touch for a gesture of its own
  canvas.addEventListener("pointerleave", () => { cursor = null; draw(); });
  canvas.addEventListener("dblclick", closePolygon);
}

// Buttons and keys

all("[data-tool]").forEach((button) => (button.onclick = () => setTool(button.dataset.tool)));
all("[data-action]").forEach((button) => (button.onclick = () => send(button.dataset.action)));
find(".width").oninput = () => { setWidth(brushWidth()); draw(); };
find(".lines").onchange = draw;
all(".wide").forEach((button) => {
  button.onclick = () => button.setAttribute("aria-pressed", button.closest("figure").classList.toggle("whole"));
});
find("select.class").onchange = (event) => send("class", { label: Number(event.target.value) });

const clickAction = (name) => find(`[data-action=${name}]`).click();
const keys = {
  v: () => setTool("select"),
  m: () => setTool("move"),
  c: () => setTool("copy"),
  b: () => setTool("brush"),
  p: () => setTool("polygon"),
  e: () => find(".extend").click(),
  h: () => find(".lines").click(),
  r: () => clickAction("random"),
  delete: () => clickAction("remove"),
  backspace: () => clickAction("remove"),
  "[": () => { setWidth(brushWidth() - 2); draw(); },
  "]": () => { setWidth(brushWidth() + 2); draw(); },
  enter: closePolygon,
  escape: () => {
    if (points.length || drag) drop(); else if (view.selected) send("deselect");
  },
  "ctrl+z": () => clickAction("undo"),
  "ctrl+shift+z": () => clickAction("redo"),
  "ctrl+y": () => clickAction("redo"),
  "ctrl+s": () => document.querySelector("#save").click(),
};
for (let digit = 0; digit < 10; digit += 1) keys[digit] = () => choose(digit ? digit - 1 : null);

const repeating = ["[", "]", "ctrl+z", "ctrl+shift+z", "ctrl+y"]; // while held, as fast as they are answered

document.addEventListener("keydown", (event) => {
  const ctrl = event.ctrlKey || event.metaKey;
  const name = `${ctrl ? "ctrl+" : ""}${ctrl && event.shiftKey ? "shift+" : ""}${event.key.toLowerCase()}`;
  const typing = event.target.closest("input:not([type=range], [type=checkbox]), textarea, select");
  const presses = name === "enter" && event.target.closest("button");
  if (!keys[name] || event.altKey || presses || (typing && name !== "ctrl+s")) return;
  event.preventDefault();
  if (event.repeat && !(repeating.includes(name) && answered >= sent)) return;
  keys[name]();
});

// Gradio tells of a choice in one of its boxes (`select`) where the mouse has made it, but not where Enter has.
document.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || !event.target.matches("[role=combobox]")) return;
  event.stopPropagation();
  const choose = () => {
    const option = document.getElementById(event.target.getAttribute("aria-activedescendant"));
    option?.dispatchEvent(new MouseEvent("mousedown", { bubbles: true, cancelable: true }));
  };
  requestAnimationFrame(() => setTimeout(choose)); // a tick later, as Gradio answers the keys before this one
}, true);

// Leaving. A page that is loaded anew in this tab goes on where this one was, by the key.

window.addEventListener("beforeunload", (event) => { if (view.dirty) event.preventDefault(); });
window.addEventListener("pagehide", () => { if (view.key) sessionStorage.setItem("hdgan-tab", view.key); });
window.addEventListener("pageshow", (event) => {
  if (!event.persisted) return; // else the browser shows this page as it was, but a later one may have its document
  view = { key: sessionStorage.getItem("hdgan-tab") };
  location.reload();
});

watch("value", show);
setTool("select");
show();
