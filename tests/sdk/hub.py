"""What the contract tests share: the hub under test, and waiting."""

import base64
import hashlib
import hmac
import os
import ssl
import threading
import time
import unittest
import urllib.parse
import uuid

import paho.mqtt.client as mqtt
from azure.iot.device import IoTHubDeviceClient, IoTHubModuleClient
from azure.iot.hub import IoTHubConfigurationManager, IoTHubRegistryManager

HOST = "localhost"
SERVICE = os.environ["HUB_CONNECTION_STRING"]
CA_FILE = os.environ["HUB_CA"]
with open(CA_FILE, encoding="ascii") as file:
    CA = file.read()


def token(resource, key, seconds, policy=None):
    """A shared access signature that ends in `seconds`."""
    encoded = urllib.parse.quote(resource, safe="")
    expiry = int(time.time()) + seconds
    digest = hmac.new(base64.b64decode(key), f"{encoded}\n{expiry}".encode(), hashlib.sha256)
    signature = urllib.parse.quote(base64.b64encode(digest.digest()), safe="")
    text = f"SharedAccessSignature sr={encoded}&sig={signature}&se={expiry}"
    return text + (f"&skn={policy}" if policy else "")


def eventually(condition, what, seconds=10):
    """Waits until `condition()` is true and returns what it gave."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f"not within {seconds} s: {what}")


def key_of(identity):
    return identity.authentication.symmetric_key.primary_key


def device_string(device, key=None):
    return f"HostName={HOST};DeviceId={device.device_id};SharedAccessKey={key or key_of(device)}"


def module_string(module, key=None):
    text = f"HostName={HOST};DeviceId={module.device_id};ModuleId={module.module_id}"
    return f"{text};SharedAccessKey={key or key_of(module)}"


class RawClient:
    """A bare MQTT client: says what no SDK would say."""

    def __init__(self, client_id, password, host=HOST):
        self.code = None
        self.ended = threading.Event()
        self.granted = None
        self.messages = []
        self.client = mqtt.Client(client_id=client_id, clean_session=False)
        self.client.username_pw_set(f"{host}/{client_id}/?api-version=2021-04-12", password)
        self.client.tls_set(ca_certs=CA_FILE, tls_version=ssl.PROTOCOL_TLS_CLIENT)
        self.client.on_connect = lambda _c, _u, _f, code: setattr(self, "code", code)
        self.client.on_disconnect = lambda *_: self.ended.set()
        self.client.on_subscribe = lambda _c, _u, _m, granted: setattr(self, "granted", granted)
        self.client.on_message = lambda _c, _u, message: self.messages.append(message)

    def connect(self, keepalive=60):
        self.client.connect(HOST, 8883, keepalive=keepalive)
        self.client.loop_start()
        eventually(lambda: self.code is not None, "CONNACK")
        return self.code

    def close(self):
        self.client.disconnect()
        self.client.loop_stop()


class HubTest(unittest.TestCase):
    """Makes devices of its own, and removes them."""

    @classmethod
    def setUpClass(cls):
        cls.registry = IoTHubRegistryManager.from_connection_string(SERVICE)
        cls.configuration = IoTHubConfigurationManager.from_connection_string(SERVICE)

    def make_device(self, edge=False, name=None):
        name = name or f"d-{uuid.uuid4().hex[:12]}"
        device = self.registry.create_device_with_sas(name, "", "", "enabled", edge)
        self.addCleanup(self.forget, name)
        return device

    def forget(self, name):
        try:
            self.registry.delete_device(name)
        except Exception:  # the test may have removed it
            pass

    def make_module(self, device, name="led"):
        return self.registry.create_module_with_sas(device.device_id, name, "test", "", "")

    def client(self, connection_string, **options):
        kind = IoTHubModuleClient if ";ModuleId=" in connection_string else IoTHubDeviceClient
        client = kind.create_from_connection_string(
            connection_string, server_verification_cert=CA, **options
        )
        self.addCleanup(client.shutdown)
        return client

    def raw(self, client_id, password, **options):
        client = RawClient(client_id, password, **options)
        self.addCleanup(client.close)
        return client

    def assertRefused(self, status, call, *args):
        """`call` is answered with `status`; returns the answer."""
        try:
            call(*args)
        except Exception as error:  # each generated operation has its own type
            response = getattr(error, "response", None)
            self.assertIsNotNone(response, repr(error))
            self.assertEqual(response.status_code, status, response.text)
            return response
        raise self.failureException(f"not refused with {status}")
