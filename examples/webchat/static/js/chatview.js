// The conversation in the middle: its messages, their receipts, files with progress, and the line to write in.
// Messages are drawn anew only when they changed, so that reading, selecting and screen readers are not disturbed.

import { byId, h, paintAvatar, sizeText, timeText } from "./dom.js";
import { guestName } from "./identity.js";

const GROUP_MS = 60_000;
const NEAR_END_PX = 80;

const STATUS = {
  sending: ["…", "being sent"],
  sent: ["✓", "sent"],
  delivered: ["✓✓ delivered", "delivered"],
  offline: ["✓ not online", "sent, but the receiver is not online"],
};

/** What became of these is shown at each message, not only at the last of a group. */
const UNSETTLED = new Set(["sending", "offline", "failed"]);

export class ChatView {
  #store;
  #connection;
  #actions;
  #report;
  #log = byId("log");
  /** What is drawn at each place of the log. @type {{signature: string, element: HTMLElement}[]} */
  #drawn = [];
  #shown = "";

  /**
   * @param {import("./store.js").Store} store
   * @param {import("./connection.js").Connection} connection
   * @param {import("./actions.js").Actions} actions
   * @param {(doing: Promise<unknown>) => void} report shows what went wrong, if it does
   */
  constructor(store, connection, actions, report) {
    this.#store = store;
    this.#connection = connection;
    this.#actions = actions;
    this.#report = report;
    this.#compose();
    byId("leave").addEventListener("click", () => report(actions.leave(this.#conversation?.target ?? "")));
  }

  get #conversation() {
    return this.#store.conversations.get(this.#store.current ?? "");
  }

  /** Shows what the store and the connection say now. */
  draw() {
    const conversation = this.#conversation;
    this.#head(conversation);
    byId("composer").hidden = conversation === undefined;
    byId("attach").hidden = conversation?.kind !== "person";
    byId("leave").hidden = conversation?.kind !== "room";
    const key = conversation?.key ?? "";
    const atEnd = this.#log.scrollHeight - this.#log.scrollTop - this.#log.clientHeight < NEAR_END_PX;
    const switched = key !== this.#shown;
    if (switched) {
      this.#shown = key;
      this.#drawn = [];
      this.#log.replaceChildren();
    }
    this.#messages(conversation);
    if (switched || atEnd) {
      this.#log.scrollTop = this.#log.scrollHeight;
    }
  }

  /** @param {import("./store.js").Conversation | undefined} conversation */
  #head(conversation) {
    const avatar = byId("chat-avatar");
    if (conversation === undefined) {
      avatar.textContent = "";
      byId("chat-title").textContent = "Choose a room or a person";
      byId("chat-subtitle").textContent = "";
      return;
    }
    const { kind, target } = conversation;
    const { rooms, people } = this.#connection.live;
    let title = target;
    let subtitle;
    if (kind === "room") {
      const online = rooms.list.find(({ chan }) => chan === target)?.online ?? 0;
      subtitle = `${online} ${online === 1 ? "person" : "people"} here now`;
    } else {
      const person = people.list.find(({ id }) => id === target);
      title = person?.name || lastName(conversation) || guestName(target);
      subtitle = `${person || people.online > people.list.length ? "online" : "not online"} · ${target}`;
    }
    paintAvatar(avatar, target, title, kind === "room");
    byId("chat-title").textContent = title;
    byId("chat-subtitle").textContent = subtitle;
    byId("text").placeholder = `Message ${title}`;
  }

  /** @param {import("./store.js").Conversation | undefined} conversation */
  #messages(conversation) {
    const messages = conversation?.messages ?? [];
    messages.forEach((message, place) => {
      const first = !together(messages[place - 1], message);
      const last = !together(message, messages[place + 1]);
      const signature = JSON.stringify([message, first, last]);
      const drawn = this.#drawn[place];
      if (drawn?.signature === signature) {
        return;
      }
      const element =
        message.type === "notice" ? h("li", { class: "notice" }, message.text) : this.#bubble(conversation, message, first, last);
      if (drawn === undefined) {
        this.#log.append(element);
      } else {
        drawn.element.replaceWith(element);
      }
      this.#drawn[place] = { signature, element };
    });
    for (const { element } of this.#drawn.splice(messages.length)) {
      element.remove();
    }
  }

  /**
   * @param {any} conversation
   * @param {import("./store.js").Message} message
   * @param {boolean} first whether the sender's name stands above it
   * @param {boolean} last whether the time stands below it
   */
  #bubble(conversation, message, first, last) {
    const { mine, from, name, at, type } = message;
    const body = type === "file" ? fileBody(message) : h("div", { class: "bubble" }, message.text);
    return h(
      "li",
      { class: `msg${mine ? " mine" : ""}${first ? " first" : ""}`, "data-status": message.status },
      first && !mine ? h("span", { class: "msg-from" }, name || guestName(from)) : null,
      body,
      last || UNSETTLED.has(message.status)
        ? h("span", { class: "msg-meta" }, `${timeText(at)} `, this.#status(conversation, message))
        : null,
    );
  }

  /**
   * @param {any} conversation
   * @param {import("./store.js").Message} message
   */
  #status(conversation, message) {
    if (message.status === "failed") {
      const again = () => this.#report(this.#actions.repeat(conversation, message));
      return h(
        "span",
        { class: "bad" },
        message.problem || "not sent",
        message.mine && message.type === "text" ? h("button", { type: "button", onclick: again }, "Try again") : null,
      );
    }
    const status = message.mine ? STATUS[message.status] : undefined;
    if (status === undefined) {
      return null;
    }
    return h("span", { class: message.status === "delivered" ? "done" : "", title: status[1] }, status[0]);
  }

  #compose() {
    const text = byId("text");
    const file = byId("file");
    const grow = () => {
      text.style.height = "auto";
      text.style.height = `${text.scrollHeight + 2}px`;
    };
    text.addEventListener("input", grow);
    text.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
      if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
        event.preventDefault();
        byId("composer").requestSubmit();
      }
    });
    byId("composer").addEventListener("submit", (/** @type {Event} */ event) => {
      event.preventDefault();
      const conversation = this.#conversation;
      if (conversation !== undefined && text.value.trim() !== "") {
        this.#report(this.#actions.say(conversation, text.value));
        text.value = "";
        grow();
        this.#log.scrollTop = this.#log.scrollHeight;
      }
      text.focus();
    });
    byId("attach").addEventListener("click", () => file.click());
    file.addEventListener("change", () => {
      const conversation = this.#conversation;
      if (conversation !== undefined && file.files.length === 1) {
        this.#report(this.#actions.sendFile(conversation, file.files[0]));
      }
      file.value = "";
    });
  }
}

/**
 * @param {import("./store.js").Message | undefined} before
 * @param {import("./store.js").Message | undefined} after
 * @returns {boolean} whether two messages in a row belong to one group, with one name and one time
 */
function together(before, after) {
  return (
    before !== undefined &&
    after !== undefined &&
    before.type !== "notice" &&
    after.type !== "notice" &&
    before.from === after.from &&
    before.status === after.status &&
    after.at - before.at < GROUP_MS
  );
}

/** @param {import("./store.js").Conversation} conversation */
export function lastName(conversation) {
  return conversation.messages.findLast(({ mine, name }) => !mine && name)?.name ?? "";
}

/** @param {import("./store.js").Message} message */
function fileBody({ file, mine }) {
  const { name, size, received, stage, url, until } = file;
  const share = size === 0 ? 100 : Math.floor((received / size) * 100);
  const notes = {
    progress: mine ? `${share} % of ${sizeText(size)} sent` : `${share} % of ${sizeText(size)}`,
    done: `${sizeText(size)}${until ? ` · available until ${timeText(until)}` : ""}`,
    failed: "not transferred",
  };
  // Only a link to this service's own downloads is ever followed, whatever a notice says.
  const link = stage === "done" && typeof url === "string" && url.startsWith("/files/");
  return h(
    "div",
    { class: "bubble file", "data-stage": stage },
    h("span", { class: "file-name" }, name),
    stage === "progress" ? h("progress", { max: 100, value: share, "aria-label": `Progress of ${name}` }) : null,
    h("span", { class: "file-note" }, notes[stage]),
    link ? h("a", { href: url, download: name }, "Download") : null,
  );
}
