#!/bin/sh
# Tells a room of a gateway how a CI job went.
#
#	announce.sh TYPE DATA
#
# SLUICE_URL is the gateway, SLUICE_ROOM the room, SLUICE_TOKEN a token that may
# publish there (none for an open gateway), and SLUICE_KEY what makes this
# announcement itself: the same for each attempt to send it, another for the next
# run.
#
# Trying again is safe because of the key: if the gateway took the event and only
# its answer was lost, it gives the same answer again and writes nothing. Without
# a key, curl must not repeat a POST.
set -eu
type=${1:?of which type is it?} data=${2:?what is there to say?}
: "${SLUICE_URL:?}" "${SLUICE_ROOM:?}" "${SLUICE_KEY:?}"

# The token goes through a pipe: arguments show in lists of processes.
{
	echo "Idempotency-Key: $SLUICE_KEY"
	echo "Event-Type: $type"
	echo "Content-Type: application/json"
	if [ -n "${SLUICE_TOKEN:-}" ]; then echo "Authorization: Bearer $SLUICE_TOKEN"; fi
} | curl --silent --show-error --fail-with-body --header @- \
	--retry 8 --retry-all-errors --retry-max-time 120 --max-time 15 \
	--data-raw "$data" "$SLUICE_URL/rooms/$SLUICE_ROOM/events"
