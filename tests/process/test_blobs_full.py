# full
# timeout: 300
"""A task that is forgotten takes its blobs with it, but not those that another task refers to or still needs."""
import base64

from lib.uccp import NodeTest
from lib.wait import wait_until
from test_blobs import FLAGS, digest


class Pruned(NodeTest):
    flags = FLAGS

    def stored(self, sha256):
        return (self.node.dir / "blobs" / sha256[:2] / sha256[2:4] / sha256).exists()

    def test_blobs_go_with_the_last_task_that_refers_to_them(self):
        data = base64.b64encode(b"shared\n").decode()
        short = self.node.run("cat in; echo mine > out", inputs=[{"path": "in", "data": data}], outputs=["out"], retention="60s")
        self.node.run("cat in", inputs=[{"path": "in", "data": data}])
        needed = self.node.run("echo needed > out", outputs=["out"], retention="60s")
        waits = self.node.submit("cat in/n", nodeSelector={"no": "such"},
                                 inputs=[{"path": "in/n", "taskOutput": {"taskId": needed["id"], "path": "out"}}])
        wait_until(lambda: self.rest.get(f"tasks/{short['id']}").status == 404, 120, "the end of its retention")
        wait_until(lambda: not self.stored(digest("mine\n")), 60, "its artifact to go")
        self.assertTrue(self.stored(digest("shared\n")))
        self.assertTrue(self.stored(digest("needed\n")))
        self.assertEqual(self.rest.get(f"tasks/{needed['id']}").status, 200)
        self.rest.delete(f"tasks/{waits['id']}")
        wait_until(lambda: self.rest.get(f"tasks/{needed['id']}").status == 404, 30, "nobody to need it any more")
        wait_until(lambda: not self.stored(digest("needed\n")), 60, "its artifact to go")
