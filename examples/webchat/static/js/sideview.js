// The columns at the sides: rooms and people on the left, this tab and the servers on the right.
// Lists are redrawn as a whole when what they show has changed, with the focus kept on the same entry.

import { byId, h, paintAvatar, timeText } from "./dom.js";
import { guestName } from "./identity.js";
import { lastName } from "./chatview.js";
import { personKey, roomKey } from "./store.js";

/**
 * Replaces a list's entries if they changed, and leaves the keyboard's focus where it was.
 *
 * @param {HTMLElement} list
 * @param {unknown} shown what the entries show
 * @param {() => HTMLElement[]} make
 */
function redraw(list, shown, make) {
  const signature = JSON.stringify(shown);
  if (list.dataset.shown === signature) {
    return;
  }
  list.dataset.shown = signature;
  const focused = list.contains(document.activeElement) ? document.activeElement?.getAttribute("data-key") : null;
  list.replaceChildren(...make());
  if (focused) {
    for (const button of list.querySelectorAll("button")) {
      if (button.dataset.key === focused) {
        button.focus();
      }
    }
  }
}

/**
 * @param {{key: string, target: string, title: string, note: string, room: boolean, gone: boolean, unread: number,
 *   current: boolean}} entry
 * @param {() => void} choose
 */
function entry({ key, target, title, note, room, gone, unread, current }, choose) {
  const avatar = h("span", { class: "avatar", "aria-hidden": "true" });
  paintAvatar(avatar, target, title, room);
  return h(
    "li",
    {},
    h(
      "button",
      {
        type: "button",
        class: `entry${gone ? " gone" : ""}`,
        "data-key": key,
        "aria-current": current ? "true" : null,
        onclick: choose,
      },
      avatar,
      h("span", { class: "entry-text" }, h("span", { class: "entry-title" }, title), h("span", { class: "entry-note" }, note)),
      unread ? h("span", { class: "badge", "aria-label": `${unread} unread` }, String(unread)) : null,
    ),
  );
}

/**
 * @param {string} self this tab's id
 * @param {import("./store.js").Store} store
 * @param {import("./connection.js").Connection} connection
 * @param {(kind: "room" | "person", target: string) => void} choose
 */
export function drawLists(self, store, connection, choose) {
  const { rooms, people } = connection.live;
  const online = new Map(rooms.list.map(({ chan, online: count }) => [chan, count]));
  const chans = [...new Set([...store.rooms, ...online.keys()])];
  const roomEntries = chans.map((chan) => {
    const conversation = store.conversations.get(roomKey(chan));
    const joined = store.rooms.has(chan);
    const count = online.get(chan) ?? 0;
    return {
      key: roomKey(chan),
      target: chan,
      title: chan,
      note: `${count} online${joined ? "" : " · join"}`,
      room: true,
      gone: false,
      unread: conversation?.unread ?? 0,
      current: store.current === roomKey(chan),
    };
  });
  byId("rooms-count").textContent = String(Math.max(rooms.count, chans.length));
  redraw(byId("rooms"), roomEntries, () => roomEntries.map((item) => entry(item, () => choose("room", item.target))));

  const names = new Map(people.list.map(({ id, name }) => [id, name]));
  const known = [...store.conversations.values()].filter(({ kind }) => kind === "person");
  const ids = [...new Set([...names.keys(), ...known.map(({ target }) => target)])].filter((id) => id !== self);
  const peopleEntries = ids.map((id) => {
    const conversation = store.conversations.get(personKey(id));
    const here = names.has(id);
    const name = names.get(id) || (conversation ? lastName(conversation) : "");
    return {
      key: personKey(id),
      target: id,
      title: name || guestName(id),
      note: here ? (name ? `online · ${id.slice(0, 8)}` : "online") : "not online",
      room: false,
      gone: !here,
      unread: conversation?.unread ?? 0,
      current: store.current === personKey(id),
    };
  });
  byId("people-count").textContent = `${people.online} online`;
  byId("people-alone").hidden = ids.length > 0;
  const more = people.online - people.list.length;
  byId("people-more").hidden = more <= 0;
  byId("people-more").textContent = `and ${more} more`;
  redraw(byId("people"), peopleEntries, () =>
    peopleEntries.map((item) => entry(item, () => choose("person", item.target))),
  );
}

const STATES = {
  connecting: "connecting",
  open: "connected",
  moving: "connected, moving to another server",
  waiting: "reconnecting",
  closed: "closed",
};

/**
 * @param {string} self
 * @param {import("./connection.js").Connection} connection
 */
export function drawCluster(self, connection) {
  const { state, server, lag, received, reconnects, happenings, live } = connection;
  const connected = state === "open" || state === "moving";
  const lagText = lag === null || !connected ? "–" : `${lag < 10 ? lag.toFixed(1) : Math.round(lag)} ms`;
  const where = connected && server ? server : "–";
  byId("fact-id").textContent = self;
  byId("fact-server").textContent = where;
  byId("fact-state").textContent = STATES[state];
  byId("fact-lag").textContent = lagText;
  byId("fact-received").textContent = `${received} ${received === 1 ? "message" : "messages"}`;
  byId("fact-reconnects").textContent = String(reconnects);
  const status = byId("status");
  status.dataset.state = connected ? "open" : state === "closed" ? "closed" : "connecting";
  const text = connected ? where : state === "closed" ? "Disconnected" : server === null ? "Connecting …" : "Reconnecting …";
  if (byId("status-text").textContent !== text) {
    byId("status-text").textContent = text;
  }
  byId("status-lag").textContent = lagText === "–" ? "" : lagText;
  status.title = connected ? `Connected to ${where}, lag ${lagText}` : STATES[state];

  byId("servers-count").textContent = String(live.servers.length);
  const most = Math.max(1, ...live.servers.map(({ connections }) => connections));
  redraw(byId("servers"), [live.servers, where], () =>
    live.servers.map(({ name, url, state: serverState, connections }) =>
      h(
        "li",
        { class: `server${name === where ? " here" : ""}`, "data-state": serverState, "data-name": name },
        h(
          "span",
          { class: "server-head" },
          name,
          name === where ? h("span", { class: "chip" }, "this tab") : null,
          h("span", { class: "server-state" }, serverState === "silent" ? "not answering" : serverState),
        ),
        h("progress", { max: most, value: connections, "aria-hidden": "true" }),
        h(
          "span",
          { class: "server-note" },
          h("span", {}, `${connections} ${connections === 1 ? "connection" : "connections"}`),
          h("span", {}, url.replace(/^wss?:\/\//, "").replace(/\/ws$/, "")),
        ),
      ),
    ),
  );
  redraw(byId("events"), happenings, () =>
    happenings.map(({ at, text: what, tone }) =>
      h("li", {}, h("time", {}, timeText(at)), h("span", { class: tone }, what)),
    ),
  );
}
