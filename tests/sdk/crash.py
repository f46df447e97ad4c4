"""A hub that is killed at any moment: nothing half done, nothing promised lost.

Starts and kills its own hub, unlike the other tests.
"""

import os
import random
import signal
import subprocess
import threading
import time
import unittest

PROGRAM = os.environ["HUB_PROGRAM"]
STATE = os.environ["HUB_STATE"]


class Process:
    """The hub as a process."""

    def start(self):
        self.process = subprocess.Popen(
            [PROGRAM, "serve", "--state", STATE],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        for line in self.process.stdout:
            if line.startswith("listening"):
                return
        raise AssertionError("the hub does not start")

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.process.stdout.close()


HUB = Process()
HUB.start()
with open(f"{STATE}/service.connection-string", encoding="ascii") as file:
    os.environ["HUB_CONNECTION_STRING"] = file.read().strip()
os.environ["HUB_CA"] = os.environ["REQUESTS_CA_BUNDLE"] = f"{STATE}/ca.pem"

from azure.iot.device import MethodResponse  # noqa: E402
from azure.iot.hub.models import CloudToDeviceMethod  # noqa: E402
from azure.iot.hub.models import ConfigurationContent, Twin, TwinProperties  # noqa: E402
from hub import HubTest, device_string, eventually  # noqa: E402

MODULES = ["$edgeAgent", "$edgeHub", "led"]


def tearDownModule():
    HUB.kill()


class Crash(HubTest):
    def test_deployment_is_there_whole_or_not_at_all(self):
        name = self.make_device(edge=True).device_id
        acknowledged = self.apply(name, 0)
        for _ in range(8):
            stop = threading.Event()
            last = [acknowledged]

            def hammer():
                while not stop.is_set():
                    try:
                        last[0] = self.apply(name, last[0] + 1)
                    except Exception:  # the hub is dead
                        return

            thread = threading.Thread(target=hammer)
            thread.start()
            time.sleep(0.1 + random.random() / 4)
            HUB.kill()
            stop.set()
            thread.join()
            HUB.start()
            twins = [self.registry.get_module_twin(name, module) for module in MODULES]
            found = [twin.properties.desired["marker"] for twin in twins]
            versions = [twin.properties.desired["$version"] for twin in twins]
            self.assertEqual(len(set(found)), 1, found)
            self.assertEqual(len(set(versions)), 1, versions)
            self.assertIn(found[0], [last[0], last[0] + 1])
            acknowledged = found[0]
        self.assertGreater(acknowledged, 8)

    def apply(self, name, marker):
        content = {module: {"properties.desired": {"marker": marker}} for module in MODULES}
        self.configuration.apply_configuration_on_edge_device(
            name, ConfigurationContent(modules_content=content)
        )
        return marker

    def test_clients_come_back_with_their_subscriptions(self):
        device = self.make_device()
        name = device.device_id
        client = self.client(device_string(device), connection_retry_interval=1)
        client.connect()
        patches = []
        client.on_twin_desired_properties_patch_received = patches.append
        client.on_method_request_received = lambda request: client.send_method_response(
            MethodResponse(request.request_id, 200, None)
        )
        client.patch_twin_reported_properties({"before": 1})
        HUB.kill()
        eventually(lambda: not client.connected, "the loss is seen")
        HUB.start()
        eventually(lambda: client.connected, "connected again", 30)
        update = Twin(properties=TwinProperties(desired={"after": 1}))
        self.registry.update_twin(name, update)
        eventually(lambda: {"after": 1, "$version": 2} in patches, "the patch")
        method = CloudToDeviceMethod(method_name="any", response_timeout_in_seconds=10)
        self.assertEqual(self.registry.invoke_device_method(name, method).status, 200)
        self.assertEqual(self.registry.get_twin(name).properties.reported["before"], 1)


if __name__ == "__main__":
    unittest.main()
