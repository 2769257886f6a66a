// A program that somebody would write with types made from the document: every path, field and answer is checked by the
// compiler. Takes the address and a token as arguments, prints what it saw as JSON.
import createClient from "openapi-fetch";
import type { components, paths } from "./api.js";

declare const process: { argv: string[]; exit(code: number): never };

const [server, token] = process.argv.slice(2);
if (!server || !token) throw new Error("usage: client SERVER TOKEN");

const client = createClient<paths>({ baseUrl: server, headers: { Authorization: `Bearer ${token}` } });

type Service = components["schemas"]["ServiceRegistration"];
type Problem = components["schemas"]["Problem"];

function must<T>(answer: { data?: T; error?: unknown; response: Response }): T {
  if (answer.data === undefined) throw new Error(`${answer.response.status}: ${JSON.stringify(answer.error)}`);
  return answer.data;
}

const registered: Service = must(
  await client.POST("/api/v1/services", {
    body: { serviceName: "typed", address: "10.1.2.3", port: 8080, labels: { tier: "gold" } },
  }),
);

const found = must(await client.GET("/api/v1/services/discover", { params: { query: { name: "typed" } } }));

const missing = await client.GET("/api/v1/services/{id}", { params: { path: { id: "svc_none" } } });
const problem: Problem | undefined = missing.error;

const names: string[] = [];
let pageToken: string | undefined;
do {
  const page = must(
    await client.GET("/api/v1/services", { params: { query: { pageSize: 1, ...(pageToken ? { pageToken } : {}) } } }),
  );
  for (const service of page.services ?? []) names.push(service.serviceName);
  pageToken = page.nextPageToken || undefined;
} while (pageToken);

const removed = await client.DELETE("/api/v1/services/{id}", { params: { path: { id: registered.id ?? "" } } });

console.log(
  JSON.stringify({
    registered: registered.id,
    found: (found.services ?? []).map((service) => `${service.address}:${service.port} ${service.labels?.["tier"]}`),
    missing: [missing.response.status, problem?.reason],
    names,
    removed: removed.response.status,
  }),
);
