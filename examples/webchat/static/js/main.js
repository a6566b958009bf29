// The page's start: settles who this tab is, connects, and draws again whenever something changed.
// Drawing is gathered per animation frame, so that a burst of messages costs one redraw.

import { Actions } from "./actions.js";
import { ApiError } from "./api.js";
import { ChatView } from "./chatview.js";
import { Connection } from "./connection.js";
import { byId } from "./dom.js";
import { loadName, saveName, settleId } from "./identity.js";
import { drawCluster, drawLists } from "./sideview.js";
import { Store } from "./store.js";

const FIRST_ROOM = "General";
const PROBLEM_MS = 6_000;
const DRAW_MS = 250;

const id = await settleId();
let name = loadName();
const store = new Store();
if (store.fresh) {
  store.rooms.add(FIRST_ROOM);
  store.show(store.conversation("room", FIRST_ROOM).key);
}
const connection = new Connection(
  id,
  () => name,
  store,
  (notice) => actions.fileNotice(notice),
);
const actions = new Actions(id, () => name, store, connection);
const chat = new ChatView(store, connection, actions, report);

/**
 * Shows what went wrong in one sentence, for a while.
 *
 * @param {Promise<unknown>} doing
 */
async function report(doing) {
  const problem = byId("problem");
  try {
    await doing;
  } catch (error) {
    problem.textContent = error instanceof ApiError ? error.message : "Something in this page went wrong.";
    problem.hidden = false;
    setTimeout(() => {
      problem.hidden = true;
    }, PROBLEM_MS);
    if (!(error instanceof ApiError)) {
      throw error;
    }
  }
}

/** @param {string} view */
function go(view) {
  document.body.dataset.view = view;
  for (const button of document.querySelectorAll(".tabs button")) {
    button.toggleAttribute("aria-current", false);
    if (/** @type {HTMLElement} */ (button).dataset.to === view) {
      button.setAttribute("aria-current", "true");
    }
  }
}

/** After choosing a conversation writing comes next; not on a touch screen, where the keyboard would cover it. */
function focusComposer() {
  if (matchMedia("(hover: hover)").matches) {
    drawAll();
    byId("text").focus();
  }
}

let drawing = false;
/** Draws soon. Not with animation frames alone: a covered or hidden tab gets none, and its title counts all the same. */
function draw() {
  if (drawing) {
    return;
  }
  drawing = true;
  const frame = requestAnimationFrame(drawNow);
  const timer = setTimeout(drawNow, DRAW_MS);
  function drawNow() {
    cancelAnimationFrame(frame);
    clearTimeout(timer);
    drawing = false;
    drawAll();
  }
}

function drawAll() {
  chat.draw();
  drawLists(id, store, connection, (kind, target) => {
    go("chat");
    if (kind === "room") {
      void report(actions.join(target).then(focusComposer));
    } else {
      actions.talkTo(target);
      focusComposer();
    }
  });
  drawCluster(id, connection);
  const { unread } = store;
  document.title = `${unread ? `(${unread}) ` : ""}ImCluster chat`;
  byId("badge-side").hidden = unread === 0;
  byId("badge-side").textContent = String(unread);
}

store.addEventListener("change", draw);
connection.addEventListener("change", draw);
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) {
    store.show(store.current);
  }
});

for (const button of document.querySelectorAll(".tabs button")) {
  button.addEventListener("click", () => go(/** @type {HTMLElement} */ (button).dataset.to ?? "chat"));
}
byId("room-form").addEventListener("submit", (/** @type {Event} */ event) => {
  event.preventDefault();
  const room = byId("room").value.trim();
  if (room !== "") {
    byId("room").value = "";
    go("chat");
    void report(actions.join(room).then(focusComposer));
  }
});
byId("name").value = name;
const rename = () => {
  const chosen = byId("name").value.trim();
  if (chosen !== name) {
    name = chosen;
    saveName(name);
    void report(connection.enter());
  }
};
byId("name").addEventListener("change", rename);
byId("name-form").addEventListener("submit", (/** @type {Event} */ event) => {
  event.preventDefault();
  byId("name").blur();
});

connection.connect();
draw();
