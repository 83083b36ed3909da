#!/usr/bin/env python3
"""A line worker: for each line on stdin, the name of a file, one line on stdout, how many lines it has.

    procpool map --lines -- python3 examples/lines/count.py ::: README.md go.mod
"""

import sys

for name in sys.stdin:
    with open(name.rstrip("\n"), "rb") as f:
        print(sum(1 for _ in f), flush=True)
