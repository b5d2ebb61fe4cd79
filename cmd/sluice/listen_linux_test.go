package main

import (
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestConnectionsInheritTheLimitOfWhatIsNotAcknowledged(t *testing.T) {
	ln, err := listen(t.Context(), "127.0.0.1:0", tuning{silence: 30 * time.Second, heartbeat: 15 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	client, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	conn, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	for option, want := range map[int]int{unix.TCP_USER_TIMEOUT: 30000, unix.TCP_KEEPIDLE: 23, unix.TCP_KEEPINTVL: 5, unix.TCP_KEEPCNT: 3} {
		var got int
		if err := raw.Control(func(fd uintptr) { got, err = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, option) }); err != nil || got != want {
			t.Errorf("option %d is %d (%v), want %d", option, got, err, want)
		}
	}
}
