"""Microsoft's device and module clients, over MQTT and MQTT over WebSocket."""

import json
import os
import threading
import time
import unittest
import unittest.mock

from azure.iot.device import IoTHubModuleClient, Message, MethodResponse
from azure.iot.device.exceptions import ClientError, CredentialError
from azure.iot.hub.models import CloudToDeviceMethod, Twin, TwinProperties
from hub import CA_FILE, HOST, HubTest, device_string, eventually, key_of, module_string, token


def desired(**properties):
    return Twin(properties=TwinProperties(desired=properties))


def call(name, payload, answer_within, connect_within):
    return CloudToDeviceMethod(
        method_name=name,
        payload=payload,
        response_timeout_in_seconds=answer_within,
        connect_timeout_in_seconds=connect_within,
    )


class Clients:
    """The same for devices and modules, on both ports."""

    websockets = False
    module = False

    def setUp(self):
        self.device = self.make_device()
        if self.module:
            self.identity = self.make_module(self.device)
            self.string = module_string(self.identity)
        else:
            self.identity = self.device
            self.string = device_string(self.device)

    def start(self, string=None, **options):
        return self.client(string or self.string, websockets=self.websockets, **options)

    def twin(self):
        if self.module:
            return self.registry.get_module_twin(self.device.device_id, "led")
        return self.registry.get_twin(self.device.device_id)

    def patch(self, twin):
        if self.module:
            return self.registry.update_module_twin(self.device.device_id, "led", twin)
        return self.registry.update_twin(self.device.device_id, twin)

    def invoke(self, method):
        if self.module:
            return self.registry.invoke_device_module_method(
                self.device.device_id, "led", method
            )
        return self.registry.invoke_device_method(self.device.device_id, method)

    def messages(self):
        """What the hub has of this client's messages."""
        answer = self.registry.protocol._client.send(
            self.registry.protocol._client.get("/messages/events"), stream=False
        )
        self.assertEqual(answer.status_code, 200, answer.text)
        module = "led" if self.module else None
        return [
            message
            for message in answer.json()["messages"]
            if (message["deviceId"], message["moduleId"]) == (self.device.device_id, module)
        ]

    def test_connects_and_is_seen(self):
        client = self.start()
        client.connect()
        self.assertTrue(client.connected)
        self.assertEqual(self.twin().connection_state, "Connected")
        client.disconnect()
        eventually(lambda: self.twin().connection_state == "Disconnected", "disconnected")

    def test_wrong_key_is_refused(self):
        other = key_of(self.make_device())
        client = self.start(self.string.rsplit(";", 1)[0] + f";SharedAccessKey={other}")
        with self.assertRaises(CredentialError):
            client.connect()

    def test_later_connection_takes_over(self):
        first = self.start(connection_retry=False)
        first.connect()
        second = self.start(connection_retry=False)
        second.connect()
        eventually(lambda: not first.connected, "the first is closed")
        time.sleep(0.2)
        self.assertTrue(second.connected)
        self.assertEqual(second.get_twin()["reported"]["$version"], 1)

    def test_twin_is_read_patched_and_reported(self):
        self.patch(desired(a={"b": 1, "c": 2}))
        client = self.start()
        client.connect()
        patches = []
        client.on_twin_desired_properties_patch_received = patches.append
        twin = client.get_twin()
        self.assertEqual(twin["desired"], {"a": {"b": 1, "c": 2}, "$version": 2})
        self.patch(desired(a={"b": None}, d="x"))
        self.patch(desired(d="y"))
        eventually(lambda: len(patches) == 2, "both patches")
        self.assertEqual(patches[0], {"a": {"b": None}, "d": "x", "$version": 3})
        self.assertEqual(patches[1], {"d": "y", "$version": 4})
        self.assertEqual(
            client.get_twin()["desired"], {"a": {"c": 2}, "d": "y", "$version": 4}
        )
        client.patch_twin_reported_properties({"led": {"on": True, "n": 1}})
        client.patch_twin_reported_properties({"led": {"n": None}})
        reported = self.twin().properties.reported
        self.assertEqual(reported["led"], {"on": True})
        self.assertEqual(reported["$version"], 3)
        self.assertIn("$lastUpdated", reported["$metadata"]["led"]["on"])

    def test_changes_while_away_are_found_by_version(self):
        client = self.start()
        client.connect()
        patches = []
        client.on_twin_desired_properties_patch_received = patches.append
        self.patch(desired(a=1))
        eventually(lambda: patches, "the patch")
        client.disconnect()
        self.patch(desired(a=2))
        self.patch(desired(a=3))
        client.connect()
        self.patch(desired(a=4))
        eventually(lambda: patches[-1].get("a") == 4, "the next patch")
        self.assertEqual(patches[-1]["$version"], 5)
        self.assertEqual(client.get_twin()["desired"], {"a": 4, "$version": 5})

    def test_reported_properties_beyond_a_limit_are_refused(self):
        client = self.start()
        client.connect()
        for patch in [{"a": "x" * 5000}, {"a.b": 1}, {"a": {str(n): "x" * 4000 for n in range(9)}}]:
            with self.assertRaises(ClientError):
                client.patch_twin_reported_properties(patch)
        self.assertEqual(client.get_twin()["reported"], {"$version": 1})

    def test_method_is_called_and_answered(self):
        client = self.start()
        client.connect()
        calls = []

        def answer(request):
            calls.append((request.name, request.payload))
            payload = {"echo": request.payload}
            client.send_method_response(MethodResponse(request.request_id, 418, payload))

        client.on_method_request_received = answer
        method = call("Set Led/%", {"on": True}, 10, 5)
        result = self.invoke(method)
        self.assertEqual((result.status, result.payload), (418, {"echo": {"on": True}}))
        self.assertEqual(calls, [("Set Led/%", {"on": True})])

    def test_method_that_is_not_answered_times_out(self):
        client = self.start()
        client.connect()
        client.on_method_request_received = lambda request: None
        began = time.monotonic()
        method = call("slow", None, 5, 5)
        response = self.assertRefused(504, self.invoke, method)
        self.assertGreater(time.monotonic() - began, 4.5)
        self.assertIn("504101", response.text)

    def test_method_of_a_client_that_is_away_is_refused(self):
        method = call("any", None, 5, 0)
        response = self.assertRefused(404, self.invoke, method)
        self.assertIn("404103", response.text)

    def test_method_waits_for_a_client_that_comes(self):
        client = self.start()

        def come():
            time.sleep(1)
            client.connect()
            client.on_method_request_received = lambda request: client.send_method_response(
                MethodResponse(request.request_id, 200, None)
            )

        thread = threading.Thread(target=come)
        thread.start()
        self.addCleanup(thread.join)
        result = self.invoke(call("any", None, 10, 10))
        self.assertEqual(result.status, 200)

    def test_messages_arrive_with_their_properties(self):
        client = self.start()
        client.connect()
        message = Message(json.dumps({"t": 21.5}), content_encoding="utf-8")
        message.content_type = "application/json"
        message.message_id = "id 1"
        message.custom_properties["room"] = "a&b=c/d?e"
        client.send_message(message)
        client.send_message(Message("x" * 200_000))
        found = self.messages()
        self.assertEqual(found[0]["body"], {"t": 21.5})
        properties = found[0]["properties"]
        self.assertEqual(properties["room"], "a&b=c/d?e")
        self.assertEqual(properties["$.mid"], "id 1")
        self.assertEqual(len(found[1]["body"]), 200_000)


class DeviceOverMqtt(Clients, HubTest):
    pass


class DeviceOverWebSocket(Clients, HubTest):
    websockets = True


class ModuleOverMqtt(Clients, HubTest):
    module = True

    def test_output_is_a_property(self):
        client = self.start()
        client.connect()
        client.send_message_to_output(Message("hello"), "output1")
        self.assertEqual(self.messages()[0]["properties"]["$.on"], "output1")

    def test_module_calls_a_method_of_its_neighbour(self):
        neighbour = self.make_module(self.device, "neighbour")
        other = self.client(module_string(neighbour))
        other.connect()
        other.on_method_request_received = lambda request: other.send_method_response(
            MethodResponse(request.request_id, 200, request.payload)
        )
        environment = {
            "EdgeHubConnectionString": f"{self.string};GatewayHostName={HOST}",
            "EdgeModuleCACertificateFile": CA_FILE,
        }
        with unittest.mock.patch.dict(os.environ, environment):
            client = IoTHubModuleClient.create_from_edge_environment()
        self.addCleanup(client.shutdown)
        client.connect()
        hello = {
            "methodName": "hello",
            "payload": 7,
            "responseTimeoutInSeconds": 10,
            "connectTimeoutInSeconds": 10,
        }
        result = client.invoke_method(hello, self.device.device_id, "neighbour")
        self.assertEqual((result["status"], result["payload"]), (200, 7))


class ModuleOverWebSocket(Clients, HubTest):
    websockets = True
    module = True


class Rules(HubTest):
    """What no SDK does by itself."""

    def setUp(self):
        self.device = self.make_device()
        self.name = self.device.device_id
        self.resource = f"{HOST}/devices/{self.name}"

    def password(self, seconds=600):
        return token(self.resource, key_of(self.device), seconds)

    def test_expired_token_is_refused(self):
        self.assertEqual(self.raw(self.name, self.password(-5)).connect(), 5)

    def test_connection_ends_with_its_token(self):
        client = self.raw(self.name, self.password(3))
        self.assertEqual(client.connect(), 0)
        began = time.monotonic()
        self.assertTrue(client.ended.wait(10))
        self.assertGreater(time.monotonic() - began, 1)

    def test_token_of_another_is_refused(self):
        other = self.make_device()
        password = token(f"{HOST}/devices/{other.device_id}", key_of(other), 600)
        self.assertEqual(self.raw(self.name, password).connect(), 5)

    def test_key_of_a_module_is_not_that_of_its_device(self):
        module = self.make_module(self.device)
        password = token(self.resource, key_of(module), 600)
        self.assertEqual(self.raw(self.name, password).connect(), 5)

    def test_hub_of_another_name_is_refused(self):
        client = self.raw(self.name, self.password(), host="other.example")
        self.assertEqual(client.connect(), 5)

    def test_no_password_is_refused(self):
        self.assertEqual(self.raw(self.name, "").connect(), 5)

    def test_qos_2_ends_the_connection(self):
        client = self.raw(self.name, self.password())
        client.connect()
        client.client.publish(f"devices/{self.name}/messages/events/", "x", qos=2)
        self.assertTrue(client.ended.wait(5))

    def test_qos_1_at_most_is_granted(self):
        client = self.raw(self.name, self.password())
        client.connect()
        client.client.subscribe("$iothub/twin/res/#", qos=2)
        self.assertEqual(eventually(lambda: client.granted, "SUBACK"), (1,))

    def test_foreign_filters_end_the_connection(self):
        for topic in ["#", "devices/other/messages/devicebound/#", "$iothub/#"]:
            client = self.raw(self.name, self.password())
            client.connect()
            client.client.subscribe(topic)
            self.assertTrue(client.ended.wait(5), topic)
            client.close()

    def test_foreign_topics_end_the_connection(self):
        for topic in ["x", "devices/other/messages/events/"]:
            client = self.raw(self.name, self.password())
            client.connect()
            client.client.publish(topic, "x", qos=1)
            self.assertTrue(client.ended.wait(5), topic)
            client.close()

    def test_silence_ends_the_connection(self):
        client = self.raw(self.name, self.password())
        client.connect(keepalive=0x7FFF)
        client.close()
        client = self.raw(self.name, self.password())
        client.client._send_pingreq = lambda: 0
        client.connect(keepalive=2)
        began = time.monotonic()
        self.assertTrue(client.ended.wait(8))
        self.assertGreater(time.monotonic() - began, 1.5)

    def test_disabled_device_is_cut_off_at_once(self):
        module = self.make_module(self.device)
        clients = [
            self.client(device_string(self.device), connection_retry=False),
            self.client(module_string(module), connection_retry=False),
        ]
        for client in clients:
            client.connect()
        secondary = self.device.authentication.symmetric_key.secondary_key
        self.registry.update_device_with_sas(
            self.name, None, key_of(self.device), secondary, "disabled"
        )
        for client in clients:
            eventually(lambda: not client.connected, "cut off", 3)
            with self.assertRaises(CredentialError):
                client.connect()

    def test_deleted_device_is_cut_off_at_once(self):
        client = self.client(device_string(self.device), connection_retry=False)
        client.connect()
        self.registry.delete_device(self.name)
        eventually(lambda: not client.connected, "cut off", 3)

    def test_rotated_key_cuts_off_its_user_only(self):
        keys = self.device.authentication.symmetric_key
        primary, secondary = keys.primary_key, keys.secondary_key
        client = self.client(device_string(self.device, secondary), connection_retry=False)
        client.connect()
        new = key_of(self.make_device())
        self.registry.update_device_with_sas(self.name, None, new, secondary, "enabled")
        time.sleep(0.5)
        self.assertTrue(client.connected)
        self.assertEqual(self.raw(self.name, token(self.resource, primary, 600)).connect(), 5)
        self.registry.update_device_with_sas(self.name, None, new, new, "enabled")
        eventually(lambda: not client.connected, "cut off", 3)
        again = self.client(device_string(self.device, new))
        again.connect()


if __name__ == "__main__":
    unittest.main()
