"""A process for `benchmarks.turns` that says back what it is asked."""

import json
import sys

print(json.dumps({"what": "echo"}), flush=True)
for line in sys.stdin:
    print(json.dumps({"said": json.loads(line)}), flush=True)
