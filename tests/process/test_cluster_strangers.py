# labels: cluster security
"""What a cluster of real nodes refuses: strangers at its raft ports, garbage and too much from peers, and data directories
that were made elsewhere. Each refusal is told, logged and counted, and the cluster goes on."""
import pathlib
import re
import shutil
import ssl
import subprocess
import unittest
import urllib.request

from lib.cluster import shared
from lib.credentials import new_authority, client_certificate
from lib.peer import (BULK, CONTROL, HELLO, MORE, PIECE_BYTES_MAX, Peer, crc32c, hello, incarnation_of, piece,
                      plain_connection)
from lib.uccp import SERVER, clean_environment
from lib.wait import wait_until

REJECTED = "uccp_peer_connections_rejected_total"
MALFORMED = "uccp_peer_frames_malformed_total"


@shared()
class Connections(unittest.TestCase):
    """A peer that is not what it should be, at the raft port of n1."""

    def setUp(self):
        self.port = self.cluster.node("n1")["raft"]
        self.cluster_id = self.cluster.context["clusterId"]
        self.directory = pathlib.Path(self.cluster.node("n2")["dataDir"])
        self.pki = self.directory / "pki"
        self.ca = self.cluster.context["ca"]

    def tearDown(self):
        written = self.cluster.patient("n1").post("services", {"serviceName": "after", "address": "10.0.0.1", "port": 1})
        self.assertEqual(written.status, 201, written)

    def count(self, metric, reason=None):
        url = f"http://{self.cluster.node('n1')['metrics']}/metrics"
        with urllib.request.urlopen(url, timeout=10) as answer:
            text = answer.read().decode()
        label = re.escape(f'{{reason="{reason}"}}') if reason else ""
        found = re.search(f"^{metric}{label} ([0-9.e+]+)$", text, re.M)
        self.assertIsNotNone(found, f"{metric} {reason} is not among the metrics")
        return float(found[1])

    def log(self):
        return (self.cluster.dir / "n1" / "uccp.log").read_text(errors="replace")

    def refused(self, do, said, reason, metric=REJECTED):
        """`do()` makes n1 refuse something: it counts it, and its log has `said` once more. One of several refusals within
        a second is logged, so it is done again until it is."""
        before, logged = self.count(metric, reason), self.log().count(said)

        def logged_now():
            do()
            return self.log().count(said) > logged
        wait_until(logged_now, 30, f"{said!r} in the log of n1")
        wait_until(lambda: self.count(metric, reason) > before, 30, f"{metric} {reason} to grow")

    def peer(self, **options):
        return Peer(self.port, **{"pki": self.pki, "ca": self.ca, **options})

    def hello_of_n2(self, **changes):
        fields = {"cluster_id": self.cluster_id, "sender": 2, "receiver": 1, "incarnation": incarnation_of(self.directory)}
        return hello(**{**fields, **changes})

    def say(self, *pieces):
        """Sends and waits for the end of the connection."""
        with self.peer() as peer:
            for data in pieces:
                if not peer.send(data):
                    break
            return peer.closed()

    def as_n2(self, *pieces):
        with self.peer() as peer:
            peer.send(self.hello_of_n2())
            for data in pieces:
                if not peer.send(data):
                    break
            return peer.closed()

    def test_without_tls_or_with_an_old_one(self):
        def plain():
            with plain_connection(self.port) as sock:
                sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
                while sock.recv(4096):
                    pass
        self.refused(plain, "the TLS handshake of a peer failed", "identity")
        with self.assertRaises(ssl.SSLError):
            self.peer(tls12=True)

    def test_without_a_certificate_or_with_a_foreign_one(self):
        def without():
            # TLS 1.3: the client is done before the server has seen what it shows.
            try:
                with self.peer(pki=None) as peer:
                    peer.send(self.hello_of_n2())
                    self.assertEqual(peer.closed(), b"")
            except OSError:
                pass
        self.refused(without, "the TLS handshake of a peer failed", "identity")
        folder = self.cluster.base / "foreign-ca"
        folder.mkdir()
        ca, key = new_authority(folder)
        cert, cert_key = client_certificate(folder, "n2", ca, key, uri=f"spiffe://uccp/cluster/{self.cluster_id}/node/2")
        shutil.copy(cert, folder / "node.crt")
        shutil.copy(cert_key, folder / "node.key")

        def foreign():
            try:
                with self.peer(pki=folder) as peer:
                    peer.send(self.hello_of_n2())
                    self.assertEqual(peer.closed(), b"")
            except OSError:
                pass
        self.refused(foreign, "the TLS handshake of a peer failed", "identity")

    def test_with_a_hello_that_is_not_its_own(self):
        for changes, said in (({"cluster_id": "elsewhere"}, "belongs to cluster 'elsewhere'"),
                              ({"sender": 3}, "does not name"),
                              ({"receiver": 3}, "looks for node 3 and found node 1"),
                              ({"incarnation": 1}, "has another data directory than the member of that id"),
                              ({"version": 0}, "PEER_HELLO_INVALID")):
            with self.subTest(said):
                self.refused(lambda changes=changes: self.say(self.hello_of_n2(**changes)), said, "identity")

    def test_with_something_else_than_a_hello(self):
        for data, said in ((piece(CONTROL, b"x"), "sent frames before its hello"),
                           (piece(HELLO, b"x" * 2000), "a frame of more than 1024 bytes"),
                           (bytes(200), "a frame of version 0"),
                           (b"\xff" * 200, "a frame of version 255")):
            with self.subTest(said):
                self.refused(lambda data=data: self.say(data), said, "identity")

    def test_garbage_and_too_much_of_a_member(self):
        # Alone, or the member itself would end our connection by making its own again.
        self.cluster.kill("n2")
        self.addCleanup(self.cluster.start)
        big = piece(BULK, b"x" * PIECE_BYTES_MAX, flags=MORE)
        for pieces, said in (([b"\x00" * 64], "a frame of version 0"),
                             ([piece(CONTROL, b"x", version=2)], "a frame of version 2"),
                             ([piece(9, b"x")], "a frame with a header that cannot be read"),
                             ([piece(CONTROL, b"xyz", checksum=1)], "a frame with a wrong checksum"),
                             ([piece(CONTROL, b"x", length=PIECE_BYTES_MAX + 1)], "a piece of 65537 bytes"),
                             ([big] * 513, "a frame of more than 33554432 bytes"),
                             ([piece(CONTROL, b"", flags=MORE)], "an empty piece that is not the last"),
                             ([self.hello_of_n2()], "for a second hello")):
            with self.subTest(said):
                self.refused(lambda pieces=pieces: self.as_n2(*pieces), said, "garbage")

    def test_frames_that_hold_nonsense_are_dropped(self):
        before = self.count(MALFORMED)
        # Alone, or the member itself would end our connection by making its own again.
        self.cluster.kill("n2")
        self.addCleanup(self.cluster.start)
        with self.peer() as peer:
            peer.send(self.hello_of_n2())
            for n in range(40):
                self.assertTrue(peer.send(piece(CONTROL, bytes([n]) * (n + 1))))
            wait_until(lambda: self.count(MALFORMED) >= before + 40, 30, "40 frames to be dropped")
        self.assertIn("PEER_FRAME_MALFORMED", self.log())

    def test_many_that_say_nothing_are_limited_and_let_go(self):
        before = self.count(REJECTED, "limit")
        silent = []
        try:
            while self.count(REJECTED, "limit") == before:
                self.assertLess(len(silent), 300, "nothing limits strangers that say nothing")
                silent.append(plain_connection(self.port))
            # Members are connected all the while, and afterwards there is room again.
            self.cluster.wait_equal(self.cluster.names())
            for sock in silent:
                sock.settimeout(20)
                self.assertEqual(sock.recv(1), b"", "a connection that says nothing is kept")
        finally:
            for sock in silent:
                sock.close()
        self.refused(lambda: self.say(self.hello_of_n2(receiver=3)), "looks for node 3", "identity")


@shared()
class Directories(unittest.TestCase):
    """Nodes that are started on what belongs to others; nothing of it reaches the cluster."""

    def refused(self, directory, said, code=5, **flags):
        ended, error = self.cluster.run_node(directory, **flags)
        self.assertEqual(ended, code, error)
        self.assertIn(said, error)
        self.assertNotIn("Traceback", error)

    def stopped(self, name):
        """A copy of the directory of a node that was stopped, which may be spoiled."""
        self.cluster.kill(name)
        copy = self.cluster.base / f"copy-{name}-{len(list(self.cluster.base.iterdir()))}"
        shutil.copytree(self.cluster.dir / name, copy)
        return copy

    def run_copy(self, copy, said, code=5):
        self.refused(copy, said, code, raft_dir=copy)

    def tearDown(self):
        self.cluster.start()
        self.cluster.wait_equal(self.cluster.names())

    def test_the_log_of_another_node(self):
        copy, other = self.stopped("n2"), self.stopped("n3")
        shutil.rmtree(copy / "log")
        shutil.copytree(other / "log", copy / "log")
        self.run_copy(copy, "node 3 incarnation")

    def test_the_state_of_another_node(self):
        copy, other = self.stopped("n2"), self.stopped("n3")
        shutil.rmtree(copy / "state")
        shutil.copytree(other / "state", copy / "state")
        self.run_copy(copy, "belongs to node 3 of cluster")

    def test_an_identity_of_another_format(self):
        copy = self.stopped("n2")
        path = copy / "identity"
        for version in (0, 2):
            data = path.read_bytes()[:-4]
            data = data[:6] + bytes([version]) + data[7:]
            path.write_bytes(data + crc32c(data).to_bytes(4, "big"))
            self.run_copy(copy, f"has format {version}")

    def test_a_log_of_another_format(self):
        copy = self.stopped("n2")
        path = min((copy / "log").glob("*.wal"))
        for version in (0, 99):
            with open(path, "r+b") as file:
                head = bytearray(file.read(124))
                head[8:12] = version.to_bytes(4, "big")
                file.seek(0)
                file.write(head + crc32c(head).to_bytes(4, "big"))
            self.run_copy(copy, f"has format version {version}")

    def test_an_old_copy_of_a_removed_node(self):
        subprocess.run([SERVER, "cluster", "prepare", "--data-dir", self.cluster.dir, "--node", "n4", "--ports", "auto"],
                       check=True, capture_output=True, timeout=30, env=clean_environment())
        self.cluster.start()
        copy = self.stopped("n4")
        self.cluster.cli_ok("cluster", "remove", "n4")
        shutil.rmtree(self.cluster.dir / "n4")
        self.run_copy(copy, "was removed")


if __name__ == "__main__":
    unittest.main()
