"""A data directory that fills up: changes are refused and say why, reads and deletes go on, nothing acknowledged is lost, and
with room again everything goes on."""
import base64
import os
import shutil
import subprocess
import unittest

from lib.uccp import AGENT, SERVER, Node, require
from lib.wait import wait_until

require(SERVER, AGENT)

MIB = 1 << 20
RESERVED = 32 * MIB


class FullDisk(unittest.TestCase):
    def setUp(self):
        self.node = Node(flags=["--disk-reserved", RESERVED])
        self.addCleanup(shutil.rmtree, self.node.base, ignore_errors=True)
        self.node.dir.mkdir()
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400m,mode=0700", "tmpfs", str(self.node.dir)],
                                 capture_output=True, text=True)
        if mounted.returncode != 0:
            self.skipTest(f"no file system of a given size can be mounted here: {mounted.stderr.strip()}")
        self.addCleanup(subprocess.run, ["umount", "-l", str(self.node.dir)], check=False)
        self.addCleanup(self.node.close)
        # The agent has a directory of its own on another disk, so that it is the server's that is full.
        elsewhere = self.node.base / "agent"
        elsewhere.mkdir(mode=0o700)
        (self.node.dir / "agent").symlink_to(elsewhere)
        self.node.start()
        self.ballast = self.node.dir / "ballast"

    @property
    def rest(self):
        return self.node.rest

    def free(self):
        info = os.statvfs(self.node.dir)
        return info.f_bavail * info.f_frsize

    def fill(self, left):
        """Takes room until `left` bytes are free."""
        with open(self.ballast, "ab") as file:
            os.posix_fallocate(file.fileno(), 0, max(1, file.tell() + self.free() - left))

    def register(self, name):
        return self.rest.post("services", {"serviceName": name, "address": "10.0.0.1", "port": 80, "ttl": "600s"})

    def refused(self, response):
        self.assertEqual((response.status, response.reason), (429, "NO_SPACE"), response)
        self.assertIn("disk", response.json["detail"])
        self.assertIn("Retry-After", response.headers)
        return True

    def is_refusing(self):
        response = self.rest.post("tasks", {"command": ["true"]})
        return response.status != 201 and self.refused(response)

    def test_changes_are_refused_until_there_is_room_and_nothing_is_lost(self):
        gate = self.node.gate("disk")
        running = self.node.submit(f"echo begun; {gate.wait}; echo ended; echo artifact > out", outputs=["out"])["id"]
        self.node.wait_task(running, "RUNNING")
        acknowledged = [self.node.submit("true", nodeSelector={"no": "such"})["id"] for _ in range(20)]
        service = self.register("before").json["id"]
        kept = self.register("kept").json["id"]

        self.fill(RESERVED // 2)
        wait_until(self.is_refusing, 20, "changes to be refused")
        self.refused(self.register("during"))
        data = base64.b64encode(b"x" * 1000).decode()
        self.refused(self.rest.post("tasks", {"command": ["true"], "inputs": [{"path": "in", "data": data}]}))
        self.assertEqual(self.rest.get("/health/ready").status, 200)
        detailed = self.rest.get("/health/detailed").body
        self.assertIn(b"DEGRADED", detailed)

        # Reads, cancels and deletes go on.
        for task in acknowledged:
            self.assertEqual(self.node.task(task)["status"], "QUEUED")
        self.assertEqual(self.rest.delete(f"tasks/{acknowledged[0]}").json["status"], "CANCELLED")
        self.assertEqual(self.rest.delete(f"services/{service}").status, 204)

        # What ends meanwhile keeps its output: the agent has it until the server takes it.
        gate.open()
        wait_until(lambda: self.node.log(running) == [b"begun", b"ended"], 20, "its output, live")
        self.assertEqual(self.node.task(running)["status"], "RUNNING")

        # Killed and started again while nearly full.
        self.node.kill_group()
        self.node.start()
        wait_until(self.is_refusing, 20, "changes to be refused after the restart")
        for task in acknowledged[1:]:
            self.assertEqual(self.node.task(task)["status"], "QUEUED")

        # To the last byte: it may end, and then it says why; it must not lose anything.
        self.node.kill_group()
        self.fill(0)
        self.node.launch()
        wait_until(lambda: self.node.process.poll() is not None or self.node._ready(), 60, "a start, or an end with a reason")
        if self.node.process.poll() is not None:
            self.assertNotEqual(self.node.process.returncode, 0)
            self.assertRegex(self.node.errors()[-3000:], "(?i)no space|disk")
        else:
            self.node.kill_group()
        self.ballast.unlink()
        self.node.start()
        wait_until(lambda: not self.is_refusing(), 20, "changes to be taken again")
        ended = self.node.wait_task(running)
        self.assertEqual((ended["status"], ended["attempts"]), ("SUCCEEDED", 1), ended)
        self.assertEqual(self.node.log(running), [b"begun", b"ended"])
        self.assertEqual(self.rest.get(f"tasks/{running}/artifacts/out").body, b"artifact\n")
        self.assertEqual(self.register("after").status, 201)

        self.node.kill_group()
        self.node.start()
        self.assertEqual(self.node.task(acknowledged[0])["status"], "CANCELLED")
        for task in acknowledged[1:]:
            self.assertEqual(self.node.task(task)["status"], "QUEUED")
        self.assertEqual(self.rest.get(f"services/{kept}").status, 200)
        self.assertEqual(self.rest.get(f"services/{service}").status, 404)
        self.assertEqual(self.node.task(running)["status"], "SUCCEEDED")
