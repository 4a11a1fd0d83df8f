// @ts-check
// How a WebP picture lies: browsers turn JPEG and PNG upright, but not WebP; the server turns all.

const MOST_CHUNKS = 64;
const ORIENTATION = 0x112; // CIPA DC-008, 4.6.4

/** The orientation in the EXIF chunk of a WebP file (RFC 9649, 2.7), 1 to 8; 1 for all else.
 * @param {Blob} file */
export async function orientationOf(file) {
  const read = async (/** @type {number} */ at, /** @type {number} */ size) =>
    new DataView(await file.slice(at, at + size).arrayBuffer());
  const head = await read(0, 12);
  if (head.byteLength < 12 || name(head, 0) !== "RIFF" || name(head, 8) !== "WEBP") return 1;
  for (let at = 12, chunks = 0; at + 8 <= file.size && chunks < MOST_CHUNKS; chunks++) {
    const chunk = await read(at, 8);
    const size = chunk.getUint32(4, true);
    if (name(chunk, 0) === "EXIF") return orientationIn(await read(at + 8, Math.min(size, 1 << 16)));
    at += 8 + size + (size % 2);
  }
  return 1;
}

/** @param {DataView} view @param {number} at */
function name(view, at) {
  return String.fromCharCode(...[0, 1, 2, 3].map((i) => view.getUint8(at + i)));
}

/** The orientation in a TIFF block, which may stand behind "Exif". @param {DataView} view */
function orientationIn(view) {
  try {
    const start = name(view, 0) === "Exif" ? 6 : 0;
    const little = view.getUint16(start) === 0x4949;
    const first = start + view.getUint32(start + 4, little);
    for (let i = 0; i < view.getUint16(first, little); i++) {
      const entry = first + 2 + 12 * i;
      if (view.getUint16(entry, little) !== ORIENTATION) continue;
      const value = view.getUint16(entry + 8, little);
      return value >= 1 && value <= 8 ? value : 1;
    }
  } catch {
    // RangeError: the block ends too early, and says nothing then.
  }
  return 1;
}

/** The matrix that draws a picture upright into `width` x `height`, which are those of the upright
 * one: for `setTransform`, with the stored picture drawn into 1 x 1.
 * @param {number} orientation @param {number} width @param {number} height
 * @returns {[number, number, number, number, number, number]} */
export function uprightMatrix(orientation, width, height) {
  const [w, h] = [width, height];
  return /** @type {const} */ ([
    [w, 0, 0, h, 0, 0], [-w, 0, 0, h, w, 0], [-w, 0, 0, -h, w, h], [w, 0, 0, -h, 0, h],
    [0, h, w, 0, 0, 0], [0, h, -w, 0, w, 0], [0, -h, -w, 0, w, h], [0, -h, w, 0, 0, h],
  ])[orientation - 1];
}
