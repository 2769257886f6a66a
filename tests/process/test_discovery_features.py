"""Discovery beyond finding by name: versions, places, load, weights, rollouts, catalog, dependency graph."""
import collections
import xml.etree.ElementTree

from lib.wait import wait_until
from test_services import ServicesTest


class Selection(ServicesTest):
    feature_level = 2

    def test_versions_and_capabilities_are_matched(self):
        for number, (version, able) in enumerate((("1.2.0", ["pay"]), ("1.4.9", ["pay", "refund"]), ("2.0.0-rc.1", ["pay"]),
                                                  ("2.1.0", ["pay", "refund"]))):
            self.register("pay", f"10.1.0.{number}", id=f"pay-{version}", version=version, capabilities=able)
        wanted = {"^1.2": ["pay-1.2.0", "pay-1.4.9"], "~1.4": ["pay-1.4.9"], ">=1.3 <2": ["pay-1.4.9"],
                  "2.x": ["pay-2.1.0"], "1.2.0": ["pay-1.2.0"], "<1.3 || >=2.1": ["pay-1.2.0", "pay-2.1.0"]}
        for version, ids in wanted.items():
            self.assertEqual(sorted(self.found("pay", version=version)), ids, version)
        self.assertEqual(sorted(self.found("pay", capabilities="refund")), ["pay-1.4.9", "pay-2.1.0"])
        self.assertEqual(self.found("pay", capabilities="refund", version="^1"), ["pay-1.4.9"])
        self.assertEqual(self.found("pay", capabilities="fly"), [])
        self.assert_problem(self.rest.get("services/discover", name="pay", version=">>1"), 400, "VERSION_INVALID")

    def test_health_version_region_and_zone_filter(self):
        for identity, region, zone in (("a", "eu", "eu-1"), ("b", "eu", "eu-2"), ("c", "us", "us-1")):
            self.register("geo", f"10.2.0.{ord(identity)}", id=f"geo-{identity}", region=region, zone=zone, version="1.0.0")
        self.rest.post("services/geo-b/heartbeat", {"healthStatus": "UNHEALTHY"})
        self.assertEqual(sorted(self.found("geo")), ["geo-a", "geo-c"])
        self.assertEqual(self.found("geo", region="eu"), ["geo-a"])
        self.assertEqual(sorted(self.found("geo", region="eu", health="ANY")), ["geo-a", "geo-b"])
        self.assertEqual(self.found("geo", zone="us-1", version="^1"), ["geo-c"])

    def test_near_instances_come_first(self):
        self.register("near", "10.3.0.1", id="near-us", region="us", zone="us-1", priority=0)
        self.register("near", "10.3.0.2", id="near-eu2", region="eu", zone="eu-2", priority=5)
        self.register("near", "10.3.0.3", id="near-eu1", region="eu", zone="eu-1", priority=5)
        here = {"nearRegion": "eu", "nearZone": "eu-1"}
        self.assertEqual(self.found("near", **here), ["near-us", "near-eu1", "near-eu2"], "priority goes first")
        self.assertEqual(self.found("near", order="NEAREST", **here), ["near-eu1", "near-eu2", "near-us"])

    def test_the_least_loaded_for_its_weight_comes_first(self):
        for identity, weight in (("a", 100), ("b", 100), ("c", 400)):
            self.register("load", f"10.4.0.{ord(identity)}", id=f"load-{identity}", weight=weight)
        for identity, load in (("a", 0.9), ("b", 0.2), ("c", 0.4)):
            self.assertEqual(self.rest.post(f"services/load-{identity}/heartbeat", {"load": load}).status, 200)
        # 0.4 for a weight of 400 is less than 0.2 for one of 100.
        wait_until(lambda: self.found("load", order="LOAD") == ["load-c", "load-b", "load-a"])
        self.assertEqual(self.rest.get("services/load-a", consistency="linearizable").json["load"], 0.9)
        before = self.rest.get("services/load-a", consistency="linearizable").json["etag"]
        self.rest.post("services/load-a/heartbeat", {"load": 0.1})
        wait_until(lambda: self.found("load", order="LOAD")[-1] == "load-b", what="a to be less loaded than b")
        self.assertEqual(self.rest.get("services/load-a", consistency="linearizable").json["etag"], before)

    def test_weight_and_priority_decide_who_is_drawn(self):
        self.register("drawn", "10.5.0.1", id="heavy", weight=900)
        self.register("drawn", "10.5.0.2", id="light", weight=100)
        self.register("drawn", "10.5.0.3", id="spare", weight=1000, priority=10)
        first = collections.Counter()
        for _ in range(300):
            order = self.found("drawn", order="WEIGHTED")
            self.assertEqual(order[-1], "spare", "the other priority is only for when nothing else is there")
            first[order[0]] += 1
        # 270 are expected; six standard deviations are 31.
        self.assertTrue(235 < first["heavy"] < 300, first)

    def test_clients_can_balance_by_what_they_are_told(self):
        """A client keeps the list by watching, and has weights and priorities for its own choice."""
        with self.rest.stream("services:watch", query={"name": "own"}) as stream:
            stream.until(lambda item: item["kind"] == "SYNCED")
            self.register("own", "10.6.0.1", id="own-a", weight=300)
            self.register("own", "10.6.0.2", id="own-b", weight=100, priority=1)
            known = {}
            while len(known) < 2:
                service = stream.next()["service"]
                known[service["id"]] = (service["effectiveWeight"], service.get("priority", 0))
            self.assertEqual(known, {"own-a": (300, 0), "own-b": (100, 1)})
            self.rest.post("services/own-a/heartbeat", {"healthStatus": "DEGRADED"})
            changed = stream.next()["service"]
            self.assertEqual((changed["id"], changed["effectiveWeight"]), ("own-a", 150))


class Rollouts(ServicesTest):
    feature_level = 2

    def shares(self, name, number=400):
        first = collections.Counter(self.found(name, order="WEIGHTED")[0] for _ in range(number))
        return {identity: count / number for identity, count in first.items()}

    def test_blue_and_green_change_places(self):
        def set_live(blue, green):
            self.register("bg", "10.7.0.1", id="blue", deployment={"role": "BLUE", "trafficPercent": blue}, version="1.0.0")
            self.register("bg", "10.7.0.2", id="green", deployment={"role": "GREEN", "trafficPercent": green}, version="2.0.0")
        set_live(100, 0)
        self.assertEqual(self.shares("bg", 60), {"blue": 1})
        self.assertEqual(self.found("bg", role="GREEN"), ["green"], "the other side can be tried")
        set_live(0, 100)
        self.assertEqual(self.shares("bg", 60), {"green": 1})
        self.rest.post("services/green/heartbeat", {"healthStatus": "UNHEALTHY"})
        self.assertEqual(self.shares("bg", 20), {"blue": 1}, "a side that is down leaves its share to the other")

    def test_a_canary_gets_its_share_whatever_its_number(self):
        for number in range(4):
            self.register("can", f"10.8.0.{number}", id=f"stable-{number}", version="1.0.0")
        self.register("can", "10.8.0.9", id="canary", version="1.1.0",
                      deployment={"name": "r7", "role": "CANARY", "trafficPercent": 10})
        share = self.shares("can")["canary"]
        # 0.1 is expected; four standard deviations are 0.06.
        self.assertTrue(0.03 < share < 0.17, share)
        self.assertEqual(self.found("can", deployment="r7"), ["canary"])
        answer = self.rest.call("GET", "services:catalog", query={"query": "can", "consistency": "linearizable"})
        entry = answer.json["entries"][0]
        self.assertEqual(entry["rollout"], "CANARY")
        told = {(v["version"], v["role"]): v["trafficPercent"] for v in entry["versions"]}
        self.assertEqual(told, {("1.0.0", "STABLE"): 90, ("1.1.0", "CANARY"): 10})


class Overview(ServicesTest):
    feature_level = 2

    def read(self, what, **query):
        response = self.rest.call("GET", f"services:{what}", query={"consistency": "linearizable", **query})
        self.assertEqual(response.status, 200, response)
        return response.json

    def test_the_catalog_is_searched_by_words(self):
        self.register("checkout", "10.9.0.1", type="api", version="1.0.0", region="eu", labels={"team": "payments"})
        self.register("checkout", "10.9.0.2", type="api", version="1.1.0", region="us", capabilities=["refund"])
        self.register("checkout-web", "10.9.0.3", protocol="https")
        self.register("ledger", "10.9.0.4", metadata={"about": "what CHECKOUT books"})
        self.register("mailer", "10.9.0.5")

        def names(query):
            return [entry["serviceName"] for entry in self.read("catalog", query=query)["entries"]]
        self.assertEqual(names("checkout"), ["checkout", "checkout-web", "ledger"], "the best first")
        self.assertEqual(names("refund"), ["checkout"])
        self.assertEqual(names("checkout payments"), ["checkout"])
        self.assertEqual(names("checkout mailer"), [])
        self.assertEqual(set(names("")), {"checkout", "checkout-web", "ledger", "mailer"})
        entry = self.read("catalog", query="checkout", limit=1)
        self.assertEqual((len(entry["entries"]), entry["matched"]), (1, 3))
        entry = entry["entries"][0]
        self.assertEqual((entry["instances"], entry["healthy"], entry["regions"]), (2, 2, ["eu", "us"]))
        self.assertEqual(entry["labels"], ["team=payments"])
        done = self.node.cli("-o", "json", "service", "catalog", "refund")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("checkout", done.stdout.decode())

    def test_the_dependency_graph_shows_cycles_and_what_is_missing(self):
        def calls(*names, **more):
            return {"dependencies": [{"serviceName": name} if isinstance(name, str) else name for name in names], **more}
        self.register("shop", "10.10.0.1", **calls({"serviceName": "stock", "version": "^2"}, "users"))
        self.register("stock", "10.10.0.2", version="1.9.0", **calls("users"))
        self.register("users", "10.10.0.3", **calls("stock", {"serviceName": "mail", "optional": True}))
        self.register("alone", "10.10.0.4")
        graph = self.read("graph")
        edges = {(e["source"], e["target"]): e for e in graph["edges"]}
        self.assertEqual(set(edges), {("shop", "stock"), ("shop", "users"), ("stock", "users"), ("users", "stock"),
                                      ("users", "mail")})
        self.assertFalse(edges["shop", "stock"].get("satisfied", False), "1.9.0 is not ^2")
        self.assertTrue(edges["stock", "users"]["satisfied"])
        self.assertTrue(edges["users", "mail"]["optional"])
        self.assertEqual([cycle["services"] for cycle in graph["cycles"]], [["stock", "users"]])
        nodes = {node["id"]: node.get("instances", 0) for node in graph["nodes"]}
        self.assertEqual((nodes["mail"], nodes["alone"]), (0, 1))
        part = self.read("graph", serviceName="stock")
        self.assertEqual({node["id"] for node in part["nodes"]}, {"stock", "users", "mail"})
        dot = self.read("graph", format="DOT")["rendered"]
        self.assertIn('"shop" -> "stock" [label="^2", style=solid, color=red];', dot)
        self.assertIn('"stock" -> "users" [style=bold];', dot)
        picture = xml.etree.ElementTree.fromstring(self.read("graph", format="SVG", serviceName="shop")["rendered"])
        boxes = picture.findall("{http://www.w3.org/2000/svg}g")
        self.assertEqual({(box.find("{http://www.w3.org/2000/svg}title").text, box.get("class")) for box in boxes},
                         {("shop", "up"), ("stock", "up"), ("users", "up"), ("mail", "unknown")})
