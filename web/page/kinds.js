// @ts-check
// What a file is, told by its first bytes: names and types given by the system may be wrong.

const SIGNATURES = /** @type {const} */ ([
  ["jpeg", 0, "\xff\xd8\xff"],
  ["png", 0, "\x89PNG\r\n\x1a\n"],
  ["webp", 8, "WEBP"],
  ["heic", 4, "ftyphei"],
  ["heic", 4, "ftyphev"],
  ["heic", 4, "ftypmif1"],
  ["heic", 4, "ftypmsf1"],
  ["avif", 4, "ftypavi"],
  ["jxl", 0, "\xff\x0a"],
  ["jxl", 4, "JXL \r\n"],
  ["gif", 0, "GIF8"],
  ["tiff", 0, "II*\0"],
  ["tiff", 0, "MM\0*"],
  ["bmp", 0, "BM"],
  ["pdf", 0, "%PDF"],
  ["video", 4, "ftyp"],
]);

const FIRST = 21;
const EXIF = 8; // RFC 9649, 2.7: a flag of VP8X

/** Returns "jpeg", "heic", ... or "unknown". @param {Uint8Array} bytes the first of a file */
export function kindOf(bytes) {
  const text = String.fromCharCode(...bytes.subarray(0, FIRST));
  for (const [kind, at, signature] of SIGNATURES) {
    if (text.startsWith(signature, at)) return kind;
  }
  return "unknown";
}

/**
 * Why a file cannot be taken, as a key of the strings; "" when it can be. `accepted` are the
 * server's formats. `isTurned`: a WebP that browsers may not show upright, as they do a JPEG.
 * @param {Blob} file @param {{formats: string[], maxBytes: number}} limits
 * @returns {Promise<{kind: string, reason: string, isTurned?: boolean}>}
 */
export async function examined(file, { formats, maxBytes }) {
  let bytes;
  try {
    bytes = new Uint8Array(await file.slice(0, FIRST).arrayBuffer());
  } catch {
    return { kind: "unknown", reason: "fileUnreadable" };
  }
  const kind = kindOf(bytes);
  if (bytes.length === 0) return { kind, reason: "fileEmpty" };
  if (kind === "heic") return { kind, reason: "fileHeic" };
  if (kind === "unknown") return { kind, reason: "fileUnknown" };
  if (!formats.includes(kind)) return { kind, reason: "fileFormat" };
  const isTurned = kind === "webp" && bytes[15] === 0x58 && (bytes[20] & EXIF) > 0; // "VP8X"
  return { kind, reason: file.size > maxBytes ? "fileLarge" : "", isTurned };
}
