// The event log: who did what, the newest first.

import { device, el, field, form, hub, table, when } from "./page.js";

const WORDS = {
  "hub.started": "hub started", "hub.backedUp": "backup taken",
  "identity.created": "created", "identity.changed": "changed", "identity.keysChanged": "keys changed",
  "identity.enabled": "enabled", "identity.disabled": "disabled", "identity.deleted": "deleted",
  "twin.changed": "twin changed", "device.deployed": "modules set",
  "configuration.created": "deployment made", "configuration.changed": "deployment changed",
  "configuration.deleted": "deployment deleted", "method.called": "method called",
  "user.signedIn": "signed in", "user.signedOut": "signed out", "user.refused": "sign-in refused",
  "connection.refused": "connection refused", "request.refused": "request refused",
};

const who = ({ kind, name }) => (kind === "hub" ? "the hub" : kind === "unknown" ? `someone at ${name || "an unknown address"}` : `${kind} ${name}`);

const row = (one) => [when(one.lastTime), who(one.actor), WORDS[one.action] ?? one.action, one.subject,
  el("span", {}, one.detail, one.count > 1 ? ` (${one.count} times since ${when(one.time)})` : "")];

export async function events(root, signal) {
  const rows = [];
  let before = null;
  const list = el("div");
  const of = el("input", { autocomplete: "off", maxlength: 128 });
  const more = el("button", { type: "button", hidden: true, id: "older", onclick: () => load() }, "Older events");
  const load = async () => {
    const query = [before ? `before=${before}` : "", of.value ? `device=${device(of.value)}` : ""].filter(Boolean).join("&");
    const answer = await hub("GET", `/events?${query}`);
    if (signal.aborted) return;
    rows.push(...answer.events.map(row));
    before = answer.before;
    more.hidden = !before;
    list.replaceChildren(rows.length ? table("Events", ["Time", "Who", "What", "Of", "Detail"], rows)
      : el("p", {}, "There is no event."));
  };
  root.append(el("h1", {}, "Events"), form({ id: "events" }, async () => {
    rows.length = 0;
    before = null;
    await load();
  }, field("events-device", "Device", of, "Empty for all"),
  el("div", { class: "row" }, el("button", { type: "submit", class: "main" }, "Show"))),
  el("section", { "aria-label": "Events" }, list), more);
  await load();
}
