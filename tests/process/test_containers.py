"""Commands in containers: what they see, what they cannot reach, how they end, and images that are wrong."""
import base64
import hashlib
import io
import pathlib
import shutil
import tarfile
import tempfile
import unittest

from lib import oci
from lib.uccp import NodeTest
from lib.wait import wait_until


def missing():
    if not shutil.which("runc"):
        return "there is no runc: tools/setup installs it"
    return None if oci.BUSYBOX.exists() else "there is no busybox: tools/setup installs busybox-static"


class ContainerTest(NodeTest):
    feature_level = 2  # of object stores

    @classmethod
    def setUpClass(cls):
        if missing():
            raise unittest.SkipTest(missing())
        super().setUpClass()
        worker = wait_until(lambda: cls.node.rest.get("workers").json.get("workers"), what="the worker")[0]
        if "executor.container" not in worker.get("capabilities", []):
            reason = [line for line in (cls.node.dir / "agent.log").read_text().splitlines() if "containers are not run" in line]
            raise unittest.SkipTest(f"this machine runs no containers: {reason}")

    def image_input(self, image, path="image.tar"):
        """The archive of an image as an input of a task: an object, since it is larger than what a request may hold."""
        content = image if isinstance(image, bytes) else image.tar()
        key = "images/" + hashlib.sha256(content).hexdigest()
        body = {"object": {"store": "default", "key": key}, "data": base64.b64encode(content).decode()}
        answer = self.rest.put(f"objectstores/default/objects/{key}", body)
        self.assertEqual(answer.status, 200, answer)
        return {"path": path, "object": {"key": key}}

    def contain(self, command, image=None, reference="oci-archive:image.tar", timeout=60.0, container=None, inputs=(), **fields):
        """Runs a command in a container made of busybox and answers its task; a text is run by sh."""
        inputs = [self.image_input(image or oci.busybox()), *inputs] if image is not False else list(inputs)
        task = self.node.submit(command, inputs=inputs, container={"image": reference, **(container or {})},
                                **{"resources": {"cpu": 0.1, "memory": "128Mi"}, **fields})
        return self.node.wait_task(task["id"], timeout=timeout)

    def output(self, task, name="stdout"):
        return [line.decode() for line in self.node.log(task["id"], name)]


class Inside(ContainerTest):
    environment = {}

    @classmethod
    def setUpClass(cls):
        cls.images = pathlib.Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
        cls.images.chmod(0o755)
        cls.environment = {"UCCP_AGENT_IMAGES": str(cls.images)}
        super().setUpClass()

    def test_a_command_sees_the_image_its_folder_and_its_environment(self):
        task = self.contain("cat /etc/image; pwd; cat in; echo $FROM_IMAGE $MINE $UCCP_TASK_ID; echo left > out; hostname",
                            inputs=[{"path": "in", "data": base64.b64encode(b"an input\n").decode()}],
                            env={"MINE": "mine"}, outputs=["out"])
        self.assertEqual(task["status"], "SUCCEEDED", task)
        lines = self.output(task)
        self.assertEqual(lines[0], "busybox")
        self.assertRegex(lines[1], "^/.*/" + task["id"])
        self.assertEqual(lines[2:], ["an input", f"yes mine {task['id']}", task["id"][:63]])
        self.assertEqual([one["path"] for one in task["artifacts"]], ["out"])

    def test_without_a_command_the_image_says_what_is_run(self):
        task = self.node.submit([], inputs=[self.image_input(oci.busybox())], container={"image": "oci-archive:image.tar"})
        ended = self.node.wait_task(task["id"])
        self.assertEqual((ended["status"], self.output(ended)), ("SUCCEEDED", ["busybox"]))
        entry = oci.busybox(Entrypoint=["echo", "from"], Cmd=["the", "entrypoint"])
        ended = self.contain([], image=entry)
        self.assertEqual(self.output(ended), ["from the entrypoint"])

    def test_it_is_root_within_and_nobody_without(self):
        task = self.contain("id -u; ps | wc -l; grep -E '^(Seccomp|NoNewPrivs):' /proc/self/status; "
                            "ls /sys/class/net; unshare -U true 2>&1; mount -t tmpfs x /tmp 2>&1; "
                            "[ -e /root ] || [ -e /home ] || echo alone; cat /proc/self/uid_map")
        lines = self.output(task)
        self.assertEqual(lines[0], "0")
        self.assertLess(int(lines[1]), 8)  # its own processes only
        self.assertEqual([line.split() for line in lines[2:4]], [["NoNewPrivs:", "1"], ["Seccomp:", "2"]])
        self.assertEqual(lines[4], "lo")
        refused = [line for line in lines if "not permitted" in line.lower() or "denied" in line.lower() or "not found" in line]
        self.assertGreaterEqual(len(refused), 2, lines)
        self.assertIn("alone", lines)
        inner, outer, count = lines[-1].split()
        self.assertEqual((inner, count), ("0", "1"))
        # On a worker that is root, tasks are users without rights.
        uid = self.output(self.node.run("id -u"))[0]
        self.assertEqual(outer, "0" if inner == outer else uid)

    def test_the_exit_code_is_that_of_the_command(self):
        task = self.contain("exit 7")
        self.assertEqual((task["status"], task["exitCode"]), ("FAILED", 7))

    def test_changes_are_its_own_and_a_read_only_root_refuses_them(self):
        first = self.contain("echo changed > /etc/image; cat /etc/image; echo new > /made")
        self.assertEqual(self.output(first), ["changed"])
        second = self.contain("cat /etc/image; [ -e /made ] || echo clean")
        self.assertEqual(self.output(second), ["busybox", "clean"])
        third = self.contain("touch /made 2>&1; touch here && echo the folder is writable", container={"readOnly": True})
        self.assertRegex(self.output(third)[0], "Read-only file system")
        self.assertEqual(self.output(third)[1], "the folder is writable")

    def test_the_network_of_the_worker_only_if_asked_for(self):
        own = self.output(self.contain("ls /sys/class/net"))
        shared = self.output(self.contain("ls /sys/class/net", container={"hostNetwork": True}))
        self.assertEqual(own, ["lo"])
        host = sorted(path.name for path in pathlib.Path("/sys/class/net").iterdir())
        self.assertEqual(sorted(name for name in shared if name in host), host)

    def test_cancel_and_timeout_end_everything_of_it(self):
        task = self.node.submit("trap 'echo asked; exit 3' TERM; echo ready; while true; do sleep 0.1; done",
                                inputs=[self.image_input(oci.busybox())], container={"image": "oci-archive:image.tar"},
                                gracePeriod="20s")
        wait_until(lambda: "ready" in self.output(task), what="the container")
        self.rest.delete(f"tasks/{task['id']}")
        ended = self.node.wait_task(task["id"])
        self.assertEqual((ended["status"], self.output(ended)), ("CANCELLED", ["ready", "asked"]))
        # The first process of a container takes no signal that it does not wait for: it is killed after the grace.
        slow = self.node.submit("echo $$; sleep 1000", inputs=[self.image_input(oci.busybox())], timeout="10s", gracePeriod="0.2s",
                                container={"image": "oci-archive:image.tar"})
        ended = self.node.wait_task(slow["id"])
        self.assertEqual((ended["status"], self.output(ended)), ("TIMED_OUT", ["1"]))

    def test_memory_is_limited(self):
        isolation = self.rest.get("workers").json["workers"][0]["isolation"]
        if "memory" not in isolation.partition("limits")[2]:
            self.skipTest(f"no memory limits here: {isolation}")
        task = self.contain("dd if=/dev/zero of=/dev/null bs=300M count=1", resources={"cpu": 0.1, "memory": "64Mi"})
        self.assertEqual(task["status"], "FAILED")
        self.assertIn("memory", task["statusReason"])

    def test_layers_lie_upon_each_other(self):
        upper = [oci.member("etc/.wh.image"), oci.member("etc/upper", b"upper\n"), oci.directory("data"),
                 oci.member("data/new", b"new\n"), oci.member("data/.wh..wh..opq"), oci.link("etc/absolute", "/etc/upper")]
        lower = [*oci.busybox_layer(), oci.directory("data"), oci.member("data/old", b"old\n")]
        image = oci.Image().add([lower, upper], config={"Env": ["PATH=/bin"]})
        task = self.contain("ls /etc; ls /data; cat /etc/absolute", image=image)
        lines = self.output(task)
        self.assertNotIn("image", lines)
        self.assertEqual(lines[-2:], ["new", "upper"])
        self.assertNotIn("old", lines)

    def test_images_of_the_worker_by_name_and_tag(self):
        oci.Image().add([oci.busybox_layer()], {"Env": ["PATH=/bin", "V=one"]}, tag="1").add(
            [oci.busybox_layer()], {"Env": ["PATH=/bin", "V=two"]}, tag="2").write(self.images / "tools")
        (self.images / "single.tar").write_bytes(oci.busybox().tar())
        bundle = self.images / "bundle"
        (bundle / "rootfs").mkdir(parents=True)
        with tarfile.open(fileobj=io.BytesIO(oci.archive(oci.busybox_layer()))) as tar:
            tar.extractall(bundle / "rootfs")
        (bundle / "config.json").write_text('{"root": {"path": "rootfs"}, "process": {"args": ["echo", "bundled"], "env": ["PATH=/bin"]}}')
        self.assertEqual(self.output(self.contain("echo $V", image=False, reference="tools:2")), ["two"])
        self.assertEqual(self.output(self.contain("cat /etc/image", image=False, reference="single")), ["busybox"])
        self.assertEqual(self.output(self.contain([], image=False, reference="bundle")), ["bundled"])
        ambiguous = self.contain("true", image=False, reference="tools")
        self.assertRegex(ambiguous["statusReason"], "more than one image.*1.*2")
        absent = self.contain("true", image=False, reference="nowhere:1")
        self.assertRegex(absent["statusReason"], "no image nowhere")


class Wrong(ContainerTest):
    """Images that are wrong: each is refused by a reason, the worker and other tasks go on."""

    def refused(self, image, reason, reference="oci-archive:image.tar"):
        task = self.contain("echo ran", image=image, reference=reference)
        self.assertEqual((task["status"], self.output(task)), ("FAILED", []), task)
        self.assertRegex(task["statusReason"], reason)

    def layered(self, *members):
        return oci.Image().add([[*oci.busybox_layer(), *members]], config={"Env": ["PATH=/bin"]})

    def test_paths_that_would_leave_the_image(self):
        for path in ("../../escape", "a/../../escape", "..", "bin/../../../escape"):
            self.refused(self.layered(oci.member(path, b"x")), "would leave the image")
        self.refused(self.layered(oci.member("bin/l", kind=tarfile.LNKTYPE, link="../../../etc/passwd")), "would leave the image")

    def test_links_lead_back_into_the_image(self):
        marker = self.node.shared / "outside"
        marker.mkdir()
        marker.chmod(0o777)
        members = [oci.link("door", str(marker)), oci.member("door/x", b"x"), oci.link("up", "../../../../../../../../tmp"),
                   oci.member("up/y", b"y"), oci.link("self", "/"), oci.member("self/z", b"z")]
        task = self.contain("cat /z; ls /tmp", image=self.layered(*members))
        self.assertEqual(list(marker.iterdir()), [])
        # A link to what the image does not have leads nowhere: the archive is refused.
        self.assertEqual(task["status"], "FAILED")
        self.assertRegex(task["statusReason"], "no directory")
        inside = self.contain("cat /z; cat /tmp/y", image=self.layered(*members[2:]))
        self.assertEqual(self.output(inside), ["z" + "y"], inside)

    def test_hard_links_reach_only_the_image(self):
        self.refused(self.layered(oci.member("stolen", kind=tarfile.LNKTYPE, link="/etc/shadow")), "links stolen to etc/shadow, which is not there")

    def test_devices_are_left_out(self):
        device = oci.member("dev-null", kind=tarfile.CHRTYPE)
        task = self.contain("[ -e /dev-null ] || echo absent", image=self.layered(device))
        self.assertEqual(self.output(task), ["absent"])

    def test_damage_is_found(self):
        for number, damage in enumerate((lambda blob: blob[:-1] + bytes([blob[-1] ^ 1]), lambda blob: blob[:1000], lambda blob: blob + b"x")):
            # Each another image: one that is unpacked already is not read again.
            image = oci.busybox(Labels={"number": str(number)})
            layer = max(image.blobs, key=lambda digest: len(image.blobs[digest]))
            image.blobs[layer] = damage(image.blobs[layer])
            self.refused(image, "damaged|holds too much")

    def test_what_is_no_image_says_so(self):
        self.refused(b"not an archive", "tar archive")
        self.refused(oci.archive([oci.member("hello", b"x")]), "not an OCI image layout")
        self.refused(oci.Image().add([oci.busybox_layer()], architecture="s390x"), "no image for linux/.*s390x")
        self.refused(oci.Image().add([b"not an archive"]), "tar archive")
        self.refused(oci.Image().add([oci.busybox_layer()], layer_type="application/x-squashfs"), "application/x-squashfs")
        self.refused(oci.busybox(), "there is no image .*none.tar", reference="oci-archive:none.tar")
        self.refused(oci.busybox(), "registry", reference="docker://library/alpine")
        self.refused(oci.busybox(), "relative path", reference="oci-archive:/etc/passwd")
        self.refused(oci.busybox(), "no images of its own", reference="alpine:3")

    def test_a_command_that_is_not_there(self):
        task = self.contain(["no-such-program"])
        self.assertEqual(task["status"], "FAILED")
        self.assertIn("no-such-program", " ".join(self.output(task, "stderr")))

    def test_requests_that_make_no_sense(self):
        good = {"command": ["true"], "container": {"image": "oci-archive:image.tar"}}
        for more, field in (({"executor": "CONTAINER", "container": None}, "task.container"),
                            ({"executor": "PROCESS"}, "task.container"),
                            ({"container": {"image": "x", "user": "1000:1000"}}, "task.container.user"),
                            ({"container": {"image": ""}}, "task.container.image"),
                            ({"command": [], "container": None}, "task.command")):
            with self.subTest(more):
                body = {key: value for key, value in {**good, **more}.items() if value is not None}
                self.assert_problem(self.rest.post("tasks", body), 400, field=field)

    def test_the_worker_goes_on(self):
        self.refused(self.layered(oci.member("../x", b"x")), "would leave")
        self.assertEqual(self.output(self.contain("cat /etc/image")), ["busybox"])


if __name__ == "__main__":
    unittest.main()
