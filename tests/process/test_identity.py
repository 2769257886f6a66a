"""Tenants, users, roles, policies, sessions, keys and their end, through the command line and REST."""
import base64
import hashlib
import hmac
import http.client
import json
import pathlib
import struct
import tempfile
import time
import uuid

from lib import credentials
from lib.uccp import NodeTest
from lib.wait import wait_until

PASSWORD = "four small words here"


def totp(secret, when=None):
    """The code that an authenticator app shows."""
    key = base64.b32decode(secret + "=" * (-len(secret) % 8))
    mac = hmac.new(key, struct.pack(">Q", int(when or time.time()) // 30), hashlib.sha1).digest()
    at = mac[-1] & 15
    return "%06d" % ((struct.unpack(">I", mac[at:at + 4])[0] & 0x7FFFFFFF) % 1_000_000)


class IdentityTest(NodeTest):
    agent = False

    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="uccp-test-")
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.tenant = "t" + uuid.uuid4().hex[:12]

    def cli(self, *arguments, who="ana", **options):
        """uccp-cli of a person who keeps her session in a file of her own."""
        return self.node.cli(*arguments, environment={"UCCP_SESSION_FILE": str(self.folder / f"{who}.json")}, **options)

    def admin(self, *arguments, **options):
        done = self.node.cli(*arguments, environment={"UCCP_SESSION_FILE": str(self.folder / "nobody.json")}, **options)
        self.assertEqual(done.returncode, 0, done.stderr.decode())
        return done.stdout.decode()

    def call(self, method, path, body=None, token=None, headers=None):
        rest = self.node.client(token=token) if token else self.node.client()
        try:
            return rest.call(method, path, body, headers=headers)
        finally:
            rest.close()

    def create(self, path, body, token=None, tenant=None):
        response = self.call("POST", path + (f"?tenant={tenant}" if tenant else ""), body, token)
        self.assertEqual(response.status, 201, response)
        return response.json

    def make_user(self, name, *roles, tenant=None, password=PASSWORD, **binding):
        tenant = tenant or self.tenant
        self.create("users", {"name": name, "password": password}, tenant=tenant)
        for role in roles:
            self.create("bindings", {"role": role, "members": [name], **binding}, tenant=tenant)

    def make_tenant(self, **fields):
        return self.create("tenants", {"name": self.tenant, **fields})

    def sign_in(self, name, tenant=None, **fields):
        response = self.call("POST", "tokens:signIn", {"name": name, "tenant": tenant or self.tenant,
                                                       "password": PASSWORD, **fields}, token="")
        return response

    def token_of(self, name, **fields):
        response = self.sign_in(name, **fields)
        self.assertEqual(response.status, 200, response)
        return response.json["accessToken"]


class UserPath(IdentityTest):
    """What docs/security.md tells a new user, by the command line alone."""

    def test_from_a_tenant_to_being_allowed(self):
        self.admin("tenant", "create", self.tenant, "--display-name", "Acme")
        self.assertIn(self.tenant, self.admin("tenant", "list"))
        self.admin("user", "create", "ana", "--tenant", self.tenant, "--password", PASSWORD)
        login = self.cli("auth", "login", "ana", "--tenant", self.tenant, stdin=PASSWORD.encode() + b"\n")
        self.assertEqual(login.returncode, 0, login.stderr.decode())
        self.assertIn(f"signed in as ana of the tenant {self.tenant}", login.stdout.decode())
        stored = self.folder / "ana.json"
        self.assertEqual(stored.stat().st_mode & 0o777, 0o600)
        who = json.loads(self.cli("auth", "whoami", "-o", "json").stdout)
        self.assertEqual((who["principal"], who["tenant"], who["credential"]), ("ana", self.tenant, "token"))
        # Denied, with an explanation.
        denied = self.cli("service", "register", "web", "127.0.0.1", "8080")
        self.assertNotEqual(denied.returncode, 0)
        self.assertIn("ana lacks the permission services.write (roles: none)", denied.stderr.decode())
        self.assertIn("uccp-cli auth explain Register", denied.stderr.decode())
        explained = json.loads(self.cli("auth", "explain", "Register", "-o", "json").stdout)
        self.assertFalse(explained.get("allowed", False))
        self.assertEqual(explained["permission"], "services.write")
        # Allowed, by a role of one's own.
        self.admin("role", "create", "registrar", "--tenant", self.tenant, "--permissions", "services.write",
                   "--permissions", "services.read")
        self.admin("binding", "create", "registrar", "ana", "--tenant", self.tenant)
        allowed = self.cli("service", "register", "web", "127.0.0.1", "8080")
        self.assertEqual(allowed.returncode, 0, allowed.stderr.decode())
        explained = json.loads(self.cli("auth", "explain", "Register", "-o", "json").stdout)
        self.assertTrue(explained["allowed"])
        self.assertEqual(explained["rules"][0]["kind"], "binding")
        self.assertTrue(explained["rules"][0]["decided"])
        # The operators see nothing of it in their own tenant.
        self.assertEqual(self.call("GET", "services").json["services"], [])
        out = self.cli("auth", "logout")
        self.assertEqual(out.returncode, 0, out.stderr.decode())
        self.assertFalse(stored.exists())

    def test_a_session_is_refreshed_by_itself(self):
        self.make_tenant()
        self.make_user("ana", "viewer")
        self.cli("auth", "login", "ana", "--tenant", self.tenant, stdin=PASSWORD.encode() + b"\n")
        file = self.folder / "ana.json"
        before = json.loads(file.read_text())
        before["expireUs"] = 1
        file.write_text(json.dumps(before))
        listed = self.cli("service", "list")
        self.assertEqual(listed.returncode, 0, listed.stderr.decode())
        after = json.loads(file.read_text())
        self.assertNotEqual(after["accessToken"], before["accessToken"])
        self.assertNotEqual(after["refreshToken"], before["refreshToken"])
        # Somebody who kept the old refresh token ends the session for both.
        stolen = self.call("POST", "tokens:exchange", {"refreshToken": before["refreshToken"]}, token="")
        self.assert_problem(stolen, 401, "REFRESH_REUSED")
        wait_until(lambda: self.call("GET", "services", token=after["accessToken"]).status == 401, 20, "the end of the session")
        self.assert_problem(self.call("POST", "tokens:exchange", {"refreshToken": after["refreshToken"]}, token=""), 401)


class SigningIn(IdentityTest):
    def setUp(self):
        super().setUp()
        self.make_tenant()

    def test_wrong_names_and_passwords_are_told_the_same(self):
        self.make_user("ana", "viewer")
        self.create("users", {"name": "ci", "kind": "SERVICE_ACCOUNT"}, tenant=self.tenant)
        answers = [self.sign_in("ana", password="not the password"), self.sign_in("nobody"), self.sign_in("ci"),
                   self.sign_in("ana", tenant="no-such-tenant")]
        for answer in answers:
            self.assert_problem(answer, 401, "SIGN_IN_REFUSED")
        self.assertEqual(len({answer.json["detail"] for answer in answers}), 1)
        self.assertEqual(self.sign_in("ana").status, 200)

    def test_guessing_is_slowed_down(self):
        self.make_user("gus")
        reasons = [self.sign_in("gus", password=f"wrong password {i}").reason for i in range(5)]
        self.assertEqual(reasons, ["SIGN_IN_REFUSED"] * 5)
        # The first pause is a second, which may pass between two calls; each guess behind it doubles the next one.
        wait_until(lambda: self.sign_in("gus", password="wrong password").reason == "SIGN_IN_THROTTLED", 30, "a pause")
        refused = self.sign_in("gus")
        self.assert_problem(refused, 429, "SIGN_IN_THROTTLED")
        self.assertGreaterEqual(int(refused.headers["Retry-After"]), 1)

    def test_weak_passwords_are_refused(self):
        for weak in ("short", "aaaaaaaaaaaaaaaa", "abababababababab"):
            response = self.call("POST", f"users?tenant={self.tenant}", {"name": "weak", "password": weak})
            self.assert_problem(response, 400, "PASSWORD_WEAK")
            self.assertNotIn(weak, response.body.decode())

    def test_a_second_factor(self):
        self.make_user("mia", "viewer")
        token = self.token_of("mia")
        enrolled = self.call("POST", "mfa:enroll", {}, token).json
        self.assertTrue(enrolled["uri"].startswith("otpauth://totp/"))
        # It does not count before it is proven.
        self.assertEqual(self.sign_in("mia").status, 200)
        self.assert_problem(self.call("POST", "mfa:confirm", {"code": "000000"}, token), 403, "MFA_CODE_WRONG")
        code = totp(enrolled["secret"])
        self.assertEqual(self.call("POST", "mfa:confirm", {"code": code}, token).status, 200)
        self.assert_problem(self.sign_in("mia"), 401, "MFA_REQUIRED")
        self.assert_problem(self.sign_in("mia", code="000000"), 401, "SIGN_IN_REFUSED")
        # No code twice: the next one is good already, since clocks may differ by a step.
        self.assert_problem(self.sign_in("mia", code=code), 401, "MFA_CODE_USED")
        self.assertEqual(self.sign_in("mia", code=totp(enrolled["secret"], time.time() + 30)).status, 200)
        self.assertTrue(self.call("GET", f"users/mia?tenant={self.tenant}").json["mfaEnabled"])
        self.call("POST", "mfa:remove", {"name": "mia", "tenant": self.tenant})
        self.assertEqual(self.sign_in("mia").status, 200)

    def test_passwords_change(self):
        self.make_user("pia", "viewer")
        token = self.token_of("pia")
        change = {"password": "another four words here"}
        self.assert_problem(self.call("POST", "users/pia:setPassword", {**change, "oldPassword": "wrong one it is"}, token), 403,
                            "OLD_PASSWORD_WRONG")
        self.assertEqual(self.call("POST", "users/pia:setPassword", {**change, "oldPassword": PASSWORD}, token).status, 200)
        self.assert_problem(self.sign_in("pia"), 401)
        self.assertEqual(self.sign_in("pia", password=change["password"]).status, 200)


class Keys(IdentityTest):
    def setUp(self):
        super().setUp()
        self.make_tenant()

    def test_an_api_key_is_shown_once_and_ends_with_its_deletion(self):
        self.create("users", {"name": "ci", "kind": "SERVICE_ACCOUNT"}, tenant=self.tenant)
        self.create("bindings", {"role": "developer", "members": ["ci"]}, tenant=self.tenant)
        first = self.call("POST", f"apikeys?tenant={self.tenant}", {"principal": "ci"}, headers={"Idempotency-Key": "key-1"})
        self.assertEqual(first.status, 201, first)
        again = self.call("POST", f"apikeys?tenant={self.tenant}", {"principal": "ci"}, headers={"Idempotency-Key": "key-1"}).json
        made = first.json
        self.assertEqual(again["apiKey"]["id"], made["apiKey"]["id"])
        self.assertNotIn("key", again)
        key = made["key"]
        self.assertTrue(key.startswith("uccp_key_"))
        who = self.call("GET", "whoami", token=key).json
        self.assertEqual((who["principal"], who["kind"], who["credential"]), ("ci", "service", "apikey"))
        self.assertEqual(self.call("POST", "services", {"serviceName": "s", "address": "1.1.1.1", "port": 1}, token=key).status, 201)
        for wrong in (key[:-1] + ("A" if key[-1] != "A" else "B"), key[:-4], "uccp_key_01J8ZQ4V5K_x", "uccp_", key + "x"):
            self.assert_problem(self.call("GET", "services", token=wrong), 401, "API_KEY_INVALID")
        listed = self.call("GET", f"apikeys?tenant={self.tenant}")
        self.assertNotIn(key.rsplit("_", 1)[1], listed.body.decode())
        self.assertEqual(self.call("DELETE", f"apikeys/{made['apiKey']['id']}?tenant={self.tenant}").status, 204)
        wait_until(lambda: self.call("GET", "services", token=key).status == 401, 1, "the end of the key")

    def test_a_key_for_one_namespace(self):
        self.create("users", {"name": "ci", "kind": "SERVICE_ACCOUNT"}, tenant=self.tenant)
        self.create("bindings", {"role": "developer", "members": ["ci"]}, tenant=self.tenant)
        key = self.create("apikeys", {"principal": "ci", "namespaces": ["blue"]}, tenant=self.tenant)["key"]
        body = {"serviceName": "s", "address": "1.1.1.1", "port": 1}
        self.assertEqual(self.call("POST", "services", {**body, "namespace": "blue"}, token=key).status, 201)
        self.assert_problem(self.call("POST", "services", {**body, "namespace": "red"}, token=key), 403, "NAMESPACE_DENIED")
        # It hands on no more than it has.
        wider = self.call("POST", "tokens:issue", {"namespaces": ["red"]}, token=key)
        self.assert_problem(wider, 403, "NAMESPACE_DENIED")

    def test_signing_keys_rotate_with_an_overlap(self):
        self.make_user("ana", "viewer")
        old = self.token_of("ana")
        before = self.call("GET", "auth/jwks.json", token="").json["keys"]
        rotated = self.call("POST", "signingkeys:rotate", {"overlap": "3600s"}).json["keys"]
        self.assertEqual([k["kid"] for k in rotated[1:]], [k["kid"] for k in before])
        self.assertEqual({k["alg"] for k in rotated}, {"EdDSA"})
        new = self.token_of("ana")
        kids = [json.loads(credentials.unb64url(token.split(".")[0]))["kid"] for token in (old, new)]
        self.assertEqual(kids, [before[0]["kid"], rotated[0]["kid"]])
        for token in (old, new):
            self.assertEqual(self.call("GET", "services", token=token).status, 200)
        self.call("POST", "signingkeys:rotate", {"overlap": "0s"})
        wait_until(lambda: self.call("GET", "services", token=new).status == 401, 20, "the end of a key without overlap")
        # The operators' key is not among them.
        self.assertEqual(self.call("GET", "services").status, 200)


class Revocation(IdentityTest):
    def setUp(self):
        super().setUp()
        self.make_tenant()
        self.make_user("ana", "viewer")

    def assert_ends(self, token, reason):
        wait_until(lambda: self.call("GET", "services", token=token).reason == reason, 1, reason)

    def test_tokens_sessions_users_and_tenants_end_within_a_second(self):
        issued = self.create_token("ana")
        session = self.sign_in("ana").json
        for token in (issued["accessToken"], session["accessToken"]):
            self.assertEqual(self.call("GET", "services", token=token).status, 200)
        self.call("POST", "tokens:revoke", {"tokenId": issued["tokenId"], "reason": "lost"})
        self.assert_ends(issued["accessToken"], "TOKEN_REVOKED")
        self.assertEqual(self.call("GET", "services", token=session["accessToken"]).status, 200)
        self.call("POST", "tokens:signOut", {}, token=session["accessToken"])
        self.assert_ends(session["accessToken"], "TOKEN_REVOKED")
        self.assert_problem(self.call("POST", "tokens:exchange", {"refreshToken": session["refreshToken"]}, token=""), 401)
        third = self.token_of("ana")
        self.call("PATCH", f"users/ana?tenant={self.tenant}", {"disabled": True})
        self.assert_ends(third, "USER_DISABLED")
        self.assert_problem(self.sign_in("ana"), 401, "SIGN_IN_REFUSED")
        self.call("PATCH", f"users/ana?tenant={self.tenant}&updateMask=disabled", {"disabled": False})
        wait_until(lambda: self.call("GET", "services", token=third).status == 200, 20, "the enabled user")
        self.call("PATCH", f"tenants/{self.tenant}", {"status": "SUSPENDED"})
        self.assert_ends(third, "TENANT_SUSPENDED")

    def create_token(self, name):
        response = self.call("POST", "tokens:issue", {"principal": name, "tenant": self.tenant})
        self.assertEqual(response.status, 200, response)
        return response.json

    def test_an_open_stream_ends(self):
        token = self.create_token("ana")
        rest = self.node.client(token=token["accessToken"])
        self.addCleanup(rest.close)
        with rest.stream("services:watch") as stream:
            self.assertEqual(stream.status, 200)
            stream.next()
            self.call("POST", "tokens:revoke", {"tokenId": token["tokenId"]})
            last = list(stream)[-1]
        self.assertIn("TOKEN_REVOKED", json.dumps(last))

    def test_a_certificate_by_its_serial_number(self):
        pki = self.node.dir / "pki"
        cert, key = credentials.client_certificate(self.folder, "vic", pki / "ca.crt", pki / "ca.key", "viewer")
        rest = self.node.client(cert=cert, key=key)
        self.addCleanup(rest.close)
        self.assertEqual(rest.get("services").status, 200)
        serial = credentials.openssl("x509", "-in", cert, "-noout", "-serial").stdout.decode().strip().split("=")[1]
        self.call("POST", "tokens:revoke", {"certificateSerial": serial})

        def is_over():
            """Either the answer says so, on a connection that is about to be closed, or there is no connection any more."""
            try:
                return rest.get("services").reason == "CERTIFICATE_REVOKED"
            except (OSError, http.client.HTTPException):
                return True

        wait_until(is_over, 1, "the end of the certificate")

        def has_no_connection():
            try:
                self.node.client(cert=cert, key=key).get("services")
            except (OSError, http.client.HTTPException):
                return True
            return False  # told so by the answer
        wait_until(has_no_connection, what="the handshake to fail")

    def test_it_survives_a_kill(self):
        issued = self.create_token("ana")["accessToken"]
        claims = json.loads(credentials.unb64url(issued.split(".")[1]))
        self.call("POST", "tokens:revoke", {"tokenId": claims["jti"]})
        self.node.restart()
        self.assert_problem(self.call("GET", "services", token=issued), 401, "TOKEN_REVOKED")
        self.assertEqual(self.sign_in("ana").status, 200)


class Authorization(IdentityTest):
    def setUp(self):
        super().setUp()
        self.make_tenant()

    def services(self, token, namespace="default", status=200):
        response = self.call("GET", f"services?namespace={namespace}", token=token)
        self.assertEqual(response.status, status, response)

    def test_groups_namespaces_and_inheritance(self):
        self.create("roles", {"name": "base", "permissions": ["services.read"]}, tenant=self.tenant)
        self.create("roles", {"name": "lead", "inherits": ["base"], "permissions": ["tasks.read"]}, tenant=self.tenant)
        self.create("users", {"name": "lea", "password": PASSWORD, "groups": ["leads"]}, tenant=self.tenant)
        self.create("bindings", {"role": "lead", "members": ["group:leads"], "namespaces": ["prod"]}, tenant=self.tenant)
        token = self.token_of("lea")
        self.services(token, "prod")
        self.services(token, "default", 403)
        self.assertEqual(self.call("GET", "tasks?namespace=prod", token=token).status, 200)
        # What the role says counts at once.
        self.call("PATCH", f"roles/base?tenant={self.tenant}&updateMask=permissions", {"permissions": ["locks.read"]})
        wait_until(lambda: self.call("GET", "services?namespace=prod", token=token).status == 403, 20, "the changed role")
        circle = self.call("PATCH", f"roles/base?tenant={self.tenant}", {"inherits": ["lead"]})
        self.assert_problem(circle, 412, "ROLE_CIRCLE")
        self.assert_problem(self.call("DELETE", f"roles/base?tenant={self.tenant}"), 412, "ROLE_IN_USE")

    def test_resources(self):
        self.make_user("bob", "developer", resources=["web-*"])
        token = self.token_of("bob")
        for name, status in (("web-1", 200), ("db-1", 403)):
            response = self.call("POST", "locks/" + name + ":try", {"ttl": "10s"}, token=token)
            self.assertEqual(response.status, status, response)

    def test_policies_look_at_the_request_and_forbid_wins(self):
        self.make_user("ana", "developer")
        token = self.token_of("ana")
        text = ('forbid (principal, action == "Register", resource)\n'
                '  when { request.service.port < 1024 && !(context.address in ip "10.0.0.0/8") };')
        set_it = self.call("PUT", f"policies/no-low-ports?tenant={self.tenant}", {"text": text})
        self.assertEqual(set_it.status, 200, set_it)
        body = {"serviceName": "s", "address": "1.1.1.1"}
        wait_until(lambda: self.call("POST", "services", {**body, "port": 80}, token=token).status == 403, 20, "the policy")
        denied = self.call("POST", "services", {**body, "port": 80}, token=token)
        self.assert_problem(denied, 403, "POLICY_FORBIDS")
        self.assertIn("no-low-ports", denied.json["detail"])
        self.assertEqual(self.call("POST", "services", {**body, "port": 8080}, token=token).status, 201)
        # In a batch it is the same call.
        batch = self.call("POST", "batch", {"requests": [{"method": "POST", "path": "/api/v1/services", "body": {**body, "port": 80}}]},
                          token=token)
        self.assertIn("POLICY_FORBIDS", batch.body.decode())
        asked = self.call("POST", "access:explain", {"method": "Register", "request": {"service": {**body, "port": 80}}}, token=token)
        self.assertEqual(asked.json["reason"], "POLICY_FORBIDS", asked)
        self.assertEqual(asked.json["rules"][0]["name"], "no-low-ports:1")
        bad = self.call("PUT", f"policies/bad?tenant={self.tenant}",
                        {"text": 'forbid (principal, action == "Registr", resource);'})
        self.assert_problem(bad, 400, "POLICY_INVALID")
        self.assertIn("line 1, column 30: there is no method 'Registr'; did you mean 'Register'?", bad.json["detail"])

    def test_declared_namespaces(self):
        self.call("PATCH", f"tenants/{self.tenant}", {"declaredNamespacesOnly": True})
        self.make_user("ana", "developer")
        self.create("namespaces", {"name": "team-a"}, tenant=self.tenant)
        token = self.token_of("ana")
        self.services(token, "team-a")
        self.assert_problem(self.call("GET", "services?namespace=team-b", token=token), 403, "NAMESPACE_UNDECLARED")

    def test_nobody_gives_away_more_than_it_has(self):
        self.create("roles", {"name": "helpdesk", "permissions": ["identity.*", "services.read"]}, tenant=self.tenant)
        self.make_user("hel", "helpdesk")
        self.make_user("boss", "admin")
        token = self.token_of("hel")
        refused = [("POST", "bindings", {"role": "admin", "members": ["hel"]}),
                   ("POST", "bindings", {"role": "developer", "members": ["hel"], "namespaces": ["x"]}),
                   ("POST", "roles", {"name": "sneaky", "permissions": ["tasks.write"]}),
                   ("POST", "roles", {"name": "sneaky", "inherits": ["admin"]}),
                   ("PATCH", "roles/helpdesk", {"permissions": ["*"]}),
                   ("POST", "users/boss:setPassword", {"password": "another four words here"}),
                   ("POST", "apikeys", {"principal": "boss"}),
                   ("POST", "tokens:issue", {"principal": "boss"}),
                   ("PUT", "policies/mine", {"text": "permit (principal == \"hel\", action, resource);"})]
        for method, path, body in refused:
            with self.subTest(f"{method} {path}"):
                self.assert_problem(self.call(method, path, body, token=token), 403, "PRIVILEGE_ESCALATION")
        # What she has she may give.
        self.create("bindings", {"role": "helpdesk", "members": ["other"]}, token=token)
        # A group that gives more is as much an escalation.
        self.create("bindings", {"role": "admin", "members": ["group:bosses"]}, tenant=self.tenant)
        self.assert_problem(self.call("PATCH", "users/hel", {"groups": ["bosses"]}, token=token), 403, "PRIVILEGE_ESCALATION")
        self.assert_problem(self.call("POST", "users?tenant=default", {"name": "x"}, token=token), 403, "TENANT_DENIED")


class Tenants(IdentityTest):
    def test_from_taking_in_to_leaving(self):
        self.make_tenant(settings={"plan": "gold"})
        self.make_user("ana", "developer")
        token = self.token_of("ana")
        made = self.call("POST", "services", {"serviceName": "s", "address": "1.1.1.1", "port": 1}, token=token).json
        self.assert_problem(self.call("DELETE", f"tenants/{self.tenant}"), 412, "TENANT_NOT_EMPTY")
        self.call("DELETE", f"services/{made['id']}", token=token)
        self.assertEqual(self.call("DELETE", f"tenants/{self.tenant}").status, 204)
        wait_until(lambda: self.call("GET", "services", token=token).reason == "TENANT_DELETED", 1, "the end of its credentials")
        self.assert_problem(self.call("GET", f"tenants/{self.tenant}"), 404)
        # Its name is never given to another one.
        self.assert_problem(self.call("POST", "tenants", {"name": self.tenant}), 409)
        self.assert_problem(self.call("POST", f"users?tenant={self.tenant}", {"name": "x"}), 404)

    def test_the_operators_tenant_stays(self):
        self.assert_problem(self.call("DELETE", "tenants/default"), 412, "OPERATORS_TENANT")
        self.assert_problem(self.call("PATCH", "tenants/default", {"status": "SUSPENDED"}), 412, "OPERATORS_TENANT")
        self.assert_problem(self.call("POST", "tenants", {"name": "system"}), 409)
        self.assertIn("default", [t["name"] for t in self.call("GET", "tenants").json["tenants"]])

    def test_etags_guard_changes(self):
        etag = self.make_tenant()["etag"]
        changed = self.call("PATCH", f"tenants/{self.tenant}", {"displayName": "A"}, headers={"If-Match": f'"{etag}"'})
        self.assertEqual(changed.status, 200, changed)
        stale = self.call("PATCH", f"tenants/{self.tenant}", {"displayName": "B"}, headers={"If-Match": f'"{etag}"'})
        self.assertEqual(stale.status, 412, stale)

