// A server that is a child of this process, and ends before it.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { setTimeout } from "node:timers/promises";

const READY_MS = 60_000;
const GRACE_MS = 30_000;
/** Lines of a server's output that are shown again if it fails. */
const LAST_LINES = 20;

export class Server {
  #child;
  #name;
  #said = [];
  #watchers = new Set();
  #ended;

  /**
   * @param {string[]} command
   * @param {import("node:child_process").SpawnOptions} options
   */
  constructor([program, ...args], options) {
    this.#name = program;
    this.#child = spawn(program, args, { ...options, stdio: ["ignore", "pipe", "pipe"] });
    this.#ended = once(this.#child, "close");
    this.#ended.catch(() => {});
    for (const output of [this.#child.stdout, this.#child.stderr]) {
      output.setEncoding("utf8").on("data", (text) => this.#hear(text));
    }
  }

  #hear(text) {
    this.#said.push(...text.split("\n").filter((line) => line !== ""));
    this.#said.splice(0, this.#said.length - LAST_LINES);
    for (const watcher of this.#watchers) watcher(text);
  }

  /** Waits until its output has `words` in it. Throws if it ends before. */
  async says(words) {
    const heard = new Promise((resolve) => {
      this.#watchers.add((text) => text.includes(words) && resolve());
    });
    await Promise.race([heard, this.#endsTooEarly()]);
    this.#watchers.clear();
  }

  /** Asks until nothing is thrown. Throws if the server ends before, or what was thrown for a minute. */
  async answers(ask) {
    const until = Date.now() + READY_MS;
    const ended = this.#endsTooEarly();
    for (;;) {
      try {
        return await Promise.race([ask(), ended]);
      } catch (error) {
        if (Date.now() > until) throw error;
      }
      await Promise.race([setTimeout(50), ended]);
    }
  }

  async #endsTooEarly() {
    const [code, signal] = await this.#ended;
    throw new Error(`${this.#name} ended with ${signal ?? code}; it said:\n${this.#said.join("\n")}`);
  }

  /** Has it end in good order, or at once where that takes too long. */
  async end() {
    // PostgreSQL ends its sessions on this; others end on it as they do when asked at a terminal.
    this.#child.kill("SIGINT");
    const late = setTimeout(GRACE_MS, "late", { ref: false });
    if ((await Promise.race([this.#ended.catch(() => {}), late])) === "late") {
      this.#child.kill("SIGKILL");
      await this.#ended.catch(() => {});
    }
  }
}
