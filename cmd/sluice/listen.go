package main

import (
	"context"
	"net"
	"time"
)

// listen opens a listener whose connections notice that the other end has
// vanished without a word: while nothing is under way by probes, and while
// something is by what is not acknowledged in time. A heartbeat fits into the
// kernel's buffer, so that writing alone would find out only after many minutes.
func listen(ctx context.Context, address string, silence time.Duration) (net.Listener, error) {
	config := net.ListenConfig{
		Control: limitUnacknowledged(silence),
		KeepAliveConfig: net.KeepAliveConfig{
			Enable: true, Idle: silence / 2, Interval: max(silence/6, time.Second), Count: 3,
		},
	}
	return config.Listen(ctx, "tcp", address)
}
