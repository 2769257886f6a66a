"""Blobs that nothing refers to are removed after their grace; what a task refers to stays, whatever is killed."""
import base64
import hashlib
import time

from lib.uccp import NodeTest
from lib.wait import wait_until

# The grace is the lease and 5 s at least.
FLAGS = ("--worker-lease", "3s", "--heartbeat-interval", "200ms", "--blob-grace", "100ms")
GRACE_S = 8


def digest(text):
    return hashlib.sha256(text.encode()).hexdigest()


class Collection(NodeTest):
    flags = FLAGS

    def stored(self, sha256):
        return (self.node.dir / "blobs" / sha256[:2] / sha256[2:4] / sha256).exists()

    def input_of(self, text):
        return {"path": "in", "data": base64.b64encode(text.encode()).decode()}

    def orphan(self, text):
        """Stores a blob that nothing refers to: the task that would have was refused."""
        known = self.node.run("true")["id"]
        refused = self.rest.post("tasks", {"id": known, "command": ["true"], "inputs": [self.input_of(text)]})
        self.assertEqual((refused.status, refused.reason), (409, "TASK_EXISTS"), refused)
        self.assertTrue(self.stored(digest(text)))
        return digest(text)

    def test_an_orphan_goes_and_inputs_logs_and_artifacts_stay_over_kill_9(self):
        task = self.node.run("cat in; echo artifact > out", inputs=[self.input_of("an input\n")], outputs=["out"])
        self.assertEqual(task["status"], "SUCCEEDED")
        waiting = self.node.submit("cat in", inputs=[self.input_of("of a task that waits\n")], nodeSelector={"no": "such"})
        kept = [digest("an input\n"), digest("artifact\n"), digest("of a task that waits\n")]
        begun = time.monotonic()
        orphan = self.orphan("nobody refers to this")
        self.node.kill_group()
        self.node.start()
        self.assertTrue(self.stored(orphan) or time.monotonic() - begun > GRACE_S)
        wait_until(lambda: not self.stored(orphan), GRACE_S + 20, "the end of the orphan's grace")
        self.node.kill_group()
        self.node.start()
        for sha256 in kept:
            self.assertTrue(self.stored(sha256), sha256)
        self.assertEqual(self.node.log(task["id"]), [b"an input"])
        artifact = self.rest.get(f"tasks/{task['id']}/artifacts/out")
        self.assertEqual((artifact.status, artifact.body), (200, b"artifact\n"))
        self.rest.delete(f"tasks/{waiting['id']}")

    def test_whoever_names_an_old_blob_has_the_grace_anew_and_a_missing_one_is_refused(self):
        sha256 = self.orphan("old but wanted")
        task = self.node.run("cat in", inputs=[{"path": "in", "blob": {"sha256": sha256}}])
        self.assertEqual((task["status"], self.node.log(task["id"])), ("SUCCEEDED", [b"old but wanted"]))
        gone = self.orphan("goes first")
        wait_until(lambda: not self.stored(gone), GRACE_S + 20, "the end of its grace")
        self.assertTrue(self.stored(sha256))
        refused = self.rest.post("tasks", {"command": ["true"], "inputs": [{"path": "in", "blob": {"sha256": gone}}]})
        self.assert_problem(refused, 412, "BLOB_NOT_FOUND")
