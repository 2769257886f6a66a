"""Tokens of an outside OpenID Connect issuer (npm oidc-provider): what they open, rotation of its keys, forgeries."""
import base64
import hashlib
import hmac
import json
import shutil
import subprocess
import unittest
import urllib.error
import urllib.parse
import urllib.request

from lib import credentials
from lib.uccp import CLI, ROOT, SERVER, Node, NodeTest, require
from lib.wait import wait_until

FOLDER = ROOT / "tests" / "security" / "oidc"
AUDIENCE = "uccp-tests"


class Issuer:
    def __init__(self, algorithm="RS256"):
        self.process = subprocess.Popen(["node", "issuer.mjs", algorithm], cwd=FOLDER, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                                        text=True)
        for line in self.process.stdout:
            if line.startswith("{"):
                self.url = json.loads(line)["issuer"]
                return
        raise AssertionError("the issuer did not start")

    def ask(self, path, data=None):
        request = urllib.request.Request(self.url + path, data=urllib.parse.urlencode(data).encode() if data else None)
        request.add_header("Authorization", "Basic " + base64.b64encode(b"ci:secret-of-ci").decode())
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                return response.read().decode()
        except urllib.error.HTTPError as error:
            raise AssertionError(f"the issuer answered {error.code}: {error.read().decode()}") from None

    def token(self):
        return json.loads(self.ask("/token", {"grant_type": "client_credentials", "scope": "api"}))["access_token"]

    def keys(self):
        return json.loads(self.ask("/jwks"))["keys"]

    def rotate(self, algorithm):
        self.ask(f"/test/rotate?alg={algorithm}")

    def stop(self):
        self.process.kill()
        self.process.wait(10)
        self.process.stdout.close()


@unittest.skipUnless(shutil.which("node") and (FOLDER / "node_modules").exists(),
                     "tests/security/oidc/node_modules is made by tools/setup test")
class OutsideIssuer(NodeTest):
    @classmethod
    def setUpClass(cls):
        require(SERVER, CLI)
        cls.issuer = Issuer()
        cls.addClassCleanup(cls.issuer.stop)
        cls.node = Node(agent=False, environment={"AUTH_PROVIDER": "oidc", "OIDC_ISSUER_URL": cls.issuer.url,
                                                  "OIDC_AUDIENCE": AUDIENCE})
        cls.addClassCleanup(cls.node.close)
        cls.node.start()
        made = cls.node.rest.post("bindings", {"role": "viewer", "members": ["group:night-shift"]})
        assert made.status == 201, made

    def ask(self, token, method="GET", path="services", body=None):
        rest = self.node.client(token=token)
        try:
            return rest.call(method, path, body)
        finally:
            rest.close()

    def accepted(self, token):
        wait_until(lambda: self.ask(token).status == 200, 20, "a token of the issuer is taken")

    def test_groups_give_roles_and_nothing_else_of_the_token_does(self):
        token = self.issuer.token()
        self.accepted(token)
        claims = json.loads(credentials.unb64url(token.split(".")[1]))
        self.assertEqual((claims["roles"], claims["tenant"]), (["admin"], "elsewhere"))
        who = self.ask(token, path="whoami").json
        self.assertEqual((who["principal"], who["tenant"], who["credential"], who["groups"]), ("ci", "default", "oidc", ["night-shift"]))
        self.assertEqual(who.get("roles", []), [])
        self.assert_problem(self.ask(token, "POST", "services", {"serviceName": "x", "address": "1.1.1.1", "port": 1}), 403)
        self.assert_problem(self.ask(token, path="users?tenant=elsewhere"), 403)

    def test_forged_tokens_are_refused(self):
        token = self.issuer.token()
        self.accepted(token)
        head, payload, signature = token.split(".")
        header = json.loads(credentials.unb64url(head))
        key = next(k for k in self.issuer.keys() if k["kid"] == header["kid"])
        # The public key is no secret: used as one for HMAC it must not open anything.
        for secret in (json.dumps(key).encode(), credentials.unb64url(key.get("n", key.get("x"))), key["kid"].encode(), b""):
            for algorithm in ("HS256", "none"):
                forged = f"{credentials.b64url(json.dumps({**header, 'alg': algorithm}).encode())}.{payload}"
                mac = hmac.new(secret, forged.encode(), hashlib.sha256).digest() if algorithm == "HS256" else b""
                self.assert_problem(self.ask(f"{forged}.{credentials.b64url(mac)}"), 401, "TOKEN_ALGORITHM")
        # The algorithm of another kind of key, with a known key id.
        for algorithm in {"RS256", "ES256", "EdDSA"} - {key["alg"]}:
            forged = credentials.b64url(json.dumps({**header, "alg": algorithm}).encode())
            self.assert_problem(self.ask(f"{forged}.{payload}.{signature}"), 401, "TOKEN_ALGORITHM")
        # One's own key, named in the header or under the known id.
        own = credentials.new_ed25519(self.node.base / "own.key")
        for more in ({"kid": header["kid"]}, {"jku": self.issuer.url + "/jwks"}, {}):
            forged = credentials.token(own, header=more, iss=self.issuer.url, aud=AUDIENCE, sub="ci")
            self.assert_problem(self.ask(forged), 401)
        # The cluster's own key does not speak for the issuer, nor the other way round.
        operators = self.node.dir / "pki" / "token.key"
        self.assert_problem(self.ask(credentials.token(operators, iss=self.issuer.url, aud=AUDIENCE)), 401)
        changed = {**json.loads(credentials.unb64url(payload)), "groups": ["admins"]}
        self.assert_problem(self.ask(f"{head}.{credentials.b64url(json.dumps(changed).encode())}.{signature}"), 401, "TOKEN_SIGNATURE")

    def test_keys_rotate_through_all_algorithms(self):
        for algorithm in ("ES256", "EdDSA", "RS256"):
            with self.subTest(algorithm):
                before = self.issuer.token()
                self.accepted(before)
                self.issuer.rotate(algorithm)
                after = self.issuer.token()
                self.assertEqual(json.loads(credentials.unb64url(after.split(".")[0]))["alg"], algorithm)
                self.accepted(after)
                # The old key is gone, so is what was remembered of its tokens.
                self.assert_problem(self.ask(before), 401, "TOKEN_SIGNATURE")

    def test_z_an_issuer_that_is_down_locks_nobody_out(self):
        token = self.issuer.token()
        self.accepted(token)
        self.issuer.stop()
        self.assert_problem(self.ask(credentials.token(credentials.new_ed25519(self.node.base / "down.key"), iss=self.issuer.url,
                                                       aud=AUDIENCE)), 401)
        self.assertEqual(self.ask(token).status, 200)


class Configuration(unittest.TestCase):
    def test_oidc_without_an_issuer_is_refused(self):
        require(SERVER)
        node = Node(agent=False, environment={"AUTH_PROVIDER": "oidc"})
        self.addCleanup(node.close)
        node.launch()
        self.assertNotEqual(node.process.wait(30), 0)
        self.assertIn("oidc_issuer_url has to be set", node.errors())

    def test_a_provider_that_is_not_built_is_refused(self):
        require(SERVER)
        node = Node(agent=False, environment={"AUTH_PROVIDER": "saml"})
        self.addCleanup(node.close)
        node.launch()
        self.assertNotEqual(node.process.wait(30), 0)
        self.assertIn("auth_provider 'saml' is not jwt or oidc", node.errors())
