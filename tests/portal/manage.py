"""Device management in the portal: keys, tags, status, messages, and what readers may."""

import json
import os

from selenium.webdriver.common.by import By

from sensor import REFUSED, Sensor, fields


class Management:
    """Steps of a walk; what they use of it is in `walk.py`."""

    def find_devices(self):
        """More devices than a page has; those that are looked for."""
        listed = lambda: self.text("main table")
        buttons = lambda: [self.find(name).is_displayed() for name in ["#back", "#next"]]
        self.open("#/devices", "Devices")
        self.until("the first page", lambda: self.device in listed())
        assert buttons() == [False, True] and "z-110" not in listed()
        self.picture("devices")
        self.click("#next")
        self.until("the next page", lambda: "z-110" in listed())
        assert buttons() == [True, False] and self.device not in listed()
        self.click("#back")
        self.until("the first page", lambda: self.device in listed())
        self.type("#find-id", "z-10")
        self.click("#find button[type=submit]")
        self.until("what begins so", lambda: self.device not in listed())
        links = lambda: self.driver.find_elements(By.CSS_SELECTOR, "main td a")
        found = self.until("the links", lambda: [link.text for link in links()])
        assert found == [f"z-10{n}" for n in range(10)], found
        self.type("#find-condition", "tags.type =")
        self.click("#find button[type=submit]")
        self.until("the refusal", lambda: "literal" in self.text("#find .error"))
        self.type("#find-id", "")
        self.type("#find-condition", "tags.type = 'nano' AND connectionState = 'Disconnected'")
        self.click("#find button[type=submit]")
        self.until("what has the tag", lambda: "z-10" not in listed())
        assert self.device in listed()
        # Its agent is connected, and so is it.
        assert "Connected" in listed() and "Disconnected" not in listed()

    def enrol_sensor(self):
        """A plain device with tags, which connects; its page follows."""
        self.open("#/enrol", "Enrol")
        self.type("#enrol-id", self.sensor)
        self.click("#enrol input[type=checkbox]")
        self.type("#enrol-tags", "{type: sensor}")
        self.click("#enrol button[type=submit]")
        self.until("the refusal", lambda: "Tags is no valid JSON" in self.text("#enrol .error"))
        self.type("#enrol-tags", '{"type": "sensor"}')
        self.click("#enrol button[type=submit]")
        self.primary = self.text("#connection-string")
        self.click("#to-device")
        self.title(self.sensor)
        self.until("never seen", lambda: self.fact("Last activity") == "never")
        assert self.fact("Connection") == "Disconnected"
        assert not self.driver.find_elements(By.CSS_SELECTOR, "#code, a[href$='/modules']")
        self.connection = Sensor(self.primary)
        assert self.connection.is_connected()
        self.until("the connection", lambda: self.fact("Connection") == "Connected")
        self.until("when it was seen", lambda: self.fact("Last activity").endswith("UTC"))

    def rotate(self, which):
        """Makes a key anew; the connection string with it."""
        self.open(f"#/devices/{self.sensor}/keys", "Keys of")
        self.click(f"#rotate-{which}")
        self.driver.switch_to.alert.accept()
        self.until("the new key", lambda: which in self.text("main section h2"))
        string = self.text("#connection-string")
        assert string not in (self.primary, ""), string
        return string

    def rotate_keys(self):
        """Both keys become new, and there is always one that the device is connected with."""
        self.open(f"#/devices/{self.sensor}/keys", "Keys of")
        self.picture("keys")
        self.click("#rotate-primary")
        self.driver.switch_to.alert.dismiss()
        secondary = self.rotate("secondary")
        self.picture("key")
        assert self.connection.is_connected(), "the other key's connection was cut"
        old, self.connection = self.connection, Sensor(secondary)
        assert self.connection.is_connected()
        assert old.ended.wait(30), "two connections of one device"
        primary = self.rotate("primary")
        assert self.connection.is_connected(), "the other key's connection was cut"
        assert Sensor(self.primary).code == REFUSED, "the old key is good"
        self.open(f"#/devices/{self.sensor}", self.sensor)
        self.until("still connected", lambda: self.fact("Connection") == "Connected")
        for string in [self.primary, secondary, primary]:
            key = fields(string)["SharedAccessKey"]
            assert key not in self.driver.page_source
            for path in ["/devices", f"/devices/{self.sensor}", f"/twins/{self.sensor}", "/events"]:
                assert key not in self.answer(path), path

    def watch_messages(self):
        self.open("#/telemetry", "Telemetry")
        self.connection.send(json.dumps({"temperature": 21.5, "by": self.sensor}))
        self.until("the message", lambda: f'"by":"{self.sensor}"' in self.text("main table"))
        self.picture("message")

    def edit_tags(self):
        self.open(f"#/devices/{self.sensor}", self.sensor)
        self.until("the tags", lambda: '"sensor"' in self.fact("Tags"))
        self.type("#tags", "{")
        self.click("#tags-form button[type=submit]")
        self.until("the refusal", lambda: "no valid JSON" in self.text("#tags-form .error"))
        self.type("#tags", '{"site": {"floor": 3}}')
        self.click("#tags-form button[type=submit]")
        # What is not there any more is removed.
        self.until("the new tags", lambda: self.fact("Tags") == '{"site":{"floor":3}}')

    def disable(self):
        """Cut off at once; let in again when enabled."""
        self.press("Disable")
        self.until("the end", self.connection.ended.is_set)
        self.until("disabled", lambda: self.fact("Status") == "disabled")
        self.until("not connected", lambda: self.fact("Connection") == "Disconnected")
        self.picture("disabled")
        string = self.primary_now()
        assert Sensor(string).code == REFUSED
        self.open(f"#/devices/{self.sensor}", self.sensor)
        self.press("Enable")
        self.until("enabled", lambda: self.fact("Status") == "enabled")
        again = Sensor(string)
        assert again.is_connected()
        again.close()

    def primary_now(self):
        return self.rotate("primary")

    def remove_sensor(self):
        self.press("Delete")
        self.driver.switch_to.alert.accept()
        self.title("Devices")
        self.until("it is gone", lambda: self.sensor not in self.text("main"))
        self.open("#/events", "Events")
        self.type("#events-device", self.sensor)
        self.click("#events button[type=submit]")
        texts = ["created", "primary key", "secondary key", "disabled", "enabled", "deleted"]
        shown = lambda: self.text("main table")
        self.until("its events", lambda: all(text in shown() for text in texts))
        assert f"user {os.environ['PORTAL_USER']}" in shown()

    def deploy_by_tag(self):
        """The third tutorial: what has the tag follows."""
        self.open(f"#/devices/{self.device}", self.device)
        self.type("#tags", '{"type": "nano"}')
        self.click("#tags-form button[type=submit]")
        self.until("the tags", lambda: "nano" in self.fact("Tags"))
        name = f"auto-{self.width}"
        self.open("#/deployments", "Deployments")
        self.type("#deploy-id", name)
        self.type("#deploy-condition", "tags.type='nano")
        content = json.dumps(self.manifest)
        self.fill("#deploy-content", content)
        self.click("#deploy button[type=submit]")
        told = lambda: "Target condition" in self.text("#deploy .error")
        self.until("the refusal of a wrong condition", told)
        self.type("#deploy-condition", "tags.type='nano'")
        self.click("#deploy button[type=submit]")
        self.until("the deployment", lambda: name in self.text("main table"))
        # They are counted again and again, and not only when the page is opened.
        counts = lambda: [
            cell.text.split()[-1]
            for cell in self.driver.find_elements(By.CSS_SELECTOR, "main tbody td")[3:7]
        ]
        self.until("its counts", lambda: counts() == ["1", "1", "1", "0"])
        self.picture("deployments")
        self.open(f"#/devices/{self.device}", self.device)
        applied = f"{name} (Applied)"
        self.until("that it applies", lambda: applied in self.fact("Automatic deployments"))
        self.until("200", lambda: self.text("#code") == "200 -- OK")

    def reader(self):
        """Sees all and changes nothing, whatever is sent."""
        self.sign_in_as("ben")
        self.open("#/devices", "Devices")
        self.until("the devices", lambda: self.device in self.text("main"))
        assert not self.driver.find_elements(By.CSS_SELECTOR, "a[href='#/enrol']")
        assert "null" not in self.text("main")
        self.picture("reader")
        self.open(f"#/devices/{self.device}", self.device)
        self.until("200", lambda: self.text("#code") == "200 -- OK")
        assert not self.driver.find_elements(By.CSS_SELECTOR, "form, a[href$='/modules'], a[href$='/keys']")
        self.open(f"#/devices/{self.device}/troubleshoot", "Troubleshoot")
        self.click("#logs button[type=submit]")
        self.until("a log", lambda: self.text("#log"))
        assert not self.driver.find_elements(By.CSS_SELECTOR, "#restart, #method")
        self.open(f"#/devices/{self.device}/keys", "Keys of")
        self.click("#rotate-primary")
        self.driver.switch_to.alert.accept()
        self.until("the refusal", lambda: "only look" in self.text("#rotate .error"))
        self.click("#sign-out")
        self.title("Sign in")
