"""What a task can reach from inside: users, environment, files, descriptors, memory and processes."""
import re

from lib.rest import text_of
from lib.uccp import NodeTest
from lib.wait import wait_until


class Isolation(NodeTest):
    environment = {"UCCP_TEST_SECRET": "do-not-inherit"}

    def limits(self):
        """What the worker says about limits of its tasks."""
        return self.rest.get("workers").json["workers"][0]["isolation"]

    def test_runs_without_privileges_and_cannot_get_them(self):
        task = self.node.run("id -u; id -G; grep -E '^(NoNewPrivs|CapEff|CapBnd|CapPrm)' /proc/self/status")
        lines = [line.decode() for line in self.node.log(task["id"])]
        isolation = self.limits()
        if "unprivileged" not in isolation:
            self.skipTest(f"the agent is not root: {isolation}")
        self.assertNotEqual(lines[0], "0")
        self.assertNotIn("0", lines[1].split())
        status = dict(re.split(r":\s+", line) for line in lines[2:])
        self.assertEqual(status["NoNewPrivs"], "1")
        self.assertEqual(int(status["CapEff"], 16), 0)
        self.assertEqual(int(status["CapPrm"], 16), 0)

    def test_the_environment_is_cleared(self):
        task = self.node.run("cat /proc/self/environ | tr '\\0' '\\n'", env={"MINE": "1"})
        names = {line.split(b"=")[0].decode() for line in self.node.log(task["id"])}
        self.assertNotIn("UCCP_TEST_SECRET", names)
        self.assertLessEqual(names, {"MINE", "PATH", "HOME", "LANG", "TMPDIR", "PWD", "OLDPWD", "SHLVL", "_",
                                     "UCCP_TASK_ID", "UCCP_TASK_DIR", "UCCP_ATTEMPT", "UCCP_ATTEMPT_KEY",
                                     "UCCP_NAMESPACE", "UCCP_OBJECTS_SOCKET", "UCCP_OBJECTS_GRANT"})
        self.assertIn("MINE", names)

    def test_files_of_node_and_agent_cannot_be_read(self):
        if "out of reach" not in self.limits():
            self.skipTest(f"no mount namespaces here: {self.limits()}")
        data = self.node.dir
        paths = [data, data / "dev.json", data / "agent.json", data / "pki" / "ca.key", data / "pki" / "admin.key",
                 data / "pki" / "token.key", data / "agent", data / "agent" / "tasks", data / "agent" / "logs",
                 data / "agent" / "outcomes", data / "agent.log", data / "log", data / "blobs"]
        for path in paths:
            self.assertTrue(path.exists(), f"{path}: the test looks at nothing")
        task = self.node.run("; ".join(f"ls -d {p}/. >/dev/null 2>&1 && echo LIST {p}; cat {p} >/dev/null 2>&1 && "
                                       f"echo READ {p}" for p in paths) + "; echo done")
        self.assertEqual(self.node.log(task["id"]), [b"done"])

    def test_no_descriptor_of_the_agent_is_left_open(self):
        task = self.node.run("for f in /proc/$$/fd/*; do n=${f##*/}; [ $n -gt 2 ] && readlink $f; done; echo done")
        lines = [l for l in self.node.log(task["id"]) if not l.startswith(b"/dev/") and b"/proc/" not in l]
        self.assertEqual(lines, [b"done"])

    def test_other_namespaces_are_other_users(self):
        if "unprivileged" not in self.limits():
            self.skipTest(f"the agent is not root: {self.limits()}")
        gate = self.node.gate("secret-stays")
        one = self.node.submit(f"echo secret > file; chmod 600 file; pwd; {gate.wait}")
        wait_until(lambda: self.node.log(one["id"]), what="the folder of the first task")
        folder = self.node.log(one["id"])[0].decode()
        body = {"command": ["sh", "-c", f"id -u; cat {folder}/file; ls {folder}; ls {folder}/.. ; echo x > {folder}/y; "
                                        "echo done"], "namespace": "other", "resources": {"cpu": 0.1, "memory": "64Mi"}}
        response = self.rest.post("tasks", body)
        self.assertEqual(response.status, 201, response)
        two = response.json["id"]
        wait_until(lambda: self.rest.get(f"tasks/{two}", namespace="other").json["status"] == "SUCCEEDED", what="the other")
        items = self.node.log_items(two, namespace="other")
        lines = [text_of(i) for i in items if i.get("stream") == "stdout"]
        uid = self.node.log(self.node.run("id -u")["id"])[0]
        self.assertNotEqual(lines[0], uid)
        self.assertEqual(lines[1:], [b"done"])
        gate.open()

    def test_a_memory_limit_is_enforced_and_named(self):
        if "memory" not in self.limits().partition("limits")[2]:
            self.skipTest(f"no memory limits here: {self.limits()}")
        task = self.node.run("head -c 300m /dev/zero | tail | wc -c; exit 5", resources={"cpu": 0.1, "memory": "32Mi"})
        self.assertEqual(task["status"], "FAILED")
        self.assertIn("out of memory", task["statusReason"])

    def test_a_process_limit_is_enforced(self):
        if "pids" not in self.limits().partition("limits")[2]:
            self.skipTest(f"no limits on processes here: {self.limits()}")
        task = self.node.run("i=0; while [ $i -lt 60 ]; do i=$((i+1)); sleep 100 & done 2>/dev/null; jobs | wc -l; kill 0",
                             resources={"cpu": 0.1, "memory": "64Mi", "pids": 20})
        alive = [int(line) for line in self.node.log(task["id"]) if line.strip().isdigit()]
        self.assertTrue(not alive or alive[0] <= 20, alive)
        self.assertNotEqual(task["status"], "SUCCEEDED")
