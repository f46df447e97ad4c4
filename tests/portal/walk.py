"""The tutorial's second half, clicked through in Chromium: from enrolment to 200 and a log, and
what operators and readers do besides.

PORTAL_* in the environment say who signs in, what to deploy, where pictures go and axe is;
PORTAL_SIZE is the viewport.
"""

import json
import os
import sys
import time
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select, WebDriverWait

from manage import Management

URL = "https://localhost/portal/"
OUTPUT = Path(os.environ["PORTAL_OUTPUT"])
WIDTH, HEIGHT = map(int, os.environ["PORTAL_SIZE"].split("x"))
AXE = Path(os.environ["PORTAL_AXE"]).read_text()
DEVICE = f"walk-{WIDTH}"
MANIFEST = json.loads(os.environ["PORTAL_MANIFEST"])
DESIRED = MANIFEST["modulesContent"]["$edgeAgent"]["properties.desired"]


def browser(profile):
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for flag in [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--disable-dev-shm-usage",
        "--ignore-certificate-errors",
        f"--user-data-dir={profile}",
    ]:
        options.add_argument(flag)
    metrics = {"width": WIDTH, "height": HEIGHT, "pixelRatio": 1.0}
    if WIDTH < 700:
        options.add_experimental_option("mobileEmulation", {"deviceMetrics": metrics})
    else:
        options.add_argument(f"--window-size={WIDTH},{HEIGHT}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return webdriver.Chrome(options, Service("/usr/bin/chromedriver"))


class Walk(Management):
    width, device, sensor, manifest = WIDTH, DEVICE, f"sensor-{WIDTH}", MANIFEST

    def __init__(self, driver):
        self.driver = driver
        self.pictures = 0

    def open(self, page, title):
        self.driver.get(URL + page)
        self.title(title)

    def fact(self, name):
        """What a device's page says of it under `name`."""
        path = f"//dt[normalize-space()='{name}']/following-sibling::dd[1]"
        return self.driver.find_element(By.XPATH, path).text

    def press(self, name):
        """The button that is called so."""
        path = f"//main//button[normalize-space()='{name}']"
        button = self.until(name, lambda: self.driver.find_element(By.XPATH, path))
        self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", button)
        button.click()

    def fill(self, selector, text):
        """For text that would take long to type."""
        script = "arguments[0].value = arguments[1]"
        self.driver.execute_script(script, self.find(selector), text)

    def until(self, what, check, seconds=90):
        try:
            return WebDriverWait(self.driver, seconds, 0.2, [Exception]).until(lambda _: check())
        except Exception as error:
            self.picture("failed")
            page = self.driver.find_element(By.TAG_NAME, "body").text
            raise AssertionError(f"{what} did not come to be; the page says:\n{page}") from error

    def find(self, selector):
        return self.until(selector, lambda: self.driver.find_element(By.CSS_SELECTOR, selector))

    def text(self, selector):
        """What an element says; looked up again where the page was drawn anew meanwhile."""
        look = lambda: [self.driver.find_element(By.CSS_SELECTOR, selector).text]
        return self.until(selector, look)[0]

    def click(self, selector):
        element = self.find(selector)
        self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
        element.click()

    def type(self, selector, text):
        element = self.find(selector)
        element.clear()
        element.send_keys(text)

    def labelled(self, parent, label):
        path = f".//label[starts-with(normalize-space(.), '{label}')]"
        name = parent.find_element(By.XPATH, path).get_attribute("for")
        return self.driver.find_element(By.ID, name)

    def title(self, text):
        self.until(f"the page {text!r}", lambda: text in self.text("h1"))

    def picture(self, name):
        """Takes one, and looks for faults of accessibility and for a page that is too wide."""
        self.pictures += 1
        path = OUTPUT / f"{WIDTH}-{self.pictures:02}-{name}.png"
        self.driver.save_screenshot(str(path))
        if name == "failed":
            return
        self.driver.execute_script(AXE)
        found = self.driver.execute_async_script("axe.run().then(arguments[0])")
        assert found["passes"], "axe looked at nothing"
        serious = [v for v in found["violations"] if v["impact"] in ("serious", "critical")]
        told = [(v["id"], [n["html"] for n in v["nodes"]][:3]) for v in serious]
        assert not told, f"{name}: {told}"
        wide = self.driver.execute_script("return document.documentElement.scrollWidth")
        assert wide <= WIDTH, f"{name}: {wide} pixels wide"

    def sign_in(self):
        self.driver.get(URL)
        self.title("Sign in")
        self.type("#sign-in-user", os.environ["PORTAL_USER"])
        self.type("#sign-in-password", "wrong password")
        self.click("#sign-in button")
        self.until("the refusal", lambda: "wrong" in self.text("#sign-in .error"))
        self.picture("sign-in")
        self.sign_in_as(os.environ["PORTAL_USER"])

    def sign_in_as(self, user):
        """By keyboard alone."""
        self.title("Sign in")
        self.type("#sign-in-user", user)
        self.type("#sign-in-password", os.environ["PORTAL_PASSWORD"] + Keys.ENTER)
        self.until("the pages", self.find("#nav").is_displayed)

    def keyboard(self):
        """Each page starts at its content; back from there are the pages, and what skips them."""
        focused = lambda: self.driver.switch_to.active_element
        at_content = lambda: focused().get_attribute("id") == "main"
        press = lambda *keys: ActionChains(self.driver).send_keys(*keys).perform()
        self.open("", "Devices")
        self.until("the content", at_content)
        names = []
        for _ in range(6):
            back = ActionChains(self.driver).key_down(Keys.SHIFT).send_keys(Keys.TAB)
            back.key_up(Keys.SHIFT).perform()
            names.append(focused().text)
        pages = ["Devices", "Deployments", "Telemetry", "Events"]
        assert names[::-1] == ["Skip to the content", *pages, "Sign out"], names
        press(Keys.ENTER)
        assert at_content(), "the pages are not skipped"
        press(Keys.TAB, Keys.ENTER)
        self.title("Enrol")
        self.until("the content", at_content)
        self.open("", "Devices")

    def enrol(self):
        self.click("a[href='#/enrol']")
        self.title("Enrol")
        self.type("#enrol-id", DEVICE)
        self.click("#enrol button")
        string = self.text("#connection-string")
        assert f"DeviceId={DEVICE};SharedAccessKey=" in string, string
        lines = self.text("#config").splitlines()
        assert lines[-2:] == ['source = "manual"', f'connection_string = "{string}"'], "its lines"
        self.picture("enrolled")
        done = OUTPUT / f"{DEVICE}.connection"
        done.with_suffix(".new").write_text(string)
        done.with_suffix(".new").rename(done)
        self.click("#to-device")
        self.title(DEVICE)
        self.until("417", lambda: self.text("#code").startswith("417"))
        assert "SharedAccessKey=" not in self.driver.page_source

    def set_modules(self):
        self.click(f"a[href$='{DEVICE}/modules']")
        self.title("Set modules")
        for name, module in DESIRED["modules"].items():
            self.click("#add-module")
            fields = self.driver.find_elements(By.CSS_SELECTOR, "#set-modules fieldset")[-1]
            self.labelled(fields, "Module name").send_keys(name)
            self.labelled(fields, "Image URI").send_keys(module["settings"]["image"])
            Select(self.labelled(fields, "Restart policy")).select_by_value("always")
            self.labelled(fields, "Environment variables").send_keys(f"WALK={name}")
            options = self.labelled(fields, "Container create options")
            options.clear()
            options.send_keys("{")
            self.click("#set-modules button[type=submit]")
            told = lambda: f"Create options of {name}" in self.text("#set-modules > .error")
            self.until("the refusal of wrong options", told)
            options.clear()
            text = module["settings"]["createOptions"]
            self.driver.execute_script("arguments[0].value = arguments[1]", options, text)
        for name, registry in DESIRED["runtime"]["settings"]["registryCredentials"].items():
            self.click("#add-registry")
            fields = self.driver.find_elements(By.CSS_SELECTOR, "#set-modules fieldset")[-1]
            self.labelled(fields, "Name").send_keys(name)
            self.labelled(fields, "Address").send_keys(registry["address"])
            self.labelled(fields, "User name").send_keys(registry["username"])
            self.labelled(fields, "Password").send_keys(registry["password"])
        self.picture("set-modules")
        self.click("#set-modules button[type=submit]")
        self.title(DEVICE)
        self.until("200", lambda: self.text("#code") == "200 -- OK")
        for name in DESIRED["modules"]:
            row = f"//tr[td[1][normalize-space()='{name}']]"
            found = lambda: "running" in self.driver.find_element(By.XPATH, row).text
            self.until(f"{name} running", found)
            cells = self.driver.find_elements(By.XPATH, row + "/td")
            cells = [cell.get_attribute("textContent") for cell in cells]
            assert cells[2:4] == ["running", "running"], cells
            assert cells[6] == DESIRED["modules"][name]["settings"]["image"], cells
            assert f'"WALK":{{"value":"{name}"}}' in self.answer(f"/twins/{DEVICE}/modules/%24edgeAgent")
        heads = self.driver.find_elements(By.CSS_SELECTOR, "main table th")
        heads = [head.get_attribute("textContent") for head in heads]
        for head in ["Desired", "Runtime status", "Exit code", "Restarts", "Image"]:
            assert head in heads, heads
        self.picture("running")
        password = next(iter(DESIRED["runtime"]["settings"]["registryCredentials"].values()))
        assert password["password"] not in self.answer(f"/twins/{DEVICE}/modules/%24edgeAgent")

    def answer(self, path):
        """What the portal tells the page."""
        script = "return fetch('/portal/api/hub' + arguments[0]).then((a) => a.text())"
        return self.driver.execute_script(script, path)

    def troubleshoot(self):
        self.click(f"a[href$='{DEVICE}/troubleshoot']")
        self.title("Troubleshoot")
        Select(self.find("#which")).select_by_value("led-acr")
        self.click("#logs button[type=submit]")
        before = self.until("a log", lambda: self.text("#log"))
        self.picture("log")
        self.click("#live")
        self.click("#restart")
        self.until("the live log", lambda: self.text("#log") not in ("", before))
        self.picture("live")
        self.click("#method button[type=submit]")
        self.until("the answer", lambda: self.text("#method pre").startswith("200"))

    def look_around(self):
        self.open("#/telemetry", "Telemetry")
        self.picture("telemetry")
        self.driver.get(URL + "#/events")
        self.title("Events")
        self.until("the event log", lambda: "modules set" in self.text("main table"))
        shown = self.text("main")
        for text in [f"user {os.environ['PORTAL_USER']}", "signed in", "created", f"auto-{WIDTH}"]:
            assert text in shown, (text, shown)
        assert os.environ["PORTAL_PASSWORD"] not in self.driver.page_source
        self.picture("events")
        self.driver.execute_cdp_cmd(
            "Emulation.setEmulatedMedia",
            {"features": [{"name": "prefers-color-scheme", "value": "dark"}]},
        )
        self.driver.get(URL + f"#/devices/{DEVICE}")
        self.title(DEVICE)
        self.until("the state", lambda: self.text("#code") == "200 -- OK")
        self.picture("dark")

    def security(self):
        script = """return fetch('/portal/api/hub/devices/x', {method: 'PUT', body: '{}',
            headers: {'content-type': 'application/json'}}).then((a) => a.status)"""
        assert self.driver.execute_script(script) == 403, "a change without the page's token"
        assert self.driver.execute_script("return document.cookie") == ""
        broken = [e for e in self.driver.get_log("browser") if "Content Security" in e["message"]]
        assert not broken, broken
        self.click("#sign-out")
        self.title("Sign in")
        script = "return fetch('/portal/api/hub/devices').then((a) => a.status)"
        assert self.driver.execute_script(script) == 401


STEPS = [
    "sign_in",
    "keyboard",
    "enrol",
    "set_modules",
    "troubleshoot",
    "deploy_by_tag",
    "find_devices",
    "look_around",
    "enrol_sensor",
    "rotate_keys",
    "watch_messages",
    "edit_tags",
    "disable",
    "remove_sensor",
    "security",
    "reader",
]


def main():
    driver = browser(OUTPUT / f"profile-{WIDTH}")
    try:
        walk = Walk(driver)
        for step in STEPS:
            started = time.monotonic()
            getattr(walk, step)()
            print(f"{step}: {time.monotonic() - started:.1f} s", flush=True)
    finally:
        driver.quit()


if __name__ == "__main__":
    sys.exit(main())
