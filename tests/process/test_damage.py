"""Data directories that are not what they were: a torn tail is repaired and told, anything else is refused, clearly."""
import shutil
import struct
import subprocess
import unittest

from lib.uccp import SERVER, Node, clean_environment, require

require(SERVER)

HEADER = 128  # of a segment; the version is at 8, the checksum at 124
FRAME = 20


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def used(segment):
    """The bytes of a segment up to the end of its frames; what follows is zeros."""
    return segment.read_bytes().rstrip(b"\0")


def patch(path, at, data):
    with open(path, "r+b") as file:
        file.seek(at)
        file.write(data)


class Damage(unittest.TestCase):
    def setUp(self):
        self.node = self.new_node()

    def new_node(self, count=20):
        """A node with some services, killed."""
        node = Node(agent=False, flags=("--log-compression", "none"))
        self.addCleanup(node.close)
        node.start()
        for number in range(count):
            response = node.rest.post("services", {"serviceName": f"s{number}", "address": "10.0.0.1",
                                                   "port": 1 + number, "ttl": "86400s"})
            self.assertEqual(response.status, 201, response)
        node.kill()
        return node

    @property
    def segment(self):
        return self.node.dir / "log" / "0000000000000001.wal"

    def names(self, node=None):
        return {item["serviceName"] for item in (node or self.node).rest.get("services", pageSize=100).json["services"]}

    def assert_all_there(self):
        self.node.start()
        self.assertEqual(self.names(), {f"s{number}" for number in range(20)})

    def refused(self, *words, code=None):
        """The server does not start and says `words`; nothing in the log has changed."""
        before = {path: path.read_bytes() for path in (self.node.dir / "log").glob("*.wal")}
        done = subprocess.run([SERVER, "dev", "--no-agent", "--ports", "auto", "--data-dir", self.node.dir],
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30,
                              env=clean_environment(), check=False)
        self.assertNotEqual(done.returncode, 0)
        if code is not None:
            self.assertEqual(done.returncode, code, done.stderr)
        for word in words:
            self.assertIn(str(word), done.stderr)
        for path, content in before.items():
            self.assertEqual(path.read_bytes(), content, f"{path} was changed")

    def test_a_torn_tail_is_cut_off_and_told(self):
        end = len(used(self.segment))
        # What a crash leaves of a frame that was being written: some of it, and it was acknowledged to nobody.
        patch(self.segment, end, b"\x5a" * 300)
        self.assert_all_there()
        log = self.node.errors()
        self.assertIn(f"cut off 300 bytes that were never acknowledged at byte {end} of {self.segment}", log)

    def test_damage_before_what_was_acknowledged_is_refused(self):
        content = used(self.segment)
        for at in (HEADER + FRAME + 30, len(content) // 2):
            patch(self.segment, at, bytes([content[at] ^ 1]))
            self.refused(f"{self.segment} is damaged at byte", "cannot be repaired on this node alone", "restore a backup")
            patch(self.segment, at, content[at:at + 1])
        self.assert_all_there()

    def test_a_damaged_header_and_a_missing_segment_are_refused(self):
        content = used(self.segment)
        patch(self.segment, 20, bytes([content[20] ^ 1]))
        self.refused(f"{self.segment} is damaged at byte 0", "frames follow it")
        patch(self.segment, 20, content[20:21])
        self.segment.rename(self.segment.with_name("0000000000000002.wal"))
        self.refused("0000000000000002.wal is damaged", "under another name")
        self.segment.with_name("0000000000000002.wal").rename(self.segment)
        self.assert_all_there()

    def with_version(self, version):
        header = bytearray(used(self.segment)[:HEADER])
        header[8:12] = struct.pack(">I", version)
        header[124:128] = struct.pack(">I", crc32c(bytes(header[:124])))
        patch(self.segment, 0, bytes(header))

    def test_a_log_of_a_later_version_is_refused_and_one_of_an_earlier_goes_on(self):
        self.with_version(9)
        self.refused("format version 9", "Start a newer program")
        self.with_version(1)
        before = used(self.segment)
        self.assert_all_there()
        self.assertEqual(self.node.rest.post("services", {"serviceName": "new", "address": "10.0.0.1", "port": 99,
                                                          "ttl": "86400s"}).status, 201)
        # The old segment is read and not written to.
        self.assertEqual(used(self.segment), before)
        self.assertTrue(self.segment.with_name("0000000000000002.wal").exists())
        self.node.restart()
        self.assertEqual(len(self.names()), 21)

    def test_parts_of_another_directory_are_refused(self):
        other = self.new_node(count=3)
        for part, words in (("log", "belongs to cluster"), ("identity", "belongs to cluster"),
                            ("state", "restore the directory as a whole")):
            mine, kept = self.node.dir / part, self.node.base / "kept"
            mine.rename(kept)
            (shutil.copytree if (other.dir / part).is_dir() else shutil.copy)(other.dir / part, mine)
            self.refused(words)
            shutil.rmtree(mine) if mine.is_dir() else mine.unlink()
            kept.rename(mine)
        self.assert_all_there()

    def test_a_state_that_the_log_does_not_lead_to_is_refused(self):
        shutil.copytree(self.node.dir / "log", self.node.base / "earlier")
        self.node.start()
        for number in range(200):
            self.node.rest.post("services", {"serviceName": f"t{number}", "address": "10.0.0.2", "port": 1 + number,
                                             "ttl": "86400s"})
        self.node.stop()
        (self.node.dir / "log").rename(self.node.base / "kept")
        (self.node.base / "earlier").rename(self.node.dir / "log")
        self.refused("one of them is from elsewhere", "Restore a backup")
        shutil.rmtree(self.node.dir / "log")
        (self.node.base / "kept").rename(self.node.dir / "log")
        self.node.start()
        self.assertEqual(len(self.node.rest.get("services", pageSize=1000).json["services"]), 220)

    def test_a_damaged_identity_is_refused(self):
        identity = self.node.dir / "identity"
        good = identity.read_bytes()
        identity.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
        self.refused("identity is damaged")
        identity.write_bytes(good)
        self.assert_all_there()
