// What travels in messages: texts as ImCore's own demo page writes them, so that both understand each other.
// A user's message always arrives as a string; only the web chat's service sends objects, so users can't forge those.

/**
 * @typedef {object} Text
 * @property {"text"} type
 * @property {string} text
 * @property {string} name the display name that the sender gave, possibly empty
 * @property {number} at milliseconds since 1970, on the sender's clock
 * @property {string | null} key the sender's own key for it
 */

/** @typedef {{type: "notice", text: string} | Text | {type: "service", data: any}} Payload */

/**
 * Encodes a text (or another of ImCore's kinds of message) for a room or a person.
 *
 * @param {{id: string, name: string, chan: string | null, content: any, key: string, at: number}} message
 *   content: `{type: "text", content}` or `{type: "welcome"}`
 * @returns {string}
 */
export function encode({ id, name, chan, content, key, at }) {
  const type = chan === null ? "msg" : "chanmsg";
  return JSON.stringify({ type, sender: id, senderNick: name, chan, time: at, msg: content, key });
}

/**
 * Reads what a message carries, whoever sent it with whichever front end.
 *
 * @param {unknown} data
 * @returns {Payload}
 */
export function decode(data) {
  if (typeof data !== "string") {
    return { type: "service", data };
  }
  const inner = parsed(data);
  const text = typeof inner === "string" ? inner : data;
  const chat = parsed(text);
  if (chat === null || typeof chat !== "object" || typeof chat.msg !== "object" || chat.msg === null) {
    return { type: "text", text, name: "", at: Date.now(), key: null };
  }
  const name = typeof chat.senderNick === "string" ? chat.senderNick : "";
  if (chat.msg.type === "welcome") {
    return { type: "notice", text: `${name || "A guest"} joined` };
  }
  if (chat.msg.type === "changenick") {
    return { type: "notice", text: `${chat.msg.oldnick || "A guest"} is now ${chat.msg.newnick || "a guest"}` };
  }
  return {
    type: "text",
    text: String(chat.msg.content ?? ""),
    name,
    at: Number.isFinite(chat.time) ? chat.time : Date.now(),
    key: typeof chat.key === "string" ? chat.key : null,
  };
}

/** @param {string} text */
function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}
