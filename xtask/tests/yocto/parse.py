"""Parses the layer in argv[1] with BitBake's own parser, without OE-core: the classes that
recipes inherit are empty files, made in argv[2]. Prints each recipe's variables as JSON.

With programs in argv[3], BitBake's fetcher fetches what the binary recipe names, and unpacks it
as a build does; do_install then is what a shell would be given."""

import json
import os
import sys
import types

# Servers that BitBake's wheel does not bring along, and parsing does not ask.
for name in ["hashserv", "hashserv.client", "prserv", "prserv.serv", "prserv.client"]:
    sys.modules[name] = types.ModuleType(name)

import bb.data
import bb.fetch2
import bb.parse
import bb.utils

CLASSES = ["cargo", "core-image", "packagegroup", "systemd", "update-rc.d", "useradd"]
VARIABLES = ["SRC_URI", "do_install", "IMAGE_FEATURES", "IMAGE_INSTALL", "INITSCRIPT_NAME", "RPROVIDES:${PN}"]


class Signatures:
    def finalise(self, *arguments):
        """Nothing is built."""


def parse(path, stubs):
    data = bb.data.init()
    data.setVar("BBPATH", stubs)
    data.setVar("__bbclasstype", "recipe")
    data.setVar("DISTRO_FEATURES", "systemd kobune")
    data.setVar("PN", os.path.basename(path).split("_")[0].removesuffix(".bb"))
    data.setVar("KOBUNE_GIT", "git://git.example.com/kobune.git;branch=main")
    data.setVar("KOBUNE_REV", "0" * 40)
    data.setVar("KOBUNE_PROGRAMS", programs)
    for name, value in PLACES.items():
        data.setVar(name, value)
    recipe = bb.parse.handle(path, data)[""]
    if os.path.basename(path) == "kobune-bin_0.1.0.bb":
        unpack(recipe)
    names = {name: recipe.expand(name) for name in VARIABLES}
    return {name: recipe.getVar(full) for name, full in names.items()}


def unpack(recipe):
    """As do_fetch and do_unpack do it; addresses of files need no server and no cache."""
    recipe.setVar("FILESPATH", os.path.join(os.path.dirname(recipe.getVar("FILE")), "kobune-bin"))
    recipe.setVar("DL_DIR", os.path.join(stubs, "downloads"))
    recipe.setVar("BB_STRICT_CHECKSUM", "1")
    os.makedirs(recipe.getVar("DL_DIR"), exist_ok=True)
    os.makedirs(recipe.getVar("UNPACKDIR"), exist_ok=True)
    fetcher = bb.fetch2.Fetch(recipe.getVar("SRC_URI").split(), recipe, cache=False)
    fetcher.download()
    fetcher.unpack(recipe.getVar("UNPACKDIR"))


layer, stubs, programs = sys.argv[1:]
PLACES = {
    "D": os.path.join(stubs, "image"),
    "UNPACKDIR": os.path.join(stubs, "sources"),
    "bindir": "/usr/bin",
    "libexecdir": "/usr/libexec",
    "localstatedir": "/var",
    "sysconfdir": "/etc",
    "systemd_system_unitdir": "/usr/lib/systemd/system",
}
bb.parse.siggen = Signatures()
os.makedirs(os.path.join(stubs, "classes"))
for name in CLASSES:
    open(os.path.join(stubs, "classes", name + ".bbclass"), "w").close()
parsed = {}
for directory, _, files in os.walk(layer):
    for name in files:
        if name.endswith(".bb"):
            parsed[name] = parse(os.path.join(directory, name), stubs)
print(json.dumps(parsed))
