"""Who gets in and who does not: tokens, certificates, roles, namespaces, TLS versions, and what the logs give away."""
import json
import pathlib
import re
import socket
import ssl
import struct
import subprocess
import tempfile
import time
import urllib.request

from lib import credentials
from lib.credentials import openssl
from lib.uccp import SERVER, NodeTest, clean_environment
from lib.wait import wait_until


class SecurityTest(NodeTest):
    agent = False

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        folder = tempfile.TemporaryDirectory(prefix="uccp-test-")
        cls.addClassCleanup(folder.cleanup)
        cls.folder = pathlib.Path(folder.name)
        cls.pki = cls.node.dir / "pki"
        cls.key = cls.pki / "token.key"
        cls.key_id = credentials.key_id_of(cls.key)

    def answer(self, token=None, path="services", method="GET", body=None, headers=None, **options):
        rest = self.node.client(token=token, **options)
        try:
            return rest.call(method, path, body, headers=headers)
        finally:
            rest.close()

    def assert_refused(self, token, reason=None):
        response = self.answer(token)
        self.assert_problem(response, 401)
        self.assertIn("Bearer", response.headers["WWW-Authenticate"])
        if reason is not None:
            self.assertEqual(response.reason, reason, response)


class Tokens(SecurityTest):
    def test_a_good_token_is_taken(self):
        # Without this the refusals below could have any cause.
        self.assertEqual(self.answer(credentials.token(self.key)).status, 200)
        header = json.loads(credentials.unb64url(self.node.context["token"].split(".")[0]))
        self.assertEqual(header["kid"], self.key_id)

    def test_no_credentials_and_no_token_are_401(self):
        self.assert_refused(None, "CREDENTIALS_MISSING")
        for value in ("", "Bearer", "Bearer ", "Basic YWRtaW46YWRtaW4=", "Bearer x", "Bearer a.b.c", "Bearer ..",
                      "Bearer " + "a" * 9000):
            with self.subTest(value[:30]):
                self.assert_problem(self.answer(headers={"Authorization": value}), 401)
        for path in ("tasks", "workers", "version", "config", "/health/detailed", "services:watch"):
            with self.subTest(path):
                self.assert_problem(self.answer(path=path), 401, "CREDENTIALS_MISSING")

    def test_times_are_enforced(self):
        now = int(time.time())
        self.assert_refused(credentials.token(self.key, exp=now - 3600), "TOKEN_EXPIRED")
        self.assert_refused(credentials.token(self.key, nbf=now + 3600), "TOKEN_NOT_YET_VALID")
        self.assert_refused(credentials.token(self.key, iat=now + 3600, exp=now + 7200), "TOKEN_NOT_YET_VALID")
        self.assert_refused(credentials.token(self.key, exp=None))
        self.assert_refused(credentials.token(self.key, exp="9999999999"))
        self.assert_refused(credentials.token(self.key, exp=10 ** 18))
        self.assert_refused(credentials.token(self.key, exp=-1))

    def test_a_token_stops_working_when_it_expires_although_it_was_just_used(self):
        # The verifier allows for clocks that differ; this token is already inside that time.
        token, last = None, None
        for skew in (300, 120, 60, 30, 10, 5, 0):
            now = int(time.time())
            candidate = credentials.token(self.key, exp=now - skew + 3)
            if self.answer(candidate).status == 200:
                token, last = candidate, now - skew + 3
                break
        self.assertIsNotNone(token, "no token was taken at all")
        wait_until(lambda: self.answer(token).status == 401, 30, f"the expiry at {last}")

    def test_audience_issuer_tenant_and_subject_are_required(self):
        self.assert_refused(credentials.token(self.key, aud="other"), "TOKEN_AUDIENCE")
        self.assert_refused(credentials.token(self.key, aud=None), "TOKEN_AUDIENCE")
        self.assert_refused(credentials.token(self.key, iss="evil"), "TOKEN_ISSUER")
        self.assert_refused(credentials.token(self.key, tenant=None), "TOKEN_TENANT")
        self.assert_refused(credentials.token(self.key, sub=None))
        self.assert_refused(credentials.token(self.key, roles="admin"))

    def test_the_algorithm_is_not_the_callers_choice(self):
        for algorithm in ("none", "None", "NONE", "", "nOnE"):
            with self.subTest(algorithm):
                self.assert_refused(credentials.unsigned_token(self.key_id, algorithm))
        self.assert_refused(credentials.unsigned_token(self.key_id, "EdDSA"))
        # The public key is no secret: used as one for HMAC it must not open anything.
        public = credentials.public_key_pem(self.key)
        raw = openssl("pkey", "-in", self.key, "-pubout", "-outform", "DER").stdout[-32:]
        for secret in (public, public.strip(), raw, b"", self.key_id.encode()):
            with self.subTest(secret[:20]):
                self.assert_refused(credentials.hs256_token(secret, self.key_id), "TOKEN_ALGORITHM")
        for algorithm in ("RS256", "ES256", "HS512", "EdDSA2"):
            self.assert_refused(credentials.token(self.key, header={"alg": algorithm}), "TOKEN_ALGORITHM")

    def test_the_key_is_not_the_callers_choice(self):
        other = credentials.new_ed25519(self.folder / "other.key")
        jwk = {"kty": "OKP", "crv": "Ed25519", "kid": self.key_id, "x": credentials.b64url(
            openssl("pkey", "-in", other, "-pubout", "-outform", "DER").stdout[-32:])}
        self.assert_refused(credentials.token(other), "TOKEN_SIGNATURE")
        for header in ({"kid": self.key_id}, {"kid": self.key_id, "jwk": jwk}, {"jwk": jwk},
                       {"kid": self.key_id, "jku": "https://127.0.0.1/keys"}, {"kid": self.key_id, "x5c": ["AAAA"]}):
            with self.subTest(sorted(header)):
                self.assert_refused(credentials.token(other, header=header), "TOKEN_SIGNATURE")
        for kid in ("../../../../dev/null", "/dev/null", f"../pki/{self.key.name}", "' OR '1'='1", "", "\0", None, 5,
                    ["a"], {}, "A" * 4000):
            with self.subTest(kid):
                self.assert_refused(credentials.token(self.key, header={"kid": kid}))
        self.assert_refused(credentials.token(self.key, header={"crit": ["exp"]}), "TOKEN_MALFORMED")

    def test_a_changed_token_is_refused(self):
        good = credentials.token(self.key, roles=["viewer"])
        head, payload, signature = good.split(".")
        raised = json.loads(credentials.unb64url(payload))
        raised["roles"] = ["admin"]
        forged = credentials.b64url(json.dumps(raised).encode())
        self.assert_refused(f"{head}.{forged}.{signature}", "TOKEN_SIGNATURE")
        flipped = credentials.b64url(bytes([credentials.unb64url(signature)[0] ^ 1]) + credentials.unb64url(signature)[1:])
        self.assert_refused(f"{head}.{payload}.{flipped}", "TOKEN_SIGNATURE")
        for bad in (f"{head}.{payload}", f"{head}.{payload}.", f"{head}.{payload}.{signature}.", f".{payload}.{signature}",
                    f"{head}.{payload}.{signature}=", good + "A", good.replace(".", "..")):
            with self.subTest(bad[-20:]):
                self.assert_refused(bad)

    def test_a_claim_given_twice_is_refused(self):
        body = json.dumps(credentials.claims(roles=["viewer"]))[:-1] + ', "roles": ["admin"]}'
        head = credentials.b64url(json.dumps({"alg": "EdDSA", "typ": "JWT", "kid": self.key_id}).encode())
        message = f"{head}.{credentials.b64url(body.encode())}"
        signature = credentials.b64url(credentials.sign_ed25519(self.key, message.encode()))
        self.assert_refused(f"{message}.{signature}", "TOKEN_MALFORMED")

    def test_a_bad_token_is_not_saved_by_a_good_certificate(self):
        response = self.answer("bad.token.x", cert=self.pki / "admin.crt", key=self.pki / "admin.key")
        self.assert_problem(response, 401)


class Roles(SecurityTest):
    WRITES = [("POST", "services", {"serviceName": "x", "address": "1.1.1.1", "port": 1}, "services.write"),
              ("DELETE", "services/x", None, "services.write"),
              ("POST", "tasks", {"command": ["true"]}, "tasks.write"),
              ("DELETE", "tasks/x", None, "tasks.write"),
              ("POST", "workers/x:drain", {}, "workers.write")]

    def test_a_viewer_reads_and_does_not_write(self):
        token = credentials.token(self.key, roles=["viewer"], sub="vera")
        for path in ("services", "tasks", "workers"):
            self.assertEqual(self.answer(token, path).status, 200, path)
        for method, path, body, permission in self.WRITES:
            with self.subTest(f"{method} {path}"):
                response = self.answer(token, path, method, body)
                self.assert_problem(response, 403, "PERMISSION_DENIED")
                self.assertIn("vera", response.json["detail"])
                self.assertRegex(response.json["detail"], re.escape(permission.split(".")[0]) + r"\.\w+")
        self.assertEqual(self.rest.get("services").json["services"], [])

    def test_no_role_and_unknown_roles_may_nothing(self):
        for roles in ([], ["nobody"], ["Admin"], ["admin "], ["*"], ["viewer\0admin"]):
            with self.subTest(roles):
                self.assert_problem(self.answer(credentials.token(self.key, roles=roles)), 403, "PERMISSION_DENIED")

    def test_an_agents_credentials_are_no_users(self):
        response = self.answer(cert=self.pki / "agent.crt", key=self.pki / "agent.key", path="tasks", method="POST",
                               body={"command": ["true"]})
        self.assert_problem(response, 403, "PERMISSION_DENIED")

    def test_a_developer_does_not_administer(self):
        token = credentials.token(self.key, roles=["developer"], sub="dora")
        created = self.answer(token, "services", "POST", {"serviceName": "devs", "address": "1.1.1.1", "port": 1})
        self.assertEqual(created.status, 201)
        self.assert_problem(self.answer(token, "config", "PUT", {"settings": [{"name": "a.b", "value": 1}]}), 403)
        self.answer(token, f"services/{created.json['id']}", "DELETE")

    def test_the_namespaces_of_a_token_are_enforced(self):
        token = credentials.token(self.key, namespaces=["team-a"], sub="anna")
        body = {"serviceName": "n", "address": "1.1.1.1", "port": 1}
        made = self.answer(token, "services", "POST", {**body, "namespace": "team-a"})
        self.assertEqual(made.status, 201, made)
        # A request that names no namespace is about the token's own.
        self.assertEqual([s["id"] for s in self.answer(token, "services").json["services"]], [made.json["id"]])
        refused = [("GET", "services?namespace=team-b", None), ("GET", "services?namespace=-", None),
                   ("POST", "services", {**body, "namespace": "team-b"}),
                   ("POST", "services?namespace=team-a", {**body, "namespace": "team-b"}),
                   ("GET", f"services/{made.json['id']}?namespace=team-b", None),
                   ("DELETE", f"services/{made.json['id']}?namespace=default", None),
                   ("POST", "tasks", {"command": ["true"], "namespace": "team-b"}),
                   ("GET", "services:watch?namespace=team-b", None)]
        for method, path, data in refused:
            with self.subTest(f"{method} {path} {data}"):
                response = self.answer(token, path, method, data)
                # Two namespaces in one request are no request at all.
                self.assert_problem(response, 400 if data and "namespace=" in path else 403)
        self.assertEqual(self.answer(token, f"services/{made.json['id']}?namespace=team-a").status, 200)

    def test_a_header_does_not_choose_tenant_or_role(self):
        token = credentials.token(self.key, roles=["viewer"])
        response = self.answer(token, "services", "POST", {"serviceName": "x", "address": "1.1.1.1", "port": 1},
                               headers={"X-Tenant": "other", "X-Roles": "admin", "X-Forwarded-User": "admin",
                                        "X-Forwarded-Client-Cert": "admin"})
        self.assert_problem(response, 403)

    def test_tenants_do_not_see_each_other(self):
        mine = self.rest.post("services", {"serviceName": "t", "address": "9.9.9.9", "port": 1}).json
        other = credentials.token(self.key, tenant="rival", sub="admin")
        self.assert_problem(self.answer(other, f"services/{mine['id']}"), 404)
        self.assertEqual(self.answer(other, "services?namespace=-").json["services"], [])
        self.assertEqual(self.answer(other, "services/discover?name=t&health=any").json.get("services", []), [])
        self.rest.delete(f"services/{mine['id']}")


class SharedSecret(SecurityTest):
    """An issuer whose tokens are signed with HS256, which is off unless it is turned on."""

    SECRET = b"0123456789abcdef0123456789abcdef"
    ISSUER = "https://legacy.example.com"

    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory(prefix="uccp-test-")
        cls.addClassCleanup(folder.cleanup)
        path = pathlib.Path(folder.name) / "secret"
        path.write_bytes(cls.SECRET + b"\n")
        cls.flags = ("--hs256-issuer", cls.ISSUER, "--hs256-key-file", path)
        super().setUpClass()

    def hs256(self, secret=None, **changes):
        return credentials.hs256_token(secret or self.SECRET, "any", **{"iss": self.ISSUER, "sub": "lea", **changes})

    def test_its_tokens_are_taken_and_nothing_else_is(self):
        self.assert_problem(self.answer(self.hs256()), 403, "PERMISSION_DENIED")
        made = self.rest.post("bindings", {"binding": {"role": "viewer", "members": ["lea"]}})
        if made.status != 201:
            made = self.rest.post("bindings", {"role": "viewer", "members": ["lea"]})
        self.assertEqual(made.status, 201, made)
        self.assertEqual(self.answer(self.hs256()).status, 200)
        # What the issuer may not say counts for nothing.
        self.assert_problem(self.answer(self.hs256(sub="eve", roles=["admin"], tenant="other")), 403)
        now = int(time.time())
        for token, reason in ((self.hs256(secret=b"x" * 32), "TOKEN_SIGNATURE"), (self.hs256(exp=now - 3600), "TOKEN_EXPIRED"),
                              (self.hs256(aud="else"), "TOKEN_AUDIENCE"), (self.hs256(iss="uccp"), "TOKEN_ALGORITHM"),
                              (credentials.token(self.key, iss=self.ISSUER), "TOKEN_ALGORITHM"),
                              (credentials.hs256_token(self.SECRET, self.key_id), "TOKEN_ALGORITHM")):
            with self.subTest(reason):
                self.assert_refused(token, reason)
        self.assert_refused(credentials.unsigned_token("any", iss=self.ISSUER), "TOKEN_ALGORITHM")

    def test_the_settings_belong_together_and_are_checked(self):
        short = self.folder / "short"
        short.write_text("tooshort")
        for flags, says in ((["--hs256-issuer", "a"], b"together"), (["--hs256-issuer", "a", "--hs256-key-file", short], b"32 bytes"),
                            (["--hs256-issuer", "uccp", "--hs256-key-file", short], b"keys of its own")):
            with self.subTest(flags):
                done = subprocess.run([SERVER, "dev", "--data-dir", self.folder / "other", "--ports", "auto", "--no-agent", *map(str, flags)],
                                      capture_output=True, timeout=60, env=clean_environment())
                self.assertNotEqual(done.returncode, 0)
                self.assertIn(says, done.stderr)


class Certificates(SecurityTest):
    def test_the_admins_certificate_is_enough(self):
        response = self.answer(cert=self.pki / "admin.crt", key=self.pki / "admin.key")
        self.assertEqual(response.status, 200)

    def test_a_certificate_of_another_authority_is_refused(self):
        ca, ca_key = credentials.new_authority(self.folder)
        same_name = openssl("x509", "-in", self.pki / "ca.crt", "-noout", "-subject", "-nameopt", "RFC2253").stdout
        fake, fake_key = credentials.new_authority(self.folder, same_name.decode().split("CN=")[1].strip())
        for name, authority, key in (("other", ca, ca_key), ("same-name", fake, fake_key)):
            with self.subTest(name):
                cert, cert_key = credentials.client_certificate(self.folder, "admin", authority, key, "admin")
                self.assert_not_let_in(cert, cert_key)

    def assert_not_let_in(self, cert, key):
        """Either the handshake ends or the answer is 401."""
        try:
            response = self.answer(cert=cert, key=key)
        except (ssl.SSLError, ConnectionError, OSError):
            return
        self.assert_problem(response, 401)

    def test_what_a_certificate_says_decides(self):
        ca, ca_key = self.pki / "ca.crt", self.pki / "ca.key"
        good = credentials.client_certificate(self.folder, "vic", ca, ca_key, "viewer")
        self.assertEqual(self.answer(cert=good[0], key=good[1]).status, 200)
        self.assert_problem(self.answer(cert=good[0], key=good[1], method="POST", path="services",
                                        body={"serviceName": "x", "address": "1.1.1.1", "port": 1}), 403)
        nobody = credentials.client_certificate(self.folder, "nobody", ca, ca_key)
        self.assert_problem(self.answer(cert=nobody[0], key=nobody[1]), 403)
        for name, uri in (("anonymous", ""), ("elsewhere", "spiffe://evil/tenant/default/principal/admin"),
                          ("no-tenant", "spiffe://uccp/tenant//principal/admin")):
            with self.subTest(name):
                cert, key = credentials.client_certificate(self.folder, name, ca, ca_key, "admin", uri=uri)
                self.assert_problem(self.answer(cert=cert, key=key), 401, "CERTIFICATE_PRINCIPAL")

    def test_a_servers_certificate_is_no_clients(self):
        cert, key = credentials.client_certificate(self.folder, "server-only", self.pki / "ca.crt", self.pki / "ca.key",
                                                   "admin", usage="serverAuth")
        self.assert_not_let_in(cert, key)

    def test_an_expired_certificate_is_refused(self):
        key, request, cert, conf = (self.folder / f"old.{e}" for e in ("key", "csr", "crt", "ext"))
        openssl("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj",
                "/CN=admin/O=admin", "-keyout", key, "-out", request)
        conf.write_text("extendedKeyUsage=clientAuth\nsubjectAltName=URI:spiffe://uccp/tenant/default/principal/admin\n")
        (self.folder / "index.txt").write_text("")
        (self.folder / "serial").write_text("1000\n")
        (self.folder / "ca.cnf").write_text(
            f"[ca]\ndefault_ca=d\n[d]\ndatabase={self.folder}/index.txt\nserial={self.folder}/serial\n"
            f"new_certs_dir={self.folder}\ndefault_md=sha256\npolicy=p\n[p]\ncommonName=supplied\n"
            "organizationName=optional\n")
        openssl("ca", "-batch", "-config", self.folder / "ca.cnf", "-cert", self.pki / "ca.crt", "-keyfile",
                self.pki / "ca.key", "-in", request, "-out", cert, "-extfile", conf, "-startdate", "20200101000000Z",
                "-enddate", "20200201000000Z", "-notext")
        self.assert_not_let_in(cert, key)

    def test_the_end_of_each_certificate_is_a_metric(self):
        with urllib.request.urlopen(f"http://{self.node.context['metrics']}/metrics", timeout=10) as response:
            text = response.read().decode()
        ends = dict(re.findall(r'uccp_certificate_not_after_seconds\{certificate="(\w+)"\} (\S+)', text))
        for name, file in (("server", "server.crt"), ("authority", "ca.crt")):
            told = openssl("x509", "-in", self.pki / file, "-noout", "-enddate").stdout.decode().strip().split("=")[1]
            self.assertEqual(int(float(ends[name])), int(ssl.cert_time_to_seconds(told)), name)

    def test_the_server_shows_a_certificate_of_its_authority_for_its_host(self):
        for port in ("https", "grpc"):
            done = openssl("s_client", "-connect", self.node.context[port], "-CAfile", self.pki / "ca.crt",
                           "-verify_return_error", "-verify_ip", "127.0.0.1", "-tls1_3", check=False)
            self.assertIn(b"Verify return code: 0 (ok)", done.stdout, port)


class Wires(SecurityTest):
    def test_only_tls_1_3_is_spoken(self):
        for port in ("https", "grpc"):
            new = openssl("s_client", "-connect", self.node.context[port], "-tls1_3", check=False)
            self.assertIn(b"TLSv1.3", new.stdout, port)
            for version in ("-tls1_2", "-tls1_1", "-tls1"):
                with self.subTest(f"{port} {version}"):
                    # Security level 0: it must be the server that refuses, not this client.
                    old = openssl("s_client", "-connect", self.node.context[port], version, "-cipher",
                                  "ALL:@SECLEVEL=0", check=False)
                    self.assertNotEqual(old.returncode, 0)
                    self.assertIn(b"Cipher is (NONE)", old.stdout)
                    # An alert, or the connection closed: not this client's own refusal.
                    self.assertRegex(old.stderr.decode(), "alert|unexpected eof")

    def test_clients_that_go_away_at_once_do_not_end_the_server(self):
        context = ssl.create_default_context(cafile=self.pki / "ca.crt")
        context.set_alpn_protocols(["h2"])
        host, _, port = self.node.context["grpc"].rpartition(":")
        hello = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\x04" + bytes(5)
        ping = b"\0\0\x08\x06\0\0\0\0\0" + bytes(8)
        for _ in range(100):
            raw = socket.create_connection((host, int(port)))
            # A reset, not a close: what the server still writes has no reader.
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            with context.wrap_socket(raw, server_hostname="localhost") as wrapped:
                wrapped.sendall(hello + 20 * ping)
        self.assertIsNone(self.node.process.poll(), self.node.errors()[-2000:])
        self.assertEqual(self.answer(credentials.token(self.key)).status, 200)

    def test_nothing_is_spoken_in_plain_text(self):
        for port in ("https", "grpc"):
            with self.subTest(port):
                host, _, number = self.node.context[port].rpartition(":")
                for request in (b"GET /api/v1/services HTTP/1.1\r\nHost: x\r\n\r\n",
                                b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"):
                    with socket.create_connection((host, int(number)), timeout=10) as plain:
                        plain.sendall(request)
                        answer = b""
                        try:
                            while chunk := plain.recv(4096):
                                answer += chunk
                        except ConnectionError:
                            pass
                        # At most a TLS alert (record type 21).
                        self.assertTrue(answer == b"" or answer[0] == 21, answer[:100])

    def test_the_metrics_port_has_metrics_and_health_only(self):
        base = f"http://{self.node.context['metrics']}"

        def get(path, method="GET"):
            request = urllib.request.Request(base + path, method=method, data=b"{}" if method == "POST" else None)
            try:
                with urllib.request.urlopen(request, timeout=10) as response:
                    return response.status, response.read().decode()
            except urllib.error.HTTPError as error:
                return error.code, error.read().decode()

        status, text = get("/metrics")
        self.assertEqual(status, 200)
        self.assertIn("# TYPE uccp_", text)
        for path in ("/health", "/health/live", "/health/ready"):
            self.assertEqual(get(path)[0], 200, path)
        for path in ("/", "/api/v1/services", "/api/v1/tasks", "/health/detailed", "/openapi.json", "/debug/pprof",
                     "/metrics/../api/v1/services", "/config"):
            with self.subTest(path):
                self.assertEqual(get(path)[0], 404)
        self.assertNotEqual(get("/metrics", "POST")[0], 200)

    def test_a_public_health_path_tells_nothing_about_the_inside(self):
        response = self.answer(path="/health")
        self.assertEqual(response.status, 200)
        for word in ("clusterId", "nodeId", "term", "commitIndex", str(self.node.dir)):
            self.assertNotIn(word, response.body.decode())

    def test_two_ways_of_framing_one_body_are_refused(self):
        host, _, port = self.node.context["https"].rpartition(":")
        context = ssl.create_default_context(cafile=self.node.context["ca"])
        token = self.node.context["token"]
        smuggled = (f"POST /api/v1/services HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n"
                    "Content-Type: application/json\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n"
                    f"0\r\n\r\nGET /api/v1/tasks HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n")
        with socket.create_connection((host, int(port)), timeout=10) as raw, \
                context.wrap_socket(raw, server_hostname="localhost") as tls:
            tls.sendall(smuggled.encode())
            answer = b""
            try:
                while chunk := tls.recv(65536):
                    answer += chunk
            except (OSError, ssl.SSLError):
                pass
        self.assertTrue(answer.startswith(b"HTTP/1.1 400"), answer[:200])
        self.assertNotIn(b'"tasks"', answer)

    def test_a_header_cannot_be_split(self):
        response = self.answer(self.node.context["token"], headers={"X-Request-Id": "a b\tc"})
        self.assertEqual(response.status, 200)
        self.assertRegex(response.headers["X-Request-Id"], r"^[!-~]+$")
        response = self.answer(self.node.context["token"], "services/%0d%0aX-Evil:%201")
        self.assertEqual(response.status, 400)
        self.assertIsNone(response.headers["X-Evil"])


class Logs(NodeTest):
    agent = False

    def test_a_log_line_cannot_be_forged(self):
        rest = self.node.client(token="x\t.y.z")
        rest.call("GET", "tasks/a%0a%7B%22level%22%3A%22FORGED%22%7D")
        rest.close()
        for line in self.node.errors().splitlines():
            self.assertIsInstance(json.loads(line), dict, line)
            self.assertNotEqual(json.loads(line).get("level"), "FORGED")
