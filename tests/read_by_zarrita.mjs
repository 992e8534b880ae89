// Reads arrays with zarrita.js over HTTP. Takes lines of JSON {url, version}; each gives a line {shape, stride,
// dtype, base64}, strides in voxels, or {error}. Byte order is that of the machine. Run by tests/test_server_clients.py.
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const zarr = await import(pathToFileURL(`${process.argv[2]}/node_modules/zarrita/dist/src/index.js`).href);

for await (const line of createInterface({ input: process.stdin })) {
  const { url, version } = JSON.parse(line);
  try {
    const location = zarr.root(new zarr.FetchStore(url));
    const array = await (version === 2 ? zarr.open.v2 : zarr.open.v3)(location, { kind: "array" });
    const chunk = await zarr.get(array);
    const bytes = Buffer.from(chunk.data.buffer, chunk.data.byteOffset, chunk.data.byteLength);
    const { shape, stride } = chunk;
    console.log(JSON.stringify({ shape, stride, dtype: array.dtype, base64: bytes.toString("base64") }));
  } catch (error) {
    console.log(JSON.stringify({ error: String(error?.stack ?? error) }));
  }
}
