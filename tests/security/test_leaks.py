"""Nothing that opens a door is written down: a node at the most talkative level is given every kind of secret, in good
calls and in bad ones, and then all that it says and keeps is searched for them.
"""
import base64
import hashlib
import hmac
import os
import pathlib
import resource
import signal
import struct
import subprocess
import tempfile
import time
import urllib.request

from lib import credentials
from lib.uccp import AGENT, SERVER, NodeTest, clean_environment, require
from lib.wait import wait_until


def totp(secret, when=None):
    key = base64.b32decode(secret + "=" * (-len(secret) % 8))
    mac = hmac.new(key, struct.pack(">Q", int(when or time.time()) // 30), hashlib.sha1).digest()
    at = mac[-1] & 15
    return "%06d" % ((struct.unpack(">I", mac[at:at + 4])[0] & 0x7FFFFFFF) % 1_000_000)


class Leaks(NodeTest):
    agent = AGENT.exists()
    feature_level = 2
    environment = {"LOG_LEVEL": "TRACE", "DNS_TOKEN": "uccp_key_of_dns_in_the_environment"}

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.key = cls.node.dir / "pki" / "token.key"
        cls.secrets = {"a key of the environment": b"uccp_key_of_dns_in_the_environment",
                       "the admin's token": cls.node.context["token"].split(".")[2].encode()}
        # What an error of the server or the command line said.
        cls.said = []
        # Answers that have a secret for who asked for it.
        cls.given = []

    def hide(self, name, secret):
        """Notes a secret that must not be found; answers it."""
        self.assertGreater(len(secret), 7, f"{name} could be found by chance")
        self.secrets[name] = secret if isinstance(secret, bytes) else secret.encode()
        return secret

    def call(self, method, path, body=None, headers=None, good=True, token=None, **options):
        rest = self.node.client(**({"token": token} if token is not None else {}), **options)
        try:
            response = rest.call(method, path, body, headers=headers)
        finally:
            rest.close()
        self.assertEqual(response.status < 300, good, response)
        (self.given if good else self.said).append(response.body)
        return response.json if good and response.body else None

    def cli(self, *arguments, good=True, stdin=b""):
        done = self.node.cli(*arguments, stdin=stdin, environment={"UCCP_SESSION_FILE": str(self.node.base / "session.json")})
        self.assertEqual(done.returncode == 0, good, done)
        self.said += [done.stdout, done.stderr] if not good else [done.stderr]
        return done.stdout

    # --- what secrets there are ---

    def sign_in_and_out(self):
        password = self.hide("a password", "a password of four words")
        other = self.hide("another password", "the next password of five words")
        self.call("POST", "tenants", {"name": "acme"})
        self.call("POST", "users?tenant=acme", {"name": "ana", "password": password})
        self.call("POST", "bindings?tenant=acme", {"role": "admin", "members": ["ana"]})
        who = {"name": "ana", "tenant": "acme"}
        tokens = self.call("POST", "tokens:signIn", {**who, "password": password}, token="")
        self.hide("an access token", tokens["accessToken"].split(".")[2])
        self.hide("a refresh token", tokens["refreshToken"])
        self.call("POST", "tokens:signIn", {**who, "password": self.hide("a wrong password", "not the password of ana")}, token="", good=False)
        self.call("POST", "tokens:signIn", {**who, "passwort": self.hide("a value under a wrong name", "pass under a wrong name")}, token="", good=False)
        self.call("POST", "tokens:signIn", {**who, "password": [self.hide("a value of a wrong type", "pass of a wrong type")]}, token="", good=False)
        self.call("POST", "tokens:signIn?password=" + self.hide("a value in the query", "pass-in-the-query"), who, token="", good=False)
        self.call("POST", "users?tenant=acme", {"name": "bob", "password": self.hide("a weak password", "weakpw-4711")}, good=False)
        enrolled = self.call("POST", "mfa:enroll", {}, token=tokens["accessToken"])
        self.hide("a second factor", enrolled["secret"])
        self.call("POST", "mfa:confirm", {"code": "000000"}, token=tokens["accessToken"], good=False)
        self.call("POST", "mfa:confirm", {"code": totp(enrolled["secret"])}, token=tokens["accessToken"])
        self.call("POST", "users/ana:setPassword", {"oldPassword": password, "password": other}, token=tokens["accessToken"])
        self.call("POST", "tokens:exchange", {"refreshToken": self.hide("a forged refresh token", "uccp_rt_" + "f" * 40)}, token="", good=False)
        fresh = self.call("POST", "tokens:exchange", {"refreshToken": tokens["refreshToken"]}, token="")
        self.hide("a fresh access token", fresh["accessToken"].split(".")[2])
        self.hide("a fresh refresh token", fresh["refreshToken"])
        self.call("POST", "tokens:exchange", {"refreshToken": tokens["refreshToken"]}, token="", good=False)

    def use_keys(self):
        self.call("POST", "users", {"name": "ci", "kind": "SERVICE_ACCOUNT"})
        made = self.call("POST", "apikeys", {"principal": "ci"})
        # What follows its id is the secret; it may have any character of base64url in it.
        key = self.hide("an API key", made["key"][-40:])
        self.call("GET", "services", token=made["key"], good=False)
        self.call("GET", "services", token=made["key"][:-2] + "xx", good=False)
        self.hide("a wrong API key", key[:-2] + "xx")
        issued = self.call("POST", "tokens:issue", {"principal": "ci", "ttl": "60s"})
        self.hide("an issued token", issued["accessToken"].split(".")[2])
        self.call("POST", "signingkeys:rotate", {})
        refused = credentials.token(self.key, aud="other")
        self.hide("a refused token", refused.split(".")[2])
        self.call("GET", "services", token=refused, good=False)
        self.call("POST", "tokens:revoke", {"token": issued["accessToken"]})
        for name, value in (("a basic credential", "Basic " + base64.b64encode(b"admin:basic-password").decode()),
                            ("a strange scheme", "Token strange-scheme-4711"), ("a cut bearer", "Bearer cut.bearer-4711")):
            self.hide(name, value.split(" ")[1])
            self.call("GET", "services", headers={"Authorization": value}, token="", good=False)
        self.call("GET", "services?access_token=" + self.hide("a token in the query", "token-in-the-query-4711"), token="", good=False)

    def use_secrets(self):
        value = self.hide("a secret", "the-value-of-a-secret")
        self.call("PUT", "secrets/one", {"value": value})
        self.call("POST", "secrets/one:access", {})
        self.call("PUT", "secrets/one", {"value": self.hide("a secret that was refused", "refused-value-4711"), "ifMatch": "no"}, good=False)
        self.call("PUT", "secrets/one", {"value": {"base64": self.hide("a secret of a wrong form", "*wrong-form-4711*")}}, good=False)
        self.call("PUT", "secrets/one", {"value": {"text": self.hide("a secret of another wrong form", "other-form-4711")}}, good=False)
        self.call("PUT", "secrets/one?value=" + self.hide("a secret in the query", "secret-in-the-query"), {"value": value}, good=False)
        self.call("POST", "batch", {"requests": [{"method": "PUT", "path": "/api/v1/secrets/two",
                                                  "body": {"value": self.hide("a secret in a batch", "secret-in-a-batch")}},
                                                 {"method": "PUT", "path": "/api/v1/secrets/!bad!",
                                                  "body": {"value": self.hide("a refused secret in a batch", "refused-in-a-batch")}}]})
        self.given.pop()
        broken = self.hide("a secret in a body that is no JSON", "secret-in-broken-json")
        rest = self.node.client()
        response = rest.call("PUT", "secrets/one", f'{{"value":"{broken}'.encode(), headers={"Content-Type": "application/json"})
        self.assertEqual(response.status, 400, response)
        self.said.append(response.body)
        rest.close()
        self.call("POST", "secrets:rotateKeys", {})
        self.cli("secret", "put", "typed", stdin=self.hide("a typed secret", "typed-secret-4711").encode() + b"\n")
        self.cli("secret", "put", "!bad!", self.hide("a refused argument", "refused-argument-4711"), good=False)
        self.cli("secret", "access", "typed")

    def use_tasks(self):
        self.call("POST", "tasks", {"command": ["true"], "env": {"PASSWORD": self.hide("an environment", "env-secret-4711")},
                                    "stdin": base64.b64encode(self.hide("a standard input", b"stdin-secret-4712")).decode()})
        self.call("POST", "tasks", {"command": ["true"], "env": {"bad key": self.hide("a refused environment", "env-secret-4713")}}, good=False)
        if self.agent:
            self.node.run("exit 1", env={"PASSWORD": "env-secret-4711"})

    # --- where they could be ---

    def places(self):
        """Everything that the programs wrote or answer, by name."""
        node = self.node
        found = {file.name: file.read_bytes() for file in (node.error_file, node.output_file, node.dir / "agent.log") if file.exists()}
        with urllib.request.urlopen(f"http://{node.context['metrics']}/metrics", timeout=10) as response:
            found["the metrics"] = response.read()
        for path in ("audit?pageSize=1000", "config", "/health/detailed", "version", "secrets", "users?tenant=acme", "apikeys"):
            response = self.rest.get(path) if "?" not in path else self.rest.call("GET", path)
            self.assertEqual(response.status, 200, response)
            found[f"the answer of {path}"] = response.body
        for at, text in enumerate(self.said):
            found[f"answer {at}: {text[:80]!r}"] = text
        return found

    def test_secrets_are_nowhere(self):
        self.sign_in_and_out()
        self.use_keys()
        self.use_secrets()
        self.use_tasks()
        for key in (self.node.dir / "pki").glob("*.key"):
            self.hide(f"the body of {key.name}", key.read_text().splitlines()[1])
        self.hide("a private key", "PRIVATE KEY-----")
        self.assertGreater(len(self.secrets), 35)
        self.assertGreater(len(self.said), 20)
        # The needles are what they are taken for: the answers that are to have them do.
        everything = b"".join(self.given)
        for name in ("an access token", "a refresh token", "a second factor", "an API key", "an issued token", "a secret"):
            self.assertIn(self.secrets[name], everything, name)
        found = self.places()
        self.assertGreater(len(found["server.err"]), 2000, "nothing was logged: the test looks at nothing")
        self.assertIn(b"AccessSecret", found["the answer of audit?pageSize=1000"])
        for place, text in found.items():
            for name, secret in self.secrets.items():
                for form in {secret, secret.replace(b"/", b"\\/"), base64.b64encode(secret).rstrip(b"=")}:
                    self.assertNotIn(form, text, f"{name} is in {place}")
        # Tasks are kept as they were given, environment and input included; what opens a door is kept by nobody.
        kept = ("an environment", "a standard input")
        self.node.stop()
        for file in self.node.dir.rglob("*"):
            if file.is_file() and file.suffix != ".key" and file.name != "dev.json":
                content = file.read_bytes()
                for name, secret in self.secrets.items():
                    if name not in kept:
                        self.assertNotIn(secret, content, f"{name} is in {file}")


class CoreDumps(NodeTest):
    agent = False

    @classmethod
    def setUpClass(cls):
        require(SERVER)

    def crash(self, *flags):
        """A server whose system would write a core file crashes. Answers whether there is one, and its limit before."""
        folder = tempfile.TemporaryDirectory(prefix="uccp-test-")
        self.addCleanup(folder.cleanup)
        home = pathlib.Path(folder.name)
        most = resource.getrlimit(resource.RLIMIT_CORE)[1]
        if most == 0:
            self.skipTest("the system lets no process write a core file")
        with open(home / "err", "wb") as err:
            process = subprocess.Popen([SERVER, "dev", "--data-dir", home / "data", "--ports", "auto", "--no-agent", *flags], cwd=home,
                                       stdin=subprocess.DEVNULL, stdout=err, stderr=err, env=clean_environment(),
                                       preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CORE, (most, most)))
        wait_until((home / "data" / "dev.json").exists, 60, "the server")
        limits = pathlib.Path(f"/proc/{process.pid}/limits").read_text()
        limit = next(line for line in limits.splitlines() if line.startswith("Max core file size")).split()[4]
        os.kill(process.pid, signal.SIGSEGV)
        _, status = os.waitpid(process.pid, 0)
        process.returncode = status
        self.assertEqual(os.WTERMSIG(status), signal.SIGSEGV)
        return os.WCOREDUMP(status) or any(home.glob("core*")), limit

    def test_there_is_none_unless_it_was_asked_for(self):
        dumped, limit = self.crash()
        self.assertEqual((dumped, limit), (False, "0"))
        dumped, limit = self.crash("--core-dumps", "true")
        self.assertNotEqual(limit, "0")
        pattern = pathlib.Path("/proc/sys/kernel/core_pattern").read_text()
        if not dumped:
            self.skipTest(f"this system writes no core file, whatever is asked for; core_pattern is {pattern!r}")
