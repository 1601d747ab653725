"""A worker: connects to the scraper, takes one line, answers in a few.

Usage: worker.py HOST PORT. Uses the standard library alone and knows nothing of Patchbay; any
program that speaks this little format would do.
"""

import datetime
import socket
import sys
import time

# Pause before the next connection: short after work, longer while there is none.
SHORTEST_SECONDS = 0.2
LONGEST_SECONDS = 2.0


def main(host, port):
    pause = SHORTEST_SECONDS
    while True:
        try:
            worked = serve_one(host, port)
        except OSError as trouble:
            print("no scraper at %s:%d: %s" % (host, port, trouble), flush=True)
            worked = False
        pause = SHORTEST_SECONDS if worked else min(pause * 2, LONGEST_SECONDS)
        time.sleep(pause)


def serve_one(host, port):
    """One connection. Returns whether there was work."""
    with socket.create_connection((host, port), timeout=10) as connection:
        # The scraper keeps a worker in its queue for as long as others have their turn.
        connection.settimeout(300)
        own = connection.getsockname()[0]
        with connection.makefile("rw", encoding="utf-8", newline="\n") as lines:
            target = lines.readline().strip()
            if not target:
                return False
            lines.write(fetch(target, own) + "\n\n")
            lines.flush()
    print("did %s" % target, flush=True)
    return True


def fetch(target, own):
    """Stands for the real work, which would need a network: says who was asked for what, when."""
    now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="microseconds")
    return "target %s\nworker %s on %s\ntime %s" % (target, own, socket.gethostname(), now)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(sys.argv[1], int(sys.argv[2]))
