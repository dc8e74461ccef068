// Runs once, when the page is loaded. Gradio provides `element`, `props`, `trigger` and `watch`.
// The server holds the document; this file draws what it sends and requests actions.
const find = (selector) => element.querySelector(selector);
const all = (selector) => [...element.querySelectorAll(selector)];
const canvases = all("canvas");

let view = {};
let tool = "select";
let paintClass = 0;
let points = []; // of the unfinished stroke or polygon, in pixels of the image
const minDistance = 0.25; // pixels between two points of a stroke
const maxPoints = 200_000; // of a stroke; the server accepts no more
let drag = null; // {from, to} while an object is dragged
let cursor = null;
const outline = new Image();
let outlinePixels = null; // their alpha tells which pixels belong to the selected object
let sent = 0;
let answered = 0;

function send(action, args = {}) {
  if (!view.size) return;
  sent += 1;
  find(".busy").classList.add("on");
  find(".busy").style.setProperty("--seconds", `${Math.max(view.seconds, 0.2)}s`);
  trigger("edit", { action, serial: sent, ...args });
}

// Gradio shows why a request was refused, and there is no answer.
document.addEventListener("hdgan-refused", () => {
  answered = sent;
  find(".busy").classList.remove("on");
});

function setTool(name) {
  tool = name;
  all("[data-tool]").forEach((button) => button.setAttribute("aria-pressed", button.dataset.tool === name));
  find(".panes").dataset.tool = name;
  cancel();
}

function cancel() {
  points = [];
  drag = null;
  draw();
}

function setPaintClass(label) {
  paintClass = label;
  all(".classes button").forEach((b) => b.setAttribute("aria-checked", Number(b.dataset.label) === label));
}

function setWidth(width) {
  find(".width").value = width;
  find(".tools output").textContent = find(".width").value;
  draw();
}

const brushWidth = () => Number(find(".width").value);

// Content from the server

function show() {
  if (props.value?.turn < view.turn) return; // a picture that was overtaken
  const previous = view.document;
  view = { ...view, ...props.value }; // an answer can consist of a message alone
  answered = props.value?.serial ?? answered;
  if (answered >= sent) find(".busy").classList.remove("on");
  for (const [selector, text] of [[".alert", view.message], [".confirmation", view.confirmation]]) {
    find(selector).textContent = text || "";
    find(selector).hidden = !text;
    if (text) find(selector).scrollIntoView({ block: "nearest" });
  }
  find(".notes").replaceChildren(...(view.notes || []).map((note) => make("li", { textContent: note })));
  if (view.classes && !find(".classes").childElementCount) showClasses();
  if (!view.size) return;
  if (view.document !== previous) cancel(); // what was begun on another document
  const [width, height] = view.size;
  if (canvases[0].width !== width || canvases[0].height !== height) {
    canvases.forEach((canvas) => Object.assign(canvas, { width, height }));
    find(".width").max = Math.ceil(width / 4);
    setWidth(Math.ceil(width / 32));
  }
  for (const part of ["label", "ids", "image"]) {
    const pane = find(`[data-part=${part}]`);
    if (pane.src !== view[part]) pane.src = view[part];
  }
  find(".preview").hidden = !view.preview;
  find("[data-action=undo]").disabled = !view.canUndo;
  find("[data-action=redo]").disabled = !view.canRedo;
  find("[data-action=remove]").disabled = !view.selected;
  showSelected();
  element.dataset.serial = view.serial;
  if (view.preview && answered >= sent) trigger("tick"); // the picture itself, unless an edit is under way
}

function make(tag, properties) {
  return Object.assign(document.createElement(tag), properties);
}

function showClasses() {
  for (const { label, name, color } of view.classes) {
    const button = make("button", { title: `Paint ${name}`, textContent: name, onclick: () => setPaintClass(label) });
    button.dataset.label = label;
    button.setAttribute("role", "radio");
    button.prepend(make("i", { style: `background: ${color}` }));
    find(".classes").append(button);
    find("select.class").append(make("option", { value: label, textContent: name }));
  }
  setPaintClass(view.classes[0].label);
}

function showSelected() {
  const { selected } = view;
  find(".object .none").hidden = Boolean(selected);
  find(".object .some").hidden = !selected;
  find(".styles").replaceChildren(); // or keys would find the styles of the last object
  outlinePixels = null;
  if (!selected) return draw();
  find(".name").textContent = selected.name;
  find(".id").textContent = selected.id;
  find(".style").textContent = selected.style;
  find("select.class").value = selected.label;
  const buttons = selected.choices.map((source, cluster) => {
    const button = makeStyleButton(cluster, `Cluster ${cluster}`, cluster + 1, selected.cluster === cluster);
    button.append(make("img", { src: source, alt: `style ${cluster}` }));
    return button;
  });
  if (buttons.length) {
    buttons.unshift(makeStyleButton(null, "Mean of the class", 0, selected.mean));
    buttons[0].textContent = "mean";
  }
  find(".styles").replaceChildren(...buttons);
  outline.src = selected.outline;
}

function makeStyleButton(cluster, name, key, pressed) {
  const title = key < 10 ? `${name} (${key})` : name;
  const button = make("button", { title, onclick: () => send("set_style", { cluster }) });
  button.dataset.key = key;
  button.setAttribute("aria-pressed", pressed);
  return button;
}

outline.onload = () => {
  const scratch = new OffscreenCanvas(outline.width, outline.height).getContext("2d");
  scratch.drawImage(outline, 0, 0);
  outlinePixels = scratch.getImageData(0, 0, outline.width, outline.height);
  if (view.selected) element.dataset.outlined = view.selected.id;
  draw();
};

// Overlay of each image: outline, dragged object, unfinished stroke or polygon, brush

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
    const path = tool === "polygon" && points.length && cursor ? [...points, cursor] : points;
    if (path.length) {
      context.beginPath();
      context.moveTo(...path[0]);
      path.forEach(([x, y]) => context.lineTo(x + 0.01, y)); // a line of length 0 would not be drawn
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

const round = (value) => Math.round(value * 100) / 100;

function pixelOf(event) {
  const box = event.currentTarget.getBoundingClientRect();
  const [width, height] = view.size;
  return [
    round(((event.clientX - box.left) / box.width) * width),
    round(((event.clientY - box.top) / box.height) * height),
  ];
}

function isSelected([x, y]) {
  const inside = outlinePixels && x >= 0 && y >= 0 && x < outlinePixels.width && y < outlinePixels.height;
  return inside && outlinePixels.data[(Math.floor(y) * outlinePixels.width + Math.floor(x)) * 4 + 3] > 0;
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
  if (tool === "brush" && event.buttons && points.length) extendStroke(cursor);
  draw();
}

function extendStroke([x, y]) {
  const [lastX, lastY] = points.at(-1);
  if (Math.hypot(x - lastX, y - lastY) >= minDistance) points.push([x, y]);
  if (points.length === maxPoints) release();
}

function release() {
  if (drag) {
    const [dx, dy] = [drag.to[0] - drag.from[0], drag.to[1] - drag.from[1]];
    if (Math.round(dx) || Math.round(dy)) send(tool, { dx, dy });
    cancel();
  } else if (tool === "brush" && points.length) {
    paint({ width: brushWidth() });
  }
}

function closePolygon() {
  if (tool === "polygon" && points.length) paint();
}

function paint(args = {}) {
  send(tool, { points, label: paintClass, extend: find(".extend").checked, ...args });
  cancel();
}

for (const canvas of canvases) {
  canvas.addEventListener("pointerdown", press);
  canvas.addEventListener("pointermove", follow);
  canvas.addEventListener("pointerup", release);
  canvas.addEventListener("pointercancel", cancel); // the browser uses the touch for a gesture of its own
  canvas.addEventListener("pointerleave", () => { cursor = null; draw(); });
  canvas.addEventListener("dblclick", closePolygon);
}

// Buttons and keys

all("[data-tool]").forEach((button) => (button.onclick = () => setTool(button.dataset.tool)));
all("[data-action]").forEach((button) => (button.onclick = () => send(button.dataset.action)));
find(".width").oninput = () => setWidth(brushWidth());
find(".lines").onchange = draw;
all(".wide").forEach((button) => {
  button.onclick = () => button.setAttribute("aria-pressed", button.closest("figure").classList.toggle("full-width"));
});
find("select.class").onchange = (event) => send("set_class", { label: Number(event.target.value) });

// Other keys click the element that names them in `data-key`.
const keys = {
  "[": () => setWidth(brushWidth() - 2),
  "]": () => setWidth(brushWidth() + 2),
  enter: closePolygon,
  escape: () => {
    if (points.length || drag) cancel(); else if (view.selected) send("deselect");
  },
  "ctrl+s": () => document.querySelector("#save").click(),
};

const repeating = ["[", "]", "ctrl+z", "ctrl+shift+z", "ctrl+y"]; // while held, as soon as each one is answered

document.addEventListener("keydown", (event) => {
  const ctrl = event.ctrlKey || event.metaKey;
  const name = `${ctrl ? "ctrl+" : ""}${ctrl && event.shiftKey ? "shift+" : ""}${event.key.toLowerCase()}`;
  const typing = event.target.closest("input:not([type=range], [type=checkbox]), textarea, select");
  const pressesButton = name === "enter" && event.target.closest("button");
  const button = find(`[data-key~="${CSS.escape(name)}"]`);
  if (!(keys[name] || button) || event.altKey || pressesButton || (typing && name !== "ctrl+s")) return;
  event.preventDefault();
  if (event.repeat && !(repeating.includes(name) && answered >= sent)) return;
  keys[name] ? keys[name]() : button.click();
});

// Gradio's dropdown sends `select` for a choice by mouse, but not by Enter. So Enter becomes a click.
document.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || !event.target.matches("[role=combobox]")) return;
  event.stopPropagation();
  const clickOption = () => {
    const option = document.getElementById(event.target.getAttribute("aria-activedescendant"));
    option?.dispatchEvent(new MouseEvent("mousedown", { bubbles: true, cancelable: true }));
  };
  requestAnimationFrame(() => setTimeout(clickOption)); // after Gradio has handled the keys before this one
}, true);

// Leaving the page. The page that is loaded next in this tab continues with the session of this key.

window.addEventListener("beforeunload", (event) => { if (view.unsaved) event.preventDefault(); });
window.addEventListener("pagehide", () => { if (view.key) sessionStorage.setItem("hdgan-tab", view.key); });
window.addEventListener("pageshow", (event) => {
  if (!event.persisted) return; // a page from the browser's cache shows an old state, and its session may be taken
  view = { key: sessionStorage.getItem("hdgan-tab") };
  location.reload();
});

watch("value", show);
setTool("select");
show();
