"""Parses the layer in argv[1] with BitBake's own parser, without OE-core: the classes that
recipes inherit are empty files, made in argv[2]. Prints each recipe's files and group as JSON."""

import json
import os
import sys
import types

# Servers that BitBake's wheel does not bring along, and parsing does not ask.
for name in ["hashserv", "hashserv.client", "prserv", "prserv.serv", "prserv.client"]:
    sys.modules[name] = types.ModuleType(name)

import bb.data
import bb.parse
import bb.utils

CLASSES = ["cargo", "core-image", "packagegroup", "systemd", "update-rc.d", "useradd"]
VARIABLES = ["SRC_URI", "IMAGE_FEATURES", "IMAGE_INSTALL", "INITSCRIPT_NAME"]


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
    recipe = bb.parse.handle(path, data)[""]
    return {name: recipe.getVar(name) for name in VARIABLES}


layer, stubs = sys.argv[1:]
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
