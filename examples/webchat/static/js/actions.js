// What a user does: join and leave rooms, send texts and files, choose a name. Each ends in the store, well or not.
// A text is sent again with the same key while the service asks for patience, so it never arrives twice.

import { ApiError, post, upload } from "./api.js";
import { newKey } from "./identity.js";
import { encode } from "./payload.js";

const SEND_TRIES = 6;
const SEND_PAUSE_MS = 700;

/** @typedef {import("./store.js").Conversation} Conversation */
/** @typedef {import("./store.js").Message} Message */

export class Actions {
  #id;
  #name;
  #store;
  #connection;

  /**
   * @param {string} id
   * @param {() => string} name
   * @param {import("./store.js").Store} store
   * @param {import("./connection.js").Connection} connection
   */
  constructor(id, name, store, connection) {
    this.#id = id;
    this.#name = name;
    this.#store = store;
    this.#connection = connection;
  }

  /**
   * Joins a room, greets it as ImCore's page does, and shows it.
   *
   * @param {string} chan
   * @throws {ApiError}
   */
  async join(chan) {
    if (!this.#store.rooms.has(chan)) {
      await post("/ws/subscr-channel", { websocketId: this.#id, channel: chan });
      this.#store.rooms.add(chan);
      await this.#post(chan, null, { type: "welcome" }, newKey());
    }
    this.#store.show(this.#store.conversation("room", chan).key);
  }

  /**
   * @param {string} chan
   * @throws {ApiError}
   */
  async leave(chan) {
    await post("/api/leave-channel", { websocketId: this.#id, channel: chan });
    this.#store.rooms.delete(chan);
    this.#store.conversations.delete(this.#store.conversation("room", chan).key);
    this.#store.show(null);
  }

  /** @param {string} person */
  talkTo(person) {
    this.#store.show(this.#store.conversation("person", person).key);
  }

  /**
   * Sends a text; how it went stands at the message.
   *
   * @param {Conversation} conversation
   * @param {string} text
   */
  async say(conversation, text) {
    const message = this.#mine("text", { text, status: "sending" });
    this.#store.add(conversation, message);
    await this.repeat(conversation, message);
  }

  /**
   * Sends a text (again), under the key that it has.
   *
   * @param {Conversation} conversation
   * @param {Message} message
   */
  async repeat(conversation, message) {
    const { kind, target } = conversation;
    this.#store.add(conversation, { ...message, status: "sending" });
    const content = { type: "text", content: message.text };
    try {
      const [chan, person] = kind === "room" ? [target, null] : [null, target];
      const id = await this.#patiently(() => this.#post(chan, person, content, message.key, message.at));
      this.#store.add(conversation, { ...message, id, status: "sent" });
    } catch (error) {
      this.#store.add(conversation, { ...message, status: "failed", problem: readable(error) });
    }
  }

  /**
   * Sends a file; its progress comes back as pushes (see `fileNotice`).
   *
   * @param {Conversation} conversation with a person
   * @param {File} file
   */
  async sendFile(conversation, file) {
    const about = { name: file.name, size: file.size, received: 0, stage: "progress" };
    const message = this.#mine("file", { file: about, status: "sending" });
    this.#store.add(conversation, message);
    try {
      if (file.size > this.#connection.limits.fileBytes) {
        throw new ApiError("The file is too large for this demo.", false);
      }
      await upload(
        {
          sender: this.#id,
          receiver: conversation.target,
          name: file.name,
          senderName: this.#name(),
          key: message.key,
        },
        file,
      );
    } catch (error) {
      const failed = { ...about, stage: "failed" };
      this.#store.add(conversation, { ...message, file: failed, status: "failed", problem: readable(error) });
    }
  }

  /**
   * A step of a file transfer, pushed by the service to both ends.
   *
   * @param {any} notice
   */
  fileNotice(notice) {
    const mine = notice.from === this.#id;
    const conversation = this.#store.conversation("person", mine ? notice.to : notice.from);
    const until = notice.seconds ? Date.now() + notice.seconds * 1000 : null;
    const { name, size, received, stage } = notice;
    this.#store.add(conversation, {
      key: mine && notice.key ? notice.key : notice.file,
      type: "file",
      id: mine && stage === "done" ? notice.id : null,
      from: notice.from,
      name: notice.fromName,
      text: "",
      at: Date.now(),
      mine,
      status: stage === "failed" ? "failed" : mine ? (stage === "done" ? "sent" : "sending") : "",
      problem: notice.reason,
      file: { name, size, received, stage, url: notice.url ?? null, until },
    });
  }

  /**
   * @param {Message["type"]} type
   * @param {Partial<Message>} rest
   * @returns {Message}
   */
  #mine(type, rest) {
    const own = { id: null, from: this.#id, name: this.#name(), text: "", at: Date.now(), mine: true, status: "" };
    return { key: newKey(), type, ...own, ...rest };
  }

  /**
   * @param {string | null} chan
   * @param {string | null} person
   * @param {object} content
   * @param {string} key
   * @param {number} [at]
   * @returns {Promise<string>} the message's id
   */
  async #post(chan, person, content, key, at = Date.now()) {
    const message = encode({ id: this.#id, name: this.#name(), chan, content, key, at });
    const { id } =
      chan !== null
        ? await post("/ws/send-channelmsg", { websocketId: this.#id, channel: chan, message, key })
        : await post("/ws/send-msg", {
            senderWebsocketId: this.#id,
            receiveWebsocketId: person,
            message,
            isReceipt: "true",
            key,
          });
    return id;
  }

  /**
   * @template T
   * @param {() => Promise<T>} send
   * @returns {Promise<T>}
   */
  async #patiently(send) {
    for (let tries = 1; ; tries += 1) {
      try {
        return await send();
      } catch (error) {
        if (!(error instanceof ApiError && error.retry) || tries === SEND_TRIES) {
          throw error;
        }
        await new Promise((resolve) => setTimeout(resolve, SEND_PAUSE_MS * tries));
      }
    }
  }
}

/** @param {unknown} error */
function readable(error) {
  if (error instanceof ApiError) {
    return error.message;
  }
  throw error;
}
