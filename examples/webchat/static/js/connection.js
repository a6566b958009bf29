// This tab's connection: asks the web chat's service for a server, listens, and keeps score of what happened.
// It turns the client's events into changes of the store and of the facts that the cluster panel shows.

import { ImClient, sessionPosition } from "/client/index.js";
import { ApiError, post } from "./api.js";
import { decode } from "./payload.js";

const KEPT_EVENTS = 12;
const ENTER_RETRY_MS = 1_500;
const HEAL_MS = 10_000;

/** @typedef {{at: number, text: string, tone: "" | "good" | "warn"}} Happening */

export class Connection extends EventTarget {
  /** @type {Happening[]} newest first */
  happenings = [];
  /** What all pages show: people, rooms, servers, as the service pushed it last. */
  live = { people: { online: 0, list: [] }, rooms: { count: 0, list: [] }, servers: [] };
  limits = { fileBytes: 0, fileSeconds: 0 };
  received = 0;
  reconnects = 0;

  #id;
  #name;
  #store;
  #client;
  #revisions = {};
  #opened = 0;
  #lastServer = "";
  #healed = -Infinity;

  /**
   * @param {string} id
   * @param {() => string} name the display name at this moment
   * @param {import("./store.js").Store} store
   * @param {(notice: any) => void} fileNotice told of each step of a file transfer
   */
  constructor(id, name, store, fileNotice) {
    super();
    this.#id = id;
    this.#name = name;
    this.#store = store;
    this.#client = new ImClient({
      getUrl: async ({ avoid, signal }) => {
        const answer = await post("/ws/pre-connect", { websocketId: id, name: name(), avoid }, signal);
        return answer.server;
      },
      storage: sessionPosition("webchat.position"),
      backoff: { baseMs: 300, maxMs: 5_000 },
    });
    this.#client.on("open", (event) => this.#open(event));
    this.#client.on("gap", () => {
      this.#note("Some messages may be missing: this tab was away for too long", "warn");
    });
    this.#client.on("state", (event) => this.#state(event));
    this.#client.on("lag", () => this.#changed());
    this.#client.on("error", (error) => console.warn(error.message, error.cause ?? ""));
    this.#client.on("receipt", ({ id: message, status }) => {
      store.receipt(message, status);
      return store.saved();
    });
    this.#client.on("message", (message) => this.#message(message, fileNotice));
  }

  get state() {
    return this.#client.state;
  }

  get server() {
    return this.#client.server;
  }

  get lag() {
    return this.#client.lag;
  }

  connect() {
    this.#client.connect();
  }

  /** Tells the service this tab's name and rooms again, and reads what all pages show. */
  async enter() {
    const answer = await post("/api/enter", {
      websocketId: this.#id,
      name: this.#name(),
      channel: [...this.#store.rooms],
    });
    this.limits = answer.limits;
    this.#show(answer.live);
  }

  /** @param {{server: string, recovered: boolean, moved: boolean}} event */
  #open({ server, recovered, moved }) {
    this.#opened += 1;
    if (this.#opened > 1 || recovered) {
      const how = moved ? `Moved to ${server}` : `Back on ${server}`;
      this.#note(recovered ? `${how}: nothing is missing` : how, recovered ? "good" : "");
    } else {
      this.#note(`Connected to ${server}`, "good");
    }
    if (this.#opened > 1) {
      this.reconnects += 1;
    }
    this.#lastServer = server;
    void this.#enterUntilDone(this.#opened);
  }

  /** @param {number} opened the socket for which to enter; a later one enters for itself */
  async #enterUntilDone(opened) {
    while (opened === this.#opened && this.state !== "closed") {
      try {
        await this.enter();
        return;
      } catch (error) {
        if (!(error instanceof ApiError)) {
          throw error;
        }
        console.warn(error.message);
        await new Promise((resolve) => setTimeout(resolve, ENTER_RETRY_MS));
      }
    }
  }

  /** @param {{state: string, code: number | null, reason: string, attempt: number}} event */
  #state({ state, code, reason, attempt }) {
    if (state === "waiting" && attempt <= 1 && this.#lastServer) {
      this.#note(`Lost ${this.#lastServer} (${code ?? "no answer"}): looking for another server`, "warn");
    } else if (state === "closed") {
      this.#note(`Closed by the service (${code}${reason ? `: ${reason}` : ""})`, "warn");
    }
    this.#changed();
  }

  /**
   * @param {{id: string, from: string, chan: string | null, data: unknown}} message
   * @param {(notice: any) => void} fileNotice
   */
  #message(message, fileNotice) {
    const payload = decode(message.data);
    if (payload.type === "service") {
      if (payload.data?.type === "live") {
        this.#show(payload.data);
        return undefined;
      }
      if (payload.data?.type === "file") {
        fileNotice(payload.data);
      }
      return this.#store.saved();
    }
    this.received += 1;
    this.#changed();
    const mine = message.from === this.#id;
    if (message.chan === null && mine) {
      return undefined;
    }
    const conversation =
      message.chan === null
        ? this.#store.conversation("person", message.from)
        : this.#store.conversation("room", message.chan);
    const key = (payload.type === "text" && mine && payload.key) || message.id;
    this.#store.add(conversation, {
      key,
      type: payload.type,
      id: message.id,
      from: message.from,
      name: payload.type === "text" ? payload.name : "",
      text: payload.text,
      at: payload.type === "text" ? payload.at : Date.now(),
      mine,
      status: mine ? "sent" : "",
    });
    return this.#store.saved();
  }

  /** @param {any} live the sections that changed, with the time at which they were read */
  #show({ rev, ...sections }) {
    for (const name of Object.keys(this.live)) {
      if (sections[name] !== undefined && rev >= (this.#revisions[name] ?? 0)) {
        this.#revisions[name] = rev;
        this.live[name] = sections[name];
      }
    }
    const self = this.live.people.list.find((person) => person.id === this.#id);
    const forgotten = sections.people !== undefined && self?.name === "" && this.#name() !== "";
    if (forgotten && performance.now() - this.#healed > HEAL_MS) {
      // The service was started anew and has forgotten the name: one call tells it again.
      this.#healed = performance.now();
      void this.enter().catch((error) => console.warn(error.message));
    }
    this.#changed();
  }

  /**
   * @param {string} text
   * @param {Happening["tone"]} tone
   */
  #note(text, tone) {
    this.happenings.unshift({ at: Date.now(), text, tone });
    this.happenings.splice(KEPT_EVENTS);
    this.#changed();
  }

  #changed() {
    this.dispatchEvent(new Event("change"));
  }
}
