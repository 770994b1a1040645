// Doubles numbers: one JSON message per line. Start it with `run.py node`.
"use strict";
const readline = require("node:readline");

function say(message) {
  process.stdout.write(JSON.stringify(message) + "\n");
}

const lines = readline.createInterface({ input: process.stdin });
lines.on("line", (line) => {
  const { kind, id, value } = JSON.parse(line);
  if (kind !== "item") return;
  console.error(`doubling ${value}`); // stderr: it appears in the parent's terminal
  if (typeof value === "number") say({ kind: "result", id, value: 2 * value });
  else say({ kind: "error", id, type: "TypeError", message: `${value} is no number` });
});
lines.on("close", () => process.exit(0)); // the parent has ended, or wants no more
say({ kind: "ready" });
