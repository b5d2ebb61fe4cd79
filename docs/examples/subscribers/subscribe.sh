#!/usr/bin/env bash
# Prints the data of a room's events for ever, missing none: curl and a few lines.
#
#	subscribe.sh http://127.0.0.1:8080/rooms/lobby/events [CURSOR]
#
# Data of several lines stays several lines. SLUICE_TOKEN is a token, if one is
# needed.
set -u
url=${1:?which stream?} cursor=${2:-} retry=2000

while :; do
	event= data=() id=
	# A heartbeat comes each 15 s, so 40 s of silence mean that the stream is dead.
	while IFS= read -r -t 40 line; do
		line=${line%$'\r'}
		case $line in
		'event: '*) event=${line#event: } ;;
		'data: '*) data+=("${line#data: }") ;;
		'data:') data+=('') ;;
		'id: '*) id=${line#id: } ;;
		'retry: '*) retry=${line#retry: } ;;
		'') # the block is whole
			case $event in
			sluice.gap) echo "events are missing: ${data[*]}" >&2 ;;
			sluice.*) ;;
			*) [[ ${#data[@]} -eq 0 ]] || printf '%s\n' "${data[@]}" ;;
			esac
			cursor=${id:-$cursor} event= data=() id=
			;;
		esac
	done < <(
		# The headers go by stdin, since arguments show in lists of processes.
		exec curl --silent --show-error --fail --no-buffer --connect-timeout 10 --header @- "$url" <<-END
			Accept: text/event-stream
			Last-Event-ID: $cursor
			${SLUICE_TOKEN:+Authorization: Bearer $SLUICE_TOKEN}
		END
	)
	kill "$!" 2>/dev/null # curl, where the silence was too long
	sleep "$((retry / 1000)).$(printf %03d $((retry % 1000)))"
done
