# timeout: 240
"""Scaling groups on a cluster whose leader dies while workers are being started: what waits runs, and all go again."""
import contextlib
import json
import pathlib
import subprocess
import unittest

from lib.cluster import Cluster
from lib.uccp import AGENT, CLI, SERVER, clean_environment, end_process, processes_with, require
from lib.wait import wait_until

WAIT_S = 90
GROUPS = {"groups": [{"name": "small", "max": 3, "worker": {"resources": {"total": {"cpu": 1, "memory": "256Mi"}}}}]}
SETTINGS = {"min_workers": "0", "scaling_metric": "none", "scale_up_delay": "100ms", "scale_down_idle": "1s",
            "scaling_cool_down": "1s"}


class LeaderDies(unittest.TestCase):
    def setUp(self):
        require(SERVER, AGENT, CLI)
        self.cluster = Cluster()
        self.addCleanup(self.close)
        subprocess.run([SERVER, "cluster", "init", "--data-dir", self.cluster.dir, "--nodes", "3", "--ports", "auto"],
                       check=True, capture_output=True, timeout=60, env=clean_environment())
        groups = self.cluster.base / "groups.json"
        groups.write_text(json.dumps(GROUPS))
        settings = {**SETTINGS, "scaling_groups": groups, "scaling_context_file": self.cluster.dir / "cluster.json"}
        for config in self.cluster.dir.glob("n*/uccp.yaml"):
            with open(config, "a") as file:
                file.writelines(f"{key}: {value}\n" for key, value in settings.items())
        self.shared = self.cluster.base / "shared"
        self.shared.mkdir()
        self.shared.chmod(0o777)
        self.cluster.start()

    def close(self):
        self.cluster.stop()
        for pid in self.agents():
            end_process(pid)
        self.cluster.close()

    def agents(self):
        found = []
        for pid in processes_with("/scaled/"):
            with contextlib.suppress(OSError):  # it has ended meanwhile
                line = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
                if f"{self.cluster.dir}/" in line and pathlib.Path(f"/proc/{pid}/comm").read_text().startswith("uccp-agent"):
                    found.append(pid)
        return found

    def instances(self, name):
        return [path.name for path in (self.cluster.dir / name / "scaled").glob("*")]

    def test_workers_of_both_leaders_serve_and_go(self):
        leader = self.cluster.leader("work")
        stays = next(name for name in self.cluster.names() if name != leader)
        rest = self.cluster.patient(stays)
        self.addCleanup(rest.close)
        wait_until(lambda: rest.get("version").json.get("featureLevel", 0) >= 2, WAIT_S, "feature level 2")
        gate = self.shared / "gate"
        script = f"while [ ! -e {gate} ]; do sleep 0.02; done"
        tasks = [rest.post("tasks", {"command": ["sh", "-c", script], "resources": {"cpu": 1, "memory": "32Mi"}}).json["id"]
                 for _ in range(3)]
        wait_until(lambda: self.instances(leader), WAIT_S, "the leader to start a worker")
        self.cluster.kill(leader)
        status = lambda task: rest.get(f"tasks/{task}").json.get("status")
        wait_until(lambda: all(status(task) == "RUNNING" for task in tasks), WAIT_S, "all three tasks to run")
        gate.touch()
        wait_until(lambda: all(status(task) == "SUCCEEDED" for task in tasks), WAIT_S, "all three tasks to end")
        # Those of the dead leader too: they are drained and deregistered, which ends their agents.
        wait_until(lambda: not rest.get("workers").json.get("workers") and not self.agents(), WAIT_S, "all workers to go")
        kinds = {record["method"] for record in rest.get("audit", filter='principal = "autoscaler"', pageSize=1000).json["records"]}
        self.assertLessEqual({"autoscaler.start", "autoscaler.drain", "autoscaler.remove"}, kinds)
