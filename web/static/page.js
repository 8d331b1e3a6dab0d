// The page that tags one product: reads the form, sends it to the API, follows the job, shows the tags.
// It knows the API and nothing else; everything that came from outside is written as text, never as markup.

import { call } from "./access.js";
import { element, showProblem } from "./elements.js";
import { checkPhotos, chosenFiles, clearPhotos } from "./photos.js";
import { fillBars, tagElement } from "./tags.js";

const form = element("product-form");
const maxRequestBytes = Number(element("app").dataset.maxRequestBytes);
const JOB = "tagsmith.job"; // in sessionStorage: the job that is followed, so that it is found again after a reload
const WAIT_S = 25; // of one answer; the page asks again until the job ends
const MAX_PAUSE_MS = 10_000; // between two tries while no answer comes
const SENT = "was sent; its tags are not shown here";
const ENDED = { succeeded: "was tagged", failed: "could not be tagged", cancelled: "was cancelled" };

// The submission that was sent last: {fate, isShown, jobId, start}. Clear ends its display, but takes nothing back:
// `fate` says what became of it. The next one begins when this one has ended or is no longer shown.
let last = null;
let unanswered = null; // {parts, key} of the last form that was sent, until it is accepted

// ---- Sending and following

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  if (element("submit").getAttribute("aria-disabled") === "true") return;
  const title = element("title").value.trim();
  const files = chosenFiles();
  showProblem(element("form-problem"), null);
  if (!title && files.length === 0) {
    showProblem(element("form-problem"), { title: "Give a title or a photo", detail: "" });
    element("title").focus();
    return;
  }
  if (files.reduce((sum, file) => sum + file.size, 0) > maxRequestBytes) {
    showProblem(element("form-problem"), {
      title: "The photos are too large together",
      detail: `Remove some: at most ${maxRequestBytes / 1e6} MB can be sent at once.` });
    return;
  }
  const description = element("description").value;
  const body = new FormData();
  body.append("title", title);
  body.append("description", description);
  for (const file of files) body.append("photos", file);
  const key = keyOf([title, description, ...files]);
  const submission = begin({ fate: "is still being sent; its tags will not be shown here", start: performance.now() });
  setStatus("Sending…", true);
  try {
    await checkPhotos();
    const { job } = await call("/v1/products", { method: "POST", body, headers: { "Idempotency-Key": key } });
    if (unanswered?.key === key) unanswered = null; // else it is that of a later form
    settle(submission, SENT);
    if (!submission.isShown) return;
    sessionStorage.setItem(JOB, job.id);
    // On a narrow screen the tags are below the form.
    if (matchMedia("(max-width: 52rem)").matches) element("result-heading").scrollIntoView();
    await follow(job, submission);
  } catch (problem) {
    if (problem instanceof Error) throw problem; // a defect of this page belongs in the console
    settle(submission, problem.lost ? "may have been sent, but no answer came" : "was not sent");
    if (!submission.isShown) return;
    setStatus(problem.lost ? "No answer came. Sent again, it is not taken twice." : "Not sent.", false);
    explain(element("form-problem"), problem, "send the product again");
  }
});

// The same for the same content until it is accepted: an answer that was lost is asked for, and no second product made.
function keyOf(parts) {
  const same = parts.length === unanswered?.parts.length && parts.every((part, n) => part === unanswered.parts[n]);
  if (!same) unanswered = { parts, key: randomKey() };
  return unanswered.key;
}

function begin(submission) {
  last = { ...submission, isShown: true };
  clearResult();
  return last;
}

function settle(submission, fate) {
  submission.fate = fate;
  if (submission === last && !submission.isShown) setStatus(fateOfLast(), false);
}

const fateOfLast = () => last === null ? "Nothing sent yet." : `The product before ${last.fate}.`;

// Whether the same question may be answered later: nobody answered, or only not now.
const passes = ({ status, needsKey }) => status === undefined ? !needsKey : status >= 500 || status === 429;

async function follow(job, submission) {
  let failures = 0;
  submission.jobId = job.id;
  while (submission.isShown) {
    if (job.status in ENDED) {
      sessionStorage.removeItem(JOB);
      submission.fate = ENDED[job.status];
      showJob(job, submission.start);
      return;
    }
    const cancellable = job.status === "queued";
    if (failures === 0) setStatus(stateOf(job), true, cancellable);
    const asked = performance.now();
    try {
      // A short first wait, so that a long queue is shown as one soon.
      job = await call(`/v1/jobs/${job.id}?wait=${job.status === "running" ? WAIT_S : 2}`);
      failures = 0;
      if (submission.isShown) showProblem(element("job-problem"), null); // a Cancel that failed is told by the state
    } catch (problem) {
      if (problem instanceof Error) throw problem;
      if (!submission.isShown) return;
      if (!passes(problem)) {
        if (!problem.needsKey) sessionStorage.removeItem(JOB);
        setStatus("Sent, but its tags cannot be shown.", false);
        explain(element("job-problem"), problem, "load this page again");
        return;
      }
      failures += 1;
      setStatus("Sent. Its tags cannot be asked for right now; trying again…", true, cancellable);
      await pause(Math.min(MAX_PAUSE_MS, 500 * 2 ** failures));
      continue;
    }
    if (!(job.status in ENDED) && performance.now() - asked < 500) await pause(1000); // too many wait: ask calmly
  }
}

element("cancel").addEventListener("click", async () => {
  const submission = last;
  try {
    await call(`/v1/jobs/${submission.jobId}`, { method: "DELETE" });
    settle(submission, ENDED.cancelled);
  } catch (problem) {
    if (problem instanceof Error) throw problem;
    if (submission.isShown) explain(element("job-problem"), problem, "load this page again");
  }
});

form.addEventListener("reset", () => {
  if (last) last.isShown = false;
  sessionStorage.removeItem(JOB);
  clearPhotos();
  showProblem(element("form-problem"), null);
  clearResult();
  setStatus(fateOfLast(), false);
});

// ---- Showing

function stateOf(job) {
  if (job.status === "unknown") return "Asking for the tags of the product sent before…";
  if (job.status === "running") return "Looking at the product…";
  if (!job.position) return "Waiting in the queue…";
  const place = `Waiting in the queue, ${job.position} before it`;
  return job.eta_s === null ? `${place}…` : `${place}, about ${duration(job.eta_s)}…`;
}

// `start` is undefined where this page did not send the product itself.
function showJob(job, start) {
  if (job.status === "succeeded") {
    const tags = `${job.tags.length} ${job.tags.length === 1 ? "tag" : "tags"}`;
    const seconds = (performance.now() - start) / 1000;
    setStatus(start === undefined ? `${tags} of the product sent before.`
      : `${tags} in ${seconds.toFixed(seconds < 10 ? 2 : 0)} s`, false);
    element("tags").replaceChildren(...job.tags.map(tagElement));
    requestAnimationFrame(() => requestAnimationFrame(fillBars));
    element("legend").hidden = job.tags.length === 0;
    if (job.model) element("model").textContent = `Model ${job.model.name}, version ${job.model.version.slice(0, 12)}`;
  } else if (job.status === "cancelled") {
    setStatus("Cancelled.", false);
    if (job.error) showProblem(element("job-problem"), job.error);
  } else {
    setStatus("The product could not be tagged.", false);
    showProblem(element("job-problem"), job.error ?? { title: "The job failed", detail: "" });
  }
}

// While the page works no other product is sent. The button stays enabled for the browser: a disabled one would lose
// the focus, and with it the place of who uses the keyboard.
function setStatus(text, working, cancellable = false) {
  const status = element("status");
  if (status.textContent !== text) status.textContent = text; // a screen reader speaks whatever is written here
  status.classList.toggle("working", working);
  element("submit").setAttribute("aria-disabled", String(working));
  const button = element("cancel");
  if (!cancellable && document.activeElement === button) element("submit").focus({ preventScroll: true });
  button.hidden = !cancellable;
}

// What the API says of keys is for who writes programs.
function explain(place, problem, then) {
  showProblem(place, problem.needsKey ? { ...problem, detail: `Paste a key above, then ${then}.` } : problem);
  if (problem.needsKey) element("key").focus();
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

// ---- Once all of the above is there

const jobBefore = sessionStorage.getItem(JOB);
if (jobBefore) follow({ id: jobBefore, status: "unknown" }, begin({ fate: SENT }));
element("submit").disabled = false;
