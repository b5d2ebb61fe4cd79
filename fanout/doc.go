// Package fanout carries room events from whoever publishes them to every
// stream of the room, on every node.
//
//	Log.Append -> the log's feed -> Hub -> the room's ring -> seats -> Stream -> its connection
//
// A room is an ordered log of events, numbered 1, 2, 3 … by the log; an epoch
// names the history that the numbers belong to (position.go, lineage.go). Two
// logs keep rooms: Memory in this process, Redis for any number of nodes.
//
// The Hub holds the rooms that have streams on this node (hub.go). Each keeps
// its newest events in a ring, encoded once for all streams of a kind (ring.go,
// frame.go), and follows the log: the next number is appended, an old one is
// dropped, and anything else means that something was missed, so the room
// catches up from the log before it goes on (room.go, catchup.go).
//
// A Stream has a seat in each of its rooms (seat.go): a place in the ring, not
// a copy. What a stream shows of a room is consecutive; where that cannot be,
// a gap stands before the first event after the hole. Nothing is repeated or
// reordered. Delivery never waits for a reader: a stream that the ring has
// overtaken reads on in the log.
//
// What a stream says is decided in one place (step.go, wire.go), and written in
// one of two ways. Run does it from a goroutine of the stream's own (stream.go).
// Serve takes over the stream's connection (takeover.go), and then one of a few
// shards writes to it, many streams the same bytes (shard.go, batch.go), keeps
// its heartbeats (wheel.go), and is told when its client leaves (poll_linux.go).
package fanout
