"""Rate limits by principal, tenant, address and method, and what the answers say about them."""
import unittest

from lib import credentials
from lib.uccp import SERVER, Node, NodeTest, require


class Rates(NodeTest):
    agent = False
    # So slow that no token comes back during the test.
    environment = {"RATE_LIMITS": "principal:read:0.001/20, tenant:write:0.001/14, GetLock:0.001/3, address:0.001/1000"}

    def ask(self, who, path="services", method="GET", body=None, tenant="default"):
        rest = self.node.client(token=credentials.token(self.node.dir / "pki" / "token.key", sub=who, tenant=tenant))
        try:
            return rest.call(method, path, body)
        finally:
            rest.close()

    def until_limited(self, *arguments, **options):
        for count in range(100):
            response = self.ask(*arguments, **options)
            if response.status == 429:
                self.assert_problem(response, 429, "RATE_LIMITED")
                self.assertGreaterEqual(int(response.headers["Retry-After"]), 1)
                self.assertEqual(response.headers["RateLimit-Remaining"], "0")
                self.assertEqual(response.headers["RateLimit-Reset"], response.headers["Retry-After"])
                return count, response
        self.fail("nothing was limited")

    def test_each_principal_has_its_own(self):
        first = self.ask("ann")
        self.assertEqual(first.status, 200)
        # A list costs 2.
        self.assertEqual(first.headers["RateLimit-Remaining"], "18")
        count, response = self.until_limited("ann")
        self.assertEqual(count, 9)
        self.assertIn("by the principal default/ann", response.json["detail"])
        self.assertEqual(self.ask("bea").status, 200)

    def test_a_tenant_shares_one(self):
        body = {"serviceName": "x", "address": "1.1.1.1", "port": 1}
        who = iter(f"user{i}" for i in range(100))
        for _ in range(100):
            response = self.ask(next(who), method="POST", body=body, tenant="shared")
            if response.status == 429:
                break
        self.assert_problem(response, 429, "RATE_LIMITED")
        self.assertIn("by the tenant shared", response.json["detail"])
        self.assertEqual(self.ask("somebody", method="POST", body=body, tenant="another").status, 201)

    def test_a_method_has_its_own(self):
        count, response = self.until_limited("cat", "locks/none")
        self.assertEqual(count, 3)
        self.assertIn("GetLock calls a second", response.json["detail"])
        self.assertEqual(self.ask("cat").status, 200)


class Addresses(NodeTest):
    agent = False
    environment = {"RATE_LIMITS": "address:0.001/12"}

    def test_an_address_also_before_anybody_is_known(self):
        rest = self.node.client(token=None)
        self.addCleanup(rest.close)
        answers = [rest.post("tokens:signIn", {"name": "ann", "password": "wrong"}) for _ in range(4)]
        self.assertEqual([a.reason for a in answers][-1], "RATE_LIMITED")
        self.assertIn("by the address 127.0.0.1", answers[-1].json["detail"])


class Configuration(unittest.TestCase):
    def test_what_is_no_rate_is_refused(self):
        require(SERVER)
        for text in ("principal:write", "tenant:0", "NoSuchMethod:5", "principal:nothing:5", "address:5/x"):
            with self.subTest(text):
                node = Node(agent=False, environment={"RATE_LIMITS": text})
                self.addCleanup(node.close)
                node.launch()
                self.assertNotEqual(node.process.wait(30), 0)
                self.assertIn(text, node.errors())
