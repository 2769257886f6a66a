"""Metrics of a node are what its services say: positions of the groups, services, tasks that ended."""
import re
import socket
import ssl

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

    def exactly(self, name):
        """Of the series without labels."""
        found = re.search(rf"^{name} (\S+)$", self.metrics_text(), re.MULTILINE)
        return float(found[1]) if found else 0

    def test_calls_are_counted_and_timed_by_method_and_door(self):
        for door, method, call in (
                ("http", "uccp.v1.ServiceDiscovery/ListServices", lambda: self.rest.get("services")),
                ("grpc", "uccp.v1.WorkerManagement/ListWorkers", lambda: self.node.cli("worker", "list"))):
            with self.subTest(door):
                count = lambda: self.value(f"uccp_{door}_requests_total", method=method, code="ok")
                timed = lambda: self.value(f"uccp_{door}_duration_seconds_count", method=method)
                before = count(), timed()
                for _ in range(3):
                    call()
                wait_until(lambda: (count(), timed()) == (before[0] + 3, before[1] + 3), 30, "three calls more")
                self.assertGreater(self.value(f"uccp_{door}_duration_seconds_sum", method=method), 0)
        refused = self.value("uccp_http_requests_total", method="uccp.v1.ServiceDiscovery/GetServiceMetadata", code="not_found")
        self.assertEqual(self.rest.get("services/nobody").status, 404)
        self.awaits(refused + 1, "uccp_http_requests_total", method="uccp.v1.ServiceDiscovery/GetServiceMetadata",
                    code="not_found")

    def test_open_connections_are_counted(self):
        host, port = self.node.context["grpc"].rsplit(":", 1)
        self.assertGreaterEqual(self.exactly("uccp_grpc_active_connections"), 1, "that of the agent")
        tls = ssl.create_default_context(cafile=self.node.context["ca"])
        tls.set_alpn_protocols(["h2"])
        # So many that those of others, which come and go, do not matter.
        opened = [tls.wrap_socket(socket.create_connection((host, int(port)), timeout=30), server_hostname=host)
                  for _ in range(30)]
        wait_until(lambda: self.exactly("uccp_grpc_active_connections") >= 31, 30, "thirty more")
        for connection in opened:
            connection.close()
        wait_until(lambda: self.exactly("uccp_grpc_active_connections") < 30, 30, "those to be gone")

    def test_tasks_that_ended_are_counted_by_how(self):
        before = {status: self.value("uccp_tasks_completed_total", status=status) for status in ("SUCCEEDED", "FAILED")}
        for _ in range(2):
            self.assertEqual(self.node.run("true")["status"], "SUCCEEDED")
        self.assertEqual(self.node.run("exit 3")["status"], "FAILED")
        self.awaits(before["SUCCEEDED"] + 2, "uccp_tasks_completed_total", status="SUCCEEDED")
        self.awaits(before["FAILED"] + 1, "uccp_tasks_completed_total", status="FAILED")
