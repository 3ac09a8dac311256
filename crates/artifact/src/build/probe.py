"""Tells of the interpreter that runs this, as JSON: where it is, and where its library is."""

import json
import os
import sys
import sysconfig

print(
    json.dumps(
        {
            "implementation": sys.implementation.name,
            "version": ".".join(map(str, sys.version_info[:3])),
            "series": "%d.%d" % sys.version_info[:2],
            # A virtual environment has a link to the program that it was made by.
            "program": os.path.realpath(sys.executable),
            "libraries": sorted({sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")}),
        }
    )
)
