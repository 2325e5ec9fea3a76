"""A client of the embedded server: attaches, prints the URL, and stays until its input ends."""

import sys

from continuum.embedded import TEST_SETTINGS, Server

if __name__ == "__main__":
    with Server(sys.argv[1], TEST_SETTINGS, idle_stop=float(sys.argv[2])).running() as url:
        print(url, flush=True)
        sys.stdin.read()
