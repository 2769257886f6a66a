# needs: uccp
# timeout: 400
"""Objects in memory that the processes of a machine share: puts, gets, arguments, results, limits, damage and deaths."""
import gc
import os
import pathlib
import signal
import subprocess
import sys
import textwrap
import threading
import unittest

try:
    import uccp
    import uccp_memory
    MISSING = None
except ImportError as error:
    MISSING = f"{error}: build/venv is made by tools/python"

from lib.uccp import NodeTest, clean_environment
from lib.wait import wait_until

SMALL = {"cpu": 0.2, "memory": "256Mi"}
WAIT_S = 60
MIB = 1 << 20

if not MISSING:
    @uccp.remote(**SMALL, durable=False)
    def size(value):
        return len(value)

    @uccp.remote(**SMALL, durable=False)
    def twice(value):
        return value + value

    @uccp.remote(**SMALL)
    def durable_size(value):
        return len(value)

    @uccp.remote(**SMALL)
    def durable_twice(value):
        return value + value

    @uccp.remote(**SMALL, durable=False)
    def put_and_get(count):
        return uccp.get(uccp.put(b"i" * count)) == b"i" * count

    @uccp.remote(**SMALL)
    class Keeper:
        def keep(self, value):
            self.value = value
            return len(value)

        def give(self):
            return self.value

        def parts(self, count):
            for number in range(count):
                yield bytes([number]) * MIB


@unittest.skipIf(MISSING, MISSING)
class SharedTest(NodeTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.client = uccp.init(context_file=cls.node.context_file)
        cls.addClassCleanup(uccp.shutdown)

    def get(self, refs):
        return uccp.get(refs, timeout=WAIT_S)

    def stats(self):
        return self.client.memory.stats()

    def wait_until_empty(self):
        gc.collect()
        wait_until(lambda: self.stats()["objects"] == 0, WAIT_S, "all objects are gone")

    def beside(self, program, *arguments):
        """A process of its own with a client of this node."""
        head = f"""
            import os, sys, uccp, uccp_memory
            client = uccp.init(context_file={str(self.node.context_file)!r})
        """
        text = textwrap.dedent(head) + textwrap.dedent(program)
        process = subprocess.Popen([sys.executable, "-c", text, *arguments], stdin=subprocess.PIPE,
                                   stdout=subprocess.PIPE, text=True, env=clean_environment())
        self.addCleanup(self.end, process)
        return process

    @staticmethod
    def end(process):
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


class Sharing(SharedTest):
    def test_values_are_put_once_and_read_where_they_lie(self):
        value = os.urandom(8 * MIB)
        ref = uccp.put(value)
        small = uccp.put({"a": [1, 2.5, None]})
        puts = self.stats()["puts"]
        self.assertEqual(self.get(ref), value)
        self.assertEqual(self.get([small, ref]), [{"a": [1, 2.5, None]}, value])
        self.assertEqual(self.get([size.remote(ref) for _ in range(5)]), [len(value)] * 5)
        self.assertEqual(self.get(size.remote(small)), 1)
        self.assertEqual(self.stats()["puts"], puts, "calls were given the object, not copies of it")
        self.assertEqual(uccp.wait([ref], timeout=0), ([ref], []))
        with self.assertRaises(uccp.FailedPrecondition):
            ref.cancel()

    def test_results_of_any_size_come_back_and_go_on(self):
        ref = uccp.put(b"ab" * (4 * MIB))
        doubled = twice.remote(ref)
        self.assertEqual(self.get(doubled), b"ab" * (8 * MIB))
        self.assertEqual(self.get(size.remote(doubled)), 16 * MIB)
        self.assertEqual(self.get(twice.remote(twice.remote(doubled))), b"ab" * (32 * MIB))

    def test_actors_take_keep_and_give(self):
        keeper = Keeper.remote()
        self.addCleanup(uccp.kill, keeper)
        ref = uccp.put(b"k" * (6 * MIB))
        self.assertEqual(self.get(keeper.keep.remote(ref)), 6 * MIB)
        del ref
        gc.collect()
        given = [keeper.give.remote() for _ in range(3)]
        self.assertEqual([len(one) for one in self.get(given)], [6 * MIB] * 3)
        self.assertEqual([self.get(part)[:2] for part in keeper.parts.remote(4)],
                         [bytes([number]) * 2 for number in range(4)])

    def test_many_are_put_at_once_and_a_value_that_cannot_be_does_no_harm(self):
        self.wait_until_empty()
        values = [number if number % 100 else b"l" * MIB for number in range(1500)]
        refs = uccp.put_many(values)
        self.assertEqual(self.stats()["objects"], 1500)
        self.assertEqual(self.get(refs), values)
        self.assertEqual(self.get([twice.remote(refs[7]), size.remote(refs[0])]), [14, MIB])
        with self.assertRaises(uccp.SerializationError):
            uccp.put_many([1, threading.Lock()])
        with self.assertRaises(uccp.SerializationError):
            uccp.put_many([refs[0]])
        self.assertEqual(uccp.put_many([]), [])
        del refs
        self.wait_until_empty()

    def test_durable_calls_get_them_too(self):
        ref = uccp.put(b"d" * (5 * MIB))
        self.assertEqual(self.get([durable_size.remote(ref), durable_size.remote(ref)]), [5 * MIB] * 2)
        copies = list(self.client.objects.list("uccp.put/"))
        self.assertEqual([one.size for one in copies], [5 * MIB], "one copy, however many calls")
        self.assertEqual(self.get(durable_size.map([ref, uccp.put("small")], batch=2)), [5 * MIB, 5])
        del ref
        gc.collect()
        wait_until(lambda: not list(self.client.objects.list("uccp.put/")), WAIT_S, "the copy is removed")

    def test_values_of_durable_calls_are_handed_over_too(self):
        self.wait_until_empty()
        puts = self.stats()["puts"]
        refs = [durable_twice.remote(b"v" * MIB), *durable_twice.map([b"w" * MIB, "x"], batch=2)]
        self.assertEqual(self.get(refs), [b"vv" * MIB, b"ww" * MIB, "xx"])
        self.assertEqual(self.stats()["puts"], puts + 2)
        self.wait_until_empty()
        self.assertEqual(self.get(durable_size.remote(refs[0])), 2 * MIB)

    def test_functions_put_and_get_by_themselves(self):
        self.assertTrue(self.get(put_and_get.remote(3 * MIB)))

    def test_objects_end_with_their_references(self):
        self.wait_until_empty()
        refs = [uccp.put(bytes(MIB)) for _ in range(5)] + [twice.remote(bytes(MIB))]
        self.get(refs)
        self.assertEqual(self.stats()["objects"], 6)
        del refs[2:]
        wait_until(lambda: self.stats()["objects"] == 2, WAIT_S, "four are gone")
        refs.clear()
        self.wait_until_empty()

    def test_a_process_killed_in_the_middle_harms_nobody(self):
        self.wait_until_empty()
        mine = uccp.put(b"m" * MIB)
        process = self.beside("""
            memory = client.memory
            refs = [uccp.put(b"r" * 1_000_000) for _ in range(3)]
            held = memory._view(*[memory._find(refs[0]._pending.identity)[n] for n in (0, 2, 3)])
            memory._ask("C", uccp_memory._field("i", b"u" * 16) + uccp_memory._field("s", (1 << 20).to_bytes(8, "big")))
            print("ready", flush=True)
            sys.stdin.readline()
        """)
        self.assertEqual(process.stdout.readline(), "ready\n")
        self.assertEqual(self.stats()["objects"], 5)
        process.kill()
        wait_until(lambda: self.stats()["objects"] == 1, WAIT_S, "what the dead process had is gone")
        self.assertEqual(self.get(mine), b"m" * MIB)
        self.assertEqual(self.stats()["pinned_bytes"], 0)

    def test_a_child_reads_what_its_parent_has_and_takes_nothing_from_it(self):
        process = self.beside("""
            import gc
            refs = [uccp.put(bytes([number]) * 100_000) for number in range(50)]
            held = [uccp.get(ref) for ref in refs]
            child = os.fork()
            if child == 0:
                right = [uccp.get(ref) for ref in refs] == held and uccp.get(uccp.put("c")) == "c"
                del refs, held
                gc.collect()
                os._exit(0 if right else 1)
            print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), [uccp.get(ref) for ref in refs] == held)
        """)
        self.assertEqual(process.communicate(timeout=WAIT_S)[0], "0 True\n")

    def test_a_value_that_cannot_be_pickled_is_refused(self):
        with self.assertRaises(uccp.SerializationError):
            uccp.put([threading.Lock()])

    def test_many_threads_and_processes_read_the_same(self):
        ref = uccp.put(list(range(100_000)))
        small = uccp.put("s")
        processes = [self.beside("""
            from concurrent.futures import ThreadPoolExecutor
            refs = [uccp.put((number, bytes(number * 1000))) for number in range(100)]
            def check(number):
                return all(uccp.get(refs[one]) == (one, bytes(one * 1000)) for one in range(number, 100, 7))
            with ThreadPoolExecutor(4) as pool:
                print(all(pool.map(check, range(70))), flush=True)
        """) for _ in range(2)]
        for process in processes:
            self.assertEqual(process.communicate(timeout=WAIT_S)[0], "True\n")
        self.assertEqual(self.get(size.remote(ref)), 100_000)
        self.assertEqual(self.get(small), "s")


class Access(SharedTest):
    def test_who_shows_no_grant_of_the_namespace_gets_nothing(self):
        socket_name = uccp_memory.json.loads((self.node.dir / "agent" / "objects.json").read_text())["socket"]
        with self.assertRaises(uccp_memory.MemoryRefused) as caught:
            uccp_memory.Memory(socket_name, "wrong")
        self.assertEqual(caught.exception.reason, "GRANT_INVALID")
        mode = (self.node.dir / "agent" / "objects.json").stat().st_mode
        self.assertEqual(mode & 0o777, 0o600)

    def refusal(self, memory, packet):
        """What the agent says to a packet that this package would not send."""
        with memory._lock:
            memory._socket.send(packet)
            answer = memory._socket.recv(uccp_memory.PACKET_BYTES)
        with self.assertRaises(uccp_memory.MemoryRefused) as caught:
            memory._answer(answer, "-")
        return caught.exception.reason

    def test_nonsense_is_refused_and_harms_nobody(self):
        field = uccp_memory._field
        memory = uccp_memory.of_file(self.client.context.objects, "default", "nonsense")
        self.addCleanup(memory.close)
        unknown = field("i", b"?" * 16)
        for packet, reason in (
            (b"T\0", "REQUEST_INVALID"),
            (b"P\0", "REQUEST_INVALID"),
            (b"P\0" + field("i", b"short") + field("d", b"x"), "REQUEST_INVALID"),
            (b"P\0" + unknown, "OBJECT_TOO_LARGE"),
            (b"C\0" + unknown + field("s", b"1"), "REQUEST_INVALID"),
            (b"C\0" + unknown + field("s", bytes(8)), "OBJECT_TOO_LARGE"),
            (b"C\0" + unknown + field("s", b"\xff" * 8), "OBJECT_TOO_LARGE"),
            (b"S\0" + unknown, "OBJECT_UNKNOWN"),
            (b"G\0" + unknown, "OBJECT_UNKNOWN"),
            (b"P\0" + b"i\xff\xff\xff\xff", "REQUEST_INVALID"),
            (b"?\0" + unknown, "REQUEST_INVALID"),
            (b"N\0" + field("d", b"x"), "REQUEST_INVALID"),
            (b"N\0" + field("i", b"short") + field("d", b"x"), "REQUEST_INVALID"),
            (b"N\0" + unknown + field("d", b""), "OBJECT_TOO_LARGE"),
        ):
            with self.subTest(packet=packet):
                self.assertEqual(self.refusal(memory, packet), reason)
        memory._socket.send(b"R\0" + field("i", b"R" * 100))
        memory._socket.send(b"K\0" + field("i", b"K" * 100))
        memory._socket.send(b"F\0" + field("i", b"F" * 100))
        memory._socket.send(b"B\0" + unknown + field("l", b"nowhere"))
        memory._socket.send(b"B\0" + unknown)
        self.assertEqual(memory.stats()["objects"], 0)
        with uccp_memory.socket.socket(uccp_memory.socket.AF_UNIX, uccp_memory.socket.SOCK_SEQPACKET) as stranger:
            stranger.connect("\0" + memory.door)
            stranger.send(b"G\0" + unknown)
            with self.assertRaises(uccp_memory.MemoryRefused) as caught:
                memory._answer(stranger.recv(uccp_memory.PACKET_BYTES), "G")
            self.assertEqual(caught.exception.reason, "GRANT_MISSING")
            stranger.send(b"x")
            self.assertEqual(stranger.recv(1), b"", "what is no packet ends the connection")
        self.assertEqual(uccp.get(uccp.put("still")), "still")

    def test_another_namespace_sees_nothing_of_it(self):
        ref = uccp.put(b"secret" * MIB)
        identity = ref._pending.identity
        other = uccp.connect(self.node.context_file, namespace="other")
        self.addCleanup(other.close)
        self.assertEqual(other.memory.stats()["objects"], 0)
        with self.assertRaises(uccp_memory.MemoryRefused) as caught:
            other.memory.get(identity)
        self.assertEqual(caught.exception.reason, "OBJECT_UNKNOWN")
        uccp.get(ref)

    def test_a_task_of_another_namespace_has_a_grant_of_its_own(self):
        @uccp.remote(**SMALL, durable=False)
        def grant():
            return os.environ["UCCP_OBJECTS_GRANT"]

        here = self.get(grant.remote())
        with uccp.connect(self.node.context_file, namespace="other") as other:
            task = other.tasks.submit(["/bin/sh", "-c", 'printf %s "$UCCP_OBJECTS_GRANT"'], **SMALL)
            other.tasks.wait(task.id, timeout=WAIT_S)
            there = "".join(other.tasks.logs(task.id)).strip()
        self.assertEqual(len(here), 64)
        self.assertEqual(len(there), 64)
        self.assertNotEqual(here, there)


class Limits(SharedTest):
    environment = {"UCCP_AGENT_OBJECTS_MEMORY": "8Mi", "UCCP_AGENT_OBJECTS_DISK": "64Mi",
                   "UCCP_AGENT_OBJECTS_EVICTION": "lru"}

    def tearDown(self):
        self.wait_until_empty()

    def test_what_does_not_fit_goes_to_the_disk_and_comes_back(self):
        values = [os.urandom(MIB) for _ in range(30)]
        refs = [uccp.put(value) for value in values]
        self.assertGreaterEqual(self.stats()["spilled"], 20)
        self.assertEqual(self.get(refs), values)
        self.assertEqual(self.get([size.remote(ref) for ref in refs]), [MIB] * 30)
        del refs
        self.wait_until_empty()
        self.assertEqual(self.stats()["disk_bytes"], 0)

    def test_a_damaged_file_is_the_loss_of_its_object_alone(self):
        first, second = uccp.put(b"1" * (7 * MIB)), uccp.put(b"2" * (7 * MIB))
        (file,) = pathlib.Path(self.node.dir, "agent", "objects").glob("*/*.spill")
        with open(file, "r+b") as content:
            content.seek(3 * MIB)
            content.write(b"damage")
        with self.assertRaisesRegex(uccp.Corruption, "spill is damaged: piece 0 is damaged: it is not as it was written") as caught:
            self.get(first)
        self.assertEqual(caught.exception.reason, "OBJECT_LOST")
        with self.assertRaisesRegex(uccp.Corruption, "is damaged"):
            self.get(size.remote(first))
        self.assertEqual(self.get(second), b"2" * (7 * MIB))

    def damage(self, ref):
        """The object's content on the disk, and nothing else."""
        identity = ref._pending.shared.identity
        for path in pathlib.Path(self.node.dir, "agent", "objects").glob("*/*.spill"):
            at = path.read_bytes().find(identity)
            if at >= 0:
                with open(path, "r+b") as file:
                    file.seek(at + 5000)
                    file.write(b"damage")
                return
        self.fail("the object is not on the disk")

    def test_a_lost_value_is_made_again_from_what_it_was_made_of(self):
        base = uccp.put(b"b" * MIB)
        middle = twice.remote(base)
        last = twice.remote(middle)
        self.get(last)
        fill = uccp.put(b"f" * (7 * MIB))
        damaged = self.stats()["damaged"]
        self.damage(middle)
        self.damage(last)
        self.assertEqual(self.get(size.remote(middle)), 2 * MIB, "an argument that is lost is made again")
        self.assertEqual(self.stats()["damaged"], damaged + 1)
        del base, middle, fill
        gc.collect()
        self.assertEqual(self.get(last), b"b" * (4 * MIB), "also when what it was made of is gone")
        self.assertEqual(self.stats()["damaged"], damaged + 2)

    def test_a_put_waits_until_there_is_room(self):
        ref = uccp.put(bytearray(6 * MIB))
        held = self.client.memory._view  # what a value that is held does
        slot, _, offset, length = self.client.memory._find(ref._pending.identity)
        self.assertTrue(self.client.memory._pins.take(slot, lambda: True))
        view = held(slot, offset, length)
        packed = uccp_memory.Packed(uccp_memory.RAW, bytes(6 * MIB), [])
        with self.assertRaises(uccp_memory.MemoryRefused) as caught:
            self.client.memory.put(packed, wait=0)
        self.assertEqual(caught.exception.reason, "MEMORY_FULL")
        self.assertIn("by values that processes hold", str(caught.exception))
        process = self.beside("""
            print("begins", flush=True)
            print(len(uccp.get(uccp.put(bytes(6 << 20)))), flush=True)
        """)
        self.assertEqual(process.stdout.readline(), "begins\n")
        refused = self.stats()["refused"]
        wait_until(lambda: self.stats()["refused"] > refused, WAIT_S, "it was refused and waits")
        del view
        self.assertEqual(process.stdout.readline(), f"{6 * MIB}\n")

    def test_what_can_never_fit_is_refused_at_once(self):
        with self.assertRaisesRegex(uccp.InvalidRequest, "--objects-memory") as caught:
            uccp.put(bytes(9 * MIB))
        self.assertEqual(caught.exception.reason, "OBJECT_TOO_LARGE")

    def test_a_result_larger_than_memory_says_so(self):
        with self.assertRaisesRegex(uccp.RemoteError, "bytes, at most"):
            self.get(twice.remote(uccp.put(bytes(5 * MIB))))


    def test_memory_that_is_free_is_used_again(self):
        for _ in range(20):
            uccp.put(bytes(5 * MIB))
        stats = self.stats()
        self.assertLessEqual(stats["resident_bytes"], 8 * MIB)
        self.assertEqual(self.stats()["spilled"], stats["spilled"])


class Shares(SharedTest):
    environment = {"UCCP_AGENT_OBJECTS_MEMORY": "16Mi", "UCCP_AGENT_OBJECTS_NAMESPACE_SHARE": "50"}

    def test_a_namespace_that_fills_its_share_leaves_the_rest_to_others(self):
        mine = [uccp.put(os.urandom(MIB)) for _ in range(20)]
        self.assertLessEqual(self.stats()["resident_bytes"], 8 * MIB)
        self.assertGreaterEqual(self.stats()["spilled"], 10)
        with uccp.connect(self.node.context_file, namespace="other") as other:
            packed = uccp_memory.Packed(uccp_memory.RAW, bytes(7 * MIB), [])
            other.memory.put(packed, wait=0)
            self.assertEqual(other.memory.stats()["spilled"], 0)
        with self.assertRaises(uccp.InvalidRequest):
            uccp.put(bytes(9 * MIB))
        self.assertEqual(len(mine), 20)


class Disk(SharedTest):
    """What files on the disk are made of."""
    environment = {"UCCP_AGENT_OBJECTS_MEMORY": "8Mi", "UCCP_AGENT_OBJECTS_EVICTION": "lru"}
    share = 1.0  # of the content that its files have

    def test_nobody_reads_in_the_files_and_content_comes_back(self):
        words = b"a secret that is written again and again, "
        values = [words * (MIB // len(words)) + bytes([number]) for number in range(20)]
        refs = [uccp.put(value) for value in values]
        spilled = self.stats()["spilled"]
        self.assertGreaterEqual(spilled, 10)
        files = list(pathlib.Path(self.node.dir, "agent", "objects").glob("*/*.spill"))
        self.assertTrue(files)
        for file in files:
            self.assertNotIn(b"secret", file.read_bytes())
        self.assertLessEqual(self.stats()["disk_bytes"], spilled * MIB * (self.share + 0.01))
        self.assertEqual(self.get(refs), values)


class Lz4(Disk):
    environment = {**Disk.environment, "UCCP_AGENT_OBJECTS_COMPRESSION": "lz4"}
    share = 0.05


class Zstd(Disk):
    environment = {**Disk.environment, "UCCP_AGENT_OBJECTS_COMPRESSION": "zstd"}
    share = 0.05


class Gzip(Disk):
    environment = {**Disk.environment, "UCCP_AGENT_OBJECTS_COMPRESSION": "gzip"}
    share = 0.05


class Policies(SharedTest):
    environment = {"UCCP_AGENT_OBJECTS_MEMORY": "8Mi", "UCCP_AGENT_OBJECTS_EVICTION": "lru"}

    def in_memory(self, refs):
        return {number for number, ref in enumerate(refs) if self.client.memory._find(ref._pending.identity)}

    def test_what_leaves_first(self):
        refs = [uccp.put(bytes(MIB - 1000)) for _ in range(7)]
        for number in (0, 1, 1, 0):
            uccp.get(refs[number])
        more = [uccp.put(bytes(MIB * 3 // 2)) for _ in range(2)]
        self.assertLessEqual({0, 1}, self.in_memory(refs))
        self.assertLess(len(self.in_memory(refs)), 6)
        self.assertEqual(len(more), 2)


class LeastOften(Policies):
    environment = {**Policies.environment, "UCCP_AGENT_OBJECTS_EVICTION": "lfu"}


class S3Fifo(Policies):
    environment = {**Policies.environment, "UCCP_AGENT_OBJECTS_EVICTION": "s3-fifo"}


class Ages(SharedTest):
    environment = {"UCCP_AGENT_OBJECTS_EVICTION": "ttl", "UCCP_AGENT_OBJECTS_TTL": "500ms"}

    def test_what_is_old_leaves_memory_and_is_still_there(self):
        ref = uccp.put(b"old" * MIB)
        wait_until(lambda: self.client.memory._find(ref._pending.identity) is None, WAIT_S, "it left memory")
        self.assertEqual(self.get(ref), b"old" * MIB)
        self.assertEqual(self.stats()["restored"], 1)


class Deaths(SharedTest):
    def test_an_agent_that_is_killed_takes_its_objects_along_and_the_next_one_has_new_ones(self):
        ref = uccp.put(b"before" * MIB)
        self.get(ref)
        pid = self.node.agent_pid()
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: self.node.agent_pid() not in (None, pid), WAIT_S, "another agent")
        wait_until(self.put_works, WAIT_S, "shared memory of the new agent")
        self.assertEqual(self.get(ref), b"before" * MIB, "what was in this process' memory still is")
        after = uccp.put(b"after" * MIB)
        self.assertEqual(self.get([size.remote(after), size.remote(uccp.put("x"))]), [5 * MIB, 1])

    def put_works(self):
        ref = uccp.put(b"now")
        return hasattr(ref._pending, "identity") and self.get(ref) == b"now"


class Without(SharedTest):
    environment = {"UCCP_AGENT_OBJECTS_MEMORY": "0"}

    def test_values_go_through_the_cluster(self):
        ref = uccp.put(b"w" * MIB)
        self.assertIsNone(self.client.memory)
        self.assertTrue(ref.task_id)
        self.assertEqual(self.get(size.remote(ref)), MIB)
        self.assertEqual(self.get(twice.remote("a")), "aa")


if __name__ == "__main__":
    unittest.main()
