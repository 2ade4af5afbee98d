"""What `helm test` runs: every part is asked whether it works, browsers' way through the proxy included."""

import json
import sys
import urllib.error
import urllib.request


def ask(url, host):
    """What is wrong with an address; nothing when it answers 200. The host to name is said where it counts."""
    request = urllib.request.Request(url, headers={"Host": host} if host else {})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return "" if answer.status == 200 else f"answers {answer.status}"
    except urllib.error.HTTPError as error:
        return f"answers {error.code}: {error.read(300).decode(errors='replace')}"
    except OSError as error:
        return f"does not answer: {error}"


bad = 0
for name, (url, host) in sorted(json.loads(sys.argv[1]).items()):
    wrong = ask(url, host)
    bad += bool(wrong)
    print(f"{name:22} {wrong or 'works'}", flush=True)
sys.exit(1 if bad else 0)
