#!/bin/sh
# Does the jobs of a room in the background: each at least once, in order, one
# after the other.
#
#	SLUICE_URL=http://127.0.0.1:8080 ./worker.sh jobs
#
# sluice tail runs handle.sh for each event, and only when that has succeeded
# moves the cursor in $STATE. So a worker that crashed, was killed, or could not
# do a job begins with that very job the next time. The first time it begins
# with the oldest job that the room keeps.
set -u
room=${1:?which room has the jobs?}
here=$(dirname "$0")
: "${STATE:=$room.cursor}"

# sluice tail itself waits for a gateway that is gone. It ends when the handler
# fails (1), which is worth another try, or when it is used wrongly (2), which is
# not; and by 0 when somebody stopped it.
pause=1
while :; do
	began=$(date +%s)
	sluice tail "$room" --types job --after earliest --state "$STATE" --exec "$here/handle.sh"
	code=$?
	[ "$code" -eq 1 ] || exit "$code"
	# Twice as long each time, unless it went well for a while.
	if [ $(($(date +%s) - began)) -gt 60 ]; then pause=1; fi
	echo "worker: trying again in $pause s" >&2
	sleep "$pause"
	if [ "$pause" -lt 60 ]; then pause=$((pause * 2)); fi
done
