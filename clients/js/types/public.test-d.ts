// What the public types promise, checked by tsc alone: nothing here runs.
// The first part holds index.d.ts against the implementation, the second reads as an app's code would.

import { ImClient as Implementation } from "../src/client.js";
import { CloseCode as ImplementedCodes, isFinal as implementedIsFinal } from "../src/codes.js";
import { ImClientError as ImplementedError } from "../src/errors.js";
import { sessionPosition as implementedSessionPosition } from "../src/storage.js";
import * as declared from "imcluster-client";

export const conforms: {
  [Name in keyof typeof declared]: (typeof declared)[Name];
} = {
  ImClient: Implementation,
  ImClientError: ImplementedError,
  CloseCode: ImplementedCodes,
  isFinal: implementedIsFinal,
  sessionPosition: implementedSessionPosition,
};

const client = new declared.ImClient({
  getUrl: async ({ attempt, avoid, lastCode, signal }) => {
    const n: number = attempt;
    const url: string | null = avoid;
    const code: number | null = lastCode;
    signal.throwIfAborted();
    return `${url ?? "ws://a/ws"}?${n}${code}`;
  },
  ack: "manual",
  WebSocket,
  storage: declared.sessionPosition("chat"),
});

const stop: () => void = client.on("message", async (message) => {
  const text: string = message.from + message.id + (message.chan ?? "");
  // @ts-expect-error the payload is whatever the business sent
  const wrong: string = message.data;
  message.ack();
  return text + wrong;
});
stop();
client.on("receipt", ({ status }) => {
  const known: "delivered" | "offline" = status;
  return known;
});
client.on("state", ({ state, retryInMs }) => {
  const known: declared.ImState = state;
  return [known, retryInMs];
});
client.on("gap", ({ reason }) => reason === "missed");
client.on("error", (error) => error.kind === "listener" && error.cause);

// @ts-expect-error no such event
client.on("massage", () => undefined);
// @ts-expect-error only the client says what its state is
client.state = "open";
// @ts-expect-error getUrl is required
new declared.ImClient({});
// @ts-expect-error there are two ways to ack
new declared.ImClient({ getUrl: () => "ws://a/ws", ack: "never" });
