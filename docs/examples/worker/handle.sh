#!/bin/sh
# Does one job: writes a letter into the folder $OUTBOX. The job is an event
# whose data is {"to": "ann", "text": "…"}; its envelope comes on stdin, its id
# in $SLUICE_ID.
#
# "At least once" can be twice: if the worker is killed between the work and the
# cursor, the same job comes again. So the letter has the name of the event, and
# appears whole or not at all: to do it twice is to do it once. Where the work is
# a row in a database, make SLUICE_ID its unique key; where it is a request,
# send it as the Idempotency-Key.
set -eu
: "${OUTBOX:=outbox}"
mkdir -p "$OUTBOX"

job=$(cat)
to=$(printf '%s' "$job" | jq -er '.data.to | strings') || {
	# Trying this again will not make it better; exit 0 lets the others pass.
	echo "handle: $SLUICE_ID is not a letter" >&2
	exit 0
}

next=$(mktemp "$OUTBOX/.next.XXXXXX")
printf 'To: %s\n\n%s\n' "$to" "$(printf '%s' "$job" | jq -r '.data.text')" >"$next"
mv "$next" "$OUTBOX/$SLUICE_ID"
