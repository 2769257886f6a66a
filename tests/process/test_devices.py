"""What a worker has beyond processor, memory and disk, by an inventory: reported by REST and CLI, handed out, never twice."""
import json
import pathlib
import subprocess
import tempfile
import urllib.request

from lib.uccp import AGENT, NodeTest, clean_environment
from lib.wait import wait_until

INVENTORY = {
    "gpus": [{"type": "nvidia-h100", "count": 2, "memory": "80Gi", "driverVersion": "535.104", "computeCapability": "9.0",
              "topology": "PCIE", "devices": [{"migProfiles": ["1g.10gb"]}, {}]}],
    "resources": {"total": {"accelerators": [{"kind": "tpu", "type": "v5e-8", "count": 4}], "networkBps": 25_000_000_000,
                            "extended": {"licence/matlab": 2}}},
}


OTHERS = {
    "gpus": [{"type": "amd-mi300x", "count": 2, "memory": "192Gi"}, {"type": "intel-max1550", "count": 1, "memory": "128Gi"}],
    "resources": {"total": {"accelerators": [{"kind": "trainium", "type": "trn1", "count": 2}, {"kind": "inferentia", "count": 1},
                                             {"kind": "ipu", "count": 4}, {"kind": "wse", "count": 1},
                                             {"kind": "our-own-chip", "count": 3}]}},
}


class DevicesTest(NodeTest):
    inventory = None
    settings = {}

    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory(prefix="uccp-test-")
        cls.addClassCleanup(folder.cleanup)
        cls.folder = pathlib.Path(folder.name)
        inventory = cls.folder / "inventory.json"
        inventory.write_text(json.dumps(cls.inventory))
        cls.environment = {"UCCP_AGENT_INVENTORY": str(inventory), **cls.settings}
        super().setUpClass()

    def explain(self, task):
        """Why it waits, once it is in the queue."""
        answer = {}

        def known():
            nonlocal answer
            answer = self.rest.get(f"tasks/{task}:explain").json
            return "reasons" in answer

        wait_until(known, 20, "the reasons why it waits")
        return answer

    def worker(self):
        return self.node.wait_worker()


class OtherVendors(DevicesTest):
    inventory = OTHERS

    def test_gpus_of_amd_are_named_as_rocm_expects(self):
        task = self.node.run("echo \"$ROCR_VISIBLE_DEVICES $HIP_VISIBLE_DEVICES [$ZE_AFFINITY_MASK]\"",
                             resources={"gpu": {"count": 2, "type": "amd"}})
        self.assertEqual(self.node.log(task["id"]), [b"0,1 0,1 []"])

    def test_gpus_of_intel_are_named_as_level_zero_expects(self):
        task = self.node.run("echo \"[$ROCR_VISIBLE_DEVICES] $ZE_AFFINITY_MASK\"", resources={"gpu": {"count": 1, "type": "intel-max"}})
        self.assertEqual(self.node.log(task["id"]), [b"[] 0"])

    def test_accelerators_of_any_kind_are_reported_and_counted(self):
        total = {a["kind"]: a["count"] for a in self.worker()["resources"]["total"]["accelerators"]}
        self.assertEqual(total, {a["kind"]: a["count"] for a in OTHERS["resources"]["total"]["accelerators"]})
        for kind, count in total.items():
            with self.subTest(kind):
                gate = self.node.gate(kind)
                ask = {"cpu": 0.01, "accelerators": [{"kind": kind, "count": count}]}
                first, second = (self.node.submit(gate.wait, resources=ask)["id"] for _ in range(2))
                self.node.wait_task(first, "RUNNING")
                self.assertEqual(self.explain(second)["reasons"][0]["cause"], "BUSY")
                gate.open()
                self.assertEqual([self.node.wait_task(t)["status"] for t in (first, second)], ["SUCCEEDED"] * 2)


class Watched(DevicesTest):
    inventory = {"gpus": [{"type": "nvidia-h100", "devices": [{"uuid": "a"}, {"uuid": "b"}]}]}
    settings = {"UCCP_AGENT_DEVICE_INTERVAL": "100ms"}

    def worker(self):
        # While the agent says Hello anew it is not ready for a moment.
        return self.rest.get("workers").json["workers"][0]

    def look(self, *devices):
        """What the agent finds from now on; a file is replaced at once or not at all."""
        new = self.folder / "new.json"
        new.write_text(json.dumps({"gpus": [{"type": "nvidia-h100", "devices": devices}]}))
        new.rename(self.folder / "inventory.json")

    def healths(self):
        return [device["health"] for device in self.worker()["gpus"][0]["devices"]]

    def gpus(self):
        return self.worker()["resources"]["total"].get("gpu", {}).get("count", 0)

    def test_a_gpu_that_fails_is_not_handed_out_until_it_works_again(self):
        gate = self.node.gate("failing")
        tasks = [self.node.submit(f"echo $CUDA_VISIBLE_DEVICES; {gate.wait}", resources={"cpu": 0.01, "gpu": {"count": 1}})["id"]
                 for _ in range(2)]
        for task in tasks:
            wait_until(lambda: self.node.log(task), what="both run")
        self.look({"uuid": "a", "health": "UNHEALTHY"}, {"uuid": "b", "memoryUsed": "3Gi", "temperature": 66})
        wait_until(lambda: (self.healths(), self.gpus()) == (["UNHEALTHY", "HEALTHY"], 1), 20, "one of two works")
        device = self.worker()["gpus"][0]["devices"][1]
        self.assertEqual((device["memoryUsed"], device["temperature"]), (3 << 30, 66))
        gate.open()
        for task in tasks:
            self.assertEqual(self.node.wait_task(task)["status"], "SUCCEEDED", "what ran on it went on")
        for _ in range(3):
            task = self.node.run("echo $CUDA_VISIBLE_DEVICES", resources={"gpu": {"count": 1}})
            self.assertEqual(self.node.log(task["id"]), [b"1"])
        refused = self.rest.post("tasks?rejectUnplaceable=true", {"command": ["true"], "resources": {"gpu": {"count": 2}}})
        self.assert_problem(refused, 412, "TASK_UNPLACEABLE")
        # A file that cannot be read changes nothing; one device that is gone is as good as broken.
        (self.folder / "inventory.json").unlink()
        self.look({"uuid": "b"})
        wait_until(lambda: self.worker()["gpus"][0]["devices"][1].get("temperature", 0) == 0, 20, "the next look")
        self.assertEqual((self.healths(), self.gpus()), (["UNHEALTHY", "HEALTHY"], 1))
        self.look({"uuid": "b"}, {"uuid": "a"})
        wait_until(lambda: (self.healths(), self.gpus()) == (["HEALTHY", "HEALTHY"], 2), 20, "both work again")
        both = self.node.run("echo $CUDA_VISIBLE_DEVICES", resources={"gpu": {"count": 2}})
        self.assertEqual(self.node.log(both["id"]), [b"0,1"])


class Devices(DevicesTest):
    inventory = INVENTORY

    def cli(self, *arguments):
        done = self.node.cli(*arguments)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout.decode()

    def end(self, *tasks):
        for task in tasks:
            self.rest.delete(f"tasks/{task}?gracePeriod=0s")
            self.node.wait_task(task)

    def test_devices_in_use_are_metrics_of_the_cluster_and_of_the_quota(self):
        answer = self.rest.post("quotas", {"namespace": "default", "hard": {"gpu": 2}})
        self.assertEqual(answer.status, 201, answer)
        self.addCleanup(self.rest.delete, "quotas/default")
        names = ("uccp_cluster_gpu_total", "uccp_cluster_gpu_available", "uccp_quota_gpu_limit", "uccp_quota_gpu_used")

        def values():
            with urllib.request.urlopen(f"http://{self.node.context['metrics']}/metrics", timeout=20) as text:
                lines = [line.decode().rsplit(" ", 1) for line in text if line.decode().startswith(names)]
            return {name.partition("{")[0]: float(value) for name, value in lines
                    if "{" not in name or 'namespace="default"' in name}

        gate = self.node.gate("gpu")
        task = self.node.submit(gate.wait, resources={"gpu": {"count": 1}})["id"]
        self.node.wait_task(task, "RUNNING")
        wait_until(lambda: [values().get(name) for name in names] == [2, 1, 2, 1], 20, "one of two GPUs is in use")
        gate.open()
        self.node.wait_task(task)
        wait_until(lambda: [values().get(name) for name in names] == [2, 2, 2, 0], 20, "none is in use")

    def test_hours_of_devices_are_limited(self):
        wait_until(lambda: self.rest.get("version").json.get("featureLevel", 0) >= 2, 30, "feature level 2")
        for limit, ask, words in (("gpuHours", {"gpu": {"count": 1}}, "GPU hours of this month"),
                                  ("tpuHours", {"accelerators": [{"kind": "tpu", "count": 1}]}, "TPU hours of this month")):
            with self.subTest(limit):
                # Less than what one of them uses in a second.
                self.assertEqual(self.rest.post("quotas", {"namespace": "default", "hard": {limit: 0.0001}}).status, 201)
                self.addCleanup(self.rest.delete, "quotas/default")
                resources = {"cpu": 0.01, **ask}
                first = self.node.submit(["sleep", "600"], resources=resources)["id"]
                self.node.wait_task(first, "RUNNING")
                wait_until(lambda: self.rest.get("quotas/default").json["used"].get(limit, 0) > 0.0001, 30, "the use to be shown")
                second = self.node.submit("true", resources=resources)["id"]
                wait_until(lambda: words in self.rest.get(f"tasks/{second}:explain").json["summary"], 30, "it waits for quota")
                self.assertEqual(self.node.run("true", resources={"cpu": 0.01})["status"], "SUCCEEDED", "others go on")
                self.end(first)
                self.assertEqual(self.rest.post("quotas", {"namespace": "default", "hard": {limit: 100}}).status, 201)
                self.assertEqual(self.node.wait_task(second)["status"], "SUCCEEDED")

    def test_rest_and_cli_show_what_the_inventory_says(self):
        # What the case before had is given back when the agent has told so.
        wait_until(lambda: not any(d.get("allocated") for d in self.worker()["gpus"][0]["devices"]), 30, "idle devices")
        worker = self.worker()
        total = worker["resources"]["total"]
        self.assertEqual(total["gpu"]["count"], 2)
        self.assertEqual(total["networkBps"], 25_000_000_000)
        self.assertEqual(total["extended"], {"licence/matlab": 2})
        self.assertEqual([(a["kind"], a["count"]) for a in total["accelerators"]], [("tpu", 4)])
        gpu = worker["gpus"][0]
        self.assertEqual((gpu["type"], gpu["count"], gpu["memory"], gpu["computeCapability"]), ("nvidia-h100", 2, 80 << 30, "9.0"))
        self.assertEqual([d.get("index", 0) for d in gpu["devices"]], [0, 1])
        self.assertEqual((gpu["topology"], gpu["devices"][0]["migProfiles"]), ("PCIE", ["1g.10gb"]))
        self.assertEqual(worker["type"], "ACCELERATOR")
        one = json.loads(self.cli("worker", "get", worker["id"], "-o", "json"))
        self.assertEqual((one["gpus"], one["resources"]["total"]), (worker["gpus"], total))
        heading, row = self.cli("worker", "list", "-o", "wide").splitlines()[:2]
        cells = dict(zip(heading.split(), row.split()))
        self.assertEqual(cells["RESOURCES-TOTAL-GPU-COUNT"], "2")
        self.assertEqual(cells["NETWORK-BPS"], "25000000000")
        self.assertEqual(cells["EXTENDED"], "licence/matlab=2")

    def test_each_gpu_goes_to_one_task_and_is_named_to_it(self):
        gate = self.node.gate("gpus")
        script = f"echo $CUDA_VISIBLE_DEVICES; {gate.wait}"
        ask = {"cpu": 0.01, "gpu": {"count": 1, "type": "nvidia"}}
        first, second, third = (self.node.submit(script, resources=ask)["id"] for _ in range(3))
        seen = {wait_until(lambda: self.node.log(task), what="its device")[0] for task in (first, second)}
        self.assertEqual(seen, {b"0", b"1"})
        self.assertEqual(self.worker()["resources"]["available"].get("gpu", {}).get("count", 0), 0)
        wait_until(lambda: [d.get("allocated", 0) for d in self.worker()["gpus"][0]["devices"]] == [1, 1], 20, "both handed out")
        waiting = self.explain(third)
        self.assertEqual((waiting["status"], waiting["reasons"][0]["cause"]), ("QUEUED", "BUSY"), waiting)
        self.assertIn("1 GPUs", waiting["reasons"][0]["message"])
        gate.open()
        for task in (first, second, third):
            self.assertEqual(self.node.wait_task(task)["status"], "SUCCEEDED")

    def test_a_task_that_asks_for_none_sees_none(self):
        task = self.node.run("echo \"[$CUDA_VISIBLE_DEVICES]\"", env={"CUDA_VISIBLE_DEVICES": "0,1"})
        self.assertEqual(self.node.log(task["id"]), [b"[]"])
        both = self.node.run("echo \"$CUDA_VISIBLE_DEVICES $CUDA_DEVICE_ORDER\"", resources={"gpu": {"count": 2, "memory": "80Gi"}})
        self.assertEqual(self.node.log(both["id"]), [b"0,1 PCI_BUS_ID"])

    def test_declared_resources_and_accelerators_are_counted(self):
        for ask in ({"extended": {"licence/matlab": 1}}, {"accelerators": [{"kind": "tpu", "count": 2}]}, {"networkBps": 12_000_000_000}):
            with self.subTest(ask):
                gate = self.node.gate(f"count-{len(ask)}-{next(iter(ask))}")
                tasks = [self.node.submit(gate.wait, resources={"cpu": 0.01, **ask})["id"] for _ in range(3)]
                for task in tasks[:2]:
                    self.node.wait_task(task, "RUNNING")
                self.assertEqual(self.explain(tasks[2])["reasons"][0]["cause"], "BUSY")
                gate.open()
                for task in tasks:
                    self.assertEqual(self.node.wait_task(task)["status"], "SUCCEEDED")

    def test_what_no_worker_has_waits_and_says_why(self):
        for ask, words in (({"gpu": {"count": 3}}, "3 GPUs"), ({"gpu": {"count": 1, "type": "amd"}}, "amd"),
                           ({"extended": {"licence/other": 1}}, "licence/other"),
                           ({"accelerators": [{"kind": "tpu", "type": "v4", "count": 1}]}, "tpu v4")):
            with self.subTest(ask):
                task = self.node.submit("true", resources=ask)["id"]
                why = self.explain(task)
                self.assertEqual((why["workers"], why["reasons"][0]["cause"]), (1, "TOO_SMALL"), why)
                self.assertIn(words, why["reasons"][0]["message"])
                self.assertIn("none of 1 workers is large enough", self.cli("task", "explain", task))
                self.end(task)

    def test_what_could_never_run_is_refused_if_that_is_asked_for(self):
        for body, words in (({"resources": {"gpu": {"count": 3}}}, "3 GPUs"), ({"nodeSelector": {"rack": "7"}}, "no worker at all has a label named rack"),
                            ({"resources": {"cpu": 4096}}, "4096 CPU")):
            with self.subTest(body):
                refused = self.rest.post("tasks?rejectUnplaceable=true", {"command": ["true"], **body})
                self.assert_problem(refused, 412, "TASK_UNPLACEABLE")
                self.assertIn(words, refused.json["detail"])
        busy = self.node.submit("sleep 600", resources={"gpu": {"count": 2}})["id"]
        self.node.wait_task(busy, "RUNNING")
        # It only has to wait.
        taken = self.rest.post("tasks?rejectUnplaceable=true", {"command": ["true"], "resources": {"gpu": {"count": 1}}})
        self.assertEqual(taken.status, 201, taken)
        self.end(busy)
        self.assertEqual(self.node.wait_task(taken.json["id"])["status"], "SUCCEEDED")

    def metric(self, name):
        with urllib.request.urlopen(f"http://{self.node.context['metrics']}/metrics", timeout=20) as text:
            return next((float(line.split()[1]) for line in text if line.decode().startswith(name + " ")), None)

    def test_tasks_share_a_gpu_by_turns_and_whole_ones_stay_whole(self):
        gate = self.node.gate("shares")
        script = f"echo $CUDA_VISIBLE_DEVICES; {gate.wait}"
        half = {"cpu": 0.01, "gpu": {"count": 0.5, "sharing": "TIME_SLICE"}}
        both = [self.node.submit(script, resources=half)["id"] for _ in range(2)]
        seen = [wait_until(lambda: self.node.log(task), what="its device")[0] for task in both]
        self.assertEqual(len(set(seen)), 1, "both halves are of one device")
        wait_until(lambda: self.metric("uccp_cluster_gpu_fragmentation") == 1, 20, "the free GPU is beside one in use")
        one = self.node.submit(script, resources={"cpu": 0.01, "gpu": {"count": 1}})["id"]
        self.assertNotEqual(wait_until(lambda: self.node.log(one), what="its device")[0], seen[0])
        third = self.node.submit(script, resources=half)["id"]
        self.assertEqual(self.explain(third)["reasons"][0]["cause"], "BUSY")
        wait_until(lambda: sorted(d.get("allocated", 0) for d in self.worker()["gpus"][0]["devices"]) == [1, 1], 20, "all is handed out")
        shown = json.loads(self.cli("worker", "get", self.worker()["id"], "-o", "json"))["resources"]
        self.assertEqual((shown["allocated"]["gpu"]["count"], shown["allocated"].get("extended", {})), (2, {}))
        gate.open()
        for task in (*both, one, third):
            self.assertEqual(self.node.wait_task(task)["status"], "SUCCEEDED")
        wait_until(lambda: self.metric("uccp_cluster_gpu_fragmentation") == 0, 20, "none is in use")

    def test_a_gang_over_several_gpus_starts_when_each_has_its_own(self):
        gate = self.node.gate("gang")
        script = f"echo $CUDA_VISIBLE_DEVICES; {gate.wait}"
        alone = self.node.submit(script, resources={"cpu": 0.01, "gpu": {"count": 1}})["id"]
        self.node.wait_task(alone, "RUNNING")
        gang = [self.node.submit(script, resources={"cpu": 0.01, "gpu": {"count": 1}}, gang={"id": "gpus", "size": 2})["id"]
                for _ in range(2)]
        wait_until(lambda: "room for all 2 tasks of its gang" in self.explain(gang[0])["summary"], 20, "it waits as a whole")
        self.assertEqual({self.node.task(task)["status"] for task in gang}, {"QUEUED"}, "one GPU is free, and none has it")
        self.end(alone)
        seen = [wait_until(lambda: self.node.log(task), 30, what="its device")[0] for task in gang]
        self.assertEqual(sorted(seen), [b"0", b"1"])
        gate.open()
        self.assertEqual({self.node.wait_task(task)["status"] for task in gang}, {"SUCCEEDED"})

    def test_how_devices_are_connected_and_driven_are_conditions(self):
        good = {"count": 2, "topology": "NUMA", "driverVersionMin": "535.9"}
        task = self.node.run("echo $CUDA_VISIBLE_DEVICES", resources={"gpu": good})
        self.assertEqual(self.node.log(task["id"]), [b"0,1"])
        for gpu, words in (({"count": 2, "topology": "NVLINK"}, "2 GPUs joined by NVLink"),
                           ({"count": 1, "driverVersionMin": "536"}, "1 GPUs with driver 536.0 or newer")):
            with self.subTest(gpu):
                refused = self.rest.post("tasks?rejectUnplaceable=true", {"command": ["true"], "resources": {"gpu": gpu}})
                self.assert_problem(refused, 412, "TASK_UNPLACEABLE")
                self.assertIn(words, refused.json["detail"])

    def test_shares_that_make_no_sense_are_refused(self):
        for body, field in (({"resources": {"gpu": {"count": 0.5}}}, "must be TIME_SLICE with a count below 1"),
                            ({"resources": {"gpu": {"count": 0.5, "sharing": "EXCLUSIVE"}}}, "must be TIME_SLICE with a count below 1"),
                            ({"resources": {"gpu": {"count": 0.333, "sharing": "TIME_SLICE"}}}, "a multiple of 0.01"),
                            ({"resources": {"gpu": {"count": 1.5}}}, "a whole number"),
                            ({"resources": {"gpu": {"count": 1, "sharing": "TIME_SLICE"}}}, "only with a count below 1"),
                            ({"resources": {"gpu": {"count": 0.5, "sharing": "TIME_SLICE"}}, "gang": {"id": "g", "size": 2}}, "whole in a gang")):
            with self.subTest(body):
                refused = self.rest.post("tasks", {"command": ["true"], **body})
                self.assertEqual(refused.status, 400, refused)
                self.assertIn(field, json.dumps(refused.json))

    def test_what_is_not_built_is_refused(self):
        for gpu, reason in (({"count": 1, "sharing": "MPS"}, "GPU_FEATURE_UNIMPLEMENTED"),
                            ({"count": 1, "migProfile": "1g.10gb"}, "GPU_FEATURE_UNIMPLEMENTED")):
            with self.subTest(gpu):
                self.assert_problem(self.rest.post("tasks", {"command": ["true"], "resources": {"gpu": gpu}}), 400, reason)

    def test_an_inventory_that_cannot_be_right_ends_the_agent_with_a_reason(self):
        path = self.folder / "wrong.json"
        path.write_text('{"gpus": [{"type": "NVIDIA H100", "count": 1}]}')
        done = subprocess.run([str(AGENT), "--data-dir", str(self.folder / "other"), "--inventory", str(path)],
                              capture_output=True, timeout=60, env=clean_environment())
        self.assertEqual(done.returncode, 1)
        self.assertIn(b"wrong.json", done.stderr)
        self.assertIn(b"lower case", done.stderr)
