"""Metrics of a node are what its services say: positions of the groups, services, tasks that ended."""
import re

from lib.uccp import NodeTest
from lib.wait import wait_until


class Values(NodeTest):
    def value(self, name, **labels):
        """Of one series; 0 if there is none yet."""
        for line in self.metrics_text().splitlines():
            found = re.fullmatch(rf"{name}(?:\{{(.*)\}})? (\S+)", line)
            if found and all(f'{key}="{value}"' in (found[1] or "") for key, value in labels.items()):
                return float(found[2])
        return 0

    def awaits(self, expected, name, **labels):
        wait_until(lambda: self.value(name, **labels) == expected, 30, f"{name} to be {expected}")

    def register(self, name, port=80):
        answer = self.rest.post("services", {"serviceName": name, "address": "10.0.0.1", "port": port, "ttl": "600s"})
        self.assertEqual(answer.status, 201, answer)
        return answer.json["id"]

    def test_where_a_group_is_grows_with_what_is_written(self):
        self.awaits(1, "uccp_node_state", state="ready")
        state = self.rest.get("/health/raft").json["groups"]["core"]
        self.assertEqual(self.value("uccp_raft_term", group="core"), state["term"])
        before = self.value("uccp_raft_commit_index", group="core")
        self.assertGreater(before, 0)
        self.register("grows")
        wait_until(lambda: self.value("uccp_raft_commit_index", group="core") > before, 30, "the write in the metric")
        self.assertGreaterEqual(self.value("uccp_raft_last_index", group="core"),
                                self.value("uccp_raft_commit_index", group="core"))

    def test_services_are_counted_and_those_that_are_healthy(self):
        before = self.value("uccp_services_registered")
        healthy = self.value("uccp_services_healthy")
        ids = [self.register("counted", port) for port in (1, 2, 3)]
        self.awaits(before + 3, "uccp_services_registered")
        self.awaits(healthy + 3, "uccp_services_healthy")
        self.assertEqual(self.rest.post(f"services/{ids[0]}/heartbeat", {"healthStatus": "UNHEALTHY"}).status, 200)
        self.awaits(healthy + 2, "uccp_services_healthy")
        self.assertEqual(self.value("uccp_services_registered"), before + 3)
        self.assertEqual(self.rest.delete(f"services/{ids[0]}").status, 204)
        self.awaits(before + 2, "uccp_services_registered")

    def test_tasks_that_ended_are_counted_by_how(self):
        before = {status: self.value("uccp_tasks_completed_total", status=status) for status in ("SUCCEEDED", "FAILED")}
        for _ in range(2):
            self.assertEqual(self.node.run("true")["status"], "SUCCEEDED")
        self.assertEqual(self.node.run("exit 3")["status"], "FAILED")
        self.awaits(before["SUCCEEDED"] + 2, "uccp_tasks_completed_total", status="SUCCEEDED")
        self.awaits(before["FAILED"] + 1, "uccp_tasks_completed_total", status="FAILED")
