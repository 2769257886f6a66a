# timeout: 180
"""What a hostile client can send to the gRPC port: floods of frames that cost the server more than the client, headers and
messages that grow, and streams that never go on. The frames are made here byte by byte, as no honest client would.
"""
import gzip
import socket
import ssl
import struct
import threading
import time

from lib.attacks import RawAttack

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS = 1, 1, 4
METHOD = "/uccp.v1.ServiceDiscovery/ListServices"
RESOURCE_EXHAUSTED, UNAUTHENTICATED = b"8", b"16"


def frame(kind, flags=0, stream=0, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def text(value):
    """A string of HPACK without Huffman code."""
    value = value.encode() if isinstance(value, str) else value
    if len(value) < 127:
        return bytes([len(value)]) + value
    out, left = b"\x7f", len(value) - 127
    while left >= 128:
        out, left = out + bytes([left & 127 | 128]), left >> 7
    return out + bytes([left]) + value


def field(name, value, indexed=False):
    return (b"\x40" if indexed else b"\x00") + text(name) + text(value)


def request(token="", method=METHOD, more=b""):
    """The header block of a call."""
    block = b"".join(field(*f) for f in ((":method", "POST"), (":scheme", "https"), (":path", method), (":authority", "localhost"),
                                          ("content-type", "application/grpc"), ("te", "trailers")))
    return block + (field("authorization", f"Bearer {token}") if token else b"") + more


def message(data=b"", compressed=0):
    return bytes([compressed]) + struct.pack(">I", len(data)) + data


class Attack(RawAttack):
    door = "grpc"
    alpn = ["h2"]

    def setUp(self):
        self.before = self.memory_bytes()

    def tearDown(self):
        super().tearDown()
        self.assertLess(self.memory_bytes() - self.before, 96 << 20, "the server has grown")

    def answers_another(self):
        connection = self.connect()
        connection.sendall(frame(HEADERS, END_HEADERS, 1, request(self.token)) + frame(DATA, END_STREAM, 1, message()))
        self.assertEqual(self.status_of(connection, 1), b"0")
        connection.close()

    def connect(self, first=PREFACE + frame(SETTINGS), timeout=20):
        return super().connect(first, timeout)

    @staticmethod
    def frames(connection):
        """The frames that the server sends until it closes: (kind, flags, stream, payload)."""
        have = b""
        while True:
            while len(have) < 9 or len(have) < 9 + int.from_bytes(have[:3], "big"):
                try:
                    chunk = connection.recv(65536)
                except (OSError, ssl.SSLError):
                    return
                if not chunk:
                    return
                have += chunk
            size = int.from_bytes(have[:3], "big")
            yield have[3], have[4], int.from_bytes(have[5:9], "big"), have[9:9 + size]
            have = have[9 + size:]

    def status_of(self, connection, stream):
        """The grpc-status that a stream ends with; None if it is reset or the connection ends."""
        for kind, flags, at, payload in self.frames(connection):
            if at == stream and kind == RST_STREAM:
                return None
            if at == stream and kind == HEADERS and flags & END_STREAM:
                # Without Huffman code or an index the name stands there as it is; its value is one or two digits.
                name = payload.find(b"grpc-status")
                if name < 0:
                    return self.coded_status(payload)
                size = payload[name + 11]
                return payload[name + 12:name + 12 + size] if size < 128 else self.digits(payload[name + 12:name + 12 + (size & 127)])
        return None

    # "grpc-status" in Huffman code.
    CODED_NAME = bytes.fromhex("9acac8b21234da8f")
    # Digits in Huffman code (RFC 7541, appendix B): five bits for 0 to 2, six for the others.
    DIGITS = {"00000": "0", "00001": "1", "00010": "2", "011001": "3", "011010": "4", "011011": "5", "011100": "6", "011101": "7",
              "011110": "8", "011111": "9"}

    def coded_status(self, payload):
        at = payload.find(self.CODED_NAME)
        self.assertGreaterEqual(at, 0, payload)
        size = payload[at + len(self.CODED_NAME)]
        value = payload[at + len(self.CODED_NAME) + 1:][:size & 127]
        return self.digits(value) if size & 128 else value

    def digits(self, coded):
        bits, out = "".join(f"{byte:08b}" for byte in coded), ""
        while bits and not set(bits) == {"1"}:
            code = bits[:5] if bits[:5] in self.DIGITS else bits[:6]
            out, bits = out + self.DIGITS[code], bits[len(code):]
        return out.encode()

    def end_of(self, connection, seconds=30):
        """Waits until the server has closed the connection; answers the code of its GOAWAY, None without one."""
        connection.settimeout(seconds)
        begun, code = time.monotonic(), None
        for kind, _, _, payload in self.frames(connection):
            if kind == GOAWAY:
                code = int.from_bytes(payload[4:8], "big")
        self.assertLess(time.monotonic() - begun, seconds, "the connection stays open")
        return code


class Floods(Attack):
    def assert_enough(self, pieces, codes=(None, 1, 2, 11)):
        """The server ends the connection, with PROTOCOL_ERROR, INTERNAL_ERROR, ENHANCE_YOUR_CALM or without a word."""
        connection = self.connect()
        self.pour(connection, pieces)
        self.assertIn(self.end_of(connection), codes)

    def test_rapid_reset(self):
        """Calls that are begun and cancelled at once (CVE-2023-44487)."""
        block = request(self.token)
        self.assert_enough((b"".join(frame(HEADERS, END_HEADERS, stream, block) + frame(RST_STREAM, 0, stream, struct.pack(">I", 8))
                                     for stream in range(first, first + 200, 2)) for first in range(1, 100_000, 200)))

    def test_calls_that_make_the_server_reset(self):
        """The same by the server's own hand: a window that is opened too far resets the stream."""
        block = request(self.token)
        bad = struct.pack(">I", 0)
        pieces = (b"".join(frame(HEADERS, END_HEADERS, stream, block) + frame(WINDOW_UPDATE, 0, stream, bad)
                           for stream in range(first, first + 200, 2)) for first in range(1, 40_000, 200))
        connection = self.connect()
        self.pour(connection, pieces)
        connection.close()

    def test_settings_and_pings_whose_answers_nobody_reads(self):
        entry = struct.pack(">HI", 4, 65535)
        for name, one in (("settings", frame(SETTINGS, 0, 0, entry)), ("pings", frame(PING, 0, 0, b"12345678")),
                          ("empty settings", frame(SETTINGS))):
            with self.subTest(name):
                connection = self.connect(timeout=5)
                sent = self.pour(connection, (one * 1000 for _ in range(3000)))
                # Either it is refused as a flood, or nothing more is read of who does not read.
                self.assertLess(sent, 3000, "a flood of 3 million frames was taken")
                connection.close()

    def test_frames_that_do_nothing(self):
        """Priorities, windows and empty data cost a little each; they must not hold up others."""
        block = frame(HEADERS, END_HEADERS, 1, request(self.token))
        for name, one in (("priorities", frame(PRIORITY, 0, 3, struct.pack(">IB", 0, 1))), ("unknown frames", frame(0x77, 0, 0, b"x")),
                          ("empty data", frame(DATA, 0, 1))):
            with self.subTest(name):
                connection = self.connect(timeout=5)
                connection.sendall(block)
                stop = time.monotonic() + 2
                slowest = 0.0

                def pieces():
                    while time.monotonic() < stop:
                        yield one * 500

                flood = threading.Thread(target=self.pour, args=(connection, pieces()))
                flood.start()
                while flood.is_alive():
                    begun = time.monotonic()
                    self.assertEqual(self.rest.get("version").status, 200)
                    slowest = max(slowest, time.monotonic() - begun)
                    flood.join(0.05)
                self.assertLess(slowest, self.CALM_S)
                connection.close()

    def test_windows_beyond_all_bounds(self):
        connection = self.connect()
        self.pour(connection, [frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 0x7fffffff))] * 2)
        self.assertEqual(self.end_of(connection), 3)  # FLOW_CONTROL_ERROR


class Growing(Attack):
    def assert_call(self, block, status, data=b""):
        connection = self.connect()
        connection.sendall(frame(HEADERS, END_HEADERS, 1, block) + frame(DATA, END_STREAM, 1, message(data)))
        self.assertEqual(self.status_of(connection, 1), status)

    def test_a_call_is_answered(self):
        # Without this the refusals could be for the frames that are made here.
        self.assert_call(request(self.token), b"0")
        self.assert_call(request("no.such.token"), UNAUTHENTICATED)

    def test_metadata(self):
        connection = self.connect()
        more = b"".join(field(f"x-{i}", "a" * 1000) for i in range(14))
        connection.sendall(frame(HEADERS, END_HEADERS, 1, request(self.token, more=more)) + frame(DATA, END_STREAM, 1, message()))
        self.assertEqual(self.status_of(connection, 1), b"0")
        connection = self.connect()
        first, rest = request(self.token), b"".join(field(f"x-{i}", "a" * 1000) for i in range(40))
        connection.sendall(frame(HEADERS, 0, 1, first) + b"".join(
            frame(CONTINUATION, END_HEADERS if at + 16_000 >= len(rest) else 0, 1, rest[at:at + 16_000]) for at in range(0, len(rest), 16_000)))
        self.assertIn(self.status_of(connection, 1), (RESOURCE_EXHAUSTED, None))

    def test_a_block_of_headers_without_an_end(self):
        """CONTINUATION frames for ever (CVE-2024-28182)."""
        connection = self.connect()
        connection.sendall(frame(HEADERS, 0, 1, request(self.token)))
        sent = self.pour(connection, (frame(CONTINUATION, 0, 1, field(f"x-{i}", "a" * 1000)) for i in range(50_000)))
        self.assertLess(sent, 50_000)
        self.end_of(connection)

    def test_a_table_that_makes_a_few_bytes_large(self):
        """A header of 4 KB is put into the table once and named by a byte as often as a frame can hold."""
        connection = self.connect()
        for stream in range(1, 41, 2):
            large = field("x-bomb", "b" * 4000, indexed=True) if stream == 1 else b""
            # 62 is the newest entry of the table.
            try:
                connection.sendall(frame(HEADERS, END_HEADERS, stream, request(self.token) + large + b"\xbe" * 12_000))
            except (OSError, ssl.SSLError):
                break
        self.assertNotEqual(self.status_of(connection, 1), b"0")

    def test_frames_of_wrong_sizes_and_places(self):
        # code: FRAME_SIZE_ERROR 6, PROTOCOL_ERROR 1, COMPRESSION_ERROR 9, STREAM_CLOSED 5
        for name, bad, codes in (("too large", frame(DATA, 0, 1, b"x" * 20_000), (6,)), ("a short ping", frame(PING, 0, 0, b"x"), (6,)),
                                 ("a ping on a stream", frame(PING, 0, 1, b"12345678"), (1,)),
                                 ("settings that are cut", frame(SETTINGS, 0, 0, b"abc"), (6,)),
                                 ("data on no stream", frame(DATA, 0, 0, b"x"), (1,)), ("data on an idle stream", frame(DATA, 0, 9, b"x"), (1,)),
                                 ("an even stream", frame(HEADERS, END_HEADERS, 2, request()), (1,)),
                                 ("a promise by a client", frame(PUSH_PROMISE, END_HEADERS, 1, struct.pack(">I", 2)), (1,)),
                                 ("a block that is no HPACK", frame(HEADERS, END_HEADERS, 1, b"\xff" * 20), (9,)),
                                 ("an index beyond the table", frame(HEADERS, END_HEADERS, 1, b"\xfe"), (9,)),
                                 ("a table beyond its limit", frame(HEADERS, END_HEADERS, 1, b"\x3f\xff\xff\x7f" + request()), (9,)),
                                 ("something else inside a block", frame(HEADERS, 0, 1, request()) + frame(PING, 0, 0, b"12345678"), (1,)),
                                 ("padding longer than the frame", frame(DATA, 8, 1, b"\xff"), (1,))):
            with self.subTest(name):
                connection = self.connect()
                self.pour(connection, [bad])
                self.assertIn(self.end_of(connection), codes)

    def test_headers_that_no_request_has(self):
        for name, more in (("upper case", field("X-Upper", "a")), ("a connection header", field("connection", "close")),
                           ("an encoding of transfer", field("transfer-encoding", "chunked")), ("a second path", field(":path", "/other")),
                           ("a pseudo header behind", field(":unknown", "x")), ("a line break", field("x-a", "b\r\nx-evil: 1")),
                           ("a zero byte", field("x-a", b"b\0c"))):
            with self.subTest(name):
                connection = self.connect()
                connection.sendall(frame(HEADERS, END_HEADERS, 1, request(self.token, more=more)) + frame(DATA, END_STREAM, 1, message()))
                self.assertNotEqual(self.status_of(connection, 1), b"0")

    def test_messages(self):
        bomb = gzip.compress(b"\0" * (48 << 20), 9)
        self.assertLess(len(bomb), 60_000, "all of it fits into the window that a stream begins with")
        block = request(self.token, more=field("grpc-encoding", "gzip"))
        for name, head, first in (("a bomb", block, message(bomb, compressed=1)), ("a length of 4 GB", block, b"\0\xff\xff\xff\xff"),
                                  ("compressed without an encoding", request(self.token), message(b"x", compressed=1)),
                                  ("a flag that is none", block, message(b"x", compressed=7)),
                                  ("garbage that calls itself gzip", block, message(b"x" * 100, compressed=1))):
            with self.subTest(name):
                connection = self.connect()
                connection.sendall(frame(HEADERS, END_HEADERS, 1, head))
                parts = [first[at:at + 16_000] for at in range(0, len(first), 16_000)]
                # As far as the window allows; the answer comes before.
                self.pour(connection, [frame(DATA, END_STREAM if i + 1 == len(parts) else 0, 1, part) for i, part in enumerate(parts)])
                self.assertNotIn(self.status_of(connection, 1), (b"0", None))


class Slow(Attack):
    def test_calls_that_never_go_on_end_and_hold_nobody_up(self):
        begun = time.monotonic()
        silent = [socket.create_connection(self.address, timeout=60) for _ in range(20)]
        cut = [self.connect(first=PREFACE[:10], timeout=60) for _ in range(20)]
        # A message that says 1,000 bytes and has a few; a block of headers that stays open.
        open_calls = [self.connect(timeout=60) for _ in range(20)]
        for connection in open_calls:
            connection.sendall(frame(HEADERS, END_HEADERS, 1, request(self.token)) + frame(DATA, 0, 1, b"\0\0\0\3\xe8few"))
        slowest = 0.0
        for connection in silent:
            connection.setblocking(False)

        def is_over(connection):
            try:
                return connection.recv(1) == b""
            except BlockingIOError:
                return False
            except OSError:
                return True

        while not all(is_over(connection) for connection in silent):
            self.assertLess(time.monotonic() - begun, 30, "who does not speak TLS is still connected")
            asked = time.monotonic()
            self.assertEqual(self.rest.get("version").status, 200)
            slowest = max(slowest, time.monotonic() - asked)
            time.sleep(0.05)  # the pace of asking, not a wait for something
        self.assertLess(slowest, self.CALM_S)
        for connection in open_calls:
            self.assertNotIn(self.status_of(connection, 1), (b"0",))
        self.assertLess(time.monotonic() - begun, 60)
        for connection in cut:
            self.end_of(connection, 60)
        self.assertLess(time.monotonic() - begun, 90)
