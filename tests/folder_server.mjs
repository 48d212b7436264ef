// A folder's files, for pages of any origin.
import { createReadStream, existsSync, statSync } from "node:fs";
import { createServer } from "node:http";

/** Serves the folder, an URL that ends in a slash; gives its address, and what ends it. */
export async function serve(folder) {
  const server = createServer((request, response) => {
    const file = new URL(`.${request.url}`, folder);
    const head = { "access-control-allow-origin": "*", "access-control-allow-headers": "*" };
    if (!existsSync(file) || !statSync(file).isFile()) return response.writeHead(404, head).end();
    response.writeHead(200, { ...head, "content-length": statSync(file).size });
    if (request.method === "HEAD") return response.end();
    createReadStream(file).pipe(response);
  });
  await new Promise((resolve) => server.listen(0, "localhost", resolve));
  return { url: `http://localhost:${server.address().port}/`, close: () => server.close() };
}
