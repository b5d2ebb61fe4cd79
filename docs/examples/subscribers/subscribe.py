#!/usr/bin/env python3
"""Prints the events of a room, one a line, for ever, missing none.

    subscribe.py http://127.0.0.1:8080/rooms/lobby/events [CURSOR]

Nothing but the standard library. SLUICE_TOKEN is a token, if one is needed.
A line is the event's id, its type and its data as JSON, separated by tabs; give
the last id that you dealt with as CURSOR to go on there. Messages about the way
things go are on stderr.
"""

import http.client
import json
import os
import random
import sys
import time
import urllib.error
import urllib.parse
import urllib.request


class Subscriber:
    def __init__(self, url, token="", cursor=""):
        self.url, self.token, self.cursor = url, token, cursor
        self.retry = 2.0  # seconds until the next attempt, as the gateway says
        self.failed = 0  # attempts since a stream last began
        self.silence = 40.0  # seconds that mean the stream is dead; the gateway's, from the second stream on

    def run(self, handle):
        """Calls handle(id, type, data) for each event. Returns if there is nothing to come back for."""
        while True:
            try:
                if not self.read(handle):
                    return
            except urllib.error.HTTPError as error:
                if error.code in (400, 401, 403, 404):
                    raise SystemExit(f"{error.code}: {error.read().decode(errors='replace')}")
                self.failed += 1
                tell(f"status {error.code}")
            except (OSError, http.client.HTTPException) as error:
                self.failed += 1
                tell(f"{type(error).__name__}: {error}")
            # After what the gateway asks for; longer each time that fails, and not
            # all clients at once.
            time.sleep(min(self.retry * 2 ** max(0, self.failed - 1), 30) * random.uniform(0.7, 1.3))

    def read(self, handle):
        """Reads one stream to its end. False: there is nothing to come back for."""
        url = self.url
        headers = {"Accept": "text/event-stream", "Cache-Control": "no-cache"}
        if self.token:
            headers["Authorization"] = "Bearer " + self.token
        if self.cursor:
            headers["Last-Event-ID"] = self.cursor
            # In the query as well, since some proxies drop the header.
            url += ("&" if "?" in url else "?") + urllib.parse.urlencode({"after": self.cursor})
        request = urllib.request.Request(url, headers=headers)
        with urllib.request.urlopen(request, timeout=self.silence) as response:
            if response.status == 204:
                return False
            self.blocks(response, handle)
        return True

    def blocks(self, response, handle):
        """Takes a stream apart, as the standard of SSE says."""
        kind, data, last = "", [], None
        for raw in response:
            if not raw.endswith(b"\n"):
                return  # cut in the middle: what is not whole does not count
            line = raw.decode().rstrip("\r\n")
            if not line:
                if data:
                    self.event(last, kind or "message", "\n".join(data), handle)
                if last is not None:
                    self.cursor = last  # only now, since handle has dealt with it
                kind, data, last = "", [], None
                continue
            field, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if field == "event":
                kind = value
            elif field == "data":
                data.append(value)
            elif field == "id":
                last = value
            elif field == "retry" and value.isdigit():
                self.retry = int(value) / 1000

    def event(self, last, kind, data, handle):
        if kind == "sluice.open":
            self.failed = 0
            self.silence = 2.5 * json.loads(data).get("heartbeat", 16)
        elif kind == "sluice.gap":
            tell("events are missing: " + data)
        elif not kind.startswith("sluice."):
            handle(last, kind, data)


def tell(text):
    print("subscribe.py:", text, file=sys.stderr, flush=True)


def show(last, kind, data):
    print(last or "", kind, json.dumps(data), sep="\t", flush=True)


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        raise SystemExit(__doc__)
    try:
        Subscriber(sys.argv[1], os.environ.get("SLUICE_TOKEN", ""), *sys.argv[2:]).run(show)
    except KeyboardInterrupt:
        pass
