// How one tag looks. Knows nothing of jobs; what came from outside is written as text, never as markup.

const DECISIONS = { auto: "Auto", review: "Review", abstain: "No value" };
const WORTH_NAMING = 0.005; // an alternative less likely would read "0 %"

export function tagElement(tag) {
  const item = document.getElementById("tag-template").content.cloneNode(true).firstElementChild;
  const part = (selector) => item.querySelector(selector);
  part(".attribute").textContent = words(tag.attribute);
  part(".decision").textContent = DECISIONS[tag.decision] ?? tag.decision;
  part(".decision").classList.add(tag.decision);
  part(".value").textContent = tag.value ?? "No value offered";
  part(".value").classList.toggle("none", tag.value === null);
  part(".tag-value .percent").textContent = percent(tag.confidence);
  setBar(part(".confidence"), tag.confidence, `Confidence ${percent(tag.confidence)}`);
  setEvidence(part(".from-text"), tag.evidence.text, "text");
  setEvidence(part(".from-photos"), tag.evidence.photos, "photos");
  const others = tag.alternatives.filter((other) => other.confidence >= WORTH_NAMING);
  if (others.length) {
    const named = others.map((other) => `${other.value} ${percent(other.confidence)}`);
    part(".alternatives").textContent = `Or: ${named.join(", ")}`;
  }
  return item;
}

function setEvidence(row, probability, source) {
  const known = probability !== null;
  row.querySelector(".percent").textContent = known ? percent(probability) : "none";
  setBar(row.querySelector(".bar"), known ? probability : 0,
    known ? `From the ${source} alone ${percent(probability)}` : `No ${source} given`);
}

function setBar(bar, share, text) {
  bar.setAttribute("role", "img");
  bar.setAttribute("aria-label", text);
  bar.dataset.share = String(Math.min(1, Math.max(0, share)));
}

export function fillBars() {
  for (const bar of document.querySelectorAll("#tags .bar")) {
    bar.firstElementChild.style.width = `${Number(bar.dataset.share) * 100}%`;
  }
}

const percent = (share) => share >= 0.995 && share < 1 ? ">99 %" : `${Math.round(share * 100)} %`;
const words = (name) => name.charAt(0).toUpperCase() + name.slice(1).replaceAll("_", " ");
