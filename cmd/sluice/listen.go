package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
)

// A node's listener need not close with its process. Whoever started the
// process may have opened it before and keep it open (inherited), or two
// processes listen beside each other while the one takes over from the other
// (sharePort). What is queued in the kernel when a process closes a listener of
// its own is reset; drain sees to it that nothing is.

// tuning has connections notice that the other end has vanished without a word:
// while nothing is under way by probes, and while something is by what is not
// acknowledged in time. A heartbeat fits into the kernel's buffer, so that
// writing alone would find out only after many minutes.
type tuning struct {
	silence   time.Duration // that the other end is given
	heartbeat time.Duration // of streams
	share     bool          // the port, with another process
}

// probes begin later than a heartbeat, which finds out as well: the kernel
// sends those of all connections that were opened within the same half-second
// at once, and what does not fit into a queue (1000 packets on the loopback
// interface) is dropped, three times over. So thousands of living streams would
// be taken for dead. Heartbeats are spread over time.
func (t tuning) probes() net.KeepAliveConfig {
	idle := max(t.silence/2, t.heartbeat*3/2)
	return net.KeepAliveConfig{Enable: true, Idle: idle, Interval: max(t.silence/6, time.Second), Count: 3}
}

// listen opens a listener.
func listen(ctx context.Context, address string, t tuning) (net.Listener, error) {
	config := net.ListenConfig{KeepAliveConfig: t.probes(), Control: func(_, _ string, c syscall.RawConn) error {
		if err := limitUnacknowledged(c, t.silence); err != nil || !t.share {
			return err
		}
		return sharePort(c)
	}}
	ln, err := config.Listen(ctx, "tcp", address)
	if err != nil || !t.share {
		return ln, err
	}
	if err := takeTheNew(ln.(*net.TCPListener)); err != nil {
		_ = ln.Close()
		return nil, err
	}
	return ln, nil
}

// inherited is the listener that the process was given as it was started
// (LISTEN_FDS, which is how systemd does it), or nil.
func inherited(t tuning) (net.Listener, error) {
	files := activation.Files(true)
	defer func() {
		for _, f := range files {
			_ = f.Close() // listeners are copies
		}
	}()
	switch len(files) {
	case 0:
		return nil, nil
	case 1:
		return inherit(files[0], t)
	}
	return nil, fmt.Errorf("%d sockets were passed to this process (LISTEN_FDS); pass one, for the public listener", len(files))
}

func inherit(file *os.File, t tuning) (net.Listener, error) {
	given, err := net.FileListener(file)
	if err != nil {
		return nil, fmt.Errorf("the socket that was passed to this process (LISTEN_FDS): %w", err)
	}
	ln, ok := given.(*net.TCPListener)
	if !ok {
		_ = given.Close()
		return nil, errors.New("the socket that was passed to this process (LISTEN_FDS) is not one of TCP")
	}
	if raw, err := ln.SyscallConn(); err == nil {
		_ = limitUnacknowledged(raw, t.silence) // some kinds of socket lack it, and probes remain
	}
	return &probing{ln, t.probes()}, nil
}

// probing gives connections their probes, which a listener does by itself if it
// was opened here.
type probing struct {
	*net.TCPListener
	probes net.KeepAliveConfig
}

// Accept implements net.Listener.
func (p *probing) Accept() (net.Conn, error) {
	conn, err := p.AcceptTCP()
	if err != nil {
		return nil, err
	}
	_ = conn.SetKeepAliveConfig(p.probes) // of a connection that has ended by now, at worst
	return conn, nil
}
