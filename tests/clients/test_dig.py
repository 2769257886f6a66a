"""Services found by `dig`: types, selectors, truncation, EDNS, negative answers, TCP, and what is refused."""
import re
import shutil
import socket
import struct
import subprocess
import unittest

from lib.uccp import NodeTest
from lib.wait import wait_until

DIG = shutil.which("dig")


@unittest.skipUnless(DIG, "there is no dig: tools/setup installs bind9-dnsutils")
class Dig(NodeTest):
    agent = False
    feature_level = 2

    def register(self, name, address, port=80, **fields):
        response = self.rest.post("services", {"serviceName": name, "address": address, "port": port, "ttl": "600s", **fields})
        self.assertEqual(response.status, 201, response)
        return response.json["id"]

    @property
    def at(self):
        host, port = self.node.context["dns"].rsplit(":", 1)
        return host, int(port)

    def dig(self, *arguments):
        host, port = self.at
        done = subprocess.run([DIG, f"@{host}", "-p", str(port), "+tries=1", "+time=20", *arguments], capture_output=True,
                              text=True, timeout=60)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return done.stdout

    def short(self, *arguments):
        return sorted(self.dig("+short", *arguments).split("\n"))[1:]

    def status(self, output):
        return re.search(r"status: (\w+)", output).group(1)

    def test_addresses_of_both_families(self):
        for address in ("10.0.0.1", "10.0.0.2", "fd00::7"):
            self.register("both", address)
        self.assertEqual(self.short("both.service.uccp", "A"), ["10.0.0.1", "10.0.0.2"])
        self.assertEqual(self.short("both.service.uccp", "AAAA"), ["fd00::7"])
        output = self.dig("both.service.uccp", "A")
        self.assertRegex(output, r"flags: qr aa rd; QUERY: 1, ANSWER: 2")
        self.assertRegex(output, r"both\.service\.uccp\.\s+5\s+IN\s+A\s+10\.0\.0\.1")

    def test_srv_has_ports_weights_and_addresses_of_its_targets(self):
        self.register("srv", "10.1.0.1", 8080, priority=3, weight=70, ports={"admin": 9000})
        self.register("srv", "fd00::1", 8081)
        self.register("srv", "db.example.org", 8082)
        for name in ("srv.service.uccp", "_srv._tcp.service.uccp"):
            self.assertEqual(self.short(name, "SRV"), ["0 100 8081 fd000000000000000000000000000001.addr.uccp.",
                                                       "0 100 8082 db.example.org.", "3 70 8080 0a010001.addr.uccp."])
        output = self.dig("srv.service.uccp", "SRV")
        self.assertRegex(output, r"0a010001\.addr\.uccp\.\s+5\s+IN\s+A\s+10\.1\.0\.1")
        self.assertRegex(output, r"fd0+1\.addr\.uccp\.\s+5\s+IN\s+AAAA\s+fd00::1")
        self.assertEqual(self.short("0a010001.addr.uccp", "A"), ["10.1.0.1"])
        self.assertEqual(self.short("admin.port.srv.service.uccp", "SRV"), ["3 70 9000 0a010001.addr.uccp."])

    def test_txt_says_who_it_is(self):
        own = self.register("txt", "10.2.0.1", version="1.4.2", metadata={"shard": "7", "quote": 'a "b"'})
        strings = re.findall(r'"((?:[^"\\]|\\.)*)"', self.dig("+short", "txt.service.uccp", "TXT"))
        self.assertEqual(strings, [f"id={own}", "version=1.4.2", r'quote=a \"b\"', "shard=7"])

    def test_version_zone_and_tag_select(self):
        self.register("sel", "10.3.0.1", version="1.2.3", zone="eu-1", capabilities=["pay.refund"])
        self.register("sel", "10.3.0.2", version="1.3.0", zone="eu-2", deployment={"role": "CANARY"})
        self.register("sel", "10.3.0.3", version="2.0.0", zone="eu-1", protocol="grpc")
        wanted = {"1.version.sel": ["10.3.0.1", "10.3.0.2"], "1.2.version.sel": ["10.3.0.1"], "1.2.3.version.sel": ["10.3.0.1"],
                  "eu-1.zone.sel": ["10.3.0.1", "10.3.0.3"], "pay.refund.tag.sel": ["10.3.0.1"], "canary.tag.sel": ["10.3.0.2"],
                  "1.version.eu-1.zone.sel": ["10.3.0.1"], "_sel._grpc": ["10.3.0.3"]}
        for name, addresses in wanted.items():
            self.assertEqual(self.short(f"{name}.service.uccp", "A"), addresses, name)
        self.assertEqual(self.status(self.dig("9.version.sel.service.uccp", "A")), "NXDOMAIN")

    def test_only_healthy_instances_are_answered(self):
        own = self.register("sick", "10.4.0.1")
        self.register("sick", "10.4.0.2")
        self.rest.post(f"services/{own}/heartbeat", {"healthStatus": "UNHEALTHY"})
        wait_until(lambda: self.short("sick.service.uccp", "A") == ["10.4.0.2"])

    def test_what_is_not_there_is_said_with_its_time(self):
        self.register("only4", "10.5.0.1")
        missing = self.dig("nobody.service.uccp", "A")
        self.assertEqual(self.status(missing), "NXDOMAIN")
        self.assertRegex(missing, r"uccp\.\s+5\s+IN\s+SOA\s+ns\.uccp\. hostmaster\.uccp\. 1 3600 600 86400 5")
        no_data = self.dig("only4.service.uccp", "AAAA")
        self.assertEqual(self.status(no_data), "NOERROR")
        self.assertRegex(no_data, r"ANSWER: 0, AUTHORITY: 1")
        self.assertRegex(self.dig("uccp", "SOA"), r"ANSWER: 1")
        self.assertEqual(self.status(self.dig("example.org", "A")), "REFUSED")

    def test_long_answers_are_truncated_and_come_whole_by_tcp(self):
        for number in range(60):
            self.register("many", f"10.6.0.{number}")
        plain = self.dig("+noedns", "+ignore", "many.service.uccp", "A")
        self.assertRegex(plain, r"flags: qr aa tc rd")
        self.assertTrue(5 < int(re.search(r"ANSWER: (\d+)", plain).group(1)) < 60)
        self.assertLessEqual(int(re.search(r"MSG SIZE\s+rcvd: (\d+)", plain).group(1)), 512)
        edns = self.dig("+bufsize=4096", "+ignore", "many.service.uccp", "A")
        self.assertRegex(edns, r"EDNS: version: 0, flags:; udp: 1232")
        self.assertEqual(len(self.short("+bufsize=4096", "many.service.uccp", "A")), 60)
        self.assertEqual(len(self.short("+noedns", "many.service.uccp", "A")), 60, "dig asks again by TCP by itself")
        self.assertEqual(len(self.short("+tcp", "many.service.uccp", "A")), 60)
        self.assertEqual(self.status(self.dig("+edns=1", "+noednsneg", "many.service.uccp", "A")), "BADVERS")

    def test_the_namespace_is_part_of_the_name(self):
        self.rest.post("namespaces", {"name": "shop"})
        body = {"serviceName": "till", "address": "10.7.0.1", "port": 1, "ttl": "600s", "namespace": "shop"}
        made = self.rest.post("services", body)
        self.assertEqual(made.status, 201, made)
        self.assertEqual(self.short("till.service.shop.ns.uccp", "A"), ["10.7.0.1"])
        self.assertEqual(self.status(self.dig("till.service.uccp", "A")), "NXDOMAIN")

    def test_nonsense_does_not_disturb_it(self):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            for packet in (b"", b"x" * 11, b"\0" * 12, b"\xff" * 512, struct.pack(">6H", 7, 0x8000, 1, 0, 0, 0) + b"\0\0\1\0\1",
                           struct.pack(">6H", 1, 0, 1, 0, 0, 0) + b"\xc0\x0c\0\1\0\1"):
                udp.sendto(packet, self.at)
            udp.settimeout(20)
            # Two of these are questions that cannot be read; the others are not answered.
            codes = sorted(udp.recvfrom(600)[0][3] & 15 for _ in range(2))
        self.assertEqual(codes, [1, 1])
        with socket.create_connection(self.at) as tcp:
            tcp.sendall(b"\xff\xffpart of a message")
            self.register("calm", "10.8.0.1")
            self.assertEqual(self.short("calm.service.uccp", "A"), ["10.8.0.1"])
