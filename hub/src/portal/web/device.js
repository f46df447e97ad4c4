// Pages about one device.

import { call, device, el, field, form, hub, isOperator, json, notify, put, table, when } from "./page.js";
import { repeat } from "./fleet.js";

const CODES = { 200: "OK", 400: "The deployment is not valid", 406: "The device is offline or has sent no status",
  412: "The schema version is not known", 417: "The device has no deployment", 500: "An error occurred on the device" };

const agentTwin = (id) => hub("GET", `/twins/${device(id)}/modules/%24edgeAgent`);

/** Only edge devices have modules. */
export const pages = (id, edge) => el("nav", { class: "row", "aria-label": `Pages of ${id}` },
  el("a", { class: "button", href: `#/devices/${device(id)}` }, "Overview"),
  edge && isOperator() ? el("a", { class: "button", href: `#/devices/${device(id)}/modules` }, "Set modules") : null,
  edge ? el("a", { class: "button", href: `#/devices/${device(id)}/troubleshoot` }, "Troubleshoot") : null,
  isOperator() ? el("a", { class: "button", href: `#/devices/${device(id)}/keys` }, "Keys") : null);

function moduleRows(desired, reported) {
  const rows = [];
  const add = (kind, wanted = {}, actual = {}) => {
    for (const name of [...new Set([...Object.keys(wanted), ...Object.keys(actual)])].sort()) {
      const is = actual[name];
      const status = is?.runtimeStatus ?? "not reported";
      const tone = status === "running" ? "good" : ["failed", "backoff", "unhealthy"].includes(status) ? "bad" : "wait";
      rows.push([name, kind, wanted[name] ? wanted[name].status ?? "running" : "not in the deployment",
        el("span", { class: `state ${tone}`, title: is?.statusDescription ?? "" }, status),
        String(is?.exitCode ?? "–"), String(is?.restartCount ?? "–"),
        el("code", {}, is?.settings?.image ?? wanted[name]?.settings?.image ?? ""), is?.statusDescription ?? ""]);
    }
  };
  add("system", desired.systemModules, reported.systemModules);
  add("custom", desired.modules, reported.modules);
  return rows;
}

export async function devicePage(root, signal, id) {
  const state = el("div");
  const modules = el("div");
  const [own, twin] = await Promise.all([hub("GET", `/devices/${device(id)}`), hub("GET", `/twins/${device(id)}`)]);
  if (signal.aborted) return;
  const edge = own.capabilities?.iotEdge ?? false;
  put(root, el("h1", {}, id), pages(id, edge), el("section", { "aria-label": "State" }, state),
    edge ? el("section", {}, el("h2", {}, "Modules"), modules) : null);
  if (isOperator()) manage(root, id, own, twin);
  await repeat(signal, 2, async () => {
    const [now, root] = await Promise.all([hub("GET", `/devices/${device(id)}`), hub("GET", `/twins/${device(id)}`)]);
    const agent = edge ? await agentTwin(id) : null;
    if (signal.aborted) return;
    const { desired = {}, reported = {} } = agent?.properties ?? {};
    const code = reported.lastDesiredStatus?.code;
    const behind = code !== undefined && reported.lastDesiredVersion !== desired.$version;
    const connection = agent?.connectionState === "Connected" ? "Connected" : now.connectionState;
    const text = code === undefined ? "NA" : `${code} -- ${CODES[code] ?? ""}`;
    const applied = Object.entries(root.configurations ?? {}).map(([name, one]) => `${name} (${one.status})`);
    state.replaceChildren(...(edge ? [el("p", { class: `big ${code === 200 && !behind ? "good" : code === undefined || behind ? "wait" : "bad"}` },
        "Runtime response: ", el("span", { id: "code" }, behind ? `${text} (an earlier deployment)` : text))] : []),
      ...(reported.lastDesiredStatus?.description ? [el("p", {}, reported.lastDesiredStatus.description)] : []),
      el("dl", {},
        ...[["Connection", connection], ["Status", now.status], ["Last activity", when([now.lastActivityTime, agent?.lastActivityTime ?? ""].sort().at(-1))],
          ["Tags", JSON.stringify(root.tags)], ["Automatic deployments", applied.join(", ") || "none"],
          ...(edge ? [["Agent", reported.version?.version ?? "not reported"]] : [])]
          .flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)])));
    const rows = agent ? moduleRows(desired, reported) : [];
    modules.replaceChildren(rows.length ? table("Modules",
      ["Module", "Type", "Desired", "Runtime status", "Exit code", "Restarts", "Image", "Description"], rows)
      : el("p", {}, "No module is deployed or reported."));
  });
}

/** Tags, status, removal. */
function manage(root, id, own, twin) {
  const tags = el("textarea", { rows: 4, spellcheck: "false" });
  tags.value = JSON.stringify(twin.tags, null, 2);
  const toggle = el("button", { type: "button", onclick: async () => {
    try {
      const now = await hub("GET", `/devices/${device(id)}`);
      const status = now.status === "enabled" ? "disabled" : "enabled";
      await hub("PUT", `/devices/${device(id)}`, { deviceId: id, status }, { "if-match": `"${now.etag}"` });
      toggle.textContent = status === "enabled" ? "Disable" : "Enable";
      notify(`${id} is ${status}`);
    } catch (error) { notify(error.message); }
  } }, own.status === "enabled" ? "Disable" : "Enable");
  root.append(form({ id: "tags-form" }, async () => {
    const wanted = json(tags.value || "{}", "Tags");
    const now = await hub("GET", `/twins/${device(id)}`);
    const gone = Object.keys(now.tags ?? {}).filter((name) => !(name in wanted));
    await hub("PATCH", `/twins/${device(id)}`, { tags: { ...wanted, ...Object.fromEntries(gone.map((name) => [name, null])) } });
    notify("Tags are saved");
  }, el("h2", {}, "Manage"), field("tags", "Tags (JSON)", tags),
  el("div", { class: "row" }, el("button", { type: "submit" }, "Save tags"), toggle,
    el("button", { type: "button", class: "danger", onclick: async () => {
      if (!confirm(`Delete ${id}? Its keys and modules are gone then.`)) return;
      try { await hub("DELETE", `/devices/${device(id)}`, undefined, { "if-match": "*" }); location.hash = "#/devices"; } catch (error) { notify(error.message); }
    } }, "Delete"))));
}

/** createOptions is text, and may go on in createOptions01 and so on. */
function joined(settings) {
  let text = settings.createOptions ?? "{}";
  if (typeof text !== "string") return JSON.stringify(text, null, 2);
  for (let n = 1; n < 8 && typeof settings[`createOptions0${n}`] === "string"; n++) text += settings[`createOptions0${n}`];
  return text;
}

let fields = 0;

function moduleFields(name, module, gone) {
  const n = ++fields;
  const made = {
    name: el("input", { value: name, required: true, autocomplete: "off" }),
    image: el("input", { value: module.settings?.image ?? "", required: true, autocomplete: "off" }),
    restart: el("select", {}, ["always", "on-failure", "on-unhealthy", "never"].map((one) =>
      el("option", { value: one, selected: one === (module.restartPolicy ?? "always") }, one))),
    status: el("select", {}, ["running", "stopped"].map((one) =>
      el("option", { value: one, selected: one === (module.status ?? "running") }, one))),
    env: el("textarea", { rows: 2, spellcheck: "false" }),
    options: el("textarea", { rows: 6, spellcheck: "false" }),
  };
  made.env.value = Object.entries(module.env ?? {}).map(([key, one]) => `${key}=${one.value}`).join("\n");
  made.options.value = joined(module.settings ?? {});
  const node = el("fieldset", {}, el("legend", {}, name || "New module"),
    el("div", { class: "grid" }, field(`m${n}-name`, "Module name", made.name), field(`m${n}-image`, "Image URI", made.image),
      field(`m${n}-restart`, "Restart policy", made.restart), field(`m${n}-status`, "Desired status", made.status)),
    field(`m${n}-env`, "Environment variables", made.env, "NAME=value, one a line"),
    field(`m${n}-options`, "Container create options (JSON)", made.options),
    el("div", { class: "row" }, el("button", { type: "button", class: "danger", "aria-label": `Remove ${name || "the module"}`,
      onclick: () => { node.remove(); gone(); } }, "Remove")));
  const read = () => {
    const own = made.name.value.trim();
    if (!/^[A-Za-z0-9_-]{1,64}$/.test(own)) throw new Error(`Module name ${JSON.stringify(own)}: letters, digits, _ and - only`);
    if (!/^\S+$/.test(made.image.value.trim())) throw new Error(`Image URI of ${own} is missing or has a space`);
    const options = json(made.options.value.trim() || "{}", `Create options of ${own}`);
    if (options === null || typeof options !== "object" || Array.isArray(options)) throw new Error(`Create options of ${own} are no object`);
    const env = {};
    for (const line of made.env.value.split("\n").filter((one) => one.trim())) {
      const at = line.indexOf("=");
      if (at < 1) throw new Error(`Environment of ${own}: ${JSON.stringify(line)} is not NAME=value`);
      env[line.slice(0, at).trim()] = { value: line.slice(at + 1) };
    }
    const { createOptions, ...settings } = module.settings ?? {};
    for (const key of Object.keys(settings)) if (key.startsWith("createOptions")) delete settings[key];
    return [own, { version: "1.0", type: "docker", ...module, status: made.status.value, restartPolicy: made.restart.value, env,
      settings: { ...settings, image: made.image.value.trim(), ...chunks(made.options.value.trim() || "{}") } }];
  };
  return { node, read };
}

/** A value of a twin has 512 bytes in manifests of old: long options go on in further ones. */
function chunks(text) {
  const all = {};
  const parts = text.match(/[\s\S]{1,512}/gu) ?? ["{}"];
  if (parts.length > 8) throw new Error("Create options are longer than 4096 characters");
  parts.forEach((part, n) => { all[n ? `createOptions0${n}` : "createOptions"] = part; });
  return all;
}

function registryFields(name, registry, gone) {
  const n = ++fields;
  const made = {
    name: el("input", { value: name, autocomplete: "off" }),
    address: el("input", { value: registry.address ?? "", autocomplete: "off" }),
    username: el("input", { value: registry.username ?? "", autocomplete: "off" }),
    password: el("input", { type: "password", autocomplete: "new-password" }),
  };
  const node = el("fieldset", {}, el("legend", {}, name ? `Registry ${name}` : "New registry"),
    el("div", { class: "grid" }, field(`r${n}-name`, "Name", made.name), field(`r${n}-address`, "Address", made.address),
      field(`r${n}-user`, "User name", made.username),
      field(`r${n}-password`, "Password", made.password, name ? "Empty: as it is" : null)),
    el("div", { class: "row" }, el("button", { type: "button", class: "danger", "aria-label": `Remove registry ${name}`,
      onclick: () => { node.remove(); gone(); } }, "Remove")));
  const read = () => {
    const own = made.name.value.trim();
    if (!/^[A-Za-z0-9_-]+$/.test(own)) throw new Error(`Registry name ${JSON.stringify(own)}: letters, digits, _ and - only`);
    if (!made.address.value.trim()) throw new Error(`Address of registry ${own} is missing`);
    if (!made.username.value.trim()) throw new Error(`User name of registry ${own} is missing`);
    if (!name && !made.password.value) throw new Error(`Password of registry ${own} is missing`);
    return [own, { address: made.address.value.trim(), username: made.username.value.trim(), password: made.password.value }];
  };
  return { node, read };
}

/** Names of a list must differ: a later one would replace an earlier one unseen. */
function collect(list, what) {
  const all = {};
  for (const one of list) {
    const [name, value] = one.read();
    if (name in all) throw new Error(`There are two ${what} called ${name}`);
    all[name] = value;
  }
  return all;
}

const system = (name) => ({ type: "docker", settings: { image: `mcr.microsoft.com/azureiotedge-${name}:1.5`, createOptions: "{}" } });

export async function setModules(root, signal, id) {
  const twin = await agentTwin(id);
  if (signal.aborted) return;
  const desired = twin.properties.desired;
  const [modules, registries] = [[], []];
  const [moduleList, registryList] = [el("div"), el("div")];
  const add = (list, node, make, name, value) => {
    const one = make(name, value, () => list.splice(list.indexOf(one), 1));
    list.push(one);
    node.append(one.node);
    return one.node;
  };
  const addModule = (name, value) => add(modules, moduleList, moduleFields, name, value);
  const addRegistry = (name, value) => add(registries, registryList, registryFields, name, value);
  Object.entries(desired.modules ?? {}).forEach(([name, one]) => addModule(name, one));
  Object.entries(desired.runtime?.settings?.registryCredentials ?? {}).forEach(([name, one]) => addRegistry(name, one));
  root.append(el("h1", {}, `Set modules on ${id}`), pages(id, true), form({ id: "set-modules" }, async () => {
    const wanted = { schemaVersion: "1.1", ...desired };
    for (const key of Object.keys(wanted)) if (key.startsWith("$")) delete wanted[key];
    wanted.runtime = { type: "docker", ...desired.runtime, settings: { ...desired.runtime?.settings,
      registryCredentials: collect(registries, "registries") } };
    wanted.systemModules ??= { edgeAgent: system("agent"), edgeHub: { ...system("hub"), status: "running", restartPolicy: "always" } };
    wanted.modules = collect(modules, "modules");
    await hub("POST", `/devices/${device(id)}/applyConfigurationContent`,
      { modulesContent: { $edgeAgent: { "properties.desired": wanted } } });
    notify("The deployment is sent");
    location.hash = `#/devices/${device(id)}`;
  }, el("h2", {}, "Modules"), moduleList,
  el("div", { class: "row" }, el("button", { type: "button", id: "add-module",
    onclick: () => addModule("", {}).querySelector("input").focus() }, "Add a module")),
  el("h2", {}, "Registry credentials"), registryList,
  el("div", { class: "row" }, el("button", { type: "button", id: "add-registry",
    onclick: () => addRegistry("", {}).querySelector("input").focus() }, "Add a registry")),
  el("div", { class: "row" }, el("button", { type: "submit", class: "main" }, "Deploy"),
    el("a", { class: "button", href: `#/devices/${device(id)}` }, "Cancel"))));
}

export async function troubleshoot(root, signal, id) {
  const twin = await agentTwin(id);
  if (signal.aborted) return;
  const { desired, reported } = twin.properties;
  const names = [...new Set([...Object.keys(desired.modules ?? {}), ...Object.keys(reported.modules ?? {})])].sort();
  const which = el("select", {}, ["edgeAgent", ...names].map((name) => el("option", { value: name, selected: name === names[0] }, name)));
  const tail = el("input", { type: "number", min: 1, max: 5000, value: 200 });
  const live = el("input", { type: "checkbox", id: "live" });
  const log = el("pre", { id: "log", tabindex: 0, role: "log", "aria-label": "Log", "aria-live": "off" });
  const read = async () => {
    const name = which.value;
    const answer = await call(id, "GetModuleLogs", { schemaVersion: "1.0", encoding: "none", contentType: "text",
      items: [{ id: `^${name}$`, filter: { tail: tail.valueAsNumber || 200 } }] });
    if (answer.status !== 200) throw new Error(answer.payload?.message ?? `the device answered ${answer.status}`);
    const text = (answer.payload ?? []).map((one) => one.payload ?? "").join("");
    if (signal.aborted || which.value !== name || log.textContent === text) return;
    const atEnd = log.scrollTop + log.clientHeight >= log.scrollHeight - 8;
    log.textContent = text;
    if (atEnd) log.scrollTop = log.scrollHeight;
  };
  const restart = el("button", { type: "button", id: "restart", onclick: async () => {
    try {
      const answer = await call(id, "RestartModule", { schemaVersion: "1.0", id: which.value });
      notify(answer.status === 200 ? `${which.value} is restarted` : answer.payload?.message ?? `the device answered ${answer.status}`);
    } catch (error) { notify(error.message); }
  } }, "Restart");
  root.append(el("h1", {}, `Troubleshoot ${id}`), pages(id, true), form({ id: "logs" }, read,
    el("div", { class: "grid" }, field("which", "Module", which), field("tail", "Lines", tail)),
    el("label", { class: "inline" }, live, "Live: read again every two seconds"),
    el("div", { class: "row" }, el("button", { type: "submit", class: "main" }, "Show the log"), isOperator() ? restart : null), log));
  const follow = async () => {
    while (!signal.aborted && live.checked) {
      try { await read(); } catch (error) { if (!signal.aborted) notify(error.message); }
      await new Promise((done) => setTimeout(done, 2000));
    }
  };
  live.addEventListener("change", () => live.checked && follow());
  if (isOperator()) methodForm(root, id);
}

function methodForm(root, id) {
  const name = el("input", { value: "ping", autocomplete: "off" });
  const payload = el("textarea", { rows: 3, spellcheck: "false" });
  payload.value = "null";
  const answer = el("pre", { tabindex: 0, "aria-label": "Answer", "aria-live": "polite", hidden: true });
  root.append(form({ id: "method" }, async () => {
    const got = await call(id, name.value, json(payload.value || "null", "Payload"));
    answer.hidden = false;
    answer.textContent = `${got.status}\n${JSON.stringify(got.payload, null, 2)}`;
  }, el("h2", {}, "Direct method of the agent"), field("method-name", "Method", name), field("method-payload", "Payload (JSON)", payload),
  el("div", { class: "row" }, el("button", { type: "submit" }, "Call")), answer));
}
