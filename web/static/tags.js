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
  if (tag.value === null) {
    // The figures are those of a value that is not offered.
    for (const name of [".tag-value .percent", ".confidence", ".evidence"]) part(name).remove();
  } else {
    part(".tag-value .percent").textContent = percent(tag.confidence);
    setBar(part(".confidence"), tag.confidence);
    setEvidence(part(".from-text"), tag.evidence.text);
    setEvidence(part(".from-photos"), tag.evidence.photos);
  }
  const others = tag.alternatives.filter((other) => other.confidence >= WORTH_NAMING);
  if (others.length) {
    const named = others.map((other) => `${other.value} ${percent(other.confidence)}`);
    part(".alternatives").textContent = `${tag.value === null ? "Closest" : "Or"}: ${named.join(", ")}`;
  }
  return item;
}

function setEvidence(row, probability) {
  const known = probability !== null;
  row.querySelector(".percent").textContent = known ? percent(probability) : "none given";
  setBar(row.querySelector(".bar"), known ? probability : 0);
}

// Hidden from screen readers: the percentage beside it says the same.
function setBar(bar, share) {
  bar.setAttribute("aria-hidden", "true");
  bar.dataset.share = String(Math.min(1, Math.max(0, share)));
}

export function fillBars() {
  for (const bar of document.querySelectorAll("#tags .bar")) {
    bar.firstElementChild.style.width = `${Number(bar.dataset.share) * 100}%`;
  }
}

const percent = (share) => share >= 0.995 && share < 1 ? ">99 %" : `${Math.round(share * 100)} %`;
const words = (name) => name.charAt(0).toUpperCase() + name.slice(1).replaceAll("_", " ");
