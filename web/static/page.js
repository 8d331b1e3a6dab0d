// The page that tags one product: reads the form, sends it to the API, follows the job, shows the tags.
// It knows the API and nothing else; everything that came from outside is written as text, never as markup.

import { fillBars, tagElement } from "./tags.js";

const app = document.getElementById("app");
const limits = {
  photos: Number(app.dataset.maxPhotos),
  photoBytes: Number(app.dataset.maxPhotoBytes),
  requestBytes: Number(app.dataset.maxRequestBytes),
};
const element = (id) => document.getElementById(id);
const form = element("product-form");
const keyForm = element("key-form");
const KEY = "tagsmith.key"; // in sessionStorage: gone when the tab closes
const WAIT_S = 25; // of one answer; the page asks again until the job ends
const MAX_PAUSE_MS = 10_000; // between two tries while no answer comes
const ENDED = ["succeeded", "failed", "cancelled"];
const SILENCE = { title: "The service does not answer", detail: "Check that it runs, then try again." };
const LOST = [409, 500, 502, 504]; // with these the product may have been accepted all the same

let photos = []; // {file, url}
let token = null;
let run = 0; // each submission ends the display of the one before
let unanswered = null; // {parts, key} of the last form that was sent, until it is accepted

// ---- Access: on the machine itself the page gets a token; elsewhere a person pastes a key once.

async function access() {
  const key = sessionStorage.getItem(KEY);
  if (key) return key;
  if (token) return token;
  if (app.dataset.asksForKey === "false") {
    const response = await fetch("/page/token", { method: "POST" }).catch(() => { throw SILENCE; });
    if (response.ok) {
      token = (await response.json()).token;
      return token;
    }
  }
  keyForm.hidden = false;
  throw { title: "An API key is needed", detail: "Paste a key above, then send the product again.", needsKey: true };
}

async function call(path, options = {}, again = true) {
  const bearer = await access();
  const response = await fetch(path, {
    ...options, headers: { ...options.headers, Authorization: `Bearer ${bearer}` },
  }).catch(() => { throw { ...SILENCE, lost: true }; });
  if (response.status === 401) {
    const keyWasOurs = token === bearer;
    sessionStorage.removeItem(KEY);
    token = null;
    if (keyWasOurs && again) return call(path, options, false); // the service was started anew
    keyForm.hidden = false;
  }
  const { status } = response;
  const body = status === 204 ? null : await response.json().catch(() => undefined);
  if (!response.ok) {
    throw { title: `The service answered ${status}`, detail: "", ...body, status, lost: LOST.includes(status) };
  }
  if (body === undefined) throw { ...SILENCE, lost: true }; // cut off
  return body;
}

keyForm.addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem(KEY, element("key").value.trim());
  element("key").value = "";
  keyForm.hidden = true;
  showProblem(element("form-problem"), null);
});

// ---- Photos

function addPhotos(files) {
  const refused = [];
  for (const file of files) {
    if (photos.length >= limits.photos) {
      refused.push(`At most ${limits.photos} photos can be sent.`);
      break;
    }
    if (file.size > limits.photoBytes) {
      refused.push(`${file.name} is larger than ${limits.photoBytes / 1e6} MB.`);
      continue;
    }
    photos.push({ file, url: URL.createObjectURL(file) });
  }
  showProblem(element("form-problem"),
    refused.length ? { title: "Some photos were left out", detail: refused.join(" ") } : null);
  showPhotos();
}

function removePhoto(photo) {
  URL.revokeObjectURL(photo.url);
  const at = photos.indexOf(photo);
  photos = photos.filter((other) => other !== photo);
  showPhotos();
  const buttons = element("photos").querySelectorAll("button");
  (buttons[Math.min(at, buttons.length - 1)] ?? element("picker")).focus();
}

function showPhotos() {
  const list = element("photos");
  list.replaceChildren(...photos.map((photo, index) => {
    const item = element("photo-template").content.cloneNode(true).firstElementChild;
    item.querySelector("img").src = photo.url;
    item.querySelector("img").alt = `Photo ${index + 1}: ${photo.file.name}`;
    const button = item.querySelector("button");
    button.setAttribute("aria-label", `Remove photo ${index + 1}`);
    button.addEventListener("click", () => removePhoto(photo));
    return item;
  }));
}

element("picker").addEventListener("change", (event) => {
  addPhotos(event.target.files);
  event.target.value = ""; // so that the same file can be chosen again
});
const drop = element("drop");
for (const type of ["dragenter", "dragover"]) {
  drop.addEventListener(type, (event) => { event.preventDefault(); drop.classList.add("over"); });
}
for (const type of ["dragleave", "drop"]) {
  drop.addEventListener(type, (event) => { event.preventDefault(); drop.classList.remove("over"); });
}
drop.addEventListener("drop", (event) => addPhotos(event.dataTransfer.files));

// ---- Sending and following

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const title = element("title").value.trim();
  showProblem(element("form-problem"), null);
  if (!title && photos.length === 0) {
    showProblem(element("form-problem"), { title: "Give a title or a photo", detail: "" });
    element("title").focus();
    return;
  }
  const size = photos.reduce((sum, photo) => sum + photo.file.size, 0);
  if (size > limits.requestBytes) {
    showProblem(element("form-problem"), {
      title: "The photos are too large together",
      detail: `Remove some: at most ${limits.requestBytes / 1e6} MB can be sent at once.` });
    return;
  }
  const mine = ++run;
  const description = element("description").value;
  const body = new FormData();
  body.append("title", title);
  body.append("description", description);
  for (const photo of photos) body.append("photos", photo.file);
  const key = keyOf([title, description, ...photos.map((photo) => photo.file)]);
  element("submit").disabled = true;
  clearResult();
  setStatus("Sending…", true);
  const start = performance.now();
  try {
    const accepted = await call("/v1/products", {
      method: "POST", body, headers: { "Idempotency-Key": key } });
    unanswered = null;
    // On a narrow screen the tags are below the form.
    if (matchMedia("(max-width: 52rem)").matches) element("result-heading").scrollIntoView();
    await follow(accepted.job, mine, start);
  } catch (problem) {
    if (problem instanceof Error) throw problem; // a defect of this page belongs in the console
    if (mine === run) {
      setStatus(problem.lost ? "No answer came. Sent again, it is not taken twice." : "Not sent.", false);
      showProblem(element("form-problem"), problem);
      if (problem.needsKey) element("key").focus();
    }
  } finally {
    element("submit").disabled = false;
  }
});

// The same for the same content until it is accepted: an answer that was lost is asked for, and no second product made.
function keyOf(parts) {
  const same = parts.length === unanswered?.parts.length && parts.every((part, n) => part === unanswered.parts[n]);
  if (!same) unanswered = { parts, key: randomKey() };
  return unanswered.key;
}

// Whether the same question may be answered later: nobody answered, or only not now.
const passes = ({ status, needsKey }) => status === undefined ? !needsKey : status >= 500 || status === 429;

async function follow(job, mine, start) {
  let failures = 0;
  while (mine === run) {
    if (ENDED.includes(job.status)) {
      showJob(job, (performance.now() - start) / 1000);
      return;
    }
    const cancellable = job.status === "queued" ? job.id : null;
    if (failures === 0) setStatus(stateOf(job), true, cancellable);
    const asked = performance.now();
    try {
      // A short first wait, so that a long queue is shown as one soon.
      job = await call(`/v1/jobs/${job.id}?wait=${cancellable ? 2 : WAIT_S}`);
      failures = 0;
    } catch (problem) {
      if (problem instanceof Error) throw problem;
      if (mine !== run) return;
      if (!passes(problem)) {
        setStatus("Sent, but its tags cannot be shown.", false);
        showProblem(element("job-problem"), problem);
        if (problem.needsKey) element("key").focus();
        return;
      }
      failures += 1;
      setStatus("Sent. Its tags cannot be asked for right now; trying again…", true, cancellable);
      await pause(Math.min(MAX_PAUSE_MS, 500 * 2 ** failures));
      continue;
    }
    if (!ENDED.includes(job.status) && performance.now() - asked < 500) await pause(1000); // too many wait: ask calmly
  }
}

async function cancel(jobId) {
  try {
    await call(`/v1/jobs/${jobId}`, { method: "DELETE" });
  } catch (problem) {
    if (problem instanceof Error) throw problem;
    showProblem(element("job-problem"), problem);
  }
}

form.addEventListener("reset", () => {
  run += 1;
  for (const photo of photos) URL.revokeObjectURL(photo.url);
  photos = [];
  showPhotos();
  showProblem(element("form-problem"), null);
  clearResult();
  setStatus("Nothing sent yet.", false);
});

// ---- Showing

function stateOf(job) {
  if (job.status === "running") return "Looking at the product…";
  if (!job.position) return "Waiting in the queue…";
  const place = `Waiting in the queue, ${job.position} before it`;
  return job.eta_s === null ? `${place}…` : `${place}, about ${duration(job.eta_s)}…`;
}

function showJob(job, seconds) {
  if (job.status === "succeeded") {
    const count = job.tags.length;
    setStatus(`${count} ${count === 1 ? "tag" : "tags"} in ${seconds.toFixed(seconds < 10 ? 2 : 0)} s`, false);
    element("tags").replaceChildren(...job.tags.map(tagElement));
    requestAnimationFrame(() => requestAnimationFrame(fillBars));
    element("legend").hidden = count === 0;
    if (job.model) element("model").textContent = `Model ${job.model.name}, version ${job.model.version.slice(0, 12)}`;
  } else if (job.status === "cancelled") {
    setStatus("Cancelled.", false);
    if (job.error) showProblem(element("job-problem"), job.error);
  } else {
    setStatus("The product could not be tagged.", false);
    showProblem(element("job-problem"), job.error ?? { title: "The job failed", detail: "" });
  }
}

function setStatus(text, working, cancellable = null) {
  const status = element("status");
  status.textContent = text;
  status.classList.toggle("working", working);
  if (cancellable) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = "Cancel";
    button.addEventListener("click", () => cancel(cancellable));
    status.append(button);
  }
}

function showProblem(place, problem) {
  place.hidden = problem === null;
  if (problem === null) return;
  place.replaceChildren(...[problem.title, problem.detail].filter(Boolean).map((text) => {
    const line = document.createElement("p");
    line.textContent = text;
    return line;
  }));
}

function clearResult() {
  element("tags").replaceChildren();
  element("legend").hidden = true;
  element("model").textContent = "";
  showProblem(element("job-problem"), null);
}

const duration = (s) => s < 60 ? `${Math.max(1, Math.ceil(s))} s` : `${Math.ceil(s / 60)} min`;
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

function randomKey() {
  // crypto.randomUUID exists on https and loopback only; this is there everywhere.
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
