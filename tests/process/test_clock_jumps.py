"""A wall clock that jumps ahead and back: leases, timeouts, pauses and order do not care, and the jump is logged and counted.

The clock of the programs is moved through UCCP_TEST_WALL_OFFSET (src/runtime/real_clock.h)."""
import http.client
import struct
import tempfile

from lib.rest import Rest
from lib.uccp import NodeTest
from lib.wait import wait_until

HOUR_US = 3600 * 1_000_000


class ClockJumps(NodeTest):
    @classmethod
    def setUpClass(cls):
        cls.offset = tempfile.NamedTemporaryFile(prefix="uccp-test-", buffering=0)
        cls.addClassCleanup(cls.offset.close)
        cls.offset.write(struct.pack("=q", 0))
        cls.environment = {"UCCP_TEST_WALL_OFFSET": cls.offset.name}
        super().setUpClass()
        # By certificate: the token begins at a time that is in the future after a jump back.
        context = cls.node.context
        cls.node._rest = Rest(context["https"], context["ca"], cert=context["cert"], key=context["key"])

    def jump(self, hours):
        before = self.jumps()
        self.offset.seek(0)
        self.offset.write(struct.pack("=q", hours * HOUR_US))
        wait_until(lambda: self.jumps() > before, 20, "the jump to be counted")

    def jumps(self):
        connection = http.client.HTTPConnection(self.node.context["metrics"], timeout=20)
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
        connection.close()
        return next(float(line.split()[1]) for line in text.splitlines() if line.startswith("uccp_wall_clock_jumps_total"))

    def test_leases_tasks_and_order_are_intact(self):
        gate = self.node.gate("clock")
        running = self.node.submit(f"{gate.wait}; echo done", timeout="600s")["id"]
        self.node.wait_task(running, "RUNNING")
        queued = self.node.submit("true", nodeSelector={"no": "such"}, queueTimeout="1800s")["id"]
        paused = self.node.submit("exit 1", retry={"maxAttempts": 3, "initialBackoff": "1800s", "jitter": 0})["id"]
        wait_until(lambda: self.node.task(paused)["attempts"] == 1, 20, "the first attempt to fail")
        service = self.rest.post("services", {"serviceName": "s", "address": "10.0.0.1", "port": 1, "ttl": "1800s"}).json["id"]
        epoch = self.rest.get("workers").json["workers"][0]["epoch"]
        revisions = []
        for hours in (2, -3, 1, 0):
            self.jump(hours)
            # A task submitted after the jump runs, and its place in the order is behind all before it.
            task = self.node.run("true")
            self.assertEqual(task["status"], "SUCCEEDED")
            revisions.append(task["revision"])
            again = self.node.run("[ $UCCP_ATTEMPT = 2 ]", retry={"maxAttempts": 2, "initialBackoff": "0.2s", "jitter": 0})
            self.assertEqual((again["status"], again["attempts"]), ("SUCCEEDED", 2))
            timed = self.node.submit("sleep 600", timeout="1s")["id"]
            self.assertEqual(self.node.wait_task(timed)["status"], "TIMED_OUT")
            self.assertEqual((self.node.task(running)["status"], self.node.task(running)["attempts"]), ("RUNNING", 1))
            self.assertEqual(self.node.task(queued)["status"], "QUEUED")
            self.assertEqual(self.node.task(paused)["attempts"], 1)
            self.assertEqual(self.rest.get(f"services/{service}").status, 200)
            worker = self.rest.get("workers").json["workers"][0]
            self.assertEqual((worker["status"], worker["epoch"]), ("READY", epoch))
        self.assertEqual(revisions, sorted(revisions))
        self.assertEqual(len(set(revisions)), len(revisions))
        gate.open()
        ended = self.node.wait_task(running)
        self.assertEqual((ended["status"], ended["attempts"], self.node.log(running)), ("SUCCEEDED", 1, [b"done"]))
        self.assertIn("the wall clock jumped", self.node.errors())

    def test_a_queue_timeout_and_a_ttl_end_when_their_time_has_really_passed(self):
        self.jump(-2)
        queued = self.node.submit("true", nodeSelector={"no": "such"}, queueTimeout="1s")["id"]
        service = self.rest.post("services", {"serviceName": "short", "address": "10.0.0.1", "port": 1, "ttl": "1s"}).json["id"]
        self.assertEqual(self.node.wait_task(queued, timeout=20)["status"], "TIMED_OUT")
        wait_until(lambda: self.rest.get(f"services/{service}").status == 404, 20, "the end of its lease")
