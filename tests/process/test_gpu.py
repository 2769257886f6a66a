"""A real NVIDIA GPU: what the agent says of it is what the driver says, tasks compute on what they were given and see nothing else.

Skipped on a machine without one. Tasks talk to the driver's own library, so nothing of CUDA has to be installed.
"""
import pathlib
import shutil
import subprocess
import textwrap
import unittest

from lib.uccp import NodeTest
from lib.wait import wait_until

GIB = 1 << 30

# The part of the driver that each script below needs: `check` raises with the driver's number of an error.
PREAMBLE = textwrap.dedent("""
    import ctypes, os, sys, time
    cuda = ctypes.CDLL("libcuda.so.1")
    def check(code, what):
        if code: raise SystemExit(f"{what}: {code}")
    def count():
        check(cuda.cuInit(0), "cuInit")
        number = ctypes.c_int()
        check(cuda.cuDeviceGetCount(ctypes.byref(number)), "cuDeviceGetCount")
        return number.value
    def context():
        device, made = ctypes.c_int(), ctypes.c_void_p()
        check(cuda.cuDeviceGet(ctypes.byref(device), 0), "cuDeviceGet")
        check(cuda.cuCtxCreate_v2(ctypes.byref(made), 0, device), "cuCtxCreate")
    def memory(size):
        at = ctypes.c_uint64()
        check(cuda.cuMemAlloc_v2(ctypes.byref(at), ctypes.c_size_t(size)), "cuMemAlloc")
        return at
""")

# result[i] = 3 * i + 7, for as many numbers as the task asks.
KERNEL = rb"""
.version 7.0
.target sm_70
.address_size 64
.visible .entry fill(.param .u64 out, .param .u32 count) {
  .reg .pred %p; .reg .b32 %r<8>; .reg .b64 %d<4>;
  ld.param.u64 %d0, [out]; ld.param.u32 %r0, [count];
  mov.u32 %r1, %ctaid.x; mov.u32 %r2, %ntid.x; mov.u32 %r3, %tid.x;
  mad.lo.s32 %r4, %r1, %r2, %r3;
  setp.ge.u32 %p, %r4, %r0; @%p bra done;
  mad.lo.s32 %r5, %r4, 3, 7;
  cvta.to.global.u64 %d1, %d0; mul.wide.u32 %d2, %r4, 4; add.s64 %d3, %d1, %d2;
  st.global.u32 [%d3], %r5;
done: ret;
}
"""

COMPUTE = PREAMBLE + textwrap.dedent(f"""
    print(count(), os.environ["CUDA_VISIBLE_DEVICES"])
    context()
    size = 1 << 20
    out, module, kernel = memory(4 * size), ctypes.c_void_p(), ctypes.c_void_p()
    check(cuda.cuModuleLoadData(ctypes.byref(module), ctypes.c_char_p({KERNEL!r})), "cuModuleLoadData")
    check(cuda.cuModuleGetFunction(ctypes.byref(kernel), module, b"fill"), "cuModuleGetFunction")
    number = ctypes.c_uint32(size)
    values = (ctypes.c_void_p * 2)(*(ctypes.cast(ctypes.pointer(v), ctypes.c_void_p).value for v in (out, number)))
    check(cuda.cuLaunchKernel(kernel, size // 256, 1, 1, 256, 1, 1, 0, None, values, None), "cuLaunchKernel")
    result = (ctypes.c_uint32 * size)()
    check(cuda.cuMemcpyDtoH_v2(result, out, ctypes.c_size_t(4 * size)), "cuMemcpyDtoH")
    print(all(result[i] == 3 * i + 7 for i in range(size)))
""")

NONE = PREAMBLE + textwrap.dedent("""
    print(cuda.cuInit(0), f"[{os.environ['CUDA_VISIBLE_DEVICES']}]")
""")

CUDA_ERROR_NO_DEVICE = "100"


def holding(size, gate):
    """A script that holds `size` bytes of a GPU until the gate opens."""
    return PREAMBLE + textwrap.dedent(f"""
        count(); context(); kept = memory({size})
        print("holds", flush=True)
        sys.exit(os.system({gate!r}))
    """)


def of_the_driver(*fields):
    """What nvidia-smi says of each GPU."""
    text = subprocess.run(["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"],
                          check=True, capture_output=True, text=True, timeout=60).stdout
    return [[cell.strip() for cell in line.split(",")] for line in text.splitlines()]


@unittest.skipUnless(pathlib.Path("/dev/nvidia0").exists() and shutil.which("nvidia-smi"), "no NVIDIA GPU on this machine")
class Gpu(NodeTest):
    environment = {"UCCP_AGENT_DEVICE_INTERVAL": "500ms"}

    def worker(self):
        return self.node.wait_worker()

    def devices(self):
        return [device for kind in self.worker()["gpus"] for device in kind["devices"]]

    def submit(self, script, **gpu):
        resources = {"cpu": 0.01, **({"gpu": gpu} if gpu else {})}
        answer = self.rest.post("tasks", {"command": ["python3", "-c", script], "resources": resources})
        self.assertEqual(answer.status, 201, answer)
        return answer.json["id"]

    def lines(self, task):
        return [line.decode() for line in self.node.log(task)]

    def result(self, task):
        ended = self.node.wait_task(task)
        self.assertEqual(ended["status"], "SUCCEEDED", (ended, self.lines(task)))
        return self.lines(task)

    def test_the_worker_says_of_each_gpu_what_the_driver_says(self):
        worker = self.worker()
        self.assertEqual(worker["type"], "ACCELERATOR")
        told = of_the_driver("uuid", "driver_version", "compute_cap", "memory.total", "name")
        self.assertEqual([device["uuid"] for device in self.devices()], [uuid for uuid, *_ in told])
        self.assertEqual(worker["resources"]["total"]["gpu"]["count"], len(told))
        kinds = [kind for kind in worker["gpus"] for _ in range(kind["count"])]
        for kind, (_, driver, capability, mebibytes, name) in zip(kinds, told):
            self.assertEqual((kind["driverVersion"], kind["computeCapability"]), (driver, capability))
            self.assertEqual(kind["memory"] >> 20, int(mebibytes))
            self.assertTrue(kind["type"].startswith("nvidia-"), kind["type"])
            self.assertIn(kind["type"].split("-")[1], name.lower())
        for device in self.devices():
            self.assertEqual(device["health"], "HEALTHY")
            self.assertGreater(device["temperature"], 0)

    def test_a_task_computes_on_the_one_it_was_given(self):
        seen, right = self.result(self.submit(COMPUTE, count=1, type="nvidia"))
        self.assertEqual((seen.split()[0], right), ("1", "True"))
        self.assertLess(int(seen.split()[1]), len(self.devices()))

    def test_a_task_that_asked_for_none_has_none(self):
        self.assertEqual(self.result(self.submit(NONE)), [f"{CUDA_ERROR_NO_DEVICE} []"])

    def test_memory_in_use_is_told_while_a_task_holds_it(self):
        before = [device.get("memoryUsed", 0) for device in self.devices()]
        gate = self.node.gate("memory")
        task = self.submit(holding(4 * GIB, gate.wait), count=1)
        self.addCleanup(gate.open)
        wait_until(lambda: self.lines(task), 60, "the task holds its memory")

        def grown():
            now = [device.get("memoryUsed", 0) for device in self.devices()]
            return max(after - earlier for after, earlier in zip(now, before)) >= 4 * GIB

        wait_until(grown, 60, "the worker tells of it")
        gate.open()
        self.result(task)

    def test_tasks_with_shares_hold_one_gpu_together(self):
        gate = self.node.gate("shares")
        self.addCleanup(gate.open)
        tasks = [self.submit(holding(GIB, gate.wait), count=0.5, sharing="TIME_SLICE") for _ in range(2)]
        for task in tasks:
            wait_until(lambda: self.lines(task) == ["holds"], 60, "both hold memory of it at once")
        gate.open()
        for task in tasks:
            self.result(task)

    def test_a_gpu_belongs_to_one_task_at_a_time(self):
        gate = self.node.gate("whole")
        self.addCleanup(gate.open)
        total = len(self.devices())
        first = self.submit(holding(GIB, gate.wait), count=total)
        wait_until(lambda: self.lines(first) == ["holds"], 60, "the first holds all of them")
        second = self.submit(COMPUTE, count=1)
        wait_until(lambda: "reasons" in self.rest.get(f"tasks/{second}:explain").json, 20, "the second waits")
        self.assertEqual(self.rest.get(f"tasks/{second}:explain").json["reasons"][0]["cause"], "BUSY")
        wait_until(lambda: [device.get("allocated") for device in self.devices()] == [1] * total, 20, "the worker tells of it")
        gate.open()
        self.result(first)
        self.assertEqual(self.result(second)[1], "True")

    def test_the_version_of_the_driver_is_a_condition(self):
        version = of_the_driver("driver_version")[0][0]
        self.assertEqual(self.result(self.submit(COMPUTE, count=1, driverVersionMin=version))[1], "True")
        newer = {"command": ["true"], "resources": {"gpu": {"count": 1, "driverVersionMin": str(int(version.split(".")[0]) + 1)}}}
        self.assert_problem(self.rest.post("tasks?rejectUnplaceable=true", newer), 412, "TASK_UNPLACEABLE")

    def test_more_than_there_is_is_refused_if_that_is_asked_for(self):
        total = len(self.devices())
        body = {"command": ["true"], "resources": {"gpu": {"count": total + 1}}}
        self.assert_problem(self.rest.post("tasks?rejectUnplaceable=true", body), 412, "TASK_UNPLACEABLE")
        unknown = {"command": ["true"], "resources": {"gpu": {"count": 1, "type": "amd"}}}
        self.assert_problem(self.rest.post("tasks?rejectUnplaceable=true", unknown), 412, "TASK_UNPLACEABLE")
