"""A peer that answers by the protocol without computing anything, and misbehaves as its argument says.

MANNER: "well"; "dies", "hangs" or "fails" on the second row; "refuses" every row; "mute" never comes up; "absent" ends
at once.
"""

import json
import sys
import time

manner = sys.argv[1]
rows = 0


def answer(message):
    print(json.dumps(message), flush=True)


if manner == "absent":
    sys.exit("no module named fake")
if manner == "mute":
    time.sleep(600)
answer({"versions": {"fake": "1.0"}})
for line in sys.stdin:
    request = json.loads(line)
    if "prepare" in request:
        rows += 1
        if manner == "refuses" or (manner == "fails" and rows == 2):
            answer({"error": "TypeError: not this one"})
            continue
        answer({"entries": ["slow", "fast", "broken"]})
    elif request["measure"] == "broken":
        answer({"error": "RuntimeError: out= is not for me"})
    else:
        if rows == 2 and manner == "dies":
            print("a line\nthe last line", file=sys.stderr, flush=True)
            sys.exit(3)
        if rows == 2 and manner == "hangs":
            time.sleep(600)
        answer({"times": [2.0 if request["measure"] == "slow" else 1.0] * 5})
