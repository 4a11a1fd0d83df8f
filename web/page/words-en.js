// @ts-check

/** @param {number} n @param {string} one @param {string} many */
const count = (n, one, many) => `${n} ${n === 1 ? one : many}`;
/** Nothing found is ever quite certain: 0.999 is 99 %. @param {number} score */
export const wholePercent = (score) => Math.floor(score * 100 + 1e-6);
/** @param {number} bytes */
export const megabytes = (bytes) => `${+(bytes / 2 ** 20).toFixed(bytes < 2 ** 20 ? 2 : 0)} MB`;

export const en = {
  tagline: "Photos without faces",
  language: "中文",
  languageLabel: "切换到中文",
  help: "Keys",
  api: "For programs",
  startTitle: "Drop photos here",
  startHint: "Faces are found and covered. You decide which.",
  startMore: "Drag in photos or folders, paste a picture, or",
  choosePhotos: "Choose photos",
  chooseFolder: "Choose folder",
  camera: "Camera",
  clear: "Remove all",
  /** @param {number} n */
  clearSure: (n) => `Remove all? What you decided in ${count(n, "photo", "photos")} is not downloaded yet.`,
  dropHere: "Drop to add",
  /** @param {string[]} formats @param {number} bytes @param {number} pixels */
  limits: (formats, bytes, pixels) =>
    `${formats.join(", ")}; up to ${megabytes(bytes)} and ${Math.round(pixels / 1e6)} megapixels each`,
  local: "this machine",
  /** @param {string} place @param {string} by @param {number} threads */
  truth: (place, by, threads) =>
    `Processed on ${place} by ${by}${threads ? ` (${count(threads, "thread", "threads")})` : ""}; nothing is stored.`,
  truthUnknown: "Asking the server…",
  lost: "The server does not answer. Your photos and decisions are safe here; work goes on when it is back.",
  tokenNeeded: "This server asks for an access token.",
  tokenWrong: "The server does not take this token.",
  token: "Access token",
  tokenUse: "Use token",
  photos: "Photos",
  preview: "Preview",
  settings: "How faces are covered",
  progress: "Overall progress",
  /** @param {number} done @param {number} all */
  progressText: (done, all) => (done < all ? `${done} of ${all} ready` : count(all, "photo", "photos")),
  /** @param {string} name */
  remove: (name) => `Remove ${name}`,
  again: "Try again",
  stateWaiting: "Waiting",
  stateDetecting: "Finding faces…",
  stateNoFaces: "No faces found",
  /** @param {number} hidden @param {number} kept */
  stateFaces: (hidden, kept) =>
    [hidden && `${hidden} hidden`, kept && `${kept} visible`].filter(Boolean).join(", "),
  checkRunning: "checking…",
  checkClean: "check passed",
  /** @param {number} n */
  checkLeft: (n) => `${count(n, "face", "faces")} left`,
  saved: "saved",
  viewOriginal: "Original",
  viewResult: "Result",
  viewCompare: "Compare",
  view: "View",
  undo: "Undo",
  redo: "Redo",
  draw: "Draw a box",
  hideAll: "Hide all",
  keepAll: "Keep all",
  details: "Scores and points",
  zoomIn: "Zoom in",
  zoomOut: "Zoom out",
  zoomFit: "Fit",
  compare: "Before and after",
  compareBefore: "Before",
  compareAfter: "After",
  updating: "Updating…",
  previewOld: "This preview could not be updated",
  noPreview: "This browser cannot show the picture. The faces are found and covered all the same.",
  hint: "Click a face to keep or hide it. Drag on empty ground to draw a box.",
  hintTouch: "Tap a face to keep or hide it. Use “Draw a box” for one that was missed.",
  picture: "Faces in this photo",
  /** @param {number} i @param {number} n @param {string} source @param {number | null} score */
  face: (i, n, source, score) =>
    `${source === "drawn" ? "Drawn box" : "Face"} ${i} of ${n}${score === null ? "" : `, ${wholePercent(score)} % certain`}, hide`,
  /** @param {number} score */
  residual: (score) => `Face that the check found, ${wholePercent(score)} % certain: hide`,
  checkTitleClean: "Checked: no face found in the result.",
  checkTitleKept: "Checked: no face found but those you keep.",
  /** @param {number} n */
  checkTitleLeft: (n) => `The check found ${count(n, "face", "faces")} still to be seen.`,
  checkTitleRunning: "Checking the result for faces…",
  /** @param {string} why */
  checkTitleFailed: (why) => `The check could not be made: ${why}`,
  /** @param {number} n */
  hideLeft: (n) => (n === 1 ? "Hide it" : `Hide all ${n}`),
  leaveLeft: "Leave visible",
  profile: "Search",
  profileAccurate: "Accurate",
  profileFast: "Fast",
  profilePrivacy: "Privacy",
  profileAccurateHint: "The usual choice.",
  profileFastHint: "Quicker, nearly as accurate.",
  profilePrivacyHint: "Misses fewer faces, finds more that are none; larger margin.",
  threshold: "Certainty needed",
  /** @param {number} here @param {number} all */
  thresholdCount: (here, all) => `${count(here, "face", "faces")} here, ${all} in all photos. Lower finds more.`,
  method: "Method",
  methodMosaic: "Mosaic",
  methodSolid: "Solid",
  methodBlur: "Blur",
  methodBlurHint: "Blurred faces can be recognised by software. For privacy, take mosaic or solid.",
  strength: "Strength",
  color: "Colour",
  margin: "Margin",
  shape: "Shape",
  shapeEllipse: "Ellipse",
  shapeRectangle: "Rectangle",
  audit: "Audit record with each download",
  auditHint: "A JSON file that says what was done to the photo; no name and no pixel in it.",
  auditSigned: "Signed by this server.",
  auditUnsigned: "Not signed: this server has no key.",
  download: "Download photo",
  downloadAll: "Download all (ZIP)",
  downloadHint: "In full size. Location and camera data are left out.",
  cancel: "Cancel",
  /** @param {string} name */
  downloadOne: (name) => `Covering ${name}…`,
  /** @param {string} name */
  downloadedOne: (name) => `${name} is in your downloads.`,
  /** @param {string} name @param {number} n */
  downloadedLeft: (name, n) => `${name} is in your downloads. The check found ${count(n, "face", "faces")} in it.`,
  /** @param {number} done @param {number} all */
  downloading: (done, all) => `${done} of ${all} photos in the ZIP`,
  /** @param {number} n */
  downloaded: (n) => `${count(n, "photo", "photos")} in unface.zip.`,
  /** @param {string[]} names */
  downloadLeft: (names) => `Faces are still to be seen in ${count(names.length, "photo", "photos")}: ${names.slice(0, 5).join(", ")}${names.length > 5 ? " …" : ""}`,
  /** @param {string[]} names */
  downloadFailed: (names) => `Not in the ZIP: ${names.slice(0, 5).join(", ")}${names.length > 5 ? ` and ${names.length - 5} more` : ""}`,
  downloadStopped: "The download was cancelled; the ZIP is not complete.",
  /** @param {string} why */
  downloadBroke: (why) => `The download failed: ${why}`,
  fileUnknown: "Not a picture.",
  fileEmpty: "The file is empty.",
  fileUnreadable: "The file cannot be read; it may have been moved or changed.",
  fileHeic: "HEIC pictures cannot be read. Save it as JPEG first (iPhone: Settings, Camera, Formats, Most Compatible).",
  /** @param {string} kind @param {string[]} formats */
  fileFormat: (kind, formats) => `${kind.toUpperCase()} files cannot be read. Save it as ${formats.join(", ")} first.`,
  /** @param {number} bytes @param {number} most */
  fileLarge: (bytes, most) => `${megabytes(bytes)}; this server takes up to ${megabytes(most)}.`,
  wrong: "Something went wrong.",
  broke: "The connection broke while the photo was sent.",
  cameraTitle: "Camera",
  cameraTake: "Take picture",
  close: "Close",
  /** @param {number} n */
  cameraTaken: (n) => `${count(n, "picture", "pictures")} taken`,
  cameraStarting: "Starting the camera…",
  cameraRefused: "The camera is blocked for this page. Allow it beside the address, then try again.",
  cameraNone: "No camera was found.",
  cameraBusy: "The camera is in use by another program.",
  cameraInsecure: "Browsers allow the camera only on this machine or over https.",
  helpTitle: "Keys",
  /** @type {[string, string][]} */
  keys: [
    ["Tab", "go to the next face or control"],
    ["Enter, Space", "hide or keep the face"],
    ["← ↑ → ↓", "move the box"],
    ["Shift + ← ↑ → ↓", "make it smaller or larger"],
    ["Delete", "take the box away"],
    ["B", "add a box in the middle of what is seen"],
    ["Ctrl + Z", "undo"],
    ["Ctrl + Shift + Z", "redo"],
    ["1, 2, 3", "original, result, compare"],
    ["+, −, 0", "zoom in, out, fit"],
    ["Page Up, Page Down", "photo before, next photo"],
    ["Esc", "leave what is being drawn or moved"],
  ],
  helpWhere: "Letters and digits work while the picture or one of its faces has the focus.",
  /** @param {string} name @param {string} text */
  announce: (name, text) => `${name}: ${text}`,
  allDone: "All photos are ready.",
};
