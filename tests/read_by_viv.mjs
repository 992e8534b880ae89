// Reads planes of an OME-Zarr image with viv's loader over HTTP, as vizarr does. Takes lines of JSON {url, level, selection};
// each gives a line {levels, labels, shape, dtype, tileSize, channels, width, height, base64}, or {error}. Run by
// tests/test_server_clients.py.
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const { loadOmeZarr } = await import(pathToFileURL(`${process.argv[2]}/node_modules/@vivjs/loaders/dist/index.mjs`).href);

for await (const line of createInterface({ input: process.stdin })) {
  const { url, level, selection } = JSON.parse(line);
  try {
    const { data, metadata } = await loadOmeZarr(url, { type: "multiscales" });
    const { labels, shape, dtype, tileSize } = data[level];
    const { width, height, data: voxels } = await data[level].getRaster({ selection });
    const bytes = Buffer.from(voxels.buffer, voxels.byteOffset, voxels.byteLength);
    const channels = metadata.omero.channels;
    const told = { levels: data.length, labels, shape, dtype, tileSize, channels, width, height };
    console.log(JSON.stringify({ ...told, base64: bytes.toString("base64") }));
  } catch (error) {
    console.log(JSON.stringify({ error: String(error?.stack ?? error) }));
  }
}
