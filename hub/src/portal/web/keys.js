// A device's keys: each is shown once, by the answer that makes it.

import { device, el, form, hub, notify } from "./page.js";
import { pages } from "./device.js";

/** What a device is configured with; `key` is nowhere to be seen again. */
export function shownOnce(title, id, key) {
  const string = `HostName=${location.hostname};DeviceId=${id};SharedAccessKey=${key}`;
  return el("section", { "aria-label": title }, el("h2", {}, title),
    el("p", {}, "This is shown once. Put these lines into the device's configuration, beside the hub's ca.pem:"),
    el("pre", { id: "config", tabindex: 0, "aria-label": "Configuration" },
      `trust_bundle_cert = "file:///etc/kobune/hub-ca.pem"\n[provisioning]\nsource = "manual"\nconnection_string = "${string}"\n`),
    el("p", {}, "Connection string:"),
    el("pre", { id: "connection-string", tabindex: 0, "aria-label": "Connection string" }, string));
}

export async function keysPage(root, signal, id) {
  const own = await hub("GET", `/devices/${device(id)}`);
  if (signal.aborted) return;
  root.append(el("h1", {}, `Keys of ${id}`), pages(id, own.capabilities?.iotEdge));
  if (own.authentication.type !== "sas") {
    root.append(el("p", {}, `${id} does not use keys: it authenticates by ${own.authentication.type}.`));
    return;
  }
  const made = el("div", { "aria-live": "polite" });
  const button = (which) => el("button", { type: "submit", id: `rotate-${which}`, value: which }, `Make the ${which} key anew`);
  root.append(form({ id: "rotate" }, async (_, which) => {
    const other = which === "primary" ? "secondary" : "primary";
    if (!confirm(`Make the ${which} key of ${id} anew? A device that uses it is cut off at once; one that uses the ${other} key is not.`)) return;
    made.replaceChildren();
    // Whoever changed the device since is not overruled.
    const { etag } = await hub("GET", `/devices/${device(id)}`);
    const now = await hub("PUT", `/devices/${device(id)}`,
      { deviceId: id, authentication: { type: "sas", symmetricKey: { [`${which}Key`]: "" } } }, { "if-match": `"${etag}"` });
    made.append(shownOnce(`The new ${which} key`, id, now.authentication.symmetricKey[`${which}Key`]));
    notify(`The ${which} key of ${id} is new`);
  }, el("h2", {}, "Without an outage"),
  el("ol", {}, el("li", {}, "Make the key anew that the device does not use: the secondary one of a device that was enrolled here."),
    el("li", {}, "Give the device the new connection string, and wait until it is connected with it."),
    el("li", {}, "Make the other key anew, so that the old one is good for nothing.")),
  el("div", { class: "row" }, button("secondary"), button("primary"))), made);
}
