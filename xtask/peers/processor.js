// What this process and those that it started have used of the processors, as the kernel counts it:
// unlike a rate, it is nearly the same on a busy machine.

import { readFileSync, readdirSync } from "node:fs";

/** A tick of the times that the kernel tells. */
const TICK_US = 10_000;

/** Microseconds of this process and all that descend from it, whether they still run or not. */
export function used() {
  const processes = readdirSync("/proc").filter((name) => /^\d+$/.test(name));
  const stats = new Map(processes.map((pid) => [Number(pid), stat(pid)]));
  let ticks = 0;
  const chosen = [process.pid];
  for (const parent of chosen) {
    ticks += stats.get(parent)?.ticks ?? 0;
    for (const [pid, of] of stats) {
      if (of?.parent === parent) chosen.push(pid);
    }
  }
  return ticks * TICK_US;
}

/** Of a process: its parent, and its ticks with those of children that have ended. */
function stat(pid) {
  let text;
  try {
    text = readFileSync(`/proc/${pid}/stat`, "utf8");
  } catch {
    // It has ended in between.
    return undefined;
  }
  // What follows the name, which may hold anything, begins with the third field.
  const fields = text.slice(text.lastIndexOf(") ") + 2).split(" ");
  const ticks = fields.slice(11, 15).reduce((sum, field) => sum + Number(field), 0);
  return { parent: Number(fields[1]), ticks };
}
