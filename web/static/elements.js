// The parts of the page by their id, and how a problem is written into one of them: as text, never as markup.

export const element = (id) => document.getElementById(id);

export function showProblem(place, problem) {
  place.hidden = problem === null;
  if (problem === null) return;
  place.replaceChildren(...[problem.title, problem.detail].filter(Boolean).map((text) => {
    const line = document.createElement("p");
    line.textContent = text;
    return line;
  }));
}
