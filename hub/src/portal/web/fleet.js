// Pages about all devices but their list.

import { device, el, field, form, hub, isOperator, json, notify, table, when } from "./page.js";
import { shownOnce } from "./keys.js";

/** Does `work` now and every `seconds`, until the page is left. */
export async function repeat(signal, seconds, work) {
  await work();
  const again = async () => {
    if (signal.aborted) return;
    try { if (!document.hidden) await work(); } catch (error) { if (!signal.aborted) notify(error.message); }
    setTimeout(again, seconds * 1000);
  };
  setTimeout(again, seconds * 1000);
}

export function enrol(root) {
  const id = el("input", { required: true, autocomplete: "off", maxlength: 128 });
  const edge = el("input", { type: "checkbox", checked: true });
  const tags = el("textarea", { rows: 3, spellcheck: "false" });
  tags.value = "{}";
  const made = el("div", { "aria-live": "polite" });
  root.append(el("h1", {}, "Enrol a device"), form({ id: "enrol" }, async (node) => {
    if (!/^[A-Za-z0-9\-.+%_#*?!(),:=@$']{1,128}$/.test(id.value)) throw new Error("Device id: 1 to 128 letters, digits and -.+%_#*?!(),:=@$'");
    const wanted = json(tags.value || "{}", "Tags");
    const one = await hub("PUT", `/devices/${device(id.value)}`, { deviceId: id.value, capabilities: { iotEdge: edge.checked } });
    if (Object.keys(wanted).length) await hub("PATCH", `/twins/${device(id.value)}`, { tags: wanted });
    const key = one.authentication.symmetricKey.primaryKey;
    node.hidden = true;
    made.append(shownOnce("Enrolled", one.deviceId, key),
      el("a", { class: "button main", id: "to-device", href: `#/devices/${device(one.deviceId)}` }, "To the device"));
  }, field("enrol-id", "Device id", id),
  el("label", { class: "inline" }, edge, "Edge device: runs modules"),
  field("enrol-tags", "Tags (JSON)", tags, 'For automatic deployments, such as {"type": "nano"}'),
  el("div", { class: "row" }, el("button", { type: "submit", class: "main" }, "Enrol"))), made);
}

export async function telemetry(root, signal) {
  let after = 0;
  const rows = [];
  const list = el("div");
  root.append(el("h1", {}, "Telemetry"), el("p", { class: "hint" }, "What devices send, from now on and the last that the hub has kept."),
    el("section", { "aria-label": "Messages" }, list));
  await repeat(signal, 1, async () => {
    const { accepted, messages } = await hub("GET", `/messages/events?after=${after}`);
    if (signal.aborted || (after && !messages.length)) return;
    after = accepted;
    for (const one of messages) {
      const from = one.moduleId ? `${one.deviceId}/${one.moduleId}` : one.deviceId;
      rows.unshift([when(one.enqueuedTime), from, el("code", {}, JSON.stringify(one.body))]);
    }
    rows.length = Math.min(rows.length, 200);
    list.replaceChildren(rows.length ? table("Messages", ["Time", "From", "Body"], rows) : el("p", {}, "No message yet."));
  });
}

export async function deployments(root, signal) {
  const list = el("div");
  const load = async () => {
    const all = await hub("GET", "/configurations");
    if (signal.aborted) return;
    const rows = all.map((one) => {
      const counts = one.systemMetrics.results;
      return [one.id, el("code", {}, one.targetCondition || "(none)"), String(one.priority),
        String(counts.targetedCount), String(counts.appliedCount),
        String(counts.reportedSuccessfulCount ?? "–"), String(counts.reportedFailedCount ?? "–"),
        isOperator() ? el("button", { type: "button", class: "danger", "aria-label": `Delete ${one.id}`, onclick: async () => {
          if (!confirm(`Delete the deployment ${one.id}?`)) return;
          try { await hub("DELETE", `/configurations/${device(one.id)}`); await load(); } catch (error) { notify(error.message); }
        } }, "Delete") : ""];
    });
    const focused = list.contains(document.activeElement) ? document.activeElement.getAttribute("aria-label") : null;
    list.replaceChildren(rows.length ? table("Deployments",
      ["Deployment", "Target condition", "Priority", "Targeted", "Applied", "Successful", "Failed", "Action"], rows)
      : el("p", {}, "There is no automatic deployment."));
    if (focused) [...list.querySelectorAll("button")].find((one) => one.getAttribute("aria-label") === focused)?.focus();
  };
  root.append(el("h1", {}, "Deployments"), el("section", { "aria-label": "Deployments" }, list));
  await repeat(signal, 10, load);
  if (!isOperator()) return;
  const id = el("input", { required: true, autocomplete: "off" });
  const condition = el("input", { placeholder: "tags.type='nano'", autocomplete: "off" });
  const priority = el("input", { type: "number", min: 0, value: 10 });
  const content = el("textarea", { rows: 12, spellcheck: "false" });
  root.append(form({ id: "deploy" }, async () => {
    if (!Number.isInteger(priority.valueAsNumber) || priority.valueAsNumber < 0) throw new Error("Priority: a whole number from 0 on");
    const parsed = json(content.value, "Content");
    const { modulesContent, deviceContent, moduleContent } = parsed?.content ?? parsed ?? {};
    if (!modulesContent && !deviceContent && !moduleContent) throw new Error("Content: modulesContent is missing");
    const tested = await hub("POST", "/configurations/testQueries", { targetCondition: condition.value });
    if (tested.targetConditionError) throw new Error(`Target condition: ${tested.targetConditionError}`);
    await hub("PUT", `/configurations/${device(id.value)}`, { id: id.value, schemaVersion: "2.0",
      content: { modulesContent, deviceContent, moduleContent }, targetCondition: condition.value, priority: priority.valueAsNumber });
    notify(`Deployment ${id.value} is made`);
    await load();
  }, el("h2", {}, "New deployment"),
  el("div", { class: "grid" }, field("deploy-id", "Id", id, "Lower-case letters, digits and -"),
    field("deploy-condition", "Target condition", condition, "tags.*, deviceId, properties.reported.*; * for all; FROM devices.modules WHERE before it for moduleContent"),
    field("deploy-priority", "Priority", priority)),
  field("deploy-content", "Content (JSON)", content, "A deployment manifest; with dotted keys it is a layer. Or deviceContent, or moduleContent"),
  el("div", { class: "row" }, el("button", { type: "submit", class: "main" }, "Deploy"))));
}
