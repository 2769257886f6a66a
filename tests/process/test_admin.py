"""Administration of one node: health, metrics, version and configuration, by RPC over REST, by health path and metrics port."""
import http.client

from lib.uccp import NodeTest
from lib.wait import wait_until


class Administration(NodeTest):
    agent = False

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        # A node is ready before the groups of the bus have a leader.
        wait_until(lambda: cls.node.rest.call("GET", "/health/raft").status == 200, what="all groups to serve")

    def plain(self, path):
        connection = http.client.HTTPConnection(self.node.context["metrics"], timeout=20)
        self.addCleanup(connection.close)
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode()

    def test_health_names_the_parts_of_the_node(self):
        health = self.rest.get("health").json
        self.assertEqual(health["status"], "HEALTHY", health)
        names = {component["name"] for component in health["components"]}
        self.assertLessEqual({"raft", "storage"}, names)

    def test_every_health_path_answers_and_the_detailed_ones_want_a_viewer(self):
        for path in ("/health", "/health/live", "/health/ready", "/health/startup"):
            with self.subTest(path):
                self.assertEqual(self.rest.call("GET", path).json["status"], "UP")
                self.assertEqual(self.plain(path)[0], 200)
        anonymous = self.node.client(token=None)
        for path in ("/health/detailed", "/health/raft", "/health/storage", "/health/cache"):
            with self.subTest(path):
                self.assertEqual(self.rest.call("GET", path).status, 200)
                self.assertEqual(anonymous.call("GET", path).status, 401)
                status, refusal = self.plain(path)
                self.assertEqual(status, 404, "the metrics port has the public ones only")
                self.assertIn("REST", refusal, "and says where the others are")
        raft = self.rest.call("GET", "/health/raft").json
        self.assertEqual(raft["nodeId"], "n1")
        for group in ("core", "work"):
            self.assertEqual(raft["groups"][group]["leader"], "n1")
            self.assertIn("n1", raft["groups"][group]["members"])
            self.assertGreaterEqual(raft["groups"][group]["commitIndex"], raft["groups"][group]["appliedIndex"])

    def test_metrics_are_the_same_by_rpc_and_by_port(self):
        self.rest.get("services")
        status, text = self.plain("/metrics")
        self.assertEqual(status, 200)
        self.assertIn("uccp_http_requests_total", text)
        by_rpc = self.rest.call("GET", "/api/v1/admin/metrics", query={"prefix": "uccp_http_requests"}).json
        self.assertIn("uccp_http_requests_total", by_rpc["text"])
        self.assertNotIn("uccp_raft", by_rpc["text"])

    def test_version_says_what_runs(self):
        version = self.rest.get("version").json
        self.assertRegex(version["version"], r"^\d+\.\d+\.\d+$")
        self.assertTrue(version["commit"])

    def test_configuration_has_every_key_with_its_source_and_no_secret(self):
        settings = {s["name"]: s for s in self.rest.get("config").json["settings"]}
        self.assertIn(settings["grpc_port"]["source"].lower(), ("default", "flag"))
        self.assertGreater(len(settings), 40)
        text = str(self.rest.get("config").json)
        self.assertNotIn("BEGIN", text)
