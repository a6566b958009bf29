// What this tab knows: conversations with their messages, what is unread, what became of each message sent.
// It keeps them over a reload; nothing in here touches the page.

const HISTORY = "webchat.history";
const ROOMS = "webchat.rooms";
const SAVE_MS = 100;
const KEPT_MESSAGES = 200;
const KEPT_CONVERSATIONS = 40;
const KEPT_RECEIPTS = 500;

/**
 * @typedef {object} Message
 * @property {string} key names it on this tab: the sender's key, or the message's id
 * @property {"text" | "notice" | "file"} type
 * @property {string | null} id the cluster's id, once known
 * @property {string} from
 * @property {string} name
 * @property {string} text
 * @property {number} at
 * @property {boolean} mine
 * @property {"sending" | "sent" | "delivered" | "offline" | "failed" | ""} status
 * @property {string} [problem] why it failed
 * @property {any} [file] name, size, received, stage, url, until
 */

/**
 * @typedef {object} Conversation
 * @property {string} key
 * @property {"room" | "person"} kind
 * @property {string} target the room's name or the person's id
 * @property {number} unread
 * @property {Message[]} messages
 */

/** @param {string} chan */
export const roomKey = (chan) => `room:${chan}`;
/** @param {string} id */
export const personKey = (id) => `person:${id}`;

export class Store extends EventTarget {
  /** @type {Map<string, Conversation>} */
  conversations = new Map();
  /** The conversation that is shown. @type {string | null} */
  current = null;
  /** Rooms this tab wants to be in. @type {Set<string>} */
  rooms = new Set();
  /** Nothing was kept: the tab's first page. */
  fresh = true;

  /** Receipts that came before the answer that names their message's id. @type {Map<string, string>} */
  #early = new Map();
  /** @type {Promise<void> | null} */
  #saving = null;

  constructor() {
    super();
    const rooms = sessionStorage.getItem(ROOMS);
    if (rooms !== null) {
      this.fresh = false;
      this.rooms = new Set(JSON.parse(rooms));
      const { conversations, current } = JSON.parse(sessionStorage.getItem(HISTORY) ?? '{"conversations":[]}');
      this.conversations = new Map(conversations.map((/** @type {Conversation} */ item) => [item.key, item]));
      this.current = current ?? null;
    }
    addEventListener("pagehide", () => this.#save());
  }

  /**
   * @param {"room" | "person"} kind
   * @param {string} target
   * @returns {Conversation} made if there is none yet; the one unused for longest makes room
   */
  conversation(kind, target) {
    const key = kind === "room" ? roomKey(target) : personKey(target);
    let found = this.conversations.get(key);
    if (found === undefined) {
      found = { key, kind, target, unread: 0, messages: [] };
    }
    this.conversations.delete(key);
    this.conversations.set(key, found);
    if (this.conversations.size > KEPT_CONVERSATIONS) {
      for (const old of this.conversations.keys()) {
        if (old !== this.current && old !== key) {
          this.conversations.delete(old);
          break;
        }
      }
    }
    return found;
  }

  /** @param {string | null} key the conversation to show; its unread messages count as read */
  show(key) {
    this.current = key;
    const shown = key === null ? undefined : this.conversations.get(key);
    if (shown !== undefined) {
      shown.unread = 0;
    }
    this.changed();
  }

  /**
   * Adds a message, or replaces the one with the same key or id (an echo takes the place of what was pending).
   *
   * @param {Conversation} conversation
   * @param {Message} message
   */
  add(conversation, message) {
    const { messages } = conversation;
    const at = messages.findIndex((item) => item.key === message.key || (item.id !== null && item.id === message.id));
    if (at >= 0) {
      const before = messages[at];
      messages[at] = { ...before, ...message, status: this.#settled(message, before.status) };
    } else {
      messages.push({ ...message, status: this.#settled(message, message.status) });
      messages.splice(0, messages.length - KEPT_MESSAGES);
      if (!message.mine && message.type !== "notice" && (conversation.key !== this.current || document.hidden)) {
        conversation.unread += 1;
      }
    }
    this.changed();
  }

  /**
   * Notes a receipt, whether its message is known yet or not.
   *
   * @param {string} id
   * @param {"delivered" | "offline"} status
   */
  receipt(id, status) {
    for (const { messages } of this.conversations.values()) {
      const message = messages.find((item) => item.id === id);
      if (message !== undefined) {
        message.status = status;
        this.changed();
        return;
      }
    }
    this.#early.set(id, status);
    if (this.#early.size > KEPT_RECEIPTS) {
      this.#early.delete(this.#early.keys().next().value);
    }
  }

  /** Something changed: tells the views, and saves soon. */
  changed() {
    this.dispatchEvent(new Event("change"));
    void this.saved();
  }

  /** @returns {Promise<void>} fulfilled once all that is known now would survive a reload */
  saved() {
    this.#saving ??= new Promise((resolve) => {
      setTimeout(() => {
        this.#saving = null;
        this.#save();
        resolve();
      }, SAVE_MS);
    });
    return this.#saving;
  }

  /** Everything unread, over all conversations. */
  get unread() {
    return [...this.conversations.values()].reduce((sum, { unread }) => sum + unread, 0);
  }

  /**
   * @param {Message} message
   * @param {Message["status"]} before
   * @returns {Message["status"]}
   */
  #settled(message, before) {
    const early = message.id === null ? undefined : this.#early.get(message.id);
    if (early !== undefined) {
      this.#early.delete(/** @type {string} */ (message.id));
      return /** @type {Message["status"]} */ (early);
    }
    return before === "delivered" || before === "offline" ? before : message.status;
  }

  #save() {
    const conversations = [...this.conversations.values()];
    sessionStorage.setItem(ROOMS, JSON.stringify([...this.rooms]));
    sessionStorage.setItem(HISTORY, JSON.stringify({ conversations, current: this.current }));
  }
}
