// Sign-in, and which page is shown.

import { el, field, form, notify, request, session } from "./page.js";
import { deviceList } from "./devices.js";
import { enrol, deployments, telemetry } from "./fleet.js";
import { events } from "./events.js";
import { keysPage } from "./keys.js";
import { devicePage, setModules, troubleshoot } from "./device.js";

const main = document.getElementById("main");
let leave = null;

const ROUTES = [
  [/^#\/devices$/, deviceList],
  [/^#\/enrol$/, enrol],
  [/^#\/devices\/([^/]+)$/, devicePage],
  [/^#\/devices\/([^/]+)\/modules$/, setModules],
  [/^#\/devices\/([^/]+)\/troubleshoot$/, troubleshoot],
  [/^#\/devices\/([^/]+)\/keys$/, keysPage],
  [/^#\/deployments$/, deployments],
  [/^#\/telemetry$/, telemetry],
  [/^#\/events$/, events],
];

async function show() {
  leave?.abort();
  leave = new AbortController();
  const { signal } = leave;
  if (!session.user) return signIn();
  const hash = location.hash || "#/devices";
  for (const link of document.querySelectorAll("nav a")) {
    if (hash.startsWith(link.hash)) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  for (const [pattern, page] of ROUTES) {
    const match = hash.match(pattern);
    if (!match) continue;
    const root = el("div");
    main.replaceChildren(root);
    try {
      await page(root, signal, ...match.slice(1).map(decodeURIComponent));
    } catch (error) {
      if (!signal.aborted) root.append(el("p", { class: "error", role: "alert" }, error.message));
    }
    if (!signal.aborted) {
      document.title = `${root.querySelector("h1")?.textContent ?? "Portal"} · Kobune hub`;
      main.focus({ preventScroll: true });
    }
    return;
  }
  main.replaceChildren(el("h1", {}, "There is no such page"));
}

function signIn() {
  document.title = "Sign in · Kobune hub";
  document.getElementById("nav").hidden = true;
  document.getElementById("who").hidden = true;
  const user = el("input", { name: "user", autocomplete: "username", required: true });
  const password = el("input", { name: "password", type: "password", autocomplete: "current-password", required: true });
  main.replaceChildren(el("h1", {}, "Sign in"), form({ id: "sign-in" }, async () => {
    open(await request("POST", "/portal/api/session", { user: user.value, password: password.value }));
    await show();
  }, field("sign-in-user", "User", user), field("sign-in-password", "Password", password),
  el("div", { class: "row" }, el("button", { type: "submit", class: "main" }, "Sign in"))));
  user.focus();
}

function open(found) {
  Object.assign(session, found);
  document.getElementById("user").textContent = `${found.user} (${found.role})`;
  document.getElementById("nav").hidden = false;
  document.getElementById("who").hidden = false;
}

async function signOut() {
  await request("DELETE", "/portal/api/session");
  Object.assign(session, { user: null, role: null, csrf: null });
  await show();
}

document.getElementById("sign-out").addEventListener("click", () => signOut().catch((error) => notify(error.message)));
document.getElementById("skip").addEventListener("click", (event) => { event.preventDefault(); main.focus(); });
window.addEventListener("hashchange", show);
window.addEventListener("signed-out", () => { session.user = null; show(); });

try {
  open(await request("GET", "/portal/api/session"));
} catch { /* nobody has signed in */ }
await show();
