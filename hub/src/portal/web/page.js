// What all pages share: elements, requests, messages.

export const session = { user: null, role: null, csrf: null };

export const isOperator = () => session.role === "operator";

/** An element; text is never read as HTML. */
export function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value != null) node.setAttribute(name, value);
  }
  put(node, ...children);
  return node;
}

/** Appends what is not null. */
export function put(node, ...children) {
  node.append(...children.flat().filter((child) => child != null));
}

/** A labelled field: [label, control, hint]. */
export function field(id, label, control, hint) {
  control.id = id;
  const parts = [el("label", { for: id }, label), control];
  if (hint) {
    control.setAttribute("aria-describedby", `${id}-hint`);
    parts.push(el("p", { class: "hint", id: `${id}-hint` }, hint));
  }
  return el("div", {}, ...parts);
}

export function table(caption, heads, rows) {
  return el("table", { "aria-label": caption },
    el("thead", {}, el("tr", {}, heads.map((head) => el("th", { scope: "col" }, head)))),
    el("tbody", {}, rows.map((cells) => el("tr", {},
      cells.map((cell, at) => el("td", { "data-label": heads[at] }, cell))))));
}

export function notify(text) {
  const notice = document.getElementById("notice");
  notice.textContent = text;
  clearTimeout(notify.timer);
  notify.timer = setTimeout(() => { notice.textContent = ""; }, 6000);
}

/** An answer; what changes nothing is asked again where the network fails for a moment. */
async function fetched(path, options, changes) {
  for (let left = changes ? 0 : 4; ; left--) {
    try {
      return await fetch(path, options);
    } catch {
      if (!left) throw new Error("The hub cannot be reached");
      await new Promise((done) => setTimeout(done, 500));
    }
  }
}

/** An answer of the portal and what it holds; throws an Error with what the hub said. */
async function exchange(method, path, body, headers = {}) {
  const answer = await fetched(path, {
    method,
    headers: { "content-type": "application/json", "x-csrf-token": session.csrf ?? "", ...headers },
    body: body === undefined ? undefined : JSON.stringify(body),
  }, method !== "GET" && !path.endsWith("/devices/query"));
  const text = await answer.text();
  const value = text ? JSON.parse(text) : null;
  if (!answer.ok) {
    if (answer.status === 401 && session.user) window.dispatchEvent(new Event("signed-out"));
    const error = new Error(value?.Message ?? `the hub answered ${answer.status}`);
    error.status = answer.status;
    throw error;
  }
  return [answer, value];
}

export const request = async (...all) => (await exchange(...all))[1];

/** A page of a query's results: at most `size` items after the place `after`, and the place after them. */
export async function query(text, size, after) {
  const headers = { "x-ms-max-item-count": size, ...(after ? { "x-ms-continuation": after } : {}) };
  const [answer, items] = await exchange("POST", "/portal/api/hub/devices/query", { query: text }, headers);
  return { items, after: answer.headers.get("x-ms-continuation") };
}

export const hub = (method, path, body, headers) => request(method, `/portal/api/hub${path}`, body, headers);

export const device = (id) => encodeURIComponent(id);

export async function call(id, methodName, payload) {
  const answer = await hub("POST", `/twins/${device(id)}/modules/%24edgeAgent/methods`,
    { methodName, payload, responseTimeoutInSeconds: 30, connectTimeoutInSeconds: 5 });
  return answer;
}

/** A form whose handler's failure is shown in it; the handler gets it, and the value of the button. */
export function form(attributes, handler, ...children) {
  const error = el("p", { class: "error", role: "alert" });
  const node = el("form", { ...attributes, novalidate: true }, ...children, error);
  node.addEventListener("submit", async (event) => {
    event.preventDefault();
    error.textContent = "";
    const buttons = node.querySelectorAll("button[type=submit]");
    for (const button of buttons) button.disabled = true;
    try {
      await handler(node, event.submitter?.value);
    } catch (failure) {
      error.textContent = failure.message;
    } finally {
      for (const button of buttons) button.disabled = false;
    }
  });
  return node;
}

export const when = (text) => (!text || text.startsWith("0001") ? "never" : text.replace("T", " ").slice(0, 19) + " UTC");

/** Text that parses as JSON, or an Error that names the field. */
export function json(text, name) {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new Error(`${name} is no valid JSON: ${error.message}`);
  }
}
