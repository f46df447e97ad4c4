// The list of devices: those that are looked for, a page at a time.

import { device, el, field, form, isOperator, put, query, table, when } from "./page.js";
import { repeat } from "./fleet.js";

const PAGE = 100;

const quoted = (text) => `'${text.replaceAll("'", "''")}'`;

const connection = (state) => el("span", { class: `state ${state === "Connected" ? "good" : "wait"}` }, state);

/** One page of devices after the place `after`; an edge device is connected if its agent is. */
async function page(where, after) {
  const select = "SELECT deviceId, status, connectionState, lastActivityTime, capabilities FROM devices";
  const found = await query(`${select}${where}`, PAGE, after);
  const [first, last] = [found.items[0], found.items.at(-1)];
  if (!first) return found;
  // The list is sorted: these are all of the page.
  const agents = await query("SELECT deviceId, connectionState, lastActivityTime FROM devices.modules WHERE moduleId = '$edgeAgent' "
    + `AND deviceId >= ${quoted(first.deviceId)} AND deviceId <= ${quoted(last.deviceId)}`, PAGE, after);
  const agentOf = new Map(agents.items.map((one) => [one.deviceId, one]));
  for (const one of found.items) {
    const agent = agentOf.get(one.deviceId);
    if (agent?.connectionState === "Connected") one.connectionState = "Connected";
    one.lastActivityTime = [one.lastActivityTime, agent?.lastActivityTime ?? ""].sort().at(-1);
  }
  return found;
}

const row = (one) => [
  el("a", { href: `#/devices/${device(one.deviceId)}` }, one.deviceId),
  connection(one.connectionState), one.status, one.capabilities?.iotEdge ? "edge" : "", when(one.lastActivityTime),
];

export async function deviceList(root, signal) {
  // Where this page and those before it start: the first one at none.
  const starts = [null];
  let [where, after] = ["", null];
  const list = el("div");
  const begin = el("input", { autocomplete: "off", maxlength: 128 });
  const condition = el("input", { autocomplete: "off", placeholder: "tags.type='nano'" });
  const move = (id, text, change) => el("button", { type: "button", id, hidden: true, onclick: async () => {
    change();
    await refresh();
    root.querySelector("h1").scrollIntoView();
  } }, text);
  const back = move("back", "Page before", () => starts.pop());
  const next = move("next", "Next page", () => starts.push(after));
  const refresh = async () => {
    const start = starts.at(-1);
    const found = await page(where, start);
    if (signal.aborted || start !== starts.at(-1)) return;
    after = found.after;
    [back.hidden, next.hidden] = [starts.length < 2, !after];
    const focused = list.contains(document.activeElement) ? document.activeElement.textContent : null;
    list.replaceChildren(found.items.length
      ? table("Devices", ["Device", "Connection", "Status", "Kind", "Last activity"], found.items.map(row))
      : el("p", {}, where ? "There is no such device." : "There is no device yet."));
    if (focused) [...list.querySelectorAll("a")].find((link) => link.textContent === focused)?.focus();
  };
  put(root, el("h1", {}, "Devices"),
    isOperator() ? el("p", { class: "row" }, el("a", { class: "button main", href: "#/enrol" }, "Enrol a device")) : null,
    form({ id: "find" }, async () => {
      const parts = [];
      // Nothing that an id can have comes after a tilde.
      if (begin.value) parts.push(`deviceId >= ${quoted(begin.value)} AND deviceId < ${quoted(`${begin.value}~`)}`);
      if (condition.value.trim()) parts.push(`(${condition.value})`);
      where = parts.length ? ` WHERE ${parts.join(" AND ")}` : "";
      starts.splice(1);
      await refresh();
    }, el("div", { class: "grid" }, field("find-id", "Device id begins with", begin),
      field("find-condition", "Condition", condition, "As deployments have it; also status, connectionState")),
    el("div", { class: "row" }, el("button", { type: "submit" }, "Find"))),
    el("section", { "aria-label": "Devices" }, list), el("div", { class: "row" }, back, next));
  await repeat(signal, 3, refresh);
}
