// imcluster-client: the browser client of ImCluster (subprotocol imcluster.v1.json). What is public stands here.
// Its documentation is in index.d.ts, where editors find it.

export { ImClient } from "./client.js";
export { CloseCode, isFinal } from "./codes.js";
export { ImClientError } from "./errors.js";
export { sessionPosition } from "./storage.js";
