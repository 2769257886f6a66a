"""Service discovery through REST: register, find, keep alive, expire, watch; and what is refused."""
import json
import threading
import time

from lib.uccp import NodeTest
from lib.wait import wait_until


class ServicesTest(NodeTest):
    agent = False

    def register(self, name, address="10.0.0.1", port=80, **fields):
        response = self.rest.post("services", {"serviceName": name, "address": address, "port": port, "ttl": "600s",
                                               **fields})
        self.assertEqual(response.status, 201, response)
        return response.json

    def found(self, name, **query):
        response = self.rest.get("services/discover", name=name, consistency="linearizable", **query)
        self.assertEqual(response.status, 200, response)
        return [service["id"] for service in response.json["services"]]


class Registration(ServicesTest):
    def test_answers_201_the_instance_location_and_etag(self):
        response = self.rest.post("services", {"serviceName": "first", "address": "10.1.0.1", "port": 8080})
        self.assertEqual(response.status, 201, response)
        service = response.json
        self.assertRegex(service["id"], "^svc_[0-9A-Z]{26}$")
        self.assertEqual(service["ttl"], "30s", "the default of the contract")
        self.assertEqual((service["namespace"], service["healthy"], service["healthStatus"]), ("default", True, "HEALTHY"))
        self.assertEqual(response.headers["Location"], f"/api/v1/services/{service['id']}")
        self.assertEqual(response.headers["ETag"], f'"{service["etag"]}"')
        read = self.rest.get(response.headers["Location"])
        self.assertEqual((read.status, read.json["id"]), (200, service["id"]))

    def test_same_id_or_same_endpoint_updates_the_instance(self):
        one = self.register("upsert", "10.2.0.1", 80, labels={"v": "1"})
        by_endpoint = self.register("upsert", "10.2.0.1", 80, labels={"v": "2"})
        self.assertEqual(by_endpoint["id"], one["id"])
        self.assertNotEqual(by_endpoint["etag"], one["etag"])
        by_id = self.register("upsert", "10.2.0.9", 81, id=one["id"])
        self.assertEqual((by_id["id"], by_id["address"]), (one["id"], "10.2.0.9"))
        self.assertEqual(self.found("upsert"), [one["id"]])
        same = self.register("upsert", "10.2.0.9", 81, id=one["id"])
        self.assertEqual(same["etag"], by_id["etag"], "the same content again is no change")

    def test_an_id_of_another_service_name_is_refused(self):
        self.register("owner", "10.3.0.1", id="taken")
        self.assert_problem(self.rest.post("services", {"serviceName": "thief", "address": "10.3.0.2", "port": 1,
                                                        "id": "taken"}), 409, "SERVICE_ID_TAKEN")
        self.assertEqual(self.rest.get("services/taken").json["serviceName"], "owner")

    def test_a_request_id_has_one_effect_and_belongs_to_one_content(self):
        body = {"serviceName": "once", "address": "10.4.0.1", "port": 1, "ttl": "600s"}
        first = self.rest.post("services", body, headers={"Idempotency-Key": "reg-1"})
        again = self.rest.post("services", body, headers={"Idempotency-Key": "reg-1"})
        self.assertEqual((first.status, again.status), (201, 201))
        self.assertEqual(first.json["id"], again.json["id"])
        by_query = self.rest.post("services", body, query={"requestId": "reg-1"})
        self.assertEqual(by_query.json["id"], first.json["id"], by_query)
        other = self.rest.post("services", {**body, "port": 2}, headers={"Idempotency-Key": "reg-1"})
        self.assertEqual(other.status, 409, other)
        self.assertEqual(self.found("once"), [first.json["id"]])

    def test_validate_only_changes_nothing(self):
        response = self.rest.post("services", {"serviceName": "dry", "address": "10.5.0.1", "port": 1},
                                  query={"validateOnly": "true"})
        self.assertIn(response.status, (200, 201), response)
        self.assertEqual(self.found("dry", health="any"), [])

    def test_etag_guards_changes_and_saves_reads(self):
        service = self.register("tagged", "10.6.0.1")
        path, old = f"services/{service['id']}", f'"{service["etag"]}"'
        cached = self.rest.call("GET", path, headers={"If-None-Match": old})
        self.assertEqual((cached.status, cached.body), (304, b""))
        changed = self.rest.call("PATCH", path, {"weight": 7}, headers={"If-Match": old})
        self.assertEqual((changed.status, changed.json["weight"]), (200, 7), changed)
        self.assertEqual(changed.json["address"], "10.6.0.1", "what is not named stays")
        self.assert_problem(self.rest.call("PATCH", path, {"weight": 9}, headers={"If-Match": old}), 412,
                            "ETAG_MISMATCH")
        self.assert_problem(self.rest.delete(path, headers={"If-Match": old}), 412, "ETAG_MISMATCH")
        self.assertEqual(self.rest.get(path).json["weight"], 7)
        self.assertEqual(self.rest.call("GET", path, headers={"If-None-Match": old}).status, 200)

    def test_deregister_answers_204_without_content_and_then_404(self):
        service = self.register("gone", "10.7.0.1")
        response = self.rest.delete(f"services/{service['id']}")
        self.assertEqual((response.status, response.body), (204, b""))
        self.assertEqual(self.found("gone", health="any"), [])
        self.assert_problem(self.rest.delete(f"services/{service['id']}"), 404, "SERVICE_NOT_FOUND")
        self.assert_problem(self.rest.get(f"services/{service['id']}"), 404, "SERVICE_NOT_FOUND")
        self.assert_problem(self.rest.post(f"services/{service['id']}/heartbeat"), 404, "SERVICE_NOT_FOUND")

    def test_namespaces_do_not_see_each_other(self):
        here = self.register("shared-name", "10.8.0.1")
        there = self.register("shared-name", "10.8.0.1", namespace="other")
        self.assertNotEqual(here["id"], there["id"])
        self.assertEqual(self.found("shared-name"), [here["id"]])
        self.assertEqual(self.found("shared-name", namespace="other"), [there["id"]])
        self.assert_problem(self.rest.get(f"services/{there['id']}"), 404)
        self.assertEqual(self.rest.get(f"services/{there['id']}", namespace="other").status, 200)


class Liveness(ServicesTest):
    def test_an_instance_expires_when_its_ttl_passes(self):
        service = self.register("brief", "10.0.1.1", ttl="3s")
        self.assertEqual(self.found("brief"), [service["id"]])
        wait_until(lambda: self.found("brief", health="any") == [], 30, "the expiry")
        self.assert_problem(self.rest.post(f"services/{service['id']}/heartbeat"), 404, "SERVICE_NOT_FOUND")

    def test_heartbeats_keep_it_alive_and_only_it(self):
        kept = self.register("beating", "10.0.2.1", ttl="4s")
        self.register("silent", "10.0.2.2", ttl="4s")
        stop, answers = threading.Event(), []

        def beat():
            rest = self.node.client()
            while not stop.wait(0.3):
                answers.append(rest.post(f"services/{kept['id']}/heartbeat"))
            rest.close()

        beater = threading.Thread(target=beat)
        beater.start()
        try:
            wait_until(lambda: self.found("silent", health="any") == [], 30, "the expiry of the silent one")
            # Both got the same TTL at the same time, and the beating one is still there.
            self.assertEqual(self.found("beating"), [kept["id"]])
        finally:
            stop.set()
            beater.join()
        self.assertEqual({answer.status for answer in answers}, {200})
        self.assertEqual(answers[-1].json["ttl"], "4s")
        self.assertGreater(answers[-1].json["expireTime"], kept["expireTime"])

    def test_a_reported_health_hides_it_from_discover(self):
        service = self.register("ill", "10.0.3.1")
        self.rest.post(f"services/{service['id']}/heartbeat", {"healthStatus": "UNHEALTHY"})
        self.assertEqual(self.found("ill"), [])
        self.assertEqual(self.found("ill", health="any"), [service["id"]])
        self.assertFalse(self.rest.get(f"services/{service['id']}", consistency="linearizable").json["healthy"])
        self.rest.post(f"services/{service['id']}/heartbeat", {"healthStatus": "HEALTHY"})
        self.assertEqual(self.found("ill"), [service["id"]])

    def test_a_restarted_node_gives_every_instance_its_whole_ttl_again(self):
        service = self.register("patient", "10.0.4.1", ttl="3s")
        started = time.monotonic()
        self.node.restart()
        self.assertEqual(self.found("patient"), [service["id"]])
        wait_until(lambda: self.found("patient", health="any") == [], 20, "the expiry after the restart")
        self.assertGreater(time.monotonic() - started, 2.5)


class Discovery(ServicesTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        table = [("a", "1.1.0", "eu", "1", {"tier": "web", "env": "prod"}, {}),
                 ("b", "1.2.5", "eu", "2", {"tier": "web", "env": "dev"}, {"priority": 5}),
                 ("c", "2.0.0", "us", "1", {"tier": "db"}, {"capabilities": ["pay", "refund"]}),
                 ("d", "2.1.0-beta.1", "us", "2", {}, {"protocol": "grpc"}),
                 ("e", "1.2.5", "eu", "1", {"tier": "web"}, {"draining": True})]
        for number, (name, version, region, zone, labels, more) in enumerate(table):
            response = cls.node.rest.post("services", {
                "id": name, "serviceName": "shop", "address": f"10.9.0.{number}", "port": 80, "ttl": "600s",
                "version": version, "region": region, "zone": zone, "labels": labels, **more})
            assert response.status == 201, response

    def test_selects_by_what_is_asked(self):
        table = [({}, "abcd"), ({"version": "^1.1"}, "ab"), ({"version": ">=1.2 <3"}, "bc"), ({"version": "2.0.0"}, "c"),
                 ({"version": "~9"}, ""), ({"region": "eu"}, "ab"), ({"region": "us", "zone": "2"}, "d"),
                 ({"labels": "tier=web"}, "ab"), ({"labels": "tier=web,env!=dev"}, "a"), ({"labels": "!tier"}, "d"),
                 ({"labels": "env in (dev|prod)"}, "ab"), ({"capabilities": ["refund", "pay"]}, "c"),
                 ({"capabilities": "fly"}, ""), ({"protocol": "grpc"}, "d"), ({"health": "any"}, "abcde"),
                 ({"health": "ANY", "labels": "tier=web"}, "abe")]
        for query, expected in table:
            with self.subTest(query):
                self.assertEqual(sorted(self.found("shop", **query)), list(expected))
        self.assertEqual(self.found("nobody"), [])

    def test_orders_by_priority_and_nearness_and_keeps_the_limit(self):
        self.assertEqual(self.found("shop")[-1], "b", "the largest priority value comes last")
        self.assertEqual(self.found("shop", nearRegion="us", nearZone="2")[0], "d")
        self.assertEqual(len(self.found("shop", limit=2)), 2)

    def test_a_bad_question_is_refused(self):
        for query, field in (({"version": ">=1.2 <"}, "version"), ({"labels": "a in ("}, "labels"),
                             ({"health": "maybe"}, "health"), ({"limit": 100000}, "limit"), ({"nmae": "x"}, "nmae"),
                             ({"order": "SIDEWAYS"}, "order")):
            with self.subTest(query):
                self.assert_problem(self.rest.get("services/discover", **query), 400, field=field)

    def test_pages_cover_everything_once(self):
        seen, token = [], ""
        while True:
            page = self.rest.get("services", pageSize=2, pageToken=token, orderBy="id").json
            seen += [service["id"] for service in page["services"]]
            self.assertLessEqual(len(page["services"]), 2)
            token = page.get("nextPageToken", "")
            if not token:
                break
        self.assertEqual(seen, list("abcde"))
        self.assertEqual(self.rest.get("services", countTotal="true", pageSize=1).json["totalSize"], 5)
        only = self.rest.get("services", filter='region = "us" AND version = "2.0.0"').json["services"]
        self.assertEqual([service["id"] for service in only], ["c"])

    def test_a_mask_answers_the_named_fields_and_makes_up_no_others(self):
        part = self.rest.get("services", fields="id,port", pageSize=1, orderBy="id").json["services"][0]
        self.assertEqual(part, {"id": "a", "port": 80})
        part = self.rest.get("services", fields="healthy", pageSize=1, orderBy="id").json["services"][0]
        self.assertEqual(part, {"healthy": True})

    def test_a_page_token_is_not_to_be_made_up(self):
        token = self.rest.get("services", pageSize=1).json["nextPageToken"]
        forged = token[:-2] + ("AA" if token[-2:] != "AA" else "BB")
        for query in ({"pageToken": forged}, {"pageToken": "x"}, {"pageToken": token, "filter": 'region = "us"'}):
            with self.subTest(query):
                self.assert_problem(self.rest.get("services", pageSize=1, **query), 400)


class Watching(ServicesTest):
    def test_ndjson_tells_all_that_is_then_all_that_happens(self):
        self.register("seen", "10.0.5.1", id="seen-1")
        with self.rest.stream("services:watch", query={"name": "seen"}) as stream:
            self.assertEqual(stream.headers["Content-Type"], "application/x-ndjson")
            first = stream.until(lambda item: item["kind"] == "SYNCED")
            self.assertEqual([(i["kind"], i.get("service", {}).get("id")) for i in first],
                             [("ADDED", "seen-1"), ("SYNCED", None)])
            self.register("seen", "10.0.5.2", id="seen-2")
            self.register("unseen", "10.0.5.3", id="unseen-1")
            self.register("seen", "10.0.5.2", id="seen-2", weight=5)
            self.rest.delete("services/seen-1")
            self.register("seen", "10.0.5.4", id="seen-3", ttl="1s")
            events = stream.until(lambda item: item["kind"] == "EXPIRED")
        self.assertEqual([(e["kind"], e["service"]["id"]) for e in events],
                         [("ADDED", "seen-2"), ("UPDATED", "seen-2"), ("REMOVED", "seen-1"), ("ADDED", "seen-3"),
                          ("EXPIRED", "seen-3")])
        self.assertEqual(len({e["cursor"] for e in events}), len(events))

    def test_sse_goes_on_behind_last_event_id_without_gap_or_repeat(self):
        with self.rest.stream("services:watch", sse=True, query={"name": "sse"}) as stream:
            self.assertTrue(stream.headers["Content-Type"].startswith("text/event-stream"))
            last = stream.until(lambda item: item["kind"] == "SYNCED")[-1]
            self.assertEqual(last["_id"], last["cursor"])
            self.register("sse", "10.0.6.1", id="sse-0")
            last = stream.next()
            self.assertEqual((last["kind"], last["service"]["id"]), ("ADDED", "sse-0"))
        for number in range(1, 6):
            self.register("sse", f"10.0.6.{number + 1}", id=f"sse-{number}")
        with self.rest.stream("services:watch", sse=True, query={"name": "sse"},
                              headers={"Last-Event-ID": last["_id"]}) as stream:
            again = stream.until(lambda item: item["service"]["id"] == "sse-5")
        self.assertEqual([(e["kind"], e["service"]["id"]) for e in again], [("ADDED", f"sse-{n}") for n in range(1, 6)])
        with self.rest.stream("services:watch", query={"name": "sse", "since": again[2]["cursor"]}) as stream:
            self.assertEqual([stream.next()["service"]["id"] for _ in range(2)], ["sse-4", "sse-5"])

    def test_a_cursor_outlives_a_killed_server_or_is_called_compacted(self):
        with self.rest.stream("services:watch", query={"name": "crash"}) as stream:
            cursor = stream.until(lambda item: item["kind"] == "SYNCED")[-1]["cursor"]
        self.register("crash", "10.0.7.1", id="crash-1")
        self.node.restart()
        with self.rest.stream("services:watch", query={"name": "crash", "since": cursor}) as stream:
            item = stream.next()
        # Either the change itself, or the honest answer that it is not kept; never silence or a gap.
        if "end" in item:
            self.assertEqual(item["end"]["reason"], "COMPACTED", item)
        else:
            self.assertEqual((item["kind"], item["service"]["id"]), ("ADDED", "crash-1"))

    def test_a_made_up_cursor_is_refused(self):
        for cursor in ("nonsense", "1.x", "-1"):
            with self.subTest(cursor):
                with self.rest.stream("services:watch", query={"since": cursor}) as stream:
                    self.assertEqual(stream.status, 400)

    def test_a_stopping_server_ends_the_stream_with_a_reason(self):
        with self.rest.stream("services:watch", query={"name": "ending"}) as stream:
            stream.until(lambda item: item["kind"] == "SYNCED")
            self.assertEqual(self.node.stop(), 0)
            rest = list(stream)
        self.node.start()
        self.assertTrue(rest, "the stream broke off without a word")
        self.assertIn("RECONNECT", json.dumps(rest))


class BadInput(ServicesTest):
    # None of them ends by itself while revisions are compared.
    GOOD = {"serviceName": "bad-input", "address": "10.0.8.1", "port": 80, "ttl": "600s"}

    def revision(self):
        return self.rest.get("services/discover", name="x", consistency="linearizable").json["revision"]

    def test_every_bad_registration_is_refused_and_changes_nothing(self):
        good = self.GOOD

        def with_(**fields):
            return {**good, **fields}

        table = [
            ("malformed JSON", b'{"serviceName": "x",', 400, None),
            ("nothing", b"", 400, None),
            ("two values", b"{} {}", 400, None),
            ("a list", b"[]", 400, None),
            ("a text", b'"x"', 400, None),
            ("not UTF-8", b'{"serviceName": "\xff\xfe"}', 400, None),
            ("half a surrogate", b'{"serviceName": "\\ud800"}', 400, None),
            ("a key twice", b'{"serviceName":"a","serviceName":"b","address":"1.1.1.1","port":1}', 400, "service.serviceName"),
            ("very deep", b'{"metadata":' + b'{"a":' * 5000 + b"1" + b"}" * 5000 + b"}", 400, None),
            ("a text as port", with_(port="eighty"), 400, "service.port"),
            ("half a port", with_(port=80.5), 400, "service.port"),
            ("port 0", with_(port=0), 400, "service.port"),
            ("a port too large", with_(port=65536), 400, "service.port"),
            ("a huge port", with_(port=2 ** 40), 400, "service.port"),
            ("a number beyond all", with_(port=2 ** 70), 400, None),
            ("a number as name", with_(serviceName=5), 400, "service.serviceName"),
            ("an object as name", with_(serviceName={}), 400, "service.serviceName"),
            ("a bad name", with_(serviceName="a/../b"), 400, "service.serviceName"),
            ("a name too long", with_(serviceName="a" * 129), 400, "service.serviceName"),
            ("an unknown field", with_(prot=1), 400, "service.prot"),
            ("no address", {"serviceName": "x", "port": 1}, 400, "service.address"),
            ("no port", {"serviceName": "x", "address": "1.1.1.1"}, 400, "service.port"),
            ("no name", {"address": "1.1.1.1", "port": 1}, 400, "service.serviceName"),
            ("an empty name", with_(serviceName=""), 400, "service.serviceName"),
            ("a bad address", with_(address="a b"), 400, "service.address"),
            ("a bad enum", with_(healthCheck={"kind": "CARRIER_PIGEON"}), 400, "service.healthCheck.kind"),
            ("an enum by number", with_(healthCheck={"kind": 77}), 400, "service.healthCheck.kind"),
            ("a ttl without unit", with_(ttl="soon"), 400, "service.ttl"),
            ("a ttl too short", with_(ttl="0.5s"), 400, "service.ttl"),
            ("a negative ttl", with_(ttl="-5s"), 400, "service.ttl"),
            ("a ttl too long", with_(ttl="999999999s"), 400, "service.ttl"),
            ("a bad id", with_(id="../../etc/passwd"), 400, "service.id"),
            ("a bad namespace", with_(namespace="UPPER"), 400, "service.namespace"),
            ("a bad label key", with_(labels={"a b": "c"}), 400, None),
            ("a number as label", with_(labels={"a": 5}), 400, None),
            ("labels as list", with_(labels=["a"]), 400, "service.labels"),
            ("too many labels", with_(labels={f"k{i}": "v" for i in range(65)}), 400, "service.labels"),
            ("a label too long", with_(labels={"a": "x" * 64}), 400, None),
            ("a weight out of range", with_(weight=10001), 400, "service.weight"),
            ("a text as bool", with_(draining="yes"), 400, "service.draining"),
        ]
        before = self.revision()
        for name, body, status, field in table:
            with self.subTest(name):
                self.assert_problem(self.rest.call("POST", "services", body), status, field=field)
        self.assertEqual(self.revision(), before, "something was changed")
        # The same message is taken when nothing is wrong with it: the table tests what it says.
        self.assertEqual(self.rest.post("services", good).status, 201)

    def test_a_body_too_large_is_refused_with_413(self):
        before = self.revision()
        rest = self.node.client()
        body = json.dumps({**self.GOOD, "metadata": {"a": "x" * (9 << 20)}}).encode()
        try:
            response = rest.call("POST", "services", body)
        except OSError as error:
            self.fail(f"the connection broke before the answer: {error!r}")
        finally:
            rest.close()
        self.assert_problem(response, 413, "REQUEST_TOO_LARGE")
        self.assertEqual(self.revision(), before)

    def test_a_registration_over_the_record_limit_is_refused(self):
        many = {f"k{i}": "x" * 4096 for i in range(64)}
        response = self.rest.post("services", {**self.GOOD, "metadata": many, "annotations": many, "labels": {}})
        self.assertIn(response.status, (201, 400), response)
        huge = {**self.GOOD, "metadata": {f"k{i}": "x" * 5000 for i in range(64)}}
        self.assert_problem(self.rest.post("services", huge), 400)

    def test_a_body_of_another_type_is_refused(self):
        for kind in ("text/plain", "application/x-www-form-urlencoded", "application/xml"):
            with self.subTest(kind):
                self.assert_problem(self.rest.call("POST", "services", b"{}", headers={"Content-Type": kind}), 415,
                                    "MEDIA_TYPE_UNSUPPORTED")

    def test_paths_and_verbs_that_do_not_exist(self):
        self.assert_problem(self.rest.get("/api/v1/nothing"), 404, "ROUTE_NOT_FOUND")
        self.assert_problem(self.rest.get("/api/v2/services"), 404, "ROUTE_NOT_FOUND")
        self.assert_problem(self.rest.get("/api/v1/services/%zz"), 400)
        response = self.rest.call("PUT", "services", {})
        self.assert_problem(response, 405, "METHOD_NOT_ALLOWED")
        self.assertIn("POST", response.headers["Allow"])
        self.assert_problem(self.rest.get("services/%2e%2e%2fetc"), 400)

    def test_an_unknown_read_level_is_refused(self):
        self.assert_problem(self.rest.get("services", consistency="maybe"), 400)
