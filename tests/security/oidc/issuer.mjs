// An OpenID Connect issuer on a free port: node issuer.mjs FIRST_ALGORITHM
//
// Prints {"issuer": ..., "port": ...} when it listens. Tokens come from the client credentials grant of the clients "ci"
// (resource "uccp") as JWTs. POST /test/rotate?alg=ES256 takes a new signing key of that algorithm in place of the old one.
import http from "node:http";
import { generateKeyPairSync, randomUUID } from "node:crypto";
import Provider from "oidc-provider";

const AUDIENCE = "uccp-tests";

function jwk(alg) {
  const pair = alg === "RS256" ? generateKeyPairSync("rsa", { modulusLength: 2048 })
    : alg === "ES256" ? generateKeyPairSync("ec", { namedCurve: "P-256" })
      : generateKeyPairSync("ed25519");
  return { ...pair.privateKey.export({ format: "jwk" }), kid: randomUUID(), use: "sig", alg };
}

function make(issuer, alg) {
  return new Provider(issuer, {
    jwks: { keys: [jwk(alg)] },
    clients: [{
      client_id: "ci", client_secret: "secret-of-ci", grant_types: ["client_credentials"], redirect_uris: [], response_types: [],
      id_token_signed_response_alg: alg,
    }],
    features: {
      devInteractions: { enabled: false },
      clientCredentials: { enabled: true },
      resourceIndicators: {
        enabled: true,
        defaultResource: () => "urn:uccp",
        getResourceServerInfo: () => ({
          scope: "api", audience: AUDIENCE, accessTokenTTL: 600, accessTokenFormat: "jwt", jwt: { sign: { alg } },
        }),
      },
    },
    extraTokenClaims: () => ({ groups: ["night-shift"], roles: ["admin"], tenant: "elsewhere", sub: "ci" }),
  });
}

const server = http.createServer();
server.listen(0, "127.0.0.1", () => {
  const { port } = server.address();
  const issuer = `http://127.0.0.1:${port}`;
  let provider = make(issuer, process.argv[2] ?? "RS256");
  server.on("request", (request, response) => {
    const url = new URL(request.url, issuer);
    if (url.pathname === "/test/rotate") {
      provider = make(issuer, url.searchParams.get("alg"));
      response.end("rotated\n");
      return;
    }
    provider.callback()(request, response);
  });
  console.log(JSON.stringify({ issuer, port }));
});
