"""Microsoft's service client."""

import base64
import os
import subprocess
import tempfile
import unittest

import requests
from azure.iot.device import IoTHubDeviceClient, X509
from azure.iot.hub import IoTHubRegistryManager
from azure.iot.hub.models import (
    Configuration,
    ConfigurationContent,
    ConfigurationMetrics,
    ConfigurationQueriesTestInput,
    QuerySpecification,
    Twin,
    TwinProperties,
)
from hub import (
    CA,
    CA_FILE,
    HOST,
    SERVICE,
    HubTest,
    device_string,
    eventually,
    key_of,
    module_string,
    token,
)


class Registry(HubTest):
    def test_device_is_made_once_and_listed(self):
        device = self.make_device()
        self.assertEqual(device.status, "enabled")
        self.assertTrue(device.generation_id.isdigit())
        self.assertEqual(len(key_of(device)), 44)
        self.assertNotEqual(key_of(device), device.authentication.symmetric_key.secondary_key)
        create = self.registry.create_device_with_sas
        response = self.assertRefused(409, create, device.device_id, "", "", "enabled")
        self.assertEqual(response.headers["iothub-errorcode"], "DeviceAlreadyExists")
        found = self.registry.get_device(device.device_id)
        self.assertEqual(key_of(found), key_of(device))
        listed = [each.device_id for each in self.registry.get_devices(1000)]
        self.assertIn(device.device_id, listed)

    def test_absent_device_is_not_found(self):
        response = self.assertRefused(404, self.registry.get_device, "absent")
        self.assertEqual(response.headers["iothub-errorcode"], "DeviceNotFound")
        self.assertRefused(404, self.registry.delete_device, "absent")
        self.assertRefused(404, self.registry.get_twin, "absent")

    def test_etag_guards_changes(self):
        device = self.make_device()
        update = self.registry.update_device_with_sas
        keys = (key_of(device), key_of(device))
        changed = update(device.device_id, device.etag, *keys, "enabled")
        self.assertNotEqual(changed.etag, device.etag)
        self.assertRefused(412, update, device.device_id, device.etag, *keys, "enabled")
        self.assertRefused(412, self.registry.delete_device, device.device_id, device.etag)
        self.registry.delete_device(device.device_id, changed.etag)
        self.assertRefused(404, self.registry.get_device, device.device_id)

    def test_new_life_of_a_name_is_another_generation(self):
        first = self.make_device(name="again")
        self.registry.update_twin("again", Twin(tags={"a": 1}))
        self.registry.delete_device("again")
        second = self.make_device(name="again")
        self.assertNotEqual(first.generation_id, second.generation_id)
        self.assertEqual(self.registry.get_twin("again").tags, {})

    def test_edge_device_has_its_modules(self):
        device = self.make_device(edge=True)
        self.assertTrue(device.capabilities.iot_edge)
        modules = {m.module_id: m for m in self.registry.get_modules(device.device_id)}
        self.assertEqual(set(modules), {"$edgeAgent", "$edgeHub"})
        self.assertEqual(modules["$edgeAgent"].authentication.type, "none")
        self.registry.delete_device(device.device_id)
        self.assertRefused(404, self.registry.get_modules, device.device_id)
        self.assertRefused(404, self.registry.get_module, device.device_id, "$edgeAgent")

    def test_modules_are_made_changed_and_removed(self):
        device = self.make_device()
        name = device.device_id
        module = self.make_module(device)
        self.assertEqual(module.managed_by, "test")
        key = key_of(self.make_device())
        changed = self.registry.update_module_with_sas(name, "led", "x", module.etag, key, key)
        self.assertEqual((key_of(changed), changed.managed_by), (key, "x"))
        self.assertEqual(changed.generation_id, module.generation_id)
        self.assertRefused(409, self.make_module, device)
        self.registry.delete_module(name, "led")
        self.assertRefused(404, self.registry.get_module, name, "led")

    def test_device_has_fifty_modules_at_most(self):
        device = self.make_device(edge=True)
        for number in range(50):
            self.make_module(device, f"m{number}")
        self.assertRefused(413, self.make_module, device, "m50")

    def test_statistics_count(self):
        before = self.registry.get_device_registry_statistics().total_device_count
        device = self.make_device()
        after = self.registry.get_device_registry_statistics()
        self.assertEqual(after.total_device_count, before + 1)
        client = self.client(device_string(device))
        client.connect()
        self.assertEqual(self.registry.get_service_statistics().connected_device_count, 1)


class Twins(HubTest):
    def test_patch_merges_and_replacement_replaces(self):
        device = self.make_device()
        name = device.device_id
        patch = Twin(tags={"site": "a"}, properties=TwinProperties(desired={"a": {"b": 1}, "c": 2}))
        first = self.registry.update_twin(name, patch)
        self.assertEqual(first.tags, {"site": "a"})
        patch = Twin(properties=TwinProperties(desired={"a": {"d": 3}, "c": None}))
        second = self.registry.update_twin(name, patch, first.etag)
        found = {k: v for k, v in second.properties.desired.items() if k[0] != "$"}
        self.assertEqual(found, {"a": {"b": 1, "d": 3}})
        self.assertEqual(second.properties.desired["$version"], 3)
        self.assertRefused(412, self.registry.update_twin, name, patch, first.etag)
        whole = Twin(properties=TwinProperties(desired={"e": [1]}))
        third = self.registry.replace_twin(name, whole)
        found = {k: v for k, v in third.properties.desired.items() if k[0] != "$"}
        self.assertEqual((found, third.tags), ({"e": [1]}, {}))
        self.assertEqual(third.properties.desired["$version"], 4)

    def test_read_twin_can_be_sent_back(self):
        name = self.make_device().device_id
        twin = self.registry.get_twin(name)
        twin.properties.desired["x"] = 1
        twin = self.registry.replace_twin(name, twin, twin.etag)
        self.assertEqual(twin.properties.desired["x"], 1)

    def test_limits_are_kept(self):
        name = self.make_device().device_id
        large = {str(n): "x" * 4000 for n in range(9)}
        for twin in [
            Twin(properties=TwinProperties(desired=large)),
            Twin(properties=TwinProperties(desired={"a b": 1})),
            Twin(properties=TwinProperties(desired={"a": "x" * 4097})),
            Twin(tags={"a": "x" * 4000, "b": "x" * 4000, "c": "x" * 300}),
        ]:
            self.assertRefused(400, self.registry.update_twin, name, twin)
        self.assertEqual(self.registry.get_twin(name).properties.desired["$version"], 1)

    def test_replacement_reaches_the_module(self):
        device = self.make_device()
        module = self.make_module(device)
        client = self.client(module_string(module))
        client.connect()
        patches = []
        client.on_twin_desired_properties_patch_received = patches.append
        client.get_twin()
        whole = Twin(properties=TwinProperties(desired={"whole": True}))
        self.registry.replace_module_twin(device.device_id, "led", whole)
        eventually(lambda: patches, "the replacement")
        self.assertEqual(patches, [{"whole": True, "$version": 2}])


class Deployments(HubTest):
    def content(self, **modules):
        return ConfigurationContent(
            modules_content={
                name: {"properties.desired": desired} for name, desired in modules.items()
            }
        )

    def test_content_replaces_and_makes_modules(self):
        device = self.make_device(edge=True)
        name = device.device_id
        apply = self.configuration.apply_configuration_on_edge_device
        agent = {"schemaVersion": "1.1", "modules": {"led": {"type": "docker"}}}
        content = self.content(**{"$edgeAgent": agent, "led": {"on": True}})
        apply(name, content)
        twin = self.registry.get_module_twin(name, "$edgeAgent")
        self.assertEqual(twin.properties.desired["modules"], {"led": {"type": "docker"}})
        self.assertEqual(twin.properties.desired["$version"], 2)
        led = self.registry.get_module(name, "led")
        self.assertEqual((led.authentication.type, led.managed_by.lower()), ("none", "iotedge"))
        apply(name, content)
        twin = self.registry.get_module_twin(name, "$edgeAgent")
        self.assertEqual(twin.properties.desired["$version"], 3)
        apply(name, self.content(**{"$edgeAgent": {"schemaVersion": "1.1"}}))
        twin = self.registry.get_module_twin(name, "$edgeAgent")
        self.assertNotIn("modules", twin.properties.desired)

    def test_refused_content_changes_nothing(self):
        device = self.make_device(edge=True)
        name = device.device_id
        apply = self.configuration.apply_configuration_on_edge_device
        content = self.content(**{"$edgeAgent": {"a": 1}, "led": {"bad name": 1}})
        self.assertRefused(400, apply, name, content)
        self.assertRefused(404, self.registry.get_module, name, "led")
        twin = self.registry.get_module_twin(name, "$edgeAgent")
        self.assertEqual(twin.properties.desired["$version"], 1)
        plain = self.make_device()
        content = self.content(**{"$edgeAgent": {"a": 1}})
        self.assertRefused(400, apply, plain.device_id, content)


class AutomaticDeployments(HubTest):
    """Configurations, as the service SDK makes them."""

    def make(self, name, tag, priority=1, modules=None, metrics=None):
        modules = modules or {
            "$edgeAgent": {"properties.desired": {"schemaVersion": "1.1", "of": name}}
        }
        configuration = Configuration(
            id=name,
            schema_version="2.0",
            content=ConfigurationContent(modules_content=modules),
            target_condition=f"tags.type='{tag}'",
            priority=priority,
            labels={"who": "test"},
            metrics=ConfigurationMetrics(queries=metrics or {}),
        )
        made = self.configuration.create_configuration(configuration)
        self.addCleanup(self.drop, name)
        return made

    def drop(self, name):
        try:
            self.configuration.delete_configuration(name)
        except Exception:  # the test may have removed it
            pass

    def tagged(self, tag):
        name = self.make_device(edge=True).device_id
        self.registry.update_twin(name, Twin(tags={"type": tag}))
        return name

    def desired(self, device):
        return self.registry.get_module_twin(device, "$edgeAgent").properties.desired

    def test_devices_follow_their_tags_and_fall_back(self):
        device = self.tagged("nano")
        made = self.make("low", "nano")
        self.assertEqual((made.id, made.priority, made.labels), ("low", 1, {"who": "test"}))
        self.assertEqual(self.desired(device)["of"], "low")
        self.make("high", "nano", 2)
        self.assertEqual(self.desired(device)["of"], "high")
        later = self.tagged("nano")
        self.assertEqual(self.desired(later)["of"], "high")
        self.registry.update_twin(later, Twin(tags={"type": "other"}))
        self.assertEqual(self.desired(later)["of"], "high")
        self.assertRefused(409, self.make, "high", "nano")
        self.configuration.delete_configuration("high")
        self.assertEqual(self.desired(device)["of"], "low")
        self.assertRefused(404, self.configuration.get_configuration, "high")

    def test_a_layer_is_put_over_the_base_and_taken_away_again(self):
        device = self.tagged("layered")
        self.make("base", "layered")
        layer = {
            "$edgeAgent": {"properties.desired.modules.led": {"type": "docker"}},
            "led": {"properties.desired": {"on": True}},
        }
        self.make("layer", "layered", 5, layer)
        self.assertEqual(self.desired(device)["modules"], {"led": {"type": "docker"}})
        led = self.registry.get_module_twin(device, "led")
        self.assertEqual(led.properties.desired["on"], True)
        self.configuration.delete_configuration("layer")
        self.assertNotIn("modules", self.desired(device))

    def test_an_automatic_deployment_takes_a_device_back(self):
        device = self.tagged("own")
        self.make("own", "own")
        content = ConfigurationContent(
            modules_content={"$edgeAgent": {"properties.desired": {"of": "hand"}}}
        )
        self.configuration.apply_configuration_on_edge_device(device, content)
        self.assertEqual(self.desired(device)["of"], "own")

    def test_metrics_count_what_devices_report(self):
        devices = [self.tagged("counted") for _ in range(3)]
        mine = "SELECT deviceId FROM devices WHERE tags.type = 'counted'"
        self.make("counted", "counted", metrics={"mine": mine})
        codes = [200, 500]
        for device, code in zip(devices, codes):
            name = self.registry.get_module(device, "$edgeAgent")
            key = base64.b64encode(b"k" * 32).decode()
            self.registry.update_module_with_sas(
                device, "$edgeAgent", "IotEdge", name.etag, key, key
            )
            text = f"HostName={HOST};DeviceId={device};ModuleId=$edgeAgent;SharedAccessKey={key}"
            client = self.client(text)
            client.connect()
            version = client.get_twin()["desired"]["$version"]
            reported = {"lastDesiredVersion": version, "lastDesiredStatus": {"code": code}}
            client.patch_twin_reported_properties(reported)
        found = self.configuration.get_configuration("counted")
        expected = {
            "targetedCount": 3,
            "appliedCount": 3,
            "reportedSuccessfulCount": 1,
            "reportedFailedCount": 1,
        }
        self.assertEqual(found.system_metrics.results, expected)
        self.assertEqual(found.metrics.results, {"mine": 3})
        for name, count in expected.items():
            query = QuerySpecification(query=found.system_metrics.queries[name])
            items = self.registry.query_iot_hub(query).items
            self.assertEqual(len(items), count, name)

    def test_configurations_are_listed_changed_and_tested(self):
        device = self.tagged("moved")
        made = self.make("moved", "elsewhere")
        self.assertNotIn("of", self.desired(device))
        made.target_condition = "tags.type='moved'"
        changed = self.configuration.update_configuration(made, made.etag)
        self.assertNotEqual(changed.etag, made.etag)
        self.assertEqual(self.desired(device)["of"], "moved")
        self.assertRefused(412, self.configuration.update_configuration, made, made.etag)
        changed.content.modules_content["$edgeAgent"] = {"properties.desired": {}}
        self.assertRefused(400, self.configuration.update_configuration, changed, changed.etag)
        names = [one.id for one in self.configuration.get_configurations()]
        self.assertIn("moved", names)
        queries = ConfigurationQueriesTestInput(
            target_condition="tags.a = ", custom_metric_queries={"good": "SELECT * FROM devices"}
        )
        told = self.configuration.test_configuration_queries(queries)
        self.assertIn("literal", told.target_condition_error)
        self.assertEqual(told.custom_metric_query_errors, {})

    def set(self, name, condition, **content):
        configuration = Configuration(
            id=name,
            schema_version="1.0",
            content=ConfigurationContent(**content),
            target_condition=condition,
            priority=1,
        )
        self.addCleanup(self.drop, name)
        return self.configuration.create_configuration(configuration)

    def test_devices_and_modules_are_configured_by_their_tags(self):
        device = self.make_device()
        module = self.make_module(device)
        name = device.device_id
        client = self.client(device_string(device))
        patches = []
        client.on_twin_desired_properties_patch_received = patches.append
        client.connect()
        client.get_twin()
        chiller = {"properties.desired.chiller": {"temperature": 66}}
        self.set("chilled", "tags.type='chiller'", device_content=chiller)
        bright = {"properties.desired.bright": True}
        condition = f"from devices.modules where deviceId='{name}' and tags.type='led'"
        self.set("bright", condition, module_content=bright)
        self.registry.update_twin(name, Twin(tags={"type": "chiller"}))
        eventually(lambda: patches, "the patch")
        self.assertEqual(patches[0]["chiller"], {"temperature": 66})
        self.registry.update_module_twin(name, module.module_id, Twin(tags={"type": "led"}))
        twin = self.registry.get_module_twin(name, module.module_id)
        self.assertEqual(twin.properties.desired["bright"], True)
        for configuration, query in [("chilled", "devices"), ("bright", "devices.modules")]:
            found = self.configuration.get_configuration(configuration).system_metrics
            self.assertEqual(found.results, {"targetedCount": 1, "appliedCount": 1})
            self.assertIn(f"FROM {query} WHERE", found.queries["appliedCount"])
            self.configuration.delete_configuration(configuration)
        twin = self.registry.get_twin(name)
        self.assertNotIn("chiller", twin.properties.desired)
        self.assertRefused(400, lambda: self.set("wrong", "*", module_content=bright))

    def test_what_is_not_valid_is_refused(self):
        self.assertRefused(400, self.make, "bad", "x' AND")
        self.assertRefused(400, self.make, "Bad", "x")
        self.assertRefused(400, self.make, "bad", "x", 1, {"led": {"properties": {}}})
        self.assertRefused(400, self.make, "bad", "x", 1, None, {"q": "SELECT"})


class Queries(HubTest):
    def setUp(self):
        self.names = [self.make_device(edge=n == 0).device_id for n in range(5)]
        for name in self.names:
            self.registry.update_twin(name, Twin(tags={"run": self.names[0]}))

    def ask(self, query, **options):
        return self.registry.query_iot_hub(QuerySpecification(query=query), **options)

    def test_condition_selects(self):
        mine = f"tags.run = '{self.names[0]}'"
        found = self.ask(f"SELECT * FROM devices WHERE {mine}").items
        self.assertEqual(sorted(twin.device_id for twin in found), sorted(self.names))
        query = f"SELECT * FROM devices WHERE {mine} AND deviceId <> '{self.names[1]}'"
        self.assertEqual(len(self.ask(query).items), 4)
        query = f"SELECT * FROM devices WHERE {mine} AND capabilities.iotEdge = true"
        found = self.ask(query).items
        self.assertEqual([twin.device_id for twin in found], [self.names[0]])

    def test_pages_go_on_to_the_end(self):
        query = f"SELECT * FROM devices WHERE tags.run = '{self.names[0]}'"
        found, continuation, pages = [], None, 0
        while True:
            result = self.ask(query, continuation_token=continuation, max_item_count=2)
            found += [twin.device_id for twin in result.items]
            self.assertLessEqual(len(result.items), 2)
            continuation, pages = result.continuation_token, pages + 1
            if not continuation:
                break
        self.assertEqual(sorted(found), sorted(self.names))
        self.assertGreaterEqual(pages, 3)

    def test_modules_are_queried(self):
        query = "SELECT * FROM devices.modules WHERE moduleId = '$edgeAgent' AND deviceId = '{}'"
        found = self.ask(query.format(self.names[0])).items
        self.assertEqual([twin.module_id for twin in found], ["$edgeAgent"])

    def test_wrong_query_is_refused(self):
        self.assertRefused(400, self.ask, "SELECT * FROM devices WHERE")


class Access(HubTest):
    """Who may do what."""

    def get(self, path, authorization=None, method="GET", **options):
        headers = options.pop("headers", {})
        if authorization:
            headers["Authorization"] = authorization
        url = f"https://{HOST}{path}?api-version=2021-04-12"
        return requests.request(method, url, headers=headers, verify=CA_FILE, **options)

    def owner(self, resource=HOST, seconds=60):
        key = SERVICE.split("SharedAccessKey=")[1]
        return token(resource, key, seconds, "iothubowner")

    def test_nothing_answers_without_a_key(self):
        for path in ["/", "/devices", "/twins/x", "/statistics/devices", "/absent"]:
            self.assertEqual(self.get(path).status_code, 401, path)
            self.assertEqual(self.get(path, "Bearer x").status_code, 401, path)

    def test_tokens_are_checked(self):
        self.assertEqual(self.get("/devices", self.owner()).status_code, 200)
        self.assertEqual(self.get("/devices", self.owner(seconds=-5)).status_code, 401)
        self.assertEqual(self.get("/devices", self.owner("other.example")).status_code, 401)
        forged = self.owner().replace("skn=iothubowner", "skn=service")
        self.assertEqual(self.get("/devices", forged).status_code, 401)
        scoped = self.owner(f"{HOST}/devices/a")
        self.assertEqual(self.get("/devices/b", scoped).status_code, 401)
        self.assertEqual(self.get("/devices/a", scoped).status_code, 404)

    def test_wrong_service_key_is_refused(self):
        key = key_of(self.make_device())
        text = SERVICE.split("SharedAccessKey=")[0] + f"SharedAccessKey={key}"
        other = IoTHubRegistryManager.from_connection_string(text)
        self.assertRefused(401, other.get_devices)

    def test_device_manages_its_modules_and_no_more(self):
        device, other = self.make_device(), self.make_device()
        name = device.device_id
        own = token(f"{HOST}/devices/{name}", key_of(device), 60)
        base = f"/devices/{name}/modules"
        made = self.get(f"{base}/led", own, "PUT", json={"moduleId": "led", "deviceId": name})
        self.assertEqual(made.status_code, 200, made.text)
        self.assertEqual(made.json()["authentication"]["type"], "sas")
        again = self.get(f"{base}/led", own, "PUT", json={"moduleId": "led"})
        self.assertEqual((again.status_code, again.json()["errorCode"]), (409, 409301))
        key = key_of(other)
        body = {"authentication": {"type": "sas", "symmetricKey": {"primaryKey": key}}}
        for star in ["*", '"*"']:
            options = {"json": body, "headers": {"If-Match": star}}
            changed = self.get(f"{base}/led", own, "PUT", **options)
            self.assertEqual(changed.status_code, 200, changed.text)
        self.assertEqual(key_of(self.registry.get_module(name, "led")), key)
        self.assertEqual([m["moduleId"] for m in self.get(base, own).json()], ["led"])
        gone = self.get(f"{base}/led", own, "DELETE", headers={"If-Match": "*"})
        self.assertEqual(gone.status_code, 204)
        self.assertEqual(self.get(f"{base}/led", own).status_code, 404)
        for path in ["/devices", f"/devices/{name}", f"/twins/{name}"]:
            self.assertEqual(self.get(path, own).status_code, 401, path)
        foreign = f"/devices/{other.device_id}/modules"
        self.assertEqual(self.get(foreign, own).status_code, 401)

    def test_lower_case_token_is_good_for_its_device(self):
        device = self.make_device(name="Upper-Case")
        own = token(f"{HOST}/devices/upper-case", key_of(device), 60)
        self.assertEqual(self.get("/devices/Upper-Case/modules", own).status_code, 200)

    def test_certificate_is_known_by_its_thumbprint(self):
        with tempfile.TemporaryDirectory() as directory:
            key, certificate = f"{directory}/key.pem", f"{directory}/certificate.pem"
            for number, name in enumerate(["x509-device", "stranger"]):
                subprocess.run(
                    ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
                    + ["-subj", f"/CN={name}"]
                    + ["-keyout", f"{key}{number}", "-out", f"{certificate}{number}"],
                    check=True,
                    capture_output=True,
                )
            fingerprint = subprocess.run(
                ["openssl", "x509", "-noout", "-fingerprint", "-in", f"{certificate}0"],
                check=True,
                capture_output=True,
                text=True,
            ).stdout
            thumbprint = fingerprint.split("=")[1].strip().replace(":", "")
            self.addCleanup(self.forget, "x509-device")
            self.registry.create_device_with_x509(
                "x509-device", thumbprint, thumbprint, "enabled"
            )
            for websockets in [False, True]:
                client = self.x509(key, certificate, 0, websockets)
                client.connect()
                self.assertEqual(client.get_twin()["desired"], {"$version": 1})
                client.disconnect()
            with self.assertRaises(Exception):
                self.x509(key, certificate, 1, False).connect()
            pair = (f"{certificate}0", f"{key}0")
            answer = self.get("/devices/x509-device/modules", cert=pair)
            self.assertEqual(answer.status_code, 200, answer.text)
            answer = self.get("/devices/x509-device", cert=pair)
            self.assertEqual(answer.status_code, 401)

    def x509(self, key, certificate, number, websockets):
        client = IoTHubDeviceClient.create_from_x509_certificate(
            X509(f"{certificate}{number}", f"{key}{number}"),
            HOST,
            "x509-device",
            server_verification_cert=CA,
            websockets=websockets,
        )
        self.addCleanup(client.shutdown)
        return client


if __name__ == "__main__":
    unittest.main()
