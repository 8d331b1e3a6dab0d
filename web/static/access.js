// Calls of the API and the right to make them: on the machine itself the page gets a token; elsewhere a person pastes
// a key once. Knows nothing of products and jobs.

import { element, showProblem } from "./elements.js";

const KEY = "tagsmith.key"; // in sessionStorage: gone when the tab closes
const SENDABLE = /^[\x21-\x7e]+$/; // with anything else in a header fetch fails before it has sent a byte
const SILENCE = { title: "The service does not answer", detail: "Check that it runs, then try again." };
const LATER = { detail: "Try again in a moment." };
const LOST = [409, 500, 502, 504]; // with these the product may have been accepted all the same

const keyForm = element("key-form");
let token = null;

async function access() {
  const key = sessionStorage.getItem(KEY);
  if (key) return key;
  if (token) return token;
  if (element("app").dataset.asksForKey === "false") {
    const response = await fetch("/page/token", { method: "POST" }).catch(() => { throw SILENCE; });
    const body = await bodyOf(response);
    if (response.ok) {
      if (body === undefined) throw SILENCE;
      token = body.token;
      return token;
    }
    // Else no key would help. The product itself was not asked for, so whoever follows one goes on: as without an answer.
    if (![401, 403].includes(response.status)) throw { ...told(response, body ?? LATER), status: undefined };
  }
  keyForm.hidden = false;
  throw { title: "An API key is needed", needsKey: true };
}

const bodyOf = (response) => response.json().catch(() => undefined); // undefined: cut off, or not of this service
const told = ({ status }, body) => ({ title: `The service answered ${status}`, detail: "", ...body, status });

// The document that the API answers with. Throws a problem {title, detail, status, lost, needsKey}: `lost` when the
// request may have been done, `needsKey` when the form that asks for a key is shown.
export async function call(path, options = {}, again = true) {
  const bearer = await access();
  const response = await fetch(path, {
    ...options, headers: { ...options.headers, Authorization: `Bearer ${bearer}` },
  }).catch(() => { throw { ...SILENCE, lost: true }; });
  const { status } = response;
  const needsKey = status === 401;
  if (needsKey) {
    const keyWasOurs = token === bearer;
    sessionStorage.removeItem(KEY);
    token = null;
    if (keyWasOurs && again) return call(path, options, false); // the service was started anew
    keyForm.hidden = false;
  }
  const body = status === 204 ? null : await bodyOf(response);
  if (!response.ok) throw { ...told(response, body), lost: LOST.includes(status), needsKey };
  if (body === undefined) throw { ...SILENCE, lost: true }; // cut off
  return body;
}

keyForm.addEventListener("submit", (event) => {
  event.preventDefault();
  const key = element("key").value.trim();
  if (!SENDABLE.test(key)) {
    showProblem(element("key-problem"), {
      title: "This cannot be a key", detail: "A key has only letters, digits, - and _. Copy it once more." });
    element("key").focus();
    return;
  }
  sessionStorage.setItem(KEY, key);
  element("key").value = "";
  showProblem(element("key-problem"), null);
  showProblem(element("form-problem"), null);
  element("submit").focus(); // what has the focus is about to be hidden
  keyForm.hidden = true;
});
