// Package handlers speaks HTTP: it turns requests into what package fanout
// does, and what that says into responses.
//
//	routes.go    every route, in one list
//	streams.go   GET on events: SSE and NDJSON streams
//	takeover.go  their connections, where those are plain HTTP/1.1; elsewhere conn.go
//	history.go   GET on events: pages of history, long polls
//	publish.go   POST on events; body.go and batch.go read what was posted
//	presence.go  who is present, members.go who asks for that; namespaces.go what holds where
//	rooms.go     what is known of a room; listing, purging
//	query.go     rooms, cursors and options out of a request
//	problem.go   every error that a client can see, and its status
//	access.go    who may do what
//	admin.go     metrics and profiles, for the operator's listener
//
// A handler returns an error; one adapter answers it (problem.go). Once a stream
// has begun the only answer left is to end it. Browsers stop for ever on any
// status but 200, so a stream that cannot be had now is answered by 200, a
// goodbye with the time to come back, and the end.
package handlers
