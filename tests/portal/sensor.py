"""A device that is no edge device: it connects with a key and sends a message."""

import base64
import hashlib
import hmac
import ssl
import threading
import time
import urllib.parse

import paho.mqtt.client as mqtt

HOST = "localhost"
REFUSED = 5


def fields(connection_string):
    return dict(part.split("=", 1) for part in connection_string.split(";"))


def token(resource, key, seconds=600):
    encoded = urllib.parse.quote(resource, safe="")
    expiry = int(time.time()) + seconds
    digest = hmac.new(base64.b64decode(key), f"{encoded}\n{expiry}".encode(), hashlib.sha256)
    signature = urllib.parse.quote(base64.b64encode(digest.digest()), safe="")
    return f"SharedAccessSignature sr={encoded}&sig={signature}&se={expiry}"


class Sensor:
    """One connection; it is not made again by itself."""

    def __init__(self, connection_string):
        known = fields(connection_string)
        self.id = known["DeviceId"]
        self.code = None
        self.answered, self.ended = threading.Event(), threading.Event()
        self.client = mqtt.Client(client_id=self.id, clean_session=True)
        password = token(f"{HOST}/devices/{self.id}", known["SharedAccessKey"])
        self.client.username_pw_set(f"{HOST}/{self.id}/?api-version=2021-04-12", password)
        self.client.tls_set(cert_reqs=ssl.CERT_NONE)
        self.client.tls_insecure_set(True)
        self.client.on_connect = self.connected
        self.client.on_disconnect = lambda *_: self.end()
        self.client.connect(HOST, 8883)
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()
        assert self.answered.wait(30), "no answer to CONNECT"

    def connected(self, _client, _user, _flags, code):
        self.code = code
        self.answered.set()

    def end(self):
        self.ended.set()
        self.answered.set()

    def run(self):
        while not self.ended.is_set() and self.client.loop(1) == mqtt.MQTT_ERR_SUCCESS:
            pass
        self.end()

    def is_connected(self):
        return self.code == 0 and not self.ended.is_set()

    def send(self, text):
        self.client.publish(f"devices/{self.id}/messages/events/", text, qos=1)

    def close(self):
        self.client.disconnect()
        self.thread.join(10)
