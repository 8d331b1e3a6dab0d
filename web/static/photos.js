// The chosen photos: picked, dropped or pasted, shown in the order in which they are sent. Knows nothing of sending.

import { element, showProblem } from "./elements.js";

const { maxPhotos, maxPhotoBytes } = element("app").dataset;
const picker = element("picker");
const drop = element("drop");

let photos = []; // {file, url}

export const chosenFiles = () => photos.map((photo) => photo.file);

// Throws a problem {title, detail} that names a photo which has changed, moved or gone since it was chosen: a browser
// does not send it, and says no more of it than of a network that is away.
export async function checkPhotos() {
  for (const [index, { file }] of photos.entries()) {
    await file.slice(0, 1).arrayBuffer().catch(() => { throw {
      title: `Photo ${index + 1} (${file.name}) cannot be read any more`,
      detail: "It has changed since, or is gone: remove it here, and choose it again." }; });
  }
}

export function clearPhotos() {
  for (const photo of photos) URL.revokeObjectURL(photo.url);
  photos = [];
  showPhotos();
}

function addPhotos(files, refused = []) {
  for (const file of files) {
    if (photos.length >= Number(maxPhotos)) {
      refused.push(`At most ${maxPhotos} photos can be sent.`);
      break;
    }
    const reason = unfit(file);
    if (reason) refused.push(reason);
    else photos.push({ file, url: URL.createObjectURL(file) });
  }
  showProblem(element("form-problem"),
    refused.length ? { title: "Some photos were left out", detail: refused.join(" ") } : null);
  showPhotos();
}

// Why a file cannot be sent, as far as that can be known without reading it; the service looks at the content.
function unfit(file) {
  if (file.size === 0) return `${file.name} is empty.`;
  if (file.size > Number(maxPhotoBytes)) return `${file.name} is larger than ${maxPhotoBytes / 1e6} MB.`;
  // The type comes from the name; a name that the browser does not know gives none.
  if (file.type && !picker.accept.split(",").includes(file.type)) {
    return `By its name, ${file.name} is not a JPEG, PNG, WebP or AVIF.`;
  }
  return null;
}

function removePhoto(photo) {
  URL.revokeObjectURL(photo.url);
  const at = photos.indexOf(photo);
  photos = photos.filter((other) => other !== photo);
  showProblem(element("form-problem"), null); // it may name a photo by a number that is now another's
  showPhotos();
  const buttons = element("photos").querySelectorAll("button");
  (buttons[Math.min(at, buttons.length - 1)] ?? picker).focus();
}

function showPhotos() {
  element("photos").replaceChildren(...photos.map((photo, index) => {
    const item = element("photo-template").content.cloneNode(true).firstElementChild;
    item.querySelector("img").src = photo.url;
    item.querySelector("img").alt = `Photo ${index + 1}: ${photo.file.name}`;
    const button = item.querySelector("button");
    button.setAttribute("aria-label", `Remove photo ${index + 1}`);
    button.addEventListener("click", () => removePhoto(photo));
    return item;
  }));
}

function takePicked() {
  addPhotos(picker.files);
  picker.value = ""; // so that the same file can be chosen again
}

picker.addEventListener("change", takePicked);
if (picker.files.length) takePicked(); // chosen before this script had loaded

// On the whole page: a file that is dropped beside the box would be opened by the browser in place of the form.
const bringsFiles = (event) => event.dataTransfer.types.includes("Files");
for (const type of ["dragenter", "dragover"]) {
  document.addEventListener(type, (event) => {
    if (!bringsFiles(event)) return;
    event.preventDefault();
    drop.classList.add("over");
  });
}
document.addEventListener("dragleave", (event) => {
  if (event.relatedTarget === null) drop.classList.remove("over"); // out of the window, not to another element
});
document.addEventListener("drop", (event) => {
  if (!bringsFiles(event)) return;
  event.preventDefault();
  drop.classList.remove("over");
  const { files, items } = event.dataTransfer;
  const folders = Array.from(items, (item) => item.webkitGetAsEntry?.()).filter((entry) => entry?.isDirectory);
  const names = folders.map((folder) => folder.name);
  addPhotos([...files].filter((file) => !names.includes(file.name)),
    names.map((name) => `${name} is a folder: drop the photos in it.`));
});

document.addEventListener("paste", (event) => {
  const { files, types } = event.clipboardData;
  // Office programs put a picture of the text beside the text: a field wants the text.
  const isText = types.includes("text/plain") && event.target.matches("input, textarea");
  if (files.length === 0 || isText) return;
  event.preventDefault();
  addPhotos(files);
});
